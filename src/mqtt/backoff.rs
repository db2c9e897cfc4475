//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! What enters: how the last attempt went, and a random number. What leaves: a duration. Pure. Full jitter (any time up to
//! the bound, rather than around it) so that thousands of devices that lost one broker do not come back in step. What that
//! does for ten thousand of them is shown in `herd`.

#[cfg(test)]
mod herd;

use std::time::Duration;

/// The bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The bound of the first wait; doubles with each failure.
    pub base: Duration,
    /// No wait is longer, but for a broker that is busy.
    pub cap: Duration,
    /// No wait is shorter.
    pub floor: Duration,
    /// The bound of the wait after a connection that had stood: whoever else lost it is on the way too. Failures that follow
    /// double from here.
    pub spread: Duration,
    /// A broker that says that it is busy is left alone for so long; MQTT 3.1.1 has no way to say how long it wants.
    pub busy: Duration,
}

impl Default for BackoffLimits {
    /// 1 s, doubling up to 2 min, never below 100 ms; 10 s after a connection that had stood; 30 s to 1 min for a busy
    /// broker.
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { base: s(1), cap: s(120), floor: Duration::from_millis(100), spread: s(10), busy: s(30) }
    }
}

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    limits: BackoffLimits,
    bound: Duration,
}

impl Backoff {
    /// One that has seen no failure.
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, bound: limits.base.min(limits.cap) }
    }

    /// The longest that the next wait can be.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The wait after one more failure: the share `random / 2^64` of [`Backoff::bound`].
    pub fn after_failure(&mut self, random: u64) -> Duration {
        let wait = share(self.bound, random);
        self.bound = self.bound.saturating_mul(2).min(self.limits.cap);
        wait.max(self.limits.floor)
    }

    /// The wait after a connection that was of use and broke early: as after a first failure, whatever came before.
    pub fn after_use(&mut self, random: u64) -> Duration {
        self.bound = self.limits.base.min(self.limits.cap);
        self.after_failure(random)
    }

    /// The wait after the end of a connection that had stood for long enough: a share of the spread.
    pub fn after_loss(&mut self, random: u64) -> Duration {
        self.bound = self.limits.spread.max(self.limits.base).min(self.limits.cap);
        share(self.limits.spread, random).max(self.limits.floor)
    }

    /// The wait after a broker that said that it is busy: its pause, and a share of it or of the bound.
    pub fn after_busy(&mut self, random: u64) -> Duration {
        let more = self.limits.busy.max(self.bound);
        self.after_failure(0);
        self.limits.busy + share(more, random)
    }
}

fn share(of: Duration, random: u64) -> Duration {
    of.mul_f64(random as f64 / u64::MAX as f64)
}

/// A random number that needs no generator: the system's entropy by way of a UUID.
pub(super) fn random() -> u64 {
    // The low half of a v4 UUID has 62 random bits below its two variant bits.
    (uuid::Uuid::new_v4().as_u128() as u64) << 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits double up to the cap, stay within their bounds, and begin anew after a connection that stood.
    #[test]
    fn waits_double_to_the_cap_and_begin_anew() {
        let s = Duration::from_secs;
        let limits = BackoffLimits { base: s(1), cap: s(10), spread: s(3), ..Default::default() };
        let mut backoff = Backoff::new(limits);
        let longest: Vec<u64> = (0..6).map(|_| backoff.after_failure(u64::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.after_failure(0), limits.floor);
        assert_eq!(backoff.after_failure(u64::MAX / 2).as_secs(), 5);
        assert_eq!(backoff.after_loss(u64::MAX), s(3));
        let longest: Vec<u64> = (0..3).map(|_| backoff.after_failure(u64::MAX).as_secs()).collect();
        assert_eq!(longest, [3, 6, 10], "failures after a loss double from the spread");
        assert_eq!(backoff.after_use(u64::MAX), s(1), "nothing of earlier failures is left");
        (0..1000).for_each(|_| assert!(backoff.after_failure(random()) <= limits.cap));
    }

    /// A busy broker is left alone for its pause at least, also by who comes for the first time, and no two for as long.
    #[test]
    fn a_busy_broker_is_left_alone() {
        let limits = BackoffLimits::default();
        let mut backoff = Backoff::new(limits);
        assert_eq!(backoff.after_busy(0), limits.busy);
        assert_eq!(backoff.after_busy(u64::MAX), limits.busy * 2);
        for _ in 0..9 {
            backoff.after_failure(0);
        }
        assert_eq!(backoff.after_busy(u64::MAX), limits.busy + limits.cap);
    }
}
