//! The log of everything that reaches the files of one directory, in order.
//!
//! What enters: the calls that SQLite makes below the recorder (`vfs`), what the store does to plain files
//! ([`super::super::disk`]), and marks of the workload: an operation was begun, an operation was acknowledged. What leaves:
//! one list. There is one recorder per thread, since a workload is one thread; without one, nothing is kept. It is also
//! where protections are switched off to see the proof fail.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One change to a file, to a name in the directory, or to what is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The name is new, and so is its file.
    Create,
    /// Bytes were written.
    Write {
        /// At this offset.
        at: u64,
        /// These.
        bytes: Rc<[u8]>,
    },
    /// The file was cut, or extended by zeros.
    SetLength(u64),
    /// All of it so far is on the medium, and from here on the power is cut.
    Settled,
    /// What was written to the file is on the medium.
    Fsync,
    /// What was done to names is on the medium.
    FsyncDirectory,
    /// The file has another name.
    Rename {
        /// This one.
        to: String,
    },
    /// The name is gone.
    Remove,
    /// From here on, what operation `n` brings may be there.
    Begun(usize),
    /// From here on, what operation `n` brought must be there.
    Acknowledged(usize),
}

/// A change, and the name in the directory that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) change: Change,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.change {
            Change::Write { at, bytes } => write!(f, "write {} bytes at {at} of {}", bytes.len(), self.name),
            change => write!(f, "{change:?} {}", self.name),
        }
    }
}

/// Switched off for a negative control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lies {
    /// Every fsync returns without having done anything.
    pub(super) fsync: bool,
}

struct Recorder {
    directory: PathBuf,
    lies: Lies,
    entries: Vec<Entry>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Begins to record what this thread does in `directory`.
pub(super) fn begin(directory: &Path, lies: Lies) {
    super::vfs::register();
    let recorder = Recorder { directory: directory.to_owned(), lies, entries: Vec::new() };
    RECORDER.with(|slot| *slot.borrow_mut() = Some(recorder));
}

/// Ends it; everything since [`begin`].
pub(super) fn end() -> Vec<Entry> {
    RECORDER.with(|slot| slot.borrow_mut().take()).map_or_else(Vec::new, |recorder| recorder.entries)
}

/// Puts a mark into the log.
pub(super) fn mark(change: Change) {
    push(String::new(), change);
}

/// What a URI needs for SQLite to come through the recorder, where this thread records.
pub(crate) fn vfs() -> Option<&'static str> {
    RECORDER.with(|slot| slot.borrow().is_some()).then_some("&vfs=recorder")
}

/// Tells the recorder of this thread, if there is one, what has been done to `path`.
pub(crate) fn tell(path: &Path, change: Change) {
    let here = RECORDER.with(|slot| slot.borrow().as_ref().is_some_and(|r| path.parent() == Some(&r.directory)));
    if here {
        push(name(path), change);
    }
}

/// The name that the log knows `path` by.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn push(name: String, change: Change) {
    RECORDER.with(|slot| {
        if let Some(recorder) = slot.borrow_mut().as_mut() {
            let lie = recorder.lies.fsync && matches!(change, Change::Fsync | Change::FsyncDirectory);
            if !lie {
                recorder.entries.push(Entry { name, change });
            }
        }
    });
}
