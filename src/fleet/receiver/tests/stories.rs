//! One story each: what a device does, and what the receiver must hold and say.

use super::super::*;
use super::rig::*;
use crate::fleet::replica::tests as replica;
use crate::segment::LossReason;

/// A receiver that knows the device's catalogue and holds `1..=held`.
fn with_held(device: &Unit, held: u64) -> Rig {
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    rig.hear(&device.commits(1..=held));
    rig
}

/// A segment whose names are a page behind is neither kept nor acknowledged: the page is asked for, and what comes again
/// after it is.
#[test]
fn a_segment_waits_for_the_names_that_it_cites() {
    let device = Unit::new("pump-17", 1);
    let mut rig = Rig::new();
    let heard = rig.hear(&device.commits(1..=3));
    assert_eq!(heard.requests(&device), vec![Request::Catalog]);
    assert_eq!(heard.ack(&device), None);
    assert!(rig.hear(&device.commits(1..=3)).requests(&device).is_empty(), "asked a moment ago");
    rig.pass(11);
    assert_eq!(rig.hear(&device.commits(1..=1)).requests(&device), vec![Request::Catalog]);

    let mut page = device.page();
    page.boots.clear();
    rig.hear(&[device.catalog(&page)]);
    assert_eq!(rig.hear(&device.commits(1..=3)).ack(&device), None, "the boot is missing still");
    rig.hear(&device.pages());
    let heard = rig.hear(&device.commits(1..=3));
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(3));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=3));
}

/// The same segment again is held once, and acknowledged again: the ack may have been lost.
#[test]
fn a_duplicate_is_held_once_and_acknowledged_again() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    let heard = rig.hear(&device.commits([2, 2, 3]));
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(3));
    assert!(heard.of(&device).conflicts.is_empty());
    assert_eq!(rig.readings(&device), device.expected(0, 1..=3));
}

/// What lies above a missing number is acknowledged as a range, and `high` is the highest ever seen.
#[test]
fn what_is_missing_in_between_is_not_acknowledged() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    let ack = rig.hear(&device.commits([4, 5, 9])).of(&device);
    assert_eq!(ack.cumulative, SegmentSeq(2));
    assert_eq!(ack.ranges, vec![range(4, 5), range(9, 9)]);
    assert_eq!(ack.high, SegmentSeq(9));
    let ack = rig.hear(&device.commits([3])).of(&device);
    assert_eq!((ack.cumulative, ack.ranges), (SegmentSeq(5), vec![range(9, 9)]));
}

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

/// The roster is gone and a segment comes before the state: the ack names the device's other stores as well, since one
/// that is not named is not held.
#[test]
fn without_a_state_every_store_of_the_device_is_named() {
    let (current, old) = (Unit::new("a", 2), Unit::new("a", 1));
    let mut rig = with_held(&old, 3);
    rig.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(rig.dir.path().join(format!("_roster.db{suffix}")));
    }
    rig.start();
    let heard = rig.hear(&[current.pages(), current.commits([1])].concat());
    assert_eq!((heard.of(&current).cumulative, heard.of(&old).cumulative), (SegmentSeq(1), SegmentSeq(3)));
}

/// Retention's account grows at its end and takes in what it said before: all that was lost stays counted.
#[test]
fn a_loss_that_grew_is_counted_whole() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    rig.hear(&[device.message(&device.lost(1, 5, LossReason::Retention, 10))]);
    let ack = rig.hear(&[device.message(&device.lost(1, 9, LossReason::Retention, 18))]).of(&device);
    assert_eq!(ack.cumulative, SegmentSeq(9));
    // The earlier account once more, late, says nothing new.
    rig.hear(&[device.message(&device.lost(1, 5, LossReason::Retention, 10))]);
    assert_eq!(replica::segments(&rig.path(&device), true), vec![(0, range(1, 9))]);
    let devices = crate::fleet::report::devices(rig.dir.path()).expect("an account");
    assert_eq!(devices[0].stores[0].readings_lost, 18);
}

/// The fleet's own disk was restored from yesterday: the ack says so, and what comes again is held once.
#[test]
fn a_replica_restored_from_yesterday_shrinks_the_ack() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    rig.kill();
    let (path, copy) = (rig.path(&device), rig.dir.path().join("yesterday"));
    let wal = |path: &std::path::Path| crate::store::file::beside(path, "-wal");
    std::fs::copy(&path, &copy).expect("a copy");
    std::fs::copy(wal(&path), wal(&copy)).expect("a copy");
    rig.start();
    rig.hear(&device.pages());
    assert_eq!(rig.hear(&device.commits(4..=6)).of(&device).cumulative, SegmentSeq(6));
    rig.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::store::file::beside(&path, suffix));
    }
    std::fs::rename(&copy, &path).expect("restored");
    std::fs::rename(wal(&copy), wal(&path)).expect("restored");
    rig.start();
    let ack = rig.hear(&[device.birth(6)]).of(&device);
    assert_eq!(ack.cumulative, SegmentSeq(3));
    rig.hear(&device.pages());
    assert_eq!(rig.hear(&device.commits(4..=6)).of(&device).cumulative, SegmentSeq(6));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=6));
}

