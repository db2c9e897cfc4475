//! The uplink at work: asks the machine, does what it says with store and connection, tells it what came of it.
//!
//! One task, one action at a time. While a publish waits for its turn, what arrives is taken in all the same.

use super::lane::Head;
use super::machine::{Action, Event, Line, Machine, Purpose};
use super::ranges;
use super::status::{SharedStatus, lock};
use crate::clock::{BootNanos, Clock, UtcNanos};
use crate::config::UplinkConfig;
use crate::mqtt::{self, BackoffLimits, Client, Login, PublishError, Settings, Tls, Will};
use crate::reading::{SegmentSeq, SeqRange};
use crate::store::thread::{StoreGone, StoreHandle};
use crate::store::{Store, StoreError};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, State, StoreState, StoreUuid};
use smol::channel::Receiver;
use smol::future::FutureExt;
use std::sync::Arc;
use std::time::Duration;

/// What an envelope adds to a catalogue page, and a little more.
const PAGE_OVERHEAD: usize = 64;

/// Runs until `stop` is closed or sends, or the store is gone; then publishes that the device is offline and takes leave.
///
/// `committed` tells of new commits: a bounded channel of one place that the committer tries to send to.
///
/// # Errors
/// [`UplinkEnd`] where the store is gone or the system gives no thread for the connection.
pub async fn run(
    cfg: &UplinkConfig,
    device: &str,
    store: StoreHandle,
    committed: Receiver<()>,
    status: SharedStatus,
    clock: Arc<dyn Clock>,
    stop: Receiver<()>,
) -> Result<(), UplinkEnd> {
    run_with(cfg, device, store, committed, status, clock, stop, BackoffLimits::default()).await
}

/// [`run`] with other waits between attempts.
#[expect(clippy::too_many_arguments, reason = "one more than its caller, for tests")]
pub(super) async fn run_with(
    cfg: &UplinkConfig,
    device: &str,
    store: StoreHandle,
    committed: Receiver<()>,
    status: SharedStatus,
    clock: Arc<dyn Clock>,
    stop: Receiver<()>,
    backoff: BackoffLimits,
) -> Result<(), UplinkEnd> {
    let session = Session { number: mqtt_random(), run: store.run(|store| store.run()).await? };
    let settings = settings(cfg, device, session.state(Vec::new(), None))?;
    let settings = Settings { backoff, ..settings };
    let max_payload = settings.max_payload_bytes;
    let (client, inbox) = Client::start(settings).map_err(|e| UplinkEnd::Thread { cause: e.to_string() })?;
    let machine = Machine::new(cfg.snapshot_every, clock.now().boot);
    let (prefix, device) = (cfg.prefix.clone(), device.to_owned());
    let pages = Vec::new();
    let mut task = Task {
        machine,
        store,
        client,
        inbox,
        committed,
        stop,
        status,
        clock,
        session,
        prefix,
        device,
        max_payload,
        pages,
    };
    let ended = task.serve().await;
    task.take_leave().await;
    ended
}

/// Why the uplink ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkEnd {
    /// The store's thread has ended.
    StoreGone,
    /// The system gives no thread.
    Thread {
        /// Its words.
        cause: String,
    },
    /// The last will does not fit into an envelope: a fault of ours.
    Will(wire::WireError),
}

impl std::fmt::Display for UplinkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreGone => write!(f, "the store has been closed; restart varved"),
            Self::Thread { cause } => {
                write!(f, "no thread for the broker's connection: {cause}; free memory and restart varved")
            }
            Self::Will(e) => write!(f, "the last will: {e}"),
        }
    }
}

impl std::error::Error for UplinkEnd {}

impl crate::fault::Fault for UplinkEnd {
    fn verdict(&self) -> crate::fault::Verdict {
        crate::fault::Verdict::Halt
    }

    fn exit(&self) -> crate::fault::Exit {
        crate::fault::Exit::Unavailable
    }
}

impl From<StoreGone> for UplinkEnd {
    fn from(_: StoreGone) -> Self {
        Self::StoreGone
    }
}

/// What tells this run of the service from others.
#[derive(Debug, Clone, Copy)]
struct Session {
    number: u64,
    run: u64,
}

impl Session {
    /// A birth with a moment, a will or a farewell without.
    fn state(&self, stores: Vec<StoreState>, born: Option<(UtcNanos, bool)>) -> State {
        State {
            online: born.is_some(),
            session: self.number,
            run: self.run,
            version: env!("CARGO_PKG_VERSION").into(),
            utc: born.map_or(UtcNanos(0), |(utc, _)| utc),
            clock_trusted: born.is_some_and(|(_, trusted)| trusted),
            stores,
        }
    }
}

