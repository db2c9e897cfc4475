//! Stories of one connection, told with a time of their own.

use super::*;
use crate::reading::SegmentSeq;
use crate::reading::ranges::RangeSet;
use crate::segment::Sum;
use crate::uplink::flights::WINDOW;
use crate::wire::{self, Account, Done, Request, SnapshotRequest, StoreAck, Stretch};

const CURRENT: StoreUuid = StoreUuid::from_u128(1);
const OLD: StoreUuid = StoreUuid::from_u128(2);

fn at(seconds: i64) -> BootNanos {
    BootNanos(seconds * SECOND)
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).expect("a range")
}

fn set(ranges: impl IntoIterator<Item = SeqRange>) -> RangeSet {
    ranges.into_iter().collect()
}

fn line(store: StoreUuid, current: bool, high: u64) -> Line {
    Line { store, current, high: SegmentSeq(high), recheck: None }
}

fn stated(store: StoreUuid, cumulative: u64, high: u64) -> StoreAck {
    StoreAck {
        store,
        cumulative: SegmentSeq(cumulative),
        ranges: vec![],
        high: SegmentSeq(high),
        conflicts: vec![],
        verified: None,
    }
}

fn ack(stores: &[StoreAck]) -> Event {
    Event::Ack(Ack { stores: stores.to_vec() })
}

/// A store of segments of one number each, 1000 bytes, and a machine; performs what the machine asks at once, and keeps
/// account of it.
struct Story {
    machine: Machine,
    lines: Vec<Line>,
    catalog: u64,
    acked: Vec<(StoreUuid, RangeSet)>,
    /// Which numbers are gone: never sent, not pending.
    gone: Vec<(StoreUuid, u64)>,
    bytes: u64,
    now: BootNanos,
    done: Vec<String>,
    accounts: Vec<Account>,
}

impl Story {
    fn new(lines: &[Line]) -> Self {
        Self {
            machine: Machine::new(None, at(0)),
            lines: lines.to_vec(),
            catalog: 1,
            acked: vec![],
            gone: vec![],
            bytes: 1000,
            now: at(0),
            done: vec![],
            accounts: vec![],
        }
    }

    fn on(&mut self, event: Event) -> &mut Self {
        self.machine.on(event, self.now);
        self
    }

    fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now.0 += seconds * SECOND;
        self
    }

    /// The next action; what only gives way to the pages before it is waited for.
    fn next(&mut self) -> Option<Action> {
        let action = self.machine.next(self.now);
        match self.machine.held_until.filter(|_| action.is_none() && self.machine.sends_segments()) {
            Some(until) => {
                assert_eq!(self.machine.wake_at(), until);
                self.now = until;
                self.machine.next(self.now)
            }
            None => action,
        }
    }

    /// Performs everything that the machine wants now; gives what was published, in order.
    fn run(&mut self) -> Vec<String> {
        for _ in 0..2000 {
            match self.next() {
                Some(action) => self.perform(action),
                None => return std::mem::take(&mut self.done),
            }
        }
        panic!("the machine never rests");
    }

    fn is_acked(&self, store: StoreUuid, seq: u64) -> bool {
        self.acked.iter().any(|(of, ranges)| *of == store && ranges.contains(SegmentSeq(seq)))
    }

    fn perform(&mut self, action: Action) {
        let event = match action {
            Action::ReadStores => Event::Stores { lines: self.lines.clone(), catalog: self.catalog },
            Action::ReadHeads { store, purpose, after, limit } => {
                let high = self.lines.iter().find(|l| l.store == store).map_or(0, |l| l.high.0);
                let held = (after.0 + 1..=high).filter(|seq| !self.gone.contains(&(store, *seq)));
                let wanted = held.filter(|seq| !self.is_acked(store, *seq));
                let heads = wanted.take(limit).map(|seq| Head { range: range(seq, seq), bytes: self.bytes }).collect();
                Event::Heads { store, purpose, after, heads }
            }
            Action::ReadNewest { store, before, limit } => {
                let held = (1..before.0).rev().filter(|seq| !self.gone.contains(&(store, *seq)));
                let wanted = held.filter(|seq| !self.is_acked(store, *seq));
                let heads = wanted.take(limit).map(|seq| Head { range: range(seq, seq), bytes: self.bytes }).collect();
                Event::Newest { store, before, heads }
            }
            Action::Send { catalog, .. } if catalog != self.catalog => Event::CatalogChanged { catalog: self.catalog },
            Action::Send { store, at, purpose, .. } if self.gone.contains(&(store, at.0)) => {
                Event::Missing { store, at, purpose }
            }
            Action::Send { store, at, purpose, .. } => {
                let name = if store == CURRENT { "new" } else { "old" };
                self.done.push(format!("{name} {at} {purpose:?}"));
                Event::Sent { store, range: range(at.0, at.0), bytes: self.bytes, purpose }
            }
            Action::Copy { catalog, .. } if catalog != self.catalog => Event::CatalogChanged { catalog: self.catalog },
            Action::Copy { store, within, .. } => {
                let seq = (within.first.0..=within.last.0).find(|seq| !self.gone.contains(&(store, *seq)));
                let told = seq.map(|seq| self.told(store, seq));
                Event::Copied { store, within, told }
            }
            Action::PublishAccount(account) => {
                self.done.push(match &account.stretch {
                    _ if account.last => "account last".into(),
                    None => "account begins".into(),
                    Some(stretch) => format!("account {}", stretch.range),
                });
                self.accounts.push(account.clone());
                Event::AccountPublished(account)
            }
            Action::PublishCatalog { all } => {
                self.done.push(if all { "catalog all".into() } else { "catalog".into() });
                Event::CatalogPublished { catalog: self.catalog, all }
            }
            Action::PublishState => {
                self.done.push("state".into());
                Event::StatePublished
            }
            Action::SetAcked { store, ranges } => {
                self.acked.retain(|(of, _)| *of != store);
                self.acked.push((store, ranges));
                Event::AckedSet
            }
            Action::RecordGone { store, range } => {
                let through =
                    (range.first.0..=range.last.0).take_while(|seq| self.gone.contains(&(store, *seq))).last();
                let through = SegmentSeq(through.expect("the first is gone"));
                self.done.push(format!("gone {}..={through}", range.first));
                self.gone.retain(|(of, seq)| *of != store || *seq > through.0);
                Event::Gone { store, through }
            }
            Action::Recheck { store, why } => {
                self.done.push(format!("recheck {why:?}"));
                let line = self.lines.iter_mut().find(|l| l.store == store).expect("a known store");
                let was_current = std::mem::replace(&mut line.current, false);
                line.recheck = Some(77);
                self.acked.retain(|(of, _)| *of != store);
                if was_current {
                    self.lines.insert(
                        0,
                        Line { store: StoreUuid::from_u128(9), current: true, high: SegmentSeq(0), recheck: None },
                    );
                }
                Event::Rechecking { store, nonce: 77 }
            }
        };
        self.machine.on(event, self.now);
    }

    /// Every tenth number is a loss; the others add up to themselves.
    fn told(&mut self, store: StoreUuid, seq: u64) -> Told {
        let name = if store == CURRENT { "new" } else { "old" };
        self.done.push(format!("{name} {seq} copy"));
        let loss = seq % 10 == 0;
        let readings = (!loss).then_some(Sum { readings: 1, digest: seq });
        Told { range: range(seq, seq), bytes: self.bytes, readings, loss }
    }

    fn commit(&mut self) -> &mut Self {
        let current = self.lines.iter_mut().find(|line| line.current).expect("a current store");
        current.high.0 += 1;
        self.on(Event::Committed)
    }
}

