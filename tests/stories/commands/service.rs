//! Commands that ask a running service, and what the service does with signals and with a second one of its kind.

use super::*;

/// A device that commits only when told to.
fn patient(dir: &Path, store: &str) -> Site {
    Site::new(dir, "pump-17", &format!("commit_interval = \"1h\"\n{store}"), "")
}

fn at_risk(site: &Site, readings: u64) {
    wait_for("the readings in RAM", 20, || (site.status()["risk"]["readings"] == readings).then_some(()));
}

/// The same figures for people, for programs and for Prometheus; a flush moves readings from RAM to flash. Without a
/// service both end with 69.
#[test]
fn status_and_flush_answer_while_the_service_runs() {
    let dir = tempfile::tempdir().unwrap();
    let site = patient(dir.path(), "");
    for command in ["status", "flush"] {
        let (code, why) = told(&site.command(command));
        assert!(code == 69 && why.contains("control.sock") && why.contains("`varved run`"), "{command}: {why}");
    }
    let device = site.run();
    site.send(LINES);
    at_risk(&site, SENT as u64);
    let words = said(&site.command("status"));
    assert!(words.contains("pump-17") && words.contains(&format!("{SENT} readings in RAM")), "{words}");
    assert_eq!(said(&site.command("flush")), "");
    let status = site.status();
    assert_eq!(status["risk"]["readings"], 0);
    assert_eq!(status["recorded"]["committed"], SENT);
    assert_eq!(site.count("reading"), SENT);
    let config = site.config.as_os_str();
    let metrics = said(&varved([OsStr::new("status"), "--prom".as_ref(), "--config".as_ref(), config]));
    assert!(metrics.lines().any(|line| line == format!("varved_recorded_committed{{device=\"pump-17\"}} {SENT}")));
    assert!(metrics.lines().all(|line| line.rsplit(' ').next().unwrap().parse::<f64>().is_ok()), "{metrics}");
    assert_eq!(device.stop(), Some(0));
    assert_eq!(told(&site.command("status")).0, 69);
}

/// Under exclusive locking nobody else reads the file; `status` and `flush` work, and a query goes to the service, which
/// answers as the file would, reads only, and goes on recording. Without the service the same command reads the file.
#[test]
fn under_exclusive_locking_a_query_asks_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let site = patient(dir.path(), "locking = \"exclusive\"");
    let device = site.run();
    site.send(LINES);
    site.flush();
    assert_eq!(site.status()["recorded"]["committed"], SENT);

    let ask = |format: &str, sql: &str| {
        let config = site.config.as_os_str();
        let words = ["query", "--format", format, sql].map(OsStr::new);
        varved(words.into_iter().chain(["--config".as_ref(), config]))
    };
    let sql = "SELECT value, series, time AS t, quality, time AS t FROM reading WHERE quality <> 'infinite' ORDER BY time, series";
    let formats = ["csv", "json", "table"];
    let answers = formats.map(|format| said(&ask(format, sql)));
    assert_eq!(csv(&answers[0]).len() as i64, SENT);
    assert_eq!(csv(&answers[0])[0], ["value", "series", "t", "quality", "t"]);
    let temps = csv(&answers[0]).into_iter().filter(|row| row[1].contains("/temp") && row[3] == "ok");
    assert_eq!(bits(temps.map(|row| row[0].parse().unwrap())), bits(FLOATS));
    for (sql, part) in [
        ("DELETE FROM segment", "would write"),
        ("ATTACH ':memory:' AS other", "(ATTACH)"),
        ("SELECT * FROM readings", "no such table: readings"),
    ] {
        let (code, why) = told(&ask("table", sql));
        assert!(code == 64 && why.contains(part), "{sql}: {why}");
    }
    let (code, why) =
        told(&ask("csv", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"));
    assert!(code == 64 && why.contains("narrow the question, or stop the service"), "{why}");

    let named = [OsStr::new("query"), "--db".as_ref(), site.db().as_os_str(), "SELECT 1".as_ref()].map(OsStr::to_owned);
    let (code, why) = told(&varved(&named));
    assert!(code == 75 && why.contains("`varved query --config F`"), "{why}");
    let named = named.into_iter().chain(["--config".into(), site.config.clone().into()]);
    said(&varved(named));

    site.send("late v=1i 1\n");
    site.flush();
    assert!(said(&ask("csv", "SELECT count(*) FROM reading")).contains(&(SENT + 1).to_string()));
    assert_eq!(device.stop(), Some(0));
    let later = formats.map(|format| said(&ask(format, &sql.replace("WHERE", "WHERE series <> 'late/v' AND"))));
    assert_eq!(later, answers, "the file says what the service said");
}

/// Two services on one file: the second ends with 75 and names the first, which goes on.
#[test]
fn a_second_service_on_one_file_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = patient(&dir.path().join("first"), "");
    let second = patient(&dir.path().join("second"), "");
    let text = std::fs::read_to_string(&second.config).unwrap();
    let shared = text.replace(&second.db().display().to_string(), &first.db().display().to_string());
    assert_ne!(text, shared);
    std::fs::write(&second.config, shared).unwrap();

    let device = first.run();
    for site in [&first, &second] {
        let (code, why) = told(&site.command("run"));
        assert!(code == 75 && why.contains(&format!("in use by process {}", device.pid())), "{code}: {why}");
        assert!(why.contains("store.path"), "{why}");
    }
    first.send("m v=1i 1\n");
    first.flush();
    assert_eq!(first.count("reading"), 1);
    assert_eq!(device.stop(), Some(0));
}

