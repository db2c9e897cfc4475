//! The file that a pull leaves on a laptop: plain rows for any SQLite tool, and the segments that they are from.
//!
//! ```text
//! reading (series, time, utc, value, unit, quality, seq, boot, boottime)   a row a reading; indexed by series and time, and by time
//! series, boot, anchor, store, event, ack, meta                            as in a store (docs/store.md)
//! segment                                                                  the bodies, about a hundredth of the rows
//! pulled (segment, first_row, last_row)                                    which rows are of which segment
//! ```
//!
//! What enters: [`Arrivals`](super::arrivals::Arrivals), as a file. What leaves: that table. It promises that a file is added to as a
//! whole or not at all, that what compaction has joined on the board is there once, and that rows get the times that are known now:
//! a board that learns the time late corrects what was pulled before. Tables are not STRICT, so that SQLite from 3.34 on reads
//! them.

use super::arrivals::{self, Arrival, Had};
use super::file::{StoreNo, beside};
use super::plain::Part;
use super::reader::{Held, HeldStore, ReadError};
use super::scan::{Cell, shown};
use crate::clock::timebase::{Quality, Timebase};
use crate::clock::{BootNanos, UtcNanos, civil};
use crate::reading::BootId;
use crate::segment::{Column, ColumnHead, TimelineClock, View};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;

/// The tables beside those of a store.
const TABLES: &str = "
    CREATE TABLE reading (
        series   TEXT NOT NULL,      -- series.name
        time     INTEGER NOT NULL,   -- UTC, ns since 1970, by what is known now
        utc      TEXT NOT NULL,      -- the same as ISO 8601
        value,                       -- NULL where there is none: see quality
        unit     TEXT NOT NULL,      -- SenML symbol, '' where unknown
        quality  TEXT NOT NULL,      -- ok, estimated, nan, infinite, or why there is no value
        seq      INTEGER NOT NULL,   -- number of the segment that it came in
        boot     INTEGER,            -- boot.id: whose clock gave the stamp; NULL where the reading brought its own time
        boottime INTEGER             -- the stamp itself, ns since that boot
    );
    CREATE TABLE pulled (
        segment   INTEGER PRIMARY KEY,
        first_row INTEGER NOT NULL,
        last_row  INTEGER NOT NULL
    );
    CREATE INDEX reading_by_series ON reading (series, time);
    CREATE INDEX reading_by_time ON reading (time);";

/// What one pull did to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// Readings that are new.
    pub readings: u64,
    /// Readings that got another time.
    pub retimed: u64,
    /// Segments that can't be shown: of a later version, or citing what no page named.
    pub unreadable: u64,
}

/// The device that a file is of, if it says so, and what it has of it.
pub type Inspected = (Option<String>, Vec<Had>);

/// What is in `out`, where it is such a file; `None` where there is none.
///
/// # Errors
/// [`ReadError::NotPulled`] where it is another file.
pub fn inspect(out: &Path) -> Result<Option<Inspected>, ReadError> {
    inspect_as(out, "SELECT count(*) = 2 FROM sqlite_master WHERE name IN ('pulled', 'segment')")
}

/// The same of a file that a raw pull wrote.
///
/// # Errors
/// [`ReadError::NotPulled`] where it is another file.
pub fn inspect_raw(out: &Path) -> Result<Option<Inspected>, ReadError> {
    inspect_as(
        out,
        "SELECT count(*) = 1 FROM meta WHERE key = 'copied_from' AND EXISTS \
                     (SELECT 1 FROM meta WHERE key = 'pulled_device') \
                     AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'pulled')",
    )
}

