//! Hourly figures for stock tools, which outlive the readings that they are from: what is *thinned* keeps them.
//!
//! What enters: segments in the order of their numbers, what is known of time. What leaves: rows of `rollup`, one for each
//! series and UTC hour, and, once those have no room, of `rollup_day`. A line is *rolled* up to a number: every reading
//! below it has been counted, once, in the transaction that moved that number on; so no figure is computed anew from what
//! is left of an hour, and none counts twice, whatever is joined, thinned or dropped meanwhile.
//!
//! Only stamps whose UTC is known are counted. A boot that runs without a trusted clock is waited for: its anchors may
//! still come. One that ended without is left out, since an hour that may be wrong is worse than none. Texts have no figures.

mod history;
mod salvage;
pub(super) mod sum;
mod thin;

pub use history::{History, RollupSpan};

use super::ack::SegmentHead;
use super::error::StoreError;
use super::file::{StoreNo, execute, meta, set_meta, sql_of};
use super::{Line, Step, Store};
use crate::clock::timebase::{Quality, Timebase};
use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::reading::{BootId, Scale, SegmentSeq, SeriesId, Value};
use crate::segment::{self, Content, Segment, Timeline, TimelineClock};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use sum::Key;

const HOUR_NANOS: i64 = 3600 * SECOND;
/// Readings that one step decodes.
const STEP_READINGS: u64 = 65_536;
/// Segments that one step looks at.
const STEP_SEGMENTS: usize = 256;
/// Rows that one step moves from hours to days, where an hour has fewer.
const STEP_ROWS: usize = 2048;
/// Figures that one step writes, and that one segment may have unless it has so many series: stamps that readings bring may
/// name any hour.
const MOST_FIGURES: usize = 8192;
/// What compaction hasn't come to after this time is rolled without it.
const LATE_NANOS: i64 = 2 * HOUR_NANOS;

/// What is known of one series in one hour or day. A figure that isn't known is NaN, which is NULL in the file: earlier versions
/// wrote such means.
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
pub(super) struct Rollups {
    figures: BTreeMap<(i64, SeriesId), Figures>,
    /// None for a series that the file doesn't know.
    scales: BTreeMap<SeriesId, Option<Scale>>,
    /// Readings that had no room: see [`MOST_FIGURES`].
    left_out: u64,
    /// Readings of series that the file doesn't know.
    unknown: u64,
}

/// How many rows the tables have, kept, since counting them reads them; and the [`sum`] over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rows {
    hours: u64,
    days: u64,
    sum: i64,
}

/// How far a transaction rolls a line, and with what.
#[derive(Debug)]
pub(super) struct Rolling {
    pub(super) rollups: Rollups,
    pub(super) upto: SegmentSeq,
}

impl Figures {
    fn of(value: f64, at: i64) -> Self {
        Self { n: 1, min: value, mean: value, max: value, last: value, last_at: at }
    }

    /// The mean is carried on rather than a sum, which would lose the digits of a long hour.
    fn join(&mut self, other: &Self) {
        let own = self.n as f64 / (self.n + other.n) as f64;
        self.n += other.n;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let apart = other.mean - self.mean;
        let mean = match apart.is_finite() {
            true => self.mean + apart * (1.0 - own),
            // Of opposite ends of what a double holds; the difference is more than that.
            false => self.mean * own + other.mean * (1.0 - own),
        };
        self.mean = if mean.is_nan() { mean } else { mean.max(self.min).min(self.max) };
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
    }
}

