//! The file system that [`super::super::disk`] stands on in tests: the system's own, or a directory in the memory of this
//! process, where a thread has made one. A proof opens an image some thousand times a minute; a thousand system calls each
//! were most of that.
//!
//! What enters: the calls that `disk` makes of `std::fs`, by the same names. What leaves: the same answers. SQLite comes to
//! the same files by `ram`. Only files that lie right in the directory are kept here, and only for the thread that
//! [`Directory::new`] was called on; whatever else is asked for is asked of the system. Locks and the index of the log are of the process.

use super::log;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Error, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A file in memory, with and without a name.
#[derive(Debug)]
pub(crate) struct Inode {
    no: u64,
    bytes: Mutex<Vec<u8>>,
    /// What SQLite's connections share of it.
    pub(super) shared: Mutex<super::ram::Shared>,
}

impl Inode {
    fn holding(bytes: Vec<u8>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let no = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { no, bytes: Mutex::new(bytes), shared: Mutex::default() })
    }

    pub(super) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is; how much that was.
    pub(super) fn read_at(&self, into: &mut [u8], at: u64) -> usize {
        let bytes = self.bytes();
        let from = (at as usize).min(bytes.len());
        let n = into.len().min(bytes.len() - from);
        into[..n].copy_from_slice(&bytes[from..from + n]);
        n
    }

    pub(super) fn write_at(&self, from: &[u8], at: u64) {
        let mut bytes = self.bytes();
        let (at, end) = (at as usize, at as usize + from.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(from);
    }
}

struct Names {
    at: PathBuf,
    files: BTreeMap<String, Arc<Inode>>,
}

thread_local! {
    static NAMES: RefCell<Option<Names>> = const { RefCell::new(None) };
}

/// A directory in memory, for as long as it lives.
pub(crate) struct Directory(());

impl Directory {
    /// Takes the place of the directory `at`, which is there and keeps what isn't asked for here, as locks. It is empty.
    pub(crate) fn new(at: &Path) -> Self {
        super::vfs::register();
        NAMES.with(|names| *names.borrow_mut() = Some(Names { at: at.to_owned(), files: BTreeMap::new() }));
        Self(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        NAMES.with(|names| *names.borrow_mut() = None);
    }
}

/// Whether this thread has one.
pub(crate) fn in_memory() -> bool {
    NAMES.with(|names| names.borrow().is_some())
}

/// Does `work` on the names, if `path` is one of those in memory.
fn here<T>(path: &Path, work: impl FnOnce(&mut BTreeMap<String, Arc<Inode>>, String) -> T) -> Option<T> {
    NAMES.with(|names| {
        let mut names = names.borrow_mut();
        let names = names.as_mut().filter(|names| path.parent() == Some(&names.at))?;
        Some(work(&mut names.files, log::name(path)))
    })
}

fn missing() -> Error {
    Error::from(ErrorKind::NotFound)
}

/// The file at `path`, if that lies in memory; an error where it isn't there.
pub(super) fn inode(path: &Path) -> Option<io::Result<Arc<Inode>>> {
    here(path, |files, name| files.get(&name).cloned().ok_or_else(missing))
}

/// The same; made where it is missing.
pub(super) fn make(path: &Path) -> Option<Arc<Inode>> {
    here(path, |files, name| Arc::clone(files.entry(name).or_insert_with(|| Inode::holding(Vec::new()))))
}

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    System(std::fs::File),
    Memory(Arc<Inode>),
}

impl File {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.set_len(bytes),
            Self::Memory(inode) => {
                inode.bytes().resize(bytes as usize, 0);
                Ok(())
            }
        }
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        if let Self::System(file) = self { file.sync_all() } else { Ok(()) }
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        if let Self::System(file) = self { file.sync_data() } else { Ok(()) }
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::System(file) => file.metadata().map(Metadata::System),
            Self::Memory(inode) => Ok(Metadata::Memory(Arc::clone(inode))),
        }
    }
}

