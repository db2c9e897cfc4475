//! Reading: the same questions to the table `reading` and to plain rows with an index.

use crate::measure::{Side, in_turns, median, ratio};
use crate::own::Own;
use crate::plan::Args;
use crate::workload::{SERIES, Workload, now};
use crate::{Outcome, own, rows};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value as Json, json};
use std::convert::Infallible;
use std::path::Path;
use varved::store::query::{Field, Session, Sink, Stopped};

/// A question, in both tongues. Both give numbers whose sum is compared.
struct Question {
    name: &'static str,
    /// How much faster than rows it has to be, if there is a bar.
    bar: Option<f64>,
    turns: usize,
    own: fn(&Place) -> String,
    rows: fn(&Place) -> String,
}

/// What a question is about: another in each turn.
struct Place {
    series: i64,
    name: String,
    from: i64,
    to: i64,
}

const HOUR_NS: i64 = 3_600_000_000_000;

/// `what` of one series, by its name or number, in the hour that is asked for.
fn of_the_hour(what: &str, series: &str, p: &Place) -> String {
    format!("SELECT {what} FROM reading WHERE series = {series} AND time >= {} AND time < {}", p.from, p.to)
}

const QUESTIONS: [Question; 7] = [
    Question {
        name: "one series × 1 h, all readings",
        bar: Some(1.0),
        turns: 41,
        own: |p| of_the_hour("time, value", &format!("'{}'", p.name), p),
        rows: |p| of_the_hour("time, value", &p.series.to_string(), p),
    },
    Question {
        name: "one series × 1 h, count and average",
        bar: Some(1.0),
        turns: 41,
        own: |p| of_the_hour("count(*), avg(value)", &format!("'{}'", p.name), p),
        rows: |p| of_the_hour("count(*), avg(value)", &p.series.to_string(), p),
    },
    Question {
        name: "full scan, count and average",
        bar: Some(0.5),
        turns: 7,
        own: |_| "SELECT count(*), avg(value) FROM reading".into(),
        rows: |_| "SELECT count(*), avg(value) FROM reading".into(),
    },
    Question {
        name: "one series, whole history, average",
        bar: None,
        turns: 7,
        own: |p| format!("SELECT count(*), avg(value) FROM reading WHERE series = '{}'", p.name),
        rows: |p| format!("SELECT count(*), avg(value) FROM reading WHERE series = {}", p.series),
    },
    Question {
        name: "20 series by GLOB × 1 h, average",
        bar: None,
        turns: 15,
        own: |p| {
            format!(
                "SELECT count(*), avg(value) FROM reading WHERE series GLOB 'temperature/*' AND time >= {} AND time < {}",
                p.from, p.to
            )
        },
        rows: |p| {
            format!(
                "SELECT count(*), avg(value) FROM reading WHERE series BETWEEN 0 AND 19 AND time >= {} AND time < {}",
                p.from, p.to
            )
        },
    },
    Question {
        name: "newest time of each series",
        bar: None,
        turns: 7,
        own: |_| "SELECT sum(t) FROM (SELECT max(time) / 1000000000 AS t FROM reading GROUP BY series)".into(),
        rows: |_| "SELECT sum(t) FROM (SELECT max(time) / 1000000000 AS t FROM reading GROUP BY series)".into(),
    },
    Question {
        name: "all series × the last minute",
        bar: None,
        turns: 15,
        own: |p| format!("SELECT count(*), sum(value) FROM reading WHERE time >= {}", last_minute(p)),
        rows: |p| {
            format!(
                "SELECT count(*), sum(value) FROM reading WHERE series IN ({}) AND time >= {}",
                (0..SERIES).map(|s| s.to_string()).collect::<Vec<_>>().join(","),
                last_minute(p)
            )
        },
    },
];

/// Every place knows the end of the history.
fn last_minute(place: &Place) -> i64 {
    place.to.max(END_S.get().copied().unwrap_or(0)) - 60_000_000_000
}

/// UTC at the end of the history, ns.
static END_S: std::sync::OnceLock<i64> = std::sync::OnceLock::new();

/// The table, printed, and as JSON.
pub(crate) fn measure(args: &Args) -> Outcome<Json> {
    let folder = args.folder()?;
    let seconds = if args.quick { 8_000 } else { 40_000 };
    END_S.get_or_init(|| now(seconds).utc.0);
    eprintln!("speed: {} readings into both files", seconds * SERIES as i64);
    fill(folder.path(), seconds)?;
    let sizes =
        [own::path(folder.path()), rows::path(folder.path())].map(|path| std::fs::metadata(path).map(|m| m.len()));
    let [own_bytes, rows_bytes] = sizes;
    let (session, plain) = (Session::open(&own::path(folder.path()))?, open_rows(folder.path())?);
    println!(
        "\nReading {} readings: varved {} bytes on flash, rows with their index {}",
        seconds * SERIES as i64,
        own_bytes?,
        rows_bytes?
    );
    println!("{:<38} {:>10} {:>10} {:>7} {:>5}  opened, columns, values", "", "varved ms", "rows ms", "rows÷", "bar");
    let mut all = Vec::new();
    for question in QUESTIONS {
        all.push(ask(&question, &session, &plain, seconds, args.quick)?);
    }
    Ok(json!({ "readings": seconds * SERIES as i64, "questions": all }))
}

