//! What each device itself brought of the store: ever, and since it began to compare.
//!
//! What enters: the ranges of segments that were kept, or found to be held, for a device. What leaves: the same as sets,
//! kept equal to the rows of `fleet_brought` in the transaction of the segments. A store id is only a claim: what another
//! device brought under it, a clone or a stranger, must not let this one delete its own.

use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::store::StoreError;
use crate::store::file::{execute, sql_of};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS fleet_brought (
        device    TEXT NOT NULL,
        recheck   TEXT NOT NULL,   -- '' for all; else what came since the device stated this number
        first_seq INTEGER NOT NULL,
        last_seq  INTEGER NOT NULL,
        PRIMARY KEY (device, recheck, first_seq)
    ) STRICT, WITHOUT ROWID;";

/// See the room.
#[derive(Default)]
pub(super) struct Brought {
    by_device: BTreeMap<String, Lists>,
}

#[derive(Default)]
struct Lists {
    ever: RangeSet,
    rechecked: Option<(u64, RangeSet)>,
}

impl Brought {
    /// Makes the table where it isn't there.
    pub(super) fn create(conn: &Connection) -> Result<(), StoreError> {
        conn.execute_batch(TABLE).map_err(|e| sql_of(conn, "create the tables", e))
    }

    /// All that is in the table.
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let fail = |e| sql_of(conn, "read what devices brought", e);
        let mut brought = Self::default();
        let sql = "SELECT device, recheck, first_seq, last_seq FROM fleet_brought";
        let mut select = conn.prepare_cached(sql).map_err(fail)?;
        let mut rows = select.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let (device, recheck): (String, String) = (row.get(0).map_err(fail)?, row.get(1).map_err(fail)?);
            let seq = |at| row.get::<_, i64>(at).map(i64::unsigned_abs).map_err(fail);
            let Some(range) = SeqRange::new(seq(2)?, seq(3)?) else { continue };
            let lists = brought.by_device.entry(device).or_default();
            match recheck.parse::<u64>() {
                Ok(nonce) => lists.since(nonce).insert(range),
                Err(_) => lists.ever.insert(range),
            }
        }
        Ok(brought)
    }

    /// `device` brought `range`, while it compared under `recheck` if it did.
    pub(super) fn add(
        &mut self,
        conn: &Connection,
        device: &str,
        recheck: Option<u64>,
        range: SeqRange,
    ) -> Result<(), StoreError> {
        let lists = self.by_device.entry(device.to_owned()).or_default();
        grow(conn, device, "", &mut lists.ever, range)?;
        let Some(nonce) = recheck else { return Ok(()) };
        let word = nonce.to_string();
        if lists.rechecked.as_ref().map(|(nonce, _)| *nonce) != recheck {
            let sql = "DELETE FROM fleet_brought WHERE device = ?1 AND recheck NOT IN ('', ?2)";
            execute(conn, "begin a recheck", sql, params![device, word])?;
        }
        grow(conn, device, &word, lists.since(nonce), range)
    }

    /// All that `device` brought.
    pub(super) fn ever(&self, device: &str) -> RangeSet {
        self.by_device.get(device).map(|lists| lists.ever.clone()).unwrap_or_default()
    }

    /// What `device` brought since it stated `recheck`.
    pub(super) fn since(&self, device: &str, recheck: u64) -> RangeSet {
        let rechecked = self.by_device.get(device).and_then(|lists| lists.rechecked.as_ref());
        rechecked.filter(|(nonce, _)| *nonce == recheck).map(|(_, set)| set.clone()).unwrap_or_default()
    }
}

impl Lists {
    /// The list of `nonce`, begun anew where it was of another.
    fn since(&mut self, nonce: u64) -> &mut RangeSet {
        let (held, set) = self.rechecked.get_or_insert((nonce, RangeSet::new()));
        if *held != nonce {
            (*held, *set) = (nonce, RangeSet::new());
        }
        set
    }
}

/// Adds `range` to the set and makes its rows the same.
fn grow(conn: &Connection, device: &str, recheck: &str, set: &mut RangeSet, range: SeqRange) -> Result<(), StoreError> {
    if set.covers(range) {
        return Ok(());
    }
    set.insert(range);
    let Some(whole) = set.overlapping(range).next() else { return Ok(()) };
    let int = |seq: SegmentSeq| i64::try_from(seq.0).unwrap_or(i64::MAX);
    let values = params![device, recheck, int(whole.first), int(whole.last)];
    let doing = "write what a device brought";
    let sql = "DELETE FROM fleet_brought WHERE device = ?1 AND recheck = ?2 AND first_seq BETWEEN ?3 AND ?4";
    execute(conn, doing, sql, values)?;
    let sql = "INSERT INTO fleet_brought (device, recheck, first_seq, last_seq) VALUES (?1, ?2, ?3, ?4)";
    execute(conn, doing, sql, values).map(drop)
}
