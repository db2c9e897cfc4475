//! The envelopes on MQTT: what each topic carries, to and from bytes.
//!
//! What enters: a message. What leaves: a payload, and back. An envelope is one version byte, the postcard encoding of the
//! type below, and the CRC-32 (IEEE) of everything before it, little-endian. Pure: no I/O. Untrusted bytes are checked
//! before anything is reserved for them.

use crate::clock::{Anchor, UtcNanos};
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesDef, SeriesId};
use serde::{Deserialize, Serialize};

/// A store id as it travels.
pub type StoreUuid = uuid::Uuid;

/// `<prefix>/v1/<device>/segment`, device to fleet: a segment, or a piece of one that is too large for one payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentFrame<'a> {
    /// A whole segment.
    Whole {
        /// Its store.
        store: StoreUuid,
        /// Its range, as in the body.
        range: SeqRange,
        /// The body, as stored.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// `bytes` of the body, beginning at `offset`.
    Chunk {
        /// Its store.
        store: StoreUuid,
        /// The whole segment's range.
        range: SeqRange,
        /// CRC-32 of the whole body: pieces of different bodies never mix.
        hash: u32,
        /// Where this piece begins, in bytes.
        offset: u32,
        /// Length of the whole body, in bytes.
        total: u32,
        /// The piece.
        #[serde(borrow)]
        bytes: &'a [u8],
    },
}

/// `<prefix>/v1/<device>/catalog/<page>`, device to fleet, retained: what segments cite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPage {
    /// The store whose ids these are.
    pub store: StoreUuid,
    /// Series by ascending id.
    pub series: Vec<(SeriesId, SeriesDef)>,
    /// Boots by ascending id.
    pub boots: Vec<CatalogBoot>,
}

/// A boot in a [`CatalogPage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogBoot {
    /// Its number in the store.
    pub id: BootId,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    pub uuid: uuid::Uuid,
    /// By ascending boottime.
    pub anchors: Vec<Anchor>,
}

/// `<prefix>/v1/<device>/state`, device to fleet, retained: birth, and as last will with `online` false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// False in the last will.
    pub online: bool,
    /// Random number of this run of the service: a will of an earlier run never overrides a newer birth.
    pub session: u64,
    /// Runs of the service since the file was created; orders sessions.
    pub run: u64,
    /// The writer's version, as `varved --version` gives it.
    pub version: String,
    /// The wall clock when this was written, trusted or not; 0 in the will.
    pub utc: UtcNanos,
    /// Whether that clock was synchronised.
    pub clock_trusted: bool,
    /// The stores in the file that hold anything, the current one first; at most 16.
    pub stores: Vec<StoreState>,
}

/// One store in a [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// Which store.
    pub store: StoreUuid,
    /// The highest sequence number that was committed.
    pub high: SegmentSeq,
    /// Held by the device and not acknowledged, ascending, disjoint; at most [`MAX_RANGES`] (neighbours are then joined,
    /// so it may name too much, never too little).
    pub pending: Vec<SeqRange>,
    /// Set while the device compares what it holds with what the fleet holds; see [`StoreAck::verified`].
    pub recheck: Option<u64>,
}

/// The most ranges in one list of an envelope.
pub const MAX_RANGES: usize = 256;

/// `<prefix>/v1/<device>/ack`, fleet to device, retained: all that the fleet has durably committed. It states, it does
/// not add: what an earlier one named and this one does not is no longer held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// By store; only stores that this device has brought.
    pub stores: Vec<StoreAck>,
}

/// One store in an [`Ack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAck {
    /// Which store.
    pub store: StoreUuid,
    /// Everything up to here, inclusive, is held.
    pub cumulative: SegmentSeq,
    /// Held above `cumulative`, ascending, disjoint; at most [`MAX_RANGES`], the lowest ones.
    pub ranges: Vec<SeqRange>,
    /// The highest sequence number that the fleet ever saw of this store.
    pub high: SegmentSeq,
    /// Ranges that arrived with content other than what was held: both are kept. A device that reads a range of its own
    /// current store here takes a fresh store id.
    pub conflicts: Vec<SeqRange>,
    /// The answer to [`StoreState::recheck`]: that number, and the ranges that arrived since it was set and are durably
    /// held, whether equal to what was there or kept beside it.
    pub verified: Option<(u64, Vec<SeqRange>)>,
}

/// `<prefix>/v1/<device>/request`, fleet to device, not retained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Send the segments that cover these ranges again; what is gone comes back as a loss.
    Segments {
        /// Of which store.
        store: StoreUuid,
        /// Which; at most [`MAX_RANGES`].
        ranges: Vec<SeqRange>,
    },
    /// Publish every catalogue page again.
    Catalog,
    /// Send everything that the file holds, as the ordinary frames.
    Snapshot,
}
