//! Numbered readings, and the account of them: which were sent, which are sure, and what the fleet has of them.
//!
//! The number of a reading gives its series, stamp and value, so that one statement over the replica holds every reading against
//! what it should be, bit for bit.

use super::{Fleet, Site, text};
use std::io::Write;
use std::ops::Range;
use std::os::unix::net::UnixStream;

const SERIES: u64 = 50;
const START_NS: i64 = 1_790_000_000_000_000_000;
const STEP_NS: i64 = 500_003;

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
}

impl Plant {
    /// Writes the next `n` readings; where the device is gone, these numbers may have arrived or not.
    pub fn send(&mut self, site: &Site, n: u64) {
        let client = self.client.get_or_insert_with(|| site.client());
        let numbers = self.sent..self.sent + n;
        self.sent = numbers.end;
        if client.write_all(lines(numbers).as_bytes()).is_err() {
            self.lost_touch();
        }
    }

    /// The device was killed: what was not confirmed is in doubt, and a new connection has to be made.
    pub fn lost_touch(&mut self) {
        self.client = None;
        self.unsure = self.sent;
    }

    /// Asks for a commit; afterwards everything sent since the device came up is sure. False where nobody answered.
    pub fn flush(&mut self, site: &Site) -> bool {
        if site.ask("flush").is_none() {
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
        assert_eq!(self.confirmed() - sure, 0, "confirmed and not at the fleet");
        assert_eq!(held - numbers, 0, "twice at the fleet");
        assert_eq!(held - same, 0, "at the fleet and never sent, or not the same");
        for store in self.stores(fleet, device) {
            for what in ["gaps", "conflicts", "losses", "readings_lost"] {
                assert_eq!(store[what], 0, "{what}: {store}");
            }
        }
        held
    }

    fn stores(&self, fleet: &Fleet, device: &str) -> Vec<serde_json::Value> {
        let out = fleet.command(&["devices", "--json"]);
        assert!(out.status.success(), "devices: {}", text(&out));
        let devices: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
        let device = devices.into_iter().find(|line| line["device"] == device).expect("the device is known");
        device["stores"].as_array().unwrap().clone()
    }
}
