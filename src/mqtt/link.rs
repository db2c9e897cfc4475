//! The thread of a connection: connect, subscribe, hand over what arrives, and again.

use super::backoff::random;
use super::judge::{CONTEST, End, Judge, SHORT};
use super::settings::network;
use super::{Backoff, Event, LinkFault, Settings, Ticket};
use rumqttc::{
    AsyncClient, Connection, ConnectionError, Incoming, MqttOptions, QoS, Request, SubAck, SubscribeReasonCode,
};
use smol::channel::{Sender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an event may wait for its reader before the connection is given up. Below the one and a half keep-alives
/// (45 s at least) after which the broker gives us up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same fault is logged again after this long.
const REPEAT_LOG: Duration = Duration::from_secs(15 * 60);

/// How often a clock that is not set yet is looked at. That asks nobody but this machine.
const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// What handle and thread share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// The connection that stands, or stood last, was of use.
    of_use: bool,
    stop: bool,
    /// Bytes a second; none while it is not known.
    rate: Option<u64>,
}

struct Live {
    client: AsyncClient,
    connection: u64,
    max_payload_bytes: usize,
    largest: Largest,
}

/// The largest payload that a connection took, and how often it took one of that size.
#[derive(Debug, Clone, Copy, Default)]
struct Largest {
    bytes: usize,
    times: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(super) fn live(&self) -> Option<(AsyncClient, usize)> {
        self.lock().live.as_ref().map(|live| (live.client.clone(), live.max_payload_bytes))
    }

    pub(super) fn live_in(&self, connection: u64) -> Option<AsyncClient> {
        self.lock().live.as_ref().filter(|live| live.connection == connection).map(|live| live.client.clone())
    }

    /// Notes that the event loop took a payload.
    pub(super) fn took(&self, bytes: usize) {
        let mut state = self.lock();
        let Some(live) = &mut state.live else { return };
        if bytes > live.largest.bytes {
            live.largest = Largest { bytes, times: 0 };
        }
        live.largest.times += usize::from(bytes == live.largest.bytes);
    }

    pub(super) fn expect_rate(&self, bytes_per_s: u64) {
        self.lock().rate = Some(bytes_per_s);
    }

    pub(super) fn ask_to_stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    pub(super) fn was_of_use(&self) {
        let mut state = self.lock();
        state.of_use |= state.live.is_some();
    }

    fn stopping(&self) -> bool {
        self.lock().stop
    }

    /// Waits; true when asked to stop meanwhile.
    fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.wake.wait_timeout_while(state, time, |state| !state.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// A panic elsewhere leaves nothing half-written in here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Link {
    settings: Settings,
    shared: Arc<Shared>,
    events: Sender<Event>,
    backoff: Backoff,
    judge: Judge,
    connections: u64,
    started: Instant,
    /// The broker kept closing; until a connection has stood for [`CONTEST`], the waits go on growing.
    contested: bool,
    logged: Option<(LinkFault, Instant)>,
}

/// So many short connections in a row are another client of the same id rather than a bad link, also if each was of use.
const STRIFE: u32 = 100;

/// A connection that stood, or did not, and is over.
struct Ended {
    fault: LinkFault,
    stood: Option<Duration>,
}

impl Link {
    pub(super) fn new(settings: Settings, shared: Arc<Shared>, events: Sender<Event>) -> Self {
        let backoff = Backoff::new(settings.backoff);
        let (judge, started) = (Judge::default(), Instant::now());
        Self { settings, shared, events, backoff, judge, connections: 0, started, contested: false, logged: None }
    }

    /// Until asked to stop, or nobody reads the events any more.
    pub(super) fn run(mut self) {
        // Made for its runtime; each connection puts an event loop of its own in.
        let (_, mut connection) = rumqttc::Client::new(MqttOptions::new("", "", 0), 0);
        loop {
            let ended = self.connect_and_keep(&mut connection);
            let of_use = {
                let mut state = self.shared.lock();
                state.live = None;
                std::mem::take(&mut state.of_use)
            };
            connection.eventloop.clean();
            if self.shared.stopping() {
                return;
            }
            let retry_in = self.wait_after(&ended, of_use);
            self.log(&ended.fault);
            let told = self.events.send_blocking(Event::Disconnected { fault: ended.fault.clone(), retry_in });
            if told.is_err() || self.rest(retry_in, &ended.fault) {
                return;
            }
        }
    }

