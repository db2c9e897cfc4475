//! What the fleet has lost comes back from the device: `varved-fleet request`, with processes that die in the middle.

use crate::support::proxy::{Direction, Proxy, Way};
use crate::support::*;
use serde_json::Value as Json;
use std::process::{Command, Stdio};

const DEVICE: &str = "pump-17";
/// Commits, and readings in each.
const COMMITS: u64 = 100;
const EACH: u64 = 200;

/// A backlog was acknowledged long ago, and the receiver's data folder is lost. `request snapshot` brings all of it again though
/// receiver and device are killed in the middle, compared at the end with the device's own account; then a range, and what makes
/// no sense is refused.
#[test]
fn a_snapshot_brings_back_what_the_fleet_lost() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let link = Proxy::to(broker.port, 1);
    let uplink = format!("[uplink]\nbroker = \"{}\"", link.url());
    let site = Site::new(&dir.path().join("site"), DEVICE, "commit_interval = \"1s\"", &uplink);
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let (mut device, receiver) = (site.run(), fleet.run());
    for commit in 0..COMMITS {
        site.send(&(commit * EACH..(commit + 1) * EACH).map(line).collect::<String>());
        site.flush();
    }
    wait_for("all to be acknowledged", 30, || (site.status()["pending"]["readings"] == 0).then_some(()));
    let readings = sum(&site.query(SUM));

    // Slow, so that there is a middle to cut in, for seconds.
    link.set(Direction::Up, Way { bytes_per_s: Some(10_000), ..Way::default() });
    // Nothing of it is left but what the device still has; it has all acknowledged, so it sends nothing by itself.
    receiver.kill9();
    std::fs::remove_dir_all(fleet.dir.join("data")).unwrap();
    let receiver = fleet.run();
    wait_for("the device to be known again", 20, || device_line(&fleet));
    let request = Command::new(VARVED_FLEET)
        .args(["request", DEVICE, "snapshot", "--wait", "240", "--config"])
        .arg(&fleet.config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let part = wait_for("a part of the snapshot", 30, || {
        let request = device_line(&fleet)?["requests"][0].clone();
        (request["numbers_verified"].as_u64()? > 0).then_some(request)
    });
    assert!(part["ended"].is_null(), "the link is too fast for a cut in the middle: {part}");
    receiver.kill9();
    device.kill9();
    link.set(Direction::Up, Way::default());
    device = site.run();
    let receiver = fleet.run();
    let out = request.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}\n{}", text(&out), receiver.log_text());
    assert_eq!(sum(&fleet.query(DEVICE, SUM).unwrap()), readings);
    let line = device_line(&fleet).unwrap();
    assert!(line["snapshot_verified"].is_string(), "{line}");
    assert_eq!((line["stores"][0]["gaps"].as_u64(), line["stores"][0]["conflicts"].as_u64()), (Some(0), Some(0)));

    // A range is the same for a part of it.
    let out = fleet.command(&["request", DEVICE, "3-9", "--wait", "120"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(sum(&fleet.query(DEVICE, SUM).unwrap()), readings);
    let refused = |args: &[&str], code, word: &str| {
        let out = fleet.command(&[&["request"], args].concat());
        assert!(out.status.code() == Some(code) && text(&out).contains(word), "{args:?}: {}", text(&out));
    };
    refused(&["pump-18", "snapshot"], 65, "varved-fleet devices");
    refused(&[DEVICE, "9-3"], 64, "neither `snapshot` nor a range");
    refused(&[DEVICE, "900000-900001"], 65, "has numbers up to ");
    refused(&[DEVICE, "1", "--store", "00000000-0000-0000-0000-000000000001"], 65, "has no store");
    refused(&[DEVICE, "cancel", "--wait", "1"], 64, "no --wait");
    let out = fleet.command(&["request", DEVICE, "cancel"]);
    assert!(out.status.success() && text(&out).contains("0 requests"), "{}", text(&out));

    // Without the device the request waits.
    assert_eq!(device.stop(), Some(0));
    wait_for("the device to be gone", 20, || (device_line(&fleet)?["online"] == false).then_some(()));
    let out = fleet.command(&["request", DEVICE, "snapshot", "--wait", "1"]);
    assert_eq!(out.status.code(), Some(75), "{}", text(&out));
    assert!(text(&out).contains("when the device is there"), "{}", text(&out));
    let device = site.run();
    let verified = |line: &Json| line["requests"].as_array().unwrap().iter().all(|r| r["outcome"] == "verified");
    wait_for("what waited", 20, || device_line(&fleet).filter(verified));
    assert_eq!((device.stop(), receiver.stop()), (Some(0), Some(0)));
}

const SUM: &str = "SELECT count(*) AS n, sum(value) AS s, count(DISTINCT time) AS t FROM reading";

fn sum(rows: &[Json]) -> String {
    rows[0].to_string()
}

fn device_line(fleet: &Fleet) -> Option<Json> {
    // While the receiver makes its folder anew there is nothing to read.
    let out = fleet.command(&["devices", "--json"]);
    let devices: Json = out.status.success().then(|| serde_json::from_slice(&out.stdout).unwrap())?;
    devices.as_array()?.first().cloned()
}

fn line(n: u64) -> String {
    let noise = (n ^ 0x2545).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!("plant,s={} v={noise}i {}\n", n % 5, 1_790_000_000_000_000_000 + n * 1_000_003)
}
