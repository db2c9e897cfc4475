//! The service is killed, or told an error, at one system call after the other.
//!
//! A short life of the real binary is run once for each call that it makes on its files, under strace: with SIGKILL in place of that
//! call, and with each error that the call can return. What `flush` had answered before must be in the file afterwards, once and
//! the same; an error ends no service that runs, and none that starts without a documented code and a word.

mod life;

use crate::support::*;
use life::{Base, Life, Outcome};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a call may answer, by what the kernel's file systems and the manual pages say.
const ERRORS: [(&str, &[&str]); 20] = [
    ("openat", &["EIO", "ENOSPC", "EROFS", "ENOMEM", "EMFILE", "EACCES"]),
    ("read", &["EIO", "ENOMEM", "EINTR"]),
    ("pread64", &["EIO", "ENOMEM", "EINTR"]),
    ("write", &["EIO", "ENOSPC", "EROFS", "EDQUOT"]),
    ("pwrite64", &["EIO", "ENOSPC", "EROFS", "EDQUOT", "EINTR"]),
    ("fsync", &["EIO", "ENOSPC", "EROFS", "EDQUOT"]),
    ("fdatasync", &["EIO", "ENOSPC", "EROFS", "EDQUOT"]),
    ("ftruncate", &["EIO", "ENOSPC", "EROFS"]),
    ("unlink", &["EIO", "EROFS", "EACCES"]),
    ("rename", &["EIO", "ENOSPC", "EROFS"]),
    ("newfstatat", &["EIO", "ENOMEM", "EACCES"]),
    ("fstat", &["EIO", "ENOMEM"]),
    ("stat", &["EIO", "ENOMEM", "EACCES"]),
    ("lstat", &["EIO", "ENOMEM", "EACCES"]),
    ("statx", &["EIO", "ENOMEM", "EACCES"]),
    ("access", &["EIO", "EACCES"]),
    ("statfs", &["EIO", "ENOMEM"]),
    ("fcntl", &["EAGAIN", "ENOLCK"]),
    ("flock", &["EINTR", "ENOLCK"]),
    ("mmap", &["ENOMEM"]),
];

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Error(&'static str),
}

/// One life: the fault, and at which call of a thread.
#[derive(Debug, Clone)]
struct Point {
    life: Life,
    call: &'static str,
    fault: Fault,
    n: u64,
    /// Which of the runs that leave some out it is for: the faults of one call, and the calls of one fault, take turns.
    turn: u64,
}

impl Point {
    fn inject(&self) -> String {
        match self.fault {
            Fault::Kill => format!("{}:signal=KILL:when={}", self.call, self.n),
            Fault::Error(error) => format!("{}:error={error}:when={}", self.call, self.n),
        }
    }
}

/// Every fault at every call that `life` makes, as a life without any shows them.
fn points(base: &Base, life: Life) -> Vec<Point> {
    let counts = life.count(base, &ERRORS.map(|(call, _)| call));
    let mut all = Vec::new();
    for (call, errors) in ERRORS {
        let faults = errors.iter().map(|error| Fault::Error(error));
        for (turn, fault) in (0..).zip(std::iter::once(Fault::Kill).chain(faults)) {
            let count = counts.get(call).copied().unwrap_or(0);
            all.extend((1..=count).map(|n| Point { life, call, fault, n, turn: n + turn }));
        }
    }
    println!("{life:?}: {} calls {counts:?}, {} faults", counts.values().sum::<u64>(), all.len());
    all
}

/// What became of the faults of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    fired: u64,
    missed: u64,
    /// Services that ended with a code, at a start.
    ended: u64,
}

/// Lives through all of them, many at a time: where an error was answered, most of a life is waiting for the next try. What
/// happened, by fault, and what was wrong.
fn live_through(points: &[Point], bases: &BTreeMap<Life, Base>) -> (BTreeMap<&'static str, Tally>, Vec<String>) {
    const AT_A_TIME: usize = 40;
    let (next, all) = (AtomicUsize::new(0), Mutex::new((BTreeMap::<&str, Tally>::new(), Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Relaxed)) {
                    let begun = std::time::Instant::now();
                    let outcome = point.life.run(&bases[&point.life], &point.inject(), point.fault == Fault::Kill);
                    if begun.elapsed().as_secs() >= 30 {
                        println!("{:?} {} took {:.0?}", point.life, point.inject(), begun.elapsed());
                    }
                    let mut all = all.lock().unwrap();
                    let name = if point.fault == Fault::Kill { "SIGKILL" } else { "errors" };
                    let tally = all.0.entry(name).or_default();
                    match outcome {
                        Ok(Outcome::Missed) => tally.missed += 1,
                        Ok(Outcome::Lived) => tally.fired += 1,
                        Ok(Outcome::Ended) => {
                            tally.fired += 1;
                            tally.ended += 1;
                        }
                        Err(why) => {
                            tally.fired += 1;
                            all.1.push(format!("{:?} {}: {why}", point.life, point.inject()));
                        }
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// One in so many faults is lived through.
fn one_in() -> u64 {
    let wanted = std::env::var("VARVED_ONE_IN").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(if full() { 1 } else { 3 })
}

/// One fault in three, or with `VARVED_FULL` every one in longer lives: at a first start, at a start that replays a log, and from
/// the first commit to the clean stop. Each call meets one at least, but for those that can only be killed or answered with one
/// error.
#[test]
fn no_fault_at_any_call_loses_what_was_flushed() {
    let begun = std::time::Instant::now();
    let commits = if full() { 24 } else { 3 };
    let lives = [Life::First, Life::Replay, Life::Running { commits }];
    let bases: BTreeMap<Life, Base> = lives.iter().map(|life| (*life, Base::of(*life))).collect();
    let all: Vec<Point> = lives.iter().flat_map(|life| points(&bases[life], *life)).collect();
    let chosen: Vec<Point> = all.iter().filter(|point| (point.turn + seed()) % one_in() == 0).cloned().collect();
    let (tallies, bad) = live_through(&chosen, &bases);
    println!("{} of {} faults in {:?}: {tallies:?}, {} bad", chosen.len(), all.len(), begun.elapsed(), bad.len());
    assert!(bad.is_empty(), "{} bad:\n{}", bad.len(), bad.join("\n"));
    let fired: u64 = tallies.values().map(|tally| tally.fired).sum();
    let missed: u64 = tallies.values().map(|tally| tally.missed).sum();
    assert!(missed * 20 <= fired, "{missed} faults were not met, {fired} were");
    assert!(!full() || fired >= 5000, "{fired} faults");
    assert!(one_in() > 3 || fired >= 1500, "{fired} faults");
}
