//! Single bits that rot: in the database, in its log, in the mark beside it.
//!
//! What enters: the files of a store that has lived: compacted segments, figures of hours, losses, acknowledgements, a log
//! with commits in it. What leaves: what became of each flipped bit when the file was opened as the service opens it and read
//! as `varved query` reads it. One may be an error, an alarm (an event, a loss that is written down), or harmless; never
//! silent. The newest transaction of the log is the exception that nothing can tell from a torn end: its loss has to be
//! that, and no more.

use super::super::Store;
use super::super::query::Session;
use super::super::query::{Field, Sink};
use super::super::testing::{Bench, at, compact_all, put, put_with};
use super::chance::{Chance, hash, scatter};
use super::files;
use super::medium::Image;
use super::proof::{directory, lay_out, recovered};
use super::run::{is_full, scaled, seed};
use crate::clock::Anchor;
use crate::config::StoreConfig;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;

/// What a reader of the store can see, each as one number, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen(BTreeMap<&'static str, u64>);

/// The tables of what is seen.
const SEEN: [(&str, &str); 5] = [
    ("readings", "SELECT series, time, utc, value, unit, quality, seq FROM reading"),
    ("losses", "SELECT store, first_seq, last_seq, body FROM segment WHERE kind = 1"),
    ("acknowledged", "SELECT store, first_seq, last_seq FROM ack"),
    ("hours", "SELECT store, series, hour, n, min, mean, max, last FROM rollup"),
    ("days", "SELECT store, series, day, n, min, mean, max, last FROM rollup_day"),
];

/// What became of a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It does not open, or what it holds can't be read, and that is said.
    Error,
    /// An event.
    Alarm,
    /// All is as it was.
    Harmless,
    /// The newest transaction is gone, as if it had been torn.
    Newest,
    /// Something is missing or other than it was, and nobody said so.
    Silent,
}

#[derive(Default)]
struct Sum(u64);

impl Sink for Sum {
    type Error = Infallible;

    fn columns(&mut self, _: &[&str]) -> Result<(), Infallible> {
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Infallible> {
        let number = |field: &Field<'_>| match field {
            Field::Null => 1,
            Field::Int(n) => scatter(*n as u64),
            Field::Real(n) => scatter(n.to_bits() ^ 2),
            Field::Text(bytes) => hash(3, bytes),
            Field::Blob(bytes) => hash(4, bytes),
        };
        self.0 = self.0.wrapping_add(fields.iter().fold(5, |sum, field| scatter(sum ^ number(field))));
        Ok(())
    }
}

/// The files of a store that has lived, and what is seen of it; the same without its newest transaction.
struct Lived {
    bench: Bench,
    cfg: StoreConfig,
    image: Image,
    whole: Seen,
    without_newest: Seen,
    /// Where the newest transaction begins in the log.
    newest_at: usize,
    /// What was seen of recovered files, by their content: most bits of the log are of no use any more.
    known: Mutex<HashMap<u64, Seen>>,
}

impl Lived {
    fn new() -> Self {
        let (bench, dir) = (Bench::new(), directory());
        let cfg = StoreConfig { path: dir.path().join("v.db"), max_size_bytes: 512 << 10, ..bench.cfg.clone() };
        let mut store = Store::open(&cfg, &bench.me, at(0)).expect("a store").0;
        let anchor = Anchor { boot: at(1).boot, utc: at(1).utc, trusted: true };
        put_with(&mut store, 5, 10, 1, &[anchor]).expect("committed");
        (1..40).for_each(|round| drop(put(&mut store, 4, 8, round * 100).expect("committed")));
        let acked = SeqRange::new(1, 20).expect("a range");
        store.set_acked(store.uuid(), RangeSet::from_iter([acked])).expect("acknowledged");
        store.skip_above(crate::reading::SegmentSeq(store.next_seq().0 + 2), at(4_100)).expect("left out");
        compact_all(&mut store, at(9_000));
        let hours = store.conn.query_row("SELECT count(*) FROM rollup", [], |row| row.get::<_, i64>(0));
        assert!(hours.expect("figures") > 0, "no figures of hours");
        store.checkpoint().expect("folded");
        (0..12).for_each(|round| drop(put(&mut store, 3, 4, 10_000 + round * 20).expect("committed")));
        let before = files(&cfg);
        put(&mut store, 3, 4, 11_000).expect("committed");
        let image = files(&cfg);
        drop(store);
        let mut lived = Self {
            bench,
            cfg,
            image,
            whole: Seen::default(),
            without_newest: Seen::default(),
            newest_at: end(&before["v.db-wal"]),
            known: Mutex::default(),
        };
        lived.without_newest = lived.open(dir.path(), &before).expect("a store before it").1;
        lived.whole = lived.open(dir.path(), &lived.image).expect("a store").1;
        assert_ne!(lived.whole, lived.without_newest);
        lived
    }

    /// Opens and reads all: whether something was told, and what is seen.
    fn open(&self, dir: &std::path::Path, image: &Image) -> Result<(bool, Seen), String> {
        lay_out(dir, image);
        let cfg = StoreConfig { path: dir.join("v.db"), ..self.cfg.clone() };
        let (store, events) = Store::open(&cfg, &self.bench.me, at(20_000)).map_err(|e| e.to_string())?;
        if !events.is_empty() {
            return Ok((true, Seen::default()));
        }
        let content = recovered(dir);
        if let Some(seen) = self.known.lock().expect("unpoisoned").get(&content) {
            return Ok((false, seen.clone()));
        }
        let session = Session::open(&cfg.path).map_err(|e| e.to_string())?;
        let mut seen = Seen::default();
        for (what, sql) in SEEN {
            let mut sum = Sum::default();
            session.run(sql, &mut sum).map_err(|e| format!("{what}: {e:?}"))?;
            seen.0.insert(what, sum.0);
        }
        if session.tally().unreadable > 0 {
            return Err(session.tally().reasons.join("; "));
        }
        seen.0.insert("numbers", store.lines.iter().map(|line| line.high.0).sum());
        self.known.lock().expect("unpoisoned").insert(content, seen.clone());
        Ok((false, seen))
    }

