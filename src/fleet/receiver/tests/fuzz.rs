//! Valid messages of every kind with a few bytes changed and their CRCs put right, so that what is behind the CRC is looked at.
//! Whatever they say, the receiver goes on, its memory is bounded, and another device is untouched.

use super::super::device::MAX_KNOWN_PIECES;
use super::floods::peak_kib;
use super::random::Dice;
use super::rig::*;
use crate::fleet::receiver::*;
use crate::fleet::shelf::MAX_OPEN_CATALOG_BYTES;
use crate::segment::{self, LossReason, Segment, Sum};
use crate::wire::{Account, Stretch};

/// After so many groups all that is bounded has been full.
const WARM_GROUPS: u64 = 500;

/// What the process may grow by after that: catalogues of the stores that chance makes, each within its bound.
const MOST_GROWTH_KIB: u64 = 64 << 10;

/// Numbers at which something may end.
const EDGES: [u8; 10] = [0, 1, 2, 3, 0x10, 0x3f, 0x7f, 0x80, 0xfe, 0xff];

/// What a device may say, one of each kind: topic, and the message without version and CRC. A whole segment's body can be
/// changed beneath its own CRC.
fn said(device: &Unit) -> Vec<(String, Vec<u8>)> {
    let mut named = device.compacted(5, 9);
    if let segment::Content::Data { names, .. } = &mut named.content {
        *names = device.page().series;
    }
    let segments: Vec<Segment> = vec![
        device.commit(1),
        device.compacted(2, 4),
        named,
        device.lost(10, 20, LossReason::Retention, 100),
        device.lost(21, 21, LossReason::Overflow, 7),
    ];
    let mut said: Vec<_> = segments.iter().map(|segment| device.message(segment)).collect();
    said.extend(device.pieces(&device.compacted(30, 430), 1024));
    said.push(device.catalog(&device.page()));
    said.push(device.state(true, 40, &[range(3, 5), range(40, 40)]));
    said.push(Unit { recheck: Some(9), ..device.clone() }.birth(41));
    said.push(device.state(false, 0, &[]));
    said.extend([(None, false), (Some(stretch(device)), false), (None, true)].map(|(stretch, last)| {
        let account = Account { nonce: 77, stores: vec![(device.store, range(1, 40))], stretch, last };
        (device.topic(Topic::Segment), encode(&SegmentFrame::Account(account)).expect("an account"))
    }));
    said
}

fn stretch(device: &Unit) -> Stretch {
    let sum = Sum { readings: 20, digest: 0x0123_4567_89ab_cdef };
    let (readings, losses) = (vec![range(1, 9)], vec![range(10, 20)]);
    Stretch { store: device.store, range: range(1, 20), readings, losses, sum }
}

