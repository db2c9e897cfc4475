//! A commit: readings from the batch become segments on the medium, in one transaction with everything they cite.
//!
//! What enters: a sealed batch, the definitions of its series, anchors. What leaves: [`Committed`], and only then are
//! numbers taken: a commit that fails has changed nothing, in the file or here, and the same batch may be offered again on
//! the same connection. Where the file has reached its size, room is made first. What it does not do: wait, or drop readings.

use super::error::StoreError;
use super::file::{MAX_SEQ, SegmentRow, StoreNo, execute, insert_segment, upsert_anchor, upsert_series};
use super::{FreshWhy, Step, Store};
use crate::batch::{Overflowed, Registry, Sealed};
use crate::clock::{Anchor, Now};
use crate::reading::{BootId, Kind, Scale, SegmentSeq, SeqRange, SeriesDef, SeriesId, SeriesKey};
use crate::segment::{self, Content, Loss, LossReason, Segment, View};
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::Arc;

/// How often a commit makes room before it gives up for now.
const ROOM_TRIES: u32 = 64;

/// Numbers that one commit never exceeds.
const SPARE_SEQS: u64 = 1 << 16;

/// What is on the medium.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The segments written, ascending: readings first, a loss last.
    pub ranges: Vec<SeqRange>,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Readings in them.
    pub n: u64,
    /// Readings whose loss was written down with them.
    pub lost: u64,
}

/// A body with its bounds, ready to be inserted.
struct Ready {
    view: View,
    body: Vec<u8>,
}

/// What one commit is made of.
#[derive(Clone, Copy)]
struct Draft<'a> {
    batch: &'a Sealed,
    defs: &'a Registry,
    anchors: &'a [Anchor],
}

impl Store {
    /// Writes `batch`, what it cites in `defs` (the same registry each time: its keys are remembered), and `anchors` of the running boot, in one transaction.
    ///
    /// # Errors
    /// Nothing has changed then, and the same batch may be offered again: [`StoreError::Full`] where there is no room,
    /// [`StoreError::Sqlite`] and [`StoreError::Io`] where the medium takes no write.
    pub fn commit(
        &mut self,
        batch: &Sealed,
        defs: &Registry,
        anchors: &[Anchor],
        now: Now,
    ) -> Result<Committed, StoreError> {
        self.look_at_place(now)?;
        let done = self.commit_in_room(Draft { batch, defs, anchors }, now);
        self.watched(done)
    }

    fn commit_in_room(&mut self, draft: Draft<'_>, now: Now) -> Result<Committed, StoreError> {
        if self.next_seq().0 > MAX_SEQ - SPARE_SEQS {
            // Not by recording: a file that was damaged, or a fleet that named a number of no sense, led here.
            self.take_fresh_id(FreshWhy::Numbers, now)?;
        }
        for _ in 0..ROOM_TRIES {
            match self.try_commit(draft) {
                // Where the medium is full and not the file, deleting readings would gain nothing.
                Err(StoreError::Full { .. }) if self.at_limit()? && self.make_room(now)? == Step::Worked => {}
                done => return done,
            }
        }
        self.try_commit(draft)
    }

    fn try_commit(&mut self, draft: Draft<'_>) -> Result<Committed, StoreError> {
        let (ids, fresh) = self.resolve(draft)?;
        let sealed = self.seal(draft, &ids)?;
        if sealed.is_empty() && draft.anchors.is_empty() {
            return Ok(Committed::default());
        }
        self.check_log(sealed.iter().map(|s| s.body.len() as u64).sum())?;
        let (no, boot) = (self.current().no, self.boot);
        let ledger = self.ledger_unwritten.clone();
        self.transaction("commit", |conn| {
            super::ledger::write(conn, &ledger)?;
            for (id, def) in &fresh {
                upsert_series(conn, no, *id, def)?;
            }
            draft.anchors.iter().try_for_each(|anchor| upsert_anchor(conn, no, boot, anchor))?;
            sealed.iter().try_for_each(|s| insert_segment(conn, no, &s.view, &s.body))
        })?;
        self.ledger_unwritten = Default::default();
        self.remember(&ids, &fresh, draft);
        let committed = self.count(&sealed);
        self.fold_if_due();
        Ok(committed)
    }