    /// Flips one bit, and sees what comes of it. For what is silent, what of all that is seen has changed.
    fn flip(&self, dir: &std::path::Path, name: &str, at: usize, bit: u32) -> (Outcome, String) {
        let mut image = self.image.clone();
        image.get_mut(name).expect("a file")[at] ^= 1 << bit;
        let seen = match self.open(dir, &image) {
            Err(why) => return (Outcome::Error, why),
            Ok((true, _)) => return (Outcome::Alarm, String::new()),
            Ok((false, seen)) => seen,
        };
        if seen == self.whole {
            return (Outcome::Harmless, String::new());
        }
        let in_newest = name == "v.db-wal" && at >= self.newest_at;
        if in_newest && seen == self.without_newest {
            return (Outcome::Newest, String::new());
        }
        let changed = seen.0.iter().filter(|(what, sum)| self.whole.0.get(*what) != Some(sum));
        let changed: Vec<&str> = changed.map(|(what, _)| *what).collect();
        (Outcome::Silent, changed.join(" and "))
    }
}

fn files(cfg: &StoreConfig) -> Image {
    let dir = cfg.path.parent().expect("a directory");
    let read = |name: &str| std::fs::read(dir.join(name)).ok().map(|bytes| (name.to_owned(), bytes));
    ["v.db", "v.db-wal", "v.db-high-water"].into_iter().filter_map(read).collect()
}

/// Where the live frames of a log end (sqlite.org/fileformat2.html §4). Of the last of them, a copy, the store may hold back
/// what is in the next block: it is part of the transaction before all the same.
fn end(log: &[u8]) -> usize {
    32 + 536 * log[32..].chunks(536).take_while(|frame| frame.len() > 16 && frame[8..16] == log[16..24]).count()
}

/// The bytes to flip a bit in: all of them, or so many, evenly.
fn places(image: &Image, wanted: u64) -> Vec<(&str, usize)> {
    let all: Vec<(&str, usize)> =
        image.iter().flat_map(|(name, bytes)| (0..bytes.len()).map(move |at| (name.as_str(), at))).collect();
    let step = if is_full() { 1 } else { (all.len() as u64 / wanted.max(1)).max(1) as usize };
    all.into_iter().step_by(step).collect()
}

/// No single bit changes, takes or invents a reading, a figure, a loss or an acknowledgement without a word.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let lived = Lived::new();
    let wanted = if is_full() || cfg!(debug_assertions) { scaled(10_500) } else { 10_500 };
    let places = places(&lived.image, wanted);
    let next = Mutex::new(places.iter());
    let sums = Mutex::new(BTreeMap::<(String, Outcome), u64>::new());
    let silent = Mutex::new(BTreeMap::<String, (u64, String)>::new());
    let begun = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let dir = directory();
        let _memory = files::Directory::new(dir.path());
        loop {
            let Some((name, at)) = next.lock().expect("unpoisoned").next().copied() else { return };
            let bit = Chance::new(at as u64 ^ seed().unwrap_or(0)).below(8) as u32;
            let (outcome, what) = lived.flip(dir.path(), name, at, bit);
            *sums.lock().expect("unpoisoned").entry((name.to_owned(), outcome)).or_default() += 1;
            if outcome == Outcome::Silent {
                let mut silent = silent.lock().expect("unpoisoned");
                let (n, first) = silent.entry(format!("{name}: {what}")).or_default();
                *n += 1;
                if *n <= 12 {
                    first.push_str(&format!(" {at}.{bit}"));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (sums, silent) = (sums.into_inner().expect("unpoisoned"), silent.into_inner().expect("unpoisoned"));
    println!("flipped bits: {} in {:.0} s", places.len(), begun.elapsed().as_secs_f64());
    sums.iter().for_each(|((name, outcome), n)| println!("flipped bits: {name}: {outcome:?} {n}"));
    silent.iter().for_each(|(what, (n, first))| println!("flipped bits: no word of: {what}: {n}, byte.bit{first}"));
    assert!(places.len() as u64 >= scaled(10_000).min(places.len() as u64 + u64::from(!is_full())), "too few");
    assert!(silent.is_empty(), "{silent:?}");
}

/// Negative control: were the checksums of bodies not looked at, bits that rot in the database would change readings.
#[test]
fn without_checksums_flipped_bits_change_readings() {
    let lived = Lived::new();
    let (dir, mut silent, mut tried) = (directory(), 0, 0);
    let _memory = files::Directory::new(dir.path());
    crate::segment::UNCHECKED.set(true);
    for at in (0..lived.image["v.db"].len()).step_by(97) {
        tried += 1;
        let (outcome, what) = lived.flip(dir.path(), "v.db", at, 3);
        silent += u64::from(outcome == Outcome::Silent && what.contains("readings"));
        if silent >= 3 {
            break;
        }
    }
    crate::segment::UNCHECKED.set(false);
    println!("flipped bits: without checksums: {silent} of {tried} change readings and say nothing");
    assert!(silent >= 3, "{silent} of {tried}");
}
