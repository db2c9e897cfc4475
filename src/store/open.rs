//! From a path to a store that can be written, whatever the file is like.
//!
//! ```text
//! lock ─► fsync, forget the cache ─► (another database's WAL: set aside) ─► scan the WAL ─► (newer format: a side file) ─► (other page size: rebuild) ─► SQLite
//!   ─► check ─► (damaged: set aside, begin anew, salvage) ─► high water, machine, copy mark ─► one transaction ─► reserve
//! ```
//! What enters: the configuration, who we are, the moment. What leaves: a [`Store`] and what happened on the way. It
//! promises that a file that can't be used is never in the way of recording and never deleted, that a sequence number of
//! the current store is never used twice, and that it can be cut off anywhere and begun again. It doesn't wait for a full
//! disk or a lock to clear: the caller keeps readings in RAM and calls again.

mod run;
mod strange_log;

use super::error::StoreError;
use super::event::{Event, EventKind, record};
use super::file::{
    self, FORMAT_MAJOR, Pragmas, StoreNo, create_schema, execute, in_transaction, meta, open_rw, sql_of,
};
use super::ground::{self, Lock};
use super::high_water::{HighWater, Mark};
use super::identity::Identity;
use super::line::{Line, lines};
use super::log::Log;
use super::place::{self, Place};
use super::retention::Retention;
use super::wal_scan::{self, WalScan};
use super::{Bounds, Store, ack, catalog, commit, compact, disk, padding, quarantine, rebuild};
use crate::clock::Now;
use crate::config::{Locking, StoreConfig};
use crate::reading::SegmentSeq;
use run::{begin_run, boot_row, floor, new_line, next_series, void, why_fresh};
use rusqlite::{Connection, params};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Heads of segments that are read at once.
const CHECKED_HEADS: usize = 512;

/// What is written into a file as its writer.
pub(crate) const WRITER: &str = concat!("varved ", env!("CARGO_PKG_VERSION"));

/// The smallest that SQLite has: a commit of some hundred bytes then takes one block of the log.
const PAGE_BYTES: u32 = 512;

/// Why a store takes a fresh id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreshWhy {
    /// The file is new.
    New,
    /// It runs on another machine than before: a golden image, a moved card.
    Machine,
    /// It was made by copying another file.
    Copy,
    /// The file beside it names a store that it doesn't know: it was replaced.
    Replaced,
    /// The fleet holds other content under the same numbers, or higher numbers than the file has.
    Fleet,
    /// No sequence number is left under it.
    Numbers,
    /// Somebody asked for it.
    Request,
}

impl FreshWhy {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "the file is new",
            Self::Machine => "the file came from another machine",
            Self::Copy => "the file is a copy",
            Self::Replaced => "the file was replaced by another one",
            Self::Fleet => "the fleet holds something else under its numbers",
            Self::Numbers => "its sequence numbers are used up",
            Self::Request => "on request",
        }
    }
}

impl Bounds {
    /// A sixteenth of `max_size`, at most 4 MiB, is for the WAL, and as much again for a large transaction in it, or what a
    /// commit of the whole buffer may take.
    fn of(cfg: &StoreConfig) -> Self {
        let max_bytes = cfg.max_size_bytes;
        let wal_bytes = (max_bytes / 16).clamp(128 << 10, 4 << 20);
        let log_bytes = (2 * wal_bytes).max(cfg.largest_commit_bytes().min(cfg.most_log_bytes()));
        let file_bytes = max_bytes.saturating_sub(log_bytes).max(256 << 10);
        Self { wal_bytes, log_bytes, file_bytes, most_file_bytes: file_bytes }
    }
}

impl Pragmas {
    /// What the device's configuration asks for.
    pub fn device(cfg: &StoreConfig) -> Self {
        let bounds = Bounds::of(cfg);
        Self {
            page_bytes: PAGE_BYTES,
            cache_bytes: cfg.cache_bytes,
            mmap_bytes: cfg.mmap_bytes,
            exclusive: cfg.locking == Locking::Exclusive,
            automatic: false,
            wal_bytes: bounds.wal_bytes,
            max_bytes: Some(bounds.file_bytes),
            busy: BUSY,
        }
    }
}

/// How long a lock of another connection is waited for.
pub(super) const BUSY: Duration = Duration::from_secs(2);

/// The mark that says: look closely at the next open.
pub(crate) fn suspicion(db: &Path) -> PathBuf {
    file::beside(db, "-suspect")
}

