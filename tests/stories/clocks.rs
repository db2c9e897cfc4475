//! Time, through the whole of a device's file with a clock that the test holds: nothing is lost, reordered or rewritten
//! whatever the wall clock does, and every time is corrected once it is known.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use varved::batch::{Batch, BatchLimits, Registry};
use varved::clock::civil::parse;
use varved::clock::keeper::Keeper;
use varved::clock::timebase::Quality;
use varved::clock::{Anchor, BootNanos, Now, SECOND, UtcNanos};
use varved::config::{Config, StoreConfig};
use varved::reading::{Kind, Reading, Scale, SeriesDef, Stamp, Value};
use varved::store::reader::Reader;
use varved::store::scan::Selection;
use varved::store::{Identity, Store};

/// A device whose clocks are told what to say.
struct Device {
    _dir: tempfile::TempDir,
    path: PathBuf,
    config: StoreConfig,
    registry: Arc<Registry>,
    boot: u128,
    store: Option<Store>,
    keeper: Keeper,
    anchors: Vec<Anchor>,
    batch: Batch,
}

/// A row as it was read: value, UTC, quality.
type Row = (i64, UtcNanos, Quality);

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varved.db");
        let text = format!("device = \"d\"\n[store]\npath = {path:?}\n");
        let config = Config::parse(&text, "test").unwrap().store;
        let registry = Arc::new(Registry::new(10));
        let limits = BatchLimits { interval: Duration::from_secs(10), readings: 1000, buffer_bytes: 1 << 20 };
        let batch = Batch::new(limits, registry.clone());
        let keeper = Keeper::default();
        let mut device =
            Self { _dir: dir, path, config, registry, boot: 0, store: None, keeper, anchors: vec![], batch };
        device.reboot();
        device
    }

    /// Power off and on: a new boot id, boottime from 0, the file as it is.
    fn reboot(&mut self) {
        self.boot += 1;
        drop(self.store.take());
        let me = Identity { machine_hash: [1; 16], boot_uuid: uuid::Uuid::from_u128(self.boot) };
        let now = Now { boot: BootNanos(0), utc: UtcNanos(0), trusted: false };
        self.store = Some(Store::open(&self.config, &me, now).unwrap().0);
        self.keeper = Keeper::default();
    }

    /// At boottime `s` the wall clock says `wall`: both clocks are compared, and a reading of its own number is taken.
    fn second(&mut self, s: i64, wall: UtcNanos, trusted: bool, value: i64) {
        let now = Now { boot: BootNanos(s * SECOND), utc: wall, trusted };
        self.anchors.extend(self.keeper.observe(now));
        self.take(Stamp::Boot(now.boot), value, now);
    }

    fn take(&mut self, stamp: Stamp, value: i64, now: Now) {
        let def = SeriesDef { name: "m/v".into(), unit: String::new(), kind: Kind::Int, scale: Scale::ONE };
        let series = self.registry.key(&def).unwrap();
        self.batch.push(Reading { series, stamp, value: Value::Int(value) }, now.boot).unwrap();
    }

    fn commit(&mut self) {
        let sealed = self.batch.seal();
        let anchors = std::mem::take(&mut self.anchors);
        let now = Now { boot: BootNanos(1), utc: UtcNanos(0), trusted: false };
        self.store.as_mut().unwrap().commit(&sealed, &self.registry, &anchors, now).unwrap();
    }

    /// All readings, in the order in which they are stored.
    fn rows(&self) -> Vec<Row> {
        let reader = Reader::open(&self.path).unwrap();
        let mut scan = reader.scan(&Selection::default()).unwrap();
        let mut rows = Vec::new();
        while let Some(mut column) = scan.next_column().unwrap() {
            while column.advance() {
                let row = column.row();
                let moment = row.moment.unwrap();
                let varved::store::scan::Cell::Int(value) = row.value else { panic!("{row:?}") };
                rows.push((value, moment.utc, moment.quality));
            }
        }
        rows
    }

    /// Every segment's bytes, to see that a correction rewrites none.
    fn bodies(&self) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        Reader::open(&self.path).unwrap().each_body(|body| bodies.push(body.bytes.to_vec())).unwrap();
        bodies
    }
}

fn utc(text: &str) -> UtcNanos {
    parse(text).unwrap()
}

fn plus(at: UtcNanos, s: i64) -> UtcNanos {
    UtcNanos(at.0 + s * SECOND)
}

