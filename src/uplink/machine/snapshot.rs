//! A snapshot: everything that the file holds, or a range of it, sent again when all else rests, with an account of it.
//!
//! What enters: the fleet's request, or the interval. What leaves: segments of one store after another, stretch by stretch,
//! each followed by what the device holds of it. One at a time, and it remembers nothing over a broken connection: the fleet
//! knows what it has verified, and asks for the rest under the same number. Bounded: a stretch is [`STRETCH_SEGMENTS`]
//! segments or a little more than [`STRETCH_BYTES`].
//!
//! ```text
//! account (begins) ─► segment, segment … account of the stretch ─► segment … account ─► … ─► account (last)
//! ```

use super::Machine;
use super::event::{Action, Cut, Rest, Told};
use crate::clock::BootNanos;
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use crate::segment::Sum;
use crate::wire::{Account, SnapshotRequest, StoreUuid, Stretch};
use std::collections::VecDeque;

/// The most segments of a stretch: their ranges fit an account however they lie.
pub(super) const STRETCH_SEGMENTS: usize = 64;

/// A stretch ends with the segment that brings it to so many bytes of bodies: what a cut may cost to send again.
const STRETCH_BYTES: u64 = 256 * 1024;

/// How far it has come.
#[derive(Debug)]
pub(super) struct Snapshot {
    nonce: u64,
    /// All that it is of.
    stores: Vec<(StoreUuid, SeqRange)>,
    /// What is still to do, in order.
    left: VecDeque<(StoreUuid, SeqRange)>,
    /// What was sent since the last account.
    sent: Option<Sent>,
    /// A segment of which some messages went out.
    rest: Option<Rest>,
    /// The fleet has been told that it begins.
    begun: bool,
    /// Nobody asked for it.
    own: bool,
}

/// The stretch under way.
#[derive(Debug)]
struct Sent {
    store: StoreUuid,
    range: SeqRange,
    readings: RangeSet,
    losses: RangeSet,
    sum: Sum,
    segments: usize,
    bytes: u64,
    /// The next number is not to be sent, or there is none.
    ends: bool,
}

impl Machine {
    pub(super) fn snapshot(&mut self, now: BootNanos) -> Option<Action> {
        if self.snapshot.is_none() && self.next_snapshot.is_some_and(|when| when <= now) {
            self.next_snapshot = self.snapshot_every_ns.map(|every| BootNanos(now.0.saturating_add(every)));
            self.own_nonce = self.own_nonce.wrapping_add(1);
            self.begin_snapshot(&SnapshotRequest { nonce: self.own_nonce, only: None, done: Vec::new() }, true);
            return self.announcement(now).or_else(|| self.next_of_snapshot());
        }
        self.next_of_snapshot()
    }

    fn next_of_snapshot(&self) -> Option<Action> {
        let snapshot = self.snapshot.as_ref()?;
        Some(match (snapshot.left.front(), &snapshot.sent) {
            _ if !snapshot.begun => Action::PublishAccount(snapshot.account(None, false)),
            (_, Some(sent)) if sent.is_over() => Action::PublishAccount(snapshot.account(Some(sent.stretch()), false)),
            (Some((store, within)), _) => {
                let cut = Cut { payload_bytes: self.pace.message_bytes(), whole: false, rest: snapshot.rest };
                Action::Copy { store: *store, within: *within, catalog: self.catalog.known(), cut }
            }
            (None, _) => Action::PublishAccount(snapshot.account(None, true)),
        })
    }

    /// Begins what is asked for, in the place of another that is under way. What goes on under the same number goes on.
    pub(super) fn begin_snapshot(&mut self, request: &SnapshotRequest, own: bool) {
        if self.plans.is_empty() || self.snapshot.as_ref().is_some_and(|snapshot| snapshot.nonce == request.nonce) {
            return;
        }
        // What is committed from now on is sent anyway.
        let all = self.plans.iter().filter_map(|plan| Some((plan.line.store, SeqRange::new(1, plan.line.high.0)?)));
        let stores: Vec<(StoreUuid, SeqRange)> = match request.only {
            None => all.collect(),
            Some((store, only)) => {
                let of_store = all.filter(|(of, _)| *of == store);
                of_store.filter_map(|(_, all)| Some((store, clipped(only, all)?))).collect()
            }
        };
        let mut left = VecDeque::new();
        for (store, range) in &stores {
            let done = request.done.iter().filter(|done| done.store == *store).flat_map(|done| done.ranges.iter());
            let done: RangeSet = done.copied().collect();
            left.extend(done.gaps(*range).iter().map(|range| (*store, range)));
        }
        self.catalog.ask();
        self.snapshot =
            Some(Snapshot { nonce: request.nonce, stores, left, sent: None, rest: None, begun: false, own });
    }