/// The connection's settings, with `will` as what the broker says for us when it breaks.
fn settings(cfg: &UplinkConfig, device: &str, will: State) -> Result<Settings, UplinkEnd> {
    let tls = cfg.broker.tls.then(|| Tls { ca: cfg.ca.clone(), cert: cfg.cert.clone(), key: cfg.key.clone() });
    let login = |username: &String| Login { username: username.clone(), password_file: cfg.password_file.clone() };
    let payload = wire::encode(&will).map_err(UplinkEnd::Will)?;
    Ok(Settings {
        tls,
        login: cfg.username.as_ref().map(login),
        filters: topics::device_filters(&cfg.prefix, device).to_vec(),
        will: Some(Will { topic: topics::name(&cfg.prefix, device, Topic::State), payload }),
        max_payload_bytes: (cfg.max_payload_bytes as usize).min(wire::MAX_ENVELOPE),
        ..Settings::device(device, &cfg.broker.host, cfg.broker.port)
    })
}

fn mqtt_random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

struct Task {
    machine: Machine,
    store: StoreHandle,
    client: Client,
    inbox: Receiver<mqtt::Event>,
    committed: Receiver<()>,
    stop: Receiver<()>,
    status: SharedStatus,
    clock: Arc<dyn Clock>,
    session: Session,
    prefix: String,
    device: String,
    max_payload: usize,
    /// CRC of each catalogue page as last published.
    pages: Vec<Option<u32>>,
}

/// Why an action did not come to its end.
enum Failed {
    Store(StoreError),
    Gone,
    /// The connection ended; the event that said so, if one did, is still to be told.
    Connection(Option<mqtt::Event>),
    Stopped,
}