    /// A connection that was of use leaves no waits of earlier failures, unless so many in a row were short that another client of
    /// the same id is likelier than a bad link.
    fn wait_after(&mut self, ended: &Ended, of_use: bool) -> Duration {
        self.contested |= matches!(ended.fault, LinkFault::Evicted { .. });
        let calm = if self.contested { CONTEST } else { SHORT };
        if ended.stood.is_some_and(|stood| stood >= calm) {
            (self.contested, self.logged) = (false, None);
            return self.backoff.after_loss(random());
        }
        match ended.fault {
            LinkFault::Busy => self.backoff.after_busy(random()),
            LinkFault::Evicted { times } if times >= STRIFE => self.backoff.after_failure(random()),
            _ if of_use => self.backoff.after_use(random()),
            _ => self.backoff.after_failure(random()),
        }
    }

    /// Waits; true when asked to stop meanwhile. What failed for want of the time is tried again soon after the clock is
    /// set, with all the others of the site that learn the time at that moment.
    fn rest(&mut self, retry_in: Duration, fault: &LinkFault) -> bool {
        let LinkFault::ClockUnset { from, .. } = fault else { return self.shared.pause(retry_in) };
        let until = Instant::now() + retry_in;
        while Instant::now() < until {
            if self.settings.clock.now().utc >= *from {
                let retry_in = self.backoff.after_loss(random());
                return self.shared.pause(retry_in);
            }
            if self.shared.pause(CLOCK_LOOK.min(until.saturating_duration_since(Instant::now()))) {
                return true;
            }
        }
        false
    }

    fn connect_and_keep(&mut self, connection: &mut Connection) -> Ended {
        let (options, trial) = match self.settings.options() {
            Ok(options) => options,
            Err(fault) => return Ended { fault, stood: None },
        };
        let (client, mut eventloop) = AsyncClient::new(options, 0);
        let rate = self.shared.lock().rate;
        eventloop.set_network_options(network(rate));
        connection.eventloop = eventloop;
        match connection.recv() {
            Ok(Ok(rumqttc::Event::Incoming(Incoming::ConnAck(_)))) => {}
            Ok(Ok(other)) => {
                let fault = LinkFault::Protocol { cause: format!("{other:?} came before CONNACK") };
                return Ended { fault, stood: None };
            }
            Ok(Err(error)) => {
                let end = End { stood: None, at: self.started.elapsed(), unanswered: 0, taken: 0 };
                let fault = self.judge.judge(error, end, &trial, self.settings.clock.now());
                return Ended { fault, stood: None };
            }
            Err(_) => return Ended { fault: LinkFault::Stopped, stood: None },
        }
        self.connections += 1;
        let since = Instant::now();
        let fault = match self.keep(connection, client) {
            Ok(error) => {
                let end = self.end_of(connection, since.elapsed());
                self.judge.judge(error, end, &trial, self.settings.clock.now())
            }
            Err(fault) => fault,
        };
        Ended { fault, stood: Some(since.elapsed()) }
    }

    /// What the connection carried when it broke: after an error, rumqttc has what was not acknowledged in `pending`.
    fn end_of(&self, connection: &Connection, stood: Duration) -> End {
        let payload = |request: &Request| match request {
            Request::Publish(publish) => Some(publish.payload.len()),
            _ => None,
        };
        let pending: Vec<usize> = connection.eventloop.pending.iter().filter_map(payload).collect();
        let largest = self.shared.lock().live.as_ref().map(|live| live.largest).unwrap_or_default();
        let of_largest = pending.iter().filter(|bytes| **bytes == largest.bytes).count();
        let taken = if of_largest < largest.times { largest.bytes } else { 0 };
        let unanswered = pending.into_iter().max().unwrap_or(0);
        End { stood: Some(stood), at: self.started.elapsed(), unanswered, taken }
    }

