//! What was asked of devices, by an operator or by their own interval: put to them, and compared with what came.
//!
//! What enters: questions in the roster, the devices' accounts. What leaves: requests, and outcomes in the roster. One question
//! at a time is put to a device; accounts of any are taken in. What a device says of its own accord is bounded: one retrieval
//! of its own is under way, a later one takes its place, but not within a minute.

use super::{Receiver, Refused, bad_replica, near};
use crate::clock::{Now, SECOND};
use crate::fleet::refusal::Refusal;
use crate::fleet::replica::compare::Comparison;
use crate::fleet::replica::retrievals::{Added, Question};
use crate::fleet::retrieval::{Outcome, Retrieval, What};
use crate::fleet::{FleetError, receiver::Publication};
use crate::reading::ranges::RangeSet;
use crate::wire::topics::Topic;
use crate::wire::{Account, MAX_RANGES, Request, StoreUuid, Stretch, encode};
use std::collections::{BTreeMap, BTreeSet};

/// Questions that are put at one tick: each may open replicas.
const QUESTIONS_PER_TICK: usize = 32;

/// How soon after a snapshot of its own a device may begin another: each is written down.
const OWN_EVERY: i64 = 60 * SECOND;

/// Those under way, by their number in the roster, which is by age.
#[derive(Default)]
pub(super) struct Retrievals {
    open: BTreeMap<i64, Retrieval>,
}

impl Retrievals {
    /// A device, or the broker, may have forgotten what was asked.
    pub(super) fn begin_again(&mut self, device: Option<&str>) {
        let concerned = self.open.values_mut().filter(|r| device.is_none_or(|name| r.device == name));
        concerned.for_each(Retrieval::begin_again);
    }

    /// To be told with the outcome of whatever is under way for `device`.
    pub(super) fn found(&mut self, device: &str, what: &str) {
        let concerned = self.open.values_mut().filter(|r| r.device == device);
        concerned.for_each(|retrieval| retrieval.found(what.to_owned()));
    }

    fn of(&self, device: &str, nonce: u64) -> Option<i64> {
        self.open.values().find(|r| r.device == device && r.nonce == nonce).map(|r| r.id)
    }

    /// The first of each device, if it is time to ask.
    fn due(&self, now: Now) -> Vec<(i64, String)> {
        let mut seen = BTreeSet::new();
        let first = self.open.values().filter(|r| seen.insert(r.device.as_str()));
        first.filter(|r| r.is_due(now.boot)).map(|r| (r.id, r.device.clone())).collect()
    }

    /// Takes in what was added by others; what is no longer there is forgotten.
    fn follow(&mut self, listed: Vec<Retrieval>) {
        let ids: BTreeSet<i64> = listed.iter().map(|r| r.id).collect();
        self.open.retain(|id, _| ids.contains(id));
        for retrieval in listed {
            self.open.entry(retrieval.id).or_insert(retrieval);
        }
    }
}

impl Receiver {
    /// Puts the questions whose time has come to the devices that are there; to be called at a tick.
    pub(super) fn retrieve(&mut self, now: Now) -> Vec<Publication> {
        match self.roster.open_retrievals() {
            Ok(listed) => self.retrievals.follow(listed),
            Err(cause) => log::error!("roster: {cause}"),
        }
        self.end_the_forlorn(now);
        let mut out = Vec::new();
        let mut asked = 0;
        for (id, name) in self.retrievals.due(now) {
            let there = self.devices.get(&name).is_some_and(|device| device.entry.online);
            if !there || asked == QUESTIONS_PER_TICK {
                continue;
            }
            asked += 1;
            match self.question(id, &name, now) {
                Ok(requests) => {
                    let publish = |r: &Request| self.publication(&name, Topic::Request, encode(r), false);
                    out.extend(requests.iter().filter_map(publish));
                }
                Err(cause) => log::error!("receiver: {name}: request {id} can't be put now: {cause}"),
            }
        }
        out
    }

    /// The device's own account of a part of a snapshot. What came before it is committed first, since what is compared is
    /// what is durable.
    pub(super) fn take_account(&mut self, name: &str, account: &Account, now: Now) -> Result<(), Refused> {
        let of_stretch = account.stretch.iter().map(|stretch| stretch.range.last);
        account.stores.iter().map(|(_, range)| range.last).chain(of_stretch).try_for_each(near)?;
        let Some(id) = self.retrieval_of(name, account.nonce, now)? else { return Ok(()) };
        let Some(retrieval) = self.retrievals.open.get_mut(&id) else { return Ok(()) };
        retrieval.heard(account, now.boot);
        if let Some(stretch) = &account.stretch {
            let stretch = retrieval.joined(stretch);
            self.commit(now);
            let comparison = self.compare(name, &stretch, now).map_err(bad_replica)?;
            if let Comparison::Differs(what) = &comparison {
                log::warn!("receiver: {name}: store {}: {what}", stretch.store);
            }
            if let Some(retrieval) = self.retrievals.open.get_mut(&id) {
                retrieval.compared(stretch, comparison);
            }
        }
        let ended = match self.retrievals.open.get_mut(&id) {
            Some(retrieval) if account.last => retrieval.round_over(now.boot),
            _ => None,
        };
        match ended {
            Some(outcome) => self.end(id, outcome, now),
            None => self.save_retrieval(id, None, now),
        }
        Ok(())
    }