impl Store {
    /// Opens the store, making or mending what must be.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has it; [`StoreError::Io`], [`StoreError::Full`], [`StoreError::Busy`]
    /// and [`StoreError::Sqlite`] for what may pass; [`StoreError::Setting`] where durability can't be had.
    pub fn open(cfg: &StoreConfig, me: &Identity, now: Now) -> Result<(Self, Vec<Event>), StoreError> {
        ground::make_directory(&cfg.path)?;
        let mut events = Vec::new();
        let mut locks = vec![Lock::take(&cfg.path)?];
        let mut path = cfg.path.clone();
        let ready = match ready(&path, cfg, now, &mut events) {
            Err(StoreError::Newer { major }) => {
                path = side_file(&cfg.path);
                locks.push(Lock::take(&path)?);
                let detail = format!("{} has format {major}; recording to {}", cfg.path.display(), path.display());
                events.push(Event::new(EventKind::Newer, detail));
                ready(&path, cfg, now, &mut events)?
            }
            other => other?,
        };
        let mut store = match ready.into_store(&path, cfg, me, now, &mut events) {
            // It reads more tables than were looked at before.
            Err(StoreError::Damaged { what }) => {
                events.retain(|event| event.kind != EventKind::FreshId);
                set_aside(&path, &what, now, &mut events)?;
                self::ready(&path, cfg, now, &mut events)?.into_store(&path, cfg, me, now, &mut events)?
            }
            other => other?,
        };
        store._locks = locks;
        events.iter().for_each(|event| log::warn!("store: {event}"));
        Ok((store, events))
    }

    /// Takes a fresh store id: from the next commit on, segments are numbered from 1 under it. What the old one holds
    /// stays readable and pending.
    ///
    /// # Errors
    /// Those of a commit; the old id stays current.
    pub fn take_fresh_id(&mut self, why: FreshWhy, now: Now) -> Result<Uuid, StoreError> {
        let old = (self.current().no, self.boot);
        let boot_uuid = self.identity.boot_uuid;
        let event = fresh_event(why);
        let (line, boot) = self.transaction("take a fresh store id", |conn| {
            let line = new_line(conn, now)?;
            let boot = boot_row(conn, line.no, &boot_uuid)?;
            let sql = "INSERT INTO anchor (store, boot, boottime, utc, trusted) \
                       SELECT ?1, ?2, boottime, utc, trusted FROM anchor WHERE store = ?3 AND boot = ?4";
            execute(conn, "copy the anchors", sql, params![line.no.0, boot.0, old.0.0, old.1.0])?;
            record(conn, &event, now)?;
            Ok((line, boot))
        })?;
        log::warn!("store: {event}");
        let uuid = line.uuid;
        if let Err(e) = self.high.set(Mark { store: uuid, seq: SegmentSeq(0) }) {
            log::warn!("store: {e}");
        }
        self.lines.push(line);
        self.boot = boot;
        self.next_series = 1;
        self.series.clear();
        self.catalog_changes += 1;
        Ok(uuid)
    }
}

/// Sets a file aside of which a part can't be read, so that the next open begins anew and takes over what can. Where it is
/// the side file of a newer one, nothing is done: which of both is ill is for a person to say.
///
/// # Errors
/// Those of the file system, which may be out of use as a whole; the files stay as they are.
pub fn set_unreadable_aside(cfg: &StoreConfig, why: &StoreError, now: Now) -> Result<(), StoreError> {
    if disk::exists(&side_file(&cfg.path))? {
        return Ok(());
    }
    let _lock = Lock::take(&cfg.path)?;
    let aside = quarantine::set_aside(&cfg.path, now)?;
    log::error!("store: {why}; what was there is set aside as {}", aside.display());
    Ok(())
}

/// An open file that was found good, and what is known of it.
struct Ready {
    conn: Connection,
    scan: WalScan,
    lines: Vec<Line>,
}

/// A usable file at `path`: the one that is there, or, where that is beyond use, a new one in its place.
fn ready(path: &Path, cfg: &StoreConfig, now: Now, events: &mut Vec<Event>) -> Result<Ready, StoreError> {
    quarantine::finish_move(path)?;
    place::install(path, now)?;
    ground::settle_cache(path)?;
    if ground::length(path)? == 0 && quarantine::remains(path)? {
        // Without its database a log means nothing, and a mark would be taken for this file's.
        set_aside(path, "the database is gone, its other files are not", now, events)?;
    }
    strange_log::set_aside(path, PAGE_BYTES, now, events)?;
    match connect(path, cfg, events) {
        Err(StoreError::Damaged { what }) => {
            set_aside(path, &what, now, events)?;
            connect(path, cfg, events)
        }
        other => other,
    }
}

fn set_aside(path: &Path, what: &str, now: Now, events: &mut Vec<Event>) -> Result<(), StoreError> {
    let aside = quarantine::set_aside(path, now)?;
    events.push(Event::new(EventKind::Quarantine, format!("{what}; set aside as {}", aside.display())));
    Ok(())
}

