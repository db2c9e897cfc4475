//! The vocabulary of a reading: series, time, value, or the reason there is no value.
//!
//! What enters: nothing. What leaves: the plain types that every room shares. There is no I/O here, no clock and no
//! encoding; a type that knows how to store or send itself belongs in the room that does it.

pub mod ranges;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a series inside one store. Append-only: an id is never given to another series, so a segment that cites it
/// means the same thing for ever. Unique per store id only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub u32);

/// Number of a boot inside one store, in the order in which the store met them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u32);

/// Sequence number of a segment in its store; the first is 1, and 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct SegmentSeq(pub u64);

impl fmt::Display for SegmentSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inclusive range of sequence numbers: the identity of a segment within its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    /// The lowest sequence number covered.
    pub first: SegmentSeq,
    /// The highest sequence number covered, never below `first`.
    pub last: SegmentSeq,
}

impl SeqRange {
    /// A range of `first..=last`, or `None` where it would be empty or begin at 0.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first >= 1 && first <= last).then_some(Self { first: SegmentSeq(first), last: SegmentSeq(last) })
    }

    /// Whether every number of `other` is in `self` too.
    pub fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two have any number in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// What a series' values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Signed 64-bit integers; with a [`Scale`] other than one, a raw count of that scale.
    Int,
    /// IEEE 754 binary64, every bit pattern kept.
    Float,
    /// True or false.
    Bool,
    /// UTF-8 text of at most [`MAX_TEXT_BYTES`].
    Text,
}

impl Kind {
    /// The word used in the `series` table and on the wire page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Text => "text",
        }
    }

    /// The kind that [`Kind::as_str`] calls `word`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Int, Self::Float, Self::Bool, Self::Text].into_iter().find(|k| k.as_str() == word)
    }
}

/// The longest text value, in bytes. What is longer is refused at the door and counted.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// The longest series name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// A decimal factor `mantissa × 10^exponent` between the raw integer and the value in the series' unit. Decimal, because
/// that is how the kernel gives it (`in_voltage0_scale` is text such as `0.488281250`): no digit is lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scale {
    /// Significant digits, without trailing zeros; never 0.
    pub mantissa: i64,
    /// Power of ten, −30..=30.
    pub exponent: i8,
}

impl Scale {
    /// The scale of a value that is stored as it is.
    pub const ONE: Self = Self { mantissa: 1, exponent: 0 };
    /// Raw values in thousandths: m°C, mV, mA.
    pub const MILLI: Self = Self { mantissa: 1, exponent: -3 };
    /// Raw values in millionths: µW, µV, µJ.
    pub const MICRO: Self = Self { mantissa: 1, exponent: -6 };

    /// The scale `mantissa × 10^exponent` in its one normal form, or `None` where the mantissa is 0 or the exponent ends
    /// up outside −30..=30.
    pub fn new(mut mantissa: i64, mut exponent: i32) -> Option<Self> {
        if mantissa == 0 {
            return None;
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        let exponent = i8::try_from(exponent).ok().filter(|e| (-30..=30).contains(e))?;
        Some(Self { mantissa, exponent })
    }

    /// Reads `0.488281250`, `-12`, `1e-3`: what sysfs and the `series` table hold.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, power) = match text.trim().split_once(['e', 'E']) {
            Some((number, power)) => (number, power.parse::<i32>().ok()?),
            None => (text.trim(), 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa = format!("{whole}{fraction}").parse::<i64>().ok()?;
        Self::new(mantissa, power.checked_sub(i32::try_from(fraction.len()).ok()?)?)
    }

    /// The product of two scales, or `None` where it does not fit.
    pub fn times(self, other: Self) -> Option<Self> {
        Self::new(self.mantissa.checked_mul(other.mantissa)?, i32::from(self.exponent) + i32::from(other.exponent))
    }

    /// The value that `raw` stands for. A division by a power of ten rather than a multiplication by its rounded inverse:
    /// 23437 at `1e-3` is exactly the double nearest to 23.437.
    pub fn apply(self, raw: i64) -> f64 {
        let product = i128::from(raw) * i128::from(self.mantissa);
        let power = 10f64.powi(i32::from(self.exponent.unsigned_abs()));
        if self.exponent < 0 { product as f64 / power } else { product as f64 * power }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exponent {
            0 => write!(f, "{}", self.mantissa),
            e => write!(f, "{}e{e}", self.mantissa),
        }
    }
}

/// What a series is: the name and everything that, if it changed, would change the meaning of its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeriesDef {
    /// `measurement/field[,tag=value…]`, tags sorted by key and escaped as in line protocol; at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// IANA SenML unit symbol (RFC 8428 §12.1, such as `Cel`, `V`, `%RH`), or empty where none is known.
    pub unit: String,
    /// What the values are.
    pub kind: Kind,
    /// For [`Kind::Int`], the factor from raw to unit; [`Scale::ONE`] for all else.
    pub scale: Scale,
}

