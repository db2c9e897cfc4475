//! What the store writes beside SQLite: the high-water mark, the log's reserve, names that move and go.
//!
//! What enters: a path and what is to be done there. What leaves: that it was done, or a [`StoreError`] that names the path.
//! Every read, write, fsync, move and removal of plain files in this room comes through here, so that it can be seen in one
//! place which of them a power cut may undo: a write until [`PlainFile::fsync`], a name until [`fsync_directory`]. In tests it
//! is also told to the recorder, between the calls that SQLite makes, and the files may lie in memory. It decides nothing and
//! retries nothing.

#[cfg(test)]
use super::crash::{change::Change, files, log};
use super::error::StoreError;
use files::{File, OpenOptions};
use rustix::fs::{Advice, fadvise};
use std::ffi::OsString;
#[cfg(not(test))]
use std::fs as files;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
#[cfg(not(test))]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
        let missing = !exists(path)?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path);
        let file = opened.map_err(|e| StoreError::io("open", path, e))?;
        #[cfg(test)]
        if missing {
            log::tell(path, || Change::Create);
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
        log::tell(&self.path, || Change::Write { at, bytes: bytes.into() });
        Ok(())
    }

    /// Cuts the file, or extends it by zeros.
    pub(crate) fn set_length(&self, bytes: u64) -> Result<(), StoreError> {
        self.file.set_len(bytes).map_err(|e| self.fail("cut", e))?;
        #[cfg(test)]
        log::tell(&self.path, || Change::SetLength(bytes));
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
        log::tell(&self.path, || Change::Fsync);
        Ok(())
    }

    /// Has the kernel forget what it holds of the file, and look at the medium when it is read next. Advice only: a file
    /// system that has none of it goes on with what it has.
    pub(crate) fn forget(&self) {
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Its bytes, from the first on.
    pub(crate) fn reader(&self) -> impl io::Read + '_ {
        FromStart { file: &self.file, at: 0 }
    }

    fn fail(&self, doing: &'static str, e: io::Error) -> StoreError {
        StoreError::io(doing, &self.path, e)
    }
}

struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(into, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Device and inode.
    pub(crate) id: (u64, u64),
    /// Its length.
    pub(crate) bytes: u64,
}

/// What `path` leads to; `None` where there is nothing.
pub(crate) fn look_at(path: &Path) -> Result<Option<Found>, StoreError> {
    let found = present("look at", path, files::metadata(path))?;
    Ok(found.map(|meta| Found { id: (meta.dev(), meta.ino()), bytes: meta.len() }))
}

/// Whether there is something at `path`.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    look_at(path).map(|found| found.is_some())
}

/// All that `path` holds; `None` where it isn't there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    present("read", path, files::read(path))
}

/// The names in a directory; those that can't be read are left out.
pub(crate) fn names(directory: &Path) -> Result<Vec<OsString>, StoreError> {
    #[cfg(not(test))]
    let names = files::read_dir(directory).map(|all| all.flatten().map(|entry| entry.file_name()).collect());
    #[cfg(test)]
    let names = files::names(directory);
    names.map_err(|e| StoreError::io("list", directory, e))
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
    log::tell(&directory.join("names"), || Change::FsyncDirectory);
    Ok(())
}

/// Gives `from` the name `to`, which may be taken. Nothing happens where there is no `from`.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let _done = present("rename", from, files::rename(from, to))?;
    #[cfg(test)]
    if _done.is_some() {
        log::tell(from, || Change::Rename { to: log::name(to) });
    }
    Ok(())
}

/// Removes `path`, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let _done = present("delete", path, files::remove_file(path))?;
    #[cfg(test)]
    if _done.is_some() {
        log::tell(path, || Change::Remove);
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
