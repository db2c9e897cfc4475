//! What nothing cites any more: boots, anchors, stores of old, files that were set aside and salvaged.
//!
//! What enters: the moment. What leaves: whether there was anything to let go of; one transaction a step.

use super::super::error::StoreError;
use super::super::file::{StoreNo, execute};
use super::super::{Step, Store, rollup};
use crate::clock::Now;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// Stores of old whose readings have gone that are kept for their figures.
const MOST_FIGURES_ONLY: usize = 16;

/// So many boots go at once: one by one they would cost a commit each.
const UNUSED_BOOTS: u32 = 16;

/// Reads a row or two.
const FIRST_CITED: &str = "SELECT min(boot_min) FROM (SELECT boot_min FROM segment \
                           WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 AND boot_min IS NOT NULL ORDER BY id LIMIT 1)";
/// Reads every row.
const ALL_CITED: &str = "SELECT min(boot_min) FROM segment WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1";

/// So many anchors go at once, and a quarter of all that their boot has: the catalogue is told anew each time.
const UNUSED_ANCHORS: u32 = 64;
const UNUSED_SHARE: u32 = 4;

/// Where the oldest readings of store ?1 begin that are held. Reads a row or two.
const FIRST_HELD: &str = "SELECT boot_min, boottime_min FROM segment \
                          WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 AND kind = 0 AND boot_min IS NOT NULL \
                          ORDER BY id LIMIT 1";
/// The earliest moment of boot ?2 that any readings are of. Reads every row.
const EARLIEST_HELD: &str = "SELECT min(iif(boot_min = ?2, boottime_min, 0)) FROM segment \
                             WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 AND kind = 0 \
                             AND boot_min <= ?2 AND boot_max >= ?2";
/// The anchors of boot ?2 before the last proven one that is not after ?3; the first proven one stays, so that what a loss
/// says of earlier times lies on the line between both.
const IDLE_ANCHORS: &str = "store = ?1 AND boot = ?2 \
    AND boottime < (SELECT coalesce(max(iif(trusted, boottime, NULL)), max(boottime)) FROM anchor \
                    WHERE store = ?1 AND boot = ?2 AND boottime <= ?3) \
    AND boottime IS NOT (SELECT min(boottime) FROM anchor WHERE store = ?1 AND boot = ?2 AND trusted)";

impl Store {
    /// Lets go of what nothing cites any more: boots, anchors, stores, files that were set aside and salvaged.
    pub(super) fn tidy(&mut self, now: Now) -> Result<Step, StoreError> {
        if let Some((no, uuid)) = self.forgettable()? {
            // A mark of a store that the file doesn't know would say that the file was replaced.
            if self.high.mark().is_some_and(|mark| mark.store == uuid) {
                self.fold()?;
            }
            let rows = self.rollup_rows;
            self.rollup_rows = self.transaction("forget a store", |conn| forget_store(conn, no, rows))?;
            self.lines.retain(|line| line.no != no);
            self.catalog_changes += 1;
            return Ok(Step::Worked);
        }
        if self.thin_rollups()? == Step::Worked {
            return Ok(Step::Worked);
        }
        for at in 0..self.lines.len() {
            if self.tidy_boots(at)? == Step::Worked || self.tidy_anchors(at)? == Step::Worked {
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
                if !self.watched(rollup::any(&self.conn, line.no))? {
                    return Ok(Some((line.no, line.uuid)));
                }
                kept.push((line.no, line.uuid));
            }
        }
        Ok(kept.first().copied().filter(|_| kept.len() > MOST_FIGURES_ONLY))
    }

