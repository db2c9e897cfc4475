//! The cross-check: the real `varved run` in real time, fed through its socket, beside the same stretch of a simulated run.
//!
//! Here the kernel's own clock does what [`crate::run`] does by the simulated one. If the two agree, the simulation leaves
//! nothing out. A minute or two is far from a round of the log, so neither has a checkpoint in it.

use crate::medium::Medium;
use crate::own::{Own, Setup};
use crate::run::{Measured, Run};
use crate::workload::{SERIES, Tick, Workload};
use crate::{Outcome, interrupted};
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use varved::reading::Value;

/// What the cross-check runs.
const SETUP: Setup = Setup { powersafe: false, exclusive: false, upkeep: false };

/// Shorter than a tick: counted from the first reading of a batch, an interval of a whole second would end while the next
/// tick arrives, and some commits would have two.
const INTERVAL: &str = "900ms";

/// Seconds, and commits, that are not counted: the start.
const START_S: u64 = 10;

/// Both runs over `seconds`; the account for the JSON file.
pub(crate) fn cross_check(seconds: u64) -> Outcome<Json> {
    let real = std::thread::scope(|scope| {
        let real = scope.spawn(|| in_real_time(seconds));
        let simulated = simulated(seconds)?;
        let real = real.join().map_err(|_| "the real-time run panicked")??;
        Outcome::Ok((real, simulated))
    });
    let (real, simulated) = real?;
    println!("\nThe service itself, guarded shared T=1, {seconds} s without a checkpoint:");
    for (name, m) in [("in real time", &real), ("simulated", &simulated)] {
        let (bytes, flushes) = (m.per_reading(), m.written.flushes as f64 / seconds as f64);
        println!("  {name:<14} {bytes:>8.2} bytes per reading, {flushes:.2} flushes a second");
    }
    Ok(json!({
        "seconds": seconds,
        "real_time_bytes_per_reading": real.per_reading(),
        "simulated_bytes_per_reading": simulated.per_reading(),
    }))
}

fn simulated(seconds: u64) -> Outcome<Measured> {
    let medium = Medium::new()?;
    let mut own = Own::new(medium.dir(), SETUP, 1)?;
    Run::new(&medium, &mut own, 1).stretch(START_S, seconds)
}

fn in_real_time(seconds: u64) -> Outcome<Measured> {
    let medium = Medium::new()?;
    let socket = medium.outside().join("ingest.sock");
    let config = medium.outside().join("varved.toml");
    let sensor = format!("[[sensor]]\nkind = \"socket\"\nlisten = \"unix://{}\"\n", socket.display());
    std::fs::write(&config, SETUP.config(medium.dir(), INTERVAL) + "[control]\nlisten = \"off\"\n" + &sensor)?;
    let mut service = Service::start(&config, &medium.outside().join("log"))?;
    let mut feed = service.connect(&socket)?;
    let (mut workload, began) = (Workload::from(0), Instant::now());
    let mut before = None;
    for second in 0..=START_S + seconds {
        interrupted()?;
        std::thread::sleep(Duration::from_secs(second).saturating_sub(began.elapsed()));
        if second == START_S {
            medium.commit_journal()?;
            before = Some(medium.counters()?);
        }
        feed.write_all(lines(&workload.tick())?.as_bytes())?;
    }
    medium.commit_journal()?;
    let written = medium.counters()? - before.unwrap_or_default();
    Ok(Measured { written, readings: seconds * SERIES as u64, commits: seconds, seconds, ..Measured::default() })
}

/// A tick in line protocol, a line for each group of series, stamped with this second.
fn lines(tick: &Tick) -> Outcome<String> {
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (mut text, mut group) = (String::new(), String::new());
    for (def, value) in Workload::from(0).defs().zip(&tick.values) {
        let (measurement, field) = def.name.split_once('/').ok_or("a series without a field")?;
        if measurement != group {
            if !group.is_empty() {
                writeln!(text, " {second}000000000")?;
            }
            measurement.clone_into(&mut group);
            write!(text, "{measurement} ")?;
        } else {
            text.push(',');
        }
        match value {
            Value::Int(i) => write!(text, "{field}={i}i")?,
            Value::Float(f) => write!(text, "{field}={f}")?,
            _ => return Err("the workload has numbers only".into()),
        }
    }
    writeln!(text, " {second}000000000")?;
    Ok(text)
}

/// The service; ends with this value.
struct Service {
    child: Child,
    log: std::path::PathBuf,
}

impl Service {
    fn start(config: &Path, log: &Path) -> Outcome<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_varved"))
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    fn connect(&mut self, socket: &Path) -> Outcome<UnixStream> {
        for _ in 0..100 {
            if let Ok(stream) = UnixStream::connect(socket) {
                return Ok(stream);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("varved run did not begin: {}", std::fs::read_to_string(&self.log).unwrap_or_default()).into())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
