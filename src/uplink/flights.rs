//! What was sent and not acknowledged: the window, and when to send again.
//!
//! What enters: what was sent, what was acknowledged, the time. What leaves: whether there is room, and what is due. Pure.
//! Each segment has its own timer, doubling, so that one that the fleet does not take neither stops the others nor is
//! forgotten: after [`PARKED_AFTER`] sendings it no longer takes a place in the window.

use crate::clock::{BootNanos, SECOND};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::StoreUuid;

/// The most segments in the window.
pub(super) const WINDOW: usize = 8;

/// The most bytes in the window; one segment larger than that travels alone.
pub(super) const WINDOW_BYTES: u64 = 256 * 1024;

/// The first wait for an ack. The fleet commits in groups and the link may be slow: 256 KiB at 10 kB/s are 26 s.
pub(super) const FIRST_WAIT_NS: i64 = 30 * SECOND;

/// The longest wait for an ack.
pub(super) const LONGEST_WAIT_NS: i64 = 600 * SECOND;

/// A segment sent so often has its place in the window given to others.
const PARKED_AFTER: u32 = 3;

/// The most segments that are followed, parked ones included. With more, the one that was sent longest ago is dropped: it
/// is still pending, and comes again when its lane begins anew. Segments that the fleet refuses never stop others.
const MOST: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Flight {
    store: StoreUuid,
    range: SeqRange,
    bytes: u64,
    sendings: u32,
    sent: BootNanos,
    due: BootNanos,
}

impl Flight {
    fn parked(&self) -> bool {
        self.sendings >= PARKED_AFTER
    }
}

/// All that is in flight.
#[derive(Debug, Default)]
pub(super) struct Flights {
    all: Vec<Flight>,
    /// Something was dropped for want of room.
    dropped: bool,
}

impl Flights {
    /// Whether one more segment of `bytes` may be sent.
    pub(super) fn room_for(&self, bytes: u64) -> bool {
        let (count, in_window) = self.window();
        count == 0 || (count < WINDOW && in_window + bytes <= WINDOW_BYTES)
    }

    /// How many segments, and bytes, take a place in the window.
    pub(super) fn window(&self) -> (usize, u64) {
        let inside = self.all.iter().filter(|flight| !flight.parked());
        inside.fold((0, 0), |(count, bytes), flight| (count + 1, bytes + flight.bytes))
    }

    /// How many in the window satisfy a condition.
    pub(super) fn count(&self, store: StoreUuid, which: impl Fn(&SeqRange) -> bool) -> usize {
        self.all.iter().filter(|f| f.store == store && !f.parked() && which(&f.range)).count()
    }

    /// A segment went out; it replaces what it covers (compaction may have made it of several).
    pub(super) fn sent(&mut self, store: StoreUuid, range: SeqRange, bytes: u64, now: BootNanos) {
        let covered = |flight: &Flight| flight.store == store && range.covers(&flight.range);
        let sendings = 1 + self.all.iter().filter(|f| covered(f)).map(|f| f.sendings).max().unwrap_or(0);
        self.all.retain(|flight| !covered(flight));
        let wait = FIRST_WAIT_NS.saturating_mul(1 << (sendings - 1).min(10)).min(LONGEST_WAIT_NS);
        let due = BootNanos(now.0.saturating_add(wait));
        self.all.push(Flight { store, range, bytes, sendings, sent: now, due });
        if self.all.len() > MOST {
            let parked = self.all.iter().enumerate().filter(|(_, flight)| flight.parked());
            if let Some((oldest, _)) = parked.min_by_key(|(_, flight)| flight.sent) {
                self.all.remove(oldest);
                self.dropped = true;
            }
        }
    }

    /// Whether there is room again for what was dropped; asked once, it is taken as told.
    pub(super) fn recovered(&mut self) -> bool {
        self.all.len() < MOST / 2 && std::mem::take(&mut self.dropped)
    }

    /// Whether any of `range` is in flight.
    pub(super) fn holds(&self, store: StoreUuid, range: &SeqRange) -> bool {
        self.all.iter().any(|flight| flight.store == store && flight.range.overlaps(range))
    }

    /// Everything covered by `acked` has arrived. When the last of it was sent: so has all that was published before.
    pub(super) fn acked(&mut self, store: StoreUuid, acked: &RangeSet) -> Option<BootNanos> {
        let arrived = |flight: &Flight| flight.store == store && acked.covers(flight.range);
        let last = self.all.iter().filter(|flight| arrived(flight)).map(|flight| flight.sent).max();
        self.all.retain(|flight| !arrived(flight));
        last
    }

    /// An ack covers what was sent at `sent`. Messages of one topic arrive in order, so what was sent before that and is not
    /// acknowledged with it was damaged on the way, or refused: it is due now, until it is parked.
    pub(super) fn overtaken(&mut self, store: StoreUuid, sent: BootNanos) {
        let passed = |flight: &&mut Flight| flight.store == store && flight.sent < sent && !flight.parked();
        self.all.iter_mut().filter(passed).for_each(|flight| flight.due = flight.sent);
    }

