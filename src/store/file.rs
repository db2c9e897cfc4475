//! One SQLite file as varved opens and fills it: the settings, the schema, and the rows that device and fleet share.
//!
//! What enters: a path and [`Pragmas`]. What leaves: a connection on which every setting was read back. It promises that a
//! commit on that connection is on the medium when it returns (WAL, FULL, fdatasync, padded where the medium may tear a
//! block), that the `-wal` stays when the connection closes, and that the file is made with incremental auto-vacuum.
//! It does not decide when to commit, checkpoint or expire, and it does not look for damage: see the room's `open`.

use super::disk::PlainFile;
use super::error::StoreError;
use super::{raw, vfs};
use crate::clock::{Anchor, UtcNanos};
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesDef, SeriesId};
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The format that this version writes. A file with a higher major is left alone; a higher minor only added something.
pub const FORMAT_MAJOR: i64 = 1;
/// See [`FORMAT_MAJOR`].
pub const FORMAT_MINOR: i64 = 1;

/// `application_id` of a varved file (`file(1)` shows it): "varv".
pub const APPLICATION_ID: i64 = 0x7661_7276;

/// Bytes of a frame's header in the `-wal` (sqlite.org/fileformat2.html §4.1).
pub(crate) const FRAME_HEADER_BYTES: u64 = 24;

/// Pages that recording leaves to the next start: for its boot, its events, and what else its one transaction writes down. A
/// full file would not start otherwise, and what makes room comes after.
pub(in crate::store) const START_PAGES: u64 = 16;

/// How a file is opened. Every value is read back after it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pragmas {
    /// Bytes per page of a file that is made; one that exists keeps its own.
    pub page_bytes: u32,
    /// Page cache, in bytes.
    pub cache_bytes: u64,
    /// Of the file, mapped for reading, in bytes; never written through.
    pub mmap_bytes: u64,
    /// Keep the file to this connection: no `-shm`, no other readers.
    pub exclusive: bool,
    /// Whether SQLite checkpoints by itself, in the commit that fills the `-wal`. Otherwise the store does, and commits
    /// what a checkpoint may tear beforehand: see `neighbours`.
    pub automatic: bool,
    /// The `-wal` is checkpointed at about this many bytes, and made this long by [`reserve_wal`]; a reset cuts it back to
    /// twice that.
    pub wal_bytes: u64,
    /// The database file doesn't grow above this many bytes, but for what a start writes down; `None` leaves it free.
    pub max_bytes: Option<u64>,
    /// How long to wait for another connection's lock.
    pub busy: Duration,
}

impl Pragmas {
    /// What suits a replica at the fleet: readers beside it, the same durability. Hundreds are open at a time, and a replica
    /// is written at its end: a small cache does. A log that begins anew after some forty commits soon overwrites blocks that
    /// exist: then a commit waits for its own bytes, and not for the file system's journal to say that the file has grown.
    pub fn replica() -> Self {
        Self {
            page_bytes: 4096,
            cache_bytes: 256 << 10,
            mmap_bytes: 0,
            exclusive: false,
            automatic: true,
            wal_bytes: 512 << 10,
            max_bytes: None,
            busy: Duration::from_secs(10),
        }
    }

    /// SQLite's own threshold, in frames; 0 where it has none.
    fn automatic_frames(&self, page_bytes: u64) -> u64 {
        if self.automatic { frames(self.wal_bytes, page_bytes) } else { 0 }
    }
}

/// So many frames of pages of `page_bytes` fill a log of `wal_bytes`.
pub(super) fn frames(wal_bytes: u64, page_bytes: u64) -> u64 {
    (wal_bytes / (page_bytes + FRAME_HEADER_BYTES)).max(16)
}

/// Number of a store inside one file, 1..=32,767: the upper bits of a segment's row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreNo(pub i64);

/// The highest sequence number that a row id has room for.
pub const MAX_SEQ: u64 = (1 << 48) - 1;

/// The row id of the segment of `store` that begins at `first`.
pub fn row_id(store: StoreNo, first: SegmentSeq) -> i64 {
    debug_assert!(first.0 <= MAX_SEQ && store.0 < 1 << 15, "both are bounded where they are given");
    (store.0 << 48) | i64::try_from(first.0 & MAX_SEQ).unwrap_or(i64::MAX)
}

/// The lowest and the highest row id that a segment of `store` may have.
#[cfg(feature = "laptop")]
pub(super) fn row_ids(store: StoreNo) -> [i64; 2] {
    [row_id(store, SegmentSeq(0)), row_id(store, SegmentSeq(MAX_SEQ))]
}

