//! Upkeep: which step of the store is worth its writes now. Pure; the caller runs the step and says how it went.
//!
//! What enters: how idle the service is, the store's figures, the moment. What leaves: one [`Chore`] or none. It promises
//! that room is made before a commit needs it, however busy things are, and that everything else waits for a pause. Each
//! step is short and may be the last before a power cut. What it does not do: touch the store.
//!
//! | chore | when |
//! |---|---|
//! | [`Chore::Expire`] | at once when the file is nearly full, or the partition is and something is set aside on it; else once an hour, to let go of what is too old and of what nothing cites |
//! | [`Chore::Vacuum`] | at once when the file is above its limit, after `max_size` was lowered or for the headroom; in a pause when much of it is free, as after a burst |
//! | [`Chore::Checkpoint`] | in a pause, when nothing has been committed for a minute, or the log is six hours old, or a vacuum is done, whose pages are cut off with it |
//! | [`Chore::Compact`] | in a pause, once a minute, and on as long as there is something to join |

use crate::clock::{BootNanos, Now, SECOND};
use crate::store::{Step, StoreFacts};
use std::time::Duration;

/// A step of [`crate::store::Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    /// [`crate::store::Store::expire_step`].
    Expire,
    /// [`crate::store::Store::vacuum_step`].
    Vacuum,
    /// [`crate::store::Store::checkpoint`].
    Checkpoint,
    /// [`crate::store::Store::compact_step`].
    Compact,
}

/// How busy the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// Since the last commit.
    pub since_commit: Duration,
    /// Until the next one is due; `None` where nothing waits.
    pub until_commit: Option<Duration>,
}

/// A pause too short for a step, which may block for some hundreds of milliseconds on a card. Where commits come so often
/// that there is no longer one, the first half of each interval has to do.
const SHORT: Duration = Duration::from_millis(1500);
/// With no commit for so long and none on the way, what is in the log is folded: a bit that rots there costs more than one in
/// the database.
const QUIET: Duration = Duration::from_secs(60);
/// And no sooner than this after the fold before: readings may come every few minutes.
const QUIET_AGAIN_NANOS: i64 = 600 * SECOND;
/// A log is not left to rot for longer than this, even while commits go on. Each fold writes pages that the next hours
/// would have changed again, which shows where commits are a minute apart.
const FOLD_NANOS: i64 = 6 * 3600 * SECOND;
const COMPACT_NANOS: i64 = 60 * SECOND;
const TIDY_NANOS: i64 = 3600 * SECOND;
/// After a step that failed, so that a medium in trouble isn't pressed.
const FAILED_NANOS: i64 = 10 * SECOND;

/// What was done when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    expire_at: BootNanos,
    vacuum_at: BootNanos,
    fold_at: BootNanos,
    compact_at: BootNanos,
    /// A vacuum has begun and goes on until the store says that it is enough.
    shrinking: bool,
    /// The file isn't cut yet, and was tried: not again before this.
    cut_at: BootNanos,
    /// Nothing could be expired although the file is nearly full: not asked again before this.
    stuck_until: BootNanos,
}

impl Upkeep {
    /// At the start of the service.
    pub fn new(now: Now) -> Self {
        let after = |nanos: i64| BootNanos(now.boot.0.saturating_add(nanos));
        Self {
            expire_at: after(TIDY_NANOS),
            vacuum_at: now.boot,
            fold_at: after(FOLD_NANOS),
            compact_at: after(COMPACT_NANOS),
            shrinking: false,
            cut_at: now.boot,
            stuck_until: now.boot,
        }
    }

    /// The step to take now.
    pub fn next(&self, idle: Idle, facts: &StoreFacts, now: Now) -> Option<Chore> {
        let due = |at: BootNanos| now.boot >= at;
        if (facts.nearly_full() || facts.aside_in_the_way) && due(self.stuck_until) {
            return Some(Chore::Expire);
        }
        if facts.above_limit() && facts.free_pages > 0 && due(self.vacuum_at) {
            return Some(Chore::Vacuum);
        }
        if idle.until_commit.is_some_and(|left| left <= SHORT.min((left + idle.since_commit) / 2)) {
            return None;
        }
        let quiet = idle.until_commit.is_none()
            && idle.since_commit >= QUIET
            && due(BootNanos(self.fold_at.0.saturating_sub(FOLD_NANOS - QUIET_AGAIN_NANOS)));
        if facts.wal_pages_waiting > 0 && (quiet || due(self.fold_at)) {
            return Some(Chore::Checkpoint);
        }
        if (self.shrinking || facts.has_spare()) && due(self.vacuum_at) {
            return Some(Chore::Vacuum);
        }
        if facts.is_uncut() && facts.wal_pages_waiting > 0 && due(self.cut_at) {
            return Some(Chore::Checkpoint);
        }
        if due(self.compact_at) {
            return Some(Chore::Compact);
        }
        due(self.expire_at).then_some(Chore::Expire)
    }

