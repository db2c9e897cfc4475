//! varved: the real store and the real uplink, with a clock that is set forward.

use super::relay::Relay;
use super::set::{Row, Set};
use super::site::{Site, connect};
use super::{Bytes, Outcome, intervals, until};
use smol::channel::{Sender, bounded};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;
use varved::batch::{Batch, BatchLimits, Registry};
use varved::clock::keeper::Keeper;
use varved::clock::{BootNanos, Clock, Now, SECOND, UtcNanos};
use varved::config::{Config, UplinkConfig};
use varved::mqtt::Will;
use varved::reading::{Kind, NoValue, Reading, Scale, SeriesDef, SeriesKey, Stamp, Value};
use varved::store::thread::{StoreHandle, spawn};
use varved::store::{Identity, Step, Store};
use varved::uplink::{self, SharedStatus};
use varved::wire::topics::{self, Topic};
use varved::wire::{self, State};

/// The topics of the receiver's default prefix.
const PREFIX: &str = "varved";

/// Compaction leaves the last hour alone.
const LATER_S: i64 = 3 * 3600;

/// Handshake and total of a device that is connected and commits each interval.
pub(crate) fn live(site: &Site, set: &Set, interval_s: i64) -> Outcome<(Bytes, Bytes)> {
    let device = format!("pump-{interval_s}");
    let handshake = handshake(site, &device)?;
    let relay = site.relay()?;
    let mut unit = Unit::new(site, set, &device, &relay)?;
    let uplink = Uplink::start(&unit)?;
    until("the uplink to open", || uplink.is_open())?;
    for (number, rows) in (1..).zip(intervals(set, interval_s)) {
        unit.commit(set, &rows, number * interval_s)?;
        uplink.tell();
        unit.until_acknowledged()?;
    }
    let total = relay.settled();
    uplink.stop();
    Ok((handshake, total))
}

/// Handshake and total of a device that was offline for the whole set and has compacted it.
pub(crate) fn backlog(site: &Site, set: &Set) -> Outcome<(Bytes, Bytes)> {
    let device = "pump-offline";
    let handshake = handshake(site, device)?;
    let relay = site.relay()?;
    let mut unit = Unit::new(site, set, device, &relay)?;
    for (number, rows) in (1..).zip(intervals(set, 10)) {
        unit.commit(set, &rows, number * 10)?;
    }
    unit.compact()?;
    let uplink = Uplink::start(&unit)?;
    until("the uplink to open", || uplink.is_open())?;
    unit.until_acknowledged()?;
    let total = relay.settled();
    uplink.stop();
    Ok((handshake, total))
}

/// A connection with the same will and subscriptions, and nothing sent.
fn handshake(site: &Site, device: &str) -> Outcome<Bytes> {
    let relay = site.relay()?;
    let will = State {
        online: false,
        session: u64::MAX,
        run: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        utc: UtcNanos(0),
        clock_trusted: false,
        stores: Vec::new(),
    };
    let will = Will { topic: topics::name(PREFIX, device, Topic::State), payload: wire::encode(&will)? };
    let filters = topics::device_filters(PREFIX, device).to_vec();
    let settings = varved::mqtt::Settings { will: Some(will), filters, ..site.settings(device, &relay) };
    let (client, _events, bytes) = connect(settings, &relay)?;
    smol::block_on(client.stop());
    Ok(bytes)
}

/// The device's file, its clock, and what the recorder keeps.
struct Unit {
    name: String,
    store: StoreHandle,
    config: UplinkConfig,
    clock: Arc<Jumping>,
    batch: Batch,
    registry: Arc<Registry>,
    keeper: Keeper,
    begin: Now,
}

