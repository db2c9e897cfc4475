//! One story each: what a device does, and what the receiver must hold and say.

use super::super::*;
use super::rig::*;
use crate::fleet::replica::tests as replica;

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

/// A replica is deleted, with or without its log and its folder, or another file takes its place, while the receiver has it open:
/// before anything more is acknowledged, all that it held is written anew under its name, and what stood there instead is
/// kept. (Acks went out for what was in a file without a name, and it was gone with the process.)
#[test]
fn a_replica_that_loses_its_name_is_written_anew_before_an_ack() {
    for (n, gone) in [&[""][..], &["", "-wal", "-shm"], &["-wal"], &["folder"], &["replaced"]].into_iter().enumerate() {
        let device = Unit::new("a", n as u128 + 1);
        let mut rig = with_held(&device, 3);
        let path = rig.path(&device);
        for what in gone {
            match *what {
                "folder" => std::fs::remove_dir_all(path.parent().unwrap()).unwrap(),
                "replaced" => {
                    std::fs::write(path.with_extension("other"), "not a replica").unwrap();
                    std::fs::rename(path.with_extension("other"), &path).unwrap();
                }
                suffix => std::fs::remove_file(crate::store::file::beside(&path, suffix)).unwrap(),
            }
        }
        let ack = rig.hear(&device.commits(4..=5)).of(&device);
        assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(5), vec![]), "{gone:?}");
        assert_eq!(rig.readings(&device), device.expected(0, 1..=5), "{gone:?}: under the name, at once");
        let aside = crate::store::file::beside(&path, ".damaged-1");
        assert_eq!(aside.exists(), gone == ["replaced"], "{gone:?}");
        rig.hear(&device.commits(6..=6));
        rig.kill();
        rig.start();
        assert_eq!(rig.hear(&[device.birth(6)]).of(&device).cumulative, SegmentSeq(6), "{gone:?}");
        assert_eq!(rig.readings(&device), device.expected(0, 1..=6), "{gone:?}");
    }
}
