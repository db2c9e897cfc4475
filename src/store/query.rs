//! Read-only SQL over stores and plain files: what `varved query` and `varved-fleet query` run.
//!
//! What enters: a statement. What leaves: the names of its columns, then row by row its values, nothing collected. It promises that
//! nothing is written whatever the statement says: the files are opened read-only, `query_only` is on, and `ATTACH` is
//! refused once the session is open.

use super::reader::{ReadError, Reader};
use super::rollup::sum;
use super::scan::Tally;
use super::vtab::{self, SharedTally};
use crate::clock::UtcNanos;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, params_from_iter};
use serde_json::{Value as Json, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};

/// A connection for statements, with the table `reading` where the files are stores.
#[derive(Debug)]
pub struct Session {
    reader: Reader,
    tally: Option<SharedTally>,
    figures: FiguresCheck,
}

/// Whether the sum over the figures is due to be looked at: with the first statement that reads them.
#[derive(Debug, Clone, Default)]
struct FiguresCheck(Arc<AtomicU8>);

const NOT_YET: u8 = 0;
const DUE: u8 = 1;
const DONE: u8 = 2;

impl FiguresCheck {
    /// A statement was compiled that reads `table`.
    fn reads(&self, table: &str) {
        if matches!(table, "rollup" | "rollup_day") {
            let _ = self.0.compare_exchange(NOT_YET, DUE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Looks, where it is due, and takes down in `tally` what is wrong.
    fn look(&self, conn: &Connection, tally: &SharedTally) -> rusqlite::Result<()> {
        if self.0.compare_exchange(DUE, DONE, Ordering::Relaxed, Ordering::Relaxed).is_ok() && !sum::adds_up(conn)? {
            tally.lock().unwrap_or_else(PoisonError::into_inner).figures_are_damaged();
        }
        Ok(())
    }
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A double.
    Real(f64),
    /// Text; what isn't UTF-8 in it is shown as U+FFFD by whoever prints it.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

/// Who takes the rows; an error of its own ends the statement.
pub trait Sink {
    /// What goes wrong where it writes.
    type Error;
    /// The columns, once, before the first row.
    fn columns(&mut self, names: &[&str]) -> Result<(), Self::Error>;
    /// A row of as many fields.
    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Self::Error>;
}

/// Why a statement ended early.
#[derive(Debug)]
pub enum Stopped<E> {
    /// By the database.
    Read(ReadError),
    /// By the sink.
    Sink(E),
}

impl Session {
    /// Opens a store, or a file of plain rows.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::over(Reader::open_any(path)?)
    }

    /// Opens the replicas of a device as one.
    pub fn open_all(paths: &[PathBuf]) -> Result<Self, ReadError> {
        Self::over(Reader::open_all(paths)?)
    }

    fn over(reader: Reader) -> Result<Self, ReadError> {
        let tally = match reader.is_store()? {
            true => Some(vtab::register(reader.connection()).map_err(|e| reader.sql("open", e))?),
            false => None,
        };
        let figures = FiguresCheck::default();
        let check = figures.clone();
        let authorizer = move |context: AuthContext<'_>| match context.action {
            AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
            AuthAction::Read { table_name, .. } => {
                check.reads(table_name);
                Authorization::Allow
            }
            _ => Authorization::Allow,
        };
        reader.connection().authorizer(Some(authorizer)).map_err(|e| reader.sql("open", e))?;
        Ok(Self { reader, tally, figures })
    }

    /// Runs one statement to its end.
    pub fn run<S: Sink>(&self, sql: &str, sink: &mut S) -> Result<(), Stopped<S::Error>> {
        self.run_with(sql, &[], sink)
    }

    /// The same, with a value for each `?` of the statement. One that was run before is not compiled again.
    ///
    /// # Errors
    /// [`ReadError::Statement`] also where there are more or fewer values than `?`.
    pub fn run_with<S: Sink>(
        &self,
        sql: &str,
        parameters: &[Field<'_>],
        sink: &mut S,
    ) -> Result<(), Stopped<S::Error>> {
        let mut statement = self.reader.connection().prepare_cached(sql).map_err(refused)?;
        if let Some(tally) = &self.tally {
            self.figures.look(self.reader.connection(), tally).map_err(refused)?;
        }
        step_through(&mut statement, parameters, sink)
    }

    /// What the statements so far have seen of segments, and could not read; all zero for plain files.
    pub fn tally(&self) -> Tally {
        self.tally
            .as_ref()
            .map_or_else(Tally::default, |tally| tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// What ends the statement that runs, from another thread.
    pub fn interrupter(&self) -> Interrupter {
        self.reader.interrupter()
    }

    /// The file that was opened, or the first of several.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }
}

/// Why a statement can't be compiled.
fn refused<E>(source: rusqlite::Error) -> Stopped<E> {
    Stopped::Read(match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => ReadError::Writes,
        _ => ReadError::Statement { source },
    })
}

/// Rows of no more columns than this are handed over without an allocation.
const FEW: usize = 8;

fn step_through<S: Sink>(
    statement: &mut Statement<'_>,
    parameters: &[Field<'_>],
    sink: &mut S,
) -> Result<(), Stopped<S::Error>> {
    let fail = |source| Stopped::Read(ReadError::Statement { source });
    if !statement.readonly() {
        return Err(Stopped::Read(ReadError::Writes));
    }
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    sink.columns(&names.iter().map(String::as_str).collect::<Vec<_>>()).map_err(Stopped::Sink)?;
    let mut rows = statement.query(params_from_iter(parameters)).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let (mut few, mut many);
        let fields: &mut [Field<'_>] = if names.len() <= FEW {
            few = [Field::Null; FEW];
            &mut few[..names.len()]
        } else {
            many = vec![Field::Null; names.len()];
            &mut many
        };
        for (index, field) in fields.iter_mut().enumerate() {
            *field = match row.get_ref(index).map_err(fail)? {
                ValueRef::Null => Field::Null,
                ValueRef::Integer(value) => Field::Int(value),
                ValueRef::Real(value) => Field::Real(value),
                ValueRef::Text(text) => Field::Text(text),
                ValueRef::Blob(bytes) => Field::Blob(bytes),
            };
        }
        sink.row(fields).map_err(Stopped::Sink)?;
    }
    Ok(())
}

/// The most that the service answers one question with, in bytes of JSON, nearly.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The most work that one question to the service may be, in steps of SQLite's machine: commits wait meanwhile.
pub const MAX_ANSWER_STEPS: u32 = 10_000_000;

impl super::Store {
    /// Runs one read-only statement on the connection that writes, and gives `{"columns": […], "rows": [[…]]}`: a row is as
    /// long as there are columns, whatever their names. For exclusive locking, where nobody else can read. Bounded in size
    /// and work; what the statement could change is refused.
    ///
    /// # Errors
    /// [`ReadError::TooMuch`] beyond the bounds, [`ReadError::Damaged`] where segments it needed can't be read.
    pub fn query(&self, sql: &str) -> Result<Json, ReadError> {
        let guarded = Guarded::begin(&self.conn).map_err(|e| ReadError::sql("query", &self.path, e))?;
        let mut answer = Answer::default();
        let compiled = self.conn.prepare(sql).map_err(refused);
        let ran = compiled.and_then(|mut statement| {
            guarded.figures.look(&self.conn, &guarded.tally).map_err(refused)?;
            step_through(&mut statement, &[], &mut answer)
        });
        let tally = guarded.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match ran {
            Ok(()) if tally.unreadable == 0 => Ok(json!({ "columns": answer.names, "rows": answer.rows })),
            Ok(()) => Err(ReadError::Damaged { segments: tally.unreadable, first: tally.reasons.join("; ") }),
            Err(Stopped::Sink(TooLong)) => Err(ReadError::TooMuch { what: "an answer of more than 1 MiB" }),
            Err(Stopped::Read(error)) if error.is_interrupt() => Err(ReadError::TooMuch { what: "a longer search" }),
            Err(Stopped::Read(error)) => Err(error),
        }
    }
}

/// The connection that writes, for the time of a question: nothing but reading gets through, and not for ever.
struct Guarded<'a> {
    conn: &'a Connection,
    tally: SharedTally,
    figures: FiguresCheck,
}

impl<'a> Guarded<'a> {
    fn begin(conn: &'a Connection) -> rusqlite::Result<Self> {
        let guarded = Self { conn, tally: vtab::register(conn)?, figures: FiguresCheck::default() };
        let check = guarded.figures.clone();
        conn.pragma_update(None, "query_only", true)?;
        conn.authorizer(Some(move |context: AuthContext<'_>| match context.action {
            AuthAction::Read { table_name, .. } => {
                check.reads(table_name);
                Authorization::Allow
            }
            AuthAction::Select | AuthAction::Function { .. } | AuthAction::Recursive => Authorization::Allow,
            // What `reading` asks, and what tells a table's columns; none of these sets anything.
            AuthAction::Pragma {
                pragma_name: "database_list" | "data_version" | "table_info" | "table_list", ..
            } => Authorization::Allow,
            _ => Authorization::Deny,
        }))?;
        let mut steps = 0_u32;
        conn.progress_handler(
            1_000,
            Some(move || {
                steps += 1_000;
                steps > MAX_ANSWER_STEPS
            }),
        )?;
        Ok(guarded)
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let no_authorizer = None::<fn(AuthContext<'_>) -> Authorization>;
        let lifted = self
            .conn
            .authorizer(no_authorizer)
            .and_then(|()| self.conn.progress_handler(0, None::<fn() -> bool>))
            .and_then(|()| self.conn.pragma_update(None, "query_only", false));
        if let Err(error) = lifted {
            // The next commit fails and says so; readings wait in RAM.
            log::error!("store: the guard of a query was not lifted: {error}");
        }
    }
}

/// Rows as JSON, up to a bound.
#[derive(Default)]
struct Answer {
    names: Vec<String>,
    rows: Vec<Json>,
    bytes: usize,
}

/// An answer beyond [`MAX_ANSWER_BYTES`].
struct TooLong;

impl Sink for Answer {
    type Error = TooLong;

    fn columns(&mut self, names: &[&str]) -> Result<(), TooLong> {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), TooLong> {
        let texts = fields.iter().map(|field| match field {
            Field::Text(bytes) | Field::Blob(bytes) => 2 * bytes.len(),
            _ => 24,
        });
        self.bytes += texts.sum::<usize>();
        self.rows.push(fields.iter().map(|field| field.to_json()).collect());
        if self.bytes > MAX_ANSWER_BYTES { Err(TooLong) } else { Ok(()) }
    }
}

impl ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Real(number) => ValueRef::Real(number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Field<'_> {
    /// As JSON: null for what it has no number for, a blob in hex.
    fn to_json(self) -> Json {
        match self {
            Field::Null => Json::Null,
            Field::Int(number) => Json::from(number),
            Field::Real(number) => Json::from(number),
            Field::Text(text) => Json::from(String::from_utf8_lossy(text)),
            Field::Blob(bytes) => Json::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        }
    }
}

/// A date or a date and time as SQLite reads them (sqlite.org/lang_datefunc.html), in UTC where it ends with `Z` or an
/// offset, otherwise in this machine's time zone. To the millisecond. `None` where it is neither.
pub fn parse_date_time(text: &str) -> Option<UtcNanos> {
    // SQLite would take a bare number for a Julian day and a bare time for one of the year 2000.
    let dated = text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-');
    let time = text.get(10..).unwrap_or_default();
    let zoned = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let sql = if zoned { "SELECT unixepoch(?1, 'subsec')" } else { "SELECT unixepoch(?1, 'utc', 'subsec')" };
    let conn = rusqlite::Connection::open_in_memory().ok().filter(|_| dated)?;
    let seconds = conn.query_row(sql, [text], |row| row.get::<_, Option<f64>>(0)).ok().flatten()?;
    let millis = (seconds * 1e3).round();
    (millis.abs() < 9.2e15).then_some(UtcNanos(millis as i64 * 1_000_000))
}

/// See [`Session::interrupter`].
pub struct Interrupter(pub(super) rusqlite::InterruptHandle);

impl Interrupter {
    /// Ends the statement that runs with [`ReadError::is_interrupt`]. Does nothing when none runs.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupter")
    }
}

#[cfg(test)]
mod predicates;
#[cfg(test)]
mod tests;
