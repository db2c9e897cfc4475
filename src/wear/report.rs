//! The account as `status` shows it, and the reason of the interval in words.

use super::{CHOOSE_EVERY_S, DAY_S, URGENT_S, Wear, YEAR_S};
use crate::clock::{Now, SECOND, UtcNanos};
use crate::store::medium::{Life, Source};
use serde::Serialize;

/// What a device knows of its flash. Rates are means over the last week, or as long as there is an account; what is not
/// known is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The block device.
    pub medium: String,
    /// What is counted.
    pub source: Source,
    /// The same in words.
    pub counted: String,
    /// When the account began, by a trusted clock.
    pub since: Option<String>,
    /// Days since then.
    pub days: f64,
    /// Bytes that the medium took in that time, from all programs.
    pub written_bytes: u64,
    /// How many of them are an estimate, of what a power cut took of the account or where nothing counts.
    pub estimated_bytes: u64,
    /// Bytes that varved wrote, before what the file system adds.
    pub own_bytes: u64,
    /// Bytes that the store wrote to other media before.
    pub before_bytes: u64,
    /// Bytes that the medium takes a day.
    pub bytes_per_day: u64,
    /// The part of them that comes from other programs.
    pub others_share: f64,
    /// `written_bytes` by the readings committed in that time.
    pub bytes_per_reading: Option<f64>,
    /// The fixed part of what a commit costs, as learnt, in bytes.
    pub bytes_per_commit: u64,
    /// What an eMMC says of itself.
    pub life: Option<Life>,
    /// What the medium stands, as configured or learnt.
    pub endurance_bytes: Option<u64>,
    /// What may be written a year.
    pub budget_bytes_per_year: Option<u64>,
    /// Of what might have been written until now, how much was: above 1 it is overspent.
    pub budget_used: Option<f64>,
    /// Years until the endurance is used up, at the present rate.
    pub years_left: Option<f64>,
    /// The day when that is, by a trusted clock.
    pub end_of_life: Option<String>,
    /// The present commit interval: the loss window, in seconds.
    pub commit_interval_s: f64,
    /// The shortest that may be chosen.
    pub commit_interval_min_s: f64,
    /// The longest.
    pub commit_interval_max_s: f64,
    /// Whether the budget is overspent even so.
    pub overspends: bool,
    /// Why the interval is what it is.
    pub why: String,
}

impl Wear {
    /// Why the interval is what it is.
    pub(super) fn why(&self) -> String {
        let Some(may) = self.allowance() else {
            return match self.config.goal {
                Some(_) => {
                    "commit_interval: what the medium stands is not known yet, see endurance of [flash]".to_owned()
                }
                None => "commit_interval: no budget is set".to_owned(),
            };
        };
        let year = |bytes_per_s: f64| size(bytes_per_s * YEAR_S);
        let (budget, span) = (year(may.bytes_per_s), self.governor.span());
        let others = || format!("{:.0} % of it by other programs", 100.0 * self.cost.others_share());
        if self.governor.overspends() {
            let spends = year(self.cost.at(span.max));
            return match self.config.span {
                Some(_) => format!(
                    "even the longest interval spends {spends} a year, {}, of a budget of {budget}; raise the budget or \
                     commit_interval_max, or write less",
                    others()
                ),
                None => format!(
                    "commit_interval, which spends {spends} a year, {}, of a budget of {budget}; write commit_interval_max to \
                     let it be governed",
                    others()
                ),
            };
        }
        let young = self.cost.observed_s() < CHOOSE_EVERY_S;
        match self.config.span {
            None if young => format!("commit_interval; whether it keeps to {budget} a year is being measured"),
            None => format!("commit_interval, which keeps to {budget} a year"),
            Some(_) if young && may.balance > -URGENT_S * may.bytes_per_s => {
                "what commits cost here is being measured".to_owned()
            }
            Some(span) if self.governor.interval() == span.min => {
                format!("commit_interval_min, which {budget} a year affords")
            }
            Some(_) if may.balance < 0.0 => format!("to pay back what is overspent of {budget} a year"),
            Some(_) => format!("as short as {budget} a year affords"),
        }
    }

    /// What `status` shows, as of the last sample.
    pub fn report(&self, now: Now) -> Report {
        let account = &self.account;
        let may = self.allowance();
        let per_s = self.cost.long_bytes_per_s().unwrap_or_else(|| self.present_rate());
        let left = self.endurance_at_first().map(|bytes| (bytes - account.bytes as f64).max(0.0));
        let left_s = left.filter(|_| per_s > 0.0).map(|bytes| bytes / per_s);
        let due = may.map(|may| may.bytes_per_s * account.elapsed_s()).filter(|due| *due > 0.0);
        let span = self.governor.span();
        Report {
            medium: self.medium.name.clone(),
            source: self.medium.source,
            counted: self.medium.to_string(),
            since: account.began.map(date),
            days: account.elapsed_s() / DAY_S,
            written_bytes: account.bytes,
            estimated_bytes: account.estimated_bytes,
            own_bytes: account.own_bytes,
            before_bytes: account.before_bytes,
            bytes_per_day: (per_s * DAY_S) as u64,
            others_share: self.cost.others_share(),
            bytes_per_reading: (account.tally_readings > 0)
                .then(|| account.bytes as f64 / account.tally_readings as f64),
            bytes_per_commit: self.cost.per_commit() as u64,
            life: account.life.now,
            endurance_bytes: self.endurance().map(|bytes| bytes as u64),
            budget_bytes_per_year: may.map(|may| (may.bytes_per_s * YEAR_S) as u64),
            budget_used: due.map(|due| account.bytes as f64 / due),
            years_left: left_s.map(|s| s / YEAR_S),
            end_of_life: left_s.filter(|_| now.trusted).and_then(|s| later(now, s)).map(date),
            commit_interval_s: self.governor.interval().as_secs_f64(),
            commit_interval_min_s: span.min.as_secs_f64(),
            commit_interval_max_s: span.max.as_secs_f64(),
            overspends: self.governor.overspends(),
            why: self.why(),
        }
    }

    /// Before anything was learnt.
    fn present_rate(&self) -> f64 {
        if self.stretch.seconds() > 0.0 { self.stretch.bytes as f64 / self.stretch.seconds() } else { 0.0 }
    }
}

/// `s` seconds after now; none beyond what a stamp can say.
fn later(now: Now, s: f64) -> Option<UtcNanos> {
    let ns = s * SECOND as f64;
    (ns < (i64::MAX - now.utc.0.max(0)) as f64).then(|| UtcNanos(now.utc.0.saturating_add(ns as i64)))
}

/// The date of a moment, without its time.
fn date(utc: UtcNanos) -> String {
    utc.to_string().chars().take(10).collect()
}

/// A size for a sentence.
fn size(bytes: f64) -> String {
    const UNITS: [(&str, f64); 4] =
        [("TiB", 1099511627776.0), ("GiB", 1073741824.0), ("MiB", 1048576.0), ("KiB", 1024.0)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes / unit),
        None => format!("{bytes:.0} B"),
    }
}
