//! `varved export`: plain rows out of a store.

use super::args::{Argument, Arguments, store_path};
use super::interrupt::watch;
use super::output::{Format, Printer, counted};
use super::query::tell;
use super::{CliError, Command};
use crate::clock::system::SystemClock;
use crate::clock::{Clock, UtcNanos, civil};
use crate::config::units::parse_duration;
use crate::fault::Exit;
use crate::reading::Value;
use crate::sensor::line_protocol::write_line;
use crate::store::plain::write_rows;
use crate::store::query::{Field, Sink, parse_date_time};
use crate::store::reader::Reader;
use crate::store::scan::{Cell, Row, Selection, SeriesTest, Tally};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const COMMAND: Command = Command {
    name: "export",
    args: "[--db F] --format sqlite|csv|jsonl|line-protocol [--series GLOB] [--since T] [--until T] [-o F|-]",
    brief: "plain rows out",
    long: "
  --db F          the store or a snapshot; default: that of /etc/varved/varved.toml
  --format F      sqlite (a file of plain rows), csv, jsonl (an object a line), line-protocol (InfluxDB's)
  --series GLOB   only series of such names, such as 'hwmon/*'
  --since T       not before this: \"2026-11-22T10:00:00Z\" (UTC), \"2026-11-22 11:00\" (local), \"-1h\", \"now\"
  --until T       before this
  -o F            to this file; `-` is standard output (default, not for sqlite)
  --force         replace a file that is there

Rows come in the order of writing. The columns are those of `reading` (see `varved help query`). Line protocol has no
word for a value that is missing: such readings are left out and counted.

  varved export --format csv --series 'cpu/*' --since -1h
  varved export --format sqlite -o pump-17.db",
    run,
};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Sqlite,
    Rows(Format),
    LineProtocol,
}

const SHAPES: [(&str, Shape); 4] = [
    ("sqlite", Shape::Sqlite),
    ("csv", Shape::Rows(Format::Csv)),
    ("jsonl", Shape::Rows(Format::JsonLines)),
    ("line-protocol", Shape::LineProtocol),
];

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut db, mut shape, mut out, mut force) = (None, None, None, false);
    let mut selection = Selection::default();
    let now = SystemClock::new(Path::new("/")).now().utc;
    while let Some(argument) = arguments.next_argument()? {
        let Argument::Option(name) = &argument else { return Err(arguments.unexpected(&argument)) };
        match name.as_str() {
            "db" => db = Some(arguments.path()?),
            "format" => shape = Some(arguments.word(&SHAPES)?),
            "series" => selection.series.push(SeriesTest::Glob(arguments.text()?)),
            "since" => selection.since = Some(time(arguments, now)?),
            // `until` itself is not meant: so that one export goes on where the one before ended.
            "until" => selection.until = Some(UtcNanos(time(arguments, now)?.0.saturating_sub(1))),
            "o" | "output" => out = Some(arguments.path()?),
            "force" => force = true,
            _ => return Err(arguments.unexpected(&argument)),
        }
    }
    let shape = shape.ok_or_else(|| arguments.wrong("--format is missing: sqlite, csv, jsonl or line-protocol"))?;
    let out = out.filter(|out: &PathBuf| out != Path::new("-"));
    if shape == Shape::Sqlite && out.is_none() {
        return Err(arguments.wrong("a database can't be written to standard output; name a file with -o"));
    }
    let reader = Reader::open(&store_path(db)?).map_err(CliError::fault)?;
    let stop = watch(reader.interrupter())?;
    match (shape, out) {
        (Shape::Sqlite, Some(out)) => {
            let (rows, tally) = write_rows(&reader, &selection, (&out, force), &stop).map_err(CliError::fault)?;
            eprintln!("{} to {}", counted(rows, "reading"), out.display());
            Ok(tell(&tally))
        }
        (shape, Some(out)) => {
            let mut options = std::fs::OpenOptions::new();
            let options = if force {
                options.write(true).create(true).truncate(true)
            } else {
                options.write(true).create_new(true)
            };
            let file = options.open(&out).map_err(|error| unwritable(error, &out))?;
            let mut to = BufWriter::new(file);
            let exit = write(&reader, &selection, shape, &mut to, &stop)?;
            to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(exit)
        }
        (shape, None) => write(&reader, &selection, shape, &mut BufWriter::new(io::stdout().lock()), &stop),
    }
}

