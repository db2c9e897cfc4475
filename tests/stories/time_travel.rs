//! Stores that go back in time, or stand in two places at once: no reading is lost or invented, and each case is told.

use crate::support::*;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

/// Readings whose value is their own number.
fn lines(numbers: Range<u64>) -> String {
    numbers.map(|n| format!("plant,s={} v={n}i {}\n", n % 7, 1_790_000_000_000_000_000 + n * 1_000_003)).collect()
}

fn record(site: &Site, numbers: Range<u64>) {
    site.send(&lines(numbers));
    site.flush();
}

fn delivered(site: &Site) {
    wait_for("everything to be acknowledged", 60, || {
        site.try_status().filter(|s| s["pending"]["readings"] == 0 && s["risk"]["readings"] == 0).map(drop)
    });
}

/// How often each number is at the fleet, over these devices.
fn at_fleet(fleet: &Fleet, devices: &[&str]) -> BTreeMap<u64, u32> {
    let mut seen = BTreeMap::new();
    for device in devices {
        for row in fleet.query(device, "SELECT value FROM reading").unwrap_or_default() {
            *seen.entry(row["value"].as_u64().unwrap()).or_default() += 1;
        }
    }
    seen
}

/// Exactly these numbers, each once.
fn assert_once(fleet: &Fleet, devices: &[&str], numbers: impl IntoIterator<Item = u64>) {
    let seen = at_fleet(fleet, devices);
    let expected: Vec<u64> = numbers.into_iter().collect();
    let lost: Vec<_> = expected.iter().filter(|n| !seen.contains_key(n)).collect();
    let invented: Vec<_> = seen.keys().filter(|n| !expected.contains(n)).collect();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).map(|(n, _)| n).collect();
    assert!(lost.is_empty(), "{} lost, such as {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert!(invented.is_empty(), "{} invented, such as {:?}", invented.len(), &invented[..invented.len().min(5)]);
    assert!(twice.is_empty(), "{} twice, such as {:?}", twice.len(), &twice[..twice.len().min(5)]);
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn events(site: &Site) -> Vec<String> {
    let text = |row: &Json| format!("{}: {}", row["kind"].as_str().unwrap(), row["detail"].as_str().unwrap());
    site.query("SELECT kind, detail FROM event ORDER BY id").iter().map(text).collect()
}

struct World {
    _dir: tempfile::TempDir,
    broker: Broker,
    fleet: Fleet,
    site: Site,
}

/// A device, a broker and a receiver that are not running yet.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let site = site(&dir.path().join("site"), "pump-17", &broker, "a");
    World { _dir: dir, broker, fleet, site }
}

/// A device on a machine of its own: `machine` is its identity.
fn site(dir: &Path, name: &str, broker: &Broker, machine: &str) -> Site {
    let root = dir.with_extension(format!("root-{machine}"));
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::create_dir_all(root.join("proc/sys/kernel/random")).unwrap();
    std::fs::write(root.join("etc/machine-id"), format!("{machine:0>32}\n")).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(root.join("proc/sys/kernel/random/boot_id"), boot_id).unwrap();
    let extra = format!("[uplink]\nbroker = \"{}\"", broker.url());
    let site = Site::new(dir, name, "commit_interval = \"1s\"", &extra);
    let text = std::fs::read_to_string(&site.config).unwrap();
    std::fs::write(&site.config, format!("root = \"{}\"\n{text}", root.display())).unwrap();
    site
}

/// The file restored from an hour ago, its high-water mark too; the device is on line, so the fleet tells it at once.
#[test]
fn a_store_restored_from_an_hour_ago_loses_and_invents_nothing() {
    let w = world();
    let backup = w.site.dir.with_extension("backup");
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..1000);
    delivered(&w.site);
    device.stop();
    copy(&w.site.dir, &backup);

    let device = w.site.run();
    record(&w.site, 1000..2000);
    delivered(&w.site);
    device.stop();
    copy(&backup, &w.site.dir);

    let device = w.site.run();
    record(&w.site, 2000..3000);
    delivered(&w.site);
    assert_once(&w.fleet, &["pump-17"], 0..3000);
    let told = events(&w.site);
    assert!(told.iter().any(|e| e.starts_with("fresh-id")), "the device says what happened: {told:?}");
    drop((device, receiver));
}

/// The same, but the device commits under the numbers it has used before while there is no broker, over several runs.
#[test]
fn numbers_used_twice_while_offline_lose_and_invent_nothing() {
    let mut w = world();
    let backup = w.site.dir.with_extension("backup");
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..500);
    delivered(&w.site);
    device.stop();
    copy(&w.site.dir, &backup);
    let device = w.site.run();
    for part in 5..15 {
        record(&w.site, part * 100..(part + 1) * 100);
    }
    delivered(&w.site);
    device.stop();
    copy(&backup, &w.site.dir);

    receiver.stop();
    w.broker.kill9();
    for run in 0..3 {
        let device = w.site.run();
        let from = 1500 + run * 200;
        record(&w.site, from..from + 100);
        record(&w.site, from + 100..from + 200);
        device.stop();
    }
    w.broker.restart();
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 2100..2200);
    delivered(&w.site);
    assert_once(&w.fleet, &["pump-17"], 0..2200);
    drop((device, receiver));
}