fn sent(numbers: impl IntoIterator<Item = u64>, name: &str, purpose: &str) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{name} {n} {purpose}")).collect()
}

/// Connected, with the ack of a fleet that holds the first three.
fn open(high: u64, held: u64) -> Story {
    let mut story = Story::new(&[line(CURRENT, true, high)]);
    story.run();
    story.on(Event::Connected).on(ack(&[stated(CURRENT, held, held)]));
    story
}

/// Birth, catalogue, and then what the fleet does not hold; nothing that it holds.
#[test]
fn a_connection_begins_with_birth_and_catalogue() {
    let mut story = open(5, 3);
    assert_eq!(story.run(), [vec!["state".into(), "catalog all".into()], sent(4..=5, "new", "Backlog")].concat());
    assert_eq!(story.machine.in_flight(), [(CURRENT, range(4, 4)), (CURRENT, range(5, 5))]);
    story.on(ack(&[stated(CURRENT, 5, 5)]));
    assert_eq!((story.run(), story.machine.in_flight()), (vec![], vec![]));
    assert_eq!(story.acked, [(CURRENT, set([range(1, 5)]))]);
}

/// No retained ack: a fleet that is new, or away. Segments wait for it five seconds, and no longer.
#[test]
fn segments_wait_for_the_ack_but_not_for_ever() {
    let mut story = Story::new(&[line(CURRENT, true, 1)]);
    story.run();
    story.on(Event::Connected);
    assert_eq!(story.run(), ["state", "catalog all"]);
    story.wait(4);
    assert_eq!(story.run(), Vec::<String>::new());
    assert_eq!(story.machine.wake_at(), at(5));
    story.wait(1);
    assert_eq!(story.run(), sent([1], "new", "Backlog"));
}

/// An ack that gets lost costs one sending: the timer sends again, with growing waits.
#[test]
fn a_lost_ack_is_made_good_by_the_timer() {
    let mut story = open(4, 3);
    story.run();
    story.wait(29);
    assert_eq!(story.run(), Vec::<String>::new());
    story.wait(1);
    assert_eq!(story.run(), sent([4], "new", "Again"));
    story.wait(59);
    assert!(!story.run().iter().any(|done| done.contains("Again")));
    story.wait(1);
    assert_eq!(story.run(), sent([4], "new", "Again"));
}

/// The window holds back what the fleet cannot have taken in yet; each ack lets more go.
#[test]
fn the_window_moves_with_the_acks() {
    let mut story = open(20, 0);
    assert_eq!(story.run()[2..], sent(1..=6, "new", "Backlog"));
    story.on(ack(&[stated(CURRENT, 3, 6)]));
    assert_eq!(story.run(), sent(7..=9, "new", "Backlog"));
    let mut big = open(20, 0);
    big.bytes = 100 * 1024;
    assert_eq!(big.run()[2..], sent(1..=2, "new", "Backlog"), "256 KiB are the limit");
}