impl From<StoreGone> for Failed {
    fn from(_: StoreGone) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for Failed {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// What wakes the task.
enum Wake {
    Mqtt(Option<mqtt::Event>),
    Committed(bool),
    Time,
    Stop,
}

impl Task {
    async fn serve(&mut self) -> Result<(), UplinkEnd> {
        loop {
            while let Some(action) = self.machine.next(self.now()) {
                match self.perform(action).await {
                    Ok(event) => self.tell(event),
                    Err(Failed::Connection(event)) => {
                        self.tell(Event::NotPublished);
                        event.into_iter().for_each(|event| self.arrived(event));
                    }
                    Err(Failed::Store(e)) => {
                        log::warn!("uplink: the store: {e}");
                        self.tell(Event::StoreFailed);
                    }
                    Err(Failed::Gone) => return Err(UplinkEnd::StoreGone),
                    Err(Failed::Stopped) => return Ok(()),
                }
            }
            match self.wake().await {
                Wake::Mqtt(Some(event)) => self.arrived(event),
                Wake::Mqtt(None) => return Err(UplinkEnd::Thread { cause: "it ended".into() }),
                Wake::Committed(true) => self.tell(Event::Committed),
                // The committer is gone; the store goes next, and stop is told.
                Wake::Committed(false) => self.committed = smol::channel::bounded(1).1,
                Wake::Time => {}
                Wake::Stop => return Ok(()),
            }
        }
    }

    async fn wake(&self) -> Wake {
        let until = self.machine.wake_at().0.saturating_sub(self.now().0);
        // Never less than a little, lest a time that has come without anything to do spin.
        let wait = Duration::from_nanos(until.max(10_000_000).unsigned_abs());
        let mqtt = async { Wake::Mqtt(self.inbox.recv().await.ok()) };
        let committed = async {
            match self.committed.recv().await {
                Ok(()) => Wake::Committed(true),
                Err(_) => smol::future::pending().await,
            }
        };
        let time = async {
            smol::Timer::after(wait).await;
            Wake::Time
        };
        let stop = async {
            let _ = self.stop.recv().await;
            Wake::Stop
        };
        stop.or(mqtt).or(committed).or(time).await
    }

    fn now(&self) -> BootNanos {
        self.clock.now().boot
    }

    fn tell(&mut self, event: Event) {
        self.machine.on(event, self.now());
        let mut status = lock(&self.status);
        status.stands(self.machine.standing(), self.clock.now().utc);
        status.in_flight_ranges = self.machine.in_flight();
        status.in_flight = status.in_flight_ranges.len();
    }

    /// Something came from the connection.
    fn arrived(&mut self, event: mqtt::Event) {
        match event {
            mqtt::Event::Connected { .. } => self.tell(Event::Connected),
            mqtt::Event::Disconnected { fault, .. } => {
                lock(&self.status).last_error = Some(fault.to_string());
                self.tell(Event::Disconnected);
            }
            mqtt::Event::Message { topic, payload, .. } => {
                let read = match topics::parse(&self.prefix, &topic).map(|(_, topic)| topic) {
                    Some(Topic::Ack) => wire::decode(&payload).map(Event::Ack),
                    Some(Topic::Request) => wire::decode(&payload).map(Event::Request),
                    // A broker sends what was subscribed to, and that is the two above.
                    _ => return,
                };
                match read {
                    Ok(event) => {
                        if matches!(event, Event::Ack(_)) {
                            lock(&self.status).last_ack = Some(self.clock.now().utc);
                        }
                        self.tell(event);
                    }
                    // A retained topic that was cleared: nothing is stated.
                    Err(_) if payload.is_empty() => {}
                    Err(e) => self.refused(&topic, e),
                }
            }
        }
    }

    /// Logged at the first, second, fourth, eighth… time.
    fn refused(&self, topic: &str, e: wire::WireError) {
        let mut status = lock(&self.status);
        status.refused_payloads += 1;
        if status.refused_payloads.is_power_of_two() {
            log::warn!("uplink: {topic}: {e} ({} so far)", status.refused_payloads);
        }
    }

    async fn perform(&mut self, action: Action) -> Result<Event, Failed> {
        match action {
            Action::ReadStores => self.read_stores().await,
            Action::ReadHeads { store, purpose, after, limit } => {
                let heads = move |from: &mut Store| match purpose {
                    Purpose::Snapshot => from.held(store, after, limit),
                    _ => from.pending(store, after, limit),
                };
                let heads = self.store.run(heads).await??;
                let heads = heads.iter().map(|head| Head { range: head.range, bytes: head.bytes }).collect();
                Ok(Event::Heads { store, purpose, after, heads })
            }
            Action::Send { store, at, purpose, catalog } => self.send(store, at, purpose, catalog).await,
            Action::PublishCatalog { all } => self.publish_catalog(all).await,
            Action::PublishState => self.publish_state().await,
            Action::SetAcked { store, ranges } => {
                self.store.run(move |to| to.set_acked(store, ranges)).await??;
                Ok(Event::AckedSet)
            }
            Action::RecordGone { store, range } => self.record_gone(store, range).await,
            Action::Recheck { store, why } => {
                log::warn!(
                    "uplink: store {store}: {why:?}; all of it is sent again and new readings get a fresh store id"
                );
                let (nonce, now) = (mqtt_random(), self.clock.now());
                self.store.run(move |to| to.begin_recheck(store, nonce, now)).await??;
                Ok(Event::Rechecking { store, nonce })
            }
        }
    }

    async fn read_stores(&self) -> Result<Event, Failed> {
        let read = |store: &mut Store| -> Result<_, StoreError> {
            let line = |line: &crate::store::StoreLine| -> Result<Line, StoreError> {
                let recheck = store.recheck(line.uuid)?;
                Ok(Line { store: line.uuid, current: line.current, high: line.high, recheck })
            };
            Ok((lines_of(store).iter().map(line).collect::<Result<Vec<_>, _>>()?, store.catalog_version()))
        };
        let (lines, catalog) = self.store.run(read).await??;
        Ok(Event::Stores { lines, catalog })
    }

    async fn send(
        &mut self,
        store: StoreUuid,
        at: SegmentSeq,
        purpose: Purpose,
        catalog: u64,
    ) -> Result<Event, Failed> {
        let read =
            move |from: &mut Store| -> Result<_, StoreError> { Ok((from.catalog_version(), from.body(store, at)?)) };
        let (now, found) = self.store.run(read).await??;
        if now != catalog {
            return Ok(Event::CatalogChanged { catalog: now });
        }
        let Some((range, body)) = found else { return Ok(Event::Missing { store, at, purpose }) };
        let topic = topics::name(&self.prefix, &self.device, Topic::Segment);
        let mut bytes = 0;
        for frame in wire::frames(store, range, &body, self.max_payload) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(e) => {
                    log::warn!("uplink: segment {range} of store {store} cannot be sent: {e}");
                    return Ok(Event::Missing { store, at, purpose });
                }
            };
            bytes += frame.len() as u64;
            self.publish(&topic, false, frame).await?;
        }
        let mut status = lock(&self.status);
        status.sent_segments += 1;
        status.sent_bytes += bytes;
        drop(status);
        Ok(Event::Sent { store, range, bytes: body.len() as u64, purpose })
    }

