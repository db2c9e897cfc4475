//! One run: simulated time in front of a real file system, over whole rounds of the write-ahead log.
//!
//! Time is simulated: an interval of 60 s takes as long as its commit and the 11 ms behind it. What the kernel does by the
//! clock is done here by the simulated one. Three things would otherwise make such a run look better than life:
//!
//! - A file's mtime moves with the kernel's tick, of up to 10 ms. Two commits within one look to `fsync` like one. So at
//!   least 11 ms pass between commits.
//! - Dirty pages that nobody syncs (the `-shm`) are written when they are 30 s old.
//! - The journal commits by a timer: the mount option says every 300 s.

use crate::medium::{Counters, Medium};
use crate::subject::Subject;
use crate::workload::{SERIES, Tick, Workload, now};
use crate::{Outcome, interrupted, sys};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const BETWEEN_COMMITS: Duration = Duration::from_millis(11);
const WRITEBACK_S: i64 = 30;
const JOURNAL_S: i64 = 300;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Rounds of the log, for subjects that have one.
    pub cycles: u64,
    /// Commits, for those that have none.
    pub commits: u64,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// What the block device took.
    pub written: Counters,
    /// Readings committed.
    pub readings: u64,
    /// Commits.
    pub commits: u64,
    /// Simulated time.
    pub seconds: u64,
    /// Whole rounds of the log.
    pub cycles: u64,
    /// `fsync` and `fdatasync` calls.
    pub syncs: u64,
    /// Bytes of the bodies committed.
    pub body_bytes: u64,
    /// Bytes of the log, which is kept.
    pub log_bytes: u64,
    /// Bytes of all files but the log and its index, at the end.
    pub file_bytes: u64,
}

/// Who watches a run from outside.
pub(crate) trait Watch {
    /// Before each commit (`"commit"`), rest (`"rest"`) or kernel timer (`"writeback"`, `"journal"`).
    fn phase(&mut self, _name: &'static str) -> Outcome<()> {
        Ok(())
    }

    /// After each commit.
    fn committed(&mut self) -> Outcome<()> {
        Ok(())
    }
}

/// Nobody.
pub(crate) struct Unwatched;

impl Watch for Unwatched {}

/// A subject on a medium, and the simulated time.
pub(crate) struct Run<'a> {
    medium: &'a Medium,
    subject: &'a mut dyn Subject,
    workload: Workload,
    interval_s: i64,
    second: i64,
    last_commit: Instant,
    paced: bool,
}

impl<'a> Run<'a> {
    /// A run that commits every `interval_s` seconds.
    pub(crate) fn new(medium: &'a Medium, subject: &'a mut dyn Subject, interval_s: i64) -> Self {
        let workload = Workload::from(0);
        Self { medium, subject, workload, interval_s, second: 0, last_commit: Instant::now(), paced: false }
    }

    /// Commits without a measure until the log has begun anew for the first time (or as it is, without a log), so that
    /// nothing of the start is counted; then measures whole rounds.
    pub(crate) fn measure(mut self, extent: Extent, watch: &mut dyn Watch) -> Outcome<Measured> {
        self.skip_start()?;
        let first = self.rounds()?;
        self.counted(watch, |run, commits| {
            Ok(match first {
                Some(first) => run.rounds()?.unwrap_or(first) - first < extent.cycles,
                None => commits < extent.commits,
            })
        })
    }

    /// Measures `commits` intervals, after `skipped` that don't count.
    pub(crate) fn stretch(mut self, skipped: u64, commits: u64) -> Outcome<Measured> {
        for _ in 0..skipped {
            self.step(&mut Unwatched)?;
        }
        self.counted(&mut Unwatched, |_, done| Ok(done < commits))
    }

    fn counted(&mut self, watch: &mut dyn Watch, on: impl Fn(&Self, u64) -> Outcome<bool>) -> Outcome<Measured> {
        self.medium.commit_journal()?;
        let bodies = self.subject.body_bytes();
        let (before, syncs, began, first) = (self.medium.counters()?, sys::syncs(), self.second, self.rounds()?);
        self.paced = true;
        let mut commits = 0;
        while on(self, commits)? {
            commits += self.step(watch)?;
        }
        watch.phase("journal")?;
        let cycles = self.rounds()?.zip(first).map_or(0, |(last, first)| last - first);
        self.medium.commit_journal()?;
        let seconds = u64::try_from(self.second - began)?;
        let (log_bytes, file_bytes) = self.lengths()?;
        Ok(Measured {
            written: self.medium.counters()? - before,
            readings: seconds * SERIES as u64,
            commits,
            seconds,
            cycles,
            syncs: sys::syncs() - syncs,
            body_bytes: self.subject.body_bytes() - bodies,
            log_bytes,
            file_bytes,
        })
    }

    fn skip_start(&mut self) -> Outcome<()> {
        let mut first = None;
        for _ in 0..100_000 {
            self.step(&mut Unwatched)?;
            let Some(rounds) = self.rounds()? else { return Ok(()) };
            if rounds > *first.get_or_insert(rounds) {
                return Ok(());
            }
        }
        Err("100,000 commits, and the log has not begun anew: is it ever checkpointed?".into())
    }

    fn step(&mut self, watch: &mut dyn Watch) -> Outcome<u64> {
        interrupted()?;
        let ticks: Vec<Tick> = (0..self.interval_s).map(|_| self.workload.tick()).collect();
        let (before, after) = (self.second, self.second + self.interval_s);
        self.second = after;
        watch.phase("commit")?;
        let (paced, last) = (self.paced, &mut self.last_commit);
        let mut pace = || {
            if paced {
                std::thread::sleep(BETWEEN_COMMITS.saturating_sub(last.elapsed()));
            }
            *last = Instant::now();
        };
        pace();
        let commits = self.subject.commit(&ticks, &mut pace)?;
        self.last_commit = Instant::now();
        watch.committed()?;
        watch.phase("rest")?;
        self.subject.rest(now(after))?;
        if after / WRITEBACK_S > before / WRITEBACK_S {
            watch.phase("writeback")?;
            self.medium.write_back()?;
        }
        if after / JOURNAL_S > before / JOURNAL_S {
            watch.phase("journal")?;
            self.medium.commit_journal()?;
        }
        Ok(commits)
    }

    fn rounds(&self) -> Outcome<Option<u64>> {
        self.subject.wal().map(rounds).transpose()
    }

    fn lengths(&self) -> Outcome<(u64, u64)> {
        let log = self.subject.wal();
        let log_bytes = log.map_or(Ok(0), |wal| std::fs::metadata(wal).map(|m| m.len()))?;
        let mut file_bytes = 0;
        for entry in std::fs::read_dir(self.medium.dir())? {
            let entry = entry?;
            let shm = entry.path().extension().is_some_and(|e| e.to_string_lossy().ends_with("-shm"));
            if entry.file_type()?.is_file() && Some(entry.path().as_path()) != log && !shm {
                file_bytes += entry.metadata()?.len();
            }
        }
        Ok((log_bytes, file_bytes))
    }
}

/// How often the log has begun anew: the checkpoint sequence number in its header (sqlite.org/fileformat2.html §4.1).
fn rounds(wal: &Path) -> Outcome<u64> {
    let mut number = [0; 4];
    File::open(wal)?.read_exact_at(&mut number, 12)?;
    Ok(u32::from_be_bytes(number).into())
}
