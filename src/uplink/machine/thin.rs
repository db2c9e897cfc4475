//! A link of 2 kB/s with 2 s each way, between the machine and a fleet that takes in what comes: what goes when, how often,
//! and how long a new reading takes beside a backlog of a million readings.

use super::*;
use crate::clock::{Now, UtcNanos};
use crate::reading::SegmentSeq;
use crate::reading::ranges::RangeSet;
use crate::wire::StoreAck;
use std::collections::BTreeMap;

const STORE: StoreUuid = StoreUuid::from_u128(1);
const MS: i64 = SECOND / 1000;

/// What a commit of new readings takes, in bytes: 50 series at 1 Hz for 10 s.
const COMMIT_BYTES: u64 = 1_000;

/// Beside the bytes of a frame: topic, envelope, headers.
const EXTRA: u64 = 120;

struct Wire {
    bytes_per_s: f64,
    delay_ns: i64,
    /// The socket's buffer: a message is taken when what waits before it is no more.
    buffer_bytes: u64,
    /// When all that was handed over is across.
    free: BootNanos,
}

impl Wire {
    /// When `bytes` that are handed over now are across, and how long they take by themselves.
    fn carry(&mut self, bytes: u64, now: BootNanos) -> (BootNanos, i64) {
        let takes = (bytes as f64 / self.bytes_per_s * SECOND as f64) as i64;
        self.free = BootNanos(self.free.0.max(now.0) + takes);
        (BootNanos(self.free.0 + self.delay_ns), takes)
    }

    /// When what waits is no more than fits in the buffer.
    fn takes_more(&self) -> BootNanos {
        let buffered = (self.buffer_bytes as f64 / self.bytes_per_s * SECOND as f64) as i64;
        BootNanos(self.free.0 - buffered)
    }
}

enum Arrival {
    PubAck,
    Segment(SeqRange),
    Ack,
}

/// A device whose segments are known by their last number, and its fleet.
struct Site {
    machine: Machine,
    wire: Wire,
    now: BootNanos,
    /// By range: bytes, and when they were committed.
    segments: BTreeMap<SeqRange, (u64, BootNanos)>,
    high: u64,
    acked: RangeSet,
    held: BTreeMap<SeqRange, BootNanos>,
    coming: Vec<(BootNanos, Arrival)>,
    /// How often each went out as a whole, and the longest time of one message.
    sent: BTreeMap<SeqRange, u32>,
    longest_ns: i64,
    payload: usize,
}

impl Site {
    fn new(config: PaceConfig, backlog: &[u64]) -> Self {
        let wire = Wire { bytes_per_s: 2_000.0, delay_ns: 2 * SECOND, buffer_bytes: 64 << 10, free: BootNanos(0) };
        let mut site = Self {
            machine: Machine::new(None, BootNanos(0)).paced(config, 120 << 10, false, BootNanos(0)),
            wire,
            now: BootNanos(0),
            segments: BTreeMap::new(),
            high: 0,
            acked: RangeSet::new(),
            held: BTreeMap::new(),
            coming: vec![],
            sent: BTreeMap::new(),
            longest_ns: 0,
            payload: 0,
        };
        backlog.iter().for_each(|bytes| site.commit(*bytes));
        site.settle();
        site.machine.on(Event::Connected, site.now);
        let none = StoreAck {
            store: STORE,
            cumulative: SegmentSeq(0),
            ranges: vec![],
            high: SegmentSeq(site.high),
            conflicts: vec![],
            verified: None,
        };
        site.machine.on(Event::Ack(Ack { stores: vec![none] }), site.now);
        site
    }

    fn commit(&mut self, bytes: u64) {
        self.high += 1;
        self.segments.insert(SeqRange::new(self.high, self.high).expect("a range"), (bytes, self.now));
        self.machine.on(Event::Committed, self.now);
    }

