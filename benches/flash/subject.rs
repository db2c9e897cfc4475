//! What is measured: something that commits the readings of one interval after the other.

use crate::Outcome;
use crate::workload::{SERIES, Tick, Workload};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use varved::batch::{Batch, BatchLimits, Registry, Sealed};
use varved::clock::Now;
use varved::reading::{BootId, Reading, SegmentSeq, SeqRange, SeriesId, SeriesKey, Stamp};
use varved::segment::{Content, Segment, encode};

/// A store of readings on the medium.
pub(crate) trait Subject {
    /// Commits the readings of one interval; in how many commits. Where it is more than one, calls `pace` before each.
    fn commit(&mut self, ticks: &[Tick], pace: &mut dyn FnMut()) -> Outcome<u64>;

    /// What it does by itself between two commits.
    fn rest(&mut self, _now: Now) -> Outcome<()> {
        Ok(())
    }

    /// Bytes of the bodies that were committed so far, for what stores bodies.
    fn body_bytes(&self) -> u64 {
        0
    }

    /// The write-ahead log, if there is one. A run is measured over whole rounds of it.
    fn wal(&self) -> Option<&Path> {
        None
    }
}

/// The batch that the service would have made of an interval: 50 series, all stamped with the scheduled tick.
pub(crate) struct Batcher {
    /// What waits.
    pub(crate) batch: Batch,
    /// The series by their keys.
    pub registry: Arc<Registry>,
}

impl Batcher {
    /// An empty one.
    pub(crate) fn new() -> Outcome<Self> {
        let registry = Arc::new(Registry::new(SERIES as u32 + 1));
        for def in Workload::from(0).defs() {
            registry.key(def)?;
        }
        let limits = BatchLimits { interval: Duration::from_secs(3600), readings: u32::MAX, buffer_bytes: 64 << 20 };
        Ok(Self { batch: Batch::new(limits, Arc::clone(&registry)), registry })
    }

    /// `ticks`, sealed.
    pub(crate) fn seal(&mut self, ticks: &[Tick]) -> Outcome<Sealed> {
        for tick in ticks {
            let boot = tick.now().boot;
            for (series, value) in tick.values.iter().enumerate() {
                let series = SeriesKey(series as u32);
                self.batch.push(Reading { series, stamp: Stamp::Boot(boot), value: value.clone() }, boot)?;
            }
        }
        Ok(self.batch.seal())
    }
}

/// How long the bodies are that varved makes of an interval.
pub(crate) fn encoded_bytes(ticks: &[Tick]) -> Outcome<Vec<usize>> {
    let sealed = Batcher::new()?.seal(ticks)?;
    let range = SeqRange { first: SegmentSeq(1_000), last: SegmentSeq(1_000) };
    let bodies = sealed.to_segments(BootId(1), |key| SeriesId(key.0 + 1)).into_iter();
    let bytes = bodies.map(|readings| {
        let content = Content::Data { readings, names: Vec::new() };
        Ok(encode(&Segment { range, content })?.len())
    });
    bytes.collect()
}
