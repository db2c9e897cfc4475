//! A file that is beyond use is set aside, whole, and what can be read of it is taken over.
//!
//! What enters: the path. What leaves: the files under another name, and every segment of theirs whose checksum is right
//! under its old store id in the new file. The set-aside files are never written. A salvage that is cut off goes on at the
//! next open: which file it is from stands in the new file's `meta` until it is done. Segments are taken one by one, so
//! damage costs what it hit. It reads through SQLite: where the tables themselves can't be found, nothing is salvaged and
//! the set-aside files wait for better tools.

use super::disk::{self, remove};
use super::error::StoreError;
use super::event::{Event, EventKind, record};
use super::file::{
    self, StoreNo, beside, execute, insert_segment, meta, set_meta, upsert_anchor, upsert_boot, upsert_series,
};
use super::ground::{directory, length, sync_directory};
use super::{Step, Store, high_water, line};
use crate::clock::{Anchor, BootNanos, Now, UtcNanos, civil};
use crate::reading::BootId;
use crate::segment::View;
use rusqlite::{Connection, OpenFlags, params};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Segments that one transaction takes over.
const STEP_SEGMENTS: usize = 64;
/// Bytes of bodies after which a transaction ends before: they are in RAM, and in the log.
const STEP_BYTES: usize = 512 << 10;
/// The key in `meta` under which the file that is being salvaged stands.
const KEY: &str = "salvage";
const MARK: &str = ".quarantine-";

/// The key in `meta` under which the last file stands of which nothing is left to salvage.
const DONE: &str = "salvaged";
/// Everything that belongs to a database.
const SUFFIXES: [&str; 6] = ["-shm", "-suspect", "-high-water", "-journal", "-wal", ""];

/// A file beside the database while it is being moved: a move that is cut off is gone on with, since a database without
/// its log would pass for an older one.
fn intent(db: &Path) -> PathBuf {
    beside(db, "-moving")
}

/// Whether something is left of a database that is gone.
pub(super) fn remains(db: &Path) -> Result<bool, StoreError> {
    Ok(length(&beside(db, "-wal"))? > 0 || disk::exists(&high_water::path_of(db))?)
}

/// Goes on with a move that was cut off.
pub(super) fn finish_move(db: &Path) -> Result<(), StoreError> {
    let intent = intent(db);
    let Some(name) = disk::read(&intent)? else { return Ok(()) };
    match intended(db, Path::new(std::ffi::OsStr::from_bytes(&name))) {
        Some(aside) => move_all(db, aside),
        // Cut off while it was being written, before anything was moved.
        None => remove(&intent),
    }
}

/// `path`, if it is a name that [`set_aside`] gives.
fn intended<'a>(db: &Path, path: &'a Path) -> Option<&'a Path> {
    let known = beside(db, MARK);
    let rest = path.as_os_str().as_bytes().strip_prefix(known.as_os_str().as_bytes())?;
    (!rest.is_empty() && rest.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')).then_some(path)
}

/// Moves the log of the database at `db` aside, which is another one's, and its index; the new name of the log.
pub(super) fn set_log_aside(db: &Path, now: Now) -> Result<PathBuf, StoreError> {
    let aside = beside(&name_aside(db, now), "-wal");
    disk::rename(&beside(db, "-wal"), &aside)?;
    remove(&beside(db, "-shm"))?;
    sync_directory(db)?;
    Ok(aside)
}

/// A name that nothing has yet.
fn name_aside(db: &Path, now: Now) -> PathBuf {
    let stamp = civil::iso8601(UtcNanos(now.utc.0 / 1_000_000_000 * 1_000_000_000)).replace([':', '-'], "");
    let name = |n: u32| beside(db, &format!("{MARK}{stamp}-{n}"));
    let free = |path: &PathBuf| SUFFIXES.iter().all(|suffix| disk::exists(&beside(path, suffix)).is_ok_and(|is| !is));
    (1..1000).map(name).find(free).unwrap_or_else(|| name(1000))
}

