//! Whether the file that is open is still the one that its name names, and what is done where it is not.
//!
//! Who deletes a replica under the running receiver takes only its name: the file lives on for as long as it is open, commits
//! succeed, acks go out, devices let go of what was acknowledged, and all of it is gone when the receiver closes the file. So
//! before a device is told what is held, the open files are compared with their names. What enters: an open replica. What leaves,
//! where a name was taken: all that the open file holds, written anew under it, and what stood there instead beside it as
//! `.damaged-N`. It promises that nothing is acknowledged of which no named file holds a copy. It can't bring back what was cut
//! off the file itself; and who deletes a replica that is not open has deleted it (the acks shrink, and devices send again what
//! they still hold).

use super::super::shelf;
use super::Replica;
use crate::clock::UtcNanos;
use crate::store::StoreError;
use crate::store::file::{beside, execute, uri};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which files are open: device and inode of the database, and of its log where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    db: Option<(u64, u64)>,
    wal: Option<(u64, u64)>,
}

/// What was written anew and could not be opened yet: once more only if something has come since, and never set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    file: (u64, u64),
    /// Rows that the connection had changed by then.
    changes: u64,
}

impl Place {
    /// What `path` names now.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: named(path)?, wal: named(&beside(path, "-wal"))? })
    }
}

fn named(path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("look at", path, e)),
    }
}

impl Replica {
    /// Compares the open files with their names, and writes all of it anew where one was taken.
    pub(super) fn keep_place(&mut self) -> Result<(), StoreError> {
        let now = Place::of(&self.path)?;
        if now == self.place {
            return Ok(());
        }
        let changes = self.conn.total_changes();
        if self.copy.is_none_or(|copy| (Some(copy.file), copy.changes) != (now.db, changes)) {
            self.copy_anew(now, changes)?;
        }
        let device = self.histories[0].owner.clone();
        // The time is for a file that has to be made.
        *self = Self::open(&self.path, self.uuid, &device, UtcNanos(0))?;
        Ok(())
    }

    fn copy_anew(&mut self, now: Place, changes: u64) -> Result<(), StoreError> {
        log::error!(
            "replica: {} was moved, deleted or replaced while it was open; it is written anew; stop varved-fleet before its \
             files are changed",
            self.path.display()
        );
        self.write_anew(now)?;
        self.copy = named(&self.path)?.map(|file| Copied { file, changes });
        Ok(())
    }

    fn write_anew(&mut self, now: Place) -> Result<(), StoreError> {
        let (path, part) = (self.path.as_path(), beside(&self.path, "-rescue"));
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |e| StoreError::io(doing, &path, e)
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(io("make", folder))?;
        remove(&part)?;
        // Half a copy would only take room.
        execute(&self.conn, "write the replica anew", "VACUUM INTO ?1", [uri(&part, "psow=0&vfs=unix")])
            .inspect_err(|_| drop(remove(&part)))?;
        fs::File::open(&part).and_then(|file| file.sync_all()).map_err(io("fsync", &part))?;
        if now.wal.is_some() && now.wal == self.place.wal {
            // Ours, and in the copy; it would be replayed into what stands there now.
            remove(&beside(path, "-wal"))?;
            remove(&beside(path, "-shm"))?;
        }
        let ours = now.db.is_some() && now.db == self.copy.map(|copy| copy.file);
        if ours {
            remove(&beside(path, "-wal"))?;
        } else if now.db.is_some() && now.db != self.place.db || now.wal.is_some() && now.wal != self.place.wal {
            let aside =
                shelf::set_aside(path).map_err(|e| StoreError::io("move aside", path, std::io::Error::other(e)))?;
            log::warn!("replica: what stood in the place of {} is now {}", path.display(), aside.display());
        }
        // Of a log that is gone: the connection that is opened next makes its own.
        remove(&beside(path, "-shm"))?;
        fs::rename(&part, path).map_err(io("rename", &part))?;
        let fsync = |dir: &Path| fs::File::open(dir).and_then(|dir| dir.sync_all());
        fsync(folder).map_err(io("fsync", folder))?;
        // The folder may have been made anew.
        folder.parent().map_or(Ok(()), fsync).map_err(io("fsync", folder))
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("delete", path, e)),
        _ => Ok(()),
    }
}
