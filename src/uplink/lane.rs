//! A lane: the segments of one store that wait to be sent, read from the store a page at a time.
//!
//! What enters: pages of heads, and what was sent. What leaves: the next head, or the wish for a page. Pure, and bounded by
//! one page whatever the backlog. A lane goes up from the oldest, or down from the newest.

use crate::reading::{SegmentSeq, SeqRange};
use std::collections::VecDeque;

/// How many heads are read at a time.
pub(super) const PAGE: usize = 32;

/// What is known of a segment without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its identity.
    pub range: SeqRange,
    /// Length of its body.
    pub bytes: u64,
}

/// What a lane wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Send this.
    Head(Head),
    /// Read the page after this sequence number, in the lane's direction.
    Page(SegmentSeq),
    /// Nothing.
    Nothing,
}

/// Segments above `at` and, where it has an end, not beginning above it; or, downwards, those that begin before `at`.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    at: SegmentSeq,
    until: Option<SegmentSeq>,
    downwards: bool,
    heads: VecDeque<Head>,
    exhausted: bool,
}

impl Lane {
    pub(super) fn new(after: SegmentSeq, until: Option<SegmentSeq>) -> Self {
        let exhausted = until.is_some_and(|end| end <= after);
        Self { at: after, until, downwards: false, heads: VecDeque::new(), exhausted }
    }

    /// From `from` down to the first.
    pub(super) fn down(from: SegmentSeq) -> Self {
        let at = SegmentSeq(from.0.saturating_add(1));
        Self { at, until: Some(from), downwards: true, heads: VecDeque::new(), exhausted: from.0 == 0 }
    }

    /// Whether it goes from the newest to the oldest.
    pub(super) fn is_downwards(&self) -> bool {
        self.downwards
    }

    pub(super) fn want(&self) -> Want {
        match self.heads.front() {
            Some(head) => Want::Head(*head),
            None if self.exhausted => Want::Nothing,
            None => Want::Page(self.at),
        }
    }

    /// Takes in the page after `at`; a page shorter than [`PAGE`] was the last.
    pub(super) fn page(&mut self, at: SegmentSeq, heads: &[Head]) {
        if at != self.at || !self.heads.is_empty() {
            // The lane moved while the page was read.
            return;
        }
        let within = |head: &&Head| self.until.is_none_or(|end| head.range.first <= end);
        self.heads = heads.iter().filter(within).copied().collect();
        self.exhausted = heads.len() < PAGE || self.heads.len() < heads.len();
        let end = self.heads.back().map(|last| if self.downwards { last.range.first } else { last.range.last });
        self.at = end.unwrap_or(self.at);
    }

    /// Leaves out everything up to and including `through`, or down to it: it was sent, or is not there.
    pub(super) fn pass(&mut self, through: SegmentSeq) {
        if self.downwards {
            self.pass_down(through);
            return;
        }
        while self.heads.front().is_some_and(|head| head.range.first <= through) {
            self.heads.pop_front();
        }
        self.at = self.at.max(through);
        if self.heads.is_empty() && self.until.is_some_and(|end| end <= self.at) {
            self.exhausted = true;
        }
    }

    fn pass_down(&mut self, through: SegmentSeq) {
        while self.heads.front().is_some_and(|head| head.range.last >= through) {
            self.heads.pop_front();
        }
        self.at = self.at.min(through);
        self.exhausted |= self.heads.is_empty() && self.at.0 <= 1;
    }

    /// The segment `range` went out; where the lane began anew meanwhile it stands before things not yet sent, and stays.
    pub(super) fn sent(&mut self, range: &SeqRange) {
        if self.heads.front().is_some_and(|head| head.range.overlaps(range)) {
            self.pass(if self.downwards { range.first } else { range.last });
        }
    }

    /// A head that is the first of the lane is not to be sent: it is in flight.
    pub(super) fn skip(&mut self, range: &SeqRange) {
        self.pass(if self.downwards { range.first } else { range.last });
    }

