//! Small questions about lists of sequence ranges. Pure.

use crate::reading::SeqRange;
use crate::wire::StoreAck;

/// Everything that an ack says is held, ascending, disjoint, neighbours joined.
pub(super) fn held(ack: &StoreAck) -> Vec<SeqRange> {
    let cumulative = SeqRange::new(1, ack.cumulative.0);
    normal(cumulative.into_iter().chain(ack.ranges.iter().copied()).collect())
}

/// Ascending, disjoint, neighbours joined.
pub(super) fn normal(mut ranges: Vec<SeqRange>) -> Vec<SeqRange> {
    ranges.sort_unstable();
    let mut joined: Vec<SeqRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first.0 <= last.last.0.saturating_add(1) => last.last = last.last.max(range.last),
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether one of `normal` ranges covers all of `range`.
pub(super) fn covered(normal: &[SeqRange], range: &SeqRange) -> bool {
    normal.iter().any(|held| held.covers(range))
}

/// At most `max` ranges that cover all of `normal`: the narrowest gaps are closed first, so that it names too much rather
/// than too little, and as little too much as it can.
pub(super) fn at_most(max: usize, normal: Vec<SeqRange>) -> Vec<SeqRange> {
    if normal.len() <= max {
        return normal;
    }
    let mut gaps: Vec<(u64, usize)> =
        normal.windows(2).enumerate().map(|(at, pair)| (pair[1].first.0 - pair[0].last.0, at)).collect();
    gaps.sort_unstable();
    let mut close = vec![false; normal.len()];
    gaps.iter().take(normal.len() - max).for_each(|(_, at)| close[*at] = true);
    let mut kept: Vec<SeqRange> = Vec::with_capacity(max);
    let mut closing = false;
    for (range, close_after) in normal.into_iter().zip(close) {
        match kept.last_mut() {
            Some(last) if closing => last.last = range.last,
            _ => kept.push(range),
        }
        closing = close_after;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::SegmentSeq;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).expect("a range")
    }

    /// The two forms of an ack become one list.
    #[test]
    fn an_ack_is_one_list_of_ranges() {
        let store = crate::wire::StoreUuid::nil();
        let ack = |cumulative, ranges| StoreAck {
            store,
            cumulative: SegmentSeq(cumulative),
            ranges,
            high: SegmentSeq(99),
            conflicts: vec![],
            verified: None,
        };
        assert_eq!(held(&ack(0, vec![])), []);
        assert_eq!(held(&ack(4, vec![range(5, 6), range(8, 9)])), [range(1, 6), range(8, 9)]);
        assert!(covered(&held(&ack(4, vec![range(5, 6)])), &range(3, 6)));
        assert!(!covered(&held(&ack(4, vec![range(6, 7)])), &range(4, 6)));
    }

    /// Too long a list loses its narrowest gaps and nothing that it named.
    #[test]
    fn too_long_a_list_loses_its_narrowest_gaps() {
        let ranges = vec![range(1, 1), range(3, 3), range(10, 10), range(12, 12), range(90, 95)];
        assert_eq!(at_most(5, ranges.clone()), ranges);
        assert_eq!(at_most(3, ranges.clone()), [range(1, 3), range(10, 12), range(90, 95)]);
        assert_eq!(at_most(1, ranges), [range(1, 95)]);
    }
}
