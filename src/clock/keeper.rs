//! When a pair of clock readings is worth keeping as an anchor. Pure: clock readings go in, now and then an anchor
//! comes out. Each one kept costs a row on flash and on the wire, so a clock that behaves leaves few.

use super::{Anchor, Now, SECOND, UtcNanos};

/// An error of the last anchor's prediction above this is worth a new anchor: 50 ms, a tenth of the shortest polling
/// interval that is in use.
const WORTH_NS: i64 = 50_000_000;

/// No two trusted anchors closer than this but after a step: ten minutes. A crystal 80 ppm off errs by 48 ms in that time.
const APART_NS: i64 = 600 * SECOND;

/// An error above this is a step, not drift, and is kept at once: half a second.
const STEP_NS: i64 = SECOND / 2;

/// The system must call the clock synchronised for this long before it is believed: the kernel can set `STA_UNSYNC` again
/// within a second of a step.
const DEBOUNCE_NS: i64 = 3 * SECOND;

/// Decides over one boot. Fed about once a second.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    last: Option<Anchor>,
    trusted_since: Option<i64>,
}

impl Keeper {
    /// A keeper for a boot of which `known` is the newest anchor that is already stored, if any: a restart of the service
    /// writes no anchor that the file holds.
    pub fn new(known: Option<Anchor>) -> Self {
        Self { last: known, trusted_since: None }
    }

    /// Whether the clock is believed at the last observation: said to be synchronised, and for long enough.
    pub fn believes(&self, now: Now) -> bool {
        now.trusted && self.trusted_since.is_some_and(|since| now.boot.0 - since >= DEBOUNCE_NS)
    }

    /// Takes a reading of both clocks; gives the anchor that should be stored with the next commit, if one is due.
    pub fn observe(&mut self, now: Now) -> Option<Anchor> {
        self.trusted_since = now.trusted.then(|| self.trusted_since.unwrap_or(now.boot.0));
        let trusted = self.believes(now);
        if !self.is_due(now, trusted) {
            return None;
        }
        let anchor = Anchor { boot: now.boot, utc: now.utc, trusted };
        self.last = Some(anchor);
        Some(anchor)
    }

    fn is_due(&self, now: Now, trusted: bool) -> bool {
        let Some(last) = self.last else { return true };
        match (last.trusted, trusted) {
            (false, true) => true,
            // A proven relation is not improved by an unproven clock.
            (true, false) => false,
            (false, false) => error_ns(&last, now) > STEP_NS,
            (true, true) => {
                let error = error_ns(&last, now);
                error > STEP_NS || (error > WORTH_NS && now.boot.0 - last.boot.0 >= APART_NS)
            }
        }
    }
}

/// How far `now` is from what `last` predicts, in ns.
fn error_ns(last: &Anchor, now: Now) -> i64 {
    let predicted = UtcNanos(last.utc.0.saturating_add(now.boot.0.saturating_sub(last.boot.0)));
    now.utc.0.saturating_sub(predicted.0).saturating_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootNanos;

    fn now(boot_s: i64, utc_ns: i64, trusted: bool) -> Now {
        Now { boot: BootNanos(boot_s * SECOND), utc: UtcNanos(utc_ns), trusted }
    }

    /// A clock that says "synchronised" must say it for three seconds; then one anchor is kept, not one a second.
    #[test]
    fn trust_is_debounced_and_kept_once() {
        let mut keeper = Keeper::default();
        assert_eq!(
            keeper.observe(now(1, 0, false)).map(|a| a.trusted),
            Some(false),
            "the first word of an unproven clock"
        );
        let t = 1_000_000 * SECOND;
        let kept: Vec<i64> =
            (2..100).filter_map(|s| keeper.observe(now(s, t + s * SECOND, true))).map(|a| a.boot.0 / SECOND).collect();
        // The jump from 1970 is kept as an unproven step at once, the proven anchor after the debounce.
        assert_eq!(kept, [2, 5]);
        assert!(keeper.believes(now(100, t + 100 * SECOND, true)));
        assert!(!keeper.believes(now(100, t + 100 * SECOND, false)));
    }

    /// The kernel may take its word back: the count starts again.
    #[test]
    fn trust_that_flickers_is_not_believed() {
        let mut keeper = Keeper::default();
        let anchors: Vec<Anchor> =
            (0..60).filter_map(|s| keeper.observe(now(s, s * SECOND, s % 3 != 0))).filter(|a| a.trusted).collect();
        assert_eq!(anchors, []);
    }

    /// Days of a drifting crystal leave an anchor each time the error is worth one, and bound the error between them.
    #[test]
    fn drift_over_days_is_followed_with_few_anchors() {
        let mut keeper = Keeper::default();
        let drift = |s: i64| s * SECOND + s * 20_000; // 20 ppm
        let kept = (0..3 * 86_400).filter_map(|s| keeper.observe(now(s, drift(s), true))).count();
        assert!((90..120).contains(&kept), "{kept} anchors in three days");
    }

    /// A step, forward or back, is kept at once; an unproven clock never overrules a proven anchor.
    #[test]
    fn steps_are_kept_at_once_and_lies_not_at_all() {
        let mut keeper = Keeper::new(Some(Anchor { boot: BootNanos(0), utc: UtcNanos(0), trusted: true }));
        for s in 1..10 {
            assert_eq!(keeper.observe(now(s, s * SECOND, true)), None, "a restart writes nothing new");
        }
        assert!(keeper.observe(now(10, 70 * SECOND, true)).is_some_and(|a| a.trusted));
        assert!(keeper.observe(now(11, 11 * SECOND, true)).is_some_and(|a| a.trusted));
        assert_eq!(keeper.observe(now(12, 0, false)), None);
    }
}
