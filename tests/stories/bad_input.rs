//! What a hostile or clumsy world sends is refused with a clear word and counted; what stands around it is kept.

use crate::support::*;
use serde_json::Value as Json;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn recorder(dir: &Path, store: &str) -> Site {
    Site::new(dir, "pump-17", store, "")
}

/// The count of one kind of refusal over all sensors.
fn refused(status: &Json, reason: &str) -> u64 {
    let sensors = status["sensors"].as_array().unwrap();
    sensors.iter().filter_map(|s| s["refused"][reason].as_u64()).sum()
}

fn all_refused(status: &Json) -> u64 {
    let sensors = status["sensors"].as_array().unwrap();
    sensors.iter().flat_map(|s| s["refused"].as_object().unwrap().values()).filter_map(Json::as_u64).sum()
}

/// Malformed lines, binary garbage and a line of one MiB between good ones: every good one is kept, every bad one counted.
#[test]
fn good_lines_around_bad_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorder(dir.path(), "");
    let device = site.run();
    let mut client = site.client();
    let bad: [&[u8]; 9] = [
        b"no fields here",
        b"m f=",
        b"m f=1x",
        b"m f=1 12:30",
        b"m,tag= f=1",
        b",tag=1 f=1",
        b"m f=18446744073709551615u",
        b"m f=\"unterminated",
        b"\x00\xff\xfe\x80 \xc3\x28=1",
    ];
    for (n, line) in bad.iter().enumerate() {
        client.write_all(format!("good v={n}i {}\n", n + 1).as_bytes()).unwrap();
        client.write_all(line).unwrap();
        client.write_all(b"\n").unwrap();
    }
    client.write_all(&vec![b'x'; 1 << 20]).unwrap();
    client.write_all(b"\ngood v=99i 99\n").unwrap();
    site.flush();
    let status = site.status();
    assert_eq!(site.count("reading WHERE series = 'good/v'"), bad.len() as i64 + 1);
    assert_eq!(all_refused(&status), bad.len() as u64 + 1, "{:#}", status["sensors"]);
    let log = device.log_text();
    assert!(log.contains("no fields here"), "one sample is logged: {log}");
    assert!(log.lines().filter(|l| l.contains("WARN")).count() < 8, "and not each: {log}");
}

/// NaN and the infinities are kept as what they are; equal stamps are all kept; 1970 is a time like any other; the year
/// 2500 can't be held in 64 bits of nanoseconds, so it is refused and counted.
#[test]
fn odd_values_and_stamps_are_kept_or_refused_by_rule() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorder(dir.path(), "");
    let _device = site.run();
    site.send("odd f=NaN 1\nodd f=inf 2\nodd f=-inf 3\nodd f=1.5 4\nodd f=2.5 4\nodd f=2.5 4\n");
    site.send("odd f=7 0\nodd f=8 16725225600000000000\nodd f=9 -5\n");
    site.flush();
    let rows = site.query("SELECT time, value, quality FROM reading ORDER BY time, value");
    let seen: Vec<(i64, Option<f64>, &str)> = rows
        .iter()
        .map(|r| (r["time"].as_i64().unwrap(), r["value"].as_f64(), r["quality"].as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            (-5, Some(9.0), "ok"),
            (0, Some(7.0), "ok"),
            (1, None, "nan"),
            (2, None, "infinite"),
            (3, None, "infinite"),
            (4, Some(1.5), "ok"),
            (4, Some(2.5), "ok"),
            (4, Some(2.5), "ok"),
        ]
    );
    assert_eq!(all_refused(&site.status()), 1);
}

/// Ten thousand series against a cap of two thousand: the first ones are kept, the rest is a clear, counted refusal, and
/// the ones that were known go on.
#[test]
fn more_series_than_the_cap_are_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorder(dir.path(), "max_series = 2000");
    let device = site.run();
    let lines: String = (0..10_000).map(|n| format!("m,id={n} v=1i 1\n")).collect();
    site.send(&lines);
    site.send("m,id=5 v=2i 2\n");
    site.flush();
    assert_eq!(site.count("series"), 2000);
    assert_eq!(site.count("reading"), 2001);
    assert_eq!(refused(&site.status(), "series-full"), 8000, "{:#}", site.status());
    assert!(device.log_text().contains("max_series"), "the log says which key: {}", device.log_text());
}

/// A client that connects and neither sends nor reads keeps nobody else from the service.
#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorder(dir.path(), "");
    let _device = site.run();
    let mut silent = UnixStream::connect(dir.path().join("control.sock")).unwrap();
    for _ in 0..2000 {
        silent.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        if silent.write_all(b"{\"ask\":\"status\"}\n").is_err() {
            break;
        }
    }
    let _idle: Vec<UnixStream> = (0..4).map(|_| site.client()).collect();
    site.send("m v=1i 1\n");
    site.flush();
    assert_eq!(site.count("reading"), 1);
}