/// Moves the database at `db` and all that belongs to it aside; the new name of the database.
pub(super) fn set_aside(db: &Path, now: Now) -> Result<PathBuf, StoreError> {
    let aside = name_aside(db, now);
    let intent = intent(db);
    disk::write_whole(&intent, aside.as_os_str().as_bytes())?;
    sync_directory(db)?;
    move_all(db, &aside)?;
    Ok(aside)
}

fn move_all(db: &Path, aside: &Path) -> Result<(), StoreError> {
    for suffix in SUFFIXES {
        disk::rename(&beside(db, suffix), &beside(aside, suffix))?;
    }
    sync_directory(db)?;
    remove(&intent(db))?;
    sync_directory(db)
}

/// The databases that were set aside, oldest first.
pub(super) fn aside(db: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let dir = directory(db);
    let prefix = format!("{}{MARK}", db.file_name().unwrap_or_default().to_string_lossy());
    let mut found: Vec<PathBuf> = disk::names(dir)?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .map(|name| SUFFIXES.iter().fold(name.as_str(), |n, s| n.strip_suffix(s).unwrap_or(n)).to_owned())
        .map(|name| dir.join(name))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Deletes a database that was set aside.
fn discard(db: &Path, aside: &Path) -> Result<Event, StoreError> {
    SUFFIXES.iter().try_for_each(|suffix| remove(&beside(aside, suffix)))?;
    sync_directory(db)?;
    Ok(Event::new(EventKind::Discard, format!("{} was deleted", aside.display())))
}

/// What a salvage brought.
#[derive(Debug, Clone, Copy, Default)]
struct Salvaged {
    segments: u64,
    damaged: u64,
}

/// In the first transaction of a new file: if one was set aside, it is what this file will salvage.
pub(super) fn note(conn: &Connection, db: &Path) -> Result<(), StoreError> {
    // A log that was set aside alone has nothing that could be read without the database that it is of.
    match aside(db)?.iter().rfind(|path| disk::exists(path).is_ok_and(|is| is)) {
        Some(newest) => set_meta(conn, KEY, newest.to_string_lossy()),
        None => Ok(()),
    }
}

impl Store {
    /// Deletes what was set aside: with everything of it salvaged and in the hands of the fleet, or the oldest at once if
    /// there is no room.
    pub(super) fn discard_aside(&mut self, now: Now, pressed: bool) -> Result<Step, StoreError> {
        let all = aside(&self.path)?;
        let done = meta::<String>(&self.conn, DONE)?.map(PathBuf::from);
        let old = self.lines.len() - 1;
        let pending = self.lines[..old].iter().any(|line| line.tally.pending_segments > 0);
        let which = if pressed {
            all.into_iter().next()
        } else {
            all.into_iter().find(|a| !pending && done.as_ref() == Some(a))
        };
        let Some(which) = which else { return Ok(Step::Idle) };
        let event = discard(&self.path, &which)?;
        self.transaction("record an event", |conn| record(conn, &event, now))?;
        log::warn!("store: {event}");
        Ok(Step::Worked)
    }

    /// Takes over what was set aside, by this open or by one that was cut off.
    pub(super) fn salvage(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), StoreError> {
        let Some(from) = meta::<String>(&self.conn, KEY)? else { return Ok(()) };
        let outcome = self.take_over(Path::new(&from), now);
        let detail = match &outcome {
            Ok(all) => format!("{} segments were taken over from {from}; {} were damaged", all.segments, all.damaged),
            Err(e) => format!("nothing more can be taken over from {from}: {e}"),
        };
        let event = Event::new(EventKind::Salvage, detail);
        // A full disk is no reason to give up for ever: the next open tries again.
        let again = matches!(outcome, Err(StoreError::Full { .. } | StoreError::Io { .. } | StoreError::Busy { .. }));
        let told = self.transaction("record an event", |conn| {
            if outcome.as_ref().is_ok_and(|all| all.damaged == 0) {
                set_meta(conn, DONE, &from)?;
            }
            if !again {
                execute(conn, "end the salvage", "DELETE FROM meta WHERE key = ?1", [KEY])?;
            }
            record(conn, &event, now)
        });
        match told {
            // No room to say that there is no room: recording goes on all the same.
            Err(e @ StoreError::Full { .. }) if again => log::warn!("store: {event}; {e}"),
            told => told?,
        }
        events.push(event);
        self.reload_lines()
    }

    fn reload_lines(&mut self) -> Result<(), StoreError> {
        self.lines = line::lines(&self.conn)?;
        self.catalog_changes += 1;
        self.recount().map(drop)
    }

    fn take_over(&mut self, from: &Path, now: Now) -> Result<Salvaged, StoreError> {
        // Where the log can't be read, or is another file's, what had been folded is there still.
        let (old, stores) = look_into(from, "mode=ro&vfs=unix-none").or_else(|why| {
            let without = look_into(from, "mode=ro&vfs=unix-none&immutable=1").map_err(|_| why)?;
            log::warn!("store: {} is taken over without its log", from.display());
            Ok::<_, StoreError>(without)
        })?;
        let mut all = Salvaged::default();
        for (old_no, uuid) in stores {
            let Ok(uuid) = Uuid::parse_str(&uuid) else { continue };
            let old_no = StoreNo(old_no);
            let new_no = self.transaction("begin a salvage", |conn| {
                let no = file::upsert_store(conn, &uuid, 0, Some(now.utc))?;
                copy_catalog(&old, old_no, conn, no)?;
                Ok(no)
            })?;
            self.take_over_figures(&old, old_no, new_no)?;
            self.copy_segments(&old, old_no, new_no, &mut all)?;
        }
        Ok(all)
    }

    fn copy_segments(
        &mut self,
        old: &Connection,
        old_no: StoreNo,
        new_no: StoreNo,
        all: &mut Salvaged,
    ) -> Result<(), StoreError> {
        let end = file::row_id(StoreNo(old_no.0 + 1), crate::reading::SegmentSeq(0));
        let mut at = file::row_id(old_no, crate::reading::SegmentSeq(0));
        while at < end {
            let page = read_page(old, at, end, all);
            at = page.next;
            let bodies = page.bodies;
            let taken = self.transaction("salvage", |conn| {
                let mut sum = Salvaged::default();
                for body in &bodies {
                    match View::parse(body) {
                        Ok(view) => sum.segments += u64::from(take(conn, new_no, &view, body)?),
                        Err(_) => sum.damaged += 1,
                    }
                }
                Ok(sum)
            })?;
            all.segments += taken.segments;
            all.damaged += taken.damaged;
        }
        Ok(())
    }
}

/// What was set aside, and the stores in it. No shared memory and no locks: nobody else has it, and a log without -shm is
/// still read.
fn look_into(from: &Path, query: &str) -> Result<(Connection, Vec<(i64, String)>), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let fail = |e| StoreError::sql("read what was set aside", from, e);
    let old = Connection::open_with_flags(file::uri(from, query), flags).map_err(fail)?;
    old.pragma_update(None, "locking_mode", "exclusive").map_err(fail)?;
    let stores = {
        let mut statement = old.prepare("SELECT id, uuid FROM store WHERE variant = 0 ORDER BY id").map_err(fail)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)?;
        rows.filter_map(Result::ok).collect()
    };
    Ok((old, stores))
}