    async fn publish_catalog(&mut self, all: bool) -> Result<Event, Failed> {
        let room = self.max_payload.saturating_sub(PAGE_OVERHEAD);
        let read =
            move |store: &mut Store| -> Result<_, StoreError> { Ok((store.catalog_version(), store.catalog(room)?)) };
        let (catalog, pages) = self.store.run(read).await??;
        for (number, page) in pages.iter().enumerate().take(usize::from(u16::MAX)) {
            let payload = match wire::encode(page) {
                Ok(payload) => payload,
                Err(e) => {
                    log::warn!("uplink: catalogue page {number}: {e}");
                    continue;
                }
            };
            let crc = wire::crc_of(&payload);
            if !all && crc.is_some() && self.pages.get(number) == Some(&crc) {
                continue;
            }
            let topic = topics::name(&self.prefix, &self.device, Topic::Catalog(number as u16));
            self.publish(&topic, true, payload).await?;
            self.pages.resize(self.pages.len().max(number + 1), None);
            self.pages[number] = crc;
        }
        Ok(Event::CatalogPublished { catalog, all })
    }

    async fn publish_state(&mut self) -> Result<Event, Failed> {
        let read = |store: &mut Store| -> Result<Vec<StoreState>, StoreError> {
            let state = |line: &crate::store::StoreLine| -> Result<StoreState, StoreError> {
                let pending = ranges::at_most(wire::MAX_RANGES, ranges::normal(store.pending_ranges(line.uuid)?));
                Ok(StoreState { store: line.uuid, high: line.high, pending, recheck: store.recheck(line.uuid)? })
            };
            lines_of(store).iter().map(state).collect()
        };
        let stores = self.store.run(read).await??;
        let now = self.clock.now();
        match wire::encode(&self.session.state(stores, Some((now.utc, now.trusted)))) {
            Ok(payload) => {
                let topic = topics::name(&self.prefix, &self.device, Topic::State);
                self.publish(&topic, true, payload).await?;
            }
            Err(e) => log::warn!("uplink: the state cannot be sent: {e}"),
        }
        Ok(Event::StatePublished)
    }

    async fn record_gone(&self, store: StoreUuid, range: SeqRange) -> Result<Event, Failed> {
        let now = self.clock.now();
        let record = move |to: &mut Store| -> Result<bool, StoreError> {
            to.record_gone(store, range, now)?;
            Ok(to.body(store, range.first)?.is_some())
        };
        // What is a loss now is sent as such; should it not be there all the same, it is passed over rather than asked for
        // for ever.
        let found = self.store.run(record).await??;
        let through = if found { SegmentSeq(range.first.0 - 1) } else { range.first };
        Ok(Event::Gone { store, through })
    }

    /// Publishes, taking in meanwhile what arrives.
    async fn publish(&mut self, topic: &str, retain: bool, payload: Vec<u8>) -> Result<(), Failed> {
        enum Either {
            Taken(Result<(), PublishError>),
            Arrived(Option<mqtt::Event>),
            Stop,
        }
        let client = self.client.clone();
        let mut publish = std::pin::pin!(client.publish(topic, retain, payload));
        loop {
            let taken = async { Either::Taken(publish.as_mut().await) };
            let arrived = async { Either::Arrived(self.inbox.recv().await.ok()) };
            let stop = async {
                let _ = self.stop.recv().await;
                Either::Stop
            };
            match taken.or(arrived).or(stop).await {
                Either::Taken(Ok(())) => return Ok(()),
                Either::Taken(Err(PublishError::NotConnected)) => return Err(Failed::Connection(None)),
                Either::Taken(Err(e)) => {
                    log::warn!("uplink: {topic}: {e}");
                    return Ok(());
                }
                Either::Arrived(Some(event @ mqtt::Event::Disconnected { .. })) => {
                    return Err(Failed::Connection(Some(event)));
                }
                Either::Arrived(Some(event)) => self.arrived(event),
                Either::Arrived(None) => return Err(Failed::Connection(None)),
                Either::Stop => return Err(Failed::Stopped),
            }
        }
    }

    /// The farewell is retained like a birth, so that the fleet need not guess; then the broker is left in good order.
    async fn take_leave(&self) {
        let topic = topics::name(&self.prefix, &self.device, Topic::State);
        if let (Ok(payload), true) = (wire::encode(&self.session.state(Vec::new(), None)), self.client.is_connected()) {
            let farewell = async {
                let _ = self.client.publish(&topic, true, payload).await;
            };
            let patience = async {
                smol::Timer::after(Duration::from_secs(2)).await;
            };
            farewell.or(patience).await;
        }
        self.client.stop().await;
    }
}

/// The stores that the wire has room for, the current one first.
fn lines_of(store: &Store) -> Vec<crate::store::StoreLine> {
    let mut lines = store.stores();
    lines.truncate(wire::MAX_STORES);
    lines
}
