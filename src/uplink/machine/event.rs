//! What goes into the machine and what comes out: the words between it and the task that performs it.

use super::Head;
use crate::clock::{BootNanos, Now};
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::segment::Sum;
use crate::wire::{Account, Ack, Request, StoreUuid};

/// A store in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub store: StoreUuid,
    /// Whether commits go there.
    pub current: bool,
    /// The highest sequence number committed.
    pub high: SegmentSeq,
    /// Set while it is rechecked.
    pub recheck: Option<u64>,
}

/// Why a segment is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is pending, and new since the connection.
    Live,
    /// It is pending.
    Backlog,
    /// It was sent, and no ack came.
    Again,
    /// The fleet asked for it.
    Wanted,
}

/// A segment that went out for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its range.
    pub range: SeqRange,
    /// Length of its body.
    pub bytes: u64,
    /// What its readings add up to, where it has readings.
    pub readings: Option<Sum>,
    /// Whether it is a loss.
    pub loss: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker answers and the subscriptions stand.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// An ack came.
    Ack(Ack),
    /// A request came.
    Request(Request),
    /// The store committed something.
    Committed,
    /// Answer to [`Action::ReadStores`].
    Stores {
        /// The current one first.
        lines: Vec<Line>,
        /// Changes whenever a catalogue page would.
        catalog: u64,
    },
    /// Answer to [`Action::ReadHeads`], with its fields.
    Heads {
        /// Whose.
        store: StoreUuid,
        /// Which lane.
        purpose: Purpose,
        /// After which sequence number.
        after: SegmentSeq,
        /// At most as many as were asked for; fewer where there are no more.
        heads: Vec<Head>,
    },
    /// Answer to [`Action::ReadNewest`], with its fields.
    Newest {
        /// Whose.
        store: StoreUuid,
        /// Before which sequence number.
        before: SegmentSeq,
        /// Descending; at most as many as were asked for, fewer where there are no more.
        heads: Vec<Head>,
    },
    /// Answer to [`Action::Send`]: the broker's client took one message of it, and there are more.
    Piece(Rest),
    /// Answer to [`Action::Send`]: the broker's client took all of it, or the last message.
    Sent {
        /// Whose.
        store: StoreUuid,
        /// What was sent: it covers what was asked for, and more where it has been compacted since.
        range: SeqRange,
        /// Length of its body.
        bytes: u64,
        /// As asked.
        purpose: Purpose,
    },
    /// Answer to [`Action::Send`]: the store holds nothing that covers `at`, or it cannot be put in frames.
    Missing {
        /// Whose.
        store: StoreUuid,
        /// As asked.
        at: SegmentSeq,
        /// As asked.
        purpose: Purpose,
    },
    /// Answer to [`Action::Send`] and [`Action::Copy`]: the catalogue has changed since it was published; nothing was sent.
    CatalogChanged {
        /// Its version.
        catalog: u64,
    },
    /// Answer to [`Action::Copy`]: the broker's client took one message of a segment, and there are more.
    CopyPiece(Rest),
    /// Answer to [`Action::Copy`], with its fields: the broker's client took a segment, or there is none.
    Copied {
        /// Whose.
        store: StoreUuid,
        /// As asked.
        within: SeqRange,
        /// What went out.
        told: Option<Told>,
    },
    /// Answer to [`Action::PublishAccount`].
    AccountPublished(Account),
    /// Answer to [`Action::PublishCatalog`]: all that was due is out.
    CatalogPublished {
        /// Its version.
        catalog: u64,
        /// Whether every page went out.
        all: bool,
    },
    /// The highest numbers that a state is about to name: the fleet may answer with them before the stores are looked at.
    Stating(Vec<(StoreUuid, SegmentSeq)>),
    /// Answer to [`Action::PublishState`].
    StatePublished,
    /// Answer to [`Action::RecordGone`]: everything of what was asked for up to here is held, or is a loss now.
    Gone {
        /// Whose.
        store: StoreUuid,
        /// Inclusive.
        through: SegmentSeq,
    },
    /// Answer to [`Action::SetAcked`].
    AckedSet,
    /// Answer to [`Action::Recheck`].
    Rechecking {
        /// The store that is rechecked now.
        store: StoreUuid,
        /// The number that the fleet answers with.
        nonce: u64,
    },
    /// A publish was not taken: the connection ended.
    NotPublished,
    /// The store could not do what was asked.
    StoreFailed,
    /// It is now: for the budgets, at least every few minutes.
    Time(Now),
    /// The broker's client took a message.
    Published {
        /// Topic and payload.
        bytes: u64,
        /// When it was handed over.
        begun: BootNanos,
    },
    /// The broker acknowledged the message that was taken first: it is across the link, and no more than that.
    Passed,
    /// A message came, whatever it is.
    Arrived {
        /// Topic and payload.
        bytes: u64,
    },
}

