//! A sum over all figures, for want of a checksum in their rows: a figure that rots, and a row that goes, are told by it.
//!
//! What enters: rows as they are written, replaced and deleted. What leaves: a number in `meta` that moves on in the same
//! transaction; and, for who reads figures, whether the tables are what it says. It costs no byte in a row. Which row is
//! other than it was it can't say. Versions before it don't keep it: where another version has written the file, it is made
//! anew at the open (`run.rs`), from what is there then.

use super::super::error::StoreError;
use super::super::file::{StoreNo, sql_of};
use super::{Figures, figures_of, int};
use crate::reading::SeriesId;
use rusqlite::{Connection, Row};

/// The key in `meta` that it stands under.
pub(in crate::store) const KEY: &str = "rollup_sum";

/// Which row: hours also by the segment that they are from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    /// `store, series, hour, first_seq`.
    Hour(StoreNo, SeriesId, i64, i64),
    /// `store, series, day`.
    Day(StoreNo, SeriesId, i64),
}

/// What one row adds to the sum: its CRC, and one for being there.
pub(super) fn of_row(key: Key, figures: &Figures) -> i64 {
    let key = match key {
        Key::Hour(no, series, hour, first) => [0, no.0, i64::from(series.0), hour, first],
        Key::Day(no, series, day) => [1, no.0, i64::from(series.0), day, 0],
    };
    of_numbers(key, figures)
}

fn of_numbers(key: [i64; 5], figures: &Figures) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    key.iter().for_each(|number| crc.update(&number.to_le_bytes()));
    crc.update(&int(figures.n).to_le_bytes());
    for figure in [figures.min, figures.mean, figures.max, figures.last] {
        // As they come back from SQLite: one NaN, which is NULL, and one zero.
        let bits = if figure.is_nan() { u64::MAX } else { (figure + 0.0).to_bits() };
        crc.update(&bits.to_le_bytes());
    }
    (1 << 32) + i64::from(crc.finalize())
}

/// All rows of hours, then of days, each as `kind, store, series, at, first_seq, n, min, mean, max, last`, with the sum that
/// is kept as the last; in one statement, so that they are of one state.
const ROWS: &str = "SELECT 0, store, series, hour, first_seq, n, min, mean, max, last FROM rollup \
     UNION ALL SELECT 1, store, series, day, 0, n, min, mean, max, last FROM rollup_day \
     UNION ALL SELECT 2, value, 0, 0, 0, 0, 0, 0, 0, 0 FROM meta WHERE key = 'rollup_sum'";

/// The sum over the rows that are there, and the one that is kept.
fn both(conn: &Connection) -> rusqlite::Result<(i64, Option<i64>)> {
    let mut statement = conn.prepare(ROWS)?;
    let mut rows = statement.query([])?;
    let (mut sum, mut kept) = (0_i64, None);
    while let Some(row) = rows.next()? {
        match row.get::<_, i64>(0)? {
            // One that is no number adds up to nothing.
            2 => kept = Some(row.get(1).unwrap_or(0)),
            kind => sum = sum.wrapping_add(summand(kind, row)?),
        }
    }
    Ok((sum, kept))
}

/// What a row adds; nothing where a cell has rotted to another type, so that the sum tells, and nobody fails for it.
fn summand(kind: i64, row: &Row<'_>) -> rusqlite::Result<i64> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    let typed = || -> rusqlite::Result<i64> {
        let key = [kind, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        Ok(of_numbers(key, &figures_of(row, 5)?))
    };
    match typed() {
        Err(FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..)) => Ok(0),
        other => other,
    }
}

/// Whether the figures are what was written: true also where no sum is kept. For who reads them.
///
/// # Errors
/// Those of SQLite.
pub(in crate::store) fn adds_up(conn: &Connection) -> rusqlite::Result<bool> {
    let keeps = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1)";
    if !conn.prepare_cached(keeps)?.query_row([KEY], |row| row.get(0))? {
        // Of another version, which may have other tables too.
        return Ok(true);
    }
    both(conn).map(|(sum, kept)| kept.is_none_or(|kept| kept == sum))
}

/// The sum over what is there.
///
/// # Errors
/// Those of SQLite.
pub(super) fn of_all(conn: &Connection) -> Result<i64, StoreError> {
    both(conn).map(|(sum, _)| sum).map_err(|e| sql_of(conn, "sum the figures", e))
}

/// The sum over some rows, which are about to go: hours or days, where `condition` holds, and how many they are.
///
/// # Errors
/// Those of SQLite.
pub(super) fn of_some(
    conn: &Connection,
    days: bool,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<i64, StoreError> {
    let columns = if days { "1, store, series, day, 0" } else { "0, store, series, hour, first_seq" };
    let table = if days { "rollup_day" } else { "rollup" };
    let sql = format!("SELECT {columns}, n, min, mean, max, last FROM {table} WHERE {condition}");
    let sum = || -> rusqlite::Result<i64> {
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(values)?;
        let mut sum = 0_i64;
        while let Some(row) = rows.next()? {
            sum = sum.wrapping_add(summand(row.get(0)?, row)?);
        }
        Ok(sum)
    };
    sum().map_err(|e| sql_of(conn, "sum the figures", e))
}
