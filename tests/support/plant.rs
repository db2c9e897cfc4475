//! Numbered readings, and the account of them: which were sent, which are sure, and what the fleet has of them.
//!
//! The number of a reading gives its series, stamp and value, so that one statement over the replica holds every reading against
//! what it should be, bit for bit.

use super::{Fleet, Site, text};
use serde_json::Value as Json;
use std::io::Write;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SERIES: u64 = 50;
const START_NS: i64 = 1_790_000_000_000_000_000;
const STEP_NS: i64 = 500_003;

/// See [`Progress`].
const MOST_BETWEEN: Duration = Duration::from_secs(1);

/// Twelve noisy bits in hundredths: such a reading takes about 1.6 bytes on the wire.
fn hundredths(n: u64) -> u64 {
    let mixed = n * 2_654_435_761 % (1 << 32) / 32;
    mixed * mixed % (1 << 32) / (1 << 20)
}

/// The same in SQL.
const HUNDREDTHS: &str = "mixed * mixed % 4294967296 / 1048576";

/// These readings as line protocol.
pub(crate) fn lines(numbers: Range<u64>) -> String {
    numbers
        .map(|n| {
            let hundredths = hundredths(n);
            let stamp = START_NS + n as i64 * STEP_NS;
            format!("plant,s={} v={}.{:02} {stamp}\n", n % SERIES, hundredths / 100, hundredths % 100)
        })
        .collect()
}

/// What was written to a device, and what of it `flush` has confirmed.
#[derive(Default)]
pub(crate) struct Plant {
    client: Option<UnixStream>,
    /// The next number.
    pub sent: u64,
    /// Where what is not confirmed begins.
    unsure: u64,
    /// What was confirmed, ascending, joined.
    sure: Vec<Range<u64>>,
    /// Counts the lives of the device: odd from before it is killed until the next one answers. Who kills it counts.
    pub lives: Arc<AtomicU64>,
    /// The life that `client` is connected to.
    life: u64,
}

impl Plant {
    /// Writes the next `n` readings. Where nobody listens they are not made; where the device dies meanwhile they may have
    /// arrived or not.
    pub fn send(&mut self, site: &Site, n: u64) {
        if !self.is_connected(site) {
            return;
        }
        let numbers = self.sent..self.sent + n;
        self.sent = numbers.end;
        let written = self.client.as_mut().unwrap().write_all(lines(numbers).as_bytes());
        if written.is_err() {
            self.client = None;
        }
    }

    fn is_connected(&mut self, site: &Site) -> bool {
        if self.client.is_some() {
            return true;
        }
        // What an earlier life was given and did not confirm stays in doubt.
        (self.unsure, self.life) = (self.sent, self.lives.load(Ordering::SeqCst));
        self.client = UnixStream::connect(site.dir.join("ingest.sock")).ok();
        self.client.is_some()
    }

    /// Asks for a commit; afterwards everything sent in this life of the device is sure. False where it died, or is dead.
    pub fn flush(&mut self, site: &Site) -> bool {
        let answered = site.ask("flush").is_some();
        let one_life = self.life % 2 == 0 && self.lives.load(Ordering::SeqCst) == self.life;
        if !answered || !one_life || self.client.is_none() {
            self.client = None;
            return false;
        }
        if self.unsure < self.sent {
            match self.sure.last_mut().filter(|last| last.end == self.unsure) {
                Some(last) => last.end = self.sent,
                None => self.sure.push(self.unsure..self.sent),
            }
            self.unsure = self.sent;
        }
        true
    }

    /// How many are confirmed.
    pub fn confirmed(&self) -> u64 {
        self.sure.iter().map(|range| range.end - range.start).sum()
    }

    /// Every confirmed reading is at the fleet; each that is there was sent, is there once and is the same bit for bit; there is
    /// no gap, no conflict and no loss. Returns how many are there.
    pub fn assert_arrived(&self, fleet: &Fleet, device: &str) -> u64 {
        let within = |r: &Range<u64>| format!("n BETWEEN {} AND {}", r.start, r.end - 1);
        let sure = self.sure.iter().map(within).collect::<Vec<_>>().join(" OR ");
        let sql = format!(
            "SELECT count(*) AS held, count(DISTINCT n) AS numbers, sum({sure}) AS sure,
                    sum(rest = 0 AND n >= 0 AND n < {} AND series = 'plant/v,s=' || (n % {SERIES})
                        AND value = ({HUNDREDTHS}) / 100.0) AS same
             FROM (SELECT n, rest, series, value, n * 2654435761 % 4294967296 / 32 AS mixed
                   FROM (SELECT (time - {START_NS}) / {STEP_NS} AS n, (time - {START_NS}) % {STEP_NS} AS rest, series, value
                         FROM reading))",
            self.sent,
        );
        let row = &fleet.query(device, &sql).expect("the replica can be read")[0];
        let [held, numbers, sure, same] = ["held", "numbers", "sure", "same"].map(|name| row[name].as_u64().unwrap());
        println!("{device}: sent {}, confirmed {}, at the fleet {held}", self.sent, self.confirmed());
        assert_eq!(held - numbers, 0, "twice at the fleet");
        assert_eq!(held - same, 0, "at the fleet and never sent, or not the same");
        assert_eq!(self.confirmed() - sure, 0, "confirmed and not at the fleet");
        for store in self.stores(fleet, device) {
            for what in ["gaps", "conflicts", "losses", "readings_lost"] {
                assert_eq!(store[what], 0, "{what}: {store}");
            }
        }
        held
    }

    fn stores(&self, fleet: &Fleet, device: &str) -> Vec<Json> {
        let out = fleet.command(&["devices", "--json"]);
        assert!(out.status.success(), "devices: {}", text(&out));
        let devices: Vec<Json> = serde_json::from_slice(&out.stdout).unwrap();
        let device = devices.into_iter().find(|line| line["device"] == device).expect("the device is known");
        device["stores"].as_array().unwrap().clone()
    }
}

/// How long the acknowledged number has stood still, as far as somebody looked: what passes between two looks counts for
/// [`MOST_BETWEEN`] at most. They come many times a second, and where they don't, all of the machine stood still.
pub(crate) struct Progress {
    acked: u64,
    looked_at: Instant,
    stood: Duration,
    /// The longest so far, while something waited.
    pub longest: Duration,
}

impl Progress {
    pub fn new() -> Self {
        Self { acked: 0, looked_at: Instant::now(), stood: Duration::ZERO, longest: Duration::ZERO }
    }

    /// Takes in a `status`; true where it says that nothing waits.
    pub fn look(&mut self, status: &Json) -> bool {
        let count = |at: &str| status.pointer(at).and_then(Json::as_u64);
        // A store that is busy or not open yet leaves them out.
        let (Some(pending), Some(held)) = (count("/pending/readings"), count("/store/readings")) else { return false };
        let acked = held.saturating_sub(pending);
        let since = std::mem::replace(&mut self.looked_at, Instant::now()).elapsed();
        self.stood += since.min(MOST_BETWEEN);
        if pending > 0 {
            self.longest = self.longest.max(self.stood);
        }
        if acked != self.acked || pending == 0 {
            (self.acked, self.stood) = (acked, Duration::ZERO);
        }
        pending == 0
    }
}