/// What is left of a segment of which some messages went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Whose.
    pub store: StoreUuid,
    /// What is sent.
    pub range: SeqRange,
    /// The CRC-32 that its body ends with: with another one it begins anew.
    pub hash: u32,
    /// Length of its body.
    pub bytes: u64,
    /// How much of that went out.
    pub through: u32,
    /// As asked.
    pub purpose: Purpose,
}

/// How a segment is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// No payload is longer, in bytes.
    pub payload_bytes: usize,
    /// One message after the other; else the next one only, so that something more urgent may come between.
    pub whole: bool,
    /// What has gone out before.
    pub rest: Option<Rest>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read which stores there are, and the catalogue's version.
    ReadStores,
    /// Read heads of segments of `store` above `after`, ascending: those pending.
    ReadHeads {
        /// Whose.
        store: StoreUuid,
        /// For the answer.
        purpose: Purpose,
        /// Above this.
        after: SegmentSeq,
        /// At most so many.
        limit: usize,
    },
    /// Read heads of pending segments of `store` that begin before `before`, descending.
    ReadNewest {
        /// Whose.
        store: StoreUuid,
        /// Below this.
        before: SegmentSeq,
        /// At most so many.
        limit: usize,
    },
    /// Send the segment that covers `at`, unless the catalogue's version is no longer `catalog`.
    Send {
        /// Whose.
        store: StoreUuid,
        /// Any of its numbers.
        at: SegmentSeq,
        /// For the answer.
        purpose: Purpose,
        /// The version that was published.
        catalog: u64,
        /// In which messages.
        cut: Cut,
    },
    /// Send the first segment that has a number of `within`, unless the catalogue's version is no longer `catalog`.
    Copy {
        /// Whose.
        store: StoreUuid,
        /// What is looked for.
        within: SeqRange,
        /// The version that was published.
        catalog: u64,
        /// In which messages.
        cut: Cut,
    },
    /// Publish how far a snapshot is.
    PublishAccount(Account),
    /// Publish the catalogue: the pages that differ from what was published, or all.
    PublishCatalog {
        /// Whether all.
        all: bool,
    },
    /// Publish the state, as the store has it.
    PublishState,
    /// Tell the store what the fleet holds of `store`: this and nothing else.
    SetAcked {
        /// Of which.
        store: StoreUuid,
        /// All of it.
        ranges: RangeSet,
    },
    /// Write down a loss for what is not held at the beginning of `range`.
    RecordGone {
        /// Whose.
        store: StoreUuid,
        /// What was asked for.
        range: SeqRange,
    },
    /// Set a recheck of `store` that survives a restart, forget its acks and, where it is current, take a fresh id.
    Recheck {
        /// Which.
        store: StoreUuid,
        /// For the event log.
        why: Doubt,
    },
}

/// Why the fleet's account and ours of one store cannot both be of the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The fleet has seen numbers that we have not used yet: the file was rolled back, or has a twin.
    RolledBack {
        /// Our highest.
        ours: SegmentSeq,
        /// The fleet's highest.
        fleet: SegmentSeq,
    },
    /// A range came to the fleet with two contents.
    Conflict {
        /// The first such range.
        range: SeqRange,
    },
}
