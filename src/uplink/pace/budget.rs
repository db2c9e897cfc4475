//! How many bytes went over the wire in this day and this month.
//!
//! What enters: bytes spent, time that has passed, and UTC where the clock is trusted. What leaves: what this period has
//! spent, and when the next begins. Pure.
//!
//! A day is one of UTC by a trusted clock; without one it ends after 24 hours of running, a month after 30 days. The
//! account is kept by the date: a clock that is stepped back finds the date's account as it was, so no date has its budget
//! twice. What was spent before the clock was trusted counts for the date that it then tells.

use crate::clock::{Now, SECOND, UtcNanos, civil};
use serde::{Deserialize, Serialize};

/// Dates that are remembered: as many as a clock may be stepped between.
const DATES: usize = 4;

const DAY_NS: i64 = 86_400 * SECOND;

/// A day or a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Span {
    Day,
    Month,
}

impl Span {
    /// Its number at a moment of UTC.
    fn number(self, at: UtcNanos) -> i64 {
        match self {
            Self::Day => at.0.div_euclid(DAY_NS),
            Self::Month => civil::month_number(at),
        }
    }

    /// How long it is without a calendar.
    fn length_ns(self) -> i64 {
        match self {
            Self::Day => DAY_NS,
            Self::Month => 30 * DAY_NS,
        }
    }

    /// How long it still lasts at a moment of UTC, an hour more or less at the end of a month.
    fn left_ns(self, at: UtcNanos) -> i64 {
        let day = DAY_NS - at.0.rem_euclid(DAY_NS);
        let same = |days: &i64| self.number(UtcNanos(at.0.saturating_add(days * DAY_NS))) == self.number(at);
        match self {
            Self::Day => day,
            Self::Month => day + (1..31).take_while(same).count() as i64 * DAY_NS,
        }
    }
}

/// What was spent at one date; without a number, since a moment that no calendar knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    date: Option<i64>,
    bytes: u64,
}

/// The account of one span, kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    span: Span,
    /// The present one is the last.
    dates: Vec<Spent>,
    /// Of the present one's bytes, those since the clock was last trusted.
    undated: u64,
    /// Time of running since then.
    ran_ns: i64,
}

impl Account {
    pub(super) fn new(span: Span) -> Self {
        Self { span, dates: vec![Spent { date: None, bytes: 0 }], undated: 0, ran_ns: 0 }
    }

    /// Whether what was read from a file can be one.
    pub(super) fn is_plausible(&self, span: Span) -> bool {
        let sums = self.dates.iter().all(|spent| spent.bytes < 1 << 60);
        self.span == span
            && sums
            && (1..=DATES).contains(&self.dates.len())
            && self.undated < 1 << 60
            && self.ran_ns >= 0
    }

    /// `ran_ns` have passed, and it is `now`.
    pub(super) fn pass(&mut self, ran_ns: i64, now: Now) {
        if !now.trusted {
            self.ran_ns = self.ran_ns.saturating_add(ran_ns.max(0));
            if self.ran_ns >= self.span.length_ns() {
                self.begin(None, 0);
            }
            return;
        }
        let date = Some(self.span.number(now.utc));
        let undated = std::mem::take(&mut self.undated);
        self.ran_ns = 0;
        if self.present().date != date {
            let before = self.dates.iter().position(|spent| spent.date == date).map(|at| self.dates.remove(at).bytes);
            self.begin(date, before.unwrap_or(0) + undated);
        }
    }

    pub(super) fn spend(&mut self, bytes: u64, trusted: bool) {
        if let Some(present) = self.dates.last_mut() {
            present.bytes = present.bytes.saturating_add(bytes);
        }
        self.undated = if trusted { 0 } else { self.undated.saturating_add(bytes) };
    }

    /// Bytes of the present period.
    pub(super) fn spent(&self) -> u64 {
        self.present().bytes
    }

    /// How long it still lasts.
    pub(super) fn left_ns(&self, now: Now) -> i64 {
        if now.trusted { self.span.left_ns(now.utc) } else { (self.span.length_ns() - self.ran_ns).max(0) }
    }

    /// How long a period is, as far as a forecast cares.
    pub(super) fn length_ns(&self) -> i64 {
        self.span.length_ns()
    }

