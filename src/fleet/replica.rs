//! A replica: what one store sent, in a file of the same format as the device's own.
//!
//! What enters: checked segments and catalogue pages of one store id. What leaves: what became of each, and what a device
//! may be told is held. It promises that what [`Replica::commit`] returned for is on the medium, each reading once in each
//! history. It does not check envelopes or bodies, and it knows nothing of MQTT.
//!
//! A **history** is one line of content for the numbers of the store, and a row of `store` (its `variant`). There is one
//! until a device sends other content for a number, or other definitions for an id, than what is held: a clone, or a file
//! that was rolled back. From then on that device's segments go to a history of its own, with its own catalogue; nothing
//! is ever overwritten. Beside the tables of `schema.sql` a replica keeps in `meta`:
//!
//! | key | value |
//! |---|---|
//! | `fleet_high` | the highest sequence number that was ever seen of the store |
//! | `fleet_owner/<variant>` | the device that brought the history |
//! | `fleet_line/<device>` | the variant that the device's segments go to; 0 where there is none |
//!
//! in `ack`, for a history, the numbers whose equal content stands in another one, and in `fleet_brought` what each device
//! brought itself.

pub mod account;
mod brought;
pub mod compare;
#[cfg(test)]
mod crash;
mod history;
mod known;
mod place;
mod placing;
pub mod retrievals;
pub mod roster;
#[cfg(test)]
pub(in crate::fleet) mod tests;

use super::refusal::Refusal;
use crate::clock::UtcNanos;
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::segment::View;
use crate::store::StoreError;
use crate::store::file::{self, Pragmas};
use crate::wire::{CatalogPage, StoreUuid};
pub use known::Known;
#[cfg(test)]
pub(crate) use placing::FORGETFUL;

use brought::Brought;
use history::History;
use place::{Copied, Place};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most histories of one store id. A device takes a fresh id once it is told of a conflict, so a few are enough for
/// anything but an attack.
pub const MAX_HISTORIES: usize = 16;

/// The most that the catalogues of one store may take in memory, all its histories together, in bytes; about 150,000 series.
pub const MAX_CATALOG_BYTES: usize = 32 << 20;

/// One open replica.
pub struct Replica {
    conn: Connection,
    path: PathBuf,
    place: Place,
    /// Its copy under the name that was taken, which is still to be opened.
    copy: Option<Copied>,
    uuid: StoreUuid,
    histories: Vec<History>,
    /// Index into `histories` by device; 0 where a device has none.
    lines: BTreeMap<String, usize>,
    brought: Brought,
    high: SegmentSeq,
    in_transaction: bool,
    /// The last commit failed: the connection must stay open until one succeeds, since a new one would believe the cache.
    troubled: bool,
    /// What is believed may not be what the file holds: it is read again before anything is said of it.
    stale: bool,
}

/// A segment that was checked, with its bytes.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// The directory of `body`.
    pub view: &'a View,
    /// The bytes.
    pub body: &'a [u8],
}

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is news.
    Stored,
    /// All it says was held.
    Duplicate,
    /// It says other than what is held; both are kept. The device has a new history from now on, which knows what was
    /// [`Known`] to be the device's.
    Beside,
    /// The same, and the device is back in another history that it brought before, whose catalogue it has to state anew.
    Back,
    /// It can't be kept, and is not held.
    Refused(Refusal),
}

/// What became of a catalogue page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// Its definitions are those of the device's history now.
    Kept,
    /// It defines an id otherwise than the device's history did: the device has another history from now on, which knows
    /// this page only.
    Beside,
    /// It holds more than a store may have.
    Refused(Refusal),
}

/// What a device may be told of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Brought by this device and held, in its history or with equal content in another.
    pub held: RangeSet,
    /// Of that, what it brought since it began to compare.
    pub verified: RangeSet,
    /// Held in its history, whoever brought it.
    pub present: RangeSet,
    /// Numbers of the device's history that another one has with other content.
    pub conflicts: RangeSet,
    /// The highest number ever seen.
    pub high: SegmentSeq,
}

