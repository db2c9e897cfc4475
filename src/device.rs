//! The device: wires sensors, recorder, store, upkeep, uplink and control together, and runs them until told to end.
//!
//! A fixed list of tasks on one thread, spawned once at start; blocking work has threads of its own, as many as the
//! configuration names: one a polled sensor, one for SQLite, one for MQTT. Every channel between them is bounded, so that
//! memory is a sum of constants.
//!
//! ```text
//!   sensors ──readings(64)──► recorder ──jobs(8)──► store thread ◄──jobs(8)── upkeep, uplink, control
//!   clock ────anchors(8)────►    ▲  └──committed(1)──► uplink ◄──► mqtt thread
//!                      asks(4) control, signals
//! ```

pub mod control;
pub mod recorder;
pub mod status;
pub mod watch;

use crate::batch::{BatchLimits, Registry};
use crate::clock::keeper::Keeper;
use crate::clock::system::SystemClock;
use crate::clock::{Anchor, Clock};
use crate::config::Config;
use crate::fault::{Exit, Fault, Verdict};
use crate::sensor::{self, SensorError};
use crate::store::identity::Identity;
use crate::store::{Store, StoreError, StoreGone, StoreHandle};
use crate::uplink::{self, UplinkStatus};
use crate::upkeep;
use recorder::{Ask, Ends, Recorder};
use smol::channel::{Receiver, Sender, bounded};
use smol::{Async, LocalExecutor, Timer};
use status::Shared;
use std::fmt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Chunks of readings between the sensors and the recorder. A sensor that finds it full waits: streams are held back by
/// their own protocol, datagrams are dropped and counted.
const READINGS_QUEUE: usize = 64;

/// How often the clocks are compared.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// How often upkeep looks for something to do.
const UPKEEP_TICK: Duration = Duration::from_secs(1);

/// Why the device ended without being told to.
#[derive(Debug)]
pub enum DeviceError {
    /// The store can't be used, and waiting will not help.
    Store(StoreError),
    /// The store's thread ended.
    StoreGone(StoreGone),
    /// A sensor can't be set up.
    Sensor(SensorError),
    /// The control socket can't be made.
    Control {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Signals can't be taken over.
    Signals(std::io::Error),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(why) => why.fmt(f),
            Self::StoreGone(why) => write!(f, "{why}; the log above says why; start the service again"),
            Self::Sensor(why) => why.fmt(f),
            Self::Control { path, cause } => write!(
                f,
                "control socket {}: {cause}; make its folder, owned by the user of the service, or set control.listen",
                path.display()
            ),
            Self::Signals(why) => write!(f, "signals can't be taken over: {why}; start the service again"),
        }
    }
}

impl std::error::Error for DeviceError {}

impl Fault for DeviceError {
    fn verdict(&self) -> Verdict {
        Verdict::Halt
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Store(why) => why.exit(),
            Self::StoreGone(_) | Self::Signals(_) => Exit::Io,
            Self::Sensor(why) => why.exit(),
            Self::Control { .. } => Exit::Config,
        }
    }
}

/// The service in the foreground, until SIGTERM or SIGINT: then it commits what is in RAM and ends, leaving the WAL in
/// place.
///
/// # Errors
/// What makes a start impossible. Faults of the medium do not: readings wait in RAM, within the configured bound.
pub fn run(config: Config) -> Result<(), DeviceError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(&config.root));
    let mut signals = watch::Signals::take().map_err(DeviceError::Signals)?;
    let store = open_store(&config, &clock)?;
    let desk = Rc::new(Desk::new(config, clock, store));
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let (asks, recorder) = desk.spawn_recorder(&executor);
        let running = desk.spawn_sensors(&executor, &recorder.readings)?;
        desk.spawn_clock(&executor, recorder.anchors);
        desk.spawn_upkeep(&executor);
        desk.spawn_uplink(&executor, recorder.committed);
        desk.spawn_control(&executor, &asks)?;
        watch::ready();
        log::info!("device {}: recording into {}", desk.config.device, desk.config.store.path.display());
        let ended = smol::future::or(async { Err(DeviceError::StoreGone(recorder.task.await)) }, async {
            until_told(&mut signals, &asks).await;
            Ok(())
        });
        ended.await
    }))
}
