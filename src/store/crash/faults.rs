//! An fsync fails, and then the power.
//!
//! After a failed fsync Linux takes the pages for clean: what it was asked for may never arrive, though a later fsync of the
//! same file succeeds, and the process goes on seeing it. Each fsync of a workload fails in turn, once or with all behind it;
//! what it was asked for is then on the medium, or not, or in part, or garbage, in every image that follows. The store does
//! what the service has it do: the same batch again on the same connection, and no restart.

use super::super::file::{Pragmas, open_rw};
use super::super::ground::header;
use super::log::Lies;
use super::medium::Threat;
use super::proof::{Case, Effort, Proof, directory};
use super::run::{Workload, cut, is_whole, scaled};
use super::work::{Broken, Work};
use super::{chance::Chance, log, log::Fault, log::fsyncs};

const WORKLOADS: [Workload; 4] = [
    of("fails once", 5, |name, no| failing(name, no, false, Broken::default(), service)),
    of("fails once, exclusive", 2, |name, no| failing(name, no, false, Broken::default(), exclusive)),
    of("fails for ever", 2, |name, no| failing(name, no, true, Broken::default(), service)),
    of("fails at a start", 2, |name, no| failing(name, no, no % 3 == 0, Broken::default(), starts)),
];

const fn of(name: &'static str, thousands: u64, case: fn(&str, u64) -> Case) -> Workload {
    Workload { name, thousands, most_per_boundary: 6, case }
}

/// Fsyncs to fail in the workload of one seed.
const PER_SEED: u64 = 32;

/// The workload of one seed, with one of its fsyncs failing.
fn failing(name: &str, no: u64, forever: bool, broken: Broken, work: fn(&mut Work)) -> Case {
    let of_seed = no / PER_SEED;
    let mut whole = Work::begin(of_seed, Broken::default());
    work(&mut whole);
    let all = fsyncs();
    drop(whole.end(name, Threat::Garbage));
    let mut doing = Work::begin(of_seed, broken);
    let at = Chance::new(no).below(all);
    doing.plant(Fault { at, forever });
    work(&mut doing);
    doing.end(&format!("{name}, fsync {at}"), Threat::Garbage)
}

/// A day in small in which nothing is restarted.
fn service(work: &mut Work) {
    work.open();
    for _ in 0..12 {
        match work.chance.below(10) {
            0..=5 => {
                let (series, n) = (1 + work.chance.below(30) as u32, 1 + work.chance.below(40));
                work.commit(series, n);
            }
            6 | 7 => work.checkpoint(),
            8 => drop(work.compact()),
            _ => work.take_fresh_id(),
        }
    }
    work.commit(60, 60);
    work.checkpoint();
    work.commit(3, 3);
    work.close();
}

fn exclusive(work: &mut Work) {
    work.exclusive();
    service(work);
}

/// Mostly starts: where an fsync of one fails it ends there, or goes on without what it was for.
fn starts(work: &mut Work) {
    for _ in 0..3 {
        work.open();
        work.commit(3, 3);
        work.commit(2, 2);
        match work.chance.one_in(2) {
            true => work.close(),
            false => work.drop_store(),
        }
    }
    work.open();
    work.commit(1, 1);
}

/// A failed fsync, or all of them from one on, and then a power cut at any later instant, and another while that is recovered:
/// nothing that was acknowledged is missing. What could not be flushed was not acknowledged.
#[test]
fn a_power_cut_after_a_failed_fsync_loses_no_commit() {
    let figures = cut("failed fsyncs", &WORKLOADS);
    assert!(!is_whole() || figures.images >= scaled(10_000), "{} images", figures.images);
}

/// Negative control: after the failure the file is opened again, and the page cache believed.
#[test]
fn opening_again_after_a_failed_fsync_is_caught() {
    let broken = Broken { reopens: true, ..Broken::default() };
    let mut proof = Proof::default();
    let effort =
        Effort { one_in: 1, per_boundary: 6, again_one_in: usize::MAX, again: 0, most_bad: 3, until_lost: true };
    for no in 0..300 {
        let case = failing("reopened", no, false, broken, service);
        proof.run(&case, effort, &mut Chance::new(no));
        if proof.figures.lost >= 3 {
            break;
        }
    }
    println!("failed fsyncs: reopened: {} images, {} lost something", proof.figures.images, proof.figures.lost);
    assert!(proof.figures.lost >= 3, "{:?}", proof.figures);
}

/// A start whose fsync fails either says so or leaves a file in WAL mode. (`journal_mode` said "wal" although the commit that
/// makes it so had failed: all that followed went through a rollback journal that knew nothing of blocks.)
#[test]
fn a_start_that_fails_never_goes_on_without_a_log() {
    let mut failed = 0;
    for at in 0.. {
        let dir = directory();
        let path = dir.path().join("v.db");
        log::begin(dir.path(), Lies::default());
        log::plant(Fault { at, forever: false });
        let opened = open_rw(&path, &Pragmas { automatic: false, ..Pragmas::replica() });
        let (done, has_failed) = (opened.is_ok(), log::has_failed());
        drop(opened);
        log::end();
        if !has_failed {
            break;
        }
        failed += 1;
        let in_wal = header(&path).expect("readable").is_some_and(|header| header.wal);
        assert!(!done || in_wal, "fsync {at} failed, and the file has no log");
    }
    assert!(failed >= 4, "{failed} fsyncs");
}
