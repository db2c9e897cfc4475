//! How much is done: workloads over seeds and threads until enough distinct images were looked at, and the table of it.
//!
//! What enters: workloads, each with the least number of distinct images it must bring. What leaves: that nothing was bad,
//! that each brought its share, and the counts.

use super::chance::Chance;
use super::medium::SHAPES;
use super::proof::{Case, Effort, Figures, Proof};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of work to cut the power in.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Thousands of distinct images that are aimed at, see [`scaled`].
    pub(crate) thousands: u64,
    /// Images per boundary, at most.
    pub(crate) most_per_boundary: usize,
    /// Runs it with a seed.
    pub(crate) case: fn(&str, u64) -> Case,
}

/// Seeds after which a workload that brings too little is given up.
const MOST_SEEDS: u64 = 20_000;

/// How much of what is aimed at: all of it, a fortieth in a debug build, 34 times as much with `VARVED_FULL`.
pub(crate) fn scaled(aim: u64) -> u64 {
    match (is_full(), cfg!(debug_assertions)) {
        (true, _) => aim * 34,
        (false, false) => aim,
        (false, true) => aim / 40,
    }
}

/// Whether everything is to be done that can be.
pub(crate) fn is_full() -> bool {
    std::env::var("VARVED_FULL").is_ok_and(|v| !v.is_empty())
}

/// The seed that is replayed, if one is.
pub(crate) fn seed() -> Option<u64> {
    std::env::var("VARVED_SEED").ok().map(|seed| seed.parse().expect("VARVED_SEED is a number"))
}

/// Whether it is to be run: `VARVED_WORKLOAD` leaves one.
fn is_wanted(workload: &Workload) -> bool {
    std::env::var("VARVED_WORKLOAD").map_or(true, |only| only == workload.name)
}

/// Whether this is to be a whole proof, and not the replay of a part.
pub(crate) fn is_whole() -> bool {
    seed().is_none() && std::env::var_os("VARVED_WORKLOAD").is_none()
}

/// What one workload brought.
#[derive(Default)]
struct Sum {
    figures: Figures,
    seen: HashSet<u64>,
    seeds: u64,
    time: Duration,
}

/// Cuts the power at every boundary of every workload, seed after seed, on all processors, and again while a share of the images
/// is recovered; nothing may be bad, and each workload must bring its share.
pub(crate) fn cut(title: &str, workloads: &[Workload]) -> Figures {
    let sums: Vec<Mutex<Sum>> = workloads.iter().map(|_| Mutex::default()).collect();
    let next = Mutex::new((0, 1));
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((which, seed)) = hand_out(&next, &sums, workloads) {
                    one(&workloads[which], seed, &sums[which]);
                }
            });
        }
    });
    let sums = sums.into_iter().map(|sum| sum.into_inner().unwrap_or_else(PoisonError::into_inner));
    account(title, workloads, sums.collect(), begun.elapsed())
}

/// The next workload that lacks images, with its next seed. While others still work on the same it may be begun once more.
fn hand_out(next: &Mutex<(usize, u64)>, sums: &[Mutex<Sum>], workloads: &[Workload]) -> Option<(usize, u64)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    while next.0 < workloads.len() {
        let (which, no) = *next;
        let sum = sums[which].lock().unwrap_or_else(PoisonError::into_inner);
        let enough = sum.figures.images >= scaled(workloads[which].thousands * 1000);
        let replayed = seed().is_some() && no > 1;
        if enough || replayed || !is_wanted(&workloads[which]) || no > MOST_SEEDS || sum.figures.bad_count > 0 {
            *next = (which + 1, 1);
            continue;
        }
        next.1 += 1;
        return Some((which, seed().unwrap_or(no)));
    }
    None
}

fn one(workload: &Workload, seed: u64, sum: &Mutex<Sum>) {
    let begun = Instant::now();
    let case = (workload.case)(&format!("{}, VARVED_SEED={seed}", workload.name), seed);
    let mut proof = Proof::default();
    let effort = Effort::of(&case, scaled(workload.thousands * 1000) * 3 / 2, workload.most_per_boundary);
    proof.run(&case, effort, &mut Chance::new(seed ^ 0xC07));
    let (seen, figures) = proof.into_seen();
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    let before = sum.seen.len() + seen.len();
    sum.seen.extend(seen);
    let twice = before - sum.seen.len();
    sum.figures.add(figures);
    // An image that came up under another seed too is one.
    sum.figures.images -= twice as u64;
    sum.seeds += 1;
    sum.time += begun.elapsed();
}

fn account(title: &str, workloads: &[Workload], sums: Vec<Sum>, took: Duration) -> Figures {
    let mut all = Figures::default();
    println!(
        "{title}: workload | seeds | boundaries | distinct images | of cut recoveries | bad | images a second and thread"
    );
    let mut short = Vec::new();
    for (workload, sum) in workloads.iter().zip(sums) {
        let (name, figures) = (workload.name, sum.figures);
        let rate = (figures.images + figures.again) as f64 / sum.time.as_secs_f64();
        let (images, again, bad) = (figures.images, figures.again, figures.bad_count);
        println!("{title}: {name} | {} | {} | {images} | {again} | {bad} | {rate:.0}", sum.seeds, figures.boundaries);
        if images < scaled(workload.thousands * 1000) && seed().is_none() && is_wanted(workload) {
            short.push(format!("{name}: {images} images are not enough"));
        }
        all.add(figures);
    }
    let shapes = SHAPES.map(|shape| format!("{shape:?} {}", all.shapes.get(&shape).copied().unwrap_or(0))).join(", ");
    println!(
        "{title}: all | | {} | {} | {} | {} | in {:.0} s; {shapes}",
        all.boundaries,
        all.images,
        all.again,
        all.bad_count,
        took.as_secs_f64()
    );
    assert_eq!(all.bad_count, 0, "{}", all.bad.join("\n"));
    assert!(short.is_empty(), "{}", short.join("\n"));
    all
}
