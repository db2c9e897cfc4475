//! The device: wires sensors, recorder, store, upkeep, uplink and control together, and runs them until told to end.
//!
//! A fixed list of tasks on one thread, spawned once at start; blocking work has threads of its own, as many as the
//! configuration names: one a polled sensor, one for SQLite, one for MQTT. Every channel between them is bounded, so that
//! memory is a sum of constants.
//!
//! ```text
//!   sensors ──readings(8)───► recorder ──jobs(8)──► store thread ◄──jobs(8)── upkeep, uplink, control
//!   clock ────anchors(8)────►    ▲  └──committed(1)──► uplink ◄──► mqtt thread
//!                      asks(4) control, signals, power-fail input
//! ```

pub mod control;
mod error;
mod hatch;
mod power;
pub mod recorder;
pub mod status;
pub mod watch;
mod wear;

pub use error::DeviceError;

use crate::batch::{BatchLimits, Registry};
use crate::clock::keeper::Keeper;
use crate::clock::system::SystemClock;
use crate::clock::{Anchor, Clock, Now};
use crate::config::Config;
use crate::reading::Reading;
use crate::sensor::{self, Running};
use crate::signals::{Call, Signals, Visits};
use crate::store::thread::{StoreGone, StoreHandle};
use crate::store::{self, Identity, Step, Store, StoreError};
use crate::upkeep::{Chore, Upkeep};
use crate::uplink::{self, SharedStatus};
use recorder::{Ask, Ends, Recorder};
use serde::{Deserialize, Serialize};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;
use smol::{Executor, Timer};
use status::{Recorded, Shared};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Chunks of readings between the sensors and the recorder. A sensor that finds it full waits: streams are held back by
/// their own protocol, datagrams wait in the kernel's buffer, then are dropped and counted. A chunk is what
/// one read of lines holds, about 20 KiB in RAM and ten times that at the worst; the queue is full only while a commit is
/// waited for, when more of them would gain nothing.
const READINGS_QUEUE: usize = 8;

/// Requests to the recorder that may wait.
const ASKS_QUEUE: usize = 4;

/// Anchors that may wait for the recorder.
const ANCHORS_QUEUE: usize = 8;

/// How often the clocks are compared.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// How often upkeep looks for something to do.
const UPKEEP_TICK: Duration = Duration::from_secs(1);

/// How long the end of the service waits for a medium that takes no writes.
const LAST_COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// How long the end of the service waits for the broker to take its farewell.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(3);

/// The service in the foreground, until SIGTERM or SIGINT: then it commits what is in RAM and ends, leaving the WAL in
/// place.
///
/// # Errors
/// What makes a start impossible. Faults of the medium do not: readings wait in RAM, within the configured bound.
pub fn run(config: Config) -> Result<Report, DeviceError> {
    let signals = Signals::take().map_err(DeviceError::Signals)?;
    serve(Desk::new(config)?, signals)
}

/// The tasks, from the first to the last.
fn serve(desk: Desk, mut signals: Signals) -> Result<Report, DeviceError> {
    let executor = Executor::new();
    // Not `smol::block_on`: where that runs, the thread of async-io wakes ten times behind each event to see whether it must help out.
    // Without it that thread waits for all sockets and timers, and for nothing else.
    smol::future::block_on(executor.run(async {
        let (asks, hears) = bounded(ASKS_QUEUE);
        let (anchors_out, anchors) = bounded(ANCHORS_QUEUE);
        let (committed_out, committed) = bounded(1);
        let (readings_out, readings) = bounded(READINGS_QUEUE);
        let ends = Ends { readings, anchors, asks: hears, committed: committed_out };
        let mut recorder = executor.spawn(desk.recorder(ends).run());
        let sensors = desk.start_sensors(&readings_out, &executor)?;
        let clock = executor.spawn(desk.clone().keep_anchors(anchors_out));
        let mut upkeep = executor.spawn(desk.clone().keep_up());
        let visits = Visits::take().map_err(DeviceError::Signals)?;
        let door = executor.spawn(desk.clone().let_readers_in(visits));
        let wear = executor.spawn(desk.clone().watch_wear());
        let power = desk.config.power_fail.clone();
        let power = power.map(|config| executor.spawn(desk.clone().watch_power(config, asks.clone())));
        let (stop_uplink, stopped) = bounded(1);
        let uplink = executor.spawn(desk.clone().upload(committed, stopped));
        let control = desk.clone().serve_control(asks.clone(), &sensors, &executor);
        watch::ready();
        log::info!("device {}: recording into {}", desk.config.device, desk.config.store.path.display());

        let told = async {
            until_told(&mut signals, &asks).await;
            Ok(())
        };
        // A service that can record no more must not go on as if it did: its end is what the service manager acts on.
        let recorder_ended = async { (&mut recorder).await.map_err(DeviceError::StoreGone) };
        let store_ended = async { Err(DeviceError::StoreGone((&mut upkeep).await)) };
        or(told, or(recorder_ended, store_ended)).await?;
        watch::stopping();
        sensors.stop().await;
        drop((control, clock, door, wear, power));
        let finished = async {
            desk.save_wear().await;
            ask(&asks, Ask::Finish).await;
            recorder.await.map_err(DeviceError::StoreGone)
        };
        or(finished, async { Err(desk.gave_up().await) }).await?;
        drop((upkeep, stop_uplink));
        or(uplink, async {
            let _ = Timer::after(FAREWELL_PATIENCE).await;
        })
        .await;
        desk.close().await
    }))
}

