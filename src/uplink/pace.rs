//! How fast, how much and in which pieces: what the link carries, what the configuration allows, what the budgets leave.
//!
//! What enters: messages handed over and arrived, the time, the account as it was saved. What leaves: whether something may
//! go now or when it is worth asking again, how large a message may be, figures. Pure.
//!
//! | file | holds |
//! |---|---|
//! | `link` | the rate of the link, learnt, and what is on the way |
//! | `bucket` | `rate_limit` |
//! | `budget` | what a day and a month have spent |
//! | `toll` | what a message costs on the wire |
//!
//! Promises: nothing is published that a budget has no room for. What can't be held back (pings, acks that come, the
//! beginning of a connection) is counted, and the pings of the rest of the period are set aside beforehand. The backlog
//! leaves `live_reserve` of each budget to new readings.

mod bucket;
mod budget;
mod link;
mod toll;

use crate::clock::{BootNanos, Now, SECOND};
use crate::config::PaceConfig;
use bucket::Bucket;
use budget::{Account, Span};
use link::Link;
use serde::{Deserialize, Serialize};
use toll::Toll;

/// More than topic and envelope add to the bytes of a frame.
const FRAME_EXTRA: u64 = 256;

/// What a state or a page costs at most in a check; and what is left aside for the ack that answers a message.
const SMALL: u64 = 1024;

/// The account is given out to be saved so often, and each time that this part of the smaller budget was spent.
const SAVE_NS: i64 = 3600 * SECOND;
const SAVE_PART: u64 = 64;

/// A budget that is used up is looked at again so often.
const AGAIN_NS: i64 = 60 * SECOND;

/// For whom bytes are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// New readings, and what must be known with them.
    Live,
    /// All else.
    Backlog,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Pace {
    config: PaceConfig,
    max_payload_bytes: usize,
    toll: Toll,
    link: Link,
    bucket: Option<Bucket>,
    daily: Account,
    monthly: Account,
    /// Both clocks when the accounts were last brought up to date.
    now: Option<Now>,
    /// Since when there is a connection, as far as its pings are counted.
    connected: Option<BootNanos>,
    saved: Option<Saved>,
}

/// When the account was last given out, and what had been spent in all.
#[derive(Debug, Clone, Copy)]
struct Saved {
    at: BootNanos,
    spent: u64,
}

/// What is kept over restarts.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    daily: Account,
    monthly: Account,
    /// Not the last word of a service that ended in good order: more may have been spent.
    open: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(PaceConfig::default(), crate::wire::MAX_ENVELOPE, false, BootNanos(0))
    }
}

impl Pace {
    /// With nothing spent. A message has at most `max_payload_bytes`.
    pub(super) fn new(config: PaceConfig, max_payload_bytes: usize, tls: bool, now: BootNanos) -> Self {
        Self {
            config,
            max_payload_bytes,
            toll: Toll { tls },
            link: Link::default(),
            bucket: config.rate_limit.map(|rate| Bucket::new(rate, now)),
            daily: Account::new(Span::Day),
            monthly: Account::new(Span::Month),
            now: None,
            connected: None,
            saved: None,
        }
    }

    /// Goes on with the account of an earlier run. Where that did not end in good order, it is taken to have spent what may
    /// be spent between two savings. False for a text that is none of ours: then nothing was spent.
    #[must_use]
    pub(super) fn resume(&mut self, text: &str) -> bool {
        let Ok(kept) = serde_json::from_str::<Kept>(text) else { return false };
        if !kept.daily.is_plausible(Span::Day) || !kept.monthly.is_plausible(Span::Month) {
            return false;
        }
        (self.daily, self.monthly) = (kept.daily, kept.monthly);
        if kept.open {
            self.spend(self.unsaved_at_most().unwrap_or(0));
        }
        true
    }

    /// It is `now`: brings the accounts up to date. To be told at least every few minutes.
    pub(super) fn time(&mut self, now: Now) {
        let ran_ns = self.now.map_or(0, |last| now.boot.0 - last.boot.0);
        let every = i64::try_from(self.config.keep_alive.as_nanos()).unwrap_or(i64::MAX).max(SECOND);
        // A ping that is due at midnight counts for the day that ends.
        if let Some(since) = self.connected {
            let pings = (now.boot.0 - since.0).max(0) / every;
            self.connected = Some(BootNanos(since.0 + pings * every));
            self.spend(pings.unsigned_abs() * self.toll.ping());
        }
        self.daily.pass(ran_ns, now);
        self.monthly.pass(ran_ns, now);
        self.now = Some(now);
    }

    /// A connection begins.
    pub(super) fn connected(&mut self, now: BootNanos) {
        self.link.anew();
        self.connected = Some(now);
        self.spend(self.toll.connection());
    }

    /// It is gone, with what was on the way.
    pub(super) fn disconnected(&mut self) {
        self.link.anew();
        self.connected = None;
    }

