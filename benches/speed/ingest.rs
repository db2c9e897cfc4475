//! Ingest: line protocol over the unix stream socket of the real service, until the last reading is committed, beside rows
//! that are inserted already parsed.
//!
//! One core each: the whole service on the first processor, and so the thread that inserts rows; the client that writes
//! lines on the second.

use crate::Outcome;
use crate::measure::{cpu_seconds, median, pin, processors, ratio};
use crate::plan::Args;
use crate::rows::{self, Row};
use crate::workload::{SERIES, Workload};
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use varved::device::control::{Answer, Request, ask};
use varved::reading::Value;
use varved::store::query::Session;

/// The first processor does the work that is measured,
const WORKING: usize = 0;
/// the second feeds it.
const FEEDING: usize = 1;

/// What a turn of one side took.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

/// How readings are written as lines.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// A line for each measurement, with a field for each of its series: how Telegraf and its like write.
    Fields,
    /// A line for each reading.
    Singly,
}

/// The table, printed, and as JSON.
pub(crate) fn measure(args: &Args) -> Outcome<Json> {
    let (seconds, turns) = if args.quick { (2_000, 2) } else { (20_000, 7) };
    let readings = seconds * SERIES;
    let mut workload = Workload::from(0);
    let ticks: Vec<_> = (0..seconds).map(|_| workload.tick()).collect();
    let mut all = Vec::with_capacity(readings);
    for tick in &ticks {
        all.extend(rows::of(tick)?);
    }
    let lines = [Form::Fields, Form::Singly].map(|form| text(&ticks, form));
    let [fields, singly] = lines;
    let (fields, singly) = (fields?, singly?);
    let mut took: [Vec<Took>; 4] = Default::default();
    for _ in 0..turns {
        took[0].push(service(args, fields.as_bytes(), readings)?);
        took[1].push(insert(args, &all, "WAL")?);
        took[2].push(service(args, singly.as_bytes(), readings)?);
        took[3].push(insert(args, &all, "DELETE")?);
    }
    let names = [
        "varved, a line for each measurement",
        "rows, WAL, synchronous = FULL",
        "varved, a line for each reading",
        "rows, rollback journal (the default)",
    ];
    println!("\nIngest of {readings} readings, {} processors, median of {turns}", processors()?);
    println!("{:<38} {:>12} {:>8} {:>10} {:>8}", "", "readings/s", "rows÷", "CPU ns", "CPU÷");
    let mut table = Vec::new();
    for (name, side) in names.iter().zip(&took) {
        let seconds: Vec<f64> = side.iter().map(|t| t.seconds).collect();
        let cpu: Vec<f64> = side.iter().map(|t| t.cpu_seconds).collect();
        // Against the faster way to insert rows, turn by turn.
        let best = |of: fn(&Took) -> f64| -> Vec<f64> {
            took[1].iter().zip(&took[3]).map(|(a, b)| of(a).min(of(b))).collect()
        };
        let (faster, less) = (ratio(&best(|t| t.seconds), &seconds), ratio(&best(|t| t.cpu_seconds), &cpu));
        let (rate, cpu_ns) = (readings as f64 / median(&seconds), median(&cpu) * 1e9 / readings as f64);
        println!("{name:<38} {rate:>12.0} {faster:>8.2} {cpu_ns:>10.0} {less:>8.2}");
        table.push(
            json!({ "side": name, "readings_per_s": rate, "times_rows": faster, "cpu_ns": cpu_ns, "cpu_ratio": less }),
        );
    }
    Ok(json!({ "readings": readings, "turns": turns, "sides": table }))
}

/// The ticks as line protocol with stamps of their own.
fn text(ticks: &[crate::workload::Tick], form: Form) -> Outcome<String> {
    let workload = Workload::from(0);
    let names: Vec<(&str, &str)> = workload.defs().filter_map(|def| def.name.split_once('/')).collect();
    let mut text = String::new();
    for tick in ticks {
        let at = tick.now().utc.0;
        for (series, ((measurement, field), value)) in names.iter().zip(&tick.values).enumerate() {
            let goes_on = series > 0 && names[series - 1].0 == *measurement && form == Form::Fields;
            if goes_on {
                text.push(',');
            } else {
                if series > 0 {
                    writeln!(text, " {at}")?;
                }
                write!(text, "{measurement} ")?;
            }
            match value {
                Value::Int(i) => write!(text, "{field}={i}i")?,
                Value::Float(f) => write!(text, "{field}={f}")?,
                _ => return Err("the workload has numbers only".into()),
            }
        }
        writeln!(text, " {at}")?;
    }
    Ok(text)
}

