//! What `status` says of the uplink.

use super::machine::Standing;
use super::pace::{Figures, Outlook};
use crate::clock::{BootNanos, UtcNanos};
use crate::reading::SeqRange;
use crate::wire::StoreUuid;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Figures and words of the uplink at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct UplinkStatus {
    /// `down`, `waiting for the fleet's ack`, or `open`.
    pub state: &'static str,
    /// UTC nanoseconds since which that holds, by the clock of the time.
    pub since: UtcNanos,
    /// Why there is no connection, or was none before this one, or what does not get through it; ends with what to do.
    pub last_error: Option<String>,
    /// Segments sent and not acknowledged.
    pub in_flight: usize,
    /// Segments sent since the start, repeats included.
    pub sent_segments: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// UTC nanoseconds of the last ack that came.
    pub last_ack: Option<UtcNanos>,
    /// Payloads from the broker that could not be read.
    pub refused_payloads: u64,
    /// What goes over the link, and what may.
    #[serde(flatten)]
    pub traffic: Figures,
    /// What the time to drain follows from.
    #[serde(skip)]
    pub outlook: Outlook,
    /// Until when the fleet has asked for no segments.
    #[serde(skip)]
    pub silent_until: Option<BootNanos>,
    /// What compaction leaves alone: sent, and not acknowledged.
    #[serde(skip)]
    pub in_flight_ranges: Vec<(StoreUuid, SeqRange)>,
}

impl UplinkStatus {
    pub(super) fn stands(&mut self, standing: Standing, now: UtcNanos) {
        let state = match standing {
            Standing::Down => "down",
            Standing::Waiting { .. } => "waiting for the fleet's ack",
            Standing::Open => "open",
        };
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }
}

/// A status that the uplink writes and others read.
pub type SharedStatus = Arc<Mutex<UplinkStatus>>;

/// A panic elsewhere leaves nothing half-written in there.
pub(super) fn lock(status: &SharedStatus) -> MutexGuard<'_, UplinkStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