impl Replica {
    /// Opens the replica of `uuid` at `path`, or makes it for `device`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the file is no replica of this store, [`StoreError::Newer`] where a newer version wrote
    /// it; else as SQLite says.
    pub fn open(path: &Path, uuid: StoreUuid, device: &str, now: UtcNanos) -> Result<Self, StoreError> {
        let pragmas = Pragmas::replica();
        let conn = file::open_rw(path, &pragmas)?;
        file::begin_log_anew(&conn, path, pragmas.busy)?;
        file::create_schema(&conn, env!("CARGO_PKG_VERSION"))?;
        Brought::create(&conn)?;
        let major: i64 = file::meta(&conn, "format_major")?.unwrap_or(file::FORMAT_MAJOR);
        if major > file::FORMAT_MAJOR {
            return Err(StoreError::Newer { major });
        }
        if file::meta::<String>(&conn, "fleet_owner/0")?.is_none() {
            file::in_transaction(&conn, path, "begin a replica", |conn| {
                History::create(conn, &uuid, 0, device, now).map(drop)
            })?;
        }
        let mut replica = Self {
            conn,
            path: path.to_owned(),
            place: Place::default(),
            copy: None,
            uuid,
            histories: Vec::new(),
            lines: BTreeMap::new(),
            brought: Brought::default(),
            high: SegmentSeq(0),
            in_transaction: false,
            troubled: false,
            stale: true,
        };
        replica.settle()?;
        // Only now is there a log: SQLite opens it with the first look.
        replica.place = Place::of(path)?;
        Ok(replica)
    }

    /// Which store.
    pub fn uuid(&self) -> StoreUuid {
        self.uuid
    }

    /// Whether something waits for [`Replica::commit`].
    pub fn has_uncommitted(&self) -> bool {
        self.in_transaction
    }

    /// Whether the connection must not be closed now.
    pub fn must_stay_open(&self) -> bool {
        self.in_transaction || self.troubled || self.copy.is_some()
    }

