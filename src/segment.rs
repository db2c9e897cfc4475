//! Segments: immutable, versioned, checksummed runs of readings of all series. One format from commit to archive: the
//! bytes that are stored are the bytes that are shipped.
//!
//! What enters: columns of readings with their timelines. What leaves: a body of bytes, and back. Pure: no I/O, no clock.
//! What it promises: every bit of every value and stamp comes back; bytes that are not a body are an error, never a panic,
//! and reserve at most about [`MAX_DECODED_BYTES`]. What it does not do: order readings, or look for equal ones.
//!
//! `docs/segment.md` draws the format byte by byte. From the bottom up: `coder` turns bits into bytes, `numbers` turns
//! columns of integers into bits as `plan` chooses, `floats` and `columns` turn everything else into integers, `directory` says what
//! is where, `body` is the frame around it, `view` reads no more of it than is asked for, `merge` joins
//! neighbours, `sum` says what readings add up to.

mod adaptive;
mod body;
mod coder;
mod columns;
mod contains;
mod directory;
mod floats;
mod merge;
mod numbers;
mod plan;
mod sum;
#[cfg(test)]
mod tests;
mod view;

#[cfg(test)]
pub(crate) use body::UNCHECKED;
pub use body::encode;
pub use contains::contains;
pub(crate) use merge::Timelines;
pub use merge::{Merge, merge};
pub use sum::Sum;
pub use view::{Bounds, ColumnHead, Decoded, View, decode};

use crate::clock::{BootNanos, UtcNanos};
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::{BootId, Kind, NoValue, SeqRange, SeriesDef, SeriesId, Value};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version that [`encode`] writes, and the highest that [`decode`] reads.
pub const VERSION: u8 = 1;

/// The longest body.
pub const MAX_BODY_BYTES: usize = 2 << 20;

/// The most readings in a segment.
pub const MAX_READINGS: usize = 4 * 65_536;

/// The most columns in a segment, and the most timelines.
pub const MAX_COLUMNS: usize = 65_536;

/// The most bytes of texts in a segment, once every reading has its own copy; and the most bytes of names and distinct
/// texts.
pub const MAX_TEXT_TOTAL_BYTES: usize = 4 << 20;

/// About what the decoding of any bytes at all reserves at most: stamps, values and missing ones at their caps (16 bytes
/// each, twice for the moment of a copy), the column heads, and the texts.
pub const MAX_DECODED_BYTES: usize = 3 * 16 * MAX_READINGS + 256 * MAX_COLUMNS + 4 * MAX_TEXT_TOTAL_BYTES;

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

/// A moment of a boot.
type Moment = (BootId, BootNanos);

impl Loss {
    /// It stands for that period too: from the earliest end that is known to the latest. An end that neither knows stays unknown.
    pub fn reach(&mut self, from: Option<Moment>, to: Option<Moment>, utc: Option<(UtcNanos, UtcNanos)>) {
        let ends = || [self.from, self.to, from, to].into_iter().flatten();
        let (earliest, latest) = (ends().min(), ends().max());
        // One that knows only where it ends may lie before another that knows only where it begins.
        self.from = self.from.or(from).and(earliest);
        self.to = self.to.or(to).and(latest);
        self.utc = match (self.utc, utc) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
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

impl Content {
    /// How many readings it holds.
    pub fn n(&self) -> usize {
        match self {
            Self::Data { readings, .. } => readings.n(),
            Self::Loss(_) => 0,
        }
    }

    /// Bytes of all texts: what they take in RAM, however small they are as a body.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Data { readings, .. } => readings.text_bytes(),
            Self::Loss(_) => 0,
        }
    }
}

impl Readings {
    /// How many readings, those without a value included.
    pub fn n(&self) -> usize {
        self.columns.iter().map(|column| column.values.len()).sum()
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        let of = |column: &Column| match &column.values {
            Values::Text(texts) => texts.iter().map(|text| text.len()).sum(),
            _ => 0,
        };
        self.columns.iter().map(of).sum()
    }
}

impl Values {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(all) => all.len(),
            Self::Float(all) => all.len(),
            Self::Bool(all) => all.len(),
            Self::Text(all) => all.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they are.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
        }
    }

    /// The value at `index`; `None` beyond the end. That a value is missing, only the column knows.
    pub fn get(&self, index: usize) -> Option<Value> {
        match self {
            Self::Int(all) => all.get(index).map(|v| Value::Int(*v)),
            Self::Float(all) => all.get(index).map(|v| Value::Float(*v)),
            Self::Bool(all) => all.get(index).map(|v| Value::Bool(*v)),
            Self::Text(all) => all.get(index).map(|v| Value::Text(v.clone())),
        }
    }
}

/// Why bytes are no segment, or a segment cannot become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer bytes than any segment has.
    Truncated,
    /// The bytes are not those that were written.
    Checksum,
    /// Written by a later version: the bytes are whole, and worth keeping.
    Newer {
        /// That version.
        version: u8,
    },
    /// The checksum is right and the content is not: what is wrong.
    Corrupt(&'static str),
    /// A segment to encode that is above a cap.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much there is.
        is: usize,
        /// How much there may be.
        limit: usize,
    },
    /// A segment to encode that contradicts itself.
    Unfit(&'static str),
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "segment is cut short: fetch it again, or count it as damaged"),
            Self::Checksum => write!(f, "segment has a wrong checksum: fetch it again, or count it as damaged"),
            Self::Newer { version } => {
                write!(
                    f,
                    "segment is of version {version}, this program reads up to {VERSION}: keep it, and update varved"
                )
            }
            Self::Corrupt(what) => {
                write!(f, "segment holds {what}: keep the file and report it, its writer is at fault")
            }
            Self::TooLarge { what, is, limit } => {
                write!(f, "segment would have {is} {what}, at most {limit} fit: commit more often")
            }
            Self::Unfit(what) => write!(f, "segment cannot be written, {what}: report this, varved is at fault"),
        }
    }
}

impl std::error::Error for SegmentError {}

impl Fault for SegmentError {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        Exit::Data
    }
}
