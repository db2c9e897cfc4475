//! Why the service ended, or could not begin.

use crate::fault::{Exit, Fault, Verdict};
use crate::sensor::SensorError;
use crate::store::StoreError;
use crate::store::thread::StoreGone;
use std::fmt;

/// Why the device ended without being told to.
#[derive(Debug)]
pub enum DeviceError {
    /// The store can't be used, and waiting will not help.
    Store(StoreError),
    /// The store's thread ended.
    StoreGone(StoreGone),
    /// A sensor can't be set up.
    Sensor(SensorError),
    /// Signals can't be taken over.
    Signals(std::io::Error),
    /// At the end the medium took no writes.
    LastCommit {
        /// What was in RAM only.
        readings: u64,
        /// What the store said last.
        why: String,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(why) => why.fmt(f),
            Self::StoreGone(why) => write!(f, "{why}; the log above says why; start the service again"),
            Self::Sensor(why) => why.fmt(f),
            Self::LastCommit { readings, why } => {
                write!(f, "ended with {readings} readings in RAM that could not be committed: {why}")
            }
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
            Self::StoreGone(_) | Self::Signals(_) | Self::LastCommit { .. } => Exit::Io,
            Self::Sensor(why) => why.exit(),
        }
    }
}
