//! What was asked of devices, as `varved-fleet devices` and `varved-fleet request --wait` tell it.
//!
//! What enters: retrievals from the roster. What leaves: lines for people and for JSON.

use super::align;
use crate::clock::civil::iso8601;
use crate::fleet::replica::retrievals::Standing;
use crate::fleet::retrieval::What;
use serde::Serialize;
use std::fmt::Write;

const SNAPSHOT: &str = "snapshot";
const VERIFIED: &str = "verified";

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestLine {
    /// Its number.
    pub request: i64,
    /// `snapshot`, or the range and its store.
    pub what: String,
    /// Whether the device sends it of its own accord, at its `snapshot_every`.
    pub by_device: bool,
    /// When it was asked for, ISO 8601.
    pub asked: String,
    /// When it ended; none while it is under way.
    pub ended: Option<String>,
    /// `under way`, `verified` or `not verified`.
    pub outcome: &'static str,
    /// Sequence numbers that were compared with the device's own account and found the same.
    pub numbers_verified: u64,
    /// All that it is of, as far as the device has said; 0 before it has.
    pub numbers: u64,
    /// Why it was given up, or what was found on the way.
    pub words: String,
}

impl RequestLine {
    /// The line of what the roster says.
    pub fn of(standing: &Standing) -> Self {
        let retrieval = &standing.retrieval;
        let (numbers_verified, numbers) = retrieval.numbers();
        Self {
            request: retrieval.id,
            what: match retrieval.what {
                What::Snapshot => SNAPSHOT.into(),
                What::Range(store, range) => format!("{range} of store {store}"),
            },
            by_device: retrieval.by_device,
            asked: iso8601(retrieval.asked),
            ended: standing.ended.map(iso8601),
            outcome: match (standing.ended, standing.verified) {
                (None, _) => "under way",
                (Some(_), true) => VERIFIED,
                (Some(_), false) => "not verified",
            },
            numbers_verified,
            numbers,
            words: standing.words.clone(),
        }
    }

    /// Whether it ended well.
    pub fn is_verified(&self) -> bool {
        self.outcome == VERIFIED
    }

    /// How far it is, for people.
    pub fn progress(&self) -> String {
        match self.numbers {
            0 => self.outcome.to_owned(),
            all => format!("{}, {} of {all} numbers", self.outcome, self.numbers_verified),
        }
    }
}

/// The requests of `devices` that are under way, and of each the last that ended and the last snapshot that was verified;
/// nothing where there is none.
pub(super) fn table(devices: &[super::DeviceLine]) -> String {
    let mut out = String::from("DEVICE\tREQUEST\tWHAT\tASKED\tENDED\tOUTCOME\n");
    let mut any = false;
    for device in devices {
        let last = device.requests.iter().rposition(|line| line.ended.is_some());
        let whole = device.requests.iter().rposition(|line| line.what == SNAPSHOT && line.is_verified());
        let shown = |(at, line): &(usize, &RequestLine)| line.ended.is_none() || [last, whole].contains(&Some(*at));
        let shown = device.requests.iter().enumerate().filter(shown);
        for (_, line) in shown {
            any = true;
            let (name, ended) = (&device.device, line.ended.as_deref().unwrap_or("-"));
            let by = if line.by_device { " (its own)" } else { "" };
            let words = if line.words.is_empty() { String::new() } else { format!(": {}", line.words) };
            let RequestLine { request, what, asked, .. } = line;
            let _ = writeln!(out, "{name}\t{request}\t{what}{by}\t{asked}\t{ended}\t{}{words}", line.progress());
        }
    }
    if any { format!("\n{}", align(&out)) } else { String::new() }
}
