//! Segments on their way out: the bytes as they are stored, once it is sure that they are what was written.
//!
//! What enters: which segment, the moment. What leaves: its body; for a snapshot also what its readings add up to. A body that
//! has rotted is never given out: no receiver would take it, so it would be sent for ever. A loss takes its place, which says
//! how much it was, and goes out instead. One that goes out in pieces is read and checked once: whoever cuts it shows what was
//! given out, and gets the same again for as long as its row is the same.

use super::error::StoreError;
use super::file::{MAX_SEQ, StoreNo};
use super::{SegmentHead, Store};
use crate::clock::Now;
use crate::reading::{SegmentSeq, SeqRange};
use crate::segment::{Segment, SegmentError, Sum, View};
use std::sync::Arc;
use uuid::Uuid;

/// A segment that may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    /// Its range.
    pub range: SeqRange,
    /// Its body, as stored; shared, so that there is one of it in RAM while it is cut into pieces.
    pub body: Arc<Vec<u8>>,
    /// Whether it is a loss.
    pub loss: bool,
    /// What its readings add up to, where that was asked for and it has readings that this version can read.
    pub readings: Option<Sum>,
    /// Its row when it was read.
    row: Row,
    /// All of it was decoded.
    decoded: bool,
}

/// Where a segment was found, and what its row said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    store: Uuid,
    head: SegmentHead,
}

impl Store {
    /// The segment of `uuid` that covers `seq`; `None` where the file has none. `before` is what was given out last, if that is
    /// being cut: it is given out again, unread, while its row is the same.
    ///
    /// # Errors
    /// Those of SQLite, and those of a commit where damage is written down.
    pub fn outgoing(
        &mut self,
        uuid: Uuid,
        seq: SegmentSeq,
        before: Option<&Shipment>,
        now: Now,
    ) -> Result<Option<Shipment>, StoreError> {
        let Some(no) = self.line(uuid).map(|line| line.no) else { return Ok(None) };
        let Some(head) = self.head_at(no, seq)? else { return Ok(None) };
        let row = Row { store: uuid, head };
        match before.filter(|before| before.row == row) {
            Some(before) => Ok(Some(before.clone())),
            None => self.sound(row, now, checked),
        }
    }

    /// The first segment of `uuid` that has a number of `within`, with what its readings add up to: all of it is decoded.
    /// `before` as of [`Store::outgoing`].
    ///
    /// # Errors
    /// As of [`Store::outgoing`].
    pub fn next_outgoing(
        &mut self,
        uuid: Uuid,
        within: SeqRange,
        before: Option<&Shipment>,
        now: Now,
    ) -> Result<Option<Shipment>, StoreError> {
        let Some(no) = self.line(uuid).map(|line| line.no) else { return Ok(None) };
        let Some(head) = self.first_head(no, within)? else { return Ok(None) };
        let row = Row { store: uuid, head };
        match before.filter(|before| before.row == row && before.decoded) {
            Some(before) => Ok(Some(before.clone())),
            None => self.sound(row, now, added_up),
        }
    }

    fn first_head(&self, no: StoreNo, within: SeqRange) -> Result<Option<SegmentHead>, StoreError> {
        // Compaction may have joined it with what lies below.
        if let Some(head) = self.head_at(no, within.first)? {
            return Ok(Some(head));
        }
        Ok(self.heads(no, within.first.0, within.last.0.min(MAX_SEQ), 1)?.into_iter().next())
    }

    /// The segment of `row`, read by `read`; or what stands in its place once its damage is written down.
    fn sound(
        &mut self,
        row: Row,
        now: Now,
        read: impl Fn(Row, Vec<u8>) -> Result<Shipment, SegmentError>,
    ) -> Result<Option<Shipment>, StoreError> {
        let (uuid, range) = (row.store, row.head.range);
        let Some((_, body)) = self.body(uuid, range.first)? else { return Ok(None) };
        let why = match read(row, body) {
            Ok(sound) => return Ok(Some(sound)),
            Err(why) => why,
        };
        log::warn!("store: segment {range} of {uuid} can't be read and is sent as lost: {why}");
        self.record_damaged(uuid, range.first, now)?;
        let Some(no) = self.line(uuid).map(|line| line.no) else { return Ok(None) };
        let Some(head) = self.head_at(no, range.first)? else { return Ok(None) };
        let Some((_, body)) = self.body(uuid, range.first)? else { return Ok(None) };
        Ok(Some(read(Row { head, ..row }, body)?))
    }
}

