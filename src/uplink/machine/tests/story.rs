//! A store of the test's own and a machine on it, with a time of its own: what the stories of one connection share.

use super::super::*;
use crate::reading::SegmentSeq;
use crate::reading::ranges::RangeSet;
use crate::segment::Sum;
use crate::wire::{Account, StoreAck};

pub(super) const CURRENT: StoreUuid = StoreUuid::from_u128(1);

pub(super) const OLD: StoreUuid = StoreUuid::from_u128(2);

pub(super) fn at(seconds: i64) -> BootNanos {
    BootNanos(seconds * SECOND)
}

pub(super) fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).expect("a range")
}

pub(super) fn set(ranges: impl IntoIterator<Item = SeqRange>) -> RangeSet {
    ranges.into_iter().collect()
}

pub(super) fn line(store: StoreUuid, current: bool, high: u64) -> Line {
    Line { store, current, high: SegmentSeq(high), recheck: None }
}

pub(super) fn stated(store: StoreUuid, cumulative: u64, high: u64) -> StoreAck {
    StoreAck {
        store,
        cumulative: SegmentSeq(cumulative),
        ranges: vec![],
        high: SegmentSeq(high),
        conflicts: vec![],
        verified: None,
    }
}

pub(super) fn ack(stores: &[StoreAck]) -> Event {
    Event::Ack(Ack { stores: stores.to_vec() })
}

/// A store of segments of one number each, 1000 bytes, and a machine; performs what the machine asks at once, and keeps
/// account of it.
pub(super) struct Story {
    pub(super) machine: Machine,
    pub(super) lines: Vec<Line>,
    pub(super) catalog: u64,
    pub(super) acked: Vec<(StoreUuid, RangeSet)>,
    /// Which numbers are gone: never sent, not pending.
    pub(super) gone: Vec<(StoreUuid, u64)>,
    pub(super) bytes: u64,
    pub(super) now: BootNanos,
    pub(super) done: Vec<String>,
    pub(super) accounts: Vec<Account>,
}

impl Story {
    pub(super) fn new(lines: &[Line]) -> Self {
        Self {
            machine: Machine::new(None, at(0)),
            lines: lines.to_vec(),
            catalog: 1,
            acked: vec![],
            gone: vec![],
            bytes: 1000,
            now: at(0),
            done: vec![],
            accounts: vec![],
        }
    }

    pub(super) fn on(&mut self, event: Event) -> &mut Self {
        self.machine.on(event, self.now);
        self
    }

