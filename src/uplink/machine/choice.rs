//! What there is to do: the policy.
//!
//! What enters: the machine as events have left it, and the time. What leaves: the next action. Nothing here learns
//! anything; it only chooses.

use super::event::{Action, Purpose};
use super::plan::Plan;
use super::{BACKLOG_SHARE, FIGURES_NS, Machine, STATE_NS};
use crate::clock::BootNanos;
use crate::reading::SegmentSeq;
use crate::uplink::flights::WINDOW;
use crate::uplink::lane::{PAGE, Want};
use crate::wire::StoreUuid;

impl Machine {
    /// State and catalogue: what must be known before segments are understood.
    pub(super) fn announcement(&mut self, now: BootNanos) -> Option<Action> {
        if self.state_when().is_some_and(|when| when <= now) {
            return Some(Action::PublishState);
        }
        if self.catalog.when().is_some_and(|when| when <= now) {
            return Some(Action::PublishCatalog { all: self.catalog.whole(now) });
        }
        None
    }

    pub(super) fn state_when(&self) -> Option<BootNanos> {
        // Figures are part of every state, so their clock runs from the last one of either kind.
        self.state.when(STATE_NS).into_iter().chain(self.figures.when(FIGURES_NS)).min()
    }

    /// The policy: what was asked for again, then new readings within their share of the window, then what the fleet
    /// wants, then the backlog of the current store, then older stores, and a snapshot when all else rests.
    pub(super) fn segment(&mut self, now: BootNanos) -> Option<Action> {
        if let Some((store, range)) = self.flights.due(now) {
            return Some(self.send(store, range.first, Purpose::Again));
        }
        let waiting = self.new_readings().or_else(|| self.wanted()).or_else(|| self.backlog());
        // What only waits for room in the window waits all the same.
        waiting.or_else(|| self.rests().then(|| self.snapshot(now)).flatten())
    }

    /// Whether nothing that is pending is still to be sent.
    fn rests(&self) -> bool {
        let rests = |plan: &Plan| {
            // Only the current store has new readings.
            let live = if plan.line.current { plan.live.want() } else { Want::Nothing };
            live == Want::Nothing && plan.backlog.want() == Want::Nothing
        };
        self.plans.iter().filter(|plan| !plan.doubted).all(rests)
    }

    fn new_readings(&mut self) -> Option<Action> {
        let plan = self.plans.iter().find(|plan| plan.line.current && !plan.doubted)?;
        let (store, want) = (plan.line.store, plan.live.want());
        let backlog_waits = self.plans.iter().any(|plan| !plan.doubted && plan.backlog.want() != Want::Nothing);
        let mine = self.flights.count(store, |range| !plan.backlog_holds(range));
        let full = backlog_waits && mine >= WINDOW - BACKLOG_SHARE;
        if full { None } else { self.pending(store, want, Purpose::Live) }
    }

    fn backlog(&mut self) -> Option<Action> {
        let open = self.plans.iter().filter(|plan| !plan.doubted);
        let wants: Vec<_> = open.map(|plan| (plan.line.store, plan.backlog.want())).collect();
        let (store, want) = wants.into_iter().find(|(_, want)| *want != Want::Nothing)?;
        self.pending(store, want, Purpose::Backlog)
    }

    fn pending(&mut self, store: StoreUuid, want: Want, purpose: Purpose) -> Option<Action> {
        match want {
            Want::Page(after) => Some(Action::ReadHeads { store, purpose, after, limit: PAGE }),
            Want::Head(head) if self.flights.holds(store, &head.range) => {
                let plan = self.plans.iter_mut().find(|plan| plan.line.store == store)?;
                let lane = plan.lane(purpose);
                lane.pass(head.range.last);
                let want = lane.want();
                self.pending(store, want, purpose)
            }
            Want::Head(head) if self.flights.room_for(head.bytes) => Some(self.send(store, head.range.first, purpose)),
            Want::Head(_) | Want::Nothing => None,
        }
    }

    fn wanted(&mut self) -> Option<Action> {
        let (store, range) = *self.wanted.front()?;
        Some(self.send(store, range.first, Purpose::Wanted))
    }

    pub(super) fn send(&self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) -> Action {
        Action::Send { store, at, purpose, catalog: self.catalog.known() }
    }
}
