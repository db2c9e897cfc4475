//! Figures of a file that was set aside.
//!
//! What enters: that file, so far as it can be read. What leaves: its figures in the new one, and up to which number they
//! count. They can't be had from its segments again: many of those have gone.

use super::super::Store;
use super::super::error::StoreError;
use super::super::file::{StoreNo, execute, set_meta};
use super::{STEP_ROWS, figure, int, rolled, rolled_key};
use rusqlite::{Connection, params};

impl Store {
    /// Takes over the figures of a store that is salvaged from `old`. First how far they reach, so that nothing that is in them is counted again, whatever can be read of them.
    pub(in crate::store) fn take_over_figures(
        &mut self,
        old: &Connection,
        old_no: StoreNo,
        no: StoreNo,
    ) -> Result<(), StoreError> {
        let Ok(upto) = rolled(old, old_no) else { return Ok(()) };
        let upto = upto.max(rolled(&self.conn, no)?);
        if upto.0 == 0 {
            return Ok(());
        }
        self.transaction("salvage", |conn| set_meta(conn, &rolled_key(no), int(upto.0)))?;
        let columns = "series, first_seq, n, min, mean, max, last FROM rollup WHERE store = ?1";
        self.copy_figures(old, &format!("SELECT hour, {columns}"), old_no, |conn, row| {
            let sql = "INSERT OR IGNORE INTO rollup (store, hour, series, first_seq, n, min, mean, max, last) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let [hour, series, first] = [row[0], row[1], row[2]].map(|n| n as i64);
            let values = params![no.0, hour, series, first, row[3] as i64, row[4], row[5], row[6], row[7]];
            execute(conn, "salvage", sql, values).map(drop)
        })?;
        let columns = "series, 0, n, min, mean, max, last FROM rollup_day WHERE store = ?1";
        self.copy_figures(old, &format!("SELECT day, {columns}"), old_no, |conn, row| {
            let sql = "INSERT OR IGNORE INTO rollup_day (store, day, series, n, min, mean, max, last) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let values = params![no.0, row[0] as i64, row[1] as i64, row[3] as i64, row[4], row[5], row[6], row[7]];
            execute(conn, "salvage", sql, values).map(drop)
        })
    }

    /// Rows of eight numbers, so many to a transaction, up to the first that can't be read: four whole ones, which are exact in
    /// a double at this size, and four figures.
    fn copy_figures(
        &mut self,
        old: &Connection,
        sql: &str,
        old_no: StoreNo,
        mut put: impl FnMut(&Connection, &[f64; 8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Ok(mut statement) = old.prepare(sql) else { return Ok(()) };
        let Ok(mut rows) = statement.query([old_no.0]) else { return Ok(()) };
        loop {
            let mut page = Vec::with_capacity(STEP_ROWS);
            while let (true, Ok(Some(row))) = (page.len() < STEP_ROWS, rows.next()) {
                let mut numbers = [f64::NAN; 8];
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number = figure(row, at).unwrap_or(f64::NAN);
                }
                page.push(numbers);
            }
            if page.is_empty() {
                return Ok(());
            }
            let of_something = |row: &&[f64; 8]| row[..4].iter().all(|number| number.is_finite());
            let mut rows = page.iter().filter(of_something);
            self.transaction("salvage", |conn| rows.try_for_each(|row| put(conn, row)))?;
            if page.len() < STEP_ROWS {
                return Ok(());
            }
        }
    }
}
