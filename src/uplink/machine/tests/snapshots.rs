//! Snapshots: everything or a range sent again, with an account of it, when all else rests.

use super::super::*;
use super::story::*;
use crate::reading::ranges::RangeSet;
use crate::segment::Sum;
use crate::wire::{Done, Request, SnapshotRequest, StoreAck, Stretch};

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
