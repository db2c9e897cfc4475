//! The write-ahead log of the open file: what is in it, and when and how it is folded into the database.
//!
//! What enters: the connection after each commit. What leaves: a fold when the log has filled its reserve. It promises that
//! no checkpoint of this connection tears a block whose pages aren't all in the log, unless the medium is known to keep
//! the neighbours of a torn write, and that log and what must be added to it before a fold stay within the reserve as long
//! as no reader is in the way.
//!
//! SQLite's automatic checkpoint is off: it comes inside the commit that fills the log, and nothing could go before it.

use super::error::StoreError;
use super::file::{self, sql_of};
use super::neighbours::Touched;
use super::open::BUSY;
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// The log, as the store keeps account of it.
#[derive(Debug)]
pub(super) struct Log {
    /// A fold is due at so many frames, those included that go before it.
    full_frames: u64,
    /// The medium keeps the neighbours of a torn write: nothing needs to go before a fold.
    powersafe: bool,
    touched: Touched,
    /// Frames in it.
    frames: u64,
    /// Frames of those that are in the database.
    folded: u64,
    /// Folds since the open, whole or in part.
    folds: u64,
    /// It holds frames of a transaction that failed; see [`super::wal_scan`].
    restart_due: bool,
    /// A reader was in the way: not tried again before the log has so many frames.
    again_at: u64,
}

impl Log {
    /// Of a file that was just opened, with a reserve of `wal_bytes`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn new(conn: &Connection, wal_bytes: u64, powersafe: bool) -> Result<Self, StoreError> {
        let page_bytes: i64 = conn
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(|e| sql_of(conn, "read the page size", e))?;
        let page_bytes = u64::try_from(page_bytes).unwrap_or(512);
        let mut log = Self {
            full_frames: file::frames(wal_bytes, page_bytes),
            powersafe,
            touched: Touched::new(page_bytes),
            frames: 0,
            folded: 0,
            folds: 0,
            restart_due: false,
            again_at: 0,
        };
        log.look(conn);
        Ok(log)
    }

    /// Frames in the log after the last look.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// How often it was folded: what makes the database longer or shorter.
    pub(super) fn folds(&self) -> u64 {
        self.folds
    }

    /// Bytes that its frames take.
    pub(super) fn bytes(&self) -> u64 {
        self.frames * (self.touched.page_bytes() + file::FRAME_HEADER_BYTES)
    }

    /// Frames in the log, and frames of them in the database.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn state(&self, conn: &Connection) -> Result<(u64, u64), StoreError> {
        checkpoint(conn, "NOOP").map(|(_, frames, folded)| (frames, folded))
    }

    /// A transaction failed: its frames may be in the log, and a later, shorter one would leave some of them behind.
    pub(super) fn failed(&mut self) {
        self.restart_due = true;
    }

    /// Before a transaction: where the log is about to begin anew, has it begin so that no torn block of it is taken for a
    /// shorter log.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub(super) fn begin(&mut self, conn: &Connection, path: &Path) -> Result<(), StoreError> {
        if self.frames > self.folded {
            return Ok(());
        }
        super::neighbours::begin_log(conn, path, self.touched.page_bytes())?;
        self.look(conn);
        Ok(())
    }

    /// Whether the next fold is to have the log begin anew.
    #[cfg(test)]
    pub(super) fn is_restart_due(&self) -> bool {
        self.restart_due
    }

    /// After a commit. What can't be found out now is looked at before the next fold, which it holds up.
    pub(super) fn look(&mut self, conn: &Connection) {
        let looked = checkpoint(conn, "NOOP").and_then(|(_, frames, folded)| self.see(conn, frames, folded));
        if let Err(e) = looked {
            log::debug!("store: after a commit: {e}");
        }
    }

    fn see(&mut self, conn: &Connection, frames: u64, folded: u64) -> Result<(), StoreError> {
        if frames < self.frames {
            self.again_at = 0;
        }
        (self.frames, self.folded) = (frames, folded);
        match self.powersafe {
            true => Ok(()),
            false => self.touched.look(conn, frames),
        }
    }

    /// Whether the log is as full as it should get.
    pub(super) fn fold_is_due(&self) -> bool {
        let lacking = if self.powersafe { 0 } else { self.touched.lacking() };
        let full = self.frames + lacking >= self.full_frames;
        self.frames > self.folded && self.frames >= self.again_at && (full || self.restart_due)
    }

    /// Folds what the log holds into the database, so far as readers let it: they are not waited for.
    ///
    /// # Errors
    /// Those of SQLite; nothing is lost, and it may be tried again.
    pub(super) fn fold(&mut self, conn: &Connection, path: &Path) -> Result<(), StoreError> {
        let wait = |wait| conn.busy_timeout(wait).map_err(|e| sql_of(conn, "set the busy timeout", e));
        if self.restart_due {
            wait(Duration::ZERO)?;
        }
        let done = self.fold_as(conn, path, if self.restart_due { "RESTART" } else { "PASSIVE" });
        if self.restart_due {
            wait(BUSY)?;
        }
        self.restart_due &= done?;
        let held = self.frames > self.folded || self.restart_due;
        self.again_at = if held { self.frames + self.full_frames / 16 } else { 0 };
        Ok(())
    }

    /// Folds all of it and has the next commit begin the log anew, under another salt; false where a reader is in the way.
    ///
    /// # Errors
    /// Those of SQLite; nothing is lost, and it may be tried again.
    pub(super) fn restart(&mut self, conn: &Connection, path: &Path) -> Result<bool, StoreError> {
        self.begin_anew(conn, path, "RESTART")
    }

    /// As [`Self::restart`], and cuts the file to nothing.
    ///
    /// # Errors
    /// As of [`Self::restart`].
    pub(super) fn cut(&mut self, conn: &Connection, path: &Path) -> Result<bool, StoreError> {
        self.begin_anew(conn, path, "TRUNCATE")
    }

    fn begin_anew(&mut self, conn: &Connection, path: &Path, mode: &'static str) -> Result<bool, StoreError> {
        let busy = self.fold_as(conn, path, mode)?;
        let done = !busy && self.frames == self.folded;
        self.restart_due &= !done;
        Ok(done)
    }

    fn fold_as(&mut self, conn: &Connection, path: &Path, mode: &'static str) -> Result<bool, StoreError> {
        let (_, frames, folded) = checkpoint(conn, "NOOP")?;
        self.see(conn, frames, folded)?;
        if !self.powersafe && frames > folded {
            match self.touched.complete(conn, path) {
                // On a medium without room for it: to stand still would be worse than the small risk.
                Err(e @ StoreError::Full { .. }) => {
                    self.failed();
                    log::warn!("store: a checkpoint without its blocks whole: {e}");
                }
                Err(e) => {
                    self.failed();
                    return Err(e);
                }
                Ok(_) => {}
            }
        }
        self.folds += 1;
        let (busy, frames, folded) = checkpoint(conn, mode)?;
        self.see(conn, frames, folded)?;
        Ok(busy)
    }
}

/// `PRAGMA wal_checkpoint`: whether a reader was in the way, frames in the log, frames of them in the database.
fn checkpoint(conn: &Connection, mode: &'static str) -> Result<(bool, u64, u64), StoreError> {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))
        .and_then(|mut s| s.query_row([], |row| Ok((row.get(0)?, count(row.get(1)?), count(row.get(2)?)))))
        .map_err(|e| sql_of(conn, "checkpoint", e))
}
