//! `reading(series, time, utc, value, unit, quality, seq)`: the readings as a read-only virtual table.
//!
//! What enters: SQL, by way of SQLite's virtual table interface (sqlite.org/vtab.html). What leaves: one row a reading, from
//! the store in `main` and from every store that is attached. It pushes down `series =`, `series GLOB` and ranges of `time`,
//! and decodes values only where `value` or `quality` is asked for. SQLite checks each condition again, so a condition that
//! is passed on only has to be true, not exact. No order is promised.
//!
//! `unsafe` is here for what rusqlite's interface demands: two traits, and the connection that the table belongs to.
#![allow(unsafe_code)]

use super::reader::{Held, quoted};
use super::scan::{Cell, ColumnRows, Scan, Selection, SeriesTest, Tally};
use crate::clock::{UtcNanos, civil};
use rusqlite::types::{Null, ValueRef};
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
};
use rusqlite::{Connection, Result, ffi};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::sync::{Arc, Mutex, PoisonError};

/// The columns, in order.
const SCHEMA: &CStr =
    c"CREATE TABLE reading(series TEXT, time INTEGER, utc TEXT, value, unit TEXT, quality TEXT, seq INTEGER)";
const SERIES: c_int = 0;
const TIME: c_int = 1;
const UTC: c_int = 2;
const VALUE: c_int = 3;
const UNIT: c_int = 4;
const QUALITY: c_int = 5;
const SEQ: c_int = 6;

/// What all scans of one connection have seen: shared with whoever shows the rows.
pub type SharedTally = Arc<Mutex<Tally>>;

/// Gives `conn` the table `reading`. What its scans see, and could not read, is added to the tally as they end.
pub fn register(conn: &Connection) -> Result<SharedTally> {
    const MODULE: Module<'_, ReadingTable> = Module::eponymous_only_module();
    let tally = SharedTally::default();
    conn.create_module(c"reading", &MODULE, Some(Arc::clone(&tally)))?;
    Ok(tally)
}

/// The table.
#[repr(C)]
pub struct ReadingTable {
    /// Must be first: SQLite's part.
    base: ffi::sqlite3_vtab,
    conn: Connection,
    tally: SharedTally,
    known: RefCell<Option<(Vec<i64>, Arc<Held>)>>,
}

// SAFETY: `base` is the first field and the struct is repr(C), which is all that the trait demands.
unsafe impl<'vtab> VTab<'vtab> for ReadingTable {
    type Aux = SharedTally;
    type Cursor = Cursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        tally: Option<&SharedTally>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        db.config(VTabConfig::DirectOnly)?;
        // SAFETY: SQLite disconnects every virtual table before it closes the connection (sqlite3_close), so the handle
        // outlives this table; and calls the table on the thread that uses the connection. It is not owned: dropping it
        // closes nothing. Statements made on it are reset before each call returns, and finalized when the table is dropped.
        let conn = unsafe { Connection::from_handle(db.handle()) }?;
        let table = Self {
            base: ffi::sqlite3_vtab::default(),
            conn,
            tally: tally.cloned().unwrap_or_default(),
            known: RefCell::new(None),
        };
        Ok((Cow::Borrowed(SCHEMA), table))
    }

    /// Each condition that is taken is one letter of the plan, in the order of its arguments.
    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        let mut plan = String::new();
        let mut cost = 1e9;
        let mut taken = Vec::new();
        for (index, constraint) in info.constraints().enumerate() {
            if !constraint.is_usable() {
                continue;
            }
            let Some((letter, gain)) = pushed_down(constraint.column(), &constraint.operator()) else { continue };
            taken.push((index, letter, gain));
        }
        for (index, letter, gain) in taken {
            if letter == 'n' && info.collation(index)? != "BINARY" {
                continue;
            }
            plan.push(letter);
            cost /= gain;
            info.constraint_usage(index).set_argv_index(c_int::try_from(plan.len()).unwrap_or(c_int::MAX));
        }
        // The columns above 6 don't exist; what is asked for fits the plan's number.
        info.set_idx_num(c_int::try_from(info.col_used() & 0x7f).unwrap_or(0x7f));
        info.set_idx_str(&plan);
        info.set_estimated_cost(cost);
        info.set_estimated_rows((cost / 10.0) as i64 + 1);
        Ok(true)
    }

    fn open(&'vtab mut self) -> Result<Cursor<'vtab>> {
        Ok(Cursor { base: ffi::sqlite3_vtab_cursor::default(), table: self, scan: None, column: None, rowid: 0 })
    }
}

/// The letter of a condition that is passed on, and what it is guessed to divide the work by.
fn pushed_down(column: c_int, operator: &IndexConstraintOp) -> Option<(char, f64)> {
    use IndexConstraintOp as Op;
    match (column, operator) {
        (SERIES, Op::SQLITE_INDEX_CONSTRAINT_EQ) => Some(('n', 100.0)),
        (SERIES, Op::SQLITE_INDEX_CONSTRAINT_GLOB) => Some(('g', 10.0)),
        (TIME, Op::SQLITE_INDEX_CONSTRAINT_EQ) => Some(('=', 1e5)),
        (TIME, Op::SQLITE_INDEX_CONSTRAINT_GT | Op::SQLITE_INDEX_CONSTRAINT_GE) => Some(('>', 4.0)),
        (TIME, Op::SQLITE_INDEX_CONSTRAINT_LT | Op::SQLITE_INDEX_CONSTRAINT_LE) => Some(('<', 4.0)),
        _ => None,
    }
}

