//! A retrieval: the way of one request for a snapshot or a range, from the question to the verified answer.
//!
//! What enters: the device's accounts, how each compared with the replica, the time. What leaves: when to ask (again), for
//! what, and how it ended. Pure. The device remembers nothing of it: what was verified is remembered here, durably, and named
//! in each repetition, so that after a cut on either side only the rest comes.
//!
//! ```text
//! asked ─► accounts, stretch by stretch ─► last one ─► all verified ──────────────────────────► Verified
//!   ▲                                          └► something lacks or differs ─► asked again ┐
//!   └───────────────────────────────────────────────────────────────────────────────────────┘ no progress in 3 rounds ─► NotVerified
//! ```

use super::replica::compare::{Comparison, named};
use crate::clock::{BootNanos, SECOND, UtcNanos};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::{Account, Done, MAX_RANGES, MAX_STORES, SnapshotRequest, StoreUuid, Stretch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first wait for an account, and the longest: the device sends what is new first, and asking again is harmless.
const FIRST_PATIENCE: i64 = 15 * SECOND;
const LONGEST_PATIENCE: i64 = 600 * SECOND;

/// The pause after a round, the longer one after a second round without progress; after a third it is given up.
const PAUSES: [i64; 2] = [SECOND, 10 * SECOND];

/// How long a device may stay away.
const LONGEST: i64 = 30 * 86_400 * SECOND;

/// Sentences that are kept of what was found.
const MAX_FINDINGS: usize = 8;

/// Ranges of stretches that wait for their neighbour; more are compared no more in this round.
const MAX_JOINED: usize = 4096;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Everything that the device's file holds.
    Snapshot,
    /// These numbers of one store.
    Range(StoreUuid, SeqRange),
}

/// What is remembered over a restart beside the question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// All that the device will send, as it last said.
    pub stores: Vec<(StoreUuid, SeqRange)>,
    /// What was verified.
    done: Vec<(StoreUuid, Vec<SeqRange>)>,
    /// What an operator should know though it was mended.
    pub findings: Vec<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every number is accounted for, and the readings are those of the device.
    Verified,
    /// It was given up: why, and what to do.
    NotVerified(String),
}

/// See the room.
#[derive(Debug, Clone)]
pub struct Retrieval {
    /// Its number in the roster.
    pub id: i64,
    /// Of which device.
    pub device: String,
    /// Its number on the wire.
    pub nonce: u64,
    /// What was asked for.
    pub what: What,
    /// When.
    pub asked: UtcNanos,
    /// The device began it, at its `snapshot_every`.
    pub by_device: bool,
    /// All that the device will send, as it last said.
    stores: Vec<(StoreUuid, SeqRange)>,
    done: BTreeMap<StoreUuid, RangeSet>,
    findings: Vec<String>,
    /// When it is to be asked for next; at once where there is no time.
    ask_at: Option<BootNanos>,
    /// Questions since the device last answered.
    tries: u32,
    /// Stretches that wait for the one that follows them.
    joined: Option<Stretch>,
    /// What went wrong in this round.
    problems: Vec<String>,
    nowhere: BTreeMap<StoreUuid, RangeSet>,
    grew: bool,
    idle_rounds: usize,
}

impl Retrieval {
    /// One that is to be asked for at once.
    pub fn new(id: i64, device: String, nonce: u64, what: What, asked: UtcNanos, by_device: bool) -> Self {
        Self {
            id,
            device,
            nonce,
            what,
            asked,
            by_device,
            stores: Vec::new(),
            done: BTreeMap::new(),
            findings: Vec::new(),
            ask_at: None,
            tries: 0,
            joined: None,
            problems: Vec::new(),
            nowhere: BTreeMap::new(),
            grew: false,
            idle_rounds: 0,
        }
    }

    /// Goes on where it was before a restart.
    pub fn restored(mut self, progress: Progress) -> Self {
        self.done = progress.done.into_iter().map(|(store, ranges)| (store, ranges.into_iter().collect())).collect();
        (self.stores, self.findings) = (progress.stores, progress.findings);
        self
    }

