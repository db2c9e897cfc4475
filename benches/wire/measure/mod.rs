//! Bytes between a device and its broker, TLS included, counted on the way.
//!
//! What enters: a data set and a folder. What leaves: bytes in both directions for each way to send the set. Real parts:
//! mosquitto with a TLS listener, the receiver, the device's store, uplink and MQTT client. Only the time is not real: a
//! device's clock is set forward by an interval at each commit, so that 620 s take seconds and yet what the uplink says by
//! the clock is said. Pings, which the client sends by the clock of the machine, are added by number.

mod others;
mod own;
#[path = "../../fleet/load/process.rs"]
#[allow(dead_code, clippy::duplicate_mod)] // More than this bench needs; the tests load two benches that have it.
mod process;
mod relay;
#[path = "../../codec/set.rs"]
#[allow(dead_code, clippy::duplicate_mod)] // The same.
mod set;
mod site;

pub(crate) use set::Set;
pub(crate) use site::Site;

use std::time::{Duration, Instant};

/// What went wrong is for a person to read.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The client pings this often, whatever else it sends.
const PING_EVERY_S: i64 = 30;

/// A PINGREQ up and a PINGRESP down: 2 bytes each, and 22 of a TLS 1.3 record (RFC 8446 §5.2: header 5, type 1, tag 16).
const PING_BYTES: u64 = 24;

/// How a set of readings is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// varved, connected, a commit each interval.
    Live(i64),
    /// varved, all of it compacted before it connects.
    Backlog,
    /// A publish for each reading.
    Json,
    /// A publish for each interval: an object for each reading, then zstd 3.
    JsonBatches(i64),
    /// The same with InfluxDB's line protocol.
    LineBatches(i64),
}

/// Bytes of TCP payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// From the device.
    pub up: u64,
    /// To the device.
    pub down: u64,
}

impl Bytes {
    /// Both ways.
    pub(crate) fn both(self) -> u64 {
        self.up + self.down
    }

    fn less(self, other: Self) -> Self {
        Self { up: self.up.saturating_sub(other.up), down: self.down.saturating_sub(other.down) }
    }
}

/// What was counted of one way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// After the handshake, pings included.
    pub bytes: Bytes,
    /// TLS, CONNECT and SUBSCRIBE, until the broker has answered them.
    pub handshake: Bytes,
    /// How many were sent.
    pub readings: u64,
}

impl Measured {
    /// Bytes for each reading.
    pub(crate) fn per_reading(&self, bytes: u64) -> f64 {
        bytes as f64 / self.readings.max(1) as f64
    }
}

/// Sends all of `set` in one way and counts.
pub(crate) fn measure(site: &Site, set: &Set, way: Way) -> Outcome<Measured> {
    let (handshake, total) = match way {
        Way::Live(interval_s) => own::live(site, set, interval_s)?,
        Way::Backlog => own::backlog(site, set)?,
        Way::Json => others::json(site, set)?,
        Way::JsonBatches(interval_s) => others::batches(site, set, interval_s, others::json_lines)?,
        Way::LineBatches(interval_s) => others::batches(site, set, interval_s, others::line_protocol)?,
    };
    let mut bytes = total.less(handshake);
    if way != Way::Backlog {
        let pings = (span_s(set) / PING_EVERY_S).unsigned_abs() * PING_BYTES;
        bytes = Bytes { up: bytes.up + pings, down: bytes.down + pings };
    }
    Ok(Measured { bytes, handshake, readings: set.rows.len() as u64 })
}

/// The rows by intervals, counted from the first stamp.
fn intervals(set: &Set, interval_s: i64) -> Vec<Vec<&set::Row>> {
    let begin = set.rows.first().map_or(0, |row| row.stamp_ms);
    let mut all: Vec<Vec<&set::Row>> = Vec::new();
    for row in &set.rows {
        let at = usize::try_from((row.stamp_ms - begin) / (interval_s * 1000)).unwrap_or(0);
        if all.len() <= at {
            all.resize_with(at + 1, Vec::new);
        }
        all[at].push(row);
    }
    all
}

fn span_s(set: &Set) -> i64 {
    let stamp = |row: Option<&set::Row>| row.map_or(0, |row| row.stamp_ms);
    (stamp(set.rows.last()) - stamp(set.rows.first())) / 1000 + 1
}

fn until(what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("waited 120 s in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
