//! Floods and bombs: what is held for a device that sends too much is bounded by figures, and the others go on.

use super::super::device::MAX_KNOWN_PIECES;
use super::rig::*;
use crate::fleet::FAR_SEQUENCE;
use crate::fleet::receiver::*;
use crate::fleet::replica::MAX_CATALOG_BYTES;
use crate::fleet::shelf::MAX_OPEN;
use crate::reading::{BootId, SeqRange};
use crate::segment::{self, MAX_READINGS};
use crate::wire::{CatalogBoot, StoreState};

fn receiver(rig: &Rig) -> &Receiver {
    rig.receiver.as_ref().expect("running")
}

fn chunk(device: &Unit, seq: u64, offset: u32, total: u32, bytes: &[u8]) -> (String, Vec<u8>) {
    let frame =
        SegmentFrame::Chunk { store: device.store, range: range(seq, seq), hash: seq as u32, offset, total, bytes };
    (device.topic(Topic::Segment), encode(&frame).expect("a chunk"))
}

/// Two mebibytes that are claimed and never completed, from thousands of stores of one device and from a thousand devices,
/// and one body that overlaps itself without end: what is held stays below 32 MiB, of one device below 10, the overlaps are
/// counted, and a segment of another device whose pieces come in between arrives.
#[test]
fn chunks_that_are_never_completed_are_bounded_and_push_out_nobody() {
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    rig.hear(&good.pages());
    let whole = good.compacted(1, 900);
    let pieces = good.pieces(&whole, 1024);
    assert!(pieces.len() > 3);
    rig.hear(&pieces[..1]);

    let stores = (100..3100).map(|store| chunk(&Unit::new("bad", store), 1, 7, 2 << 20, &[1; 2000]));
    rig.hear(&stores.collect::<Vec<_>>());
    assert!(receiver(&rig).assembler.bytes() < 100_000, "{}", receiver(&rig).assembler.bytes());
    rig.hear(&pieces[1..2]);
    let piece = vec![2; 100_000];
    for k in 0..60 {
        rig.hear(&[chunk(&bad, 1, k, 2 << 20, &piece)]);
        assert!(receiver(&rig).assembler.bytes() < 10 << 20, "{}", receiver(&rig).assembler.bytes());
    }
    // One byte each, every other missing: as many pieces as never come of a body in good order.
    rig.hear(&(0..9000).map(|k| chunk(&bad, 2, 2 * k, 2 << 20, &[3])).collect::<Vec<_>>());
    assert!(receiver(&rig).assembler.bytes() < 10 << 20, "{}", receiver(&rig).assembler.bytes());
    let refused = rig.refused(&bad);
    assert!(matches!(refused[..], [(Refusal::Envelope, 2), (Refusal::Unfinished, 2999..)]), "{refused:?}");
    assert_eq!(rig.named(&bad), BTreeSet::from([Refusal::Envelope, Refusal::Unfinished]));
    assert!(rig.refused(&good).is_empty());
    let heard = rig.hear(&pieces[2..]);
    assert_eq!(heard.of(&good).cumulative, SegmentSeq(900), "its first piece was not pushed out");

    let begun = chunk(&bad, 1, 0, 2 << 20, &piece).1;
    for device in 0..1000 {
        let unit = Unit::new(&format!("d{device}"), 1);
        rig.hear(&[(unit.topic(Topic::Segment), begun.clone())]);
    }
    assert!(receiver(&rig).assembler.bytes() <= 32 << 20);
    assert!(receiver(&rig).pushed_out > 600);
    assert!(rig.named(&Unit::new("d0", 1)).is_empty(), "the room was full, which is not its fault");
    let told = rig.told("").into_iter().filter(|told| told.contains("fill the room")).count();
    assert_eq!(told, 3, "the first, the tenth, the hundredth");
    assert_eq!(rig.hear(&good.commits([901])).of(&good).cumulative, SegmentSeq(901));
}

