//! Readings out of segments: by series and time, one segment in RAM at a time, and no column decoded that nobody asked for.
//!
//! ```text
//! Selection ─► heads of segments (256 at a time) ─► bounds in time? ─► body ─► directory: series? stamps? ─► column
//! ```
//!
//! What enters: a connection, [`Held`] and a [`Selection`]. What leaves: [`ColumnRows`], by store, sequence and series: the
//! order of writing, not of time. It promises that a segment is passed over only where its bounds, by the anchors of this
//! moment, say that nothing in it can be meant. A segment that can't be read is counted in the [`Tally`] and passed over:
//! whoever shows the readings also shows that tally.

mod rows;

#[cfg(feature = "laptop")]
pub(super) use rows::shown;
pub use rows::{Cell, ColumnRows, Row};

use super::reader::{Held, HeldStore, quoted};
use crate::clock::timebase::Quality;
use crate::clock::{BootNanos, UtcNanos};
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesId};
use crate::segment::{Timeline, TimelineClock, View};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

/// Which readings are meant, and what of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// All of these must hold; none means every series.
    pub series: Vec<SeriesTest>,
    /// Not before this.
    pub since: Option<UtcNanos>,
    /// Not after this.
    pub until: Option<UtcNanos>,
    /// Whether [`Row::moment`] is wanted, and with it what the clock is worth.
    pub times: bool,
    /// Whether values are wanted, and what is the matter with them.
    pub values: bool,
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Self { series: Vec::new(), since: None, until: None, times: true, values: true }
    }
}

/// A condition on the name of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeriesTest {
    /// This name.
    Is(String),
    /// SQLite's `GLOB`: `*`, `?`, `[a-z]`, case matters.
    Glob(String),
}

/// What a scan has seen, decoded, and not been able to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Heads of data segments looked at.
    pub segments: u64,
    /// Bodies opened.
    pub opened: u64,
    /// Columns whose values were decoded, those on the way to another included.
    pub columns: u64,
    /// Values in them.
    pub values: u64,
    /// Segments that could not be read.
    pub unreadable: u64,
    /// The first few of them, in words.
    pub reasons: Vec<String>,
}

/// How many unreadable segments are named; the rest are counted.
const MAX_REASONS: usize = 8;

impl Tally {
    fn unreadable(&mut self, store: &HeldStore, first: SegmentSeq, why: &str) {
        self.unreadable += 1;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(format!("segment {first} of store {}: {why}", store.uuid));
        }
    }

    /// The figures of hours and days aren't what was written. One for all of them: which row it is, nobody knows.
    pub(super) fn figures_are_damaged(&mut self) {
        self.unreadable += 1;
        self.reasons.push("the figures of hours and days: some have changed or gone; check the medium".into());
    }

    /// Adds what another scan has seen.
    pub fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.opened += other.opened;
        self.columns += other.columns;
        self.values += other.values;
        self.unreadable += other.unreadable;
        let room = MAX_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(other.reasons.iter().take(room).cloned());
    }
}

/// A scan under way. It borrows nothing, so that a cursor can own it; the same connection is given to every step.
#[derive(Debug)]
pub struct Scan {
    held: Arc<Held>,
    /// By store, ascending.
    meant: Option<Vec<Vec<SeriesId>>>,
    since: i64,
    until: i64,
    times: bool,
    values: bool,
    schema: usize,
    after: i64,
    heads: VecDeque<Head>,
    covered: (i64, i64),
    columns: VecDeque<ColumnRows>,
    tally: Tally,
}

/// A row of `segment` without its body.
#[derive(Debug, Clone, Copy)]
struct Head {
    id: i64,
    last: i64,
    boots: Option<(i64, i64)>,
    boottime: (i64, i64),
    utc: Option<(i64, i64)>,
}

/// Heads read at once.
const HEADS: usize = 256;

/// More boots than this in one segment are not looked at one by one.
const MAX_BOOTS: i64 = 64;

/// A moment of a timeline, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// UTC by the anchors known now.
    pub utc: UtcNanos,
    /// What that is worth.
    pub quality: Quality,
}