/// A fresh service takes all of it; from the first byte to the answer that all of it is on the medium.
fn service(args: &Args, lines: &[u8], readings: usize) -> Outcome<Took> {
    let folder = args.folder()?;
    let service = Service::start(folder.path())?;
    std::thread::scope(|scope| {
        let feed = scope.spawn(|| -> Outcome<(Took, UnixStream)> {
            pin(FEEDING)?;
            let mut client = service.connect()?;
            let (began, cpu) = (Instant::now(), cpu_seconds(Some(service.child.id()))?);
            client.write_all(lines)?;
            service.flush()?;
            let took = Took {
                seconds: began.elapsed().as_secs_f64(),
                cpu_seconds: cpu_seconds(Some(service.child.id()))? - cpu,
            };
            Ok((took, client))
        });
        let (took, client) = feed.join().map_err(|_| "the client panicked")??;
        let session = Session::open(&folder.path().join("varved.db"))?;
        drop(client);
        let held = count(&session)?;
        if held != readings as i64 {
            Err(format!("{held} of {readings} readings are committed").into())
        } else {
            Ok(took)
        }
    })
}

fn count(session: &Session) -> Outcome<i64> {
    use varved::store::query::{Field, Sink};
    struct One(i64);
    impl Sink for One {
        type Error = std::convert::Infallible;
        fn columns(&mut self, _names: &[&str]) -> Result<(), Self::Error> {
            Ok(())
        }
        fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Self::Error> {
            if let Some(Field::Int(n)) = fields.first() {
                self.0 = *n;
            }
            Ok(())
        }
    }
    let mut one = One(0);
    session.run("SELECT sum(n) FROM segment WHERE kind = 0", &mut one).map_err(|e| format!("{e:?}"))?;
    Ok(one.0)
}

/// Rows of a fresh table, in transactions of 10,000.
fn insert(args: &Args, all: &[Row], journal: &str) -> Outcome<Took> {
    let folder = args.folder()?;
    std::thread::scope(|scope| {
        let work = scope.spawn(|| -> Outcome<Took> {
            pin(WORKING)?;
            let conn = Connection::open(rows::path(folder.path()))?;
            conn.pragma_update(None, "journal_mode", journal)?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.execute_batch(rows::TABLE)?;
            let (began, cpu) = (Instant::now(), cpu_seconds(None)?);
            rows::insert(&conn, all)?;
            Ok(Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds(None)? - cpu })
        });
        work.join().map_err(|_| "the thread that inserts panicked")?
    })
}

/// `varved run`, default but for its paths; ends with this value.
struct Service {
    child: Child,
    dir: std::path::PathBuf,
}

impl Service {
    fn start(dir: &Path) -> Outcome<Self> {
        let d = dir.display();
        let config = format!(
            "device = \"bench\"\n[store]\npath = \"{d}/varved.db\"\nmax_size = \"256MiB\"\n\
             [control]\nlisten = \"unix://{d}/control.sock\"\n\
             [[sensor]]\nkind = \"socket\"\nlisten = \"unix://{d}/ingest.sock\"\n"
        );
        std::fs::write(dir.join("varved.toml"), config)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_varved"));
        command.args(["run", "--config"]).arg(dir.join("varved.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A child begins on the processors of the thread that starts it.
        let started = std::thread::spawn(move || -> Outcome<Child> {
            pin(WORKING)?;
            Ok(command.spawn()?)
        });
        let child = started.join().map_err(|_| "the thread that starts the service panicked")??;
        Ok(Self { child, dir: dir.to_owned() })
    }

    fn connect(&self) -> Outcome<UnixStream> {
        for _ in 0..100 {
            if let Ok(stream) = UnixStream::connect(self.dir.join("ingest.sock")) {
                return Ok(stream);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("varved run did not begin: {}", std::fs::read_to_string(self.dir.join("log"))?).into())
    }

    /// Returns when everything that has arrived is on the medium.
    fn flush(&self) -> Outcome<()> {
        match ask(&self.dir.join("control.sock"), &Request::Flush)? {
            Answer::Ok(_) => Ok(()),
            Answer::Error { text, .. } => Err(text.into()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
