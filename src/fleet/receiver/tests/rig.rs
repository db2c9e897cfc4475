//! A receiver in a folder, and devices that speak to it.

use super::super::*;
use crate::clock::{Anchor, UtcNanos};
pub(super) use crate::fleet::receiver::answers::{MAX_ACK_BYTES, ack_payload};
use crate::fleet::replica::roster;
use crate::fleet::replica::tests as replica;
use crate::reading::{BootId, Kind, Scale, SeqRange, SeriesDef, SeriesId};
use crate::segment::{
    self, Column, Content, Loss, LossReason, Readings, Segment, Timeline, TimelineClock, Values, merge,
};
pub(super) use crate::wire::{Ack, MAX_RANGES, MAX_STORES, Request, StoreAck, encode};
use crate::wire::{CatalogBoot, StoreState, frames};
use std::path::PathBuf;

pub(super) const PREFIX: &str = "plant/varved";

/// Messages as a device sends them.
pub(super) type Sent = Vec<(String, Vec<u8>)>;

/// A receiver and its folder.
pub(super) struct Rig {
    pub(super) dir: tempfile::TempDir,
    pub(super) receiver: Option<Receiver>,
    pub(super) now: Now,
}

impl Rig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let now = Now { boot: BootNanos(1_000 * SECOND), utc: UtcNanos(1_800_000_000 * SECOND), trusted: true };
        let mut rig = Self { dir, receiver: None, now };
        rig.start();
        rig
    }

    pub(super) fn start(&mut self) {
        self.receiver = Some(Receiver::open(self.dir.path(), PREFIX).expect("a receiver"));
    }

    /// The process is gone, and with it all that was not durable.
    pub(super) fn kill(&mut self) {
        self.receiver = None;
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now.boot.0 += seconds * SECOND;
        self.now.utc.0 += seconds * SECOND;
    }

    /// One group of messages, and what is published for it.
    pub(super) fn hear(&mut self, messages: &[(String, Vec<u8>)]) -> Heard {
        let group: Vec<Message<'_>> = messages.iter().map(|(topic, payload)| Message { topic, payload }).collect();
        let receiver = self.receiver.as_mut().expect("running");
        Heard { published: group.chunks(MAX_GROUP).flat_map(|group| receiver.apply(group, self.now)).collect() }
    }

    pub(super) fn tick(&mut self) -> Heard {
        Heard { published: self.receiver.as_mut().expect("running").tick(self.now) }
    }

    pub(super) fn path(&self, device: &Unit) -> PathBuf {
        self.dir.path().join(&device.name).join(format!("{}.db", device.store))
    }

    pub(super) fn readings(&self, device: &Unit) -> Vec<replica::Row> {
        replica::readings(&self.path(device))
    }

    /// What `varved-fleet devices` could tell of `device`, or of nobody for `""`: each event that the roster has or is to get.
    pub(super) fn told(&self, device: &str) -> Vec<String> {
        let waiting = &self.receiver.as_ref().expect("running").events;
        let mut events = roster::events(self.dir.path(), 10_000).expect("a roster").remove(device).unwrap_or_default();
        events.extend(waiting.iter().filter(|event| event.device == device).cloned());
        events.into_iter().map(|event| event.detail).collect()
    }

    /// The reasons for which messages of `device` were refused, each named with its count and what was wrong.
    pub(super) fn named(&self, device: &Unit) -> BTreeSet<Refusal> {
        let told = self.told(&device.name);
        let is_told = |why: &Refusal| told.iter().any(|told| told.starts_with(&format!("refused ({why}, 1 so far): ")));
        Refusal::ALL.into_iter().filter(is_told).collect()
    }

    pub(super) fn refused(&self, device: &Unit) -> Vec<(Refusal, u64)> {
        self.receiver.as_ref().expect("running").devices[&device.name].entry.refused.iter().collect()
    }
}

/// What was published.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) published: Vec<Publication>,
}

impl Heard {
    /// The last ack to `device`, retained as it must be.
    pub(super) fn ack(&self, device: &Unit) -> Option<Ack> {
        let topic = topics::name(PREFIX, &device.name, Topic::Ack);
        let last = self.published.iter().rfind(|p| p.topic == topic);
        last.map(|p| {
            assert!(p.retain);
            decode(&p.payload).expect("an ack")
        })
    }

    /// What the last ack to `device` says of its store.
    pub(super) fn of(&self, device: &Unit) -> StoreAck {
        let ack = self.ack(device).expect("an ack");
        ack.stores.into_iter().find(|s| s.store == device.store).expect("the store in the ack")
    }

    pub(super) fn requests(&self, device: &Unit) -> Vec<Request> {
        let topic = topics::name(PREFIX, &device.name, Topic::Request);
        let of_device = self.published.iter().filter(|p| p.topic == topic);
        of_device
            .map(|p| {
                assert!(!p.retain);
                decode(&p.payload).expect("a request")
            })
            .collect()
    }
}

/// A device with one store, whose reading of each number is a function of the number and its salt.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) store: StoreUuid,
    pub(super) salt: i64,
    pub(super) session: u64,
    pub(super) run: u64,
    pub(super) recheck: Option<u64>,
}

impl Unit {
    pub(super) fn new(name: &str, store: u128) -> Self {
        Self { name: name.into(), store: StoreUuid::from_u128(store), salt: 0, session: 1, run: 1, recheck: None }
    }

    /// The same store, with another content from now on.
    pub(super) fn twin(&self, name: &str, salt: i64) -> Self {
        Self { name: name.into(), salt, session: self.session + 100, ..self.clone() }
    }

    pub(super) fn topic(&self, topic: Topic) -> String {
        topics::name(PREFIX, &self.name, topic)
    }

