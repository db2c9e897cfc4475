//! Sensors: where readings come from.
//!
//! ```text
//! hwmon thermal power_supply iio w1 file proc ─► poll: one thread per [[sensor]] ─┐
//! socket (unix unixgram tcp udp) ─► a fixed number of tasks ─► lines ─────────────┼─► bounded queue of chunks ─► batch
//! exec (a command's output) ─► one task ─► lines ─────────────────────────────────┘
//! ```
//!
//! What enters: the `[[sensor]]` blocks, and a root directory below which `/sys`, `/proc` and files are looked up (so that a test's
//! directory can be a board). What leaves: chunks of [`Reading`]s. What it promises: no sensor stops another, or the service; a
//! value that could not be read is a reading with a reason ([`crate::reading::NoValue`]); what is refused or dropped
//! is counted ([`Counters`]); a full queue holds sources back and nothing grows.
//!
//! What it does not do: keep readings, derive rates from counters, or talk to buses itself; the kernel's drivers do that.
//!
//! The model is chrony's reference clocks: a driver is one file with init, poll and fini ([`Driver`]).

mod counters;
mod exec;
mod file;
mod hwmon;
mod iio;
pub mod ingest;
mod inlets;
pub mod line_protocol;
pub mod name;
mod poll;
mod power_supply;
mod proc;
mod socket;
mod source;
pub mod stream;
mod sysfs;
mod thermal;
mod w1;

pub use counters::{Counters, Snapshot};
pub use inlets::Inlets;
pub use poll::{Driver, Heard, STACK_BYTES};
pub use socket::{SocketFile, bind_unix};

use crate::batch::Registry;
use crate::clock::Clock;
use crate::config::{SensorConfig, SensorKind};
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::Reading;
use poll::Poller;
use smol::channel::{Receiver, Sender};
use smol::{Executor, Task};
use source::Source;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long [`Running::stop`] waits for what is in the middle of something, such as a read that hangs in a driver.
const STOP_PATIENCE: Duration = Duration::from_secs(6);

/// The sources at work. Dropping it tells them to stop and does not wait.
#[derive(Debug)]
pub struct Running {
    counters: Vec<Arc<Counters>>,
    tasks: Vec<Task<()>>,
    stop: Sender<()>,
    inlets: Inlets,
    /// Closes when the last thread has ended.
    threads: Receiver<()>,
}

/// Starts a source for every block of the configuration.
///
/// `out` should be short (8 chunks, say): it is the only queue between the sources and the batch. A chunk holds one poll of a block, or
/// what one read of a socket or command held: at most about 20,000 readings, usually some tens. Tasks are spawned on
/// `executor` now, none later.
///
/// # Errors
/// The name of a `file` sensor is none, or the system gives no thread. Sensors that aren't there and sockets that can't be
/// bound are no errors: they are waited for.
pub fn start(
    configs: &[SensorConfig],
    root: &Path,
    registry: &Arc<Registry>,
    clock: &Arc<dyn Clock>,
    out: &Sender<Vec<Reading>>,
    executor: &Executor<'static>,
) -> Result<Running, SensorError> {
    let (stop, stopped) = smol::channel::bounded(1);
    let (ended, threads) = smol::channel::bounded(1);
    let mut running = Running { counters: Vec::new(), tasks: Vec::new(), stop, inlets: Inlets::default(), threads };
    for config in configs {
        let counters = Arc::new(Counters::new(running.free_label(&config.kind)));
        running.counters.push(counters.clone());
        let (registry, clock, out, stop) = (registry.clone(), clock.clone(), out.clone(), stopped.clone());
        let source = Source { registry, counters, clock, out, stop, inlets: running.inlets.clone() };
        match &config.kind {
            SensorKind::Socket(socket) => running.tasks.extend(socket::spawn(socket, &source, executor)),
            SensorKind::Exec(exec) => running.tasks.push(exec::spawn(exec, &source, executor)),
            polled => poll_on_a_thread(driver(polled, root)?, config.interval, source, ended.clone())?,
        }
    }
    Ok(running)
}

impl Running {
    /// The counts of every block, in the order of the configuration.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// The block's label, numbered where an earlier block has the same.
    fn free_label(&self, kind: &SensorKind) -> String {
        let label = label(kind);
        let taken = |candidate: &String| self.counters.iter().any(|counters| counters.source() == candidate);
        let numbered = (2..).map(|n| format!("{label} #{n}"));
        std::iter::once(label.clone()).chain(numbered).find(|candidate| !taken(candidate)).unwrap_or(label)
    }

    /// The streams that are open, to wait for what their clients have written.
    pub fn inlets(&self) -> Inlets {
        self.inlets.clone()
    }

