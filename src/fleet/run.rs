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
        return Err(FleetError::Config("fleet.http is not available yet; write http = \"off\", or leave it out".into()));
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
        settings.tls = Some(Tls { ca: config.ca.clone(), cert: config.cert.clone(), key: config.key.clone() });
    }
    settings.login = config
        .username
        .clone()
        .map(|username| Login { username, password_file: config.password_file.clone() });
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
