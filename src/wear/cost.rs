//! What commits cost on this medium, as learnt.
//!
//! What enters: what was spent in a stretch of time, by how many commits of how many readings at which interval. What
//! leaves: what would be spent a second at another interval. The shape of the cost is known beforehand, a fixed part
//! per commit and a part per reading (docs/flash.md); its height is measured, and so is what doesn't come from commits:
//! other programs.

use super::account::{COMMIT_BYTES, READING_BYTES, Spent};
use crate::clock::SECOND;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Means follow a change within about this time: longer than a day's peaks of compaction, shorter than a week's of use.
const MEMORY_S: f64 = 12.0 * 3600.0;

/// The same for what `status` shows as bytes a day.
const LONG_MEMORY_S: f64 = 7.0 * 86_400.0;

/// Of a time that the machine was off so much is learnt from: after months in a drawer it may be on for good.
const MAX_OFF_S: f64 = 86_400.0;

/// What the file system adds to what a process writes, at the most: journal and metadata. What the medium took beyond
/// that is from other programs.
const OWN_SHARE: f64 = 2.0;

/// Means over the last half day, each by a second in which the machine was on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    observed_s: f64,
    /// The same with the time that it was off.
    passed_s: f64,
    /// Of all time, over the last week, the part in which it was on.
    on_share: f64,
    /// Bytes that the medium took.
    bytes_per_s: f64,
    /// The same over the last week.
    long_bytes_per_s: f64,
    /// Those that varved has no part in.
    others_per_s: f64,
    /// What the commits would have cost at the prior.
    prior_per_s: f64,
    readings_per_s: f64,
    /// Commits times interval: 1 while readings come at every moment and nothing but the interval makes them due.
    duty: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            observed_s: 0.0,
            passed_s: 0.0,
            on_share: 1.0,
            bytes_per_s: 0.0,
            long_bytes_per_s: 0.0,
            others_per_s: 0.0,
            prior_per_s: 0.0,
            readings_per_s: 0.0,
            duty: 0.0,
        }
    }
}

/// A stretch of time that is not learnt from yet.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Stretch {
    on_ns: u64,
    off_ns: u64,
    pub(super) bytes: u64,
    own_bytes: Option<u64>,
    readings: u64,
    commits: u64,
    /// Commits times the interval of their time, in seconds.
    duty_s: f64,
}

impl Stretch {
    pub(super) fn add(&mut self, spent: &Spent, interval: Duration) {
        self.on_ns += spent.on_ns;
        self.off_ns += spent.off_ns;
        self.bytes += spent.bytes;
        self.own_bytes = spent.own_bytes.map(|own| self.own_bytes.unwrap_or(0) + own);
        self.readings += spent.tally.readings;
        self.commits += spent.tally.commits;
        self.duty_s += spent.tally.commits as f64 * interval.as_secs_f64();
    }

    /// Whether sums like these can be: what was read from a file may be anything.
    pub(super) fn is_plausible(&self) -> bool {
        const MOST: u64 = 1 << 60;
        let sums = [self.on_ns, self.off_ns, self.bytes, self.own_bytes.unwrap_or(0), self.readings, self.commits];
        sums.iter().all(|sum| *sum < MOST) && (0.0..1e15).contains(&self.duty_s)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.on_ns as f64 / SECOND as f64
    }
}

impl Cost {
    /// Whether means like these can be.
    pub(super) fn is_plausible(&self) -> bool {
        let means = [
            self.observed_s,
            self.passed_s,
            self.bytes_per_s,
            self.long_bytes_per_s,
            self.others_per_s,
            self.prior_per_s,
            self.readings_per_s,
            self.duty,
        ];
        means.iter().all(|mean| (0.0..1e15).contains(mean)) && (0.0..=1.0).contains(&self.on_share)
    }

    /// Learns from a stretch of time.
    pub(super) fn learn(&mut self, stretch: &Stretch) {
        let s = stretch.seconds();
        if s <= 0.0 {
            return;
        }
        let passed_s = s + (stretch.off_ns as f64 / SECOND as f64).min(MAX_OFF_S);
        self.observed_s = (self.observed_s + s).min(1e12);
        self.passed_s = (self.passed_s + passed_s).min(1e12);
        // A plain mean until there is as much to remember as is remembered.
        let weight = |s: f64, of_s: f64, memory_s: f64| (s / of_s).max(1.0 - (-s / memory_s).exp());
        let (short, long) = (weight(s, self.observed_s, MEMORY_S), weight(s, self.observed_s, LONG_MEMORY_S));
        self.on_share += weight(passed_s, self.passed_s, LONG_MEMORY_S) * (s / passed_s - self.on_share);
        let bytes = stretch.bytes as f64;
        let others = stretch.own_bytes.map_or(0.0, |own| (bytes - OWN_SHARE * own as f64).max(0.0));
        let prior = stretch.commits as f64 * COMMIT_BYTES + stretch.readings as f64 * READING_BYTES;
        let mix = |mean: &mut f64, weight: f64, sum: f64| *mean += weight * (sum / s - *mean);
        mix(&mut self.bytes_per_s, short, bytes);
        mix(&mut self.long_bytes_per_s, long, bytes);
        mix(&mut self.others_per_s, short, others);
        mix(&mut self.prior_per_s, short, prior);
        mix(&mut self.readings_per_s, short, stretch.readings as f64);
        mix(&mut self.duty, short, stretch.duty_s);
    }

    /// Seconds that the means are made of.
    pub(super) fn observed_s(&self) -> f64 {
        self.observed_s
    }