    /// Subscribes and hands over what arrives. `Ok`: the connection's own error; `Err`: our reason to give it up.
    fn keep(&mut self, connection: &mut Connection, client: AsyncClient) -> Result<ConnectionError, LinkFault> {
        let mut client = Some(client);
        if self.settings.filters.is_empty() {
            self.announce(client.take())?;
        } else {
            // Before the first poll after CONNACK, so it goes out first; the request channel would not take it from here.
            connection.eventloop.pending.push_back(self.subscription());
        }
        loop {
            let event = match connection.recv() {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return Ok(error),
                Err(_) => return Err(LinkFault::Stopped),
            };
            match event {
                rumqttc::Event::Incoming(Incoming::SubAck(suback)) => {
                    self.check(&suback)?;
                    self.announce(client.take())?;
                }
                rumqttc::Event::Incoming(Incoming::Publish(publish)) => {
                    // A session from before may deliver ahead of the SUBACK.
                    self.announce(client.take())?;
                    let ticket = Ticket { connection: self.connections, pkid: publish.pkid };
                    let (topic, retained) = (publish.topic, publish.retain);
                    self.hand_over(Event::Message { topic, payload: publish.payload.into(), retained, ticket })?;
                }
                rumqttc::Event::Incoming(Incoming::PubAck(_)) if self.settings.paced => {
                    self.hand_over(Event::Passed)?
                }
                rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => return Err(LinkFault::Stopped),
                _ => {}
            }
        }
    }

    fn subscription(&self) -> Request {
        let filter = |path: &String| rumqttc::SubscribeFilter { path: path.clone(), qos: QoS::AtLeastOnce };
        Request::Subscribe(rumqttc::Subscribe::new_many(self.settings.filters.iter().map(filter)))
    }

    fn check(&self, suback: &SubAck) -> Result<(), LinkFault> {
        let refused = suback.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
        match refused.and_then(|at| self.settings.filters.get(at)) {
            Some(filter) => Err(LinkFault::Subscription { filter: filter.clone() }),
            None => Ok(()),
        }
    }

    /// Opens the connection to publishers, once, and says so.
    fn announce(&mut self, client: Option<AsyncClient>) -> Result<(), LinkFault> {
        let Some(client) = client else { return Ok(()) };
        let max_payload_bytes = self.settings.max_payload_bytes;
        self.shared.lock().live =
            Some(Live { client, connection: self.connections, max_payload_bytes, largest: Largest::default() });
        // A connection that comes and goes within seconds was announced, and its fault logged, the first time.
        if self.logged.is_none() || self.connections == 1 {
            log::info!(
                "mqtt: connected to {}:{} as {}",
                self.settings.host,
                self.settings.port,
                self.settings.client_id
            );
        }
        self.hand_over(Event::Connected { connection: self.connections })
    }

    /// Gives an event to its reader, within [`PATIENCE`]: after that the broker would miss our pings. A message that is
    /// given up comes again, since it was retained or not acknowledged, when the connection is made anew.
    fn hand_over(&self, event: Event) -> Result<(), LinkFault> {
        let until = Instant::now() + PATIENCE;
        let mut event = event;
        loop {
            event = match self.events.try_send(event) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(LinkFault::Stopped),
                Err(TrySendError::Full(_)) if Instant::now() >= until => return Err(LinkFault::Slow),
                Err(TrySendError::Full(event)) => event,
            };
            if self.shared.pause(Duration::from_millis(10)) {
                return Err(LinkFault::Stopped);
            }
        }
    }

    /// A new kind of fault at once, the same one again only after [`REPEAT_LOG`].
    fn log(&mut self, fault: &LinkFault) {
        let same =
            self.logged.as_ref().filter(|(last, _)| std::mem::discriminant(last) == std::mem::discriminant(fault));
        if same.is_some_and(|(_, at)| at.elapsed() < REPEAT_LOG) {
            return;
        }
        log::warn!("mqtt: {}:{}: {fault}", self.settings.host, self.settings.port);
        self.logged = Some((fault.clone(), Instant::now()));
    }
}
