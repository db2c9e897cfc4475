//! What the service manager hears: readiness, the end, and the watchdog (`sd_notify(3)`).

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

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

impl Default for Watchdog {
    /// Asks what the manager expects; where it does not watch, nothing is said.
    fn default() -> Self {
        let mut usec = 0;
        let every = sd_notify::watchdog_enabled(false, &mut usec).then(|| Duration::from_micros(usec / 3));
        Self { every, said: Instant::now() }
    }
}

impl Watchdog {
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
