//! Something that is to be done, and not too often. Pure; the time is passed in.

use crate::clock::BootNanos;

/// Whether it is wanted, and when it was done last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due {
    pub(super) wanted: bool,
    pub(super) at_once: bool,
    pub(super) last: Option<BootNanos>,
}

impl Due {
    pub(super) fn at_once(&mut self) {
        self.wanted = true;
        self.at_once = true;
    }

    /// When, if at all, given the least time between two.
    pub(super) fn when(&self, gap_ns: i64) -> Option<BootNanos> {
        let rested = self.last.filter(|_| !self.at_once).map_or(i64::MIN, |last| last.0.saturating_add(gap_ns));
        self.wanted.then_some(BootNanos(rested))
    }

    pub(super) fn done(&mut self, now: BootNanos) {
        *self = Self { wanted: false, at_once: false, last: Some(now) };
    }
}