/// A page of `n` series, every other id from `first` on, with names of so many bytes.
fn page(device: &Unit, first: u32, n: u32, bytes: usize) -> (String, Vec<u8>) {
    let name = |id: u32| format!("m/{id:0>width$}", width = bytes - 2);
    let boots = vec![CatalogBoot { id: BootId(1), uuid: StoreUuid::from_u128(1), anchors: Vec::new() }];
    let series = (0..n).map(|k| first + 2 * k).map(|id| series(id, &name(id))).collect();
    device.catalog(&CatalogPage { store: device.store, series, boots })
}

/// Pages of long names without end: the catalogue of a store takes at most 32 MiB of memory, what is above is refused and
/// counted, and another device's segments are held.
#[test]
fn the_catalogue_of_a_store_is_bounded_in_bytes() {
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    rig.hear(&good.pages());
    let mut n = 0;
    while rig.receiver.as_ref().is_some_and(|r| !r.devices.contains_key("bad")) || rig.refused(&bad).is_empty() {
        rig.hear(&[page(&bad, 1 + 2 * 400 * n, 400, 512)]);
        n += 1;
        assert!(n < 200, "it is never full");
    }
    assert_eq!(rig.refused(&bad), [(Refusal::CatalogFull, 1)]);
    assert_eq!(rig.named(&bad), BTreeSet::from([Refusal::CatalogFull]));
    let held = receiver(&rig).shelf.catalog_bytes();
    assert!(held <= MAX_CATALOG_BYTES + 10_000 && held > MAX_CATALOG_BYTES / 2, "{held}");
    assert_eq!(rig.hear(&good.commits([1])).of(&good).cumulative, SegmentSeq(1));
}

/// Pages of 4,096 scattered ids for one store after the other: what is known of the device and what lies in open replicas
/// stays bounded, and the device's store in good order goes on when it states its names again.
#[test]
fn catalogues_of_many_stores_are_bounded_together() {
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    let max_bytes = 4 << 20;
    rig.receiver.as_mut().expect("running").shelf.set_max_catalog_bytes(max_bytes);
    rig.hear(&[bad.pages(), good.pages()].concat());
    for store in 0..36 {
        let unit = Unit::new("bad", 100 + store);
        rig.hear(&[page(&unit, 1, 4096, 12)]);
        let receiver = receiver(&rig);
        assert!(receiver.devices["bad"].known_pieces() <= MAX_KNOWN_PIECES);
        assert!(receiver.shelf.catalog_bytes() <= max_bytes + (1 << 20), "{}", receiver.shelf.catalog_bytes());
    }
    assert!(receiver(&rig).devices["bad"].known_pieces() > MAX_KNOWN_PIECES / 2);
    assert_eq!(rig.hear(&good.commits([1])).of(&good).cumulative, SegmentSeq(1));
    rig.hear(&bad.pages());
    assert_eq!(rig.hear(&bad.commits([1])).of(&bad).cumulative, SegmentSeq(1));
}

/// A body whose blob is `frame`, and says that it becomes `raw` bytes.
fn with_blob(raw: u64, frame: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 2 | 4 | 8, 1];
    for mut n in [raw, frame.len() as u64] {
        while n >= 0x80 {
            body.push(n as u8 | 0x80);
            n >>= 7;
        }
        body.push(n as u8);
    }
    body.extend_from_slice(frame);
    body.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    body.extend(crc32fast::hash(&body).to_le_bytes());
    body
}

/// Kilobytes that become 256 MiB, under a size that is claimed right, too small, too large or beyond 64 bits' sense, in
/// envelopes that are right: refused as what they are, and the process does not grow by them.
#[test]
fn bombs_are_refused_and_take_no_memory() {
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    rig.hear(&[bad.pages(), good.pages()].concat());
    let frame = zstd::bulk::compress(&vec![0; 256 << 20], 1).expect("a frame").split_off(4);
    assert!(frame.len() < 100_000);
    let before = peak_kib();
    let claims = [1, 4 << 20, (4 << 20) + 1, 256 << 20, 1 << 40, u64::MAX];
    for claim in claims {
        let body = with_blob(claim, &frame);
        let frame = SegmentFrame::Whole { store: bad.store, range: range(1, 1), body: &body };
        rig.hear(&[(bad.topic(Topic::Segment), encode(&frame).expect("a frame"))]);
    }
    assert_eq!(rig.refused(&bad), [(Refusal::Segment, claims.len() as u64)]);
    assert_eq!(rig.named(&bad), BTreeSet::from([Refusal::Segment]));
    assert!(peak_kib() < before + 64 * 1024, "{} KiB, {before} before", peak_kib());
    assert_eq!(rig.hear(&good.commits([1])).of(&good).cumulative, SegmentSeq(1));
}

