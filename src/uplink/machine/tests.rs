//! Stories of one connection, told with a time of their own: the window, the lanes, the timers.

mod announcements;
mod doubts;
mod snapshots;
mod story;

use super::*;
use crate::reading::SegmentSeq;
use crate::uplink::flights::WINDOW;
use crate::wire::{self, Request, StoreAck};
use story::*;

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

/// Asked again for what is waiting and a little more, as by a fleet that has waited long, it sends only the little more besides.
/// (The whole range was queued once more.)
#[test]
fn what_waits_already_is_not_queued_twice() {
    let mut story = open(5000, 5000);
    story.run();
    for first in [40, 39, 38] {
        story.on(Event::Request(Request::Segments { store: CURRENT, ranges: vec![range(first, 100)] }));
    }
    let waiting: u64 = story.machine.wanted.iter().map(|(_, range)| range.last.0 - range.first.0 + 1).sum();
    assert_eq!(waiting, 63, "{:?}", story.machine.wanted);
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
