//! Why the uplink ended by itself, and what to do about it.

use crate::store::thread::StoreGone;
use crate::wire;

/// Why the uplink ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkEnd {
    /// The store's thread has ended.
    StoreGone,
    /// The system gives no thread.
    Thread {
        /// Its words.
        cause: String,
    },
    /// The last will does not fit into an envelope: a fault of ours.
    Will(wire::WireError),
}

impl std::fmt::Display for UplinkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreGone => write!(f, "the store has been closed; restart varved"),
            Self::Thread { cause } => {
                write!(f, "no thread for the broker's connection: {cause}; free memory and restart varved")
            }
            Self::Will(e) => write!(f, "the last will: {e}"),
        }
    }
}

impl std::error::Error for UplinkEnd {}

impl crate::fault::Fault for UplinkEnd {
    fn verdict(&self) -> crate::fault::Verdict {
        crate::fault::Verdict::Halt
    }

    fn exit(&self) -> crate::fault::Exit {
        crate::fault::Exit::Unavailable
    }
}

impl From<StoreGone> for UplinkEnd {
    fn from(_: StoreGone) -> Self {
        Self::StoreGone
    }
}
