//! Power cuts in every kind of work, and the proof that the proof can fail.
//!
//! `VARVED_SEED` replays one seed; `VARVED_FULL` does much more of everything.

use super::super::event::EventKind;
use super::chance::Chance;
use super::log::Lies;
use super::medium::Threat;
use super::proof::{Effort, Figures, Proof};
use super::work::{Broken, Work};
use std::time::Instant;

/// Bad images of a negative control: enough to know.
const ENOUGH: u64 = 3;

struct Scale {
    seeds: u64,
    effort: Effort,
}

/// A debug build looks at some hundred images, a release build at some thousand, `VARVED_FULL` at every boundary of many seeds.
fn scale() -> Scale {
    let full = std::env::var("VARVED_FULL").is_ok_and(|v| !v.is_empty());
    let (seeds, boundaries, per_boundary) = match (full, cfg!(debug_assertions)) {
        (true, _) => (40, usize::MAX, 12),
        (false, false) => (2, 120, 3),
        (false, true) => (1, 16, 3),
    };
    let effort = Effort { boundaries, per_boundary, again_one_in: 4, again: 2, most_bad: 20, until_lost: false };
    Scale { seeds, effort }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("VARVED_SEED") {
        Ok(seed) => vec![seed.parse().expect("VARVED_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// Runs `work` for some seeds and cuts the power everywhere; nothing may be bad.
fn survives(name: &str, threat: Threat, work: fn(&mut Work)) {
    let scale = scale();
    let begun = Instant::now();
    let mut proof = Proof::default();
    for seed in seeds(scale.seeds) {
        let mut doing = Work::begin(seed, Broken::default());
        work(&mut doing);
        let case = doing.end(&format!("{name}, VARVED_SEED={seed}"), threat);
        proof.run(&case, scale.effort, &mut Chance::new(seed ^ 0xC07));
    }
    tell(name, &proof.figures, begun);
    assert_eq!(proof.figures.bad_count, 0, "{}", proof.figures.bad.join("\n"));
    assert!(proof.figures.images > 15, "{} images are no proof", proof.figures.images);
}

/// Runs `work` with a protection switched off; something that was acknowledged must be lost.
fn is_caught(name: &str, threat: Threat, broken: Broken, work: fn(&mut Work)) {
    shows(name, threat, broken, true, work);
}

/// Runs `work` with a protection switched off; something must be lost, or, unless `until_lost`, bad in another way.
fn shows(name: &str, threat: Threat, broken: Broken, until_lost: bool, work: fn(&mut Work)) {
    let begun = Instant::now();
    let mut proof = Proof::default();
    let signs = |figures: &Figures| if until_lost { figures.lost } else { figures.bad_count };
    let effort =
        Effort { boundaries: 100, per_boundary: 6, again_one_in: usize::MAX, again: 0, most_bad: ENOUGH, until_lost };
    for seed in seeds(20) {
        let mut doing = Work::begin(seed, broken);
        work(&mut doing);
        let case = doing.end(&format!("{name}, VARVED_SEED={seed}"), threat);
        proof.run(&case, effort, &mut Chance::new(seed));
        if signs(&proof.figures) >= ENOUGH {
            break;
        }
    }
    tell(name, &proof.figures, begun);
    assert!(signs(&proof.figures) >= ENOUGH, "{name} goes unnoticed: {:?}", proof.figures);
}

fn tell(name: &str, figures: &Figures, begun: Instant) {
    let Figures { boundaries, images, again, shapes, bad_count, lost, bad } = figures;
    let rate = (images + again) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "crash: {name}: {boundaries} boundaries, {images} images, {again} cut again, {bad_count} bad, {lost} of them lost something; {rate:.0}/s; {shapes:?}"
    );
    bad.iter().for_each(|why| println!("  {why}"));
}

/// A day in small: commits of every size, checkpoints, a stop, a start.
fn commits(work: &mut Work) {
    work.open();
    for _ in 0..12 {
        match work.chance.below(10) {
            0..=6 => {
                let (series, n) = (1 + work.chance.below(30) as u32, 1 + work.chance.below(40));
                work.commit(series, n);
            }
            7 => work.checkpoint(),
            8 => {
                work.close();
                work.open();
            }
            _ => {
                work.drop_store();
                work.open();
            }
        }
    }
    work.commit(60, 60);
    work.checkpoint();
    work.commit(3, 3);
    work.close();
}

/// The file is made, or not; with the first commit it stays.
#[test]
fn a_power_cut_while_the_file_is_made_leaves_a_store() {
    survives("creation", Threat::Garbage, |work| {
        work.open();
        work.commit(3, 5);
    });
}

/// Promise 1, where the 4 KiB in flight turn to garbage.
#[test]
fn a_power_cut_loses_no_commit() {
    survives("commits", Threat::Garbage, commits);
}

/// The same without shared memory.
#[test]
fn a_power_cut_loses_no_commit_of_an_exclusive_store() {
    survives("exclusive", Threat::Garbage, |work| {
        work.exclusive();
        commits(work);
    });
}

/// The same on media that keep the neighbours of a torn write, where a checkpoint needs nothing before it.
#[test]
fn a_power_cut_loses_no_commit_on_a_medium_that_keeps_neighbours() {
    survives("powersafe", Threat::NeighboursKept, |work| {
        work.cfg.powersafe = true;
        commits(work);
    });
}

/// A reader holds on while the log grows; checkpoints get only so far.
#[test]
fn a_power_cut_behind_a_held_reader_loses_nothing() {
    survives("held reader", Threat::Garbage, |work| {
        work.open();
        work.commit(20, 20);
        for _ in 0..3 {
            work.hold();
            work.commit(10, 10);
            work.checkpoint();
            work.commit(5, 30);
            work.let_go();
            work.checkpoint();
            work.commit(2, 2);
        }
        work.close();
    });
}

/// What is joined is there before or after, never twice and never not.
#[test]
fn power_cut_during_compaction_loses_nothing_committed() {
    survives("compaction", Threat::Garbage, |work| {
        work.open();
        for _ in 0..20 {
            let n = 1 + work.chance.below(20);
            work.commit(5, n);
        }
        assert!(work.compact() > 0, "nothing was joined");
        work.commit(2, 2);
        work.checkpoint();
        work.close();
    });
}

/// What the fleet has goes, what it hasn't becomes a loss; both at once or not at all.
#[test]
fn power_cut_during_expiry_leaves_readings_or_their_loss() {
    survives("expiry", Threat::Garbage, |work| {
        work.cfg.max_size_bytes = 512 << 10;
        work.open();
        let mut worked = 0;
        for round in 0..14 {
            work.commit(40, 400 + round);
            if round == 6 {
                work.acknowledge(2);
            }
            worked += work.expire();
        }
        assert!(worked > 0, "nothing had to go");
        work.close();
    });
}

/// Pages are given back after the limit was lowered.
#[test]
fn power_cut_during_vacuum_loses_nothing() {
    survives("vacuum", Threat::Garbage, |work| {
        work.cfg.max_size_bytes = 4 << 20;
        work.open();
        (0..16).for_each(|_| work.commit(40, 1600));
        work.acknowledge(1);
        work.close();
        work.cfg.max_size_bytes = 512 << 10;
        work.open();
        let before = work.store().facts().unwrap().pages;
        work.expire();
        work.vacuum();
        assert!(work.store().facts().unwrap().pages < before / 2, "nothing was given back");
        work.commit(5, 5);
        work.close();
        // Under the limit of before, so that a recovery has no room to make.
        work.cfg.max_size_bytes = 4 << 20;
    });
}

/// Another page size: the file is written anew, and one of both is there.
#[test]
fn power_cut_during_a_rebuild_leaves_one_of_both_files() {
    survives("rebuild", Threat::Garbage, |work| {
        work.open();
        (0..4).for_each(|_| work.commit(10, 10));
        work.close();
        work.make_pages_larger();
        work.settle();
        work.may_report(&[EventKind::Rebuild]);
        work.open();
        work.commit(3, 3);
        work.close();
    });
}

/// A damaged file is set aside and what is whole of it taken over, also when the power goes in the middle of that, however
/// often.
#[test]
fn power_cut_during_quarantine_loses_nothing_that_was_readable() {
    survives("quarantine", Threat::Garbage, |work| {
        work.open();
        for _ in 0..8 {
            work.commit(20, 40);
        }
        work.close();
        work.spoil();
        work.settle();
        work.may_report(&[EventKind::Quarantine, EventKind::Salvage]);
        work.open_spoiled();
        work.commit(3, 3);
        work.close();
    });
}

/// A fresh id in mid run, and one that a recheck takes, where that is what begins the log anew.
#[test]
fn power_cut_while_a_fresh_id_is_taken_loses_nothing() {
    survives("fresh id", Threat::Garbage, |work| {
        work.open();
        work.commit(5, 5);
        work.take_fresh_id();
        work.commit(5, 5);
        work.checkpoint();
        work.recheck();
        work.commit(5, 5);
        work.close();
        work.open();
        work.commit(1, 1);
    });
}

/// Negative control: a medium that says it has flushed and has not.
#[test]
fn a_lying_flush_is_caught() {
    let broken = Broken { lies: Lies { fsync: true }, ..Broken::default() };
    is_caught("lying flush", Threat::Garbage, broken, commits);
}

/// Negative control: without FULL a commit is not on the medium when it returns.
#[test]
fn synchronous_normal_is_caught() {
    is_caught("NORMAL", Threat::Garbage, Broken { normal: true, ..Broken::default() }, commits);
}

/// Negative control: checkpoints without their blocks whole, on a medium that loses whole blocks. The file no longer opens.
#[test]
fn powersafe_on_a_medium_that_is_not_is_caught() {
    shows("powersafe among garbage", Threat::Garbage, Broken::default(), false, |work| {
        work.cfg.powersafe = true;
        commits(work);
    });
}

/// Negative control: acknowledged before it was committed.
#[test]
fn an_early_acknowledgement_is_caught() {
    is_caught("early", Threat::Garbage, Broken { early: true, ..Broken::default() }, commits);
}
