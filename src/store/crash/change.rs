//! What a log of changes to the files of one directory is made of: here it comes from SQLite's calls, in the stories of the
//! real binaries from strace.

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
    /// An fsync of the file failed: the kernel takes what was written for clean, and nobody knows what the medium has.
    FsyncFailed,
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
