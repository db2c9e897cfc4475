//! Compaction: small neighbours become one larger segment that names its series.
//!
//! What enters: which segments are in flight, the moment. What leaves: whether there was anything to do. A step reads a
//! bounded stretch of segment heads and replaces at most one run of neighbours, in one transaction: afterwards the same
//! readings are there under the same numbers, or everything is as before. It never joins segments of different ack state,
//! takes none that is in flight, and never joins readings with losses.

use super::ack::{SegmentHead, write_acks};
use super::error::StoreError;
use super::file::{StoreNo, insert_segment, sql_of};
use super::rollup::{Outlook, Rolling, Rollups};
use super::{Step, Store, commit};
use crate::clock::{BootNanos, Now, SECOND};
use crate::reading::{SegmentSeq, SeqRange, SeriesDef, SeriesId};
use crate::segment::{self, Content, Loss, LossReason, Merge, Segment, SegmentError, View};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a segment may take and still fit the usual payload with its envelope (`max_payload`, 120 KiB).
const PAYLOAD_BYTES: u64 = 112 << 10;
/// Bytes of bodies that one run never exceeds. Small ones shrink to a third when they are joined.
const MOST_BYTES: u64 = 192 << 10;
/// A segment of so many bytes is left as it is.
const LARGE_BYTES: u64 = 32 << 10;
/// Readings that one run never exceeds: they are decoded in RAM.
const MOST_READINGS: u64 = 65_536;
/// Bytes of text that one run never exceeds but for a first segment that has more by itself: a text that is often the same
/// is few bytes in a body and all of them in RAM.
const MOST_TEXT_BYTES: usize = 1 << 20;
/// Heads that one step looks at, and the most segments that it joins.
const WINDOW: usize = 1536;
/// A run is old enough for a segment that isn't full after this time.
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
    /// Joins one run of neighbours, if there is one that is worth it; else brings the hourly figures on. Segments that overlap
    /// `in_flight` stay.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then. A body that can't be read is passed over.
    pub fn compact_step(&mut self, in_flight: &[(Uuid, SeqRange)], now: Now) -> Result<Step, StoreError> {
        self.in_flight = in_flight.to_vec();
        if !self.log_has_room()? {
            return Ok(Step::Idle);
        }
        self.look_again(now);
        for at in 0..self.lines.len() {
            let line = &self.lines[at];
            if line.no.0 < self.compacted_to.no && at + 1 < self.lines.len() {
                continue;
            }
            let from = if line.no.0 == self.compacted_to.no { self.compacted_to.seq } else { 0 };
            let window = self.heads(line.no, from, line.high.0, WINDOW)?;
            let current = at + 1 == self.lines.len();
            let may = |head: &SegmentHead| {
                let newest = current && head.range.last == line.high;
                !(newest || self.is_settled(head) || self.flies(line.uuid, &head.range))
            };
            // What can be counted isn't joined with what can't be yet: a segment is in the hourly figures or it isn't.
            let state = |head: &SegmentHead| (line.acked.covers(head.range), self.waits_for_clock(line, head));
            let old = |head: &SegmentHead| !current || self.is_old(head, now);
            match choose(&window, &may, &state, &old, window.len() < WINDOW) {
                Found::Run(run) => {
                    let no = line.no;
                    let next = self.join(at, &window[run], now)?;
                    (self.compacted_to.no, self.compacted_to.seq) = (no.0, next);
                    return Ok(Step::Worked);
                }
                Found::Nothing(upto) if upto > 0 && window.len() == WINDOW => {
                    (self.compacted_to.no, self.compacted_to.seq) = (line.no.0, window[upto - 1].range.last.0 + 1);
                    return Ok(Step::Worked);
                }
                Found::Nothing(_) => {}
            }
        }
        self.roll_step(now)
    }

    /// Whether a segment is as large as compaction makes them.
    pub(super) fn is_settled(&self, head: &SegmentHead) -> bool {
        head.bytes >= LARGE_BYTES || head.n > MOST_READINGS / 2
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

    /// Replaces `run` by one segment, or as much of it as comes before one that can't be read. The number to go on from.
    fn join(&mut self, at: usize, run: &[SegmentHead], now: Now) -> Result<u64, StoreError> {
        let (no, first) = (self.lines[at].no, run[0].range.first);
        if self.is_behind(at, first)? && self.roll(at, Some(first), now)? == Step::Worked {
            return Ok(first.0);
        }
        let rolled = self.rolls(at, &run[0])?.then_some(self.lines[at].rolled);
        let waits = self.waits_for_clock(&self.lines[at], &run[0]);
        let all_losses = run.iter().all(|head| head.loss);
        let (mut losses, mut merge, mut rollups) = (Vec::new(), Merge::default(), Rollups::default());
        let (mut outlook, mut full, mut text_bytes) = (Outlook::default(), false, 0);
        let timebase = self.timebase(no, run)?;
        let (mut parts, broken) = self.each_part(no, run, |part| {
            let before = text_bytes;
            text_bytes += part.content.text_bytes();
            if before > 0 && text_bytes > MOST_TEXT_BYTES {
                return Ok(false);
            }
            if rolled.is_some_and(|upto| part.range.first > upto) {
                full = !rollups.add(&part, &timebase, |series| self.scale_of(no, series))?;
            }
            if full || (waits && !outlook.has_room(&part)) {
                return Ok(false);
            }
            if all_losses {
                losses.push(part)
            } else {
                merge.add(&part)
            }
            Ok(true)
        })?;
        if full {
            // More figures than go with it: they come first.
            let end = run[run.len() - 1].range.last.0 + 1;
            let counted = self.roll(at, Some(SegmentSeq(end)), now)? == Step::Worked;
            return Ok(if counted { first.0 } else { end });
        }
        if let Some((head, why)) = broken {
            log::warn!("store: segment {} can't be read: {why}", head.range);
            let uuid = self.lines[at].uuid;
            if !matches!(why, SegmentError::Newer { .. }) && !self.lines[at].acked.covers(head.range) {
                self.record_damaged(uuid, head.range.first, now)?;
            }
        }
        let mut next = run[parts - usize::from(broken.is_none())].range.last.0 + 1;
        if all_losses && alike(&losses) < parts {
            parts = alike(&losses);
            losses.truncate(parts);
            next = run[parts - 1].range.last.0 + 1;
        }
        if parts < 2 {
            return Ok(next);
        }
        let run = &run[..parts];
        let joined = if all_losses { join_losses(&losses) } else { self.name(no, merge) };
        let encoded = joined.and_then(|segment| Ok(segment::encode(&segment)?));
        let body = match encoded {
            Ok(body) if body.len() as u64 > PAYLOAD_BYTES && parts >= 4 => {
                // Its parts hardly shrank: half of them make a segment that does fit.
                return self.join(at, &run[..parts / 2], now);
            }
            Ok(body) => body,
            Err(StoreError::Segment(e)) => {
                log::warn!("store: segments {first}..={} stay apart: {e}", run[parts - 1].range.last);
                return Ok(next);
            }
            Err(e) => return Err(e),
        };
        let upto = run[parts - 1].range.last;
        let rolling = rolled.filter(|before| *before < upto).map(|_| Rolling { rollups, upto });
        self.replace(at, run, &body, rolling)?;
        Ok(if broken.is_some() { next } else { first.0 })
    }

    /// Whether readings before `first` have not been counted: they come first.
    fn is_behind(&self, at: usize, first: SegmentSeq) -> Result<bool, StoreError> {
        let line = &self.lines[at];
        Ok(!self.heads(line.no, line.rolled.0 + 1, first.0.saturating_sub(1), 1)?.is_empty())
    }

    /// Whether a run that begins with `head` is counted as it is joined, as far as it isn't yet.
    fn rolls(&self, at: usize, head: &SegmentHead) -> Result<bool, StoreError> {
        let line = &self.lines[at];
        Ok(!self.waits_for_clock(line, head) && !self.is_behind(at, head.range.first)?)
    }

    fn replace(
        &mut self,
        at: usize,
        run: &[SegmentHead],
        body: &[u8],
        rolling: Option<Rolling>,
    ) -> Result<(), StoreError> {
        let (no, acks, view) = (self.lines[at].no, self.unwritten_acks(), View::parse(body)?);
        let rows = self.rollup_rows;
        self.rollup_rows = self.transaction("compact", |conn| {
            run.iter().try_for_each(|head| commit::delete(conn, no, head.range.first))?;
            insert_segment(conn, no, &view, body)?;
            write_acks(conn, &acks)?;
            rolling.as_ref().map_or(Ok(rows), |rolling| rolling.write(conn, no, rows))
        })?;
        self.acks_written();
        if let Some(rolling) = rolling {
            self.rolled(at, &rolling);
        }
        let line = &mut self.lines[at];
        run.iter().for_each(|head| line.tally.remove(&head.range, head.n, &line.acked));
        line.tally.add(&view.range(), view.n() as u64, &line.acked);
        Ok(())
    }

    /// Hands over the segments of `run`, one at a time, up to the first that isn't taken or can't be read; says how many were
    /// taken, and which can't be read.
    #[allow(clippy::type_complexity)]
    fn each_part<'a>(
        &self,
        no: StoreNo,
        run: &'a [SegmentHead],
        mut take: impl FnMut(Segment) -> Result<bool, StoreError>,
    ) -> Result<(usize, Option<(&'a SegmentHead, SegmentError)>), StoreError> {
        for (parts, head) in run.iter().enumerate() {
            let body = self.body_of(no, head.range.first)?.unwrap_or_default();
            match segment::decode(&body) {
                Ok(part) if part.range == head.range => {
                    if !take(part)? {
                        return Ok((parts, None));
                    }
                }
                Ok(_) => {
                    let why = SegmentError::Corrupt("the row and its body name different ranges");
                    return Ok((parts, Some((head, why))));
                }
                Err(why) => return Ok((parts, Some((head, why)))),
            }
        }
        Ok((run.len(), None))
    }

    /// Puts a loss in the place of the segment of `uuid` that covers `seq`, because its body can't be read. The damaged
    /// bytes are gone with that.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn record_damaged(&mut self, uuid: Uuid, seq: SegmentSeq, _now: Now) -> Result<(), StoreError> {
        let Some(at) = self.lines.iter().position(|line| line.uuid == uuid) else { return Ok(()) };
        let no = self.lines[at].no;
        let Some(head) = self.head_at(no, seq)? else { return Ok(()) };
        let readings = (!head.loss).then_some(head.n);
        let loss = Loss { reason: LossReason::Damaged, readings, from: head.from, to: head.to, utc: head.utc };
        let body = segment::encode(&Segment { range: head.range, content: Content::Loss(loss) })?;
        self.replace(at, &[head], &body, None)
    }

    fn name(&self, no: StoreNo, merge: Merge) -> Result<Segment, StoreError> {
        let mut joined = merge.finish()?;
        if let Content::Data { readings, names } = &mut joined.content {
            let cited: BTreeSet<SeriesId> = readings.columns.iter().map(|column| column.series).collect();
            *names = cited
                .into_iter()
                .map(|id| Ok((id, self.watched(def_of(&self.conn, no, id))?)))
                .collect::<Result<_, StoreError>>()?;
        }
        Ok(joined)
    }
}