impl Shipment {
    /// Whether both come from one reading of the file.
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.body, &other.body)
    }

    /// One that is of no file.
    #[cfg(test)]
    pub(crate) fn for_tests(range: SeqRange, body: Vec<u8>) -> Self {
        let head = SegmentHead { range, bytes: body.len() as u64, n: 1, loss: false, from: None, to: None, utc: None };
        Self::of(Row { store: Uuid::nil(), head }, body)
    }

    fn of(row: Row, body: Vec<u8>) -> Self {
        let (range, body) = (row.head.range, Arc::new(body));
        Self { range, body, loss: false, readings: None, row, decoded: false }
    }
}

/// A body whose checksum is right and that is of its row.
fn checked(row: Row, body: Vec<u8>) -> Result<Shipment, SegmentError> {
    match View::parse(&body) {
        Ok(view) => {
            of_row(row.head.range, view.range())?;
            Ok(Shipment { loss: view.is_loss(), ..Shipment::of(row, body) })
        }
        // Whole, and for a later version to read.
        Err(SegmentError::Newer { .. }) => Ok(Shipment::of(row, body)),
        Err(why) => Err(why),
    }
}

/// The same, and all of it can be decoded.
fn added_up(row: Row, body: Vec<u8>) -> Result<Shipment, SegmentError> {
    let whole = |body: &[u8]| -> Result<Segment, SegmentError> { View::parse(body)?.into_segment() };
    match whole(&body) {
        Ok(segment) => {
            of_row(row.head.range, segment.range)?;
            let loss = matches!(segment.content, crate::segment::Content::Loss(_));
            let readings = (!loss).then(|| Sum::of(&segment));
            Ok(Shipment { loss, readings, decoded: true, ..Shipment::of(row, body) })
        }
        Err(SegmentError::Newer { .. }) => Ok(Shipment { decoded: true, ..Shipment::of(row, body) }),
        Err(why) => Err(why),
    }
}