/// Anchors that are learnt after the readings were sent are added, and a better one takes the place of a guess.
#[test]
fn anchors_that_come_later_are_kept() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    let count = "SELECT count(*) * 100 + sum(trusted) FROM anchor";
    let mut page = device.page();
    page.boots[0].anchors = vec![anchor(10, false)];
    rig.hear(&[device.catalog(&page)]);
    assert_eq!(replica::number(&rig.path(&device), count), 100);
    page.boots[0].anchors = vec![anchor(10, true), anchor(20, true)];
    rig.hear(&[device.catalog(&page)]);
    assert_eq!(replica::number(&rig.path(&device), count), 202);
    page.boots[0].anchors = vec![anchor(10, false)];
    rig.hear(&[device.catalog(&page)]);
    assert_eq!(replica::number(&rig.path(&device), count), 202, "a guess does not take the place of knowledge");
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

/// A large segment in pieces, backwards and twice, is one segment.
#[test]
fn pieces_out_of_order_make_one_segment() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 1);
    let mut pieces = device.pieces(&device.compacted(2, 3000), 1024);
    assert!(pieces.len() > 3, "{}", pieces.len());
    pieces.reverse();
    let all_but_one = rig.hear(&pieces[1..]);
    assert_eq!(all_but_one.ack(&device), None);
    let again = rig.hear(&pieces[2..]);
    assert_eq!(again.ack(&device), None);
    assert_eq!(rig.hear(&pieces[..1]).of(&device).cumulative, SegmentSeq(3000));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=3000));
}

/// Killed after the commit and before the ack: the device hears the truth at its next birth.
#[test]
fn a_kill_between_commit_and_ack_loses_only_the_ack() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    drop(rig.hear(&device.commits(3..=5)));
    rig.kill();
    rig.start();
    assert_eq!(rig.hear(&[device.birth(5)]).of(&device).cumulative, SegmentSeq(5));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=5));
}

/// The disk fails at the commit: nothing of the group is acknowledged, what was held before still is, another device's
/// segments in the same group are held, and the same messages succeed once the disk does.
#[test]
fn what_could_not_be_committed_is_not_acknowledged() {
    let (device, other) = (Unit::new("a", 1), Unit::new("b", 2));
    let mut rig = with_held(&device, 2);
    rig.hear(&other.pages());
    let fail = |rig: &mut Rig, fail| {
        let receiver = rig.receiver.as_mut().expect("running");
        receiver.shelf.opened(device.store).expect("open").fail_commits(fail);
    };
    fail(&mut rig, true);
    let heard = rig.hear(&[device.commits(3..=5), other.commits(1..=2)].concat());
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(2));
    assert_eq!(heard.of(&other).cumulative, SegmentSeq(2));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=2));
    fail(&mut rig, false);
    rig.pass(11);
    assert_eq!(rig.hear(&device.commits(3..=5)).requests(&device), vec![Request::Catalog], "stated again to be sure");
    rig.hear(&device.pages());
    assert_eq!(rig.hear(&device.commits(3..=5)).of(&device).cumulative, SegmentSeq(5));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=5));
}

/// After a reconnect every device that is there is told again: the broker may have lost what it retained.
#[test]
fn a_new_connection_tells_every_device_again() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    rig.hear(&[device.birth(2)]);
    assert!(rig.tick().published.is_empty());
    rig.receiver.as_mut().expect("running").connected();
    assert_eq!(rig.tick().of(&device).cumulative, SegmentSeq(2));
    assert!(rig.tick().published.is_empty());
}

/// A birth is answered with an ack at once, also where nothing is held: the device waits for it.
#[test]
fn a_birth_is_answered_even_where_nothing_is_held() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    assert_eq!(rig.hear(&[device.birth(9)]).ack(&device), Some(Ack { stores: vec![] }));
    assert!(!rig.path(&device).exists(), "a state alone makes no replica");
}

/// A file that was rolled back is below what the fleet has seen, also where that was only said in a state.
#[test]
fn high_remembers_what_a_state_said() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    rig.hear(&[device.birth(40)]);
    rig.kill();
    rig.start();
    assert_eq!(rig.hear(&[device.birth(3)]).of(&device).high, SegmentSeq(40));
}