    /// What is to be remembered.
    pub fn progress(&self) -> Progress {
        let done = self.done.iter().map(|(store, ranges)| (*store, ranges.iter().collect())).collect();
        Progress { stores: self.stores.clone(), done, findings: self.findings.clone() }
    }

    /// The connection, or the device, is new: what was asked is not known there any more.
    pub fn begin_again(&mut self) {
        (self.ask_at, self.tries) = (None, 0);
    }

    /// Whether it is time to ask.
    pub fn is_due(&self, now: BootNanos) -> bool {
        self.ask_at.is_none_or(|at| at <= now)
    }

    /// Stores of which something was verified.
    pub fn stores_done(&self) -> Vec<StoreUuid> {
        self.done.keys().copied().collect()
    }

    /// Only what is `present` of `store` counts as verified: a replica may have been lost since.
    pub fn keep_only(&mut self, store: StoreUuid, present: &RangeSet) {
        if let Some(done) = self.done.get_mut(&store) {
            *done = done.common(present);
        }
    }

    /// The question, for what was not verified yet; it is taken as asked.
    pub fn ask(&mut self, now: BootNanos) -> SnapshotRequest {
        let patience = FIRST_PATIENCE.saturating_mul(1 << self.tries.min(10)).min(LONGEST_PATIENCE);
        self.ask_at = Some(BootNanos(now.0.saturating_add(patience)));
        self.tries += 1;
        let only = match self.what {
            What::Snapshot => None,
            What::Range(store, range) => Some((store, range)),
        };
        let ranges = |done: &RangeSet| done.iter().take(MAX_RANGES).collect();
        let done = self.done.iter().map(|(store, done)| Done { store: *store, ranges: ranges(done) });
        SnapshotRequest { nonce: self.nonce, only, done: done.take(MAX_STORES).collect() }
    }

    /// The device has spoken of it.
    pub fn heard(&mut self, account: &Account, now: BootNanos) {
        self.stores.clone_from(&account.stores);
        self.tries = 0;
        self.ask_at = Some(BootNanos(now.0.saturating_add(LONGEST_PATIENCE.min(4 * FIRST_PATIENCE))));
    }

    /// The stretch to compare: with those before it that wait for it.
    pub fn joined(&mut self, stretch: &Stretch) -> Stretch {
        let Some(before) = self.joined.take().filter(|before| follows(before, stretch)) else { return stretch.clone() };
        let both = |a: &[SeqRange], b: &[SeqRange]| -> Vec<SeqRange> {
            a.iter().chain(b).copied().collect::<RangeSet>().iter().collect()
        };
        let mut sum = before.sum;
        sum.add(stretch.sum);
        Stretch {
            store: stretch.store,
            range: SeqRange { first: before.range.first, last: stretch.range.last },
            readings: both(&before.readings, &stretch.readings),
            losses: both(&before.losses, &stretch.losses),
            sum,
        }
    }

    /// What came of comparing `stretch`, as [`Retrieval::joined`] gave it.
    pub fn compared(&mut self, stretch: Stretch, comparison: Comparison) {
        let store = stretch.store;
        match comparison {
            Comparison::Same => {
                let done = self.done.entry(store).or_default();
                self.grew |= !done.covers(stretch.range);
                done.insert(stretch.range);
            }
            Comparison::Straddles if stretch.readings.len() + stretch.losses.len() <= MAX_JOINED => {
                self.joined = Some(stretch);
            }
            Comparison::Straddles => self.problem(format!("{} of store {store} is cut otherwise", stretch.range)),
            Comparison::Differs(what) => self.problem(format!("store {store}: {what}")),
            Comparison::Lacks { at_device, nowhere } => {
                if !at_device.is_empty() {
                    self.problem(format!("store {store}: {} did not arrive", named(&at_device)));
                }
                if !nowhere.is_empty() {
                    self.problem(format!("store {store}: {} is held by neither side", named(&nowhere)));
                    self.nowhere.entry(store).or_default().extend(nowhere.iter());
                }
            }
        }
    }

    /// Something to be told with the outcome, whatever that is.
    pub fn found(&mut self, what: String) {
        if self.findings.len() < MAX_FINDINGS && !self.findings.contains(&what) {
            self.findings.push(what);
        }
    }

