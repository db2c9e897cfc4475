//! The account: what has been written to the medium since varved first saw it, over restarts, power cuts and boots.
//!
//! What enters: the account as it was last saved, then counters, each with its moment. What leaves: what happened since
//! the call before, and the sums. It promises that nothing is counted twice, that a counter which begins anew costs
//! nothing, and that what a power cut took of the account is estimated and not left out. Time is counted by the clock
//! that does not jump; what passes while the machine is off, by the difference of two trusted ones. What it does not
//! do: save itself.

use super::life::LifeLog;
use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::store::medium::{SECTOR_BYTES, Sight, Source};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is put at a commit where nothing can be counted: see docs/flash.md, guarded and shared, with compaction and
/// retention. At 50, 500 and 3,000 readings this gives 11, 17 and 52 KiB, and 11, 19 and 53 were measured.
pub(super) const COMMIT_BYTES: f64 = 10.0 * 1024.0;
/// The same for each reading.
pub(super) const READING_BYTES: f64 = 14.0;

/// The most that a power cut is taken to have cost where the store does not tell: half of the longest time between two
/// savings.
const UNKNOWN_GAP_NS: u64 = super::SAVE_EVERY_NS / 2;

/// A longer absence than this is no time for a budget to grow in: the clock is wrong, or the device lay in a drawer.
const MAX_ABSENCE_NS: i64 = 400 * 86_400 * SECOND;

/// A clock that jumped not longer ago is not asked.
const STEADY_NS: i64 = 600 * SECOND;

/// Readings and commits since the service began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Readings committed.
    pub readings: u64,
    /// Commits.
    pub commits: u64,
}

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Of the medium.
    pub sight: Sight,
    /// Of the recorder.
    pub tally: Tally,
    /// When.
    pub now: Now,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Spent {
    pub(super) on_ns: u64,
    /// In which the machine was off, before.
    pub(super) off_ns: u64,
    pub(super) bytes: u64,
    /// Where it is known.
    pub(super) own_bytes: Option<u64>,
    pub(super) tally: Tally,
}

/// What was seen last, in the file and in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    boot: Uuid,
    at: BootNanos,
    sectors: Option<u64>,
}

/// The sums, since the medium was first seen. All of it is saved but for the last two fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    medium: Option<String>,
    /// Bytes that the medium took.
    pub(super) bytes: u64,
    /// How many of them are an estimate.
    pub(super) estimated_bytes: u64,
    /// Bytes of this process.
    pub(super) own_bytes: u64,
    /// Bytes on other media before.
    pub(super) before_bytes: u64,
    /// Committed.
    pub(super) tally_readings: u64,
    pub(super) elapsed_ns: u64,
    /// The first moment at which the clock was trusted, taken back to the beginning.
    pub(super) began: Option<UtcNanos>,
    pub(super) life: LifeLog,
    /// A trusted clock, and `elapsed_ns` then.
    trusted: Option<(UtcNanos, u64)>,
    seen: Seen,
    /// The time since the boot before is yet to be asked of a trusted clock.
    absent: bool,
    #[serde(skip)]
    own_seen: u64,
    #[serde(skip)]
    tally_seen: Tally,
    #[serde(skip)]
    steady: Option<Steady>,
}

/// A wall clock that has gone along with the other one for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steady {
    since: BootNanos,
    last: Now,
}

/// What a restart knows of the run before.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Before {
    /// The latest reading of the saved account's boot that is in the store.
    pub(super) last_recorded: Option<BootNanos>,
    /// What was written a second, once that is learnt.
    pub(super) bytes_per_s: Option<f64>,
}

impl Account {
    /// The beginning: what was written before isn't in it.
    pub(super) fn begin(medium: Option<String>, boot: Uuid, sample: &Sample) -> Self {
        Self {
            medium,
            bytes: 0,
            estimated_bytes: 0,
            own_bytes: 0,
            before_bytes: 0,
            tally_readings: 0,
            elapsed_ns: 0,
            began: None,
            life: LifeLog::default(),
            trusted: None,
            seen: Seen { boot, at: sample.now.boot, sectors: sample.sight.sectors },
            absent: false,
            own_seen: sample.sight.own_bytes.unwrap_or(0),
            tally_seen: sample.tally,
            steady: None,
        }
    }

