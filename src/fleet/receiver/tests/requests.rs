//! What is asked of devices: put to them, brought to its end over cuts, and compared with what they say they hold.

use super::super::*;
use super::rig::*;
use crate::fleet::ask::{self, Wanted};
use crate::fleet::replica::retrievals::{MAX_OPEN_PER_DEVICE, Standing};
use crate::fleet::replica::tests as replica;
use crate::fleet::report;
use crate::fleet::retrieval::What;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::{self, Content, LossReason, Segment, Sum, Values, View};
use crate::wire::{Account, Done, SnapshotRequest, Stretch};
use rusqlite::{Connection, params};

/// A receiver that knows the device, which is there, and holds `1..=held` of it.
fn with_held(device: &Unit, held: u64) -> Rig {
    let mut rig = Rig::new();
    rig.hear(&[device.birth(held)]);
    rig.hear(&device.pages());
    rig.hear(&device.commits(1..=held));
    remember(&mut rig);
    rig
}

/// Until the roster is written.
fn remember(rig: &mut Rig) {
    rig.pass(6);
    rig.tick();
}

fn ask(rig: &Rig, device: &Unit, wanted: Wanted, nonce: u64) -> i64 {
    ask::ask(rig.dir.path(), &device.name, wanted, nonce, rig.now.utc).expect("asked").request
}

fn look(rig: &Rig, request: i64) -> Standing {
    ask::look(rig.dir.path(), request).expect("read").expect("remembered")
}

fn account(device: &Unit, nonce: u64, all: SeqRange, stretch: Option<Stretch>, last: bool) -> (String, Vec<u8>) {
    let account = Account { nonce, stores: vec![(device.store, all)], stretch, last };
    (device.topic(Topic::Segment), encode(&SegmentFrame::Account(account)).expect("an account"))
}

/// What the device says of these segments of its file, over the numbers `of`.
fn stretch(device: &Unit, of: SeqRange, segments: &[Segment]) -> Stretch {
    let (mut readings, mut losses, mut sum) = (RangeSet::new(), RangeSet::new(), Sum::default());
    for segment in segments {
        sum.add(Sum::of(segment));
        let set = if matches!(segment.content, Content::Data { .. }) { &mut readings } else { &mut losses };
        set.insert(segment.range);
    }
    let (readings, losses) = (readings.iter().collect(), losses.iter().collect());
    Stretch { store: device.store, range: of, readings, losses, sum }
}

/// The device sends `segments` and its account of them.
fn send(rig: &mut Rig, device: &Unit, nonce: u64, all: SeqRange, of: SeqRange, segments: &[Segment]) {
    let frames: Vec<_> = segments.iter().map(|segment| device.message(segment)).collect();
    rig.hear(&frames);
    rig.hear(&[account(device, nonce, all, Some(stretch(device, of, segments)), false)]);
}

fn finish(rig: &mut Rig, device: &Unit, nonce: u64, all: SeqRange) {
    rig.hear(&[account(device, nonce, all, None, true)]);
}

fn commits(device: &Unit, seqs: impl IntoIterator<Item = u64>) -> Vec<Segment> {
    seqs.into_iter().map(|seq| device.commit(seq)).collect()
}

/// Does `work` on the replica's file while the receiver is down.
fn tamper(rig: &mut Rig, device: &Unit, work: impl FnOnce(&Connection)) {
    rig.kill();
    work(&Connection::open(rig.path(device)).expect("a replica"));
    rig.start();
    rig.hear(&device.pages());
}

fn put(conn: &Connection, segment: &Segment) {
    let body = segment::encode(segment).expect("a body");
    let n = View::parse(&body).expect("a view").n() as i64;
    let sql = "UPDATE segment SET body = ?1, n = ?2 WHERE first_seq = ?3";
    assert_eq!(conn.execute(sql, params![body, n, segment.range.first.0 as i64]).expect("written"), 1);
}