/// The most memory that the process ever had, in KiB (Linux `Documentation/filesystems/proc.rst`, VmHWM).
pub(super) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A state of sixteen stores whose every number that may be is the largest of 64 bits is taken, survives a restart, and is
/// answered; one whose sequence numbers are as high is refused, and nothing of it counts.
#[test]
fn a_state_of_the_largest_numbers_is_taken_where_it_may_be() {
    let mut rig = Rig::new();
    let good = Unit::new("good", 2);
    let bad = Unit { session: u64::MAX, run: u64::MAX, ..Unit::new("bad", 1) };
    rig.hear(&[good.pages(), bad.pages()].concat());
    let state = |high: u64, pending: Vec<SeqRange>| {
        let store = |k: u128| StoreState {
            store: StoreUuid::from_u128(k),
            high: SegmentSeq(high),
            pending: pending.clone(),
            recheck: Some(u64::MAX),
        };
        let state = State {
            online: true,
            session: bad.session,
            run: bad.run,
            version: "v".repeat(64),
            utc: crate::clock::UtcNanos(i64::MIN),
            clock_trusted: true,
            stores: (1..=MAX_STORES as u128).map(store).collect(),
        };
        (bad.topic(Topic::State), encode(&state).expect("a state"))
    };
    let far = FAR_SEQUENCE;
    rig.hear(&[state(u64::MAX, vec![]), state(far, vec![]), state(1, vec![range(far - 1, far)])]);
    assert_eq!(rig.refused(&bad), [(Refusal::FarSequence, 3)]);
    let told = rig.told("bad");
    assert!(told.len() == 1 && told[0].ends_with(&format!("sequence number {}", u64::MAX)), "{told:?}");
    assert_eq!(receiver(&rig).devices["bad"].entry.session, None, "nothing of them counts");
    rig.hear(&[state(far - 1, vec![range(1, far - 1)])]);
    for _ in 0..2 {
        let ack = rig.hear(&bad.commits([far - 1])).of(&bad);
        assert_eq!((ack.cumulative, ack.high), (SegmentSeq(0), SegmentSeq(far - 1)));
        assert_eq!(ack.verified, Some((u64::MAX, vec![range(far - 1, far - 1)])));
        rig.tick();
        rig.kill();
        rig.start();
        assert_eq!(receiver(&rig).devices["bad"].entry.session, Some(u64::MAX));
        rig.hear(&bad.pages());
    }
    rig.hear(&good.pages());
    assert_eq!(rig.hear(&good.commits([1])).of(&good).cumulative, SegmentSeq(1));
}

/// Someone replays another device's segments, byte by byte, under its own name: nothing is held twice, the other's ack stays,
/// and an operator reads who brings whose store. Without that store's names nothing of it is even looked at.
#[test]
fn replayed_segments_of_another_device_change_nothing_for_it() {
    let (good, bad) = (Unit::new("good", 2), Unit::new("bad", 2));
    let mut rig = Rig::new();
    rig.hear(&[good.pages(), good.commits(1..=20)].concat());
    let stolen = bad.commits(1..=10);
    let heard = rig.hear(&stolen);
    assert_eq!((heard.ack(&bad), heard.requests(&bad)), (None, vec![Request::Catalog]));
    rig.hear(&bad.pages());
    let ack = rig.hear(&stolen).of(&bad);
    assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(10), vec![]));
    let ack = rig.hear(&[good.birth(20)]).of(&good);
    assert_eq!((ack.cumulative, ack.conflicts), (SegmentSeq(20), vec![]));
    assert_eq!(rig.readings(&good), good.expected(0, 1..=20));
    let told =
        receiver(&rig).events.iter().filter(|e| e.device == "bad" && e.detail.contains("came from good")).count();
    assert_eq!(told, 1);
}