    /// The ids of the draft's series: those known here, those that the file knows, and, with what they stand for, new ones.
    #[allow(clippy::type_complexity)]
    fn resolve(
        &self,
        draft: Draft<'_>,
    ) -> Result<(HashMap<SeriesKey, SeriesId>, Vec<(SeriesId, Arc<SeriesDef>)>), StoreError> {
        let mut ids = HashMap::new();
        let mut unknown = HashMap::new();
        for key in draft.batch.tracks.iter().map(|track| track.key) {
            match self.series.get(key.0 as usize).copied().flatten() {
                Some(id) => drop(ids.insert(key, id)),
                None => drop(unknown.insert(draft.defs.def(key), key)),
            }
        }
        if unknown.is_empty() {
            return Ok((ids, Vec::new()));
        }
        self.each_series(self.current().no, |id, def| {
            if let Some(key) = unknown.remove(&def) {
                ids.insert(key, id);
            }
        })?;
        let mut left: Vec<_> = unknown.into_iter().collect();
        left.sort_unstable_by_key(|(_, key)| *key);
        let mut fresh = Vec::with_capacity(left.len());
        for ((def, key), id) in left.into_iter().zip(self.next_series..) {
            ids.insert(key, SeriesId(id));
            fresh.push((SeriesId(id), def));
        }
        Ok((ids, fresh))
    }

    /// Calls `visit` with every series of store `no`, by ascending id.
    pub(super) fn each_series(&self, no: StoreNo, visit: impl FnMut(SeriesId, SeriesDef)) -> Result<(), StoreError> {
        self.watched(each_series(&self.conn, no, visit))
    }

    fn seal(&self, draft: Draft<'_>, ids: &HashMap<SeriesKey, SeriesId>) -> Result<Vec<Ready>, StoreError> {
        let id_of = |key: SeriesKey| ids[&key];
        let readings = draft.batch.to_segments(self.boot, id_of).into_iter();
        let contents = readings.map(|readings| Content::Data { readings, names: Vec::new() });
        let contents = contents.chain(draft.batch.overflow.map(|lost| Content::Loss(overflowed(&lost, self.boot))));
        contents.zip(self.next_seq().0..).map(|(content, seq)| seal(one(seq)?, content)).collect()
    }

    fn remember(&mut self, ids: &HashMap<SeriesKey, SeriesId>, fresh: &[(SeriesId, Arc<SeriesDef>)], draft: Draft<'_>) {
        for (key, id) in ids {
            let at = key.0 as usize;
            if self.series.len() <= at {
                self.series.resize(at + 1, None);
            }
            self.series[at] = Some(*id);
        }
        self.next_series += fresh.len() as u32;
        self.anchor = draft.anchors.last().copied().or(self.anchor);
        if !fresh.is_empty() || !draft.anchors.is_empty() {
            self.catalog_changes += 1;
        }
    }

    fn count(&mut self, sealed: &[Ready]) -> Committed {
        let mut committed = Committed::default();
        for s in sealed {
            let (range, n) = (s.view.range(), s.view.n() as u64);
            committed.ranges.push(range);
            committed.bytes += s.body.len() as u64;
            committed.n += n;
            committed.lost += s.view.loss().and_then(|loss| loss.readings).unwrap_or(0);
            let line = self.current_mut();
            line.high = range.last;
            line.tally.add(&range, n, &line.acked);
        }
        self.commits += 1;
        self.body_bytes += committed.bytes;
        committed
    }

    /// SQLite begins the log anew only when no reader needs it; until then it grows. Within `max_size` it may; at that
    /// bound commits of `body_bytes` wait for the reader to go.
    fn check_log(&mut self, body_bytes: u64) -> Result<(), StoreError> {
        // The pages around the bodies, and the copies that fill the last block.
        let bytes = body_bytes + body_bytes / 8 + 16 * self.pragma("page_size")? + 8192;
        if self.fits_in_log(self.log.frames(), bytes)? {
            return Ok(());
        }
        match self.log.restart(&self.conn, &self.path)? {
            true => Ok(()),
            false => Err(StoreError::Held { path: self.path.clone(), pids: super::ground::readers(&self.path) }),
        }
    }