/// The fleet lost its last day: what it no longer names is pending again, and sent again.
#[test]
fn an_ack_that_shrinks_makes_things_pending_again() {
    let mut story = open(6, 6);
    story.run();
    assert_eq!(story.acked, [(CURRENT, set([range(1, 6)]))]);
    story.on(ack(&[stated(CURRENT, 4, 4)]));
    assert_eq!(story.run(), sent(5..=6, "new", "Backlog"));
    assert_eq!(story.acked, [(CURRENT, set([range(1, 4)]))]);
    story.on(ack(&[]));
    assert_eq!(story.run(), sent(1..=4, "new", "Backlog"), "an ack that does not name the store holds nothing of it");
}

/// An ack shrinks while a segment is on its way out: what became pending below it is not passed over.
#[test]
fn an_ack_that_shrinks_during_a_sending_passes_nothing_over() {
    let mut story = open(9, 8);
    let sending = (0..20).any(|_| match story.next() {
        Some(Action::Send { at: SegmentSeq(9), .. }) => true,
        Some(action) => {
            story.perform(action);
            false
        }
        None => false,
    });
    assert!(sending);
    story.on(ack(&[stated(CURRENT, 5, 9)]));
    story.on(Event::Sent { store: CURRENT, range: range(9, 9), bytes: 1, purpose: Purpose::Backlog });
    assert!(story.run().ends_with(&sent(6..=8, "new", "Backlog")));
}

/// What the fleet turns out to hold is not sent, though its head was read before.
#[test]
fn what_has_arrived_is_passed_over() {
    let mut story = open(20, 0);
    story.run();
    story.on(ack(&[StoreAck { ranges: vec![range(10, 12)], ..stated(CURRENT, 6, 20) }]));
    assert_eq!(story.run(), sent([7, 8, 9, 13, 14, 15], "new", "Backlog"));
}

/// New readings go out at once though a long backlog waits and nothing of it is acknowledged, and the backlog keeps its
/// share of the window.
#[test]
fn new_readings_do_not_wait_behind_the_backlog() {
    let mut story = open(1000, 0);
    assert_eq!(story.run()[2..], sent(1..=6, "new", "Backlog"));
    story.commit().commit();
    assert_eq!(story.run(), sent(1001..=1002, "new", "Live"));
    for _ in 0..20 {
        story.commit();
    }
    story.on(ack(&[stated(CURRENT, 6, 1002)]));
    let done = story.run();
    let of = |purpose| done.iter().filter(|what| what.contains(purpose)).count();
    assert_eq!((of("Live"), of("Backlog")), (4, 2), "{done:?}");
}

/// With `backlog = "newest"` an outage is sent backwards, new readings still first, and all of it arrives; what an ack takes
/// back goes again.
#[test]
fn the_backlog_goes_backwards_where_it_is_wanted() {
    let mut story = Story::new(&[line(CURRENT, true, 100)]);
    let config = PaceConfig { backlog: BacklogOrder::Newest, ..PaceConfig::default() };
    story.machine = Machine::new(None, at(0)).paced(config, 1 << 17, false, at(0));
    story.run();
    story.on(Event::Connected).on(ack(&[stated(CURRENT, 10, 10)]));
    assert_eq!(story.run()[2..], sent((95..=100).rev(), "new", "Backlog"));
    story.commit();
    assert_eq!(story.run(), sent([101], "new", "Live"));
    let mut held = StoreAck { ranges: vec![range(95, 101)], ..stated(CURRENT, 10, 101) };
    let mut done = vec![];
    while held.ranges[0].first.0 > 11 {
        story.on(ack(&[held.clone()]));
        let more = story.run();
        held.ranges[0].first.0 -= more.len() as u64;
        done.extend(more);
    }
    assert_eq!(done, sent((11..=94).rev(), "new", "Backlog"));
    story.on(ack(&[stated(CURRENT, 101, 101)])).on(ack(&[stated(CURRENT, 99, 101)]));
    assert_eq!(story.run(), sent([101, 100], "new", "Backlog"));
}

/// While the fleet asks for silence states go on and no segment goes; a pause of nothing ends it, as an hour does, and as
/// the connection does.
#[test]
fn a_pause_holds_segments_back() {
    let pause = |seconds| Event::Request(Request::Pause { seconds });
    let mut story = open(20, 0);
    story.on(pause(120));
    assert_eq!(story.run(), ["state", "catalog all"]);
    story.commit().wait(60);
    assert_eq!(story.run(), ["state"]);
    assert!(story.machine.wake_at() <= at(120) && story.machine.silent_until().is_some());
    story.on(pause(0));
    assert_eq!(story.run()[0], "new 21 Live");
    story.on(pause(u32::MAX)).commit().wait(3600);
    assert!(story.run().contains(&"new 22 Live".to_owned()), "an hour is the most");
    story.on(pause(600)).on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 0, 22)]));
    assert!(story.run().contains(&"new 1 Backlog".to_owned()));
}