/// One value, or the reason there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// See [`Kind::Int`].
    Int(i64),
    /// See [`Kind::Float`].
    Float(f64),
    /// See [`Kind::Bool`].
    Bool(bool),
    /// See [`Kind::Text`].
    Text(Box<str>),
    /// The sensor was asked and gave no value.
    None(NoValue),
}

impl Value {
    /// The kind of series this value belongs to; `None` for a missing value, which any series may have.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Int(_) => Some(Kind::Int),
            Self::Float(_) => Some(Kind::Float),
            Self::Bool(_) => Some(Kind::Bool),
            Self::Text(_) => Some(Kind::Text),
            Self::None(_) => None,
        }
    }
}

/// Why a sensor that was asked has no value. The numbers are part of the segment format; new ones are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum NoValue {
    /// The file or device was there before and is gone (ENOENT, ENODEV, ENXIO).
    Absent = 1,
    /// The read failed (EIO and the like).
    Failed = 2,
    /// The kernel says the channel is disabled (ENODATA; Linux `Documentation/hwmon/sysfs-interface`).
    Disabled = 3,
    /// The chip itself says the value is not to be trusted (`*_fault` = 1, same document).
    Faulty = 4,
    /// The device answered too late.
    Late = 5,
    /// What was read is not a number, or outside what the series can hold.
    Unreadable = 6,
    /// The value that the chip gives before its first conversion (85.00 °C of a DS18B20, its data sheet).
    PowerUp = 7,
}

impl NoValue {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Absent, Self::Failed, Self::Disabled, Self::Faulty, Self::Late, Self::Unreadable, Self::PowerUp];

    /// The reason with this number in the segment format. A number that this version does not know is `None`; a reader
    /// shows such a reading as [`NoValue::Failed`], since it has no value whatever the reason.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|why| *why as u8 == code)
    }

    /// The word in the `quality` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Faulty => "faulty",
            Self::Late => "late",
            Self::Unreadable => "unreadable",
            Self::PowerUp => "power-up",
        }
    }
}

/// When a reading was taken, on the clock that it was taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// CLOCK_BOOTTIME of the running boot: the stamp that varved itself gives.
    Boot(crate::clock::BootNanos),
    /// UTC that the reading brought with it.
    Utc(crate::clock::UtcNanos),
}

/// Number of a series inside one running process, given in the order of arrival by [`crate::batch::Registry`]. It lives
/// in RAM only; the store maps it to a [`SeriesId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey(pub u32);

/// One reading on its way to the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Which series.
    pub series: SeriesKey,
    /// When.
    pub stamp: Stamp,
    /// What, or why not.
    pub value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scale keeps every digit that sysfs gives and has one written form.
    #[test]
    fn scales_are_exact_decimals() {
        let iio = Scale::parse("0.488281250").expect("a scale");
        assert_eq!((iio.mantissa, iio.exponent), (48_828_125, -8));
        assert_eq!(Scale::parse(&iio.to_string()), Some(iio));
        assert_eq!(Scale::MILLI.apply(23_437), 23.437);
        assert_eq!(Scale::parse("1000"), Scale::new(1, 3));
        assert_eq!(Scale::parse("-2.50").map(|s| s.to_string()).as_deref(), Some("-25e-1"));
        for bad in ["", "x", "1.x", "0", "1e99", "--1", "1.-5"] {
            assert_eq!(Scale::parse(bad), None, "{bad}");
        }
    }

    /// Ranges of one store are disjoint or nested; these two questions decide which.
    #[test]
    fn ranges_know_nesting_from_crossing() {
        let range = |a, b| SeqRange::new(a, b).expect("a range");
        assert!(range(1, 9).covers(&range(3, 9)));
        assert!(range(1, 5).overlaps(&range(5, 9)) && !range(1, 5).covers(&range(5, 9)));
        assert!(!range(1, 4).overlaps(&range(5, 9)));
        assert_eq!(SeqRange::new(0, 3), None);
        assert_eq!(SeqRange::new(4, 3), None);
    }
}