impl Rollups {
    /// Adds the readings of `segment` whose UTC is known, unless the figures of several segments would be more than one step
    /// writes; whether it did. `scale_of` says what a whole number of a series counts.
    ///
    /// # Errors
    /// Those of `scale_of`; nothing was added then.
    pub(super) fn add(
        &mut self,
        segment: &Segment,
        timebase: &Timebase,
        scale_of: impl Fn(SeriesId) -> Result<Option<Scale>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut own = Self { scales: std::mem::take(&mut self.scales), ..Self::default() };
        own.add_one(segment, timebase, scale_of)?;
        self.scales = own.scales;
        let fresh = own.figures.keys().filter(|key| !self.figures.contains_key(key)).count();
        if !self.figures.is_empty() && self.figures.len() + fresh > MOST_FIGURES {
            return Ok(false);
        }
        self.left_out += own.left_out;
        self.unknown += own.unknown;
        own.figures.into_iter().for_each(|(key, figures)| self.count(key, figures, usize::MAX));
        Ok(true)
    }

    fn add_one(
        &mut self,
        segment: &Segment,
        timebase: &Timebase,
        scale_of: impl Fn(SeriesId) -> Result<Option<Scale>, StoreError>,
    ) -> Result<(), StoreError> {
        let Content::Data { readings, .. } = &segment.content else { return Ok(()) };
        let times: Vec<Option<Vec<i64>>> = readings.timelines.iter().map(|t| utc_of(t, timebase)).collect();
        let most = MOST_FIGURES.max(2 * readings.columns.len());
        for column in &readings.columns {
            let Some(times) = times.get(column.timeline).and_then(Option::as_ref) else { continue };
            let scale = match self.scales.get(&column.series) {
                Some(scale) => *scale,
                None => *self.scales.entry(column.series).or_insert(scale_of(column.series)?),
            };
            let Some(scale) = scale else {
                self.unknown += times.len() as u64;
                continue;
            };
            let missing: BTreeSet<u32> = column.missing.iter().map(|m| m.at).collect();
            for (i, at) in times.iter().enumerate().filter(|(i, _)| !missing.contains(&(*i as u32))) {
                if let Some(value) = column.values.get(i).and_then(|value| number(&value, scale)) {
                    self.count((at.div_euclid(HOUR_NANOS), column.series), Figures::of(value, *at), most);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, key: (i64, SeriesId), figures: Figures, most: usize) {
        let room = self.figures.len() < most;
        match self.figures.get_mut(&key) {
            Some(held) => held.join(&figures),
            None if room => drop(self.figures.insert(key, figures)),
            None => self.left_out += figures.n,
        }
    }

    /// Adds to the rows of `rollup`, within the transaction that moves the line's number on; what the tables have then.
    fn write(&self, conn: &Connection, no: StoreNo, first: SegmentSeq, rows: Rows) -> Result<Rows, StoreError> {
        let mut rows = rows;
        let look = "SELECT first_seq, n, min, mean, max, last FROM rollup WHERE store = ?1 AND hour = ?2 AND series = ?3 \
                    ORDER BY first_seq DESC LIMIT 1";
        let put = "INSERT OR REPLACE INTO rollup (store, series, hour, first_seq, n, min, mean, max, last) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        for ((hour, series), f) in &self.figures {
            let held = held(conn, look, params![no.0, hour, series.0])?;
            let key = |first| Key::Hour(no, *series, *hour, first);
            let (first, f) = match held {
                Some((first, mut held)) => {
                    rows.sum = rows.sum.wrapping_sub(sum::of_row(key(first), &held));
                    held.join(f);
                    (first, held)
                }
                None => (int(first.0), *f),
            };
            rows.hours += u64::from(held.is_none());
            rows.sum = rows.sum.wrapping_add(sum::of_row(key(first), &f));
            let values = params![no.0, series.0, hour, first, int(f.n), f.min, f.mean, f.max, f.last];
            execute(conn, "write hourly figures", put, values)?;
        }
        Ok(rows)
    }

    /// The same for `rollup_day`, where the keys are days.
    fn write_days(&self, conn: &Connection, no: StoreNo, rows: Rows) -> Result<Rows, StoreError> {
        let mut rows = rows;
        let look = "SELECT 0, n, min, mean, max, last FROM rollup_day WHERE store = ?1 AND day = ?2 AND series = ?3";
        let put = "INSERT OR REPLACE INTO rollup_day (store, series, day, n, min, mean, max, last) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        for ((day, series), f) in &self.figures {
            let held = held(conn, look, params![no.0, day, series.0])?;
            let key = Key::Day(no, *series, *day);
            let mut all = *f;
            if let Some((_, held)) = held {
                rows.sum = rows.sum.wrapping_sub(sum::of_row(key, &held));
                all = held;
                all.join(f);
            }
            rows.days += u64::from(held.is_none());
            rows.sum = rows.sum.wrapping_add(sum::of_row(key, &all));
            let values = params![no.0, series.0, day, int(all.n), all.min, all.mean, all.max, all.last];
            execute(conn, "write daily figures", put, values)?;
        }
        Ok(rows)
    }
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The row that is there. What is added to it comes later: that has the last word on `last`.
fn held(conn: &Connection, sql: &str, key: impl rusqlite::Params) -> Result<Option<(i64, Figures)>, StoreError> {
    conn.prepare_cached(sql)
        .and_then(|mut s| s.query_row(key, |row| Ok((row.get(0)?, figures_of(row, 1)?))).optional())
        .map_err(|e| sql_of(conn, "read the figures", e))
}

/// `n, min, mean, max, last` from column `at` on.
fn figures_of(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Figures> {
    let n = u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0);
    let (min, mean, max) = (figure(row, at + 1)?, figure(row, at + 2)?, figure(row, at + 3)?);
    Ok(Figures { n, min, mean, max, last: figure(row, at + 4)?, last_at: i64::MIN })
}

fn figure(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<f64> {
    Ok(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN))
}

/// For what waits for the clock: the figures that its segments will have together, so far as that can be told.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    hours: BTreeSet<(i64, SeriesId)>,
}

impl Outlook {
    /// Whether the figures of what was taken in and of `segment` are no more than one segment may have; if so it is taken in, as
    /// the first one always is. An hour of the boot clock lies in two hours of UTC.
    pub(super) fn has_room(&mut self, segment: &Segment) -> bool {
        let Content::Data { readings, .. } = &segment.content else { return true };
        let hours_of = |t: &Timeline| t.stamps.iter().map(|at| at.div_euclid(HOUR_NANOS)).collect::<BTreeSet<_>>();
        let hours: Vec<BTreeSet<i64>> = readings.timelines.iter().map(hours_of).collect();
        let first = self.hours.is_empty();
        for column in &readings.columns {
            let hours = hours.get(column.timeline).into_iter().flatten();
            self.hours.extend(hours.map(|hour| (*hour, column.series)));
        }
        first || self.hours.len() <= MOST_FIGURES / 2
    }
}

/// The UTC of every stamp, or `None` where it is an estimate.
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

impl Rolling {
    /// Within a transaction; what the tables have then.
    pub(super) fn write(&self, conn: &Connection, no: StoreNo, rows: Rows) -> Result<Rows, StoreError> {
        let rows = self.rollups.write(conn, no, self.upto, rows)?;
        set_meta(conn, &rolled_key(no), int(self.upto.0))?;
        rows.write(conn)?;
        Ok(rows)
    }
}

impl Rows {
    fn write(self, conn: &Connection) -> Result<(), StoreError> {
        set_meta(conn, HOUR_ROWS, int(self.hours))?;
        set_meta(conn, DAY_ROWS, int(self.days))?;
        set_meta(conn, sum::KEY, self.sum)
    }
}

const HOUR_ROWS: &str = "rollup_rows";
const DAY_ROWS: &str = "rollup_day_rows";

fn rolled_key(no: StoreNo) -> String {
    format!("rolled {}", no.0)
}

/// Up to which number the readings of store `no` have been counted.
pub(super) fn rolled(conn: &Connection, no: StoreNo) -> Result<SegmentSeq, StoreError> {
    let seq = meta::<i64>(conn, &rolled_key(no))?.unwrap_or(0);
    Ok(SegmentSeq(u64::try_from(seq).unwrap_or(0)))
}

/// Forgets the figures of a store, within the transaction that forgets it; how many of `rows` are left.
pub(super) fn forget(conn: &Connection, no: StoreNo, rows: Rows) -> Result<Rows, StoreError> {
    let gone = |days| sum::of_some(conn, days, "store = ?1", [no.0]);
    let sum = rows.sum.wrapping_sub(gone(false)?).wrapping_sub(gone(true)?);
    let forget = |sql: &str| execute(conn, "forget a store", sql, [no.0]).map(|gone| gone as u64);
    let hours = rows.hours.saturating_sub(forget("DELETE FROM rollup WHERE store = ?1")?);
    let days = rows.days.saturating_sub(forget("DELETE FROM rollup_day WHERE store = ?1")?);
    execute(conn, "forget a store", "DELETE FROM meta WHERE key = ?1", [rolled_key(no)])?;
    let left = Rows { hours, days, sum };
    left.write(conn)?;
    Ok(left)
}

/// Whether any figures of store `no` are left.
pub(super) fn any(conn: &Connection, no: StoreNo) -> Result<bool, StoreError> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM rollup WHERE store = ?1) OR EXISTS (SELECT 1 FROM rollup_day WHERE store = ?1)";
    conn.prepare_cached(sql)
        .and_then(|mut s| s.query_row([no.0], |row| row.get(0)))
        .map_err(|e| sql_of(conn, "look for figures", e))
}

