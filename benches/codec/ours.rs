//! The codec of this project: whole MQTT payloads, and the time of encoding and decoding.

use super::set::{Row, Set};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;
use varved::reading::{Kind, NoValue, Scale, SeqRange, SeriesDef, SeriesId};
use varved::segment::{
    Column, Content, Missing, Readings, Segment, Timeline, TimelineClock, Values, View, decode, encode,
};
use varved::wire::{StoreUuid, frames};

/// What the uplink allows by default.
const MAX_PAYLOAD_BYTES: usize = 120 << 10;

/// The length of the payloads that carry `rows` as one segment, once it has come back bit by bit.
pub(crate) fn payload(set: &Set, rows: &[Row], named: bool) -> usize {
    let segment = segment(set, rows, named);
    let body = encode(&segment).expect("a body");
    assert_same(&segment, &View::parse(&body).and_then(View::into_segment).expect("a segment"));
    let store = StoreUuid::from_u128(0x2f1d_4c5b_6a79_8899_aabb_ccdd_eeff_0011);
    frames(store, segment.range, &body, MAX_PAYLOAD_BYTES).map(|payload| payload.expect("a payload").len()).sum()
}

/// Nanoseconds per reading, the best of several rounds over the set: the machine is shared.
pub(crate) fn time_ns(set: &Set, n: usize, encoding: bool) -> f64 {
    let segments: Vec<Segment> = set.rows.chunks(n).map(|rows| segment(set, rows, false)).collect();
    let bodies: Vec<Vec<u8>> = segments.iter().map(|s| encode(s).expect("a body")).collect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begin = Instant::now();
        let mut work = 0;
        if encoding {
            work = segments.iter().map(|s| encode(s).expect("a body").len()).sum();
        } else {
            bodies.iter().for_each(|b| work += decode(b).expect("a segment").content.n());
        }
        std::hint::black_box(work);
        best = best.min(begin.elapsed().as_nanos() as f64);
    }
    best / set.rows.len() as f64
}

fn assert_same(a: &Segment, b: &Segment) {
    // NaN is not equal to itself; its printed bits are.
    let bits = |segment: &Segment| {
        let Content::Data { readings, names } = &segment.content else { panic!("data") };
        let mut all = format!("{:?}{:?}{names:?}", segment.range, readings.timelines);
        for column in &readings.columns {
            let _ = write!(all, "{:?}{}{:?}", column.series, column.timeline, column.missing);
            let gone: Vec<usize> = column.missing.iter().map(|m| m.at as usize).collect();
            for at in (0..column.values.len()).filter(|at| gone.binary_search(at).is_err()) {
                let _ = match &column.values {
                    Values::Float(floats) => write!(all, "{:x},", floats[at].to_bits()),
                    other => write!(all, "{:?},", other.get(at)),
                };
            }
        }
        all
    };
    assert!(bits(a) == bits(b), "a segment comes back bit by bit");
}

pub(crate) fn segment(set: &Set, rows: &[Row], named: bool) -> Segment {
    let (mut readings, mut names) = (Readings::default(), Vec::new());
    let mut timelines: HashMap<Vec<i64>, usize> = HashMap::new();
    for (series, rows) in set.by_series(rows) {
        let stamps: Vec<i64> = rows.iter().map(|row| row.stamp_ms * 1_000_000).collect();
        let timeline = *timelines.entry(stamps).or_insert_with_key(|stamps| {
            readings.timelines.push(Timeline { clock: TimelineClock::Utc, stamps: stamps.clone() });
            readings.timelines.len() - 1
        });
        let empty = rows.iter().enumerate().filter(|(_, row)| row.text.is_empty());
        let missing = empty.map(|(at, _)| Missing { at: at as u32, why: NoValue::Absent }).collect();
        let (id, kind) = (SeriesId(series as u32 + 1), set.kinds[series]);
        let values = match kind {
            Kind::Int => Values::Int(rows.iter().map(|row| row.int()).collect()),
            _ => Values::Float(rows.iter().map(|row| row.float()).collect()),
        };
        readings.columns.push(Column { series: id, timeline, values, missing });
        if named {
            let name = set.names[series].clone();
            names.push((id, SeriesDef { name, unit: String::new(), kind, scale: Scale::ONE }));
        }
    }
    let range = SeqRange::new(1_000, 1_000).expect("a range");
    Segment { range, content: Content::Data { readings, names } }
}
