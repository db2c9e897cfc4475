//! What the fleet has, and what it therefore still needs.
//!
//! What enters: acknowledgements, which state and don't add. What leaves: the heads of pending segments and their bodies.
//! Acknowledgements live in RAM and reach the file with the next expiry, compaction, checkpoint or clean stop: one that is
//! lost costs a resend, never a reading. Nothing is deleted here.

use super::error::StoreError;
use super::file::{MAX_SEQ, StoreNo, execute, row_id, sql_of};
use super::{Line, Store, commit};
use crate::clock::{BootNanos, Now, UtcNanos};
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange};
use crate::segment::LossReason;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

/// A segment in the file without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// Its range.
    pub range: SeqRange,
    /// Bytes of its body.
    pub bytes: u64,
    /// Readings in it.
    pub n: u64,
    /// Whether it is a loss.
    pub loss: bool,
    /// Boot and boottime of its earliest reading on the boot clock.
    pub from: Option<(BootId, BootNanos)>,
    /// Boot and boottime of its latest.
    pub to: Option<(BootId, BootNanos)>,
    /// Earliest and latest stamp that readings brought themselves.
    pub utc: Option<(UtcNanos, UtcNanos)>,
}

/// Rows read at once where many may be wanted.
const PAGE: usize = 512;

