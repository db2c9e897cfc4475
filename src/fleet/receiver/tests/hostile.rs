//! What a device in bad order, or someone else, may send: refused, counted, and no harm to another.

use super::super::*;
use super::rig::*;
use crate::fleet::report;
use crate::segment;

/// The payload of a whole segment in an envelope that says `range`, whatever the body is.
fn envelope(device: &Unit, range: crate::reading::SeqRange, body: &[u8]) -> (String, Vec<u8>) {
    let frame = SegmentFrame::Whole { store: device.store, range, body };
    (device.topic(Topic::Segment), encode(&frame).expect("a frame"))
}

fn body_of(device: &Unit, seq: u64) -> Vec<u8> {
    segment::encode(&device.commit(seq)).expect("a body")
}

/// Each kind of bad message is refused for its own reason and named with its device, and between them another device's segments
/// are held.
#[test]
fn bad_messages_are_refused_each_for_its_reason() {
    let bad = Unit::new("bad", 1);
    let good = Unit::new("good", 2);
    let mut rig = Rig::new();
    rig.hear(&[bad.pages(), good.pages()].concat());

    let mut rotten = body_of(&bad, 1);
    rotten[5] ^= 0x10;
    let newer = newer_body(&bad);
    let mut newer_envelope = vec![200u8, 1, 2, 3];
    newer_envelope.extend(crc32fast::hash(&newer_envelope).to_le_bytes());
    let far = FAR_SEQUENCE;
    let topic = bad.topic(Topic::Segment);
    let cases: Vec<(Refusal, (String, Vec<u8>))> = vec![
        (Refusal::Envelope, (topic.clone(), Vec::new())),
        (Refusal::Envelope, (topic.clone(), b"hello".to_vec())),
        (Refusal::Envelope, (bad.topic(Topic::State), vec![0xff; 3000])),
        (Refusal::NewerEnvelope, (topic, newer_envelope)),
        (Refusal::Segment, envelope(&bad, range(1, 1), &rotten)),
        (Refusal::Segment, envelope(&bad, range(1, 1), &rotten[..9])),
        (Refusal::Segment, envelope(&bad, range(1, 1), &bomb(&bad))),
        (Refusal::NewerSegment, envelope(&bad, range(1, 1), &newer)),
        (Refusal::OtherRange, envelope(&bad, range(1, 2), &body_of(&bad, 1))),
        (Refusal::FarSequence, bad.message(&bad.commit(far))),
        (Refusal::FarSequence, envelope(&bad, range(1, u64::MAX), &body_of(&bad, 1))),
        (Refusal::FarSequence, bad.state(true, u64::MAX, &[])),
    ];
    let mut expected: BTreeMap<Refusal, u64> = BTreeMap::new();
    for (i, (why, message)) in cases.into_iter().enumerate() {
        let heard = rig.hear(&[vec![message], good.commits([i as u64 + 1])].concat());
        *expected.entry(why).or_default() += 1;
        assert_eq!(rig.refused(&bad), expected.clone().into_iter().collect::<Vec<_>>(), "case {i}");
        assert_eq!(rig.named(&bad), expected.keys().copied().collect(), "case {i}");
        assert_eq!(heard.ack(&bad), None, "case {i}");
        assert_eq!(heard.of(&good).cumulative, SegmentSeq(i as u64 + 1), "case {i}");
    }
    assert!(rig.readings(&bad).is_empty());
    assert!(rig.refused(&good).is_empty() && rig.told("good").is_empty());
    let heard = rig.hear(&bad.commits([1]));
    assert_eq!(heard.of(&bad).cumulative, SegmentSeq(1), "and nothing is held against it");
}

/// A body with every length that it declares blown up, CRC right.
fn bomb(device: &Unit) -> Vec<u8> {
    let body = body_of(device, 1);
    let mut bomb = body[..2].to_vec();
    bomb.extend([1, 1]);
    bomb.extend([0xff, 0xff, 0xff, 0xff, 0x0f].repeat(8));
    bomb.extend(crc32fast::hash(&bomb).to_le_bytes());
    bomb
}

