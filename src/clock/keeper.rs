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

/// A clock that is set again and again leaves no more steps than this at once, and then one in so many seconds: a faulty
/// time source shall not fill the flash. What is left out is a step of the next one that is kept.
const STEPS_AT_ONCE: i64 = 16;
const STEP_APART_NS: i64 = 600 * SECOND;

/// The system must call the clock synchronised for this long before it is believed: the kernel can set `STA_UNSYNC` again
/// within a second of a step.
const DEBOUNCE_NS: i64 = 3 * SECOND;

/// Decides over one boot. Fed about once a second.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    last: Option<Anchor>,
    /// The observation before, as the anchor that it would have been.
    before: Option<Anchor>,
    trusted_since: Option<i64>,
    /// Until when the steps that were kept are paid for, at one each [`STEP_APART_NS`]: ns since boot.
    steps_paid: i64,
}

/// Why an anchor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The first word, or the first proven one.
    News,
    /// The clocks have drifted apart since the last anchor.
    Drift,
    /// The wall clock was set since the last observation.
    Step,
}

impl Keeper {
    /// A keeper for a boot of which `known` is the newest anchor that is already stored, if any: a restart of the service
    /// writes no anchor that the file holds.
    pub fn new(known: Option<Anchor>) -> Self {
        Self { last: known, ..Self::default() }
    }

    /// Whether the clock is believed at the last observation: said to be synchronised, and for long enough.
    pub fn believes(&self, now: Now) -> bool {
        now.trusted && self.trusted_since.is_some_and(|since| now.boot.0 - since >= DEBOUNCE_NS)
    }

    /// Takes a reading of both clocks; gives the anchors that should be stored with the next commit, if any are due. At a
    /// step of a proven clock there are two, from right before and right after it, so that what was right before stays
    /// right and the step isn't spread over the time between anchors.
    pub fn observe(&mut self, now: Now) -> Vec<Anchor> {
        self.trusted_since = now.trusted.then(|| self.trusted_since.unwrap_or(now.boot.0));
        let anchor = Anchor { boot: now.boot, utc: now.utc, trusted: self.believes(now) };
        let before = self.before.replace(anchor);
        let due = match self.why(&anchor) {
            None => return Vec::new(),
            Some(Why::News | Why::Drift) => vec![anchor],
            Some(Why::Step) if !self.may_step(now) => return Vec::new(),
            Some(Why::Step) => {
                before.filter(|b| b.trusted && Some(*b) != self.last).into_iter().chain([anchor]).collect()
            }
        };
        self.last = Some(anchor);
        due
    }

    fn may_step(&mut self, now: Now) -> bool {
        let paid = self.steps_paid.max(now.boot.0).saturating_add(STEP_APART_NS);
        let may = paid.saturating_sub(now.boot.0) <= STEPS_AT_ONCE * STEP_APART_NS;
        if may {
            self.steps_paid = paid;
        }
        may
    }

    fn why(&self, now: &Anchor) -> Option<Why> {
        let Some(last) = self.last else { return Some(Why::News) };
        let error = error_ns(&last, now);
        match (last.trusted, now.trusted) {
            (false, true) => Some(Why::News),
            // A proven relation is not improved by an unproven clock.
            (true, false) => None,
            _ if error > STEP_NS => Some(Why::Step),
            (true, true) => {
                let apart = now.boot.0 - last.boot.0 >= APART_NS;
                (error > WORTH_NS && apart).then_some(Why::Drift)
            }
            (false, false) => None,
        }
    }
}

/// How far `now` is from what `last` predicts, in ns.
fn error_ns(last: &Anchor, now: &Anchor) -> i64 {
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
        assert!(!keeper.observe(now(1, 0, false))[0].trusted, "the first word of an unproven clock");
        let t = 1_000_000 * SECOND;
        let kept: Vec<i64> =
            (2..100).flat_map(|s| keeper.observe(now(s, t + s * SECOND, true))).map(|a| a.boot.0 / SECOND).collect();
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
            (0..60).flat_map(|s| keeper.observe(now(s, s * SECOND, s % 3 != 0))).filter(|a| a.trusted).collect();
        assert_eq!(anchors, []);
    }

    /// Days of a drifting crystal leave an anchor each time the error is worth one, and bound the error between them.
    #[test]
    fn drift_over_days_is_followed_with_few_anchors() {
        let mut keeper = Keeper::default();
        let drift = |s: i64| s * SECOND + s * 20_000; // 20 ppm
        let kept = (0..3 * 86_400).flat_map(|s| keeper.observe(now(s, drift(s), true))).count();
        assert!((90..120).contains(&kept), "{kept} anchors in three days");
    }

    /// A step, forward or back, is kept at once; an unproven clock never overrules a proven anchor.
    #[test]
    fn steps_are_kept_at_once_and_lies_not_at_all() {
        let mut keeper = Keeper::new(Some(Anchor { boot: BootNanos(0), utc: UtcNanos(0), trusted: true }));
        for s in 1..10 {
            assert_eq!(keeper.observe(now(s, s * SECOND, true)), [], "a restart writes nothing new");
        }
        let utc_s = |kept: Vec<Anchor>| kept.iter().map(|a| (a.boot.0 / SECOND, a.utc.0 / SECOND)).collect::<Vec<_>>();
        assert_eq!(
            utc_s(keeper.observe(now(10, 70 * SECOND, true))),
            [(9, 9), (10, 70)],
            "from both sides of the step"
        );
        assert_eq!(utc_s(keeper.observe(now(11, 11 * SECOND, true))), [(11, 11)], "the side before is kept already");
        assert_eq!(keeper.observe(now(12, 0, false)), []);
    }

    /// A time source that sets the clock every second leaves some anchors at once and few afterwards; when it rests, the last
    /// word is kept.
    #[test]
    fn a_mad_clock_leaves_few_anchors() {
        let mut keeper = Keeper::default();
        let mad = |s: i64| s * SECOND + (s % 2) * 3600 * SECOND;
        let hours = |from: i64, to: i64| from * 3600..to * 3600;
        let kept = hours(0, 10).flat_map(|s| keeper.observe(now(s, mad(s), true))).count();
        assert!((40..200).contains(&kept), "{kept} anchors in ten hours");
        let kept: Vec<Anchor> = hours(10, 11).flat_map(|s| keeper.observe(now(s, s * SECOND, true))).collect();
        let last = kept.last().copied().or(keeper.last).unwrap();
        assert_eq!(last.utc.0, last.boot.0);
    }
}
