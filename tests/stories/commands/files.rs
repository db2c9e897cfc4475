//! Commands that make files of a store, or judge one; and the stock SQLite shell beside them.

use super::*;
use std::io::Write;

fn export(db: &Path, words: &[&str]) -> Output {
    varved([OsStr::new("export"), "--db".as_ref(), db.as_ref()].into_iter().chain(words.iter().map(OsStr::new)))
}

/// Every reading as text, in an order of its own.
fn all(db: &Path, columns: &str, filter: &str) -> String {
    said(&query(db, "csv", &format!("SELECT {columns} FROM reading WHERE {filter} ORDER BY series, time")))
}

/// CSV, JSON lines and the SQLite file have the rows of `reading`, all of them or those that are selected.
#[test]
fn exports_have_the_rows_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorded(dir.path());
    let rows = site.count("reading");
    let mut written = csv(&said(&export(&site.db(), &["--format", "csv"])));
    let mut queried = csv(&said(&query(&site.db(), "csv", "SELECT * FROM reading")));
    assert_eq!(written.len() as i64, rows + 1);
    assert_eq!(written.remove(0), queried.remove(0));
    written.sort();
    queried.sort();
    assert_eq!(written, queried);

    let lines =
        said(&export(&site.db(), &["--format", "jsonl", "--series", "plant/*", "--since", "2026-01-01T00:00:00Z"]));
    let lines: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as i64, SENT - 2);
    assert!(lines.iter().any(|line| line["value"].as_f64() == Some(5e-324)));

    let out = dir.path().join("rows.db");
    let words = ["--format", "sqlite", "-o", out.to_str().unwrap()];
    said(&export(&site.db(), &words));
    let order = "SELECT series, time, value, quality FROM reading WHERE value IS NOT NULL ORDER BY series, time";
    let stock = stock_sqlite(&out, &order.replace("value,", "format('%s', value),"));
    assert_eq!(stock.lines().count() as i64, site.count("reading WHERE value IS NOT NULL"));
    assert_eq!(stock_sqlite(&out, "SELECT count(*) FROM reading"), rows.to_string());
    assert_eq!(
        stock_sqlite(&out, "SELECT value FROM reading WHERE series = 'plant/state,s=1' AND value <> ''"),
        "a \"quoted\", b; ünï"
    );
    assert_eq!(stock_sqlite(&out, "SELECT kind FROM series WHERE name = 'plant/count,s=1'"), "int");
    assert_eq!(said(&query(&out, "csv", order)), said(&query(&site.db(), "csv", order)), "every bit of every value");
    let (code, why) = told(&export(&site.db(), &words));
    assert!(code == 64 && why.contains("--force"), "{why}");
    said(&export(&site.db(), &[&words[..], &["--force"]].concat()));
}

/// Line protocol out of one device and into the socket of another: what has a value is there again, the same.
#[test]
fn line_protocol_goes_from_one_device_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorded(dir.path());
    let out = export(&site.db(), &["--format", "line-protocol"]);
    let lines = said(&out);
    assert!(text(&out).contains("left out"), "what has no value is counted: {}", text(&out));
    let other = Site::new(&dir.path().join("other"), "pump-18", "", "");
    let device = other.run();
    other.send(&lines);
    other.flush();
    assert_eq!(device.stop(), Some(0));
    // Not the number of the segment, which is the other store's own.
    // A stamp that was an estimate is one of the sender's own there.
    let columns = "series, time, utc, value, unit, replace(quality, 'estimated', 'ok') AS quality";
    let with_value = "value IS NOT NULL";
    let here = all(&site.db(), columns, with_value);
    assert_eq!(here.lines().count() as i64, SENT, "all but NaN, and the header: {here}");
    assert_eq!(all(&other.db(), columns, "1"), here);
    let kinds = "SELECT name, kind, unit, scale FROM series WHERE name <> 'plain/x' ORDER BY name";
    assert_eq!(said(&query(&other.db(), "csv", kinds)), said(&query(&site.db(), "csv", kinds)));
}

