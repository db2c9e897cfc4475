//! The store: one SQLite file, and the only room with rusqlite beside the fleet's replica.
//!
//! What enters: sealed batches, acknowledgements, the moment. What leaves: segments for the uplink, figures for `status`.
//! It promises that what it returned as committed survives a power cut at any instant on media that honour a flush, that
//! nothing unacknowledged is deleted without a loss being written down, and that file and `-wal` keep within `max_size`.
//! It decides nothing about when: [`crate::upkeep`] and the device call its steps.
//!
//! | file | holds |
//! |---|---|
//! | [`mod@file`] | how a file is opened and filled; shared with the fleet's replica |
//! | `disk` | what is written beside SQLite |
//! | `ground`, [`wal_scan`], [`high_water`], [`identity`], `rebuild` | what is looked at before SQLite opens |
//! | `open`, `quarantine` | from those to a store that can be written, whatever the file is like |
//! | `log`, `neighbours`, `padding`, `vfs` | when and how the write-ahead log is folded into the file |
//! | `commit`, `ack`, `catalog`, `recheck`, `outgoing` | what comes in, what goes out |
//! | `ledger` | what the wear governor and the uplink keep |
//! | `compact`, `rollup`, `expire`, `retention`, `headroom` | steps of upkeep |
//! | [`reader`], [`scan`], [`vtab`], [`query`] | the read side: segments to rows, and SQL over them |
//! | [`audit`], [`plain`] | what `verify` and `export` do with it |
//! | `arrivals`, `rows_file` | what a pull brings to a laptop |
//! | [`medium`] | the flash under it: what it took, and how worn it says it is |
//! | [`thread`] | the thread that it runs on |
//! | `crash` (tests only) | power cuts at every write |

mod ack;
#[cfg(feature = "laptop")]
pub mod arrivals;
pub mod audit;
mod catalog;
mod commit;
mod compact;
#[cfg(test)]
pub(crate) mod crash;
mod disk;
pub mod error;
pub mod event;
mod expire;
pub mod file;
mod ground;
mod headroom;
pub mod high_water;
pub mod identity;
mod ledger;
mod line;
mod log;
pub mod medium;
mod neighbours;
mod open;
mod outgoing;
mod padding;
mod place;
pub mod plain;
mod quarantine;
pub mod query;
mod raw;
mod read_error;
pub mod reader;
mod rebuild;
mod recheck;
mod retention;
mod rollup;
#[cfg(feature = "laptop")]
pub mod rows_file;
#[cfg(test)]
pub(crate) mod sample;
pub mod scan;
#[cfg(test)]
pub(crate) mod testing;
pub mod thread;
mod vfs;
pub mod vtab;
pub mod wal_scan;

pub use ack::SegmentHead;
pub use commit::Committed;
pub use error::StoreError;
pub use event::{Event, EventKind};
pub use identity::Identity;
pub use medium::Medium;
pub use open::{FreshWhy, set_unreadable_aside};
pub use outgoing::Shipment;
pub use rollup::{History, RollupSpan};

use crate::clock::{Anchor, BootNanos, UtcNanos};
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesId};
use ground::Lock;
use high_water::{HighWater, Mark};
use line::{Line, Tally};
use log::Log;
use retention::Retention;
use rusqlite::Connection;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// An open store. One per file: it holds the lock.
pub struct Store {
    conn: Connection,
    path: PathBuf,
    bounds: Bounds,
    identity: Identity,
    high: HighWater,
    /// By ascending number, which is by age; the current one is the last.
    lines: Vec<Line>,
    boot: BootId,
    run: u64,
    next_series: u32,
    /// By [`crate::reading::SeriesKey`]: the id in the current store.
    series: Vec<Option<SeriesId>>,
    catalog_changes: u32,
    /// The newest of this boot that is in the file.
    anchor: Option<Anchor>,
    /// Something that was read or written showed the file to be damaged.
    damaged: Cell<bool>,
    log: Log,
    /// Which files are open.
    place: place::Place,
    /// As of the last step of upkeep.
    in_flight: Vec<(Uuid, SeqRange)>,
    compacted_to: compact::Cursor,
    commits: u64,
    body_bytes: u64,
    rollup_rows: rollup::Rows,
    retention: Retention,
    /// The accounts of writes and of traffic, to be written with the next commit.
    ledger_unwritten: ledger::Unwritten,
    /// Dropped last, after the connection.
    _locks: Vec<Lock>,
}