fn unwritable(error: io::Error, out: &Path) -> CliError {
    use crate::store::reader::ReadError;
    let path = out.to_owned();
    CliError::fault(match error.kind() {
        io::ErrorKind::AlreadyExists => ReadError::Exists { path },
        _ => ReadError::Io { doing: "write", path, source: error },
    })
}

/// A moment: a date and time, `now`, or so long before now.
fn time(arguments: &mut Arguments, now: UtcNanos) -> Result<UtcNanos, CliError> {
    let text = arguments.text()?;
    moment(&text, now).ok_or_else(|| {
        arguments.wrong(format!(
            "`{text}` is not a time; write \"2026-11-22T10:00:00Z\", \"2026-11-22 11:00\" (local), \"-1h\" or \"now\""
        ))
    })
}

fn moment(text: &str, now: UtcNanos) -> Option<UtcNanos> {
    if text == "now" {
        return Some(now);
    }
    if let Some(before) = text.strip_prefix('-') {
        let before = i64::try_from(parse_duration(before)?.as_nanos()).ok()?;
        return Some(UtcNanos(now.0.saturating_sub(before)));
    }
    civil::parse(text).or_else(|| parse_date_time(text))
}

fn write(
    reader: &Reader,
    selection: &Selection,
    shape: Shape,
    out: &mut impl Write,
    stop: &AtomicBool,
) -> Result<Exit, CliError> {
    let tally = match shape {
        Shape::Rows(format) => rows(reader, selection, Printer::new(&mut *out, format), stop)?,
        Shape::LineProtocol | Shape::Sqlite => lines(reader, selection, out, stop)?,
    };
    out.flush()?;
    Ok(tell(&tally))
}

