//! The seeds, and the faults that are planted to see that the checks can fail.

use super::Figures;
use super::plan::Fault;
use super::world;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Hours of a month.
const MONTH_HOURS: i64 = 30 * 24;

/// After so many bad seeds the rest are left alone.
const ENOUGH_BAD: usize = 10;

/// The stories of a range of seeds, told by as many threads as the machine has.
struct Proof {
    hours: i64,
    seeds: Range<u64>,
    next: AtomicU64,
    began: Instant,
    told: Mutex<Told>,
}

/// What has come of them so far.
#[derive(Default)]
struct Told {
    stories: u64,
    figures: Figures,
    bad: Vec<String>,
    /// Minutes after the beginning at which it was last said how far it is.
    said: u64,
}

impl Proof {
    /// Stories of so many hours, of all seeds from 0 on; the range `VARVED_SEEDS`, such as `1000..2000`, instead.
    fn new(hours: i64, seeds: u64) -> Self {
        let chosen = std::env::var("VARVED_SEEDS").ok().filter(|range| !range.is_empty());
        let seeds = chosen.map_or(0..seeds, |range| {
            let ends = range.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
            ends.unwrap_or_else(|| panic!("VARVED_SEEDS is {range:?}; write it as 1000..2000"))
        });
        let next = AtomicU64::new(seeds.start);
        Self { hours, seeds, next, began: Instant::now(), told: Mutex::default() }
    }

    fn work(&self) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if !self.seeds.contains(&seed) {
                return;
            }
            let story = tell(seed, self.hours, None);
            let mut told = self.told.lock().expect("no thread panics with it");
            told.stories += 1;
            match story {
                Ok(figures) => told.figures += figures,
                Err(why) => {
                    told.bad.push(format!("seed {seed}: {why}"));
                    self.say(&format!("seed {seed}: {why}"));
                }
            }
            if told.bad.len() >= ENOUGH_BAD {
                self.next.store(self.seeds.end, Ordering::Relaxed);
            }
            let minutes = self.began.elapsed().as_secs() / 60;
            if is_full() && minutes > told.said {
                told.said = minutes;
                self.say(&format!("{} stories in {minutes} min, {} bad", told.stories, told.bad.len()));
            }
        }
    }

    /// Where it is seen at once, also where the output of tests is kept until they end.
    fn say(&self, line: &str) {
        let range = &self.seeds;
        let _ = writeln!(std::io::stderr(), "simulation, seeds {range:?} of {} h: {line}", self.hours);
    }
}

fn is_full() -> bool {
    std::env::var("VARVED_FULL").is_ok_and(|v| !v.is_empty() && v != "0")
}

fn tell(seed: u64, hours: i64, fault: Option<Fault>) -> Result<Figures, String> {
    let here = Path::new("/dev/shm");
    let dir = if here.is_dir() { tempfile::tempdir_in(here) } else { tempfile::tempdir() };
    world::tell(seed, hours, fault, dir.expect("a directory").path())
}

/// Hours and seeds of trouble at its densest: a little in a debug build, the proof in a release build, all of it with
/// `VARVED_FULL`.
fn storms() -> (i64, u64) {
    match (is_full(), cfg!(debug_assertions)) {
        (true, _) => (24, 5000),
        (false, false) => (6, 1000),
        (false, true) => (6, 8),
    }
}

/// Hours and seeds of long lives: with the storms three years, more than forty with `VARVED_FULL`.
fn months() -> (i64, u64) {
    match (is_full(), cfg!(debug_assertions)) {
        (true, _) => (MONTH_HOURS, 366),
        (false, false) => (MONTH_HOURS, 29),
        (false, true) => (MONTH_HOURS / 10, 2),
    }
}

/// Whatever happens on the way, what was committed arrives once, or its loss does.
#[test]
fn nothing_is_lost_or_doubled() {
    is_told_well(storms());
}

/// Nor in months, in which files fill and are compacted, anchors are thinned, and numbers grow.
#[test]
fn nothing_is_lost_or_doubled_in_months() {
    is_told_well(months());
}

fn is_told_well((hours, seeds): (i64, u64)) {
    let proof = Proof::new(hours, seeds);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| proof.work()))));
    let Told { stories, figures, bad, .. } = proof.told.into_inner().expect("no thread panicked");
    println!("{stories} stories of {hours} h in {:.1} s: {figures:#?}", proof.began.elapsed().as_secs_f64());
    assert!(
        bad.is_empty(),
        "{} of {stories} stories are bad:\n{}\n  again: VARVED_SEED=… VARVED_HOURS={hours} cargo test --release --lib \
         simulation::tests::one_seed -- --nocapture",
        bad.len(),
        bad.join("\n")
    );
}

/// One seed again: `VARVED_SEED`, and `VARVED_HOURS` where it was not six.
#[test]
fn one_seed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse::<u64>().ok());
    let seed = number("VARVED_SEED").unwrap_or(0);
    let hours = number("VARVED_HOURS").unwrap_or(6) as i64;
    let first = tell(seed, hours, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    println!("seed {seed}: {first:#?}");
    assert_eq!(tell(seed, hours, None), Ok(first), "a seed tells the same story again");
}

/// A planted fault is found in a few stories, by the words of the check that is there for it.
fn is_caught(fault: Fault, words: &[&str]) {
    let found = |seed| Some(format!("seed {seed}: {}", tell(seed, 6, Some(fault)).err()?));
    let verdicts: Vec<String> = (0..24).filter_map(found).take(2).collect();
    println!("{fault:?}: {verdicts:#?}");
    assert!(!verdicts.is_empty(), "{fault:?} was not noticed");
    for verdict in &verdicts {
        assert!(words.iter().any(|word| verdict.contains(word)), "{fault:?} was noticed by chance: {verdict}");
    }
}

/// A receiver that acknowledges before its commit is found out at the next start.
#[test]
fn an_ack_before_the_commit_is_caught() {
    is_caught(Fault::AckBeforeCommit, &["acks named"]);
}

/// A receiver that files what comes twice as news holds it twice, or cannot file it at all.
#[test]
fn a_receiver_without_dedup_is_caught() {
    is_caught(Fault::NoDedup, &["is worth", "a conflict in"]);
}

/// What vanishes in a client that takes messages for a connection to come is missed, once it counts as delivered.
#[test]
fn a_persistent_channel_is_caught() {
    is_caught(Fault::PersistentChannel, &["accounts for", "which did not happen"]);
}

/// A device that does not listen to acks never comes to rest.
#[test]
fn ignored_acks_are_caught() {
    is_caught(Fault::AcksIgnored, &["still pending"]);
}

/// A device that lets go before the ack leaves a gap.
#[test]
fn deleting_before_the_ack_is_caught() {
    is_caught(Fault::DeletesBeforeAck, &["accounts for", "which did not happen"]);
}
