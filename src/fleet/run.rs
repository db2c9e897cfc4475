//! The receiver as a service: the broker's messages to [`Receiver`], its answers back.
//!
//! ```text
//! mqtt thread ─► events (bounded) ─► group of up to 32 ─► Receiver::apply (commits) ─► publish acks ─► PUBACKs, in order
//! ```
//!
//! What enters: the configuration, a channel that says when to stop. What leaves: nothing but a fault that ends it. One
//! thread does it all: while it commits, the broker holds back what it may not send yet, and devices wait for their acks.

use super::FleetError;
#[cfg(feature = "broker")]
use super::broker::Broker;
use super::receiver::{MAX_GROUP, Message, Publication, Receiver};
use crate::clock::Clock;
use crate::clock::system::SystemClock;
use crate::config::FleetConfig;
use crate::mqtt::{Client, Event, Login, PublishError, Settings, Ticket, Tls};
use crate::wire::topics;
use smol::channel::Receiver as Channel;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a publish may wait before it is given up; the device then hears of it with the next ack.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(30);

/// Messages that may wait while an answer is being published.
const MAX_WAITING: usize = 256;

/// The most payload of one group, in bytes.
const MAX_GROUP_BYTES: usize = 4 << 20;

const TICK: Duration = Duration::from_secs(1);

/// How often the embedded broker is asked whether it still accepts clients, and how many refusals in a row end the service.
#[cfg(feature = "broker")]
const PROBE_EVERY: Duration = Duration::from_secs(30);
#[cfg(feature = "broker")]
const PROBES: u32 = 3;

/// Receives for the fleet until `stop` yields or closes. What was acknowledged is durable, also when this ends in a fault.
///
/// # Errors
/// The data folder or the configuration can't be used, or the embedded broker is gone.
pub fn run(config: FleetConfig, stop: Channel<()>) -> Result<(), FleetError> {
    serve(config, stop, |_| ())
}

/// As [`run`]; `listening` is called once, with the address of the embedded broker where there is one, before the first
/// message is taken.
pub fn serve(
    config: FleetConfig,
    stop: Channel<()>,
    listening: impl FnOnce(Option<SocketAddr>),
) -> Result<(), FleetError> {
    if config.http.is_some() {
        return Err(FleetError::Config(
            "fleet.http is not available yet; write http = \"off\", or leave it out".into(),
        ));
    }
    let receiver = Receiver::open(&config.data, &config.prefix)?;
    let upstream = Upstream::of(&config)?;
    listening(upstream.listening());
    let settings = settings(&config, &upstream);
    let (client, events) = Client::start(settings).map_err(|e| FleetError::Mqtt(format!("no thread for MQTT: {e}")))?;
    let mut service = Service {
        receiver,
        client,
        events,
        waiting: VecDeque::new(),
        clock: SystemClock::new(Path::new("/")),
        ticked: Instant::now(),
    };
    let ended = smol::block_on(smol::future::or(service.receive(), ends(&stop, &upstream)));
    let now = service.clock.now();
    smol::block_on(service.client.stop());
    service.receiver.close(now);
    ended
}

/// The broker in use.
struct Upstream {
    host: String,
    port: u16,
    #[cfg(feature = "broker")]
    embedded: Option<Broker>,
}

impl Upstream {
    fn of(config: &FleetConfig) -> Result<Self, FleetError> {
        match (&config.broker, config.listen) {
            (Some(broker), _) => Ok(Self {
                host: broker.host.clone(),
                port: broker.port,
                #[cfg(feature = "broker")]
                embedded: None,
            }),
            (None, Some(listen)) => Self::embedded(listen, &config.prefix),
            (None, None) => Err(FleetError::Config("fleet.broker is missing; name a broker, or `listen`".into())),
        }
    }

    #[cfg(feature = "broker")]
    fn embedded(listen: SocketAddr, prefix: &str) -> Result<Self, FleetError> {
        let broker = Broker::start(listen, prefix)?;
        let local = broker.local_address();
        log::info!("broker: listens on {}", broker.address());
        Ok(Self { host: local.ip().to_string(), port: local.port(), embedded: Some(broker) })
    }

    #[cfg(not(feature = "broker"))]
    fn embedded(_: SocketAddr, _: &str) -> Result<Self, FleetError> {
        Err(FleetError::Config("this build has no embedded broker; name an outside one with fleet.broker".into()))
    }

    #[cfg(feature = "broker")]
    fn listening(&self) -> Option<SocketAddr> {
        self.embedded.as_ref().map(Broker::address)
    }

