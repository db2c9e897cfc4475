//! The receiver as a service: the broker's messages to [`Receiver`], its answers back.
//!
//! ```text
//! mqtt thread ─► events ─► waiting (bounded) ─► a group ─► desk: Receiver::apply (commits) ─► outbox: acks, then PUBACKs ─► mqtt thread
//!                             │                    └ all that waits when the desk is free: the slower the medium,
//!                             │                      the more messages share a commit
//!                             └ when full, nothing is read: the broker holds back, and devices wait for their acks
//! ```
//!
//! What enters: the configuration, a channel that says when to stop. What leaves: nothing but a fault that ends it. Three
//! parts that don't wait for each other: the connection is served while the desk commits, and a commit needs no answer to
//! have gone out. (The MQTT thread takes a publish only while its events are read. To commit, publish and read in turns, as
//! this service once did, stops for ever when more messages arrive at a time than may wait: at a start with a hundred
//! devices, by their retained states alone.)

mod desk;
mod outbox;
#[cfg(all(test, feature = "broker"))]
mod tests;
mod upstream;

use super::FleetError;
use super::overload::{Overload, PAUSE_S};
use super::receiver::{MAX_GROUP, Publication, Receiver};
use crate::clock::BootNanos;
use crate::config::FleetConfig;
use crate::mqtt::{Client, Event};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, Request};
use desk::{Desk, Done, Job, Taken};
use outbox::Outbox;
use smol::channel::Receiver as Channel;
use smol::future::FutureExt as _;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use upstream::{Upstream, ends, settings};

/// Messages that may wait for the desk, and bytes of their payloads, give or take one payload.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 16 << 20;

/// The most payload of one group, in bytes, give or take one payload.
const MAX_GROUP_BYTES: usize = 8 << 20;

const TICK: Duration = Duration::from_secs(1);

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
    allow_many_files();
    let receiver = Receiver::open(&config.data, &config.prefix)?;
    let upstream = Upstream::of(&config)?;
    listening(upstream.listening());
    let settings = settings(&config, &upstream);
    let (client, events) = Client::start(settings).map_err(|cause| FleetError::Thread { what: "MQTT", cause })?;
    let mut service = Service {
        desk: Desk::start(receiver)?,
        outbox: Outbox::new(client.clone()),
        events,
        waiting: Waiting::default(),
        connected: false,
        ticked: Instant::now(),
        began: Instant::now(),
        prefix: config.prefix.clone(),
        overload: Overload::default(),
    };
    let ended = smol::block_on(smol::future::or(service.receive(), ends(&stop, &upstream)));
    smol::block_on(client.stop());
    service.desk.close();
    ended
}

/// Open replicas take 768 files, the embedded broker one for each device, and the usual limit is 1,024: as many as the
/// system lets us have. Where that fails, the limit stands as it is.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::warn!("receiver: the limit of open files stays as it is: {error}");
    }
}

struct Service {
    desk: Desk,
    outbox: Outbox,
    events: Channel<Event>,
    waiting: Waiting,
    /// A connection began that the desk has not heard of.
    connected: bool,
    ticked: Instant,
    began: Instant,
    prefix: String,
    overload: Overload,
}

/// Messages that wait for the desk.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<Taken>,
    bytes: usize,
}

enum Next {
    Event(Event),
    Done(Done),
    Tick,
}

impl Service {
    async fn receive(&mut self) -> Result<(), FleetError> {
        loop {
            while self.waiting.has_room() {
                let Ok(event) = self.events.try_recv() else { break };
                self.heed(event);
            }
            if !self.desk.is_busy() {
                self.hand_in();
            }
            match self.next().await? {
                Next::Event(event) => self.heed(event),
                Next::Done(done) => self.outbox.add(done.answers, done.taken),
                Next::Tick => {}
            }
        }
    }

    fn hand_in(&mut self) {
        let tick = self.ticked.elapsed() >= TICK;
        if !tick && !self.connected && self.waiting.messages.is_empty() {
            return;
        }
        if tick {
            self.ticked = Instant::now();
            let pauses = self.pauses();
            self.outbox.add(pauses, Vec::new());
        }
        let connected = std::mem::take(&mut self.connected);
        self.desk.hand_in(Job { connected, group: self.waiting.group(), tick });
    }

    /// What the busiest devices are asked where the desk does not keep up.
    fn pauses(&mut self) -> Vec<Publication> {
        let now = BootNanos(i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX));
        let busiest = self.overload.pauses(self.waiting.is_crowded(), now);
        if !busiest.is_empty() {
            log::warn!("receiver: overloaded; asks for a pause: {}", busiest.join(", "));
        }
        let request = wire::encode(&Request::Pause { seconds: PAUSE_S }).unwrap_or_default();
        let ask = |device: &String| {
            let topic = topics::name(&self.prefix, device, Topic::Request);
            Publication { topic, payload: request.clone(), retain: false }
        };
        busiest.iter().map(ask).collect()
    }

    async fn next(&mut self) -> Result<Next, FleetError> {
        let (room, wait) = (self.waiting.has_room(), TICK.saturating_sub(self.ticked.elapsed()));
        let busy = self.desk.is_busy();
        let (desk, outbox, events) = (&mut self.desk, &mut self.outbox, &self.events);
        let event = async {
            if !room {
                return std::future::pending().await;
            }
            events.recv().await.map(Next::Event).map_err(|_| FleetError::Gone { what: "the MQTT thread" })
        };
        let tick = async {
            if busy {
                return std::future::pending().await;
            }
            smol::Timer::after(wait).await;
            Ok(Next::Tick)
        };
        let done = async { desk.done().await.map(Next::Done) };
        let send = async {
            outbox.send().await;
            std::future::pending().await
        };
        send.or(done).or(event).or(tick).await
    }

    fn heed(&mut self, event: Event) {
        match event {
            Event::Message { topic, payload, ticket, .. } => {
                if let Some((device, Topic::Segment)) = topics::parse(&self.prefix, &topic) {
                    self.overload.took(device, payload.len());
                }
                self.waiting.push(Taken { topic, payload, ticket });
            }
            Event::Connected { .. } => self.connected = true,
            // The room that connects has logged it and is at it again.
            Event::Disconnected { .. } | Event::Passed => {}
        }
    }
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.messages.len() < MAX_WAITING && self.bytes < MAX_WAITING_BYTES
    }

    /// Half full, by count or by bytes.
    fn is_crowded(&self) -> bool {
        self.messages.len() >= MAX_WAITING / 2 || self.bytes >= MAX_WAITING_BYTES / 2
    }

    fn push(&mut self, taken: Taken) {
        self.bytes += taken.payload.len();
        self.messages.push_back(taken);
    }

    /// As many as one commit may have, in order of arrival.
    fn group(&mut self) -> Vec<Taken> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
            let Some(taken) = self.messages.pop_front() else { break };
            bytes += taken.payload.len();
            group.push(taken);
        }
        self.bytes -= bytes;
        group
    }
}
