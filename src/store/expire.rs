//! Making room: what the fleet has goes first, then the oldest, as a dated loss.
//!
//! What enters: which segments are in flight, the moment. What leaves: whether there was anything to do. A step is one
//! transaction over a bounded number of segments. It promises that nothing unacknowledged goes without its loss in the same
//! transaction, that an acknowledgement is on the medium no later than the deletion it allows, and that the newest segment
//! of the current store stays, which keeps its numbers from being used twice. Pages that come free are used again; they
//! are given back to the file system only where the file is above its target.

use super::ack::{SegmentHead, heads, write_acks};
use super::error::StoreError;
use super::file::{StoreNo, execute, sql_of};
use super::{Line, Step, Store, commit, rollup};
use crate::clock::Now;
use crate::reading::SeqRange;
use crate::segment::{Content, Loss, LossReason, decode};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// The most segments that one step takes.
const STEP_SEGMENTS: usize = 256;

/// Pages that one step of vacuum gives back.
const STEP_PAGES: u32 = 64;

/// What a step will do to one line.
struct Plan {
    at: usize,
    heads: Vec<SegmentHead>,
    /// For what the fleet doesn't have: what is written in their place.
    loss: Option<(SeqRange, Loss)>,
}

impl Store {
    /// Deletes some of what may go if the file is nearly full: acknowledged segments, oldest first; if there are none, the
    /// oldest others become a loss. Segments that overlap `in_flight` stay.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn expire_step(&mut self, in_flight: &[(Uuid, SeqRange)], now: Now) -> Result<Step, StoreError> {
        self.in_flight = in_flight.to_vec();
        if self.used_bytes()? <= target_bytes(self.bounds.file_bytes) {
            return self.tidy(now);
        }
        if self.discard_aside(now, true)? == Step::Worked {
            return Ok(Step::Worked);
        }
        self.make_room(now)
    }

    /// Gives some free pages back to the file system if the file is above its limit, as after `max_size` was lowered.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn vacuum_step(&mut self) -> Result<Step, StoreError> {
        let over = self.pragma("page_count")? * self.pragma("page_size")? > self.bounds.file_bytes;
        if !over || self.pragma("freelist_count")? == 0 {
            return Ok(Step::Idle);
        }
        self.transaction("give pages back", |conn| vacuum(conn, STEP_PAGES))?;
        self.limit_pages()?;
        Ok(Step::Worked)
    }

    /// One deletion, whether or not the file is full.
    pub(super) fn make_room(&mut self, _now: Now) -> Result<Step, StoreError> {
        let plan = match self.plan(true)? {
            Some(plan) => Some(plan),
            None => self.plan(false)?,
        };
        let Some(plan) = plan else { return Ok(Step::Idle) };
        let no = self.lines[plan.at].no;
        let acks = self.unwritten_acks();
        let shrink = self.pragma("page_count")? * self.pragma("page_size")? > self.bounds.file_bytes;
        self.transaction("expire segments", |conn| {
            for head in &plan.heads {
                commit::delete(conn, no, head.range.first)?;
            }
            rollup::delete(conn, no, &plan.heads)?;
            if let Some((range, loss)) = plan.loss {
                commit::insert_loss(conn, no, range, loss)?;
            }
            write_acks(conn, &acks)?;
            if shrink { vacuum(conn, STEP_PAGES) } else { Ok(()) }
        })?;
        self.acks_written();
        self.account(&plan);
        Ok(Step::Worked)
    }

    fn account(&mut self, plan: &Plan) {
        let line = &mut self.lines[plan.at];
        plan.heads.iter().for_each(|head| line.tally.remove(&head.range, head.n, &line.acked));
        if let Some((range, loss)) = &plan.loss {
            line.tally.add(range, 0, &line.acked);
            let readings = loss.readings.unwrap_or(0);
            log::warn!("store: retention dropped {readings} readings, segments {range}, that the fleet doesn't have");
        }
    }

    /// The oldest segments that may go: those that the fleet has, or those that it hasn't.
    fn plan(&self, acked: bool) -> Result<Option<Plan>, StoreError> {
        for (at, line) in self.lines.iter().enumerate() {
            let current = at + 1 == self.lines.len();
            let mut from = 0;
            loop {
                let page = heads(&self.conn, line.no, from, line.high.0, STEP_SEGMENTS)?;
                let Some(last) = page.last() else { break };
                from = last.range.last.0 + 1;
                let stays = |head: &SegmentHead| {
                    line.acked.covers(head.range) != acked
                        || (current && head.range.last == line.high)
                        || self.flies(line.uuid, &head.range)
                };
                let heads = self.run_of(line.no, page, &stays, !acked)?;
                if heads.is_empty() {
                    continue;
                }
                let loss = if acked { None } else { Some(self.loss_of(line, &heads)?) };
                let Some(loss) = loss else { return Ok(Some(Plan { at, heads, loss: None })) };
                if let Some(loss) = loss {
                    return Ok(Some(Plan { at, heads, loss: Some(loss) }));
                }
            }
        }
        Ok(None)
    }

    /// From the first segment of `page` that may go, as many as one step takes; without a gap where they become one loss.
    fn run_of(
        &self,
        no: StoreNo,
        page: Vec<SegmentHead>,
        stays: &dyn Fn(&SegmentHead) -> bool,
        unbroken: bool,
    ) -> Result<Vec<SegmentHead>, StoreError> {
        let most = (self.bounds.file_bytes / 64).max(32 << 10);
        let mut run: Vec<SegmentHead> = Vec::new();
        let mut bytes = 0;
        for head in page {
            if stays(&head) {
                if unbroken && run.iter().any(|h| !h.loss) {
                    break;
                }
                if unbroken {
                    run.clear();
                }
                continue;
            }
            if unbroken {
                let follows = run.last().is_none_or(|last| last.range.last.0 + 1 == head.range.first.0);
                let data = run.iter().any(|h| !h.loss);
                // A loss is all that is left of its range: it is only taken in where it comes right before.
                if (!follows || head.loss) && data {
                    break;
                }
                if !follows || head.loss {
                    run.clear();
                }
                // One that does not know how much it stands for would make every later count unknown.
                if head.loss && self.loss_at(no, &head)?.is_none_or(|loss| loss.readings.is_none()) {
                    continue;
                }
            }
            bytes += head.bytes;
            run.push(head);
            if bytes >= most {
                break;
            }
        }
        if unbroken && run.iter().all(|h| h.loss) {
            run.clear();
        }
        Ok(run)
    }

    /// What is written in place of `heads`. An earlier loss at their front is taken in, if it is counted.
    fn loss_of(&self, line: &Line, heads: &[SegmentHead]) -> Result<Option<(SeqRange, Loss)>, StoreError> {
        let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(None) };
        let mut loss = Loss { reason: LossReason::Retention, readings: Some(0), from: None, to: None, utc: None };
        for head in heads {
            let part = if head.loss { self.loss_at(line.no, head)? } else { None };
            let readings = part.map_or(Some(head.n), |loss| loss.readings);
            loss.readings = loss.readings.zip(readings).map(|(a, b)| a + b);
            loss.from = loss.from.or(part.map_or(head.from, |loss| loss.from));
            loss.to = part.map_or(head.to, |loss| loss.to).or(loss.to);
            let utc = part.map_or(head.utc, |loss| loss.utc);
            loss.utc = match (loss.utc, utc) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            };
        }
        Ok(Some((SeqRange { first: first.range.first, last: last.range.last }, loss)))
    }

    /// The account in a loss segment; `None` where its body can't be read.
    pub(super) fn loss_at(&self, no: StoreNo, head: &SegmentHead) -> Result<Option<Loss>, StoreError> {
        let body = super::ack::body_of(&self.conn, no, head.range.first)?;
        Ok(body.and_then(|body| decode(&body).ok()).and_then(|segment| match segment.content {
            Content::Loss(loss) => Some(loss),
            Content::Data { .. } => None,
        }))
    }

    pub(super) fn flies(&self, uuid: Uuid, range: &SeqRange) -> bool {
        self.in_flight.iter().any(|(store, flying)| *store == uuid && flying.overlaps(range))
    }

    /// Bytes of the file that hold something.
    fn used_bytes(&self) -> Result<u64, StoreError> {
        let held = self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?);
        Ok(held * self.pragma("page_size")?)
    }

    /// Whether the file has grown to its limit, or so near that a transaction may not fit.
    pub(super) fn at_limit(&self) -> Result<bool, StoreError> {
        Ok(self.pragma("page_count")? * self.pragma("page_size")? + (self.bounds.file_bytes / 16)
            >= self.bounds.file_bytes)
    }

    /// The file may not grow above its limit, wherever it stands now.
    fn limit_pages(&self) -> Result<(), StoreError> {
        let limit = self.bounds.file_bytes / self.pragma("page_size")?;
        let limit = limit.max(self.pragma("page_count")?);
        self.conn
            .pragma_update(None, "max_page_count", limit as i64)
            .map_err(|e| StoreError::sql("limit the file", &self.path, e))
    }

    /// Lets go of what nothing cites any more: boots, stores, files that were set aside and salvaged.
    fn tidy(&mut self, now: Now) -> Result<Step, StoreError> {
        let empty = |line: &&Line| line.tally.segments == 0;
        let old = self.lines.len() - 1;
        if let Some((no, uuid)) = self.lines[..old].iter().find(empty).map(|line| (line.no, line.uuid)) {
            // A mark of a store that the file doesn't know would say that the file was replaced.
            if self.high.mark().is_some_and(|mark| mark.store == uuid) {
                self.fold()?;
            }
            self.transaction("forget a store", |conn| forget_store(conn, no))?;
            self.lines.retain(|line| line.no != no);
            self.catalog_changes += 1;
            return Ok(Step::Worked);
        }
        for at in 0..self.lines.len() {
            if self.tidy_boots(at)? == Step::Worked {
                return Ok(Step::Worked);
            }
        }
        self.discard_aside(now, false)
    }

    /// Segments of a line come in the order of its boots, so the first one that cites a boot cites the lowest.
    fn tidy_boots(&mut self, at: usize) -> Result<Step, StoreError> {
        let no = self.lines[at].no;
        let sql = "SELECT boot_min FROM segment WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 \
                   AND boot_min IS NOT NULL ORDER BY id LIMIT 1";
        let fail = |e| sql_of(&self.conn, "look for unused boots", e);
        let cited: Option<u32> = self
            .conn
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([no.0], |r| r.get(0)).optional())
            .map_err(fail)?;
        let current = (at + 1 == self.lines.len()).then_some(self.boot.0);
        let Some(lowest) = cited.into_iter().chain(current).min() else { return Ok(Step::Idle) };
        let sql = "SELECT count(*) FROM boot WHERE store = ?1 AND id < ?2";
        let unused: u32 = self.conn.query_row(sql, params![no.0, lowest], |row| row.get(0)).map_err(fail)?;
        // One by one they would cost a commit each.
        if unused < 16 {
            return Ok(Step::Idle);
        }
        self.transaction("forget boots", |conn| {
            execute(conn, "forget boots", "DELETE FROM anchor WHERE store = ?1 AND boot < ?2", params![no.0, lowest])?;
            execute(conn, "forget boots", "DELETE FROM boot WHERE store = ?1 AND id < ?2", params![no.0, lowest])
        })?;
        self.catalog_changes += 1;
        Ok(Step::Worked)
    }
}