    /// Leaves out the numbers up to `seq`, which the fleet has seen and the file has not, and writes that down.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn skip_above(&mut self, seq: SegmentSeq, now: Now) -> Result<(), StoreError> {
        let Some(range) = SeqRange::new(self.next_seq().0, seq.0.min(MAX_SEQ)) else { return Ok(()) };
        let (no, loss) = (self.current().no, loss_here(LossReason::Void, self.boot, now));
        self.transaction("leave out sequence numbers", |conn| insert_loss(conn, no, range, loss))?;
        let line = self.current_mut();
        line.high = range.last;
        line.tally.add(&range, 0, &line.acked);
        Ok(())
    }
}

/// A range of one number.
fn one(seq: u64) -> Result<SeqRange, StoreError> {
    SeqRange::new(seq, seq).filter(|r| r.last.0 <= MAX_SEQ).ok_or(StoreError::Exhausted { what: "sequence number" })
}

fn seal(range: SeqRange, content: Content) -> Result<Ready, StoreError> {
    let body = segment::encode(&Segment { range, content })?;
    Ok(Ready { view: View::parse(&body)?, body })
}

/// A loss that is discovered now.
pub(super) fn loss_here(reason: LossReason, boot: BootId, now: Now) -> Loss {
    Loss { reason, readings: None, from: Some((boot, now.boot)), to: Some((boot, now.boot)), utc: None }
}

fn overflowed(lost: &Overflowed, boot: BootId) -> Loss {
    Loss {
        reason: LossReason::Overflow,
        readings: Some(lost.readings),
        from: Some((boot, lost.from)),
        to: Some((boot, lost.to)),
        utc: lost.utc,
    }
}

/// Adds the account of a range that is no more.
pub(super) fn insert_loss(conn: &Connection, no: StoreNo, range: SeqRange, loss: Loss) -> Result<(), StoreError> {
    let sealed = seal(range, Content::Loss(loss))?;
    insert_segment(conn, no, &sealed.view, &sealed.body)
}

impl From<&View> for SegmentRow {
    fn from(view: &View) -> Self {
        let bounds = view.bounds();
        Self {
            range: view.range(),
            loss: view.is_loss(),
            n: view.n() as u64,
            boot_min: bounds.boot_min,
            boot_max: bounds.boot_max,
            boottime_min: bounds.boottime_min.map(|t| t.0),
            boottime_max: bounds.boottime_max.map(|t| t.0),
            utc_min: bounds.utc_min.map(|t| t.0),
            utc_max: bounds.utc_max.map(|t| t.0),
        }
    }
}

/// Calls `visit` with every series of a store, by ascending id.
pub(super) fn each_series(
    conn: &Connection,
    no: StoreNo,
    mut visit: impl FnMut(SeriesId, SeriesDef),
) -> Result<(), StoreError> {
    let fail = |e| super::file::sql_of(conn, "read the series", e);
    let sql = "SELECT id, name, unit, kind, scale FROM series WHERE store = ?1 ORDER BY id";
    let mut statement = conn.prepare_cached(sql).map_err(fail)?;
    let mut rows = statement.query([no.0]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let (id, def) = series_of(row)?;
        visit(id, def);
    }
    Ok(())
}

/// A row of `id, name, unit, kind, scale`.
pub(super) fn series_of(row: &rusqlite::Row<'_>) -> Result<(SeriesId, SeriesDef), StoreError> {
    let bad = |e: rusqlite::Error| StoreError::Damaged { what: format!("a row of the series table: {e}") };
    let (kind, scale): (String, String) = (row.get(3).map_err(bad)?, row.get(4).map_err(bad)?);
    let (Some(kind), Some(scale)) = (Kind::parse(&kind), Scale::parse(&scale)) else {
        return Err(StoreError::Damaged { what: format!("a series of kind {kind:?} and scale {scale:?}") });
    };
    let def = SeriesDef { name: row.get(1).map_err(bad)?, unit: row.get(2).map_err(bad)?, kind, scale };
    Ok((SeriesId(row.get(0).map_err(bad)?), def))
}

/// Deletes the segment that begins at `first`.
pub(super) fn delete(conn: &Connection, no: StoreNo, first: SegmentSeq) -> Result<(), StoreError> {
    let sql = "DELETE FROM segment WHERE id = ?1";
    execute(conn, "delete a segment", sql, [super::file::row_id(no, first)]).map(drop)
}

#[cfg(test)]
mod tests;
