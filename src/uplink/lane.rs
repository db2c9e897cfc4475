//! A lane: the segments of one store that wait to be sent, read from the store a page at a time.
//!
//! What enters: pages of heads, and what was sent. What leaves: the next head, or the wish for a page. Pure, and bounded by
//! one page whatever the backlog.

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
    /// Read the page after this sequence number.
    Page(SegmentSeq),
    /// Nothing.
    Nothing,
}

/// Segments above `after` and, where it has an end, not beginning above it.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    after: SegmentSeq,
    until: Option<SegmentSeq>,
    heads: VecDeque<Head>,
    exhausted: bool,
}

impl Lane {
    pub(super) fn new(after: SegmentSeq, until: Option<SegmentSeq>) -> Self {
        Self { after, until, heads: VecDeque::new(), exhausted: until.is_some_and(|end| end <= after) }
    }

    pub(super) fn want(&self) -> Want {
        match self.heads.front() {
            Some(head) => Want::Head(*head),
            None if self.exhausted => Want::Nothing,
            None => Want::Page(self.after),
        }
    }

    /// Takes in the page after `after`; a page shorter than [`PAGE`] was the last.
    pub(super) fn page(&mut self, after: SegmentSeq, heads: &[Head]) {
        if after != self.after || !self.heads.is_empty() {
            // The lane moved while the page was read.
            return;
        }
        let within = |head: &&Head| self.until.is_none_or(|end| head.range.first <= end);
        self.heads = heads.iter().filter(within).copied().collect();
        self.exhausted = heads.len() < PAGE || self.heads.len() < heads.len();
        self.after = self.heads.back().map_or(self.after, |last| last.range.last);
    }

    /// Leaves out everything up to and including `through`: it was sent, or is not there.
    pub(super) fn pass(&mut self, through: SegmentSeq) {
        while self.heads.front().is_some_and(|head| head.range.first <= through) {
            self.heads.pop_front();
        }
        self.after = self.after.max(through);
        if self.heads.is_empty() && self.until.is_some_and(|end| end <= self.after) {
            self.exhausted = true;
        }
    }

    /// The segment `range` went out; where the lane began anew meanwhile it stands before things not yet sent, and stays.
    pub(super) fn sent(&mut self, range: &SeqRange) {
        if self.heads.front().is_some_and(|head| head.range.overlaps(range)) {
            self.pass(range.last);
        }
    }

    /// Whether `seq` is this lane's and not that of one which begins where this ends.
    pub(super) fn ends_at_or_above(&self, seq: SegmentSeq) -> bool {
        self.until.is_none_or(|end| seq <= end)
    }

    /// There may be more at the end.
    pub(super) fn grew(&mut self) {
        self.exhausted = self.until.is_some_and(|end| end <= self.after);
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
}