    /// For so long, with a commit of new readings every ten seconds.
    fn run(&mut self, seconds: i64) {
        for step in 1..=seconds * 100 {
            self.now.0 += 10 * MS;
            let (arrived, coming) = std::mem::take(&mut self.coming).into_iter().partition(|(at, _)| *at <= self.now);
            self.coming = coming;
            let arrived: Vec<(BootNanos, Arrival)> = arrived;
            arrived.into_iter().for_each(|(_, what)| self.arrive(what));
            if step % 1000 == 0 {
                self.commit(COMMIT_BYTES);
            }
            if step % 100 == 0 {
                self.machine.on(Event::Time(Now { boot: self.now, utc: UtcNanos(0), trusted: false }), self.now);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        while self.wire.takes_more() <= self.now {
            let Some(action) = self.machine.next(self.now) else { return };
            let event = self.perform(action);
            self.machine.on(event, self.now);
        }
    }

    fn publish(&mut self, bytes: u64) -> BootNanos {
        self.machine.on(Event::Published { bytes, begun: self.now }, self.now);
        let (across, takes) = self.wire.carry(bytes + EXTRA, self.now);
        self.longest_ns = self.longest_ns.max(takes);
        self.coming.push((BootNanos(across.0 + self.wire.delay_ns), Arrival::PubAck));
        across
    }

    fn perform(&mut self, action: Action) -> Event {
        let line = Line { store: STORE, current: true, high: SegmentSeq(self.high), recheck: None };
        let pending = |site: &Self| -> Vec<Head> {
            let of = site.segments.iter().filter(|(range, _)| !site.acked.covers(**range));
            of.map(|(range, (bytes, _))| Head { range: *range, bytes: *bytes }).collect()
        };
        match action {
            Action::ReadStores => Event::Stores { lines: vec![line], catalog: 1 },
            Action::ReadHeads { store, purpose, after, limit } => {
                let heads = pending(self).into_iter().filter(|head| head.range.first > after).take(limit).collect();
                Event::Heads { store, purpose, after, heads }
            }
            Action::ReadNewest { store, before, limit } => {
                let heads = pending(self).into_iter().rev().filter(|head| head.range.first < before).take(limit);
                Event::Newest { store, before, heads: heads.collect() }
            }
            Action::Send { store, at, purpose, cut, .. } => self.send(store, at, purpose, cut),
            Action::PublishCatalog { all } => {
                self.publish(3_000);
                Event::CatalogPublished { catalog: 1, all }
            }
            Action::PublishState => {
                self.publish(150);
                Event::StatePublished
            }
            Action::SetAcked { ranges, .. } => {
                self.acked = ranges;
                Event::AckedSet
            }
            Action::RecordGone { .. } | Action::Recheck { .. } => panic!("nothing is gone and nobody doubts"),
            Action::Copy { .. } | Action::PublishAccount(_) => panic!("nobody asked for a snapshot"),
        }
    }

    fn send(&mut self, store: StoreUuid, at: SegmentSeq, purpose: Purpose, cut: Cut) -> Event {
        let range = SeqRange { first: at, last: at };
        let bytes = self.segments[&range].0;
        self.payload = self.payload.max(cut.payload_bytes);
        let size = cut.payload_bytes as u64;
        let mut through = cut.rest.map_or(0, |rest| u64::from(rest.through));
        loop {
            let piece = size.min(bytes - through);
            through += piece;
            let across = self.publish(piece);
            if through == bytes {
                self.coming.push((BootNanos(across.0 + SECOND / 2), Arrival::Segment(range)));
                *self.sent.entry(range).or_default() += 1;
                return Event::Sent { store, range, bytes, purpose };
            }
            if !cut.whole {
                return Event::Piece(Rest { store, range, hash: 0, bytes, through: through as u32, purpose });
            }
        }
    }

    fn arrive(&mut self, what: Arrival) {
        match what {
            Arrival::PubAck => self.machine.on(Event::Passed, self.now),
            Arrival::Segment(range) => {
                self.held.entry(range).or_insert(self.now);
                self.coming.push((BootNanos(self.now.0 + self.wire.delay_ns), Arrival::Ack));
            }
            Arrival::Ack => {
                let held: RangeSet = self.held.keys().copied().collect();
                let (cumulative, ranges) = (held.cumulative(), held.rest(crate::wire::MAX_RANGES));
                let high = held.high();
                let stated = StoreAck { store: STORE, cumulative, ranges, high, conflicts: vec![], verified: None };
                self.machine.on(Event::Ack(Ack { stores: vec![stated] }), self.now);
            }
        }
    }

    /// How long each segment above `above` took from its commit to the fleet, in seconds: the mean and the longest.
    fn latency_s(&self, above: u64) -> (f64, f64) {
        let took = |(range, at): (&SeqRange, &BootNanos)| (at.0 - self.segments[range].1.0) as f64 / SECOND as f64;
        let all: Vec<f64> = self.held.iter().filter(|(range, _)| range.first.0 > above).map(took).collect();
        assert!(!all.is_empty());
        (all.iter().sum::<f64>() / all.len() as f64, all.iter().copied().fold(0.0, f64::max))
    }
}

/// A million readings as compaction leaves them, about a byte each, and the last hour's small commits.
fn million() -> Vec<u64> {
    let mut backlog = vec![100 << 10; 9];
    backlog.extend([COMMIT_BYTES; 60]);
    backlog
}

/// A link of 2 kB/s with 2 s each way drains a million readings, from either end: nothing is sent twice for being slow, no
/// message is longer on the wire than a broker waits, and most of the link is used.
#[test]
fn a_thin_link_drains() {
    for backlog in [BacklogOrder::Oldest, BacklogOrder::Newest] {
        let mut site = Site::new(PaceConfig { backlog, ..PaceConfig::default() }, &million());
        let bytes: u64 = million().iter().sum();
        // New readings take 5 % of the link; the small segments go six in a round trip, which leaves some of it idle.
        let seconds = (bytes as f64 / 2_000.0 / 0.95 / 0.85) as i64;
        site.run(seconds);
        let backlog_held = site.held.keys().filter(|range| range.first.0 <= million().len() as u64).count();
        assert_eq!(backlog_held, million().len(), "after {seconds} s");
        let twice: Vec<_> = site.sent.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "sent twice: {twice:?}");
        assert!(site.longest_ns < 20 * SECOND, "a message of {} s", site.longest_ns / SECOND);
        println!("{backlog:?}: drained within {seconds} s, messages of up to {:.1} s", site.longest_ns as f64 / 1e9);
    }
}

/// A new reading waits for what is already on the way of the backlog and for nothing else of it: with a million readings
/// waiting it takes at most ten seconds longer than without on a link of 2 kB/s, and no longer on a fast one.
#[test]
fn a_new_reading_hardly_waits_for_the_backlog() {
    for (bytes_per_s, delay_ms, worse_s) in [(2_000.0, 2_000, 12.0), (1_000_000.0, 20, 0.3)] {
        let with = |backlog: &[u64]| {
            let mut site = Site::new(PaceConfig::default(), backlog);
            (site.wire.bytes_per_s, site.wire.delay_ns) = (bytes_per_s, delay_ms * MS);
            site.run(300);
            site.latency_s(backlog.len() as u64)
        };
        // For five minutes a backlog that lasts longer than that on either link.
        let long = if bytes_per_s > 10_000.0 { million().repeat(400) } else { million() };
        let (alone, beside) = (with(&[]), with(&long));
        println!("{bytes_per_s} B/s: mean and longest {alone:.2?} s alone, {beside:.2?} s beside the backlog");
        assert!(beside.1 <= alone.1 + worse_s, "{bytes_per_s} B/s: {alone:?} s alone, {beside:?} s beside the backlog");
    }
}