/// What a file may hold: a sixteenth is kept free, for a commit and for compaction, which writes before it deletes.
pub(super) fn target_bytes(file_bytes: u64) -> u64 {
    file_bytes - (file_bytes / 16).max(64 << 10).min(file_bytes / 2)
}

fn vacuum(conn: &Connection, pages: u32) -> Result<(), StoreError> {
    conn.execute_batch(&format!("PRAGMA incremental_vacuum({pages})")).map_err(|e| sql_of(conn, "give pages back", e))
}

fn forget_store(conn: &Connection, no: StoreNo) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM rollup WHERE store = ?1",
        "DELETE FROM ack WHERE store = ?1",
        "DELETE FROM anchor WHERE store = ?1",
        "DELETE FROM boot WHERE store = ?1",
        "DELETE FROM series WHERE store = ?1",
        "DELETE FROM store WHERE id = ?1",
    ] {
        execute(conn, "forget a store", sql, [no.0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, compact_all, held, put};
    use super::super::{FreshWhy, StoreFacts};
    use super::*;
    use crate::reading::SegmentSeq;
    use crate::reading::ranges::RangeSet;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).unwrap()
    }

    fn small() -> Bench {
        let mut bench = Bench::new();
        bench.cfg.max_size_bytes = 1 << 20;
        bench
    }

    /// Commits and expires as the service does, until `commits` are made.
    fn churn(store: &mut Store, commits: i64, ack: bool) -> u64 {
        let mut most = 0;
        for s in 0..commits {
            put(store, 40, 60, s * 60).unwrap();
            if ack {
                let uuid = store.uuid();
                store.set_acked(uuid, RangeSet::from_iter([range(1, store.next_seq().0 - 1)])).unwrap();
            }
            while store.expire_step(&[], at(s * 60)).unwrap() == Step::Worked {}
            let facts: StoreFacts = store.facts().unwrap();
            most = most.max(facts.file_bytes + facts.wal_bytes);
        }
        most
    }

    fn losses(store: &Store) -> Vec<(SeqRange, Loss)> {
        let mut found = Vec::new();
        for (first, last, n) in held(store, store.uuid()) {
            let body = store.body(store.uuid(), SegmentSeq(first)).unwrap().unwrap().1;
            if let Content::Loss(loss) = decode(&body).unwrap().content {
                assert_eq!(n, 0);
                found.push((range(first, last), loss));
            }
        }
        found
    }

    /// Without a fleet the oldest go when the file is full, and every one of them is in the account: what is held and what
    /// is lost are all that was committed, without a gap. File and log together stay within `max_size`.
    #[test]
    fn what_retention_drops_is_counted() {
        let bench = small();
        let mut store = bench.open_calm();
        let most = churn(&mut store, 500, false);
        assert!(most <= bench.cfg.max_size_bytes, "{most} bytes");
        let all = held(&store, store.uuid());
        assert_eq!(all.iter().map(|h| h.1 - h.0 + 1).sum::<u64>(), 500, "no gap, no overlap");
        let lost = losses(&store);
        assert_eq!(lost.len(), 1, "neighbouring losses become one");
        assert_eq!(lost[0].1.reason, LossReason::Retention);
        let kept: usize = all.iter().map(|h| h.2).sum();
        assert_eq!(lost[0].1.readings.unwrap() + kept as u64, 500 * 2400);
        assert_eq!(lost[0].1.from.unwrap().1, at(0).boot);
        assert!(kept > 200_000, "{kept} readings kept");
        let again = bench.crash().open_calm();
        assert_eq!(held(&again, again.uuid()), all);
        let counted = (again.facts().unwrap().segments, again.facts().unwrap().pending_readings);
        assert_eq!(counted, (store.facts().unwrap().segments, store.facts().unwrap().pending_readings));
    }

    /// The count of what retention drops stays known behind a void, of which nobody knows what it held. (The void used to
    /// be taken in, and with it every later count was unknown, for good.)
    #[test]
    fn what_retention_drops_behind_a_void_is_counted() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..3).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
        store.skip_above(SegmentSeq(6), at(3)).unwrap();
        (4..8).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
        while store.make_room(at(9)).unwrap() == Step::Worked {}
        let found: Vec<_> = losses(&store).into_iter().map(|(at, loss)| (at, loss.reason, loss.readings)).collect();
        let (retention, void) = (LossReason::Retention, LossReason::Void);
        let expected =
            [(range(1, 3), retention, Some(300)), (range(4, 6), void, None), (range(7, 9), retention, Some(300))];
        assert_eq!(found, expected);
        store.skip_above(SegmentSeq(11), at(10)).unwrap();
        put(&mut store, 10, 10, 11).unwrap();
        while store.make_room(at(12)).unwrap() == Step::Worked {}
        assert_eq!(losses(&store)[2].1.readings, Some(400));
    }

    /// What the fleet has goes without a trace, but for the newest segment, which keeps the count; the acknowledgement is
    /// on the medium with the deletion.
    #[test]
    fn what_the_fleet_has_goes_first() {
        let bench = small();
        let mut store = bench.open_calm();
        churn(&mut store, 700, true);
        assert_eq!(losses(&store), []);
        let uuid = store.uuid();
        assert!(held(&store, uuid)[0].0 > 100);
        let again = bench.crash().open_calm();
        assert_eq!(again.next_seq(), SegmentSeq(701));
        let first = held(&again, uuid)[0].0;
        assert!(again.line(uuid).unwrap().acked.covers(range(1, first - 1)), "deleted, so acknowledged in the file");
    }

    /// Nothing goes before its time: below the limit an expiry has nothing to do.
    #[test]
    fn below_the_limit_nothing_goes() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..20).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
        store.set_acked(store.uuid(), RangeSet::from_iter([range(1, 20)])).unwrap();
        assert_eq!(store.expire_step(&[], at(99)).unwrap(), Step::Idle);
        assert_eq!(held(&store, store.uuid()).len(), 20);
    }

    /// What is in flight stays, so that the fleet never gets both a segment and its loss.
    #[test]
    fn what_is_in_flight_stays() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..8).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
        store.in_flight = vec![(store.uuid(), range(1, 2)), (store.uuid(), range(5, 5))];
        while store.make_room(at(9)).unwrap() == Step::Worked {}
        let all: Vec<_> = held(&store, store.uuid()).iter().map(|h| (h.0, h.1, h.2 > 0)).collect();
        assert_eq!(all, [(1, 1, true), (2, 2, true), (3, 4, false), (5, 5, true), (6, 7, false), (8, 8, true)]);
    }

    /// A store of old that holds nothing any more is forgotten, with its series and boots.
    #[test]
    fn an_empty_old_store_is_forgotten() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 3, 1, 1).unwrap();
        let old = store.uuid();
        store.take_fresh_id(FreshWhy::Request, at(2)).unwrap();
        put(&mut store, 3, 1, 3).unwrap();
        store.set_acked(old, RangeSet::from_iter([range(1, 1)])).unwrap();
        assert_eq!(store.make_room(at(4)).unwrap(), Step::Worked);
        while store.expire_step(&[], at(5)).unwrap() == Step::Worked {}
        assert_eq!(store.stores().len(), 1);
        assert_eq!(store.catalog(1 << 16).unwrap().len(), 1);
        let series: i64 = store.conn.query_row("SELECT count(*) FROM series", [], |r| r.get(0)).unwrap();
        assert_eq!(series, 3);
        drop(store);
        bench.open_calm();
    }

    /// After `max_size` was lowered the file shrinks, step by step, to its new bound.
    #[test]
    fn a_lower_limit_is_reached_by_vacuum() {
        let mut bench = Bench::new();
        bench.cfg.max_size_bytes = 8 << 20;
        let mut store = bench.open_calm();
        (0..700).for_each(|s| drop(put(&mut store, 40, 60, s * 60).unwrap()));
        compact_all(&mut store, at(100));
        store.close().unwrap();
        bench.cfg.max_size_bytes = 1 << 20;
        let mut store = bench.open_calm();
        assert!(store.facts().unwrap().file_bytes > 1 << 20);
        while store.expire_step(&[], at(9)).unwrap() == Step::Worked {}
        while store.vacuum_step().unwrap() == Step::Worked {}
        store.checkpoint().unwrap();
        let facts = store.facts().unwrap();
        assert!(facts.file_bytes <= facts.file_limit_bytes, "{facts:?}");
        put(&mut store, 40, 60, 1).unwrap();
    }
}
