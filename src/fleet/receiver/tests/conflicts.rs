//! Numbers that come with more than one content: what is the same, what is kept beside, who is told.

use super::super::*;
use super::rig::*;
use crate::fleet::replica::tests as replica;

/// A compacted segment takes the place of the commits in it, and a commit that comes after it is known to be in it.
#[test]
fn nested_ranges_with_the_same_readings_are_one() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    let heard = rig.hear(&[device.message(&device.compacted(2, 6))]);
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(6));
    assert_eq!(replica::segments(&rig.path(&device), false), vec![(0, range(1, 1)), (0, range(2, 6))]);
    let heard = rig.hear(&device.commits(3..=6));
    assert!(heard.of(&device).conflicts.is_empty());
    let heard = rig.hear(&[device.message(&device.compacted(3, 5))]);
    assert!(heard.of(&device).conflicts.is_empty());
    assert_eq!(rig.readings(&device), device.expected(0, 1..=6));
}

/// A compacted segment that lacks a reading of what is held does not take its place.
#[test]
fn a_covering_range_with_other_readings_is_another_history() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    let other = device.twin("a", 5);
    let heard = rig.hear(&[device.message(&other.compacted(2, 6))]);
    assert_eq!(heard.of(&device).conflicts, vec![range(2, 4)]);
    let both: Vec<_> = device.expected(0, 1..=4).into_iter().chain(other.expected(1, 2..=6)).collect();
    assert_eq!(rig.readings(&device), both);
}

/// The same number with other content: both are kept, and the device is told.
#[test]
fn the_same_number_with_other_content_is_kept_beside() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    let restored = device.twin("a", 1);
    let ack = rig.hear(&restored.commits([3])).of(&device);
    assert_eq!(ack.conflicts, vec![range(3, 3)]);
    assert_eq!(rig.readings(&device), [device.expected(0, 1..=3), restored.expected(1, [3])].concat());
    let again = rig.hear(&restored.commits([3])).of(&device);
    assert_eq!(again.conflicts, vec![range(3, 3)], "and it stays so");
    assert_eq!(replica::number(&rig.path(&device), "SELECT count(*) FROM segment"), 4);
}

/// Ranges of one store never cross; two that do are two histories.
#[test]
fn crossing_ranges_are_a_conflict() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    rig.hear(&[device.message(&device.compacted(1, 4))]);
    let ack = rig.hear(&[device.message(&device.compacted(3, 6))]).of(&device);
    assert_eq!(ack.conflicts, vec![range(3, 4)]);
}

/// Two devices were made from one image and go on under one store id: nothing of either is lost or mixed, both are told,
/// and each then compares what it holds, range by range.
#[test]
fn clones_are_kept_apart_and_both_are_told() {
    let first = Unit::new("a", 1);
    let mut second = first.twin("b", 9);
    let mut rig = with_held(&first, 5);
    rig.hear(&second.pages());
    // What both have from before they were two is the same.
    let shared: Vec<_> =
        (1..=3).map(|seq| (second.topic(Topic::Segment), first.message(&first.commit(seq)).1)).collect();
    assert!(rig.hear(&shared).of(&second).conflicts.is_empty());
    let heard = rig.hear(&second.commits(4..=6));
    assert_eq!(heard.of(&first).conflicts, vec![range(4, 5)], "the first is told, though the second spoke");
    assert_eq!(heard.of(&second).conflicts, vec![range(4, 5)]);

    second.recheck = Some(77);
    rig.hear(&[second.birth(6)]);
    rig.hear(&shared);
    let ack = rig.hear(&second.commits(4..=6)).of(&second);
    assert_eq!(ack.verified, Some((77, vec![range(1, 6)])));
    assert_eq!(ack.cumulative, SegmentSeq(6));
    // The first goes on where it was.
    assert_eq!(rig.hear(&first.commits(6..=7)).of(&first).cumulative, SegmentSeq(7));
    assert_eq!(rig.readings(&first), [first.expected(0, 1..=7), second.expected(1, 4..=6)].concat());

    rig.kill();
    rig.start();
    let ack = rig.hear(&[second.birth(6)]).of(&second);
    assert_eq!(ack.cumulative, SegmentSeq(6), "what stands with the other is remembered over a restart");
}

/// While a device compares, only what arrived since counts as verified; another number begins anew.
#[test]
fn verified_is_what_arrived_since_the_recheck_began() {
    let mut device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    device.recheck = Some(1);
    let ack = rig.hear(&[device.birth(4)]).of(&device);
    assert_eq!((ack.cumulative, ack.verified), (SegmentSeq(4), Some((1, vec![]))));
    let ack = rig.hear(&device.commits([2, 3])).of(&device);
    assert_eq!(ack.verified, Some((1, vec![range(2, 3)])));
    let ack = rig.hear(&[device.birth(4)]).of(&device);
    assert_eq!(ack.verified, Some((1, vec![range(2, 3)])), "a repeated state begins nothing anew");
    device.recheck = Some(2);
    assert_eq!(rig.hear(&[device.birth(4)]).of(&device).verified, Some((2, vec![])));
    device.recheck = None;
    assert_eq!(rig.hear(&[device.birth(4)]).of(&device).verified, None);
}

/// What was verified is known after a restart of the receiver: a device need not send all of its old store again.
#[test]
fn what_was_verified_is_known_after_a_restart() {
    let mut device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    device.recheck = Some(u64::MAX);
    rig.hear(&[device.birth(4)]);
    rig.hear(&device.commits([1, 2, 4]));
    rig.kill();
    rig.start();
    let ack = rig.hear(&[device.birth(4)]).of(&device);
    assert_eq!(ack.verified, Some((u64::MAX, vec![range(1, 2), range(4, 4)])));
    rig.hear(&device.pages());
    assert_eq!(rig.hear(&device.commits([3])).of(&device).verified, Some((u64::MAX, vec![range(1, 4)])));
    device.recheck = Some(3);
    assert_eq!(rig.hear(&[device.birth(4)]).of(&device).verified, Some((3, vec![])));
    assert_eq!(rig.hear(&device.commits([2])).of(&device).verified, Some((3, vec![range(2, 2)])));
}

/// An id that gets another meaning begins another history: readings are never shown under the name of another series.
#[test]
fn an_id_with_another_meaning_begins_another_history() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    let mut page = device.page();
    page.series[1] = series(2, "m/other");
    let restored = device.twin("a", 3);
    rig.hear(&[device.catalog(&page)]);
    let ack = rig.hear(&restored.commits([3])).of(&device);
    assert_eq!((ack.cumulative, ack.ranges), (SegmentSeq(0), vec![range(3, 3)]));
    let names: Vec<_> = rig.readings(&device).into_iter().filter(|row| row.0 == 1).map(|row| row.1).collect();
    assert_eq!(names, ["m/other", "m/s1"]);
    // What it still holds from before has the old meaning of 1 only, so it is not the same as what is held.
    rig.hear(&device.commits([1]));
    assert_eq!(rig.readings(&device).iter().filter(|row| row.0 == 1).count(), 4);
}
