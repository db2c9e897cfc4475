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
        let done = self.commit_in_room(Draft { batch, defs, anchors }, now);
        if let Err(e @ StoreError::Damaged { .. }) = &done {
            self.suspect(e);
            self.damaged = true;
        }
        done
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
        each_series(&self.conn, self.current().no, |id, def| {
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
mod tests {
    use super::super::testing::{Bench, SmallMedium, at, def, held, put, put_with};
    use super::*;
    use crate::batch::{Track, TrackClock};
    use crate::segment::Values;

    /// What was committed is there after a crash, under the numbers that were given, and the next ones go on from there.
    #[test]
    fn what_was_committed_survives_a_crash() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        let done = put(&mut store, 5, 10, 1).unwrap();
        assert_eq!((done.ranges.as_slice(), done.n), ([SeqRange::new(1, 1).unwrap()].as_slice(), 50));
        put(&mut store, 7, 10, 11).unwrap();
        let uuid = store.uuid();
        let after = bench.crash();
        let again = after.open_calm();
        assert_eq!((again.uuid(), again.next_seq(), again.run()), (uuid, SegmentSeq(3), 2));
        assert_eq!(held(&again, uuid), [(1, 1, 50), (2, 2, 70)]);
        assert_eq!(again.facts().unwrap().pending_readings, 120);
    }

    /// Ids are given once: a series keeps its id over restarts, and one whose unit changes gets another.
    #[test]
    fn series_keep_their_ids() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 3, 1, 1).unwrap();
        store.close().unwrap();
        let mut store = bench.open_calm();
        put(&mut store, 4, 1, 2).unwrap();
        let mut all = Vec::new();
        each_series(&store.conn, store.current().no, |id, def| all.push((id.0, def))).unwrap();
        assert_eq!(all, (0..4).map(|k| (k + 1, def(k))).collect::<Vec<_>>());
        store.close().unwrap();
        let mut store = bench.open_calm();
        let registry = Registry::new(10);
        let key = registry.key(&SeriesDef { unit: "K".into(), ..def(0) }).unwrap();
        let track =
            Track { key, clock: TrackClock::Boot, stamps: vec![1], values: Values::Int(vec![1]), missing: Vec::new() };
        store.commit(&Sealed::new(vec![track], None, None), &registry, &[], at(3)).unwrap();
        let segment = segment::decode(&store.body(store.uuid(), SegmentSeq(3)).unwrap().unwrap().1).unwrap();
        let Content::Data { readings, .. } = segment.content else { panic!("a loss") };
        assert_eq!(readings.columns[0].series, SeriesId(5));
    }

    /// What overflowed in RAM becomes a dated loss in the same commit.
    #[test]
    fn overflow_is_a_loss_of_its_own() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        let lost = Overflowed { readings: 99, from: at(1).boot, to: at(5).boot, utc: None };
        let done = store.commit(&Sealed::new(Vec::new(), None, Some(lost)), &Registry::new(1), &[], at(6)).unwrap();
        assert_eq!(done.ranges.len(), 1);
        let segment = segment::decode(&store.body(store.uuid(), SegmentSeq(1)).unwrap().unwrap().1).unwrap();
        assert_eq!(segment.content, Content::Loss(overflowed(&lost, store.boot())));
        assert_eq!(
            store.commit(&Sealed::new(Vec::new(), None, None), &Registry::new(1), &[], at(7)).unwrap(),
            Committed::default()
        );
    }

    /// A commit that finds no room takes no number and changes nothing; the same batch goes in when there is room. The
    /// limit on pages stands for the full medium.
    #[test]
    fn a_commit_that_fails_may_be_made_again() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        for s in 0..20 {
            put(&mut store, 50, 10, s * 10).unwrap();
        }
        let pages = store.pragma("page_count").unwrap();
        store.conn.pragma_update(None, "max_page_count", pages as i64).unwrap();
        let before = (store.next_seq(), store.facts().unwrap().readings, store.next_series);
        let mut failed = 0;
        for _ in 0..3 {
            match put(&mut store, 400, 20, 300) {
                Err(StoreError::Full { .. }) => failed += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!((store.next_seq(), store.facts().unwrap().readings, store.next_series), before);
        }
        assert_eq!(failed, 3);
        store.conn.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        let done = put(&mut store, 400, 20, 300).unwrap();
        assert_eq!(done.ranges, [SeqRange::new(21, 21).unwrap()]);
        let crashed = bench.crash();
        assert_eq!(crashed.open_calm().next_seq(), SegmentSeq(22));
    }

    /// In steady state a commit of 50 readings puts two or three pages into the log, and the copies that fill the block: this is
    /// what the layout of the `segment` table is for. Prints the mean, for docs/store.md.
    #[test]
    fn a_small_commit_writes_few_bytes() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 50, 1, 1).unwrap();
        store.checkpoint().unwrap();
        put(&mut store, 50, 1, 2).unwrap();
        let (before, _) = store.log.state(&store.conn).unwrap();
        for s in 0..200 {
            put(&mut store, 50, 1, 3 + s).unwrap();
        }
        let (after, _) = store.log.state(&store.conn).unwrap();
        let frames = after - before;
        let bytes = frames * (512 + super::super::file::FRAME_HEADER_BYTES) / 200;
        println!("{bytes} bytes of log per commit of 50 readings, bodies of {} bytes", store.body_bytes / 202);
        assert!(bytes < 4_600, "{bytes} bytes per commit");
    }

    /// A reader that never ends makes the log grow to its bound and no further; when it goes, commits go on.
    #[test]
    fn a_held_reader_is_bounded_and_named() {
        let mut bench = Bench::new();
        bench.cfg.max_size_bytes = 1 << 20;
        let mut store = bench.open_calm();
        put(&mut store, 40, 60, 0).unwrap();
        let reader = bench.beside();
        reader.execute_batch("BEGIN; SELECT * FROM segment").unwrap();
        let refused = (1..2000).find_map(|s| put(&mut store, 40, 60, s * 60).err());
        let Some(StoreError::Held { pids, .. }) = refused else { panic!("{refused:?}") };
        assert!(pids.is_empty(), "this process reads itself: {pids:?}");
        let facts = store.facts().unwrap();
        assert!(facts.file_bytes + facts.wal_bytes <= bench.cfg.max_size_bytes, "{facts:?}");
        reader.execute_batch("COMMIT").unwrap();
        put(&mut store, 40, 60, 3000 * 60).unwrap();
        put(&mut store, 40, 60, 3001 * 60).unwrap();
        assert!(store.facts().unwrap().wal_bytes <= 256 << 10);
    }

    /// On a medium that fills up under the running store, commits go on within the reserve, then wait; none is lost, none
    /// taken twice, and they go on by themselves when there is room.
    #[test]
    fn a_full_medium_holds_commits_back() {
        let mut bench = Bench::new();
        let medium = SmallMedium::mount(&bench.dir.path().join("small"));
        let dir = &medium.path;
        bench.cfg.path = dir.join("v.db");
        bench.cfg.max_size_bytes = 16 << 20;
        let mut store = bench.open_calm();
        put(&mut store, 40, 60, 0).unwrap();
        let filler = dir.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        drop(file);
        let mut done = 1;
        let refused = (1..5000).find_map(|s| match put(&mut store, 40, 60, s * 60) {
            Ok(_) => {
                done += 1;
                None
            }
            Err(e) => Some(e),
        });
        assert!(matches!(refused, Some(StoreError::Full { .. })), "{refused:?}");
        assert!(done > 50, "{done} commits within the reserve");
        assert!(put(&mut store, 40, 60, 1).is_err());
        std::fs::remove_file(&filler).unwrap();
        put(&mut store, 40, 60, 6000 * 60).unwrap();
        assert_eq!(held(&store, store.uuid()).len(), done + 1);
        store.close().unwrap();
        let store = bench.open_calm();
        assert_eq!(held(&store, store.uuid()).len(), done + 1);
    }

    /// Anchors come back by boot, and change the version of the catalogue.
    #[test]
    fn anchors_are_kept_with_their_boot() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        let anchor = Anchor { boot: at(3).boot, utc: at(3).utc, trusted: true };
        let version = store.catalog_version();
        put_with(&mut store, 1, 1, 3, &[anchor]).unwrap();
        assert_ne!(store.catalog_version(), version);
        let pages = store.catalog(1 << 16).unwrap();
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].boots[0].anchors, [anchor]);
    }

    /// A fleet that claims to hold the highest number there is takes the device's numbers, not its recording: it goes on
    /// under a fresh id, also after a restart. (Every commit used to fail from then on, for ever.)
    #[test]
    fn a_line_without_numbers_left_goes_on_under_a_fresh_id() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 1, 1, 1).unwrap();
        let old = store.uuid();
        store.skip_above(SegmentSeq(u64::MAX), at(2)).unwrap();
        let done = put(&mut store, 1, 1, 3).unwrap();
        assert_eq!(done.ranges, [SeqRange::new(1, 1).unwrap()]);
        assert_ne!(store.uuid(), old);
        let fresh = store.uuid();
        store.set_acked(fresh, [SeqRange::new(1, u64::MAX).unwrap()].into_iter().collect()).unwrap();
        store.close().unwrap();
        let (mut store, _) = bench.open();
        put(&mut store, 1, 1, 4).unwrap();
        assert!(store.uuid() != fresh && store.uuid() != old);
    }

    /// Numbers that the fleet has seen and the file hasn't are left out, and said to be.
    #[test]
    fn numbers_above_are_left_out_as_a_void() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 1, 1, 1).unwrap();
        store.skip_above(SegmentSeq(9), at(2)).unwrap();
        store.skip_above(SegmentSeq(4), at(2)).unwrap();
        put(&mut store, 1, 1, 3).unwrap();
        assert_eq!(held(&store, store.uuid()), [(1, 1, 1), (2, 9, 0), (10, 10, 1)]);
    }
}
