//! What a board and a laptop say to each other in a pull. `docs/pull.md` draws the conversation.
//!
//! Segments and catalogue pages travel as on MQTT: [`SegmentFrame`] and [`CatalogPage`] are parts of these messages, and a body
//! is what is stored. What is new here is what a laptop says it has, and what a board says of itself.

use super::{CatalogPage, SegmentFrame, StoreUuid, rules};
use crate::clock::Now;
use crate::reading::{SegmentSeq, SeqRange};
use serde::{Deserialize, Serialize};

/// The version of the conversation that this code speaks, and the lowest that it still does.
pub const PULL_VERSION: u32 = 1;

/// The most ranges in one list of a pull.
pub const MAX_PULL_RANGES: usize = 4096;

/// The most stores in one file that a pull speaks of: the youngest.
pub const MAX_PULL_STORES: usize = 64;

/// The longest text of a pull, in bytes: the board's `status`.
pub const MAX_PULL_TEXT_BYTES: usize = 128 * 1024;

/// The most events of the board's file that travel: the newest.
pub const MAX_PULL_EVENTS: usize = 64;

/// From the board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromBoard<'a> {
    /// First of all.
    Hello(BoardHello),
    /// After [`FromLaptop::Go`]: so much is on its way.
    Plan {
        /// Segments, losses included.
        segments: u64,
        /// Bytes of their bodies.
        bytes: u64,
    },
    /// A segment, or a piece of one; in each store by ascending number, but for what compaction joins meanwhile.
    #[serde(borrow)]
    Segment(SegmentFrame<'a>),
    /// What the board could not read of its own file.
    Unreadable {
        /// Of which store; none where not even that is known.
        store: Option<StoreUuid>,
        /// In words.
        why: String,
    },
    /// What the fleet has acknowledged of a store; several messages where they are many.
    Acked {
        /// Which.
        store: StoreUuid,
        /// Ascending, disjoint; at most [`MAX_PULL_RANGES`].
        #[serde(deserialize_with = "rules::capped::<_, _, MAX_PULL_RANGES>")]
        ranges: Vec<SeqRange>,
    },
    /// What the segments cite. All pages come after all segments, so that none is missing.
    Page(CatalogPage),
    /// Everything was sent.
    End,
}

/// [`FromBoard::Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoardHello {
    /// Its name, or empty where it has no configuration.
    pub device: String,
    /// Both clocks, and the boot they are of: only where the file's newest boot is the one that runs.
    pub running: Option<Running>,
    /// The stores in the file, youngest first; at most [`MAX_PULL_STORES`].
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_PULL_STORES>")]
    pub stores: Vec<StoreHeld>,
    /// `varved status --json` of the service, or why there is none, at most [`MAX_PULL_TEXT_BYTES`].
    pub health: Result<String, String>,
    /// The newest events of the file; at most [`MAX_PULL_EVENTS`].
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_PULL_EVENTS>")]
    pub events: Vec<PulledEvent>,
}

/// The board's clocks at the moment of its hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The kernel's boot id.
    pub boot: uuid::Uuid,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime: i64,
    /// CLOCK_REALTIME, nanoseconds, whatever it is worth.
    pub utc: i64,
    /// Whether the system says that it is synchronised.
    pub trusted: bool,
}

impl Running {
    /// Of the kernel's boot id and the clocks.
    pub fn new(boot: uuid::Uuid, now: Now) -> Self {
        Self { boot, boottime: now.boot.0, utc: now.utc.0, trusted: now.trusted }
    }
}

/// A store of the board's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreHeld {
    /// Its id.
    pub store: StoreUuid,
    /// The highest number in the file; 0 where there is none.
    pub high: SegmentSeq,
}

/// A row of the board's table `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledEvent {
    /// UTC by the clock of the time, nanoseconds.
    pub utc: i64,
    /// What happened, as the table's word for it.
    pub kind: String,
    /// For a person.
    pub detail: String,
}

/// From the laptop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLaptop {
    /// What it has of a store and need not come again; none of these where it has nothing.
    Have {
        /// Which.
        store: StoreUuid,
        /// Series up to this number are known.
        series: u32,
        /// Ascending, disjoint; at most [`MAX_PULL_RANGES`].
        #[serde(deserialize_with = "rules::capped::<_, _, MAX_PULL_RANGES>")]
        ranges: Vec<SeqRange>,
    },
    /// What it has of the beginning of a segment, from before a cut.
    Partial(Partial),
    /// Everything else may come.
    Go,
}

/// The beginning of a segment. Of one whose bytes are others by now, all comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Of which store.
    pub store: StoreUuid,
    /// The segment.
    pub range: SeqRange,
    /// So many bytes of its body are there.
    pub bytes: u32,
    /// CRC-32 of these bytes, all of them: they are the beginning of a body, so its own CRC is not among them.
    pub hash: u32,
}