/// A card cloned to a second board: the copy takes a fresh store id before it writes, and what it brings of the old one
/// is known already.
#[test]
fn a_cloned_store_on_two_boards_loses_and_invents_nothing() {
    let w = world();
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..1000);
    delivered(&w.site);
    device.stop();
    let twin_dir = w.site.dir.with_extension("twin");
    copy(&w.site.dir, &twin_dir);
    let twin = site(&twin_dir, "pump-18", &w.broker, "b");

    let (device, other) = (w.site.run(), twin.run());
    record(&w.site, 1000..2000);
    record(&twin, 2000..3000);
    delivered(&w.site);
    delivered(&twin);
    assert_once(&w.fleet, &["pump-17", "pump-18"], 0..3000);
    assert!(events(&twin).iter().any(|e| e.starts_with("fresh-id")), "{:?}", events(&twin));
    drop((device, other, receiver));
}

/// Clones that nothing tells apart, such as two copies of one virtual machine: both go on under one store id until the
/// fleet sees one range with two contents. It keeps both and says so; then each device has an id of its own.
#[test]
fn clones_with_one_identity_are_told_apart_by_what_they_send() {
    let w = world();
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..1000);
    delivered(&w.site);
    device.stop();
    let twin_dir = w.site.dir.with_extension("twin");
    copy(&w.site.dir, &twin_dir);
    let twin = site(&twin_dir, "pump-18", &w.broker, "a");

    let (device, other) = (w.site.run(), twin.run());
    for part in 0..5 {
        record(&w.site, 1000 + part * 100..1100 + part * 100);
        record(&twin, 2000 + part * 100..2100 + part * 100);
    }
    delivered(&w.site);
    delivered(&twin);
    record(&w.site, 3000..3100);
    record(&twin, 3100..3200);
    delivered(&w.site);
    delivered(&twin);
    assert_once(&w.fleet, &["pump-17", "pump-18"], (0..1500).chain(2000..2500).chain(3000..3200));
    drop((device, other, receiver));
}

/// A replica restored from yesterday: the device sends again what it still holds.
#[test]
fn a_replica_that_lost_its_last_day_is_filled_again() {
    let w = world();
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..1000);
    delivered(&w.site);
    receiver.stop();
    let (data, backup) = (w.fleet.dir.join("data"), w.fleet.dir.join("backup"));
    copy(&data, &backup);
    let receiver = w.fleet.run();
    record(&w.site, 1000..2000);
    delivered(&w.site);
    receiver.kill9();
    copy(&backup, &data);
    assert_eq!(w.fleet.count("pump-17"), 1000);

    let receiver = w.fleet.run();
    wait_for("the lost day at the fleet", 60, || (w.fleet.count("pump-17") == 2000).then_some(()));
    record(&w.site, 2000..2100);
    delivered(&w.site);
    assert_once(&w.fleet, &["pump-17"], 0..2100);
    drop((device, receiver));
}

/// A receiver whose catalogue is a page behind: names gone from its replica, and from what the broker retains. It asks the
/// device, takes no segment before it knows what the segment cites, and in the end every reading has its name.
#[test]
fn a_receiver_without_the_names_asks_for_them() {
    let w = world();
    let receiver = w.fleet.run();
    let device = w.site.run();
    record(&w.site, 0..100);
    delivered(&w.site);
    receiver.stop();
    let replicas = std::fs::read_dir(w.fleet.dir.join("data/pump-17")).unwrap().map(|e| e.unwrap().path());
    let replica = replicas.into_iter().find(|p| p.extension().is_some_and(|e| e == "db")).unwrap();
    let sql = "DELETE FROM series WHERE id > 3";
    assert!(Command::new("sqlite3").arg(&replica).arg(sql).status().unwrap().success());
    let named = || {
        let rows = w.fleet.query("pump-17", "SELECT count(*) AS n FROM reading WHERE series GLOB 'plant/v,s=*'");
        rows.unwrap()[0]["n"].as_u64().unwrap()
    };
    assert!(named() < 100, "the names are gone");
    let port = w.broker.port.to_string();
    let clear = ["-h", "127.0.0.1", "-p", &port, "-r", "-n", "-t", "varved/v1/pump-17/catalog/0"];
    assert!(Command::new("mosquitto_pub").args(clear).status().unwrap().success());

    let receiver = w.fleet.run();
    record(&w.site, 100..200);
    delivered(&w.site);
    assert_once(&w.fleet, &["pump-17"], 0..200);
    assert_eq!(named(), 200);
    drop((device, receiver));
}
