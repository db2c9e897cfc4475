//! A simulated device: the uplink's own machine over segments in RAM, and a real connection.
//!
//! What enters: the time, the broker's messages. What leaves: what a device sends, and the latency of each segment in the
//! [`Ledger`].

use super::{Outcome, Plan, supply::Supply};
use smol::channel::Receiver;
use smol::future::FutureExt as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use varved::clock::{BootNanos, UtcNanos};
use varved::mqtt::{self, Client, PublishError, Settings, Will};
use varved::reading::ranges::RangeSet;
use varved::reading::{SegmentSeq, SeqRange};
use varved::uplink::Head;
use varved::uplink::machine::{Action, Event, Line, Machine, Purpose, Standing};
use varved::wire::topics::{self, Topic};
use varved::wire::{self, State, StoreState, StoreUuid};

/// The prefix of all topics: the receiver's default.
const PREFIX: &str = "varved";

/// What the uplink allows by default.
const MAX_PAYLOAD_BYTES: usize = 120 << 10;

/// What the devices count together.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Devices that had their first ack.
    pub open: AtomicU64,
    /// Whether they commit.
    pub committing: AtomicBool,
    /// Whether they end.
    pub stop: AtomicBool,
    /// Segments committed.
    pub committed: AtomicU64,
    /// Segments acknowledged.
    pub acked: AtomicU64,
    /// Segments sent once more.
    pub again: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Acks that came.
    pub acks: AtomicU64,
    latencies_us: Mutex<Latencies>,
}

#[derive(Default)]
struct Latencies {
    all: Vec<u32>,
    /// Where the second that is under way begins.
    since: usize,
}

impl Ledger {
    fn took(&self, took: Duration) {
        self.acked.fetch_add(1, Relaxed);
        let mut latencies = self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.all.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Latencies since this was asked last, ascending.
    pub(crate) fn new_latencies(&self) -> Vec<u32> {
        let mut latencies = self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = latencies.all[latencies.since..].to_vec();
        latencies.since = latencies.all.len();
        new.sort_unstable();
        new
    }

    /// All latencies up to the last call of [`Ledger::new_latencies`], ascending: the traced seconds are not among them.
    pub(crate) fn all_latencies(&self) -> Vec<u32> {
        let latencies = self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = latencies.all[..latencies.since].to_vec();
        all.sort_unstable();
        all
    }
}

/// See the room.
pub(crate) struct Device {
    name: String,
    store: StoreUuid,
    number: u64,
    machine: Machine,
    client: Client,
    inbox: Receiver<mqtt::Event>,
    supply: Arc<Supply>,
    ledger: Arc<Ledger>,
    began: Instant,
    period: Duration,
    next_commit: Option<Instant>,
    high: u64,
    acked: RangeSet,
    waiting: BTreeMap<u64, Instant>,
    opened: bool,
}

impl Device {
    /// Begins to connect.
    pub(crate) fn start(
        number: usize,
        plan: &Plan,
        port: u16,
        supply: &Arc<Supply>,
        ledger: &Arc<Ledger>,
    ) -> Outcome<Self> {
        let name = format!("device-{number}");
        let mut settings = Settings::device(&name, "127.0.0.1", port);
        settings.filters = topics::device_filters(PREFIX, &name).to_vec();
        let number = number as u64;
        let will = wire::encode(&state(number, false, Vec::new()))?;
        settings.will = Some(Will { topic: topics::name(PREFIX, &name, Topic::State), payload: will });
        let (client, inbox) = Client::start(settings)?;
        let period = Duration::from_secs(1) / plan.per_second.max(1);
        // Not all at the same moment: devices know nothing of each other.
        let phase = period * (number % 97) as u32 / 97;
        let began = Instant::now();
        Ok(Self {
            store: StoreUuid::new_v4(),
            machine: Machine::new(None, BootNanos(0)),
            supply: Arc::clone(supply),
            ledger: Arc::clone(ledger),
            next_commit: Some(began + phase),
            high: 0,
            acked: RangeSet::new(),
            waiting: BTreeMap::new(),
            opened: false,
            name,
            number,
            client,
            inbox,
            began,
            period,
        })
    }