/// The current store goes first, then the older ones.
#[test]
fn older_stores_follow_the_current_one() {
    let mut story = Story::new(&[line(CURRENT, true, 2), line(OLD, false, 2)]);
    story.run();
    story.on(Event::Connected).on(ack(&[]));
    let expected = [sent(1..=2, "new", "Backlog"), sent(1..=2, "old", "Backlog")].concat();
    assert_eq!(story.run()[2..], expected);
}

/// The card was put back to yesterday: the fleet has seen numbers that we have not used. A fresh id is taken, nothing more
/// is sent under the old number line but the recheck, and there only the fleet's verification counts.
#[test]
fn a_rolled_back_file_takes_a_fresh_id_and_is_rechecked() {
    let mut story = open(5, 3);
    story.machine.on(ack(&[stated(CURRENT, 9, 9)]), story.now);
    let done = story.run();
    assert!(done[0].starts_with("recheck RolledBack"), "{done:?}");
    let resent = done.iter().position(|what| what == "new 1 Backlog").expect("all is sent again");
    assert!(done[..resent].contains(&"state".to_string()), "the state says so first: {done:?}");
    assert!(done.contains(&"new 5 Backlog".to_string()));
    assert!(story.acked.iter().all(|(_, ranges)| ranges.is_empty()), "{:?}", story.acked);
    // Its cumulative is of another file's segments: it counts for nothing.
    story.on(ack(&[stated(CURRENT, 9, 9)]));
    story.run();
    assert_eq!(story.acked.iter().find(|(of, _)| *of == CURRENT), Some(&(CURRENT, set([]))));
    assert_eq!(story.machine.in_flight().len(), 5);
    let stale = StoreAck { verified: Some((76, vec![range(1, 5)])), ..stated(CURRENT, 9, 9) };
    story.on(ack(&[stale]));
    assert_eq!(story.machine.in_flight().len(), 5, "an answer to another recheck");
    let verified = StoreAck { verified: Some((77, vec![range(1, 5)])), ..stated(CURRENT, 9, 9) };
    story.on(ack(&[verified]));
    story.run();
    assert_eq!(story.machine.in_flight(), []);
    assert_eq!(story.acked.iter().find(|(of, _)| *of == CURRENT), Some(&(CURRENT, set([range(1, 5)]))));
    // What is committed now goes under the fresh id.
    story.commit();
    assert_eq!(story.run(), sent([1], "old", "Live"));
}

/// A commit that the machine has not heard of yet is in the state that goes out, or in a segment that compaction made
/// meanwhile: the fleet's answer, which is faster, is not taken for the account of another file.
#[test]
fn the_fleet_may_know_of_a_commit_before_the_machine() {
    let mut story = open(5, 3);
    story.run();
    story.on(Event::Stating(vec![(CURRENT, SegmentSeq(6))])).on(ack(&[stated(CURRENT, 3, 6)]));
    let done = story.run();
    assert!(done.iter().all(|what| !what.starts_with("recheck")), "{done:?}");
    for purpose in [Purpose::Wanted, Purpose::Again] {
        let high = story.machine.plans[0].line.high.0 + 2;
        story.on(Event::Sent { store: CURRENT, range: range(4, high), bytes: 1000, purpose });
        story.on(ack(&[stated(CURRENT, 3, high)]));
        let done = story.run();
        assert!(done.iter().all(|what| !what.starts_with("recheck")), "{purpose:?}: {done:?}");
    }
}

/// More refused segments than are followed stop neither new readings nor each other; once the fleet takes them, those
/// that were no longer followed come too.
#[test]
fn any_number_of_refused_segments_stops_nothing() {
    let mut story = Story::new(&[line(CURRENT, true, 0), line(OLD, false, 400)]);
    story.run();
    story.on(Event::Connected).on(ack(&[stated(CURRENT, 0, 0), stated(OLD, 0, 0)]));
    let mut done = Vec::new();
    for _ in 0..250 {
        done.extend(story.wait(30).run());
    }
    assert!(done.contains(&"old 400 Backlog".to_string()), "none waits for ever behind the others");
    assert!(story.machine.in_flight().len() <= 256);
    story.commit();
    let done: Vec<String> = (0..10).flat_map(|_| story.wait(30).run()).collect();
    assert!(done.contains(&"new 1 Live".to_string()));
    let flying = story.machine.in_flight();
    let lost = (1..=400).find(|seq| !flying.contains(&(OLD, range(*seq, *seq)))).expect("one that is not followed");
    let rest = StoreAck {
        ranges: flying.iter().map(|(_, r)| *r).filter(|r| r.first.0 > 1).take(200).collect(),
        ..stated(OLD, 0, 400)
    };
    story.on(ack(&[stated(CURRENT, 1, 1), rest]));
    let done: Vec<String> = (0..20).flat_map(|_| story.wait(30).run()).collect();
    assert!(done.contains(&format!("old {lost} Backlog")), "{lost}");
}