fn of_row(row: SeqRange, body: SeqRange) -> Result<(), SegmentError> {
    let other = SegmentError::Corrupt("the row and its body name different ranges");
    if row == body { Ok(()) } else { Err(other) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, compact_all, put, spoil};
    use super::*;
    use crate::segment::{LossReason, decode};

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).unwrap()
    }

    /// A body that has rotted is not given out again and again: it becomes a loss that says how much it was, and that is
    /// what goes out, also for a snapshot and also where the row alone is wrong. (It was refused by the receiver and sent
    /// again every ten minutes, for ever.)
    #[test]
    fn a_rotten_body_goes_out_as_a_loss() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..6).for_each(|s| drop(put(&mut store, 2, 5, s * 5).unwrap()));
        let uuid = store.uuid();
        let mut body = store.body(uuid, SegmentSeq(2)).unwrap().unwrap().1;
        body[9] ^= 1;
        store.conn.execute("UPDATE segment SET body = ?1 WHERE first_seq = 2", [body]).unwrap();
        let moved = "UPDATE segment SET body = (SELECT body FROM segment WHERE first_seq = 5) WHERE first_seq = 4";
        store.conn.execute(moved, []).unwrap();
        let direct = store.outgoing(uuid, SegmentSeq(2), None, at(60)).unwrap().unwrap();
        let copied = store.next_outgoing(uuid, range(4, 6), None, at(60)).unwrap().unwrap();
        for (outgoing, seq) in [(direct, 2), (copied, 4)] {
            assert!(outgoing.loss);
            let loss = *View::parse(&outgoing.body).unwrap().loss().unwrap();
            assert_eq!((outgoing.range, loss.reason, loss.readings), (range(seq, seq), LossReason::Damaged, Some(10)));
            let again = store.outgoing(uuid, SegmentSeq(seq), None, at(61)).unwrap().unwrap();
            assert_eq!((again.row, again.body), (outgoing.row, outgoing.body), "and stays one");
        }
        assert_eq!(store.facts().unwrap().readings, 40);
        assert_eq!(store.pending_ranges(uuid).unwrap().numbers(), 6, "the losses are still to be sent");
    }

    /// The segments of a range come one after another, each once, however they are cut; what they add up to is the same
    /// before and after compaction.
    #[test]
    fn a_range_is_gone_through_segment_by_segment() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..50).for_each(|s| drop(put(&mut store, 3, 4, s * 4).unwrap()));
        let uuid = store.uuid();
        let walk = |store: &mut Store| {
            let (mut from, mut sum, mut segments) = (1, Sum::default(), 0);
            while let Some(within) = SeqRange::new(from, 49) {
                let Some(next) = store.next_outgoing(uuid, within, None, at(9000)).unwrap() else { break };
                assert_eq!(Sum::of(&decode(&next.body).unwrap()), next.readings.unwrap());
                sum.add(next.readings.unwrap());
                (from, segments) = (next.range.last.0 + 1, segments + 1);
            }
            (sum, segments)
        };
        let (before, segments) = walk(&mut store);
        assert_eq!((before.readings, segments), (49 * 12, 49));
        compact_all(&mut store, at(9000));
        assert_eq!(walk(&mut store), (before, 1));
        let from_within = store.next_outgoing(uuid, range(20, 30), None, at(9001)).unwrap().unwrap();
        assert_eq!(from_within.range, range(1, 49), "joined with what lies below");
        assert_eq!(store.next_outgoing(uuid, range(51, 90), None, at(9001)).unwrap(), None);
        assert_eq!(store.next_outgoing(Uuid::from_u128(9), range(1, 90), None, at(9001)).unwrap(), None);
    }

    /// What is shown again is given out again without a look at its body, for a snapshot too; once its row is another one, what is
    /// there now is read.
    #[test]
    fn a_segment_that_is_being_cut_is_read_once() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        (0..50).for_each(|s| drop(put(&mut store, 2, 5, s * 5).unwrap()));
        let (uuid, now) = (store.uuid(), at(60));
        let sent = store.outgoing(uuid, SegmentSeq(3), None, now).unwrap().unwrap();
        let copied = store.next_outgoing(uuid, range(4, 9), None, now).unwrap().unwrap();
        // Whoever read them now would find damage.
        [3, 4].into_iter().for_each(|seq| spoil(&store, SegmentSeq(seq)));
        for _ in 0..3 {
            let again = store.outgoing(uuid, SegmentSeq(3), Some(&sent), now).unwrap().unwrap();
            assert!(again.is_same_as(&sent) && again == sent);
            let again = store.next_outgoing(uuid, range(4, 9), Some(&copied), now).unwrap().unwrap();
            assert!(again.is_same_as(&copied) && again == copied);
        }
        let other = store.outgoing(uuid, SegmentSeq(5), Some(&sent), now).unwrap().unwrap();
        assert_eq!(other.range, range(5, 5), "what is asked for counts");
        let unread = store.next_outgoing(uuid, range(5, 5), Some(&other), now).unwrap().unwrap();
        assert!(unread.readings.is_some(), "what was not added up before is added up");
        store.record_damaged(uuid, SegmentSeq(3), now).unwrap();
        assert!(store.outgoing(uuid, SegmentSeq(3), Some(&sent), now).unwrap().unwrap().loss);
        compact_all(&mut store, at(9000));
        let joined = store.outgoing(uuid, SegmentSeq(5), Some(&other), at(9000)).unwrap().unwrap();
        assert_eq!(joined.range, range(5, 49));
    }
}