impl Store {
    /// At an open: the tables as this version has them. Figures that a version without [`rolled`] wrote went with their
    /// segments, so those segments are still there to count them from.
    pub(super) fn settle_rollups(&mut self) -> Result<(), StoreError> {
        let (hours, days) = (meta::<i64>(&self.conn, HOUR_ROWS)?, meta::<i64>(&self.conn, DAY_ROWS)?);
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let sum = meta::<i64>(&self.conn, sum::KEY)?;
        self.rollup_rows = match (hours.zip(days), sum) {
            (Some((hours, days)), Some(sum)) => Rows { hours: count(hours), days: count(days), sum },
            (Some(_), None) => self.count_figures()?,
            (None, _) => self.transaction("begin the figures anew", |conn| {
                execute(conn, "begin the figures anew", "DELETE FROM rollup", [])?;
                Rows::default().write(conn)?;
                Ok(Rows::default())
            })?,
        };
        Ok(())
    }

    /// What is known of time in store `no`, for the boots from the earliest to the latest that `run` cites.
    pub(super) fn timebase(&self, no: StoreNo, run: &[SegmentHead]) -> Result<Timebase, StoreError> {
        let first = run.iter().filter_map(|head| head.from).map(|(boot, _)| boot.0).min();
        let last = run.iter().filter_map(|head| head.to).map(|(boot, _)| boot.0).max();
        let Some((first, last)) = first.zip(last) else { return Ok(Timebase::new([])) };
        let known: Result<Vec<_>, StoreError> =
            (first..=last).map(BootId).map(|boot| Ok((boot, self.anchors(no, boot)?))).collect();
        Ok(Timebase::new(known?))
    }

