//! The read side: store files opened for reading only, and what they hold beside segments.
//!
//! What enters: paths of one or several store files. What leaves: a [`Reader`], its [`Held`] stores, series and boots, and
//! [scans](super::scan) of readings. It promises to write nothing: not to the file, not to its `-wal`. It repairs nothing
//! and hides nothing: what can't be read is an error, or is counted by the scan.
//!
//! A live file is read under SQLite's own locks. A file on a read-only file system whose `-wal` has no `-shm` beside it (the
//! card of a dead board) can't be locked, and nobody can be writing it: only there is it read without locks, since without
//! its `-wal` it would look older than it is, or empty.

use super::disk;
use super::file::{FORMAT_MAJOR, beside, meta, uri};
pub use super::read_error::ReadError;
use super::scan::{Scan, Selection};
use super::vfs;
use crate::clock::timebase::Timebase;
use crate::clock::{Anchor, BootNanos, UtcNanos};
use crate::reading::{BootId, Kind, Scale, SeriesDef, SeriesId};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a reader waits for a lock that another program holds.
const BUSY: Duration = Duration::from_secs(5);

/// The most files that SQLite attaches to one connection beside the first (`SQLITE_MAX_ATTACHED`).
pub const MAX_ATTACHED: usize = 10;

/// Store files opened for reading only.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
    unlocked: bool,
}

impl Reader {
    /// Opens one store file.
    ///
    /// # Errors
    /// See [`ReadError`]; a file that is a database but none of ours is [`ReadError::NotAStore`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let reader = Self::open_any(path)?;
        if !reader.is_store()? {
            return Err(ReadError::NotAStore { path: path.to_owned() });
        }
        match meta::<i64>(&reader.conn, "format_major") {
            Ok(Some(major)) if major > FORMAT_MAJOR => Err(ReadError::Newer { path: path.to_owned(), major }),
            _ => Ok(reader),
        }
    }

    /// Opens several store files at once: the first as `main`, the others attached as `r1`, `r2`… The replicas of one device.
    pub fn open_all(paths: &[PathBuf]) -> Result<Self, ReadError> {
        let (first, others) = paths.split_first().ok_or_else(|| ReadError::Missing { path: PathBuf::new() })?;
        let reader = Self::open(first)?;
        for (number, path) in others.iter().enumerate() {
            if number >= MAX_ATTACHED {
                return Err(ReadError::TooMany { files: paths.len() });
            }
            // Opened once alone, so that a broken one is told by its own name and never attached.
            drop(Self::open(path)?);
            let attach = format!("ATTACH ?1 AS r{}", number + 1);
            reader
                .conn
                .execute(&attach, [uri(path, &format!("mode=ro&vfs={}", vfs::reader()))])
                .map_err(|e| ReadError::sql("attach", path, e))?;
        }
        Ok(reader)
    }

    /// Opens any SQLite file: a store, or the plain rows that `export` and `pull` write.
    pub fn open_any(path: &Path) -> Result<Self, ReadError> {
        if disk::exists(path).is_ok_and(|is| !is) {
            return Err(ReadError::Missing { path: path.to_owned() });
        }
        match Self::connect(path, &format!("mode=ro&vfs={}", vfs::reader()), false) {
            Err(ReadError::Sqlite { .. }) if needs_shm(path) && on_read_only_file_system(path) => {
                Self::connect(path, "mode=ro&vfs=unix-none", true)
            }
            Err(ReadError::Sqlite { source, .. })
                if needs_shm(path) && source.sqlite_error_code() == Some(CANT_OPEN) =>
            {
                Err(ReadError::NeedsShm { path: path.to_owned() })
            }
            opened => opened,
        }
    }

    pub(super) fn connect(path: &Path, query: &str, unlocked: bool) -> Result<Self, ReadError> {
        let fail = |doing| move |e| ReadError::sql(doing, path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(uri(path, query), flags).map_err(fail("open"))?;
        conn.busy_timeout(BUSY).map_err(fail("open"))?;
        if unlocked {
            conn.pragma_update(None, "locking_mode", "exclusive").map_err(fail("open"))?;
        }
        conn.pragma_update(None, "query_only", true).map_err(fail("open"))?;
        conn.pragma_update(None, "trusted_schema", false).map_err(fail("open"))?;
        let tables = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        tables.map_err(fail("read"))?;
        Ok(Self { conn, path: path.to_owned(), unlocked })
    }

    /// Whether it has the tables of a store; the plain rows of `export` have not.
    pub fn is_store(&self) -> Result<bool, ReadError> {
        has_segments(&self.conn, "main").map_err(|e| self.sql("read the schema of", e))
    }

    /// The first file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it had to be read without locks; see the head of this file.
    pub fn is_unlocked(&self) -> bool {
        self.unlocked
    }

    /// What ends the statement that runs, from another thread.
    pub fn interrupter(&self) -> super::query::Interrupter {
        super::query::Interrupter(self.conn.get_interrupt_handle())
    }

    /// What the files hold beside segments, as it is now.
    pub fn held(&self) -> Result<Held, ReadError> {
        Held::load(&self.conn).map_err(|e| self.sql("read the catalogue of", e))
    }

    /// A scan of the readings that `selection` describes. One read transaction until it is dropped: while it is open, the
    /// service can't begin its `-wal` anew.
    pub fn scan(&self, selection: &Selection) -> Result<Rows<'_>, ReadError> {
        let begin = self.conn.unchecked_transaction().map_err(|e| self.sql("read", e))?;
        let held = Arc::new(self.held()?);
        let scan = Scan::new(&self.conn, held, selection).map_err(|e| self.sql("read", e))?;
        Ok(Rows { reader: self, scan, _transaction: begin })
    }

    /// Every segment of the first file, by store and sequence, as it is stored.
    ///
    /// # Errors
    /// Those of SQLite. What the bodies are worth is for the visitor to find out.
    pub fn each_body(&self, mut visit: impl FnMut(StoredBody<'_>)) -> Result<(), ReadError> {
        let _one_state = self.conn.unchecked_transaction().map_err(|e| self.sql("read", e))?;
        let held = self.held()?;
        let mut walk = || -> rusqlite::Result<()> {
            let sql = "SELECT s.store, s.body, EXISTS (SELECT 1 FROM ack a WHERE a.store = s.store \
                       AND a.first_seq <= s.first_seq AND a.last_seq >= s.last_seq) FROM segment s ORDER BY s.id";
            let mut statement = self.conn.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let Some(store) = held.store(0, row.get(0)?) else { continue };
                visit(StoredBody { store: &held.stores[store], bytes: row.get_ref(1)?.as_blob()?, acked: row.get(2)? });
            }
            Ok(())
        };
        walk().map_err(|e| self.sql("read", e))
    }

    /// What `meta` has under `key`, as text.
    #[cfg(feature = "laptop")]
    pub fn meta_text(&self, key: &str) -> Result<Option<String>, ReadError> {
        use rusqlite::OptionalExtension;
        let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE key = ?1";
        self.conn.query_row(sql, [key], |row| row.get(0)).optional().map_err(|e| self.sql("read", e))
    }

    /// The newest events, at most `limit`: UTC, kind, particulars.
    #[cfg(feature = "laptop")]
    pub fn events(&self, limit: u32) -> Result<Vec<(UtcNanos, String, String)>, ReadError> {
        let events = || -> rusqlite::Result<Vec<_>> {
            let sql = "SELECT utc, kind, detail FROM event ORDER BY utc DESC, id DESC LIMIT ?1";
            let mut statement = self.conn.prepare(sql)?;
            let event = |row: &rusqlite::Row<'_>| Ok((UtcNanos(row.get(0)?), row.get(1)?, row.get(2)?));
            statement.query_map([limit], event)?.collect()
        };
        events().map_err(|e| self.sql("read", e))
    }

    /// Copies all of the first file, `-wal` included, as it is now, into a new file in rollback mode.
    pub(super) fn copy_into(&self, out: &Path) -> Result<(), ReadError> {
        let fail = |e| self.sql("copy", e);
        // `query_only` refuses VACUUM INTO too, which writes nothing here; the file is opened read-only all the same.
        self.conn.pragma_update(None, "query_only", false).map_err(fail)?;
        let copied = self.conn.execute("VACUUM INTO ?1", [uri(out, "mode=rwc")]);
        self.conn.pragma_update(None, "query_only", true).map_err(fail)?;
        copied.map(drop).map_err(fail)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn sql(&self, doing: &'static str, source: rusqlite::Error) -> ReadError {
        ReadError::sql(doing, &self.path, source)
    }
}