    /// Bytes that the medium takes in a second in which the machine is on, once that is known of an hour at least: the
    /// first minutes of a device are no measure.
    pub(super) fn bytes_per_s_on(&self) -> Option<f64> {
        (self.observed_s >= 3600.0).then_some(self.bytes_per_s)
    }

    /// Bytes a second over the last week, off or on; none before anything is learnt.
    pub(super) fn long_bytes_per_s(&self) -> Option<f64> {
        (self.observed_s > 0.0).then_some(self.long_bytes_per_s * self.on_share)
    }

    /// Bytes a second, off or on, with a commit each `interval`.
    pub(super) fn at(&self, interval: Duration) -> f64 {
        (self.unmoved() + self.per_commit() * self.duty() / interval.as_secs_f64()) * self.on_share
    }

    /// The interval at which `bytes_per_s` are spent, off or on, in seconds; none where no interval is long enough.
    pub(super) fn interval_s(&self, bytes_per_s: f64) -> Option<f64> {
        let room = bytes_per_s / self.on_share.max(1e-3) - self.unmoved();
        (room > 0.0).then(|| self.per_commit() * self.duty() / room)
    }

    /// What no interval changes: other programs, and the part per reading.
    fn unmoved(&self) -> f64 {
        self.others_per_s + self.height() * READING_BYTES * self.readings_per_s
    }

    /// The fixed part of a commit, in bytes.
    pub(super) fn per_commit(&self) -> f64 {
        self.height() * COMMIT_BYTES
    }

    /// Of what varved spends, how much is others', from 0 to 1.
    pub(super) fn others_share(&self) -> f64 {
        if self.bytes_per_s > 0.0 { (self.others_per_s / self.bytes_per_s).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Measured by prior. Commits that are too few to measure are taken to cost what they usually do.
    fn height(&self) -> f64 {
        match self.prior_per_s > 1e-6 {
            true => ((self.bytes_per_s - self.others_per_s) / self.prior_per_s).clamp(0.01, 1000.0),
            false => 1.0,
        }
    }

    /// Before the first commit it is taken for 1, since readings are about to come.
    fn duty(&self) -> f64 {
        if self.duty > 0.0 { self.duty } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wear::account::Tally;

    /// An hour of commits at `interval_s`, each of `fixed` bytes and `each` per reading, 50 readings a second.
    fn hour(interval_s: u64, fixed: f64, each: f64, others: u64) -> Stretch {
        let tally = Tally { readings: 180_000, commits: 3600 / interval_s };
        let own = (tally.commits as f64 * fixed + 180_000.0 * each) as u64;
        let spent = Spent { on_ns: 3600 * SECOND as u64, off_ns: 0, bytes: own + others, own_bytes: Some(own), tally };
        let mut stretch = Stretch::default();
        stretch.add(&spent, Duration::from_secs(interval_s));
        stretch
    }

    /// Where the shape is the prior's, what is spent at another interval is foretold to the byte, whatever the height;
    /// and the interval for that is found again.
    #[test]
    fn another_interval_is_foretold() {
        let mut cost = Cost::default();
        (0..5).for_each(|_| cost.learn(&hour(10, 3.0 * COMMIT_BYTES, 3.0 * READING_BYTES, 0)));
        let told = cost.at(Duration::from_secs(60));
        let spent = hour(60, 3.0 * COMMIT_BYTES, 3.0 * READING_BYTES, 0).bytes as f64 / 3600.0;
        assert!((told / spent - 1.0).abs() < 0.001, "{told} {spent}");
        assert!(cost.interval_s(told).is_some_and(|s| (s - 60.0).abs() < 0.1));
        assert_eq!(cost.interval_s(50.0 * READING_BYTES), None, "less than the readings alone take");
    }

    /// What others write is not held against commits: no interval makes it less.
    #[test]
    fn others_are_told_apart() {
        let mut cost = Cost::default();
        cost.learn(&hour(10, COMMIT_BYTES, READING_BYTES, 3_600_000_000));
        assert!(cost.others_share() > 0.99);
        assert!(cost.at(Duration::from_secs(3600)) > 990_000.0);
        assert_eq!(cost.interval_s(900_000.0), None);
    }

    /// A machine that is off for half of the time may commit twice as often for the same.
    #[test]
    fn time_off_costs_nothing() {
        let (mut always, mut half) = (Cost::default(), Cost::default());
        for _ in 0..500 {
            let on = hour(10, COMMIT_BYTES, 0.0, 0);
            always.learn(&on);
            half.learn(&Stretch { off_ns: on.on_ns, ..on });
        }
        let ten = Duration::from_secs(10);
        assert!((always.at(ten) / half.at(ten) - 2.0).abs() < 0.01);
        assert_eq!(always.bytes_per_s_on(), half.bytes_per_s_on());
        let rest = |cost: &Cost| cost.interval_s(cost.at(ten) * 1.5).expect("an interval");
        assert!((rest(&always) - rest(&half)).abs() < 0.01);
    }

    /// A cost that doubles is known within a day; one hour of it is not taken for the rule.
    #[test]
    fn a_change_is_learnt_within_a_day() {
        let mut cost = Cost::default();
        (0..100).for_each(|_| cost.learn(&hour(10, COMMIT_BYTES, READING_BYTES, 0)));
        let before = cost.per_commit();
        cost.learn(&hour(10, 2.0 * COMMIT_BYTES, 2.0 * READING_BYTES, 0));
        assert!(cost.per_commit() < 1.1 * before);
        (0..24).for_each(|_| cost.learn(&hour(10, 2.0 * COMMIT_BYTES, 2.0 * READING_BYTES, 0)));
        assert!(cost.per_commit() > 1.8 * before);
    }
}
