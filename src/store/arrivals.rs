//! What has arrived of a board's store on its way to a laptop: a store file of its own, `OUT.part`, that outlives a cut.
//!
//! What enters: segments and catalogue pages as they come. What leaves: what need not come again, and a file that is read as any
//! store is. It promises that what [`Arrivals::commit`] returned for is there after a crash of the laptop's program, and that a
//! segment takes the place of those that it covers: compaction on the board joins readings, and nothing counts twice. It checks no
//! body; who calls it has.

use super::error::StoreError;
use super::file::{self, StoreNo, create_schema, insert_segment, sql_of, upsert_boot, upsert_series, upsert_store};
use super::reader::ReadError;
use crate::clock::Anchor;
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SeqRange};
use crate::segment::{self, Content, Loss, Segment, View};
use crate::wire::{BoardHello, CatalogPage, PulledEvent, Running};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a file already has of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Had {
    /// Which.
    pub store: Uuid,
    /// Series up to this number are known.
    pub series: u32,
    /// Numbers of its segments.
    pub ranges: RangeSet,
}

/// The beginning of a segment's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Of which store.
    pub store: Uuid,
    /// The segment.
    pub range: SeqRange,
    /// The CRC-32 that the body ends with.
    pub hash: u32,
    /// Its length.
    pub total: u32,
    /// What is there of it.
    pub bytes: Vec<u8>,
}

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is news, or covers what was there.
    Kept,
    /// It was there.
    Known,
    /// It overlaps what is there without covering it: no board does that.
    Crosses,
}

/// The `meta` keys of a file that a pull wrote.
pub(super) const DEVICE: &str = "pulled_device";
const HEALTH: &str = "pulled_health";
const AT: &str = "pulled_at";

/// At most one row; gone before the file is a store for anybody.
const BEGUN: &str = "CREATE TABLE IF NOT EXISTS begun (store TEXT NOT NULL, first_seq INTEGER NOT NULL, \
                     last_seq INTEGER NOT NULL, hash INTEGER NOT NULL, total INTEGER NOT NULL, bytes BLOB NOT NULL)";

/// An open `OUT.part`.
#[derive(Debug)]
pub struct Arrivals {
    conn: Connection,
    path: PathBuf,
    in_transaction: bool,
}

impl Arrivals {
    /// Opens what an earlier pull left at `path`, or begins anew. `upon` says whether there is a file that this is to be added to;
    /// what was to be added to another one is dropped.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`] as SQLite says; busy where another pull writes it.
    pub fn open(path: &Path, upon: bool) -> Result<Self, ReadError> {
        let arrivals = Self::open_any(path)?;
        let fail = |e| ReadError::sql("read", path, e);
        let said: Option<bool> = arrivals
            .conn
            .query_row("SELECT value FROM meta WHERE key = 'pulled_upon'", [], |row| row.get(0))
            .optional()
            .map_err(fail)?;
        if said == Some(upon) {
            return Ok(arrivals);
        }
        let arrivals = match said {
            None => arrivals,
            Some(_) => {
                arrivals.conn.close().map_err(|(_, e)| fail(e))?;
                std::fs::remove_file(path).map_err(|e| ReadError::io("replace", path, e))?;
                Self::open_any(path)?
            }
        };
        let sql = "INSERT INTO meta (key, value) VALUES ('pulled_upon', ?1)";
        arrivals.conn.execute(sql, [upon]).map_err(|e| ReadError::sql("write", path, e))?;
        Ok(arrivals)
    }

