//! What can go wrong in the store, and what the one who called may do about it.
//!
//! Nearly all of it is [`Verdict::Retry`]: readings stay in RAM within their bound, the connection stays open, and the
//! same call is made again. After a failed fsync the kernel marks the pages clean although the medium lacks them, so to
//! close and reopen, or to exit, would turn a retry into a loss (docs/store.md, "Failed writes").

use crate::fault::{Exit, Fault, Verdict};
use crate::segment::SegmentError;
use std::fmt;
use std::path::{Path, PathBuf};

/// A fault of the store.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has this file.
    InUse {
        /// The database.
        path: PathBuf,
        /// The other process, where it could be read.
        pid: Option<u32>,
    },
    /// The file system said no.
    Io {
        /// What was tried, as a verb phrase.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// There is no room: the medium is full, or the file has reached `max_size` and nothing may be expired.
    Full {
        /// The database.
        path: PathBuf,
    },
    /// A reader has kept the log from being begun anew, and it has reached its bound.
    Held {
        /// The database.
        path: PathBuf,
        /// Other processes that have it open, as far as `/proc` shows them.
        pids: Vec<u32>,
    },
    /// Another connection holds a lock for longer than the busy timeout.
    Busy {
        /// What was tried, as a verb phrase.
        doing: &'static str,
    },
    /// SQLite answered with an error that is none of the others.
    Sqlite {
        /// What was tried, as a verb phrase.
        doing: &'static str,
        /// What SQLite answered.
        source: rusqlite::Error,
    },
    /// The file holds what no version of varved writes. The next open sets it aside and salvages it.
    Damaged {
        /// Where.
        what: String,
    },
    /// The open file lost its name: all of it was written anew, and that is opened now.
    Moved {
        /// The name.
        path: PathBuf,
    },
    /// A setting did not take: what this build or file system gives is not what durability needs.
    Setting {
        /// The pragma.
        name: &'static str,
        /// What was asked for.
        wanted: String,
        /// What is in force.
        got: String,
    },
    /// The file was written by a newer major version.
    Newer {
        /// Its major format version.
        major: i64,
    },
    /// A segment could not be encoded or decoded.
    Segment(SegmentError),
    /// A number that the format bounds is used up.
    Exhausted {
        /// Which.
        what: &'static str,
    },
}

impl StoreError {
    /// An error of the file system.
    pub(crate) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full { path: path.to_owned() };
        }
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether a part of a file could not be read: on a worn medium it never will be. (Where SQLite reads, it says itself that
    /// the file is damaged.)
    pub(crate) fn is_unreadable(&self) -> bool {
        let eio = rustix::io::Errno::IO.raw_os_error();
        matches!(self, Self::Io { doing: "read", source, .. } if source.raw_os_error() == Some(eio))
    }

    /// What SQLite's answer means here.
    pub(crate) fn sql(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
        match source.sqlite_error_code() {
            Some(DiskFull) => Self::Full { path: path.to_owned() },
            Some(DatabaseBusy | DatabaseLocked) => Self::Busy { doing },
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Damaged { what: format!("{}: {doing}: {source}", path.display()) }
            }
            _ => Self::Sqlite { doing, source },
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path, pid: Some(pid) } => {
                write!(f, "{} is in use by process {pid}: stop it, or give this one another store.path", path.display())
            }
            Self::InUse { path, pid: None } => {
                write!(
                    f,
                    "{} is in use by another process: stop it, or give this one another store.path",
                    path.display()
                )
            }
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}; {}", path.display(), remedy(source))
            }
            Self::Full { path } => write!(
                f,
                "no room for {}: free space on its file system, or raise store.max_size if `varved status` shows it reached",
                path.display()
            ),
            Self::Held { path, pids } if pids.is_empty() => {
                write!(
                    f,
                    "a long read of {} holds its WAL at the bound: end it, commits go on by themselves",
                    path.display()
                )
            }
            Self::Held { path, pids } => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                let (path, pids) = (path.display(), pids.join(", "));
                write!(
                    f,
                    "a long read of {path} holds its WAL at the bound: end process {pids}, commits go on by themselves"
                )
            }
            Self::Busy { doing } => {
                write!(f, "cannot {doing}: another program holds the database locked; close it, it will be tried again")
            }
            Self::Sqlite { doing, source } => {
                write!(
                    f,
                    "cannot {doing}: {source}; it will be tried again, see the kernel log for errors of the medium"
                )
            }
            Self::Damaged { what } => {
                write!(f, "damaged: {what}; restart varved, it sets the file aside and salvages what is readable")
            }
            Self::Moved { path } => write!(
                f,
                "{} was moved, deleted or replaced while it was open; what was committed has been written anew, stop varved \
                 before its files are changed",
                path.display()
            ),
            Self::Setting { name, wanted, got } => write!(
                f,
                "SQLite has {name} = {got} where {wanted} is needed; put store.path on a local file system and use the \
                 SQLite that varved is built with"
            ),
            Self::Newer { major } => {
                write!(
                    f,
                    "the file has format {major}, newer than this varved knows; install the newer version to read it"
                )
            }
            Self::Segment(source) => write!(f, "{source}"),
            Self::Exhausted { what } => {
                write!(f, "no {what} is left in this file; move it away, varved then begins a new one")
            }
        }
    }
}

/// What an operator can do about an error of the file system.
fn remedy(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::NotFound => "create its directory or correct store.path",
        ErrorKind::PermissionDenied => "give the user that varved runs as write access to the directory",
        ErrorKind::ReadOnlyFilesystem => "remount it writable; if the kernel made it read-only, check the medium",
        _ => "see the kernel log for errors of the medium",
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Sqlite { source, .. } => Some(source),
            Self::Segment(source) => Some(source),
            _ => None,
        }
    }
}

impl Fault for StoreError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::InUse { .. }
            | Self::Io { .. }
            | Self::Full { .. }
            | Self::Held { .. }
            | Self::Busy { .. }
            | Self::Moved { .. }
            | Self::Sqlite { .. } => Verdict::Retry,
            Self::Segment(_) => Verdict::Reject,
            Self::Damaged { .. } | Self::Setting { .. } | Self::Newer { .. } | Self::Exhausted { .. } => Verdict::Halt,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } | Self::Held { .. } | Self::Busy { .. } | Self::Moved { .. } => Exit::TryAgain,
            Self::Io { .. } | Self::Full { .. } | Self::Sqlite { .. } => Exit::Io,
            Self::Damaged { .. } | Self::Newer { .. } | Self::Segment(_) | Self::Exhausted { .. } => Exit::Data,
            Self::Setting { .. } => Exit::Config,
        }
    }
}

impl From<SegmentError> for StoreError {
    fn from(source: SegmentError) -> Self {
        Self::Segment(source)
    }
}
