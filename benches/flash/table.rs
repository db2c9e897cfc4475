//! The table and the JSON of it.

use crate::Outcome;
use crate::plan::{Line, What};
use crate::run::Measured;
use serde_json::{Value, json};
use std::path::Path;

/// What was measured, line by line; or why it was not.
pub(crate) type Results = Vec<(Line, Result<Measured, String>)>;

impl Measured {
    /// Bytes at the block device for each reading.
    pub(crate) fn per_reading(&self) -> f64 {
        self.written.bytes as f64 / self.readings.max(1) as f64
    }

    /// How many an hour, of something that was so many in the simulated time.
    fn per_hour(&self, n: u64) -> f64 {
        n as f64 * 3600.0 / self.seconds.max(1) as f64
    }
}

/// Prints the table.
pub(crate) fn print(results: &Results) {
    println!(
        "{:<46} {:>10} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8}",
        "50 series at 1 Hz", "B/reading", "writes/h", "flushes/h", "syncs", "×floor", "rows÷", "rounds", "log KiB"
    );
    let mut interval = 0;
    for (line, measured) in results {
        if line.interval_s != interval {
            println!();
            interval = line.interval_s;
        }
        match measured {
            Err(why) => println!("{:<46} {why}", line.to_string()),
            Ok(m) => println!(
                "{:<46} {:>10.2} {:>9.0} {:>9.0} {:>7.2} {:>7} {:>7} {:>6} {:>8}",
                line.to_string(),
                m.per_reading(),
                m.per_hour(m.written.writes),
                m.per_hour(m.written.flushes),
                m.syncs as f64 / m.commits.max(1) as f64,
                ratio(m.per_reading(), peer(results, line, What::Floor)),
                ratio(peer(results, line, What::Rows).unwrap_or(f64::NAN), Some(m.per_reading())),
                m.cycles,
                m.log_bytes / 1024,
            ),
        }
    }
    println!("\nsyncs: fsync and fdatasync calls a commit; ×floor: times the log floor of the same interval;");
    println!("rows÷: bytes of stock rows of the same interval for each of these; log: the WAL, kept at this length.");
}

/// Bytes per reading of `what` at the same interval.
fn peer(results: &Results, line: &Line, what: What) -> Option<f64> {
    let is_peer = |other: &Line| other.what == what && other.interval_s == line.interval_s;
    let (_, measured) = results.iter().find(|(other, _)| is_peer(other))?;
    measured.as_ref().ok().map(Measured::per_reading)
}

fn ratio(a: f64, b: Option<f64>) -> String {
    match b {
        Some(b) if (a / b).is_finite() => format!("{:.2}", a / b),
        _ => "-".into(),
    }
}

/// Writes `results`, and what else was found, to `path`.
pub(crate) fn save(path: &Path, results: &Results, service: Option<Value>) -> Outcome<()> {
    let lines: Vec<Value> = results.iter().map(|(line, measured)| entry(line, measured)).collect();
    let whole = json!({ "series": 50, "hz": 1, "mount": "noatime,commit=300", "lines": lines, "service": service });
    Ok(std::fs::write(path, serde_json::to_string_pretty(&whole)? + "\n")?)
}

fn entry(line: &Line, measured: &Result<Measured, String>) -> Value {
    let name = line.to_string();
    match measured {
        Err(why) => json!({ "name": name, "interval_s": line.interval_s, "error": why }),
        Ok(m) => json!({
            "name": name,
            "interval_s": line.interval_s,
            "bytes_per_reading": m.per_reading(),
            "writes_per_hour": m.per_hour(m.written.writes),
            "flushes_per_hour": m.per_hour(m.written.flushes),
            "syncs_per_commit": m.syncs as f64 / m.commits.max(1) as f64,
            "bytes": m.written.bytes,
            "readings": m.readings,
            "commits": m.commits,
            "seconds": m.seconds,
            "body_bytes": m.body_bytes,
            "log_rounds": m.cycles,
            "log_bytes": m.log_bytes,
            "file_bytes": m.file_bytes,
        }),
    }
}