    /// The retrieval that an account is of. One that nobody asked for is the device's own, and is written down.
    fn retrieval_of(&mut self, name: &str, nonce: u64, now: Now) -> Result<Option<i64>, Refused> {
        if let Some(id) = self.retrievals.of(name, nonce) {
            return Ok(Some(id));
        }
        if !self.device(name).may_begin_a_snapshot(now.boot, OWN_EVERY) {
            // If it goes on with it, that will be taken for its beginning.
            return Ok(None);
        }
        let failed = |cause| (Refusal::Replica, format!("the roster: {cause}"));
        if self.roster.knows_retrieval(name, nonce).map_err(failed)? {
            // It has ended, or came between two ticks.
            return Ok(None);
        }
        let earlier = self.retrievals.open.values().find(|r| r.by_device && r.device == name).map(|r| r.id);
        if let Some(id) = earlier {
            self.end(
                id,
                Outcome::NotVerified("the device began another snapshot before this one was sent".into()),
                now,
            );
        }
        let question = Question { device: name, nonce, what: What::Snapshot, asked: now.utc, by_device: true };
        match self.roster.ask(&question).map_err(failed)? {
            Added::New(id) => {
                let own = Retrieval::new(id, name.to_owned(), nonce, What::Snapshot, now.utc, true);
                self.retrievals.open.insert(id, own);
                Ok(Some(id))
            }
            Added::Same(_) | Added::TooMany => Ok(None),
        }
    }

    fn compare(&mut self, name: &str, stretch: &Stretch, now: Now) -> Result<Comparison, FleetError> {
        if !self.shelf.has(name, stretch.store) {
            // Nothing of it was kept: no file is made for that.
            let at_device: RangeSet = stretch.readings.iter().chain(&stretch.losses).copied().collect();
            return Ok(Comparison::Lacks { nowhere: at_device.gaps(stretch.range), at_device });
        }
        let (replica, notices) = self.shelf.replica(name, stretch.store, now.utc)?;
        let comparison = replica.compare(name, stretch);
        self.report(notices, now);
        Ok(comparison?)
    }

    /// What is to be published for a question: first for the numbers that neither side holds, so that their loss is written
    /// down before the account of them.
    fn question(&mut self, id: i64, name: &str, now: Now) -> Result<Vec<Request>, FleetError> {
        let stores = self.retrievals.open.get(&id).map(Retrieval::stores_done).unwrap_or_default();
        for store in stores {
            let present = self.present(name, store, now)?;
            if let Some(retrieval) = self.retrievals.open.get_mut(&id) {
                retrieval.keep_only(store, &present);
            }
        }
        let Some(retrieval) = self.retrievals.open.get_mut(&id) else { return Ok(Vec::new()) };
        let lost = retrieval
            .take_nowhere()
            .into_iter()
            .map(|(store, ranges)| Request::Segments { store, ranges: ranges.iter().take(MAX_RANGES).collect() });
        let mut requests: Vec<Request> = lost.collect();
        requests.push(Request::Snapshot(retrieval.ask(now.boot)));
        Ok(requests)
    }

    /// The numbers of `store` that the replica accounts for.
    fn present(&mut self, name: &str, store: StoreUuid, now: Now) -> Result<RangeSet, FleetError> {
        if !self.shelf.has(name, store) {
            return Ok(RangeSet::new());
        }
        let (replica, notices) = self.shelf.replica(name, store, now.utc)?;
        let standing = replica.standing(name, None);
        self.report(notices, now);
        Ok(standing?.present)
    }

    fn end_the_forlorn(&mut self, now: Now) {
        let forlorn = |r: &Retrieval| r.is_forlorn(now.utc).filter(|_| now.trusted).map(|outcome| (r.id, outcome));
        let ended: Vec<_> = self.retrievals.open.values().filter_map(forlorn).collect();
        ended.into_iter().for_each(|(id, outcome)| self.end(id, outcome, now));
    }

    fn end(&mut self, id: i64, outcome: Outcome, now: Now) {
        let Some(retrieval) = self.retrievals.open.get(&id) else { return };
        let device = retrieval.device.clone();
        let detail = match &outcome {
            Outcome::Verified => format!("request {id} is answered and verified"),
            Outcome::NotVerified(why) => format!("request {id} is not verified: {why}"),
        };
        log::info!("receiver: {device}: {detail}");
        self.happened(&device, detail, now);
        self.save_retrieval(id, Some(&outcome), now);
        self.retrievals.open.remove(&id);
    }

    /// What can't be written is told; the retrieval then goes on after a restart where the roster says.
    fn save_retrieval(&mut self, id: i64, outcome: Option<&Outcome>, now: Now) {
        let Some(retrieval) = self.retrievals.open.get(&id) else { return };
        if let Err(cause) = self.roster.save_retrieval(retrieval, outcome.map(|outcome| (now.utc, outcome))) {
            log::error!("roster: {cause}");
        }
    }
}
