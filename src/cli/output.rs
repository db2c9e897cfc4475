//! Rows on standard output: aligned for people, CSV and JSON for programs.
//!
//! What enters: the names of columns, then rows of [`Field`]s. What leaves: text, written as it comes: only the first rows of
//! a table are held back, to learn how wide its columns are.

use super::CliError;
use crate::store::query::{Field, Sink};
use std::io::{self, Write};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// RFC 4180, with a header; NULL is empty, an empty text `""`.
    Csv,
    /// One array of objects; what JSON has no number for is null.
    Json,
    /// One object a line.
    JsonLines,
}

/// Writes rows in a [`Format`].
#[derive(Debug)]
pub struct Printer<W: Write> {
    out: W,
    format: Format,
    names: Vec<String>,
    held: Vec<Vec<(String, bool)>>,
    widths: Vec<(usize, bool)>,
    rows: u64,
}

/// Rows of a table that are held back for its widths.
const HELD_ROWS: usize = 500;

/// The widest that a column of a table is made for what it holds.
const MAX_WIDTH: usize = 60;

impl<W: Write> Printer<W> {
    /// A printer onto `out`.
    pub fn new(out: W, format: Format) -> Self {
        Self { out, format, names: Vec::new(), held: Vec::new(), widths: Vec::new(), rows: 0 }
    }

    /// Writes what is held back and what closes the format.
    pub fn finish(mut self) -> io::Result<()> {
        match self.format {
            Format::Table => self.release()?,
            Format::Json if self.rows == 0 => self.out.write_all(b"[]\n")?,
            Format::Json => self.out.write_all(b"\n]\n")?,
            Format::Csv | Format::JsonLines => {}
        }
        self.out.flush()
    }