fn newer_body(device: &Unit) -> Vec<u8> {
    let mut body = body_of(device, 1);
    body.truncate(body.len() - 4);
    body[0] = 250;
    body.extend(crc32fast::hash(&body).to_le_bytes());
    body
}

/// Topics of nobody, and names that would be paths, touch nothing.
#[test]
fn foreign_topics_and_paths_touch_nothing() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    let payload = device.commits([1]).remove(0).1;
    for topic in
        ["x", "plant/varved/v1/../segment", "plant/varved/v1/.hidden/segment", "plant/varved/v1/a/b/segment", ""]
    {
        rig.hear(&[(topic.to_owned(), payload.clone())]);
    }
    let receiver = rig.receiver.as_ref().expect("running");
    assert_eq!(receiver.strangers(), 5);
    assert!(receiver.devices.is_empty());
    assert_eq!(rig.told(""), [r#""x" is no device's topic (1 such so far): check the broker's ACL"#]);
}

/// Someone else was first with a store id and said that its numbers are lost: the device that has the readings is not
/// told that they are held until it has brought them itself, and they then take the numbers.
#[test]
fn what_another_brought_of_a_store_is_not_acknowledged_to_this_device() {
    let device = Unit::new("a", 1);
    let other = device.twin("e", 0);
    let mut rig = Rig::new();
    rig.hear(&other.pages());
    let ack = rig.hear(&[other.message(&other.lost(1, 5, segment::LossReason::Expired, 10))]).of(&other);
    assert_eq!(ack.cumulative, SegmentSeq(5));
    let ack = rig.hear(&[device.pages(), vec![device.birth(5)]].concat()).of(&device);
    assert_eq!((ack.cumulative, ack.ranges), (SegmentSeq(0), vec![]));
    let ack = rig.hear(&device.commits(1..=4)).of(&device);
    assert_eq!((ack.cumulative, ack.ranges, ack.conflicts), (SegmentSeq(4), vec![], vec![]));
    // Readings of another's for what comes next, under the same names, do not stand in for this device's either.
    rig.hear(&other.commits(6..=7));
    rig.kill();
    rig.start();
    let ack = rig.hear(&[device.birth(7)]).of(&device);
    assert_eq!((ack.cumulative, ack.ranges), (SegmentSeq(4), vec![]));
    assert_eq!(rig.readings(&other), device.expected(0, [1, 2, 3, 4, 6, 7]));
}

/// A device that names a new store with every message gets so many and no more.
#[test]
fn a_device_gets_so_many_stores_and_no_more() {
    let mut rig = Rig::new();
    let device = Unit::new("a", 1);
    let folder = rig.dir.path().join("a");
    std::fs::create_dir(&folder).expect("a folder");
    for store in 0..MAX_STORES_PER_DEVICE {
        std::os::unix::fs::symlink("nowhere", folder.join(format!("{}.db", StoreUuid::from_u128(store as u128 + 100))))
            .expect("a link");
    }
    rig.kill();
    rig.start();
    rig.hear(&device.pages());
    assert_eq!(rig.refused(&device), vec![(Refusal::Stores, 1)]);
    assert_eq!(rig.named(&device), BTreeSet::from([Refusal::Stores]));
    assert!(!rig.path(&device).exists());
}

/// A store whose content changes with every message gets so many histories and no more; the rest is refused and counted,
/// and nothing that was held is touched.
#[test]
fn a_store_gets_so_many_histories_and_no_more() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    for salt in 0..20 {
        rig.hear(&device.pages());
        rig.hear(&device.twin("a", salt).commits([1]));
    }
    let histories = crate::fleet::replica::MAX_HISTORIES;
    assert_eq!(rig.refused(&device), vec![(Refusal::Histories, 20 - histories as u64)]);
    assert_eq!(rig.named(&device), BTreeSet::from([Refusal::Histories]));
    assert_eq!(rig.readings(&device).len(), 2 * histories);
}

