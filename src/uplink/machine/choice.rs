//! What there is to do: the policy.
//!
//! What enters: the machine as events have left it, and the time. What leaves: the next action. Nothing here learns
//! anything; it only chooses.
//!
//! New readings go in one piece and before all else; the rest message by message, so that they wait for one of its
//! messages at most. What else has begun is brought to its end before another begins: a receiver holds few pieces.

use super::event::{Action, Cut, Purpose, Rest};
use super::plan::Plan;
use super::{FIGURES_NS, METERED_FIGURES_NS, Machine, STATE_NS};
use crate::clock::BootNanos;
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::uplink::lane::{PAGE, Want};
use crate::uplink::pace::Class;
use crate::wire::StoreUuid;

impl Machine {
    /// State and catalogue: what must be known before segments are understood.
    pub(super) fn announcement(&mut self, now: BootNanos) -> Option<Action> {
        let state = self.state_when().is_some_and(|when| when <= now);
        let catalog = self.catalog.when().is_some_and(|when| when <= now);
        if !state && !catalog {
            return None;
        }
        if let Err(until) = self.pace.small(now) {
            self.unaffordable_until = Some(until);
            return None;
        }
        if state {
            return Some(Action::PublishState);
        }
        self.catalog.goes_out();
        Some(Action::PublishCatalog { all: self.catalog.whole(now) })
    }

    pub(super) fn state_when(&self) -> Option<BootNanos> {
        // Figures are part of every state, so their clock runs from the last one of either kind.
        let figures_ns = if self.pace.is_metered() { METERED_FIGURES_NS } else { FIGURES_NS };
        self.state.when(STATE_NS).into_iter().chain(self.figures.when(figures_ns)).min()
    }

    /// The policy: new readings within their share of the window, then what has begun, then what was sent and not
    /// acknowledged, then what the fleet wants, then the backlog of the current store, then older stores, and a snapshot when
    /// all else rests.
    pub(super) fn segment(&mut self, now: BootNanos) -> Option<Action> {
        let live = self.new_readings(now);
        if live.is_some() {
            return live;
        }
        if let Some(rest) = self.begun() {
            return self.go_on(rest, now);
        }
        if self.copying().is_some() {
            return self.paced_snapshot(now);
        }
        let waiting = self.again(now).or_else(|| self.wanted(now)).or_else(|| self.backlog(now));
        // What only waits for room in the window waits all the same.
        waiting.or_else(|| self.rests().then(|| self.paced_snapshot(now)).flatten())
    }

