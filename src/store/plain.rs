//! Files that leave the store: plain rows for any SQLite tool, and a copy of the whole.
//!
//! What enters: an open [`Reader`] and a path. What leaves: one file, complete and fsynced, under its name only once it is:
//! until then it has another name beside it, which is removed where something goes wrong. A file that is there is replaced
//! only when told to.

use super::file::beside;
use super::reader::{ReadError, Reader};
use super::scan::{Cell, Selection, Tally};
use crate::clock::civil;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a file of plain rows has. `value` has no type: it is what the reading is.
const TABLES: &str = "
    CREATE TABLE series (name TEXT PRIMARY KEY, unit TEXT NOT NULL, kind TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE reading (
        series  TEXT NOT NULL,       -- series.name
        time    INTEGER NOT NULL,    -- UTC, ns since 1970
        utc     TEXT NOT NULL,       -- the same as ISO 8601
        value,                       -- NULL where there is none: see quality
        unit    TEXT NOT NULL,       -- SenML symbol, '' where unknown
        quality TEXT NOT NULL,       -- ok, estimated, nan, infinite, or why there is no value
        seq     INTEGER NOT NULL     -- number of the segment that it came in
    );";

/// Writes the readings of `selection` to a new file of plain rows at `out`, unless `stop` is set before it is done. How many,
/// and what could not be read.
pub fn write_rows(
    reader: &Reader,
    selection: &Selection,
    (out, replace): (&Path, bool),
    stop: &AtomicBool,
) -> Result<(u64, Tally), ReadError> {
    let part = Part::begin(out, replace)?;
    let fail = |e| ReadError::sql("write", out, e);
    let conn = Connection::open(&part.path).map_err(fail)?;
    // Nothing of it counts until it has its name: the file needs no journal, only the fsync at the end.
    conn.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN").map_err(fail)?;
    conn.execute_batch(TABLES).map_err(fail)?;
    let mut series = conn.prepare("INSERT OR IGNORE INTO series VALUES (?1, ?2, ?3)").map_err(fail)?;
    let mut insert = conn.prepare("INSERT INTO reading VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)").map_err(fail)?;
    let mut rows = reader.scan(selection)?;
    let mut count = 0;
    while let Some(mut column) = rows.next_column()? {
        if stop.load(Ordering::Relaxed) {
            return Err(ReadError::Interrupted);
        }
        let mut named = false;
        while column.advance() {
            let row = column.row();
            if !std::mem::replace(&mut named, true) {
                let def = row.series;
                series.execute(params![def.name, def.unit, def.kind.as_str()]).map_err(fail)?;
            }
            let at = row.moment.map(|moment| moment.utc);
            let (time, utc) = (at.map(|at| at.0), at.map(civil::iso8601));
            let value: &dyn rusqlite::ToSql = match &row.value {
                Cell::Null => &rusqlite::types::Null,
                Cell::Int(value) => value,
                Cell::Real(value) => value,
                Cell::Bool(value) => value,
                Cell::Text(text) => text,
            };
            let seq = i64::try_from(row.seq.0).unwrap_or(i64::MAX);
            let values = params![row.series.name, time, utc, value, row.series.unit, row.quality, seq];
            insert.execute(values).map_err(fail)?;
            count += 1;
        }
    }
    let tally = rows.tally().clone();
    drop((series, insert));
    conn.execute_batch("CREATE INDEX reading_by_series ON reading (series, time); COMMIT").map_err(fail)?;
    conn.close().map_err(|(_, e)| fail(e))?;
    part.finish()?;
    Ok((count, tally))
}

/// The `meta` key by which a copy says what it is a copy of: the service gives such a file a fresh store id.
pub const COPIED_FROM: &str = "copied_from";

/// Writes a consistent copy of the whole store to `out`: one file, no `-wal` beside it. Bytes of it.
pub fn snapshot(reader: &Reader, out: &Path, replace: bool) -> Result<u64, ReadError> {
    let part = Part::begin(out, replace)?;
    let fail = |e| ReadError::sql("write", out, e);
    reader.copy_into(&part.path)?;
    let conn = Connection::open(&part.path).map_err(fail)?;
    let of: String = conn
        .query_row("SELECT uuid FROM store ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .map_err(|e| reader.sql("read the stores of", e))?;
    conn.pragma_update(None, "journal_mode", "delete").map_err(fail)?;
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [COPIED_FROM, of.as_str()])
        .map_err(fail)?;
    conn.close().map_err(|(_, e)| fail(e))?;
    part.finish()
}

/// A file on its way to its name.
pub(super) struct Part {
    pub(super) path: PathBuf,
    out: PathBuf,
}

impl Part {
    pub(super) fn begin(out: &Path, replace: bool) -> Result<Self, ReadError> {
        if out.exists() && !replace {
            return Err(ReadError::Exists { path: out.to_owned() });
        }
        // A database's -wal belongs to the file that has the name: a new file under it would be damaged by it.
        if let Some(wal) = ["-wal", "-journal"].map(|suffix| beside(out, suffix)).into_iter().find(|wal| wal.exists()) {
            return Err(ReadError::Live { path: out.to_owned(), wal });
        }
        let path = beside(out, &format!(".{}.part", std::process::id()));
        let part = Self { path, out: out.to_owned() };
        part.remove();
        Ok(part)
    }

    /// Fsync, rename, fsync of the directory; the file's bytes.
    pub(super) fn finish(self) -> Result<u64, ReadError> {
        rename(&self.path, &self.out)
    }

    fn remove(&self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            // Mostly there is nothing to remove; what can't be is overwritten or reported by whoever opens it.
            let _ = std::fs::remove_file(beside(&self.path, suffix));
        }
    }
}