    /// Until the ledger says stop.
    pub(crate) async fn live(mut self) {
        while !self.ledger.stop.load(Relaxed) {
            self.commit_what_is_due();
            while let Some(action) = self.machine.next(self.now()) {
                match self.perform(action).await {
                    Ok(event) => self.machine.on(event, self.now()),
                    Err(event) => {
                        self.machine.on(Event::NotPublished, self.now());
                        event.into_iter().for_each(|event| self.arrived(event));
                    }
                }
                self.commit_what_is_due();
            }
            if !self.opened && self.machine.standing() == Standing::Open {
                self.opened = true;
                self.ledger.open.fetch_add(1, Relaxed);
            }
            if let Some(event) = self.wake().await {
                self.arrived(event);
            }
        }
        self.client.stop().await;
    }

    fn now(&self) -> BootNanos {
        BootNanos(i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    /// The clock of the commits goes on while the load does not, so that phases stay.
    fn commit_what_is_due(&mut self) {
        while let Some(due) = self.next_commit.filter(|due| *due <= Instant::now()) {
            self.next_commit = Some(due + self.period);
            if self.ledger.committing.load(Relaxed) && self.supply.body(self.high + 1).is_some() {
                self.high += 1;
                self.waiting.insert(self.high, due);
                self.ledger.committed.fetch_add(1, Relaxed);
                self.machine.on(Event::Committed, self.now());
            }
        }
    }

    async fn wake(&self) -> Option<mqtt::Event> {
        let machine = self.began + Duration::from_nanos(self.machine.wake_at().0.max(0).unsigned_abs());
        let until = self.next_commit.map_or(machine, |due| due.min(machine)).max(Instant::now());
        let time = async {
            smol::Timer::at(until.max(Instant::now() + Duration::from_millis(1))).await;
            None
        };
        let arrived = async { self.inbox.recv().await.ok() };
        arrived.or(time).await
    }

    fn arrived(&mut self, event: mqtt::Event) {
        match event {
            mqtt::Event::Connected { .. } => {
                self.ledger.connections.fetch_add(1, Relaxed);
                self.machine.on(Event::Connected, self.now());
            }
            mqtt::Event::Disconnected { .. } => self.machine.on(Event::Disconnected, self.now()),
            mqtt::Event::Passed => {}
            mqtt::Event::Message { topic, payload, .. } => {
                let read = match topics::parse(PREFIX, &topic).map(|(_, topic)| topic) {
                    Some(Topic::Ack) => wire::decode(&payload).map(Event::Ack),
                    Some(Topic::Request) => wire::decode(&payload).map(Event::Request),
                    _ => return,
                };
                let Ok(event) = read else { return };
                if let Event::Ack(ack) = &event {
                    self.ledger.acks.fetch_add(1, Relaxed);
                    let held = ack.stores.iter().find(|stated| stated.store == self.store).map(|stated| stated.held());
                    self.acknowledged(&held.unwrap_or_default());
                }
                self.machine.on(event, self.now());
            }
        }
    }

    fn acknowledged(&mut self, held: &RangeSet) {
        let now = Instant::now();
        let ledger = &self.ledger;
        self.waiting.retain(|seq, committed| {
            let arrived = held.contains(SegmentSeq(*seq));
            if arrived {
                ledger.took(now.saturating_duration_since(*committed));
            }
            !arrived
        });
    }

    /// Like the uplink's task, over RAM. An error is a connection that ended, with the event that said so.
    async fn perform(&mut self, action: Action) -> Result<Event, Option<mqtt::Event>> {
        let store = self.store;
        Ok(match action {
            Action::ReadStores => {
                let line = Line { store, current: true, high: SegmentSeq(self.high), recheck: None };
                Event::Stores { lines: vec![line], catalog: 1 }
            }
            Action::ReadHeads { store, purpose, after, limit } => {
                Event::Heads { store, purpose, after, heads: self.heads(after, limit) }
            }
            Action::Send { store, at, purpose, .. } => self.send(store, at, purpose).await?,
            Action::PublishCatalog { all } => {
                self.publish(Topic::Catalog(0), true, wire::encode(&self.supply.page(store))).await?;
                Event::CatalogPublished { catalog: 1, all }
            }
            Action::PublishState => {
                let high = SegmentSeq(self.high);
                self.machine.on(Event::Stating(vec![(store, high)]), self.now());
                let pending = self.pending(SegmentSeq(0)).joined(wire::MAX_RANGES);
                let stores = vec![StoreState { store, high, pending, recheck: None }];
                self.publish(Topic::State, true, wire::encode(&state(self.number, true, stores))).await?;
                Event::StatePublished
            }
            Action::SetAcked { ranges, .. } => {
                self.acked = ranges;
                Event::AckedSet
            }
            // None of them happens to a device in good order that nothing is asked of: the load then ends without its last acks.
            Action::ReadNewest { .. }
            | Action::RecordGone { .. }
            | Action::Recheck { .. }
            | Action::Copy { .. }
            | Action::PublishAccount(_) => Event::StoreFailed,
        })
    }

    async fn send(&mut self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) -> Result<Event, Option<mqtt::Event>> {
        let range = SeqRange { first: at, last: at };
        let supply = Arc::clone(&self.supply);
        let Some(body) = supply.body(at.0) else { return Ok(Event::Missing { store, at, purpose }) };
        for frame in wire::frames(store, range, body, MAX_PAYLOAD_BYTES) {
            self.publish(Topic::Segment, false, frame).await?;
        }
        if purpose == Purpose::Again {
            self.ledger.again.fetch_add(1, Relaxed);
        }
        Ok(Event::Sent { store, range, bytes: body.len() as u64, purpose })
    }

    /// Publishes, taking in meanwhile what arrives.
    async fn publish(
        &mut self,
        topic: Topic,
        retain: bool,
        payload: Result<Vec<u8>, wire::WireError>,
    ) -> Result<(), Option<mqtt::Event>> {
        enum Either {
            Taken(Result<(), PublishError>),
            Arrived(Option<mqtt::Event>),
        }
        let Ok(payload) = payload else { return Ok(()) };
        let (client, name) = (self.client.clone(), topics::name(PREFIX, &self.name, topic));
        let mut publish = std::pin::pin!(client.publish(&name, retain, payload));
        loop {
            let taken = async { Either::Taken(publish.as_mut().await) };
            let arrived = async { Either::Arrived(self.inbox.recv().await.ok()) };
            match taken.or(arrived).await {
                Either::Taken(Err(PublishError::NotConnected)) | Either::Arrived(None) => return Err(None),
                Either::Taken(_) => return Ok(()),
                Either::Arrived(Some(event @ mqtt::Event::Disconnected { .. })) => return Err(Some(event)),
                Either::Arrived(Some(event)) => self.arrived(event),
            }
        }
    }

    fn pending(&self, after: SegmentSeq) -> RangeSet {
        SeqRange::new(after.0 + 1, self.high).map(|all| self.acked.gaps(all)).unwrap_or_default()
    }

    fn heads(&self, after: SegmentSeq, limit: usize) -> Vec<Head> {
        let pending = self.pending(after);
        let numbers = pending.iter().flat_map(|range| range.first.0..=range.last.0).take(limit);
        let head = |seq: u64| {
            let bytes = self.supply.body(seq).map_or(0, |body| body.len() as u64);
            Some(Head { range: SeqRange::new(seq, seq)?, bytes })
        };
        numbers.filter_map(head).collect()
    }
}

fn state(number: u64, online: bool, stores: Vec<StoreState>) -> State {
    State {
        online,
        session: number + 1,
        run: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        utc: UtcNanos(if online { 1_790_000_000_000_000_000 } else { 0 }),
        clock_trusted: online,
        stores,
    }
}
