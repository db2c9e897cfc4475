//! A token bucket: so many bytes a second at the mean, and a bounded burst.
//!
//! What enters: the time, what was sent. What leaves: whether more may be sent now, or when. Pure. What is sent all the
//! same (a state, an answer that nobody asked for) makes a debt that is waited off.

use super::Class;
use crate::clock::{BootNanos, SECOND};

/// How long at the rate fills it.
const BURST_S: f64 = 10.0;

/// What it holds at least, in bytes: the smallest message must fit in half of it.
const LEAST_BURST: f64 = 4096.0;

/// See the room.
#[derive(Debug)]
pub(super) struct Bucket {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at: BootNanos,
}

impl Bucket {
    pub(super) fn new(bytes_per_s: u64, now: BootNanos) -> Self {
        let burst = (bytes_per_s as f64 * BURST_S).max(LEAST_BURST);
        Self { per_s: bytes_per_s as f64, burst, tokens: burst, at: now }
    }

    /// Bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.per_s
    }

    /// The most that the backlog may send at once, in bytes on the wire.
    pub(super) fn share_bytes(&self) -> u64 {
        (self.burst / 4.0) as u64
    }

    pub(super) fn spend(&mut self, bytes: u64, now: BootNanos) {
        self.refill(now);
        self.tokens -= bytes as f64;
    }

    /// When `bytes` may be sent: now, or later. The backlog leaves half of the bucket, so that new readings find it in there.
    pub(super) fn when(&mut self, class: Class, bytes: u64, now: BootNanos) -> BootNanos {
        self.refill(now);
        let needed = match class {
            Class::Live => 1.0,
            Class::Backlog => (self.burst / 2.0 + bytes as f64).min(self.burst),
        };
        let missing_s = ((needed - self.tokens) / self.per_s).max(0.0);
        BootNanos(now.0.saturating_add((missing_s * SECOND as f64).ceil() as i64))
    }

    fn refill(&mut self, now: BootNanos) {
        let seconds = (now.0 - self.at.0).max(0) as f64 / SECOND as f64;
        self.tokens = (self.tokens + seconds * self.per_s).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over any time no more goes out than a burst, the rate, and one message; and hardly less.
    #[test]
    fn the_mean_is_kept() {
        let mut bucket = Bucket::new(2048, BootNanos(0));
        let (mut now, mut sent) = (BootNanos(0), 0);
        while now.0 < 1000 * SECOND {
            match bucket.when(Class::Backlog, 1500, now) {
                when if when <= now => {
                    bucket.spend(1500, now);
                    sent += 1500;
                }
                when => now = when,
            }
        }
        let mean = 2048 * 1000;
        assert!((mean..=mean + 10 * 2048 + 1500).contains(&sent), "{sent}");
    }

    /// The backlog never takes what a new reading needs to go at once.
    #[test]
    fn the_backlog_leaves_room_for_a_new_reading() {
        let mut bucket = Bucket::new(1000, BootNanos(0));
        while bucket.when(Class::Backlog, 1000, BootNanos(0)) == BootNanos(0) {
            bucket.spend(1000, BootNanos(0));
        }
        assert_eq!(bucket.when(Class::Live, 2000, BootNanos(0)), BootNanos(0));
        bucket.spend(6000, BootNanos(0));
        assert_eq!(bucket.when(Class::Live, 2000, BootNanos(0)), BootNanos(SECOND + SECOND / 1000));
    }
}
