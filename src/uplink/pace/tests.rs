//! What may go, and what it costs: over days and months, restarts, and clocks that are put right.

use super::*;
use crate::clock::{UtcNanos, civil};
use std::collections::BTreeMap;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DAY: i64 = 86_400;

/// A device that sends as much of either class as it may, with a fast link.
struct Device {
    pace: Pace,
    config: PaceConfig,
    /// Seconds of CLOCK_BOOTTIME, and what UTC is ahead of it.
    boot_s: i64,
    utc_ahead_s: i64,
    trusted: bool,
    /// By the day of UTC that it truly was: bytes of segments on the wire.
    sent: BTreeMap<i64, u64>,
}

impl Device {
    fn new(config: PaceConfig, utc: &str) -> Self {
        let utc_ahead_s = civil::parse(utc).expect("a date").0 / SECOND;
        let pace = Pace::new(config, 120 << 10, false, BootNanos(0));
        Self { pace, config, boot_s: 0, utc_ahead_s, trusted: true, sent: BTreeMap::new() }
    }

    fn now(&self) -> Now {
        let utc = UtcNanos((self.boot_s + self.utc_ahead_s) * SECOND);
        Now { boot: BootNanos(self.boot_s * SECOND), utc, trusted: self.trusted }
    }

    fn connect(&mut self) {
        self.pace.time(self.now());
        self.pace.connected(self.now().boot);
    }

    /// Sends as much as it may for so long, looking every ten minutes; the bytes on the wire of its segments.
    fn run(&mut self, class: Class, seconds: i64) -> u64 {
        let mut all = 0;
        for _ in 0..seconds / 600 {
            self.boot_s += 600;
            all += self.send(class, usize::MAX);
        }
        all
    }

    fn send(&mut self, class: Class, most: usize) -> u64 {
        let now = self.now();
        self.pace.time(now);
        let mut all = 0;
        for _ in 0..most {
            if self.pace.segment(class, 5_000, now.boot).is_err() {
                break;
            }
            let before = self.pace.daily.spent();
            self.pace.published(5_100, now.boot, now.boot);
            self.pace.passed(BootNanos(now.boot.0 + SECOND / 100));
            // The ack.
            self.pace.arrived(150);
            all += self.pace.daily.spent() - before;
        }
        *self.sent.entry(now.utc.0.div_euclid(DAY * SECOND)).or_default() += all;
        all
    }

    /// Another run of the service, in another boot where `off_s` is given.
    fn restart(&mut self, text: &str, off_s: Option<i64>) {
        if let Some(off_s) = off_s {
            self.utc_ahead_s += self.boot_s + off_s;
            self.boot_s = 0;
        }
        self.pace = Pace::new(self.config, 120 << 10, false, self.now().boot);
        assert!(self.pace.resume(text));
        self.connect();
    }
}

fn daily(mib: u64) -> PaceConfig {
    PaceConfig { budget_daily: Some(mib * MIB), keep_alive: Duration::from_secs(600), ..PaceConfig::default() }
}

/// Each day and each month gets its budget, nearly all of it, and never a byte more, pings and acks included.
#[test]
fn budgets_hold_over_days_and_months() {
    let config = PaceConfig { budget_monthly: Some(40 * MIB), ..daily(2) };
    let mut device = Device::new(config, "2026-11-01T00:00:00Z");
    device.connect();
    for day in 1..=30 {
        device.run(Class::Live, DAY - 600);
        let (today, month) = (device.pace.daily.spent(), device.pace.monthly.spent());
        assert!(today <= 2 * MIB && month <= 40 * MIB, "day {day}: {today}, {month}");
        // The pings of the month's other days are set aside for them.
        let whole = if day <= 19 { 2 * MIB - 20_000 } else { 0 };
        assert!(today >= whole, "day {day}: {today}");
        device.boot_s += 600;
    }
    assert!(device.pace.monthly.spent() >= 40 * MIB - 40_000, "{}", device.pace.monthly.spent());
    assert!(device.run(Class::Live, DAY) > 2 * MIB - 100_000, "a new month");
}

/// The backlog leaves a fifth of the budget, which new readings then have to the last byte.
#[test]
fn the_backlog_leaves_the_reserve() {
    let mut device = Device::new(daily(5), "2026-11-01T00:00:00Z");
    device.connect();
    let backlog = device.run(Class::Backlog, DAY / 2);
    assert!((5 * MIB * 3 / 4..=5 * MIB * 4 / 5).contains(&backlog), "{backlog}");
    assert_eq!(device.send(Class::Backlog, 1), 0);
    let live = device.run(Class::Live, DAY / 4);
    assert!((MIB - 50_000..=MIB + 50_000).contains(&live), "{live}");
    let now = device.now().boot;
    while device.pace.small(now).is_ok() {
        device.pace.published(150, now, now);
    }
    assert!(device.pace.daily.spent() <= 5 * MIB, "the states end where the budget does");
}

