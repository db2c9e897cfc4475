//! Read-only SQL on the service's own connection: what a reader has to go through while locking is exclusive.
//!
//! What enters: one statement. What leaves: its rows, a bounded number of them, after a bounded time: the service commits
//! nothing meanwhile, so neither may hold it up. `ATTACH` and everything that writes is refused.

use super::Store;
use super::query::{Field, Sink, Stopped, run_on};
use super::reader::ReadError;
use super::vtab;
use crate::fault::{Exit, Fault, Verdict};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fmt;
use std::time::{Duration, Instant};

/// The longest that a statement may take.
const MAX_TIME: Duration = Duration::from_secs(2);

/// SQLite's instructions between two looks at the time.
const LOOK_EVERY: i32 = 10_000;

/// The most that the rows may take as text, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The rows of a statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// As many values each. Blobs are hexadecimal text, doubles that JSON has no number for are null.
    pub rows: Vec<Vec<Json>>,
}

/// Why there are no rows.
#[derive(Debug)]
pub enum LiveError {
    /// The statement is wrong, or the file can't be read.
    Read(ReadError),
    /// It took longer than it may.
    TooLong,
    /// It gave more than it may.
    TooMuch,
}

impl fmt::Display for LiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(why) => why.fmt(f),
            Self::TooLong => write!(
                f,
                "the statement took longer than {} s, and the service commits nothing meanwhile; narrow it by series and time, \
                 or read a snapshot",
                MAX_TIME.as_secs()
            ),
            Self::TooMuch => {
                write!(f, "the rows are more than {} KiB; narrow the statement, or read a snapshot", MAX_BYTES / 1024)
            }
        }
    }
}

impl std::error::Error for LiveError {}

impl Fault for LiveError {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Read(why) => why.exit(),
            Self::TooLong | Self::TooMuch => Exit::Unavailable,
        }
    }
}

impl Store {
    /// Runs one statement that only reads.
    ///
    /// # Errors
    /// See [`LiveError`].
    pub fn query(&self, sql: &str) -> Result<Rows, LiveError> {
        let read = |source| LiveError::Read(ReadError::Statement { source });
        vtab::register(&self.conn).map_err(read)?;
        let end = Instant::now() + MAX_TIME;
        self.conn.progress_handler(LOOK_EVERY, Some(move || Instant::now() > end)).map_err(read)?;
        self.conn.authorizer(Some(only_reading)).map_err(read)?;
        let mut taken = Taken::default();
        let ran = run_on(&self.conn, sql, &mut taken);
        // The service's own statements are neither timed nor judged.
        self.conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(read)?;
        self.conn.progress_handler(0, None::<fn() -> bool>).map_err(read)?;
        match ran {
            Ok(()) => Ok(Rows { columns: taken.columns, rows: taken.rows }),
            Err(Stopped::Sink(TooMuch)) => Err(LiveError::TooMuch),
            Err(Stopped::Read(why)) if why.is_interrupt() => Err(LiveError::TooLong),
            Err(Stopped::Read(why)) => Err(LiveError::Read(why)),
        }
    }
}

fn only_reading(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

struct TooMuch;

#[derive(Default)]
struct Taken {
    columns: Vec<String>,
    rows: Vec<Vec<Json>>,
    bytes: usize,
}

impl Sink for Taken {
    type Error = TooMuch;

    fn columns(&mut self, names: &[&str]) -> Result<(), TooMuch> {
        self.columns = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), TooMuch> {
        let row: Vec<Json> = fields.iter().map(value).collect();
        self.bytes += row.iter().map(|v| 16 + v.as_str().map_or(0, str::len)).sum::<usize>();
        if self.bytes > MAX_BYTES {
            return Err(TooMuch);
        }
        self.rows.push(row);
        Ok(())
    }
}

fn value(field: &Field<'_>) -> Json {
    match field {
        Field::Null => Json::Null,
        Field::Int(value) => (*value).into(),
        Field::Real(value) => (*value).into(),
        Field::Text(text) => String::from_utf8_lossy(text).into(),
        Field::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}