    /// Stops every source: commands and their children are ended, socket files taken away. Readings already handed on
    /// stay in the queue. The queue may be full meanwhile and need not be drained; the executor must go on running.
    /// Returns after 6 s at the latest, with a note in the log, should a driver hang in the kernel.
    pub async fn stop(self) {
        let Self { tasks, stop, threads, .. } = self;
        drop(stop);
        let all = async {
            for task in tasks {
                task.await;
            }
            poll::stopped(&threads).await
        };
        if source::within(Some(STOP_PATIENCE), all).await.is_none() {
            log::warn!("sensor: a source did not stop within {STOP_PATIENCE:?}; it is left to the end of the process");
        }
    }
}

fn poll_on_a_thread(
    driver: Box<dyn Driver>,
    interval: Duration,
    source: Source,
    ended: Sender<()>,
) -> Result<(), SensorError> {
    let name = source.counters.source().to_owned();
    let poller = Poller::new(driver, interval, source.registry, source.counters);
    let (clock, out, stop) = (source.clock, source.out, source.stop);
    let body = move || {
        poll::run(poller, interval, clock.as_ref(), &out, &stop);
        drop(ended);
    };
    // Linux shows 15 bytes of a thread's name.
    let short = name.split(' ').next().unwrap_or("sensor").to_owned();
    let spawned = std::thread::Builder::new().name(short).stack_size(STACK_BYTES).spawn(body);
    spawned.map(drop).map_err(|cause| SensorError::Thread { source: name, cause })
}

fn driver(kind: &SensorKind, root: &Path) -> Result<Box<dyn Driver>, SensorError> {
    Ok(match kind {
        SensorKind::Hwmon(config) => Box::new(hwmon::Hwmon::new(root, &config.matching)),
        SensorKind::Thermal(config) => Box::new(thermal::Thermal::new(root, &config.matching)),
        SensorKind::PowerSupply(config) => Box::new(power_supply::PowerSupply::new(root, &config.matching)),
        SensorKind::Iio(config) => Box::new(iio::Iio::new(root, &config.matching)),
        SensorKind::W1(config) => Box::new(w1::W1::new(root, &config.matching)),
        SensorKind::Proc(config) => Box::new(proc::Proc::new(root, &config.groups)),
        SensorKind::File(config) => {
            let name = || SensorError::Name { name: config.name.clone() };
            Box::new(file::NumberFile::new(root, config).map_err(|_| name())?)
        }
        // `start` has taken these two out.
        SensorKind::Socket(_) | SensorKind::Exec(_) => return Err(SensorError::Unpolled { kind: kind.as_str() }),
    })
}

/// What a block is called in `status` and the log.
fn label(kind: &SensorKind) -> String {
    let what = match kind {
        SensorKind::Hwmon(config)
        | SensorKind::Thermal(config)
        | SensorKind::PowerSupply(config)
        | SensorKind::Iio(config)
        | SensorKind::W1(config) => config.matching.join(" "),
        SensorKind::File(config) => config.path.display().to_string(),
        SensorKind::Proc(_) => String::new(),
        SensorKind::Exec(config) => config.command.first().cloned().unwrap_or_default(),
        SensorKind::Socket(config) => config.listen.to_string(),
    };
    format!("{} {what}", kind.as_str()).trim_end().to_owned()
}

/// Why the sources could not be started.
#[derive(Debug)]
pub enum SensorError {
    /// The system gave no thread.
    Thread {
        /// Which block.
        source: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// `name` of a `file` sensor is not the name of a series.
    Name {
        /// As it stands in the configuration.
        name: String,
    },
    /// A kind that is not polled was to be polled: a fault of the program.
    Unpolled {
        /// Its word in the configuration.
        kind: &'static str,
    },
}

impl fmt::Display for SensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread { source, cause } => {
                write!(
                    f,
                    "no thread for sensor {source}: {cause}; free memory, raise the limit of threads, or remove the block"
                )
            }
            Self::Name { name } => write!(
                f,
                "{name:?} is not the name of a series; write measurement/field[,tag=value…], with \\ before blanks, commas \
                 and equals signs that belong to a part"
            ),
            Self::Unpolled { kind } => write!(f, "sensors of kind {kind} are not polled; please report this as a bug"),
        }
    }
}

impl std::error::Error for SensorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread { cause, .. } => Some(cause),
            Self::Name { .. } | Self::Unpolled { .. } => None,
        }
    }
}

impl Fault for SensorError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Thread { .. } => Verdict::Retry,
            Self::Name { .. } => Verdict::Reject,
            Self::Unpolled { .. } => Verdict::Halt,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Thread { .. } => Exit::TryAgain,
            Self::Name { .. } => Exit::Config,
            Self::Unpolled { .. } => Exit::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests;
