//! The log of everything that reaches the files of one directory, in order.
//!
//! What enters: the calls that SQLite makes below the recorder (`vfs`), what the store does to plain files
//! ([`super::super::disk`]), and marks of the workload: an operation was begun, an operation was acknowledged. What leaves:
//! one list. There is one recorder per thread, since a workload is one thread; without one, nothing is kept. It is also
//! where protections are switched off to see the proof fail.

use super::change::{Change, Entry};
use super::files;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Switched off for a negative control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lies {
    /// Every fsync returns without having done anything.
    pub(crate) fsync: bool,
}

/// An fsync that fails with EIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which one, from 0.
    pub(crate) at: usize,
    /// And all behind it.
    pub(crate) forever: bool,
}

struct Recorder {
    directory: PathBuf,
    lies: Lies,
    fault: Option<Fault>,
    fsyncs: usize,
    entries: Vec<Entry>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Begins to record what this thread does in `directory`.
pub(crate) fn begin(directory: &Path, lies: Lies) {
    super::vfs::register();
    let recorder = Recorder { directory: directory.to_owned(), lies, fault: None, fsyncs: 0, entries: Vec::new() };
    RECORDER.with(|slot| *slot.borrow_mut() = Some(recorder));
}

/// Ends it; everything since [`begin`].
pub(crate) fn end() -> Vec<Entry> {
    RECORDER.with(|slot| slot.borrow_mut().take()).map_or_else(Vec::new, |recorder| recorder.entries)
}

/// Puts a mark into the log.
pub(crate) fn mark(change: Change) {
    push(String::new(), change);
}

/// Whether SQLite has to come through the recorder: this thread records, or its files lie in memory.
pub(crate) fn is_between() -> bool {
    files::in_memory() || RECORDER.with(|slot| slot.borrow().is_some())
}

/// `query` of a URI, with which SQLite comes through the recorder where it has to.
pub(crate) fn query(query: &str) -> String {
    match query.contains("vfs=") {
        _ if !is_between() => query.to_owned(),
        false => format!("{query}&vfs=recorder"),
        // Nobody else has a file in memory, so there are no locks to do without.
        true if files::in_memory() => query.replace("vfs=unix-none", "vfs=recorder"),
        true => query.to_owned(),
    }
}

/// Tells the recorder of this thread, if there is one, what has been done to `path`.
pub(crate) fn tell(path: &Path, change: impl FnOnce() -> Change) {
    let here = RECORDER.with(|slot| slot.borrow().as_ref().is_some_and(|r| path.parent() == Some(&r.directory)));
    if here {
        push(name(path), change());
    }
}

/// Has an fsync of this thread fail from now on.
pub(crate) fn plant(fault: Fault) {
    RECORDER.with(|slot| slot.borrow_mut().iter_mut().for_each(|recorder| recorder.fault = Some(fault)));
}

/// How many fsyncs this thread has asked for.
pub(crate) fn fsyncs() -> usize {
    RECORDER.with(|slot| slot.borrow().as_ref().map_or(0, |recorder| recorder.fsyncs))
}

/// Whether the planted fsync has failed.
pub(crate) fn has_failed() -> bool {
    let failed = |r: &Recorder| r.fault.is_some_and(|fault| r.fsyncs > fault.at);
    RECORDER.with(|slot| slot.borrow().as_ref().is_some_and(failed))
}

/// Counts an fsync of `path` that is about to be asked for; true where it fails, and is not to be.
pub(crate) fn fsync_fails(path: &Path) -> bool {
    let fails = RECORDER.with(|slot| {
        let mut slot = slot.borrow_mut();
        let Some(recorder) = slot.as_mut().filter(|r| path.parent() == Some(&r.directory)) else { return false };
        let no = recorder.fsyncs;
        recorder.fsyncs += 1;
        recorder.fault.is_some_and(|fault| no == fault.at || fault.forever && no > fault.at)
    });
    if fails {
        push(name(path), Change::FsyncFailed);
    }
    fails
}

/// What a planted fsync fails with.
pub(crate) fn eio() -> std::io::Error {
    std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
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