fn inspect_as(out: &Path, is_ours: &str) -> Result<Option<Inspected>, ReadError> {
    if !out.exists() {
        return Ok(None);
    }
    let fail = |e| ReadError::sql("read", out, e);
    let conn = Connection::open_with_flags(out, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    let ours: rusqlite::Result<bool> = conn.query_row(is_ours, [], |row| row.get(0));
    match ours {
        Ok(true) => {}
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => return Err(fail(e)),
        Ok(false) | Err(_) => return Err(ReadError::NotPulled { path: out.to_owned() }),
    }
    let device = arrivals::device_of(&conn).map_err(fail)?;
    Ok(Some((device, arrivals::had(&conn).map_err(fail)?)))
}

/// Adds what has arrived at `part` to `out`, which is made where it is not there yet. `part` stays.
///
/// # Errors
/// Those of SQLite and the file system; `out` is then as it was.
pub fn add(part: &Path, out: &Path) -> Result<Added, ReadError> {
    if out.exists() {
        let conn = Connection::open(out).map_err(|e| ReadError::sql("write", out, e))?;
        return Merging { conn: &conn, out }.run(part, "DELETE");
    }
    let new = Part::begin(out, false)?;
    let conn = Connection::open(&new.path).map_err(|e| ReadError::sql("write", out, e))?;
    // Nothing of it counts until it has its name: the file needs no journal, only the fsync at the end.
    let made = (Merging { conn: &conn, out }).run(part, "OFF")?;
    conn.pragma_update(None, "journal_mode", "delete").map_err(|e| ReadError::sql("write", out, e))?;
    conn.close().map_err(|(_, e)| ReadError::sql("write", out, e))?;
    new.finish()?;
    Ok(made)
}

/// The tables of a store as every SQLite since 3.34 reads them.
fn tables_of_a_store() -> String {
    let strict = include_str!("schema.sql");
    strict.replace(") STRICT, WITHOUT ROWID", ") WITHOUT ROWID").replace(") STRICT", ")").replace("value ANY", "value")
}

/// A file that is being added to, in one transaction.
struct Merging<'a> {
    conn: &'a Connection,
    out: &'a Path,
}

