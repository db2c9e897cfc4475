//! What `reading` answers against what a plain decode of every segment says, over segments and conditions of any kind; and
//! what an hour of one series costs.

use super::super::{sample, testing};
use super::tests::{ask, work};
use super::*;
use crate::clock::timebase::Timebase;
use crate::clock::{BootNanos, SECOND};
use crate::reading::{BootId, SeqRange, SeriesId};
use crate::segment::{Column, Content, Readings, Segment, Timeline, TimelineClock, Values};
use proptest::prelude::*;

/// A reading as the naive way finds it: series, UTC, value as SQL quotes it, first sequence number.
type Plain = (String, i64, String, i64);

/// The stamps that the random segments lie in, in seconds after this moment, which is 12:00 of boot 2.
const SPAN_S: i64 = 2_000;

fn noon() -> i64 {
    sample::utc("2026-11-22T12:00:00Z").0
}

/// A timeline whose stamps go on, stand still, or step back.
fn timeline() -> impl Strategy<Value = Timeline> {
    let clock = prop_oneof![
        1 => Just(TimelineClock::Utc),
        1 => Just(TimelineClock::Boot(BootId(1))),
        3 => Just(TimelineClock::Boot(BootId(2))),
        1 => Just(TimelineClock::Boot(BootId(3))),
    ];
    (clock, 0..SPAN_S, proptest::collection::vec(-20_i64..60, 0..12)).prop_map(|(clock, first, steps)| {
        let base = if clock == TimelineClock::Utc { noon() } else { 0 };
        let mut at = first;
        let mut stamps = vec![base + at * SECOND];
        for step in steps {
            at += step;
            stamps.push(base + at * SECOND);
        }
        Timeline { clock, stamps }
    })
}

/// Timelines, and which of the integer, float and text series are on which of them.
fn readings() -> impl Strategy<Value = Readings> {
    let columns = proptest::collection::vec((0_usize..3, 0_usize..3, any::<i32>()), 1..6);
    (proptest::collection::vec(timeline(), 1..3), columns).prop_map(|(timelines, picks)| {
        let mut columns: Vec<Column> = picks
            .into_iter()
            .map(|(series, timeline, seed)| {
                let timeline = timeline % timelines.len();
                let all = (0..timelines[timeline].stamps.len() as i64).map(|i| i * 7 + i64::from(seed));
                let values = match series {
                    0 => Values::Int(all.collect()),
                    1 => Values::Float(all.map(|i| i as f64 / 4.0).collect()),
                    _ => Values::Text(all.map(|i| format!("it's {i}").into()).collect()),
                };
                Column { series: SeriesId([2, 3, 5][series]), timeline, values, missing: Vec::new() }
            })
            .collect();
        columns.sort_by_key(|column| column.series);
        Readings { timelines, columns }
    })
}

fn name(series: SeriesId) -> &'static str {
    match series.0 {
        2 => "net/bytes",
        3 => "mast/wind,height=80",
        _ => "log/line",
    }
}

fn plainly(first: u64, readings: &Readings, timebase: &Timebase) -> Vec<Plain> {
    let mut all = Vec::new();
    for column in &readings.columns {
        let timeline = &readings.timelines[column.timeline];
        for (at, stamp) in timeline.stamps.iter().enumerate() {
            let utc = match timeline.clock {
                TimelineClock::Utc => *stamp,
                TimelineClock::Boot(boot) => timebase.utc(boot, BootNanos(*stamp)).0.0,
            };
            let value = match &column.values {
                Values::Int(all) => all[at].to_string(),
                Values::Float(all) => format!("{:?}", all[at]),
                Values::Text(all) => format!("'{}'", all[at].replace('\'', "''")),
                Values::Bool(all) => i32::from(all[at]).to_string(),
            };
            all.push((name(column.series).to_owned(), utc, value, first as i64));
        }
    }
    all
}

/// A condition in SQL, and in Rust.
type Condition = (String, Box<dyn Fn(&Plain) -> bool>);

fn condition() -> impl Strategy<Value = (usize, i64, i64, bool)> {
    (0_usize..6, -100..SPAN_S + 400, 0_i64..700, any::<bool>())
}