/// Answers the signals until one of them says to end.
async fn until_told(signals: &mut Signals, asks: &Sender<Ask>) {
    while signals.next().await == Call::Commit {
        // Not waited for: a second signal may say that the power is gone in a moment.
        let _ = asks.try_send(Ask::Commit);
    }
}

/// Asks the recorder and waits for its answer.
async fn ask(asks: &Sender<Ask>, what: impl FnOnce(Sender<()>) -> Ask) {
    let (reply, answered) = bounded(1);
    if asks.send(what(reply)).await.is_ok() {
        let _ = answered.recv().await;
    }
}

/// What a device did, told when it has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Readings taken and committed.
    pub recorded: Recorded,
    /// Bytes that this process caused to be written to media (`/proc/self/io`, `write_bytes`); 0 where the kernel keeps no
    /// such account.
    pub written_bytes: u64,
    /// Payload bytes handed to the broker.
    pub sent_bytes: u64,
}

/// Everything that the tasks share.
#[derive(Clone)]
struct Desk {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    store: StoreHandle,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    link: SharedStatus,
    wear: wear::SharedWear,
    power: power::SharedPower,
    started: Instant,
}

impl Desk {
    /// Opens the store. One that can't be opened now, but may be later, is tried again on its own thread.
    fn new(config: Config) -> Result<Self, DeviceError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(&config.root));
        let shared = Arc::new(Shared::default());
        let (told, opener) = (shared.clone(), clock.clone());
        let (settings, root) = (config.store.clone(), config.root.clone());
        let open = move |unreadable: Option<&StoreError>| {
            let me = Identity::read(&root)?;
            if let Some(why) = unreadable {
                store::set_unreadable_aside(&settings, why, opener.now())?;
            }
            Store::open(&settings, &me, opener.now()).map(|(store, _)| store)
        };
        let store = store::thread::spawn_opening(open, move |why| told.store_fault(why.to_string()))
            .map_err(DeviceError::Store)?;
        let registry = Arc::new(Registry::new(config.store.max_series));
        Ok(Self {
            config: Arc::new(config),
            clock,
            store,
            registry,
            shared,
            link: Arc::default(),
            wear: Arc::default(),
            power: Arc::default(),
            started: Instant::now(),
        })
    }

    fn recorder(&self, ends: Ends) -> Recorder {
        let store = &self.config.store;
        let buffer_bytes = store.buffer_bytes;
        let limits = BatchLimits { interval: store.commit_interval, readings: store.commit_readings, buffer_bytes };
        let desk = recorder::Desk {
            store: self.store.clone(),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            shared: self.shared.clone(),
            failing: Arc::default(),
        };
        Recorder::new(limits, ends, desk)
    }

    fn start_sensors(&self, out: &Sender<Vec<Reading>>, executor: &Executor<'static>) -> Result<Running, DeviceError> {
        let config = &self.config;
        sensor::start(&config.sensors, &config.root, &self.registry, &self.clock, out, executor)
            .map_err(DeviceError::Sensor)
    }

    /// Answers who wants to read the live file. Without it they would wait for the next commit.
    async fn let_readers_in(self, mut visits: Visits) {
        loop {
            visits.next().await;
            match self.store.run(|store| store.let_readers_in()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => log::warn!("store: {e}"),
                Err(StoreGone) => return,
            }
        }
    }

    /// Compares the clocks once a second, for ever; tells the service manager that the loop turns.
    async fn keep_anchors(self, out: Sender<Anchor>) {
        let mut watchdog = watch::Watchdog::default();
        let known = async { self.store.run(|store| store.newest_anchor()).await.ok().and_then(Result::ok).flatten() };
        // The answer may take as long as the medium is out of use, in which the service goes on.
        let turning = async {
            loop {
                watchdog.tick();
                Timer::after(CLOCK_TICK).await;
            }
        };
        let mut keeper = Keeper::new(or(known, turning).await);
        loop {
            let now = self.clock.now();
            for anchor in keeper.observe(now) {
                let _ = out.send(anchor).await;
            }
            self.shared.clock(keeper.believes(now));
            watchdog.tick();
            Timer::after(CLOCK_TICK).await;
        }
    }

    /// Takes one bounded step of upkeep at a time, for as long as there is a store.
    async fn keep_up(self) -> StoreGone {
        let mut upkeep = Upkeep::new(self.clock.now());
        loop {
            Timer::after(UPKEEP_TICK).await;
            let now = self.clock.now();
            if self.shared.hurries(now.boot) {
                // A commit must not wait for a step.
                continue;
            }
            let look = move |store: &mut Store| {
                store.look_at_place(now)?;
                store.look_at_medium()?;
                store.facts()
            };
            let facts = match self.store.run(look).await {
                Ok(Ok(facts)) => facts,
                // What is wrong is told by the commits; upkeep leaves a medium in trouble alone.
                Ok(Err(_)) => continue,
                Err(gone) => return gone,
            };
            let now = self.clock.now();
            let Some(chore) = upkeep.next(self.shared.idle(now), &facts, now) else { continue };
            let outcome = match self.take_step(chore).await {
                Ok(outcome) => outcome,
                Err(gone) => return gone,
            };
            if let Err(why) = &outcome {
                log::warn!("upkeep: {chore:?}: {why}");
            }
            upkeep.done(chore, outcome.ok(), self.clock.now());
        }
    }

    async fn take_step(&self, chore: Chore) -> Result<Result<Step, StoreError>, StoreGone> {
        let in_flight = lock(&self.link).in_flight_ranges.clone();
        let now = self.clock.now();
        // The system's word alone is not enough to let readings go for their age.
        let now = Now { trusted: now.trusted && self.shared.clock_is_trusted(), ..now };
        let step = move |store: &mut Store| match chore {
            Chore::Expire => store.expire_step(&in_flight, now),
            Chore::Vacuum => store.vacuum_step(),
            Chore::Checkpoint => store.checkpoint().map(|()| Step::Idle),
            Chore::Compact => store.compact_step(&in_flight, now),
        };
        self.store.run(step).await
    }

    /// Uploads, where there is an uplink, until `stop` closes.
    async fn upload(self, committed: Receiver<()>, stop: Receiver<()>) {
        let Some(config) = &self.config.uplink else { return };
        let (store, link, clock) = (self.store, self.link, self.clock);
        if let Err(why) = uplink::run(config, &self.config.device, store, committed, link, clock, stop).await {
            log::error!("uplink: ended; recording goes on: {why}");
        }
    }

    /// Waits for as long as the end may take, then says what is lost.
    async fn gave_up(&self) -> DeviceError {
        Timer::after(LAST_COMMIT_PATIENCE).await;
        let (risk, recorded) = self.shared.report(self.clock.now());
        log::error!("device: ending with {} readings that the medium did not take", risk.readings);
        DeviceError::LastCommit { readings: risk.readings, why: recorded.fault.unwrap_or_default() }
    }

    /// Folds the log and closes the file, which must have its name: nothing is left of it otherwise.
    async fn close(&self) -> Result<Report, DeviceError> {
        let now = self.clock.now();
        if let Ok(Err(why)) = self.store.run(move |store| store.look_at_place(now)).await {
            log::warn!("store: at the end: {why}");
        }
        let closed = self.store.close().await.map_err(DeviceError::StoreGone)?;
        if let Err(why) = closed {
            // Committed is committed: the next start replays the log.
            log::warn!("store: not folded at the end: {why}");
        }
        let (_, recorded) = self.shared.report(self.clock.now());
        Ok(Report { recorded, written_bytes: written_bytes(), sent_bytes: lock(&self.link).sent_bytes })
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process caused to be sent to media, in bytes, pages still in the cache included (`proc_pid_io(5)`).
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::control::{Answer, Request};
    use super::*;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Instant;

    /// A service with its store at `store`, its control socket, and what it ends with.
    struct Service {
        dir: tempfile::TempDir,
        store: StoreHandle,
        shared: Arc<Shared>,
        ended: mpsc::Receiver<Result<Report, DeviceError>>,
    }

    impl Service {
        fn start(store: Option<&str>) -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let db = store.map_or_else(|| dir.path().join("v.db").display().to_string(), str::to_owned);
            let text = format!(
                "device = \"pump-17\"\n[store]\npath = \"{db}\"\n[control]\nlisten = \"unix://{}\"\n",
                dir.path().join("c.sock").display()
            );
            let desk = Desk::new(Config::parse(&text, "test.toml").expect("a configuration")).expect("a start");
            let (tell, ended) = mpsc::channel();
            let (store, shared) = (desk.store.clone(), desk.shared.clone());
            let signals = Signals::take().expect("signals");
            std::thread::spawn(move || tell.send(serve(desk, signals)));
            Self { dir, store, shared, ended }
        }

        fn socket(&self) -> PathBuf {
            self.dir.path().join("c.sock")
        }
    }

    const PATIENCE: Duration = Duration::from_secs(120);

    /// A fault of ours that ends the store's thread ends the service too, also where no reading is waiting: otherwise it
    /// would go on, answer the watchdog, and record nothing.
    #[test]
    fn a_service_whose_store_has_ended_ends() {
        let service = Service::start(None);
        let _ = smol::block_on(service.store.run(|_| panic!("planted")));
        let ended = service.ended.recv_timeout(PATIENCE);
        assert!(matches!(ended, Ok(Err(DeviceError::StoreGone(_)))), "{ended:?}");
    }

    /// While the power fails upkeep takes no step that a commit would have to wait for. (What it would do at once is to write a
    /// file anew that was deleted.)
    #[test]
    fn upkeep_rests_while_the_power_fails() {
        let service = Service::start(None);
        let db = service.dir.path().join("v.db");
        smol::block_on(service.store.run(|_| ())).expect("a store");
        service.shared.hurry(Some(crate::clock::BootNanos(i64::MAX)));
        // A step that had begun is over.
        std::thread::sleep(2 * UPKEEP_TICK);
        std::fs::remove_file(&db).expect("a file");
        std::thread::sleep(3 * UPKEEP_TICK);
        assert!(!db.exists());
        service.shared.hurry(None);
        let until = Instant::now() + PATIENCE;
        while !db.exists() {
            assert!(Instant::now() < until, "upkeep goes on afterwards");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// While the medium is out of use, requests that wait for it leave `status` its worker, and the rest are told.
    #[test]
    fn status_answers_while_others_wait_for_the_store() {
        let service = Service::start(Some("/proc/nothing/v.db"));
        let ask = |request: Request| {
            let (socket, (tell, told)) = (service.socket(), mpsc::channel());
            std::thread::spawn(move || {
                while !socket.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                tell.send(control::ask(&socket, &request))
            });
            told
        };
        let queries: Vec<_> = (0..8).map(|_| ask(Request::Query { sql: "SELECT 1".into() })).collect();
        // All but one worker wait for the store; the requests beyond them are told so at once.
        let (mut told, until) = (Vec::new(), Instant::now() + PATIENCE);
        while told.len() < 8 - (control::WORKERS - 1) && Instant::now() < until {
            told.extend(queries.iter().filter_map(|q| q.try_recv().ok()).filter_map(Result::ok));
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = ask(Request::Status).recv_timeout(PATIENCE).expect("status answers").expect("a status");
        let Answer::Ok(status) = status else { panic!("{status:?}") };
        assert!(status["recorded"]["fault"].as_str().is_some_and(|why| why.contains("/proc/nothing")), "{status}");
        assert!(told.iter().all(|a| matches!(a, Answer::Error { exit: 75, .. })), "{told:?}");
        assert_eq!(told.len(), 8 - (control::WORKERS - 1));
    }
}