impl Store {
    /// Segments of `uuid` above `after` that the fleet doesn't have, ascending, at most `limit`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn pending(&self, uuid: Uuid, after: SegmentSeq, limit: usize) -> Result<Vec<SegmentHead>, StoreError> {
        let Some(line) = self.line(uuid) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let Some(above) = SeqRange::new(after.0.saturating_add(1), line.high.0) else { return Ok(found) };
        for gap in line.acked.gaps(above).iter() {
            let mut from = self.head_at(line.no, gap.first)?.map_or(gap.first.0, |head| head.range.first.0);
            while found.len() < limit && from <= gap.last.0 {
                let page = self.heads(line.no, from, gap.last.0, limit.min(PAGE))?;
                let Some(last) = page.last() else { break };
                from = last.range.last.0 + 1;
                found.extend(page.into_iter().filter(|h| h.range.first > after && !line.acked.covers(h.range)));
            }
        }
        // A segment that reaches from one gap into the next is found in both.
        found.dedup_by_key(|head| head.range);
        found.truncate(limit);
        Ok(found)
    }

    /// The same from the other end: those that begin before `before`, descending.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn pending_newest(&self, uuid: Uuid, before: SegmentSeq, limit: usize) -> Result<Vec<SegmentHead>, StoreError> {
        let Some(line) = self.line(uuid) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let Some(below) = SeqRange::new(1, line.high.0.min(before.0.saturating_sub(1))) else { return Ok(found) };
        let gaps: Vec<SeqRange> = line.acked.gaps(below).iter().collect();
        for gap in gaps.into_iter().rev() {
            // A segment that begins below the gap may reach into it.
            let first = self.head_at(line.no, gap.first)?.map_or(gap.first.0, |head| head.range.first.0);
            let mut upto = gap.last.0;
            while found.len() < limit && first <= upto {
                let page = heads_down(&self.conn, line.no, first, upto, limit.min(PAGE))?;
                let Some(last) = page.last() else { break };
                upto = last.range.first.0 - 1;
                found.extend(page.into_iter().filter(|head| !line.acked.covers(head.range)));
            }
        }
        // A segment that reaches from one gap into the next is found in both.
        found.dedup_by_key(|head| head.range);
        found.truncate(limit);
        Ok(found)
    }

    /// The numbers of `uuid` that are held and that the fleet doesn't have.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn pending_ranges(&self, uuid: Uuid) -> Result<RangeSet, StoreError> {
        let mut pending = RangeSet::new();
        let mut after = SegmentSeq(0);
        loop {
            let page = self.pending(uuid, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(pending) };
            after = last.range.last;
            pending.extend(page.iter().map(|head| head.range));
        }
    }

    /// The segment of `uuid` that covers `seq`: its range, and its body as stored. `None` where the file has none.
    ///
    /// # Errors
    /// Those of SQLite. The body's checksum is the reader's to check.
    pub fn body(&self, uuid: Uuid, seq: SegmentSeq) -> Result<Option<(SeqRange, Vec<u8>)>, StoreError> {
        let Some(line) = self.line(uuid) else { return Ok(None) };
        let Some(head) = self.head_at(line.no, seq)? else { return Ok(None) };
        Ok(self.body_of(line.no, head.range.first)?.map(|body| (head.range, body)))
    }

    /// Takes `acked` for all that the fleet has of `uuid`: what an earlier call named and this one doesn't is pending again.
    ///
    /// # Errors
    /// Those of SQLite; the earlier statement then holds.
    pub fn set_acked(&mut self, uuid: Uuid, acked: RangeSet) -> Result<(), StoreError> {
        let Some(at) = self.lines.iter().position(|line| line.uuid == uuid) else { return Ok(()) };
        let line = &self.lines[at];
        if line.acked == acked {
            return Ok(());
        }
        let (mut segments, mut readings) = (0i64, 0i64);
        self.each_changed(line, &acked, |head| {
            let sign = i64::from(line.acked.covers(head.range)) - i64::from(acked.covers(head.range));
            segments += sign;
            readings += sign * i64::try_from(head.n).unwrap_or(0);
        })?;
        let line = &mut self.lines[at];
        line.tally.pending_segments = line.tally.pending_segments.saturating_add_signed(segments);
        line.tally.pending_readings = line.tally.pending_readings.saturating_add_signed(readings);
        line.acked = acked;
        line.ack_unwritten = true;
        self.compacted_to = super::compact::Cursor::default();
        Ok(())
    }

    /// Every segment whose state may differ between what holds and `acked`, once.
    fn each_changed(
        &self,
        line: &Line,
        acked: &RangeSet,
        mut visit: impl FnMut(&SegmentHead),
    ) -> Result<(), StoreError> {
        let mut seen = 0;
        for part in line.acked.differing(acked).iter() {
            let mut from = self.head_at(line.no, part.first)?.map_or(part.first.0, |head| head.range.first.0);
            while from <= part.last.0.min(line.high.0) {
                let page = self.heads(line.no, from, part.last.0, PAGE)?;
                let Some(last) = page.last() else { break };
                from = last.range.last.0 + 1;
                page.iter().filter(|head| head.range.first.0 > seen).for_each(&mut visit);
                seen = seen.max(last.range.first.0);
            }
        }
        Ok(())
    }

    /// Writes down that what the fleet asks for in `range` of `uuid` is not here any more: the gaps between what is held
    /// become losses, which are pending.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn record_gone(&mut self, uuid: Uuid, range: SeqRange, now: Now) -> Result<(), StoreError> {
        let Some(at) = self.lines.iter().position(|line| line.uuid == uuid) else { return Ok(()) };
        let (no, high) = (self.lines[at].no, self.lines[at].high.0);
        let mut held = RangeSet::new();
        let mut from = self.head_at(no, range.first)?.map_or(range.first.0, |head| head.range.first.0);
        while from <= range.last.0.min(high) {
            let page = self.heads(no, from, range.last.0, PAGE)?;
            let Some(last) = page.last() else { break };
            from = last.range.last.0 + 1;
            held.extend(page.iter().map(|head| head.range));
        }
        let Some(range) = SeqRange::new(range.first.0, range.last.0.min(high)) else { return Ok(()) };
        let gone = held.gaps(range);
        if gone.is_empty() {
            return Ok(());
        }
        // The time of the discovery, on the current store's count of boots, means nothing in another store.
        let here = self.lines[at].uuid == self.uuid();
        let mut loss = commit::loss_here(LossReason::Expired, self.boot, now);
        if !here {
            (loss.from, loss.to) = (None, None);
        }
        self.transaction("record what is gone", |conn| {
            gone.iter().try_for_each(|range| commit::insert_loss(conn, no, range, loss))
        })?;
        let line = &mut self.lines[at];
        gone.iter().for_each(|range| line.tally.add(&range, 0, &line.acked));
        Ok(())
    }

    /// The segment with the earliest pending readings.
    pub(super) fn oldest_pending(&self) -> Result<Option<SegmentHead>, StoreError> {
        for line in self.lines.iter().filter(|line| line.tally.pending_segments > 0) {
            if let Some(head) = self.pending(line.uuid, SegmentSeq(0), 1)?.first() {
                return Ok(Some(*head));
            }
        }
        Ok(None)
    }

    /// Writes the acknowledgements that are only in RAM, if there are any, in a transaction of their own.
    pub(super) fn write_acks_now(&mut self) -> Result<(), StoreError> {
        if !self.lines.iter().any(|line| line.ack_unwritten) {
            return Ok(());
        }
        let acks = self.unwritten_acks();
        self.transaction("write acknowledgements", |conn| write_acks(conn, &acks))?;
        self.acks_written();
        Ok(())
    }

    pub(super) fn unwritten_acks(&self) -> Vec<(StoreNo, RangeSet)> {
        self.lines.iter().filter(|line| line.ack_unwritten).map(|line| (line.no, line.acked.clone())).collect()
    }

    pub(super) fn acks_written(&mut self) {
        self.lines.iter_mut().for_each(|line| line.ack_unwritten = false);
    }

    /// The segment of store `no` that covers `seq`.
    pub(super) fn head_at(&self, no: StoreNo, seq: SegmentSeq) -> Result<Option<SegmentHead>, StoreError> {
        let sql = "SELECT id, last_seq, kind, n, length(body), boot_min, boottime_min, boot_max, boottime_max, utc_min, \
                   utc_max FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1";
        let seq = SegmentSeq(seq.0.min(MAX_SEQ));
        let head = self
            .conn
            .prepare_cached(sql)
            .and_then(|mut s| {
                s.query_row([row_id(no, SegmentSeq(0)), row_id(no, seq)], |row| Ok(head_of(row))).optional()
            })
            .map_err(|e| self.failed("look for a segment", e))?;
        let head = self.watched(head.transpose())?;
        Ok(head.filter(|head| head.range.last >= seq))
    }

    /// Segments of store `no` that begin between `from` and `to`, ascending.
    pub(super) fn heads(&self, no: StoreNo, from: u64, to: u64, limit: usize) -> Result<Vec<SegmentHead>, StoreError> {
        self.watched(heads(&self.conn, no, from, to, limit))
    }

    /// The body of the segment that begins at `first`.
    pub(super) fn body_of(&self, no: StoreNo, first: SegmentSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.conn
            .prepare_cached("SELECT body FROM segment WHERE id = ?1")
            .and_then(|mut s| s.query_row([row_id(no, first)], |row| row.get(0)).optional())
            .map_err(|e| self.failed("read a segment", e))
    }
}

