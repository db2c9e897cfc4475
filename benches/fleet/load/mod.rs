//! Many devices into one receiver: the load, and what came of it.
//!
//! What enters: a [`Plan`] and a folder. What leaves: an [`Account`]. Real parts but for the devices' files: a mosquitto, the
//! `varved-fleet run` process, for each device an MQTT connection and the uplink's own machine with its window, its states and
//! its catalogue. A simulated device holds its segments in RAM; what its machine decides it does like the uplink's task.
//! Segments are made by the encoder beforehand, of the readings of a real host; every device sends the same ones under a
//! store id of its own.

mod device;
mod parts;
#[allow(clippy::duplicate_mod)] // The tests load this bench and that of the wire.
mod process;
#[path = "../../codec/set.rs"]
#[allow(clippy::duplicate_mod)] // The same.
mod set;
mod supply;
mod watch;

pub(crate) use watch::Sample;
#[allow(unused_imports)] // The test that shares this has its own figures.
pub(crate) use watch::quantile_ms;

use device::{Device, Ledger};
use parts::{Broker, Receiver};
use set::Set;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use supply::Supply;

/// What went wrong is for a person to read.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long devices may take to connect, and the last acks to come, before the load counts as not held.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The receiver's program.
    pub receiver: PathBuf,
    /// The data set, CSV.
    pub data: PathBuf,
    /// Devices, each with a connection of its own.
    pub devices: usize,
    /// Segments of one device in a second.
    pub per_second: u32,
    /// Readings in a segment.
    pub readings: usize,
    /// How long.
    pub seconds: u32,
    /// Seconds more, under a tracer that counts fsyncs; what the tracer slows down is not in the other figures.
    pub traced_seconds: u32,
    /// mosquitto's `max_inflight_messages`.
    pub inflight: u32,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// Segments committed by the devices, and acknowledged, without the traced seconds.
    pub committed: u64,
    /// Of them.
    pub acknowledged: u64,
    /// Segments committed and not acknowledged at the end of the load.
    pub backlog: u64,
    /// From the load's end to the last ack; `None` where it did not come within a minute.
    pub drained_ms: Option<u64>,
    /// Segments sent more than once.
    pub again: u64,
    /// Connections beyond the first.
    pub reconnects: u64,
    /// Acks that came, one for each message.
    pub acks: u64,
    /// Bytes of the bodies.
    pub body_bytes: u64,
    /// From commit to ack, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
    /// One for each second.
    pub samples: Vec<Sample>,
    /// `fsync` and `fdatasync` calls of the receiver while it was traced, and segments acknowledged meanwhile.
    pub syncs: Option<(u64, u64)>,
    /// Bytes that the receiver wrote (`/proc/PID/io`, `write_bytes`).
    pub written_bytes: u64,
    /// Seconds of a processor that the receiver, the broker and the devices took.
    pub cpu_seconds: [f64; 3],
    /// Readings in the replicas after the receiver was stopped.
    pub held_readings: u64,
    /// Readings that the devices committed, traced seconds included.
    pub sent_readings: u64,
}

/// Runs `plan` with all its files in `dir`.
pub(crate) fn run(plan: &Plan, dir: &Path) -> Outcome<Account> {
    let set = Set::load(&plan.data.to_string_lossy())?;
    let most = u64::from(plan.per_second) * u64::from(plan.seconds + plan.traced_seconds + 1);
    let supply = Arc::new(Supply::new(&set, plan.readings, most)?);
    let broker = Broker::start(dir, plan.inflight)?;
    let receiver = Receiver::start(plan, dir, broker.port)?;
    let ledger = Arc::new(Ledger::default());
    let devices = (0..plan.devices).map(|number| Device::start(number, plan, broker.port, &supply, &ledger));
    let devices = devices.collect::<Outcome<Vec<_>>>()?;
    let executor = Arc::new(smol::Executor::new());
    let tasks: Vec<_> = devices.into_iter().map(|device| executor.spawn(device.live())).collect();
    let (quit, quitting) = smol::channel::bounded::<()>(1);
    let on_thread = Arc::clone(&executor);
    let thread = std::thread::Builder::new()
        .name("devices".into())
        .spawn(move || smol::block_on(on_thread.run(quitting.recv())).err())?;
    let account = watched(plan, &ledger, &broker, &receiver);
    ledger.stop.store(true, Relaxed);
    smol::block_on(async {
        for task in tasks {
            task.await;
        }
    });
    quit.close();
    let _ = thread.join();
    let mut account = account?;
    account.held_readings = receiver.stop_and_count()?;
    account.sent_readings = ledger.committed.load(Relaxed) * plan.readings as u64;
    account.body_bytes = supply.body_bytes(ledger.committed.load(Relaxed) / plan.devices.max(1) as u64);
    Ok(account)
}

/// Lets the devices connect, commit for the time of the load, and drain.
fn watched(plan: &Plan, ledger: &Ledger, broker: &Broker, receiver: &Receiver) -> Outcome<Account> {
    until("every device to connect", || ledger.open.load(Relaxed) >= plan.devices as u64)?;
    let pids = [receiver.pid(), broker.pid(), std::process::id()];
    let (cpu, written) = (watch::cpu_seconds(pids)?, watch::written_bytes(receiver.pid())?);
    let mut account = Account::default();
    let began = Instant::now();
    ledger.committing.store(true, Relaxed);
    for second in 1..=plan.seconds {
        std::thread::sleep((began + Duration::from_secs(second.into())).saturating_duration_since(Instant::now()));
        account.samples.push(watch::sample(ledger, pids, began)?);
    }
    account.cpu_seconds = watch::less(watch::cpu_seconds(pids)?, cpu);
    account.written_bytes = watch::written_bytes(receiver.pid())?.saturating_sub(written);
    if plan.traced_seconds > 0 {
        (account.committed, account.acknowledged) = (ledger.committed.load(Relaxed), ledger.acked.load(Relaxed));
        let before = ledger.acked.load(Relaxed);
        let syncs = receiver.count_syncs(Duration::from_secs(plan.traced_seconds.into()))?;
        account.syncs = Some((syncs, ledger.acked.load(Relaxed) - before));
    }
    ledger.committing.store(false, Relaxed);
    let ended = Instant::now();
    // What a device is in the midst of committing as the load ends counts too.
    std::thread::sleep(Duration::from_millis(50));
    let (committed, acked) = (ledger.committed.load(Relaxed), ledger.acked.load(Relaxed));
    if plan.traced_seconds == 0 {
        (account.committed, account.acknowledged) = (committed, acked);
    }
    account.backlog = account.committed.saturating_sub(account.acknowledged);
    let drained = until("the last ack", || ledger.acked.load(Relaxed) >= ledger.committed.load(Relaxed));
    account.drained_ms = drained.ok().map(|()| ended.elapsed().as_millis() as u64);
    (account.again, account.acks) = (ledger.again.load(Relaxed), ledger.acks.load(Relaxed));
    account.reconnects = ledger.connections.load(Relaxed).saturating_sub(plan.devices as u64);
    account.latencies_us = ledger.all_latencies();
    Ok(account)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Outcome<()> {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= end {
            return Err(format!("waited {} s in vain for {what}", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
