//! What varved is compared with: plain rows in stock SQLite, and the least that any log can do.

use crate::Outcome;
use crate::subject::{Subject, encoded_bytes};
use crate::sys;
use crate::workload::{SERIES, Tick};
use rusqlite::{Connection, params};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use varved::reading::Value;

/// `(series INTEGER, time INTEGER, value REAL)` in SQLite as rusqlite brings it: WAL, `synchronous = FULL`, all else as it
/// comes, `fsync` included.
pub(crate) struct Rows {
    conn: Connection,
    wal: PathBuf,
    singly: bool,
}

impl Rows {
    /// A new table on the medium. `singly`: a commit for each row, not one for each interval.
    pub(crate) fn new(dir: &Path, singly: bool) -> Outcome<Self> {
        sys::stock(true);
        let conn = Connection::open(dir.join("rows.db"))?;
        conn.pragma_update(None, "journal_mode", "wal")?;
        conn.pragma_update(None, "synchronous", "full")?;
        conn.execute_batch("CREATE TABLE reading (series INTEGER, time INTEGER, value REAL)")?;
        Ok(Self { conn, wal: dir.join("rows.db-wal"), singly })
    }

    fn insert(&self, tick: &Tick, each: &mut dyn FnMut()) -> Outcome<()> {
        let mut insert = self.conn.prepare_cached("INSERT INTO reading VALUES (?1, ?2, ?3)")?;
        for (series, value) in tick.values.iter().enumerate() {
            let value = match value {
                Value::Int(i) => *i as f64,
                Value::Float(f) => *f,
                _ => return Err("the workload has numbers only".into()),
            };
            each();
            insert.execute(params![series as i64, tick.now().utc.0, value])?;
        }
        Ok(())
    }
}

impl Subject for Rows {
    fn commit(&mut self, ticks: &[Tick], pace: &mut dyn FnMut()) -> Outcome<u64> {
        if self.singly {
            ticks.iter().try_for_each(|tick| self.insert(tick, pace))?;
            return Ok(ticks.len() as u64 * SERIES as u64);
        }
        self.conn.execute_batch("BEGIN")?;
        ticks.iter().try_for_each(|tick| self.insert(tick, &mut || ()))?;
        self.conn.execute_batch("COMMIT")?;
        Ok(1)
    }

    fn wal(&self) -> Option<&Path> {
        Some(&self.wal)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        sys::stock(false);
    }
}

/// A log of the same compressed bytes: a file filled with zeros beforehand and written round and round, each record in
/// blocks of its own, so that nothing that was synced is ever written again; one `fdatasync` each.
pub(crate) struct Floor {
    file: File,
    at: u64,
}

const BLOCK: u64 = 4096;
const LOG_BYTES: u64 = 4 << 20;

impl Floor {
    /// A new log on the medium.
    pub(crate) fn new(dir: &Path) -> Outcome<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(dir.join("log"))?;
        for at in (0..LOG_BYTES).step_by(BLOCK as usize) {
            file.write_all_at(&[0; BLOCK as usize], at)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }
}

impl Subject for Floor {
    fn commit(&mut self, ticks: &[Tick], _pace: &mut dyn FnMut()) -> Outcome<u64> {
        for body in encoded_bytes(ticks)? {
            let padded = (body as u64).next_multiple_of(BLOCK);
            if self.at + padded > LOG_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(&vec![0x5a; padded as usize], self.at)?;
            self.at += padded;
        }
        self.file.sync_data()?;
        Ok(1)
    }
}
