//! What is fuzzed: each function takes bytes from nowhere, and must neither panic nor take memory beyond its figure.
//!
//! `fuzz/fuzz_targets` gives them to cargo-fuzz, which needs a nightly compiler; `tests/fuzz` runs them with seeded changes of
//! `fuzz/corpus` beside the other tests. What lies behind a checksum is reached by putting it right.

use std::cell::RefCell;
use std::sync::Arc;
use varved::batch::Registry;
use varved::clock::{BootNanos, Now, UtcNanos};
use varved::config::{Config, FleetConfig};
use varved::fleet::receiver::{Message, Receiver};
use varved::pull::fetch::{Holding, fetch};
use varved::pull::link::Link;
use varved::pull::serve::{Board, serve};
use varved::segment::{self, View};
use varved::sensor::Counters;
use varved::sensor::ingest::Ingest;
use varved::store::arrivals::Arrivals;
use varved::store::query::Session;
use varved::wire::{
    self, Ack, Assembler, AssemblerLimits, CatalogPage, FromBoard, FromLaptop, Request, SegmentFrame, State,
};

/// Series that a line may make: few, so that the cap is met.
const MAX_SERIES: u32 = 64;

/// Readings up to which a segment is written again: more cost seconds and show nothing else.
const MAX_ENCODED: usize = 2000;

thread_local! {
    static INGEST: RefCell<Ingest> = RefCell::new(ingest());
    static ASSEMBLER: RefCell<Assembler> =
        RefCell::new(Assembler::new(AssemblerLimits { partials_per_device: 2, bytes: 4 << 20 }));
    static PULL: RefCell<Option<(tempfile::TempDir, Arrivals, Session)>> = const { RefCell::new(None) };
    static RECEIVER: RefCell<Option<(tempfile::TempDir, Receiver)>> = const { RefCell::new(None) };
}

fn ingest() -> Ingest {
    Ingest::new(Arc::new(Registry::new(MAX_SERIES)), Arc::new(Counters::new("fuzz")))
}

/// Line protocol: lines as a client of the socket sends them. A good line gives what it says, a bad one nothing.
pub fn line_protocol(bytes: &[u8]) {
    INGEST.with(|ingest| {
        let (mut ingest, mut out) = (ingest.borrow_mut(), Vec::new());
        for line in bytes.split(|byte| *byte == b'\n') {
            ingest.line(line, BootNanos(1), &mut out);
        }
    });
}

/// Both configurations: a good one, or an error with file and remedy.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for error in [
        Config::parse_on(&text, "varved.toml", "host").err().map(|e| e.to_string()),
        FleetConfig::parse(&text, "fleet.toml").err().map(|e| e.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert!(error.contains(".toml"), "an error names the file: {error}");
    }
}

/// One in so many of the segments that are taken is written again: that takes ten times as long as reading it.
const ENCODED_ONE_IN: u32 = 8;

/// The segment decoder: whole, every second column in one pass, one column alone. What it takes is written again as the same, for some
/// of the inputs that their bytes choose.
pub fn segment(bytes: &[u8]) {
    decode_segment(bytes);
    decode_segment(&with_crc(bytes));
}

fn decode_segment(body: &[u8]) {
    let Ok(view) = View::parse(body) else {
        assert!(segment::decode(body).is_err());
        return;
    };
    // Not a checksum over all of it: that is the same for every body whose own is right.
    let chosen = body.last_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
    let columns = view.columns().len();
    let (_, _) = (view.bounds(), view.cites());
    drop(view.decode_columns((0..columns).step_by(2)));
    if columns > 0 {
        drop(view.column(chosen as usize % columns));
    }
    let Ok(whole) = segment::decode(body) else { return };
    if view.n() > MAX_ENCODED || (chosen >> 16) % ENCODED_ONE_IN != 0 {
        return;
    }
    // By bytes: a NaN is not equal to itself.
    let Ok(once) = segment::encode(&whole) else { return };
    let again = segment::decode(&once).expect("what was encoded is decoded");
    assert_eq!(segment::encode(&again).expect("and encoded again"), once);
}

/// Every envelope of the wire, and segments in pieces. The first byte chooses which.
pub fn wire(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    for payload in [payload, &with_crc(payload)] {
        match kind % 5 {
            0 => ASSEMBLER.with(|assembler| {
                let Ok(frame) = wire::decode::<SegmentFrame<'_>>(payload) else { return };
                let mut assembler = assembler.borrow_mut();
                drop(assembler.accept("fuzz", frame));
                assert!(assembler.bytes() <= 4 << 20, "{} bytes", assembler.bytes());
            }),
            1 => same::<CatalogPage>(payload),
            2 => same::<State>(payload),
            3 => same::<Ack>(payload),
            _ => same::<Request>(payload),
        }
    }
}

