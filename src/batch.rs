//! The batch: readings in RAM until their commit is due.
//!
//! What enters: readings, each with the boottime of its arrival. What leaves: a [`Sealed`] batch, whose readings stand in
//! columns and become segments. What it promises: bounded memory; a reading that finds no room is counted and dated, and
//! that account leaves with the next sealed batch; each series keeps its order of arrival. What it does not do: commit,
//! wait, or ask for the time.

mod registry;
mod sealed;

pub use registry::{Registry, TooManySeries};
pub use sealed::{Overflowed, Sealed, Track, TrackClock};

use crate::clock::BootNanos;
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::{NoValue, Reading, SeriesKey, Stamp, Value};
use crate::segment::{Missing, Values};
use sealed::InFlight;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When a batch is due, and how large it may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Due when its first reading has waited this long.
    pub interval: Duration,
    /// Due when it has this many readings.
    pub readings: u32,
    /// Room for readings that are not committed, in bytes, sealed ones included; due when half of it is taken.
    pub buffer_bytes: u64,
}

/// What would be lost if the power failed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Risk {
    /// Readings that are not committed, sealed ones included.
    pub readings: u64,
    /// When the oldest of them arrived.
    pub oldest: Option<BootNanos>,
}

/// There was no room for a reading. It is counted and dated in the batch; nothing is left for the caller to do but to slow
/// down, where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for a reading, it is counted as lost: see why commits fail, or raise [store] buffer")
    }
}

impl std::error::Error for Overflow {}

impl Fault for Overflow {
    fn verdict(&self) -> Verdict {
        Verdict::Retry
    }

    fn exit(&self) -> Exit {
        Exit::TryAgain
    }
}

/// No track of this batch.
const NO_TRACK: u32 = u32::MAX;

/// What a reading takes beside its text: stamp, value, and as much again, since a vector grows by doubling.
const READING_BYTES: u64 = 32;
/// What a track takes beside its readings.
const TRACK_BYTES: u64 = 256;

/// Readings that wait for their commit.
#[derive(Debug)]
pub struct Batch {
    limits: BatchLimits,
    registry: Arc<Registry>,
    /// By series key: its tracks on boottime and on UTC.
    slots: Vec<[u32; 2]>,
    tracks: Vec<Track>,
    n: u64,
    bytes: u64,
    /// When the first reading arrived, or was refused, since the last seal.
    since: Option<BootNanos>,
    oldest: Option<BootNanos>,
    overflow: Option<Overflowed>,
    in_flight: Arc<InFlight>,
}

impl Batch {
    /// An empty batch of series that `registry` knows.
    pub fn new(limits: BatchLimits, registry: Arc<Registry>) -> Self {
        Self {
            limits,
            registry,
            slots: Vec::new(),
            tracks: Vec::new(),
            n: 0,
            bytes: 0,
            since: None,
            oldest: None,
            overflow: None,
            in_flight: Arc::default(),
        }
    }

    /// Takes a reading that arrived at `now`. A value that is not of its series' kind is kept as
    /// [`NoValue::Unreadable`].
    ///
    /// # Errors
    /// [`Overflow`] where there is no room: the reading is counted as lost.
    pub fn push(&mut self, reading: Reading, now: BootNanos) -> Result<(), Overflow> {
        self.since.get_or_insert(now);
        let (clock, stamp) = match reading.stamp {
            Stamp::Boot(at) => (TrackClock::Boot, at.0),
            Stamp::Utc(at) => (TrackClock::Utc, at.0),
        };
        let text_bytes = if let Value::Text(text) = &reading.value { text.len() as u64 } else { 0 };
        let mut bytes = READING_BYTES + text_bytes;
        let track = self.slots.get(reading.series.0 as usize).map_or(NO_TRACK, |slot| slot[clock as usize]);
        if track == NO_TRACK {
            bytes += TRACK_BYTES;
        }
        if self.bytes + self.in_flight.bytes() + bytes > self.limits.buffer_bytes {
            self.refuse(reading.stamp, now);
            return Err(Overflow);
        }
        let track = if track == NO_TRACK { self.begin(reading.series, clock) } else { track };
        self.tracks[track as usize].push(stamp, reading.value);
        self.oldest.get_or_insert(now);
        self.n += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn begin(&mut self, key: SeriesKey, clock: TrackClock) -> u32 {
        let slots = key.0 as usize + 1;
        if self.slots.len() < slots {
            self.slots.resize(slots, [NO_TRACK; 2]);
        }
        let track = self.tracks.len() as u32;
        self.slots[key.0 as usize][clock as usize] = track;
        let values = Values::of(self.registry.def(key).kind);
        self.tracks.push(Track { key, clock, stamps: Vec::new(), values, missing: Vec::new() });
        track
    }

    fn refuse(&mut self, stamp: Stamp, now: BootNanos) {
        let (at, utc) = match stamp {
            Stamp::Boot(at) => (at, None),
            Stamp::Utc(at) => (now, Some((at, at))),
        };
        let one = Overflowed { readings: 1, from: at, to: at, utc };
        self.overflow = Some(self.overflow.map_or(one, |before| before.and(one)));
    }

    /// Commits are due at this interval from now on, what waits included.
    pub fn set_interval(&mut self, interval: Duration) {
        self.limits.interval = interval;
    }

    /// Whether what waits should be sealed and committed now. An account of lost readings is as good a reason as a
    /// reading.
    pub fn due(&self, now: BootNanos) -> bool {
        let Some(since) = self.since else { return false };
        let waited = now.0.saturating_sub(since.0);
        let interval = i64::try_from(self.limits.interval.as_nanos()).unwrap_or(i64::MAX);
        waited >= interval || self.n >= self.limits.readings.into() || self.bytes >= self.limits.buffer_bytes / 2
    }

    /// When it becomes due by its interval; `None` while nothing waits.
    pub fn due_at(&self) -> Option<BootNanos> {
        let interval = i64::try_from(self.limits.interval.as_nanos()).unwrap_or(i64::MAX);
        self.since.map(|since| BootNanos(since.0.saturating_add(interval)))
    }

    /// What would be lost if the power failed now.
    pub fn risk(&self) -> Risk {
        let sealed = self.in_flight.risk();
        let oldest = [sealed.oldest, self.oldest].into_iter().flatten().min();
        Risk { readings: sealed.readings + self.n, oldest }
    }

    /// Bytes taken of the buffer, sealed batches included.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.in_flight.bytes()
    }

