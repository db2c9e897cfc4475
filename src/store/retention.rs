//! What may go, and how large the file may be. Decisions only: figures and moments go in, a bound comes out.
//!
//! Three bounds meet here. `max_size` is fixed. `max_age` needs a clock, and clocks lie: see [`Age`]. `headroom` is about a
//! partition that others fill too: see [`Headroom`]. Beside them stands how much of a file may be free before it is worth
//! giving back: see [`spare_bytes`].

use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::config::StoreConfig;

/// What the configuration says of retention, and what is known of it since the start.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) age: Option<Age>,
    pub(super) headroom: Headroom,
    /// The medium has less room than is to be left on it: what was set aside goes first.
    pub(super) pressed: bool,
}

impl Retention {
    pub(super) fn of(cfg: &StoreConfig) -> Self {
        let nanos = |age: std::time::Duration| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        Self {
            age: cfg.max_age.map(|age| Age::new(nanos(age))),
            headroom: Headroom { leave_bytes: cfg.headroom_bytes },
            pressed: false,
        }
    }
}

/// Up to which moment the past is too old.
///
/// A clock that is wrong by years, and believed, must not empty the file. So the cutoff is not simply `now - max_age`: it
/// begins at the oldest reading held and moves towards that with the boot clock, at most [`RATE`] times as fast as time
/// passes while the clock is trusted. A day under a wrong clock costs [`RATE`] days of the oldest history, not all of it,
/// and a clock that comes to its senses moves the cutoff back. The price: after the device was off for a month, or when
/// `max_age` is lowered by one, it takes some ten days until that month has gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    max_nanos: i64,
    last: Option<(BootNanos, UtcNanos)>,
}

/// See [`Age`].
pub(super) const RATE: i64 = 4;
/// More time than this between two looks counts as this: upkeep looks once an hour.
const MOST_ELAPSED: i64 = 2 * 3600 * SECOND;

impl Age {
    fn new(max_nanos: i64) -> Self {
        Self { max_nanos, last: None }
    }

    /// What ended before the answer is too old. `oldest` is the end of the oldest segment held whose UTC is known. `None`
    /// while the clock isn't trusted.
    pub(super) fn cutoff(&mut self, oldest: UtcNanos, now: Now) -> Option<UtcNanos> {
        if !now.trusted {
            self.last = self.last.map(|(_, cutoff)| (now.boot, cutoff));
            return None;
        }
        let wanted = now.utc.0.saturating_sub(self.max_nanos);
        let (since, from) = self.last.unwrap_or((now.boot, oldest));
        let elapsed = now.boot.0.saturating_sub(since.0).clamp(0, MOST_ELAPSED);
        let cutoff = UtcNanos(from.0.saturating_add(RATE * elapsed).min(wanted));
        self.last = Some((now.boot, cutoff));
        Some(cutoff)
    }
}

/// What is to stay free on the partition, whoever fills it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headroom {
    pub(super) leave_bytes: u64,
}

/// Less than this is no room at all, whatever the configuration leaves.
const NO_ROOM_BYTES: u64 = 256 << 10;

impl Headroom {
    /// Whether less is free than shall be.
    pub(super) fn is_lacking(&self, free_bytes: u64) -> bool {
        free_bytes < self.leave_bytes.max(NO_ROOM_BYTES)
    }

    /// What the database file may take now, in bytes: no more than leaves the headroom, within `floor..=most`.
    ///
    /// `room_bytes` is what the file could have if it left exactly the headroom. That doesn't change with the file itself,
    /// so it can't swing; where others come and go, a bound is raised only where there is [`Headroom::slack`] beyond it.
    pub(super) fn allowed(&self, before: u64, room_bytes: u64, floor: u64, most: u64) -> u64 {
        if self.leave_bytes == 0 {
            return most;
        }
        let slack = self.slack();
        let allowed = match room_bytes {
            room if room < before => room,
            room if room > before.saturating_add(slack) => room - slack,
            _ => before,
        };
        allowed.clamp(floor.min(most), most)
    }

    fn slack(&self) -> u64 {
        (self.leave_bytes / 8).clamp(NO_ROOM_BYTES, 64 << 20)
    }
}

/// What a file that others press may always keep: enough to go on recording, and a history to look at.
pub(super) fn floor_bytes(most_bytes: u64) -> u64 {
    (most_bytes / 8).max(1 << 20).min(most_bytes)
}

/// Free pages, in bytes, up to which a file of `used_bytes` is left as it is. In a steady state pages come free and are
/// taken again: to cut the file for that would move pages from its end, and have it grow again. What expiry and compaction
/// leave free at a time is less than this.
pub(super) fn spare_bytes(used_bytes: u64, limit_bytes: u64) -> u64 {
    used_bytes / 8 + limit_bytes / 64 + NO_ROOM_BYTES
}

