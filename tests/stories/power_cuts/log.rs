//! The log that the medium takes, as in `src/store/crash/log.rs`: there it comes from SQLite's calls, here from strace.

use std::rc::Rc;

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code, reason = "the medium knows marks that nobody sets here")]
pub(super) enum Change {
    Create,
    Write { at: u64, bytes: Rc<[u8]> },
    SetLength(u64),
    Settled,
    Fsync,
    FsyncDirectory,
    Rename { to: String },
    Remove,
    Begun(usize),
    Acknowledged(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) change: Change,
}