/// What a device publishes on its own `ack` and `request`, and names that are no device's, are counted and begin nothing.
#[test]
fn acks_requests_and_odd_names_from_the_wire_are_strangers() {
    let device = Unit::new("good", 1);
    let mut rig = Rig::new();
    rig.hear(&[device.pages(), device.commits(1..=3)].concat());
    let forged = encode(&Ack { stores: vec![] }).expect("an ack");
    let request = encode(&Request::Catalog).expect("a request");
    let payload = device.commits([4]).remove(0).1;
    let long = "n".repeat(65);
    let names = ["", ".", "-x", "a b", "a\0b", "ä", "+", "#", "$SYS", "a\u{202e}b", long.as_str()];
    let odd = names.map(|name| (format!("{PREFIX}/v1/{name}/segment"), payload.clone()));
    let heard = rig.hear(&[(device.topic(Topic::Ack), forged), (device.topic(Topic::Request), request)]);
    assert!(heard.published.is_empty());
    assert!(rig.hear(&odd).published.is_empty());
    assert_eq!(receiver(&rig).strangers(), 2 + odd.len() as u64);
    assert_eq!(receiver(&rig).devices.len(), 1);
    let told = rig.told("good");
    assert!(told.len() == 1 && told[0].contains("good/ack\" is the receiver's own to write"), "{told:?}");
    let told = rig.told("");
    assert!(
        told.len() == 2 && told.iter().all(|told| told.contains("is no device's topic")),
        "first and tenth: {told:?}"
    );
    assert_eq!(rig.hear(&[device.birth(3)]).of(&device).cumulative, SegmentSeq(3));
}

/// So many equal readings take a few bytes; three segments of them are not in a wider one that has only as many as each.
/// They are kept, and nothing is decoded to find that out.
#[test]
fn a_wider_segment_with_fewer_readings_takes_no_place() {
    let device = Unit::new("a", 1);
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    let equal = |first, last, n| device.message(&device.equal(first, last, n));
    let heard = rig.hear(&[equal(1, 1, MAX_READINGS), equal(2, 2, 10), equal(3, 3, 10)]);
    assert_eq!(heard.of(&device).cumulative, SegmentSeq(3));
    let ack = rig.hear(&[equal(1, 3, MAX_READINGS)]).of(&device);
    assert_eq!(ack.conflicts, vec![range(1, 3)]);
    assert!(segment::encode(&device.commit(1)).is_ok());
    let rows = rig.readings(&device);
    assert_eq!(rows.len(), 2 * MAX_READINGS + 20);
}

/// Two hundred devices that are all new speak in one group: all are held and acknowledged with it, and so is the one that was
/// there before. Their replicas are made ahead of their messages, several at a time. (They were made one after the other, and
/// everybody waited: 7.8 s where it is 1.3 s now, in a debug build on a medium that flushes in 1.7 ms.)
#[test]
fn a_fleet_of_new_devices_holds_up_nobody() {
    let there = Unit::new("there", 1);
    let mut rig = Rig::new();
    rig.hear(&[there.pages(), there.commits([1])].concat());
    let fleet: Vec<Unit> = (0..200).map(|n| Unit::new(&format!("new-{n}"), 100 + n)).collect();
    let pages: Vec<_> = fleet.iter().flat_map(|unit| [unit.birth(1), unit.pages().remove(0)]).collect();
    let first: Vec<_> = pages[..20].iter().map(|(topic, payload)| Message { topic, payload }).collect();
    let now = rig.now;
    rig.receiver.as_mut().expect("running").prepare(&first, now);
    assert!(fleet[..10].iter().all(|unit| rig.path(unit).exists()));
    assert_eq!(receiver(&rig).devices.len(), 1, "and nothing else has happened");
    let made = fleet[10..].iter().filter(|unit| rig.path(unit).exists()).count();
    assert_eq!(made, 0);
    let mut group = [pages, fleet.iter().flat_map(|unit| unit.commits([1])).collect()].concat();
    group.extend(there.commits([2]));
    let heard = rig.hear(&group);
    assert_eq!(heard.of(&there).cumulative, SegmentSeq(2));
    assert!(fleet.iter().all(|unit| heard.of(unit).cumulative == SegmentSeq(1)));
    assert!(fleet.iter().all(|unit| rig.readings(unit) == unit.expected(0, [1])));
    let prepared = &receiver(&rig).shelf.prepared;
    let ahead = fleet.iter().filter(|unit| prepared.contains(&unit.store)).count();
    assert_eq!(ahead, fleet.len(), "a group has the replicas of all that are new in it made ahead");
}