/// What is decoded is encoded, and decoded as the same.
fn same<T>(payload: &[u8])
where
    T: for<'a> wire::Envelope<'a> + PartialEq + std::fmt::Debug,
{
    let Ok(message) = wire::decode::<T>(payload) else { return };
    let Ok(encoded) = wire::encode(&message) else { return };
    assert_eq!(wire::decode::<T>(&encoded).expect("what was encoded is decoded"), message);
}

/// The receiver, end to end: messages of two devices, as a broker delivers them, to real replicas. Each is a byte for device and
/// topic, two for its length, and its payload.
pub fn receiver(bytes: &[u8]) {
    RECEIVER.with(|slot| {
        let mut slot = slot.borrow_mut();
        let (_, receiver) = slot.get_or_insert_with(|| {
            let dir = folder();
            let receiver = Receiver::open(dir.path(), "varved").expect("a receiver");
            (dir, receiver)
        });
        let messages = messages(bytes);
        let group: Vec<Message<'_>> = messages.iter().map(|(topic, payload)| Message { topic, payload }).collect();
        let now = Now { boot: BootNanos(1), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
        let answers = receiver.apply(&group, now);
        assert!(answers.len() <= 8 * (group.len() + 2), "{} answers to {} messages", answers.len(), group.len());
        receiver.tick(now);
    });
}

fn folder() -> tempfile::TempDir {
    let ram = std::path::Path::new("/dev/shm");
    if ram.is_dir() { tempfile::tempdir_in(ram) } else { tempfile::tempdir() }.expect("a folder")
}

/// Both sides of a pull, on real files. The first byte chooses who is spoken to: by a board that says anything the laptop, whose
/// file it is to fill, or by a laptop the board. Then messages as for the receiver, framed; or, where the choice is odd, the bytes
/// as they are.
pub fn pull(bytes: &[u8]) {
    let Some((kind, said)) = bytes.split_first() else { return };
    let mut stream = b"varved-pull 1 1 fuzz\n".to_vec();
    match kind & 1 {
        0 => framed(said, &mut stream),
        _ => stream.extend(said),
    }
    PULL.with(|slot| {
        let mut slot = slot.borrow_mut();
        let (_, arrivals, board) = slot.get_or_insert_with(|| {
            let dir = folder();
            let open = |name: &str| Arrivals::open(&dir.path().join(name), false).expect("a file");
            drop(open("board.db"));
            let (laptop, board) = (open("laptop.db"), Session::open(&dir.path().join("board.db")).expect("a store"));
            (dir, laptop, board)
        });
        match kind & 2 {
            0 => {
                let (mut link, now) = (Link::new(&stream[..], std::io::sink()), || UtcNanos(1_790_000_000_000_000_000));
                let fetched = fetch(&mut link, arrivals, &Holding::default(), &now, &mut |_| ());
                assert!(fetched.map_or_else(|why| !why.to_string().is_empty(), |got| got.reasons.len() <= 8));
            }
            _ => {
                let health = Err("fuzz".to_owned());
                let facts = Board { device: "fuzz".to_owned(), running: None, health };
                drop(serve(board, facts, &mut Link::new(&stream[..], std::io::sink())));
                for (_, payload) in messages(said) {
                    same::<FromLaptop>(&payload);
                    drop(wire::decode::<FromBoard<'_>>(&payload));
                }
            }
        }
    });
}

/// The messages in `bytes` as frames of a pull.
fn framed(bytes: &[u8], into: &mut Vec<u8>) {
    for (_, payload) in messages(bytes) {
        into.extend((payload.len() as u32).to_le_bytes());
        into.extend(payload);
    }
}

fn messages(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    while let [kind, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let tail =
            ["segment", "catalog/0", "catalog/1", "state", "ack", "request", "", "segment/x"][usize::from(kind & 7)];
        let device = if kind & 8 == 0 { "one" } else { "two" };
        let payload = if kind & 16 == 0 { with_crc(&rest[..length]) } else { rest[..length].to_vec() };
        all.push((format!("varved/v1/{device}/{tail}"), payload));
        bytes = &rest[length..];
    }
    all
}

/// `bytes` with the last four replaced by the checksum of those before.
fn with_crc(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len().saturating_sub(4)].to_vec();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}