fn connect(path: &Path, cfg: &StoreConfig, events: &mut Vec<Event>) -> Result<Ready, StoreError> {
    let pragmas = Pragmas::device(cfg);
    if ground::was_being_made(path)? {
        // SQLite would take the file off its journal, and with it the reason why the file is garbage.
        disk::empty(path)?;
    }
    let header = ground::header(path)?;
    let writers = keep_writers_out(path)?;
    let scan = wal_scan::scan(path, header.map(|h| h.page_bytes))?;
    let bytes = ground::length(path)?;
    let headless = header.is_none() && bytes > 0;
    if headless {
        // A cut may have made garbage of the first block, which then is in the log still, or in the journal.
        let kept = scan.replayed > 0 || ground::length(&file::beside(path, "-journal"))? > 0;
        if !kept || bytes % 512 != 0 {
            return Err(StoreError::Damaged { what: format!("{} does not begin as a database", path.display()) });
        }
    }
    let scan = match if scan.folded { Ok(scan) } else { padding::mend(path, scan) } {
        // The log is begun anew below, so what it lacks matters only if the power goes before.
        Err(e @ StoreError::Full { .. }) => {
            log::warn!("store: the end of the log stays as it is: {e}");
            scan
        }
        other => other?,
    };
    if scan.folded {
        disk::empty(&file::beside(path, "-wal"))?;
    }
    drop(writers);
    if bytes > 0 {
        check_format(path)?;
    }
    // Once more: the first block may have been garbage, and be back from a journal by now.
    if let Some(header) = ground::header(path)? {
        match rebuild::rebuild(path, header, pragmas.page_bytes) {
            Ok(false) => {}
            Ok(true) => {
                let detail = format!("pages of {} instead of {} bytes", pragmas.page_bytes, header.page_bytes);
                events.push(Event::new(EventKind::Rebuild, detail));
            }
            Err(e @ StoreError::Damaged { .. }) => return Err(e),
            Err(e) => log::warn!("store: {e}; the page size stays {} bytes until the next start", header.page_bytes),
        }
        rebuild::into_wal(path)?;
    }
    let conn = open_rw(path, &pragmas)?;
    conn.set_prepared_statement_cache_capacity(48);
    create_schema(&conn, WRITER)?;
    let suspected = disk::exists(&suspicion(path))?;
    if suspected || headless || scan.rot() {
        check_closely(&conn)?;
    }
    let lines = lines(&conn)?;
    if suspected {
        lines.iter().try_for_each(|line| check_rows(&conn, line))?;
        disk::remove(&suspicion(path))?;
    }
    Ok(Ready { conn, scan, lines })
}

/// A connection that leaves the log as it is.
fn glance(path: &Path) -> Result<Connection, StoreError> {
    let fail = |e| StoreError::sql("open the database", path, e);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE
        | rusqlite::OpenFlags::SQLITE_OPEN_URI
        | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file::uri(path, "psow=0"), flags).map_err(fail)?;
    conn.busy_timeout(BUSY).map_err(fail)?;
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    Ok(conn)
}

/// Another program's transaction that is not committed yet looks like one that a cut has torn, and would be cleared. So the
/// right to write is held while the log is looked at and mended. Where SQLite can't give it, as in a damaged file, nobody has it.
///
/// # Errors
/// [`StoreError::Busy`] where somebody else is writing.
fn keep_writers_out(path: &Path) -> Result<Option<Connection>, StoreError> {
    let length = |suffix| ground::length(&file::beside(path, suffix));
    if ground::length(path)? == 0 || length("-wal")? == 0 || length("-journal")? > 0 {
        // SQLite deletes the log of an empty database, and a journal is rolled back only once it is known for what it is.
        return Ok(None);
    }
    let conn = glance(path)?;
    match conn.execute_batch("BEGIN IMMEDIATE") {
        Ok(()) => Ok(Some(conn)),
        Err(e) => match StoreError::sql("keep other writers out", path, e) {
            busy @ StoreError::Busy { .. } => Err(busy),
            _ => Ok(None),
        },
    }
}

/// Looks at the format before anything is written. Without tables it is a file that was being made.
fn check_format(path: &Path) -> Result<(), StoreError> {
    let fail = |e| StoreError::sql("open the database", path, e);
    let conn = glance(path)?;
    let ours = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN \
                ('meta', 'store', 'series', 'boot', 'anchor', 'segment', 'ack', 'rollup', 'event')";
    let tables: i64 = conn.query_row(ours, [], |row| row.get(0)).map_err(fail)?;
    let all: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    if all == 0 {
        return Ok(());
    }
    let major = if tables > 0 { meta::<i64>(&conn, "format_major").ok().flatten() } else { None };
    match major {
        Some(major) if major > FORMAT_MAJOR => Err(StoreError::Newer { major }),
        Some(FORMAT_MAJOR) if tables == 9 => Ok(()),
        _ => Err(StoreError::Damaged { what: format!("{} has not the tables of a varved file", path.display()) }),
    }
}