/// Opens or makes the file at `path` for writing, and checks that every setting holds.
///
/// # Errors
/// [`StoreError::Setting`] where one does not; [`StoreError::Damaged`] where the file is no database; else as SQLite says.
pub fn open_rw(path: &Path, pragmas: &Pragmas) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let query = match pragmas.automatic {
        true => "psow=0".to_string(),
        false => format!("psow=0&vfs={}", vfs::name(pragmas.exclusive)),
    };
    let conn = Connection::open_with_flags(uri(path, &query), flags)
        .map_err(|e| StoreError::sql("open the database", path, e))?;
    settle(&conn, path, pragmas)?;
    Ok(conn)
}

/// `path` as an SQLite URI (sqlite.org/uri.html): every byte that could mean something is escaped.
pub fn uri(path: &Path, query: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push('?');
    #[cfg(test)]
    let query = &super::crash::log::query(query);
    uri.push_str(query);
    uri
}

/// Sets and checks. The order matters: exclusive locking before the first look at the WAL, page size and auto-vacuum
/// before the file has a page, and both before WAL, after which they stay what they are without a word.
fn settle(conn: &Connection, path: &Path, want: &Pragmas) -> Result<(), StoreError> {
    let set = Settings { conn, path };
    conn.busy_timeout(want.busy).map_err(|e| StoreError::sql("set the busy timeout", path, e))?;
    set.text("locking_mode", if want.exclusive { "exclusive" } else { "normal" })?;
    if set.get::<i64>("page_count")? == 0 {
        set.quietly("page_size", i64::from(want.page_bytes))?;
        set.quietly("auto_vacuum", 2)?;
        set.text("journal_mode", "wal")?;
        set.check("page_size", i64::from(want.page_bytes))?;
    } else {
        set.text("journal_mode", "wal")?;
    }
    set.check("auto_vacuum", 2)?;
    set.number("synchronous", 2)?;
    set.number("cache_size", -int(want.cache_bytes.div_ceil(1024)))?;
    set.number("mmap_size", int(want.mmap_bytes))?;
    set.number("temp_store", 2)?;
    let page_bytes = u64::try_from(set.get::<i64>("page_size")?).unwrap_or(u64::from(want.page_bytes));
    set.number("wal_autocheckpoint", int(want.automatic_frames(page_bytes)))?;
    set.number("journal_size_limit", int(2 * want.wal_bytes))?;
    set.number("trusted_schema", 0)?;
    set.number("cell_size_check", 1)?;
    if let Some(max) = want.max_bytes {
        let needed = set.get::<i64>("page_count")? + int(START_PAGES);
        set.number("max_page_count", int(max / page_bytes).max(needed))?;
    }
    let kept = raw::persist_wal(conn, true).map_err(|code| no_control("persist_wal", "1", code))?;
    let psow = raw::powersafe_overwrite(conn).map_err(|code| no_control("psow", "0", code))?;
    require("persist_wal", true, kept)?;
    require("psow", false, psow)?;
    // Closing folds nothing by itself: what must come before that is the store's to do.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !want.automatic)
        .map_err(|e| StoreError::sql("keep the log when closing", path, e))?;
    // Without it a statement with `LIMIT ?` is compiled anew each time that it runs (sqlite3ExprIsInteger, since 3.47).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
        .map_err(|e| StoreError::sql("keep statements compiled", path, e))
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn no_control(name: &'static str, wanted: &str, code: i32) -> StoreError {
    StoreError::Setting { name, wanted: wanted.into(), got: format!("SQLite error {code}") }
}

fn require<T: PartialEq + ToString>(name: &'static str, wanted: T, got: T) -> Result<(), StoreError> {
    if got == wanted {
        return Ok(());
    }
    Err(StoreError::Setting { name, wanted: wanted.to_string(), got: got.to_string() })
}

/// The pragmas of one connection.
struct Settings<'a> {
    conn: &'a Connection,
    path: &'a Path,
}

