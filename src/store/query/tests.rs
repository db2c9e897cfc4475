//! The table `reading` as a technician asks it: every case of the sample, and the work that a question costs.

use super::super::{Store, sample};
use super::*;

/// Collects rows as text joined by `|`.
#[derive(Default)]
pub(super) struct Lines(pub(super) Vec<String>);

impl Sink for Lines {
    type Error = std::convert::Infallible;

    fn columns(&mut self, _names: &[&str]) -> Result<(), Self::Error> {
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Self::Error> {
        let text = |field: &Field<'_>| match field {
            Field::Null => "NULL".to_owned(),
            Field::Int(value) => value.to_string(),
            Field::Real(value) => format!("{value:?}"),
            Field::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Field::Blob(bytes) => format!("{} bytes", bytes.len()),
        };
        self.0.push(fields.iter().map(text).collect::<Vec<_>>().join("|"));
        Ok(())
    }
}

pub(super) fn ask(session: &Session, sql: &str) -> Vec<String> {
    let mut lines = Lines::default();
    match session.run(sql, &mut lines) {
        Ok(()) => lines.0,
        Err(Stopped::Read(error)) => panic!("{sql}: {error}"),
        Err(Stopped::Sink(never)) => match never {},
    }
}

/// The answer, and what it cost.
pub(super) fn work(path: &Path, sql: &str) -> (Vec<String>, Tally) {
    let session = Session::open(path).expect("a session");
    (ask(&session, sql), session.tally())
}

/// Every reading is there once, under its name and unit.
#[test]
fn every_reading_is_a_row() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    assert_eq!(ask(&session, "SELECT count(*) FROM reading"), [sample::READINGS.to_string()]);
    assert_eq!(
        ask(&session, "SELECT series, unit, count(*), count(value) FROM reading GROUP BY series ORDER BY series"),
        ["cpu/temp|Cel|114|112", "door/open||4|4", "log/line||4|4", "mast/wind,height=80|m/s|4|3", "net/bytes|B|20|20"]
    );
}

/// Scaled integers are doubles in the unit, plain ones integers, truth 0 or 1; what has no value says why.
#[test]
fn values_are_shown_by_their_kind_and_their_trouble() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    let of = |series: &str| {
        ask(
            &session,
            &format!("SELECT value, typeof(value), quality FROM reading WHERE seq = 6 AND series = '{series}'"),
        )
    };
    assert_eq!(of("cpu/temp"), ["23.437|real|ok", "NULL|null|faulty", "23.5|real|ok", "NULL|null|absent"]);
    assert_eq!(of("net/bytes")[3], format!("{}|integer|ok", i64::MAX));
    assert_eq!(of("mast/wind,height=80"), ["1.5|real|ok", "NULL|null|nan", "inf|real|infinite", "-inf|real|infinite"]);
    assert_eq!(of("door/open")[..2], ["1|integer|ok", "0|integer|ok"]);
    assert_eq!(of("log/line")[1], "b,c|text|ok");
    let alone = ask(&session, "SELECT quality FROM reading WHERE seq = 6 AND series = 'cpu/temp'");
    assert_eq!(alone, ["ok", "faulty", "ok", "absent"]);
}

/// Boottime becomes UTC by the anchors; a boot that never knew the time says so; own stamps are as they came.
#[test]
fn times_are_derived_from_anchors() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    assert_eq!(
        ask(&session, "SELECT utc, quality FROM reading WHERE seq = 1 AND series = 'net/bytes' LIMIT 1"),
        ["2026-11-22T10:00:01Z|estimated"]
    );
    assert_eq!(
        ask(&session, "SELECT value, utc, quality FROM reading WHERE seq = 3 ORDER BY value"),
        [
            "100|2026-11-22T11:30:00Z|ok",
            "101|2026-11-22T11:30:00.500Z|ok",
            "102|2026-11-22T10:00:20Z|estimated",
            "103|2026-11-22T10:00:21Z|estimated",
            "104|2026-11-22T12:00:00Z|ok",
            "105|2026-11-22T12:00:01Z|ok"
        ]
    );
    let ns = sample::utc("2026-11-22T12:00:01Z").0;
    assert_eq!(ask(&session, &format!("SELECT value FROM reading WHERE time = {ns}")), ["105"]);
}

