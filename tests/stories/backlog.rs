//! No broker for a long time: it records on in flat memory, and when the broker appears the backlog goes out.

use crate::support::*;
use std::io::Write;

/// A million readings without a broker: memory does not grow with the backlog; then all of them arrive.
#[test]
fn a_million_readings_wait_in_flat_memory_and_then_arrive() {
    const TOTAL: u64 = 1_000_000;
    const CHUNK: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    broker.kill9();
    let uplink = format!("[uplink]\nbroker = \"{}\"", broker.url());
    let site =
        Site::new(&dir.path().join("site"), "pump-17", "commit_interval = \"1s\"\nmax_size = \"256MiB\"", &uplink);
    let device = site.run();

    let mut client = site.client();
    let mut memory = Vec::new();
    for chunk in 0..TOTAL / CHUNK {
        let lines: String = (chunk * CHUNK..(chunk + 1) * CHUNK).map(line).collect();
        client.write_all(lines.as_bytes()).unwrap();
        site.flush();
        memory.push(rss_kib(device.pid()));
    }
    assert_eq!(site.count("reading"), TOTAL as i64);
    assert_eq!(site.status()["pending"]["readings"], TOTAL);
    let (early, late) = (memory[3], *memory.last().unwrap());
    println!("resident KiB while the backlog grows from 200,000 to 1,000,000: {memory:?}");
    assert!(late <= early + 1024, "resident memory grew from {early} to {late} KiB with the backlog");

    broker.restart();
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let receiver = fleet.run();
    wait_for("the backlog at the fleet", 120, || (fleet.count("pump-17") == TOTAL as i64).then_some(()));
    wait_for("the acknowledgement", 30, || (site.status()["pending"]["readings"] == 0).then_some(()));
    let sum = &fleet.query("pump-17", "SELECT sum(value) AS s, count(DISTINCT time) AS t FROM reading").unwrap()[0];
    assert_eq!(sum["s"], TOTAL * (TOTAL - 1) / 2);
    assert_eq!(sum["t"], TOTAL);
    assert!(rss_kib(device.pid()) <= early + 2048, "memory while catching up: {} KiB", rss_kib(device.pid()));
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
}

fn line(n: u64) -> String {
    format!("plant,s={} v={n}i {}\n", n % 50, 1_790_000_000_000_000_000 + n * 1_000_003)
}
