//! The account of the fleet: what `varved-fleet devices` shows.
//!
//! What enters: the data folder, beside a running receiver or without one. What leaves: one line per device, as a table or
//! as JSON. A replica that can't be read is said so in its line, never left out.

mod requests;

pub use requests::RequestLine;

use super::FleetError;
use super::receiver::device_gaps;
use super::replica::account::{self, Account};
use super::replica::retrievals::Standing;
use super::replica::roster::{self, Happened};
use super::retrieval::What;
use super::shelf::Shelf;
use crate::clock::civil::iso8601;
use crate::reading::ranges::RangeSet;
use crate::wire::{State, StoreUuid, decode};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Ranges that are named in one line; more are counted.
const MAX_NAMED: usize = 16;

/// Events that are told of one device.
const MAX_EVENTS: usize = 5;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceLine {
    /// Its name.
    pub device: String,
    /// When its last message came, ISO 8601; none since the receiver remembers.
    pub seen: Option<String>,
    /// Whether its latest session is up, as far as the broker told.
    pub online: bool,
    /// The version that it runs.
    pub version: Option<String>,
    /// Its stores, by id.
    pub stores: Vec<StoreLine>,
    /// Messages refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// What was asked of it, oldest first; the newest that ended.
    pub requests: Vec<RequestLine>,
    /// When a snapshot of it was last found to be what the device holds, ISO 8601.
    pub snapshot_verified: Option<String>,
    /// What happened with it, the newest first: conflicts, cards that were moved, a second device of this name.
    pub events: Vec<EventLine>,
}

/// One event of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// When, by the receiver's clock, ISO 8601.
    pub utc: String,
    /// What, as a sentence.
    pub what: String,
}

/// One event, with the device that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HappenedLine {
    /// When, by the receiver's clock, ISO 8601.
    pub utc: String,
    /// The device; none where it is of nobody, such as a topic that is no device's.
    pub device: Option<String>,
    /// What, as a sentence.
    pub what: String,
}

/// One store that a device brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreLine {
    /// Its id.
    pub store: String,
    /// Readings held.
    pub readings: u64,
    /// Segments held.
    pub segments: u64,
    /// Numbers held, `first..=last`, the lowest 16 ranges.
    pub held: Vec<String>,
    /// How many ranges are held.
    pub held_ranges: usize,
    /// The highest number ever seen.
    pub high: u64,
    /// Numbers that are neither held, nor pending at the device, nor lost.
    pub gaps: u64,
    /// Losses that the device told of.
    pub losses: u64,
    /// Readings that these say were lost, as far as they know.
    pub readings_lost: u64,
    /// Numbers that arrived with more than one content.
    pub conflicts: u64,
    /// Why the replica can't be read, if so; the figures are then 0.
    pub fault: Option<String>,
}

/// Every device that the data folder or the roster knows, by name.
///
/// # Errors
/// The folder or the roster can't be read.
pub fn devices(data: &Path) -> Result<Vec<DeviceLine>, FleetError> {
    let shelf = shelf(data)?;
    let ((mut entries, asked), mut events) = (roster::read(data)?, roster::events(data, MAX_EVENTS)?);
    let mut names: BTreeSet<String> = entries.keys().cloned().collect();
    names.extend(shelf.devices().map(|(name, _)| name.to_owned()));
    let line = |name: String| {
        let entry = entries.remove(&name).unwrap_or_default();
        let state: Option<State> = entry.state.as_deref().and_then(|payload| decode(payload).ok());
        let stores = shelf.stores_of(&name).map(|store| store_line(&shelf, store, state.as_ref())).collect();
        let events = events.remove(&name).unwrap_or_default();
        DeviceLine {
            events: events.into_iter().map(EventLine::of).collect(),
            seen: (entry.seen.0 != 0).then(|| iso8601(entry.seen)),
            online: entry.online,
            version: state.map(|state| state.version),
            stores,
            refused: entry.refused.iter().map(|(why, n)| (why.as_str(), n)).collect(),
            requests: asked.iter().filter(|s| s.retrieval.device == name).map(RequestLine::of).collect(),
            snapshot_verified: last_snapshot(&asked, &name),
            device: name,
        }
    };
    Ok(names.into_iter().map(line).collect())
}

/// What happened that is of no device, or of one that is not known, the newest first: topics of nobody, replicas that were set
/// aside.
///
/// # Errors
/// The roster can't be read.
pub fn of_nobody(data: &Path) -> Result<Vec<EventLine>, FleetError> {
    let events = roster::events(data, MAX_EVENTS)?.remove("").unwrap_or_default();
    Ok(events.into_iter().map(EventLine::of).collect())
}

/// All that happened and is remembered, the newest first.
///
/// # Errors
/// The folder is not there, or the roster can't be read.
pub fn happened(data: &Path) -> Result<Vec<HappenedLine>, FleetError> {
    there(data)?;
    let line = |Happened { utc, device, detail }: Happened| HappenedLine {
        utc: iso8601(utc),
        device: (!device.is_empty()).then_some(device),
        what: detail,
    };
    Ok(roster::all_events(data)?.into_iter().map(line).collect())
}

