//! The segments that every device sends: real readings, through the real encoder, once.

use super::Outcome;
use super::set::{Row, Set};
use std::collections::HashMap;
use varved::reading::{BootId, Kind, NoValue, Scale, SeqRange, SeriesDef, SeriesId};
use varved::segment::{Column, Content, Missing, Readings, Segment, Timeline, TimelineClock, Values, encode};
use varved::wire::{CatalogBoot, CatalogPage, StoreUuid};

/// Bodies by sequence number, and the names that they cite.
pub(crate) struct Supply {
    bodies: Vec<Vec<u8>>,
    series: Vec<(SeriesId, SeriesDef)>,
}

impl Supply {
    /// `most` segments of `readings` each. Where the set ends it begins again, at a later time.
    pub(crate) fn new(set: &Set, readings: usize, most: u64) -> Outcome<Self> {
        let whole: Vec<&[Row]> = set.rows.chunks_exact(readings.max(1)).collect();
        let (Some(first), Some(last)) = (set.rows.first(), set.rows.last()) else { return Err("no readings".into()) };
        let span_ms = last.stamp_ms - first.stamp_ms + 1_000;
        let bodies = (1..=most).map(|seq| {
            let at = (seq - 1) as usize;
            let rows = whole.get(at % whole.len().max(1)).ok_or("fewer readings than one segment")?;
            Ok(encode(&segment(set, rows, seq, (at / whole.len()) as i64 * span_ms)?)?)
        });
        let bodies = bodies.collect::<Outcome<Vec<_>>>()?;
        let def = |(at, name): (usize, &String)| {
            let def = SeriesDef { name: name.clone(), unit: String::new(), kind: set.kinds[at], scale: Scale::ONE };
            (SeriesId(at as u32 + 1), def)
        };
        Ok(Self { bodies, series: set.names.iter().enumerate().map(def).collect() })
    }

    /// The body of segment `seq`, from 1.
    pub(crate) fn body(&self, seq: u64) -> Option<&[u8]> {
        self.bodies.get(usize::try_from(seq).ok()?.checked_sub(1)?).map(Vec::as_slice)
    }

    /// The catalogue of a store.
    pub(crate) fn page(&self, store: StoreUuid) -> CatalogPage {
        let boots = vec![CatalogBoot { id: BootId(1), uuid: store, anchors: Vec::new() }];
        CatalogPage { store, series: self.series.clone(), boots }
    }

    /// Bytes of the first `n` bodies.
    pub(crate) fn body_bytes(&self, n: u64) -> u64 {
        self.bodies.iter().take(n as usize).map(|body| body.len() as u64).sum()
    }
}

fn segment(set: &Set, rows: &[Row], seq: u64, later_ms: i64) -> Outcome<Segment> {
    let mut readings = Readings::default();
    let mut timelines: HashMap<Vec<i64>, usize> = HashMap::new();
    for (series, rows) in set.by_series(rows) {
        let stamps: Vec<i64> = rows.iter().map(|row| (row.stamp_ms + later_ms) * 1_000_000).collect();
        let timeline = *timelines.entry(stamps).or_insert_with_key(|stamps| {
            readings.timelines.push(Timeline { clock: TimelineClock::Utc, stamps: stamps.clone() });
            readings.timelines.len() - 1
        });
        let empty = rows.iter().enumerate().filter(|(_, row)| row.text.is_empty());
        let missing = empty.map(|(at, _)| Missing { at: at as u32, why: NoValue::Absent }).collect();
        let values = match set.kinds[series] {
            Kind::Int => Values::Int(rows.iter().map(|row| row.int()).collect()),
            _ => Values::Float(rows.iter().map(|row| row.float()).collect()),
        };
        readings.columns.push(Column { series: SeriesId(series as u32 + 1), timeline, values, missing });
    }
    let range = SeqRange::new(seq, seq).ok_or("a sequence number of 0")?;
    Ok(Segment { range, content: Content::Data { readings, names: Vec::new() } })
}