/// An anchor learnt later moves what was recorded before, without a byte rewritten.
#[test]
fn a_later_anchor_corrects_earlier_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("varved.db");
    let writer = sample::store_at(&path);
    let session = Session::open(&path).expect("a session");
    let first = "SELECT utc, quality FROM reading WHERE series = 'cpu/temp' AND seq = 1 LIMIT 1";
    assert_eq!(ask(&session, first), ["2026-11-22T10:00:01Z|estimated"]);
    let at = sample::utc("2026-11-22T11:00:05Z").0;
    writer.execute("UPDATE anchor SET utc = ?1, trusted = 1 WHERE boot = 1", [at]).expect("an anchor");
    assert_eq!(ask(&session, first), ["2026-11-22T11:00:01Z|ok"]);
}

/// A question about one series decodes one column; about times alone none; about one hour only the segments of that hour.
#[test]
fn only_what_is_asked_for_is_decoded() {
    let (_directory, path) = sample::store();
    let everything = work(&path, "SELECT value FROM reading").1;
    assert_eq!((everything.segments, everything.opened, everything.columns), (4, 4, 11));
    assert_eq!(everything.values, sample::READINGS as u64);

    let (rows, tally) = work(&path, "SELECT count(*) FROM reading WHERE series = 'cpu/temp' AND value > 0");
    assert_eq!(rows, ["112"]);
    assert!(tally.columns < everything.columns, "{tally:?}");
    assert_eq!(work(&path, "SELECT max(time) FROM reading").1.columns, 0);
    assert_eq!(work(&path, "SELECT series, count(*) FROM reading GROUP BY 1").1.columns, 0);

    let late = sample::utc("2026-11-22T12:30:00Z").0;
    let (rows, tally) = work(&path, &format!("SELECT count(value) FROM reading WHERE time >= {late}"));
    // The segment that goes on from boot 1 into boot 2 may reach there: the end of boot 1 isn't written down. Its
    // directory says that it does not, before a column is decoded.
    assert_eq!((rows[0].as_str(), tally.opened, tally.columns), ("100", 2, 1));

    let early = sample::utc("2026-11-22T10:00:05Z").0;
    let (rows, tally) =
        work(&path, &format!("SELECT count(value) FROM reading WHERE time BETWEEN {early} AND {early}"));
    assert_eq!((rows[0].as_str(), tally.opened), ("2", 1));
    assert_eq!(work(&path, "SELECT * FROM reading WHERE series = 'no/such'").1.opened, 0);
    assert_eq!(work(&path, "SELECT * FROM reading WHERE time > NULL").1.opened, 0);
}

/// Whatever is pushed down, the answer is that of the same condition on all rows: `+` keeps SQLite from pushing it.
#[test]
fn pushing_down_never_changes_an_answer() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    let ns = |text| sample::utc(text).0;
    let (a, b) = (ns("2026-11-22T10:00:20Z"), ns("2026-11-22T12:00:11Z"));
    for (pushed, plain) in [
        (format!("time >= {a}"), format!("+time >= {a}")),
        (format!("time > {a} AND time < {b}"), format!("+time > {a} AND +time < {b}")),
        (format!("time <= {a}"), format!("+time <= {a}")),
        (format!("time > {a}.5 AND time <= {b}.0"), format!("+time > {a}.5 AND +time <= {b}.0")),
        (format!("time < '{a}'"), format!("+time < CAST('{a}' AS INTEGER)")),
        ("time < 1e300".to_owned(), "+time < 1e300".to_owned()),
        ("series GLOB 'c*'".to_owned(), "+series GLOB 'c*'".to_owned()),
        ("series GLOB '*[tn]e*'".to_owned(), "+series GLOB '*[tn]e*'".to_owned()),
        ("series = 'CPU/TEMP' COLLATE NOCASE".to_owned(), "+series = 'CPU/TEMP' COLLATE NOCASE".to_owned()),
        ("series IN ('cpu/temp', 'door/open')".to_owned(), "+series IN ('cpu/temp', 'door/open')".to_owned()),
        (
            format!("series = 'net/bytes' AND time IN ({a}, {b})"),
            format!("+series = 'net/bytes' AND +time IN ({a}, {b})"),
        ),
        ("series LIKE 'NET%'".to_owned(), "+series LIKE 'NET%'".to_owned()),
    ] {
        let all = |condition: &str| {
            let sql = format!(
                "SELECT series, time, quote(value), quality, seq FROM reading WHERE {condition} ORDER BY 1, 2, 3"
            );
            ask(&session, &sql)
        };
        let expected = all(&plain);
        assert_eq!(all(&pushed), expected, "{pushed}");
        assert!(!expected.is_empty(), "{plain} proves nothing");
    }
}

