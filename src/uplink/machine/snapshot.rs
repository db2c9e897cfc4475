//! A snapshot: everything that the file holds, sent again when all else rests.
//!
//! What enters: the fleet's wish or the interval. What leaves: segments of one store after another. One at a time; a
//! connection that breaks takes it back to the beginning of the store it was in, a bounded number of times.

use super::event::{Action, Purpose};
use super::{Machine, SNAPSHOT_RESTARTS};
use crate::clock::BootNanos;
use crate::reading::SegmentSeq;
use crate::uplink::lane::{Lane, PAGE, Want};
use crate::wire::StoreUuid;
use std::collections::VecDeque;

/// How far it has come.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Those still to do, the one under way first.
    pub(super) stores: VecDeque<StoreUuid>,
    pub(super) lane: Lane,
    pub(super) restarts: u32,
}

impl Machine {
    pub(super) fn snapshot(&mut self, now: BootNanos) -> Option<Action> {
        if self.snapshot.is_none() && self.next_snapshot.is_some_and(|when| when <= now) {
            self.begin_snapshot();
            self.next_snapshot = self.snapshot_every_ns.map(|every| BootNanos(now.0.saturating_add(every)));
        }
        loop {
            let snapshot = self.snapshot.as_mut()?;
            let Some(store) = snapshot.stores.front().copied() else {
                self.snapshot = None;
                return None;
            };
            match snapshot.lane.want() {
                Want::Page(after) => {
                    return Some(Action::ReadHeads { store, purpose: Purpose::Snapshot, after, limit: PAGE });
                }
                Want::Head(head) => return Some(self.send(store, head.range.first, Purpose::Snapshot)),
                Want::Nothing => {
                    snapshot.stores.pop_front();
                    let high =
                        snapshot.stores.front().and_then(|next| self.plans.iter().find(|p| p.line.store == *next));
                    snapshot.lane = Lane::new(SegmentSeq(0), high.map(|plan| plan.line.high));
                }
            }
        }
    }

    pub(super) fn begin_snapshot(&mut self) {
        if self.snapshot.is_some() || self.plans.is_empty() {
            return;
        }
        let stores = self.plans.iter().map(|plan| plan.line.store).collect();
        // What is committed from now on is sent anyway.
        let lane = Lane::new(SegmentSeq(0), Some(self.plans[0].line.high));
        self.snapshot = Some(Snapshot { stores, lane, restarts: 0 });
    }

    /// The connection is gone, and with it what was on the way.
    pub(super) fn restart_snapshot(&mut self) {
        if let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.restarts < SNAPSHOT_RESTARTS) {
            snapshot.restarts += 1;
            let high = snapshot.stores.front().and_then(|store| self.plans.iter().find(|p| p.line.store == *store));
            snapshot.lane = Lane::new(SegmentSeq(0), high.map(|plan| plan.line.high));
        }
    }

    pub(super) fn snapshot_through(&mut self, store: StoreUuid, through: SegmentSeq) {
        if let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.stores.front() == Some(&store)) {
            snapshot.lane.pass(through);
        }
    }
}
