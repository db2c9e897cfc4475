//! How far back a file reaches: readings, hours, days.
//!
//! What enters: the file as it is. What leaves: a [`History`]. It reads a few rows only.

use super::super::Store;
use super::super::error::StoreError;
use super::{HOUR_NANOS, STEP_SEGMENTS};
use crate::clock::UtcNanos;
use crate::clock::timebase::Quality;

/// How far back a file reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The oldest reading at full resolution.
    pub readings_from: Option<(UtcNanos, Quality)>,
    /// The hourly and daily figures.
    pub rollups: RollupSpan,
}

/// Where the figures begin and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RollupSpan {
    /// The beginning of the oldest hour that has figures.
    pub hours_from: Option<UtcNanos>,
    /// The beginning of the oldest day that has.
    pub days_from: Option<UtcNanos>,
    /// Rows of both.
    pub rows: u64,
}

impl Store {
    /// How far back the file reaches.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn history(&self) -> Result<History, StoreError> {
        let mut oldest: Option<(UtcNanos, Quality)> = None;
        for line in self.lines.iter().filter(|line| line.tally.readings > 0) {
            // Losses at the front are joined into few.
            let page = self.heads(line.no, 0, line.high.0, STEP_SEGMENTS)?;
            let Some(head) = page.iter().find(|head| !head.loss && head.n > 0) else { continue };
            let timebase = self.timebase(line.no, std::slice::from_ref(head))?;
            let own = head.utc.map(|(first, _)| (first, Quality::Ok));
            let boot = head.from.map(|(boot, at)| timebase.utc(boot, at));
            oldest = oldest.into_iter().chain(own).chain(boot).min_by_key(|(utc, _)| *utc);
        }
        Ok(History { readings_from: oldest, rollups: self.rollup_span()? })
    }

    fn rollup_span(&self) -> Result<RollupSpan, StoreError> {
        let utc = |units: i64, each: i64| UtcNanos(units.saturating_mul(each));
        let hour = self.oldest_of("SELECT min(hour) FROM rollup WHERE store = ?1")?;
        let day = self.oldest_of("SELECT min(day) FROM rollup_day WHERE store = ?1")?;
        Ok(RollupSpan {
            hours_from: hour.map(|(_, at)| utc(at, HOUR_NANOS)),
            days_from: day.map(|(_, at)| utc(at, 24 * HOUR_NANOS)),
            rows: self.rollup_rows.hours + self.rollup_rows.days,
        })
    }
}
