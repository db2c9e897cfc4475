//! Several stores in one file, and a fleet that knows more of one than the device: fresh ids, rechecks, conflicts.

use super::super::*;
use super::story::*;
use crate::reading::SegmentSeq;
use crate::wire::StoreAck;

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