/// What the configuration bounds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// The log is folded at about this length.
    wal_bytes: u64,
    /// What it may take: as much again, or the largest commit.
    log_bytes: u64,
    /// What the file may take now: less than the most where the partition's headroom asks for it.
    file_bytes: u64,
    /// What `max_size` leaves for the file.
    most_file_bytes: u64,
}

/// See [`Store::carry_on`].
struct Carried {
    anchor: Option<Anchor>,
    catalog_changes: u32,
}

/// One store in the file, as the uplink sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLine {
    /// Its id.
    pub uuid: Uuid,
    /// Whether new commits go to it.
    pub current: bool,
    /// The highest sequence number committed; 0 before the first.
    pub high: SegmentSeq,
}

/// Whether a step of upkeep found something to do; if so, it may be called again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Idle,
    /// Something was done, and there may be more.
    Worked,
}

/// Figures of the store, as [`Store::facts`] finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFacts {
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of the `-wal`.
    pub wal_bytes: u64,
    /// The most that the database file may take, in bytes: `max_size` without what is kept for the WAL, or less where the
    /// partition's headroom asks for it.
    pub file_limit_bytes: u64,
    /// The partition has less room than is to be left on it, and something of ours is set aside on it.
    pub aside_in_the_way: bool,
    /// Bytes per page.
    pub page_bytes: u32,
    /// Pages of the file.
    pub pages: u64,
    /// Pages of the file that hold nothing.
    pub free_pages: u64,
    /// Pages in the WAL that are not yet in the database file.
    pub wal_pages_waiting: u64,
    /// Segments of all stores, losses included.
    pub segments: u64,
    /// Readings in them.
    pub readings: u64,
    /// Segments that the fleet doesn't have.
    pub pending_segments: u64,
    /// Readings in those.
    pub pending_readings: u64,
    /// Boot and boottime of the earliest reading that is pending, where it has such a stamp.
    pub oldest_pending: Option<(BootId, BootNanos)>,
    /// UTC of the earliest pending reading that brought its own.
    pub oldest_pending_utc: Option<UtcNanos>,
    /// Commits of readings since the store was opened.
    pub commits: u64,
    /// Bytes of segment bodies committed since the store was opened.
    pub body_bytes: u64,
}

impl StoreFacts {
    /// Whether what the file holds leaves less room than a commit and a compaction may need.
    pub fn nearly_full(&self) -> bool {
        self.used_bytes() > retention::target_bytes(self.file_limit_bytes)
    }

    /// About how many bytes are pending: the part of the file that its readings make up.
    pub fn pending_bytes(&self) -> u64 {
        let share = u128::from(self.used_bytes()) * u128::from(self.pending_readings);
        u64::try_from(share / u128::from(self.readings.max(1))).unwrap_or(u64::MAX)
    }

    /// Bytes of the pages that hold something.
    pub fn used_bytes(&self) -> u64 {
        self.pages.saturating_sub(self.free_pages) * u64::from(self.page_bytes)
    }

    /// Whether so much of the file is free, as after a burst, that the file system should have it back.
    pub fn has_spare(&self) -> bool {
        let free = self.free_pages * u64::from(self.page_bytes);
        free > retention::spare_bytes(self.used_bytes(), self.file_limit_bytes)
    }

