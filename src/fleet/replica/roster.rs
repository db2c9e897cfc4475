//! The roster: what the receiver remembers of devices beside their readings, in `<data>/_roster.db`.
//!
//! What enters: what changed since the last time. What leaves: the same after a restart, and for `varved-fleet devices`.
//! Nothing in it is needed to keep a promise; without the file the receiver learns it again from the next messages, but for
//! what was asked of devices ([`super::retrievals`]): that has to be asked again.

use super::retrievals::{self, Added, Question, Standing};
use crate::clock::UtcNanos;
use crate::fleet::refusal::{Refusal, Refusals};
use crate::fleet::retrieval::{Outcome, Retrieval};
use crate::store::StoreError;
use crate::store::file::{self, Pragmas, execute, sql_of};
use rusqlite::{Connection, OpenFlags, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name; no device name begins with `_`.
pub const FILE_NAME: &str = "_roster.db";

/// The newest events that are kept.
const MAX_EVENTS: u32 = 10_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS device (
        name    TEXT PRIMARY KEY,
        seen    INTEGER NOT NULL,  -- UTC ns of the last message
        online  INTEGER NOT NULL,
        session INTEGER,           -- the bits of the session's number
        run     INTEGER NOT NULL,
        state   BLOB               -- the payload of the last state message that counted
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS former (
        device   TEXT PRIMARY KEY,
        sessions BLOB NOT NULL     -- postcard: the number of each session that is over, and when its last state was made
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS refused (
        device TEXT NOT NULL,
        reason INTEGER NOT NULL,
        n      INTEGER NOT NULL,
        PRIMARY KEY (device, reason)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS event (
        id     INTEGER PRIMARY KEY,
        utc    INTEGER NOT NULL,
        device TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;";

/// What is remembered of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// When the last message came, by the receiver's clock.
    pub seen: UtcNanos,
    /// Whether its latest session is up.
    pub online: bool,
    /// The number of that session.
    pub session: Option<u64>,
    /// Its run.
    pub run: u64,
    /// Sessions that are over, and when the last state of each was made, by the device's clock.
    pub former: Vec<(u64, UtcNanos)>,
    /// The payload of its last `state` that counted.
    pub state: Option<Vec<u8>>,
    /// What was refused.
    pub refused: Refusals,
}

/// An event of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When, by the receiver's clock.
    pub utc: UtcNanos,
    /// Which device.
    pub device: String,
    /// What, as a sentence.
    pub detail: String,
}

/// The open roster.
pub struct Roster {
    conn: Connection,
    path: PathBuf,
}

impl Roster {
    /// Opens or makes the roster in `data`. One that is no database any more is replaced: it holds nothing that matters.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join(FILE_NAME);
        match Self::open_file(&path) {
            Err(StoreError::Damaged { what }) => {
                log::warn!("roster: {what}; a new one is begun");
                for suffix in ["-wal", "-shm", ""] {
                    let file = file::beside(&path, suffix);
                    if file.exists() {
                        std::fs::remove_file(&file).map_err(|e| StoreError::io("remove", &file, e))?;
                    }
                }
                Self::open_file(&path)
            }
            other => other,
        }
    }

    /// Opens the roster in `data` beside a receiver, which alone makes one or replaces it; `None` where there is none.
    pub fn open_beside(data: &Path) -> Result<Option<Self>, StoreError> {
        let path = data.join(FILE_NAME);
        if path.exists() { Self::open_file(&path).map(Some) } else { Ok(None) }
    }

    /// All devices in it.
    pub fn load(&self) -> Result<BTreeMap<String, Entry>, StoreError> {
        entries(&self.conn).map_err(|e| sql_of(&self.conn, "read the roster", e))
    }

    /// Writes `changed` and `events` in one transaction.
    pub fn save<'a>(
        &mut self,
        changed: impl IntoIterator<Item = (&'a str, &'a Entry)>,
        events: &[Happened],
    ) -> Result<(), StoreError> {
        file::in_transaction(&self.conn, &self.path, "write the roster", |conn| {
            changed.into_iter().try_for_each(|(device, entry)| write_entry(conn, device, entry))?;
            events.iter().try_for_each(|event| write_event(conn, event))
        })
    }

    /// Writes down a question to a device.
    pub fn ask(&mut self, question: &Question<'_>) -> Result<Added, StoreError> {
        file::in_transaction(&self.conn, &self.path, "write a request", |conn| retrievals::add(conn, question))
    }

    /// Ends what operators have asked of `device`; how many that were.
    pub fn cancel(&mut self, device: &str, at: UtcNanos) -> Result<usize, StoreError> {
        retrievals::cancel(&self.conn, device, at)
    }

    /// The retrievals under way, oldest first.
    pub fn open_retrievals(&self) -> Result<Vec<Retrieval>, StoreError> {
        retrievals::open(&self.conn)
    }

    /// The retrieval of this number.
    pub fn retrieval(&self, id: i64) -> Result<Option<Standing>, StoreError> {
        retrievals::one(&self.conn, id)
    }

    /// Whether `device` had a retrieval of this number on the wire.
    pub fn knows_retrieval(&self, device: &str, nonce: u64) -> Result<bool, StoreError> {
        retrievals::is_known(&self.conn, device, nonce)
    }

    /// Writes how far a retrieval is, and how it ended if it did.
    pub fn save_retrieval(
        &mut self,
        retrieval: &Retrieval,
        ended: Option<(UtcNanos, &Outcome)>,
    ) -> Result<(), StoreError> {
        retrievals::save(&self.conn, retrieval, ended)
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        let conn = file::open_rw(path, &Pragmas::replica())?;
        for tables in [TABLES, retrievals::TABLE] {
            conn.execute_batch(tables).map_err(|e| sql_of(&conn, "create the roster", e))?;
        }
        Ok(Self { conn, path: path.to_owned() })
    }
}

/// The devices in the roster of `data`, and what was asked of them, for a reader beside a running receiver; none where there
/// is no roster yet.
pub fn read(data: &Path) -> Result<(BTreeMap<String, Entry>, Vec<Standing>), StoreError> {
    look(data, |conn, path| {
        let fail = |e| StoreError::sql("read the roster", path, e);
        // A roster of before there were requests has no table of them.
        let has_requests = conn.table_exists(None, "retrieval").map_err(fail)?;
        let asked = if has_requests { retrievals::all(conn)? } else { Vec::new() };
        Ok((entries(conn).map_err(fail)?, asked))
    })
}

/// The newest events of each device, at most `most`, the newest first; none where there is no roster yet.
pub fn events(data: &Path, most: usize) -> Result<BTreeMap<String, Vec<Happened>>, StoreError> {
    look(data, |conn, path| newest(conn, most).map_err(|e| StoreError::sql("read the roster", path, e)))
}

/// Every event that is kept, of whatever device, the newest first; none where there is no roster yet.
pub fn all_events(data: &Path) -> Result<Vec<Happened>, StoreError> {
    look(data, |conn, path| happened(conn).map_err(|e| StoreError::sql("read the roster", path, e)))
}

fn happened(conn: &Connection) -> rusqlite::Result<Vec<Happened>> {
    let mut select = conn.prepare("SELECT utc, device, detail FROM event ORDER BY id DESC")?;
    let event =
        |row: &rusqlite::Row<'_>| Ok(Happened { utc: UtcNanos(row.get(0)?), device: row.get(1)?, detail: row.get(2)? });
    select.query_map([], event)?.collect()
}

fn newest(conn: &Connection, most: usize) -> rusqlite::Result<BTreeMap<String, Vec<Happened>>> {
    let mut events = BTreeMap::<String, Vec<Happened>>::new();
    for event in happened(conn)? {
        let of_device = events.entry(event.device.clone()).or_default();
        if of_device.len() < most {
            of_device.push(event);
        }
    }
    Ok(events)
}

fn look<T: Default>(
    data: &Path,
    at: impl FnOnce(&Connection, &Path) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let path = data.join(FILE_NAME);
    if !path.exists() {
        return Ok(T::default());
    }
    let fail = |e| StoreError::sql("read the roster", &path, e);
    let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fail)?;
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(fail)?;
    at(&conn, &path)
}