    /// What has waited too long, the longest first.
    pub(super) fn due(&self, now: BootNanos) -> Option<(StoreUuid, SeqRange)> {
        let due = self.all.iter().filter(|flight| flight.due <= now).min_by_key(|flight| flight.due);
        due.map(|flight| (flight.store, flight.range))
    }

    /// When the next one has waited too long.
    pub(super) fn next_due(&self) -> Option<BootNanos> {
        self.all.iter().map(|flight| flight.due).min()
    }

    /// All are due: the fleet now knows what it was missing.
    pub(super) fn hurry(&mut self, now: BootNanos) {
        self.all.iter_mut().for_each(|flight| flight.due = now);
    }

    /// Not there any more, or of no use.
    pub(super) fn forget(&mut self, store: StoreUuid, range: &SeqRange) {
        self.all.retain(|flight| flight.store != store || !range.overlaps(&flight.range));
    }

    pub(super) fn forget_store(&mut self, store: StoreUuid) {
        self.all.retain(|flight| flight.store != store);
    }

    /// The connection is gone, and with it what was on the way.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn ranges(&self) -> Vec<(StoreUuid, SeqRange)> {
        self.all.iter().map(|flight| (flight.store, flight.range)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreUuid = StoreUuid::nil();

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).expect("a range")
    }

    fn at(seconds: i64) -> BootNanos {
        BootNanos(seconds * SECOND)
    }

    /// The window is bounded by count and by bytes, and still lets one large segment through.
    #[test]
    fn the_window_is_bounded_by_count_and_bytes() {
        let mut flights = Flights::default();
        assert!(flights.room_for(2 << 20), "a large segment travels alone");
        flights.sent(STORE, range(1, 1), 2 << 20, at(0));
        assert!(!flights.room_for(1));
        flights.acked(STORE, &RangeSet::from_iter([range(1, 1)]));
        for k in 1..=WINDOW as u64 {
            assert!(flights.room_for(100));
            flights.sent(STORE, range(k, k), 100, at(0));
        }
        assert!(!flights.room_for(100));
    }

    /// A segment that is never acknowledged is sent at growing intervals and gives its place away.
    #[test]
    fn a_refused_segment_gives_its_place_away() {
        let mut flights = Flights::default();
        flights.sent(STORE, range(1, 1), WINDOW_BYTES, at(0));
        assert_eq!(flights.due(at(29)), None);
        assert_eq!(flights.due(at(30)), Some((STORE, range(1, 1))));
        flights.sent(STORE, range(1, 1), WINDOW_BYTES, at(30));
        assert_eq!(flights.due(at(89)), None);
        assert!(!flights.room_for(1));
        flights.sent(STORE, range(1, 1), WINDOW_BYTES, at(90));
        assert!(flights.room_for(WINDOW_BYTES), "parked");
        assert_eq!(flights.next_due(), Some(at(90 + 120)));
        (0..20).for_each(|_| flights.sent(STORE, range(1, 1), 1, at(1000)));
        assert_eq!(flights.next_due(), Some(at(1600)), "but never later than ten minutes");
    }

    /// What arrived damaged is found out by the ack of what came after it, and does not wait for its timer; but what the fleet
    /// refuses again and again does.
    #[test]
    fn what_was_overtaken_is_sent_again_at_once() {
        let mut flights = Flights::default();
        (1..=3).for_each(|k| flights.sent(STORE, range(k, k), 1, at(k as i64)));
        let last = flights.acked(STORE, &RangeSet::from_iter([range(2, 2)])).expect("one has arrived");
        flights.overtaken(STORE, last);
        assert_eq!(flights.due(at(3)), Some((STORE, range(1, 1))));
        flights.sent(STORE, range(1, 1), 1, at(4));
        assert_eq!(flights.due(at(4)), None, "3 may still arrive, and 1 has gone out again");
        flights.sent(STORE, range(1, 1), 1, at(5));
        flights.overtaken(STORE, at(6));
        assert_eq!(flights.due(at(6)), Some((STORE, range(3, 3))));
        flights.forget(STORE, &range(3, 3));
        assert_eq!(flights.due(at(6)), None, "parked");
    }

    /// A segment counts as arrived when an ack covers all of it; a part is not enough.
    #[test]
    fn a_part_is_not_an_arrival() {
        let mut flights = Flights::default();
        flights.sent(STORE, range(5, 9), 1, at(0));
        flights.acked(STORE, &RangeSet::from_iter([range(1, 8)]));
        assert!(flights.holds(STORE, &range(9, 9)));
        flights.acked(StoreUuid::max(), &RangeSet::from_iter([range(1, 9)]));
        assert!(flights.holds(STORE, &range(9, 9)), "another store's ack");
        flights.acked(STORE, &RangeSet::from_iter([range(1, 9)]));
        assert!(!flights.holds(STORE, &range(9, 9)));
    }
}
