//! The main job over a real broker: what is written to the socket comes out of the fleet's replica, bit for bit, once.

use crate::support::*;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// A reading as both ends name it: series, stamp in ns, bits of the value.
type Row = (String, i64, u64);

const SERIES: usize = 50;

/// Values that only an exact path keeps: odd bits, extremes, negative zero, subnormals.
fn value(dice: &mut Dice, i: usize) -> f64 {
    match i % 10 {
        0 => f64::from_bits(dice.roll(1 << 62)),
        1 => -0.0,
        2 => f64::MIN_POSITIVE / 8.0,
        3 => -f64::MAX,
        4 => (dice.roll(100_000) as f64) / 1000.0,
        _ => 20.0 + (dice.roll(400) as f64) / 100.0,
    }
}

/// `n` readings of 50 series with stamps of their own, to the nanosecond, some late and some out of order.
fn readings(n: usize, seed: u64) -> Vec<Row> {
    let mut dice = Dice::new(seed);
    let start = 1_790_000_000_000_000_000_i64;
    (0..n)
        .map(|i| {
            let series = i % SERIES;
            let jitter = dice.roll(2_000_000) as i64;
            let stamp = start + (i / SERIES) as i64 * 10_000_000 + jitter;
            (format!("plant/v,s={series}"), stamp, value(&mut dice, i).to_bits())
        })
        .collect()
}

fn line(row: &Row) -> String {
    let tag = row.0.rsplit('=').next().unwrap();
    format!("plant,s={tag} v={:?} {}\n", f64::from_bits(row.2), row.1)
}

/// All readings of the replica, sorted.
fn replica(fleet: &Fleet, device: &str) -> Vec<Row> {
    let out = fleet.command(&["query", device, "SELECT series, time, value FROM reading", "--format", "csv"]);
    assert!(out.status.success(), "{}", text(&out));
    let mut rows: Vec<Row> = String::from_utf8(out.stdout).unwrap().lines().skip(1).map(row_of_csv).collect();
    rows.sort_unstable();
    rows
}

/// The series holds a comma, so it is quoted.
fn row_of_csv(line: &str) -> Row {
    let (series, rest) = line.strip_prefix('"').unwrap().split_once("\",").unwrap();
    let (time, value) = rest.split_once(',').unwrap();
    (series.to_owned(), time.parse().unwrap(), value.parse::<f64>().unwrap().to_bits())
}

/// 100,000 readings of 50 series, socket to replica, over a real broker: equal in count, and bit-equal in value and stamp.
#[test]
fn a_hundred_thousand_readings_arrive_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let site = Site::new(
        &dir.path().join("site"),
        "pump-17",
        "commit_interval = \"1s\"",
        &format!("[uplink]\nbroker = \"{}\"", broker.url()),
    );
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let (device, receiver) = (site.run(), fleet.run());

    let mut sent = readings(100_000, 1);
    let lines: String = sent.iter().map(line).collect();
    site.send(&lines);
    site.flush();
    assert_eq!(site.count("reading"), 100_000, "what flush confirmed is in the file");
    wait_for("every reading at the fleet", 60, || (fleet.count("pump-17") >= 100_000).then_some(()));

    sent.sort_unstable();
    let arrived = replica(&fleet, "pump-17");
    assert_eq!(arrived.len(), sent.len());
    assert!(arrived == sent, "first difference: {:?}", arrived.iter().zip(&sent).find(|(a, b)| a != b));
    wait_for("the acknowledgement", 20, || (site.status()["pending"]["readings"] == 0).then_some(()));
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
}

/// Broker, receiver and device each killed three times with -9 at random moments under load: everything that `flush`
/// confirmed is at the fleet, once; nothing that was sent is there twice.
#[test]
fn nothing_confirmed_is_lost_when_everything_is_killed() {
    let seed = std::env::var("VARVED_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let uplink = format!("[uplink]\nbroker = \"{}\"", broker.url());
    let site = Site::new(&dir.path().join("site"), "pump-17", "commit_interval = \"1s\"", &uplink);
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let mut device = site.run();
    let mut receiver = fleet.run();

    let mut kills: Vec<u8> = (0..9).map(|k| k % 3).collect();
    for i in (1..kills.len()).rev() {
        kills.swap(i, dice.roll(i as u64 + 1) as usize);
    }
    let mut next_kill = Instant::now() + Duration::from_millis(500);
    let (mut number, mut confirmed) = (0_u64, 0_u64);
    let mut fate: HashMap<u64, bool> = HashMap::new();
    while !kills.is_empty() || confirmed < 20_000 {
        let batch = number..number + 500;
        let lines: String = batch.clone().map(|n| format!("plant,s={} v={n}i {}\n", n % 50, stamp(n))).collect();
        number = batch.end;
        let sent = site.client().write_all(lines.as_bytes()).is_ok();
        if Instant::now() >= next_kill {
            match kills.pop() {
                Some(0) => broker.restart(),
                Some(1) => {
                    receiver.kill9();
                    receiver = fleet.run();
                }
                Some(_) => {
                    device.kill9();
                    device = site.run();
                }
                None => {}
            }
            next_kill = Instant::now() + Duration::from_millis(200 + dice.roll(1500));
            fate.extend(batch.map(|n| (n, false)));
            continue;
        }
        let flushed = sent && site.command("flush").status.success();
        confirmed += if flushed { 500 } else { 0 };
        fate.extend(batch.map(|n| (n, flushed)));
    }
    site.flush();
    wait_for("the backlog to go out", 120, || (site.status()["pending"]["readings"] == 0).then_some(()));

    let mut seen: HashMap<u64, u32> = HashMap::new();
    for row in fleet.query("pump-17", "SELECT value, time FROM reading").unwrap() {
        let n = row["value"].as_u64().unwrap();
        assert_eq!(row["time"].as_i64().unwrap(), stamp(n), "the stamp of {n}");
        *seen.entry(n).or_default() += 1;
    }
    let lost: Vec<_> = fate.iter().filter(|(n, sure)| **sure && !seen.contains_key(n)).collect();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(lost.is_empty(), "seed {seed}: {} confirmed readings are not at the fleet: {lost:?}", lost.len());
    assert!(twice.is_empty(), "seed {seed}: twice at the fleet: {twice:?}");
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
}

fn stamp(n: u64) -> i64 {
    1_790_000_000_000_000_000 + n as i64 * 1_000_003
}
