//! Whether the files that are open are still those that their names name, and what is done where they are not.
//!
//! Who deletes the database of a running service, or puts another one in its place, takes only its name: the file lives on
//! for as long as it is open, commits go on succeeding, and all of it is gone when the process ends. So each commit, and
//! upkeep once a second, compares. What enters: an open store. What leaves, where the name was taken: everything that was
//! committed, written anew under it, and what stood there instead set aside, so that a second open finds the store as it
//! was. It promises that what a commit was answered for is not lost with the name, as long as the process lives for another
//! second. It can't bring back what was cut off the file itself: that is damage, and is looked into by the next open.
//!
//! ```text
//! varved.db-rescue   being written; worth nothing
//! varved.db-rescued  whole and fsynced; takes the database's name, if need be at the next open
//! ```

use super::disk::{self, PlainFile};
use super::error::StoreError;
use super::event::{Event, EventKind, record};
use super::file::{beside, uri};
use super::ground::{self, sync_directory};
use super::log::Log;
use super::{Store, quarantine};
use crate::clock::Now;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The end of the log that may not be in the file yet: padding that is held back (`vfs/tail.rs`), and the frame it is of.
const HELD_BACK_BYTES: u64 = 8192;

/// Which files are open: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

/// The files of an open store as they were found when it was opened, and how long the database was after the last fold.
#[derive(Debug)]
pub(super) struct Place {
    db: FileId,
    wal: Option<FileId>,
    db_bytes: u64,
    /// Folds of the log at that moment: only they make the database longer or shorter.
    folds: u64,
}

/// What a look found, with the file that it is about.
enum Found {
    Whole,
    Moved(PathBuf),
    Cut(PathBuf),
}

impl Place {
    /// That of the database at `db`, which was just opened.
    pub(super) fn of(db: &Path, log: &Log) -> Result<Self, StoreError> {
        let gone = || StoreError::io("look at", db, ErrorKind::NotFound.into());
        let (id, db_bytes) = look_at(db)?.ok_or_else(gone)?;
        let wal = look_at(&beside(db, "-wal"))?.map(|(id, _)| id);
        Ok(Self { db: id, wal, db_bytes, folds: log.folds() })
    }

    fn look(&mut self, db: &Path, log: &Log) -> Result<Found, StoreError> {
        let wal = beside(db, "-wal");
        let (db_now, wal_now) = (look_at(db)?, look_at(&wal)?);
        let Some((_, db_bytes)) = db_now.filter(|(id, _)| *id == self.db) else {
            return Ok(Found::Moved(db.to_owned()));
        };
        if self.folds != log.folds() {
            (self.db_bytes, self.folds) = (db_bytes, log.folds());
        }
        if db_bytes < self.db_bytes {
            return Ok(Found::Cut(db.to_owned()));
        }
        let Some(id) = self.wal else { return Ok(Found::Whole) };
        match wal_now {
            Some((now, _)) if now != id => Ok(Found::Moved(wal)),
            None => Ok(Found::Moved(wal)),
            Some((_, bytes)) if bytes + HELD_BACK_BYTES < log.bytes() || (bytes == 0 && log.frames() > 0) => {
                Ok(Found::Cut(wal))
            }
            Some(_) => Ok(Found::Whole),
        }
    }
}

/// Which file `path` names, and its length; `None` where it names none.
fn look_at(path: &Path) -> Result<Option<(FileId, u64)>, StoreError> {
    Ok(disk::look_at(path)?.map(|found| (FileId(found.id.0, found.id.1), found.bytes)))
}

impl Store {
    /// Compares the open files with their names.
    ///
    /// # Errors
    /// [`StoreError::Moved`] where a name was taken: all that was committed stands under it again, and the store's thread
    /// opens that. [`StoreError::Damaged`] where something was cut off. Those of the file system where it could not be
    /// written anew: nothing is committed until it can.
    pub fn look_at_place(&mut self, now: Now) -> Result<(), StoreError> {
        match self.place.look(&self.path, &self.log)? {
            Found::Whole => Ok(()),
            Found::Moved(what) => {
                self.rescue(&what, now)?;
                // Not for what is in it: only so that it is opened again.
                self.damaged.set(true);
                Err(StoreError::Moved { path: what })
            }
            Found::Cut(what) => {
                let what = format!("{} was cut while it was open", what.display());
                self.watched(Err(StoreError::Damaged { what }))
            }
        }
    }

    /// Writes everything that the open files hold into a new one, and gives it the database's name.
    fn rescue(&mut self, what: &Path, now: Now) -> Result<(), StoreError> {
        let (part, whole) = (beside(&self.path, "-rescue"), beside(&self.path, "-rescued"));
        let detail =
            format!("{} was moved, deleted or replaced while it was open; it was written anew", what.display());
        let event = Event::new(EventKind::Moved, detail);
        ::log::error!("store: {event}; stop varved before its files are changed");
        disk::remove(&part)?;
        self.has_room_for_a_copy()?;
        if let Err(e) = self.transaction("record an event", |conn| record(conn, &event, now)) {
            // A full file takes no event, and is worth as much.
            ::log::warn!("store: {e}");
        }
        let written = self.conn.execute("VACUUM INTO ?1", [uri(&part, "psow=0&vfs=unix")]);
        if let Err(e) = written {
            disk::remove(&part)?;
            return Err(self.failed("write the database anew", e));
        }
        if let Some(file) = PlainFile::open(&part)? {
            file.fsync()?;
        }
        disk::rename(&part, &whole)?;
        sync_directory(&self.path)?;
        self.let_go_of_log()?;
        install(&self.path, now)
    }

    /// It is tried again every second: to find out by writing would wear the flash.
    fn has_room_for_a_copy(&self) -> Result<(), StoreError> {
        let needed = (self.pragma("page_count")? - self.pragma("freelist_count")?) * self.pragma("page_size")?;
        match ground::free_bytes(&self.path)? < needed {
            true => Err(StoreError::Full { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// The log is in the copy; where it still has its name it would be taken for that of what stands there now.
    fn let_go_of_log(&self) -> Result<(), StoreError> {
        let wal = beside(&self.path, "-wal");
        match look_at(&wal)? {
            Some((id, _)) if Some(id) == self.place.wal => {
                disk::remove(&wal)?;
                disk::remove(&beside(&self.path, "-shm"))
            }
            _ => Ok(()),
        }
    }
}

/// Gives what was rescued the name of the database, and sets aside what has that name.
pub(super) fn install(db: &Path, now: Now) -> Result<(), StoreError> {
    let whole = beside(db, "-rescued");
    disk::remove(&beside(db, "-rescue"))?;
    if look_at(&whole)?.is_none() {
        return Ok(());
    }
    if look_at(db)?.is_some() || quarantine::remains(db)? {
        let aside = quarantine::set_aside(db, now)?;
        log::warn!("store: what stood in the place of {} is now {}", db.display(), aside.display());
    }
    disk::rename(&whole, db)?;
    sync_directory(db)
}

#[cfg(test)]
mod tests;
