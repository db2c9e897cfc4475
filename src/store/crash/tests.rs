//! Power cuts in every kind of work, and the proof that the proof can fail.
//!
//! `VARVED_SEED` replays one seed, `VARVED_WORKLOAD` one workload; `VARVED_FULL` does much more of everything.

use super::super::event::EventKind;
use super::super::high_water::HighWater;
use super::chance::Chance;
use super::change::Change;
use super::log::Lies;
use super::medium::{Image, Medium, Shape, Threat};
use super::proof::{Case, Effort, Figures, Known, Proof, lay_out};
use super::run::{Workload, cut, is_whole, scaled, seed};
use super::work::{Broken, Work};
use std::time::Instant;

/// The mark beside the database.
const MARK: &str = "v.db-high-water";

/// Bad images of a negative control: enough to know.
const ENOUGH: u64 = 3;

/// What the power is cut in, and how many thousand distinct images of each there have to be.
const WORKLOADS: [Workload; 14] = [
    of("creation", 4, |name, seed| run(name, seed, Threat::Garbage, creation)),
    of("commits", 8, |name, seed| run(name, seed, Threat::Garbage, commits)),
    of("exclusive", 4, |name, seed| run(name, seed, Threat::Garbage, exclusive)),
    of("powersafe", 4, |name, seed| run(name, seed, Threat::NeighboursKept, powersafe)),
    of("held reader", 4, |name, seed| run(name, seed, Threat::Garbage, held_reader)),
    of("compaction", 5, |name, seed| run(name, seed, Threat::Garbage, compaction)),
    of("expiry", 5, |name, seed| run(name, seed, Threat::Garbage, expiry)),
    of("vacuum", 4, |name, seed| run(name, seed, Threat::Garbage, vacuum)),
    of("rebuild", 4, |name, seed| run(name, seed, Threat::Garbage, rebuild)),
    of("quarantine", 4, |name, seed| run(name, seed, Threat::Garbage, quarantine)),
    of("fresh id", 4, |name, seed| run(name, seed, Threat::Garbage, fresh_id)),
    of("upgrade", 4, |name, seed| run(name, seed, Threat::Garbage, upgrade)),
    of("rollback", 4, |name, seed| run(name, seed, Threat::Garbage, rollback)),
    of("high water", 4, |name, seed| run(name, seed, Threat::Garbage, high_water)),
];

const fn of(name: &'static str, thousands: u64, case: fn(&str, u64) -> Case) -> Workload {
    Workload { name, thousands, most_per_boundary: 60, case }
}

fn run(name: &str, seed: u64, threat: Threat, work: fn(&mut Work)) -> Case {
    let mut doing = Work::begin(seed, Broken::default());
    work(&mut doing);
    doing.end(name, threat)
}