/// The lines as text, one event a line, for people.
pub fn happened_table(lines: &[HappenedLine]) -> String {
    let line = |line: &HappenedLine| {
        let whose = line.device.as_deref().unwrap_or("receiver");
        format!("{} {whose}: {}\n", line.utc, line.what)
    };
    lines.iter().map(line).collect()
}

impl EventLine {
    fn of(event: Happened) -> Self {
        Self { utc: iso8601(event.utc), what: event.detail }
    }
}

fn last_snapshot(asked: &[Standing], device: &str) -> Option<String> {
    let verified = |s: &&Standing| s.retrieval.device == device && s.retrieval.what == What::Snapshot && s.verified;
    asked.iter().filter(verified).filter_map(|s| s.ended).max_by_key(|ended| ended.0).map(iso8601)
}

/// What lies in `data`, which a reader never makes.
pub(super) fn shelf(data: &Path) -> Result<Shelf, FleetError> {
    there(data)?;
    Shelf::open(data)
}

fn there(data: &Path) -> Result<(), FleetError> {
    if data.is_dir() {
        return Ok(());
    }
    let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
    Err(FleetError::Folder { path: data.to_owned(), cause })
}

/// The replicas of the stores that began with `device`. A store that it only carries (the card of another board, a clone)
/// is that other device's, so that each reading is found under one name.
///
/// # Errors
/// The folder can't be read, or knows no such device.
pub fn replicas(data: &Path, device: &str) -> Result<Vec<PathBuf>, FleetError> {
    let shelf = shelf(data)?;
    let of_device = |path: &PathBuf| path.parent().and_then(Path::file_name).is_some_and(|home| home == device);
    let replicas: Vec<_> = shelf.stores_of(device).filter_map(|store| shelf.path_of(store)).filter(of_device).collect();
    match replicas.is_empty() {
        true => Err(FleetError::NoDevice { device: device.to_owned() }),
        false => Ok(replicas),
    }
}

/// The lines as a table, one store a line, for people; below it what is asked of devices, the newest event of each, and those
/// `of_nobody`.
pub fn table(devices: &[DeviceLine], of_nobody: &[EventLine]) -> String {
    let mut out = String::from("DEVICE\tSEEN\tONLINE\tSTORE\tREADINGS\tHELD\tGAPS\tLOSSES\tCONFLICTS\tREFUSED\n");
    for device in devices {
        let refused: u64 = device.refused.values().sum();
        let head = |out: &mut String| {
            let seen = device.seen.as_deref().unwrap_or("never");
            let online = if device.online { "yes" } else { "no" };
            let _ = write!(out, "{}\t{seen}\t{online}\t", device.device);
        };
        if device.stores.is_empty() {
            head(&mut out);
            let _ = writeln!(out, "-\t0\t-\t0\t0\t0\t{refused}");
        }
        for store in &device.stores {
            head(&mut out);
            if let Some(fault) = &store.fault {
                let _ = writeln!(out, "{}\tunreadable: {fault}", store.store);
                continue;
            }
            let held = held_text(store);
            let StoreLine { store, readings, gaps, losses, conflicts, .. } = store;
            let _ = writeln!(out, "{store}\t{readings}\t{held}\t{gaps}\t{losses}\t{conflicts}\t{refused}");
        }
    }
    let mut out = align(&out) + &requests::table(devices);
    for (device, event) in devices.iter().filter_map(|line| Some((&line.device, line.events.first()?))) {
        let _ = writeln!(out, "{device}: {}: {}", event.utc, event.what);
    }
    for event in of_nobody {
        let _ = writeln!(out, "receiver: {}: {}", event.utc, event.what);
    }
    out
}

/// The lines as one JSON array.
pub fn json<T: Serialize>(lines: &[T]) -> String {
    // Plain strings and integers only: nothing that JSON could refuse.
    serde_json::to_string_pretty(lines).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn held_text(store: &StoreLine) -> String {
    match store.held.as_slice() {
        [] => "-".into(),
        [one] => one.clone(),
        [first, ..] => format!("{first} and {} more", store.held_ranges - 1),
    }
}

fn store_line(shelf: &Shelf, store: StoreUuid, state: Option<&State>) -> StoreLine {
    let read = match shelf.path_of(store) {
        Some(path) => account::read(&path).map_err(|error| error.to_string()),
        None => Err("the link to it leads nowhere; restore the folder that it lay in".to_owned()),
    };
    let (account, fault) = match read {
        Ok(account) => (account, None),
        Err(fault) => (Account::default(), Some(fault)),
    };
    let said = state.and_then(|state| state.stores.iter().find(|s| s.store == store));
    let gaps = said.filter(|_| fault.is_none()).map_or(RangeSet::new(), |said| device_gaps(said, &account.held));
    StoreLine {
        store: store.to_string(),
        readings: account.readings,
        segments: account.segments,
        held: account.held.iter().take(MAX_NAMED).map(|range| range.to_string()).collect(),
        held_ranges: account.held.len(),
        high: account.high.0,
        gaps: gaps.numbers(),
        losses: account.losses,
        readings_lost: account.readings_lost,
        conflicts: account.conflicts.numbers(),
        fault,
    }
}

/// Tabs to columns.
fn align(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