    /// The segment of one commit: one reading of each of two series.
    pub(super) fn commit(&self, seq: u64) -> Segment {
        let column = |series, value| Column {
            series: SeriesId(series),
            timeline: 0,
            values: Values::Int(vec![value]),
            missing: Vec::new(),
        };
        let stamps = vec![(seq as i64).wrapping_mul(SECOND)];
        let readings = Readings {
            timelines: vec![Timeline { clock: TimelineClock::Boot(BootId(1)), stamps }],
            columns: vec![column(1, self.value(1, seq)), column(2, self.value(2, seq))],
        };
        Segment { range: range(seq, seq), content: Content::Data { readings, names: Vec::new() } }
    }

    /// So many equal readings, which take a few bytes.
    pub(super) fn equal(&self, first: u64, last: u64, n: usize) -> Segment {
        let values = Values::Int(vec![5; n]);
        let columns = vec![Column { series: SeriesId(1), timeline: 0, values, missing: Vec::new() }];
        let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(1)), stamps: vec![SECOND; n] }];
        let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
        Segment { range: range(first, last), content }
    }

    fn value(&self, series: i64, seq: u64) -> i64 {
        // Scattered, so that no compression makes a large segment small.
        let scattered = (seq ^ (series as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        scattered as i64 + (self.salt << 40)
    }

    /// The readings of these numbers as they should lie in history `variant`.
    pub(super) fn expected(&self, variant: u32, seqs: impl IntoIterator<Item = u64>) -> Vec<replica::Row> {
        let of = |seq: u64| [1, 2].map(|s| (variant, format!("m/s{s}"), seq as i64 * SECOND, self.value(s, seq)));
        let mut rows: Vec<replica::Row> = seqs.into_iter().flat_map(of).collect();
        rows.sort();
        rows
    }

    /// What compaction makes of these commits.
    pub(super) fn compacted(&self, first: u64, last: u64) -> Segment {
        let parts: Vec<Segment> = (first..=last).map(|seq| self.commit(seq)).collect();
        merge(&parts).expect("neighbours")
    }

    pub(super) fn lost(&self, first: u64, last: u64, reason: LossReason, readings: u64) -> Segment {
        let loss = Loss { reason, readings: Some(readings), from: None, to: None, utc: None };
        Segment { range: range(first, last), content: Content::Loss(loss) }
    }

    pub(super) fn message(&self, segment: &Segment) -> (String, Vec<u8>) {
        let mut pieces = self.pieces(segment, 120 * 1024);
        assert_eq!(pieces.len(), 1);
        pieces.remove(0)
    }

    /// The frames of a segment for a payload limit.
    pub(super) fn pieces(&self, segment: &Segment, max_payload: usize) -> Vec<(String, Vec<u8>)> {
        let body = segment::encode(segment).expect("a body");
        frames(self.store, segment.range, &body, max_payload)
            .map(|payload| (self.topic(Topic::Segment), payload.expect("a frame")))
            .collect()
    }

    pub(super) fn commits(&self, seqs: impl IntoIterator<Item = u64>) -> Vec<(String, Vec<u8>)> {
        seqs.into_iter().map(|seq| self.message(&self.commit(seq))).collect()
    }

    pub(super) fn page(&self) -> CatalogPage {
        let boots = vec![CatalogBoot { id: BootId(1), uuid: StoreUuid::from_u128(0xb007), anchors: Vec::new() }];
        CatalogPage { store: self.store, series: vec![series(1, "m/s1"), series(2, "m/s2")], boots }
    }

    pub(super) fn catalog(&self, page: &CatalogPage) -> (String, Vec<u8>) {
        (self.topic(Topic::Catalog(0)), encode(page).expect("a page"))
    }

    /// The pages, as at each start.
    pub(super) fn pages(&self) -> Vec<(String, Vec<u8>)> {
        vec![self.catalog(&self.page())]
    }

    pub(super) fn state(&self, online: bool, high: u64, pending: &[SeqRange]) -> (String, Vec<u8>) {
        self.state_at(online, high, pending, UtcNanos(1))
    }

    fn state_at(&self, online: bool, high: u64, pending: &[SeqRange], utc: UtcNanos) -> (String, Vec<u8>) {
        let store =
            StoreState { store: self.store, high: SegmentSeq(high), pending: pending.to_vec(), recheck: self.recheck };
        let state = State {
            online,
            session: self.session,
            run: self.run,
            version: "0.1.0".into(),
            utc,
            clock_trusted: true,
            stores: if online { vec![store] } else { Vec::new() },
        };
        (self.topic(Topic::State), encode(&state).expect("a state"))
    }

    pub(super) fn birth(&self, high: u64) -> (String, Vec<u8>) {
        self.state(true, high, &[])
    }

    /// A birth that was made at `at`, by the device's clock.
    pub(super) fn birth_at(&self, high: u64, at: i64) -> (String, Vec<u8>) {
        self.state_at(true, high, &[], UtcNanos(at))
    }
}

pub(super) fn series(id: u32, name: &str) -> (SeriesId, SeriesDef) {
    (SeriesId(id), SeriesDef { name: name.into(), unit: "V".into(), kind: Kind::Int, scale: Scale::MILLI })
}

pub(super) fn anchor(boot: i64, trusted: bool) -> Anchor {
    Anchor { boot: BootNanos(boot), utc: UtcNanos(boot + 5), trusted }
}

pub(super) fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).expect("a range")
}

/// A receiver that knows the device's catalogue and holds `1..=held`.
pub(super) fn with_held(device: &Unit, held: u64) -> Rig {
    let mut rig = Rig::new();
    rig.hear(&device.pages());
    rig.hear(&device.commits(1..=held));
    rig
}
