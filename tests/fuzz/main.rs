//! The targets of `fuzz/`, with seeded changes of its corpora, on a stable compiler: no input makes one panic, hang, or take more
//! memory than its figure. A million inputs in a release build, and 100 million with `VARVED_FULL`; of what has files, which the
//! receiver and a pull have, fewer.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod memory;
mod seeds;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) as usize % below.max(1)
    }
}

/// Bytes at which something may end.
const EDGES: [u8; 12] = [0, 1, 2, 3, 0x10, 0x20, 0x22, 0x3f, 0x7f, 0x80, 0xfe, 0xff];

/// The longest input.
const MAX_BYTES: usize = 4096;

/// An entry with a few bytes changed, taken out, repeated, added, or with the end of another one.
fn changed(dice: &mut Dice, corpus: &[Vec<u8>], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&corpus[dice.roll(corpus.len())]);
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(into.len());
        match dice.roll(8) {
            _ if into.is_empty() => into.push(EDGES[dice.roll(EDGES.len())]),
            0 => into[at] ^= 1 << dice.roll(8),
            1 => into[at] = EDGES[dice.roll(EDGES.len())],
            2 => into[at] = dice.roll(256) as u8,
            3 => drop(into.drain(at..(at + 1 + dice.roll(8)).min(into.len()))),
            4 => drop(into.splice(at..at, std::iter::repeat_n(EDGES[dice.roll(EDGES.len())], 1 + dice.roll(12)))),
            5 => {
                let again = into[at..(at + 1 + dice.roll(24)).min(into.len())].to_vec();
                drop(into.splice(at..at, again));
            }
            6 => into.truncate(at),
            _ => {
                let other = &corpus[dice.roll(corpus.len())];
                let from = dice.roll(other.len());
                into.truncate(at);
                into.extend_from_slice(&other[from..]);
            }
        }
    }
    into.truncate(MAX_BYTES);
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let all: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(all.len() > 3 && all.iter().all(|entry| entry.len() <= MAX_BYTES), "{}", dir.display());
    all
}

/// So many in a release build, a hundredth of them in a debug build.
fn inputs(usual: u64, full: u64) -> u64 {
    match std::env::var("VARVED_FULL").is_ok_and(|value| !value.is_empty()) {
        true => full,
        false if cfg!(debug_assertions) => usual / 100,
        false => usual,
    }
}

/// Runs `inputs` changes, none of which may take more than `most_bytes` at a time, or seconds.
fn run(target: &str, inputs: u64, most_bytes: usize, fuzz: fn(&[u8])) {
    let seed = std::env::var("VARVED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    let (corpus, mut dice, mut input) = (corpus(target), Dice(seed | 1), Vec::new());
    corpus.iter().for_each(|entry| fuzz(entry));
    let (begun, mut most, mut longest) = (Instant::now(), 0, Duration::ZERO);
    for n in 0..inputs {
        changed(&mut dice, &corpus, &mut input);
        let clock = (n % 16 == 0).then(Instant::now);
        let before = memory::begin();
        let ended = std::panic::catch_unwind(|| fuzz(&input));
        let taken = memory::peak().saturating_sub(before);
        if let Err(panic) = ended {
            std::fs::write(format!("/tmp/{target}.bad"), &input).unwrap();
            println!("{target}: seed {seed}, input {n}, kept as /tmp/{target}.bad: {input:02x?}");
            std::panic::resume_unwind(panic);
        }
        assert!(taken <= most_bytes, "{target}: seed {seed}, input {n} took {taken} bytes: {input:02x?}");
        most = most.max(taken);
        longest = longest.max(clock.map_or(Duration::ZERO, |clock| clock.elapsed()));
    }
    assert!(longest < Duration::from_secs(10), "{target}: an input took {longest:?}");
    println!(
        "{target}: seed {seed}, {inputs} inputs in {:?}, none took more than {most} bytes (of {most_bytes}), the longest {longest:?}",
        begun.elapsed()
    );
}

/// Line protocol.
#[test]
fn no_line_harms_the_line_protocol() {
    run("line_protocol", inputs(1_000_000, 100_000_000), 1 << 20, targets::line_protocol);
}

/// What a segment may ask for is in `segment::MAX_DECODED_BYTES`; here it is decoded twice and encoded, side by side.
#[test]
fn no_body_harms_the_segment_decoder() {
    let most = 3 * varved::segment::MAX_DECODED_BYTES;
    run("segment", inputs(1_000_000, 100_000_000), most, targets::segment);
}

/// Envelopes and pieces.
#[test]
fn no_payload_harms_the_wire() {
    run("wire", inputs(1_000_000, 100_000_000), 8 << 20, targets::wire);
}

/// Configurations: read once at a start, so that fewer do.
#[test]
fn no_text_harms_the_configuration() {
    run("config", inputs(1_000_000, 100_000_000), 4 << 20, targets::config);
}

/// Messages to the receiver, with real replicas. (`fleet::receiver::tests::fuzz` sends many more of one device beside another one's,
/// and counts what becomes of them.)
#[test]
fn no_message_harms_the_receiver() {
    run("receiver", inputs(200_000, 10_000_000), 64 << 20, targets::receiver);
}

/// Both sides of a pull, with real files.
#[test]
fn no_far_side_harms_a_pull() {
    run("pull", inputs(20_000, 1_000_000), 16 << 20, targets::pull);
}

/// The corpora are what the code of today writes: `VARVED_WRITE=1` writes them anew.
#[test]
fn the_corpora_are_of_this_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, name, bytes) in seeds::all() {
        let path = root.join(target).join(name);
        if std::env::var_os("VARVED_WRITE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|found| found == bytes), "{}: VARVED_WRITE=1 writes it", path.display());
    }
}

/// Negative control: a target that takes what an input asks for, and one that panics, are caught.
#[test]
fn what_must_be_caught_is_caught() {
    let greedy = |input: &[u8]| drop(vec![0_u8; input.len() << 16]);
    let caught = std::panic::catch_unwind(|| run("segment", 100, 1 << 20, greedy));
    assert!(caught.is_err(), "too much memory");
    let rash = |input: &[u8]| assert!(input.len() < 20, "planted");
    assert!(std::panic::catch_unwind(|| run("segment", 100, 1 << 20, rash)).is_err(), "a panic");
}