    /// How `chore` went: `Some(Step::Worked)` where there may be more to do at once, `None` where it failed.
    pub fn done(&mut self, chore: Chore, outcome: Option<Step>, now: Now) {
        let after = |nanos: i64| BootNanos(now.boot.0.saturating_add(nanos));
        let next = |pause: i64| match outcome {
            Some(Step::Worked) => now.boot,
            Some(Step::Idle) => after(pause),
            None => after(FAILED_NANOS),
        };
        match chore {
            Chore::Expire => {
                self.expire_at = next(TIDY_NANOS);
                self.stuck_until = next(FAILED_NANOS);
            }
            Chore::Vacuum => {
                self.vacuum_at = next(COMPACT_NANOS);
                self.shrinking = outcome == Some(Step::Worked);
            }
            Chore::Compact => self.compact_at = next(COMPACT_NANOS),
            Chore::Checkpoint => {
                self.fold_at = if outcome.is_some() { after(FOLD_NANOS) } else { after(FAILED_NANOS) };
                self.cut_at = after(COMPACT_NANOS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UtcNanos;

    fn at(s: i64) -> Now {
        Now { boot: BootNanos(s * SECOND), utc: UtcNanos(0), trusted: false }
    }

    fn idle(since: u64, until: u64) -> Idle {
        Idle { since_commit: Duration::from_secs(since), until_commit: Some(Duration::from_secs(until)) }
    }

    /// A file of 1,000 pages of which 1 is free, within a limit of 2,000.
    fn facts() -> StoreFacts {
        StoreFacts {
            file_limit_bytes: 4_096_000,
            page_bytes: 2048,
            pages: 1000,
            free_pages: 1,
            ..StoreFacts::default()
        }
    }

    /// Room is made however near the next commit is; everything else waits.
    #[test]
    fn room_is_made_however_busy_it_is() {
        let upkeep = Upkeep::new(at(0));
        let full = StoreFacts { pages: 2000, wal_pages_waiting: 5, ..facts() };
        assert_eq!(upkeep.next(idle(0, 0), &full, at(5000)), Some(Chore::Expire));
        let calm = StoreFacts { wal_pages_waiting: 5, ..facts() };
        assert_eq!(upkeep.next(idle(0, 0), &calm, at(30_000)), None);
        assert_eq!(upkeep.next(idle(2, 8), &calm, at(30_000)), Some(Chore::Checkpoint));
    }

    /// A commit every second leaves half a second for upkeep, not nothing.
    #[test]
    fn short_intervals_leave_time_for_upkeep() {
        let upkeep = Upkeep::new(at(0));
        let between = |since: u64, until: u64| Idle {
            since_commit: Duration::from_millis(since),
            until_commit: Some(Duration::from_millis(until)),
        };
        assert_eq!(upkeep.next(between(200, 800), &facts(), at(100)), Some(Chore::Compact));
        assert_eq!(upkeep.next(between(800, 200), &facts(), at(100)), None);
    }

    /// Where nothing may be expired, it isn't asked in a circle.
    #[test]
    fn a_full_file_that_nothing_may_leave_is_not_pressed() {
        let mut upkeep = Upkeep::new(at(0));
        let full = StoreFacts { pages: 2000, ..facts() };
        upkeep.done(Chore::Expire, Some(Step::Worked), at(1));
        assert_eq!(upkeep.next(idle(1, 9), &full, at(1)), Some(Chore::Expire));
        upkeep.done(Chore::Expire, Some(Step::Idle), at(1));
        assert_eq!(upkeep.next(idle(1, 9), &full, at(2)), None);
        assert_eq!(upkeep.next(idle(1, 9), &full, at(12)), Some(Chore::Expire));
    }

    /// The file gives pages back at once where it is above its limit, and not for the few that a steady state leaves free.
    #[test]
    fn pages_are_given_back_above_the_limit() {
        let upkeep = Upkeep::new(at(0));
        let above = StoreFacts { pages: 2500, free_pages: 1500, ..facts() };
        assert_eq!(upkeep.next(idle(0, 0), &above, at(1)), Some(Chore::Vacuum));
        assert_eq!(upkeep.next(idle(1, 9), &StoreFacts { free_pages: 150, ..facts() }, at(1)), None);
    }

    /// After a burst pages are given back in pauses until the store says that it is enough; then the file is cut, once.
    #[test]
    fn after_a_burst_the_file_shrinks_in_pauses() {
        let mut upkeep = Upkeep::new(at(0));
        let burst = StoreFacts { free_pages: 900, ..facts() };
        assert_eq!(upkeep.next(idle(0, 0), &burst, at(1)), None);
        assert_eq!(upkeep.next(idle(2, 8), &burst, at(2)), Some(Chore::Vacuum));
        upkeep.done(Chore::Vacuum, Some(Step::Worked), at(2));
        let fewer = StoreFacts { free_pages: 150, ..facts() };
        assert_eq!(upkeep.next(idle(3, 7), &fewer, at(3)), Some(Chore::Vacuum), "what has begun is brought to its end");
        upkeep.done(Chore::Vacuum, Some(Step::Idle), at(3));
        let uncut = StoreFacts { file_bytes: 1000 * 2048, pages: 200, wal_pages_waiting: 9, ..fewer };
        assert_eq!(upkeep.next(idle(4, 6), &uncut, at(4)), Some(Chore::Checkpoint));
        upkeep.done(Chore::Checkpoint, Some(Step::Idle), at(4));
        assert_eq!(upkeep.next(idle(5, 5), &uncut, at(5)), None, "a reader is in the way");
        assert_eq!(upkeep.next(idle(5, 5), &uncut, at(64)), Some(Chore::Checkpoint));
    }

    /// What is set aside on a partition that is full goes at once.
    #[test]
    fn what_is_set_aside_makes_room_at_once() {
        let pressed = StoreFacts { aside_in_the_way: true, ..facts() };
        assert_eq!(Upkeep::new(at(0)).next(idle(0, 0), &pressed, at(1)), Some(Chore::Expire));
    }

    /// While commits go on the log is folded every six hours; after a minute of silence at once, and once.
    #[test]
    fn the_log_is_folded_in_silence() {
        let mut upkeep = Upkeep::new(at(0));
        upkeep.compact_at = at(1 << 30).boot;
        upkeep.expire_at = at(1 << 30).boot;
        let waiting = StoreFacts { wal_pages_waiting: 5, ..facts() };
        assert_eq!(upkeep.next(idle(5, 5), &waiting, at(6 * 3600 - 1)), None);
        assert_eq!(upkeep.next(idle(5, 5), &waiting, at(6 * 3600)), Some(Chore::Checkpoint));
        let silent = |seconds| Idle { until_commit: None, ..idle(seconds, 0) };
        assert_eq!(upkeep.next(silent(60), &waiting, at(600)), Some(Chore::Checkpoint));
        upkeep.done(Chore::Checkpoint, Some(Step::Worked), at(600));
        assert_eq!(upkeep.next(silent(61), &waiting, at(601)), None, "a reader holds the rest: not again and again");
        assert_eq!(upkeep.next(silent(660), &waiting, at(1200)), Some(Chore::Checkpoint));
        assert_eq!(upkeep.next(silent(660), &facts(), at(1200)), None);
    }

    /// Commits that are minutes apart are no silence: a fold after each would cost more flash than they do. (It did.)
    #[test]
    fn rare_commits_are_no_silence() {
        let mut upkeep = Upkeep::new(at(0));
        (upkeep.compact_at, upkeep.expire_at) = (at(1 << 30).boot, at(1 << 30).boot);
        let waiting = StoreFacts { wal_pages_waiting: 5, ..facts() };
        assert!(
            (60..240).all(|since| upkeep.next(idle(since, 240 - since), &waiting, at(3600 + since as i64)).is_none())
        );
    }

    /// Compaction goes on while it finds something, then rests a minute; a failure rests too.
    #[test]
    fn compaction_rests_when_there_is_nothing_to_join() {
        let mut upkeep = Upkeep::new(at(0));
        assert_eq!(upkeep.next(idle(1, 9), &facts(), at(60)), Some(Chore::Compact));
        upkeep.done(Chore::Compact, Some(Step::Worked), at(60));
        assert_eq!(upkeep.next(idle(1, 9), &facts(), at(60)), Some(Chore::Compact));
        upkeep.done(Chore::Compact, Some(Step::Idle), at(60));
        assert_eq!(upkeep.next(idle(1, 9), &facts(), at(119)), None);
        upkeep.done(Chore::Compact, None, at(120));
        assert_eq!(upkeep.next(idle(1, 9), &facts(), at(125)), None);
        assert_eq!(upkeep.next(idle(1, 9), &facts(), at(130)), Some(Chore::Compact));
    }
}