/// The table joins with those of the file, and two walks at once do not disturb each other.
#[test]
fn the_table_joins() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    let sql = "SELECT s.name, count(*) FROM series s JOIN reading r ON r.series = s.name WHERE s.kind = 'bool'";
    assert_eq!(ask(&session, sql), ["door/open|4"]);
    let sql = "SELECT count(*) FROM reading a JOIN reading b ON a.time = b.time AND a.series < b.series WHERE a.seq = 6 AND b.seq = 6";
    assert_eq!(ask(&session, sql), ["40"]);
}

/// A damaged segment costs its own readings only, and is counted, so that what is shown can say that it is not all.
#[test]
fn a_damaged_segment_is_passed_over_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("varved.db");
    let writer = sample::store_at(&path);
    let spoil =
        "UPDATE segment SET body = CAST(substr(body, 1, length(body) - 1) || x'00' AS BLOB) WHERE first_seq = 6";
    assert_eq!(writer.execute(spoil, []).expect("an update"), 1);
    let (rows, tally) = work(&path, "SELECT count(value) FROM reading");
    assert_eq!(rows, [(sample::READINGS - 20).to_string()]);
    assert_eq!(tally.unreadable, 1);
    assert!(tally.reasons[0].starts_with("segment 6 of store 00000000-"), "{tally:?}");
}

/// A segment nested in another, which a file at rest never has, is not shown twice.
#[test]
fn a_nested_segment_is_shown_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("varved.db");
    let writer = sample::store_at(&path);
    let copy = "INSERT INTO segment SELECT (1 << 48) + 4, 4, kind, boot_min, boot_max, boottime_min, boottime_max, \
                utc_min, utc_max, n, body FROM (SELECT *, 1 FROM segment) WHERE first_seq = 3";
    let copy = copy.replace(
        "SELECT *, 1",
        "SELECT kind, boot_min, boot_max, boottime_min, boottime_max, utc_min, utc_max, n, body, first_seq",
    );
    let columns = "INSERT INTO segment (id, last_seq, kind, boot_min, boot_max, boottime_min, boottime_max, utc_min, utc_max, n, body)";
    writer.execute(&copy.replace("INSERT INTO segment", columns), []).expect("a copy");
    assert_eq!(work(&path, "SELECT count(*) FROM reading").0, [sample::READINGS.to_string()]);
}

/// Nothing that is asked here writes, attaches, or goes on after an interrupt.
#[test]
fn statements_only_read() {
    let (directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    let refused = |sql: &str| match session.run(sql, &mut Lines::default()) {
        Err(Stopped::Read(error)) => error,
        _ => panic!("accepted: {sql}"),
    };
    use crate::fault::{Exit, Fault};
    for sql in [
        "DELETE FROM segment",
        "PRAGMA query_only = 0; DELETE FROM segment",
        "CREATE TABLE t(a)",
        "DROP TABLE reading",
        "INSERT INTO reading VALUES (1, 2, 3, 4, 5, 6, 7)",
        "SELEC 1",
        &format!("ATTACH '{}' AS x", path.display()),
        &format!("VACUUM INTO '{}'", directory.path().join("copy.db").display()),
        "SELECT 1; SELECT 2",
    ] {
        assert_eq!(refused(sql).exit(), Exit::Usage, "{sql}");
    }
    assert!(!directory.path().join("copy.db").exists());
    let interrupter = session.interrupter();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    std::thread::scope(|scope| {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while wait
                .recv_timeout(std::time::Duration::from_millis(20))
                .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                interrupter.interrupt();
            }
        });
        assert!(refused(endless).is_interrupt());
        drop(done);
    });
}

/// Replicas of one device are one table; their series numbers don't get mixed up.
#[test]
fn several_files_are_one_table() {
    let (_a, first) = sample::store();
    let (_b, second) = sample::store();
    let session = Session::open_all(&[first, second]).expect("a session");
    assert_eq!(ask(&session, "SELECT count(*) FROM reading"), [(2 * sample::READINGS).to_string()]);
    assert_eq!(ask(&session, "SELECT count(*) FROM reading WHERE series = 'door/open'"), ["8"]);
}

/// What is no store says what it is, and a missing file is not made.
#[test]
fn other_files_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("none.db");
    assert!(matches!(Session::open(&missing), Err(ReadError::Missing { .. })));
    assert!(!missing.exists());
    let text = directory.path().join("text.db");
    std::fs::write(&text, "not a database, but long enough to look at twice".repeat(40)).expect("a file");
    assert!(Session::open(&text).is_err_and(|error| error.to_string().contains("not an SQLite file")));
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).and_then(|conn| conn.execute_batch("CREATE TABLE t(a)")).expect("a database");
    assert!(matches!(Reader::open(&other), Err(ReadError::NotAStore { .. })));
    assert!(Session::open(&other).is_ok());
}