    /// The device has sent all that it will: how it ended, if it did.
    pub fn round_over(&mut self, now: BootNanos) -> Option<Outcome> {
        if let What::Range(store, range) = self.what {
            if self.stores.is_empty() {
                let held = format!("the device holds nothing of {range} of store {store}, nor anything above");
                return Some(Outcome::NotVerified(format!(
                    "{held}; `varved-fleet devices` shows which numbers there are"
                )));
            }
        }
        if self.left().is_empty() {
            return Some(Outcome::Verified);
        }
        if let Some(waits) = self.joined.take() {
            self.problem(format!("{} of store {} is cut otherwise than at the device", waits.range, waits.store));
        }
        self.idle_rounds = if std::mem::take(&mut self.grew) { 0 } else { self.idle_rounds + 1 };
        let problems = std::mem::take(&mut self.problems);
        let Some(pause) = PAUSES.get(self.idle_rounds.saturating_sub(1)) else {
            return Some(Outcome::NotVerified(given_up(&problems)));
        };
        (self.ask_at, self.tries) = (Some(BootNanos(now.0.saturating_add(*pause))), 0);
        None
    }

    /// Numbers that neither side holds, to be asked for so that the device writes down their loss; told once.
    pub fn take_nowhere(&mut self) -> BTreeMap<StoreUuid, RangeSet> {
        std::mem::take(&mut self.nowhere)
    }

    /// Whether the device has stayed away for too long.
    pub fn is_forlorn(&self, now: UtcNanos) -> Option<Outcome> {
        let forlorn = now.0.saturating_sub(self.asked.0) > LONGEST;
        forlorn.then(|| Outcome::NotVerified("not answered within 30 days; ask again when the device is there".into()))
    }

    /// Numbers that are verified, and all.
    pub fn numbers(&self) -> (u64, u64) {
        let all: u64 = self.stores.iter().map(|(_, range)| range.last.0 - range.first.0 + 1).sum();
        let left: u64 = self.left().iter().map(|(_, left)| left.numbers()).sum();
        (all - left, all)
    }

    /// What of it was found and mended.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    fn left(&self) -> Vec<(StoreUuid, RangeSet)> {
        let none = RangeSet::new();
        let left =
            |(store, range): &(StoreUuid, SeqRange)| (*store, self.done.get(store).unwrap_or(&none).gaps(*range));
        self.stores.iter().map(left).filter(|(_, left)| !left.is_empty()).collect()
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < MAX_FINDINGS {
            self.problems.push(what);
        }
    }
}

fn follows(before: &Stretch, next: &Stretch) -> bool {
    before.store == next.store && before.range.last.0 + 1 == next.range.first.0
}

