//! Sets of sequence numbers as ascending, disjoint ranges with a gap between any two. Pure.

use crate::reading::SeqRange;

/// A set of sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ranges(Vec<SeqRange>);

impl Ranges {
    /// The union of `ranges`, in whatever order they come.
    pub(crate) fn of(mut ranges: Vec<SeqRange>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<SeqRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.first.0 <= last.last.0.saturating_add(1) => last.last = last.last.max(range.last),
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// The ranges, ascending.
    pub(crate) fn list(&self) -> &[SeqRange] {
        &self.0
    }

    /// Whether every number of `range` is in the set.
    pub(crate) fn covers(&self, range: &SeqRange) -> bool {
        let at = self.0.partition_point(|r| r.last < range.first);
        self.0.get(at).is_some_and(|r| r.covers(range))
    }

    /// The numbers from `first` to `last` that are not in the set, ascending.
    pub(crate) fn gaps(&self, first: u64, last: u64) -> Vec<SeqRange> {
        let mut from = first.max(1);
        let mut gaps = Vec::new();
        for range in &self.0 {
            if from > last || range.first.0 > last {
                break;
            }
            gaps.extend(range.first.0.checked_sub(1).and_then(|end| SeqRange::new(from, end)));
            from = from.max(range.last.0.saturating_add(1));
        }
        gaps.extend(SeqRange::new(from, last));
        gaps
    }

    /// What is in one of the two sets only.
    pub(crate) fn differing(&self, other: &Self) -> Self {
        let lacks = |held: &Self, all: &Self| -> Vec<SeqRange> {
            all.0.iter().flat_map(|r| held.gaps(r.first.0, r.last.0)).collect()
        };
        let mut parts = lacks(self, other);
        parts.extend(lacks(other, self));
        Self::of(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(u64, u64)]) -> Ranges {
        Ranges::of(pairs.iter().map(|&(a, b)| SeqRange::new(a, b).unwrap()).collect())
    }

    /// However the ranges come, the set is the same, and says of each number whether it is in.
    #[test]
    fn sets_of_ranges_behave_as_sets_of_numbers() {
        let numbers = |r: &Ranges| -> Vec<u64> { r.list().iter().flat_map(|r| r.first.0..=r.last.0).collect() };
        let a = set(&[(7, 9), (1, 2), (3, 3), (8, 12), (20, 20)]);
        assert_eq!(a, set(&[(1, 3), (7, 12), (20, 20)]));
        assert!(a.covers(&SeqRange::new(8, 12).unwrap()) && !a.covers(&SeqRange::new(3, 7).unwrap()));
        assert_eq!(a.gaps(2, 22), set(&[(4, 6), (13, 19), (21, 22)]).list());
        assert_eq!(a.gaps(8, 9), []);
        let b = set(&[(2, 8), (30, 31)]);
        let expected: Vec<u64> = (1..=40).filter(|n| numbers(&a).contains(n) != numbers(&b).contains(n)).collect();
        assert_eq!(numbers(&a.differing(&b)), expected);
    }
}