/// The card of a dead board, read-only: a `-wal` with everything in it and no `-shm`. Without locks all of it is read; with
/// the `-wal` left out it would be nothing.
#[test]
fn a_wal_without_shm_is_read_without_locks() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = sample::store_at(&directory.path().join("varved.db"));
    let card = tempfile::tempdir().expect("a directory");
    for file in ["varved.db", "varved.db-wal"] {
        std::fs::copy(directory.path().join(file), card.path().join(file)).expect("a copy");
    }
    drop(writer);
    let path = card.path().join("varved.db");
    let reader = Reader::connect(&path, "mode=ro&vfs=unix-none", true).expect("a reader");
    assert!(reader.is_unlocked() && !card.path().join("varved.db-shm").exists());
    let mut rows = reader.scan(&Default::default()).expect("a scan");
    let mut count = 0;
    while let Some(mut column) = rows.next_column().expect("a column") {
        while column.advance() {
            count += 1;
        }
    }
    assert_eq!(count, sample::READINGS);
}

/// Dates are dates: UTC where they say so, local otherwise; numbers and bare times are not guessed at.
#[test]
fn dates_are_read_as_sqlite_reads_them() {
    let ns = |text| sample::utc(text).0;
    let read = |text| parse_date_time(text).map(|at| at.0);
    assert_eq!(read("2026-11-22T12:00:00Z"), Some(ns("2026-11-22T12:00:00Z")));
    assert_eq!(read("2026-11-22 12:00:00.25+01:00"), Some(ns("2026-11-22T11:00:00.25Z")));
    assert!(read("2026-11-22").is_some() && read("2026-11-22 08:30").is_some());
    for bad in ["", "2026", "12:00", "2460000.5", "now", "2026-13-01", "yesterday", "2026-11-22x"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

/// Under exclusive locking the service itself answers, reads only, within bounds, and goes on committing afterwards.
#[test]
fn the_service_answers_without_letting_go_of_its_file() {
    use super::super::testing::{Bench, put};
    let mut bench = Bench::new();
    bench.cfg.locking = crate::config::Locking::Exclusive;
    let mut store = bench.open_calm();
    put(&mut store, 2, 50, 1).expect("a commit");
    assert!(Session::open(&bench.cfg.path).is_err(), "nobody else reads");
    let count = "SELECT count(value) AS n FROM reading";
    assert_eq!(store.query(count).expect("rows"), serde_json::json!({"columns": ["n"], "rows": [[100]]}));
    for sql in
        ["DELETE FROM segment", "BEGIN", "PRAGMA query_only = 0", "PRAGMA journal_mode = delete", "ATTACH 'x' AS x"]
    {
        let error = store.query(sql).expect_err(sql);
        assert_eq!(crate::fault::Fault::exit(&error), crate::fault::Exit::Usage, "{sql}: {error}");
    }
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    assert!(matches!(store.query(endless), Err(ReadError::TooMuch { .. })));
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 100000";
    assert!(matches!(store.query(long), Err(ReadError::TooMuch { .. })));
    put(&mut store, 2, 50, 2).expect("a commit after the questions");
    assert_eq!(store.query(count).expect("rows"), serde_json::json!({"columns": ["n"], "rows": [[200]]}));
}

/// What the service writes, over restarts and compaction, is what the read side calls sound: both sides mean the same format.
#[test]
fn a_store_that_worked_is_sound_and_whole() {
    use super::super::testing::{Bench, at, put};
    let bench = Bench::new();
    let mut written = 0;
    for run in 0..3 {
        let mut store = Store::open(&bench.cfg, &bench.me, at(run * 100)).expect("a store").0;
        for s in 1..40 {
            put(&mut store, 3, 10, run * 100 + s).expect("a commit");
            written += 30;
        }
        while store.compact_step(&[], at(run * 100 + 50)).expect("a step") != super::super::Step::Idle {}
    }
    let reader = Reader::open(&bench.cfg.path).expect("a reader");
    let audit = super::super::audit::audit(&reader).expect("an audit");
    assert!(audit.is_sound(), "{audit:?}");
    assert_eq!(audit.stores.iter().map(|store| store.readings).sum::<u64>(), written);
    assert_eq!(work(&bench.cfg.path, "SELECT count(*), count(value) FROM reading").0, [format!("{written}|{written}")]);
}
