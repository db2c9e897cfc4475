//! The replica beside the device's own account of a stretch of numbers.
//!
//! What enters: the account. What leaves: whether the replica says the same, and if not, what differs. Read from the file, each
//! body decoded: what is damaged here shows. What a device holds readings of must be here with the same readings; of what it
//! holds as lost, or no longer, anything will do that is known of it here.

use super::history::HeldRow;
use super::{Replica, StoreError};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::{self, Content, MAX_READINGS, Sum};
use crate::wire::Stretch;

/// Rows that are looked at in one comparison; a stretch has far fewer.
const MAX_ROWS: usize = 100_000;

/// Readings, and bytes of bodies, that one comparison decodes: as many as the 64 segments of a stretch may have at most. A few
/// bytes may say very many readings, and everybody waits meanwhile.
const MAX_READINGS_READ: u64 = 64 * MAX_READINGS as u64;
const MAX_BYTES_READ: u64 = 64 << 20;

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Every number is accounted for, and the readings are those of the device.
    Same,
    /// Numbers of which nothing is held.
    Lacks {
        /// The device holds them.
        at_device: RangeSet,
        /// It does not either.
        nowhere: RangeSet,
    },
    /// A segment here reaches beyond the stretch: it has to be compared together with its neighbour.
    Straddles,
    /// What differs, as a sentence without its end.
    Differs(String),
}

impl Replica {
    /// Compares what is held for `device` with its account. Right only between a commit and what is placed next.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn compare(&mut self, device: &str, stretch: &Stretch) -> Result<Comparison, StoreError> {
        debug_assert!(!self.in_transaction, "what is not committed is not held");
        self.settle()?;
        let line = self.line(device);
        let mut present = self.histories[line].held.clone();
        present.extend(self.histories[line].elsewhere.iter());
        let missing = present.gaps(stretch.range);
        if !missing.is_empty() {
            return Ok(lacks(&missing, stretch));
        }
        let (mut sum, mut left) = (Sum::default(), Left::of(stretch));
        for range in &stretch.readings {
            match self.add_up(line, *range, stretch.range, &mut left)? {
                Ok(part) => sum.add(part),
                Err(other) => return Ok(other),
            }
        }
        Ok(if sum == stretch.sum { Comparison::Same } else { other_sums(stretch, sum) })
    }

    /// What the readings of `range` add up to in the history `line`, or where its equal content stands.
    fn add_up(
        &self,
        line: usize,
        range: SeqRange,
        all: SeqRange,
        work: &mut Left,
    ) -> Result<Result<Sum, Comparison>, StoreError> {
        let (mut sum, mut left) = (Sum::default(), RangeSet::from_iter([range]));
        let others = (0..self.histories.len()).filter(|other| *other != line);
        for history in std::iter::once(line).chain(others) {
            let part = left.clone();
            for part in part.iter() {
                for row in self.histories[history].overlapping(&self.conn, part, MAX_ROWS)? {
                    if !left.covers(row.range) {
                        if history == line {
                            return Ok(Err(cut_otherwise(row.range, all)));
                        }
                        continue;
                    }
                    if !work.take(&row) {
                        return self.too_many(history, all, work.of_device).map(Err);
                    }
                    let body = self.histories[history].body(&self.conn, row.range.first)?;
                    match read(row.range, &body) {
                        Ok(part) => sum.add(part),
                        Err(why) => return Ok(Err(Comparison::Differs(why))),
                    }
                    left.remove(row.range);
                }
            }
            if left.is_empty() {
                return Ok(Ok(sum));
            }
        }
        Ok(Err(Comparison::Differs(format!("{} can't be put together from what is held", named(&left)))))
    }
}

/// What may still be decoded in one comparison: no more readings than the device says it has.
struct Left {
    readings: u64,
    bytes: u64,
    of_device: u64,
}

impl Left {
    fn of(stretch: &Stretch) -> Self {
        let of_device = stretch.sum.readings;
        Self { readings: of_device.min(MAX_READINGS_READ), bytes: MAX_BYTES_READ, of_device }
    }

    /// Whether this may be decoded too.
    fn take(&mut self, row: &HeldRow) -> bool {
        let left = self.readings.checked_sub(row.readings).zip(self.bytes.checked_sub(row.bytes));
        if let Some(left) = left {
            (self.readings, self.bytes) = left;
        }
        left.is_some()
    }
}

impl Replica {
    /// Why no more is decoded.
    fn too_many(&self, history: usize, all: SeqRange, of_device: u64) -> Result<Comparison, StoreError> {
        let rows = self.histories[history].overlapping(&self.conn, all, MAX_ROWS)?;
        let here: u64 = rows.iter().map(|row| row.readings).sum();
        Ok(Comparison::Differs(match here > of_device {
            true => format!("{all} has {here} readings here, and {of_device} at the device"),
            false => format!("{all} is more than can be compared at once"),
        }))
    }
}

fn lacks(missing: &RangeSet, stretch: &Stretch) -> Comparison {
    let of_device: RangeSet = stretch.readings.iter().chain(&stretch.losses).copied().collect();
    let at_device = missing.common(&of_device);
    let mut nowhere = missing.clone();
    at_device.iter().for_each(|range| nowhere.remove(range));
    Comparison::Lacks { at_device, nowhere }
}

/// A held segment that is only partly among the device's readings.
fn cut_otherwise(held: SeqRange, all: SeqRange) -> Comparison {
    if all.covers(&held) {
        return Comparison::Differs(format!("{held} is one segment here, and partly lost at the device"));
    }
    Comparison::Straddles
}

fn read(range: SeqRange, body: &[u8]) -> Result<Sum, String> {
    match segment::decode(body) {
        Ok(held) if matches!(held.content, Content::Loss(_)) => {
            Err(format!("{range} is lost here, and has readings at the device"))
        }
        Ok(held) => Ok(Sum::of(&held)),
        Err(why) => Err(format!("{range} can't be read here ({why})")),
    }
}

fn other_sums(stretch: &Stretch, ours: Sum) -> Comparison {
    let (numbers, theirs) = (stretch.range, stretch.sum.readings);
    Comparison::Differs(if ours.readings == theirs {
        format!("{numbers} has {theirs} readings here and at the device, but not the same ones")
    } else {
        format!("{numbers} has {} readings here, and {theirs} at the device", ours.readings)
    })
}

/// A few of the ranges, and how many more there are.
pub fn named(ranges: &RangeSet) -> String {
    const FEW: usize = 4;
    let mut words: Vec<String> = ranges.iter().take(FEW).map(|range| range.to_string()).collect();
    if ranges.len() > FEW {
        words.push(format!("{} more ranges", ranges.len() - FEW));
    }
    words.join(", ")
}
