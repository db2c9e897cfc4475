//! Compaction: small neighbours become one larger segment that names its series.
//!
//! What enters: which segments are in flight, the moment. What leaves: whether there was anything to do. A step reads a
//! bounded stretch of segment heads and replaces at most one run of neighbours, in one transaction: afterwards the same
//! readings are there under the same numbers, or everything is as before. It never joins segments of different ack state,
//! takes none that is in flight, and never joins readings with losses.

use super::ack::{SegmentHead, body_of, heads, write_acks};
use super::error::StoreError;
use super::file::{StoreNo, sql_of};
use super::{Line, Step, Store, commit};
use crate::clock::{BootNanos, Now, SECOND};
use crate::reading::{SeqRange, SeriesDef, SeriesId};
use crate::segment::{self, Content, Loss, Segment, View};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Bytes of bodies from which a run is worth a segment of its own.
const FULL_BYTES: u64 = 48 << 10;
/// Bytes of bodies that one run never exceeds: its segment still fits one payload.
const MOST_BYTES: u64 = 96 << 10;
/// A segment of so many bytes is left as it is.
const LARGE_BYTES: u64 = 24 << 10;
/// Readings that one run never exceeds: they are decoded in RAM.
const MOST_READINGS: u64 = 65_536;
/// Heads that one step looks at.
const WINDOW: usize = 512;
/// A run is old enough for a segment below [`FULL_BYTES`] after this time.
const AGE_NANOS: i64 = 3600 * SECOND;
/// An old run is joined only if it has so many segments: each byte is then rewritten a few times, not each hour.
const OLD_SEGMENTS: usize = 16;

/// How far everything is as it should be, per line: nothing below needs another look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    no: i64,
    seq: u64,
    since: BootNanos,
}

/// What was found in a window.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Join these, by index.
    Run(std::ops::Range<usize>),
    /// Nothing; look on from this index. The window's length if it is done with.
    Nothing(usize),
}

impl Store {
    /// Joins one run of neighbours, if there is one that is worth it. Segments that overlap `in_flight` stay.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then. A body that can't be read is passed over.
    pub fn compact_step(&mut self, in_flight: &[(Uuid, SeqRange)], now: Now) -> Result<Step, StoreError> {
        self.in_flight = in_flight.to_vec();
        self.look_again(now);
        for at in 0..self.lines.len() {
            let line = &self.lines[at];
            if line.no.0 < self.compacted_to.no && at + 1 < self.lines.len() {
                continue;
            }
            let from = if line.no.0 == self.compacted_to.no { self.compacted_to.seq } else { 0 };
            let window = heads(&self.conn, line.no, from, line.high.0, WINDOW)?;
            let current = at + 1 == self.lines.len();
            let may = |head: &SegmentHead| {
                head.bytes < LARGE_BYTES && !(current && head.range.last == line.high) && !self.flies(line.uuid, &head.range)
            };
            let acked = |head: &SegmentHead| line.acked.covers(&head.range);
            let old = |head: &SegmentHead| !current || self.is_old(head, now);
            match choose(&window, &may, &acked, &old, window.len() < WINDOW) {
                Found::Run(run) => {
                    let (no, next) = (line.no, window[run.end - 1].range.last.0 + 1);
                    let begin = window[run.start].range.first.0;
                    let joined = self.join(at, &window[run])?;
                    self.compacted_to.no = no.0;
                    self.compacted_to.seq = if joined { begin } else { next };
                    return Ok(Step::Worked);
                }
                Found::Nothing(upto) if upto > 0 && window.len() == WINDOW => {
                    (self.compacted_to.no, self.compacted_to.seq) = (line.no.0, window[upto - 1].range.last.0 + 1);
                    return Ok(Step::Worked);
                }
                Found::Nothing(_) => {}
            }
        }
        Ok(Step::Idle)
    }

    /// What was too young for a run of its own isn't for ever: from time to time everything is looked at again.
    fn look_again(&mut self, now: Now) {
        if now.boot.0.saturating_sub(self.compacted_to.since.0) >= AGE_NANOS {
            self.compacted_to = Cursor { since: now.boot, ..Cursor::default() };
        }
    }

    fn is_old(&self, head: &SegmentHead, now: Now) -> bool {
        match head.to {
            Some((boot, at)) => boot != self.boot || now.boot.0.saturating_sub(at.0) >= AGE_NANOS,
            None => head.utc.is_none_or(|(_, at)| now.utc.0.saturating_sub(at.0) >= AGE_NANOS),
        }
    }