/// New readings under the fresh id go first and are acknowledged first: that says nothing of the old store, of which every
/// segment stays in flight or pending until the fleet has verified it.
#[test]
fn acks_of_the_fresh_store_verify_nothing_of_the_old_one() {
    let fresh = StoreUuid::from_u128(9);
    let mut story = open(6, 6);
    story.on(ack(&[stated(CURRENT, 6, 1000)]));
    while story.lines.len() == 1 {
        let action = story.next().expect("a recheck");
        story.perform(action);
    }
    for _ in 0..5 {
        story.commit();
    }
    let done = story.run();
    assert!(done.iter().any(|what| what.starts_with("old 5 ")), "{done:?}");
    let old = StoreAck { verified: Some((77, vec![])), ..stated(CURRENT, 6, 1000) };
    story.on(ack(&[stated(fresh, 5, 5), old]));
    let done = [done, story.run()].concat();
    assert!((1..=6).all(|k| done.contains(&format!("new {k} Backlog"))), "{done:?}");
    assert!((1..=6).all(|k| !story.is_acked(CURRENT, k)));
    let old = StoreAck { verified: Some((77, vec![range(1, 6)])), ..stated(CURRENT, 6, 1000) };
    story.on(ack(&[stated(fresh, 5, 5), old])).run();
    assert!((1..=6).all(|k| story.is_acked(CURRENT, k)));
}

/// The card is busy when a fresh id is due, or when an ack is to be noted. (The first version forgot what it had asked for:
/// the store stayed doubted, or pending, until the next start.)
#[test]
fn what_the_store_could_not_take_is_told_again() {
    let mut story = open(5, 5);
    story.run();
    story.commit();
    story.run();
    story.on(ack(&[stated(CURRENT, 6, 6)]));
    assert!(matches!(story.next(), Some(Action::SetAcked { .. })));
    story.on(Event::StoreFailed).wait(30).run();
    assert!(story.is_acked(CURRENT, 6));
    story.on(ack(&[stated(CURRENT, 6, 9)]));
    assert!(matches!(story.next(), Some(Action::Recheck { .. })));
    story.on(Event::StoreFailed).on(ack(&[stated(CURRENT, 6, 9)])).wait(30);
    let done = story.run();
    assert_eq!(done.iter().filter(|what| what.starts_with("recheck")).count(), 1, "{done:?}");
    assert!((1..=6).all(|k| done.contains(&format!("new {k} Backlog"))), "{done:?}");
}

/// A twin of this device writes under the same store id: the fleet holds two contents for one range.
#[test]
fn a_conflict_takes_a_fresh_id_once() {
    let mut story = open(5, 3);
    story.run();
    let conflict = StoreAck { conflicts: vec![range(4, 4)], ..stated(CURRENT, 5, 5) };
    story.on(ack(std::slice::from_ref(&conflict))).on(ack(std::slice::from_ref(&conflict)));
    let done = story.run();
    assert_eq!(done.iter().filter(|what| what.starts_with("recheck Conflict")).count(), 1, "{done:?}");
    story.on(ack(&[conflict]));
    assert!(!story.run().iter().any(|what| what.starts_with("recheck")), "a recheck is not doubted again");
}

/// The fleet asks for a range: it is sent again though acknowledged; what is gone comes back as a loss.
#[test]
fn what_is_asked_for_is_sent_or_declared_gone() {
    let mut story = open(9, 9);
    story.run();
    story.gone = vec![(CURRENT, 4), (CURRENT, 5)];
    story.on(Event::Request(Request::Segments { store: CURRENT, ranges: vec![range(3, 6)] }));
    let expected = ["new 3 Wanted", "gone 4..=5", "new 6 Wanted"];
    assert_eq!(story.run(), expected);
    story.on(Event::Request(Request::Segments { store: CURRENT, ranges: vec![range(9, 12)] }));
    assert_eq!(story.run(), ["new 9 Wanted"], "what was never committed is not ours to explain");
    story.on(Event::Request(Request::Segments { store: OLD, ranges: vec![range(1, 1)] }));
    assert_eq!(story.run(), Vec::<String>::new(), "nor is another's store");
}

/// A hostile or confused fleet cannot make the list of what it wants grow without bound.
#[test]
fn wanted_ranges_are_bounded() {
    let mut story = open(5000, 5000);
    story.run();
    for k in 0..2000 {
        let ranges = vec![range(2 * k + 1, 2 * k + 1)];
        story.on(Event::Request(Request::Segments { store: CURRENT, ranges }));
    }
    assert_eq!(story.machine.wanted.len(), wire::MAX_RANGES);
}

/// A new series: its page goes out before the segment that cites it, also where it turns up between look and sending.
#[test]
fn the_catalogue_goes_before_what_cites_it() {
    let mut story = open(3, 3);
    story.run();
    story.catalog = 2;
    story.commit();
    assert_eq!(story.run(), ["catalog", "new 4 Live"]);
    story.commit();
    let sending = (0..20).any(|_| match story.next() {
        Some(Action::Send { .. }) => true,
        Some(action) => {
            story.perform(action);
            false
        }
        None => false,
    });
    assert!(sending);
    story.catalog = 3;
    let cut = Cut { payload_bytes: 1024, whole: true, rest: None };
    story.perform(Action::Send { store: CURRENT, at: SegmentSeq(5), purpose: Purpose::Live, catalog: 2, cut });
    assert_eq!(story.run(), ["catalog", "new 5 Live"]);
}