/// What a file may hold: a sixteenth is kept free, for a commit and for compaction, which writes before it deletes.
pub(super) fn target_bytes(file_bytes: u64) -> u64 {
    file_bytes - (file_bytes / 16).max(64 << 10).min(file_bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    /// 2026-11-22T00:00:00Z.
    const T: i64 = 20_779 * DAY;

    fn at(boot: i64, utc: i64, trusted: bool) -> Now {
        Now { boot: BootNanos(boot), utc: UtcNanos(utc), trusted }
    }

    fn age(days: i64) -> Age {
        Age::new(days * DAY)
    }

    /// With a clock that is right, what is older than `max_age` goes within the hour, and nothing younger ever.
    #[test]
    fn a_right_clock_cuts_at_max_age() {
        let mut age = age(90);
        for hour in 0..1000 {
            let now = at(hour * HOUR, T + hour * HOUR, true);
            let oldest = UtcNanos(T - 90 * DAY + hour * HOUR);
            assert_eq!(age.cutoff(oldest, now), Some(oldest));
        }
    }

    /// The clock jumps ten years ahead and is believed for three days: twelve days of history go instead of all, and when it
    /// is right again, nothing more than is due.
    #[test]
    fn a_clock_ten_years_ahead_does_not_empty_the_file() {
        let mut age = age(90);
        let held_from = UtcNanos(T - 90 * DAY);
        assert_eq!(age.cutoff(held_from, at(0, T, true)), Some(held_from));
        let mut cutoff = held_from;
        for hour in 1..=72 {
            cutoff = age.cutoff(held_from, at(hour * HOUR, T + 3650 * DAY, true)).unwrap();
        }
        assert_eq!(cutoff.0 - held_from.0, RATE * 3 * DAY);
        let right = age.cutoff(held_from, at(73 * HOUR, T + 73 * HOUR, true)).unwrap();
        assert_eq!(right.0, T + 73 * HOUR - 90 * DAY);
    }

    /// A restart under a wrong clock begins at the oldest reading held: a service that restarts in a loop loses nothing for it.
    #[test]
    fn a_restart_is_no_way_around_the_bound() {
        let held_from = UtcNanos(T - 50 * DAY);
        for _ in 0..100 {
            assert_eq!(age(90).cutoff(held_from, at(HOUR, T + 3650 * DAY, true)), Some(held_from));
        }
    }

    /// Without trust nothing goes, and the time without it doesn't count for later.
    #[test]
    fn time_without_trust_does_not_count() {
        let mut age = age(1);
        let oldest = UtcNanos(T - 100 * DAY);
        age.cutoff(oldest, at(0, T, true));
        for hour in 1..=1000 {
            assert_eq!(age.cutoff(oldest, at(hour * HOUR, 0, false)), None);
        }
        let cutoff = age.cutoff(oldest, at(1001 * HOUR, T, true)).unwrap();
        assert_eq!(cutoff.0 - oldest.0, RATE * HOUR);
    }

    /// A file of 1 MiB to 64 MiB on a partition whose other files take `others` of 100 MiB; where it settles.
    fn settle(headroom: Headroom, before: u64, others: u64, file: &mut u64) -> Vec<u64> {
        let mut allowed = before;
        (0..50)
            .map(|_| {
                let free = u64::saturating_sub(100 << 20, others + *file);
                allowed =
                    headroom.allowed(allowed, (*file + free).saturating_sub(headroom.leave_bytes), 8 << 20, 64 << 20);
                // It grows and shrinks by steps.
                *file =
                    if *file > allowed { (*file - (1 << 20)).max(allowed) } else { (*file + (1 << 20)).min(allowed) };
                allowed
            })
            .collect()
    }

    /// Others take the partition: the file gives way as far as the headroom asks, stays there without swinging, and takes its
    /// room again when they go.
    #[test]
    fn the_file_gives_way_and_does_not_swing() {
        let headroom = Headroom { leave_bytes: 20 << 20 };
        let mut file = 64 << 20;
        let mut allowed = 64 << 20;
        for (others, expected) in
            [(36, 44), (50, 30), (49, 30), (48, 30), (10, 64), (36, 44), (56, 24), (76, 8), (90, 8)]
        {
            let bounds = settle(headroom, allowed, others << 20, &mut file);
            assert!(bounds.iter().all(|bound| *bound == expected << 20), "{others} MiB of others: {bounds:?}");
            assert_eq!(file, expected << 20);
            allowed = expected << 20;
        }
    }

    /// Without a headroom the bound is the configured one, however full the partition is.
    #[test]
    fn no_headroom_no_bound() {
        let headroom = Headroom { leave_bytes: 0 };
        assert_eq!(headroom.allowed(5, 0, 1, 64), 64);
        assert!(headroom.is_lacking(0) && !headroom.is_lacking(NO_ROOM_BYTES));
    }

    /// A file at its limit, in a steady state, has less free than is worth giving back, of whatever size it is.
    #[test]
    fn a_full_file_is_not_cut() {
        for limit in [256 << 10, 1 << 20, 8 << 20, 64 << 20, 1 << 30, 1 << 40] {
            let used = target_bytes(limit) - (limit / 64).max(32 << 10).min(target_bytes(limit));
            assert!(limit - used <= spare_bytes(used, limit), "{limit}");
        }
    }
}