    /// Replaces `run` by one segment. False where that can't be done and shouldn't be tried again.
    fn join(&mut self, at: usize, run: &[SegmentHead]) -> Result<bool, StoreError> {
        let line = &self.lines[at];
        let no = line.no;
        let body = match self.joined(line, run) {
            Ok(body) => body,
            Err(StoreError::Segment(e)) => {
                log::warn!("store: segments {}..={} stay apart: {e}", run[0].range.first, run[run.len() - 1].range.last);
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        let acks = self.unwritten_acks();
        self.transaction("compact", |conn| {
            run.iter().try_for_each(|head| commit::delete(conn, no, head.range.first))?;
            commit::insert(conn, no, &body)?;
            write_acks(conn, &acks)
        })?;
        self.acks_written();
        let view = View::parse(&body)?;
        let line = &mut self.lines[at];
        run.iter().for_each(|head| line.tally.remove(&head.range, head.n, &line.acked));
        line.tally.add(&view.range(), view.n() as u64, &line.acked);
        Ok(true)
    }

    /// The body that replaces `run`.
    fn joined(&self, line: &Line, run: &[SegmentHead]) -> Result<Vec<u8>, StoreError> {
        let mut parts = Vec::with_capacity(run.len());
        for head in run {
            let body = body_of(&self.conn, line.no, head.range.first)?.unwrap_or_default();
            let part = segment::decode(&body)?;
            if part.range != head.range {
                return Err(segment::SegmentError::Corrupt("the row and its body name different ranges").into());
            }
            parts.push(part);
        }
        let joined = if run.iter().all(|head| head.loss) { join_losses(&parts)? } else { self.name(line.no, &parts)? };
        Ok(segment::encode(&joined)?)
    }

    fn name(&self, no: StoreNo, parts: &[Segment]) -> Result<Segment, StoreError> {
        let mut joined = segment::merge(parts)?;
        if let Content::Data { readings, names } = &mut joined.content {
            let cited: BTreeSet<SeriesId> = readings.columns.iter().map(|column| column.series).collect();
            *names = cited.into_iter().map(|id| Ok((id, def_of(&self.conn, no, id)?))).collect::<Result<_, StoreError>>()?;
        }
        Ok(joined)
    }
}

/// The first run in `window` that is worth joining. `last` says that nothing comes after the window yet.
fn choose(
    window: &[SegmentHead],
    may: &dyn Fn(&SegmentHead) -> bool,
    acked: &dyn Fn(&SegmentHead) -> bool,
    old: &dyn Fn(&SegmentHead) -> bool,
    last: bool,
) -> Found {
    let mut done = 0;
    let mut start = 0;
    while start < window.len() {
        let run = &window[start..start + run_length(&window[start..], may, acked)];
        let end = start + run.len();
        let bytes: u64 = run.iter().map(|head| head.bytes).sum();
        let largest = run.iter().map(|head| head.bytes).max().unwrap_or(0);
        let losses = run.iter().all(|head| head.loss);
        let open = end == window.len();
        let full = bytes >= FULL_BYTES || run.len() >= WINDOW - 1;
        let aged = run.len() >= OLD_SEGMENTS && largest <= bytes / 2 && run.iter().all(old);
        let closed = !open && run.len() >= OLD_SEGMENTS && largest <= bytes / 2;
        if run.len() >= 2 && (losses || full || aged || (closed && run.iter().all(old))) {
            return Found::Run(start..end);
        }
        let begun = start;
        start = end.max(start + 1);
        // A run at the end of the window may go on behind it.
        done = match open {
            true if last || begun > 0 => begun,
            _ => start,
        };
    }
    Found::Nothing(done.min(window.len()))
}

/// How many segments from the first on are neighbours of one kind and state, within the bounds of a run.
fn run_length(
    window: &[SegmentHead],
    may: &dyn Fn(&SegmentHead) -> bool,
    acked: &dyn Fn(&SegmentHead) -> bool,
) -> usize {
    let Some(first) = window.first().filter(|head| may(head)) else { return 0 };
    let (mut bytes, mut readings, mut next) = (0, 0, first.range.first.0);
    let fits = |head: &&SegmentHead| {
        bytes += head.bytes;
        readings += head.n;
        let follows = head.range.first.0 == next;
        next = head.range.last.0 + 1;
        follows
            && may(head)
            && head.loss == first.loss
            && acked(head) == acked(first)
            && bytes <= MOST_BYTES
            && readings <= MOST_READINGS
    };
    window.iter().take_while({
        let mut fits = fits;
        move |head| fits(head)
    }).count()
}

/// Losses of one reason, one after the other.
fn join_losses(parts: &[Segment]) -> Result<Segment, StoreError> {
    let loss_of = |segment: &Segment| match segment.content {
        Content::Loss(loss) => Ok(loss),
        Content::Data { .. } => Err(segment::SegmentError::Unfit("readings among losses")),
    };
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(segment::SegmentError::Unfit("there is nothing to join").into());
    };
    let mut all = loss_of(first)?;
    for part in &parts[1..] {
        let Loss { reason, readings, from, to, utc } = loss_of(part)?;
        if reason != all.reason {
            return Err(segment::SegmentError::Unfit("losses of different reasons").into());
        }
        all.readings = all.readings.zip(readings).map(|(a, b)| a + b);
        all.from = all.from.or(from);
        all.to = to.or(all.to);
        all.utc = match (all.utc, utc) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
    let range = SeqRange { first: first.range.first, last: last.range.last };
    Ok(Segment { range, content: Content::Loss(all) })
}

fn def_of(conn: &Connection, no: StoreNo, id: SeriesId) -> Result<SeriesDef, StoreError> {
    let sql = "SELECT id, name, unit, kind, scale FROM series WHERE store = ?1 AND id = ?2";
    let fail = |e| sql_of(conn, "read the series", e);
    let mut statement = conn.prepare_cached(sql).map_err(fail)?;
    let mut rows = statement.query(params![no.0, id.0]).map_err(fail)?;
    match rows.next().map_err(fail)? {
        Some(row) => commit::series_of(row).map(|(_, def)| def),
        None => Err(segment::SegmentError::Corrupt("a series that the file doesn't know").into()),
    }
}