    #[cfg(not(feature = "broker"))]
    fn listening(&self) -> Option<SocketAddr> {
        None
    }

    /// Waits until the embedded broker accepts nobody any more; for ever with an outside one.
    #[cfg(feature = "broker")]
    async fn is_gone(&self) -> FleetError {
        let Some(broker) = &self.embedded else { return std::future::pending().await };
        let mut refused = 0;
        while refused < PROBES {
            smol::Timer::after(PROBE_EVERY).await;
            let probe = broker.probe();
            refused = if smol::unblock(probe).await { 0 } else { refused + 1 };
        }
        FleetError::BrokerGone { address: broker.address() }
    }

    #[cfg(not(feature = "broker"))]
    async fn is_gone(&self) -> FleetError {
        std::future::pending().await
    }
}

async fn ends(stop: &Channel<()>, upstream: &Upstream) -> Result<(), FleetError> {
    let asked = async {
        // A closed channel asks too: whoever could have is gone.
        let _ = stop.recv().await;
        Ok(())
    };
    smol::future::or(asked, async { Err(upstream.is_gone().await) }).await
}

fn settings(config: &FleetConfig, upstream: &Upstream) -> Settings {
    // One receiver per prefix: a second one has the same id, and the two notice each other at once.
    let client_id = format!("varved-fleet-{}", config.prefix.replace('/', "-"));
    let mut settings = Settings::receiver(&client_id, &upstream.host, upstream.port);
    settings.filters = topics::receiver_filters(&config.prefix).to_vec();
    if config.broker.as_ref().is_some_and(|broker| broker.tls) {
        let (ca, cert, key) = (config.ca.clone(), config.cert.clone(), config.key.clone());
        settings.tls = Some(Tls { ca, cert, key, alpn: config.alpn.clone() });
    }
    settings.login =
        config.username.clone().map(|username| Login { username, password_file: config.password_file.clone() });
    settings
}

struct Service {
    receiver: Receiver,
    client: Client,
    events: Channel<Event>,
    waiting: VecDeque<Event>,
    clock: SystemClock,
    ticked: Instant,
}

/// One message of a group.
struct Taken {
    topic: String,
    payload: Vec<u8>,
    ticket: Ticket,
}

impl Service {
    async fn receive(&mut self) -> Result<(), FleetError> {
        loop {
            let group = self.group().await?;
            if !group.is_empty() {
                self.apply(group).await;
            }
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                let answers = self.receiver.tick(self.clock.now());
                self.publish(answers).await;
            }
        }
    }

    /// The messages that are there, at least one of them or none at a tick.
    async fn group(&mut self) -> Result<Vec<Taken>, FleetError> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
            let event = match self.waiting.pop_front() {
                Some(event) => event,
                None if group.is_empty() => match self.next().await? {
                    Some(event) => event,
                    None => break,
                },
                None => match self.events.try_recv() {
                    Ok(event) => event,
                    Err(_) => break,
                },
            };
            if let Some(taken) = self.heed(event) {
                bytes += taken.payload.len();
                group.push(taken);
            }
        }
        Ok(group)
    }

    /// The next event, or `None` when it is time to tick.
    async fn next(&self) -> Result<Option<Event>, FleetError> {
        let event = async { self.events.recv().await.map(Some) };
        let tick = async {
            smol::Timer::after(TICK.saturating_sub(self.ticked.elapsed())).await;
            Ok(None)
        };
        let gone = |_| FleetError::Mqtt("the MQTT thread has ended; start varved-fleet again".into());
        smol::future::or(event, tick).await.map_err(gone)
    }

    fn heed(&mut self, event: Event) -> Option<Taken> {
        match event {
            Event::Message { topic, payload, ticket, .. } => Some(Taken { topic, payload, ticket }),
            Event::Connected { .. } => {
                self.receiver.connected();
                None
            }
            // The room that connects has logged it and is at it again.
            Event::Disconnected { .. } => None,
        }
    }

    /// Commit, then acks to devices, then PUBACKs in order of arrival: rumqttd closes a connection that gives them in
    /// another. A message that could not be kept gets its PUBACK too: the device has had no ack for it and sends it again,
    /// while a PUBACK withheld would hold up every other device.
    async fn apply(&mut self, group: Vec<Taken>) {
        let messages: Vec<Message<'_>> =
            group.iter().map(|taken| Message { topic: &taken.topic, payload: &taken.payload }).collect();
        let answers = self.receiver.apply(&messages, self.clock.now());
        self.publish(answers).await;
        for taken in &group {
            let client = self.client.clone();
            if !self.attempt(async { client.ack(taken.ticket).await }).await {
                break;
            }
        }
    }

    async fn publish(&mut self, answers: Vec<Publication>) {
        for Publication { topic, payload, retain } in answers {
            let client = self.client.clone();
            if !self.attempt(async { client.publish(&topic, retain, payload).await }).await {
                break;
            }
        }
    }

    /// Waits for `work` while messages go on arriving: the MQTT thread can take a publish only if its events are read.
    /// False where the connection is gone: what was to be said is said again after the next one.
    async fn attempt(&mut self, work: impl Future<Output = Result<(), PublishError>>) -> bool {
        let patient = smol::future::or(work, async {
            smol::Timer::after(PUBLISH_PATIENCE).await;
            Err(PublishError::NotConnected)
        });
        let (events, waiting) = (self.events.clone(), &mut self.waiting);
        let gather = async {
            while waiting.len() < MAX_WAITING {
                match events.recv().await {
                    Ok(event) => waiting.push_back(event),
                    Err(_) => break,
                }
            }
            std::future::pending().await
        };
        match smol::future::or(patient, gather).await {
            Ok(()) => true,
            Err(PublishError::NotConnected) => false,
            Err(error) => {
                log::error!("receiver: {error}");
                true
            }
        }
    }
}