fn check_closely(conn: &Connection) -> Result<(), StoreError> {
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| sql_of(conn, "check the file", e))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged { what: verdict }) }
}

/// What is taken for damage while running, beyond the structure: found only then, it would be met, and looked for here, in a
/// circle.
fn check_rows(conn: &Connection, line: &Line) -> Result<(), StoreError> {
    commit::each_series(conn, line.no, |_, _| ())?;
    catalog::boots(conn, line.no)?;
    let mut from = 0;
    while let Some(last) = ack::heads(conn, line.no, from, line.high.0, CHECKED_HEADS)?.last() {
        from = last.range.last.0 + 1;
    }
    Ok(())
}

/// `varved.db` → `varved.v1.db`.
fn side_file(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.v{FORMAT_MAJOR}.db"))
}

impl Ready {
    /// The last steps: whose file is it, where do its numbers go on, and one transaction that writes that down. The caller
    /// has the locks, and keeps them if this fails.
    fn into_store(
        self,
        path: &Path,
        cfg: &StoreConfig,
        me: &Identity,
        now: Now,
        events: &mut Vec<Event>,
    ) -> Result<Store, StoreError> {
        let Self { conn, scan, mut lines } = self;
        let mut high = HighWater::open(path)?;
        let mut log = Log::new(&conn, Bounds::of(cfg).wal_bytes, cfg.powersafe)?;
        restart_log(&mut log, &conn, path, scan)?;
        log.begin(&conn, path)?;
        let fresh = why_fresh(&conn, &lines, high.mark(), me)?;
        let floor = lines.last().map(|line| floor(line, high.mark(), scan, events));
        let (boot, run) = in_transaction(&conn, path, "begin a run", |conn| {
            if let (Some(line), Some(floor)) = (lines.last_mut(), floor) {
                void(conn, line, floor, me, now)?;
            }
            if let Some(why) = fresh {
                lines.push(new_line(conn, now)?);
                let event = fresh_event(why);
                match why {
                    FreshWhy::New => quarantine::note(conn, path)?,
                    _ => events.push(event),
                }
            }
            let current = lines.last().map_or(StoreNo(0), |line| line.no);
            let boot = boot_row(conn, current, &me.boot_uuid)?;
            Ok((boot, begin_run(conn, me, events, now)?))
        })?;
        let place = Place::of(path, &log)?;
        let next_series = next_series(&conn, lines.last())?;
        let bounds = Bounds::of(cfg);
        if let Some(line) = lines.last() {
            if high.mark().is_none_or(|mark| mark.store != line.uuid) {
                high.set(Mark { store: line.uuid, seq: line.high })?;
            }
        }
        let mut store = Store {
            conn,
            path: path.to_owned(),
            bounds,
            identity: *me,
            high,
            lines,
            boot,
            run,
            next_series,
            series: Vec::new(),
            catalog_changes: 0,
            anchor: None,
            damaged: Cell::new(false),
            log,
            place,
            in_flight: Vec::new(),
            compacted_to: compact::Cursor::default(),
            commits: 0,
            body_bytes: 0,
            rollup_rows: Default::default(),
            retention: Retention::of(cfg),
            ledger_unwritten: Default::default(),
            _locks: Vec::new(),
        };
        store.anchor = store.newest_anchor()?;
        store.settle_rollups()?;
        store.reserve(now, events)?;
        store.limit_pages()?;
        store.salvage(now, events)?;
        Ok(store)
    }
}

impl Store {
    /// Without its reserve the store works, until the medium is full.
    fn reserve(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), StoreError> {
        let Err(e) = file::reserve_wal(&self.path, self.bounds.wal_bytes) else { return Ok(()) };
        let event = Event::new(EventKind::NoReserve, e.to_string());
        if let Err(e) = self.transaction("record an event", |conn| record(conn, &event, now)) {
            log::warn!("store: {e}");
        }
        events.push(event);
        Ok(())
    }
}

fn fresh_event(why: FreshWhy) -> Event {
    Event::new(EventKind::FreshId, format!("a fresh store id was taken: {}", why.as_str()))
}

/// Folds what was replayed and has the next commit begin the log anew, under another salt: a commit that came back without
/// its padding shares a block with the next one otherwise, and frames behind rot would be taken for rot again.
fn restart_log(log: &mut Log, conn: &Connection, path: &Path, scan: WalScan) -> Result<(), StoreError> {
    let done = match (scan.replayed > 0, scan.rot()) {
        (true, _) => log.restart(conn, path)?,
        // With nothing to fold, RESTART would leave the salt as it is; the reserve is made again later.
        (false, true) => log.cut(conn, path)?,
        (false, false) => true,
    };
    if !done {
        log::warn!(
            "store: a reader keeps the WAL from being begun anew; a later start may take its torn end for damage"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