/// A request is put to the device when it is there, put again when no answer comes, and after a restart of the receiver only
/// the rest is asked for; when all of it has come and is the same, it is verified.
#[test]
fn a_request_is_brought_to_its_end_over_restarts() {
    let device = Unit::new("pump-17", 1);
    let mut rig = with_held(&device, 10);
    rig.hear(&[device.state(false, 0, &[])]);
    let id = ask(&rig, &device, Wanted::Snapshot, 77);
    assert!(rig.tick().requests(&device).is_empty(), "it is not there");
    rig.hear(&[device.birth(10)]);
    let question = |done: Vec<Done>| vec![Request::Snapshot(SnapshotRequest { nonce: 77, only: None, done })];
    assert_eq!(rig.tick().requests(&device), question(vec![]));
    assert!(rig.tick().requests(&device).is_empty(), "asked a moment ago");
    rig.pass(15);
    assert_eq!(rig.tick().requests(&device), question(vec![]), "no answer came");

    let all = range(1, 10);
    send(&mut rig, &device, 77, all, range(1, 6), &commits(&device, 1..=6));
    assert_eq!(look(&rig, id).retrieval.numbers(), (6, 10));
    rig.kill();
    rig.start();
    rig.hear(&device.pages());
    let done = vec![Done { store: device.store, ranges: vec![range(1, 6)] }];
    assert_eq!(rig.tick().requests(&device), question(done.clone()), "the rest");
    rig.receiver.as_mut().expect("running").connected();
    assert_eq!(rig.tick().requests(&device), question(done), "the broker may have lost it");
    send(&mut rig, &device, 77, all, range(7, 10), &[device.compacted(7, 10)]);
    assert!(look(&rig, id).ended.is_none(), "the device has not said that this was all");
    finish(&mut rig, &device, 77, all);
    let ended = look(&rig, id);
    assert_eq!((ended.verified, ended.ended, ended.words.as_str()), (true, Some(rig.now.utc), ""));
    assert_eq!(rig.readings(&device), device.expected(0, 1..=10));
    assert!(rig.tick().requests(&device).is_empty());
    let line = &report::devices(rig.dir.path()).expect("an account")[0];
    assert_eq!((line.requests.len(), line.requests[0].outcome), (1, "verified"));
    assert!(line.snapshot_verified.is_some());
}

/// What was asked is cancelled, by whoever is beside the receiver: it is not asked for again, not after a reconnect either; what the
/// device has begun to send is filed all the same, and changes nothing of how the request ended. The same can be asked anew.
#[test]
fn a_request_that_is_cancelled_stays_so() {
    let device = Unit::new("pump-17", 1);
    let mut rig = with_held(&device, 4);
    let id = ask(&rig, &device, Wanted::Snapshot, 77);
    assert_eq!(rig.tick().requests(&device).len(), 1);
    let cancel = |rig: &Rig, device: &str| ask::cancel(rig.dir.path(), device, rig.now.utc);
    assert!(matches!(cancel(&rig, "pump-18"), Err(FleetError::NoDevice { .. })));
    assert_eq!(cancel(&rig, "pump-17").expect("cancelled"), 1);
    // The receiver has not looked yet.
    send(&mut rig, &device, 77, range(1, 6), range(5, 6), &commits(&device, 5..=6));
    rig.tick();
    send(&mut rig, &device, 77, range(1, 6), range(1, 4), &commits(&device, 1..=4));
    finish(&mut rig, &device, 77, range(1, 6));
    rig.pass(900);
    assert!(rig.tick().requests(&device).is_empty());
    rig.hear(&[device.state(false, 0, &[]), device.birth(6)]);
    assert!(rig.tick().requests(&device).is_empty());
    let standing = look(&rig, id);
    assert!(standing.ended.is_some() && !standing.verified);
    assert_eq!(standing.words, "cancelled");
    assert_eq!(rig.readings(&device), device.expected(0, 1..=6));
    assert_eq!(cancel(&rig, "pump-17").expect("nothing to cancel"), 0);
    assert_ne!(ask(&rig, &device, Wanted::Snapshot, 78), id);
    assert_eq!(rig.tick().requests(&device).len(), 1);
}