impl Merging<'_> {
    fn run(&self, part: &Path, journal: &str) -> Result<Added, ReadError> {
        let fail = |e| ReadError::sql("write", self.out, e);
        self.conn
            .execute_batch(&format!("PRAGMA journal_mode = {journal}; PRAGMA cache_size = -65536;"))
            .map_err(fail)?;
        self.conn.execute("ATTACH ?1 AS part", [super::file::uri(part, "mode=rw")]).map_err(fail)?;
        self.conn.execute_batch("BEGIN IMMEDIATE").map_err(fail)?;
        let done = self.add().and_then(|added| self.conn.execute_batch("COMMIT").map(|()| added));
        if done.is_err() && !self.conn.is_autocommit() {
            // What can't be rolled back now is by whoever opens the file next: its journal is beside it.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        self.conn.execute_batch("DETACH part").map_err(fail)?;
        done.map_err(fail)
    }

    fn add(&self) -> rusqlite::Result<Added> {
        let there = "SELECT 1 FROM main.sqlite_master WHERE name = 'pulled'";
        if !self.conn.prepare(there)?.exists([])? {
            self.conn.execute_batch(&format!("{}{TABLES}", tables_of_a_store()))?;
        }
        let before = Held::of_main(self.conn)?;
        let stores = self.merge_catalogue()?;
        let now = Held::of_main(self.conn)?;
        let mut added = self.retime(&before, &now)?;
        for (theirs, no) in stores {
            let Some(store) = now.stores.iter().find(|store| store.no == no.0) else { continue };
            self.take_segments(theirs, no, store, &mut added)?;
        }
        Ok(added)
    }

    /// Names, boots, anchors, events and what is known of the device; the numbers of each store there and here.
    fn merge_catalogue(&self) -> rusqlite::Result<Vec<(i64, StoreNo)>> {
        self.conn.execute_batch(
            "INSERT OR IGNORE INTO main.store (uuid, variant, created)
                 SELECT uuid, variant, created FROM part.store ORDER BY id;
             CREATE TEMP TABLE same AS SELECT p.id AS theirs, m.id AS ours FROM part.store p
                 JOIN main.store m ON m.uuid = p.uuid AND m.variant = p.variant;
             INSERT OR IGNORE INTO main.series SELECT ours, id, name, unit, kind, scale
                 FROM part.series JOIN same ON theirs = store;
             INSERT OR IGNORE INTO main.boot SELECT ours, id, boot_uuid FROM part.boot JOIN same ON theirs = store;
             INSERT OR REPLACE INTO main.ack SELECT ours, first_seq, last_seq FROM part.ack JOIN same ON theirs = store;
             INSERT INTO main.event (utc, kind, detail) SELECT utc, kind, detail FROM part.event p WHERE NOT EXISTS
                 (SELECT 1 FROM main.event m WHERE m.utc = p.utc AND m.kind = p.kind AND m.detail = p.detail)
                 ORDER BY id;
             INSERT OR REPLACE INTO main.meta SELECT key, value FROM part.meta
                 WHERE (key LIKE 'pulled\\_%' ESCAPE '\\' OR key LIKE 'format\\_%' ESCAPE '\\' OR key = 'writer')
                 AND (key <> 'pulled_device' OR value <> '' OR NOT EXISTS (SELECT 1 FROM main.meta WHERE key = 'pulled_device'));
             -- What the laptop said of a boot holds until the board has a proof.
             INSERT OR REPLACE INTO main.meta
                 SELECT 'laptop_anchor/' || ours || substr(key, length('laptop_anchor/' || theirs) + 1), value
                 FROM part.meta JOIN same ON key LIKE 'laptop\\_anchor/' || theirs || '/%' ESCAPE '\\';
             DELETE FROM main.anchor WHERE NOT trusted AND EXISTS (SELECT 1 FROM part.meta JOIN same ON ours = store
                 WHERE key = 'laptop_anchor/' || theirs || '/' || boot);
             INSERT OR REPLACE INTO main.anchor SELECT ours, boot, boottime, utc, trusted FROM part.anchor p
                 JOIN same ON theirs = store
                 WHERE trusted OR EXISTS (SELECT 1 FROM part.meta WHERE key = 'laptop_anchor/' || theirs || '/' || boot)
                 OR NOT EXISTS (SELECT 1 FROM main.meta WHERE key = 'laptop_anchor/' || ours || '/' || boot);",
        )?;
        let mut same = self.conn.prepare("SELECT theirs, ours FROM same")?;
        let stores = same.query_map([], |row| Ok((row.get(0)?, StoreNo(row.get(1)?))))?.collect();
        drop(same);
        self.conn.execute_batch("DROP TABLE same")?;
        stores
    }

    fn take_segments(&self, theirs: i64, no: StoreNo, store: &HeldStore, added: &mut Added) -> rusqlite::Result<()> {
        let mut bodies = self.conn.prepare("SELECT body FROM part.segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let mut found = bodies.query(super::file::row_ids(StoreNo(theirs)))?;
        while let Some(row) = found.next()? {
            let body = row.get_ref(0)?.as_blob()?;
            let Ok(view) = View::parse(body) else {
                added.unreadable += 1;
                continue;
            };
            if view.is_loss() {
                arrivals::lose(self.conn, no, &view, body).map_err(plain_error)?;
                continue;
            }
            let Some(columns) = shown_columns(&view, store) else {
                // It takes no place, and comes again with the next pull.
                added.unreadable += 1;
                continue;
            };
            let mut before = 0;
            let arrival = arrivals::clear(self.conn, no, view.range(), |segment| {
                before += self.drop_rows(segment)?;
                Ok(())
            })?;
            if arrival != Arrival::Kept {
                continue;
            }
            let segment = super::file::row_id(no, view.range().first);
            super::file::insert_segment(self.conn, no, &view, body).map_err(plain_error)?;
            added.readings += self.write_rows(segment, &view, &columns, store)?.saturating_sub(before);
        }
        Ok(())
    }

    fn drop_rows(&self, segment: i64) -> rusqlite::Result<u64> {
        let sql = "SELECT first_row, last_row FROM pulled WHERE segment = ?1";
        let rows = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let Some((first, last)) = self.conn.prepare_cached(sql)?.query_row([segment], rows).optional()? else {
            return Ok(0);
        };
        self.conn.prepare_cached("DELETE FROM reading WHERE rowid BETWEEN ?1 AND ?2")?.execute([first, last])?;
        self.conn.prepare_cached("DELETE FROM pulled WHERE segment = ?1")?.execute([segment])?;
        Ok((last - first + 1).unsigned_abs())
    }

    /// The rows of a segment, next to each other; how many.
    fn write_rows(&self, segment: i64, view: &View, columns: &[Column], store: &HeldStore) -> rusqlite::Result<u64> {
        let seq = view.range().first.0 as i64;
        let sql = "SELECT coalesce(max(rowid), 0) + 1 FROM reading";
        let first: i64 = self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let sql = "INSERT INTO reading (rowid, series, time, utc, value, unit, quality, seq, boot, boottime) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let mut insert = self.conn.prepare_cached(sql)?;
        let mut next = first;
        for column in columns {
            let (Some(def), Ok(timeline)) = (store.series.get(&column.series), view.timeline(column.timeline)) else {
                continue;
            };
            for (at, stamp) in timeline.stamps.iter().enumerate() {
                let (utc, quality, boot) = moment(&store.timebase, timeline.clock, *stamp);
                let (value, trouble) = shown(column, at, def.scale);
                let quality = trouble.unwrap_or(quality.as_str());
                let boottime = boot.map(|_| *stamp);
                let text = civil::iso8601(utc);
                let (name, unit) = (&def.name, &def.unit);
                let boot = boot.map(|boot| boot.0);
                insert.execute(params![next, name, utc.0, text, Shown(value), unit, quality, seq, boot, boottime])?;
                next += 1;
            }
        }
        if next > first {
            let sql = "INSERT INTO pulled (segment, first_row, last_row) VALUES (?1, ?2, ?3)";
            self.conn.prepare_cached(sql)?.execute([segment, first, next - 1])?;
        }
        Ok((next - first).unsigned_abs())
    }

    /// Writes the rows of those segments anew whose times are known better now.
    fn retime(&self, before: &Held, now: &Held) -> rusqlite::Result<Added> {
        let mut added = Added::default();
        for store in &now.stores {
            let Some(old) = before.stores.iter().find(|old| old.no == store.no) else { continue };
            for segment in self.to_retime(store.no, &old.timebase, &store.timebase)? {
                let sql = "SELECT body FROM main.segment WHERE id = ?1";
                let body: Vec<u8> = self.conn.prepare_cached(sql)?.query_row([segment], |row| row.get(0))?;
                let Ok(view) = View::parse(&body) else { continue };
                let Some(columns) = shown_columns(&view, store) else { continue };
                self.drop_rows(segment)?;
                added.retimed += self.write_rows(segment, &view, &columns, store)?;
            }
        }
        Ok(added)
    }

    fn to_retime(&self, no: i64, old: &Timebase, new: &Timebase) -> rusqlite::Result<Vec<i64>> {
        let sql = "SELECT id, boot_min, boot_max, boottime_min, boottime_max FROM main.segment \
                   WHERE id BETWEEN ?1 AND ?2 AND boot_min IS NOT NULL AND kind = 0";
        let mut statement = self.conn.prepare(sql)?;
        let mut rows = statement.query(super::file::row_ids(StoreNo(no)))?;
        let mut changed = Vec::new();
        while let Some(row) = rows.next()? {
            let (low, high): (u32, u32) = (row.get(1)?, row.get(2)?);
            let (from, to): (i64, i64) = (row.get(3)?, row.get(4)?);
            let differs = |boot: u32| {
                let from = if boot == low { from } else { 0 };
                let to = if boot == high { to } else { i64::MAX };
                old.differs(new, BootId(boot), BootNanos(from)..=BootNanos(to))
            };
            if (low..=high).any(differs) {
                changed.push(row.get(0)?);
            }
        }
        Ok(changed)
    }
}

/// UTC of a stamp, what that is worth, and the boot whose clock gave it.
fn moment(timebase: &Timebase, clock: TimelineClock, stamp: i64) -> (UtcNanos, Quality, Option<BootId>) {
    match clock {
        TimelineClock::Utc => (UtcNanos(stamp), Quality::Ok, None),
        TimelineClock::Boot(boot) => {
            let (utc, quality) = timebase.utc(boot, BootNanos(stamp));
            (utc, quality, Some(boot))
        }
    }
}

/// A value as it is bound.
struct Shown<'a>(Cell<'a>);

impl rusqlite::ToSql for Shown<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Cell::Null => ValueRef::Null,
            Cell::Int(value) => ValueRef::Integer(value),
            Cell::Real(value) => ValueRef::Real(value),
            Cell::Bool(value) => ValueRef::Integer(value.into()),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn plain_error(error: super::StoreError) -> rusqlite::Error {
    match error {
        super::StoreError::Sqlite { source, .. } => source,
        super::StoreError::Full { .. } => {
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
        }
        other => rusqlite::Error::ToSqlConversionFailure(Box::new(other)),
    }
}

/// The columns of a segment, if all of them can be shown: their series, timelines and values are known.
fn shown_columns(view: &View, store: &HeldStore) -> Option<Vec<Column>> {
    let known =
        |column: &ColumnHead| store.series.contains_key(&column.series) && view.timeline(column.timeline).is_ok();
    let known = view.columns().iter().all(known);
    known.then(|| view.decode_columns(0..view.columns().len()).ok()).flatten()
}

/// The path of what has arrived for `out` and is not yet in it.
pub fn part_of(out: &Path) -> std::path::PathBuf {
    beside(out, ".part")
}
