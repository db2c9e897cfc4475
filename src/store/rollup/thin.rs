//! Room among the figures: the oldest hours become days, the oldest days go.
//!
//! What enters: the file's bound. What leaves: fewer rows; one transaction a step.

use super::super::error::StoreError;
use super::super::file::{StoreNo, execute};
use super::super::{Step, Store};
use super::{Figures, Rollups, Rows, STEP_ROWS, figures_of, sum};
use crate::reading::SeriesId;
use rusqlite::params;

/// What a row takes on a page that is as full as usual, in bytes; a test measures it.
pub(super) const ROW_BYTES: u64 = 64;

impl Store {
    /// Makes room among the figures where they are above their share: the oldest hours become days, the oldest days go.
    pub(in crate::store) fn thin_rollups(&mut self) -> Result<Step, StoreError> {
        let most = Rows::most(self.bounds.file_bytes);
        if self.rollup_rows.hours > most.hours {
            return self.fold_oldest_hours();
        }
        if self.rollup_rows.days > most.days {
            return self.drop_oldest_day();
        }
        Ok(Step::Idle)
    }

    fn fold_oldest_hours(&mut self) -> Result<Step, StoreError> {
        let Some((no, first)) = self.oldest_of("SELECT min(hour) FROM rollup WHERE store = ?1")? else {
            return self.recount();
        };
        let (days, upto, seen) = self.days_from(no, first)?;
        let rows = self.rollup_rows;
        self.rollup_rows = self.transaction("fold hours into days", |conn| {
            let rows = days.write_days(conn, no, rows)?;
            let which = "store = ?1 AND hour BETWEEN ?2 AND ?3";
            let sum = sum::of_some(conn, false, which, params![no.0, first, upto])?;
            let sql = "DELETE FROM rollup WHERE store = ?1 AND hour BETWEEN ?2 AND ?3";
            let gone = execute(conn, "fold hours into days", sql, params![no.0, first, upto])?;
            debug_assert_eq!(gone, seen);
            let hours = rows.hours.saturating_sub(gone as u64);
            let rows = Rows { hours, sum: rows.sum.wrapping_sub(sum), ..rows };
            rows.write(conn)?;
            Ok(rows)
        })?;
        Ok(Step::Worked)
    }

    /// The figures of whole hours from `first` on, by day; the last of those hours, and how many rows they are.
    fn days_from(&self, no: StoreNo, first: i64) -> Result<(Rollups, i64, usize), StoreError> {
        let fail = |e| self.failed("read the figures", e);
        let sql =
            "SELECT hour, series, n, min, mean, max, last FROM rollup WHERE store = ?1 AND hour >= ?2 ORDER BY hour";
        let mut statement = self.conn.prepare_cached(sql).map_err(fail)?;
        let mut rows = statement.query(params![no.0, first]).map_err(fail)?;
        let (mut days, mut upto, mut seen) = (Rollups::default(), first, 0);
        while let Some(row) = rows.next().map_err(fail)? {
            let (hour, series) = (row.get::<_, i64>(0).map_err(fail)?, SeriesId(row.get(1).map_err(fail)?));
            if hour != upto && (seen >= STEP_ROWS || hour.div_euclid(24) != first.div_euclid(24)) {
                break;
            }
            (upto, seen) = (hour, seen + 1);
            let figures = Figures { last_at: hour, ..figures_of(row, 2).map_err(fail)? };
            days.count((hour.div_euclid(24), series), figures, usize::MAX);
        }
        Ok((days, upto, seen))
    }

    fn drop_oldest_day(&mut self) -> Result<Step, StoreError> {
        let Some((no, day)) = self.oldest_of("SELECT min(day) FROM rollup_day WHERE store = ?1")? else {
            return self.recount();
        };
        let rows = self.rollup_rows;
        self.rollup_rows = self.transaction("drop daily figures", |conn| {
            let sum = sum::of_some(conn, true, "store = ?1 AND day = ?2", params![no.0, day])?;
            let sql = "DELETE FROM rollup_day WHERE store = ?1 AND day = ?2";
            let gone = execute(conn, "drop daily figures", sql, params![no.0, day])?;
            let rows = Rows { days: rows.days.saturating_sub(gone as u64), sum: rows.sum.wrapping_sub(sum), ..rows };
            rows.write(conn)?;
            Ok(rows)
        })?;
        log::debug!("store: the daily figures of day {day} since 1970 have made room");
        Ok(Step::Worked)
    }

    /// The store with the lowest of what `sql` finds.
    pub(super) fn oldest_of(&self, sql: &str) -> Result<Option<(StoreNo, i64)>, StoreError> {
        let mut found = Vec::new();
        for line in &self.lines {
            let at: Option<i64> = self
                .conn
                .prepare_cached(sql)
                .and_then(|mut s| s.query_row([line.no.0], |row| row.get(0)))
                .map_err(|e| self.failed("look for the oldest figures", e))?;
            found.extend(at.map(|at| (at, line.no)));
        }
        Ok(found.into_iter().min().map(|(at, no)| (no, at)))
    }

    /// The kept counts and the tables differ, as after a salvage: the tables are right.
    pub(in crate::store) fn recount(&mut self) -> Result<Step, StoreError> {
        self.rollup_rows = self.count_figures()?;
        Ok(Step::Idle)
    }

    /// Counts and sums what the tables have, and writes that down.
    pub(super) fn count_figures(&mut self) -> Result<Rows, StoreError> {
        let count = |table: &str| -> Result<u64, StoreError> {
            let n: Result<i64, _> = self.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
            n.map(|n| u64::try_from(n).unwrap_or(0)).map_err(|e| self.failed("count the figures", e))
        };
        let rows = Rows { hours: count("rollup")?, days: count("rollup_day")?, sum: sum::of_all(&self.conn)? };
        self.transaction("count the figures", |conn| rows.write(conn))?;
        Ok(rows)
    }
}

impl Rows {
    /// What figures may take of a file: a quarter for hours, a thirty-second for days.
    pub(super) fn most(file_bytes: u64) -> Self {
        Self { hours: file_bytes / 4 / ROW_BYTES, days: file_bytes / 32 / ROW_BYTES, sum: 0 }
    }
}
