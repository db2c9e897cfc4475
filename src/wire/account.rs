//! The device's own account of what it sends for a snapshot: what a receiver compares its replica with.
//!
//! A snapshot goes out stretch by stretch: some segments, then the account of them, which says what the device holds of these
//! numbers and what its readings there add up to. Each is verified by itself, so that after a cut only what was not yet
//! verified comes again.

use super::{MAX_RANGES, MAX_STORES, StoreUuid, rules};
use crate::reading::SeqRange;
use crate::segment::Sum;
use serde::{Deserialize, Serialize};

/// [`super::SegmentFrame::Account`]: how far a snapshot is, after the segments that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Which snapshot: the number of the request, or one that the device chose where it sends by itself.
    pub nonce: u64,
    /// All that the snapshot is of; at most [`MAX_STORES`]. A store that was asked for and is not in the file is not named.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_STORES>")]
    pub stores: Vec<(StoreUuid, SeqRange)>,
    /// What was sent since the last account; none where it begins or ends.
    pub stretch: Option<Stretch>,
    /// Whether it ends here: nothing more comes for this request.
    pub last: bool,
}

/// What the device holds of a stretch of numbers, all of which it has just sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Of which store.
    pub store: StoreUuid,
    /// The numbers that this speaks of. Of what is in neither list the device holds nothing any more.
    pub range: SeqRange,
    /// Numbers with readings, ascending, disjoint; at most [`MAX_RANGES`].
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub readings: Vec<SeqRange>,
    /// Numbers with an account of their loss, likewise.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub losses: Vec<SeqRange>,
    /// What the readings add up to.
    pub sum: Sum,
}

/// What [`super::Request::Snapshot`] asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// Its number: what is asked for again under the same number goes on rather than begins anew.
    pub nonce: u64,
    /// Only this range of this store; everything where there is none.
    pub only: Option<(StoreUuid, SeqRange)>,
    /// What has been dealt with under this number and need not come again, by store; at most [`MAX_STORES`].
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_STORES>")]
    pub done: Vec<Done>,
}

/// What has been dealt with of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which.
    pub store: StoreUuid,
    /// Ascending, disjoint; at most [`MAX_RANGES`], the lowest ones.
    #[serde(deserialize_with = "rules::capped::<_, _, MAX_RANGES>")]
    pub ranges: Vec<SeqRange>,
}
