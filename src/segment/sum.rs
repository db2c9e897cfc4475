//! What a set of readings adds up to, however it is cut into segments: to tell whether two ends hold the same.
//!
//! What enters: decoded segments. What leaves: a count, and a number that is the sum of one number a reading (`docs/wire.md`,
//! "Sums"). Compaction joins readings and drops none, so the sum of a run of segments stays what it was. Equal sums are no
//! proof against somebody who wants them equal, and say nothing of the order of readings.

use super::{Column, Content, Readings, Segment, TimelineClock, Values};
use serde::{Deserialize, Serialize};

/// See the room. Sums of disjoint runs of readings add up to the sum of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sum {
    /// How many readings, those without a value included.
    pub readings: u64,
    /// What they add up to, modulo 2^64.
    pub digest: u64,
}

impl Sum {
    /// Of all readings of `segment`; nothing for a loss.
    pub fn of(segment: &Segment) -> Self {
        let mut sum = Self::default();
        if let Content::Data { readings, .. } = &segment.content {
            readings.columns.iter().for_each(|column| sum.add_column(column, readings));
        }
        sum
    }

    /// Adds what another run of readings adds up to.
    pub fn add(&mut self, other: Self) {
        self.readings = self.readings.wrapping_add(other.readings);
        self.digest = self.digest.wrapping_add(other.digest);
    }

    fn add_column(&mut self, column: &Column, readings: &Readings) {
        let Some(timeline) = readings.timelines.get(column.timeline) else { return };
        let clock = match timeline.clock {
            TimelineClock::Utc => 0,
            TimelineClock::Boot(boot) => u64::from(boot.0) + 1,
        };
        let column_word = mix(mix(u64::from(column.series.0)).wrapping_add(clock));
        let mut add = |stamp: i64, value: u64| {
            let at = mix(column_word.wrapping_add(stamp as u64));
            self.digest = self.digest.wrapping_add(mix(at.wrapping_add(value)));
            self.readings += 1;
        };
        // The kinds one by one, so that the loop over a column does not ask for each value what it is.
        let stamps = &timeline.stamps;
        let mut missing = column.missing.iter().peekable();
        let mut why = |at: usize| {
            let found = missing.next_if(|m| m.at as usize == at);
            found.map(|m| tagged(NO_VALUE, u64::from(m.why as u8)))
        };
        match &column.values {
            Values::Int(all) => each(stamps, all, |at, stamp, v| {
                add(stamp, why(at).unwrap_or_else(|| tagged(INT, *v as u64)));
            }),
            Values::Float(all) => each(stamps, all, |at, stamp, v| {
                add(stamp, why(at).unwrap_or_else(|| tagged(FLOAT, v.to_bits())));
            }),
            Values::Bool(all) => each(stamps, all, |at, stamp, v| {
                add(stamp, why(at).unwrap_or_else(|| tagged(BOOL, u64::from(*v))));
            }),
            Values::Text(all) => each(stamps, all, |at, stamp, v| {
                let word = (v.len() as u64) << 32 | u64::from(crc32fast::hash(v.as_bytes()));
                add(stamp, why(at).unwrap_or_else(|| tagged(TEXT, word)));
            }),
        }
    }
}

/// What a value is, beside its bits.
const INT: u64 = 1;
const FLOAT: u64 = 2;
const BOOL: u64 = 3;
const TEXT: u64 = 4;
const NO_VALUE: u64 = 5;

/// 2^64 divided by the golden ratio: the increment of SplitMix64 (Steele, Lea, Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn tagged(kind: u64, word: u64) -> u64 {
    kind.wrapping_mul(GOLDEN).wrapping_add(word)
}