/// Whether the fleet has a segment, and whether it waits for the clock: only what is alike in both is joined.
type State = (bool, bool);

/// The first run in `window` that is worth joining. `last` says that nothing comes after the window yet.
fn choose(
    window: &[SegmentHead],
    may: &dyn Fn(&SegmentHead) -> bool,
    state: &dyn Fn(&SegmentHead) -> State,
    old: &dyn Fn(&SegmentHead) -> bool,
    last: bool,
) -> Found {
    let mut done = 0;
    let mut start = 0;
    while start < window.len() {
        let Stretch { segments, limited } = stretch(&window[start..], may, state);
        let run = &window[start..start + segments];
        let end = start + run.len();
        let (readings, bytes): (u64, u64) = run.iter().fold((0, 0), |sum, head| (sum.0 + head.n, sum.1 + head.bytes));
        let dominant = run.iter().rposition(|head| head.bytes > bytes / 2 || (head.n > readings / 2 && head.n > 1));
        let losses = run.iter().all(|head| head.loss);
        let open = end == window.len() && !limited;
        let full = limited || run.len() >= WINDOW - 1;
        let rested = run.len() >= OLD_SEGMENTS && run.iter().all(old);
        if run.len() >= 2 && (losses || ((full || rested) && dominant.is_none())) {
            return Found::Run(start..end);
        }
        let begun = start;
        start = match dominant {
            // It isn't rewritten for few small ones; those behind it may be a run of their own.
            Some(at) if full && run.len() >= 2 => start + at + 1,
            _ => end.max(start + 1),
        };
        // A run at the end of the window may go on behind it.
        done = match open && start >= window.len() {
            true if last || begun > 0 => begun,
            _ => start,
        };
    }
    Found::Nothing(done.min(window.len()))
}

