//! A receiver that was written from the pages alone, `examples/foreign_receiver`, in place of ours: what the pages say is
//! enough, and true.

use crate::support::*;
use rusqlite::types::ValueRef;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use varved::wire::{self, Request, SnapshotRequest};

/// Debian's Python: its packages of paho and zstandard are for no other.
const PYTHON: &str = "/usr/bin/python3";

const LINES: u64 = 4_000;
const STAMP: i64 = 1_790_000_000_000_000_000;

fn python(args: &[&str]) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-B", "-m"]).args(args).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    command
}

/// The golden vectors of `docs/wire.md` and `tests/data/golden` are to the Python receiver what they are to ours.
#[test]
fn the_golden_vectors_are_read_alike() {
    let out = python(&["unittest", "foreign_receiver.test_vectors"]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/segment-v1.txt");
    let out = python(&["foreign_receiver", "decode"]).arg(golden).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("301\tutc\t1795365960159000000\t'a'"), "{}", text(&out));
}

/// A reading as it must lie in the receiver's table: series, time, value, quality.
type Row = (String, i64, String, String);

/// Integers, decimals, doubles of any bits, booleans and texts, five readings a line; and what they must become.
fn line(n: u64, dice: &mut Dice) -> (String, Vec<Row>) {
    let (station, time) = (n % 20, STAMP + n as i64 * 1_000_003);
    let int = dice.roll(u64::MAX) as i64 >> dice.roll(64);
    let decimal = dice.roll(100_000) as f64 / 100.0 - 300.0;
    let double = f64::from_bits(dice.roll(u64::MAX));
    let double = if double.is_finite() { double } else { -0.0 };
    let (truth, word) = (dice.roll(3) == 0, format!("pump {} größer", dice.roll(9)));
    let sent = format!("plant,s={station} i={int}i,f={decimal},d={double:e},b={truth},t=\"{word}\" {time}\n");
    let row = |field: &str, value: String| (format!("plant/{field},s={station}"), time, value, "ok".to_owned());
    let values = [
        ("i", int.to_string()),
        ("f", bits(decimal)),
        ("d", bits(double)),
        ("b", i64::from(truth).to_string()),
        ("t", word),
    ];
    (sent, values.into_iter().map(|(field, value)| row(field, value)).collect())
}

fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

/// The receiver in Python, and its file.
struct Foreign {
    db: PathBuf,
    log: PathBuf,
    broker: String,
}

impl Foreign {
    fn run(&self) -> Process {
        let mut command = python(&["foreign_receiver", "run", "--verbose", "--broker", &self.broker, "--db"]);
        Process::start(command.arg(&self.db), &self.log)
    }

    fn rows(&self, of: &str) -> Vec<Row> {
        let db = rusqlite::Connection::open(&self.db).unwrap();
        let mut select = db.prepare(&format!("SELECT series, time, value, quality FROM reading WHERE {of}")).unwrap();
        let value = |value: ValueRef<'_>| match value {
            ValueRef::Null => String::new(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => bits(value),
            ValueRef::Text(value) | ValueRef::Blob(value) => String::from_utf8_lossy(value).into_owned(),
        };
        let rows = select.query_map([], |r| Ok((r.get(0)?, r.get(1)?, value(r.get_ref(2)?), r.get(3)?))).unwrap();
        let mut rows: Vec<Row> = rows.map(Result::unwrap).collect();
        rows.sort();
        rows
    }

    /// How often the log says this.
    fn says(&self, what: &str) -> usize {
        self.words().matches(what).count()
    }

    fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The sequence numbers that arrived, and of them those that came within this snapshot: however many segments they
    /// lay in, since compaction may have joined some between.
    fn numbers(&self) -> BTreeSet<u64> {
        numbers(&self.words())
    }

    fn numbers_of_snapshot(&self, nonce: u64) -> BTreeSet<u64> {
        let (words, frame) = (self.words(), format!("snapshot {nonce}: "));
        let begun = words.split_once(&frame).map_or("", |(_, begun)| begun);
        numbers(begun.split(&format!("{frame}ended")).next().unwrap_or_default())
    }
}

/// The numbers of the segments that this part of a log says were taken in: `DEBUG pump-17: (4, 7) of store …: new`.
fn numbers(log: &str) -> BTreeSet<u64> {
    let range = |line: &str| {
        let (first, last) = line.split_once(": (")?.1.split_once(") of store")?.0.split_once(", ")?;
        Some(first.parse().ok()?..=last.parse::<u64>().ok()?)
    };
    log.lines().filter(|line| !line.contains("conflict")).filter_map(range).flatten().collect()
}