/// More new devices in one group than may be open: no more are, and each is held. Their pages come first, so that all that is
/// open waits for a commit when the next are prepared.
#[test]
fn no_more_are_open_than_may_be() {
    let mut rig = Rig::new();
    let fleet: Vec<Unit> = (0..MAX_OPEN as u128 + 60).map(|n| Unit::new(&format!("new-{n}"), 1 + n)).collect();
    let now = rig.now;
    let receiver = rig.receiver.as_mut().expect("running");
    for some in fleet.chunks(MAX_PREPARED) {
        let pages: Vec<_> = some.iter().flat_map(Unit::pages).collect();
        let messages: Vec<_> = pages.iter().map(|(topic, payload)| Message { topic, payload }).collect();
        receiver.prepare(&messages, now);
        assert!(receiver.shelf.open_now() <= MAX_OPEN, "{}", receiver.shelf.open_now());
        let opened = some.iter().filter(|unit| receiver.shelf.opened(unit.store).is_some()).count();
        assert_eq!(opened, some.len(), "each is open ahead of its message, and stays so");
        messages.iter().for_each(|message| receiver.take(*message, now, &mut Answers::default()));
        assert!(receiver.shelf.open_now() <= MAX_OPEN, "{}", receiver.shelf.open_now());
    }
    let heard = rig.hear(&fleet.iter().flat_map(|unit| unit.commits([1])).collect::<Vec<_>>());
    assert!(fleet.iter().all(|unit| heard.of(unit).cumulative == SegmentSeq(1)));
}

/// Every commit fails, as on a medium that takes nothing: what can't be closed for that is bounded, the rest is refused, and
/// once the medium takes writes again all of it arrives.
#[test]
fn a_medium_that_takes_nothing_does_not_fill_the_memory() {
    let mut rig = Rig::new();
    let fleet: Vec<Unit> = (0..MAX_OPEN as u128 + 120).map(|n| Unit::new(&format!("d-{n}"), 1 + n)).collect();
    let now = rig.now.utc;
    for unit in &fleet {
        let shelf = &mut rig.receiver.as_mut().expect("running").shelf;
        drop(shelf.replica(&unit.name, unit.store, now));
        shelf.fail_commits(true);
        rig.hear(&[unit.pages(), unit.commits([1])].concat());
        let open = receiver(&rig).shelf.open_now();
        assert!(open <= MAX_OPEN + MAX_OPEN / 4, "{open}");
    }
    let refused = fleet.iter().filter(|unit| !rig.refused(unit).is_empty()).count();
    assert!(refused > 20, "{refused}");
    rig.receiver.as_mut().expect("running").shelf.fail_commits(false);
    rig.pass(60);
    rig.tick();
    assert_eq!(receiver(&rig).shelf.room(), MAX_OPEN, "all may be closed again");
    let heard = rig.hear(&fleet.iter().flat_map(|unit| [unit.pages(), unit.commits([1])].concat()).collect::<Vec<_>>());
    assert!(fleet.iter().all(|unit| heard.of(unit).cumulative == SegmentSeq(1)));
}

/// Two contradicting pages by turns, each of which makes the device's other history its own: it is told at the first time, the
/// tenth and the hundredth, and what was told of another device is still there.
#[test]
fn contradictions_without_end_are_told_seldom() {
    let (bad, good) = (Unit::new("bad", 1), Unit::new("good", 2));
    let mut rig = Rig::new();
    rig.hear(&[good.pages(), good.commits([1])].concat());
    rig.hear(&good.twin("good", 3).commits([1]));
    let contradicting = |name| CatalogPage { series: vec![series(1, name)], ..bad.page() };
    for n in 0..150 {
        rig.hear(&[bad.catalog(&contradicting(if n % 2 == 0 { "m/this" } else { "m/that" }))]);
    }
    let told: Vec<_> = rig.told("bad").into_iter().filter(|told| told.contains("both are kept")).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(rig.told("good").len(), 1);
}
