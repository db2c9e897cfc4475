//! Hourly figures for stock tools: what a compacted segment says about each UTC hour that it reaches into.
//!
//! What enters: the segment that compaction writes, what is known of time. What leaves: rows of `rollup`, written in the
//! transaction of that segment and deleted with it, so nothing counts twice: the figures of an hour are the sum over its
//! rows. Only segments whose whole UTC is known have any; texts have none. It is no source: all of it can be recomputed.

use super::Store;
use super::ack::SegmentHead;
use super::error::StoreError;
use super::file::{StoreNo, execute};
use crate::clock::timebase::{Quality, Timebase};
use crate::clock::{BootNanos, SECOND, UtcNanos};
use crate::reading::{BootId, Scale, SegmentSeq, SeriesDef, SeriesId, Value};
use crate::segment::{Content, Segment, Timeline, TimelineClock};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};

const HOUR_NANOS: i64 = 3600 * SECOND;

/// What is known of one series in one hour.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    n: u64,
    min: f64,
    mean: f64,
    max: f64,
    last: f64,
    last_at: i64,
}

/// By hour and series, which is the order of the table: an hour's rows lie together, and new ones at its end.
#[derive(Debug, Default)]
pub(super) struct Rollups(BTreeMap<(i64, SeriesId), Figures>);

impl Figures {
    fn of(value: f64, at: i64) -> Self {
        Self { n: 1, min: value, mean: value, max: value, last: value, last_at: at }
    }

    /// The mean is carried on rather than a sum, which would lose the digits of a long hour.
    fn add(&mut self, value: f64, at: i64) {
        self.n += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.mean += (value - self.mean) / self.n as f64;
        if at >= self.last_at {
            (self.last, self.last_at) = (value, at);
        }
    }
}

impl Rollups {
    /// The figures of `segment`; none where any of its stamps has no trusted UTC.
    pub(super) fn of(segment: &Segment, timebase: &Timebase) -> Self {
        let Content::Data { readings, names } = &segment.content else { return Self::default() };
        let times: Option<Vec<Vec<i64>>> = readings.timelines.iter().map(|t| utc_of(t, timebase)).collect();
        let Some(times) = times else { return Self::default() };
        let scales: BTreeMap<SeriesId, Scale> =
            names.iter().map(|(id, def): &(_, SeriesDef)| (*id, def.scale)).collect();
        let mut all = Self::default();
        for column in &readings.columns {
            let scale = scales.get(&column.series).copied().unwrap_or(Scale::ONE);
            let missing: BTreeSet<u32> = column.missing.iter().map(|m| m.at).collect();
            let Some(times) = times.get(column.timeline) else { continue };
            for (i, at) in times.iter().enumerate().filter(|(i, _)| !missing.contains(&(*i as u32))) {
                if let Some(value) = column.values.get(i).and_then(|value| number(&value, scale)) {
                    all.add(column.series, *at, value);
                }
            }
        }
        all
    }

    fn add(&mut self, series: SeriesId, at: i64, value: f64) {
        let figures = self.0.entry((at.div_euclid(HOUR_NANOS), series));
        figures.and_modify(|f| f.add(value, at)).or_insert_with(|| Figures::of(value, at));
    }

    /// Within the transaction that adds the segment beginning at `first`.
    pub(super) fn write(&self, conn: &Connection, no: StoreNo, first: SegmentSeq) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO rollup (store, series, hour, first_seq, n, min, mean, max, last) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        for ((hour, series), f) in &self.0 {
            let n = i64::try_from(f.n).unwrap_or(i64::MAX);
            let first = i64::try_from(first.0).unwrap_or(i64::MAX);
            let values = params![no.0, series.0, hour, first, n, f.min, f.mean, f.max, f.last];
            execute(conn, "write hourly figures", sql, values)?;
        }
        Ok(())
    }
}

/// The UTC of every stamp, or `None` where one is an estimate.
fn utc_of(timeline: &Timeline, timebase: &Timebase) -> Option<Vec<i64>> {
    let TimelineClock::Boot(boot) = timeline.clock else { return Some(timeline.stamps.clone()) };
    let utc = |at: &i64| match timebase.utc(boot, BootNanos(*at)) {
        (UtcNanos(utc), Quality::Ok) => Some(utc),
        (_, Quality::Estimated) => None,
    };
    timeline.stamps.iter().map(utc).collect()
}

fn number(value: &Value, scale: Scale) -> Option<f64> {
    match value {
        Value::Int(raw) => Some(scale.apply(*raw)),
        Value::Float(value) => Some(*value).filter(|v| v.is_finite()),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Text(_) | Value::None(_) => None,
    }
}

/// Deletes the figures of `heads`, within the transaction that deletes them.
pub(super) fn delete(conn: &Connection, no: StoreNo, heads: &[SegmentHead]) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(()) };
    let number = |seq: SegmentSeq| i64::try_from(seq.0).unwrap_or(i64::MAX);
    let sql = "DELETE FROM rollup WHERE store = ?1 AND first_seq BETWEEN ?2 AND ?3";
    let values = params![no.0, number(first.range.first), number(last.range.first)];
    execute(conn, "delete hourly figures", sql, values).map(drop)
}

impl Store {
    /// What is known of time in one store, for the boots that `segment` cites.
    pub(super) fn timebase(&self, no: StoreNo, segment: &Segment) -> Result<Timebase, StoreError> {
        let Content::Data { readings, .. } = &segment.content else { return Ok(Timebase::new([])) };
        let boots: BTreeSet<BootId> = readings
            .timelines
            .iter()
            .filter_map(|timeline| match timeline.clock {
                TimelineClock::Boot(boot) => Some(boot),
                TimelineClock::Utc => None,
            })
            .collect();
        let known: Result<Vec<_>, StoreError> =
            boots.into_iter().map(|boot| Ok((boot, self.anchors(no, boot)?))).collect();
        Ok(Timebase::new(known?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, compact_all, put, put_with};
    use super::*;
    use crate::clock::Anchor;

    fn anchor(s: i64) -> Anchor {
        Anchor { boot: at(s).boot, utc: at(s).utc, trusted: true }
    }

    fn sums(store: &Store) -> (i64, i64, f64, f64) {
        let sql = "SELECT count(DISTINCT hour), coalesce(sum(n), 0), coalesce(min(min), 0), coalesce(max(max), 0) FROM rollup";
        store.conn.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap()
    }

    /// However often segments are joined, each reading counts once, in its hour and unit; what expires takes its figures
    /// along.
    #[test]
    fn every_compacted_reading_counts_once() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put_with(&mut store, 3, 60, 0, &[anchor(0), anchor(200_000)]).unwrap();
        (1..200).for_each(|s| drop(put(&mut store, 3, 60, s * 60).unwrap()));
        compact_all(&mut store, at(4_000));
        compact_all(&mut store, at(100_000));
        let (hours, n, min, max) = sums(&store);
        assert_eq!((hours, n), (4, 3 * 60 * 199), "the newest segment isn't compacted");
        assert!(min >= 19.8 && max <= 20.2 && min < max, "{min} {max}");
        while store.make_room(at(100_000)).unwrap() == super::super::Step::Worked {}
        assert_eq!(sums(&store).1, 0);
    }

    /// Where no clock could be trusted there are no figures: an hour that may be wrong is worse than none.
    #[test]
    fn without_a_trusted_clock_there_are_no_figures() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..50).for_each(|s| drop(put(&mut store, 3, 60, s * 60).unwrap()));
        compact_all(&mut store, at(100_000));
        assert_eq!(sums(&store), (0, 0, 0.0, 0.0));
    }
}