    /// Boot of the last saving.
    pub(super) fn boot(&self) -> Uuid {
        self.seen.boot
    }

    /// Goes on with a saved account. A medium that is surely another one has an account of its own.
    pub(super) fn resume(self, medium: Option<String>, boot: Uuid, sample: &Sample, before: Before) -> Self {
        if self.medium.is_some() && medium.is_some() && self.medium != medium {
            let before_bytes = self.before_bytes + self.bytes;
            return Self { before_bytes, ..Self::begin(medium, boot, sample) };
        }
        let mut account =
            Self { medium: medium.or(self.medium.clone()), own_seen: 0, tally_seen: Tally::default(), ..self };
        match account.seen.boot == boot {
            true => account.share_own(sample),
            false => account.bridge(boot, before),
        }
        account
    }

    /// The same boot: the disk's counter went on, that of the process is lost with it. Its share is taken to be as
    /// before.
    fn share_own(&mut self, sample: &Sample) {
        let (Some(from), Some(to)) = (self.seen.sectors, sample.sight.sectors) else { return };
        let share = if self.bytes > 0 { self.own_bytes as f64 / self.bytes as f64 } else { 0.0 };
        self.own_bytes += ((advance(from, to) * SECTOR_BYTES) as f64 * share.min(1.0)) as u64;
    }

    /// Another boot: what was written between the last saving and the end of that boot nobody counted. The store knows
    /// when it recorded last; at the rate that was learnt, or else at the mean of that boot's counter, so much was
    /// written until then. From boot on the disk has counted.
    fn bridge(&mut self, boot: Uuid, before: Before) {
        let until = before.last_recorded.map(|at| u64::try_from(at.0 - self.seen.at.0).unwrap_or(0));
        let gap_ns = until.unwrap_or(UNKNOWN_GAP_NS);
        let lost = (before.bytes_per_s.or(self.boot_rate()).unwrap_or(0.0) * gap_ns as f64 / SECOND as f64) as u64;
        let share = if self.bytes > 0 { self.own_bytes as f64 / self.bytes as f64 } else { 0.0 };
        self.bytes += lost;
        self.estimated_bytes += lost;
        self.own_bytes += (lost as f64 * share.min(1.0)) as u64;
        self.elapsed_ns += gap_ns;
        self.absent = true;
        self.seen = Seen { boot, at: BootNanos(0), sectors: self.seen.sectors.map(|_| 0) };
    }

    /// Bytes a second that the disk took between its boot and the last saving.
    fn boot_rate(&self) -> Option<f64> {
        let (sectors, s) = (self.seen.sectors? as f64, self.seen.at.0 as f64 / SECOND as f64);
        (s > 0.0).then(|| sectors * SECTOR_BYTES as f64 / s)
    }

    /// Adds what happened since the sample before.
    pub(super) fn take(&mut self, source: Source, sample: &Sample) -> Spent {
        let tally = Tally {
            readings: sample.tally.readings.saturating_sub(self.tally_seen.readings),
            commits: sample.tally.commits.saturating_sub(self.tally_seen.commits),
        };
        let own_bytes = sample.sight.own_bytes.map(|bytes| bytes.saturating_sub(self.own_seen));
        let bytes = match source {
            // A counter that can't be read for once is caught up with at the next sample.
            Source::Device => match (self.seen.sectors, sample.sight.sectors) {
                (Some(from), Some(to)) => advance(from, to) * SECTOR_BYTES,
                _ => 0,
            },
            Source::Process => own_bytes.unwrap_or(0),
            Source::Estimate => (tally.commits as f64 * COMMIT_BYTES + tally.readings as f64 * READING_BYTES) as u64,
        };
        let on_ns = u64::try_from(sample.now.boot.0 - self.seen.at.0).unwrap_or(0);
        self.bytes += bytes;
        self.estimated_bytes += if source == Source::Estimate { bytes } else { 0 };
        self.own_bytes += own_bytes.unwrap_or(0);
        self.tally_readings += tally.readings;
        self.elapsed_ns += on_ns;
        self.seen.at = sample.now.boot;
        self.seen.sectors = sample.sight.sectors.or(self.seen.sectors);
        self.own_seen = sample.sight.own_bytes.unwrap_or(self.own_seen);
        self.tally_seen = sample.tally;
        let off_ns = self.hear_clock(sample.now);
        if let Some(life) = sample.sight.life {
            self.life.note(life, self.bytes);
        }
        Spent { on_ns, off_ns, bytes, own_bytes, tally }
    }

