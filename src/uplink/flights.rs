//! What was sent and not acknowledged: the window with its two shares, and when to send again.
//!
//! What enters: what was sent, what was acknowledged, the time. What leaves: whether there is room, and what is due. Pure.
//! Each segment has its own timer, doubling, so that one that the fleet does not take neither stops the others nor is
//! forgotten: after [`PARKED_AFTER`] sendings it no longer takes a place in the window.

use super::pace::Class;
use crate::clock::{BootNanos, SECOND};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::StoreUuid;

/// The most segments in the window, unless configured.
pub(super) const WINDOW: usize = 8;

/// The most bytes in the window, unless configured.
pub(super) const WINDOW_BYTES: u64 = 256 * 1024;

/// The part of the window's places that the backlog leaves to new readings, and they to the backlog where it waits.
const SHARE: usize = 4;

/// The same of its bytes: two segments as compaction makes them, of up to 112 KiB, fit beside it.
const SHARE_BYTES: u64 = 8;

/// The first wait for an ack, beside the time that the link needs for what is on the way. The fleet commits in groups.
pub(super) const FIRST_WAIT_NS: i64 = 30 * SECOND;

/// The longest wait for an ack.
pub(super) const LONGEST_WAIT_NS: i64 = 600 * SECOND;

/// A segment sent so often has its place in the window given to others.
const PARKED_AFTER: u32 = 3;

/// So often a segment is sent again as soon as an ack shows that it was damaged; after that it was refused.
const HURRIES: u32 = 4;

/// The most segments that are followed, parked ones included. With more, the one that was sent longest ago is dropped: it
/// is still pending, and comes again when its lane begins anew. Segments that the fleet refuses never stop others.
const MOST: usize = 256;

/// A segment that went out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) store: StoreUuid,
    pub(super) range: SeqRange,
    pub(super) bytes: u64,
    pub(super) class: Class,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    store: StoreUuid,
    range: SeqRange,
    bytes: u64,
    class: Class,
    sendings: u32,
    hurried: u32,
    sent: BootNanos,
    due: BootNanos,
}

impl Flight {
    fn parked(&self) -> bool {
        self.sendings >= PARKED_AFTER
    }
}

/// The size of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) segments: usize,
    pub(super) bytes: u64,
}

/// All that is in flight.
#[derive(Debug)]
pub(super) struct Flights {
    limit: Window,
    all: Vec<Flight>,
    /// Something was dropped for want of room.
    dropped: bool,
    /// Bytes of the segment that goes in pieces, where it isn't among `all`: its place is kept until the last of them.
    begun: u64,
}

impl Default for Flights {
    fn default() -> Self {
        Self::new(Window { segments: WINDOW, bytes: WINDOW_BYTES })
    }
}

impl Flights {
    pub(super) fn new(limit: Window) -> Self {
        Self { limit, all: Vec::new(), dropped: false, begun: 0 }
    }

    /// Keeps a place for a segment of which some pieces have gone; `None` where there is none.
    pub(super) fn keep_place(&mut self, begun: Option<(StoreUuid, SeqRange, u64)>) {
        let new = begun.filter(|(store, range, _)| !self.holds(*store, range));
        self.begun = new.map_or(0, |(_, _, bytes)| bytes);
    }

    /// Whether one more segment of `bytes` may be sent. Each class has a share that the other leaves to it, new readings only
    /// where the backlog waits. A segment larger than what is left to its class travels alone.
    pub(super) fn room_for(&self, class: Class, bytes: u64, backlog_waits: bool) -> bool {
        let ((count, in_window), (mine, my_bytes)) = (self.window(), self.window_of(class));
        let kept = usize::from(self.begun > 0);
        let (count, in_window) = (count + kept, in_window + self.begun);
        let (mine, my_bytes) =
            if class == Class::Backlog { (mine + kept, my_bytes + self.begun) } else { (mine, my_bytes) };
        let shared = class == Class::Backlog || backlog_waits;
        let most = if shared { self.without_share() } else { self.limit.segments };
        if count == 0 {
            return true;
        }
        if count >= self.limit.segments || mine >= most {
            return false;
        }
        let share = self.limit.bytes / SHARE_BYTES;
        let most_bytes = if shared { self.limit.bytes - share } else { self.limit.bytes };
        let fits = in_window + bytes <= self.limit.bytes && (mine == 0 || my_bytes + bytes <= most_bytes);
        fits || (mine == 0 && bytes <= share)
    }

    /// Places that one class may take.
    fn without_share(&self) -> usize {
        (self.limit.segments - (self.limit.segments / SHARE).max(1).min(self.limit.segments)).max(1)
    }