struct Page {
    bodies: Vec<Vec<u8>>,
    /// The row id to go on from.
    next: i64,
}

/// Some bodies from row id `at` on. Where the way to the next one is damaged, it tries from the far side of growing gaps.
fn read_page(old: &Connection, at: i64, end: i64, all: &mut Salvaged) -> Page {
    let (mut bodies, mut bytes, mut next) = (Vec::new(), 0, at);
    let sql = "SELECT id, body FROM segment WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3";
    let read = old.prepare_cached(sql).and_then(|mut statement| {
        let mut rows = statement.query(params![at, end, STEP_SEGMENTS as i64])?;
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(1)?;
            bytes += body.len();
            bodies.push(body);
            next = row.get::<_, i64>(0)? + 1;
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(())
    });
    match read {
        Ok(()) if bodies.is_empty() => Page { bodies, next: end },
        Ok(()) => Page { bodies, next },
        Err(_) => {
            all.damaged += 1;
            Page { bodies, next: beyond(old, next, end) }
        }
    }
}

/// The first row id behind damage at `at` from which something can be read; `end` where there is none.
fn beyond(old: &Connection, at: i64, end: i64) -> i64 {
    let readable = |from: i64| {
        old.query_row(
            "SELECT id FROM segment WHERE id >= ?1 AND id < ?2 AND length(body) >= 0 ORDER BY id LIMIT 1",
            [from, end],
            |row| row.get::<_, i64>(0),
        )
        .ok()
    };
    let mut gap = 1;
    while at + gap < end {
        if let Some(id) = readable(at + gap) {
            return id;
        }
        gap *= 2;
    }
    end
}

