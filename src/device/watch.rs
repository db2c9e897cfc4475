//! What the service manager hears and says: readiness and the watchdog (`sd_notify(3)`), and the signals.

use rustix::process::Signal;
use sd_notify::NotifyState;
use smol::Async;
use smol::io::AsyncReadExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// SIGTERM or SIGINT: commit and end.
    End,
    /// SIGUSR1, or SIGPWR of a power-fail input: commit now.
    Commit,
}

/// The signals that the service listens to, each through a pipe of its own. Made before any thread is.
#[derive(Debug)]
pub struct Signals {
    end: Async<UnixStream>,
    commit: Async<UnixStream>,
}

impl Signals {
    /// Takes the signals over from their defaults, which would end the process.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and of making a pipe.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self { end: pipe_of(&[Signal::TERM, Signal::INT])?, commit: pipe_of(&[Signal::USR1, Signal::POWER])? })
    }

    /// The next call.
    pub async fn next(&mut self) -> Call {
        let (mut a, mut b) = ([0; 64], [0; 64]);
        let end = async {
            let _ = self.end.read(&mut a).await;
            Call::End
        };
        let commit = async {
            let _ = self.commit.read(&mut b).await;
            Call::Commit
        };
        smol::future::or(end, commit).await
    }
}

/// The read end of a pipe into which each of these signals writes a byte.
fn pipe_of(signals: &[Signal]) -> std::io::Result<Async<UnixStream>> {
    let (read, write) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(signal.as_raw(), write.try_clone()?)?;
    }
    Async::new(read)
}

/// Tells the service manager that the service records. Without a manager nothing happens.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells it that the service is ending.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Says that the main loop turns, as often as the manager waits for it (`WatchdogSec`).
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    said: Instant,
}

impl Watchdog {
    /// Asks what the manager expects; where it does not watch, nothing is said.
    pub fn new() -> Self {
        let mut usec = 0;
        let every = sd_notify::watchdog_enabled(false, &mut usec).then(|| Duration::from_micros(usec / 3));
        Self { every, said: Instant::now() }
    }

    /// To be called about once a second.
    pub fn tick(&mut self) {
        if self.every.is_some_and(|every| self.said.elapsed() >= every) {
            self.said = Instant::now();
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(false, states) {
        log::debug!("device: the service manager can't be told: {why}");
    }
}