    /// Whether the database file is longer than its pages by more than a commit or two would make it: a checkpoint cuts it.
    pub fn is_uncut(&self) -> bool {
        self.file_bytes > self.pages * u64::from(self.page_bytes) + (256 << 10)
    }

    /// Whether the file is longer than it may be, as after `max_size` was lowered.
    pub fn above_limit(&self) -> bool {
        self.pages * u64::from(self.page_bytes) > self.file_limit_bytes
    }
}

impl Store {
    /// Where the database is; not the configured path where that holds a newer format.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the store that new commits go to.
    pub fn uuid(&self) -> Uuid {
        self.current().uuid
    }

    /// Whether the file was found damaged: only another open mends that.
    fn is_damaged(&self) -> bool {
        self.damaged.get()
    }

    /// What another open in the same boot is to know.
    fn carried(&self) -> Carried {
        Carried { anchor: self.anchor, catalog_changes: self.catalog_changes }
    }

    /// Goes on from a store that was found damaged in this run: a new file knows nothing of the time of this boot, and the
    /// one that gave the anchor will not give it again.
    fn carry_on(&mut self, from: Carried) {
        self.catalog_changes = from.catalog_changes + 1;
        let Some(anchor) = from.anchor.filter(|_| self.anchor.is_none()) else { return };
        let (no, boot) = (self.current().no, self.boot);
        match self.transaction("carry an anchor on", |conn| file::upsert_anchor(conn, no, boot, &anchor)) {
            Ok(()) => self.anchor = Some(anchor),
            Err(e) => ::log::warn!("store: the time of this boot is not known in the new file: {e}"),
        }
    }

    /// The number of the running boot in the current store.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// How often the file has been opened for writing, this time included.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The sequence number that the next segment takes.
    pub fn next_seq(&self) -> SegmentSeq {
        SegmentSeq(self.current().high.0 + 1)
    }

    /// The stores in the file that hold segments, the current one first, then by age, youngest first.
    pub fn stores(&self) -> Vec<StoreLine> {
        let current = self.uuid();
        let line = |l: &Line| StoreLine { uuid: l.uuid, current: l.uuid == current, high: l.high };
        let held = |l: &&Line| l.uuid == current || l.tally.segments > 0;
        self.lines.iter().rev().filter(held).map(line).collect()
    }

    /// Figures for `status` and for the decisions of upkeep. Cheap: counts are kept, not counted.
    ///
    /// # Errors
    /// Those of SQLite and the file system.
    pub fn facts(&self) -> Result<StoreFacts, StoreError> {
        let pages = self.pragma("page_count")?;
        let (in_log, folded) = self.log.state(&self.conn)?;
        let oldest = self.oldest_pending()?;
        let sum = |count: fn(&Tally) -> u64| self.lines.iter().map(|l| count(&l.tally)).sum();
        Ok(StoreFacts {
            file_bytes: ground::length(&self.path)?,
            wal_bytes: ground::length(&file::beside(&self.path, "-wal"))?,
            file_limit_bytes: self.bounds.file_bytes,
            aside_in_the_way: self.retention.pressed && !quarantine::aside(&self.path)?.is_empty(),
            page_bytes: u32::try_from(self.pragma("page_size")?).unwrap_or(u32::MAX),
            pages,
            free_pages: self.pragma("freelist_count")?,
            wal_pages_waiting: in_log.saturating_sub(folded),
            segments: sum(|t| t.segments),
            readings: sum(|t| t.readings),
            pending_segments: sum(|t| t.pending_segments),
            pending_readings: sum(|t| t.pending_readings),
            oldest_pending: oldest.and_then(|head| head.from),
            oldest_pending_utc: oldest.and_then(|head| head.utc).map(|utc| utc.0),
            commits: self.commits,
            body_bytes: self.body_bytes,
        })
    }