fn values(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|(value, ..)| *value).collect()
}

/// Woken in 1970, synchronised a minute later: what was recorded before gets its true time, and no byte of it is rewritten.
#[test]
fn what_was_recorded_in_1970_gets_its_true_time_without_a_rewrite() {
    let mut device = Device::new();
    let start = utc("2026-11-22T12:00:00Z");
    for s in 0..60 {
        device.second(s, UtcNanos(s * SECOND), false, s);
    }
    device.commit();
    let (before, bodies) = (device.rows(), device.bodies());
    assert!(before.iter().all(|(_, at, quality)| at.0 < 3600 * SECOND && *quality == Quality::Estimated));

    for s in 60..70 {
        device.second(s, plus(start, s), true, s);
    }
    device.commit();
    let after = device.rows();
    assert_eq!(values(&after), (0..70).collect::<Vec<_>>());
    for (value, at, quality) in &after {
        assert_eq!((*at, *quality), (plus(start, *value), Quality::Ok));
    }
    assert_eq!(device.bodies()[..bodies.len()], bodies, "corrected, not rewritten");
}

/// The wall clock steps forward an hour and back two, while it says it is synchronised: each reading is there, once, in the
/// order in which it was taken.
#[test]
fn steps_of_the_wall_clock_lose_and_reorder_nothing() {
    let mut device = Device::new();
    let start = utc("2026-11-22T12:00:00Z");
    for s in 0..300 {
        let step = match s {
            0..100 => 0,
            100..200 => 3600,
            _ => -3600,
        };
        device.second(s, plus(start, s + step), true, s);
        if s % 50 == 49 {
            device.commit();
        }
    }
    let rows = device.rows();
    assert_eq!(values(&rows), (0..300).collect::<Vec<_>>());
    assert_eq!(rows[299].1, plus(start, 299 - 3600), "the last word counts");
    assert_eq!(rows[50].1, plus(start, 50), "what was right before the step stays right");
}

/// An RTC two weeks stale, then a boot that never knows the time, then one that does: the middle one lies between its
/// neighbours and says that it is a guess.
#[test]
fn boots_keep_their_order_whatever_their_clocks_say() {
    let mut device = Device::new();
    let start = utc("2026-11-22T12:00:00Z");
    (0..20).for_each(|s| device.second(s, plus(start, s), true, s));
    device.commit();
    device.reboot();
    let stale = plus(start, -14 * 86_400);
    (0..20).for_each(|s| device.second(s, plus(stale, s), false, 100 + s));
    device.commit();
    device.reboot();
    (0..20).for_each(|s| device.second(s, plus(start, 3600 + s), true, 200 + s));
    device.commit();

    let rows = device.rows();
    let expected: Vec<i64> = (0..20).chain(100..120).chain(200..220).collect();
    assert_eq!(values(&rows), expected);
    for (value, at, quality) in &rows {
        let guess = (100..120).contains(value);
        assert_eq!(*quality == Quality::Estimated, guess, "{value}");
        if guess {
            assert!(plus(start, 19) <= *at && *at <= plus(start, 3600 + 20), "{value} at {at}");
        }
    }
}

/// Stamps that readings bring themselves are kept as they are, late, out of order and equal, mixed with the others.
#[test]
fn own_stamps_are_kept_late_equal_and_out_of_order() {
    let mut device = Device::new();
    let start = utc("2026-11-22T12:00:00Z");
    let now = Now { boot: BootNanos(5 * SECOND), utc: plus(start, 5), trusted: true };
    let own = [plus(start, 3), plus(start, -86_400), plus(start, 3), utc("1970-01-01T00:00:00Z"), UtcNanos(i64::MAX)];
    for (n, at) in own.iter().enumerate() {
        device.second(10 + n as i64, plus(start, 10 + n as i64), true, 100 + n as i64);
        device.take(Stamp::Utc(*at), n as i64, now);
    }
    device.commit();
    let rows = device.rows();
    let stamps: Vec<(i64, UtcNanos)> = rows.iter().filter(|r| r.0 < 100).map(|r| (r.0, r.1)).collect();
    let expected: Vec<(i64, UtcNanos)> = own.iter().enumerate().map(|(n, at)| (n as i64, *at)).collect();
    assert_eq!(stamps, expected);
    assert_eq!(rows.iter().filter(|r| r.0 >= 100).count(), own.len());
}
