//! How much room there is, in the file and in its log, and pages that are given back.
//!
//! What enters: the file as it is. What leaves: figures, and a shorter file where it is above its bound or has more free pages than a
//! steady state needs.

use super::super::error::StoreError;
use super::super::file::{FRAME_HEADER_BYTES, START_PAGES, sql_of};
use super::super::open::BUSY;
use super::super::retention::spare_bytes;
use super::super::{Step, Store};
use rusqlite::Connection;
use std::time::Duration;

/// What one step of vacuum gives back, in bytes.
pub(super) const STEP_BYTES: u64 = 128 << 10;

/// What a step of upkeep may add to the log: as many segments as compaction joins, twice.
const STEP_LOG_BYTES: u64 = 512 << 10;

impl Store {
    /// Gives some free pages back to the file system: all of them while the file is above its limit, as after `max_size` was
    /// lowered; else those that are more than a steady state needs, as after a burst.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn vacuum_step(&mut self) -> Result<Step, StoreError> {
        let page_bytes = self.pragma("page_size")?;
        let (pages, free) = (self.pragma("page_count")?, self.pragma("freelist_count")?);
        let keep = match pages * page_bytes > self.bounds.file_bytes {
            true => 0,
            // Half of what makes it worth to begin, so that it doesn't begin again at once.
            false => spare_bytes((pages - free) * page_bytes, self.bounds.file_bytes) / 2 / page_bytes,
        };
        let step = free.saturating_sub(keep).min(STEP_BYTES / page_bytes);
        if step == 0 || !self.log_has_room()? {
            return Ok(Step::Idle);
        }
        self.transaction("give pages back", |conn| vacuum(conn, step))?;
        self.limit_pages()?;
        Ok(Step::Worked)
    }

    /// Whether a step of upkeep fits in the log within `max_size`. Only a reader that holds the log can be in the way; what
    /// room there is then, is for commits.
    pub(in crate::store) fn log_has_room(&mut self) -> Result<bool, StoreError> {
        let (in_log, _) = self.log.state(&self.conn)?;
        if self.fits_in_log(in_log, STEP_LOG_BYTES.min(self.bounds.wal_bytes))? {
            return Ok(true);
        }
        // Not waited for: upkeep comes again.
        let conn = &self.conn;
        let busy = |wait| conn.busy_timeout(wait).map_err(|e| sql_of(conn, "set the busy timeout", e));
        busy(Duration::ZERO)?;
        let restarted = self.log.restart(conn, &self.path);
        busy(BUSY)?;
        restarted
    }

    /// Whether a transaction of `bytes` fits behind `frames` in the log: within what is kept for it, or what the file leaves.
    pub(in crate::store) fn fits_in_log(&self, frames: u64, bytes: u64) -> Result<bool, StoreError> {
        let page_bytes = self.pragma("page_size")?;
        let log_bytes = frames * (page_bytes + FRAME_HEADER_BYTES) + bytes;
        let most = self.bounds.most_file_bytes + self.bounds.log_bytes;
        Ok(log_bytes <= self.bounds.log_bytes || self.pragma("page_count")? * page_bytes + log_bytes <= most)
    }

    /// Bytes of the file that hold something.
    pub(super) fn used_bytes(&self) -> Result<u64, StoreError> {
        let held = self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?);
        Ok(held * self.pragma("page_size")?)
    }

    /// Whether the file has grown to its limit, or so near that a transaction may not fit.
    pub(in crate::store) fn at_limit(&self) -> Result<bool, StoreError> {
        let margin = self.bounds.file_bytes / 16 / self.pragma("page_size")?;
        Ok(self.pragma("page_count")? + margin >= self.most_pages()?)
    }

    /// The most pages for recording: what the next start writes down has to fit behind them.
    fn most_pages(&self) -> Result<u64, StoreError> {
        let all = self.bounds.file_bytes / self.pragma("page_size")?;
        // Expiry begins at a sixteenth below the bound, which large pages must not reach before.
        Ok(all - START_PAGES.min(all / 32))
    }

    /// The file may not grow above its limit, wherever it stands now.
    pub(in crate::store) fn limit_pages(&self) -> Result<(), StoreError> {
        let limit = self.most_pages()?.max(self.pragma("page_count")?);
        self.conn.pragma_update(None, "max_page_count", limit as i64).map_err(|e| self.failed("limit the file", e))
    }
}

/// Gives back so many pages. SQLite gives one for each row that is asked for: to run the statement is not enough.
pub(super) fn vacuum(conn: &Connection, pages: u64) -> Result<(), StoreError> {
    let fail = |e| sql_of(conn, "give pages back", e);
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})")).map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;
    while rows.next().map_err(fail)?.is_some() {}
    Ok(())
}
