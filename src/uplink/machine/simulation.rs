//! Hours of bad luck in a moment: the machine against a receiver over a link that loses, delays, reorders and breaks, with
//! a store that compacts and expires beneath it and a fleet that loses its last day. Everything follows from one seed.

use super::*;
use crate::reading::SegmentSeq;
use crate::reading::ranges::RangeSet;
use crate::uplink::flights::WINDOW;
use crate::wire::{self, Request, StoreAck};
use std::collections::BTreeSet;

const STORE: StoreUuid = StoreUuid::from_u128(1);

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }
}

enum Up {
    Segment(SeqRange, u64),
    Catalog(u64),
    State { high: u64, pending: Vec<SeqRange> },
}

enum Down {
    Ack(Ack),
    Request(Request),
}

struct World {
    dice: Dice,
    now: BootNanos,
    machine: Machine,
    up: bool,
    // The device's store: disjoint ranges, and from which version of the catalogue on their names are known.
    segments: Vec<(SeqRange, u64)>,
    high: u64,
    acked: RangeSet,
    catalog: u64,
    // On the way.
    to_fleet: VecDeque<(BootNanos, Up)>,
    to_device: Vec<(BootNanos, Down)>,
    // The fleet.
    held: BTreeSet<u64>,
    fleet_high: u64,
    fleet_catalog: u64,
    fleet_state: (u64, Vec<SeqRange>),
    asked: BootNanos,
    retained: Option<Ack>,
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let backlog = if seed % 2 == 0 { BacklogOrder::Oldest } else { BacklogOrder::Newest };
        let config = PaceConfig { backlog, ..PaceConfig::default() };
        Self {
            dice: Dice(seed),
            now: BootNanos(0),
            machine: Machine::new(None, BootNanos(0)).paced(config, 120 << 10, false, BootNanos(0)),
            up: false,
            segments: vec![],
            high: 0,
            acked: RangeSet::new(),
            catalog: 1,
            to_fleet: VecDeque::new(),
            to_device: vec![],
            held: BTreeSet::new(),
            fleet_high: 0,
            fleet_catalog: 0,
            fleet_state: (0, vec![]),
            asked: BootNanos(i64::MIN),
            retained: None,
            calm: false,
        }
    }

    fn pending(&self) -> Vec<SeqRange> {
        self.segments.iter().map(|(range, _)| *range).filter(|range| !self.acked.covers(*range)).collect()
    }

    fn step(&mut self) {
        self.now.0 += (self.dice.roll(4000) as i64 + 1) * SECOND / 1000;
        if !self.calm {
            self.mischief();
        }
        if !self.up && (self.calm || self.dice.percent(30)) {
            self.up = true;
            self.machine.on(Event::Connected, self.now);
            if let Some(ack) = self.retained.clone() {
                let at = self.later();
                self.to_device.push((at, Down::Ack(ack)));
            }
        }
        while let Some(action) = self.machine.next(self.now) {
            let event = self.perform(action);
            self.machine.on(event, self.now);
            let (count, bytes) = self.machine.flights.window();
            // A segment larger than the window travels alone, but for what the backlog leaves to new readings.
            let beside = bytes - self.machine.flights.largest();
            assert!(count <= WINDOW && (beside <= 32 * 1024 || bytes <= 256 * 1024), "{count} segments, {bytes} bytes");
        }
        self.deliver();
    }

    fn mischief(&mut self) {
        if self.dice.percent(25) {
            self.high += 1;
            self.catalog += u64::from(self.dice.percent(10));
            self.segments.push((SeqRange::new(self.high, self.high).expect("a range"), self.catalog));
            self.machine.on(Event::Committed, self.now);
        }
        if self.up && self.dice.percent(4) {
            self.up = false;
            // A break takes what is on the way, from some point on.
            let arrives = self.dice.roll(self.to_fleet.len() as u64 + 1) as usize;
            self.to_fleet.truncate(arrives);
            self.to_device.clear();
            self.machine.on(Event::Disconnected, self.now);
        }
        if self.dice.percent(10) {
            self.compact();
        }
        if self.dice.percent(3) {
            let acked = self.acked.clone();
            let flying = self.machine.in_flight();
            let spared = |range: &SeqRange| flying.iter().any(|(_, flight)| flight.overlaps(range));
            self.segments.retain(|(range, _)| !acked.covers(*range) || spared(range));
        }
        if self.dice.percent(1) && self.dice.percent(20) {
            // The fleet's disk is put back to some earlier day.
            let from = self.dice.roll(self.fleet_high + 1);
            self.held.retain(|seq| *seq < from);
            self.publish_ack();
        }
    }

    /// Two neighbours of one ack state that are not in flight become one.
    fn compact(&mut self) {
        let flying = self.machine.in_flight();
        let free = |range: &SeqRange| !flying.iter().any(|(_, flight)| flight.overlaps(range));
        let joins = |pair: &[(SeqRange, u64)]| {
            let (a, b) = (&pair[0].0, &pair[1].0);
            a.last.0 + 1 == b.first.0
                && free(a)
                && free(b)
                && self.acked.covers(*a) == self.acked.covers(*b)
                && b.last.0 - a.first.0 < 16
        };
        if let Some(at) = self.segments.windows(2).position(joins) {
            let (next, cites) = self.segments.remove(at + 1);
            self.segments[at].0.last = next.last;
            self.segments[at].1 = self.segments[at].1.max(cites);
        }
    }

    fn later(&mut self) -> BootNanos {
        let most = if self.calm { 100 } else { 9000 };
        BootNanos(self.now.0 + self.dice.roll(most) as i64 * SECOND / 1000)
    }

    fn send(&mut self, what: Up) {
        // What a broker takes and loses without a break.
        if self.calm || !self.dice.percent(5) {
            let after = self.to_fleet.back().map_or(self.now, |(at, _)| *at);
            let at = self.later().max(after);
            self.to_fleet.push_back((at, what));
        }
    }

    fn perform(&mut self, action: Action) -> Event {
        let line = Line { store: STORE, current: true, high: SegmentSeq(self.high), recheck: None };
        match action {
            Action::ReadStores => Event::Stores { lines: vec![line], catalog: self.catalog },
            Action::ReadHeads { store, purpose, after, limit } => {
                let pending = self.pending().into_iter().filter(|range| range.first > after).take(limit);
                let heads = pending.map(|range| Head { range, bytes: 9000 * (range.last.0 - range.first.0 + 1) });
                Event::Heads { store, purpose, after, heads: heads.collect() }
            }
            Action::Send { catalog, .. } if catalog != self.catalog => Event::CatalogChanged { catalog: self.catalog },
            Action::Send { store, at, purpose, cut, .. } => {
                let found = self.segments.iter().find(|(range, _)| range.first <= at && at <= range.last).copied();
                let Some((range, cites)) = found else { return Event::Missing { store, at, purpose } };
                let bytes = 9000 * (range.last.0 - range.first.0 + 1);
                // A piece is lost here only with its whole segment; what the receiver makes of pieces is its own story.
                let begun = cut.rest.filter(|rest| rest.range == range).map_or(0, |rest| rest.through);
                let through = begun + 8 * cut.payload_bytes as u32;
                if !cut.whole && u64::from(through) < bytes {
                    return Event::Piece(Rest { store, range, hash: 0, bytes, through, purpose });
                }
                self.send(Up::Segment(range, cites));
                Event::Sent { store, range, bytes, purpose }
            }
            Action::ReadNewest { store, before, limit } => {
                let pending = self.pending().into_iter().rev().filter(|range| range.first < before).take(limit);
                let heads = pending.map(|range| Head { range, bytes: 9000 * (range.last.0 - range.first.0 + 1) });
                Event::Newest { store, before, heads: heads.collect() }
            }
            Action::PublishCatalog { all } => {
                self.send(Up::Catalog(self.catalog));
                Event::CatalogPublished { catalog: self.catalog, all }
            }
            Action::PublishState => {
                self.send(Up::State {
                    high: self.high,
                    pending: self.pending().into_iter().collect::<RangeSet>().iter().collect(),
                });
                Event::StatePublished
            }
            Action::SetAcked { ranges, .. } => {
                self.acked = ranges;
                Event::AckedSet
            }
            Action::RecordGone { store, range } => {
                let missing = (range.first.0..=range.last.0)
                    .take_while(|seq| !self.segments.iter().any(|(r, _)| r.first.0 <= *seq && *seq <= r.last.0));
                let through = SegmentSeq(missing.last().expect("the first is missing"));
                let loss = SeqRange { first: range.first, last: through };
                self.segments.push((loss, 0));
                self.segments.sort_unstable();
                Event::Gone { store, through: SegmentSeq(range.first.0 - 1) }
            }
            Action::Copy { .. } | Action::PublishAccount(_) => panic!("nobody asks for a snapshot"),
            Action::Recheck { why, .. } => panic!("there is no twin: {why:?}"),
        }
    }

    fn deliver(&mut self) {
        while self.to_fleet.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, what)) = self.to_fleet.pop_front() else { return };
            self.take_in(what);
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.to_device).into_iter().partition(|(at, _)| *at <= self.now);
        self.to_device = rest;
        for (_, what) in due {
            let event = match what {
                Down::Ack(ack) => Event::Ack(ack),
                Down::Request(request) => Event::Request(request),
            };
            self.machine.on(event, self.now);
        }
        if self.now.0.saturating_sub(self.asked.0) > 60 * SECOND {
            self.ask_for_gaps();
        }
    }

    fn take_in(&mut self, what: Up) {
        match what {
            Up::Catalog(version) => self.fleet_catalog = self.fleet_catalog.max(version),
            Up::State { high, pending } => self.fleet_state = (high, pending),
            Up::Segment(_, cites) if cites > self.fleet_catalog => self.tell(Down::Request(Request::Catalog)),
            Up::Segment(range, _) => {
                self.held.extend(range.first.0..=range.last.0);
                self.fleet_high = self.fleet_high.max(range.last.0);
                self.publish_ack();
            }
        }
    }

    fn publish_ack(&mut self) {
        let one = |seq: &u64| SeqRange { first: SegmentSeq(*seq), last: SegmentSeq(*seq) };
        let held: RangeSet = self.held.iter().map(one).collect();
        let (cumulative, ranges) = (held.cumulative(), held.rest(wire::MAX_RANGES));
        let high = SegmentSeq(self.fleet_high);
        let stated = StoreAck { store: STORE, cumulative, ranges, high, conflicts: vec![], verified: None };
        let ack = Ack { stores: vec![stated] };
        self.retained = Some(ack.clone());
        self.tell(Down::Ack(ack));
    }

    fn tell(&mut self, what: Down) {
        if self.up && (self.calm || !self.dice.percent(20)) {
            let at = self.later();
            self.to_device.push((at, what));
        }
    }

    /// Neither held, nor pending by the device's last word.
    fn ask_for_gaps(&mut self) {
        self.asked = self.now;
        let (high, pending) = &self.fleet_state;
        let one = |seq| SeqRange { first: SegmentSeq(seq), last: SegmentSeq(seq) };
        let mut gaps: RangeSet = (1..=*high).filter(|seq| !self.held.contains(seq)).map(one).collect();
        pending.iter().for_each(|range| gaps.remove(*range));
        let ranges: Vec<SeqRange> = gaps.iter().take(wire::MAX_RANGES).collect();
        if !ranges.is_empty() {
            self.tell(Down::Request(Request::Segments { store: STORE, ranges }));
        }
    }
}

/// After any amount of bad luck, an hour of good luck brings everything to the fleet: as readings, or as a dated loss for
/// what the fleet had acknowledged and then lost itself.
#[test]
fn after_bad_luck_everything_arrives() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..3000 {
            world.step();
        }
        world.calm = true;
        for _ in 0..2000 {
            world.step();
        }
        assert!(world.high > 500, "seed {seed}: nothing happened");
        let missing: Vec<u64> = (1..=world.high).filter(|seq| !world.held.contains(seq)).collect();
        assert_eq!(missing, Vec::<u64>::new(), "seed {seed}: not at the fleet");
        assert_eq!(world.pending(), [], "seed {seed}: still pending");
        assert_eq!(world.machine.in_flight(), [], "seed {seed}: still in flight");
    }
}