    fn open_any(path: &Path) -> Result<Self, ReadError> {
        let fail = |e| ReadError::sql("write", path, e);
        let conn = Connection::open(path).map_err(fail)?;
        // One file at a time, and no -wal beside it; set before it has a page, as `varved run` wants it of a store.
        conn.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA auto_vacuum = 2; PRAGMA journal_mode = TRUNCATE; \
             PRAGMA synchronous = NORMAL; PRAGMA trusted_schema = 0;",
        )
        .map_err(fail)?;
        create_schema(&conn, env!("CARGO_PKG_VERSION")).map_err(|e| unwritten(path, e))?;
        conn.execute_batch(&format!("BEGIN IMMEDIATE; {BEGUN}; COMMIT")).map_err(fail)?;
        Ok(Self { conn, path: path.to_owned(), in_transaction: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the device that it is of, if it is known.
    pub fn device(&self) -> Result<Option<String>, ReadError> {
        device_of(&self.conn).map_err(|e| ReadError::sql("read", &self.path, e))
    }

    /// What it has.
    pub fn had(&self) -> Result<Vec<Had>, ReadError> {
        had(&self.conn).map_err(|e| ReadError::sql("read", &self.path, e))
    }

    /// Whose it is from now on, and how the board is.
    pub fn note(&mut self, hello: &BoardHello, at: crate::clock::UtcNanos) -> Result<(), ReadError> {
        self.write(|conn| {
            let (set, begin) = (
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
                "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)",
            );
            // A card does not tell its board's name: what was known of it stays.
            conn.execute(if hello.device.is_empty() { begin } else { set }, params![DEVICE, hello.device])?;
            let health = hello.health.as_deref().unwrap_or_else(|why| why);
            conn.execute(set, params![HEALTH, health])?;
            conn.execute(set, params![AT, at.0])?;
            hello.events.iter().rev().try_for_each(|event| add_event(conn, event))
        })
    }

    /// The beginning of a segment that was cut off.
    pub fn partial(&self) -> Result<Option<Begun>, ReadError> {
        let begun = || -> rusqlite::Result<Option<Begun>> {
            let sql = "SELECT store, first_seq, last_seq, hash, total, bytes FROM begun";
            let row = |row: &rusqlite::Row<'_>| {
                let store = Uuid::parse_str(&row.get::<_, String>(0)?).unwrap_or_default();
                let range = SeqRange::new(row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs());
                let begun =
                    |range| Ok(Begun { store, range, hash: row.get(3)?, total: row.get(4)?, bytes: row.get(5)? });
                range.map(begun).transpose()
            };
            Ok(self.conn.query_row(sql, [], row).optional()?.flatten())
        };
        begun().map_err(|e| ReadError::sql("read", &self.path, e))
    }

    /// Keeps the beginning of a segment, in the place of another one's.
    pub fn begun(&mut self, begun: Option<&Begun>) -> Result<(), ReadError> {
        self.write(|conn| {
            conn.execute("DELETE FROM begun", [])?;
            let Some(begun) = begun else { return Ok(()) };
            let sql =
                "INSERT INTO begun (store, first_seq, last_seq, hash, total, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (first, last) = (begun.range.first.0 as i64, begun.range.last.0 as i64);
            let values = params![begun.store.to_string(), first, last, begun.hash, begun.total, begun.bytes];
            conn.execute(sql, values).map(drop)
        })
    }

    /// Puts a segment in its place, in the transaction that [`Arrivals::commit`] ends.
    pub fn take(&mut self, store: &Uuid, view: &View, body: &[u8]) -> Result<Arrival, ReadError> {
        self.begin()?;
        place(&self.conn, store, view, body).map_err(|e| unwritten(&self.path, e))
    }

    /// Adds what a page says to the catalogue.
    pub fn merge(&mut self, page: &CatalogPage) -> Result<(), ReadError> {
        self.begin()?;
        merge_page(&self.conn, page).map_err(|e| unwritten(&self.path, e))
    }

    /// Adds what the fleet has.
    pub fn acked(&mut self, store: &Uuid, ranges: &[SeqRange]) -> Result<(), ReadError> {
        self.write(|conn| {
            let no: Option<i64> = number(conn, store)?;
            let Some(no) = no else { return Ok(()) };
            ranges.iter().try_for_each(|range| {
                let values = params![no, range.first.0 as i64, range.last.0 as i64];
                let sql = "INSERT OR REPLACE INTO ack (store, first_seq, last_seq) VALUES (?1, ?2, ?3)";
                conn.prepare_cached(sql)?.execute(values).map(drop)
            })
        })
    }

    /// A store of the board that has nothing to send is one of this file, too.
    pub fn know(&mut self, store: &Uuid) -> Result<(), ReadError> {
        self.begin()?;
        upsert_store(&self.conn, store, 0, None).map(drop).map_err(|e| unwritten(&self.path, e))
    }

    /// Writes down that the running boot was at `running.boottime` when the laptop's clock showed `utc`: an anchor of no proof, in
    /// the place of those that the board's own clock gave. Only for a boot that never knew the time; whether it was one.
    pub fn anchor(&mut self, store: &Uuid, running: &Running, utc: crate::clock::UtcNanos) -> Result<bool, ReadError> {
        self.begin()?;
        anchor_by_laptop(&self.conn, store, running, utc).map_err(|e| ReadError::sql("write", &self.path, e))
    }

    /// All that was taken is kept from now on.
    pub fn commit(&mut self) -> Result<(), ReadError> {
        if !std::mem::take(&mut self.in_transaction) {
            return Ok(());
        }
        self.conn.execute_batch("COMMIT").map_err(|e| {
            // Nothing of it counts; what was committed before does.
            let _ = self.conn.execute_batch("ROLLBACK");
            ReadError::sql("write", &self.path, e)
        })
    }

    /// Makes it a copy of a store for anybody: `out` in place of what was there, no file beside it. Its bytes.
    pub fn into_store(mut self, out: &Path) -> Result<u64, ReadError> {
        self.write(|conn| {
            let sql = "INSERT OR REPLACE INTO meta (key, value) \
                       SELECT ?1, uuid FROM store ORDER BY id DESC LIMIT 1";
            conn.execute(sql, [super::plain::COPIED_FROM])?;
            conn.execute_batch("DROP TABLE begun")
        })?;
        self.commit()?;
        let fail = |e| ReadError::sql("write", &self.path, e);
        self.conn.pragma_update(None, "journal_mode", "delete").map_err(fail)?;
        let path = self.path.clone();
        self.conn.close().map_err(|(_, e)| ReadError::sql("write", &path, e))?;
        super::plain::rename(&path, out)
    }

    fn begin(&mut self) -> Result<(), ReadError> {
        if !self.in_transaction {
            self.conn.execute_batch("BEGIN IMMEDIATE").map_err(|e| ReadError::sql("write", &self.path, e))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    fn write(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), ReadError> {
        self.begin()?;
        work(&self.conn).map_err(|e| ReadError::sql("write", &self.path, e))
    }
}

/// The number of a store.
fn number(conn: &Connection, store: &Uuid) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM store WHERE uuid = ?1 AND variant = 0";
    conn.prepare_cached(sql)?.query_row([store.to_string()], |row| row.get(0)).optional()
}

pub(super) fn device_of(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE key = ?1";
    let found = conn.query_row(sql, [DEVICE], |row| row.get::<_, String>(0)).optional()?;
    Ok(found.filter(|device| !device.is_empty()))
}

/// What a store file, or the one beside plain rows, has.
pub(super) fn had(conn: &Connection) -> rusqlite::Result<Vec<Had>> {
    let mut all = Vec::new();
    let mut stores = conn.prepare("SELECT id, uuid FROM store WHERE variant = 0 ORDER BY id")?;
    let mut rows = stores.query([])?;
    while let Some(row) = rows.next()? {
        let (no, uuid): (i64, String) = (row.get(0)?, row.get(1)?);
        let Ok(store) = Uuid::parse_str(&uuid) else { continue };
        let series = conn.query_row("SELECT coalesce(max(id), 0) FROM series WHERE store = ?1", [no], |r| r.get(0))?;
        let mut ranges = RangeSet::new();
        let mut segments = conn.prepare_cached("SELECT id, last_seq FROM segment WHERE id BETWEEN ?1 AND ?2")?;
        let mut found = segments.query(file::row_ids(StoreNo(no)))?;
        while let Some(row) = found.next()? {
            ranges.extend(super::scan::range_of(row.get(0)?, row.get(1)?));
        }
        all.push(Had { store, series, ranges });
    }
    Ok(all)
}

/// Puts a segment in the place of those that it covers.
pub(super) fn place(conn: &Connection, store: &Uuid, view: &View, body: &[u8]) -> Result<Arrival, StoreError> {
    let no = upsert_store(conn, store, 0, None)?;
    if view.is_loss() {
        return lose(conn, no, view, body);
    }
    let arrival = clear(conn, no, view.range(), |_| Ok(())).map_err(|e| sql_of(conn, "read the segments", e))?;
    if arrival == Arrival::Kept {
        insert_segment(conn, no, view, body)?;
    }
    Ok(arrival)
}

/// Writes down a loss for the numbers of which nothing is held here. What the board dropped, a laptop may have pulled before:
/// no reading goes for a loss, and the wider loss takes the place of those that it covers.
pub(super) fn lose(conn: &Connection, no: StoreNo, view: &View, body: &[u8]) -> Result<Arrival, StoreError> {
    let (range, Some(loss)) = (view.range(), view.loss()) else { return Ok(Arrival::Known) };
    let around = overlapping(conn, no, range).map_err(|e| sql_of(conn, "read the segments", e))?;
    let covered = |other: &(SeqRange, bool)| other.1 && range.covers(&other.0) && other.0 != range;
    let held: RangeSet = around.iter().filter(|other| !covered(other)).map(|other| other.0).collect();
    let missing = held.gaps(range);
    if missing.is_empty() {
        return Ok(Arrival::Known);
    }
    for (other, _) in around.iter().filter(|other| covered(other)) {
        let sql = "DELETE FROM segment WHERE id = ?1";
        file::execute(conn, "replace a loss", sql, [file::row_id(no, other.first)])?;
    }
    for part in missing.iter() {
        if part == range {
            insert_segment(conn, no, view, body)?;
            continue;
        }
        // How many of its readings are in a part, nobody knows.
        let content = Content::Loss(Loss { readings: None, ..*loss });
        let body = segment::encode(&Segment { range: part, content })?;
        insert_segment(conn, no, &View::parse(&body)?, &body)?;
    }
    Ok(Arrival::Kept)
}

/// The segments that share a number with `range`, and whether each is a loss.
fn overlapping(conn: &Connection, no: StoreNo, range: SeqRange) -> rusqlite::Result<Vec<(SeqRange, bool)>> {
    let sql = "SELECT id, last_seq, kind <> 0 FROM segment WHERE id BETWEEN \
               coalesce((SELECT max(id) FROM segment WHERE id BETWEEN ?1 AND ?2), ?2) AND ?3 ORDER BY id";
    let ids = [no.0 << 48, file::row_id(no, range.first), file::row_id(no, range.last)];
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map(ids, |row| Ok((super::scan::range_of(row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let rows: Vec<(Option<SeqRange>, bool)> = rows.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter_map(|(held, loss)| Some((held.filter(|held| held.overlaps(&range))?, loss))).collect())
}

/// Makes room for `range`: what it covers goes, after `gone` has seen its row id.
pub(super) fn clear(
    conn: &Connection,
    no: StoreNo,
    range: SeqRange,
    mut gone: impl FnMut(i64) -> rusqlite::Result<()>,
) -> rusqlite::Result<Arrival> {
    let (first, last) = (file::row_id(no, range.first), file::row_id(no, range.last));
    // The one that begins before it may reach into it; ranges are disjoint or nested, so one look back is enough.
    let before = "SELECT id, last_seq FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let lower = conn.prepare_cached(before)?.query_row([no.0 << 48, first - 1], row).optional()?;
    if let Some(held) = lower.and_then(|(id, last)| super::scan::range_of(id, last)) {
        if held.covers(&range) {
            return Ok(Arrival::Known);
        }
        if held.overlaps(&range) {
            return Ok(Arrival::Crosses);
        }
    }
    let mut inside = conn.prepare_cached("SELECT id, last_seq FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let held: Vec<(i64, i64)> = inside.query_map([first, last], row)?.collect::<Result<_, _>>()?;
    let ranges = held.iter().filter_map(|(id, last)| super::scan::range_of(*id, *last));
    let (mut all_covered, mut same) = (true, false);
    for other in ranges {
        all_covered &= range.covers(&other);
        same |= other.covers(&range);
    }
    match (same, all_covered) {
        (true, _) => return Ok(Arrival::Known),
        (false, false) => return Ok(Arrival::Crosses),
        (false, true) => {}
    }
    for (id, _) in held {
        gone(id)?;
        conn.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
    }
    Ok(Arrival::Kept)
}

fn merge_page(conn: &Connection, page: &CatalogPage) -> Result<(), StoreError> {
    let no = upsert_store(conn, &page.store, 0, None)?;
    page.series.iter().try_for_each(|(id, def)| upsert_series(conn, no, *id, def))?;
    for boot in &page.boots {
        upsert_boot(conn, no, boot.id, &boot.uuid)?;
        boot.anchors.iter().try_for_each(|anchor| add_anchor(conn, no, boot.id, anchor))?;
    }
    Ok(())
}

/// An anchor of the board's; where the laptop's stands for its boot, only one with a proof.
fn add_anchor(conn: &Connection, no: StoreNo, boot: BootId, anchor: &Anchor) -> Result<(), StoreError> {
    let by_laptop = "SELECT 1 FROM meta WHERE key = ?1";
    let fail = |e| sql_of(conn, "read the anchors", e);
    let laptops = conn.prepare_cached(by_laptop).map_err(fail)?.exists([laptop_key(no, boot)]).map_err(fail)?;
    if laptops && !anchor.trusted {
        return Ok(());
    }
    file::upsert_anchor(conn, no, boot, anchor)
}

/// The `meta` key that says of a boot that the laptop told its time.
fn laptop_key(no: StoreNo, boot: BootId) -> String {
    format!("laptop_anchor/{}/{}", no.0, boot.0)
}

fn anchor_by_laptop(
    conn: &Connection,
    store: &Uuid,
    running: &Running,
    utc: crate::clock::UtcNanos,
) -> rusqlite::Result<bool> {
    let Some(no) = number(conn, store)? else { return Ok(false) };
    let sql = "SELECT b.id, EXISTS (SELECT 1 FROM anchor a WHERE a.store = b.store AND a.boot = b.id AND a.trusted) \
               FROM boot b WHERE b.store = ?1 AND b.boot_uuid = ?2";
    let found = conn.query_row(sql, params![no, running.boot.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
    let Some((boot, false)) = found.optional()? else { return Ok(false) };
    conn.execute("DELETE FROM anchor WHERE store = ?1 AND boot = ?2", params![no, boot])?;
    let values = params![no, boot, running.boottime, utc.0];
    conn.execute("INSERT INTO anchor (store, boot, boottime, utc, trusted) VALUES (?1, ?2, ?3, ?4, 0)", values)?;
    let key = laptop_key(StoreNo(no), BootId(boot));
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, utc.0])?;
    Ok(true)
}

fn add_event(conn: &Connection, event: &PulledEvent) -> rusqlite::Result<()> {
    let sql = "INSERT INTO event (utc, kind, detail) SELECT ?1, ?2, ?3 \
               WHERE NOT EXISTS (SELECT 1 FROM event WHERE utc = ?1 AND kind = ?2 AND detail = ?3)";
    conn.prepare_cached(sql)?.execute(params![event.utc, event.kind, event.detail]).map(drop)
}

/// What a laptop can do about an error of its own file.
fn unwritten(path: &Path, error: StoreError) -> ReadError {
    match error {
        StoreError::Sqlite { source, .. } => ReadError::sql("write", path, source),
        StoreError::Full { .. } => ReadError::NoRoom { path: path.to_owned() },
        StoreError::Io { doing, source, .. } => ReadError::io(doing, path, source),
        other => ReadError::io("write", path, std::io::Error::other(other.to_string())),
    }
}
