//! Golden vectors, hostile bytes, and the rules of each message.

use super::*;
use crate::clock::BootNanos;
use crate::reading::{Kind, Scale};
use crate::segment::Sum;
use proptest::prelude::*;

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).expect("a range")
}

fn store() -> StoreUuid {
    StoreUuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)
}

fn state() -> State {
    State {
        online: true,
        session: 300,
        run: 7,
        version: "0.1.0".into(),
        utc: UtcNanos(1_000_000_000),
        clock_trusted: true,
        stores: vec![StoreState {
            store: store(),
            high: SegmentSeq(42),
            pending: vec![range(3, 5), range(40, 42)],
            recheck: Some(9),
        }],
    }
}

fn ack() -> Ack {
    Ack {
        stores: vec![StoreAck {
            store: store(),
            cumulative: SegmentSeq(2),
            ranges: vec![range(6, 39)],
            high: SegmentSeq(39),
            conflicts: vec![range(6, 6)],
            verified: Some((9, vec![range(1, 2)])),
        }],
    }
}

fn account() -> Account {
    let sum = Sum { readings: 1200, digest: 0x0123_4567_89ab_cdef };
    let (readings, losses) = (vec![range(3, 40), range(42, 42)], vec![range(41, 41)]);
    let stretch = Stretch { store: store(), range: range(1, 42), readings, losses, sum };
    Account { nonce: 77, stores: vec![(store(), range(1, 42))], stretch: Some(stretch), last: false }
}

fn snapshot() -> SnapshotRequest {
    let done = vec![Done { store: store(), ranges: vec![range(1, 20)] }];
    SnapshotRequest { nonce: 77, only: None, done }
}