/// The folder of the replicas is lost while a request is under way: what was verified of it counts no more.
#[test]
fn what_was_lost_since_is_asked_for_again() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 6);
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    rig.tick();
    send(&mut rig, &device, 5, range(1, 6), range(1, 4), &commits(&device, 1..=4));
    rig.kill();
    std::fs::remove_dir_all(rig.dir.path().join("a")).expect("removed");
    rig.start();
    rig.hear(&device.pages());
    let asked = rig.tick().requests(&device);
    let [Request::Snapshot(again)] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(again.done.iter().all(|done| done.ranges.is_empty()), "{again:?}");
    send(&mut rig, &device, 5, range(1, 6), range(1, 6), &commits(&device, 1..=6));
    finish(&mut rig, &device, 5, range(1, 6));
    assert!(look(&rig, id).verified);
    assert_eq!(rig.readings(&device), device.expected(0, 1..=6));
}

/// A reading too many in the replica, which no sending can mend: it is found by what the readings add up to, and told in words
/// rather than passed over.
#[test]
fn a_reading_too_many_is_found() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 6);
    tamper(&mut rig, &device, |conn| {
        let mut more = device.commit(4);
        let Content::Data { readings, .. } = &mut more.content else { panic!("readings") };
        readings.timelines[0].stamps.push(9);
        for column in &mut readings.columns {
            let Values::Int(values) = &mut column.values else { panic!("integers") };
            values.push(1);
        }
        put(conn, &more);
    });
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    for round in 0..4 {
        rig.pass(15);
        assert_eq!(rig.tick().requests(&device).len(), 1, "round {round}");
        send(&mut rig, &device, 5, range(1, 6), range(1, 3), &commits(&device, 1..=3));
        send(&mut rig, &device, 5, range(1, 6), range(4, 6), &commits(&device, 4..=6));
        finish(&mut rig, &device, 5, range(1, 6));
    }
    let ended = look(&rig, id);
    assert!(ended.ended.is_some() && !ended.verified);
    assert!(ended.words.contains("4..=6 has 8 readings here, and 6 at the device"), "{}", ended.words);
    assert_eq!(ended.retrieval.numbers(), (3, 6));
}

/// A few bytes that say a quarter of a million readings each, and an account of them that says there are ten: no body is read
/// to find that out, or it would be seen to be spoilt.
#[test]
fn what_says_more_than_the_device_is_not_decoded() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 0);
    let bombs: Vec<Segment> = (1..=8).map(|seq| device.equal(seq, seq, segment::MAX_READINGS)).collect();
    rig.hear(&bombs.iter().map(|bomb| device.message(bomb)).collect::<Vec<_>>());
    let said = Stretch {
        store: device.store,
        range: range(1, 8),
        readings: vec![range(1, 8)],
        losses: vec![],
        sum: Sum { readings: 10, digest: 0 },
    };
    tamper(&mut rig, &device, |conn| {
        conn.execute("UPDATE segment SET body = x'0102'", []).expect("spoilt");
    });
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    for _ in 0..3 {
        rig.pass(15);
        rig.tick();
        rig.hear(&[account(&device, 5, range(1, 8), Some(said.clone()), false)]);
        finish(&mut rig, &device, 5, range(1, 8));
    }
    let (words, all) = (look(&rig, id).words, 8 * segment::MAX_READINGS);
    assert!(words.contains(&format!("1..=8 has {all} readings here, and 10 at the device")), "{words}");
}

/// As many readings as at the device, but not the same ones: only what they add up to shows it. (The device did not send them
/// again, or they would have been found out when they arrived.)
#[test]
fn other_readings_of_the_same_number_are_found() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    let others = commits(&device.twin("a", 3), 1..=4);
    for _ in 0..3 {
        rig.pass(15);
        rig.tick();
        rig.hear(&[account(&device, 5, range(1, 4), Some(stretch(&device, range(1, 4), &others)), false)]);
        finish(&mut rig, &device, 5, range(1, 4));
    }
    let ended = look(&rig, id);
    assert!(ended.ended.is_some() && !ended.verified);
    assert!(ended.words.contains("8 readings here and at the device, but not the same ones"), "{}", ended.words);
}

