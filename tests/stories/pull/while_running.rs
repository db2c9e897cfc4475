//! Pulls from a service that goes on: what they bring, what they cost, and that nobody waits for them.

use super::*;
use crate::support::proxy::{Direction, Proxy, Way};
use std::time::{Duration, Instant};

/// All readings of a running device are in a file for any tool, each once; over the line went hardly more than the store takes,
/// and less than a tenth of what rows would. The second pull brings what is new, the third nothing.
fn brings_all_and_then_what_is_new(locking: &str) {
    const READINGS: u64 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", &format!("locking = \"{locking}\""), "");
    let device = site.run();
    fill(&site, 0, READINGS);
    let forced = format!("restrict,command=\"varved serve-pull --config {}\"", site.config.display());
    let sshd = Sshd::start(&dir.path().join("ssh"), &forced);
    let proxy = Proxy::to(sshd.port, seed());
    let laptop = folder(dir.path(), "laptop");
    std::fs::remove_file(sshd.dir.join("config")).unwrap();
    sshd.configure("board", proxy.port);
    let out = laptop.join("pump-17.db");
    let carried = || proxy.carried(Direction::Up) + proxy.carried(Direction::Down);

    let account = said(&pull(&sshd, &site.db(), &out, &[]));
    assert!(account.contains(&format!("{READINGS} of 50 series; {READINGS} new")), "{account}");
    assert!(account.contains("gaps       none") && account.contains("service    varved"), "{account}");
    only(&laptop, &["pump-17.db"]);
    assert_eq!(stock(&out, "SELECT count(*), count(DISTINCT time) FROM reading"), format!("{READINGS}|{READINGS}"));
    assert_eq!(stock(&out, "PRAGMA integrity_check"), "ok");
    // STRICT tables would need SQLite 3.37.
    assert_eq!(stock(&out, "SELECT count(*) FROM sqlite_master WHERE sql LIKE '%STRICT%'"), "0");
    let (first, file) = (carried(), std::fs::metadata(&out).unwrap().len());
    let store = site.status()["store"].clone();
    let used = (store["pages"].as_u64().unwrap() - store["free_pages"].as_u64().unwrap())
        * store["page_bytes"].as_u64().unwrap();
    println!("{locking}: {first} bytes over the line for a store of {used} and {file} of rows");
    assert!(first as f64 <= 1.1 * used as f64, "{first} bytes over the line for a store of {used}");
    assert!(first * 10 <= file, "{first} bytes over the line for rows of {file}");

    fill(&site, READINGS, 2_000);
    let account = said(&pull(&sshd, &site.db(), &out, &[]));
    assert!(account.contains(&format!("{} of 50 series; 2000 new", READINGS + 2_000)), "{account}");
    let second = carried() - first;
    // What it takes to log in, and the catalogue; what compaction has joined at the seam comes again.
    println!("{locking}: {second} bytes for 2000 more");
    assert!(second < first / 3, "{second} bytes for 2000 more; {first} for {READINGS}");
    let account = said(&pull(&sshd, &site.db(), &out, &[]));
    assert!(account.contains("; 0 new"), "{account}");
    assert_eq!(device.stop(), Some(0));
    assert_eq!(readings(&out), readings(&site.db()), "every bit of every reading");
    only(&laptop, &["pump-17.db"]);
    // The other commands know such a file for what it is.
    let export = Command::new(VARVED).args(["export", "--format", "csv", "--db"]).arg(&out).output().unwrap();
    assert_eq!(said(&export).lines().count() as u64, READINGS + 2_001);
    let verify = Command::new(VARVED).arg("verify").arg(&out).output().unwrap();
    assert!(said(&verify).contains(&format!("{} readings", READINGS + 2_000)), "{}", text(&verify));
}

#[test]
fn a_pull_brings_all_and_the_next_one_what_is_new() {
    brings_all_and_then_what_is_new("shared");
}

/// The same where nobody but the service can read the file: it is asked.
#[test]
fn a_service_with_exclusive_locking_is_pulled_from_too() {
    brings_all_and_then_what_is_new("exclusive");
}

/// While a laptop pulls over a thin line, commits go on as before: as many of them as the interval gives, in both ways of locking.
#[test]
fn commits_do_not_wait_for_a_pull() {
    for locking in ["shared", "exclusive"] {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("locking = \"{locking}\"\ncommit_interval = \"200ms\"");
        let site = Site::new(&dir.path().join("site"), "pump-17", &store, "");
        let device = site.run();
        fill(&site, 0, 30_000);
        let forced = format!("restrict,command=\"varved serve-pull --config {}\"", site.config.display());
        let sshd = Sshd::start(&dir.path().join("ssh"), &forced);
        let proxy = Proxy::to(sshd.port, seed());
        std::fs::remove_file(sshd.dir.join("config")).unwrap();
        sshd.configure("board", proxy.port);
        let out = dir.path().join("out.db");
        let commits = || site.status()["recorded"]["commits"].as_u64().unwrap();
        let rate = |seconds: u64, until: &mut dyn FnMut() -> bool| {
            let (begun, before, mut client, mut n) = (Instant::now(), commits(), site.client(), 0);
            while begun.elapsed() < Duration::from_secs(seconds) || !until() {
                use std::io::Write;
                n += 1;
                client.write_all(format!("busy v={n}i\n").as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            (commits() - before) as f64 / begun.elapsed().as_secs_f64()
        };
        proxy.set_both(Way { bytes_per_s: Some(12_000), ..Way::default() });
        let log = dir.path().join("pull.log");
        // Other tests may want the processors in one of the two halves only; a pull that is waited for is so each time.
        let mut pairs = Vec::new();
        while pairs.last().is_none_or(|(alone, beside)| *beside < alone / 2.0) {
            assert!(pairs.len() < 3, "{locking}: commits a second alone, and beside a pull: {pairs:.2?}");
            let alone = rate(4, &mut || true);
            let _ = std::fs::remove_file(&out);
            let mut child = Process::start(&mut pulling(&sshd, &site.db(), &out, &[]), &log);
            let beside = rate(4, &mut || !child.is_running());
            assert!(out.exists(), "{}", std::fs::read_to_string(&log).unwrap());
            pairs.push((alone, beside));
        }
        println!("{locking}: commits a second alone, and beside a pull: {pairs:.2?}");
        assert_eq!(device.stop(), Some(0));
    }
}

/// The store itself as one file: sound, with what `varved query` and `varved run` expect; a second pull adds to it.
#[test]
fn a_raw_pull_is_the_store_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "", "");
    let device = site.run();
    fill(&site, 0, 3_000);
    let sshd = Sshd::start(&dir.path().join("ssh"), "");
    let laptop = Site::new(&dir.path().join("laptop"), "pump-18", "", "");
    for more in [0, 1_000] {
        fill(&site, 3_000, more);
        said(&pull(&sshd, &site.db(), &laptop.db(), &["--raw"]));
        only(&laptop.dir, &["varved.db", "varved.toml"]);
        assert_eq!(readings(&laptop.db()), readings(&site.db()));
        let out = Command::new(VARVED).arg("verify").arg(laptop.db()).output().unwrap();
        assert!(said(&out).contains("ok: "), "{}", text(&out));
    }
    assert_eq!(device.stop(), Some(0));
    // A service that is started on it takes an id of its own, and keeps what it holds.
    let device = laptop.run();
    laptop.send("own v=1i 1\n");
    laptop.flush();
    assert_eq!(laptop.count("reading"), 4_001);
    assert_eq!(laptop.count("store"), 2);
    assert_eq!(device.stop(), Some(0));
}