fn page() -> CatalogPage {
    CatalogPage {
        store: store(),
        series: vec![(
            SeriesId(1),
            SeriesDef { name: "hwmon/cpu/temp1".into(), unit: "Cel".into(), kind: Kind::Int, scale: Scale::MILLI },
        )],
        boots: vec![CatalogBoot {
            id: BootId(1),
            uuid: StoreUuid::from_u128(1),
            anchors: vec![Anchor { boot: BootNanos(5), utc: UtcNanos(-5), trusted: true }],
        }],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn golden<'a, T: Envelope<'a> + PartialEq + fmt::Debug>(message: &T, expected: &str) {
    let payload = encode(message).expect("encodes");
    assert_eq!(hex(&payload), expected);
    let page = include_str!("../../docs/wire.md");
    assert!(page.lines().any(|line| line.trim() == expected), "docs/wire.md lacks {expected}");
    let payload: &'a [u8] = Box::leak(payload.into_boxed_slice());
    assert_eq!(&decode::<T>(payload).expect("decodes"), message);
}

/// The bytes are fixed: a backend written from the page reads them, whatever becomes of this code.
#[test]
fn golden_vectors_hold() {
    golden(
        &SegmentFrame::Whole { store: store(), range: range(1, 300), body: b"body" },
        "01001000112233445566778899aabbccddeeff01ac0204626f6479f560de71",
    );
    golden(
        &SegmentFrame::Chunk {
            store: store(),
            range: range(1, 300),
            hash: 0xdead_beef,
            offset: 128,
            total: 1000,
            bytes: b"piece",
        },
        "01011000112233445566778899aabbccddeeff01ac02effdb6f50d8001e807057069656365ec3651c5",
    );
    golden(
        &page(),
        "011000112233445566778899aabbccddeeff01010f68776d6f6e2f6370752f74656d70310343656c0002fd01011000000000000000000000000000000001010a0901ae2156f4",
    );
    golden(&state(), "0101ac020705302e312e3080a8d6b90701011000112233445566778899aabbccddeeff2a020305282a0109aad7beaf");
    golden(&ack(), "01011000112233445566778899aabbccddeeff020106272701060601090101027f3fa28c");
    golden(
        &Request::Segments { store: store(), ranges: vec![range(3, 5)] },
        "01001000112233445566778899aabbccddeeff01030586ec611d",
    );
    golden(&Request::Catalog, "01012813c52f");
    golden(
        &SegmentFrame::Account(account()),
        "01024d011000112233445566778899aabbccddeeff012a011000112233445566778899aabbccddeeff012a0203282a2a012929b009ef9bafcdf8acd1910100bd7b51f6",
    );
    let last = Account { stretch: None, last: true, ..account() };
    golden(&SegmentFrame::Account(last), "01024d011000112233445566778899aabbccddeeff012a000147f8f01e");
    golden(&Request::Snapshot(snapshot()), "01024d00011000112233445566778899aabbccddeeff01011497bb1f6e");
    let only = Some((store(), range(3, 5)));
    golden(
        &Request::Snapshot(SnapshotRequest { nonce: 78, only, done: vec![] }),
        "01024e011000112233445566778899aabbccddeeff030500f61e80d6",
    );
    golden(&Request::Pause { seconds: 300 }, "0103ac02e9940277");
}

/// Seals bytes as a sender of bad faith would, CRC and all.
fn forged(version: u8, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![version];
    payload.extend_from_slice(inner);
    sealed(payload).expect("short enough")
}

/// Damage is told from news: a flipped bit anywhere is a CRC error, also in the version byte; a newer version says so.
#[test]
fn damage_is_told_from_a_newer_version() {
    let good = encode(&ack()).expect("encodes");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert_eq!(decode::<Ack>(&bad), Err(WireError::Crc), "byte {at}");
    }
    assert_eq!(decode::<Ack>(&forged(2, b"what is to come")), Err(WireError::Newer { version: 2 }));
    assert_eq!(decode::<Ack>(&forged(0, b"")), Err(WireError::Malformed));
    assert_eq!(decode::<Ack>(&[]), Err(WireError::TooShort { bytes: 0 }));
    assert_eq!(decode::<Ack>(&[1, 0, 0, 0]), Err(WireError::TooShort { bytes: 4 }));
    assert_eq!(decode::<Ack>(&vec![0; MAX_ENVELOPE + 1]), Err(WireError::TooLong { bytes: MAX_ENVELOPE + 1 }));
    assert_eq!(decode::<Request>(&forged(1, &[1, 0])), Err(WireError::Trailing { bytes: 1 }));
}

/// A list that claims four billion elements, and one that has more than its cap, are refused by what they hold.
#[test]
fn claimed_lengths_are_not_believed() {
    let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(decode::<Ack>(&forged(1, &four_gib)), Err(WireError::Malformed));
    let mut segments = vec![0, 16];
    segments.extend_from_slice(store().as_bytes());
    let mut claims = segments.clone();
    claims.extend_from_slice(&four_gib);
    assert_eq!(decode::<Request>(&forged(1, &claims)), Err(WireError::Malformed));
    // 257 ranges that are all there: refused when the 257th is met.
    segments.extend_from_slice(&[0x81, 0x02]);
    (1..=257u64).for_each(|_| segments.extend_from_slice(&[1, 1]));
    assert_eq!(decode::<Request>(&forged(1, &segments)), Err(WireError::Malformed));
    // A body that claims more bytes than there are.
    let mut whole = vec![0, 16];
    whole.extend_from_slice(store().as_bytes());
    whole.extend_from_slice(&[1, 1]);
    whole.extend_from_slice(&four_gib);
    assert_eq!(decode::<SegmentFrame<'_>>(&forged(1, &whole)), Err(WireError::Malformed));
}

/// A message that breaks a rule of its type neither leaves nor enters.
#[test]
fn broken_rules_neither_leave_nor_enter() {
    let crossing = [vec![range(1, 5), range(5, 9)], vec![range(6, 9), range(1, 5)]];
    let empty = vec![SeqRange { first: SegmentSeq(5), last: SegmentSeq(4) }];
    let zero = vec![SeqRange { first: SegmentSeq(0), last: SegmentSeq(4) }];
    for ranges in crossing.into_iter().chain([empty, zero]) {
        let request = Request::Segments { store: store(), ranges };
        assert_eq!(encode(&request), Err(WireError::Ranges { what: "ranges" }));
        let inner = postcard::to_allocvec(&request).expect("postcard");
        assert_eq!(decode::<Request>(&forged(1, &inner)), Err(WireError::Ranges { what: "ranges" }));
    }
    let mut low = ack();
    low.stores[0].cumulative = SegmentSeq(6);
    assert_eq!(encode(&low), Err(WireError::Ranges { what: "ranges above cumulative" }));
    let mut many = state();
    many.stores = vec![many.stores[0].clone(); MAX_STORES + 1];
    assert_eq!(encode(&many), Err(WireError::List { what: "stores", max: MAX_STORES }));
    let mut outside = account();
    outside.stretch.as_mut().expect("one").losses = vec![range(41, 43)];
    assert_eq!(encode(&SegmentFrame::Account(outside)), Err(WireError::Ranges { what: "losses" }));
    let mut crossing = snapshot();
    crossing.done[0].ranges = vec![range(1, 5), range(5, 9)];
    assert_eq!(encode(&Request::Snapshot(crossing)), Err(WireError::Ranges { what: "done" }));
    let mut wide = page();
    wide.series[0].1.scale = Scale { mantissa: 10, exponent: 0 };
    assert_eq!(encode(&wide), Err(WireError::Definition { what: "scale" }));
    let mut long = page();
    long.series[0].1.name = "x".repeat(513);
    assert_eq!(encode(&long), Err(WireError::Definition { what: "series name" }));
    let outside =
        SegmentFrame::Chunk { store: store(), range: range(1, 1), hash: 0, offset: u32::MAX, total: 9, bytes: b"x" };
    assert_eq!(encode(&outside), Err(WireError::Chunk));
}

proptest! {
    /// Whatever bytes come under a right CRC, decoding ends without a panic, and what decodes encodes again.
    #[test]
    fn hostile_bytes_never_panic(inner in proptest::collection::vec(any::<u8>(), 0..300)) {
        let payload = forged(1, &inner);
        let _ = decode::<SegmentFrame<'_>>(&payload);
        let _ = decode::<CatalogPage>(&payload);
        let _ = decode::<State>(&payload);
        if let Ok(ack) = decode::<Ack>(&payload) {
            prop_assert!(encode(&ack).is_ok());
        }
        let _ = decode::<Request>(&payload);
    }

    /// Real messages with one byte changed and the CRC made right again: no panic either.
    #[test]
    fn nearly_right_bytes_never_panic(at in 0usize..200, to in any::<u8>()) {
        for good in [encode(&ack()), encode(&state()), encode(&page()), encode(&SegmentFrame::Account(account()))] {
            let good = good.expect("encodes");
            let mut inner = good[1..good.len() - 4].to_vec();
            let at = at % inner.len();
            inner[at] = to;
            let payload = forged(1, &inner);
            let _ = (decode::<Ack>(&payload), decode::<State>(&payload), decode::<CatalogPage>(&payload));
            let _ = decode::<SegmentFrame<'_>>(&payload);
        }
    }
}
