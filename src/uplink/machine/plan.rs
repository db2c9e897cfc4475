//! What is known and intended of one store: what the fleet holds of it, and the two lanes of what it does not.
//!
//! What enters: looks at the store, acks. What leaves: the lane to send from, and whether the fleet speaks of another file.

use super::event::{Doubt, Line, Purpose};
use crate::config::BacklogOrder;
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::uplink::lane::Lane;
use crate::wire::StoreAck;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) line: Line,
    /// What the fleet last said that it holds; `None` until it has said anything.
    pub(super) acked: Option<RangeSet>,
    pub(super) live: Lane,
    pub(super) backlog: Lane,
    /// A recheck has been asked for and is not set yet: nothing of this store is sent meanwhile.
    pub(super) doubted: bool,
    order: BacklogOrder,
}

impl Plan {
    /// Everything up to `live_from` is backlog.
    pub(super) fn new(line: Line, live_from: SegmentSeq, order: BacklogOrder) -> Self {
        let (live, backlog) = Self::lanes(live_from, order);
        Self { line, acked: None, live, backlog, doubted: false, order }
    }

    fn lanes(live_from: SegmentSeq, order: BacklogOrder) -> (Lane, Lane) {
        let backlog = match order {
            BacklogOrder::Oldest => Lane::new(SegmentSeq(0), Some(live_from)),
            BacklogOrder::Newest => Lane::down(live_from),
        };
        (Lane::new(live_from, None), backlog)
    }

    /// Sending begins anew; what is pending now is backlog.
    pub(super) fn restart(&mut self) {
        (self.live, self.backlog) = Self::lanes(self.line.high, self.order);
    }

    pub(super) fn lane(&mut self, purpose: Purpose) -> &mut Lane {
        if purpose == Purpose::Live { &mut self.live } else { &mut self.backlog }
    }

    /// Whether `range` is the backlog's and not that of new readings.
    pub(super) fn backlog_holds(&self, range: &SeqRange) -> bool {
        self.backlog.ends_at_or_above(range.first)
    }
}

/// Whether the fleet's account of a store is of another file than ours. An account of a store that is being rechecked says
/// nothing new.
pub(super) fn doubt(line: &Line, stated: &StoreAck) -> Option<Doubt> {
    if line.recheck.is_some() && !line.current {
        return None;
    }
    if line.current && stated.high > line.high {
        return Some(Doubt::RolledBack { ours: line.high, fleet: stated.high });
    }
    stated.conflicts.first().map(|range| Doubt::Conflict { range: *range })
}
