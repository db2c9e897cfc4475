//! The wear governor: how long the flash will live, and what is done for it.
//!
//! What enters: the account as saved, and samples of the counters, each with its moment. What leaves: [`Action`]s.
//! Pure: it reads no file and asks no clock. It promises an account that restarts and power cuts do not reset and that
//! costs no write of its own while the service runs; a commit interval within its span, and, where that suffices, a
//! budget that is kept. What it does not do: hold back a commit, or lose a reading, for the sake of the flash. Where
//! the longest interval overspends, it says so.
//!
//! | file | holds |
//! |---|---|
//! | `account` | counters to sums |
//! | `life` | what an eMMC says of itself |
//! | `cost` | what commits cost here, as learnt |
//! | `governor` | the choice of the interval |
//! | `report` | what `status` shows |

mod account;
mod cost;
mod governor;
mod life;
mod report;
#[cfg(test)]
mod simulation;

pub use account::{Account, Sample, Tally};
pub use report::Report;

use crate::clock::{BootNanos, Now, SECOND};
use crate::config::{FlashConfig, Goal, Span};
use crate::store::Medium;
use account::Before;
use cost::{Cost, Stretch};
use governor::{Allowance, Governor};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How often the account is given out to be saved with the next commit, at the most seldom. What a power cut takes of
/// it is estimated, so this is about the estimate only, and each saving is a page more in one commit.
const SAVE_EVERY_NS: u64 = 3600 * SECOND as u64;
/// After a start it is given out at once, after this time, and each time that it has run twice as long: what runs for
/// minutes only learns something too.
const SAVE_FIRST_NS: u64 = 60 * SECOND as u64;
/// How long a stretch of time is before it is learnt from.
const STRETCH_S: f64 = 600.0;
/// How often the interval is chosen.
const CHOOSE_EVERY_S: f64 = 3600.0;
/// What is spent at once for so long a time's budget is looked at at once.
const URGENT_S: f64 = 6.0 * 3600.0;

const DAY_S: f64 = 86_400.0;
const YEAR_S: f64 = 365.0 * DAY_S;
/// However worn a medium is, it is given this part of its endurance to be spent: a budget of nothing can't be kept.
const LAST_PART: f64 = 0.01;

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Commit at this interval from now on.
    Interval(Duration),
    /// Save this with the next commit, in place of what was saved.
    Save(String),
    /// Tell the operator.
    Warn(String),
    /// Write this into the log.
    Note(String),
}

/// What the store has kept of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    account: Account,
    cost: Cost,
    stretch: Stretch,
    interval_ms: u64,
    /// When it was chosen and changed last, in seconds of the account.
    chosen_s: f64,
    changed_s: f64,
}

impl Saved {
    fn is_plausible(&self) -> bool {
        let times = [self.chosen_s, self.changed_s];
        // Never later than the account: a choice that lies ahead would be waited for.
        let past = times.iter().all(|s| (0.0..=self.account.elapsed_s() + 1.0).contains(s));
        self.account.is_plausible() && self.cost.is_plausible() && self.stretch.is_plausible() && past
    }
}

/// What the store had of an earlier run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kept(Option<Saved>);

impl Kept {
    /// Reads what was saved. A text that is none of ours, or of a newer version, is as good as none, and `told`.
    pub fn read(text: Option<&str>) -> (Self, Option<Action>) {
        let Some(text) = text else { return (Self::default(), None) };
        match serde_json::from_str::<Saved>(text) {
            Ok(saved) if saved.is_plausible() => (Self(Some(saved)), None),
            _ => {
                let told = "flash: the saved account of writes can't be read; it begins anew, delete the row `wear` of the \
                            table `meta` if this is told again";
                (Self::default(), Some(Action::Warn(told.to_owned())))
            }
        }
    }

    /// The boot in which it was saved.
    pub fn boot(&self) -> Option<Uuid> {
        self.0.as_ref().map(|saved| saved.account.boot())
    }
}

/// Where a service begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// `[flash]`.
    pub config: FlashConfig,
    /// `commit_interval`.
    pub interval: Duration,
    /// Under the store.
    pub medium: Medium,
    /// The running boot.
    pub boot: Uuid,
    /// From the store.
    pub kept: Kept,
    /// The latest reading of the boot in which that was saved.
    pub last_recorded: Option<BootNanos>,
}

/// The account and the governor of one service.
#[derive(Debug, Clone)]
pub struct Wear {
    config: FlashConfig,
    medium: Medium,
    account: Account,
    cost: Cost,
    governor: Governor,
    stretch: Stretch,
    chosen_s: f64,
    /// When the account was given out, and how long until the next time.
    saved: Option<(BootNanos, u64)>,
    told_overspent: bool,
    told_alarm: Option<String>,
}