    /// Folds the log into the database file and writes the high-water mark. Cheap where there is little to fold.
    ///
    /// # Errors
    /// Those of SQLite and the file system; nothing is lost, and the same call may be made again.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.write_acks_now()?;
        self.fold()
    }

    /// A clean stop: writes down what is only in RAM, folds the log, and leaves it in place for the next start: begun anew, or
    /// that would replay all of it and write each of its pages again.
    ///
    /// # Errors
    /// Those of [`Store::checkpoint`]. The file is closed all the same; nothing committed is lost.
    pub fn close(mut self) -> Result<(), StoreError> {
        // An account of writes is not worth the acknowledgements and the mark of what was committed.
        if let Err(e) = self.write_ledger_now() {
            ::log::warn!("store: {e}");
        }
        self.checkpoint()?;
        self.log.begin(&self.conn, &self.path)
    }

    /// Lets in other processes that wait to read the live file: called on SIGURG, which says that there is one, and by
    /// every commit. Until then an `open` of theirs waits; see docs/store.md.
    ///
    /// # Errors
    /// Those of the file system; they wait on, and it is tried again with the next commit.
    pub fn let_readers_in(&mut self) -> Result<(), StoreError> {
        raw::let_readers_in(&self.conn).map_err(|code| {
            let why = std::io::Error::other(format!("SQLite error {code}"));
            StoreError::io("give the index back to", &file::beside(&self.path, "-shm"), why)
        })
    }

    fn current(&self) -> &Line {
        self.lines.last().expect("open() leaves at least one line, and expiry never takes the current one")
    }

    fn current_mut(&mut self) -> &mut Line {
        self.lines.last_mut().expect("open() leaves at least one line, and expiry never takes the current one")
    }

    fn line(&self, uuid: Uuid) -> Option<&Line> {
        self.lines.iter().find(|l| l.uuid == uuid)
    }

    /// Folds what the log holds, so far as readers let it, and marks the high water: all of it is durable by then.
    fn fold(&mut self) -> Result<(), StoreError> {
        self.log.fold(&self.conn, &self.path)?;
        let line = self.current();
        let mark = Mark { store: line.uuid, seq: line.high };
        self.high.set(mark)
    }

    /// A pragma that answers a count.
    fn pragma(&self, name: &'static str) -> Result<u64, StoreError> {
        let value: Result<i64, _> = self.conn.pragma_query_value(None, name, |row| row.get(0));
        value.map(|n| u64::try_from(n).unwrap_or(0)).map_err(|e| self.failed(name, e))
    }

    /// One transaction. If it fails, its frames may be in the log: a later, shorter one would leave some of them behind.
    fn transaction<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.fold_if_due();
        let begun = self.log.begin(&self.conn, &self.path);
        let done = begun.and_then(|()| file::in_transaction(&self.conn, &self.path, doing, work));
        match &done {
            Ok(_) => self.log.look(&self.conn),
            Err(_) => self.log.failed(),
        }
        self.watched(done)
    }

    /// Folds the log if it is time. That isn't part of what was committed before: it is on the medium whatever happens here.
    fn fold_if_due(&mut self) {
        if self.log.fold_is_due() {
            if let Err(e) = self.fold() {
                ::log::warn!("store: {e}");
            }
        }
    }

    /// What a read or a transaction brought, passed on; damage that it met is looked into at the next open, which the store's
    /// thread does at once.
    fn watched<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.inspect_err(|e| self.suspect(e))
    }

    /// [`StoreError::sql`] for what was done on this connection, watched.
    fn failed(&self, doing: &'static str, source: rusqlite::Error) -> StoreError {
        let error = StoreError::sql(doing, &self.path, source);
        self.suspect(&error);
        error
    }

    fn suspect(&self, error: &StoreError) {
        if matches!(error, StoreError::Damaged { .. }) && !self.damaged.replace(true) {
            if let Err(e) = disk::write_whole(&open::suspicion(&self.path), error.to_string().as_bytes()) {
                ::log::warn!("store: {} could not be marked as damaged: {e}", self.path.display());
            }
        }
    }
}
