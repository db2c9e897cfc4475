//! `varved query`: read-only SQL with the table `reading`.

use super::args::{Argument, Arguments, Place};
use super::interrupt::watch;
use super::output::{Format, Printer};
#[cfg(feature = "device")]
use super::service::{Cell, Rows, rows_of};
use super::{CliError, Command, output};
use crate::fault::Exit;
use crate::store::query::{Session, Stopped};
use crate::store::scan::Tally;
use std::io::{BufWriter, Write, stdout};

/// The words of `--format`.
pub const FORMATS: [(&str, Format); 3] = [("table", Format::Table), ("csv", Format::Csv), ("json", Format::Json)];

pub(super) const COMMAND: Command =
    Command { name: "query", args: SYNOPSIS, brief: "read-only SQL with the `reading` table", long: EXPLAINED, run };

const SYNOPSIS: &str = "[--config F | --db F] [--format table|csv|json] SQL";

const EXPLAINED: &str = "
  --config F   the configuration whose store is read; default /etc/varved/varved.toml
  --db F       the store itself, a snapshot, or a file of plain rows
  --format F   table (default), csv, or json: one array of objects

Where the configuration says locking = \"exclusive\", nobody but the running service can read the file: then the
service is asked at its control socket, for answers of up to 1 MiB, with NULL for an infinity. Where none runs, the file
is read.

The table `reading` has one row a reading:
  series       measurement/field[,tag=value...]
  time         UTC, integer nanoseconds since 1970
  utc          the same as ISO 8601
  value        in `unit`; NULL where there is none
  unit         SenML symbol
  quality      ok, estimated (the clock was not known then), nan, infinite, or why there is no value
  seq          number of the segment that it came in

Conditions on series (=, GLOB) and time (=, <, >, BETWEEN) are quick: only what they select is decoded. Hourly figures
of the whole history are in `rollup`; `series`, `segment`, `boot`, `event` and `meta` are plain tables. Ctrl-C ends a
query.

  varved query \"SELECT name, unit FROM series\"
  varved query \"SELECT utc, value FROM reading WHERE series = 'cpu/temp' ORDER BY time DESC LIMIT 10\"
  varved query \"SELECT series, count(*), min(value), max(value) FROM reading
                WHERE time > (unixepoch() - 3600) * 1000000000 GROUP BY series\"";

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut db, mut config, mut format, mut sql) = (None, None, Format::Table, None);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "db" => db = Some(arguments.path()?),
            Argument::Option(name) if name == "config" || name == "c" => config = Some(arguments.path()?),
            Argument::Option(name) if name == "format" => format = arguments.word(&FORMATS)?,
            Argument::Value(value) if sql.is_none() => {
                let text = value.into_string().map_err(|_| arguments.wrong("the statement is not UTF-8"))?;
                sql = Some(text);
            }
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let Some(sql) = sql.filter(|sql| !sql.trim().is_empty()) else {
        output::print(&format!("varved query {SYNOPSIS}\n{EXPLAINED}\n"))?;
        return Ok(Exit::Usage);
    };
    let place = Place::find(db, config)?;
    #[cfg(feature = "device")]
    if let Some(socket) = &place.keeper {
        if let Some(rows) = rows_of(socket, &sql)? {
            return print_rows(&rows, format);
        }
    }
    let session = Session::open(&place.path).map_err(CliError::fault)?;
    watch(session.interrupter()).map_err(CliError::Output)?;
    print(&session, &sql, format)
}

/// Runs `sql` and prints its rows; what could not be read is told on standard error, and by the exit code.
pub fn print(session: &Session, sql: &str, format: Format) -> Result<Exit, CliError> {
    let mut printer = Printer::new(BufWriter::new(stdout().lock()), format);
    let ran = session.run(sql, &mut printer);
    match ran {
        Err(Stopped::Sink(error)) => return Err(CliError::Output(error)),
        // A table that was cut short is printed as far as it goes; the error says that it is not all.
        Err(Stopped::Read(error)) => {
            if error.is_interrupt() {
                printer.finish().map_err(CliError::Output)?;
            }
            return Err(CliError::fault(error));
        }
        Ok(()) => printer.finish().map_err(CliError::Output)?,
    }
    Ok(tell(&session.tally()))
}

/// Prints what a service answered, as [`print`] would.
#[cfg(feature = "device")]
fn print_rows(answer: &Rows, format: Format) -> Result<Exit, CliError> {
    use crate::store::query::Sink;
    let mut printer = Printer::new(BufWriter::new(stdout().lock()), format);
    printer.columns(&answer.columns.iter().map(String::as_str).collect::<Vec<_>>())?;
    for row in &answer.rows {
        printer.row(&row.iter().map(Cell::field).collect::<Vec<_>>())?;
    }
    printer.finish()?;
    Ok(Exit::Ok)
}

/// Says what could not be read, if anything: then what was printed is not all, and the exit code says so too.
pub(super) fn tell(tally: &Tally) -> Exit {
    if tally.unreadable == 0 {
        return Exit::Ok;
    }
    let mut to = std::io::stderr().lock();
    // Where even standard error is closed there is nobody left to tell, but for the exit code.
    let _ = writeln!(to, "{} could not be read, so this is not all:", output::counted(tally.unreadable, "segment"));
    for reason in &tally.reasons {
        let _ = writeln!(to, "  {reason}");
    }
    let _ = writeln!(to, "`varved verify` says what else is wrong.");
    Exit::Data
}