/// Adds a segment that is not there yet; whether it was added.
fn take(conn: &Connection, no: StoreNo, view: &View, body: &[u8]) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM segment WHERE id = ?1";
    let there: i64 = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([file::row_id(no, view.range().first)], |row| row.get(0)))
        .map_err(|e| file::sql_of(conn, "salvage", e))?;
    if there > 0 {
        return Ok(false);
    }
    insert_segment(conn, no, view, body)?;
    Ok(true)
}

/// Series, boots, anchors and acknowledgements, so far as they can be read.
fn copy_catalog(old: &Connection, old_no: StoreNo, conn: &Connection, no: StoreNo) -> Result<(), StoreError> {
    let mut series = Vec::new();
    // A row that can't be read ends the list; names in compacted segments stay readable all the same.
    let _ = super::commit::each_series(old, old_no, |id, def| series.push((id, def)));
    for (id, def) in &series {
        upsert_series(conn, no, *id, def)?;
    }
    for (id, uuid) in
        rows(old, "SELECT id, boot_uuid FROM boot WHERE store = ?1", old_no, |r| Ok((r.get(0)?, r.get(1)?)))
    {
        let uuid: String = uuid;
        if let Ok(uuid) = Uuid::parse_str(&uuid) {
            upsert_boot(conn, no, BootId(id), &uuid)?;
        }
    }
    let sql = "SELECT boot, boottime, utc, trusted FROM anchor WHERE store = ?1";
    let anchor = |r: &rusqlite::Row<'_>| {
        let anchor = Anchor { boot: BootNanos(r.get(1)?), utc: UtcNanos(r.get(2)?), trusted: r.get(3)? };
        Ok((BootId(r.get(0)?), anchor))
    };
    for (boot, anchor) in rows(old, sql, old_no, anchor) {
        upsert_anchor(conn, no, boot, &anchor)?;
    }
    for (first, last) in
        rows(old, "SELECT first_seq, last_seq FROM ack WHERE store = ?1", old_no, |r| Ok((r.get(0)?, r.get(1)?)))
    {
        let range: (i64, i64) = (first, last);
        let sql = "INSERT OR IGNORE INTO ack (store, first_seq, last_seq) VALUES (?1, ?2, ?3)";
        execute(conn, "salvage", sql, params![no.0, range.0, range.1])?;
    }
    Ok(())
}

/// The rows that can be read.
fn rows<T>(
    old: &Connection,
    sql: &str,
    no: StoreNo,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let Ok(mut statement) = old.prepare(sql) else { return Vec::new() };
    match statement.query_map([no.0], read) {
        Ok(rows) => rows.map_while(Result::ok).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction of a salvage holds so many bytes, not only so many segments, and every body comes once.
    #[test]
    fn a_page_of_large_bodies_is_short() {
        let old = Connection::open_in_memory().unwrap();
        old.execute_batch("CREATE TABLE segment (id INTEGER PRIMARY KEY, body BLOB)").unwrap();
        for id in 1..=100 {
            old.execute("INSERT INTO segment VALUES (?1, zeroblob(100000))", [id]).unwrap();
        }
        let (mut at, mut bodies, mut all) = (0, 0, Salvaged::default());
        while at < 1_000 {
            let page = read_page(&old, at, 1_000, &mut all);
            assert!(page.bodies.iter().map(Vec::len).sum::<usize>() < STEP_BYTES + 100_001);
            (at, bodies) = (page.next, bodies + page.bodies.len());
        }
        assert_eq!((bodies, all.damaged), (100, 0));
    }
}