#[cfg(all(test, feature = "broker"))]
mod tests {
    use super::*;
    use crate::fleet::report;
    use crate::reading::{BootId, SegmentSeq, SeqRange};
    use crate::segment::{self, Content, Loss, LossReason, Segment};
    use crate::wire::topics::Topic;
    use crate::wire::{Ack, CatalogBoot, CatalogPage, State, StoreUuid, decode, encode, frames};

    const PREFIX: &str = "varved";

    fn config(data: &Path) -> FleetConfig {
        FleetConfig {
            data: data.to_owned(),
            broker: None,
            listen: Some(([127, 0, 0, 1], 0).into()),
            prefix: PREFIX.into(),
            http: None,
            ca: None,
            cert: None,
            key: None,
            username: None,
            password_file: None,
            alpn: None,
        }
    }

    type Running = std::thread::JoinHandle<Result<(), FleetError>>;

    /// A service on a thread of its own, and where its broker listens.
    fn start(data: &Path) -> (SocketAddr, smol::channel::Sender<()>, Running) {
        let (stop, stopped) = smol::channel::bounded(1);
        let (tell, told) = std::sync::mpsc::channel();
        let config = config(data);
        let service = std::thread::spawn(move || serve(config, stopped, |address| tell.send(address).expect("told")));
        let address = told.recv().expect("it listens").expect("an embedded broker");
        (address, stop, service)
    }

    fn device(address: SocketAddr, name: &str) -> (Client, Channel<Event>) {
        let mut settings = Settings::device(name, &address.ip().to_string(), address.port());
        settings.filters = topics::device_filters(PREFIX, name).to_vec();
        let (client, events) = Client::start(settings).expect("a client");
        (client, events)
    }

    async fn next_ack(events: &Channel<Event>, want: impl Fn(&Ack) -> bool) -> Ack {
        let ack = async {
            loop {
                let Ok(Event::Message { topic, payload, .. }) = events.recv().await else { continue };
                if topic.ends_with("/ack") {
                    let ack: Ack = decode(&payload).expect("an ack");
                    if want(&ack) {
                        return ack;
                    }
                }
            }
        };
        let late = async {
            smol::Timer::after(Duration::from_secs(20)).await;
            panic!("no such ack within 20 s")
        };
        smol::future::or(ack, late).await
    }

    async fn connected(events: &Channel<Event>) {
        while !matches!(events.recv().await, Ok(Event::Connected { .. })) {}
    }

    fn segment(seq: u64) -> Segment {
        let at = Some((BootId(1), crate::clock::BootNanos(seq as i64)));
        let loss = Loss { reason: LossReason::Overflow, readings: Some(seq), from: at, to: at, utc: None };
        Segment { range: SeqRange::new(seq, seq).expect("a range"), content: Content::Loss(loss) }
    }