    /// How many segments, and bytes, of one class take a place.
    fn window_of(&self, class: Class) -> (usize, u64) {
        let inside = self.all.iter().filter(|flight| !flight.parked() && flight.class == class);
        inside.fold((0, 0), |(count, bytes), flight| (count + 1, bytes + flight.bytes))
    }

    /// How many segments, and bytes, take a place in the window.
    pub(super) fn window(&self) -> (usize, u64) {
        let inside = self.all.iter().filter(|flight| !flight.parked());
        inside.fold((0, 0), |(count, bytes), flight| (count + 1, bytes + flight.bytes))
    }

    /// A segment went out; it replaces what it covers (compaction may have made it of several). Its ack is waited for
    /// longer by `patience_ns`, for what is on the way before it.
    pub(super) fn sent(&mut self, segment: Sent, now: BootNanos, patience_ns: i64) {
        let Sent { store, range, bytes, class } = segment;
        let covered = |flight: &Flight| flight.store == store && range.covers(&flight.range);
        let hurried = self.all.iter().filter(|f| covered(f)).map(|f| f.hurried).max().unwrap_or(0);
        let sendings = 1 + self.all.iter().filter(|f| covered(f)).map(|f| f.sendings).max().unwrap_or(0);
        self.all.retain(|flight| !covered(flight));
        let wait =
            FIRST_WAIT_NS.saturating_mul(1 << (sendings - 1).min(10)).saturating_add(patience_ns).min(LONGEST_WAIT_NS);
        let due = BootNanos(now.0.saturating_add(wait));
        self.all.push(Flight { store, range, bytes, class, sendings, hurried, sent: now, due });
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
    /// acknowledged with it was damaged on the way, or refused: it is due now, and the first times do not count against it. What
    /// is parked stays so: it has given its place away.
    pub(super) fn overtaken(&mut self, store: StoreUuid, sent: BootNanos) {
        let passed = |flight: &&mut Flight| flight.store == store && flight.sent < sent && flight.due > flight.sent;
        let first_times = |flight: &&mut Flight| flight.hurried < HURRIES && !flight.parked();
        for flight in self.all.iter_mut().filter(passed).filter(first_times) {
            flight.due = flight.sent;
            flight.hurried += 1;
            flight.sendings = flight.sendings.saturating_sub(1);
        }
    }

    /// What has waited too long, the longest first, and its bytes.
    pub(super) fn due(&self, now: BootNanos) -> Option<(StoreUuid, SeqRange, u64)> {
        let due = self.all.iter().filter(|flight| flight.due <= now).min_by_key(|flight| flight.due);
        due.map(|flight| (flight.store, flight.range, flight.bytes))
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
        *self = Self::new(self.limit);
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

    fn send(flights: &mut Flights, class: Class, range: SeqRange, bytes: u64, now: BootNanos) {
        flights.sent(Sent { store: STORE, range, bytes, class }, now, 0);
    }

    /// The window is bounded by count and by bytes, and still lets one large segment through.
    #[test]
    fn the_window_is_bounded_by_count_and_bytes() {
        let mut flights = Flights::default();
        assert!(flights.room_for(Class::Live, 2 << 20, false), "a large segment travels alone");
        send(&mut flights, Class::Live, range(1, 1), 2 << 20, at(0));
        assert!(!flights.room_for(Class::Live, 1, false));
        flights.acked(STORE, &RangeSet::from_iter([range(1, 1)]));
        for k in 1..=WINDOW as u64 {
            assert!(flights.room_for(Class::Live, 100, false));
            send(&mut flights, Class::Live, range(k, k), 100, at(0));
        }
        assert!(!flights.room_for(Class::Live, 100, false));
    }

    /// Neither class takes the other's share: a new reading finds its place however much of the backlog is in flight, and
    /// the backlog however many new readings there are. A window of one place has one.
    #[test]
    fn each_class_leaves_a_share_to_the_other() {
        for (mine, other) in [(Class::Backlog, Class::Live), (Class::Live, Class::Backlog)] {
            let mut flights = Flights::default();
            let mut k = 0;
            while flights.room_for(mine, 100, true) {
                k += 1;
                send(&mut flights, mine, range(k, k), 100, at(0));
            }
            assert_eq!(k, 6);
            assert!(flights.room_for(other, 100, true));
        }
        let mut flights = Flights::default();
        send(&mut flights, Class::Backlog, range(1, 1), 224 << 10, at(0));
        assert!(!flights.room_for(Class::Backlog, 1, true));
        assert!(flights.room_for(Class::Live, 32 << 10, true) && !flights.room_for(Class::Live, 33 << 10, true));
        let flights = Flights::new(Window { segments: 1, bytes: 4096 });
        assert!(flights.room_for(Class::Backlog, 5000, true) && flights.room_for(Class::Live, 5000, true));
    }

    /// A segment that is never acknowledged is sent at growing intervals and gives its place away.
    #[test]
    fn a_refused_segment_gives_its_place_away() {
        let mut flights = Flights::default();
        let again = |flights: &mut Flights, now| send(flights, Class::Live, range(1, 1), WINDOW_BYTES, now);
        again(&mut flights, at(0));
        assert_eq!(flights.due(at(29)), None);
        assert_eq!(flights.due(at(30)), Some((STORE, range(1, 1), WINDOW_BYTES)));
        again(&mut flights, at(30));
        assert_eq!(flights.due(at(89)), None);
        assert!(!flights.room_for(Class::Live, 1, false));
        again(&mut flights, at(90));
        assert!(flights.room_for(Class::Live, WINDOW_BYTES, false), "parked");
        assert_eq!(flights.next_due(), Some(at(90 + 120)));
        (0..20).for_each(|_| again(&mut flights, at(1000)));
        assert_eq!(flights.next_due(), Some(at(1600)), "but never later than ten minutes");
    }

    /// What arrived damaged is found out by the ack of what came after it, and does not wait for its timer; but what the fleet
    /// refuses again and again does.
    #[test]
    fn what_was_overtaken_is_sent_again_at_once() {
        let mut flights = Flights::default();
        (1..=3).for_each(|k| send(&mut flights, Class::Live, range(k, k), 1, at(k as i64)));
        let last = flights.acked(STORE, &RangeSet::from_iter([range(2, 2)])).expect("one has arrived");
        flights.overtaken(STORE, last);
        flights.overtaken(STORE, last);
        assert_eq!(flights.due(at(3)), Some((STORE, range(1, 1), 1)));
        send(&mut flights, Class::Live, range(1, 1), 1, at(4));
        assert_eq!(flights.due(at(4)), None, "3 may still arrive, and 1 has gone out again");
        flights.forget(STORE, &range(3, 3));
        for _ in 1..HURRIES {
            flights.overtaken(STORE, at(5));
            assert!(flights.due(at(5)).is_some());
            send(&mut flights, Class::Live, range(1, 1), 1, at(4));
        }
        assert_eq!(flights.next_due(), Some(at(34)), "damage does not make the waits longer");
        flights.overtaken(STORE, at(5));
        assert_eq!(flights.due(at(5)), None, "this is no damage");
    }

    /// A segment that goes in pieces has its place from the first of them on. (New readings took it meanwhile, and there were
    /// nine.)
    #[test]
    fn what_has_begun_keeps_its_place() {
        let mut flights = Flights::default();
        (1..WINDOW as u64).for_each(|k| send(&mut flights, Class::Live, range(k, k), 100, at(0)));
        flights.keep_place(Some((STORE, range(50, 60), 100)));
        assert!(!flights.room_for(Class::Live, 100, false));
        flights.keep_place(Some((STORE, range(3, 3), 100)));
        assert!(flights.room_for(Class::Live, 100, false), "what goes again has one already");
        flights.keep_place(None);
        assert!(flights.room_for(Class::Live, 100, false));
    }

    /// What is on the way before a segment is waited for as well: on a slow link nothing goes twice for being slow.
    #[test]
    fn a_slow_link_is_waited_for() {
        let mut flights = Flights::default();
        let segment = Sent { store: STORE, range: range(1, 1), bytes: 1, class: Class::Backlog };
        flights.sent(segment, at(0), 45 * SECOND);
        assert_eq!(flights.next_due(), Some(at(75)));
    }

    /// A segment counts as arrived when an ack covers all of it; a part is not enough.
    #[test]
    fn a_part_is_not_an_arrival() {
        let mut flights = Flights::default();
        send(&mut flights, Class::Live, range(5, 9), 1, at(0));
        flights.acked(STORE, &RangeSet::from_iter([range(1, 8)]));
        assert!(flights.holds(STORE, &range(9, 9)));
        flights.acked(StoreUuid::max(), &RangeSet::from_iter([range(1, 9)]));
        assert!(flights.holds(STORE, &range(9, 9)), "another store's ack");
        flights.acked(STORE, &RangeSet::from_iter([range(1, 9)]));
        assert!(!flights.holds(STORE, &range(9, 9)));
    }
}