    fn paced_snapshot(&mut self, now: BootNanos) -> Option<Action> {
        // Its segments are not known by size until they are read.
        let size = self.pace.message_bytes() as u64;
        if self.snapshot.is_some() && !self.may(Class::Backlog, size, now) { None } else { self.snapshot(now) }
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

    fn new_readings(&mut self, now: BootNanos) -> Option<Action> {
        let plan = self.plans.iter().find(|plan| plan.line.current && !plan.doubted)?;
        let (store, want) = (plan.line.store, plan.live.want());
        self.pending(store, want, Purpose::Live, now)
    }

    fn backlog(&mut self, now: BootNanos) -> Option<Action> {
        let open = self.plans.iter().filter(|plan| !plan.doubted);
        let wants: Vec<_> = open.map(|plan| (plan.line.store, plan.backlog.want())).collect();
        let (store, want) = wants.into_iter().find(|(_, want)| *want != Want::Nothing)?;
        self.pending(store, want, Purpose::Backlog, now)
    }

    fn backlog_waits(&self) -> bool {
        self.plans.iter().any(|plan| !plan.doubted && plan.backlog.want() != Want::Nothing)
    }

    fn pending(&mut self, store: StoreUuid, want: Want, purpose: Purpose, now: BootNanos) -> Option<Action> {
        let class = if purpose == Purpose::Live { Class::Live } else { Class::Backlog };
        self.flights.keep_place(self.rest.map(|rest| (rest.store, rest.range, rest.bytes)));
        match want {
            Want::Page(at) => Some(self.page(store, purpose, at)),
            Want::Head(head) if self.flights.holds(store, &head.range) || self.has_arrived(store, &head.range) => {
                let plan = self.plans.iter_mut().find(|plan| plan.line.store == store)?;
                let lane = plan.lane(purpose);
                lane.skip(&head.range);
                let want = lane.want();
                self.pending(store, want, purpose, now)
            }
            Want::Head(head) if self.flights.room_for(class, head.bytes, self.backlog_waits()) => {
                self.may(class, head.bytes, now).then(|| self.send(store, head.range.first, purpose))
            }
            Want::Head(_) | Want::Nothing => None,
        }
    }

    /// Whether the fleet has stated that it holds `range`: a head that was read before that is not to be sent any more. (It was,
    /// over and over: the segment that covers it now had arrived, and was given up after its first piece.)
    fn has_arrived(&self, store: StoreUuid, range: &SeqRange) -> bool {
        let plan = self.plans.iter().find(|plan| plan.line.store == store);
        plan.and_then(|plan| plan.acked.as_ref()).is_some_and(|acked| acked.covers(*range))
    }

    fn page(&self, store: StoreUuid, purpose: Purpose, at: SegmentSeq) -> Action {
        let plan = self.plans.iter().find(|plan| plan.line.store == store);
        if purpose == Purpose::Backlog && plan.is_some_and(|plan| plan.backlog.is_downwards()) {
            return Action::ReadNewest { store, before: at, limit: PAGE };
        }
        Action::ReadHeads { store, purpose, after: at, limit: PAGE }
    }

    /// What has begun and is still to be sent.
    fn begun(&mut self) -> Option<Rest> {
        let rest = self.rest?;
        let pending = matches!(rest.purpose, Purpose::Backlog | Purpose::Again);
        let arrived = |acked: &RangeSet| pending && acked.covers(rest.range);
        let plan = self.plans.iter().find(|plan| plan.line.store == rest.store);
        if plan.is_none_or(|plan| plan.doubted || plan.acked.as_ref().is_some_and(arrived)) {
            self.rest = None;
        }
        self.rest
    }

    fn go_on(&mut self, rest: Rest, now: BootNanos) -> Option<Action> {
        let left = rest.bytes.saturating_sub(u64::from(rest.through));
        match self.pace.message(Class::Backlog, left, now) {
            Ok(()) => {
                let action = self.send(rest.store, rest.range.first, rest.purpose);
                Some(with_rest(action, rest))
            }
            Err(until) => self.not_before(until),
        }
    }

    fn again(&mut self, now: BootNanos) -> Option<Action> {
        let (store, range, bytes) = self.flights.due(now)?;
        self.may(Class::Backlog, bytes, now).then(|| self.send(store, range.first, Purpose::Again))
    }

    fn wanted(&mut self, now: BootNanos) -> Option<Action> {
        let (store, range) = *self.wanted.front()?;
        let size = self.pace.message_bytes() as u64;
        self.may(Class::Backlog, size, now).then(|| self.send(store, range.first, Purpose::Wanted))
    }

    /// Whether a segment of `bytes` may begin now; notes when to ask again where it may not.
    fn may(&mut self, class: Class, bytes: u64, now: BootNanos) -> bool {
        match self.pace.segment(class, bytes, now) {
            Ok(()) => true,
            Err(until) => {
                self.not_before(until);
                false
            }
        }
    }

    fn not_before(&mut self, until: BootNanos) -> Option<Action> {
        self.slowed_until = Some(self.slowed_until.map_or(until, |earlier| earlier.min(until)));
        None
    }

    /// Of which class a segment is: new since the connection, or not.
    pub(super) fn class_of(&self, store: StoreUuid, range: &SeqRange) -> Class {
        let plan = self.plans.iter().find(|plan| plan.line.store == store);
        let live = plan.is_some_and(|plan| plan.line.current && !plan.backlog_holds(range));
        if live { Class::Live } else { Class::Backlog }
    }

    pub(super) fn send(&self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) -> Action {
        let cut = Cut { payload_bytes: self.pace.message_bytes(), whole: purpose == Purpose::Live, rest: None };
        Action::Send { store, at, purpose, catalog: self.catalog.known(), cut }
    }
}

fn with_rest(action: Action, rest: Rest) -> Action {
    match action {
        Action::Send { store, at, purpose, catalog, cut } => {
            Action::Send { store, at, purpose, catalog, cut: Cut { rest: Some(rest), ..cut } }
        }
        other => other,
    }
}