    /// A message of `bytes`, topic and payload, was handed over, which took since `begun`.
    pub(super) fn published(&mut self, bytes: u64, begun: BootNanos, now: BootNanos) {
        self.link.begin(bytes, begun);
        let cost = self.toll.publish(bytes);
        self.spend(cost);
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(cost, now);
        }
    }

    /// The broker has the one that was handed over first.
    pub(super) fn passed(&mut self, now: BootNanos) {
        self.link.passed(now);
    }

    /// A message of `bytes`, topic and payload, came.
    pub(super) fn arrived(&mut self, bytes: u64) {
        self.spend(self.toll.publish(bytes));
    }

    /// The largest payload that may go out, in bytes.
    pub(super) fn message_bytes(&self) -> usize {
        let limit =
            self.bucket.as_ref().map_or(u64::MAX, |bucket| bucket.share_bytes().saturating_sub(2 * FRAME_EXTRA));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1024);
        self.link.message_bytes(self.max_payload_bytes.min(limit))
    }

    /// Whether a segment of `bytes` may begin to go out now; else when it is worth asking again, or an answer comes before.
    pub(super) fn segment(&mut self, class: Class, bytes: u64, now: BootNanos) -> Result<(), BootNanos> {
        self.affords(class, self.cost_of(bytes), now)?;
        self.message(class, bytes, now)
    }

    /// The same of the next message of one that has begun, of which `bytes` are left.
    pub(super) fn message(&mut self, class: Class, bytes: u64, now: BootNanos) -> Result<(), BootNanos> {
        let next = bytes.min(self.message_bytes() as u64);
        let cost = self.toll.publish(next + FRAME_EXTRA);
        let may_wait = class == Class::Backlog && !self.link.is_short(now);
        if may_wait || !self.has_room(next, now) {
            return Err(self.link.forgets_at().unwrap_or(now));
        }
        self.affords(class, cost, now)?;
        match self.bucket.as_mut().map(|bucket| bucket.when(class, cost, now)) {
            Some(when) if when > now => Err(when),
            _ => Ok(()),
        }
    }

    /// Whether what is on the way leaves room for `bytes` more.
    pub(super) fn has_room(&self, bytes: u64, now: BootNanos) -> bool {
        self.link.has_room(bytes, u64::from(self.config.max_in_flight_bytes), now)
    }

    /// Whether a state or a page may go out now.
    pub(super) fn small(&self, now: BootNanos) -> Result<(), BootNanos> {
        self.affords(Class::Live, self.toll.publish(SMALL), now)
    }

    /// How much longer than usual to wait for an ack: what is on the way takes its time.
    pub(super) fn patience_ns(&self, now: BootNanos) -> i64 {
        self.link.patience_ns(now)
    }

    /// Whether what goes out is paid for by the byte.
    pub(super) fn is_metered(&self) -> bool {
        self.config.budget_daily.is_some() || self.config.budget_monthly.is_some()
    }

    /// What is to be saved, where it is time to.
    pub(super) fn save(&mut self) -> Option<String> {
        let now = self.now?.boot;
        let spent = self.daily.spent() + self.monthly.spent();
        let much = |before: u64| self.unsaved_at_most().is_some_and(|most| spent.abs_diff(before) >= most);
        let due = self.saved.is_none_or(|saved| now.0 - saved.at.0 >= SAVE_NS || much(saved.spent));
        due.then(|| {
            self.saved = Some(Saved { at: now, spent });
            self.text(true)
        })
    }

    /// What is to be saved as the last word.
    pub(super) fn last_word(&self) -> String {
        self.text(false)
    }

    /// Figures for `status`.
    pub(super) fn figures(&self) -> Figures {
        let rate = self.link.measured().map(|rate| rate as u64);
        Figures {
            today_bytes: self.daily.spent(),
            budget_daily_bytes: self.config.budget_daily,
            month_bytes: self.monthly.spent(),
            budget_monthly_bytes: self.config.budget_monthly,
            rate_bytes_per_s: rate,
            message_bytes: self.message_bytes() as u64,
        }
    }

    /// What the time to drain follows from.
    pub(super) fn outlook(&self) -> Outlook {
        let size = self.message_bytes() as u64;
        let limit = self.bucket.as_ref().map_or(f64::MAX, Bucket::rate);
        let budgets =
            self.left(Class::Backlog).map(|left| left.map(|(left_bytes, budget)| self.period(left_bytes, budget)));
        Outlook {
            bytes_per_s: self.link.measured().map(|rate| rate.min(limit) as u64),
            message_bytes: size,
            message_cost: self.toll.publish(size + FRAME_EXTRA),
            budgets,
        }
    }

    fn period(&self, left_bytes: u64, budget: Budget<'_>) -> Period {
        let whole = budget.account.length_ns();
        Period {
            left_bytes,
            each_bytes: budget.bytes.saturating_sub(self.reserve(budget.bytes) + self.pings(whole)),
            left_s: (self.now.map_or(whole, |now| budget.account.left_ns(now)) / SECOND).unsigned_abs(),
            whole_s: (whole / SECOND).unsigned_abs(),
        }
    }

    fn text(&self, open: bool) -> String {
        let kept = Kept { daily: self.daily.clone(), monthly: self.monthly.clone(), open };
        // Numbers and lists always have a text.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    fn spend(&mut self, bytes: u64) {
        let trusted = self.now.is_some_and(|now| now.trusted);
        self.daily.spend(bytes, trusted);
        self.monthly.spend(bytes, trusted);
    }

    /// What may be spent between two savings and be forgotten by a power cut; none without a budget, where it matters
    /// to nobody.
    fn unsaved_at_most(&self) -> Option<u64> {
        let budgets = [self.config.budget_daily, self.config.budget_monthly];
        budgets.into_iter().flatten().min().map(|bytes| bytes / SAVE_PART)
    }

    /// What a segment of `bytes` costs in the messages of now.
    fn cost_of(&self, bytes: u64) -> u64 {
        let size = self.message_bytes() as u64;
        let messages = bytes.div_ceil(size).max(1);
        messages * self.toll.publish(bytes.min(size) + FRAME_EXTRA)
    }

    /// Whether both budgets have room for `cost` and the ack that answers it.
    fn affords(&self, class: Class, cost: u64, now: BootNanos) -> Result<(), BootNanos> {
        let cost = cost + self.toll.publish(SMALL);
        let fits = |(left, _): (u64, Budget<'_>)| left >= cost;
        if self.left(class).into_iter().flatten().all(fits) {
            return Ok(());
        }
        Err(BootNanos(now.0.saturating_add(AGAIN_NS)))
    }

    /// What the budgets that there are have left for this class.
    fn left(&self, class: Class) -> [Option<(u64, Budget<'_>)>; 2] {
        self.budgets().map(|budget| {
            budget.map(|budget| {
                let reserve = if class == Class::Backlog { self.reserve(budget.bytes) } else { 0 };
                let aside = self.pings(self.now.map_or(0, |now| budget.account.left_ns(now)));
                (budget.bytes.saturating_sub(budget.account.spent() + aside + reserve), budget)
            })
        })
    }

    fn budgets(&self) -> [Option<Budget<'_>>; 2] {
        let pairs = [(self.config.budget_daily, &self.daily), (self.config.budget_monthly, &self.monthly)];
        pairs.map(|(bytes, account)| bytes.map(|bytes| Budget { bytes, account }))
    }

    fn reserve(&self, budget_bytes: u64) -> u64 {
        // Below 2^40, so this can't overflow.
        budget_bytes * u64::from(self.config.live_reserve_percent) / 100
    }

    /// What the pings of so long cost, and one more.
    fn pings(&self, ns: i64) -> u64 {
        let every = i64::try_from(self.config.keep_alive.as_nanos()).unwrap_or(i64::MAX).max(SECOND);
        (ns / every + 1).unsigned_abs() * self.toll.ping()
    }
}

/// One that is set.
#[derive(Debug, Clone, Copy)]
struct Budget<'a> {
    bytes: u64,
    account: &'a Account,
}