/// A card that was moved to another device goes on in the same replica, and that is reported once. What the card still
/// holds comes once more, from the device that has it now, and is held once.
#[test]
fn a_moved_card_goes_on_in_its_replica() {
    let before = Unit::new("a", 1);
    let after = before.twin("b", 0);
    let mut rig = with_held(&before, 3);
    rig.hear(&after.pages());
    let ack = rig.hear(&after.commits(3..=5)).of(&after);
    assert_eq!((ack.cumulative, ack.ranges), (SegmentSeq(0), vec![range(3, 5)]));
    assert_eq!(rig.hear(&after.commits(1..=2)).of(&after).cumulative, SegmentSeq(5));
    assert_eq!(rig.readings(&before), before.expected(0, 1..=5));
    assert!(rig.path(&after).is_symlink());
    let moved = |rig: &Rig| rig.receiver.as_ref().expect("running").events.len();
    assert_eq!(moved(&rig), 1);
    rig.hear(&after.commits(6..=6));
    rig.kill();
    rig.start();
    assert_eq!(rig.hear(&[after.birth(6)]).of(&after).cumulative, SegmentSeq(6));
    assert_eq!(moved(&rig), 0);
}

/// What is neither held, nor pending, nor lost is a gap: asked for once it has stood a minute, and not more often than
/// that. The account of the loss closes it.
#[test]
fn a_gap_is_asked_for_and_closed_by_its_account() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    rig.hear(&device.commits([5]));
    let state = device.state(true, 9, &[range(8, 9)]);
    assert!(rig.hear(std::slice::from_ref(&state)).requests(&device).is_empty(), "it may be on its way");
    rig.pass(61);
    let asked = rig.hear(std::slice::from_ref(&state)).requests(&device);
    let ranges = vec![range(3, 4), range(6, 7)];
    assert_eq!(asked, vec![Request::Segments { store: device.store, ranges }]);
    rig.pass(30);
    assert!(rig.hear(std::slice::from_ref(&state)).requests(&device).is_empty(), "asked half a minute ago");
    let expired = |first, last| device.message(&device.lost(first, last, LossReason::Expired, 4));
    let heard = rig.hear(&[expired(3, 4), expired(6, 7)]);
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(7));
    rig.pass(120);
    assert!(rig.hear(&[state]).requests(&device).is_empty());
}

/// An account of numbers that are held adds nothing, and takes nothing; of numbers that are partly held, only the rest.
#[test]
fn a_loss_takes_nothing_from_what_is_held() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    rig.hear(&device.commits([6]));
    let ack = rig.hear(&[device.message(&device.lost(2, 8, LossReason::Expired, 14))]).of(&device);
    assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(8), vec![]));
    assert_eq!(rig.readings(&device), device.expected(0, [1, 2, 3, 6]));
    let path = rig.path(&device);
    assert_eq!(replica::segments(&path, true), vec![(0, range(4, 5)), (0, range(7, 8))]);
    // The readings turn up after all: they take their numbers, and what is left stays lost.
    let ack = rig.hear(&device.commits([7])).of(&device);
    assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(8), vec![]));
    assert_eq!(replica::segments(&path, true), vec![(0, range(4, 5)), (0, range(8, 8))]);
    assert_eq!(rig.readings(&device), device.expected(0, [1, 2, 3, 6, 7]));
}

/// The account of an overflow is the content of its number: other content for it is another history.
#[test]
fn an_overflow_is_content_and_not_an_absence() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    let overflow = device.message(&device.lost(3, 3, LossReason::Overflow, 400));
    assert_eq!(rig.hear(std::slice::from_ref(&overflow)).of(&device).cumulative, SegmentSeq(3));
    assert!(rig.hear(&[overflow]).of(&device).conflicts.is_empty());
    assert_eq!(rig.hear(&device.commits([3])).of(&device).conflicts, vec![range(3, 3)]);
}

/// Compaction joins accounts of overflow like readings: the joined one is no other content, whichever comes first.
#[test]
fn joined_accounts_of_overflow_are_no_conflict() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    let lost = |first, last, n| device.message(&device.lost(first, last, LossReason::Overflow, n));
    rig.hear(&[lost(5, 5, 3), lost(6, 6, 4)]);
    let ack = rig.hear(&[lost(5, 7, 9), lost(6, 6, 4)]).of(&device);
    assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(7), vec![]));
    assert_eq!(replica::segments(&rig.path(&device), true), vec![(0, range(5, 7))]);
    let ack = rig.hear(&[lost(7, 7, 10)]).of(&device);
    assert_eq!(ack.conflicts, vec![range(7, 7)], "more than the whole counts is another account");
}