impl Settings<'_> {
    fn get<T: FromSql>(&self, name: &'static str) -> Result<T, StoreError> {
        self.conn.pragma_query_value(None, name, |row| row.get(0)).map_err(|e| StoreError::sql(name, self.path, e))
    }

    fn quietly(&self, name: &'static str, value: i64) -> Result<(), StoreError> {
        self.run(name, &value.to_string())
    }

    fn run(&self, name: &'static str, value: &str) -> Result<(), StoreError> {
        to_its_end(self.conn, &format!("PRAGMA {name} = {value}")).map_err(|e| StoreError::sql(name, self.path, e))
    }

    fn check(&self, name: &'static str, wanted: i64) -> Result<(), StoreError> {
        require(name, wanted, self.get(name)?)
    }

    /// Some answer with a row when set, some don't; asking afterwards does for both.
    fn number(&self, name: &'static str, wanted: i64) -> Result<(), StoreError> {
        self.quietly(name, wanted)?;
        self.check(name, wanted)
    }

    fn text(&self, name: &'static str, wanted: &'static str) -> Result<(), StoreError> {
        self.run(name, wanted)?;
        require(name, wanted.to_string(), self.get::<String>(name)?)
    }
}

/// Runs one statement to its end. `PRAGMA journal_mode = wal` answers first and commits then: where that commit fails, the
/// connection goes on saying "wal" although the file is in no such mode, unless somebody hears of it.
pub(super) fn to_its_end(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Makes the `-wal` of `path` at least `bytes` long by writing zeros behind its end, and fsyncs it: then commits overwrite
/// blocks that exist, which costs no metadata, and there is room to delete in when the medium is full. Zeros are no frames,
/// so neither SQLite nor [`super::wal_scan`] sees them. SQLite takes its locks on other files, so closing this handle
/// drops none.
///
/// # Errors
/// [`StoreError::Full`] where there is no room; what was written of it stays.
pub fn reserve_wal(path: &Path, bytes: u64) -> Result<(), StoreError> {
    let wal = beside(path, "-wal");
    let missing = || StoreError::io("grow", &wal, std::io::ErrorKind::NotFound.into());
    let wal = PlainFile::open_to_write(&wal)?.ok_or_else(missing)?;
    let mut at = wal.length()?;
    if at >= bytes {
        return Ok(());
    }
    let zeros = [0u8; 4096];
    while at < bytes {
        let piece = zeros.len().min(usize::try_from(bytes - at).unwrap_or(zeros.len()));
        wal.write_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    wal.fsync()
}

/// Folds what a power cut left of the log of `conn`, and empties it, before anything is written: the next commit would share a
/// block with the last one that came back, and a transaction that was torn could be completed by what is written over it.
/// Where a reader is in the way it stays as it is: nobody waits for that. After that the connection waits for locks for
/// `busy` again.
///
/// # Errors
/// Those of SQLite; nothing is lost.
#[cfg(feature = "fleet")]
pub(crate) fn begin_log_anew(conn: &Connection, path: &Path, busy: Duration) -> Result<(), StoreError> {
    let fail = |e| StoreError::sql("begin the log anew", path, e);
    conn.busy_timeout(Duration::ZERO).map_err(fail)?;
    let kept: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(fail)?;
    conn.busy_timeout(busy).map_err(fail)?;
    if kept != 0 {
        log::debug!("{}: a reader keeps the log from being begun anew", path.display());
    }
    Ok(())
}

/// `path` with `suffix` behind its name: the files that belong to it.
pub fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the tables of a new file, in one transaction, and writes down the format and `writer`, the version that made it.
/// A file that has them is left as it is.
pub fn create_schema(conn: &Connection, writer: &str) -> Result<(), StoreError> {
    let path = Path::new(conn.path().unwrap_or_default());
    let fail = |e| StoreError::sql("create the tables", path, e);
    let there: Option<i64> = conn
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", [], |row| row.get(0))
        .optional()
        .map_err(fail)?;
    if there.is_some() {
        return add_tables(conn);
    }
    in_transaction(conn, path, "create the tables", |conn| {
        conn.execute_batch(SCHEMA).map_err(fail)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        set_meta(conn, "format_major", FORMAT_MAJOR)?;
        set_meta(conn, "format_minor", FORMAT_MINOR)?;
        set_meta(conn, "writer", writer)
    })
}

const SCHEMA: &str = include_str!("schema.sql");

/// What a file of an earlier minor version lacks.
fn add_tables(conn: &Connection) -> Result<(), StoreError> {
    let added = SCHEMA.find("CREATE TABLE IF NOT EXISTS").map_or("", |at| &SCHEMA[at..]);
    conn.execute_batch(added).map_err(|e| sql_of(conn, "add the tables of this version", e))
}

/// Runs `work` in one transaction: all of it is on the medium when this returns `Ok`, none of it otherwise. On failure it
/// rolls back on the same connection, which stays usable.
pub fn in_transaction<T>(
    conn: &Connection,
    path: &Path,
    doing: &'static str,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let run = |sql: &str| -> Result<(), StoreError> {
        conn.prepare_cached(sql).and_then(|mut s| s.execute([])).map(drop).map_err(|e| StoreError::sql(doing, path, e))
    };
    run("BEGIN IMMEDIATE")?;
    let done = work(conn).and_then(|value| run("COMMIT").map(|()| value));
    if done.is_err() && !conn.is_autocommit() {
        if let Err(e) = run("ROLLBACK") {
            log::error!("store: rolling back: {e}");
        }
    }
    done
}

/// The value of `key` in `meta`, or `None` where there is none.
pub fn meta<T: FromSql>(conn: &Connection, key: &str) -> Result<Option<T>, StoreError> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")
        .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional())
        .map_err(|e| sql_of(conn, "read the meta table", e))
}