/// Gives the file at `from` the name `out`, once all of it is on the medium; its bytes.
pub(super) fn rename(from: &Path, out: &Path) -> Result<u64, ReadError> {
    let fail = |e| ReadError::io("write", out, e);
    let file = std::fs::File::open(from).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    let bytes = file.metadata().map_err(fail)?.len();
    std::fs::rename(from, out).map_err(fail)?;
    let directory = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)?;
    Ok(bytes)
}

impl Drop for Part {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn count(path: &Path, sql: &str) -> i64 {
        let conn = Connection::open(path).expect("a database");
        conn.query_row(sql, [], |row| row.get(0)).expect("a count")
    }

    fn rows(reader: &Reader, out: &Path, replace: bool) -> Result<(u64, Tally), ReadError> {
        write_rows(reader, &Selection::default(), (out, replace), &AtomicBool::new(false))
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Any SQLite tool reads the rows: one file in rollback mode, no part of it left over.
    #[test]
    fn plain_rows_are_one_file_for_any_tool() {
        let (_directory, path) = sample::store();
        let to = tempfile::tempdir().expect("a directory");
        let out = to.path().join("rows.db");
        let reader = Reader::open(&path).expect("a reader");
        let (count_of, tally) = rows(&reader, &out, false).expect("rows");
        assert_eq!((count_of, tally.unreadable), (sample::READINGS as u64, 0));
        assert_eq!(names(to.path()), ["rows.db"]);
        assert_eq!(count(&out, "SELECT count(*) FROM reading JOIN series ON name = series"), 146);
        assert_eq!(count(&out, "SELECT count(*) FROM reading WHERE quality = 'estimated'"), 22);
        assert_eq!(count(&out, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'delete'"), 1);
        assert_eq!(count(&out, "SELECT count(*) FROM reading WHERE typeof(value) = 'real' AND value = 23.437"), 1);
        assert!(matches!(rows(&reader, &out, false), Err(ReadError::Exists { .. })));
        assert!(rows(&reader, &out, true).is_ok());
    }

    /// A copy of a live store has all of it in one file, says what it is a copy of, and a second one never overwrites it.
    #[test]
    fn a_snapshot_is_the_whole_in_one_file() {
        let from = tempfile::tempdir().expect("a directory");
        let path = from.path().join("varved.db");
        let writer = sample::store_at(&path);
        let to = tempfile::tempdir().expect("a directory");
        let out = to.path().join("copy.db");
        let reader = Reader::open(&path).expect("a reader");
        let bytes = snapshot(&reader, &out, false).expect("a snapshot");
        assert_eq!(names(to.path()), ["copy.db"]);
        assert_eq!(std::fs::metadata(&out).expect("the copy").len(), bytes);
        assert_eq!(count(&out, "SELECT count(*) FROM segment"), 5);
        assert_eq!(count(&out, "SELECT count(*) FROM meta WHERE key = 'copied_from' AND value LIKE '00000000-%7'"), 1);
        assert_eq!(count(&out, "SELECT count(*) FROM pragma_auto_vacuum WHERE auto_vacuum = 2"), 1);
        assert!(matches!(snapshot(&reader, &out, false), Err(ReadError::Exists { .. })));
        assert!(matches!(snapshot(&reader, &path, true), Err(ReadError::Live { .. })));
        drop(writer);
        assert_eq!(super::super::query::Session::open(&out).map(|_| ()).map_err(|e| e.to_string()), Ok(()));
    }

    /// What fails leaves nothing behind.
    #[test]
    fn a_failed_export_leaves_no_file() {
        let (_directory, path) = sample::store();
        let reader = Reader::open(&path).expect("a reader");
        let nowhere = path.with_file_name("none").join("rows.db");
        assert!(rows(&reader, &nowhere, false).is_err());
        assert!(snapshot(&reader, &nowhere, false).is_err());
        let stopped = AtomicBool::new(true);
        let out = path.with_file_name("rows.db");
        let error = write_rows(&reader, &Selection::default(), (&out, false), &stopped).expect_err("a stop");
        assert!(error.is_interrupt() && !out.exists());
        let names = names(path.parent().expect("a directory"));
        assert!(names.iter().all(|name| !name.contains("part")), "{names:?}");
    }
}