/// A replica that is no database any more is set aside; the ack says that nothing is held, and it fills again.
#[test]
fn a_ruined_replica_is_set_aside_and_filled_again() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    rig.kill();
    let path = rig.path(&device);
    std::fs::write(&path, vec![0x5a; 8192]).expect("ruined");
    let _ = std::fs::remove_file(crate::store::file::beside(&path, "-wal"));
    rig.start();
    assert_eq!(rig.hear(&[device.birth(3)]).of(&device).cumulative, SegmentSeq(0));
    assert!(crate::store::file::beside(&path, ".damaged-1").exists());
    rig.hear(&device.pages());
    assert_eq!(rig.hear(&device.commits(1..=3)).of(&device).cumulative, SegmentSeq(3));
}

/// A segment that rotted on the fleet's disk gives way to a good copy that covers it.
#[test]
fn a_rotten_segment_gives_way_to_a_good_one() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 3);
    rig.kill();
    let flip = "UPDATE segment SET body = zeroblob(20) WHERE first_seq = 2 RETURNING 1";
    assert_eq!(replica::number(&rig.path(&device), flip), 1);
    rig.start();
    rig.hear(&device.pages());
    let ack = rig.hear(&device.commits([2])).of(&device);
    assert_eq!(ack.conflicts, vec![]);
    assert_eq!(rig.readings(&device), device.expected(0, 1..=3));
}

/// More replicas than may be open at once: the ones used longest ago are closed and opened again.
#[test]
fn more_stores_than_may_be_open_are_all_kept() {
    let units: Vec<Unit> =
        (0..crate::fleet::shelf::MAX_OPEN + 10).map(|i| Unit::new(&format!("d{i}"), i as u128 + 1)).collect();
    let mut rig = Rig::new();
    let all = |what: fn(&Unit) -> Sent| units.iter().flat_map(what).collect::<Sent>();
    rig.hear(&all(|unit| unit.pages()));
    rig.hear(&all(|unit| unit.commits(1..=2)));
    let heard = rig.hear(&all(|unit| unit.commits([3])));
    for unit in &units {
        assert_eq!(heard.of(unit).cumulative, SegmentSeq(3), "{}", unit.name);
    }
    assert_eq!(rig.readings(&units[0]), units[0].expected(0, 1..=3));
}

/// Two devices of one name, each evicting the other: both are heard, what they bring is held, and the contest is told once,
/// with what it takes to find them. The same births delivered again, or a device that restarts, tell nothing.
#[test]
fn two_devices_of_one_name_are_told() {
    let (mut one, mut other) = (Unit::new("a", 1), Unit::new("a", 2));
    (other.session, other.run) = (50, 9);
    let mut rig = Rig::new();
    use crate::fleet::report;
    let told = |rig: &mut Rig| -> Vec<String> {
        rig.pass(60);
        rig.tick();
        let lines = report::devices(rig.dir.path()).expect("an account");
        lines[0].events.iter().map(|event| event.what.clone()).collect()
    };
    for run in 1..10 {
        (one.session, one.run) = (run, run);
        rig.hear(&[one.birth(0), one.birth(0)]);
    }
    assert_eq!(told(&mut rig), Vec::<String>::new());
    for at in 2..8 {
        rig.hear(&[one.birth_at(0, at), other.birth_at(0, at)]);
    }
    let told = told(&mut rig);
    assert_eq!(told.len(), 2, "at the fourth turn and at the eighth: {told:?}");
    for part in [one.store.to_string(), other.store.to_string(), "run 9 ".into(), "`device`".into()] {
        assert!(told[0].contains(&part), "{told:?}");
    }
    let table = report::table(&report::devices(rig.dir.path()).expect("an account"), &[]);
    assert!(table.contains("two devices have this name"), "{table}");
}

/// Wills and births count in the order of sessions: a late will of an earlier run changes nothing.
#[test]
fn a_late_will_leaves_the_device_online() {
    let mut device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&[device.birth(1)]);
    let will = device.state(false, 0, &[]);
    (device.session, device.run) = (2, 2);
    rig.hear(&[device.birth(1), will]);
    let online = |rig: &Rig| rig.receiver.as_ref().expect("running").devices["a"].entry.online;
    assert!(online(&rig));
    rig.hear(&[device.state(false, 0, &[])]);
    assert!(!online(&rig));
}