    /// From a device's publish to its ack, through the embedded broker: what is acknowledged is in the replica, and a
    /// device that comes later finds the ack retained.
    #[test]
    fn a_device_is_acknowledged_through_the_embedded_broker() {
        let dir = tempfile::tempdir().expect("a directory");
        let (address, stop, service) = start(dir.path());
        let store = StoreUuid::from_u128(7);
        smol::block_on(async {
            let (client, events) = device(address, "pump-17");
            connected(&events).await;
            let topic = |topic| topics::name(PREFIX, "pump-17", topic);
            let boots = vec![CatalogBoot { id: BootId(1), uuid: store, anchors: vec![] }];
            let page = encode(&CatalogPage { store, series: vec![], boots }).expect("a page");
            client.publish(&topic(Topic::Catalog(0)), true, page).await.expect("published");
            // The page and the segments go by different filters and may overtake each other: a device sends again.
            let acked = |ack: &Ack| ack.stores.iter().any(|s| s.store == store && s.cumulative == SegmentSeq(40));
            let send = async {
                loop {
                    for seq in 1..=40 {
                        let body = segment::encode(&segment(seq)).expect("a body");
                        for frame in frames(store, segment(seq).range, &body, 100_000) {
                            let frame = frame.expect("a frame");
                            client.publish(&topic(Topic::Segment), false, frame).await.expect("published");
                        }
                    }
                    smol::Timer::after(Duration::from_millis(300)).await;
                }
            };
            smol::future::or(send, async { drop(next_ack(&events, acked).await) }).await;
            let (_later, events) = device(address, "pump-17");
            next_ack(&events, acked).await;
            client.stop().await;
        });
        stop.close();
        service.join().expect("no panic").expect("a good end");
        let devices = report::devices(dir.path()).expect("an account");
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].stores[0].held, ["1..=40"]);
        assert_eq!(devices[0].stores[0].readings_lost, (1..=40).sum::<u64>());
        assert!(report::table(&devices).contains("pump-17"));
    }

    /// The receiver restarts beside an outside broker: what was sent meanwhile waits in its session there, and the
    /// retained states and catalogues come again.
    #[test]
    fn a_restarted_receiver_goes_on_where_it_was() {
        let broker = crate::mqtt::testing::Mosquitto::start();
        let dir = tempfile::tempdir().expect("a directory");
        let store = StoreUuid::from_u128(8);
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
        let start = || {
            let (stop, stopped) = smol::channel::bounded::<()>(1);
            let outside = crate::config::Broker { host: "127.0.0.1".into(), port: broker.port, tls: false };
            let config = FleetConfig { broker: Some(outside), listen: None, ..config(dir.path()) };
            (stop, std::thread::spawn(move || run(config, stopped)))
        };
        let topic = |topic| topics::name(PREFIX, "a", topic);
        let frame = |seq| {
            let body = segment::encode(&segment(seq)).expect("a body");
            frames(store, segment(seq).range, &body, 100_000).next().expect("one").expect("a frame")
        };
        let held = |n| move |ack: &Ack| ack.stores.iter().any(|s| s.store == store && s.cumulative == SegmentSeq(n));
        smol::block_on(async {
            let (stop, service) = start();
            let (client, events) = device(address, "a");
            connected(&events).await;
            let boots = vec![CatalogBoot { id: BootId(1), uuid: store, anchors: vec![] }];
            let page = encode(&CatalogPage { store, series: vec![], boots }).expect("a page");
            client.publish(&topic(Topic::Catalog(0)), true, page).await.expect("published");
            let state = State {
                online: true,
                session: 1,
                run: 1,
                version: "0.1.0".into(),
                utc: crate::clock::UtcNanos(1),
                clock_trusted: false,
                stores: vec![],
            };
            client.publish(&topic(Topic::State), true, encode(&state).expect("a state")).await.expect("published");
            next_ack(&events, |ack| ack.stores.iter().all(|s| s.store == store)).await;
            client.publish(&topic(Topic::Segment), false, frame(1)).await.expect("published");
            next_ack(&events, held(1)).await;
            stop.close();
            service.join().expect("no panic").expect("a good end");
            for seq in 2..=5 {
                client.publish(&topic(Topic::Segment), false, frame(seq)).await.expect("published");
            }
            let (stop, service) = start();
            // The definitions are asked for or come retained; segments that overtook them are sent again.
            let again = async {
                loop {
                    smol::Timer::after(Duration::from_millis(500)).await;
                    for seq in 2..=5 {
                        client.publish(&topic(Topic::Segment), false, frame(seq)).await.expect("published");
                    }
                }
            };
            smol::future::or(again, async { drop(next_ack(&events, held(5)).await) }).await;
            stop.close();
            service.join().expect("no panic").expect("a good end");
            client.stop().await;
        });
    }

    /// What is not there yet is refused at the start rather than left out.
    #[test]
    fn http_is_refused_while_there_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = FleetConfig { http: Some(([127, 0, 0, 1], 0).into()), ..config(dir.path()) };
        let (_stop, stopped) = smol::channel::bounded(1);
        assert!(matches!(run(config, stopped), Err(FleetError::Config(_))));
    }
}