    /// Whether the readings of `head` can't be counted yet: they are of the running boot, whose clock isn't trusted so far.
    pub(super) fn waits_for_clock(&self, line: &Line, head: &SegmentHead) -> bool {
        line.no == self.current().no
            && head.to.is_some_and(|(boot, _)| boot == self.boot)
            && !self.anchor.is_some_and(|anchor| anchor.trusted)
    }

    /// Counts some of what was left uncounted although compaction is done with it, such as what was recorded before the
    /// clock was trusted.
    pub(super) fn roll_step(&mut self, now: Now) -> Result<Step, StoreError> {
        for at in 0..self.lines.len() {
            if self.roll(at, None, now)? == Step::Worked {
                return Ok(Step::Worked);
            }
        }
        Ok(Step::Idle)
    }

    /// Counts the next segments of a line, or all of those below `before` that one step may take.
    pub(super) fn roll(&mut self, at: usize, before: Option<SegmentSeq>, now: Now) -> Result<Step, StoreError> {
        let line = &self.lines[at];
        let (no, current) = (line.no, at + 1 == self.lines.len());
        let end = before.map_or(line.high.0, |before| before.0.saturating_sub(1));
        let window = self.heads(no, line.rolled.0 + 1, end, STEP_SEGMENTS)?;
        let mut readings = 0;
        let run: Vec<SegmentHead> = window
            .into_iter()
            .take_while(|head| {
                let due = before.is_some() || !current || head.loss || self.is_settled(head) || self.is_late(head, now);
                readings += head.n;
                due && !self.waits_for_clock(line, head) && (readings <= STEP_READINGS || readings == head.n)
            })
            .collect();
        if run.is_empty() {
            return Ok(Step::Idle);
        }
        let (rollups, counted) = self.figures_of(no, &run)?;
        let rolling = Rolling { rollups, upto: run[counted - 1].range.last };
        // What has no figures is not worth a write: after a crash it is looked at again.
        if !rolling.rollups.figures.is_empty() {
            let rows = self.rollup_rows;
            self.rollup_rows = self.transaction("write figures", |conn| rolling.write(conn, no, rows))?;
        }
        self.rolled(at, &rolling);
        Ok(Step::Worked)
    }

