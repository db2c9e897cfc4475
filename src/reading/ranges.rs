//! Sets of sequence numbers, as disjoint ranges: what is held, pending, lost or asked for.
//!
//! What enters: ranges in any order, overlapping or not. What leaves: the same numbers as the fewest ranges, ascending.
//! Pure; its size is the number of ranges, never the numbers in them. It does not know which store it speaks of.

use super::{SegmentSeq, SeqRange};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A set of sequence numbers. Ranges in it neither overlap nor touch: `1..=3` and `4..=6` are kept as `1..=6`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    /// First number of each range to its last.
    by_first: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every number of `range`. Ranges that it overlaps or touches become one with it.
    pub fn insert(&mut self, range: SeqRange) {
        let (mut first, mut last) = (range.first.0, range.last.0);
        while let Some((f, l)) = self.touching(first, last) {
            self.by_first.remove(&f);
            first = first.min(f);
            last = last.max(l);
        }
        self.by_first.insert(first, last);
    }

    /// Takes every number of `range` out. What lies on either side stays.
    pub fn remove(&mut self, range: SeqRange) {
        let (first, last) = (range.first.0, range.last.0);
        while let Some((f, l)) = self.meeting(first, last) {
            self.by_first.remove(&f);
            if f < first {
                self.by_first.insert(f, first - 1);
            }
            if l > last {
                self.by_first.insert(last + 1, l);
            }
        }
    }

    /// Whether `seq` is in the set.
    pub fn contains(&self, seq: SegmentSeq) -> bool {
        self.at_or_before(seq.0).is_some_and(|(_, last)| seq.0 <= last)
    }

    /// Whether every number of `range` is in the set.
    pub fn covers(&self, range: SeqRange) -> bool {
        self.at_or_before(range.first.0).is_some_and(|(_, last)| range.last.0 <= last)
    }

    /// Whether every number of `other` is in the set.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.iter().all(|range| self.covers(range))
    }

    /// Whether any number of `range` is in the set.
    pub fn meets(&self, range: SeqRange) -> bool {
        self.meeting(range.first.0, range.last.0).is_some()
    }

    /// The ranges, ascending, with at least one number between each and the next.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = SeqRange> + '_ {
        self.by_first.iter().map(|(first, last)| SeqRange { first: SegmentSeq(*first), last: SegmentSeq(*last) })
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.by_first.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }

    /// How many numbers are in the set.
    pub fn numbers(&self) -> u64 {
        self.by_first.iter().fold(0u64, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// The highest number, or 0 where the set is empty.
    pub fn high(&self) -> SegmentSeq {
        SegmentSeq(self.by_first.last_key_value().map_or(0, |(_, last)| *last))
    }

    /// The highest number up to which all are in the set, beginning with 1; 0 where 1 is missing.
    pub fn cumulative(&self) -> SegmentSeq {
        SegmentSeq(self.by_first.get(&1).copied().unwrap_or(0))
    }

    /// The ranges above [`RangeSet::cumulative`]; at most `limit`, chosen as by [`both_ends`].
    pub fn rest(&self, limit: usize) -> Vec<SeqRange> {
        both_ends(self.iter().filter(|range| range.first.0 != 1).collect(), limit)
    }

    /// The numbers of `range` that are not in the set.
    pub fn gaps(&self, range: SeqRange) -> Self {
        let mut gaps = Self::from_iter([range]);
        for held in self.overlapping(range) {
            gaps.remove(held);
        }
        gaps
    }

    /// The ranges that have a number in common with `range`, whole, ascending.
    pub fn overlapping(&self, range: SeqRange) -> impl Iterator<Item = SeqRange> + '_ {
        let from = self.at_or_before(range.first.0).map_or(range.first.0, |(first, _)| first);
        self.by_first
            .range(from..=range.last.0)
            .filter(move |(_, last)| **last >= range.first.0)
            .map(|(first, last)| SeqRange { first: SegmentSeq(*first), last: SegmentSeq(*last) })
    }

    /// What is in one of the two only.
    pub fn differing(&self, other: &Self) -> Self {
        let mut parts = Self::new();
        self.iter().for_each(|range| parts.extend(other.gaps(range).iter()));
        other.iter().for_each(|range| parts.extend(self.gaps(range).iter()));
        parts
    }

    /// What is in both.
    pub fn common(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for range in self.iter() {
            for held in other.overlapping(range) {
                both.by_first.insert(range.first.0.max(held.first.0), range.last.0.min(held.last.0));
            }
        }
        both
    }

    /// At most `limit` ranges (at least one) that cover the set: the narrowest gaps are given up first, so the answer may
    /// name too much, never too little.
    pub fn joined(&self, limit: usize) -> Vec<SeqRange> {
        let ranges: Vec<SeqRange> = self.iter().collect();
        let surplus = ranges.len().saturating_sub(limit.max(1));
        let mut by_width: Vec<usize> = (1..ranges.len()).collect();
        by_width.sort_by_key(|i| ranges[*i].first.0 - ranges[i - 1].last.0);
        by_width.truncate(surplus);
        let mut joined = Self::from_iter(ranges.iter().copied());
        for i in by_width {
            joined.insert(SeqRange { first: ranges[i - 1].last, last: ranges[i].first });
        }
        joined.iter().collect()
    }

    fn at_or_before(&self, seq: u64) -> Option<(u64, u64)> {
        self.by_first.range(..=seq).next_back().map(|(first, last)| (*first, *last))
    }

    /// A range that shares a number with `first..=last`.
    fn meeting(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        self.at_or_before(last).filter(|(_, l)| *l >= first)
    }

    /// A range that shares a number with `first..=last` or lies right beside it.
    fn touching(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let beside = last.saturating_add(1);
        let mut near = self.by_first.range((Bound::Unbounded, Bound::Included(beside)));
        near.next_back().map(|(f, l)| (*f, *l)).filter(|(_, l)| l.saturating_add(1) >= first)
    }
}