    /// Takes everything out. The sealed batch goes on taking its room of the buffer, and counting as at risk, until it is
    /// dropped: drop it when it is committed, keep it and try again when the commit failed.
    pub fn seal(&mut self) -> Sealed {
        let tracks = std::mem::take(&mut self.tracks);
        for track in &tracks {
            self.slots[track.key.0 as usize] = [NO_TRACK; 2];
        }
        let (n, bytes) = (std::mem::take(&mut self.n), std::mem::take(&mut self.bytes));
        self.since = None;
        let (oldest, overflow) = (self.oldest.take(), self.overflow.take());
        Sealed::held(tracks, (n, bytes), oldest, overflow, &self.in_flight)
    }
}

impl Track {
    fn push(&mut self, stamp: i64, value: Value) {
        let at = self.stamps.len() as u32;
        self.stamps.push(stamp);
        let why = match (&mut self.values, value) {
            (Values::Int(all), Value::Int(value)) => return all.push(value),
            (Values::Float(all), Value::Float(value)) => return all.push(value),
            (Values::Bool(all), Value::Bool(value)) => return all.push(value),
            (Values::Text(all), Value::Text(value)) => return all.push(value),
            (_, Value::None(why)) => why,
            (_, _) => NoValue::Unreadable,
        };
        self.missing.push(Missing { at, why });
        match &mut self.values {
            Values::Int(all) => all.push(0),
            Values::Float(all) => all.push(0.0),
            Values::Bool(all) => all.push(false),
            Values::Text(all) => all.push(Box::default()),
        }
    }
}

impl Overflowed {
    fn and(self, other: Self) -> Self {
        let utc = match (self.utc, other.utc) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (one, None) | (None, one) => one,
        };
        Self {
            readings: self.readings.saturating_add(other.readings),
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            utc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SECOND, UtcNanos};
    use crate::reading::{BootId, Kind, Scale, SeriesDef, SeriesId};
    use crate::segment::{Readings, TimelineClock};

    const LIMITS: BatchLimits =
        BatchLimits { interval: Duration::from_secs(10), readings: 1_000, buffer_bytes: 64 << 10 };

    fn batch(limits: BatchLimits, kinds: &[Kind]) -> Batch {
        let registry = Arc::new(Registry::new(100));
        for (i, kind) in kinds.iter().enumerate() {
            let def = SeriesDef { name: format!("m/{i}"), unit: "Cel".into(), kind: *kind, scale: Scale::ONE };
            registry.key(&def).expect("room for a series");
        }
        Batch::new(limits, registry)
    }

    fn int(series: u32, at_s: i64, value: i64) -> Reading {
        Reading { series: SeriesKey(series), stamp: Stamp::Boot(BootNanos(at_s * SECOND)), value: Value::Int(value) }
    }

    fn segments(sealed: &Sealed) -> Vec<Readings> {
        sealed.to_segments(BootId(4), |key| SeriesId(100 - key.0))
    }

    /// Series that were read together share one timeline; a series keeps its order of arrival, steps back included.
    #[test]
    fn equal_timelines_are_stored_once() {
        let mut batch = batch(LIMITS, &[Kind::Int; 3]);
        for at in [1, 2, 2, 1] {
            for series in 0..3 {
                batch.push(int(series, at, at * 10 + i64::from(series)), BootNanos(0)).expect("room");
            }
        }
        batch.push(int(2, 9, 9), BootNanos(0)).expect("room");
        let all = segments(&batch.seal());
        let [readings] = &all[..] else { panic!("one segment, not {}", all.len()) };
        assert_eq!(readings.timelines.len(), 2);
        assert_eq!(readings.columns.iter().map(|c| c.series.0).collect::<Vec<_>>(), [98, 99, 100]);
        assert_eq!(readings.columns[2].values, Values::Int(vec![10, 20, 20, 10]));
        assert_eq!(readings.timelines[readings.columns[2].timeline].stamps, [1, 2, 2, 1].map(|s| s * SECOND));
        assert_eq!(readings.timelines[0].clock, TimelineClock::Boot(BootId(4)));
    }

