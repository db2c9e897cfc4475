//! The operations that an article about SQLite on servers gives figures for, of varved and of stock SQLite with the
//! article's own settings, in turns.

use crate::measure::median;
use crate::own::Own;
use crate::plan::Args;
use crate::rows::{self, Row};
use crate::workload::{SERIES, Workload, now};
use crate::{Outcome, own};
use rusqlite::{Connection, OpenFlags, params};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use varved::batch::{Sealed, Track, TrackClock};
use varved::reading::SeriesKey;
use varved::segment::Values;
use varved::store::query::{Field, Session, Sink};

/// Readings in both files before it begins, in seconds of the workload.
const HISTORY_S: i64 = 4_000;
/// A key is looked up so often in a turn, a row inserted so often.
const SELECTS: usize = 200;
const INSERTS: usize = 50;
/// What is inserted at once.
const BULK: usize = 1_000;
const READERS: usize = 10;
const CONCURRENT: Duration = Duration::from_millis(500);

/// The settings of the article, of the connection that writes.
const ARTICLE: &str = "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -64000; \
    PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 268435456; PRAGMA wal_autocheckpoint = 1000;";

/// What is compared.
trait Side {
    /// Looks up one reading by series and time.
    fn select(&mut self, series: usize, second: i64) -> Outcome<()>;
    /// Puts so many readings on the medium in one commit.
    fn insert(&mut self, readings: usize) -> Outcome<()>;
    /// What a reader of its own does once: the value of a reading by key.
    fn reader(&self) -> Outcome<Lookup>;
}

/// Looks up the reading of a series at a second.
type Lookup = Box<dyn FnMut(usize, i64) -> Outcome<()> + Send>;

/// The table, printed, and as JSON.
pub(crate) fn measure(args: &Args) -> Outcome<Json> {
    let turns = if args.quick { 2 } else { 9 };
    let folders = [args.folder()?, args.folder()?, args.folder()?];
    let mut sides: [(&str, Box<dyn Side>); 3] = [
        ("varved (FULL)", Box::new(Varved::new(folders[0].path())?)),
        ("SQLite, article (NORMAL)", Box::new(Stock::new(folders[1].path(), "NORMAL")?)),
        ("SQLite, article but FULL", Box::new(Stock::new(folders[2].path(), "FULL")?)),
    ];
    let mut took = vec![[const { Vec::new() }; 5]; sides.len()];
    for turn in 0..turns {
        for place in 0..sides.len() {
            let at = (place + turn) % sides.len();
            let side = &mut sides[at].1;
            took[at][0].push(each(SELECTS, |i| side.select(i * 7 % SERIES, (i as i64 * 7_919) % HISTORY_S))?);
            took[at][1].push(each(INSERTS, |_| side.insert(1))?);
            took[at][2].push(each(10, |_| side.insert(BULK))?);
            let (reads, commits) = concurrently(side.as_mut())?;
            took[at][3].push(reads);
            took[at][4].push(commits);
        }
    }
    println!("\nThe article's operations, median of {turns} turns, µs each");
    println!(
        "{:<26} {:>12} {:>12} {:>14} {:>22}",
        "", "select by key", "insert one", "bulk of 1,000", "10 readers: reads/s"
    );
    let mut table = Vec::new();
    for ((name, _), took) in sides.iter().zip(&took) {
        let [select, insert, bulk] = [0, 1, 2].map(|what| median(&took[what]) * 1e6);
        let [reads, commits] = [3, 4].map(|what| median(&took[what]));
        println!("{name:<26} {select:>12.1} {insert:>12.0} {bulk:>14.0} {reads:>12.0} beside {commits:.0} commits/s");
        table.push(json!({ "side": name, "select_us": select, "insert_us": insert, "bulk_us": bulk,
                           "reads_per_s": reads, "commits_per_s_meanwhile": commits }));
    }
    Ok(json!({ "turns": turns, "sides": table }))
}

/// Seconds for one of so many.
fn each(times: usize, mut work: impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let began = Instant::now();
    (0..times).try_for_each(&mut work)?;
    Ok(began.elapsed().as_secs_f64() / times as f64)
}