/// A run from the first segment of a window on.
struct Stretch {
    segments: usize,
    /// It ends because the next one would be too much, so it won't get longer.
    limited: bool,
}

/// How many segments from the first on are neighbours of one kind and state, within the bounds of a run.
fn stretch(
    window: &[SegmentHead],
    may: &dyn Fn(&SegmentHead) -> bool,
    state: &dyn Fn(&SegmentHead) -> State,
) -> Stretch {
    let mut all = Stretch { segments: 0, limited: false };
    let Some(first) = window.first().filter(|head| may(head)) else { return all };
    let (mut bytes, mut readings, mut next) = (0, 0, first.range.first.0);
    let kind = (first.loss, state(first));
    for head in window {
        if head.range.first.0 != next || !may(head) || (head.loss, state(head)) != kind {
            return all;
        }
        next = head.range.last.0 + 1;
        bytes += head.bytes;
        readings += head.n;
        if all.segments > 0 && (bytes > MOST_BYTES || readings > MOST_READINGS) {
            return Stretch { limited: true, ..all };
        }
        all.segments += 1;
    }
    all
}

/// How many parts from the first on may be joined: losses are of one reason.
fn alike(parts: &[Segment]) -> usize {
    let reason = |part: &Segment| match &part.content {
        Content::Loss(loss) => Some(loss.reason),
        Content::Data { .. } => None,
    };
    let first = parts.first().and_then(reason);
    parts.iter().take_while(|part| reason(part) == first).count()
}