    /// After the transaction with `rolling`.
    pub(super) fn rolled(&mut self, at: usize, rolling: &Rolling) {
        self.lines[at].rolled = rolling.upto;
        let Rollups { left_out, unknown, .. } = rolling.rollups;
        if left_out > 0 {
            log::warn!(
                "store: {left_out} readings of a segment with stamps of too many different hours are in no hourly figures"
            );
        }
        if unknown > 0 {
            log::warn!(
                "store: {unknown} readings of series that the file doesn't know are in no hourly figures; run `varved verify`"
            );
        }
    }

    fn is_late(&self, head: &SegmentHead, now: Now) -> bool {
        match head.to {
            Some((boot, at)) => boot != self.boot || now.boot.0.saturating_sub(at.0) >= LATE_NANOS,
            None => head.utc.is_none_or(|(_, at)| now.utc.0.saturating_sub(at.0) >= LATE_NANOS),
        }
    }

    /// The figures of as much of `run` as one step writes, and how many segments that is; one at least. A body that can't be read
    /// has none.
    fn figures_of(&self, no: StoreNo, run: &[SegmentHead]) -> Result<(Rollups, usize), StoreError> {
        let timebase = self.timebase(no, run)?;
        let mut rollups = Rollups::default();
        for (at, head) in run.iter().enumerate().filter(|(_, head)| !head.loss) {
            let body = self.body_of(no, head.range.first)?.unwrap_or_default();
            match segment::decode(&body) {
                Ok(part) => {
                    if !rollups.add(&part, &timebase, |series| self.scale_of(no, series))? {
                        return Ok((rollups, at));
                    }
                }
                Err(why) => log::warn!("store: segment {} has no hourly figures: {why}", head.range),
            }
        }
        Ok((rollups, run.len()))
    }

    /// What a whole number of `series` counts; `None` where the file doesn't know the series.
    ///
    /// # Errors
    /// Its row can't be read: what it counts is not known then, and a figure that may be wrong is worse than none.
    pub(super) fn scale_of(&self, no: StoreNo, series: SeriesId) -> Result<Option<Scale>, StoreError> {
        match self.watched(super::compact::def_of(&self.conn, no, series)) {
            Ok(def) => Ok(Some(def.scale)),
            Err(StoreError::Segment(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