    fn csv(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                self.out.write_all(b",")?;
            }
            match field {
                Field::Text(text) => csv_text(&mut self.out, &String::from_utf8_lossy(text))?,
                other => self.out.write_all(plain(other).as_bytes())?,
            }
        }
        self.out.write_all(b"\r\n")
    }

    fn object(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        self.out.write_all(b"{")?;
        for (index, (name, field)) in self.names.iter().zip(fields).enumerate() {
            if index > 0 {
                self.out.write_all(b",")?;
            }
            serde_json::to_writer(&mut self.out, name)?;
            self.out.write_all(b":")?;
            match field {
                Field::Null => self.out.write_all(b"null")?,
                Field::Real(number) if !number.is_finite() => self.out.write_all(b"null")?,
                Field::Int(_) | Field::Real(_) => self.out.write_all(plain(field).as_bytes())?,
                Field::Text(text) => serde_json::to_writer(&mut self.out, &String::from_utf8_lossy(text))?,
                Field::Blob(_) => serde_json::to_writer(&mut self.out, &plain(field))?,
            }
        }
        self.out.write_all(b"}")
    }

    /// Settles the widths of a table and writes its head and what was held back.
    fn release(&mut self) -> io::Result<()> {
        if !self.widths.is_empty() || self.names.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        for (index, name) in self.names.iter().enumerate() {
            let cells = held.iter().filter_map(|row| row.get(index));
            let widest = cells.clone().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(MAX_WIDTH);
            let numbers = !held.is_empty() && cells.clone().all(|(text, number)| *number || text.is_empty());
            self.widths.push((widest.max(name.chars().count()), numbers));
        }
        let head = self.names.iter().map(|name| (name.clone(), false)).collect::<Vec<_>>();
        let rule = self.widths.iter().map(|(width, _)| ("-".repeat(*width), false)).collect::<Vec<_>>();
        self.line(&head)?;
        self.line(&rule)?;
        held.iter().try_for_each(|row| self.line(row))
    }

    fn line(&mut self, cells: &[(String, bool)]) -> io::Result<()> {
        let mut line = String::new();
        for ((text, _), (width, numbers)) in cells.iter().zip(&self.widths) {
            if !line.is_empty() {
                line += "  ";
            }
            line += &if *numbers { format!("{text:>width$}") } else { format!("{text:<width$}") };
        }
        self.out.write_all(line.trim_end().as_bytes())?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Sink for Printer<W> {
    type Error = io::Error;

    fn columns(&mut self, names: &[&str]) -> io::Result<()> {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        if self.format == Format::Csv {
            self.csv(&names.iter().map(|name| Field::Text(name.as_bytes())).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            Format::Csv => self.csv(fields),
            Format::Json => {
                self.out.write_all(if self.rows == 1 { b"[\n" } else { b",\n" })?;
                self.object(fields)
            }
            Format::JsonLines => {
                self.object(fields)?;
                self.out.write_all(b"\n")
            }
            Format::Table => {
                let cells: Vec<_> = fields.iter().map(cell).collect();
                if !self.widths.is_empty() {
                    return self.line(&cells);
                }
                self.held.push(cells);
                if self.held.len() == HELD_ROWS { self.release() } else { Ok(()) }
            }
        }
    }
}

/// A field of a table, and whether it is a number. Control characters are shown, not obeyed: the text came from outside.
fn cell(field: &Field<'_>) -> (String, bool) {
    match field {
        Field::Text(text) => {
            let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
            (String::from_utf8_lossy(text).chars().map(shown).collect::<Vec<String>>().concat(), false)
        }
        Field::Blob(bytes) => (format!("<{} bytes>", bytes.len()), false),
        other => (plain(other), true),
    }
}

/// A number in the fewest digits that give it back, a blob in hex, NULL as nothing.
fn plain(field: &Field<'_>) -> String {
    match field {
        Field::Null => String::new(),
        Field::Int(number) => number.to_string(),
        Field::Real(number) => format!("{number:?}"),
        Field::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Field::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn csv_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    if !text.is_empty() && !text.contains(['"', ',', '\r', '\n']) {
        return out.write_all(text.as_bytes());
    }
    write!(out, "\"{}\"", text.replace('"', "\"\""))
}

/// `1 reading`, `2 readings`.
pub(super) fn counted(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// Text on standard output.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, rows: &[&[Field<'_>]]) -> String {
        let mut bytes = Vec::new();
        let mut printer = Printer::new(&mut bytes, format);
        printer.columns(&["name", "n"]).expect("columns");
        rows.iter().for_each(|row| printer.row(row).expect("a row"));
        printer.finish().expect("an end");
        String::from_utf8(bytes).expect("text")
    }

    const ROWS: &[&[Field<'static>]] = &[
        &[Field::Text(b"a,b \"c\""), Field::Int(-5)],
        &[Field::Text(b""), Field::Real(f64::INFINITY)],
        &[Field::Null, Field::Real(1e300)],
        &[Field::Text(b"x\x1b[31m\ny"), Field::Blob(&[1, 255])],
    ];

    /// RFC 4180: quotes doubled, line ends inside quotes; NULL and the empty text stay different.
    #[test]
    fn csv_is_rfc_4180() {
        let expected = "name,n\r\n\"a,b \"\"c\"\"\",-5\r\n\"\",inf\r\n,1e300\r\n\"x\x1b[31m\ny\",01ff\r\n";
        assert_eq!(printed(Format::Csv, ROWS), expected);
    }

    /// One array that a JSON parser takes, with null where JSON has no number.
    #[test]
    fn json_is_one_array_of_objects() {
        let parsed: serde_json::Value = serde_json::from_str(&printed(Format::Json, ROWS)).expect("JSON");
        assert_eq!(parsed[0], serde_json::json!({"name": "a,b \"c\"", "n": -5}));
        assert_eq!((parsed[1]["n"].is_null(), parsed[2]["name"].is_null()), (true, true));
        assert_eq!((&parsed[2]["n"], &parsed[3]["n"]), (&serde_json::json!(1e300), &serde_json::json!("01ff")));
        assert_eq!(printed(Format::Json, &[]), "[]\n");
        assert_eq!(printed(Format::JsonLines, ROWS).lines().count(), 4);
    }

    /// Columns line up, numbers to the right; what a terminal would obey is shown instead.
    #[test]
    fn tables_line_up_and_obey_nothing() {
        let numbers: &[&[Field<'_>]] =
            &[&[Field::Text(b"a"), Field::Int(5)], &[Field::Text(b"bcdef"), Field::Int(-12)]];
        assert_eq!(printed(Format::Table, numbers), "name     n\n-----  ---\na        5\nbcdef  -12\n");
        assert!(printed(Format::Table, ROWS).contains("x\\u{1b}[31m\\ny"));
        assert_eq!(printed(Format::Table, &[]), "name  n\n----  -\n");
    }

    /// A long table is not collected: rows come out before it ends.
    #[test]
    fn a_long_table_is_not_held_back() {
        let mut printer = Printer::new(Vec::new(), Format::Table);
        printer.columns(&["n"]).expect("columns");
        for n in 0..2_000 {
            printer.row(&[Field::Int(n)]).expect("a row");
        }
        assert!(printer.held.is_empty() && printer.out.len() > 2_000);
    }
}