    /// Whether `seq` is this lane's and not that of one which begins where this ends.
    pub(super) fn ends_at_or_above(&self, seq: SegmentSeq) -> bool {
        self.until.is_none_or(|end| seq <= end)
    }

    /// There may be more at the end.
    pub(super) fn grew(&mut self) {
        if !self.downwards {
            self.exhausted = self.until.is_some_and(|end| end <= self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(first: u64, last: u64) -> Head {
        Head { range: SeqRange::new(first, last).expect("a range"), bytes: 10 }
    }

    /// A lane asks for pages until a short one comes, then rests until it grows.
    #[test]
    fn a_lane_reads_to_the_end_and_rests() {
        let mut lane = Lane::new(SegmentSeq(0), None);
        assert_eq!(lane.want(), Want::Page(SegmentSeq(0)));
        let full: Vec<Head> = (1..=PAGE as u64).map(|k| head(k, k)).collect();
        lane.page(SegmentSeq(0), &full);
        for head in &full {
            assert_eq!(lane.want(), Want::Head(*head));
            lane.pass(head.range.last);
        }
        assert_eq!(lane.want(), Want::Page(SegmentSeq(PAGE as u64)));
        lane.page(SegmentSeq(PAGE as u64), &[]);
        assert_eq!(lane.want(), Want::Nothing);
        lane.grew();
        assert_eq!(lane.want(), Want::Page(SegmentSeq(PAGE as u64)));
    }

    /// A segment that compaction made of several heads passes them all.
    #[test]
    fn a_compacted_segment_passes_what_it_covers() {
        let mut lane = Lane::new(SegmentSeq(0), None);
        lane.page(SegmentSeq(0), &[head(1, 1), head(2, 2), head(3, 3)]);
        lane.pass(SegmentSeq(2));
        assert_eq!(lane.want(), Want::Head(head(3, 3)));
        lane.pass(SegmentSeq(9));
        lane.grew();
        assert_eq!(lane.want(), Want::Page(SegmentSeq(9)));
    }

    /// A lane with an end leaves what is above it to another.
    #[test]
    fn a_lane_with_an_end_stops_there() {
        let mut lane = Lane::new(SegmentSeq(0), Some(SegmentSeq(2)));
        lane.page(SegmentSeq(0), &[head(1, 1), head(2, 2), head(3, 3)]);
        lane.pass(SegmentSeq(1));
        assert_eq!(lane.want(), Want::Head(head(2, 2)));
        lane.pass(SegmentSeq(2));
        lane.grew();
        assert_eq!(lane.want(), Want::Nothing);
        assert_eq!(Lane::new(SegmentSeq(5), Some(SegmentSeq(5))).want(), Want::Nothing);
    }

    /// A lane that goes down begins with the newest, reads to the first, and is done: what is new is another lane's.
    #[test]
    fn a_lane_goes_down_to_the_first_segment() {
        let mut lane = Lane::down(SegmentSeq(40));
        assert_eq!(lane.want(), Want::Page(SegmentSeq(41)));
        let page: Vec<Head> = (9..=40).rev().map(|k| head(k, k)).collect();
        assert_eq!(page.len(), PAGE);
        lane.page(SegmentSeq(41), &page);
        for head in &page {
            assert_eq!(lane.want(), Want::Head(*head));
            lane.sent(&head.range);
        }
        assert_eq!(lane.want(), Want::Page(SegmentSeq(9)));
        // The rest has been compacted.
        lane.page(SegmentSeq(9), &[head(5, 8), head(1, 4)]);
        lane.sent(&SeqRange::new(3, 8).expect("a range"));
        assert_eq!(lane.want(), Want::Nothing, "what covers the last ones passes them");
        lane.grew();
        assert_eq!(lane.want(), Want::Nothing);
        assert_eq!(Lane::down(SegmentSeq(0)).want(), Want::Nothing);
    }
}