impl FromIterator<SeqRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = SeqRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

/// At most `limit` of `ranges`, which ascend: the lowest three quarters, which gaps that close join one by one, and the
/// highest quarter, so that what is newest is named however many gaps lie below it.
pub fn both_ends(mut ranges: Vec<SeqRange>, limit: usize) -> Vec<SeqRange> {
    if ranges.len() > limit {
        let high = limit / 4;
        ranges.drain(limit - high..ranges.len() - high);
    }
    ranges
}

impl Extend<SeqRange> for RangeSet {
    fn extend<I: IntoIterator<Item = SeqRange>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).expect("a range")
    }

    /// Touching ranges become one, and the set says what an acknowledgement says: all up to here, and these above.
    #[test]
    fn a_set_reads_as_cumulative_and_rest() {
        let mut set: RangeSet = [range(1, 3), range(8, 9), range(4, 5), range(20, 30)].into_iter().collect();
        assert_eq!(set.cumulative(), SegmentSeq(5));
        assert_eq!(set.rest(8), vec![range(8, 9), range(20, 30)]);
        assert_eq!(set.rest(1), vec![range(8, 9)]);
        assert_eq!(set.joined(2), vec![range(1, 9), range(20, 30)]);
        set.remove(range(1, 1));
        assert_eq!(set.cumulative(), SegmentSeq(0));
        assert_eq!(set.high(), SegmentSeq(30));
    }

    /// Too long a list loses its narrowest gaps and nothing that it named.
    #[test]
    fn too_long_a_list_loses_its_narrowest_gaps() {
        let ranges = [range(1, 1), range(3, 3), range(10, 10), range(12, 12), range(90, 95)];
        let set = RangeSet::from_iter(ranges);
        assert_eq!(set.joined(5), ranges);
        assert_eq!(set.joined(3), [range(1, 3), range(10, 12), range(90, 95)]);
        assert_eq!(set.joined(1), [range(1, 95)]);
    }

    /// The ends of u64 do not overflow.
    #[test]
    fn the_highest_number_is_a_number_like_any_other() {
        let mut set: RangeSet = [range(u64::MAX, u64::MAX), range(1, u64::MAX)].into_iter().collect();
        set.insert(range(u64::MAX - 1, u64::MAX));
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![range(1, u64::MAX)]);
        set.remove(range(2, u64::MAX));
        assert_eq!(set.numbers(), 1);
    }

    proptest! {
        /// Whatever is put in and taken out, the set answers as a bitmap does, in the fewest ranges.
        #[test]
        fn a_set_agrees_with_a_bitmap(steps in prop::collection::vec((any::<bool>(), 1u64..64, 0u64..16), 0..64),
                                      ask in (1u64..70, 0u64..16), limit in 1usize..6) {
            let mut set = RangeSet::new();
            let mut other = RangeSet::new();
            let mut bits = [false; 96];
            let mut other_bits = [false; 96];
            for (i, (add, first, width)) in steps.iter().enumerate() {
                let r = range(*first, first + width);
                if i % 3 == 0 {
                    other.insert(r);
                    other_bits[*first as usize..=(first + width) as usize].fill(true);
                }
                if *add { set.insert(r) } else { set.remove(r) }
                bits[*first as usize..=(first + width) as usize].fill(*add);
            }
            for (i, bit) in bits.iter().enumerate().skip(1) {
                prop_assert_eq!(set.contains(SegmentSeq(i as u64)), *bit);
                prop_assert_eq!(set.common(&other).contains(SegmentSeq(i as u64)), *bit && other_bits[i]);
                prop_assert_eq!(set.differing(&other).contains(SegmentSeq(i as u64)), *bit != other_bits[i]);
            }
            prop_assert_eq!(set.covers_all(&other), other_bits.iter().zip(bits).all(|(theirs, ours)| ours || !theirs));
            let edges = (1..bits.len()).filter(|i| bits[*i] && !bits[i - 1]).count();
            prop_assert_eq!(set.len(), edges);
            prop_assert_eq!(set.numbers(), bits.iter().filter(|b| **b).count() as u64);
            prop_assert_eq!(set.cumulative().0 as usize, bits[1..].iter().take_while(|b| **b).count());
            let r = range(ask.0, ask.0 + ask.1);
            let asked = &bits[ask.0 as usize..=(ask.0 + ask.1) as usize];
            prop_assert_eq!(set.covers(r), asked.iter().all(|b| *b));
            prop_assert_eq!(set.meets(r), asked.iter().any(|b| *b));
            let gaps = set.gaps(r);
            for (i, bit) in bits.iter().enumerate().skip(1) {
                let inside = (r.first.0..=r.last.0).contains(&(i as u64));
                prop_assert_eq!(gaps.contains(SegmentSeq(i as u64)), inside && !bit);
            }
            let joined = set.joined(limit);
            prop_assert!(joined.len() <= limit);
            prop_assert!(set.iter().all(|held| joined.iter().any(|j| j.covers(&held))));
        }
    }
}