/// Ten readers beside one that commits a reading at a time: reads and commits a second.
fn concurrently(side: &mut dyn Side) -> Outcome<(f64, f64)> {
    let (over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = Vec::new();
    for number in 0..READERS {
        let (over, reads, mut read) = (Arc::clone(&over), Arc::clone(&reads), side.reader()?);
        readers.push(std::thread::spawn(move || -> Outcome<()> {
            let mut i = number;
            while !over.load(Relaxed) {
                read(i * 7 % SERIES, (i as i64 * 7_919) % HISTORY_S)?;
                reads.fetch_add(1, Relaxed);
                i += READERS;
            }
            Ok(())
        }));
    }
    let (began, mut commits) = (Instant::now(), 0);
    while began.elapsed() < CONCURRENT {
        side.insert(1)?;
        commits += 1;
    }
    over.store(true, Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    for reader in readers {
        reader.join().map_err(|_| "a reader panicked")??;
    }
    Ok((reads.load(Relaxed) as f64 / seconds, f64::from(commits) / seconds))
}

/// varved: its store, and its table `reading`.
struct Varved {
    own: Own,
    path: std::path::PathBuf,
    session: Session,
    names: Arc<[String]>,
    second: i64,
}

impl Varved {
    fn new(dir: &Path) -> Outcome<Self> {
        let mut own = Own::new(dir)?;
        own.record(HISTORY_S, |_| Ok(()))?;
        own.compact()?;
        let (path, names) = (own::path(dir), Workload::from(0).defs().map(|def| def.name.clone()).collect());
        Ok(Self { own, session: Session::open(&path)?, path, names, second: HISTORY_S })
    }
}

impl Side for Varved {
    fn select(&mut self, series: usize, second: i64) -> Outcome<()> {
        find(&self.session, &self.names[series], now(second).utc.0)
    }

    fn insert(&mut self, readings: usize) -> Outcome<()> {
        let track = |series: usize, n: usize| Track {
            key: SeriesKey(series as u32),
            clock: TrackClock::Boot,
            stamps: (0..n as i64).map(|i| now(self.second + i).boot.0).collect(),
            values: Values::Float((0..n).map(|i| 40.0 + (i % 13) as f64 / 100.0).collect()),
            missing: Vec::new(),
        };
        // One reading of one series, or some of twenty.
        let tracks = if readings == 1 { vec![track(0, 1)] } else { (0..20).map(|s| track(s, readings / 20)).collect() };
        let (sealed, n) = (Sealed::new(tracks, None, None), readings as u64);
        self.second += 50;
        match self.own.commit(&sealed)?.n == n {
            true => Ok(()),
            false => Err("not all was committed".into()),
        }
    }

    fn reader(&self) -> Outcome<Lookup> {
        let (session, names) = (Session::open(&self.path)?, Arc::clone(&self.names));
        Ok(Box::new(move |series, second| find(&session, &names[series], now(second).utc.0)))
    }
}

/// Looks up a reading by its key; it must be there.
fn find(session: &Session, series: &str, time: i64) -> Outcome<()> {
    let mut one = One::default();
    let parameters = [Field::Text(series.as_bytes()), Field::Int(time)];
    session
        .run_with("SELECT value FROM reading WHERE series = ?1 AND time = ?2", &parameters, &mut one)
        .map_err(|e| format!("{e:?}"))?;
    if one.0 == 1 { Ok(()) } else { Err(format!("{} readings of {series} at {time}", one.0).into()) }
}

/// Counts rows with a value.
#[derive(Default)]
struct One(u32);

impl Sink for One {
    type Error = std::convert::Infallible;

    fn columns(&mut self, _names: &[&str]) -> Result<(), Self::Error> {
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Self::Error> {
        self.0 += u32::from(matches!(fields, [Field::Int(_) | Field::Real(_)]));
        Ok(())
    }
}

/// Stock SQLite with the article's settings: one connection that writes, and one that reads.
struct Stock {
    conn: Connection,
    reader: Connection,
    path: std::path::PathBuf,
    second: i64,
}

const BY_KEY: &str = "SELECT value FROM reading WHERE series = ?1 AND time = ?2";

impl Stock {
    fn new(dir: &Path, synchronous: &str) -> Outcome<Self> {
        let path = rows::path(dir);
        let conn = Connection::open(&path)?;
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        conn.execute_batch(ARTICLE)?;
        conn.pragma_update(None, "synchronous", synchronous)?;
        conn.execute_batch(rows::TABLE)?;
        conn.execute_batch(rows::INDEX)?;
        let mut workload = Workload::from(0);
        let mut all = Vec::new();
        for _ in 0..HISTORY_S {
            all.extend(rows::of(&workload.tick())?);
        }
        rows::insert(&conn, &all)?;
        let reader = open_reader(&path)?;
        Ok(Self { conn, reader, path, second: HISTORY_S })
    }
}

fn open_reader(path: &Path) -> Outcome<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.execute_batch(
        "PRAGMA busy_timeout = 5000; PRAGMA cache_size = -64000; PRAGMA mmap_size = 268435456; PRAGMA query_only = ON;",
    )?;
    Ok(conn)
}

fn find_row(conn: &Connection, series: usize, second: i64) -> Outcome<()> {
    let mut by_key = conn.prepare_cached(BY_KEY)?;
    let _: f64 = by_key.query_row(params![series as i64, now(second).utc.0], |row| row.get(0))?;
    Ok(())
}

impl Side for Stock {
    fn select(&mut self, series: usize, second: i64) -> Outcome<()> {
        find_row(&self.reader, series, second)
    }

    fn insert(&mut self, readings: usize) -> Outcome<()> {
        let row = |i: usize| Row {
            series: (i % 20) as i64,
            time: now(self.second + (i / 20) as i64).utc.0,
            value: 40.0 + (i % 13) as f64 / 100.0,
        };
        let all: Vec<Row> = (0..readings).map(row).collect();
        self.second += 50;
        Ok(rows::insert(&self.conn, &all)?)
    }

    fn reader(&self) -> Outcome<Lookup> {
        let conn = open_reader(&self.path)?;
        Ok(Box::new(move |series, second| find_row(&conn, series, second)))
    }
}
