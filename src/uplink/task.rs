//! The uplink at work: asks the machine, does what it says with store and connection, tells it what came of it.
//!
//! One task, one action at a time. While a publish waits for its turn, what arrives is taken in all the same.

mod end;
mod perform;
mod session;

pub use end::UplinkEnd;

use super::machine::{Event, Machine};
use super::status::{SharedStatus, lock};
use super::unheard::Unheard;
use super::voice::{Outgoing, Session, Voice};
use crate::clock::{BootNanos, Clock, SECOND};
use crate::config::UplinkConfig;
use crate::mqtt::{self, BackoffLimits, Client, Settings};
use crate::store::StoreError;
use crate::store::thread::{StoreGone, StoreHandle};
use crate::wire;
use crate::wire::topics::{self, Topic};
use session::settings;
use smol::channel::Receiver;
use smol::future::FutureExt;
use std::sync::Arc;
use std::time::Duration;

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
    run_with(cfg, device, store, committed, status, clock, stop, None).await
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
    backoff: Option<BackoffLimits>,
) -> Result<(), UplinkEnd> {
    let session = Session { number: random(), run: store.run(|store| store.run()).await? };
    let settings = settings(cfg, device, session.farewell(), &clock)?;
    let settings = Settings { backoff: backoff.unwrap_or(settings.backoff), ..settings };
    let max_payload_bytes = settings.max_payload_bytes;
    let voice = Voice::new(&cfg.prefix, device, session, max_payload_bytes);
    let unheard = Unheard::new(max_payload_bytes);
    let (client, inbox) = Client::start(settings).map_err(|e| UplinkEnd::Thread { cause: e.to_string() })?;
    let now = clock.now().boot;
    let machine = Machine::new(cfg.snapshot_every, now).numbered_from(session.number).paced(
        cfg.pace,
        max_payload_bytes,
        cfg.broker.tls,
        now,
    );
    let prefix = cfg.prefix.clone();
    let timed = None;
    let mut task =
        Task { machine, store, client, inbox, committed, stop, status, clock, prefix, voice, unheard, timed };
    task.resume_account().await?;
    let ended = task.serve().await;
    task.take_leave().await;
    ended
}

fn random() -> u64 {
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
    prefix: String,
    voice: Voice,
    unheard: Unheard,
    /// When the machine was last told the time.
    timed: Option<BootNanos>,
}

/// How often the machine is told the time.
const TIME_NS: i64 = SECOND;

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
            loop {
                self.keep_time().await?;
                let Some(action) = self.machine.next(self.now()) else { break };
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

    /// Goes on with the account of traffic of the run before.
    async fn resume_account(&mut self) -> Result<(), StoreGone> {
        match self.store.run(|store| store.traffic()).await? {
            Ok(Some(text)) if !self.machine.resume_account(&text) => log::warn!(
                "uplink: the saved account of traffic can't be read; it begins anew, delete the row `traffic` of the table \
                 `meta` if this is told again"
            ),
            Ok(_) => {}
            Err(e) => log::warn!("uplink: the account of traffic begins anew: {e}"),
        }
        Ok(())
    }

    /// Tells the machine the time, once a second, and the store what is to be kept of it.
    async fn keep_time(&mut self) -> Result<(), StoreGone> {
        let now = self.clock.now();
        if self.timed.is_some_and(|last| now.boot.0 - last.0 < TIME_NS) {
            return Ok(());
        }
        self.timed = Some(now.boot);
        self.tell(Event::Time(now));
        if let Some(rate) = self.machine.figures().rate_bytes_per_s {
            self.client.expect_rate(rate);
        }
        match self.machine.account_to_save() {
            Some(text) => self.store.run(move |store| store.note_traffic(text)).await,
            None => Ok(()),
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
        self.notice(&event);
        if matches!(event, Event::Disconnected | Event::NotPublished) {
            self.voice.disconnected();
        }
        self.machine.on(event, self.now());
        let mut status = lock(&self.status);
        status.stands(self.machine.standing(), self.clock.now().utc);
        status.in_flight_ranges = self.machine.in_flight();
        status.in_flight = status.in_flight_ranges.len();
        (status.traffic, status.outlook) = (self.machine.figures(), self.machine.outlook());
        status.silent_until = self.machine.silent_until();
    }

    /// Whether a payload is never heard of again, for the log and `status`.
    fn notice(&mut self, event: &Event) {
        let silence = match event {
            Event::Sent { store, range, bytes, .. } => self.unheard.sent(*store, *range, *bytes),
            Event::Ack(ack) => {
                self.unheard.heard(ack);
                None
            }
            _ => None,
        };
        if let Some(silence) = silence {
            log::warn!("uplink: {silence}");
            lock(&self.status).last_error = Some(silence.to_string());
        }
    }

    /// Something came from the connection.
    fn arrived(&mut self, event: mqtt::Event) {
        match event {
            mqtt::Event::Connected { .. } => self.tell(Event::Connected),
            mqtt::Event::Disconnected { fault, .. } => {
                lock(&self.status).last_error = Some(fault.to_string());
                self.tell(Event::Disconnected);
            }
            mqtt::Event::Passed => self.tell(Event::Passed),
            mqtt::Event::Message { topic, payload, .. } => {
                self.tell(Event::Arrived { bytes: (topic.len() + payload.len()) as u64 });
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

    /// The farewell is retained like a birth, so that the fleet need not guess; then the broker is left in good order.
    async fn take_leave(&mut self) {
        if let Some(Outgoing { topic, retain, payload, .. }) =
            self.voice.farewell().filter(|_| self.client.is_connected())
        {
            let bytes = (topic.len() + payload.len()) as u64;
            self.tell(Event::Published { bytes, begun: self.now() });
            let farewell = async {
                let _ = self.client.publish(&topic, retain, payload).await;
            };
            let patience = async {
                smol::Timer::after(Duration::from_secs(2)).await;
            };
            farewell.or(patience).await;
        }
        let account = self.machine.last_account();
        // Where the store is gone there is nobody to keep it.
        let _ = self.store.run(move |store| store.note_traffic(account)).await;
        self.client.stop().await;
    }
}