/// A folder that is missing is made; one that can't be written to, or a full disk, is a clear word in `status`, and the
/// readings wait in RAM until there is room.
#[test]
fn a_store_without_room_waits_in_ram_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Tmpfs::new(&dir.path().join("full"), "24m");
    let site = recorder(dir.path(), "commit_interval = \"1s\"");
    let config = std::fs::read_to_string(&site.config).unwrap();
    let db = mount.path.join("deep/er/varved.db");
    std::fs::write(&site.config, config.replace(&site.db().display().to_string(), &db.display().to_string())).unwrap();
    mount.fill("ballast");

    let device = site.run();
    site.send("m v=1i 1\nm v=2i 2\n");
    let fault = wait_for("the fault to be told", 20, || {
        site.status()["recorded"]["fault"].as_str().map(str::to_owned).filter(|f| !f.is_empty())
    });
    assert!(fault.contains("full") || fault.contains("room") || fault.contains("space"), "{fault}");
    assert_eq!(site.status()["risk"]["readings"], 2);
    std::fs::remove_file(mount.path.join("ballast")).unwrap();
    wait_for("the readings to be committed", 60, || (site.status()["risk"]["readings"] == 0).then_some(()));
    let out = Command::new(VARVED)
        .args(["query", "--format", "json", "--db"])
        .arg(&db)
        .arg("SELECT value FROM reading")
        .output();
    assert!(text(&out.unwrap()).contains('2'));
    assert_eq!(device.stop(), Some(0));
}

/// A read-only file system at start: the same, and no crash loop.
#[test]
fn a_read_only_store_is_told_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Tmpfs::new(&dir.path().join("ro"), "64m");
    mount.remount("ro");
    let site = recorder(dir.path(), "commit_interval = \"1s\"");
    let config = std::fs::read_to_string(&site.config).unwrap();
    let db = mount.path.join("varved.db");
    std::fs::write(&site.config, config.replace(&site.db().display().to_string(), &db.display().to_string())).unwrap();
    let device = site.run();
    site.send("m v=1i 1\n");
    let fault = wait_for("the fault to be told", 20, || site.status()["recorded"]["fault"].as_str().map(str::to_owned));
    assert!(fault.contains("ead-only"), "{fault}");
    mount.remount("rw");
    wait_for("the reading to be committed", 60, || {
        site.try_status().filter(|s| s["risk"]["readings"] == 0 && s["recorded"]["committed"] == 1)
    });
    assert_eq!(device.stop(), Some(0));
}

/// What comes over MQTT and is no message of ours, claims 4 GiB, has a wrong checksum, or is of a newer version: refused,
/// counted and named; another device is unaffected.
#[test]
fn hostile_payloads_are_refused_and_others_unaffected() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let mut receiver = fleet.run();
    let uplink = format!("[uplink]\nbroker = \"{}\"", broker.url());
    let site = Site::new(&dir.path().join("site"), "pump-17", "", &uplink);
    let _device = site.run();
    site.send("m v=1i 1\n");
    site.flush();
    wait_for("the good device", 30, || (fleet.count("pump-17") == 1).then_some(()));

    let huge: Vec<u8> = [&[1, 0][..], &[0xff; 9], &[0x7f; 30]].concat();
    let newer: Vec<u8> = [&[99][..], &[0; 40]].concat();
    for payload in [&b"garbage"[..], b"\x01", &huge, &newer, &vec![0xA5; 200_000]] {
        for topic in ["segment", "catalog/0", "state"] {
            publish(&broker, &format!("varved/v1/evil-1/{topic}"), payload);
        }
    }
    publish(&broker, "varved/v1/.hidden/segment", b"x");
    site.send("m v=2i 2\n");
    site.flush();
    wait_for("the good device again", 30, || (fleet.count("pump-17") == 2).then_some(()));
    assert!(receiver.is_running());
    let evil = wait_for("the account to name it", 30, || {
        fleet.devices().as_array().unwrap().iter().find(|d| d["device"] == "evil-1").cloned()
    });
    let counted: u64 = evil["refused"].as_object().unwrap().values().filter_map(Json::as_u64).sum();
    assert!(counted >= 12, "{evil:#}");
    assert!(receiver.log_text().contains("evil-1"));
}

fn publish(broker: &Broker, topic: &str, payload: &[u8]) {
    let port = broker.port.to_string();
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-s"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub; tests/run installs it");
    publisher.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(publisher.wait().unwrap().success());
}

/// While the store can't be opened the service goes on, readings in RAM, and says so to the service manager's watchdog,
/// which would otherwise end it and them.
#[test]
fn the_watchdog_is_answered_while_the_store_is_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorder(dir.path(), "");
    let config = std::fs::read_to_string(&site.config).unwrap();
    let db = site.db().display().to_string();
    std::fs::write(&site.config, config.replace(&db, "/proc/nothing/v.db")).unwrap();
    let manager = std::os::unix::net::UnixDatagram::bind(dir.path().join("notify.sock")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _device = Process::start(
        // The word is meant for one process, by its number.
        Command::new("sh")
            .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" run --config \"$1\"", VARVED])
            .arg(&site.config)
            .env("NOTIFY_SOCKET", dir.path().join("notify.sock"))
            .env("WATCHDOG_USEC", "1500000"),
        &dir.path().join("device.log"),
    );
    let mut heard = Vec::new();
    while heard.iter().filter(|word| *word == "WATCHDOG=1").count() < 2 {
        let mut bytes = [0; 64];
        let n = manager.recv(&mut bytes).unwrap_or_else(|e| panic!("{e}; heard {heard:?}"));
        heard.extend(String::from_utf8_lossy(&bytes[..n]).lines().map(str::to_owned));
    }
}
