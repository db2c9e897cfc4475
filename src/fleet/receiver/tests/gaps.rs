//! Numbers that have no readings: losses, and gaps that are asked for.

use super::super::*;
use super::rig::*;
use crate::fleet::replica::tests as replica;
use crate::segment::LossReason;

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

/// A device that has nothing new to say is asked all the same: it may rest for days after the fleet's disk was put back. (It
/// was asked when something came from it, and only then; the story is seed 128 of a day.)
#[test]
fn a_silent_device_is_asked_for_its_gaps() {
    let device = Unit::new("a", 1);
    let mut rig = with_held(&device, 2);
    rig.hear(&[device.birth(4)]);
    rig.pass(30);
    assert!(rig.tick().requests(&device).is_empty(), "they may be on their way");
    rig.pass(31);
    let asked = vec![Request::Segments { store: device.store, ranges: vec![range(3, 4)] }];
    assert_eq!(rig.tick().requests(&device), asked);
    rig.pass(30);
    assert!(rig.tick().requests(&device).is_empty(), "asked half a minute ago");
    rig.pass(31);
    assert_eq!(rig.tick().requests(&device), asked, "the request may have been lost");
    rig.pass(61);
    assert!(rig.tick().requests(&device).is_empty(), "twice in vain: it may have to pay for each question");
    rig.pass(60);
    assert_eq!(rig.tick().requests(&device), asked);
    let minute = |_| {
        rig.pass(60);
        rig.tick().requests(&device).len()
    };
    let day: usize = (0..24 * 60).map(minute).sum();
    assert!((24..32).contains(&day), "{day} questions in a day");
    rig.hear(&[device.state(false, 0, &[])]);
    rig.pass(61);
    assert!(rig.tick().requests(&device).is_empty(), "nobody is there");
    rig.hear(&[device.birth(4)]);
    rig.hear(&device.commits([3, 4]));
    rig.pass(200);
    assert!(rig.tick().requests(&device).is_empty(), "nothing lacks");
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
