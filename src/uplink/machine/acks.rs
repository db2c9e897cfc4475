//! What the fleet says: what it holds, what it asks for, and whether it speaks of the same file.
//!
//! What enters: acks, requests, the start of a recheck. What leaves: lanes that begin anew, and what the store is to be
//! told. The ack is the only truth, and may shrink.

use super::event::Action;
use super::plan::{Plan, doubt};
use super::{Machine, PAUSE_NS, Standing};
use crate::clock::{BootNanos, SECOND};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::{self, Ack, Request, StoreAck, StoreUuid};

impl Machine {
    pub(super) fn on_ack(&mut self, ack: Ack) {
        for at in 0..self.plans.len() {
            let uuid = self.plans[at].line.store;
            let stated = ack.stores.iter().find(|stated| stated.store == uuid);
            self.acked_store(at, stated);
        }
        if self.flights.recovered() {
            self.plans.iter_mut().for_each(Plan::restart);
        }
        if matches!(self.standing, Standing::Waiting { .. }) {
            self.standing = Standing::Open;
        }
        self.ack = Some(ack);
    }

    fn acked_store(&mut self, at: usize, stated: Option<&StoreAck>) {
        let plan = &mut self.plans[at];
        let store = plan.line.store;
        if let Some(why) = stated.and_then(|stated| doubt(&plan.line, stated)) {
            if !plan.doubted {
                plan.doubted = true;
                self.todo.push_back(Action::Recheck { store, why });
            }
            return;
        }
        if plan.doubted {
            // Whatever this one says, it was written before the recheck: it must not count for the store after it.
            return;
        }
        let acked = match (plan.line.recheck, stated) {
            (None, Some(stated)) => stated.held(),
            (Some(nonce), Some(StoreAck { verified: Some((answer, verified)), .. })) if *answer == nonce => {
                verified.iter().copied().collect()
            }
            _ => RangeSet::new(),
        };
        let arrived = self.flights.acked(store, &acked);
        if let Some(sent) = arrived {
            self.flights.overtaken(store, sent);
        }
        self.catalog.acked(arrived);
        let plan = &mut self.plans[at];
        let grew_only = plan.acked.as_ref().is_some_and(|old| acked.covers_all(old));
        if plan.acked.as_ref() == Some(&acked) {
            return;
        }
        if !grew_only {
            // What had been passed as acknowledged may be pending again.
            plan.restart();
        }
        plan.acked = Some(acked.clone());
        self.todo.retain(|action| !matches!(action, Action::SetAcked { store: of, .. } if *of == store));
        self.todo.push_back(Action::SetAcked { store, ranges: acked });
    }

    pub(super) fn requested(&mut self, request: Request, now: BootNanos) {
        match request {
            Request::Pause { seconds } => {
                let ns = (i64::from(seconds) * SECOND).min(PAUSE_NS);
                self.silent_until = (ns > 0).then_some(BootNanos(now.0.saturating_add(ns)));
            }
            Request::Catalog => self.catalog.ask(),
            Request::Snapshot(request) => self.begin_snapshot(&request, false),
            Request::Segments { store, ranges } => {
                let Some(plan) = self.plans.iter().find(|plan| plan.line.store == store) else { return };
                for range in ranges {
                    // What we have never committed is not ours to explain.
                    let Some(range) = SeqRange::new(range.first.0, range.last.min(plan.line.high).0) else { continue };
                    // Asked again while the answer is on its way: only what is not waiting already.
                    let mut lacks = RangeSet::from_iter([range]);
                    self.wanted.iter().filter(|(of, _)| *of == store).for_each(|(_, wanted)| lacks.remove(*wanted));
                    let room = wire::MAX_RANGES.saturating_sub(self.wanted.len());
                    self.wanted.extend(lacks.iter().take(room).map(|range| (store, range)));
                }
            }
        }
    }

    pub(super) fn rechecking(&mut self, store: StoreUuid, nonce: u64) {
        self.doing = None;
        self.flights.forget_store(store);
        self.rest = self.rest.filter(|rest| rest.store != store);
        if let Some(plan) = self.plan(store) {
            plan.line.recheck = Some(nonce);
            plan.line.current = false;
            plan.acked = None;
            plan.doubted = false;
            plan.restart();
        }
        // The state with the number goes out before the first segment that it is about.
        self.look.wanted = true;
        self.state.at_once();
    }
}