/// A snapshot that is taken while the service writes is one file, sound, and read by the stock shell; a service that is
/// started on it takes an id of its own and keeps what it holds.
#[test]
fn a_snapshot_of_a_busy_store_is_one_sound_file() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "commit_interval = \"100ms\"", "");
    let device = site.run();
    site.send(LINES);
    site.flush();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let copy = Site::new(&dir.path().join("copy"), "pump-18", "", "");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = site.client();
            for n in 1.. {
                client.write_all(format!("busy v={n}i {n}\n").as_bytes()).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        // By number, since upkeep may have joined them.
        wait_for("it to be busy", 20, || (site.high() > 5).then_some(()));
        let out = varved(["snapshot", "--db"].map(OsStr::new).into_iter().chain([
            site.db().as_os_str(),
            "-o".as_ref(),
            copy.db().as_os_str(),
        ]));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        said(&out);
    });
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&copy.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["varved.db", "varved.toml"], "one file beside the configuration");
    let held = copy.count("reading");
    assert!(held > SENT);
    assert!(said(&varved([OsStr::new("verify"), copy.db().as_ref()])).contains("ok: "));
    assert_eq!(stock_sqlite(&copy.db(), "PRAGMA integrity_check"), "ok");
    assert_eq!(stock_sqlite(&copy.db(), "SELECT sum(n) FROM segment"), held.to_string());
    assert_eq!(names(), ["varved.db", "varved.toml"], "reading it leaves nothing beside it");
    site.flush();
    assert_eq!(device.stop(), Some(0));

    let uuids = |site: &Site| site.query("SELECT uuid FROM store ORDER BY id");
    let device = copy.run();
    copy.send("own v=1i 1\n");
    copy.flush();
    assert_eq!(copy.count("reading"), held + 1);
    let (before, after) = (uuids(&site), uuids(&copy));
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(before[0], after[0]);
    assert_eq!(copy.count("event WHERE kind = 'fresh-id'"), site.count("event WHERE kind = 'fresh-id'") + 1);
    assert_eq!(device.stop(), Some(0));
}

/// One byte of one body is another: `verify` names the segment and what can still be read, and ends with 65; a query that
/// meets it says that it is not all, too.
#[test]
fn a_damaged_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "", "");
    let device = site.run();
    for part in 0..3 {
        let lines: String = (part * 100..part * 100 + 100).map(|n| format!("m v={n}i {n}\n")).collect();
        site.send(&lines);
        site.flush();
    }
    assert_eq!(device.stop(), Some(0));
    let copy = dir.path().join("copy.db");
    let words =
        ["snapshot".as_ref(), "--db".as_ref(), site.db().into_os_string().as_os_str(), "-o".as_ref(), copy.as_os_str()]
            .map(OsStr::to_owned);
    said(&varved(words));
    let verify = || varved([OsStr::new("verify"), copy.as_ref()]);
    assert!(said(&verify()).contains("300 readings in 3 sound segments"), "{}", text(&verify()));

    let body = stock_sqlite(&copy, "SELECT hex(body) FROM segment WHERE first_seq = 2");
    let body: Vec<u8> =
        (0..body.len()).step_by(2).map(|at| u8::from_str_radix(&body[at..at + 2], 16).unwrap()).collect();
    let mut file = std::fs::read(&copy).unwrap();
    let at = file.windows(body.len()).position(|bytes| bytes == body).expect("the body in one piece");
    file[at + body.len() / 2] ^= 0x04;
    std::fs::write(&copy, file).unwrap();

    let out = verify();
    let words = text(&out);
    assert_eq!(out.status.code(), Some(65), "{words}");
    assert!(words.contains("segment 2..=2: segment has a wrong checksum"), "{words}");
    assert!(
        words.contains("200 readings in 2 sound segments") && words.contains("1 segment can't be relied on"),
        "{words}"
    );
    let out = query(&copy, "csv", "SELECT count(value) FROM reading");
    assert_eq!(out.status.code(), Some(65));
    assert!(text(&out).contains("200") && text(&out).contains("this is not all"), "{}", text(&out));
    let (code, why) = told(&varved([OsStr::new("verify"), site.config.as_ref()]));
    assert!(code == 65 && why.contains("not an SQLite file"), "{why}");
    assert_eq!(told(&varved(["verify", "/nonexistent.db"])).0, 69);
}

/// The plain tables of the live file, in the stock shell, while the service holds it.
#[test]
fn the_stock_shell_reads_the_live_file() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "pump-17", "", "");
    let device = site.run();
    site.send(LINES);
    site.flush();
    let shell = |sql: &str| stock_sqlite(&site.db(), sql);
    assert_eq!(shell("SELECT name FROM series WHERE kind = 'bool'"), "plant/open,s=1");
    assert_eq!(shell("SELECT sum(n) FROM segment WHERE kind = 0"), SENT.to_string());
    assert_eq!(shell("SELECT first_seq || '-' || last_seq FROM segment"), "1-1");
    assert!(!shell("SELECT value FROM meta WHERE key = 'format_major'").is_empty());
    assert_eq!(shell("SELECT count(*) FROM boot"), "1");
    assert_eq!(shell("SELECT count(*) FROM event WHERE kind = 'rot'"), "0");
    assert_eq!(shell("SELECT count(*) FROM rollup"), "0", "nothing is compacted yet");
    site.send("m v=1i 1\n");
    site.flush();
    assert_eq!(shell("SELECT sum(n) FROM segment"), (SENT + 1).to_string());
    assert_eq!(device.stop(), Some(0));
}
