//! Two files held against each other: is every reading of the device in the replica, the same, once?
//!
//! What enters: the device's file and the replicas of the fleet, closed. What leaves: an [`Account`]. Compared are the readings
//! themselves, decoded from both files: store, series, clock, stamp and value, bit for bit. Both files are held in RAM for
//! this: it is for the demo and for tests, not for a full card.

use crate::reading::Value;
use crate::segment::{self, Content, TimelineClock};
use crate::store::reader::{ReadError, Reader, StoredBody};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Differences that are named; the others only keep the account from being whole.
const MAX_NAMED: usize = 10;

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Readings in the device's file.
    pub committed: u64,
    /// Of them, in segments that the fleet has acknowledged.
    pub acknowledged: u64,
    /// Readings in the replicas.
    pub replicated: u64,
    /// Series in the device's file.
    pub series: usize,
    /// Bytes of the segments in the device's file.
    pub segment_bytes: u64,
    /// What differs, in words.
    pub differences: Vec<String>,
}

impl Account {
    /// Whether every reading is acknowledged and in the replica, the same, and nothing else is there.
    pub fn is_whole(&self) -> bool {
        self.differences.is_empty() && self.committed == self.acknowledged && self.committed == self.replicated
    }
}

/// One line of readings: store, series, and the clock of its stamps.
type Line = (String, String, String);

/// Its readings in order: stamp, and value with every bit.
type Readings = Vec<(i64, String)>;

/// What one side holds.
#[derive(Debug, Default)]
struct Side {
    lines: BTreeMap<Line, Readings>,
    readings: u64,
    acknowledged: u64,
    segment_bytes: u64,
    broken: Vec<String>,
}

/// Holds the device's file against every replica in a device's folder at the fleet.
///
/// # Errors
/// Where a file can't be opened or read at all; damage inside one is a difference.
pub fn compare(device: &Path, replicas: &Path) -> Result<Account, ReadError> {
    let ours = Side::read(&[device.to_owned()])?;
    let theirs = Side::read(&databases(replicas))?;
    let mut differences: Vec<String> = ours.broken.iter().chain(&theirs.broken).cloned().collect();
    for line in ours.lines.keys().chain(theirs.lines.keys().filter(|line| !ours.lines.contains_key(*line))) {
        let empty = Vec::new();
        let (a, b) = (ours.lines.get(line).unwrap_or(&empty), theirs.lines.get(line).unwrap_or(&empty));
        if a != b {
            differences.push(difference(line, a, b));
        }
    }
    differences.truncate(MAX_NAMED);
    let mut series: Vec<&String> = ours.lines.keys().map(|(_, series, _)| series).collect();
    series.dedup();
    Ok(Account {
        committed: ours.readings,
        acknowledged: ours.acknowledged,
        replicated: theirs.readings,
        series: series.len(),
        segment_bytes: ours.segment_bytes,
        differences,
    })
}

fn difference(line: &Line, ours: &Readings, theirs: &Readings) -> String {
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
    let show =
        |side: &Readings| side.get(at).map_or("nothing".to_owned(), |(stamp, value)| format!("{value} at {stamp}"));
    format!("{} ({}), reading {at}: {} on the device, {} in the replica", line.1, line.2, show(ours), show(theirs))
}

/// The store files in a folder; none where there is no such folder.
fn databases(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "db")).collect();
    files.sort();
    files
}

impl Side {
    fn read(files: &[PathBuf]) -> Result<Self, ReadError> {
        let mut side = Self::default();
        for file in files {
            Reader::open(file)?.each_body(|body| {
                if let Err(why) = side.add(&body) {
                    side.broken.push(format!("{}: {why}", file.display()));
                }
            })?;
        }
        Ok(side)
    }

    fn add(&mut self, body: &StoredBody<'_>) -> Result<(), String> {
        let segment = segment::decode(body.bytes).map_err(|why| why.to_string())?;
        self.segment_bytes += body.bytes.len() as u64;
        let Content::Data { readings, .. } = segment.content else { return Ok(()) };
        self.readings += readings.n() as u64;
        self.acknowledged += if body.acked { readings.n() as u64 } else { 0 };
        for column in &readings.columns {
            let timeline = &readings.timelines[column.timeline];
            let series = body.store.series.get(&column.series);
            let series = series.map_or(format!("series {} without a name", column.series.0), |def| def.name.clone());
            let clock = match timeline.clock {
                TimelineClock::Utc => "UTC".to_owned(),
                TimelineClock::Boot(boot) => format!("boot {}", boot.0),
            };
            let line = self.lines.entry((body.store.uuid.clone(), series, clock)).or_default();
            let missing = |at: usize| column.missing.iter().find(|m| m.at as usize == at).map(|m| m.why.as_str());
            let value = |at: usize| match (missing(at), column.values.get(at)) {
                (Some(why), _) => why.to_owned(),
                (None, Some(Value::Float(v))) => format!("{v:?} ({:016x})", v.to_bits()),
                (None, value) => format!("{value:?}"),
            };
            line.extend(timeline.stamps.iter().enumerate().map(|(at, stamp)| (*stamp, value(at))));
        }
        Ok(())
    }
}
