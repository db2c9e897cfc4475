//! The envelopes on MQTT: what each topic carries, to and from bytes.
//!
//! What enters: a message. What leaves: a payload, and back. Pure: no I/O. `docs/wire.md` draws every byte.
//!
//! ```text
//! version (1 byte) │ postcard encoding of one of the types below │ CRC-32 (IEEE) of all before it, little-endian
//! ```
//!
//! Promises: untrusted bytes never panic, and what is reserved for them stays within a small multiple of what arrived,
//! whatever they claim; length, CRC and version are checked in that order before a field is read; a decoded message
//! keeps the rules of its type (lists within their caps, ranges ascending and disjoint, names within their lengths). What
//! it does not do: look into a segment's body, which has a version and a CRC of its own.

mod account;
mod frames;
mod pull;
mod rules;
pub mod topics;

pub use account::{Account, Done, SnapshotRequest, Stretch};
pub use frames::{Assembled, Assembler, AssemblerLimits, GivenUp, frames, hash_of, piece, piece_bytes};
pub use pull::{
    BoardHello, FromBoard, FromLaptop, MAX_PULL_EVENTS, MAX_PULL_RANGES, MAX_PULL_STORES, MAX_PULL_TEXT_BYTES,
    PULL_VERSION, Partial, PulledEvent, Running, StoreHeld,
};

use crate::clock::{Anchor, UtcNanos};
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesDef, SeriesId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A store id as it travels.
pub type StoreUuid = uuid::Uuid;

/// `<prefix>/v1/<device>/segment`, device to fleet: a segment, or a piece of one that is too large for one payload; and what
/// a device says of the segments of a snapshot, on the same topic so that it comes after them.
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
        /// The CRC-32 that the body ends with: pieces of different bodies never mix.
        hash: u32,
        /// Where this piece begins, in bytes.
        offset: u32,
        /// Length of the whole body, in bytes.
        total: u32,
        /// The piece.
        #[serde(borrow)]
        bytes: &'a [u8],
    },
    /// How far a snapshot is.
    Account(Account),
}

/// `<prefix>/v1/<device>/catalog/<page>`, device to fleet, retained: what segments cite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPage {
    /// The store whose ids these are.
    pub store: StoreUuid,
    /// Series by ascending id.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_PAGE_SERIES>")]
    pub series: Vec<(SeriesId, SeriesDef)>,
    /// Boots by ascending id. A boot with more anchors than fit stands in several pages; all its anchors count.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_PAGE_BOOTS>")]
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
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_ANCHORS>")]
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
    /// The stores in the file that hold anything, the current one first; at most [`MAX_STORES`].
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_STORES>")]
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
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub pending: Vec<SeqRange>,
    /// Set while the device compares what it holds with what the fleet holds; see [`StoreAck::verified`].
    pub recheck: Option<u64>,
}

/// The version byte that this code writes, and the highest that it reads.
pub const VERSION: u8 = 1;

/// The longest envelope, in bytes. What travels is far below (120 KiB unless configured); this bounds what is looked at.
pub const MAX_ENVELOPE: usize = 256 * 1024;

/// The longest segment body that may be claimed by a chunk, in bytes.
pub const MAX_BODY_BYTES: usize = crate::segment::MAX_BODY_BYTES;

/// The most ranges in one list of an envelope.
pub const MAX_RANGES: usize = 256;

/// The most stores in a [`State`] or an [`Ack`].
pub const MAX_STORES: usize = 16;

/// The most series in one [`CatalogPage`].
pub const MAX_PAGE_SERIES: usize = 4096;

/// The most boots in one [`CatalogPage`].
pub const MAX_PAGE_BOOTS: usize = 1024;

/// The most anchors of one boot in one [`CatalogPage`].
pub const MAX_ANCHORS: usize = 4096;

/// The longest unit or version text, in bytes.
pub const MAX_WORD_BYTES: usize = 64;