/// Writes acknowledgements within a transaction.
pub(super) fn write_acks(conn: &Connection, acks: &[(StoreNo, RangeSet)]) -> Result<(), StoreError> {
    for (no, acked) in acks {
        execute(conn, "write acknowledgements", "DELETE FROM ack WHERE store = ?1", [no.0])?;
        for range in acked.iter() {
            let sql = "INSERT INTO ack (store, first_seq, last_seq) VALUES (?1, ?2, ?3)";
            let number = |seq: SegmentSeq| i64::try_from(seq.0).unwrap_or(i64::MAX);
            let values = params![no.0, number(range.first), number(range.last)];
            execute(conn, "write acknowledgements", sql, values)?;
        }
    }
    Ok(())
}

/// Segments of store `no` that begin between `from` and `to`, ascending.
pub(super) fn heads(
    conn: &Connection,
    no: StoreNo,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<SegmentHead>, StoreError> {
    let sql = "SELECT id, last_seq, kind, n, length(body), boot_min, boottime_min, boot_max, boottime_max, utc_min, utc_max \
               FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3";
    heads_by(conn, sql, no, from, to, limit)
}

/// The same, descending.
fn heads_down(
    conn: &Connection,
    no: StoreNo,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<SegmentHead>, StoreError> {
    let sql = "SELECT id, last_seq, kind, n, length(body), boot_min, boottime_min, boot_max, boottime_max, utc_min, utc_max \
               FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT ?3";
    heads_by(conn, sql, no, from, to, limit)
}

fn heads_by(
    conn: &Connection,
    sql: &str,
    no: StoreNo,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<SegmentHead>, StoreError> {
    let fail = |e| sql_of(conn, "read the segments", e);
    let at = |seq: u64| row_id(no, SegmentSeq(seq.min(MAX_SEQ)));
    let mut statement = conn.prepare_cached(sql).map_err(fail)?;
    let mut rows =
        statement.query(params![at(from), at(to), i64::try_from(limit).unwrap_or(i64::MAX)]).map_err(fail)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fail)? {
        found.push(head_of(row)?);
    }
    Ok(found)
}

fn head_of(row: &Row<'_>) -> Result<SegmentHead, StoreError> {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let first = count(get::<i64>(row, 0)? & MAX_SEQ as i64);
    let last = count(get(row, 1)?);
    let Some(range) = SeqRange::new(first, last) else {
        return Err(StoreError::Damaged { what: format!("segment {first}..={last}") });
    };
    let moment = |boot: usize, time: usize| -> Result<Option<(BootId, BootNanos)>, StoreError> {
        Ok(get::<Option<u32>>(row, boot)?.map(BootId).zip(get::<Option<i64>>(row, time)?.map(BootNanos)))
    };
    let utc = get::<Option<i64>>(row, 9)?.map(UtcNanos).zip(get::<Option<i64>>(row, 10)?.map(UtcNanos));
    Ok(SegmentHead {
        range,
        bytes: count(get(row, 4)?),
        n: count(get(row, 3)?),
        loss: get::<i64>(row, 2)? != 0,
        from: moment(5, 6)?,
        to: moment(7, 8)?,
        utc,
    })
}

fn get<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, StoreError> {
    row.get(at).map_err(|e| StoreError::Damaged { what: format!("a row of the segment table: {e}") })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, compact_all, held, put};
    use super::*;
    use crate::segment::View;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).unwrap()
    }

    fn filled(bench: &Bench, commits: i64) -> Store {
        let mut store = bench.open_calm();
        (0..commits).for_each(|s| drop(put(&mut store, 2, 5, s * 5).unwrap()));
        store
    }

    fn pending(store: &Store) -> Vec<u64> {
        let heads = store.pending(store.uuid(), SegmentSeq(0), 1000).unwrap();
        heads.iter().map(|head| head.range.first.0).collect()
    }

    /// What is acknowledged is no longer pending; what a later statement leaves out is pending again. The counts that
    /// `status` shows say the same as the segments.
    #[test]
    fn an_acknowledgement_states_and_does_not_add() {
        let bench = Bench::new();
        let mut store = filled(&bench, 10);
        let uuid = store.uuid();
        assert_eq!(store.pending_ranges(uuid).unwrap(), RangeSet::from_iter([range(1, 10)]));
        for acked in [vec![range(1, 4), range(7, 7)], vec![range(1, 9)], vec![range(3, 3)], vec![], vec![range(1, 99)]]
        {
            store.set_acked(uuid, acked.iter().copied().collect()).unwrap();
            let expected: Vec<u64> = (1..=10).filter(|n| !acked.iter().any(|r| r.covers(&range(*n, *n)))).collect();
            assert_eq!(pending(&store), expected);
            let facts = store.facts().unwrap();
            assert_eq!(
                (facts.pending_segments, facts.pending_readings),
                (expected.len() as u64, expected.len() as u64 * 10)
            );
        }
        store.set_acked(Uuid::from_u128(9), RangeSet::from_iter([range(1, 2)])).unwrap();
    }

    /// Pages of pending segments follow one another without a gap or a repetition.
    #[test]
    fn pending_segments_come_in_pages() {
        let bench = Bench::new();
        let mut store = filled(&bench, 12);
        store.set_acked(store.uuid(), RangeSet::from_iter([range(4, 5), range(8, 8)])).unwrap();
        let (mut after, mut all) = (SegmentSeq(0), Vec::new());
        loop {
            let page = store.pending(store.uuid(), after, 2).unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            after = last.range.last;
            all.extend(page.iter().map(|head| head.range.first.0));
        }
        assert_eq!(all, [1, 2, 3, 6, 7, 9, 10, 11, 12]);
        let oldest = store.facts().unwrap().oldest_pending;
        assert_eq!(oldest, Some((store.boot(), at(0).boot)));
    }

    /// From the newest to the oldest the same segments come as from the oldest to the newest, in pages of any size, also
    /// where segments were merged across what is acknowledged.
    #[test]
    fn the_backlog_comes_from_either_end() {
        let bench = Bench::new();
        let mut store = filled(&bench, 45);
        compact_all(&mut store, at(10_000));
        let uuid = store.uuid();
        for s in 100..112 {
            put(&mut store, 2, 5, s * 5).unwrap();
        }
        store.set_acked(uuid, RangeSet::from_iter([range(1, 3), range(10, 20), range(48, 48), range(52, 54)])).unwrap();
        let mut up = pending(&store);
        up.reverse();
        assert!(up.len() > 6, "{up:?}");
        for limit in [1, 2, 5, 1000] {
            let (mut before, mut down) = (SegmentSeq(store.next_seq().0), Vec::new());
            loop {
                let page = store.pending_newest(uuid, before, limit).unwrap();
                let Some(last) = page.last() else { break };
                assert!(page.len() <= limit);
                before = last.range.first;
                down.extend(page.iter().map(|head| head.range.first.0));
            }
            assert_eq!(down, up, "pages of {limit}");
        }
    }

    /// A merged segment is pending as long as any number of it is not acknowledged, and is found by each of them.
    #[test]
    fn a_merged_segment_is_pending_as_a_whole() {
        let bench = Bench::new();
        let mut store = filled(&bench, 40);
        compact_all(&mut store, at(10_000));
        let uuid = store.uuid();
        assert_eq!(held(&store, uuid).iter().map(|h| (h.0, h.1)).collect::<Vec<_>>(), [(1, 39), (40, 40)]);
        store.set_acked(uuid, RangeSet::from_iter([range(1, 20)])).unwrap();
        assert_eq!(pending(&store), [1, 40]);
        assert_eq!(store.pending_ranges(uuid).unwrap(), RangeSet::from_iter([range(1, 40)]));
        let (found, body) = store.body(uuid, SegmentSeq(17)).unwrap().unwrap();
        assert_eq!((found, View::parse(&body).unwrap().range()), (range(1, 39), range(1, 39)));
        assert_eq!(store.body(uuid, SegmentSeq(41)).unwrap(), None);
        store.set_acked(uuid, RangeSet::from_iter([range(1, 39)])).unwrap();
        assert_eq!(pending(&store), [40]);
        assert_eq!(store.facts().unwrap().pending_readings, 10);
    }

    /// Acknowledgements outlive a clean stop, and a crash costs no more than that they are asked for again.
    #[test]
    fn acknowledgements_are_written_at_a_clean_stop() {
        let bench = Bench::new();
        let mut store = filled(&bench, 5);
        store.set_acked(store.uuid(), RangeSet::from_iter([range(1, 3)])).unwrap();
        assert_eq!(pending(&bench.crash().open_calm()), [1, 2, 3, 4, 5]);
        store.close().unwrap();
        assert_eq!(pending(&bench.open_calm()), [4, 5]);
    }

    /// What the fleet has lost and the device no longer holds is said to be gone, and only that.
    #[test]
    fn what_is_gone_is_said_to_be() {
        let bench = Bench::new();
        let mut store = filled(&bench, 9);
        let (uuid, no) = (store.uuid(), store.current().no);
        store.set_acked(uuid, RangeSet::from_iter([range(1, 9)])).unwrap();
        for seq in [2, 3, 6] {
            commit::delete(&store.conn, no, SegmentSeq(seq)).unwrap();
        }
        store.set_acked(uuid, RangeSet::new()).unwrap();
        store.record_gone(uuid, range(1, 50), at(60)).unwrap();
        store.record_gone(uuid, range(1, 50), at(61)).unwrap();
        let all = held(&store, uuid);
        assert_eq!(all[1], (2, 3, 0));
        assert_eq!(
            all.iter().map(|h| (h.0, h.1)).collect::<Vec<_>>(),
            [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]
        );
        let body = store.body(uuid, SegmentSeq(6)).unwrap().unwrap().1;
        assert_eq!(View::parse(&body).unwrap().loss().unwrap().reason, LossReason::Expired);
    }
}