/// A segment as it is stored, for [`Reader::each_body`].
#[derive(Debug)]
pub struct StoredBody<'a> {
    /// Whose it is.
    pub store: &'a HeldStore,
    /// The body, checksum included.
    pub bytes: &'a [u8],
    /// Whether the fleet has acknowledged all of it, so far as the file knows.
    pub acked: bool,
}

/// A [`Scan`] and the read transaction that it sees.
#[derive(Debug)]
pub struct Rows<'a> {
    reader: &'a Reader,
    scan: Scan,
    _transaction: rusqlite::Transaction<'a>,
}

impl Rows<'_> {
    /// The next run of readings of one series, or `None` at the end.
    pub fn next_column(&mut self) -> Result<Option<super::scan::ColumnRows>, ReadError> {
        self.scan.next_column(&self.reader.conn).map_err(|e| self.reader.sql("read", e))
    }

    /// What the scan has seen and decoded so far, and what it could not read.
    pub fn tally(&self) -> &super::scan::Tally {
        self.scan.tally()
    }
}

const CANT_OPEN: rusqlite::ErrorCode = rusqlite::ErrorCode::CannotOpen;

/// A `-wal` with something in it and no `-shm`: SQLite must make one before it can read.
fn needs_shm(path: &Path) -> bool {
    let wal = super::ground::length(&beside(path, "-wal")).is_ok_and(|bytes| bytes > 0);
    wal && disk::exists(&beside(path, "-shm")).is_ok_and(|is| !is)
}