    /// Nanoseconds for which the machine was off. Within a boot the wall clock has no say; after one it is asked once
    /// it is trusted and has gone steadily for a while: a clock that is about to be put right must not give a year's
    /// budget away.
    fn hear_clock(&mut self, now: Now) -> u64 {
        if !now.trusted {
            self.steady = None;
            return 0;
        }
        let since = self.steady.filter(|steady| steady.goes_on(now)).map_or(now.boot, |steady| steady.since);
        self.steady = Some(Steady { since, last: now });
        if now.boot.0 - since.0 < STEADY_NS {
            return 0;
        }
        let mut off_ns = 0;
        if let (true, Some((utc, elapsed_ns))) = (self.absent, self.trusted) {
            let counted = i64::try_from(self.elapsed_ns.saturating_sub(elapsed_ns)).unwrap_or(i64::MAX);
            let off = now.utc.0.saturating_sub(utc.0).saturating_sub(counted).clamp(0, MAX_ABSENCE_NS);
            off_ns = off.unsigned_abs();
            self.elapsed_ns += off_ns;
        }
        self.absent = false;
        self.trusted = Some((now.utc, self.elapsed_ns));
        let back = i64::try_from(self.elapsed_ns).unwrap_or(i64::MAX);
        self.began.get_or_insert(UtcNanos(now.utc.0.saturating_sub(back)));
        off_ns
    }

    /// Whether sums like these can be: what was read from a file may be anything.
    pub(super) fn is_plausible(&self) -> bool {
        const MOST: u64 = 1 << 60;
        let sums = [self.bytes, self.estimated_bytes, self.own_bytes, self.before_bytes, self.tally_readings];
        let centuries = (2 * 36_500 * 86_400 * SECOND).unsigned_abs();
        sums.iter().all(|sum| *sum < MOST)
            && self.elapsed_ns < centuries
            && self.seen.at.0 >= 0
            && self.trusted.is_none_or(|(_, elapsed_ns)| elapsed_ns <= self.elapsed_ns)
    }

    /// Seconds since the medium was first seen.
    pub(super) fn elapsed_s(&self) -> f64 {
        self.elapsed_ns as f64 / SECOND as f64
    }
}

impl Steady {
    /// Whether both clocks have gone on by the same.
    fn goes_on(&self, now: Now) -> bool {
        let utc = i128::from(now.utc.0) - i128::from(self.last.utc.0);
        let boot = i128::from(now.boot.0) - i128::from(self.last.boot.0);
        (utc - boot).abs() < i128::from(STEADY_NS / 10)
    }
}

/// From one value of the disk's counter to the next, in sectors. It begins anew at 0 when the disk is plugged in again,
/// and on a 32-bit kernel at 2^32: it is an `unsigned long` (`include/linux/part_stat.h`).
fn advance(from: u64, to: u64) -> u64 {
    const ROUND: u64 = 1 << 32;
    match to.checked_sub(from) {
        Some(sectors) => sectors,
        // Nobody writes half a terabyte between two looks.
        None if from < ROUND && ROUND - from + to < ROUND / 4 => ROUND - from + to,
        None => to,
    }
}

#[cfg(test)]
mod tests;