impl Unit {
    fn new(site: &Site, set: &Set, name: &str, relay: &Relay) -> Outcome<Self> {
        let dir = site.folder(name)?;
        let config = format!(
            "device = \"{name}\"\n[store]\npath = \"{}/varved.db\"\n[uplink]\nbroker = \"mqtts://127.0.0.1:{}\"\nca = \"{}\"\n",
            dir.display(),
            relay.port,
            site.ca().display()
        );
        let config = Config::parse(&config, "the benchmark's configuration")?;
        // The present, or the broker's certificate, made a moment ago, would not be valid yet.
        let utc = i64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_nanos())?;
        let begin = Now { boot: BootNanos(1_000 * SECOND), utc: UtcNanos(utc), trusted: true };
        let me = Identity { machine_hash: [7; 16], boot_uuid: Uuid::new_v4() };
        let (store, _) = Store::open(&config.store, &me, begin)?;
        let registry = Arc::new(Registry::new(set.names.len() as u32 + 1));
        for (name, kind) in set.names.iter().zip(&set.kinds) {
            registry.key(&SeriesDef { name: name.clone(), unit: String::new(), kind: *kind, scale: Scale::ONE })?;
        }
        let limits = BatchLimits { interval: Duration::from_secs(3600), readings: u32::MAX, buffer_bytes: 64 << 20 };
        Ok(Self {
            name: name.to_owned(),
            store: spawn(store)?,
            config: config.uplink.ok_or("no uplink")?,
            clock: Arc::new(Jumping { begin, began: Instant::now(), ahead: AtomicI64::new(0) }),
            batch: Batch::new(limits, Arc::clone(&registry)),
            registry,
            keeper: Keeper::default(),
            begin,
        })
    }

    /// Commits `rows` as the device does when their interval ends, `second` seconds after the first.
    fn commit(&mut self, set: &Set, rows: &[&Row], second: i64) -> Outcome<()> {
        let now = self.at(second);
        for row in rows {
            let value = match (row.text.is_empty(), set.kinds[row.series]) {
                (true, _) => Value::None(NoValue::Absent),
                (false, Kind::Int) => Value::Int(row.int()),
                (false, _) => Value::Float(row.float()),
            };
            let stamp = Stamp::Utc(UtcNanos(row.stamp_ms * 1_000_000));
            self.batch.push(Reading { series: SeriesKey(row.series as u32), stamp, value }, now.boot)?;
        }
        // The recorder looks at the clock each second.
        let seconds = rows.len().div_ceil(set.names.len().max(1)) as i64;
        let moments = (0..seconds).map(|k| self.at(second - seconds + 1 + k)).collect::<Vec<_>>();
        let anchors: Vec<_> = moments.into_iter().flat_map(|moment| self.keeper.observe(moment)).collect();
        let (sealed, registry) = (self.batch.seal(), Arc::clone(&self.registry));
        self.clock.set(now);
        smol::block_on(self.store.run(move |store| store.commit(&sealed, &registry, &anchors, now)))??;
        Ok(())
    }

    fn compact(&self) -> Outcome<()> {
        let now = self.at(LATER_S);
        self.clock.set(now);
        while smol::block_on(self.store.run(move |store| store.compact_step(&[], now)))?? != Step::Idle {}
        Ok(())
    }

    fn until_acknowledged(&self) -> Outcome<()> {
        let pending = |store: &mut Store| store.pending_ranges(store.uuid()).map(|ranges| ranges.is_empty());
        until("the ack", || Ok(smol::block_on(self.store.run(pending))??))
    }

    fn at(&self, second: i64) -> Now {
        let nanos = second * SECOND;
        Now { boot: BootNanos(self.begin.boot.0 + nanos), utc: UtcNanos(self.begin.utc.0 + nanos), trusted: true }
    }
}

/// Goes with the time, and is set forward.
struct Jumping {
    begin: Now,
    began: Instant,
    ahead: AtomicI64,
}

impl Jumping {
    /// Not before `then` from now on.
    fn set(&self, then: Now) {
        let passed = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.ahead.fetch_max(then.boot.0 - self.begin.boot.0 - passed, Relaxed);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Now {
        let passed = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let nanos = passed + self.ahead.load(Relaxed);
        Now { boot: BootNanos(self.begin.boot.0 + nanos), utc: UtcNanos(self.begin.utc.0 + nanos), trusted: true }
    }
}

/// The uplink on its thread.
struct Uplink {
    committed: Sender<()>,
    stop: Sender<()>,
    status: SharedStatus,
    thread: std::thread::JoinHandle<()>,
}

impl Uplink {
    fn start(unit: &Unit) -> Outcome<Self> {
        let (committed, news) = bounded(1);
        let (stop, stopping) = bounded(1);
        let status = SharedStatus::default();
        let (config, name, store) = (unit.config.clone(), unit.name.clone(), unit.store.clone());
        let (told, clock) = (Arc::clone(&status), Arc::clone(&unit.clock));
        let thread = std::thread::Builder::new().spawn(move || {
            if let Err(why) = smol::block_on(uplink::run(&config, &name, store, news, told, clock, stopping)) {
                eprintln!("wire: {why}");
            }
        })?;
        Ok(Self { committed, stop, status, thread })
    }

    fn is_open(&self) -> Outcome<bool> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &status.last_error {
            Some(why) => Err(why.clone().into()),
            None => Ok(status.state == "open"),
        }
    }

    fn tell(&self) {
        let _ = self.committed.try_send(());
    }

    fn stop(self) {
        self.stop.close();
        let _ = self.thread.join();
    }
}
