//! A sealed batch: columns of readings on their way to a commit.
//!
//! What enters: the tracks of a [`super::Batch`]. What leaves: the content of one or more segments. A sealed batch doesn't
//! change; a commit that failed is tried again with the same one.

use super::Risk;
use crate::clock::{BootNanos, UtcNanos};
use crate::reading::{BootId, SeriesId, SeriesKey};
use crate::segment::{
    Column, MAX_BODY_BYTES, MAX_COLUMNS, MAX_READINGS, Missing, Readings, TimelineClock, Timelines, Values,
};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Which clock a track's stamps are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackClock {
    /// CLOCK_BOOTTIME of the running boot.
    Boot = 0,
    /// UTC that the readings brought with them.
    Utc = 1,
}

/// The readings of one series on one clock, in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Which series.
    pub key: SeriesKey,
    /// Which clock.
    pub clock: TrackClock,
    /// In nanoseconds of that clock.
    pub stamps: Vec<i64>,
    /// As many as stamps.
    pub values: Values,
    /// Which of them are none, ascending.
    pub missing: Vec<Missing>,
}

/// Readings that found no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflowed {
    /// How many.
    pub readings: u64,
    /// The earliest: its stamp, or its arrival where the stamp is UTC.
    pub from: BootNanos,
    /// The latest.
    pub to: BootNanos,
    /// The earliest and latest stamp of those that brought UTC.
    pub utc: Option<(UtcNanos, UtcNanos)>,
}

/// A batch that takes no more readings. It holds its room in the buffer until it is dropped.
#[derive(Debug)]
#[must_use = "these readings exist nowhere else"]
pub struct Sealed {
    /// One for each series and clock, in the order of their first readings.
    pub tracks: Vec<Track>,
    /// How many readings.
    pub n: u64,
    /// When the first of them arrived.
    pub oldest: Option<BootNanos>,
    /// What found no room since the batch before.
    pub overflow: Option<Overflowed>,
    _held: Option<Held>,
}

/// What sealed batches hold of the buffer.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    bytes: AtomicU64,
    readings: AtomicU64,
    /// Arrivals of the oldest readings, one for each sealed batch that is not committed: nearly always none or one.
    oldest: Mutex<Vec<BootNanos>>,
}

impl InFlight {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn risk(&self) -> Risk {
        let oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner).iter().min().copied();
        Risk { readings: self.readings.load(Relaxed), oldest }
    }
}

#[derive(Debug)]
struct Held {
    of: Arc<InFlight>,
    bytes: u64,
    readings: u64,
    oldest: Option<BootNanos>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Relaxed);
        self.of.readings.fetch_sub(self.readings, Relaxed);
        let mut all = self.of.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|at| Some(*at) == self.oldest) {
            all.swap_remove(at);
        }
    }
}

impl Sealed {
    /// A sealed batch of these tracks that belongs to no batch: for readings that come from elsewhere.
    pub fn new(tracks: Vec<Track>, oldest: Option<BootNanos>, overflow: Option<Overflowed>) -> Self {
        let n = tracks.iter().map(|track| track.stamps.len() as u64).sum();
        Self { tracks, n, oldest, overflow, _held: None }
    }

    pub(super) fn held(
        tracks: Vec<Track>,
        (readings, bytes): (u64, u64),
        oldest: Option<BootNanos>,
        overflow: Option<Overflowed>,
        of: &Arc<InFlight>,
    ) -> Self {
        of.bytes.fetch_add(bytes, Relaxed);
        of.readings.fetch_add(readings, Relaxed);
        of.oldest.lock().unwrap_or_else(PoisonError::into_inner).extend(oldest);
        let held = Held { of: Arc::clone(of), bytes, readings, oldest };
        Self { _held: Some(held), ..Self::new(tracks, oldest, overflow) }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.n == 0 && self.overflow.is_none()
    }