/// Writes `key` in `meta`.
pub fn set_meta(conn: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<(), StoreError> {
    execute(
        conn,
        "write the meta table",
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        params![key, value],
    )
    .map(drop)
}

/// The bounds of a segment as the `segment` table holds them; made from a [`crate::segment::View`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRow {
    /// Its range.
    pub range: SeqRange,
    /// Whether it is a loss.
    pub loss: bool,
    /// Readings in it.
    pub n: u64,
    /// Lowest boot cited.
    pub boot_min: Option<BootId>,
    /// Highest boot cited.
    pub boot_max: Option<BootId>,
    /// Earliest boottime stamp in `boot_min`, ns.
    pub boottime_min: Option<i64>,
    /// Latest boottime stamp in `boot_max`, ns.
    pub boottime_max: Option<i64>,
    /// Earliest UTC stamp that readings brought themselves, ns.
    pub utc_min: Option<i64>,
    /// Latest of those, ns.
    pub utc_max: Option<i64>,
}

/// Adds a segment: `body` as it is, `row` or the `&View` of that body for its bounds. One that begins at the same number
/// must not be there.
pub fn insert_segment(
    conn: &Connection,
    store: StoreNo,
    row: impl Into<SegmentRow>,
    body: &[u8],
) -> Result<(), StoreError> {
    let row = row.into();
    if row.range.last.0 > MAX_SEQ {
        return Err(StoreError::Exhausted { what: "sequence number" });
    }
    let sql = "INSERT INTO segment (id, last_seq, kind, boot_min, boot_max, boottime_min, boottime_max, utc_min, utc_max, \
               n, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let values = params![
        row_id(store, row.range.first),
        int(row.range.last.0),
        i64::from(row.loss),
        row.boot_min.map(|b| b.0),
        row.boot_max.map(|b| b.0),
        row.boottime_min,
        row.boottime_max,
        row.utc_min,
        row.utc_max,
        int(row.n),
        body
    ];
    execute(conn, "add a segment", sql, values).map(drop)
}

/// The number of the store with this uuid and variant, made where it isn't there yet.
pub fn upsert_store(
    conn: &Connection,
    uuid: &uuid::Uuid,
    variant: u32,
    created: Option<UtcNanos>,
) -> Result<StoreNo, StoreError> {
    let uuid = uuid.to_string();
    let sql = "INSERT INTO store (uuid, variant, created) VALUES (?1, ?2, ?3) ON CONFLICT (uuid, variant) DO NOTHING";
    execute(conn, "add a store", sql, params![uuid, variant, created.map(|t| t.0)])?;
    let no: i64 = conn
        .prepare_cached("SELECT id FROM store WHERE uuid = ?1 AND variant = ?2")
        .and_then(|mut s| s.query_row(params![uuid, variant], |row| row.get(0)))
        .map_err(|e| sql_of(conn, "read the stores", e))?;
    if no >= 1 << 15 {
        return Err(StoreError::Exhausted { what: "store number" });
    }
    Ok(StoreNo(no))
}

/// Writes down what series `id` of `store` is. One that is there stays as it is: ids are never given another meaning.
pub fn upsert_series(conn: &Connection, store: StoreNo, id: SeriesId, def: &SeriesDef) -> Result<(), StoreError> {
    let sql = "INSERT INTO series (store, id, name, unit, kind, scale) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
               ON CONFLICT (store, id) DO NOTHING";
    let values = params![store.0, id.0, def.name, def.unit, def.kind.as_str(), def.scale.to_string()];
    execute(conn, "add a series", sql, values).map(drop)
}

