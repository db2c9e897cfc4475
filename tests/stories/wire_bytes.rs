//! Bytes on the wire: the promise of `docs/wire-bytes.md`, over the real parts, on a part of its data.

#[path = "../../benches/wire/measure/mod.rs"]
#[allow(dead_code)] // The benchmark measures more.
mod measure;

use crate::support::VARVED_FLEET;
use measure::{Set, Site, Way};
use std::path::Path;

/// A reading of a Linux host costs at least a hundred times fewer bytes in segments of 60 s than as JSON by itself, and at
/// least sixty times fewer in segments of 10 s; MQTT, TLS, catalogue, states, acks and pings included, both directions.
#[test]
fn a_reading_costs_a_hundredth_of_its_json() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Path::new(VARVED_FLEET)).unwrap();
    let per_reading = |way, seconds| {
        let measured = measure::measure(&site, &beginning(seconds), way).unwrap();
        measured.per_reading(measured.bytes.both())
    };
    // Each reading by itself: it does not matter how many.
    let json = per_reading(Way::Json, 30);
    let (seldom, often) = (per_reading(Way::Live(60), 300), per_reading(Way::Live(10), 300));
    println!("bytes per reading: JSON {json:.1}, live at 10 s {often:.3}, at 60 s {seldom:.3}");
    assert!(json >= 100.0 * seldom, "60 s: {seldom:.3} bytes per reading, JSON {json:.1}");
    assert!(json >= 60.0 * often, "10 s: {often:.3} bytes per reading, JSON {json:.1}");
}

/// The first `seconds` of the Linux host.
fn beginning(seconds: i64) -> Set {
    let mut set = Set::load(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linux_host_1hz.csv.zst")).unwrap();
    let end = set.rows[0].stamp_ms + seconds * 1000;
    set.rows.retain(|row| row.stamp_ms < end);
    set
}