    pub(super) fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now.0 += seconds * SECOND;
        self
    }

    /// The next action; what only gives way to the pages before it is waited for.
    pub(super) fn next(&mut self) -> Option<Action> {
        let action = self.machine.next(self.now);
        match self.machine.held_until.filter(|_| action.is_none() && self.machine.sends_segments()) {
            Some(until) => {
                assert_eq!(self.machine.wake_at(), until);
                self.now = until;
                self.machine.next(self.now)
            }
            None => action,
        }
    }

    /// Performs everything that the machine wants now; gives what was published, in order.
    pub(super) fn run(&mut self) -> Vec<String> {
        for _ in 0..2000 {
            match self.next() {
                Some(action) => self.perform(action),
                None => return std::mem::take(&mut self.done),
            }
        }
        panic!("the machine never rests");
    }

    pub(super) fn is_acked(&self, store: StoreUuid, seq: u64) -> bool {
        self.acked.iter().any(|(of, ranges)| *of == store && ranges.contains(SegmentSeq(seq)))
    }

    pub(super) fn perform(&mut self, action: Action) {
        let event = match action {
            Action::ReadStores => Event::Stores { lines: self.lines.clone(), catalog: self.catalog },
            Action::ReadHeads { store, purpose, after, limit } => {
                let high = self.lines.iter().find(|l| l.store == store).map_or(0, |l| l.high.0);
                let held = (after.0 + 1..=high).filter(|seq| !self.gone.contains(&(store, *seq)));
                let wanted = held.filter(|seq| !self.is_acked(store, *seq));
                let heads = wanted.take(limit).map(|seq| Head { range: range(seq, seq), bytes: self.bytes }).collect();
                Event::Heads { store, purpose, after, heads }
            }
            Action::ReadNewest { store, before, limit } => {
                let held = (1..before.0).rev().filter(|seq| !self.gone.contains(&(store, *seq)));
                let wanted = held.filter(|seq| !self.is_acked(store, *seq));
                let heads = wanted.take(limit).map(|seq| Head { range: range(seq, seq), bytes: self.bytes }).collect();
                Event::Newest { store, before, heads }
            }
            Action::Send { catalog, .. } if catalog != self.catalog => Event::CatalogChanged { catalog: self.catalog },
            Action::Send { store, at, purpose, .. } if self.gone.contains(&(store, at.0)) => {
                Event::Missing { store, at, purpose }
            }
            Action::Send { store, at, purpose, .. } => {
                let name = if store == CURRENT { "new" } else { "old" };
                self.done.push(format!("{name} {at} {purpose:?}"));
                Event::Sent { store, range: range(at.0, at.0), bytes: self.bytes, purpose }
            }
            Action::Copy { catalog, .. } if catalog != self.catalog => Event::CatalogChanged { catalog: self.catalog },
            Action::Copy { store, within, .. } => {
                let seq = (within.first.0..=within.last.0).find(|seq| !self.gone.contains(&(store, *seq)));
                let told = seq.map(|seq| self.told(store, seq));
                Event::Copied { store, within, told }
            }
            Action::PublishAccount(account) => {
                self.done.push(match &account.stretch {
                    _ if account.last => "account last".into(),
                    None => "account begins".into(),
                    Some(stretch) => format!("account {}", stretch.range),
                });
                self.accounts.push(account.clone());
                Event::AccountPublished(account)
            }
            Action::PublishCatalog { all } => {
                self.done.push(if all { "catalog all".into() } else { "catalog".into() });
                Event::CatalogPublished { catalog: self.catalog, all }
            }
            Action::PublishState => {
                self.done.push("state".into());
                Event::StatePublished
            }
            Action::SetAcked { store, ranges } => {
                self.acked.retain(|(of, _)| *of != store);
                self.acked.push((store, ranges));
                Event::AckedSet
            }
            Action::RecordGone { store, range } => {
                let through =
                    (range.first.0..=range.last.0).take_while(|seq| self.gone.contains(&(store, *seq))).last();
                let through = SegmentSeq(through.expect("the first is gone"));
                self.done.push(format!("gone {}..={through}", range.first));
                self.gone.retain(|(of, seq)| *of != store || *seq > through.0);
                Event::Gone { store, through }
            }
            Action::Recheck { store, why } => {
                self.done.push(format!("recheck {why:?}"));
                let line = self.lines.iter_mut().find(|l| l.store == store).expect("a known store");
                let was_current = std::mem::replace(&mut line.current, false);
                line.recheck = Some(77);
                self.acked.retain(|(of, _)| *of != store);
                if was_current {
                    self.lines.insert(
                        0,
                        Line { store: StoreUuid::from_u128(9), current: true, high: SegmentSeq(0), recheck: None },
                    );
                }
                Event::Rechecking { store, nonce: 77 }
            }
        };
        self.machine.on(event, self.now);
    }

    /// Every tenth number is a loss; the others add up to themselves.
    pub(super) fn told(&mut self, store: StoreUuid, seq: u64) -> Told {
        let name = if store == CURRENT { "new" } else { "old" };
        self.done.push(format!("{name} {seq} copy"));
        let loss = seq % 10 == 0;
        let readings = (!loss).then_some(Sum { readings: 1, digest: seq });
        Told { range: range(seq, seq), bytes: self.bytes, readings, loss }
    }

    pub(super) fn commit(&mut self) -> &mut Self {
        let current = self.lines.iter_mut().find(|line| line.current).expect("a current store");
        current.high.0 += 1;
        self.on(Event::Committed)
    }
}

pub(super) fn sent(numbers: impl IntoIterator<Item = u64>, name: &str, purpose: &str) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{name} {n} {purpose}")).collect()
}

/// Connected, with the ack of a fleet that holds the first three.
pub(super) fn open(high: u64, held: u64) -> Story {
    let mut story = Story::new(&[line(CURRENT, true, high)]);
    story.run();
    story.on(Event::Connected).on(ack(&[stated(CURRENT, held, held)]));
    story
}