/// A page that was taken for publication may have died with its connection: unless an ack has shown that it arrived, it
/// goes out again. (The first version published it once, and a cut in that moment left the fleet asking.)
#[test]
fn pages_that_may_be_lost_go_out_again() {
    let mut story = open(4, 3);
    assert_eq!(story.run()[..2], ["state", "catalog all"]);
    story.on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 3, 3)]));
    assert_eq!(story.run(), ["state", "catalog all", "new 4 Backlog"]);
    story.on(ack(&[stated(CURRENT, 4, 4)]));
    story.on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 4, 4)]));
    assert_eq!(story.run(), ["state"], "the ack has shown that it arrived");
}

/// Where a connection breaks between two pages of a changed catalogue, the pages that had gone out go out again: they may have
/// died with it. (They were taken for said; the fleet had to ask for them, a round trip later.)
#[test]
fn a_catalogue_that_broke_between_its_pages_goes_out_again() {
    let mut story = Story::new(&[line(CURRENT, true, 3)]);
    story.on(Event::Connected).on(ack(&[stated(CURRENT, 3, 3)])).run();
    story.lines[0].high = SegmentSeq(4);
    story.wait(1).on(Event::Committed).run();
    story.wait(1).on(ack(&[stated(CURRENT, 4, 4)])).run();
    story.on(Event::Disconnected).wait(5).on(Event::Connected).on(ack(&[stated(CURRENT, 4, 4)]));
    assert_eq!(story.run(), ["state"], "what has arrived is not said again");
    (story.catalog, story.lines[0].high) = (2, SegmentSeq(5));
    story.wait(1).on(Event::Committed);
    let next = loop {
        match story.next() {
            Some(action @ Action::PublishCatalog { .. }) => break action,
            Some(action) => story.perform(action),
            None => panic!("no catalogue: {:?}", story.done),
        }
    };
    assert_eq!(next, Action::PublishCatalog { all: false });
    story.done.clear();
    story.on(Event::NotPublished).on(Event::Disconnected).wait(5).on(Event::Connected);
    assert_eq!(story.run(), ["state", "catalog all"]);
}

/// A fleet that lacks a page asks for all; what it could not take is sent right after, without waiting for the timer.
#[test]
fn a_missing_page_costs_one_round_trip() {
    let mut story = open(4, 3);
    story.run();
    story.wait(1).on(Event::Request(Request::Catalog)).on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), ["catalog all", "new 4 Again"]);
    story.wait(1).on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), Vec::<String>::new(), "not too often");
    story.catalog = 2;
    story.commit();
    assert_eq!(story.run(), ["catalog", "new 5 Live"], "a change does not wait, and is not all");
    story.wait(9);
    assert_eq!(story.run()[..1], ["catalog all"]);
}

/// A device connects before it has any series; its first commit brings them all. The page goes out ahead of the segment,
/// and where the fleet sees the segment first all the same it is acknowledged within a second. (The page that had just
/// been published once made the fleet's request for it wait ten seconds.)
#[test]
fn the_first_series_after_the_connection_cost_no_wait() {
    let mut story = open(0, 0);
    assert_eq!(story.run(), ["state", "catalog all"]);
    story.wait(2);
    story.catalog = 2;
    story.commit();
    let begun = story.now;
    while let Some(action) = story.machine.next(story.now) {
        story.perform(action);
    }
    assert_eq!(story.done, ["catalog"], "the segment waits a moment");
    assert_eq!(story.machine.wake_at(), BootNanos(begun.0 + LEAD_NS));
    assert_eq!(story.run(), ["catalog", "new 1 Live"]);
    story.on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), ["catalog all", "new 1 Again"]);
    assert!(story.now.0 - begun.0 < SECOND);
}

fn snapshot(nonce: u64, done: &[(StoreUuid, SeqRange)]) -> Event {
    let done = done.iter().map(|(store, range)| Done { store: *store, ranges: vec![*range] }).collect();
    Event::Request(Request::Snapshot(SnapshotRequest { nonce, only: None, done }))
}

fn copies(numbers: impl IntoIterator<Item = u64>, name: &str) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{name} {n} copy")).collect()
}

/// A snapshot sends everything, acknowledged or not, and only when nothing else waits; after each stretch it says what it
/// holds of it.
#[test]
fn a_snapshot_sends_everything_last_with_an_account_of_it() {
    let mut story = open(100, 98);
    story.gone = vec![(CURRENT, 31), (CURRENT, 100)];
    story.on(snapshot(7, &[])).on(snapshot(7, &[]));
    let done = story.run();
    assert_eq!(done[..3], ["state", "catalog all", "new 99 Backlog"]);
    let expected = [
        vec!["account begins".into()],
        copies((1..=65).filter(|seq| *seq != 31), "new"),
        vec!["account 1..=65".into()],
        copies(66..=99, "new"),
        vec!["account 66..=100".into(), "account last".into()],
    ];
    assert_eq!(done[done.len() - 102..], expected.concat());
    assert_eq!(story.run(), Vec::<String>::new(), "once");
    let first = story.accounts[1].clone();
    assert_eq!((first.nonce, &first.stores, first.last), (7, &vec![(CURRENT, range(1, 100))], false));
    let losses: Vec<SeqRange> = (1..=6).map(|k| range(10 * k, 10 * k)).collect();
    let digest = (1..=65).filter(|seq| seq % 10 != 0 && *seq != 31).sum();
    let Stretch { store, range: of, readings, losses: lost, sum } = first.stretch.expect("a stretch");
    assert_eq!((store, of, lost, sum), (CURRENT, range(1, 65), losses, Sum { readings: 58, digest }));
    assert_eq!(readings[3..5], [range(32, 39), range(41, 49)], "what is gone is in neither list");
}