/// What can be mended is: a row that is gone or rotten comes back; of a reading with another value both are kept, the device
/// is told, and the outcome says so.
#[test]
fn what_differs_is_mended_or_kept_beside() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 9);
    tamper(&mut rig, &device, |conn| {
        conn.execute("DELETE FROM segment WHERE first_seq = 2", []).expect("deleted");
        conn.execute("UPDATE segment SET body = x'0102' WHERE first_seq = 3", []).expect("spoilt");
        put(conn, &device.twin("a", 5).commit(8));
    });
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    for _ in 0..2 {
        rig.pass(15);
        rig.tick();
        rig.hear(&device.pages());
        send(&mut rig, &device, 5, range(1, 9), range(1, 9), &commits(&device, 1..=9));
        finish(&mut rig, &device, 5, range(1, 9));
    }
    let ended = look(&rig, id);
    assert!(ended.verified, "{}", ended.words);
    assert!(ended.words.contains("8..=8") && ended.words.contains("both are kept"), "{}", ended.words);
    let twin = device.twin("a", 5).expected(0, [8]);
    let mut expected = [device.expected(0, (1..=9).filter(|seq| *seq != 8)), twin, device.expected(1, [8])].concat();
    expected.sort();
    assert_eq!(rig.readings(&device), expected);
}

/// Numbers that neither side holds are asked for, so that the device writes down their loss; then the rest is verified.
#[test]
fn what_neither_side_holds_becomes_a_loss() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&[device.birth(6)]);
    rig.hear(&device.pages());
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    rig.tick();
    send(&mut rig, &device, 5, range(1, 6), range(1, 6), &commits(&device, 3..=6));
    finish(&mut rig, &device, 5, range(1, 6));
    rig.pass(1);
    let asked = rig.tick().requests(&device);
    assert_eq!(asked[0], Request::Segments { store: device.store, ranges: vec![range(1, 2)] });
    assert!(matches!(&asked[1], Request::Snapshot(again) if again.nonce == 5));
    let lost = device.lost(1, 2, LossReason::Expired, 0);
    let file = [vec![lost], commits(&device, 3..=6)].concat();
    send(&mut rig, &device, 5, range(1, 6), range(1, 6), &file);
    finish(&mut rig, &device, 5, range(1, 6));
    assert!(look(&rig, id).verified);
    assert_eq!(replica::segments(&rig.path(&device), true), vec![(0, range(1, 2))]);
}

/// A range is the same for a part; one that the device does not have ends with words.
#[test]
fn a_range_is_verified_like_the_whole() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 9);
    let id = ask(&rig, &device, Wanted::Range(range(3, 5), None), 6);
    assert_eq!(look(&rig, id).retrieval.what, What::Range(device.store, range(3, 5)));
    let only = Some((device.store, range(3, 5)));
    let question = Request::Snapshot(SnapshotRequest { nonce: 6, only, done: vec![] });
    assert_eq!(rig.tick().requests(&device), vec![question]);
    send(&mut rig, &device, 6, range(3, 5), range(3, 5), &commits(&device, 3..=5));
    finish(&mut rig, &device, 6, range(3, 5));
    assert!(look(&rig, id).verified);
    let devices = report::devices(rig.dir.path()).expect("an account");
    assert_eq!(devices[0].snapshot_verified, None, "it was none");
    let table = report::table(&devices, &[]);
    assert!(table.contains(&format!("3..=5 of store {}", device.store)), "{table}");
    assert!(table.contains("verified, 3 of 3 numbers"), "{table}");

    let id = ask(&rig, &device, Wanted::Range(range(8, 9), None), 7);
    let nothing = SegmentFrame::Account(Account { nonce: 7, stores: vec![], stretch: None, last: true });
    rig.tick();
    rig.hear(&[(device.topic(Topic::Segment), encode(&nothing).expect("an account"))]);
    let ended = look(&rig, id);
    assert!(ended.ended.is_some() && !ended.verified && ended.words.contains("8..=9"), "{}", ended.words);
}

/// The replica's segments need not be cut as the device's are: a stretch that ends within one is compared with the next.
#[test]
fn other_cuts_are_compared_all_the_same() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    rig.hear(&[device.message(&device.compacted(1, 8))]);
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    rig.tick();
    send(&mut rig, &device, 5, range(1, 8), range(1, 5), &commits(&device, 1..=5));
    assert_eq!(look(&rig, id).retrieval.numbers(), (0, 8));
    send(&mut rig, &device, 5, range(1, 8), range(6, 8), &commits(&device, 6..=8));
    finish(&mut rig, &device, 5, range(1, 8));
    assert!(look(&rig, id).verified, "{}", look(&rig, id).words);
}