/// Losses of one reason, one after the other.
fn join_losses(parts: &[Segment]) -> Result<Segment, StoreError> {
    let loss_of = |segment: &Segment| match segment.content {
        Content::Loss(loss) => Ok(loss),
        Content::Data { .. } => Err(SegmentError::Unfit("readings among losses")),
    };
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(SegmentError::Unfit("there is nothing to join").into());
    };
    let mut all = loss_of(first)?;
    for part in &parts[1..] {
        let Loss { reason, readings, from, to, utc } = loss_of(part)?;
        if reason != all.reason {
            return Err(SegmentError::Unfit("losses of different reasons").into());
        }
        all.readings = all.readings.zip(readings).map(|(a, b)| a + b);
        all.reach(from, to, utc);
    }
    let range = SeqRange { first: first.range.first, last: last.range.last };
    Ok(Segment { range, content: Content::Loss(all) })
}

pub(super) fn def_of(conn: &Connection, no: StoreNo, id: SeriesId) -> Result<SeriesDef, StoreError> {
    let sql = "SELECT id, name, unit, kind, scale FROM series WHERE store = ?1 AND id = ?2";
    let fail = |e| sql_of(conn, "read the series", e);
    let mut statement = conn.prepare_cached(sql).map_err(fail)?;
    let mut rows = statement.query(params![no.0, id.0]).map_err(fail)?;
    match rows.next().map_err(fail)? {
        Some(row) => commit::series_of(row).map(|(_, def)| def),
        None => Err(SegmentError::Corrupt("a series that the file doesn't know").into()),
    }
}

#[cfg(test)]
mod tests;