/// A series whose definition in the body is not the catalogue's is refused: one of the two is wrong.
#[test]
fn names_in_the_body_must_be_those_of_the_catalogue() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    let mut segment = device.commit(1);
    if let segment::Content::Data { names, .. } = &mut segment.content {
        *names = vec![series(1, "m/s1"), series(2, "m/elsewhere")];
    }
    rig.hear(&[device.message(&segment)]);
    assert_eq!(rig.refused(&device), vec![(Refusal::OtherNames, 1)]);
    assert_eq!(rig.named(&device), BTreeSet::from([Refusal::OtherNames]));
}

/// A flood of bad messages is counted in full and told at the first, the tenth, the hundredth: who sends it is named, over a
/// restart too, and what else happened is not pushed out. What someone else has written is told without what a terminal obeys.
#[test]
fn a_flood_is_named_and_pushes_nothing_out() {
    let bad = Unit::new("bad", 1);
    let mut rig = Rig::new();
    let message = (bad.topic(Topic::Segment), b"hello".to_vec());
    let odd = ("plant/varved/v1/\u{1b}[2J/segment".to_owned(), Vec::new());
    for _ in 0..150 {
        rig.hear(&[message.clone(), odd.clone()]);
    }
    rig.pass(10);
    rig.tick();
    rig.kill();
    rig.start();
    rig.hear(&vec![message; 1000]);
    let mut counts: Vec<u64> = Vec::new();
    for told in rig.told("bad") {
        let n = told.strip_prefix("refused (envelope, ").and_then(|rest| rest.split_once(" so far): "));
        counts.push(n.expect("a refusal").0.parse().expect("a count"));
    }
    counts.sort_unstable();
    assert_eq!(counts, [1, 10, 100, 1000]);
    assert_eq!(rig.refused(&bad), vec![(Refusal::Envelope, 1150)]);
    rig.tick();
    let table = report::table(&[], &report::of_nobody(rig.dir.path()).expect("a roster"));
    assert!(table.starts_with("DEVICE") && table.contains("100 such so far"), "{table}");
    let events = report::happened(rig.dir.path()).expect("a roster");
    let of = |name: Option<&str>| events.iter().filter(|event| event.device.as_deref() == name).count();
    assert_eq!((of(Some("bad")), of(None)), (4, 3), "{events:?}");
    assert!(
        report::json(&events).contains("\"device\": null") && report::happened_table(&events).contains(" receiver: ")
    );
    let strangers = rig.told("");
    assert_eq!(strangers.len(), 3);
    assert!(strangers.iter().all(|told| told.contains("v1/") && !told.contains('\u{1b}')), "{strangers:?}");
}

/// An ack with as many ranges as there may be in as many stores as there may be still fits a payload.
#[test]
fn the_largest_ack_fits_a_payload() {
    let every_other: Vec<_> = (0..MAX_RANGES as u64).map(|i| range((1 << 47) + 2 * i, (1 << 47) + 2 * i)).collect();
    let store = |i: usize| StoreAck {
        store: StoreUuid::from_u128(i as u128),
        cumulative: SegmentSeq(1),
        ranges: every_other.clone(),
        high: SegmentSeq(1 << 47),
        conflicts: every_other.clone(),
        verified: Some((u64::MAX, every_other.clone())),
    };
    let payload = ack_payload(Ack { stores: (0..MAX_STORES).map(store).collect() }).expect("an ack");
    assert!(payload.len() <= MAX_ACK_BYTES, "{}", payload.len());
    let ack: Ack = decode(&payload).expect("an ack");
    assert_eq!(ack.stores.len(), MAX_STORES);
    assert!(ack.stores[3].ranges.len() >= 64);
}