/// Promise 1: in whatever the store was doing, and also while it was being recovered from the cut before, a power cut takes
/// nothing that was acknowledged, leaves a whole file, and raises no alarm; the 4 KiB in flight may turn to garbage.
#[test]
fn a_power_cut_loses_no_commit() {
    let figures = cut("power cuts", &WORKLOADS);
    if is_whole() {
        assert!(figures.images >= scaled(60_000), "{} images", figures.images);
        assert!(figures.again >= scaled(30_000).min(300_000), "{} cuts of recoveries", figures.again);
    }
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
        Effort { one_in: 1, per_boundary: 6, again_one_in: usize::MAX, again: 0, most_bad: ENOUGH, until_lost };
    for seed in seed().map_or(1..=20, |seed| seed..=seed) {
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
fn creation(work: &mut Work) {
    work.open();
    work.commit(3, 5);
}

/// The same without shared memory.
fn exclusive(work: &mut Work) {
    work.exclusive();
    commits(work);
}

/// The same on media that keep the neighbours of a torn write, where a checkpoint needs nothing before it.
fn powersafe(work: &mut Work) {
    work.cfg.powersafe = true;
    commits(work);
}

/// A reader holds on while the log grows; checkpoints get only so far.
fn held_reader(work: &mut Work) {
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
}

/// What is joined is there before or after, never twice and never not.
fn compaction(work: &mut Work) {
    work.open();
    for _ in 0..20 {
        let n = 1 + work.chance.below(20);
        work.commit(5, n);
    }
    assert!(work.compact() > 0, "nothing was joined");
    work.commit(2, 2);
    work.checkpoint();
    work.close();
}

/// What the fleet has goes, what it hasn't becomes a loss; both at once or not at all.
fn expiry(work: &mut Work) {
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
}

/// Pages are given back after the limit was lowered.
fn vacuum(work: &mut Work) {
    work.cfg.max_size_bytes = 4 << 20;
    work.open();
    (0..16).for_each(|_| work.commit(40, 1600));
    work.acknowledge(1);
    work.close();
    // How it came to be so large is cut in other workloads.
    work.settle();
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
}

/// Another page size: the file is written anew, and one of both is there.
fn rebuild(work: &mut Work) {
    work.open();
    (0..4).for_each(|_| work.commit(10, 10));
    work.close();
    work.make_pages_larger();
    work.settle();
    work.may_report(&[EventKind::Rebuild]);
    work.open();
    work.commit(3, 3);
    work.close();
}

/// A damaged file is set aside and what is whole of it taken over, also when the power goes in the middle of that, however
/// often.
fn quarantine(work: &mut Work) {
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
}

/// A fresh id in mid run, and one that a recheck takes, where that is what begins the log anew.
fn fresh_id(work: &mut Work) {
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
}

/// A newer version opens the file of an older one, which lacks a table; an older one that of a newer, which has more.
fn upgrade(work: &mut Work) {
    work.open();
    (0..4).for_each(|_| work.commit(8, 10));
    work.close();
    match work.chance.one_in(2) {
        true => work.rewrite("DROP TABLE rollup_day; UPDATE meta SET value = 0 WHERE key = 'format_minor'"),
        false => work.rewrite(
            "CREATE TABLE of_later (id INTEGER PRIMARY KEY, what TEXT) STRICT; \
             ALTER TABLE segment ADD COLUMN of_later INTEGER; \
             UPDATE meta SET value = 2 WHERE key = 'format_minor'; INSERT INTO meta VALUES ('of_later', 'x')",
        ),
    }
    work.settle();
    work.open();
    work.commit(9, 3);
    work.commit(2, 2);
    work.checkpoint();
    work.commit(1, 1);
    work.close();
}

/// The firmware is put back to one that can't read the file: it records beside it, and never writes to it.
fn rollback(work: &mut Work) {
    work.open();
    (0..4).for_each(|_| work.commit(8, 10));
    work.close();
    work.rewrite("UPDATE meta SET value = 2 WHERE key = 'format_major'");
    work.settle();
    work.open_beside_a_newer_one();
    work.commit(9, 3);
    work.commit(2, 2);
    work.checkpoint();
    work.commit(1, 1);
    work.close();
    work.open();
    work.commit(4, 4);
    work.close();
}

/// The mark outside of the database: written often, lost once, of another store now and then. It never runs ahead.
fn high_water(work: &mut Work) {
    work.open();
    for round in 0..10 {
        work.commit(2, 3);
        work.checkpoint();
        match round {
            3 | 7 => {
                work.close();
                if round == 3 {
                    work.lose_the_mark();
                }
                work.open();
            }
            5 => work.take_fresh_id(),
            _ => {}
        }
    }
    work.close();
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

/// A medium that gives back an older state of the database, as one does that lied about a flush: the mark outside of it says
/// so each time. Negative control: without the mark nobody would know.
#[test]
fn only_the_mark_outside_tells_that_a_database_is_an_older_one() {
    let case = run("older states", seed().unwrap_or(1), Threat::Garbage, high_water);
    let mut medium = Medium::default();
    let mut states = Vec::new();
    for entry in &case.entries {
        medium.take(entry);
        if matches!(entry.change, Change::Acknowledged(_)) {
            states.push(medium.cut(Shape::All, case.threat, &mut Chance::new(0)));
        }
    }
    let (mut known, mut told, mut untold) = (Known::default(), 0, 0);
    let mut open = |image: &Image| {
        lay_out(&case.at, image);
        case.subject.recover(image, &mut known)
    };
    let mark = |image: &Image| {
        lay_out(&case.at, image);
        HighWater::open(&case.at.join("v.db")).expect("a mark").mark()
    };
    for (at, older) in states.iter().enumerate().step_by(if cfg!(debug_assertions) { 5 } else { 1 }) {
        let Ok([found, _]) = open(older) else { panic!("state {at} does not open") };
        for newer in &states[at..] {
            let mut image = older.clone();
            image.extend(newer.get(MARK).map(|bytes| (MARK.to_owned(), bytes.clone())));
            let behind = mark(newer) != mark(older) && mark(newer).is_some_and(|mark| mark.seq.0 > found.high);
            if !behind {
                continue;
            }
            let event = open(&image).expect_err("a rollback goes unnoticed");
            assert!(event.contains("event rollback") || event.contains("event fresh-id"), "{event}");
            told += 1;
            image.remove(MARK);
            untold += u64::from(open(&image).is_ok());
        }
    }
    println!("older states: {told} told by the mark, {untold} of them by nothing else");
    assert!(told > 20 && untold == told, "{told} {untold}");
}