fn with_right_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(4));
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Changes, takes out, repeats or adds a few bytes from `from` on.
fn change(dice: &mut Dice, bytes: &mut Vec<u8>, from: usize) {
    for _ in 0..=dice.roll(3) {
        let at = from + dice.roll(bytes.len().saturating_sub(from).max(1));
        let Some(byte) = bytes.get_mut(at) else { continue };
        match dice.roll(6) {
            0 => *byte ^= 1 << dice.roll(8),
            1 | 2 => *byte = EDGES[dice.roll(EDGES.len())],
            3 => drop(bytes.drain(at..(at + 1 + dice.roll(4)).min(bytes.len()))),
            4 => drop(bytes.splice(at..at, std::iter::repeat_n(0xff, 1 + dice.roll(9)))),
            _ => {
                let again = bytes[at..(at + dice.roll(16)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
}

/// One changed message, of every fourth segment with the body changed beneath right CRCs.
fn changed(dice: &mut Dice, said: &[(String, Vec<u8>)]) -> (String, Vec<u8>) {
    let (topic, payload) = &said[dice.roll(said.len())];
    if let (0..3, Ok(SegmentFrame::Whole { store, range, body })) = (dice.roll(4), decode::<SegmentFrame<'_>>(payload))
    {
        let mut body = body.to_vec();
        // Its version only now and then.
        let from = usize::from(dice.roll(20) > 0);
        change(dice, &mut body, from);
        let body = with_right_crc(body);
        let frame = SegmentFrame::Whole { store, range, body: &body };
        return (topic.clone(), encode(&frame).unwrap_or_default());
    }
    let mut payload = payload.clone();
    // Mostly behind the store id: another id is another store, of which a few are enough.
    let from = if dice.roll(60) == 0 { 0 } else { 19 };
    change(dice, &mut payload, from);
    (topic.clone(), with_right_crc(payload))
}

/// A million changed messages (60 thousand in a debug build, twenty million with `VARVED_FULL`) of one device between the
/// segments of another: they are refused, counted by reason, and each reason is named; no group takes seconds, memory stays
/// within its figures, and the other device's readings are all there, once, acknowledged, and nothing is held against it. In
/// full the process does not grow either: that is for a run of this test alone.
#[test]
fn changed_messages_with_right_crcs_harm_nobody() {
    let full = std::env::var("VARVED_FULL").is_ok_and(|value| !value.is_empty());
    let groups = if full {
        20_000
    } else if cfg!(debug_assertions) {
        60
    } else {
        1_000
    };
    let seed = std::env::var("VARVED_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    let mut dice = Dice(seed);
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    rig.hear(&[good.pages(), bad.pages()].concat());
    let said = said(&bad);
    let (mut commits, mut published, mut warm_kib) = (0, 0, 0);
    for group in 0..groups {
        let mut messages: Vec<_> = (0..MAX_GROUP - 2).map(|_| changed(&mut dice, &said)).collect();
        if group % 8 == 0 {
            commits += 1;
            messages.insert(dice.roll(messages.len()), good.message(&good.commit(commits)));
        }
        if dice.roll(10) == 0 {
            messages.extend(bad.pages());
        }
        let begun = std::time::Instant::now();
        let heard = rig.hear(&messages);
        assert!(begun.elapsed().as_secs() < 20, "seed {seed}, group {group}: {:?}", begun.elapsed());
        published += heard.published.len();
        if group % 8 == 0 {
            assert_eq!(heard.of(&good).cumulative, SegmentSeq(commits), "seed {seed}, group {group}");
        }
        rig.pass(1);
        rig.tick();
        let receiver = rig.receiver.as_ref().expect("running");
        assert!(receiver.assembler.bytes() <= 10 << 20, "seed {seed}: {} bytes", receiver.assembler.bytes());
        assert!(receiver.devices["bad"].known_pieces() <= MAX_KNOWN_PIECES);
        assert!(receiver.shelf.catalog_bytes() <= MAX_OPEN_CATALOG_BYTES);
        assert_eq!(receiver.devices.len(), 2);
        if group == WARM_GROUPS {
            warm_kib = peak_kib();
        }
    }
    if full {
        let grown_kib = peak_kib() - warm_kib;
        println!("{groups} groups of {MAX_GROUP}: {warm_kib} KiB when warm, {grown_kib} more at the end");
        assert!(grown_kib < MOST_GROWTH_KIB, "seed {seed}: grew from {warm_kib} by {grown_kib} KiB");
    }
    let refused = rig.refused(&bad);
    let total: u64 = refused.iter().map(|(_, n)| n).sum();
    let sent = groups * (MAX_GROUP as u64 - 2);
    assert!(total > sent / 3 && total <= sent, "seed {seed}: {total} of {sent} refused");
    for why in [Refusal::Envelope, Refusal::Segment, Refusal::NewerSegment, Refusal::OtherRange, Refusal::FarSequence] {
        assert!(refused.iter().any(|(reason, _)| *reason == why), "seed {seed}: no {why} in {refused:?}");
    }
    assert_eq!(rig.named(&bad), refused.iter().map(|(why, _)| *why).collect(), "seed {seed}: each is named");
    assert!((published as u64) < 4 * groups + sent / 8, "seed {seed}: {published} answers");
    assert!(rig.refused(&good).is_empty());
    rig.kill();
    rig.start();
    rig.hear(&good.pages());
    assert_eq!(rig.hear(&[good.birth(commits)]).of(&good).conflicts, vec![]);
    assert_eq!(rig.readings(&good), good.expected(0, 1..=commits));
}