    /// Readings come in the order of their boots, but a loss that was found out later cites a later boot than those behind it.
    fn tidy_boots(&mut self, at: usize) -> Result<Step, StoreError> {
        let no = self.lines[at].no;
        let current = (at + 1 == self.lines.len()).then_some(self.boot.0);
        let enough = |lowest: &u32| Ok::<_, StoreError>(self.boots_below(no, *lowest)? >= UNUSED_BOOTS);
        // The first segment alone may keep them; only where it doesn't is each looked at.
        let Some(first) = self.lowest_cited(no, FIRST_CITED)?.into_iter().chain(current).min() else {
            return Ok(Step::Idle);
        };
        if !enough(&first)? {
            return Ok(Step::Idle);
        }
        let lowest = self.lowest_cited(no, ALL_CITED)?.map_or(first, |cited| cited.min(first));
        if !enough(&lowest)? {
            return Ok(Step::Idle);
        }
        self.transaction("forget boots", |conn| {
            execute(conn, "forget boots", "DELETE FROM anchor WHERE store = ?1 AND boot < ?2", params![no.0, lowest])?;
            execute(conn, "forget boots", "DELETE FROM boot WHERE store = ?1 AND id < ?2", params![no.0, lowest])
        })?;
        self.catalog_changes += 1;
        Ok(Step::Worked)
    }

    /// A boot may last for years, and its clock is anchored some dozens of times a day: of the time before the oldest readings
    /// that are held, the first anchor and the last are enough.
    fn tidy_anchors(&mut self, at: usize) -> Result<Step, StoreError> {
        let no = self.lines[at].no;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?));
        let first = self.conn.prepare_cached(FIRST_HELD).and_then(|mut s| s.query_row([no.0], read).optional());
        let Some((boot, begins)) = first.map_err(|e| self.failed("look for unused anchors", e))? else {
            return Ok(Step::Idle);
        };
        // The first segment alone may keep them; only where it doesn't is each looked at.
        if !self.idle_anchors(no, boot, begins)? {
            return Ok(Step::Idle);
        }
        let earliest = self.conn.prepare_cached(EARLIEST_HELD);
        let earliest: Option<i64> = earliest
            .and_then(|mut s| s.query_row(params![no.0, boot], |row| row.get(0)))
            .map_err(|e| self.failed("look for unused anchors", e))?;
        let begins = earliest.unwrap_or(begins);
        if !self.idle_anchors(no, boot, begins)? {
            return Ok(Step::Idle);
        }
        self.transaction("forget anchors", |conn| {
            let sql = format!("DELETE FROM anchor WHERE {IDLE_ANCHORS}");
            execute(conn, "forget anchors", &sql, params![no.0, boot, begins])
        })?;
        self.catalog_changes += 1;
        Ok(Step::Worked)
    }

    /// Whether enough anchors of `boot` are of no use, with the oldest readings at `begins`, in ns since boot.
    fn idle_anchors(&self, no: StoreNo, boot: u32, begins: i64) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM anchor WHERE {IDLE_ANCHORS}), \
             (SELECT count(*) FROM anchor WHERE store = ?1 AND boot = ?2)"
        );
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?));
        let counts = self.conn.prepare_cached(&sql).and_then(|mut s| s.query_row(params![no.0, boot, begins], read));
        let (idle, all) = counts.map_err(|e| self.failed("look for unused anchors", e))?;
        Ok(idle >= UNUSED_ANCHORS && idle.saturating_mul(UNUSED_SHARE) >= all)
    }

    /// The lowest boot among what `sql` finds of store `no`.
    fn lowest_cited(&self, no: StoreNo, sql: &str) -> Result<Option<u32>, StoreError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([no.0], |row| row.get(0)))
            .map_err(|e| self.failed("look for unused boots", e))
    }

    fn boots_below(&self, no: StoreNo, id: u32) -> Result<u32, StoreError> {
        self.conn
            .prepare_cached("SELECT count(*) FROM boot WHERE store = ?1 AND id < ?2")
            .and_then(|mut s| s.query_row(params![no.0, id], |row| row.get(0)))
            .map_err(|e| self.failed("look for unused boots", e))
    }
}

/// How many rows of figures are left.
fn forget_store(conn: &Connection, no: StoreNo, rows: rollup::Rows) -> Result<rollup::Rows, StoreError> {
    for sql in [
        "DELETE FROM ack WHERE store = ?1",
        "DELETE FROM anchor WHERE store = ?1",
        "DELETE FROM boot WHERE store = ?1",
        "DELETE FROM series WHERE store = ?1",
        "DELETE FROM store WHERE id = ?1",
    ] {
        execute(conn, "forget a store", sql, [no.0])?;
    }
    rollup::forget(conn, no, rows)
}