fn each(
    reader: &Reader,
    selection: &Selection,
    stop: &AtomicBool,
    mut take: impl FnMut(&Row<'_>) -> io::Result<()>,
) -> Result<Tally, CliError> {
    let mut rows = reader.scan(selection).map_err(CliError::fault)?;
    while let Some(mut column) = rows.next_column().map_err(CliError::fault)? {
        if stop.load(Ordering::Relaxed) {
            return Err(CliError::fault(crate::store::reader::ReadError::CutShort));
        }
        while column.advance() {
            take(&column.row())?;
        }
    }
    Ok(rows.tally().clone())
}

fn rows(
    reader: &Reader,
    selection: &Selection,
    mut printer: Printer<impl Write>,
    stop: &AtomicBool,
) -> Result<Tally, CliError> {
    printer.columns(&["series", "time", "utc", "value", "unit", "quality", "seq"])?;
    let tally = each(reader, selection, stop, |row| {
        let at = row.moment.map(|moment| moment.utc);
        let utc = at.map(civil::iso8601).unwrap_or_default();
        printer.row(&[
            Field::Text(row.series.name.as_bytes()),
            at.map_or(Field::Null, |at| Field::Int(at.0)),
            Field::Text(utc.as_bytes()),
            match row.value {
                Cell::Null => Field::Null,
                Cell::Int(value) => Field::Int(value),
                Cell::Real(value) => Field::Real(value),
                Cell::Bool(value) => Field::Int(value.into()),
                Cell::Text(text) => Field::Text(text.as_bytes()),
            },
            Field::Text(row.series.unit.as_bytes()),
            Field::Text(row.quality.as_bytes()),
            Field::Int(i64::try_from(row.seq.0).unwrap_or(i64::MAX)),
        ])
    })?;
    printer.finish()?;
    Ok(tally)
}

fn lines(reader: &Reader, selection: &Selection, out: &mut impl Write, stop: &AtomicBool) -> Result<Tally, CliError> {
    let (mut line, mut left_out) = (String::new(), 0_u64);
    let tally = each(reader, selection, stop, |row| {
        line.clear();
        match row.moment.map(|moment| write_line(&mut line, row.series, &value(row), moment.utc)) {
            Some(Ok(true)) => out.write_all(line.as_bytes()),
            // No value, or a name that line protocol can't hold: counted, and told at the end.
            Some(Ok(false) | Err(_)) | None => {
                left_out += 1;
                Ok(())
            }
        }
    })?;
    if left_out > 0 {
        eprintln!("{} left out: line protocol has no word for a missing value", counted(left_out, "reading"));
    }
    Ok(tally)
}

/// The value as it is shown: what had a scale has been scaled, and is a double.
fn value(row: &Row<'_>) -> Value {
    match row.value {
        Cell::Null => Value::None(crate::reading::NoValue::Unreadable),
        Cell::Int(value) => Value::Int(value),
        Cell::Real(value) => Value::Float(value),
        Cell::Bool(value) => Value::Bool(value),
        Cell::Text(text) => Value::Text(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample;

    fn exported(shape: Shape, selection: &Selection) -> String {
        let (_directory, path) = sample::store();
        let reader = Reader::open(&path).expect("a reader");
        let mut out = Vec::new();
        let exit = write(&reader, selection, shape, &mut out, &AtomicBool::new(false)).expect("an export");
        assert_eq!(exit, Exit::Ok);
        String::from_utf8(out).expect("text")
    }

    fn of(glob: &str, since: &str, until: &str) -> Selection {
        let at = |text| Some(moment(text, UtcNanos(0)).expect("a time"));
        let series = vec![SeriesTest::Glob(glob.to_owned())];
        Selection { series, since: at(since), until: at(until), ..Selection::default() }
    }

    /// The rows of the range and no others, in each form.
    #[test]
    fn each_form_has_the_selected_rows() {
        let some = of("[cd]*", "2026-11-22T12:00:10Z", "2026-11-22T12:00:11Z");
        assert_eq!(
            exported(Shape::Rows(Format::Csv), &some),
            "series,time,utc,value,unit,quality,seq\r\n\
             cpu/temp,1795348810000000000,2026-11-22T12:00:10Z,23.437,Cel,ok,6\r\n\
             cpu/temp,1795348811000000000,2026-11-22T12:00:11Z,,Cel,faulty,6\r\n\
             door/open,1795348810000000000,2026-11-22T12:00:10Z,1,\"\",ok,6\r\n\
             door/open,1795348811000000000,2026-11-22T12:00:11Z,0,\"\",ok,6\r\n"
        );
        assert_eq!(
            exported(Shape::LineProtocol, &some),
            "cpu temp=23.437 1795348810000000000\n\
             door open=true 1795348810000000000\n\
             door open=false 1795348811000000000\n"
        );
        let lines = exported(Shape::Rows(Format::JsonLines), &some);
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["value"], &first["quality"]), (&serde_json::json!(23.437), &serde_json::json!("ok")));
        assert_eq!(lines.lines().count(), 4);
        let all = exported(Shape::Rows(Format::JsonLines), &Selection::default());
        assert_eq!(all.lines().count(), sample::READINGS);
    }

    /// What was exported as line protocol is read back by our own door with the same values.
    #[test]
    fn line_protocol_goes_round() {
        let text = exported(Shape::LineProtocol, &of("*", "2026-11-22T12:00:10Z", "2026-11-22T12:00:13Z"));
        let mut fields = Vec::new();
        for line in text.lines() {
            let parsed = crate::sensor::line_protocol::parse(line.as_bytes(), &mut fields);
            assert!(parsed.is_ok_and(|line| line.is_some()), "{line}");
        }
        // 20 readings less two missing and one NaN.
        assert_eq!(text.lines().count(), 17);
    }

    /// Times are absolute, relative, or now; what is neither is refused rather than guessed.
    #[test]
    fn times_are_absolute_or_relative() {
        let now = civil::parse("2026-11-22T12:00:00Z").expect("a time");
        assert_eq!(moment("now", now), Some(now));
        assert_eq!(moment("-90m", now), civil::parse("2026-11-22T10:30:00Z"));
        assert_eq!(moment("2026-11-22T10:30:00.5Z", now), civil::parse("2026-11-22T10:30:00.5Z"));
        assert_eq!(moment("2026-11-22 10:30:00+00:00", now), civil::parse("2026-11-22T10:30:00Z"));
        for bad in ["-1", "1h", "", "-", "soon"] {
            assert_eq!(moment(bad, now), None, "{bad}");
        }
    }
}
