//! The account as `status` shows it.

use crate::clock::UtcNanos;
use crate::store::medium::{Life, Source};
use serde::Serialize;

/// What a device knows of its flash. Rates are means over the last week, or as long as there is an account; what is not known is
/// none.
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

/// The date of a moment, without its time.
pub(super) fn date(utc: UtcNanos) -> String {
    utc.to_string().chars().take(10).collect()
}

/// A size for a sentence.
pub(super) fn size(bytes: f64) -> String {
    const UNITS: [(&str, f64); 4] =
        [("TiB", 1099511627776.0), ("GiB", 1073741824.0), ("MiB", 1048576.0), ("KiB", 1024.0)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes / unit),
        None => format!("{bytes:.0} B"),
    }
}