fn entries(conn: &Connection) -> rusqlite::Result<BTreeMap<String, Entry>> {
    let mut devices = BTreeMap::new();
    let mut select = conn.prepare("SELECT name, seen, online, session, run, state FROM device")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let entry = Entry {
            seen: UtcNanos(row.get(1)?),
            online: row.get(2)?,
            session: row.get::<_, Option<i64>>(3)?.map(unsigned),
            run: unsigned(row.get(4)?),
            state: row.get(5)?,
            former: Vec::new(),
            refused: Refusals::default(),
        };
        devices.insert(row.get(0)?, entry);
    }
    // One that an earlier version made has no table of them.
    if conn.table_exists(None, "former")? {
        let mut select = conn.prepare("SELECT device, sessions FROM former")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(entry) = devices.get_mut(&row.get::<_, String>(0)?) {
                let former: Vec<(u64, i64)> = postcard::from_bytes(row.get_ref(1)?.as_blob()?).unwrap_or_default();
                entry.former = former.into_iter().map(|(session, said)| (session, UtcNanos(said))).collect();
            }
        }
    }
    let mut select = conn.prepare("SELECT device, reason, n FROM refused")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (device, reason): (String, u8) = (row.get(0)?, row.get(1)?);
        if let (Some(entry), Some(why)) = (devices.get_mut(&device), Refusal::ALL.get(usize::from(reason))) {
            entry.refused.restore(*why, unsigned(row.get(2)?));
        }
    }
    Ok(devices)
}

fn write_entry(conn: &Connection, device: &str, entry: &Entry) -> Result<(), StoreError> {
    let doing = "write the roster";
    let sql = "INSERT OR REPLACE INTO device (name, seen, online, session, run, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let session = entry.session.map(signed);
    let values = params![device, entry.seen.0, entry.online, session, signed(entry.run), entry.state];
    execute(conn, doing, sql, values)?;
    let former: Vec<(u64, i64)> = entry.former.iter().map(|(session, said)| (*session, said.0)).collect();
    // Numbers: nothing that postcard could refuse.
    let former = postcard::to_allocvec(&former).unwrap_or_default();
    execute(conn, doing, "INSERT OR REPLACE INTO former (device, sessions) VALUES (?1, ?2)", params![device, former])?;
    for (why, n) in entry.refused.iter() {
        let sql = "INSERT OR REPLACE INTO refused (device, reason, n) VALUES (?1, ?2, ?3)";
        execute(conn, doing, sql, params![device, why as u8, signed(n)])?;
    }
    Ok(())
}

fn write_event(conn: &Connection, event: &Happened) -> Result<(), StoreError> {
    let sql = "INSERT INTO event (utc, device, detail) VALUES (?1, ?2, ?3)";
    execute(conn, "write the roster", sql, params![event.utc.0, event.device, event.detail])?;
    let sql = "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1";
    execute(conn, "write the roster", sql, [MAX_EVENTS]).map(drop)
}

/// SQLite's integers have a sign and ours have none: the same 64 bits.
fn signed(bits: u64) -> i64 {
    i64::from_ne_bytes(bits.to_ne_bytes())
}

fn unsigned(bits: i64) -> u64 {
    u64::from_ne_bytes(bits.to_ne_bytes())
}
