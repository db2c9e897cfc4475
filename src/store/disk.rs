//! What the store writes beside SQLite: the high-water mark, the log's reserve, names that move and go.
//!
//! What enters: a path and what is to be done there. What leaves: that it was done, or a [`StoreError`] that names the path.
//! Every write, fsync, move and removal of plain files in this room comes through here, so that it can be seen in one place
//! which of them a power cut may undo: a write until [`PlainFile::fsync`], a name until [`fsync_directory`]. In tests it is
//! also told to the recorder, between the calls that SQLite makes. It decides nothing and retries nothing.

#[cfg(test)]
use super::crash::{change::Change, log};
use super::error::StoreError;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is neither a database nor its log, or one of those where SQLite isn't the one who writes.
pub(crate) struct PlainFile {
    file: File,
    path: PathBuf,
}

impl PlainFile {
    /// Opens `path` for reading, also on a medium that takes no writes; `None` where it isn't there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let opened = present("open", path, File::open(path))?;
        Ok(opened.map(|file| Self { file, path: path.to_owned() }))
    }

    /// Opens `path` for writing; `None` where it isn't there.
    pub(crate) fn open_to_write(path: &Path) -> Result<Option<Self>, StoreError> {
        let opened = present("open", path, OpenOptions::new().write(true).open(path))?;
        Ok(opened.map(|file| Self { file, path: path.to_owned() }))
    }

    /// Opens `path` for reading and writing; `None` where it isn't there.
    pub(crate) fn open_to_change(path: &Path) -> Result<Option<Self>, StoreError> {
        let opened = present("open", path, OpenOptions::new().read(true).write(true).open(path))?;
        Ok(opened.map(|file| Self { file, path: path.to_owned() }))
    }

    /// Opens `path`, made where it isn't there, for owner and group only. Its name is durable after [`fsync_directory`].
    pub(crate) fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        #[cfg(test)]
        let missing = !path.exists();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path);
        let file = opened.map_err(|e| StoreError::io("open", path, e))?;
        #[cfg(test)]
        if missing {
            log::tell(path, Change::Create);
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> Result<u64, StoreError> {
        self.file.metadata().map(|meta| meta.len()).map_err(|e| self.fail("look at", e))
    }

    /// Fills `bytes` from `at` on; false where the file ends before.
    pub(crate) fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<bool, StoreError> {
        match self.file.read_exact_at(bytes, at) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(self.fail("read", e)),
        }
    }

    /// Writes all of `bytes` at `at`.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, at).map_err(|e| self.fail("write", e))?;
        #[cfg(test)]
        log::tell(&self.path, Change::Write { at, bytes: bytes.into() });
        Ok(())
    }

    /// Cuts the file, or extends it by zeros.
    pub(crate) fn set_length(&self, bytes: u64) -> Result<(), StoreError> {
        self.file.set_len(bytes).map_err(|e| self.fail("cut", e))?;
        #[cfg(test)]
        log::tell(&self.path, Change::SetLength(bytes));
        Ok(())
    }

    /// Waits until the file is on the medium.
    pub(crate) fn fsync(&self) -> Result<(), StoreError> {
        self.fsynced(File::sync_all)
    }

    /// Waits until content and length are on the medium, the times not: in a block that exists, one write.
    pub(crate) fn fdatasync(&self) -> Result<(), StoreError> {
        self.fsynced(File::sync_data)
    }

    fn fsynced(&self, fsync: fn(&File) -> io::Result<()>) -> Result<(), StoreError> {
        #[cfg(test)]
        if log::fsync_fails(&self.path) {
            return Err(self.fail("fsync", log::eio()));
        }
        fsync(&self.file).map_err(|e| self.fail("fsync", e))?;
        #[cfg(test)]
        log::tell(&self.path, Change::Fsync);
        Ok(())
    }

    /// The handle, for advice to the kernel.
    pub(crate) fn handle(&self) -> &File {
        &self.file
    }

    fn fail(&self, doing: &'static str, e: io::Error) -> StoreError {
        StoreError::io(doing, &self.path, e)
    }
}

/// Makes `path` hold `bytes` and nothing else, fsynced. Its name is durable after [`fsync_directory`].
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file = PlainFile::open_or_create(path)?;
    file.set_length(0)?;
    file.write_at(bytes, 0)?;
    file.fsync()
}

/// Cuts `path` to nothing, if it is there.
pub(crate) fn empty(path: &Path) -> Result<(), StoreError> {
    let Some(file) = PlainFile::open_to_write(path)? else { return Ok(()) };
    file.set_length(0)?;
    file.fsync()
}

/// Fsyncs a directory, so that names made, moved or removed in it stay so.
pub(crate) fn fsync_directory(directory: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    if log::fsync_fails(&directory.join("names")) {
        return Err(StoreError::io("fsync the directory", directory, log::eio()));
    }
    let done = File::open(directory).and_then(|d| d.sync_all());
    done.map_err(|e| StoreError::io("fsync the directory", directory, e))?;
    #[cfg(test)]
    log::tell(&directory.join("names"), Change::FsyncDirectory);
    Ok(())
}

/// Gives `from` the name `to`, which may be taken. Nothing happens where there is no `from`.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let _done = present("rename", from, std::fs::rename(from, to))?;
    #[cfg(test)]
    if _done.is_some() {
        log::tell(from, Change::Rename { to: log::name(to) });
    }
    Ok(())
}

/// Removes `path`, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let _done = present("delete", path, std::fs::remove_file(path))?;
    #[cfg(test)]
    if _done.is_some() {
        log::tell(path, Change::Remove);
    }
    Ok(())
}

fn present<T>(doing: &'static str, path: &Path, done: io::Result<T>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io(doing, path, e)),
    }
}
