//! What happened to the connection, and what came of the actions.
//!
//! What enters: the events of the link and the answers to actions. What leaves: nothing; the next choice sees it.

use super::event::{Action, Line, Purpose};
use super::plan::Plan;
use super::{ACK_PATIENCE_NS, Head, LEAD_NS, Machine, STORE_PAUSE_NS, Standing};
use crate::clock::BootNanos;
use crate::reading::{SegmentSeq, SeqRange};
use crate::uplink::flights::Sent;
use crate::wire::{self, StoreUuid};

impl Machine {
    pub(super) fn connected(&mut self, now: BootNanos) {
        self.standing = Standing::Waiting { until: BootNanos(now.0.saturating_add(ACK_PATIENCE_NS)) };
        self.flights.clear();
        self.rest = None;
        self.pace.connected(now);
        self.look.wanted = true;
        self.mark_live = true;
        self.state.at_once();
        self.plans.iter_mut().for_each(Plan::restart);
    }

    pub(super) fn disconnected(&mut self, now: BootNanos) {
        self.standing = Standing::Down;
        self.ack = None;
        self.held_until = None;
        self.catalog.disconnected();
        self.flights.clear();
        self.rest = None;
        self.silent_until = None;
        self.pace.disconnected();
        self.break_snapshot(now);
    }

    pub(super) fn stores(&mut self, mut lines: Vec<Line>, catalog: u64) {
        self.catalog.is(catalog);
        lines.truncate(wire::MAX_STORES);
        let mark_live = std::mem::take(&mut self.mark_live);
        let mut plans = Vec::with_capacity(lines.len());
        let mut reshaped = lines.len() != self.plans.len();
        let mut appeared = false;
        for line in lines {
            let known = self.plans.iter().position(|plan| plan.line.store == line.store);
            let mut plan = match known {
                Some(at) => self.plans.swap_remove(at),
                None => {
                    (reshaped, appeared) = (true, true);
                    // A store that appears while we are connected has only new readings.
                    let live_from = if line.current && !mark_live { SegmentSeq(0) } else { line.high };
                    Plan::new(line, live_from, self.order)
                }
            };
            reshaped |= (plan.line.current, plan.line.recheck) != (line.current, line.recheck);
            // What was sent was committed, whatever an older look said.
            let high = plan.line.high.max(line.high);
            let was_current = plan.line.current;
            plan.line = Line { high, ..line };
            if mark_live || was_current != line.current {
                plan.restart();
            }
            plan.live.grew();
            plan.backlog.grew();
            plans.push(plan);
        }
        self.plans = plans;
        self.state.wanted |= reshaped;
        let plans = &self.plans;
        self.wanted.retain(|(store, _)| plans.iter().any(|plan| plan.line.store == *store));
        if let Some(ack) = self.ack.clone().filter(|_| appeared) {
            self.on_ack(ack);
        }
    }

    pub(super) fn heads(&mut self, store: StoreUuid, purpose: Purpose, after: SegmentSeq, heads: &[Head]) {
        if let Some(plan) = self.plan(store) {
            plan.lane(purpose).page(after, heads);
        }
    }

    pub(super) fn sent(&mut self, store: StoreUuid, range: SeqRange, bytes: u64, purpose: Purpose, now: BootNanos) {
        // Compaction may have joined it with what was committed since the last look.
        self.committed_to(store, range.last);
        if purpose != Purpose::Live {
            self.rest = None;
        }
        let segment = Sent { store, range, bytes, class: self.class_of(store, &range) };
        let patience_ns = self.pace.patience_ns(now);
        match purpose {
            Purpose::Live | Purpose::Backlog => {
                if let Some(plan) = self.plan(store) {
                    plan.lane(purpose).sent(&range);
                }
                self.flights.sent(segment, now, patience_ns);
            }
            Purpose::Again => self.flights.sent(segment, now, patience_ns),
            Purpose::Wanted => self.wanted_through(store, range.last),
        }
    }

    /// What the fleet has been told of was committed, whatever an older look said: to learn of it from the fleet must not
    /// look like a file that was rolled back.
    pub(super) fn committed_to(&mut self, store: StoreUuid, high: SegmentSeq) {
        if let Some(plan) = self.plan(store) {
            plan.line.high = plan.line.high.max(high);
        }
    }

    pub(super) fn missing(&mut self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) {
        let only = SeqRange { first: at, last: at };
        if purpose != Purpose::Live {
            self.rest = None;
        }
        match purpose {
            Purpose::Live | Purpose::Backlog => {
                if let Some(plan) = self.plan(store) {
                    plan.lane(purpose).pass(at);
                }
            }
            Purpose::Again => self.flights.forget(store, &only),
            Purpose::Wanted => {
                if let Some((store, range)) = self.wanted.front().copied() {
                    self.todo.push_back(Action::RecordGone { store, range });
                }
            }
        }
    }

    pub(super) fn gone(&mut self, store: StoreUuid, through: SegmentSeq) {
        self.doing = None;
        self.wanted_through(store, through);
        // The loss is a segment that waits below what has been passed.
        if let Some(plan) = self.plan(store) {
            plan.restart();
        }
    }

    fn wanted_through(&mut self, store: StoreUuid, through: SegmentSeq) {
        let Some((of, range)) = self.wanted.front_mut().filter(|(of, _)| *of == store) else { return };
        debug_assert_eq!(*of, store);
        if range.last <= through {
            self.wanted.pop_front();
        } else {
            range.first = range.first.max(SegmentSeq(through.0 + 1));
        }
    }

    pub(super) fn catalog_published(&mut self, catalog: u64, all: bool, now: BootNanos) {
        if self.catalog.published(catalog, all, now) {
            // The fleet has what it missed: what it did not take is worth sending now.
            self.flights.hurry(now);
        }
        self.hold(now);
    }

    pub(super) fn state_published(&mut self, now: BootNanos) {
        if self.state.wanted {
            self.hold(now);
        }
        self.state.done(now);
        self.figures.done(now);
    }

    /// What has just gone out is to arrive before the next segment.
    fn hold(&mut self, now: BootNanos) {
        self.held_until = Some(BootNanos(now.0.saturating_add(LEAD_NS)));
    }

    /// The store is asked again after a while. What an ack brought about is not brought about again by the next one that
    /// says the same, so it stays to be done; unless something newer is to be said of that store.
    pub(super) fn store_failed(&mut self, now: BootNanos) {
        self.paused_until = Some(BootNanos(now.0.saturating_add(STORE_PAUSE_NS)));
        self.look.wanted = true;
        let Some(undone) = self.doing.take() else { return };
        let of = |action: &Action| match action {
            Action::SetAcked { store, .. } => Some(*store),
            _ => None,
        };
        if of(&undone).is_none() || self.todo.iter().all(|later| of(later) != of(&undone)) {
            self.todo.push_front(undone);
        }
    }
}
