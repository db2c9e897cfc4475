//! The seeds, and the faults that are planted to see that the checks can fail.

use super::Figures;
use super::plan::Fault;
use super::world;

/// Hours and seeds: a little in a debug build, the proof in a release build, all of it with `VARVED_FULL`.
fn size() -> (i64, u64) {
    let full = std::env::var("VARVED_FULL").is_ok_and(|v| !v.is_empty() && v != "0");
    match (full, cfg!(debug_assertions)) {
        (true, _) => (24, 5000),
        // As many as fit beside the other tests.
        (false, false) => (6, 200),
        (false, true) => (6, 8),
    }
}

fn tell(seed: u64, hours: i64, fault: Option<Fault>) -> Result<Figures, String> {
    let here = std::path::Path::new("/dev/shm");
    let dir = if here.is_dir() { tempfile::tempdir_in(here) } else { tempfile::tempdir() };
    world::tell(seed, hours, fault, dir.expect("a directory").path())
}

/// The `part`th of `PARTS` shares of the seeds.
fn tell_part(part: u64) {
    let (hours, seeds) = size();
    let (began, mut sum) = (std::time::Instant::now(), Figures::default());
    for seed in (0..seeds).filter(|seed| seed % PARTS == part) {
        match tell(seed, hours, None) {
            Ok(figures) => sum += figures,
            Err(why) => panic!(
                "seed {seed}: {why}\n  again: VARVED_SEED={seed} cargo test --release --lib simulation::tests::one_seed -- --nocapture"
            ),
        }
    }
    println!("part {part}: {} stories in {:.1} s: {sum:#?}", seeds / PARTS, began.elapsed().as_secs_f64());
}

const PARTS: u64 = 4;

/// Whatever happens on the way, what was committed arrives once, or its loss does. The first share of the seeds.
#[test]
fn nothing_is_lost_or_doubled_1() {
    tell_part(0);
}

/// The second share.
#[test]
fn nothing_is_lost_or_doubled_2() {
    tell_part(1);
}

/// The third share.
#[test]
fn nothing_is_lost_or_doubled_3() {
    tell_part(2);
}

/// The fourth share.
#[test]
fn nothing_is_lost_or_doubled_4() {
    tell_part(3);
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
