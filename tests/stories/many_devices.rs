//! Many devices into one receiver: it keeps up, and takes no more memory the longer it does.

#[path = "../../benches/fleet/load/mod.rs"]
#[allow(dead_code)] // The benchmark measures more.
mod load;

use crate::support::{VARVED_FLEET, full};
use load::{Account, Plan, Sample};

/// Two hundred devices connect at once and send a segment of 500 readings each second (five, for a minute, at full length):
/// every reading is held at the end, nothing was sent twice, no connection broke, latency and backlog are at the end what
/// they were at the beginning, and memory stays within its bound.
///
/// The receiver once stopped for ever at such a start: it published acks and read messages in turns, and each waited for
/// the other as soon as more messages had come than may wait.
#[test]
fn two_hundred_devices_are_held_by_one_receiver() {
    let (per_second, seconds) = if full() { (5, 60) } else { (1, 12) };
    let plan = Plan {
        receiver: VARVED_FLEET.into(),
        data: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linux_host_1hz.csv.zst").into(),
        devices: 200,
        per_second,
        readings: 500,
        seconds,
        traced_seconds: 0,
        inflight: 1000,
    };
    let dir = tempfile::tempdir().unwrap();
    let account = load::run(&plan, dir.path()).unwrap();
    let third = account.samples.len() / 3;
    // In the first third replicas are made, as once in the life of a device.
    let (early, late) = (&account.samples[third..2 * third], &account.samples[account.samples.len() - third..]);
    println!("commit to ack, p50 in ms: {:.0?} early, {:.0?} late", p50(early), p50(late));
    println!("resident KiB of the receiver: {:?}", account.samples.iter().map(|s| s.rss_kib[0]).collect::<Vec<_>>());
    assert_whole(&account);
    // A machine that has other work may be slower for a while; a receiver that falls behind gets slower each second, by a
    // second when it takes half.
    let least = |samples: &[Sample]| p50(samples).into_iter().fold(f64::INFINITY, f64::min);
    assert!(least(late) <= 3.0 * least(early).min(1000.0) + 1000.0, "latency grows");
    let backlog = late.iter().map(|s| s.backlog).min().unwrap();
    assert!(backlog <= 2 * 200 * u64::from(per_second), "a backlog of {backlog} segments");
    let resident = late.iter().map(|s| s.rss_kib[0]).max().unwrap();
    assert!(resident <= 128 << 10, "the receiver takes {resident} KiB");
}

fn assert_whole(account: &Account) {
    assert!(account.drained_ms.is_some(), "the last acks did not come: {} segments wait", account.backlog);
    assert_eq!(account.held_readings, account.sent_readings, "readings in the replicas");
    assert_eq!((account.again, account.reconnects), (0, 0), "segments sent again, connections made again");
}

fn p50(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|s| s.p50_ms).collect()
}
