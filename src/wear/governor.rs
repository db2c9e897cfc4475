//! The choice of the commit interval.
//!
//! What enters: what may be spent, what was saved or overspent until now, what commits cost. What leaves: the interval,
//! and why. It promises to stay within its span, to lengthen at once and to shorten seldom, and to change nothing for a
//! little. What it does not do: hold a commit back. A flush, a power-fail input and a full buffer commit when they
//! must, and cost what they cost.
//!
//! ```text
//!   may be spent now = 0.97 × rate + balance / 30 days        balance = rate × time − spent
//! ```
//! So what was overspent is paid back within about a month, and what was saved is used up as slowly: the interval moves
//! by little, and a bad estimate of the cost is put right by the balance that it leads to.

use super::cost::Cost;
use crate::config::Span;
use std::time::Duration;

/// Aimed at a little less than the budget, so that noise does not overspend it.
const AIM: f64 = 0.97;
/// In which a balance is evened out, in seconds.
const HORIZON_S: f64 = 30.0 * 86_400.0;
/// What was saved counts for this much time at the most, so that a year in a drawer is not spent in a month.
const SAVED_S: f64 = 90.0 * 86_400.0;

/// The interval is lengthened when it should be longer by this factor, …
const LONGER: f64 = 1.1;
/// … or, so soon after a change that it may only be half of one, by this; …
const LONGER_SOON: f64 = 1.4;
/// … shortened when it should be shorter by this one, …
const SHORTER: f64 = 1.25;
/// … by so much at most …
const STEP_DOWN: f64 = 2.0;
/// … and so long after the change before.
const CALM_S: f64 = 6.0 * 3600.0;

/// What there is to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Allowance {
    /// Bytes a second.
    pub(super) bytes_per_s: f64,
    /// What was not spent so far; below 0 what was overspent.
    pub(super) balance: f64,
}

/// The interval, and when it was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Governor {
    span: Span,
    interval: Duration,
    /// In seconds of the account.
    changed_s: f64,
    overspends: bool,
}

impl Governor {
    pub(super) fn new(span: Span, interval: Duration, changed_s: f64) -> Self {
        Self { span, interval: span.clamp(interval), changed_s, overspends: false }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn changed_s(&self) -> f64 {
        self.changed_s
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Whether even the longest interval spends more than the budget.
    pub(super) fn overspends(&self) -> bool {
        self.overspends
    }

    /// Chooses; `urgent` where so much was spent at once that only a longer interval is asked for.
    pub(super) fn choose(&mut self, may: &Allowance, cost: &Cost, urgent: bool, now_s: f64) {
        let wanted = self.wanted(may, cost);
        let factor = wanted.as_secs_f64() / self.interval.as_secs_f64();
        let at_end = wanted == self.span.max && wanted != self.interval;
        let calm = now_s - self.changed_s >= CALM_S;
        if factor >= if calm { LONGER } else { LONGER_SOON } || (at_end && calm && factor > 1.0) {
            self.change(wanted, now_s);
        } else if factor <= 1.0 / SHORTER && calm && !urgent {
            self.change(wanted.max(self.interval.div_f64(STEP_DOWN)), now_s);
        }
        let least = cost.at(self.span.max);
        let bar = if self.overspends { 0.9 } else { 1.0 };
        // The first minutes of a device are no measure of its years.
        let known = cost.observed_s() >= super::CHOOSE_EVERY_S;
        self.overspends = known && self.interval == self.span.max && least > bar * may.bytes_per_s;
    }

    fn wanted(&self, may: &Allowance, cost: &Cost) -> Duration {
        let balance = may.balance.min(SAVED_S * may.bytes_per_s);
        let target = AIM * may.bytes_per_s + balance / HORIZON_S;
        let seconds = cost.interval_s(target).unwrap_or(f64::INFINITY);
        // Tenths are plenty, and read better.
        let tenths = (seconds.clamp(0.0, self.span.max.as_secs_f64()) * 10.0).ceil() / 10.0;
        self.span.clamp(Duration::from_secs_f64(tenths))
    }

    fn change(&mut self, interval: Duration, now_s: f64) {
        self.interval = self.span.clamp(interval);
        self.changed_s = now_s;
    }
}