fn ask(question: &Question, session: &Session, plain: &Connection, seconds: i64, quick: bool) -> Outcome<Json> {
    let names: Vec<String> = Workload::from(0).defs().map(|def| def.name.clone()).collect();
    let place = |turn: usize| {
        // Another series and another hour each time, the same in every run.
        let (series, hours) = ((turn * 17 + 3) % SERIES, seconds * 1_000_000_000 - HOUR_NS);
        let from = now(0).utc.0 + ((turn as i64 * 2_654_435_761) % (hours / 1_000_000_000)).abs() * 1_000_000_000;
        Place { series: series as i64, name: names[series].clone(), from, to: from + HOUR_NS }
    };
    let before = session.tally();
    let turns = if quick { 3 } else { question.turns };
    let mut sides: [Side<'_>; 2] = [
        Box::new(|turn| sum_own(session, &(question.own)(&place(turn)))),
        Box::new(|turn| sum_rows(plain, &(question.rows)(&place(turn)))),
    ];
    let done = in_turns(turns, &mut sides)?;
    drop(sides);
    let (own, rows) = (median(&done.seconds[0]) * 1e3, median(&done.seconds[1]) * 1e3);
    let times = ratio(&done.seconds[1], &done.seconds[0]);
    let after = session.tally();
    let each =
        |count: fn(&varved::store::scan::Tally) -> u64| (count(&after) - count(&before)) as f64 / (turns + 1) as f64;
    let (opened, columns, values) = (each(|t| t.opened), each(|t| t.columns), each(|t| t.values));
    let bar = question.bar.map_or(String::new(), |bar| format!("{bar:.1}"));
    println!(
        "{:<38} {own:>10.3} {rows:>10.3} {times:>7.2} {bar:>5}  {opened:.1}, {columns:.1}, {values:.0}",
        question.name
    );
    Ok(json!({
        "question": question.name, "varved_ms": own, "rows_ms": rows, "times_as_fast": times, "bar": question.bar,
        "turns": turns, "segments_opened": opened, "columns_decoded": columns, "values_decoded": values,
    }))
}

fn fill(dir: &Path, seconds: i64) -> Outcome<()> {
    let conn = Connection::open(rows::path(dir))?;
    conn.execute_batch(rows::TABLE)?;
    conn.execute_batch(rows::INDEX)?;
    let mut own = Own::new(dir)?;
    let mut waiting = Vec::with_capacity(rows::A_TRANSACTION);
    own.record(seconds, |tick| {
        waiting.extend(rows::of(tick)?);
        if waiting.len() >= rows::A_TRANSACTION {
            rows::insert(&conn, &waiting)?;
            waiting.clear();
        }
        Ok(())
    })?;
    rows::insert(&conn, &waiting)?;
    own.compact()?;
    Ok(own.store.close()?)
}

fn open_rows(dir: &Path) -> Outcome<Connection> {
    Ok(Connection::open_with_flags(rows::path(dir), OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

/// Every number of the answer, added up.
#[derive(Default)]
struct Sum(f64);

impl Sink for Sum {
    type Error = Infallible;

    fn columns(&mut self, _names: &[&str]) -> Result<(), Infallible> {
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Infallible> {
        for field in fields {
            match field {
                Field::Int(i) => self.0 += shortened(*i),
                Field::Real(r) => self.0 += r,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A stamp would leave nothing of a value in their sum.
fn shortened(number: i64) -> f64 {
    if number.abs() < 1 << 53 { number as f64 } else { (number / 1_000_000_000 % 1_000_000) as f64 }
}

fn sum_own(session: &Session, sql: &str) -> Outcome<f64> {
    let mut sum = Sum::default();
    match session.run(sql, &mut sum) {
        Ok(()) => Ok(sum.0),
        Err(Stopped::Read(error)) => Err(error.into()),
        Err(Stopped::Sink(never)) => match never {},
    }
}

fn sum_rows(conn: &Connection, sql: &str) -> Outcome<f64> {
    use rusqlite::types::ValueRef;
    let mut statement = conn.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut sum = 0.0;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Integer(i) => sum += shortened(i),
                ValueRef::Real(r) => sum += r,
                _ => {}
            }
        }
    }
    Ok(sum)
}
