//! What each source has done so far, for `status`, and the brake on its log lines.
//!
//! What enters: counts, one at a time, from the source's own thread or tasks. What leaves: a [`Snapshot`] that can be
//! serialised. Counts never go back within a run and are not kept across runs; they are relaxed atomics, so a snapshot
//! taken while lines arrive is not one instant of all of them.

use super::line_protocol::Refusal;
use crate::clock::{BootNanos, SECOND};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counts of one `[[sensor]]` block.
#[derive(Debug)]
pub struct Counters {
    source: String,
    readings: AtomicU64,
    missing: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    errors: AtomicU64,
    reconnects: AtomicU64,
    dropped: AtomicU64,
    skipped_ticks: AtomicU64,
    clients: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// [`Counters`] at about one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Which source: its kind, and where that is not enough, its address, path or command.
    pub source: String,
    /// Readings handed on, those without a value included.
    pub readings: u64,
    /// Of them, readings that carry a reason instead of a value.
    pub missing: u64,
    /// Lines of line protocol (fields, for `series-full`) that were refused, by reason; reasons that never occurred are
    /// left out.
    pub refused: BTreeMap<&'static str, u64>,
    /// Failures of the source itself: a socket that could not be bound, a command that could not be started or that ended.
    pub errors: u64,
    /// Restarts of a command; connections that a socket accepted.
    pub reconnects: u64,
    /// Datagrams that the kernel dropped because its buffer was full, and readings that were in hand when the source
    /// was told to stop and the queue was full.
    pub dropped: u64,
    /// Scheduled ticks at which nothing was read, because the poll before took too long or the machine slept.
    pub skipped_ticks: u64,
    /// Clients connected now.
    pub clients: u64,
    /// The text of the latest error.
    pub last_error: Option<String>,
}

impl Counters {
    /// Counters at zero for a source of this name.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            readings: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; Refusal::ALL.len()],
            errors: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            skipped_ticks: AtomicU64::new(0),
            clients: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// The name given to [`Counters::new`].
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All counts now.
    pub fn snapshot(&self) -> Snapshot {
        let refused = Refusal::ALL.iter().map(|why| (why.as_str(), self.refused[*why as usize].load(Relaxed)));
        Snapshot {
            source: self.source.clone(),
            readings: self.readings.load(Relaxed),
            missing: self.missing.load(Relaxed),
            refused: refused.filter(|(_, n)| *n > 0).collect(),
            errors: self.errors.load(Relaxed),
            reconnects: self.reconnects.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            skipped_ticks: self.skipped_ticks.load(Relaxed),
            clients: self.clients.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(|broken| broken.into_inner()).clone(),
        }
    }

    pub(super) fn add_readings(&self, n: usize, missing: usize) {
        self.readings.fetch_add(n as u64, Relaxed);
        self.missing.fetch_add(missing as u64, Relaxed);
    }

    pub(super) fn add_refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn add_error(&self, what: &str) {
        self.errors.fetch_add(1, Relaxed);
        *self.last_error.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(what.to_owned());
    }

    pub(super) fn add_reconnect(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    pub(super) fn add_dropped(&self, n: u64) {
        self.dropped.fetch_add(n, Relaxed);
    }

    pub(super) fn add_skipped_ticks(&self, n: u64) {
        self.skipped_ticks.fetch_add(n, Relaxed);
    }

    /// Counts a client as connected until the answer is dropped. Also says how many there are now, itself included.
    pub(super) fn client(self: &std::sync::Arc<Self>) -> (ClientMark, u64) {
        let now = self.clients.fetch_add(1, Relaxed) + 1;
        (ClientMark(self.clone()), now)
    }
}

/// While this lives a client is connected.
#[derive(Debug)]
pub(super) struct ClientMark(std::sync::Arc<Counters>);

impl Drop for ClientMark {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

/// Lets one log line through per minute and counts the others. Pure: the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    open_at: Option<BootNanos>,
    held_back: u64,
}

impl Seldom {
    const PERIOD_NANOS: i64 = 60 * SECOND;

    /// `Some(n)` where a line may be logged now, `n` being how many were held back since the last one.
    pub(super) fn allow(&mut self, now: BootNanos) -> Option<u64> {
        if self.open_at.is_some_and(|open| now < open) {
            self.held_back += 1;
            return None;
        }
        self.open_at = Some(BootNanos(now.0.saturating_add(Self::PERIOD_NANOS)));
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault that repeats every millisecond makes one line a minute, and the line says how many it stands for.
    #[test]
    fn a_repeated_fault_is_logged_once_a_minute_with_its_count() {
        let mut seldom = Seldom::default();
        let allowed: Vec<_> = (0..120_001).filter_map(|ms| seldom.allow(BootNanos(ms * 1_000_000))).collect();
        assert_eq!(allowed, [0, 59_999, 59_999]);
    }

    /// Each count ends up under its own name, and what never occurred is left out.
    #[test]
    fn counts_appear_under_their_names() {
        let counters = std::sync::Arc::new(Counters::new("socket"));
        counters.add_readings(5, 2);
        counters.add_refused(Refusal::Stamp);
        counters.add_error("gone");
        let (mark, now) = counters.client();
        let seen = counters.snapshot();
        assert_eq!((now, seen.clients, seen.readings, seen.missing, seen.errors), (1, 1, 5, 2, 1));
        assert_eq!(seen.refused.into_iter().collect::<Vec<_>>(), [("stamp", 1)]);
        assert_eq!(seen.last_error.as_deref(), Some("gone"));
        drop(mark);
        assert_eq!(counters.snapshot().clients, 0);
    }
}
