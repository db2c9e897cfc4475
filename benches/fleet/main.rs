//! Many devices into one receiver: whether it holds, and what it takes. `docs/load.md` says what each figure means.
//!
//! ```text
//! cargo bench --bench fleet                          # 200 devices × 5 segments/s for 60 s, and target/fleet.json
//! cargo bench --bench fleet -- --devices 50 --seconds 20
//! cargo bench --bench fleet -- --dir /mnt/card       # the replicas there, not in target/tmp
//! ```

mod load;

use load::{Account, Outcome, Plan, quantile_ms};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Simulated devices over a real mosquitto into the real receiver: segments/s, ack latency, memory, fsyncs.

    cargo bench --bench fleet [-- OPTIONS]

    --devices N     devices, each with a connection of its own [200]
    --rate N        segments of one device in a second [5]
    --readings N    readings in a segment [500]
    --seconds N     how long [60]
    --traced N      seconds more, in which fsyncs are counted by strace; 0 for none [5]
    --inflight N    mosquitto's max_inflight_messages [1000]
    --dir D         the files in D [target/tmp]
    --data F        the readings, CSV [tests/data/linux_host_1hz.csv.zst]
";

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fleet: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = Plan {
        receiver: env!("CARGO_BIN_EXE_varved-fleet").into(),
        data: root.join("tests/data/linux_host_1hz.csv.zst"),
        devices: 200,
        per_second: 5,
        readings: 500,
        seconds: 60,
        traced_seconds: 5,
        inflight: 1000,
    };
    let mut dir = root.join("target/tmp");
    if !read(&mut plan, &mut dir)? {
        print!("{HELP}");
        return Ok(());
    }
    std::fs::create_dir_all(&dir)?;
    let folder = tempfile::tempdir_in(&dir)?;
    let account = load::run(&plan, folder.path())?;
    print(&plan, &account);
    let path = root.join("target/fleet.json");
    std::fs::write(&path, format!("{:#}\n", json(&plan, &account)))?;
    println!("\n{}", path.display());
    match account.held_readings == account.sent_readings {
        true => Ok(()),
        false => {
            Err(format!("{} readings were committed, {} are held", account.sent_readings, account.held_readings).into())
        }
    }
}

/// The command line; false where help was asked for.
fn read(plan: &mut Plan, dir: &mut PathBuf) -> Outcome<bool> {
    use lexopt::prelude::*;
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("devices") => plan.devices = words.value()?.parse()?,
            Long("rate") => plan.per_second = words.value()?.parse()?,
            Long("readings") => plan.readings = words.value()?.parse()?,
            Long("seconds") => plan.seconds = words.value()?.parse()?,
            Long("traced") => plan.traced_seconds = words.value()?.parse()?,
            Long("inflight") => plan.inflight = words.value()?.parse()?,
            Long("dir") => *dir = words.value()?.into(),
            Long("data") => plan.data = words.value()?.into(),
            // cargo says so to every benchmark.
            Long("bench") => {}
            Long("help") | Short('h') => return Ok(false),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(true)
}

fn print(plan: &Plan, account: &Account) {
    println!(
        "{} devices × {} segments/s of {} readings for {} s, mosquitto with {} in flight",
        plan.devices, plan.per_second, plan.readings, plan.seconds, plan.inflight
    );
    println!(
        "\n{:>6} {:>10} {:>8} {:>9} {:>9}   resident KiB: {:>9} {:>9} {:>9}",
        "second", "segments/s", "backlog", "p50 ms", "p99 ms", "receiver", "broker", "devices"
    );
    let mut before = load::Sample::default();
    let every = (account.samples.len() / 12).max(1);
    for sample in account.samples.iter().skip(every - 1).step_by(every) {
        let rate = (sample.acknowledged - before.acknowledged) as f64 / (sample.seconds - before.seconds);
        let [receiver, broker, devices] = sample.rss_kib;
        println!(
            "{:>6.0} {rate:>10.0} {:>8} {:>9.1} {:>9.1}                 {receiver:>9} {broker:>9} {devices:>9}",
            sample.seconds, sample.backlog, sample.p50_ms, sample.p99_ms
        );
        before = *sample;
    }
    let n = account.acknowledged.max(1) as f64;
    let [receiver, broker, devices] = account.cpu_seconds.map(|seconds| seconds / f64::from(plan.seconds.max(1)));
    let drained =
        account.drained_ms.map_or("not drained within a minute".into(), |ms| format!("drained {ms} ms after the load"));
    println!(
        "\ncommitted {}, acknowledged {}, backlog {}, {}",
        account.committed, account.acknowledged, account.backlog, drained
    );
    println!(
        "sent again {}, reconnects {}, acks {} ({:.2} segments each)",
        account.again,
        account.reconnects,
        account.acks,
        n / account.acks.max(1) as f64
    );
    println!(
        "commit to ack: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(account, 0.5),
        at(account, 0.99),
        at(account, 1.0)
    );
    println!("processors: receiver {receiver:.2}, broker {broker:.2}, devices {devices:.2}");
    println!(
        "the receiver wrote {:.0} bytes a segment; its body had {:.0}",
        account.written_bytes as f64 / n,
        body_bytes(plan, account)
    );
    if let Some((syncs, segments)) = account.syncs {
        println!("fsyncs: {syncs} for {segments} segments, {:.3} each (traced)", syncs as f64 / segments.max(1) as f64);
    }
    println!("held {} of {} readings", account.held_readings, account.sent_readings);
}

fn at(account: &Account, quantile: f64) -> f64 {
    quantile_ms(&account.latencies_us, quantile)
}

fn body_bytes(plan: &Plan, account: &Account) -> f64 {
    account.body_bytes as f64 * plan.readings as f64 * plan.devices as f64 / account.sent_readings.max(1) as f64
}

fn json(plan: &Plan, account: &Account) -> serde_json::Value {
    let samples = account.samples.iter().map(|s| {
        json!({ "seconds": s.seconds, "acknowledged": s.acknowledged, "backlog": s.backlog, "p50_ms": s.p50_ms,
                "p99_ms": s.p99_ms, "rss_kib": { "receiver": s.rss_kib[0], "broker": s.rss_kib[1], "devices": s.rss_kib[2] } })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "devices": plan.devices, "segments_per_second": plan.per_second, "readings": plan.readings,
        "seconds": plan.seconds, "inflight": plan.inflight,
        "committed": account.committed, "acknowledged": account.acknowledged, "backlog": account.backlog,
        "drained_ms": account.drained_ms, "again": account.again, "reconnects": account.reconnects,
        "acks": account.acks, "p50_ms": at(account, 0.5), "p99_ms": at(account, 0.99), "most_ms": at(account, 1.0),
        "cpu_seconds": { "receiver": account.cpu_seconds[0], "broker": account.cpu_seconds[1], "devices": account.cpu_seconds[2] },
        "written_bytes": account.written_bytes, "body_bytes_per_segment": body_bytes(plan, account),
        "traced_syncs": account.syncs.map(|(syncs, _)| syncs), "traced_segments": account.syncs.map(|(_, n)| n),
        "held_readings": account.held_readings, "sent_readings": account.sent_readings,
        "samples": samples.collect::<Vec<_>>(),
    })
}