    /// The content of the segments that these readings become: one, unless that could be above a cap of
    /// [`crate::segment::encode`]. `boot` is the running boot, `id_of` gives the store's ids.
    pub fn to_segments(&self, boot: BootId, id_of: impl Fn(SeriesKey) -> SeriesId) -> Vec<Readings> {
        let mut order: Vec<(SeriesId, &Track)> = self.tracks.iter().map(|track| (id_of(track.key), track)).collect();
        order.sort_by_key(|(id, track)| (*id, track.clock as u8));
        let mut all = vec![Filling::default()];
        for (id, track) in order {
            let clock = match track.clock {
                TrackClock::Boot => TimelineClock::Boot(boot),
                TrackClock::Utc => TimelineClock::Utc,
            };
            let mut from = 0;
            while from < track.stamps.len() {
                let Some(filling) = all.last_mut() else { break };
                let to = filling.fits(track, from);
                if to == from {
                    all.push(Filling::default());
                    continue;
                }
                filling.add(id, clock, track, from..to);
                from = to;
            }
        }
        let whole = all.into_iter().filter(|filling| !filling.columns.is_empty());
        whole.map(|filling| Readings { timelines: filling.timelines.all, columns: filling.columns }).collect()
    }
}

/// A segment's content while it fills up.
#[derive(Default)]
struct Filling {
    timelines: Timelines,
    columns: Vec<Column>,
    readings: usize,
    bytes: usize,
}

/// More than the codec ever needs for a stamp and a number that nothing predicts.
const WORST_BYTES: usize = 32;

impl Filling {
    /// Up to which reading of `track`, begun at `from`, there is surely room.
    fn fits(&self, track: &Track, from: usize) -> usize {
        let mut to = from;
        let (mut readings, mut bytes) = (self.readings, self.bytes);
        while to < track.stamps.len() && readings < MAX_READINGS && self.columns.len() < MAX_COLUMNS {
            bytes += worst_bytes(track, to);
            if bytes > MAX_BODY_BYTES {
                break;
            }
            (to, readings) = (to + 1, readings + 1);
        }
        to
    }

    fn add(&mut self, series: SeriesId, clock: TimelineClock, track: &Track, part: Range<usize>) {
        self.readings += part.len();
        self.bytes += part.clone().map(|at| worst_bytes(track, at)).sum::<usize>();
        let timeline = self.timelines.place(clock, &track.stamps[part.clone()]);
        let inside = track.missing.iter().filter(|m| part.contains(&(m.at as usize)));
        let missing = inside.map(|m| Missing { at: m.at - part.start as u32, why: m.why }).collect();
        self.columns.push(Column { series, timeline, values: track.values.slice(part), missing });
    }
}

fn worst_bytes(track: &Track, at: usize) -> usize {
    match &track.values {
        Values::Text(texts) => WORST_BYTES + texts[at].len(),
        _ => WORST_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::SeqRange;
    use crate::segment::{Content, Segment, encode};

    /// What does not fit one segment becomes several that do, in order, with nothing lost between them.
    #[test]
    fn a_batch_too_large_for_a_segment_becomes_several() {
        let text: Box<str> = "x".repeat(16 << 10).into();
        let track = |key, values: Values| {
            let missing = vec![Missing { at: values.len() as u32 - 1, why: crate::reading::NoValue::Late }];
            let stamps = (0..values.len() as i64).map(|i| i * i * 7).collect();
            Track { key: SeriesKey(key), clock: TrackClock::Utc, stamps, values, missing }
        };
        let noise = |i: i64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64).rotate_left(17);
        let tracks = vec![
            track(0, Values::Int((0..150_000).map(noise).collect())),
            track(1, Values::Text((0..150).map(|_| text.clone()).collect())),
        ];
        let sealed = Sealed::new(tracks, None, None);
        let segments = sealed.to_segments(BootId(1), |key| SeriesId(key.0 + 1));
        assert!(segments.len() > 2);
        let mut ints = Vec::new();
        let mut missing = 0;
        for readings in &segments {
            for column in &readings.columns {
                missing += column.missing.len();
                if let Values::Int(some) = &column.values {
                    ints.extend_from_slice(some);
                }
            }
            let range = SeqRange::new(1, 1).expect("a range");
            let content = Content::Data { readings: readings.clone(), names: Vec::new() };
            encode(&Segment { range, content }).expect("it fits");
        }
        assert_eq!(segments.iter().map(Readings::n).sum::<usize>(), 150_150);
        assert_eq!(missing, 2);
        assert!(ints.into_iter().eq((0..150_000).map(noise)));
    }
}