/// `<prefix>/v1/<device>/ack`, fleet to device, retained: all that the fleet has durably committed. It states, it does
/// not add: what an earlier one named and this one does not is no longer held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// By store; only stores that this device has brought; at most [`MAX_STORES`], the latest ones.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_STORES>")]
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
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub ranges: Vec<SeqRange>,
    /// The highest sequence number that the fleet ever saw of this store.
    pub high: SegmentSeq,
    /// Ranges that arrived with content other than what was held: both are kept. A device that reads a range of its own
    /// current store here takes a fresh store id.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub conflicts: Vec<SeqRange>,
    /// The answer to [`StoreState::recheck`]: that number, and the ranges that arrived since it was set and are durably
    /// held, whether equal to what was there or kept beside it.
    #[serde(deserialize_with = "rules::verified")]
    pub verified: Option<(u64, Vec<SeqRange>)>,
}

impl StoreAck {
    /// All that is held.
    pub fn held(&self) -> RangeSet {
        SeqRange::new(1, self.cumulative.0).into_iter().chain(self.ranges.iter().copied()).collect()
    }
}

/// `<prefix>/v1/<device>/request`, fleet to device, not retained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Send the segments that cover these ranges again; what is gone comes back as a loss.
    Segments {
        /// Of which store.
        store: StoreUuid,
        /// Which; at most [`MAX_RANGES`].
        #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
        ranges: Vec<SeqRange>,
    },
    /// Publish every catalogue page again.
    Catalog,
    /// Send everything that the file holds, or a range, as the ordinary frames, with an account of it.
    Snapshot(SnapshotRequest),
    /// Send no segments for a while.
    Pause {
        /// For so long, an hour at most; 0 ends it.
        seconds: u32,
    },
}

/// A message that can be an envelope: the five types above, the two of a pull, and no other.
pub trait Envelope<'a>: Serialize + Deserialize<'a> + rules::Rules {}

impl<'a> Envelope<'a> for SegmentFrame<'a> {}
impl Envelope<'_> for CatalogPage {}
impl Envelope<'_> for State {}
impl Envelope<'_> for Ack {}
impl Envelope<'_> for Request {}
impl<'a> Envelope<'a> for FromBoard<'a> {}
impl Envelope<'_> for FromLaptop {}

/// The payload of `message`.
///
/// # Errors
/// The message breaks a rule of its type or would be longer than [`MAX_ENVELOPE`].
pub fn encode<'a, T: Envelope<'a>>(message: &T) -> Result<Vec<u8>, WireError> {
    message.check()?;
    let payload = postcard::to_extend(message, vec![VERSION]).map_err(|_| WireError::Malformed)?;
    sealed(payload)
}

/// The message in `payload`. A [`SegmentFrame`] borrows its bytes from it.
///
/// # Errors
/// Too long or short, damaged, of a newer version, malformed, or breaking a rule of its type: see [`WireError`].
pub fn decode<'a, T: Envelope<'a>>(payload: &'a [u8]) -> Result<T, WireError> {
    let inner = opened(payload)?;
    let (message, rest) = postcard::take_from_bytes::<T>(inner).map_err(|_| WireError::Malformed)?;
    if !rest.is_empty() {
        return Err(WireError::Trailing { bytes: rest.len() });
    }
    message.check()?;
    Ok(message)
}