    /// Makes all that was placed and merged since the last commit durable. On failure nothing of it is held, and the same
    /// connection goes on: what it believes is read from the file again.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if !self.in_transaction {
            return Ok(());
        }
        self.in_transaction = false;
        let done = self.run("COMMIT");
        // A full medium has taken nothing: there is nothing that a new connection could wrongly believe.
        self.troubled = done.as_ref().is_err_and(|cause| !matches!(cause, StoreError::Full { .. }));
        self.stale = done.is_err();
        done
    }

    /// Where the last commit failed: looks whether the medium takes one again, so that the connection may be closed.
    pub fn try_again(&mut self) {
        if self.troubled && !self.in_transaction {
            self.troubled = self.write_again().is_err();
        }
    }

    fn write_again(&mut self) -> Result<(), StoreError> {
        self.stale = true;
        self.begin()?;
        self.in_transaction = false;
        file::set_meta(&self.conn, "fleet_high", int(self.high.0))?;
        self.run("COMMIT")?;
        self.stale = false;
        Ok(())
    }

    /// Undoes all since the last commit.
    pub fn roll_back(&mut self) {
        self.in_transaction = false;
        self.stale = true;
    }

    /// Puts a segment of `device`, which stated the meaning of all that is `known`, where it belongs, in the transaction
    /// that [`Replica::commit`] ends. While the device compares, `recheck` is its number.
    pub fn place(
        &mut self,
        device: &str,
        known: &Known,
        recheck: Option<u64>,
        segment: Arrived<'_>,
    ) -> Result<Placed, StoreError> {
        self.begin()?;
        let placed = self.place_in_line(device, known, segment)?;
        if !matches!(placed, Placed::Refused(_)) {
            self.brought.add(&self.conn, device, recheck, segment.view.range())?;
        }
        Ok(placed)
    }

    /// Takes in a catalogue page of `device`, in the transaction that [`Replica::commit`] ends.
    pub fn merge(&mut self, device: &str, page: &CatalogPage, now: UtcNanos) -> Result<Merged, StoreError> {
        self.settle()?;
        let line = self.line(device);
        if self.histories[line].knows(page) {
            return Ok(Merged::Kept);
        }
        if !self.histories[line].has_room(page) || !self.has_room(page) {
            return Ok(Merged::Refused(Refusal::CatalogFull));
        }
        self.begin()?;
        if !self.histories[line].contradicts(page) {
            return self.histories[line].learn(&self.conn, page).map(|()| Merged::Kept);
        }
        let own = self.own_histories(device, line).find(|h| !self.histories[*h].contradicts(page));
        let Some(other) = own.map_or_else(|| self.begin_history(device, now), |h| Ok(Some(h)))? else {
            return Ok(Merged::Refused(Refusal::Histories));
        };
        self.set_line(device, other)?;
        self.histories[other].learn(&self.conn, page).map(|()| Merged::Beside)
    }

    /// Remembers that `seq` was seen, also where nothing of it is held.
    pub fn saw(&mut self, seq: SegmentSeq) -> Result<(), StoreError> {
        self.settle()?;
        if seq > self.high {
            self.begin()?;
            file::set_meta(&self.conn, "fleet_high", int(seq.0))?;
            self.high = seq;
        }
        Ok(())
    }

    /// Writes an event into the replica: what an operator should know of this store.
    pub fn note(&mut self, now: UtcNanos, kind: &str, detail: &str) -> Result<(), StoreError> {
        self.begin()?;
        let sql = "INSERT INTO event (utc, kind, detail) VALUES (?1, ?2, ?3)";
        file::execute(&self.conn, "write an event", sql, params![now.0, kind, detail]).map(drop)
    }

    /// What `device` may be told, while it compares under the number `recheck` if it does. Right only between a commit and
    /// what is placed next. Where the file has lost its name, all that it holds has been written anew under it before.
    pub fn standing(&mut self, device: &str, recheck: Option<u64>) -> Result<Standing, StoreError> {
        debug_assert!(!self.in_transaction, "what is not committed is not held");
        self.settle()?;
        self.keep_place()?;
        let line = self.line(device);
        let mine = &self.histories[line];
        let mut present = mine.held.clone();
        present.extend(mine.elsewhere.iter());
        let held = present.common(&self.brought.ever(device));
        let verified = recheck.map(|nonce| present.common(&self.brought.since(device, nonce))).unwrap_or_default();
        let mut conflicts = RangeSet::new();
        for other in self.histories.iter().filter(|h| h.no != mine.no) {
            conflicts.extend(mine.held.common(&other.held).iter());
        }
        Ok(Standing { held, verified, present, conflicts, high: self.high })
    }

    /// Every commit fails from now on, or none does.
    #[cfg(test)]
    pub(in crate::fleet) fn fail_commits(&mut self, fail: bool) {
        let hook = fail.then_some(|| true);
        self.conn.commit_hook(hook).expect("a hook");
    }

    /// Whether all of `range` is held in the history of `device`, or stands elsewhere with equal content; nothing of that may be
    /// committed yet.
    pub fn accounts_for(&self, device: &str, range: SeqRange) -> bool {
        let mine = &self.histories[self.line(device)];
        let mut missing = RangeSet::from_iter([range]);
        mine.held.overlapping(range).chain(mine.elsewhere.overlapping(range)).for_each(|part| missing.remove(part));
        !self.stale && missing.is_empty()
    }

    /// What its catalogues take in memory, in bytes, roughly; at most [`MAX_CATALOG_BYTES`].
    pub fn catalog_bytes(&self) -> usize {
        self.histories.iter().map(History::catalog_bytes).sum()
    }

    fn has_room(&self, page: &CatalogPage) -> bool {
        self.catalog_bytes() + history::page_bytes(page) <= MAX_CATALOG_BYTES
    }

    fn line(&self, device: &str) -> usize {
        self.lines.get(device).copied().unwrap_or(0)
    }

    /// The other histories that `device` brought.
    fn own_histories(&self, device: &str, line: usize) -> impl Iterator<Item = usize> + '_ {
        let device = device.to_owned();
        (0..self.histories.len()).filter(move |h| *h != line && self.histories[*h].owner == device)
    }

    /// A new history of `device`, or `None` where there are as many as there may be.
    fn begin_history(&mut self, device: &str, now: UtcNanos) -> Result<Option<usize>, StoreError> {
        let index = self.histories.len();
        if index >= MAX_HISTORIES {
            return Ok(None);
        }
        let variant = u32::try_from(index).unwrap_or(u32::MAX);
        self.histories.push(History::create(&self.conn, &self.uuid, variant, device, now)?);
        Ok(Some(index))
    }

    fn set_line(&mut self, device: &str, history: usize) -> Result<(), StoreError> {
        file::set_meta(&self.conn, &format!("fleet_line/{device}"), self.histories[history].variant)?;
        self.lines.insert(device.to_owned(), history);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        if !self.in_transaction {
            self.run("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// After a failure: rolls back what SQLite has not rolled back itself, and believes only the file again.
    fn settle(&mut self) -> Result<(), StoreError> {
        if !self.stale {
            return Ok(());
        }
        if !self.conn.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        self.load()?;
        self.stale = false;
        Ok(())
    }

    fn run(&self, sql: &'static str) -> Result<(), StoreError> {
        file::execute(&self.conn, "end or begin a transaction on", sql, []).map(drop)
    }

    fn load(&mut self) -> Result<(), StoreError> {
        self.histories = History::load_all(&self.conn, &self.uuid)?;
        if self.histories.is_empty() {
            let what = format!("{} is not a replica of store {}", self.path.display(), self.uuid);
            return Err(StoreError::Damaged { what });
        }
        self.lines = history::lines(&self.conn)?;
        self.lines.retain(|_, history| *history < self.histories.len());
        self.brought = Brought::load(&self.conn)?;
        let high: i64 = file::meta(&self.conn, "fleet_high")?.unwrap_or(0);
        self.high = SegmentSeq(u64::try_from(high).unwrap_or(0));
        Ok(())
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