/// A clean restart forgets nothing, one after a power cut takes what it can't know for spent: ten of either give a day no
/// more than its budget.
#[test]
fn restarts_give_nothing_away() {
    for clean in [true, false] {
        let mut device = Device::new(daily(5), "2026-11-01T00:00:00Z");
        device.connect();
        let mut saved = device.pace.save().expect("the first is saved at once");
        for k in 0..10 {
            device.boot_s += 600;
            for _ in 0..15 {
                device.send(Class::Live, 1);
                // What is given out is on the medium with the next commit.
                saved = device.pace.save().unwrap_or(saved);
            }
            let text = if clean { device.pace.last_word() } else { saved.clone() };
            device.restart(&text, (k % 3 == 0).then_some(60));
        }
        let rest = device.run(Class::Live, DAY / 2);
        let all: u64 = device.sent.values().sum();
        assert!(all <= 5 * MIB, "clean {clean}: {all}");
        assert!(rest > 0 && all >= if clean { 4 * MIB } else { 3 * MIB }, "clean {clean}: {all}");
    }
}

/// A board without a clock of its own: each start is in 1970 until the clock is set. No true day gets more than its budget,
/// whatever the clock shows meanwhile.
#[test]
fn starts_in_1970_give_nothing_away() {
    let mut device = Device::new(daily(5), "2026-11-01T06:00:00Z");
    device.connect();
    device.run(Class::Live, 3600);
    for _ in 0..5 {
        let (text, ahead) = (device.pace.last_word(), device.utc_ahead_s + device.boot_s);
        device.restart(&text, Some(0));
        (device.utc_ahead_s, device.trusted) = (0, false);
        let undated = device.run(Class::Live, 1200);
        (device.utc_ahead_s, device.trusted) = (ahead, true);
        *device.sent.entry((ahead + device.boot_s) / DAY).or_default() += undated;
        device.run(Class::Live, 1200);
    }
    let today = (device.utc_ahead_s + device.boot_s) / DAY;
    assert!(device.sent[&today] <= 5 * MIB, "{:?}", device.sent);
    assert!(device.pace.daily.spent() <= 5 * MIB);
}

/// The rate limit is kept at the mean also by large segments, whose messages it makes smaller; new readings go at once.
#[test]
fn the_rate_limit_makes_messages_smaller() {
    let config = PaceConfig { rate_limit: Some(2048), ..PaceConfig::default() };
    let mut device = Device::new(config, "2026-11-01T00:00:00Z");
    device.connect();
    let mut sent = 0;
    for _ in 0..3600 {
        device.boot_s += 1;
        let now = device.now().boot;
        while device.pace.segment(Class::Backlog, 100_000, now).is_ok() {
            let bytes = device.pace.message_bytes() as u64;
            assert!(bytes <= 5 * 2048 / 2, "{bytes}");
            let before = device.pace.daily.spent();
            device.pace.published(bytes, now, now);
            sent += device.pace.daily.spent() - before;
            device.pace.passed(BootNanos(now.0 + SECOND / 100));
        }
        assert_eq!(device.pace.segment(Class::Live, 2_000, now), Ok(()));
    }
    assert!((3600 * 2048 * 9 / 10..=3601 * 2048 + 10 * 2048).contains(&sent), "{sent}");
}

/// The account is given out about once an hour, and more often only where much of a budget goes.
#[test]
fn the_account_is_saved_seldom() {
    let mut device = Device::new(PaceConfig::default(), "2026-11-01T00:00:00Z");
    device.connect();
    let mut times = 0;
    for _ in 0..240 {
        device.boot_s += 60;
        device.send(Class::Live, 50);
        times += u32::from(device.pace.save().is_some());
    }
    assert_eq!(times, 4);
    let (before, text) = (device.pace.daily.spent(), device.pace.text(true));
    assert!(device.pace.resume(&text));
    assert_eq!(device.pace.daily.spent(), before, "without a budget nothing is taken for spent");
    for bad in ["", "{}", "[1]", &device.pace.last_word().replace("\"Day\"", "\"Month\"")] {
        assert!(!device.pace.resume(bad), "{bad}");
    }
}

/// The time to drain follows from the rate, and from the days that a budget makes of it; what is not known is not said.
#[test]
fn the_time_to_drain_follows_from_rate_and_budget() {
    let mut device = Device::new(daily(5), "2026-11-01T12:00:00Z");
    device.connect();
    assert_eq!(device.pace.outlook().drain_s(1000), None);
    assert_eq!(device.pace.outlook().drain_s(0), Some(0));
    device.send(Class::Live, 3);
    let seconds = device.pace.outlook().drain_s(100_000).expect("a rate");
    let rate = device.pace.figures().rate_bytes_per_s.expect("a rate");
    assert!((100_000 / rate..=120_000 / rate + 1).contains(&seconds), "{seconds} s at {rate}");
    // About 4 MiB are left to the backlog until midnight, and as much each day after that.
    assert_eq!(device.pace.outlook().drain_s(6 * MIB), Some(12 * 3600));
    assert_eq!(device.pace.outlook().drain_s(10 * MIB), Some(12 * 3600 + 86_400));
    let none = PaceConfig { live_reserve_percent: 100, ..daily(5) };
    let mut device = Device::new(none, "2026-11-01T12:00:00Z");
    device.connect();
    device.send(Class::Live, 3);
    assert_eq!(device.pace.outlook().drain_s(1000), None, "nothing is left for it, ever");
}