impl ReadingTable {
    /// What the files hold beside segments, read again only when another connection has written, or a file was attached.
    fn held(&self) -> Result<Arc<Held>> {
        let mut versions = vec![i64::try_from(self.conn.total_changes()).unwrap_or(i64::MAX)];
        let mut names = self.conn.prepare_cached("SELECT name FROM pragma_database_list ORDER BY seq")?;
        for name in names.query_map([], |row| row.get::<_, String>(0))? {
            let version = format!("PRAGMA {}.data_version", quoted(&name?));
            versions.push(self.conn.prepare_cached(&version)?.query_row([], |row| row.get(0))?);
        }
        let mut known = self.known.borrow_mut();
        if let Some((of, held)) = known.as_ref() {
            if *of == versions {
                return Ok(Arc::clone(held));
            }
        }
        let held = Arc::new(Held::load(&self.conn)?);
        *known = Some((versions, Arc::clone(&held)));
        Ok(held)
    }
}

/// A walk through the table.
#[repr(C)]
pub struct Cursor<'vtab> {
    /// Must be first: SQLite's part.
    base: ffi::sqlite3_vtab_cursor,
    table: &'vtab ReadingTable,
    scan: Option<Scan>,
    column: Option<ColumnRows>,
    rowid: i64,
}

impl Cursor<'_> {
    fn finish(&mut self) {
        if let Some(scan) = self.scan.take() {
            // A poisoned tally is still a tally: each add is one whole step.
            self.table.tally.lock().unwrap_or_else(PoisonError::into_inner).add(scan.tally());
        }
        self.column = None;
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

// SAFETY: `base` is the first field and the struct is repr(C), which is all that the trait demands.
unsafe impl VTabCursor for Cursor<'_> {
    fn filter(&mut self, columns: c_int, plan: Option<&str>, arguments: &Filters<'_>) -> Result<()> {
        self.finish();
        self.rowid = 0;
        let Some(selection) = selection(columns, plan.unwrap_or_default(), arguments) else { return Ok(()) };
        self.scan = Some(Scan::new(&self.table.conn, self.table.held()?, &selection)?);
        self.next()
    }

    fn next(&mut self) -> Result<()> {
        self.rowid += 1;
        loop {
            if self.column.as_mut().is_some_and(ColumnRows::advance) {
                return Ok(());
            }
            let Some(scan) = self.scan.as_mut() else { return Ok(()) };
            self.column = scan.next_column(&self.table.conn)?;
            if self.column.is_none() {
                self.finish();
            }
        }
    }

    fn eof(&self) -> bool {
        self.column.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        // Asked for a column at a time, so worked out a column at a time.
        let Some(row) = self.column.as_ref() else { return context.set_result(&Null) };
        match column {
            SERIES => context.set_result(&row.series().name),
            TIME => context.set_result(&row.moment().map(|moment| moment.utc.0)),
            UTC => context.set_result(&row.moment().map(|moment| civil::iso8601(moment.utc))),
            VALUE => match row.value() {
                Cell::Null => context.set_result(&Null),
                Cell::Int(value) => context.set_result(&value),
                Cell::Real(value) => context.set_result(&value),
                Cell::Bool(value) => context.set_result(&value),
                Cell::Text(value) => context.set_result(&value),
            },
            UNIT => context.set_result(&row.series().unit),
            QUALITY => context.set_result(&row.quality()),
            SEQ => context.set_result(&i64::try_from(row.seq().0).unwrap_or(i64::MAX)),
            _ => context.set_result(&Null),
        }
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.rowid)
    }
}

/// The selection of a plan and its arguments; `None` where a comparison with NULL lets nothing through.
fn selection(columns: c_int, plan: &str, arguments: &Filters<'_>) -> Option<Selection> {
    let asked = |column: c_int| columns & (1 << column) != 0;
    let mut selection = Selection {
        times: asked(TIME) || asked(UTC) || asked(QUALITY),
        values: asked(VALUE) || asked(QUALITY),
        ..Selection::default()
    };
    for (letter, argument) in plan.chars().zip(arguments.iter()) {
        match (letter, argument) {
            (_, ValueRef::Null) => return None,
            ('n' | 'g', ValueRef::Text(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                selection.series.push(if letter == 'n' { SeriesTest::Is(text) } else { SeriesTest::Glob(text) });
            }
            ('=' | '<' | '>', ValueRef::Integer(at)) => narrow(&mut selection, letter, at, at),
            // A cast of a double that is out of range stops at the ends of i64.
            ('=' | '<' | '>', ValueRef::Real(at)) => {
                narrow(&mut selection, letter, at.floor() as i64, at.ceil() as i64)
            }
            // Text or a blob beside a number is SQLite's to compare.
            _ => {}
        }
    }
    Some(selection)
}

fn narrow(selection: &mut Selection, letter: char, low: i64, high: i64) {
    if letter != '<' {
        selection.since = selection.since.max(Some(UtcNanos(low)));
    }
    if letter != '>' {
        selection.until = Some(selection.until.map_or(UtcNanos(high), |until| until.min(UtcNanos(high))));
    }
}