/// True only where nobody at all can write: not a question of whose directory it is.
fn on_read_only_file_system(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether a schema of the connection has the tables of a store.
fn has_segments(conn: &Connection, schema: &str) -> rusqlite::Result<bool> {
    let sql = format!("SELECT count(*) FROM {}.sqlite_schema WHERE name IN ('segment', 'series')", quoted(schema));
    conn.prepare_cached(&sql)?.query_row([], |row| Ok(row.get::<_, i64>(0)? == 2))
}

/// A name as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Everything in the open files but segments: stores, series, boots.
#[derive(Debug, Default)]
pub struct Held {
    /// The schemas of the connection that have the tables of a store: `main`, and what is attached.
    pub schemas: Vec<String>,
    /// Every store, by schema and number.
    pub stores: Vec<HeldStore>,
}

/// One store of a file.
#[derive(Debug)]
pub struct HeldStore {
    /// Index into [`Held::schemas`].
    pub schema: usize,
    /// Its number in that file.
    pub no: i64,
    /// Its uuid, as text.
    pub uuid: String,
    /// 0, or at the fleet the number of a second content under the same uuid.
    pub variant: i64,
    /// Its series.
    pub series: BTreeMap<SeriesId, Arc<SeriesDef>>,
    /// From boottime to UTC.
    pub timebase: Timebase,
    /// Its boots.
    pub boots: Vec<BootId>,
}

impl Held {
    /// Reads all of it from every schema that has it. Beside a service that commits this is done for each statement, so what
    /// it asks is compiled once.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut held = Self::default();
        let mut names =
            conn.prepare_cached("SELECT name FROM pragma_database_list WHERE name <> 'temp' ORDER BY seq")?;
        for name in names.query_map([], |row| row.get::<_, String>(0))? {
            let name = name?;
            if has_segments(conn, &name)? {
                held.schemas.push(name);
            }
        }
        for schema in 0..held.schemas.len() {
            held.load_schema(conn, schema)?;
        }
        Ok(held)
    }

    /// Of the main file alone, whatever is attached.
    #[cfg(feature = "laptop")]
    pub(super) fn of_main(conn: &Connection) -> rusqlite::Result<Self> {
        let mut held = Self { schemas: vec!["main".to_owned()], stores: Vec::new() };
        held.load_schema(conn, 0)?;
        Ok(held)
    }

    /// Index into [`Held::stores`].
    pub fn store(&self, schema: usize, no: i64) -> Option<usize> {
        self.stores.iter().position(|store| store.schema == schema && store.no == no)
    }

    fn load_schema(&mut self, conn: &Connection, schema: usize) -> rusqlite::Result<()> {
        let name = quoted(&self.schemas[schema]);
        let mut stores = conn.prepare_cached(&format!("SELECT id, uuid, variant FROM {name}.store ORDER BY id"))?;
        let stores = stores.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for store in stores {
            let (no, uuid, variant) = store?;
            let anchors = anchors_of(conn, &name, no)?;
            self.stores.push(HeldStore {
                schema,
                no,
                uuid,
                variant,
                series: series_of(conn, &name, no)?,
                boots: anchors.keys().copied().collect(),
                timebase: Timebase::new(anchors),
            });
        }
        Ok(())
    }
}

fn series_of(conn: &Connection, schema: &str, store: i64) -> rusqlite::Result<BTreeMap<SeriesId, Arc<SeriesDef>>> {
    let sql = format!("SELECT id, name, unit, kind, scale FROM {schema}.series WHERE store = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([store])?;
    let mut series = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (kind, scale): (String, String) = (row.get(3)?, row.get(4)?);
        // A kind or scale of a later minor version: its name is known all the same, its column tells the kind.
        let kind = Kind::parse(&kind).unwrap_or(Kind::Float);
        let scale = Scale::parse(&scale).unwrap_or(Scale::ONE);
        let def = SeriesDef { name: row.get(1)?, unit: row.get(2)?, kind, scale };
        series.insert(SeriesId(row.get(0)?), Arc::new(def));
    }
    Ok(series)
}

fn anchors_of(conn: &Connection, schema: &str, store: i64) -> rusqlite::Result<BTreeMap<BootId, Vec<Anchor>>> {
    let sql = format!(
        "SELECT b.id, a.boottime, a.utc, a.trusted FROM {schema}.boot b \
         LEFT JOIN {schema}.anchor a ON a.store = b.store AND a.boot = b.id WHERE b.store = ?1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([store])?;
    let mut boots: BTreeMap<BootId, Vec<Anchor>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let anchors = boots.entry(BootId(row.get(0)?)).or_default();
        if let Some(boottime) = row.get::<_, Option<i64>>(1)? {
            anchors.push(Anchor {
                boot: BootNanos(boottime),
                utc: UtcNanos(row.get(2)?),
                trusted: row.get::<_, i64>(3)? != 0,
            });
        }
    }
    Ok(boots)
}