    fn begin(&mut self, date: Option<i64>, bytes: u64) {
        // The one before is of no more use where it has no date: what is to be carried over has been.
        self.dates.retain(|spent| spent.date.is_some());
        if self.dates.len() == DATES {
            self.dates.remove(0);
        }
        self.dates.push(Spent { date, bytes });
        (self.undated, self.ran_ns) = (0, 0);
    }

    fn present(&self) -> Spent {
        self.dates.last().copied().unwrap_or(Spent { date: None, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootNanos;

    fn trusted(text: &str) -> Now {
        Now { boot: BootNanos(0), utc: civil::parse(text).expect("a date"), trusted: true }
    }

    const UNKNOWN: Now = Now { boot: BootNanos(0), utc: UtcNanos(5), trusted: false };

    fn after(account: &mut Account, hours: i64, now: Now) -> u64 {
        account.pass(hours * 3600 * SECOND, now);
        account.spent()
    }

    /// A day ends at midnight UTC, a month at its last midnight.
    #[test]
    fn periods_end_with_the_calendar() {
        let mut day = Account::new(Span::Day);
        day.pass(0, trusted("2028-02-28T23:00:00Z"));
        day.spend(100, true);
        assert_eq!(after(&mut day, 0, trusted("2028-02-28T23:59:59Z")), 100);
        assert_eq!(after(&mut day, 0, trusted("2028-02-29T00:00:00Z")), 0);
        let mut month = Account::new(Span::Month);
        month.pass(0, trusted("2028-02-01T00:00:00Z"));
        month.spend(100, true);
        assert_eq!(after(&mut month, 0, trusted("2028-02-29T23:59:59Z")), 100);
        assert_eq!(after(&mut month, 0, trusted("2028-03-01T00:00:00Z")), 0);
        assert_eq!(month.left_ns(trusted("2028-03-01T00:00:00Z")), 31 * DAY_NS);
        assert_eq!(month.left_ns(trusted("2028-02-28T12:00:00Z")), DAY_NS * 3 / 2);
    }

    /// Without a trusted clock a day is 24 hours of running, whatever the wall clock shows.
    #[test]
    fn without_a_clock_a_day_is_a_day_of_running() {
        let mut day = Account::new(Span::Day);
        day.spend(100, false);
        assert_eq!(after(&mut day, 23, UNKNOWN), 100);
        assert_eq!(day.left_ns(UNKNOWN), 3600 * SECOND);
        assert_eq!(after(&mut day, 1, UNKNOWN), 0);
        assert_eq!(after(&mut day, 0, UNKNOWN), 0);
        assert_eq!(day.left_ns(UNKNOWN), DAY_NS);
    }

    /// What was spent before the clock was trusted counts for the date that it then tells, and only once.
    #[test]
    fn what_was_spent_undated_counts_for_the_date_that_is_learnt() {
        let mut day = Account::new(Span::Day);
        day.pass(0, trusted("2026-11-22T10:00:00Z"));
        day.spend(70, true);
        // A restart on the same day, and one on the next.
        for (date, expected) in [("2026-11-22T12:00:00Z", 75), ("2026-11-23T12:00:00Z", 5)] {
            let mut again: Account = serde_json::from_str(&serde_json::to_string(&day).expect("text")).expect("itself");
            again.pass(60 * SECOND, UNKNOWN);
            again.spend(5, false);
            assert_eq!(again.spent(), 75, "until the date is known, it may be the same day");
            assert_eq!(after(&mut again, 0, trusted(date)), expected);
            again.pass(60 * SECOND, UNKNOWN);
            assert_eq!(after(&mut again, 0, trusted(date)), expected);
        }
    }

    /// A clock that is stepped back and forth gives no date its budget twice.
    #[test]
    fn steps_of_the_clock_give_nothing_away() {
        let mut day = Account::new(Span::Day);
        let dates = ["2026-11-22T12:00:00Z", "2030-01-01T00:00:00Z", "2026-11-21T23:59:59Z", "1999-01-01T00:00:00Z"];
        for round in 1..=5 {
            for date in dates {
                day.pass(0, trusted(date));
                day.spend(10, true);
                assert_eq!(day.spent(), round * 10, "{date}");
            }
        }
    }
}
