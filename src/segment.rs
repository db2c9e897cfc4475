//! Segments: immutable, versioned, checksummed runs of readings of all series. One format from commit to archive: the
//! bytes that are stored are the bytes that are shipped.
//!
//! What enters: columns of readings with their timelines. What leaves: a body of bytes, and back. Pure: no I/O, no clock.

use crate::clock::{BootNanos, UtcNanos};
use crate::reading::{BootId, NoValue, SeqRange, SeriesDef, SeriesId};
use serde::{Deserialize, Serialize};

/// The clock that a timeline's stamps are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimelineClock {
    /// UTC that the readings brought with them.
    Utc,
    /// CLOCK_BOOTTIME of this boot.
    Boot(BootId),
}

/// Stamps shared by one or more columns, in order of arrival (not necessarily of time), in nanoseconds of `clock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The clock of every stamp in it.
    pub clock: TimelineClock,
    /// The stamps; duplicates and steps back are kept as they came.
    pub stamps: Vec<i64>,
}

/// The values of a column, one for each stamp of its timeline. Where [`Column::missing`] names an index, the value there
/// means nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Integers, raw where the series has a scale.
    Int(Vec<i64>),
    /// Doubles, bit for bit.
    Float(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Texts.
    Text(Vec<Box<str>>),
}

/// A reading that has a reason instead of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Index into the column's values.
    pub at: u32,
    /// The reason.
    pub why: NoValue,
}

/// The readings of one series on one timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Whose readings.
    pub series: SeriesId,
    /// Index into [`Readings::timelines`].
    pub timeline: usize,
    /// As many values as the timeline has stamps.
    pub values: Values,
    /// Ascending by index.
    pub missing: Vec<Missing>,
}

/// The readings of a data segment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Readings {
    /// Each stored once, shared by its columns.
    pub timelines: Vec<Timeline>,
    /// Ascending by series; a series that was stamped by two clocks has two columns.
    pub columns: Vec<Column>,
}

/// Why readings that were taken are not here. The numbers are part of the format; new ones are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LossReason {
    /// Sequence numbers that were skipped at an open, lest one be used twice. What they held, if anything, is unknown.
    Void,
    /// The buffer in RAM was full while the medium took no writes.
    Overflow,
    /// Retention made room before the fleet had them.
    Retention,
    /// The segment was damaged on the medium.
    Damaged,
    /// The fleet acknowledged them, the device expired them, and the fleet has lost them since.
    Expired,
}

/// A dropped range: a segment whose content is the account of what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// How many readings, where that is known.
    pub readings: Option<u64>,
    /// The boot and its time of the first reading lost (or of the discovery).
    pub from: Option<(BootId, BootNanos)>,
    /// The same of the last.
    pub to: Option<(BootId, BootNanos)>,
    /// UTC of the readings lost that had stamps of their own: earliest and latest.
    pub utc: Option<(UtcNanos, UtcNanos)>,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Readings, and in compacted segments the names of their series.
    Data {
        /// The readings.
        readings: Readings,
        /// `(id, definition)` of every series cited, or empty where the segment only cites ids.
        names: Vec<(SeriesId, SeriesDef)>,
    },
    /// An account of readings that are no more.
    Loss(Loss),
}

/// A decoded segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its identity within its store.
    pub range: SeqRange,
    /// What it holds.
    pub content: Content,
}