/// Why a payload is no message, or a message no payload. None of these improves by trying the same bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Longer than [`MAX_ENVELOPE`].
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Shorter than any envelope.
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// The CRC does not match: damaged on the way, or never an envelope.
    Crc,
    /// Written by a newer varved. A receiver keeps such bytes aside rather than drop them.
    Newer {
        /// The version byte.
        version: u8,
    },
    /// The bytes are no message of the kind that the topic carries.
    Malformed,
    /// The message ends before its bytes do.
    Trailing {
        /// How many are left.
        bytes: usize,
    },
    /// A list longer than its cap.
    List {
        /// Which.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// A range that is empty or begins at 0, or a list of ranges that is not ascending and disjoint.
    Ranges {
        /// Which.
        what: &'static str,
    },
    /// A text longer than its cap, or a scale outside its bounds.
    Definition {
        /// Which.
        what: &'static str,
    },
    /// A chunk that is empty, or not inside the body that it claims to be of.
    Chunk,
    /// All chunks of a body came, and together they are not what they said.
    Hash,
    /// More chunks of a body came, or longer ones, than it can be cut into.
    Pieces,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "an envelope of {bytes} bytes; the most is {MAX_ENVELOPE}: lower max_payload at the sender")
            }
            Self::TooShort { bytes } => write!(
                f,
                "an envelope of {bytes} bytes: something other than varved publishes to this topic; check the broker's ACL"
            ),
            Self::Crc => write!(
                f,
                "the envelope's CRC does not match: something other than varved publishes to this topic, or the link damages data; check the broker's ACL"
            ),
            Self::Newer { version } => write!(
                f,
                "an envelope of version {version}; this varved reads up to {VERSION}: update the receiving side"
            ),
            Self::Malformed => write!(
                f,
                "the envelope is not of the kind that its topic carries: check which versions of varved are in use"
            ),
            Self::Trailing { bytes } => write!(
                f,
                "{bytes} bytes are left after the envelope's message: check which versions of varved are in use"
            ),
            Self::List { what, max } => {
                write!(f, "more than {max} {what} in one envelope: this is a fault of the sender, report it")
            }
            Self::Ranges { what } => write!(
                f,
                "{what} is not a list of ascending, disjoint ranges: this is a fault of the sender, report it"
            ),
            Self::Definition { what } => {
                write!(f, "the {what} is outside its bounds: this is a fault of the sender, report it")
            }
            Self::Chunk => write!(f, "a chunk lies outside its segment: this is a fault of the sender, report it"),
            Self::Pieces => write!(
                f,
                "the chunks of a segment overlap without end: they are dropped; this is a fault of the sender, report it"
            ),
            Self::Hash => write!(
                f,
                "the chunks of a segment do not add up to it: they are dropped and will be sent again; if it repeats, report it"
            ),
        }
    }
}

impl std::error::Error for WireError {}

impl Fault for WireError {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        Exit::Data
    }
}

/// The CRC that `payload`, an envelope, ends with; `None` for what is too short to be one. To tell one content from
/// another, take this: a CRC over a whole envelope, its own CRC included, is the same number for every envelope.
pub fn crc_of(payload: &[u8]) -> Option<u32> {
    payload.last_chunk::<4>().map(|crc| u32::from_le_bytes(*crc))
}

/// Appends the CRC.
fn sealed(mut payload: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let crc = crc32fast::hash(&payload);
    payload.extend_from_slice(&crc.to_le_bytes());
    if payload.len() > MAX_ENVELOPE {
        return Err(WireError::TooLong { bytes: payload.len() });
    }
    Ok(payload)
}

/// What is between the version byte and the CRC. The CRC goes first: a flipped bit in the version byte is damage, not news.
fn opened(payload: &[u8]) -> Result<&[u8], WireError> {
    if payload.len() > MAX_ENVELOPE {
        return Err(WireError::TooLong { bytes: payload.len() });
    }
    let short = WireError::TooShort { bytes: payload.len() };
    let (sealed, crc) = payload.split_last_chunk::<4>().ok_or(short)?;
    let (version, inner) = sealed.split_first().ok_or(short)?;
    if crc32fast::hash(sealed) != u32::from_le_bytes(*crc) {
        return Err(WireError::Crc);
    }
    match *version {
        VERSION => Ok(inner),
        version if version > VERSION => Err(WireError::Newer { version }),
        _ => Err(WireError::Malformed),
    }
}

#[cfg(test)]
mod tests;