    /// The connection is gone, and with it what was on the way; the fleet asks again. It can't where it never heard of it.
    pub(super) fn break_snapshot(&mut self, now: BootNanos) {
        if self.snapshot.take().is_some_and(|snapshot| snapshot.own && !snapshot.begun) {
            self.next_snapshot = Some(now);
        }
    }

    /// Some messages of a segment went out.
    pub(super) fn copy_begun(&mut self, rest: Rest) {
        self.committed_to(rest.store, rest.range.last);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.rest = Some(rest);
        }
    }

    /// The segment of a snapshot of which some messages went out.
    pub(super) fn copying(&self) -> Option<Rest> {
        self.snapshot.as_ref().and_then(|snapshot| snapshot.rest)
    }

    /// A segment of it went out, or there is none within what was looked for.
    pub(super) fn copied(&mut self, store: StoreUuid, within: SeqRange, told: Option<Told>) {
        if let Some(told) = &told {
            self.committed_to(store, told.range.last);
        }
        let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.left.front() == Some(&(store, within))) else {
            return;
        };
        snapshot.rest = None;
        let sent = snapshot.sent.get_or_insert_with(|| Sent::none(store, within.first));
        let through = told.map_or(within.last, |told| sent.add(&told));
        sent.range.last = sent.range.last.max(through);
        match SeqRange::new(through.0.saturating_add(1), within.last.0) {
            Some(rest) => snapshot.left[0].1 = rest,
            None => {
                sent.ends = true;
                snapshot.left.pop_front();
            }
        }
    }

    pub(super) fn account_published(&mut self, account: &Account) {
        let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.nonce == account.nonce) else { return };
        match &account.stretch {
            _ if account.last => self.snapshot = None,
            None => snapshot.begun = true,
            Some(_) => snapshot.sent = None,
        }
    }
}

impl Snapshot {
    fn account(&self, stretch: Option<Stretch>, last: bool) -> Account {
        Account { nonce: self.nonce, stores: self.stores.clone(), stretch, last }
    }
}

impl Sent {
    fn none(store: StoreUuid, first: SegmentSeq) -> Self {
        let range = SeqRange { first, last: first };
        let (readings, losses) = (RangeSet::new(), RangeSet::new());
        Self { store, range, readings, losses, sum: Sum::default(), segments: 0, bytes: 0, ends: false }
    }

    /// Adds a segment; up to which number nothing is left to send.
    fn add(&mut self, told: &Told) -> SegmentSeq {
        // Compaction may have joined it with what was sent before.
        self.range.first = self.range.first.min(told.range.first);
        self.segments += 1;
        self.bytes += told.bytes;
        match told.readings {
            Some(sum) => {
                self.readings.insert(told.range);
                self.sum.add(sum);
            }
            None if told.loss => self.losses.insert(told.range),
            // Of a later version: it is sent as it is, and nothing can be said of it.
            None => {}
        }
        told.range.last
    }

    fn is_over(&self) -> bool {
        self.ends || self.segments >= STRETCH_SEGMENTS || self.bytes >= STRETCH_BYTES
    }

    fn stretch(&self) -> Stretch {
        let (readings, losses) = (self.readings.iter().collect(), self.losses.iter().collect());
        Stretch { store: self.store, range: self.range, readings, losses, sum: self.sum }
    }
}

fn clipped(range: SeqRange, to: SeqRange) -> Option<SeqRange> {
    SeqRange::new(range.first.0.max(to.first.0), range.last.0.min(to.last.0))
}
