//! What must be true of the files before SQLite opens them: the directory is there, no other varved has the file, and
//! what the page cache claims is what the medium holds.
//!
//! What enters: the path of the database. What leaves: a [`Lock`] held for as long as the store is open. After a failed
//! fsync the kernel keeps pages as clean that the medium never took; a process that then restarts would read, and trust,
//! what a power cut takes away. So everything is fsynced and dropped from the cache first.

use super::disk::{self, PlainFile};
use super::error::StoreError;
use super::file::beside;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is waited for. One that was let go may be held a moment longer by a child of that process: it has every
/// open file from its fork to its exec.
const PATIENCE: Duration = Duration::from_secs(1);

/// The right to write one database. Released when dropped, or by the kernel when the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the database at `db`. The lock is a file of its own: SQLite's locks belong to the process, so an
    /// open database would not keep a second store of the same process out.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the other's process id, which is in the lock file.
    pub(crate) fn take(db: &Path) -> Result<Self, StoreError> {
        let path = beside(db, "-lock");
        let fail = |e| StoreError::io("open", &path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(fail)?;
        let until = Instant::now() + PATIENCE;
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            match e {
                rustix::io::Errno::WOULDBLOCK if Instant::now() < until => std::thread::sleep(PATIENCE / 50),
                rustix::io::Errno::WOULDBLOCK => {
                    return Err(StoreError::InUse { path: db.to_owned(), pid: pid(&mut file) });
                }
                e => return Err(StoreError::io("lock", &path, e.into())),
            }
        }
        // The number is a courtesy to the next one: on a full disk the lock holds without it.
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(e) = written {
            log::warn!("store: {}: the process id was not written: {e}", path.display());
        }
        Ok(Self { _file: file })
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The directory of `db`.
pub(crate) fn directory(db: &Path) -> &Path {
    db.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory of `db` where it is missing, for owner and group only.
pub(crate) fn make_directory(db: &Path) -> Result<(), StoreError> {
    let dir = directory(db);
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(|e| StoreError::io("create the directory", dir, e))
}

/// Fsyncs the database, its WAL and their directory, and has the kernel forget what it holds of them.
pub(crate) fn settle_cache(db: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal"] {
        if let Some(file) = PlainFile::open(&beside(db, suffix))? {
            file.fsync()?;
            file.forget();
        }
    }
    sync_directory(db)
}

/// Fsyncs the directory of `db`, so that names made, moved or deleted in it stay so.
pub(crate) fn sync_directory(db: &Path) -> Result<(), StoreError> {
    disk::fsync_directory(directory(db))
}

/// What is free for us on the file system of `db`, in bytes.
pub(crate) fn free_bytes(db: &Path) -> Result<u64, StoreError> {
    let dir = directory(db);
    let found = rustix::fs::statvfs(dir).map_err(|e| StoreError::io("look at the room in", dir, e.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Length in bytes, 0 where there is no such file.
pub(crate) fn length(path: &Path) -> Result<u64, StoreError> {
    disk::look_at(path).map(|found| found.map_or(0, |found| found.bytes))
}

/// Whether the database was still being made when the transaction began that its rollback journal is of
/// (sqlite.org/fileformat2.html §3): it was empty, or too short for the tables and without a log. Then nothing has been
/// committed to it, whatever is in it.
pub(crate) fn was_being_made(db: &Path) -> Result<bool, StoreError> {
    let Some(bytes) = first_bytes::<20>(&beside(db, "-journal"))? else { return Ok(false) };
    let journal = bytes[..8] == [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let short = length(db)? < 4096 && length(&beside(db, "-wal"))? == 0;
    Ok(journal && (short || bytes[16..] == [0; 4]))
}

/// Page size and auto-vacuum as the first page of the database says (sqlite.org/fileformat2.html §1.3): `None` where there
/// is no first page, or it isn't one.
pub(crate) fn header(db: &Path) -> Result<Option<Header>, StoreError> {
    Ok(first_bytes(db)?.as_ref().and_then(Header::read))
}

/// The first bytes of a file; `None` where there aren't so many.
fn first_bytes<const N: usize>(path: &Path) -> Result<Option<[u8; N]>, StoreError> {
    let Some(file) = PlainFile::open(path)? else { return Ok(None) };
    let mut bytes = [0; N];
    Ok(file.read_at(&mut bytes, 0)?.then_some(bytes))
}

/// What [`header`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes per page.
    pub(crate) page_bytes: u32,
    /// Whether it is in WAL mode.
    pub(crate) wal: bool,
    /// Whether the file can give pages back step by step.
    pub(crate) incremental_vacuum: bool,
}

impl Header {
    fn read(bytes: &[u8; 100]) -> Option<Self> {
        if &bytes[..16] != b"SQLite format 3\0" {
            return None;
        }
        let page_bytes = match u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65_536,
            n => n,
        };
        // The file format's read and write versions: 2 is WAL.
        let wal = bytes[18..20] == [2, 2];
        Some(Self { page_bytes, wal, incremental_vacuum: bytes[52..56] != [0; 4] && bytes[64..68] != [0; 4] })
    }
}

/// Other processes that have the database at `db` open: links in `/proc/<pid>/fd` that point to it (proc(5)). Those of
/// other users stay hidden unless this one may see them.
pub(crate) fn readers(db: &Path) -> Vec<u32> {
    let Ok(target) = db.canonicalize() else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == target))
    };
    pids.filter(|pid| *pid != std::process::id()).filter(has).take(16).collect()
}