/// A backlog that waits for room in the window goes first all the same: a snapshot does not take the link from it.
#[test]
fn a_snapshot_waits_for_the_whole_backlog() {
    let mut story = open(30, 0);
    story.on(snapshot(7, &[]));
    let (mut done, mut taken) = (Vec::new(), RangeSet::new());
    for _ in 0..60 {
        done.extend(story.run());
        let sent = (1..=30).filter(|seq| done.contains(&format!("new {seq} Backlog")));
        taken.extend(sent.map(|seq| range(seq, seq)));
        let stated = StoreAck { ranges: taken.iter().collect(), ..stated(CURRENT, 0, 30) };
        story.wait(1).on(ack(&[stated]));
    }
    let first = done.iter().position(|what| what.ends_with("copy")).expect("it comes");
    let last = done.iter().rposition(|what| what.ends_with("Backlog")).expect("a backlog");
    assert!(last < first, "{done:?}");
    assert_eq!(taken, set([range(1, 30)]));
}

/// A cut, or a restart of either side, costs what was not yet verified: asked again under the same number, the device goes on
/// behind what is done, and what it is doing already it does not begin again.
#[test]
fn a_broken_snapshot_goes_on_where_the_fleet_says() {
    let mut story = Story::new(&[line(CURRENT, true, 90), line(OLD, false, 3)]);
    story.run();
    story.on(Event::Connected).on(ack(&[stated(CURRENT, 90, 90), stated(OLD, 3, 3)])).run();
    story.on(snapshot(7, &[]));
    while !story.done.contains(&"new 80 copy".to_string()) {
        let action = story.next().expect("it goes on");
        story.perform(action);
        story.on(snapshot(7, &[]));
    }
    assert_eq!(story.done.iter().filter(|what| *what == "new 1 copy").count(), 1);
    story.done.clear();
    story.on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 90, 90), stated(OLD, 3, 3)]));
    assert!(!story.run().iter().any(|what| what.ends_with("copy")), "the fleet asks, or nothing comes");
    story.wait(60).on(snapshot(7, &[(CURRENT, range(1, 64))]));
    let done = story.run();
    let rest = [copies(65..=90, "new"), vec!["account 65..=90".into()], copies(1..=3, "old")].concat();
    assert_eq!(done[done.len() - rest.len() - 2..done.len() - 2], rest);
    assert_eq!(done[done.len() - 2..], ["account 1..=3", "account last"]);
    // All of it is done: that is an answer too.
    story.wait(60).on(snapshot(7, &[(CURRENT, range(1, 90)), (OLD, range(1, 3))]));
    assert_eq!(story.run(), ["catalog all", "account begins", "account last"]);
}

/// A range is sent as a snapshot of it; what lies outside what was committed, or is of another's store, is not promised.
#[test]
fn a_range_is_a_snapshot_of_a_part() {
    let mut story = open(9, 9);
    story.run();
    let only = |nonce, store, range| {
        Event::Request(Request::Snapshot(SnapshotRequest { nonce, only: Some((store, range)), done: vec![] }))
    };
    story.wait(10).on(only(1, CURRENT, range(8, 12)));
    let expected = [vec!["catalog all", "account begins"], vec!["new 8 copy", "new 9 copy"], vec!["account 8..=9"]];
    assert_eq!(story.run(), [expected.concat(), vec!["account last"]].concat());
    assert_eq!(story.accounts[0].stores, [(CURRENT, range(8, 9))]);
    story.wait(10).on(only(2, OLD, range(1, 1)));
    assert_eq!(story.run(), ["catalog all", "account begins", "account last"]);
    assert_eq!(story.accounts.last().map(|account| account.stores.len()), Some(0));
}

/// Large segments make short stretches: a cut never costs much more than 256 KiB.
#[test]
fn a_stretch_is_bounded_by_bytes() {
    let mut story = open(9, 9);
    story.bytes = 100 * 1024;
    story.on(snapshot(7, &[]));
    let accounts: Vec<String> = story.run().into_iter().filter(|what| what.starts_with("account")).collect();
    assert_eq!(accounts, ["account begins", "account 1..=3", "account 4..=6", "account 7..=9", "account last"]);
}

/// Compaction joins what was sent with what was not: the stretch says what it is really of.
#[test]
fn compaction_beneath_a_snapshot_loses_no_number() {
    let mut story = open(9, 9);
    story.on(snapshot(7, &[]));
    while !story.done.contains(&"account begins".to_string()) {
        let action = story.next().expect("it goes on");
        story.perform(action);
    }
    story.on(Event::Copied { store: CURRENT, within: range(1, 9), told: Some(told(1, 4)) });
    story.on(Event::Copied { store: CURRENT, within: range(5, 9), told: Some(told(3, 12)) });
    story.run();
    let stretch = story.accounts[1].stretch.clone().expect("a stretch");
    assert_eq!((stretch.range, stretch.readings), (range(1, 12), vec![range(1, 12)]));
}