impl Scan {
    /// Begins; `held` is what `conn` has.
    pub(super) fn new(conn: &Connection, held: Arc<Held>, selection: &Selection) -> rusqlite::Result<Self> {
        Ok(Self {
            meant: meant(conn, &held, &selection.series)?,
            held,
            since: selection.since.map_or(i64::MIN, |at| at.0),
            until: selection.until.map_or(i64::MAX, |at| at.0),
            times: selection.times,
            values: selection.values,
            schema: 0,
            after: i64::MIN,
            heads: VecDeque::new(),
            covered: (0, 0),
            columns: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The next column that has a reading in the range of time.
    pub(super) fn next_column(&mut self, conn: &Connection) -> rusqlite::Result<Option<ColumnRows>> {
        if self.since > self.until || self.meant.as_ref().is_some_and(|meant| meant.iter().all(Vec::is_empty)) {
            return Ok(None);
        }
        loop {
            if let Some(column) = self.columns.pop_front() {
                return Ok(Some(column));
            }
            let Some(head) = self.next_head(conn)? else { return Ok(None) };
            self.open(conn, &head)?;
        }
    }

    fn next_head(&mut self, conn: &Connection) -> rusqlite::Result<Option<Head>> {
        while self.heads.is_empty() {
            let Some(schema) = self.held.schemas.get(self.schema) else { return Ok(None) };
            self.heads = heads(conn, schema, self.after)?;
            match self.heads.back() {
                Some(last) => self.after = last.id,
                None => (self.schema, self.after, self.covered) = (self.schema + 1, i64::MIN, (0, 0)),
            }
        }
        Ok(self.heads.pop_front())
    }

    /// Opens a segment where it can hold what is meant, and puts its columns in the queue.
    fn open(&mut self, conn: &Connection, head: &Head) -> rusqlite::Result<()> {
        self.tally.segments += 1;
        let (no, first) = (head.id >> 48, SegmentSeq((head.id & ((1 << 48) - 1)).unsigned_abs()));
        // At rest ranges are disjoint; where one is nested in the one before all the same, it would be shown twice.
        if self.covered.0 == no && head.last <= self.covered.1 {
            return Ok(());
        }
        self.covered = (no, head.last);
        let held = Arc::clone(&self.held);
        let Some((index, store)) = held.store(self.schema, no).map(|index| (index, &held.stores[index])) else {
            return Ok(());
        };
        if !self.may_hold(head, store) {
            return Ok(());
        }
        let sql = format!("SELECT body FROM {}.segment WHERE id = ?1", quoted(&held.schemas[self.schema]));
        let parse = |row: &rusqlite::Row<'_>| Ok(View::parse(row.get_ref(0)?.as_blob()?).map_err(|e| e.to_string()));
        let opened = conn.prepare_cached(&sql)?.query_row([head.id], parse)?;
        self.tally.opened += 1;
        let columns = opened.and_then(|view| self.columns_of(view, index, store, first));
        match columns {
            Ok(columns) => self.columns = columns,
            Err(why) => self.tally.unreadable(store, first, &why),
        }
        Ok(())
    }

    /// Whether by its bounds a segment can hold a reading in the range of time.
    fn may_hold(&self, head: &Head, store: &HeldStore) -> bool {
        let overlaps = |low: i64, high: i64| low <= self.until && self.since <= high;
        if self.since == i64::MIN && self.until == i64::MAX || head.boots.is_none() && head.utc.is_none() {
            return true;
        }
        if head.utc.is_some_and(|(low, high)| overlaps(low, high)) {
            return true;
        }
        let Some((low, high)) = head.boots else { return false };
        if high - low > MAX_BOOTS {
            return true;
        }
        (low..=high).any(|boot| {
            // Where the segment goes on into the next boot, the end of this one isn't written down: any later moment may be.
            let from = if boot == low { head.boottime.0 } else { 0 };
            let to = if boot == high { head.boottime.1 } else { i64::MAX };
            let Ok(boot) = u32::try_from(boot) else { return true };
            let (earliest, latest) = store.timebase.bounds(BootId(boot), BootNanos(from), BootNanos(to));
            overlaps(earliest.0, latest.0)
        })
    }

    fn columns_of(
        &mut self,
        view: View,
        index: usize,
        store: &HeldStore,
        seq: SegmentSeq,
    ) -> Result<VecDeque<ColumnRows>, String> {
        let meant = self.meant.as_ref().map(|meant| &meant[index]);
        let meant = |series| meant.is_none_or(|meant| meant.binary_search(&series).is_ok());
        let all = self.since == i64::MIN && self.until == i64::MAX;
        let mut known: Vec<Option<Times>> = vec![None; if self.times || !all { view.timelines().len() } else { 0 }];
        let mut picked = Vec::new();
        for (at, head) in view.columns().iter().enumerate().filter(|(_, head)| meant(head.series)) {
            let Some(slot) = known.get_mut(head.timeline) else {
                picked.push((at, *head, None, 0..head.n));
                continue;
            };
            let times = match slot {
                Some(times) => times,
                None => {
                    let timeline = view.timeline(head.timeline).map_err(|e| e.to_string())?;
                    slot.insert(Times::new(timeline, store, self.since..=self.until))
                }
            };
            if !times.meant.is_empty() {
                picked.push((at, *head, Some(Arc::clone(&times.moments)), times.meant.clone()));
            }
        }
        let mut decoded = match self.values {
            true => view.decode_columns(picked.iter().map(|(at, ..)| *at)).map_err(|e| e.to_string())?.into_iter(),
            false => Vec::new().into_iter(),
        };
        self.tally.columns += view.decoded().columns as u64;
        self.tally.values += view.decoded().values as u64;
        let mut columns = VecDeque::with_capacity(picked.len());
        for (_, head, moments, meant) in picked {
            let def = store.series.get(&head.series);
            let def = def.ok_or_else(|| format!("cites series {}, which the file does not have", head.series.0))?;
            columns.push_back(ColumnRows {
                def: Arc::clone(def),
                seq,
                moments,
                column: decoded.next(),
                at: meant.start,
                end: meant.end,
                since: self.since,
                until: self.until,
            });
        }
        Ok(columns)
    }
}

/// A timeline in UTC.
#[derive(Clone)]
struct Times {
    moments: Arc<[Moment]>,
    /// From the first to the last that is in the range of time. One in between may be outside: stamps may step back.
    meant: Range<usize>,
}

impl Times {
    fn new(timeline: &Timeline, store: &HeldStore, range: RangeInclusive<i64>) -> Self {
        let moment = |stamp: &i64| match timeline.clock {
            TimelineClock::Utc => Moment { utc: UtcNanos(*stamp), quality: Quality::Ok },
            TimelineClock::Boot(boot) => {
                let (utc, quality) = store.timebase.utc(boot, BootNanos(*stamp));
                Moment { utc, quality }
            }
        };
        let moments: Arc<[Moment]> = timeline.stamps.iter().map(moment).collect();
        let meant = |moment: &Moment| range.contains(&moment.utc.0);
        let first = moments.iter().position(meant).unwrap_or(moments.len());
        let last = moments.iter().rposition(meant).map_or(first, |last| last + 1);
        Self { moments, meant: first..last }
    }
}

/// The series whose names pass every test, by SQLite's own `GLOB`; `None` where there is no test.
fn meant(conn: &Connection, held: &Held, tests: &[SeriesTest]) -> rusqlite::Result<Option<Vec<Vec<SeriesId>>>> {
    if tests.is_empty() {
        return Ok(None);
    }
    let mut glob = conn.prepare_cached("SELECT ?1 GLOB ?2")?;
    let mut all = Vec::with_capacity(held.stores.len());
    for store in &held.stores {
        let mut meant = Vec::new();
        for (id, def) in &store.series {
            let mut passes = true;
            for test in tests {
                passes = passes
                    && match test {
                        SeriesTest::Is(name) => def.name == *name,
                        SeriesTest::Glob(pattern) => glob.query_row([&def.name, pattern], |row| row.get(0))?,
                    };
            }
            if passes {
                meant.push(*id);
            }
        }
        all.push(meant);
    }
    Ok(Some(all))
}

fn heads(conn: &Connection, schema: &str, after: i64) -> rusqlite::Result<VecDeque<Head>> {
    let sql = format!(
        "SELECT id, last_seq, boot_min, boot_max, boottime_min, boottime_max, utc_min, utc_max FROM {}.segment \
         WHERE id > ?1 AND kind = 0 ORDER BY id LIMIT {HEADS}",
        quoted(schema)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([after], |row| {
        let pair =
            |low, high| Ok::<_, rusqlite::Error>((row.get::<_, Option<i64>>(low)?, row.get::<_, Option<i64>>(high)?));
        let both = |(low, high): (Option<i64>, Option<i64>)| low.zip(high);
        let (earliest, latest) = pair(4, 5)?;
        Ok(Head {
            id: row.get(0)?,
            last: row.get(1)?,
            boots: both(pair(2, 3)?),
            boottime: (earliest.unwrap_or(i64::MIN), latest.unwrap_or(i64::MAX)),
            utc: both(pair(6, 7)?),
        })
    })?;
    rows.collect()
}

/// The range of numbers that a row of `segment` says it covers.
pub(super) fn range_of(id: i64, last: i64) -> Option<SeqRange> {
    SeqRange::new((id & ((1 << 48) - 1)).unsigned_abs(), u64::try_from(last).ok()?)
}