/// A snapshot of the device's own accord is followed like one that was asked for; one that broke is asked for under its
/// number, and a later one takes its place. However many it begins, few are remembered.
#[test]
fn a_device_s_own_snapshot_is_followed() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 4);
    rig.hear(&[account(&device, 900, range(1, 4), None, false)]);
    send(&mut rig, &device, 900, range(1, 4), range(1, 2), &commits(&device, 1..=2));
    rig.hear(&[device.state(false, 0, &[]), device.birth(4)]);
    let asked = rig.tick().requests(&device);
    let done = vec![Done { store: device.store, ranges: vec![range(1, 2)] }];
    assert_eq!(asked, vec![Request::Snapshot(SnapshotRequest { nonce: 900, only: None, done })]);
    send(&mut rig, &device, 900, range(1, 4), range(3, 4), &commits(&device, 3..=4));
    finish(&mut rig, &device, 900, range(1, 4));
    let line = &report::devices(rig.dir.path()).expect("an account")[0];
    assert!(line.requests[0].by_device && line.requests[0].outcome == "verified");
    for nonce in 1000..1100 {
        rig.pass(60);
        rig.hear(&[account(&device, nonce, range(1, 4), None, false)]);
        rig.hear(&[account(&device, 2 * nonce, range(1, 4), None, false)]);
        let roster = rig.receiver.as_ref().map(|receiver| &receiver.roster).expect("running");
        assert!(!roster.knows_retrieval("a", 2 * nonce).expect("a roster"), "a second one within a minute");
    }
    let line = &report::devices(rig.dir.path()).expect("an account")[0];
    assert_eq!(line.requests.iter().filter(|r| r.ended.is_none()).count(), 1);
    assert!(line.requests.len() <= 18, "{}", line.requests.len());
}

/// Questions are bounded, the same one is asked once, and what makes no sense is refused with what to do.
#[test]
fn questions_are_bounded_and_checked() {
    let device = Unit::new("a", 1);
    let rig = with_held(&device, 40);
    let first = ask(&rig, &device, Wanted::Snapshot, 1);
    assert_eq!(ask(&rig, &device, Wanted::Snapshot, 2), first);
    for k in 1..MAX_OPEN_PER_DEVICE as u64 {
        ask(&rig, &device, Wanted::Range(range(k, k), None), 100 + k);
    }
    let refused = |name: &str, wanted| {
        let refused = ask::ask(rig.dir.path(), name, wanted, 9, rig.now.utc).expect_err("refused");
        (crate::fault::Fault::exit(&refused) as u8, refused.to_string())
    };
    let (exit, words) = refused("a", Wanted::Range(range(20, 20), None));
    assert!(exit == 75 && words.contains("wait until one has ended"), "{words}");
    let (exit, words) = refused("b", Wanted::Snapshot);
    assert!(exit == 65 && words.contains("varved-fleet devices"), "{words}");
    let (exit, words) = refused("a", Wanted::Range(range(41, 50), None));
    assert!(exit == 65 && words.contains("up to 40"), "{words}");
    let other = Some(StoreUuid::from_u128(99));
    let (exit, words) = refused("a", Wanted::Range(range(1, 2), other));
    assert!(exit == 65 && words.contains("has no store"), "{words}");
}

/// Accounts are not believed where they are absurd, and change nothing of other devices' requests.
#[test]
fn a_strange_account_changes_nothing() {
    let (device, other) = (Unit::new("a", 1), Unit::new("b", 2));
    let mut rig = with_held(&device, 4);
    rig.hear(&[other.birth(4)]);
    let id = ask(&rig, &device, Wanted::Snapshot, 5);
    rig.tick();
    rig.hear(&[account(&device, 5, range(1, FAR_SEQUENCE), None, true)]);
    assert_eq!(rig.refused(&device), vec![(Refusal::FarSequence, 1)]);
    rig.hear(&[account(&other, 5, range(1, 4), None, true)]);
    assert!(look(&rig, id).ended.is_none());
    // Claims to have sent what never came.
    rig.hear(&[account(&device, 5, range(1, 9), Some(stretch(&device, range(1, 9), &commits(&device, 1..=9))), false)]);
    finish(&mut rig, &device, 5, range(1, 9));
    assert!(look(&rig, id).ended.is_none(), "5..=9 lack");
}
