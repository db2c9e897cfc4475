//! The receiver: takes in what devices send, keeps it in one replica file per store, and says what it holds.
//!
//! ```text
//! MQTT ─► receiver: check ─► replica: file it ─► commit (FULL) ─► ack to the device ─► PUBACK to the broker
//!            │ refused: counted per device, with the reason       └ only what is durable, with every name and boot it cites
//! ```
//!
//! What enters: messages on `<prefix>/v1/+/{segment,catalog/+,state}`. What leaves: replicas under the data folder, `ack` and
//! `request` messages, and the account that `varved-fleet devices` shows. It promises every reading once per history (a
//! store id whose ranges arrive with two contents has two histories, both kept), gaps named, and no device able to spoil
//! another. It does not expire, compact or correct what devices wrote.

pub mod ask;
#[cfg(feature = "broker")]
pub mod broker;
pub mod filing;
pub mod overload;
pub mod presence;
pub mod receiver;
pub mod refusal;
pub mod replica;
pub mod report;
pub mod retrieval;
pub mod run;
pub mod shelf;

use crate::fault::{Exit, Fault, Verdict};
use crate::store::StoreError;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use run::run;

/// The most devices that a receiver knows. A name beyond them is refused.
pub const MAX_DEVICES: usize = 100_000;

/// The most stores of one device. Each fresh store id is one; a device in good order takes a few in its life.
pub const MAX_STORES_PER_DEVICE: usize = 1024;

/// Sequence numbers from here on are refused: the replica's key has 48 bits for them, and a device that committed every
/// millisecond would need 8,900 years.
pub const FAR_SEQUENCE: u64 = 1 << 48;

/// Why the receiver can't go on, or not with this replica.
#[derive(Debug)]
pub enum FleetError {
    /// The embedded broker can't listen, or does not answer.
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The embedded broker stopped accepting clients.
    BrokerGone {
        /// Where it listened.
        address: SocketAddr,
    },
    /// A folder of the data can't be read or made.
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A replica, or the roster, can't be read or written.
    Replica(StoreError),
    /// No device of this name has brought anything.
    NoDevice {
        /// The name.
        device: String,
    },
    /// No receiver has run on this folder since its roster was lost.
    NoRoster {
        /// The folder.
        data: PathBuf,
    },
    /// What is asked of a device makes no sense for it.
    BadRequest(String),
    /// As much as may be asked of it is under way.
    TooManyRequests {
        /// Of which device.
        device: String,
    },
    /// As many replicas are open as may be, and none can be closed, since their last commits failed.
    Crowded,
    /// The configuration asks for what isn't there.
    Config(String),
    /// The system gives no thread.
    Thread {
        /// What for.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
    /// A part of the service has ended by itself.
    Gone {
        /// Which.
        what: &'static str,
    },
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, cause } => {
                write!(
                    f,
                    "embedded broker at {address}: {cause}; choose another address in `listen`, or stop what uses it"
                )
            }
            Self::BrokerGone { address } => write!(
                f,
                "the embedded broker at {address} accepts no clients any more; start varved-fleet again (a service manager does), or use a broker of its own with `broker`"
            ),
            Self::Folder { path, cause } => {
                write!(f, "{}: {cause}; make the folder, or let this user write in it", path.display())
            }
            Self::Replica(cause) => cause.fmt(f),
            Self::NoDevice { device } => {
                write!(f, "no device {device:?} has sent anything; `varved-fleet devices` lists those that have")
            }
            Self::NoRoster { data } => {
                write!(
                    f,
                    "{}: no receiver has begun its roster here; start `varved-fleet run`, then ask",
                    data.display()
                )
            }
            Self::TooManyRequests { device } => write!(
                f,
                "as many requests as there may be are under way for {device} or in all; wait until one has ended (`varved-fleet devices` shows them), or for the same one with --wait"
            ),
            Self::Crowded => f.write_str(
                "too many replicas wait for a medium that takes no writes; look at the disk of the data folder. The devices send again",
            ),
            Self::Thread { what, cause } => {
                write!(
                    f,
                    "no thread for {what}: {cause}; free memory, or raise the limit of processes, and start varved-fleet again"
                )
            }
            Self::Gone { what } => {
                write!(f, "{what} has ended; start varved-fleet again, and report its last lines of log")
            }
            Self::BadRequest(what) | Self::Config(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for FleetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { cause, .. } | Self::Folder { cause, .. } | Self::Thread { cause, .. } => Some(cause),
            Self::Replica(cause) => Some(cause),
            Self::BrokerGone { .. }
            | Self::NoDevice { .. }
            | Self::NoRoster { .. }
            | Self::BadRequest(_)
            | Self::TooManyRequests { .. }
            | Self::Gone { .. }
            | Self::Crowded
            | Self::Config(_) => None,
        }
    }
}

impl Fault for FleetError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Replica(cause) => cause.verdict(),
            _ => Verdict::Halt,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Listen { .. }
            | Self::BrokerGone { .. }
            | Self::NoRoster { .. }
            | Self::Thread { .. }
            | Self::Gone { .. } => Exit::Unavailable,
            Self::Folder { .. } => Exit::Io,
            Self::NoDevice { .. } | Self::BadRequest(_) => Exit::Data,
            Self::TooManyRequests { .. } | Self::Crowded => Exit::TryAgain,
            Self::Replica(cause) => cause.exit(),
            Self::Config(_) => Exit::Config,
        }
    }
}

impl From<StoreError> for FleetError {
    fn from(cause: StoreError) -> Self {
        Self::Replica(cause)
    }
}