/// Writes down which boot `id` of `store` is.
pub fn upsert_boot(conn: &Connection, store: StoreNo, id: BootId, boot: &uuid::Uuid) -> Result<(), StoreError> {
    let sql = "INSERT INTO boot (store, id, boot_uuid) VALUES (?1, ?2, ?3) ON CONFLICT (store, id) DO NOTHING";
    execute(conn, "add a boot", sql, params![store.0, id.0, boot.to_string()]).map(drop)
}

/// Writes down an anchor of `boot`; one at the same boottime is replaced.
pub fn upsert_anchor(conn: &Connection, store: StoreNo, boot: BootId, anchor: &Anchor) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO anchor (store, boot, boottime, utc, trusted) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![store.0, boot.0, anchor.boot.0, anchor.utc.0, anchor.trusted];
    execute(conn, "add an anchor", sql, values).map(drop)
}

/// Runs one statement that is kept prepared; the count of rows changed.
pub(crate) fn execute(
    conn: &Connection,
    doing: &'static str,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<usize, StoreError> {
    conn.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(|e| sql_of(conn, doing, e))
}

/// [`StoreError::sql`] with the path that the connection knows.
pub(crate) fn sql_of(conn: &Connection, doing: &'static str, source: rusqlite::Error) -> StoreError {
    StoreError::sql(doing, Path::new(conn.path().unwrap_or_default()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path may hold what means something in a URI.
    #[test]
    fn any_path_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50% of? #1 für.db");
        let conn = open_rw(&path, &Pragmas::replica()).unwrap();
        create_schema(&conn, "test").unwrap();
        assert_eq!(meta::<i64>(&conn, "format_major").unwrap(), Some(FORMAT_MAJOR));
        assert!(path.exists());
    }

    /// A file made without auto-vacuum, as other tools make them, is refused in words instead of used: set after WAL, the
    /// pragma does nothing and says nothing.
    #[test]
    fn a_setting_that_does_not_hold_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a)").unwrap();
        match open_rw(&path, &Pragmas::replica()) {
            Err(StoreError::Setting { name: "auto_vacuum", .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    /// The tables take what device and fleet put into them, twice as well as once, and the reserve is there in zeros.
    #[test]
    fn rows_are_added_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = open_rw(&path, &Pragmas::replica()).unwrap();
        create_schema(&conn, "test").unwrap();
        create_schema(&conn, "test").unwrap();
        let uuid = uuid::Uuid::from_u128(5);
        let no = upsert_store(&conn, &uuid, 0, None).unwrap();
        assert_eq!(upsert_store(&conn, &uuid, 0, None).unwrap(), no);
        assert_ne!(upsert_store(&conn, &uuid, 1, None).unwrap(), no);
        upsert_boot(&conn, no, BootId(1), &uuid).unwrap();
        upsert_boot(&conn, no, BootId(1), &uuid).unwrap();
        reserve_wal(&path, 1 << 20).unwrap();
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), 1 << 20);
        let found = super::super::wal_scan::scan(&path, None).unwrap();
        assert!(found.replayed > 0 && found.live_behind == 0, "{found:?}");
    }

    /// A statement is compiled once, also where its limit is bound: compiling was a seventh of what a replica and a device
    /// did.
    #[test]
    fn a_bound_limit_does_not_compile_the_statement_again() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_rw(&dir.path().join("x.db"), &Pragmas::replica()).unwrap();
        create_schema(&conn, "test").unwrap();
        let mut statement = conn.prepare("SELECT id FROM segment WHERE id > ?1 ORDER BY id LIMIT ?2").unwrap();
        for limit in 1..5 {
            assert!(!statement.exists([0, limit]).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    /// A transaction that fails leaves nothing, and the connection goes on.
    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = open_rw(&path, &Pragmas::replica()).unwrap();
        create_schema(&conn, "test").unwrap();
        let failed: Result<(), _> = in_transaction(&conn, &path, "fail", |conn| {
            set_meta(conn, "k", 1)?;
            Err(StoreError::Exhausted { what: "patience" })
        });
        assert!(failed.is_err());
        assert_eq!(meta::<i64>(&conn, "k").unwrap(), None);
        in_transaction(&conn, &path, "go on", |conn| set_meta(conn, "k", 2)).unwrap();
        assert_eq!(meta::<i64>(&conn, "k").unwrap(), Some(2));
    }
}