/// One step of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GOLDEN);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn each<T>(stamps: &[i64], values: &[T], mut take: impl FnMut(usize, i64, &T)) {
    stamps.iter().zip(values).enumerate().for_each(|(at, (stamp, value))| take(at, *stamp, value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BootId, NoValue, SeqRange, SeriesId};
    use crate::segment::{Missing, Timeline, merge};

    fn column(series: u32, values: Values, missing: Vec<Missing>) -> Column {
        Column { series: SeriesId(series), timeline: 0, values, missing }
    }

    fn segment(seq: u64, clock: TimelineClock, columns: Vec<Column>) -> Segment {
        let stamps = (0..columns[0].values.len() as i64).map(|i| i - seq as i64).collect();
        let readings = Readings { timelines: vec![Timeline { clock, stamps }], columns };
        let range = SeqRange::new(seq, seq).expect("a range");
        Segment { range, content: Content::Data { readings, names: Vec::new() } }
    }

    /// Every kind of value, and a reason for none.
    fn sample(seq: u64) -> Segment {
        let missing = vec![Missing { at: 1, why: NoValue::Faulty }];
        let columns = vec![
            column(1, Values::Int(vec![5, 0, -7]), missing),
            column(2, Values::Float(vec![0.5, -0.0, f64::NAN]), vec![]),
            column(3, Values::Bool(vec![true, false, true]), vec![]),
            column(4, Values::Text(vec!["".into(), "a".into(), "open".into()]), vec![]),
        ];
        segment(seq, TimelineClock::Boot(BootId(1)), columns)
    }

    /// However readings are cut into segments, they add up to the same.
    #[test]
    fn the_sum_does_not_depend_on_how_readings_are_cut() {
        let parts: Vec<Segment> = (1..=5).map(sample).collect();
        let mut sum = Sum::default();
        parts.iter().for_each(|part| sum.add(Sum::of(part)));
        assert_eq!(Sum::of(&merge(&parts).expect("neighbours")), sum);
        assert_eq!(sum.readings, 60);
    }

    /// A reading that differs in anything adds another number: series, clock, stamp, kind, value, reason, or that there is
    /// one more.
    #[test]
    fn any_difference_shows() {
        let int = |series, clock, seq, values, missing| {
            Sum::of(&segment(seq, clock, vec![column(series, Values::Int(values), missing)]))
        };
        let (utc, boot) = (TimelineClock::Utc, |n| TimelineClock::Boot(BootId(n)));
        let none = |why| vec![Missing { at: 0, why }];
        let mut seen = vec![
            int(1, utc, 1, vec![1], vec![]),
            int(2, utc, 1, vec![1], vec![]),
            int(1, boot(0), 1, vec![1], vec![]),
            int(1, boot(1), 1, vec![1], vec![]),
            int(1, utc, 2, vec![1], vec![]),
            int(1, utc, 1, vec![2], vec![]),
            int(1, utc, 1, vec![1, 1], vec![]),
            int(1, utc, 1, vec![1], none(NoValue::Absent)),
            int(1, utc, 1, vec![1], none(NoValue::Failed)),
            Sum::of(&segment(1, utc, vec![column(1, Values::Bool(vec![true]), vec![])])),
            Sum::of(&segment(1, utc, vec![column(1, Values::Float(vec![f64::from_bits(1)]), vec![])])),
            Sum::of(&segment(1, utc, vec![column(1, Values::Text(vec!["1".into()]), vec![])])),
            Sum::default(),
        ];
        let before = seen.len();
        seen.sort_by_key(|sum| (sum.digest, sum.readings));
        seen.dedup();
        assert_eq!(seen.len(), before);
        // The value under a reason means nothing.
        assert_eq!(int(1, utc, 1, vec![9], none(NoValue::Late)), int(1, utc, 1, vec![4], none(NoValue::Late)));
    }

    /// The number is part of the wire format: another backend computes the same from the page.
    #[test]
    fn the_sum_is_fixed() {
        let sum = Sum::of(&sample(3));
        assert_eq!((sum.readings, format!("{:016x}", sum.digest)), (12, "7869c0625efaf821".into()));
        let at = |clock, stamp, column| {
            let readings = Readings { timelines: vec![Timeline { clock, stamps: vec![stamp] }], columns: vec![column] };
            let range = SeqRange::new(1, 1).expect("a range");
            Sum::of(&Segment { range, content: Content::Data { readings, names: Vec::new() } })
        };
        let page = include_str!("../../docs/wire.md");
        let mut sum = at(TimelineClock::Utc, 7, column(1, Values::Int(vec![5]), vec![]));
        assert!(page.contains(&format!("`{:016x}`", sum.digest)), "{:016x}", sum.digest);
        let boot = TimelineClock::Boot(BootId(3));
        sum.add(at(boot, -1, column(2, Values::Text(vec!["open".into()]), vec![])));
        assert!(page.contains(&format!("`{:016x}`", sum.digest)), "{:016x}", sum.digest);
    }
}
