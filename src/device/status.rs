//! What the device knows of itself at this moment, gathered by the tasks as they go and read out by the control socket.

use crate::batch::Risk;
use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::store::Committed;
use crate::upkeep::Idle;
use crate::wear::Tally;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The numbers that the tasks share. Counting is all that is done under the lock.
#[derive(Debug, Default)]
pub struct Shared {
    numbers: Mutex<Numbers>,
}

/// Counted since the service started, unless said otherwise.
#[derive(Debug, Default, Clone)]
struct Numbers {
    taken: u64,
    committed: u64,
    commits: u64,
    commit_bytes: u64,
    overflowed: u64,
    risk: Risk,
    due_at: Option<BootNanos>,
    clock_trusted: bool,
    last_commit: Option<Now>,
    fault: Option<String>,
    interval: Option<Duration>,
    hurry_until: Option<BootNanos>,
}

/// How many readings a power cut would take now, and the time that they span.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtRisk {
    /// Readings in RAM only.
    pub readings: u64,
    /// Age of the oldest of them, in seconds; 0 where there is none.
    pub oldest_s: f64,
}

/// What the recorder has done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Readings that the sensors gave to the recorder.
    pub taken: u64,
    /// Readings that were committed.
    pub committed: u64,
    /// Readings that did not fit in RAM while the medium took no writes; each is in a loss segment.
    pub overflowed: u64,
    /// Commits.
    pub commits: u64,
    /// Bytes of the segments committed, before SQLite's pages and the log.
    pub segment_bytes: u64,
    /// UTC of the last commit, ISO 8601, by the clock of the time.
    pub last_commit: Option<String>,
    /// Seconds since then, by the clock that does not jump.
    pub last_commit_age_s: Option<f64>,
    /// Why the last try to commit or to open failed, and what to do; none while all is well.
    pub fault: Option<String>,
}

impl Shared {
    /// Readings came out of a sensor.
    pub fn taken(&self, readings: usize) {
        self.lock().taken += readings as u64;
    }

    /// What is in RAM only, in the batch and with the store, and when the batch is due.
    pub fn risk(&self, risk: Risk, due_at: Option<BootNanos>) {
        let mut numbers = self.lock();
        numbers.risk = risk;
        numbers.due_at = due_at;
    }

    /// How busy the recorder is.
    pub fn idle(&self, now: Now) -> Idle {
        let numbers = self.lock();
        let span = |ns: i64| Duration::from_nanos(ns.max(0).unsigned_abs());
        Idle {
            since_commit: numbers.last_commit.map_or(Duration::ZERO, |at| span(now.boot.0 - at.boot.0)),
            until_commit: numbers.due_at.map(|at| span(at.0 - now.boot.0)),
        }
    }

    /// The wear governor has chosen.
    pub fn set_interval(&self, interval: Duration) {
        self.lock().interval = Some(interval);
    }

    /// What it has chosen; none where it has not yet, and the configured one holds.
    pub fn interval(&self) -> Option<Duration> {
        self.lock().interval
    }

    /// The power fails, or is back: until when commits are to come at short intervals, with nothing else in their way.
    pub fn hurry(&self, until: Option<BootNanos>) {
        self.lock().hurry_until = until;
    }

    /// Whether they are now.
    pub fn hurries(&self, now: BootNanos) -> bool {
        self.lock().hurry_until.is_some_and(|until| now < until)
    }

    /// Readings and commits so far.
    pub fn tally(&self) -> Tally {
        let numbers = self.lock();
        Tally { readings: numbers.committed, commits: numbers.commits }
    }

    /// Whether the clock is believed.
    pub fn clock(&self, trusted: bool) {
        self.lock().clock_trusted = trusted;
    }

    /// Whether the clock was believed when it was last looked at.
    pub fn clock_is_trusted(&self) -> bool {
        self.lock().clock_trusted
    }

    /// A commit is on flash.
    pub fn committed(&self, committed: &Committed, now: Now) {
        let mut numbers = self.lock();
        numbers.committed += committed.n;
        numbers.overflowed += committed.lost;
        numbers.commits += 1;
        numbers.commit_bytes += committed.bytes;
        numbers.last_commit = Some(now);
        numbers.fault = None;
    }

    /// The store could not do what was asked; it will be asked again.
    pub fn store_fault(&self, why: String) {
        self.lock().fault = Some(why);
    }

    /// All of it, at `now`.
    pub fn report(&self, now: Now) -> (AtRisk, Recorded) {
        let n = self.lock().clone();
        let age_s = |since: BootNanos| (now.boot.0 - since.0).max(0) as f64 / SECOND as f64;
        let risk = AtRisk { readings: n.risk.readings, oldest_s: n.risk.oldest.map_or(0.0, age_s) };
        let recorded = Recorded {
            taken: n.taken,
            committed: n.committed,
            overflowed: n.overflowed,
            commits: n.commits,
            segment_bytes: n.commit_bytes,
            last_commit: n.last_commit.map(|at| UtcNanos(at.utc.0).to_string()),
            last_commit_age_s: n.last_commit.map(|at| age_s(at.boot)),
            fault: n.fault,
        };
        (risk, recorded)
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Counters stay counters when a thread that held the lock has panicked.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
