//! Retrievals in the roster: what was asked of devices, how far it is, how it ended.
//!
//! What enters: questions, from the command line or from a device's own interval; progress and outcomes, from the receiver.
//! What leaves: the same, to the receiver at its tick and to whoever looks. The command line adds rows and ends them, the receiver
//! alone says how far they are; a row that has ended stays as it is. Bounded: [`MAX_OPEN`] under way, [`MAX_OPEN_PER_DEVICE`] of one device, the newest `MAX_ENDED` that ended.

use crate::clock::UtcNanos;
use crate::fleet::retrieval::{Outcome, Progress, Retrieval, What};
use crate::reading::SeqRange;
use crate::store::StoreError;
use crate::store::file::{execute, sql_of};
use crate::wire::StoreUuid;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The most that are under way.
pub const MAX_OPEN: usize = 1024;

/// The most of one device; they are answered one after another.
pub const MAX_OPEN_PER_DEVICE: usize = 8;

/// Of one device, those that ended and are remembered.
const MAX_ENDED: u32 = 16;

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS retrieval (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        device    TEXT NOT NULL,
        nonce     INTEGER NOT NULL,  -- the bits of its number on the wire
        asked     INTEGER NOT NULL,  -- UTC ns
        store     TEXT,              -- of a range; none for a snapshot
        first_seq INTEGER,
        last_seq  INTEGER,
        by_device INTEGER NOT NULL,
        ended     INTEGER,           -- UTC ns; none while it is under way
        verified  INTEGER NOT NULL,
        words     TEXT NOT NULL,     -- why it was given up, what was found
        progress  BLOB NOT NULL      -- postcard
    ) STRICT;
    CREATE INDEX IF NOT EXISTS retrieval_open ON retrieval (device) WHERE ended IS NULL;
    CREATE INDEX IF NOT EXISTS retrieval_nonce ON retrieval (device, nonce);";

/// A retrieval as it stands in the roster.
#[derive(Debug, Clone)]
pub struct Standing {
    /// What was asked, and how far it is.
    pub retrieval: Retrieval,
    /// When it ended; none while it is under way.
    pub ended: Option<UtcNanos>,
    /// Whether every number was verified.
    pub verified: bool,
    /// Why it was given up, or what was found.
    pub words: String,
}

/// A question to be added.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Of which device.
    pub device: &'a str,
    /// Its number on the wire.
    pub nonce: u64,
    /// What.
    pub what: What,
    /// When.
    pub asked: UtcNanos,
    /// The device began it.
    pub by_device: bool,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is written down under this number.
    New(i64),
    /// The same is under way under this number.
    Same(i64),
    /// As many as there may be are under way.
    TooMany,
}

/// Adds a question, unless an operator's same one is under way; within a transaction.
pub(super) fn add(conn: &Connection, question: &Question<'_>) -> Result<Added, StoreError> {
    let fail = |e| sql_of(conn, "write a request", e);
    let open = open(conn)?;
    let same =
        |r: &&Retrieval| r.device == question.device && r.what == question.what && r.by_device == question.by_device;
    if let Some(same) = open.iter().find(same).filter(|_| !question.by_device) {
        return Ok(Added::Same(same.id));
    }
    let of_device = open.iter().filter(|r| r.device == question.device).count();
    if open.len() >= MAX_OPEN || of_device >= MAX_OPEN_PER_DEVICE {
        return Ok(Added::TooMany);
    }
    let (store, range) = match question.what {
        What::Snapshot => (None, None),
        What::Range(store, range) => (Some(store.to_string()), Some(range)),
    };
    let sql = "INSERT INTO retrieval (device, nonce, asked, store, first_seq, last_seq, by_device, verified, words, progress) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, '', ?8)";
    let seq = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
    let values = params![
        question.device,
        signed(question.nonce),
        question.asked.0,
        store,
        range.map(|r| seq(r.first.0)),
        range.map(|r| seq(r.last.0)),
        question.by_device,
        packed(&Progress::default()),
    ];
    conn.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(fail)?;
    let id = conn.last_insert_rowid();
    let sql = "DELETE FROM retrieval WHERE device = ?1 AND ended IS NOT NULL AND id NOT IN \
               (SELECT id FROM retrieval WHERE device = ?1 AND ended IS NOT NULL ORDER BY id DESC LIMIT ?2)";
    execute(conn, "write a request", sql, params![question.device, MAX_ENDED])?;
    Ok(Added::New(id))
}

