//! The other side: plain rows in SQLite as rusqlite brings it.

use crate::Outcome;
use crate::workload::Tick;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use varved::reading::Value;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// 0 to 49.
    pub series: i64,
    /// UTC, ns.
    pub time: i64,
    /// As a double.
    pub value: f64,
}

/// The rows of a tick.
pub(crate) fn of(tick: &Tick) -> Outcome<Vec<Row>> {
    let time = tick.now().utc.0;
    let row = |(series, value): (usize, &Value)| match value {
        Value::Int(i) => Ok(Row { series: series as i64, time, value: *i as f64 }),
        Value::Float(f) => Ok(Row { series: series as i64, time, value: *f }),
        _ => Err("the workload has numbers only".into()),
    };
    tick.values.iter().enumerate().map(row).collect()
}

/// The table, without and with its index.
pub(crate) const TABLE: &str = "CREATE TABLE reading (series INTEGER, time INTEGER, value REAL)";
pub(crate) const INDEX: &str = "CREATE INDEX by_series ON reading (series, time)";

/// Rows a transaction, where many are inserted.
pub(crate) const A_TRANSACTION: usize = 10_000;

/// Inserts in transactions of [`A_TRANSACTION`].
pub(crate) fn insert(conn: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT INTO reading VALUES (?1, ?2, ?3)")?;
    for some in rows.chunks(A_TRANSACTION) {
        conn.execute_batch("BEGIN")?;
        for row in some {
            insert.execute(params![row.series, row.time, row.value])?;
        }
        conn.execute_batch("COMMIT")?;
    }
    Ok(())
}

/// Where the rows are.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("rows.db")
}