/// What `devices` and `query` show, beside a receiver that runs: all stores of a device, gaps, losses, conflicts and
/// refusals; and a device that nobody knows is a fault, not an empty answer.
#[test]
fn the_account_names_what_is_there_and_what_is_not() {
    use crate::cli::output::{Format, Printer};
    use crate::fleet::report;

    let before = Unit::new("pump-17", 1);
    let fresh = Unit { store: StoreUuid::from_u128(2), ..before.clone() };
    let other = before.twin("pump-18", 4);
    let mut rig = with_held(&before, 4);
    rig.hear(&[fresh.pages(), fresh.commits(1..=2), other.pages(), other.commits([4])].concat());
    rig.hear(&[before.message(&before.lost(6, 7, LossReason::Retention, 30)), before.birth(8)]);
    rig.hear(&[(before.topic(Topic::Segment), b"noise".to_vec())]);
    rig.pass(60);
    rig.tick();

    let lines = report::devices(rig.dir.path()).expect("an account");
    assert_eq!(lines.iter().map(|line| line.device.as_str()).collect::<Vec<_>>(), ["pump-17", "pump-18"]);
    let line = &lines[0];
    assert!(line.online && line.seen.is_some());
    assert_eq!(line.refused, BTreeMap::from([("envelope", 1)]));
    let store = line.stores.iter().find(|s| s.store == before.store.to_string()).expect("its first store");
    assert_eq!((store.readings, store.high, store.gaps), (10, 8, 2), "5 and 8 are missing");
    assert_eq!((store.losses, store.readings_lost, store.conflicts), (1, 30, 1));
    assert_eq!(store.held, ["1..=4", "6..=7"]);
    assert!(report::table(&lines, &[]).contains("1..=4 and 1 more"), "{}", report::table(&lines, &[]));
    assert!(serde_json::from_str::<serde_json::Value>(&report::json(&lines)).is_ok());

    let replicas = report::replicas(rig.dir.path(), "pump-17").expect("two replicas");
    let session = crate::store::query::Session::open_all(&replicas).expect("a session");
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, Format::Csv);
    let sql = "SELECT count(*) AS n, min(value), max(unit) FROM reading WHERE series = 'm/s1'";
    assert!(session.run(sql, &mut printer).is_ok());
    printer.finish().expect("printed");
    let text = String::from_utf8(out).expect("text");
    assert!(
        text.lines().nth(1).is_some_and(|row| row.starts_with("7,")),
        "four, one of the other history, two: {text}"
    );
    assert!(report::replicas(rig.dir.path(), "pump-99").is_err());
    assert!(report::devices(&rig.dir.path().join("nowhere")).is_err());
}

/// Hundreds of isolated gaps: what is newest is acknowledged all the same, and stays so as the gaps close. (The ack named the
/// lowest 256 ranges, and nothing above them until they had joined.)
#[test]
fn the_newest_is_acknowledged_above_any_number_of_gaps() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 0);
    let holed: Vec<_> = (1..=400).map(|k| device.message(&device.commit(2 * k))).collect();
    rig.hear(&holed);
    let ack = rig.hear(&device.commits(801..=810)).of(&device);
    assert_eq!((ack.ranges.len(), ack.ranges.last()), (MAX_RANGES, Some(&range(800, 810))));
    assert_eq!((ack.ranges[0], ack.ranges[191], ack.ranges[192]), (range(2, 2), range(384, 384), range(674, 674)));
    let filled: Vec<_> = (1..=200).map(|k| device.message(&device.commit(2 * k - 1))).collect();
    let ack = rig.hear(&filled).of(&device);
    assert_eq!((ack.cumulative, ack.ranges.len()), (SegmentSeq(400), 200), "all of them fit now");
}

/// More gaps than one request can name are asked for in rounds, each as soon as the one before is answered, not a minute
/// later.
#[test]
fn many_gaps_are_asked_for_in_rounds() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 0);
    rig.hear(&[device.birth(600)]);
    rig.hear(&(1..=300).map(|k| device.message(&device.commit(2 * k))).collect::<Vec<_>>());
    rig.pass(61);
    let asked = |heard: &super::rig::Heard| -> Vec<u64> {
        let requests = heard.requests(&device);
        let Some(Request::Segments { ranges, .. }) = requests.first() else { return Vec::new() };
        ranges.iter().map(|range| range.first.0).collect()
    };
    let first = asked(&rig.hear(&[device.birth(600)]));
    assert_eq!((first.len(), first[0], first[255]), (256, 1, 511));
    assert!(asked(&rig.hear(&device.commits(first[..255].iter().copied()))).is_empty(), "the last is on its way");
    let second = asked(&rig.hear(&device.commits([511])));
    assert_eq!((second.len(), second[0]), (44, 513));
}
