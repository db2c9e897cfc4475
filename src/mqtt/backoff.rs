//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! What enters: how the last attempt went, and a random number. What leaves: a duration. Pure. Full jitter (any time up to
//! the bound, rather than around it) so that thousands of devices that lost one broker do not come back in step.

use std::time::Duration;

/// The bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The bound of the first wait; doubles with each failure.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
    /// No wait is shorter.
    pub floor: Duration,
}

impl Default for BackoffLimits {
    /// 1 s, doubling up to 2 min, never below 100 ms.
    fn default() -> Self {
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(120), floor: Duration::from_millis(100) }
    }
}

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    limits: BackoffLimits,
    failures: u32,
}

impl Backoff {
    /// One that has seen no failure.
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, failures: 0 }
    }

    /// The attempt went well for long enough: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest that the next wait can be.
    pub fn bound(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.limits.base.saturating_mul(factor).min(self.limits.cap)
    }

    /// The wait after one more failure: the share `random / 2^64` of [`Backoff::bound`].
    pub fn after_failure(&mut self, random: u64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random as f64 / u64::MAX as f64).max(self.limits.floor)
    }
}

/// A random number that needs no generator: the system's entropy by way of a UUID.
pub(super) fn random() -> u64 {
    // The low half of a v4 UUID has 62 random bits below its two variant bits.
    (uuid::Uuid::new_v4().as_u128() as u64) << 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits double up to the cap, stay within their bounds, and begin anew after a success.
    #[test]
    fn waits_double_to_the_cap_and_begin_anew() {
        let limits = BackoffLimits { base: Duration::from_secs(1), cap: Duration::from_secs(10), ..Default::default() };
        let mut backoff = Backoff::new(limits);
        let longest: Vec<u64> = (0..6).map(|_| backoff.after_failure(u64::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.after_failure(0), limits.floor);
        assert_eq!(backoff.after_failure(u64::MAX / 2).as_secs(), 5);
        backoff.reset();
        assert_eq!(backoff.after_failure(u64::MAX), limits.base);
        (0..1000).for_each(|_| assert!(backoff.after_failure(random()) <= limits.cap));
    }
}
