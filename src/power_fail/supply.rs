//! What is made of the input. Pure: what was seen and when goes in; what to do comes out.
//!
//! ```text
//!            active: commit at once                      steady for STEADY
//!   good ────────────────────────────► failing ⇄ doubtful ────────────────► good
//!                                       for HURRY: short commits, no upkeep
//! ```
//!
//! A supply that fails rarely does it with one clean edge. So the first edge counts at once, and the way back only when the
//! input has been steady for a while: one failure is counted once, however its edges chatter.

use super::Seen;
use crate::clock::{BootNanos, Now, SECOND};

/// How long the input must be inactive until the supply is taken to be back.
pub const STEADY: i64 = SECOND;

/// How long a failure is hurried for. What a supercap carries for longer is a battery, and an input that is stuck must not wear the
/// flash.
pub const HURRY: i64 = 10 * SECOND;

/// What is known of the supply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Supply {
    failing: Option<Failing>,
    /// The input has been seen, so that it is known how it is.
    known: bool,
    times: u64,
    last: Option<Now>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failing {
    since: BootNanos,
    /// Since when the input has been inactive again.
    inactive_since: Option<BootNanos>,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The power fails. Commit.
    Fails {
        /// So it was when the input was first looked at.
        from_the_start: bool,
    },
    /// The power is back.
    Back {
        /// For so long it failed.
        after: BootNanos,
    },
}

impl Supply {
    /// The input was looked at.
    pub fn see(&mut self, seen: Seen, now: Now) -> Option<News> {
        let from_the_start = !std::mem::replace(&mut self.known, true);
        let inactive_since = (!seen.active).then_some(now.boot);
        match &mut self.failing {
            Some(failing) => {
                failing.inactive_since = inactive_since;
                None
            }
            None if seen.was_active => {
                self.failing = Some(Failing { since: now.boot, inactive_since });
                self.times += 1;
                self.last = Some(now);
                Some(News::Fails { from_the_start })
            }
            None => None,
        }
    }

    /// Nothing was seen until `now`.
    pub fn wait(&mut self, now: BootNanos) -> Option<News> {
        let failing = self.failing.filter(|_| self.steady_at().is_some_and(|at| at <= now))?;
        self.failing = None;
        let after = BootNanos(failing.inactive_since?.0 - failing.since.0);
        Some(News::Back { after })
    }

    /// When to call [`Supply::wait`], if nothing is seen before.
    pub fn steady_at(&self) -> Option<BootNanos> {
        let since = self.failing?.inactive_since?;
        Some(BootNanos(since.0.saturating_add(STEADY)))
    }

    /// Nothing is known of the input any more.
    pub fn lose(&mut self) {
        self.known = false;
        self.failing = None;
    }

    /// Until when commits hurry and upkeep rests; none while the supply is good.
    pub fn hurry_until(&self) -> Option<BootNanos> {
        self.failing.map(|failing| BootNanos(failing.since.0.saturating_add(HURRY)))
    }

    /// Whether the power fails; none where it is not known.
    pub fn is_failing(&self) -> Option<bool> {
        self.known.then_some(self.failing.is_some())
    }

    /// How often it failed since the service started.
    pub fn times(&self) -> u64 {
        self.times
    }

    /// When it last began to.
    pub fn last(&self) -> Option<Now> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UtcNanos;

    const MS: i64 = 1_000_000;

    fn at(ms: i64) -> Now {
        Now { boot: BootNanos(ms * MS), utc: UtcNanos(ms * MS), trusted: true }
    }

    const ON: Seen = Seen { active: true, was_active: true };
    const OFF: Seen = Seen { active: false, was_active: true };
    const GOOD: Seen = Seen { active: false, was_active: false };
    const FAILS: Option<News> = Some(News::Fails { from_the_start: false });

    /// A supply that was good at the start.
    fn good() -> Supply {
        let mut supply = Supply::default();
        assert_eq!((supply.is_failing(), supply.see(GOOD, at(0))), (None, None));
        assert_eq!(supply.is_failing(), Some(false));
        supply
    }

    /// The first edge counts at once; the way back when it has been steady for a second, from when it began.
    #[test]
    fn a_brown_out_is_told_at_once_and_its_end_when_it_is_steady() {
        let mut supply = good();
        assert_eq!(supply.see(ON, at(5_000)), FAILS);
        assert_eq!((supply.hurry_until(), supply.steady_at()), (Some(at(15_000).boot), None));
        assert_eq!(supply.wait(at(60_000).boot), None, "it fails for as long as the input says so");
        assert_eq!(supply.see(OFF, at(70_000)), None);
        assert_eq!((supply.is_failing(), supply.steady_at()), (Some(true), Some(at(71_000).boot)));
        assert_eq!(supply.wait(at(70_999).boot), None);
        assert_eq!(supply.wait(at(71_000).boot), Some(News::Back { after: at(65_000).boot }));
        assert_eq!((supply.is_failing(), supply.hurry_until(), supply.times()), (Some(false), None, 1));
        assert_eq!(supply.see(ON, at(72_000)), FAILS);
        assert_eq!((supply.times(), supply.last()), (2, Some(at(72_000))));
    }

    /// Edges that chatter are one failure, and the second of steadiness begins anew with each.
    #[test]
    fn chatter_is_one_failure() {
        let mut supply = good();
        assert_eq!(supply.see(OFF, at(1_000)), FAILS, "a pulse that is over counts too");
        for ms in (1_100..9_000).step_by(500) {
            assert_eq!(supply.see(ON, at(ms)), None);
            assert_eq!(supply.see(OFF, at(ms + 100)), None);
            assert_eq!(supply.wait(at(ms + 400).boot), None);
        }
        assert_eq!(supply.times(), 1);
        assert_eq!(supply.hurry_until(), Some(at(11_000).boot), "the hurry is not made longer by it");
    }

    /// An input that is active when it is first looked at says so apart: it may be the wrong level.
    #[test]
    fn an_input_that_is_active_from_the_start_is_told_apart() {
        let mut supply = Supply::default();
        assert_eq!(supply.see(ON, at(0)), Some(News::Fails { from_the_start: true }));
        assert_eq!((supply.is_failing(), supply.times()), (Some(true), 1));
    }

    /// Where the input is lost it isn't known how the supply is; how often it failed is.
    #[test]
    fn a_lost_input_is_not_known() {
        let mut supply = good();
        supply.see(ON, at(1));
        supply.lose();
        assert_eq!((supply.is_failing(), supply.steady_at(), supply.times()), (None, None, 1));
    }
}