/// What `status` says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct Figures {
    /// Bytes on the wire today, both ways, with all headers.
    pub today_bytes: u64,
    /// What a day may have of them.
    pub budget_daily_bytes: Option<u64>,
    /// Bytes on the wire this month.
    pub month_bytes: u64,
    /// What a month may have of them.
    pub budget_monthly_bytes: Option<u64>,
    /// What the link carries, as last measured: less than it could where there is little to send.
    pub rate_bytes_per_s: Option<u64>,
    /// The largest message that goes out, in bytes.
    pub message_bytes: u64,
}

/// What the time to drain follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    bytes_per_s: Option<u64>,
    message_bytes: u64,
    message_cost: u64,
    budgets: [Option<Period>; 2],
}

/// A budget, as the backlog sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    /// What is left of the present period, in bytes and seconds.
    left_bytes: u64,
    left_s: u64,
    /// What a whole one gives.
    each_bytes: u64,
    whole_s: u64,
}

impl Outlook {
    /// Seconds until about `pending_bytes` are sent: at the rate of the link or the limit, and in as many days and months as
    /// the budgets make of it. None while no rate is known, or where a budget never has anything for them.
    pub fn drain_s(&self, pending_bytes: u64) -> Option<u64> {
        if pending_bytes == 0 {
            return Some(0);
        }
        let cost = pending_bytes.div_ceil(self.message_bytes.max(1)).saturating_mul(self.message_cost);
        let mut longest_s = cost / self.bytes_per_s?.max(1);
        for period in self.budgets.iter().flatten().filter(|period| period.left_bytes < cost) {
            if period.each_bytes == 0 {
                return None;
            }
            let periods = (cost - period.left_bytes).div_ceil(period.each_bytes) - 1;
            longest_s = longest_s.max(period.left_s.saturating_add(periods.saturating_mul(period.whole_s)));
        }
        Some(longest_s)
    }
}

#[cfg(test)]
mod tests;