impl FileExt for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::System(file) => file.read_at(into, at),
            Self::Memory(inode) => Ok(inode.read_at(into, at)),
        }
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        match self {
            Self::System(file) => file.write_at(from, at),
            Self::Memory(inode) => {
                inode.write_at(from, at);
                Ok(from.len())
            }
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        /// For advice about what no kernel has.
        static NOTHING: LazyLock<std::fs::File> =
            LazyLock::new(|| std::fs::File::open("/dev/null").expect("every system has it"));
        match self {
            Self::System(file) => file.as_fd(),
            Self::Memory(_) => NOTHING.as_fd(),
        }
    }
}

/// How a file is opened.
pub(crate) struct OpenOptions {
    system: std::fs::OpenOptions,
    create: bool,
}

impl OpenOptions {
    pub(crate) fn new() -> Self {
        Self { system: std::fs::OpenOptions::new(), create: false }
    }

    pub(crate) fn read(mut self, read: bool) -> Self {
        self.system.read(read);
        self
    }

    pub(crate) fn write(mut self, write: bool) -> Self {
        self.system.write(write);
        self
    }

    pub(crate) fn truncate(mut self, truncate: bool) -> Self {
        assert!(!truncate, "nothing in the store opens a file so");
        self.system.truncate(truncate);
        self
    }

    pub(crate) fn create(mut self, create: bool) -> Self {
        self.system.create(create);
        self.create = create;
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.system.mode(mode);
        self
    }

    pub(crate) fn open(self, path: &Path) -> io::Result<File> {
        let found = if self.create { make(path).map(Ok) } else { inode(path) };
        match found {
            Some(found) => found.map(File::Memory),
            // A directory is opened to be fsynced: in memory there is nothing to wait for.
            None => self.system.open(path).map(File::System),
        }
    }
}

/// What is known of a file beside its content.
pub(crate) enum Metadata {
    System(std::fs::Metadata),
    Memory(Arc<Inode>),
}

impl Metadata {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::System(metadata) => metadata.len(),
            Self::Memory(inode) => inode.bytes().len() as u64,
        }
    }

    pub(crate) fn dev(&self) -> u64 {
        match self {
            Self::System(metadata) => std::os::unix::fs::MetadataExt::dev(metadata),
            Self::Memory(_) => 0,
        }
    }

    pub(crate) fn ino(&self) -> u64 {
        match self {
            Self::System(metadata) => std::os::unix::fs::MetadataExt::ino(metadata),
            Self::Memory(inode) => inode.no,
        }
    }
}

pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    match inode(path) {
        Some(found) => found.map(Metadata::Memory),
        None => std::fs::metadata(path).map(Metadata::System),
    }
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match inode(path) {
        Some(found) => found.map(|inode| inode.bytes().clone()),
        None => std::fs::read(path),
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let moved = here(from, |files, name| {
        let inode = files.remove(&name).ok_or_else(missing)?;
        files.insert(log::name(to), inode);
        Ok(())
    });
    moved.unwrap_or_else(|| std::fs::rename(from, to))
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    let removed = here(path, |files, name| files.remove(&name).map(drop).ok_or_else(missing));
    removed.unwrap_or_else(|| std::fs::remove_file(path))
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let kept = here(&directory.join("names"), |files, _| files.keys().map(OsString::from).collect());
    match kept {
        Some(names) => Ok(names),
        None => std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect(),
    }
}

/// Has `directory` hold `files` and nothing else, but for what a system's directory has beside those in memory.
pub(crate) fn lay_out(directory: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let laid = here(&directory.join("names"), |held, _| {
        *held = files.iter().map(|(name, bytes)| (name.clone(), Inode::holding(bytes.clone()))).collect();
    });
    if laid.is_some() {
        return Ok(());
    }
    for name in names(directory)? {
        std::fs::remove_file(directory.join(name))?;
    }
    files.iter().try_for_each(|(name, bytes)| std::fs::write(directory.join(name), bytes))
}