/// A service that can't be asked records all the same: recording comes first. The log says which folder to make, and once it
/// is there the service can be asked.
#[test]
fn a_service_without_a_place_for_its_control_socket_records() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "pump-17", "commit_interval = \"100ms\"", "");
    let config = std::fs::read_to_string(&site.config).unwrap();
    std::fs::write(&site.config, config.replace("control.sock", "no/such/control.sock")).unwrap();
    let device = site.spawn();
    site.send("m v=1i 1\n");
    wait_for("the reading to be committed", 20, || (site.db().exists() && site.count("reading") == 1).then_some(()));
    let log = device.log_text();
    let why: Vec<&str> = log.lines().filter(|line| line.contains("no/such/control.sock")).collect();
    assert!(why.len() == 1 && why[0].ends_with("or set control.listen"), "{log}");
    std::fs::create_dir_all(dir.path().join("no/such")).unwrap();
    wait_for("the device to answer", 30, || site.try_status());
    assert_eq!(device.stop(), Some(0));
}

/// SIGUSR1 and SIGPWR commit at once, and the service goes on.
#[test]
fn a_signal_commits_what_is_in_ram() {
    let dir = tempfile::tempdir().unwrap();
    let site = patient(dir.path(), "");
    let device = site.run();
    for (n, signal) in ["USR1", "PWR"].into_iter().enumerate() {
        site.send(&format!("m v={n}i {n}\n"));
        at_risk(&site, 1);
        device.signal(signal);
        at_risk(&site, 0);
        assert_eq!(site.count("reading"), n as i64 + 1);
    }
    assert_eq!(site.status()["recorded"]["commits"], 2);
}

/// SIGTERM commits what is in RAM, ends with 0, and leaves the WAL where it is: to delete it would be more writes.
#[test]
fn the_end_of_the_service_commits_and_leaves_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let site = patient(dir.path(), "");
    for run in 0..2 {
        let device = site.run();
        site.send(LINES);
        at_risk(&site, SENT as u64);
        assert_eq!(device.stop(), Some(0));
        assert!(site.dir.join("varved.db-wal").exists());
        for socket in ["control.sock", "ingest.sock"] {
            assert!(!site.dir.join(socket).exists(), "{socket} is taken away");
        }
        assert_eq!(site.count("reading"), SENT * (run + 1));
    }
}