fn given_up(problems: &[String]) -> String {
    let what = if problems.is_empty() { "the device did not send all of it".to_owned() } else { problems.join("; ") };
    format!("{what}. What the device sends is kept beside what differs; `varved-fleet devices` shows what was refused")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Sum;

    const STORE: StoreUuid = StoreUuid::from_u128(1);

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).expect("a range")
    }

    fn stretch(first: u64, last: u64) -> Stretch {
        let sum = Sum { readings: last - first + 1, digest: first };
        Stretch { store: STORE, range: range(first, last), readings: vec![range(first, last)], losses: vec![], sum }
    }

    fn asked() -> Retrieval {
        Retrieval::new(1, "a".into(), 9, What::Snapshot, UtcNanos(0), false)
    }

    fn hear(retrieval: &mut Retrieval) {
        let stores = vec![(STORE, range(1, 100))];
        retrieval.heard(&Account { nonce: 9, stores, stretch: None, last: false }, BootNanos(0));
    }

    /// Unanswered questions are repeated at growing intervals; an answer, or a new connection, makes them prompt again.
    #[test]
    fn questions_are_repeated_at_growing_intervals() {
        let mut retrieval = asked();
        let (mut now, mut waits) = (BootNanos(0), Vec::new());
        for _ in 0..9 {
            assert!(retrieval.is_due(now));
            retrieval.ask(now);
            let begun = now;
            while !retrieval.is_due(now) {
                now.0 += SECOND;
            }
            waits.push((now.0 - begun.0) / SECOND);
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 600, 600, 600]);
        retrieval.begin_again();
        assert!(retrieval.is_due(now));
    }

    /// What was verified is not asked for again, over a restart either, unless it is no longer there.
    #[test]
    fn only_the_rest_is_asked_for() {
        let mut retrieval = asked();
        hear(&mut retrieval);
        retrieval.compared(stretch(1, 40), Comparison::Same);
        assert_eq!(retrieval.numbers(), (40, 100));
        let mut retrieval = asked().restored(retrieval.progress());
        assert_eq!(retrieval.ask(BootNanos(0)).done, [Done { store: STORE, ranges: vec![range(1, 40)] }]);
        retrieval.keep_only(STORE, &RangeSet::from_iter([range(1, 9)]));
        assert_eq!(retrieval.ask(BootNanos(0)).done, [Done { store: STORE, ranges: vec![range(1, 9)] }]);
    }

    /// It is verified when every number is, in however many rounds, and given up after rounds without progress.
    #[test]
    fn it_ends_verified_or_after_rounds_without_progress() {
        let mut retrieval = asked();
        hear(&mut retrieval);
        retrieval.compared(stretch(1, 40), Comparison::Same);
        let lacks = |nowhere: &[SeqRange]| Comparison::Lacks {
            at_device: RangeSet::from_iter([range(41, 50)]),
            nowhere: nowhere.iter().copied().collect(),
        };
        retrieval.compared(stretch(41, 100), lacks(&[range(51, 51)]));
        assert_eq!(retrieval.round_over(BootNanos(0)), None);
        assert_eq!(retrieval.take_nowhere()[&STORE], RangeSet::from_iter([range(51, 51)]));
        assert!(!retrieval.is_due(BootNanos(0)) && retrieval.is_due(BootNanos(SECOND)));
        let mut other = retrieval.clone();
        other.compared(stretch(41, 100), Comparison::Same);
        assert_eq!(other.round_over(BootNanos(0)), Some(Outcome::Verified));
        for _ in 0..2 {
            retrieval.compared(stretch(41, 100), lacks(&[]));
            assert_eq!(retrieval.round_over(BootNanos(0)), None);
        }
        retrieval.compared(stretch(41, 100), lacks(&[]));
        let Some(Outcome::NotVerified(why)) = retrieval.round_over(BootNanos(0)) else { panic!("it goes on for ever") };
        assert!(why.contains("41..=50 did not arrive"), "{why}");
    }

    /// A stretch that ends within a segment of the replica is compared together with the next.
    #[test]
    fn a_straddling_stretch_waits_for_the_next() {
        let mut retrieval = asked();
        hear(&mut retrieval);
        let first = retrieval.joined(&stretch(1, 40));
        retrieval.compared(first, Comparison::Straddles);
        let both = retrieval.joined(&stretch(41, 100));
        assert_eq!((both.range, both.readings.clone()), (range(1, 100), vec![range(1, 100)]));
        assert_eq!(both.sum, Sum { readings: 100, digest: 42 });
        retrieval.compared(both, Comparison::Same);
        assert_eq!(retrieval.round_over(BootNanos(0)), Some(Outcome::Verified));
        let mut alone = asked();
        hear(&mut alone);
        alone.compared(stretch(1, 40), Comparison::Straddles);
        assert_eq!(alone.joined(&stretch(60, 100)).range, range(60, 100), "not its neighbour");
    }

    /// A range of which the device has nothing ends with words, not with a verified nothing.
    #[test]
    fn a_range_that_is_not_there_is_not_verified() {
        let mut retrieval = Retrieval { what: What::Range(STORE, range(7, 9)), ..asked() };
        retrieval.heard(&Account { nonce: 9, stores: vec![], stretch: None, last: true }, BootNanos(0));
        assert!(matches!(retrieval.round_over(BootNanos(0)), Some(Outcome::NotVerified(why)) if why.contains("7..=9")));
        assert!(retrieval.is_forlorn(UtcNanos(LONGEST)).is_none());
        assert!(retrieval.is_forlorn(UtcNanos(LONGEST + 1)).is_some());
    }
}
