//! What nothing cites any more: boots, stores of old, files that were set aside and salvaged.
//!
//! What enters: the moment. What leaves: whether there was anything to let go of; one transaction a step.

use super::super::error::StoreError;
use super::super::file::{StoreNo, execute, sql_of};
use super::super::{Step, Store, rollup};
use crate::clock::Now;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// Stores of old whose readings have gone that are kept for their figures.
const MOST_FIGURES_ONLY: usize = 16;

impl Store {
    /// Lets go of what nothing cites any more: boots, stores, files that were set aside and salvaged.
    pub(super) fn tidy(&mut self, now: Now) -> Result<Step, StoreError> {
        if let Some((no, uuid)) = self.forgettable()? {
            // A mark of a store that the file doesn't know would say that the file was replaced.
            if self.high.mark().is_some_and(|mark| mark.store == uuid) {
                self.fold()?;
            }
            self.transaction("forget a store", |conn| forget_store(conn, no))?;
            self.lines.retain(|line| line.no != no);
            self.catalog_changes += 1;
            return Ok(Step::Worked);
        }
        if self.thin_rollups()? == Step::Worked {
            return Ok(Step::Worked);
        }
        for at in 0..self.lines.len() {
            if self.tidy_boots(at)? == Step::Worked {
                return Ok(Step::Worked);
            }
        }
        self.discard_aside(now, false)
    }

    /// A store of old that nothing is left of. Its figures outlive its readings, and its series say what they are; of too many
    /// such stores the oldest is forgotten.
    fn forgettable(&self) -> Result<Option<(StoreNo, Uuid)>, StoreError> {
        let mut kept = Vec::new();
        for line in &self.lines[..self.lines.len() - 1] {
            if line.tally.segments == 0 {
                if !rollup::any(&self.conn, line.no)? {
                    return Ok(Some((line.no, line.uuid)));
                }
                kept.push((line.no, line.uuid));
            }
        }
        Ok(kept.first().copied().filter(|_| kept.len() > MOST_FIGURES_ONLY))
    }

    /// Segments of a line come in the order of its boots, so the first one that cites a boot cites the lowest.
    fn tidy_boots(&mut self, at: usize) -> Result<Step, StoreError> {
        let no = self.lines[at].no;
        let sql = "SELECT boot_min FROM segment WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 \
                   AND boot_min IS NOT NULL ORDER BY id LIMIT 1";
        let fail = |e| sql_of(&self.conn, "look for unused boots", e);
        let cited: Option<u32> = self
            .conn
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([no.0], |r| r.get(0)).optional())
            .map_err(fail)?;
        let current = (at + 1 == self.lines.len()).then_some(self.boot.0);
        let Some(lowest) = cited.into_iter().chain(current).min() else { return Ok(Step::Idle) };
        let sql = "SELECT count(*) FROM boot WHERE store = ?1 AND id < ?2";
        let unused: u32 = self.conn.query_row(sql, params![no.0, lowest], |row| row.get(0)).map_err(fail)?;
        // One by one they would cost a commit each.
        if unused < 16 {
            return Ok(Step::Idle);
        }
        self.transaction("forget boots", |conn| {
            execute(conn, "forget boots", "DELETE FROM anchor WHERE store = ?1 AND boot < ?2", params![no.0, lowest])?;
            execute(conn, "forget boots", "DELETE FROM boot WHERE store = ?1 AND id < ?2", params![no.0, lowest])
        })?;
        self.catalog_changes += 1;
        Ok(Step::Worked)
    }
}

fn forget_store(conn: &Connection, no: StoreNo) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM rollup WHERE store = ?1",
        "DELETE FROM rollup_day WHERE store = ?1",
        "DELETE FROM ack WHERE store = ?1",
        "DELETE FROM anchor WHERE store = ?1",
        "DELETE FROM boot WHERE store = ?1",
        "DELETE FROM series WHERE store = ?1",
        "DELETE FROM store WHERE id = ?1",
    ] {
        execute(conn, "forget a store", sql, [no.0])?;
    }
    rollup::forget(conn, no)
}
