//! Why a file can't be read, and what whoever asked may do about it.

use super::file::FORMAT_MAJOR;
use super::reader::MAX_ATTACHED;
use crate::fault::{Exit, Fault, Verdict};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a file can't be read. Every text ends with what to do.
#[derive(Debug)]
pub enum ReadError {
    /// There is no such file.
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// A database, but not a store.
    NotAStore {
        /// Which.
        path: PathBuf,
    },
    /// Written by a newer major version.
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        major: i64,
    },
    /// It has a `-wal` and no `-shm`, and we may not make one.
    NeedsShm {
        /// Which.
        path: PathBuf,
    },
    /// More replicas than one connection takes.
    TooMany {
        /// How many there are.
        files: usize,
    },
    /// SQLite says no.
    Sqlite {
        /// What was tried, as a verb that takes the path as its object.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What SQLite answered.
        source: rusqlite::Error,
    },
    /// The statement that was asked for is wrong, or was interrupted.
    Statement {
        /// What SQLite says of it.
        source: rusqlite::Error,
    },
    /// The statement would write, or reach beyond what was opened.
    Writes,
    /// A question to the service is beyond what it does beside its work.
    TooMuch {
        /// What it would have been.
        what: &'static str,
    },
    /// Segments that the answer needed can't be read.
    Damaged {
        /// How many.
        segments: u64,
        /// The first few, in words.
        first: String,
    },
    /// Whoever asked for it asked to stop, before anything had its name.
    Interrupted,
    /// Whoever asked for it asked to stop, after some of it was written.
    CutShort,
    /// The file system says no.
    Io {
        /// What was tried, as a verb that takes the path as its object.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The disk that is written to is full.
    NoRoom {
        /// Which file is being written.
        path: PathBuf,
    },
    /// What is to be written to is no file that `varved pull` wrote.
    NotPulled {
        /// Which.
        path: PathBuf,
    },
    /// What is to be written over is a database in use, or was when its machine stopped.
    Live {
        /// Which.
        path: PathBuf,
        /// The file that shows it.
        wal: PathBuf,
    },
    /// What is to be written is there already.
    Exists {
        /// Which.
        path: PathBuf,
    },
}

impl ReadError {
    pub(super) fn sql(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::NoRoom { path: path.to_owned() };
        }
        Self::Sqlite { doing, path: path.to_owned(), source }
    }

    pub(super) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::NoRoom { path: path.to_owned() };
        }
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether it is an interrupt (Ctrl-C), which is no fault.
    pub fn is_interrupt(&self) -> bool {
        let (Self::Statement { source } | Self::Sqlite { source, .. }) = self else {
            return matches!(self, Self::Interrupted | Self::CutShort);
        };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
    }

    /// Whether a part of the file can't be read: others may be whole.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
        let (Self::Statement { source } | Self::Sqlite { source, .. }) = self else {
            return matches!(self, Self::Damaged { .. });
        };
        matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SystemIoFailure))
    }

    fn code(&self) -> Option<rusqlite::ErrorCode> {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code(),
            _ => None,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase, PermissionDenied};
        match self {
            Self::Missing { path } => {
                write!(
                    f,
                    "{}: no such file; name the store with --db, such as /var/lib/varved/varved.db",
                    path.display()
                )
            }
            Self::NotAStore { path } => write!(
                f,
                "{}: an SQLite file, but not a store of varved; name one that `varved run` or `snapshot` wrote",
                path.display()
            ),
            Self::Newer { path, major } => write!(
                f,
                "{}: format {major} is newer than this varved reads ({FORMAT_MAJOR}); use a newer varved",
                path.display()
            ),
            Self::NeedsShm { path } => write!(
                f,
                "{}: its -wal has no -shm beside it and you may not make one there; run this as the file's owner, or copy \
                 the file and its -wal together to a directory of yours and read the copy",
                path.display()
            ),
            Self::TooMany { files } => write!(
                f,
                "{files} files are more than the {} that can be read at once; query or export them one by one",
                MAX_ATTACHED + 1
            ),
            Self::Sqlite { doing, path, source } => {
                let advice = match self.code() {
                    Some(DatabaseBusy | DatabaseLocked) => {
                        "another program has it locked: try again; under locking = \"exclusive\" only `varved query --config F` \
                         is answered while the service runs"
                    }
                    Some(DatabaseCorrupt) => "it is damaged: `varved verify` says what of it is readable",
                    Some(NotADatabase) => "it is not an SQLite file: check the path",
                    Some(PermissionDenied | rusqlite::ErrorCode::CannotOpen) => {
                        "check that you may read the file and its directory"
                    }
                    _ => "see the kernel log for errors of the medium, or try `varved verify`",
                };
                write!(f, "cannot {doing} {}: {source}; {advice}", path.display())
            }
            Self::Interrupted => write!(f, "interrupted: nothing was written; run it again"),
            Self::TooMuch { what } => write!(
                f,
                "{what} is too much for the service beside its work; narrow the question, or stop the service and ask \
                 the file"
            ),
            Self::Damaged { segments, first } => {
                write!(f, "{segments} segments that the answer needs can't be read ({first}); see `varved verify`")
            }
            Self::CutShort => write!(f, "interrupted: what was written is not all; run it again"),
            _ if self.is_interrupt() => write!(f, "interrupted: what was printed is not all; run it again"),
            Self::Statement { source } => {
                write!(f, "{source}; `varved query` without a statement shows the tables and examples")
            }
            Self::Writes => {
                write!(
                    f,
                    "the statement would write, or reach for other files (ATTACH), and it may only read; write a SELECT"
                )
            }
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}; check the directory and its free space", path.display())
            }
            Self::NoRoom { path } => {
                write!(
                    f,
                    "no room for {}: free space on its disk, or name a file on another, and run it again",
                    path.display()
                )
            }
            Self::NotPulled { path } => write!(
                f,
                "{} is there already, and not a file that `varved pull` wrote in this form; name another file",
                path.display()
            ),
            Self::Live { path, wal } => write!(
                f,
                "{} can't be replaced: {} beside it says that it is in use; name another file",
                path.display(),
                wal.display()
            ),
            Self::Exists { path } => {
                write!(f, "{} is there already; name another file, or replace it with --force", path.display())
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite { source, .. } | Self::Statement { source } => Some(source),
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Fault for ReadError {
    fn verdict(&self) -> Verdict {
        match self.exit() {
            Exit::TryAgain => Verdict::Retry,
            _ => Verdict::Reject,
        }
    }

    fn exit(&self) -> Exit {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
        match (self, self.code()) {
            _ if self.is_interrupt() => Exit::TryAgain,
            (Self::Sqlite { .. }, Some(DatabaseBusy | DatabaseLocked)) => Exit::TryAgain,
            (Self::Sqlite { .. }, Some(DatabaseCorrupt | NotADatabase)) => Exit::Data,
            (Self::Sqlite { .. } | Self::Io { .. } | Self::NoRoom { .. } | Self::NeedsShm { .. }, _) => Exit::Io,
            (Self::Missing { .. }, _) => Exit::Unavailable,
            (Self::NotAStore { .. } | Self::Newer { .. } | Self::Damaged { .. }, _) => Exit::Data,
            (Self::Interrupted | Self::CutShort, _) => Exit::TryAgain,
            (Self::TooMany { .. } | Self::TooMuch { .. }, _) => Exit::Usage,
            (Self::Statement { .. } | Self::Writes, _) => Exit::Usage,
            (Self::Live { .. } | Self::Exists { .. } | Self::NotPulled { .. }, _) => Exit::Usage,
        }
    }
}
