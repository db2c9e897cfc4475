//! A small store for tests of the read side: three boots of which one never knew the time, own stamps, missing values.
//!
//! | segments | what is in them |
//! |---|---|
//! | 1 | boot 1 (estimated): `cpu/temp`, `net/bytes`, 10 readings each at 1 Hz |
//! | 2 | a loss |
//! | 3..=5 | boots 1 and 2 and own stamps: `net/bytes` 2 + 2 + 2 |
//! | 6 | boot 2 (trusted, began 12:00): every series, 4 each, with NaN, infinity and missing values |
//! | 7 | boot 2, an hour later: `cpu/temp` 100 |

use super::file::{
    Pragmas, SegmentRow, StoreNo, create_schema, insert_segment, open_rw, upsert_anchor, upsert_boot, upsert_series,
    upsert_store,
};
use crate::clock::{Anchor, BootNanos, SECOND, UtcNanos, civil};
use crate::reading::{BootId, Kind, NoValue, Scale, SeqRange, SeriesDef, SeriesId};
use crate::segment::{
    Column, Content, Loss, LossReason, Missing, Readings, Segment, Timeline, TimelineClock, Values, View, encode,
};
use rusqlite::Connection;
use std::path::Path;

/// Readings in the whole of it.
pub(crate) const READINGS: usize = 20 + 6 + 20 + 100;

pub(crate) fn utc(text: &str) -> UtcNanos {
    civil::parse(text).expect("ISO 8601")
}

fn series(id: u32, name: &str, unit: &str, kind: Kind, scale: Scale) -> (SeriesId, SeriesDef) {
    (SeriesId(id), SeriesDef { name: name.to_owned(), unit: unit.to_owned(), kind, scale })
}

fn boot_time(boot: u32, from_s: i64, n: i64) -> Timeline {
    let stamps = (0..n).map(|i| (from_s + i) * SECOND).collect();
    Timeline { clock: TimelineClock::Boot(BootId(boot)), stamps }
}

fn column(series: u32, timeline: usize, values: Values) -> Column {
    Column { series: SeriesId(series), timeline, values, missing: Vec::new() }
}

fn data(first: u64, last: u64, timelines: Vec<Timeline>, columns: Vec<Column>) -> Segment {
    let range = SeqRange::new(first, last).expect("a range");
    Segment { range, content: Content::Data { readings: Readings { timelines, columns }, names: Vec::new() } }
}

fn segments() -> Vec<Segment> {
    let own = ["2026-11-22T11:30:00Z", "2026-11-22T11:30:00.5Z"].map(|text| utc(text).0).to_vec();
    let mut faulty = column(1, 0, Values::Int(vec![23_437, 0, 23_500, 0]));
    faulty.missing = vec![Missing { at: 1, why: NoValue::Faulty }, Missing { at: 3, why: NoValue::Absent }];
    let texts = ["a", "b,c", "d\"e", "f\ng"].map(Box::from).to_vec();
    vec![
        data(
            1,
            1,
            vec![boot_time(1, 1, 10)],
            vec![
                column(1, 0, Values::Int((0..10).map(|i| 20_000 + i).collect())),
                column(2, 0, Values::Int((0..10).collect())),
            ],
        ),
        Segment {
            range: SeqRange::new(2, 2).expect("a range"),
            content: Content::Loss(Loss { reason: LossReason::Void, readings: None, from: None, to: None, utc: None }),
        },
        data(
            3,
            5,
            vec![Timeline { clock: TimelineClock::Utc, stamps: own }, boot_time(1, 20, 2), boot_time(2, 0, 2)],
            vec![
                column(2, 0, Values::Int(vec![100, 101])),
                column(2, 1, Values::Int(vec![102, 103])),
                column(2, 2, Values::Int(vec![104, 105])),
            ],
        ),
        data(
            6,
            6,
            vec![boot_time(2, 10, 4)],
            vec![
                faulty,
                column(2, 0, Values::Int(vec![1, 2, 3, i64::MAX])),
                column(3, 0, Values::Float(vec![1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
                column(4, 0, Values::Bool(vec![true, false, true, true])),
                column(5, 0, Values::Text(texts)),
            ],
        ),
        data(
            7,
            7,
            vec![boot_time(2, 3_600, 100)],
            vec![column(1, 0, Values::Int((0..100).map(|i| 30_000 + i).collect()))],
        ),
    ]
}

fn row_of(view: &View) -> SegmentRow {
    let bounds = view.bounds();
    SegmentRow {
        range: view.range(),
        loss: view.is_loss(),
        n: view.n() as u64,
        boot_min: bounds.boot_min,
        boot_max: bounds.boot_max,
        boottime_min: bounds.boottime_min.map(|at| at.0),
        boottime_max: bounds.boottime_max.map(|at| at.0),
        utc_min: bounds.utc_min.map(|at| at.0),
        utc_max: bounds.utc_max.map(|at| at.0),
    }
}

/// Adds one segment to a sample.
pub(crate) fn add(conn: &Connection, segment: &Segment) {
    let body = encode(segment).expect("a body");
    insert_segment(conn, StoreNo(1), row_of(&View::parse(&body).expect("a view")), &body).expect("a row");
}

/// Makes the store and gives the connection that wrote it.
pub(crate) fn store_at(path: &Path) -> Connection {
    let conn = open_rw(path, &Pragmas::replica()).expect("a store");
    create_schema(&conn, "test").expect("the schema");
    let uuid = uuid::Uuid::from_u128(7);
    let no = upsert_store(&conn, &uuid, 0, None).expect("a store");
    for (id, def) in [
        series(1, "cpu/temp", "Cel", Kind::Int, Scale::MILLI),
        series(2, "net/bytes", "B", Kind::Int, Scale::ONE),
        series(3, "mast/wind,height=80", "m/s", Kind::Float, Scale::ONE),
        series(4, "door/open", "", Kind::Bool, Scale::ONE),
        series(5, "log/line", "", Kind::Text, Scale::ONE),
    ] {
        upsert_series(&conn, no, id, &def).expect("a series");
    }
    for boot in [1, 2, 3] {
        upsert_boot(&conn, no, BootId(boot), &uuid::Uuid::from_u128(u128::from(boot))).expect("a boot");
    }
    let anchor = |boot_s: i64, text, trusted| Anchor { boot: BootNanos(boot_s * SECOND), utc: utc(text), trusted };
    upsert_anchor(&conn, no, BootId(1), &anchor(5, "2026-11-22T10:00:05Z", false)).expect("an anchor");
    upsert_anchor(&conn, no, BootId(2), &anchor(0, "2026-11-22T12:00:00Z", true)).expect("an anchor");
    for segment in segments() {
        add(&conn, &segment);
    }
    conn
}

/// A store in a directory of its own, closed but for its `-wal`.
pub(crate) fn store() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("varved.db");
    drop(store_at(&path));
    (directory, path)
}

/// A segment like many others, to fill pages with.
pub(crate) fn filler(seq: u64) -> Segment {
    let at = i64::try_from(seq).expect("a small number") * 100 + 10_000;
    let noise = |i: i64| (at + i).wrapping_mul(-7_046_029_254_386_353_131) >> 20;
    data(seq, seq, vec![boot_time(2, at, 50)], vec![column(2, 0, Values::Int((0..50).map(noise).collect()))])
}