fn delivered(site: &Site) {
    wait_for("everything to be acknowledged", 60, || {
        site.try_status().filter(|s| s["pending"]["readings"] == 0 && s["risk"]["readings"] == 0).map(drop)
    });
}

/// Twenty thousand readings of all kinds, beside a sensor that has nothing to say and values that are no numbers, arrive
/// bit by bit and once, and are acknowledged: over a kill of the receiver in the middle, a restart of the device, and a
/// second sending of all that it holds.
#[test]
fn a_receiver_written_from_the_pages_gets_every_reading_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let silent =
        format!("[[sensor]]\nkind = \"file\"\npath = \"{}/none\"\nname = \"odd/file\"\n", dir.path().display());
    let extra = format!("{silent}interval = \"200ms\"\n[uplink]\nbroker = \"{}\"\n", broker.url());
    let site = Site::new(&dir.path().join("site"), "pump-17", "commit_interval = \"500ms\"", &extra);
    let (db, log) = (dir.path().join("foreign.sqlite"), dir.path().join("foreign.log"));
    let foreign = Foreign { db, log, broker: format!("127.0.0.1:{}", broker.port) };
    let device = site.run();
    let receiver = foreign.run();

    let (mut dice, mut expected) = (Dice::new(17), Vec::new());
    let mut send = |lines: std::ops::Range<u64>| {
        for batch in lines.clone().step_by(500).map(|first| first..lines.end.min(first + 500)) {
            let (sent, rows): (String, Vec<Vec<Row>>) = batch.map(|n| line(n, &mut dice)).unzip();
            site.send(&sent);
            expected.extend(rows.into_iter().flatten());
        }
    };
    send(0..LINES / 2);
    wait_for("the first segments to be filed", 30, || (foreign.says(": new") > 1).then_some(()));
    receiver.kill9();
    send(LINES / 2..LINES * 3 / 4);
    site.flush();
    let receiver = foreign.run();
    assert_eq!(device.stop(), Some(0));
    let device = site.run();
    send(LINES * 3 / 4..LINES);
    site.send(&format!("odd v=NaN {STAMP}\nodd v=-inf {STAMP}\nodd v=-0.0 {STAMP}\nodd v=5e-324 {STAMP}\n"));
    site.flush();
    delivered(&site);

    let (request, held) = (dir.path().join("snapshot-request"), foreign.numbers());
    let everything = SnapshotRequest { nonce: 77, only: None, done: Vec::new() };
    std::fs::write(&request, wire::encode(&Request::Snapshot(everything)).unwrap()).unwrap();
    let topic = ["-t", "varved/v1/pump-17/request", "-q", "1", "-f"];
    let port = broker.port.to_string();
    let out = Command::new("mosquitto_pub").args(["-p", &port]).args(topic).arg(&request).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    wait_for("the end of the snapshot", 60, || (foreign.says("snapshot 77: ended") > 0).then_some(()));
    let again = foreign.numbers_of_snapshot(77);
    assert!(again.is_superset(&held), "{held:?} were held, of them came again: {again:?}");
    delivered(&site);
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));

    expected.sort();
    let arrived = foreign.rows("series LIKE 'plant/%'");
    assert_eq!((arrived.len(), expected.len()), (5 * LINES as usize, 5 * LINES as usize));
    for (arrived, expected) in arrived.iter().zip(&expected) {
        assert_eq!(arrived, expected);
    }
    let odd: Vec<_> =
        foreign.rows("series = 'odd/v'").into_iter().map(|(_, _, value, quality)| (value, quality)).collect();
    let ok = |value: f64| (bits(value), "ok".to_owned());
    assert_eq!(odd, [(String::new(), "nan".to_owned()), ok(5e-324), ok(-0.0), ok(f64::NEG_INFINITY)]);
    let absent = foreign.rows("series = 'odd/file' AND quality = 'absent'").len() as i64;
    assert_eq!(site.count("reading WHERE series = 'odd/file' AND quality = 'absent'"), absent);
    assert!(absent > 5);
    for never in ["conflict", "refused", "set aside", "differs", "Traceback"] {
        assert_eq!(foreign.says(never), 0, "{never}: {}", foreign.log.display());
    }
}