    /// The batch is due by age, by count, and by half of its room, and not when it is empty.
    #[test]
    fn it_is_due_by_age_count_and_room() {
        let at = |s: i64| BootNanos(s * SECOND);
        let mut by_age = batch(LIMITS, &[Kind::Int]);
        assert!(!by_age.due(at(1_000)));
        by_age.push(int(0, 1, 1), at(5)).expect("room");
        assert!(!by_age.due(at(14)) && by_age.due(at(15)));
        assert_eq!(by_age.due_at(), Some(at(15)));
        by_age.set_interval(Duration::from_secs(60));
        assert!(!by_age.due(at(64)) && by_age.due(at(65)));
        by_age.set_interval(Duration::from_secs(10));
        drop(by_age.seal());
        assert!(!by_age.due(at(1_000)));

        let mut by_count = batch(BatchLimits { readings: 2, ..LIMITS }, &[Kind::Int]);
        by_count.push(int(0, 1, 1), at(0)).expect("room");
        assert!(!by_count.due(at(0)));
        by_count.push(int(0, 1, 1), at(0)).expect("room");
        assert!(by_count.due(at(0)));

        let mut by_room = batch(BatchLimits { buffer_bytes: 1_000, ..LIMITS }, &[Kind::Int]);
        (0..7).for_each(|_| by_room.push(int(0, 1, 1), at(0)).expect("room"));
        assert!(!by_room.due(at(0)));
        by_room.push(int(0, 1, 1), at(0)).expect("room");
        assert!(by_room.due(at(0)));
    }

    /// What finds no room is counted and dated, leaves with the next seal once, and nothing else is lost.
    #[test]
    fn what_overflows_is_counted_and_dated() {
        let mut batch = batch(BatchLimits { buffer_bytes: 1_000, ..LIMITS }, &[Kind::Int]);
        let taken = (0..100).filter(|i| batch.push(int(0, *i, *i), BootNanos(*i)).is_ok()).count();
        let own = Reading { stamp: Stamp::Utc(UtcNanos(7)), ..int(0, 0, 0) };
        assert_eq!(batch.push(own, BootNanos(500 * SECOND)), Err(Overflow));
        let sealed = batch.seal();
        assert_eq!((sealed.n, taken), (23, 23));
        let lost = sealed.overflow.expect("an account");
        assert_eq!(lost.readings, 100 - 23 + 1);
        assert_eq!((lost.from, lost.to), (BootNanos(23 * SECOND), BootNanos(500 * SECOND)));
        assert_eq!(lost.utc, Some((UtcNanos(7), UtcNanos(7))));
        drop(sealed);
        assert_eq!(batch.seal().overflow, None);
    }

    /// A sealed batch takes room and counts as at risk until it is dropped, that is, committed.
    #[test]
    fn sealed_readings_are_at_risk_until_they_are_committed() {
        let mut batch = batch(BatchLimits { buffer_bytes: 1_000, ..LIMITS }, &[Kind::Int]);
        (0..20).for_each(|i| batch.push(int(0, i, i), BootNanos(i + 1)).expect("room"));
        let sealed = batch.seal();
        assert_eq!(batch.risk(), Risk { readings: 20, oldest: Some(BootNanos(1)) });
        assert_eq!(batch.push(int(0, 0, 0), BootNanos(50)), Err(Overflow));
        drop(sealed);
        assert_eq!(batch.risk(), Risk::default());
        batch.push(int(0, 0, 0), BootNanos(60)).expect("room again");
        assert_eq!(batch.risk(), Risk { readings: 1, oldest: Some(BootNanos(60)) });
    }

    /// A value of another kind than its series is not lost: the reading says that it was unreadable. So does a series that
    /// had no value at all keep its kind.
    #[test]
    fn a_value_of_the_wrong_kind_is_a_reading_without_value() {
        let mut batch = batch(LIMITS, &[Kind::Float, Kind::Text]);
        batch.push(int(0, 1, 1), BootNanos(0)).expect("room");
        let absent = Reading { value: Value::None(NoValue::Absent), ..int(1, 1, 1) };
        batch.push(absent, BootNanos(0)).expect("room");
        let sealed = batch.seal();
        assert_eq!(sealed.tracks[0].missing, [Missing { at: 0, why: NoValue::Unreadable }]);
        assert_eq!(sealed.tracks[1].missing, [Missing { at: 0, why: NoValue::Absent }]);
        assert_eq!([0, 1].map(|i| sealed.tracks[i].values.kind()), [Kind::Float, Kind::Text]);
    }
}