impl Wear {
    /// Begins or goes on; the first sample is taken before anything else happens. With no span, and while nothing says
    /// what may be spent, the interval stays `commit_interval`.
    pub fn new(start: Start, first: &Sample) -> (Self, Vec<Action>) {
        let Start { config, interval, medium, boot, kept, last_recorded } = start;
        let span = config.span.unwrap_or(Span { min: interval, max: interval });
        let identity = medium.identity.clone();
        let fresh = Governor::new(span, interval, 0.0);
        let mut wear = match kept.0 {
            None => Self::of(config, medium, Account::begin(identity, boot, first), fresh),
            Some(kept) => {
                let before = Before { last_recorded, bytes_per_s: kept.cost.bytes_per_s_on() };
                let account = kept.account.resume(identity, boot, first, before);
                // The account of another medium begins at 0, and the governor's time with it.
                let [chosen_s, changed_s] = [kept.chosen_s, kept.changed_s].map(|s| s.min(account.elapsed_s()));
                let governor = Governor::new(span, Duration::from_millis(kept.interval_ms), changed_s);
                let (cost, stretch) = (kept.cost, kept.stretch);
                Self { cost, stretch, chosen_s, ..Self::of(config, medium, account, governor) }
            }
        };
        let spent = wear.account.take(wear.medium.source, first);
        wear.stretch.add(&spent, wear.governor.interval());
        if wear.allowance().is_none() {
            wear.governor = fresh;
        }
        let mut actions = vec![Action::Note(format!("flash: counting {}", wear.medium))];
        actions.extend(wear.no_endurance().map(Action::Warn));
        actions.push(Action::Interval(wear.governor.interval()));
        (wear, actions)
    }

    fn of(config: FlashConfig, medium: Medium, account: Account, governor: Governor) -> Self {
        let (cost, stretch) = (Cost::default(), Stretch::default());
        let (chosen_s, saved, told_overspent, told_alarm) = (0.0, None, false, None);
        Self { config, medium, account, cost, governor, stretch, chosen_s, saved, told_overspent, told_alarm }
    }

    /// Takes a sample, some seconds after the one before.
    pub fn observe(&mut self, sample: &Sample) -> Vec<Action> {
        let spent = self.account.take(self.medium.source, sample);
        self.stretch.add(&spent, self.governor.interval());
        let mut actions = Vec::new();
        let allowance = self.allowance();
        let urgent = allowance.is_some_and(|may| self.stretch.bytes as f64 > URGENT_S * may.bytes_per_s);
        if urgent || self.stretch.seconds() >= STRETCH_S {
            self.cost.learn(&std::mem::take(&mut self.stretch));
        }
        let now_s = self.account.elapsed_s();
        if let (Some(may), true) = (allowance, urgent || now_s - self.chosen_s >= CHOOSE_EVERY_S) {
            if !urgent {
                self.chosen_s = now_s;
            }
            self.choose(&may, urgent, now_s, &mut actions);
        }
        let alarm = self.account.life.alarm();
        if alarm.is_some() && alarm != self.told_alarm {
            actions.extend(alarm.iter().map(|told| Action::Warn(format!("flash: {}: {told}", self.medium.name))));
            self.told_alarm = alarm;
        }
        actions.extend(self.save_if_due(sample.now));
        actions
    }

    fn save_if_due(&mut self, now: Now) -> Option<Action> {
        let wait_ns = match self.saved {
            None => SAVE_FIRST_NS,
            Some((at, wait_ns)) if (now.boot.0 - at.0).unsigned_abs() >= wait_ns => (2 * wait_ns).min(SAVE_EVERY_NS),
            Some(_) => return None,
        };
        self.saved = Some((now.boot, wait_ns));
        self.save().map(Action::Save)
    }

    /// The account as of the last sample, to be saved.
    pub fn save(&self) -> Option<String> {
        let interval_ms = u64::try_from(self.governor.interval().as_millis()).unwrap_or(u64::MAX);
        let saved = Saved {
            account: self.account.clone(),
            cost: self.cost,
            stretch: self.stretch,
            interval_ms,
            chosen_s: self.chosen_s,
            changed_s: self.governor.changed_s(),
        };
        serde_json::to_string(&saved).ok()
    }

    fn choose(&mut self, may: &Allowance, urgent: bool, now_s: f64, actions: &mut Vec<Action>) {
        let before = self.governor.interval();
        self.governor.choose(may, &self.cost, urgent, now_s);
        let interval = self.governor.interval();
        if interval != before {
            let told = format!(
                "flash: commits every {} s now, {} s before: {}",
                interval.as_secs_f64(),
                before.as_secs_f64(),
                self.why()
            );
            actions.extend([Action::Interval(interval), Action::Note(told)]);
        }
        let overspends = self.governor.overspends();
        if overspends && !self.told_overspent {
            actions.push(Action::Warn(format!("flash: {}", self.why())));
        }
        self.told_overspent = overspends;
    }

    /// What the medium stands, in bytes.
    fn endurance(&self) -> Option<f64> {
        self.config.endurance_bytes.or(self.account.life.endurance_bytes()).map(|bytes| bytes as f64)
    }

    /// What of it was left when the account began.
    fn endurance_at_first(&self) -> Option<f64> {
        self.endurance().map(|bytes| bytes * (1.0 - self.account.life.used_at_first()).max(LAST_PART))
    }

    fn allowance(&self) -> Option<Allowance> {
        let bytes_per_s = match self.config.goal? {
            Goal::BytesPerDay(bytes) => bytes / DAY_S,
            Goal::Days(days) => self.endurance_at_first()? / (days * DAY_S),
        };
        Some(Allowance { bytes_per_s, balance: bytes_per_s * self.account.elapsed_s() - self.account.bytes as f64 })
    }

    fn no_endurance(&self) -> Option<String> {
        let unknown = matches!(self.config.goal, Some(Goal::Days(_))) && self.endurance().is_none();
        unknown.then(|| {
            "flash: lifetime is set, and nothing says what the medium stands: writes are counted and not governed. Write \
             endurance = \"3TiB\" with the figure of its data sheet under [flash]; an eMMC's own estimate serves too, once \
             it has moved by two steps of 10 %"
                .to_owned()
        })
    }
}