/// Those under way, oldest first.
pub(super) fn open(conn: &Connection) -> Result<Vec<Retrieval>, StoreError> {
    let rows = select(conn, "ended IS NULL")?;
    Ok(rows.into_iter().map(|standing| standing.retrieval).collect())
}

/// All that are remembered, oldest first.
pub(super) fn all(conn: &Connection) -> Result<Vec<Standing>, StoreError> {
    select(conn, "1")
}

/// One of them.
pub(super) fn one(conn: &Connection, id: i64) -> Result<Option<Standing>, StoreError> {
    Ok(select(conn, &format!("id = {id}"))?.pop())
}

/// Whether `device` had one of this number, under way or ended.
pub(super) fn is_known(conn: &Connection, device: &str, nonce: u64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM retrieval WHERE device = ?1 AND nonce = ?2";
    conn.prepare_cached(sql)
        .and_then(|mut s| s.query_row(params![device, signed(nonce)], |_| Ok(())).optional())
        .map(|found| found.is_some())
        .map_err(|e| sql_of(conn, "look for a request", e))
}

/// Ends all that operators have asked of `device` and that are under way; how many there were.
pub(super) fn cancel(conn: &Connection, device: &str, at: UtcNanos) -> Result<usize, StoreError> {
    let sql =
        "UPDATE retrieval SET ended = ?2, words = 'cancelled' WHERE device = ?1 AND ended IS NULL AND by_device = 0";
    execute(conn, "cancel requests", sql, params![device, at.0])
}

/// Writes how far it is, and how it ended if it did; unless it has ended.
pub(super) fn save(
    conn: &Connection,
    retrieval: &Retrieval,
    ended: Option<(UtcNanos, &Outcome)>,
) -> Result<(), StoreError> {
    let mut words: Vec<&str> = retrieval.findings().iter().map(String::as_str).collect();
    if let Some((_, Outcome::NotVerified(why))) = ended {
        words.insert(0, why);
    }
    let verified = matches!(ended, Some((_, Outcome::Verified)));
    let sql = "UPDATE retrieval SET ended = ?2, verified = ?3, words = ?4, progress = ?5 \
               WHERE id = ?1 AND ended IS NULL";
    let values =
        params![retrieval.id, ended.map(|(at, _)| at.0), verified, words.join("; "), packed(&retrieval.progress())];
    execute(conn, "write a request", sql, values).map(drop)
}

fn select(conn: &Connection, which: &str) -> Result<Vec<Standing>, StoreError> {
    let fail = |e| sql_of(conn, "read the requests", e);
    let sql = format!(
        "SELECT id, device, nonce, asked, store, first_seq, last_seq, by_device, ended, verified, words, progress \
         FROM retrieval WHERE {which} ORDER BY id"
    );
    let mut statement = conn.prepare_cached(&sql).map_err(fail)?;
    let rows = statement.query_map([], standing_of).map_err(fail)?;
    rows.collect::<Result<_, _>>().map_err(fail)
}

fn standing_of(row: &Row<'_>) -> rusqlite::Result<Standing> {
    let store: Option<String> = row.get(4)?;
    let seq = |column| row.get::<_, Option<i64>>(column).map(|seq| seq.map_or(0, i64::unsigned_abs));
    let range = SeqRange::new(seq(5)?, seq(6)?);
    let what = match store.and_then(|text| StoreUuid::parse_str(&text).ok()).zip(range) {
        Some((store, range)) => What::Range(store, range),
        None => What::Snapshot,
    };
    let nonce = u64::from_ne_bytes(row.get::<_, i64>(2)?.to_ne_bytes());
    let asked = UtcNanos(row.get(3)?);
    let retrieval = Retrieval::new(row.get(0)?, row.get(1)?, nonce, what, asked, row.get(7)?);
    // Progress that can't be read costs sending it all again.
    let progress = postcard::from_bytes(row.get_ref(11)?.as_blob()?).unwrap_or_default();
    Ok(Standing {
        retrieval: retrieval.restored(progress),
        ended: row.get::<_, Option<i64>>(8)?.map(UtcNanos),
        verified: row.get(9)?,
        words: row.get(10)?,
    })
}

fn packed(progress: &Progress) -> Vec<u8> {
    // Lists of numbers and texts: nothing that postcard could refuse.
    postcard::to_allocvec(progress).unwrap_or_default()
}

fn signed(bits: u64) -> i64 {
    i64::from_ne_bytes(bits.to_ne_bytes())
}