fn told(first: u64, last: u64) -> Told {
    Told { range: range(first, last), bytes: 9, readings: Some(Sum { readings: 1, digest: 1 }), loss: false }
}

/// A large segment of a snapshot, as of a backlog, goes message by message: a new reading goes between two of them, nothing
/// else does, and compaction leaves it alone.
#[test]
fn a_new_reading_goes_between_two_messages() {
    let mut story = open(5, 5);
    story.run();
    story.on(snapshot(7, &[]));
    let within = loop {
        match story.next().expect("a copy") {
            Action::Copy { within, .. } => break within,
            other => story.perform(other),
        }
    };
    let (store, hash, bytes) = (CURRENT, 1, 20_000);
    let rest = Rest { store, range: range(1, 1), hash, bytes, through: 8_000, purpose: Purpose::Wanted };
    story.on(Event::CopyPiece(rest)).commit();
    assert!(story.machine.in_flight().contains(&(CURRENT, range(1, 1))));
    story.on(Event::Request(Request::Segments { store, ranges: vec![range(3, 3)] }));
    let goes_on = loop {
        match story.next().expect("more of it") {
            Action::Copy { cut, within: of, .. } => {
                assert_eq!(of, within);
                break cut.rest;
            }
            Action::Send { purpose, .. } if purpose != Purpose::Live => panic!("{purpose:?} between two messages"),
            other => story.perform(other),
        }
    };
    assert_eq!(goes_on, Some(rest));
    assert!(story.done.contains(&"new 6 Live".to_owned()), "{:?}", story.done);
    story.on(Event::Copied { store, within, told: Some(told(1, 1)) });
    assert!(story.run().contains(&"new 3 Wanted".to_owned()));
}

/// At an interval, a snapshot comes by itself, each under a number of its own. One that broke before the fleet heard of it
/// begins again with the next connection; of any other the fleet asks for the rest.
#[test]
fn a_snapshot_comes_at_its_interval() {
    let mut story = open(1, 1);
    story.machine.snapshot_every_ns = Some(100 * SECOND);
    story.machine.next_snapshot = Some(at(100));
    story.machine.own_nonce = 41;
    let comes = |story: &mut Story| story.run().contains(&"new 1 copy".into());
    assert!(!comes(&mut story));
    assert!(comes(story.wait(100)));
    assert!(!comes(story.wait(50)));
    assert!(comes(story.wait(50)));
    let nonces: Vec<u64> = story.accounts.iter().filter(|account| account.last).map(|account| account.nonce).collect();
    assert_eq!(nonces, [42, 43]);
    story.wait(100);
    while story.machine.snapshot.is_none() {
        let action = story.next().expect("it is due");
        story.perform(action);
    }
    story.on(Event::Disconnected).wait(1).on(Event::Connected).on(ack(&[stated(CURRENT, 1, 1)]));
    assert!(comes(&mut story), "it was never announced");
}

/// A storm of reconnects neither loses nor multiplies: each time the ack says where to go on.
#[test]
fn a_storm_of_reconnects_goes_on_where_the_ack_says() {
    let mut story = open(100, 0);
    let mut held = 0;
    for _ in 0..200 {
        let done = story.run();
        let first = done.iter().find(|what| what.contains("Backlog"));
        if held < 100 {
            assert_eq!(first, Some(&format!("new {} Backlog", held + 1)));
            held += 1;
        } else {
            assert_eq!(first, None);
        }
        assert!(story.machine.in_flight().len() <= WINDOW);
        story.on(Event::NotPublished).on(Event::Disconnected);
        assert_eq!(story.run(), Vec::<String>::new(), "nothing goes out without a connection");
        story.wait(1).on(Event::Connected).on(ack(&[stated(CURRENT, held, held)]));
    }
}

/// States are not published for every commit: figures once a minute, a new store within seconds.
#[test]
fn states_are_rare() {
    let mut story = open(0, 0);
    story.run();
    let mut states = 0;
    for _ in 0..120 {
        story.wait(1).commit();
        let high = story.lines[0].high.0;
        states += story.run().iter().filter(|what| *what == "state").count();
        story.on(ack(&[stated(CURRENT, high, high)]));
    }
    assert_eq!(states, 2);
    story.lines.push(line(OLD, false, 0));
    story.wait(10).commit();
    assert!(story.run().contains(&"state".into()));
}

/// The store is busy or its card is failing: it is asked again after a while, and nothing is taken for done.
#[test]
fn a_failing_store_is_asked_again_later() {
    let mut story = open(1, 0);
    while let Some(action) = story.next() {
        if matches!(action, Action::Send { .. }) {
            break;
        }
        story.perform(action);
    }
    story.on(Event::StoreFailed);
    story.done.clear();
    assert_eq!(story.run(), Vec::<String>::new());
    assert_eq!(story.machine.wake_at(), BootNanos(story.now.0 + STORE_PAUSE_NS));
    story.wait(30);
    assert_eq!(story.run(), sent([1], "new", "Backlog"));
}
