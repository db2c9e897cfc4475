//! Why a message was refused: counted per device, never allowed to disturb another.
//!
//! What enters: the fate of messages. What leaves: a small table of counts, and whether this one is worth a line in the
//! log. A refused message is answered to the broker (PUBACK) and never acknowledged to the device, which keeps it.

use crate::clock::{BootNanos, SECOND};
use std::fmt;

/// The reasons, in the order of their numbers in the roster; new ones are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The envelope is damaged, malformed or breaks a rule of its type.
    Envelope = 0,
    /// The envelope is of a newer version: update the receiver.
    NewerEnvelope = 1,
    /// The segment's body is damaged or malformed.
    Segment = 2,
    /// The segment's body is of a newer version: update the receiver.
    NewerSegment = 3,
    /// The envelope says one range, the body another.
    OtherRange = 4,
    /// A sequence number of 2^48 or more.
    FarSequence = 5,
    /// A definition in the body is not the one in the device's catalogue.
    OtherNames = 6,
    /// One more history of a store id that has all it may have.
    Histories = 7,
    /// One more series, boot or anchor than a store may have.
    CatalogFull = 8,
    /// One more store than a device may have.
    Stores = 9,
    /// The replica can't be written or read; the cause is in the log.
    Replica = 10,
    /// Pieces of a segment that were dropped before all had come: more are begun than brought to an end.
    Unfinished = 11,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Envelope,
        Self::NewerEnvelope,
        Self::Segment,
        Self::NewerSegment,
        Self::OtherRange,
        Self::FarSequence,
        Self::OtherNames,
        Self::Histories,
        Self::CatalogFull,
        Self::Stores,
        Self::Replica,
        Self::Unfinished,
    ];

    /// The word in the roster and in `devices`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::NewerEnvelope => "newer-envelope",
            Self::Segment => "segment",
            Self::NewerSegment => "newer-segment",
            Self::OtherRange => "other-range",
            Self::FarSequence => "far-sequence",
            Self::OtherNames => "other-names",
            Self::Histories => "histories",
            Self::CatalogFull => "catalog-full",
            Self::Stores => "stores",
            Self::Replica => "replica",
            Self::Unfinished => "unfinished",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The shortest time between two lines in the log about one device's refused messages.
const LOG_EVERY: i64 = 60 * SECOND;

/// How often a device's messages were refused, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    counts: [u64; Refusal::ALL.len()],
    logged: Option<BootNanos>,
}

impl Refusals {
    /// Counts one. True where it may be logged: the first, and then one a minute.
    pub fn count(&mut self, why: Refusal, now: BootNanos) -> bool {
        self.counts[why as usize] = self.counts[why as usize].saturating_add(1);
        let due = self.logged.is_none_or(|then| now.0.saturating_sub(then.0) >= LOG_EVERY);
        if due {
            self.logged = Some(now);
        }
        due
    }

    /// Sets a count that was kept over a restart.
    pub fn restore(&mut self, why: Refusal, count: u64) {
        self.counts[why as usize] = count;
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|why| (why, self.counts[why as usize])).filter(|(_, n)| *n > 0)
    }

    /// How often for this reason.
    pub fn of(&self, why: Refusal) -> u64 {
        self.counts[why as usize]
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of refused messages is one line a minute and an exact count.
    #[test]
    fn a_flood_is_counted_and_logged_once_a_minute() {
        let mut refusals = Refusals::default();
        let lines = (0..180).filter(|s| refusals.count(Refusal::Segment, BootNanos(s * SECOND))).count();
        assert_eq!(lines, 3);
        assert_eq!(refusals.iter().collect::<Vec<_>>(), vec![(Refusal::Segment, 180)]);
    }

    /// The number of a reason is its place, so that counts restored from the roster go where they were.
    #[test]
    fn reasons_stand_at_their_numbers() {
        for (i, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, i);
        }
    }
}