fn in_words((series, from, span, open): (usize, i64, i64, bool)) -> Condition {
    let (low, high) = (noon() + from * SECOND, noon() + (from + span) * SECOND);
    let (by_series, means): (&str, fn(&str) -> bool) = match series {
        0 => ("series = 'net/bytes'", |name| name == "net/bytes"),
        1 => ("series GLOB '*t*'", |name| name.contains('t')),
        2 => ("series IN ('log/line', 'mast/wind,height=80')", |name| name != "net/bytes"),
        3 => ("series = 'no/such'", |_| false),
        _ => ("1", |_| true),
    };
    match open {
        true => (format!("{by_series} AND time > {low}"), Box::new(move |row| means(&row.0) && row.1 > low)),
        false => (
            format!("{by_series} AND time BETWEEN {low} AND {high}"),
            Box::new(move |row| means(&row.0) && (low..=high).contains(&row.1)),
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is asked of whatever segments, the rows are those of a full decode; and no value is decoded where no segment
    /// has one that is meant.
    #[test]
    fn answers_are_those_of_a_full_decode(
        segments in proptest::collection::vec(readings(), 1..8),
        conditions in proptest::collection::vec(condition(), 1..8),
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("varved.db");
        let writer = sample::store_at(&path);
        let timebase = &Reader::open(&path).expect("a reader").held().expect("a catalogue").stores[0].timebase;
        let mut all = Vec::new();
        for (first, readings) in (100..).zip(segments) {
            all.extend(plainly(first, &readings, timebase));
            let range = SeqRange::new(first, first).expect("a range");
            sample::add(&writer, &Segment { range, content: Content::Data { readings, names: Vec::new() } });
        }
        for condition in conditions {
            let (sql, holds) = in_words(condition);
            let sql = format!("SELECT series, time, quote(value), seq FROM reading WHERE seq >= 100 AND {sql}");
            let mut expected: Vec<String> =
                all.iter().filter(|row| holds(row)).map(|(a, b, c, d)| format!("{a}|{b}|{c}|{d}")).collect();
            let (mut rows, tally) = work(&path, &sql);
            rows.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&rows, &expected, "{}", sql);
            prop_assert!(tally.values >= rows.len() as u64);
        }
    }
}

/// A reading in the middle of much: of fifty series over an hour and a half, ten minutes of one open the segments of those
/// ten minutes and decode the columns on the way to it, not a tenth of what a full scan does. Times alone decode nothing.
#[test]
fn ten_minutes_of_one_series_cost_their_own_columns() {
    let bench = testing::Bench::new();
    let mut store = bench.open_calm();
    let anchor = crate::clock::Anchor { boot: testing::at(0).boot, utc: testing::at(0).utc, trusted: true };
    testing::put_with(&mut store, 50, 30, 0, &[anchor]).expect("a commit");
    for s in 1..180 {
        testing::put(&mut store, 50, 30, s * 30).expect("a commit");
    }
    testing::compact_all(&mut store, testing::at(100_000));
    let path = &bench.cfg.path;
    let everything = work(path, "SELECT count(value) FROM reading");
    assert_eq!((everything.0[0].as_str(), everything.1.values), ("270000", 270_000));
    let (from, to) = (testing::at(2_000).utc.0, testing::at(2_600).utc.0);
    let ten_minutes = format!("FROM reading WHERE series = 'bench/s7' AND time >= {from} AND time < {to}");
    let (rows, tally) = work(path, &format!("SELECT count(value) {ten_minutes}"));
    assert_eq!(rows, ["600"]);
    assert!(tally.opened < tally.segments, "{tally:?}");
    assert!(tally.values >= 600 && tally.values * 10 < everything.1.values, "{tally:?}");
    assert!(tally.columns * 10 < everything.1.columns, "{tally:?}");
    let (rows, tally) = work(path, &format!("SELECT count(time) {ten_minutes}"));
    assert_eq!((rows[0].as_str(), tally.values), ("600", 0));
}

/// A statement takes its values beside its text, as many as it has places for; a second run with others gives others.
#[test]
fn a_statement_takes_values() {
    let (_directory, path) = sample::store();
    let session = Session::open(&path).expect("a session");
    let count = |parameters: &[Field<'_>]| {
        let mut lines = super::tests::Lines::default();
        let sql = "SELECT count(*) FROM reading WHERE series = ?1 AND time > ?2";
        session.run_with(sql, parameters, &mut lines).map(|()| lines.0.remove(0)).ok()
    };
    assert_eq!(count(&[Field::Text(b"door/open"), Field::Int(0)]).as_deref(), Some("4"));
    assert_eq!(count(&[Field::Text(b"log/line"), Field::Int(0)]).as_deref(), Some("4"));
    assert_eq!(count(&[Field::Text(b"cpu/temp"), Field::Real(1e300)]).as_deref(), Some("0"));
    assert_eq!(count(&[Field::Text(b"cpu/temp"), Field::Null]).as_deref(), Some("0"));
    assert_eq!(count(&[Field::Text(b"cpu/temp")]), None);
    assert_eq!(ask(&session, "SELECT count(*) FROM reading"), [sample::READINGS.to_string()]);
}
