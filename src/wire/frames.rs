//! Segments in payloads: cut on the way out, put together on the way in.
//!
//! What enters: a body and the payload limit, or frames as they arrive. What leaves: payloads, or whole bodies. A segment
//! that fits travels whole; a larger one in chunks of nearly equal size, each naming the CRC-32 that the body ends with, so that
//! pieces of different bodies never mix. Bounded: an [`Assembler`] keeps what arrived, never what was claimed.

use super::{MAX_ENVELOPE, SegmentFrame, StoreUuid, WireError, encode};
use crate::reading::{SegmentSeq, SeqRange};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// More than an envelope adds to the bytes of a frame: version 1, variant 1, store 17, range 20, hash, offset, total and
/// length 5 each, CRC 4.
pub(super) const FRAME_OVERHEAD: usize = 64;

/// The smallest payload limit that frames are cut for; a lower one is taken as this.
const MIN_PAYLOAD: usize = 1024;

/// The payloads, each of at most `max_payload` bytes (1 KiB to [`MAX_ENVELOPE`]), that carry `body`.
///
/// # Errors
/// Each item may fail as [`encode`] does: a body that is empty or longer than [`super::MAX_BODY_BYTES`].
pub fn frames(
    store: StoreUuid,
    range: SeqRange,
    body: &[u8],
    max_payload: usize,
) -> impl Iterator<Item = Result<Vec<u8>, WireError>> + '_ {
    let room = max_payload.clamp(MIN_PAYLOAD, MAX_ENVELOPE) - FRAME_OVERHEAD;
    let pieces = body.len().div_ceil(room).max(1);
    let size = body.len().div_ceil(pieces).max(1);
    let hash = if pieces > 1 { hash_of(body) } else { 0 };
    let total = body.len() as u32;
    (0..pieces).map(move |k| {
        if pieces == 1 {
            return encode(&SegmentFrame::Whole { store, range, body });
        }
        let from = k * size;
        let bytes = &body[from.min(body.len())..(from + size).min(body.len())];
        encode(&SegmentFrame::Chunk { store, range, hash, offset: from as u32, total, bytes })
    })
}

/// How many bytes of a body of `total` the payload of at most `max_payload` bytes carries that begins at `from`.
pub fn piece_bytes(from: usize, total: usize, max_payload: usize) -> usize {
    let room = max_payload.clamp(MIN_PAYLOAD, MAX_ENVELOPE) - FRAME_OVERHEAD;
    let left = total.saturating_sub(from);
    // What is left in pieces of nearly equal size: no tiny last one.
    left.div_ceil(left.div_ceil(room).max(1))
}

/// The payload that carries [`piece_bytes`] of `body` from `from` on: all of it, where it fits. `hash` is that of the body, of
/// all of it: who cuts many pieces works it out once.
///
/// # Errors
/// As [`frames`].
pub fn piece(
    store: StoreUuid,
    range: SeqRange,
    body: &[u8],
    hash: u32,
    from: usize,
    max_payload: usize,
) -> Result<Vec<u8>, WireError> {
    let bytes = body.get(from..from + piece_bytes(from, body.len(), max_payload)).unwrap_or_default();
    if bytes.len() == body.len() {
        return encode(&SegmentFrame::Whole { store, range, body });
    }
    let (offset, total) = (from as u32, body.len() as u32);
    encode(&SegmentFrame::Chunk { store, range, hash, offset, total, bytes })
}

/// What tells one body from another, the hash in each of its chunks: the CRC-32 of all but its last four bytes, which are
/// that CRC where the body is a segment's. (Over those too it would be one and the same number for every segment.)
pub fn hash_of(body: &[u8]) -> u32 {
    crc32fast::hash(body.split_last_chunk::<4>().map_or(body, |(sealed, _)| sealed))
}

/// A whole segment body, borrowed where it came in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled<'a> {
    /// Its store.
    pub store: StoreUuid,
    /// Its range, as the frames said; the body says it too, under its own CRC.
    pub range: SeqRange,
    /// The body.
    pub body: Cow<'a, [u8]>,
}

/// The most pieces of one body that are kept: twice as many as the smallest payload limit cuts the longest body into.
const MAX_PIECES: usize = 8192;

/// How much an [`Assembler`] may hold.
#[derive(Debug, Clone, Copy)]
pub struct AssemblerLimits {
    /// Incomplete segments of one device.
    pub partials_per_device: usize,
    /// Bytes of all incomplete segments of all devices, bookkeeping included.
    pub bytes: usize,
}

impl Default for AssemblerLimits {
    /// Two per device, 32 MiB in all.
    fn default() -> Self {
        Self { partials_per_device: 2, bytes: 32 << 20 }
    }
}

/// Puts chunks together again, in whatever order and however often they come. Where a limit is reached, the incomplete
/// segment that has waited longest since its last chunk is dropped; the device sends it again for want of an ack.
#[derive(Debug)]
pub struct Assembler {
    limits: AssemblerLimits,
    partials: BTreeMap<Key, Partial>,
    bytes: usize,
    /// Counts chunks; orders partials by their last.
    ticks: u64,
    given_up: Vec<GivenUp>,
}

/// A segment whose pieces were dropped for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Whose pieces.
    pub device: Box<str>,
    /// Of which store.
    pub store: StoreUuid,
    /// Of which segment.
    pub range: SeqRange,
    /// The room of all devices was full, so that it may be no fault of this one; else its own was.
    pub for_others: bool,
}

/// The most of [`Assembler::take_given_up`]; more are only counted.
const MAX_GIVEN_UP: usize = 64;

impl Assembler {
    /// One that holds nothing yet.
    pub fn new(limits: AssemblerLimits) -> Self {
        Self { limits, partials: BTreeMap::new(), bytes: 0, ticks: 0, given_up: Vec::new() }
    }

    /// Takes in a decoded frame of `device`; gives the segment that it is or completes.
    ///
    /// # Errors
    /// [`WireError::Hash`] where all pieces are there and their CRC is not what they said, [`WireError::Pieces`] where they are
    /// more than any cut makes, such as overlaps without end: they are dropped. One device can't push out others so.
    pub fn accept<'a>(&mut self, device: &str, frame: SegmentFrame<'a>) -> Result<Option<Assembled<'a>>, WireError> {
        match frame {
            SegmentFrame::Whole { store, range, body } => {
                Ok(Some(Assembled { store, range, body: Cow::Borrowed(body) }))
            }
            SegmentFrame::Chunk { store, range, hash, offset, total, bytes } => {
                let key = Key { device: device.into(), store, range, hash, total };
                self.keep(&key, offset, bytes);
                if self.partials.get(&key).is_some_and(|partial| partial.is_excessive(total)) {
                    self.drop_partial(&key);
                    return Err(WireError::Pieces);
                }
                self.complete(&key)
            }
            // Of segments, not of a piece of one.
            SegmentFrame::Account(_) => Ok(None),
        }
    }

    /// Drops what is incomplete of `device`, as when its session ends.
    pub fn forget(&mut self, device: &str) {
        self.partials.retain(|key, _| *key.device != *device);
        self.bytes = self.partials.values().map(Partial::cost).sum();
    }

    /// Bytes held for incomplete segments, bookkeeping included; never above [`AssemblerLimits::bytes`] between calls.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was dropped for want of room since this was asked last.
    pub fn take_given_up(&mut self) -> Vec<GivenUp> {
        std::mem::take(&mut self.given_up)
    }

    fn keep(&mut self, key: &Key, offset: u32, bytes: &[u8]) {
        self.ticks += 1;
        let partial = self.partials.entry(key.clone()).or_default();
        partial.last = self.ticks;
        self.bytes -= partial.cost();
        partial.insert(offset, bytes);
        self.bytes += partial.cost();
        while self.of_device(&key.device).count() > self.limits.partials_per_device {
            self.evict(Some(&key.device));
        }
        while self.bytes > self.limits.bytes {
            self.evict(None);
        }
    }

    fn of_device<'a>(&'a self, device: &'a str) -> impl Iterator<Item = (&'a Key, &'a Partial)> {
        let lowest = SeqRange { first: SegmentSeq(0), last: SegmentSeq(0) };
        let from = Key { device: device.into(), store: StoreUuid::nil(), range: lowest, hash: 0, total: 0 };
        self.partials.range(from..).take_while(move |(key, _)| *key.device == *device)
    }

    /// Drops the partial that has waited longest, of one device or of all.
    fn evict(&mut self, device: Option<&str>) {
        let oldest = match device {
            Some(device) => self.of_device(device).min_by_key(|(_, partial)| partial.last),
            None => self.partials.iter().min_by_key(|(_, partial)| partial.last),
        };
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.drop_partial(&key);
            if self.given_up.len() < MAX_GIVEN_UP {
                let for_others = device.is_none();
                self.given_up.push(GivenUp { device: key.device, store: key.store, range: key.range, for_others });
            }
        }
    }

    fn drop_partial(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.partials.remove(key)?;
        self.bytes -= partial.cost();
        Some(partial)
    }

    fn complete(&mut self, key: &Key) -> Result<Option<Assembled<'static>>, WireError> {
        if !self.partials.get(key).is_some_and(|p| p.covers(key.total)) {
            return Ok(None);
        }
        let Some(partial) = self.drop_partial(key) else { return Ok(None) };
        let body = partial.joined(key.total);
        if hash_of(&body) != key.hash {
            return Err(WireError::Hash);
        }
        Ok(Some(Assembled { store: key.store, range: key.range, body: Cow::Owned(body) }))
    }
}

/// Which body a chunk is of. Hash and length are part of it: a body with another content is another key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    device: Box<str>,
    store: StoreUuid,
    range: SeqRange,
    hash: u32,
    total: u32,
}

/// Pieces of one body by offset; they may overlap, where a device came back with another payload limit.
#[derive(Debug, Default)]
struct Partial {
    pieces: BTreeMap<u32, Box<[u8]>>,
    bytes: usize,
    last: u64,
}

impl Partial {
    /// What one piece, or a partial, costs beside its bytes.
    const OVERHEAD: usize = 128;

    fn cost(&self) -> usize {
        if self.pieces.is_empty() { 0 } else { self.bytes + (self.pieces.len() + 1) * Self::OVERHEAD }
    }

    /// Of two pieces at one offset the longer stays.
    fn insert(&mut self, offset: u32, bytes: &[u8]) {
        let held = self.pieces.get(&offset).map_or(0, |held| held.len());
        if bytes.len() > held {
            self.pieces.insert(offset, bytes.into());
            self.bytes += bytes.len() - held;
        }
    }

    /// Whether there is more than two cuts of the body make.
    fn is_excessive(&self, total: u32) -> bool {
        self.pieces.len() > MAX_PIECES || self.bytes > 2 * total as usize
    }

    fn covers(&self, total: u32) -> bool {
        let mut end = 0;
        for (offset, piece) in &self.pieces {
            if *offset as usize > end {
                return false;
            }
            end = end.max(*offset as usize + piece.len());
        }
        end == total as usize
    }

    /// The body, for one that [`Partial::covers`] its total.
    fn joined(self, total: u32) -> Vec<u8> {
        let mut body = Vec::with_capacity(total as usize);
        for (offset, piece) in self.pieces {
            let known = body.len() - offset as usize;
            body.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_BODY_BYTES, decode};
    use super::*;

    fn store() -> StoreUuid {
        StoreUuid::from_u128(7)
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(first, last).expect("a range")
    }

    /// A body that ends with its own CRC, as every segment does.
    fn body(bytes: usize, salt: usize) -> Vec<u8> {
        let mut body: Vec<u8> = (0..bytes).map(|i| ((i * 31 + salt) % 251) as u8).collect();
        if let Some((sealed, crc)) = body.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(sealed).to_le_bytes();
        }
        body
    }

    fn payloads(range: SeqRange, body: &[u8], max: usize) -> Vec<Vec<u8>> {
        frames(store(), range, body, max).collect::<Result<_, _>>().expect("frames")
    }

    fn feed(to: &mut Assembler, device: &str, payload: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        let frame = decode::<SegmentFrame<'_>>(payload).expect("a frame");
        to.accept(device, frame).map(|whole| whole.map(|w| w.body.into_owned()))
    }

    /// At every size around the limit the body arrives as it left, and no payload is above the limit.
    #[test]
    fn bodies_survive_cutting_at_every_size() {
        for bytes in [1, 959, 960, 961, 962, 1919, 1920, 1921, 5000, 300_000, MAX_BODY_BYTES] {
            let body = body(bytes, 0);
            let mut assembler = Assembler::new(AssemblerLimits::default());
            let mut whole = None;
            let max = if bytes > 10_000 { 120 * 1024 } else { 1024 };
            for payload in payloads(range(u64::MAX - 1, u64::MAX), &body, max) {
                assert!(payload.len() <= max, "{} > {max}", payload.len());
                assert!(whole.is_none(), "complete before the last piece");
                whole = feed(&mut assembler, "a", &payload).expect("accepted");
            }
            assert_eq!(whole.as_deref(), Some(&body[..]), "{bytes} bytes");
            assert_eq!(assembler.bytes(), 0);
        }
    }

    /// Chunks come twice, backwards, and cut for two payload limits, as after a reconnect with another configuration.
    #[test]
    fn order_repeats_and_other_cuts_do_not_matter() {
        let body = body(10_000, 3);
        let mut assembler = Assembler::new(AssemblerLimits::default());
        let (small, large) = (payloads(range(1, 4), &body, 1024), payloads(range(1, 4), &body, 4096));
        for payload in small.iter().skip(4).rev().chain(&small[6..]) {
            assert_eq!(feed(&mut assembler, "a", payload), Ok(None));
        }
        assert_eq!(feed(&mut assembler, "a", &large[1]), Ok(None));
        assert_eq!(feed(&mut assembler, "a", &large[0]).expect("accepted").as_deref(), Some(&body[..]));
    }

    /// Two bodies claim the same range: their pieces never mix, and each is complete only by its own.
    #[test]
    fn pieces_of_different_bodies_never_mix() {
        let (one, other) = (body(3000, 1), body(3000, 2));
        let mut assembler = Assembler::new(AssemblerLimits::default());
        let (of_one, of_other) = (payloads(range(5, 5), &one, 1024), payloads(range(5, 5), &other, 1024));
        for k in 0..of_one.len() - 1 {
            assert_eq!(feed(&mut assembler, "a", &of_one[k]), Ok(None));
            assert_eq!(feed(&mut assembler, "a", &of_other[k]), Ok(None));
        }
        let last = of_one.len() - 1;
        assert_eq!(feed(&mut assembler, "b", &of_one[last]), Ok(None), "another device's piece completes nothing");
        assert_eq!(feed(&mut assembler, "a", &of_other[last]).expect("accepted"), Some(other));
        assert_eq!(feed(&mut assembler, "a", &of_one[last]).expect("accepted"), Some(one));
    }

    /// A device that never finishes a segment holds no more than its share, and all together no more than the limit.
    #[test]
    fn what_is_never_finished_stays_within_the_limits() {
        let limits = AssemblerLimits { partials_per_device: 2, bytes: 20_000 };
        let (mut assembler, mut dropped) = (Assembler::new(limits), 0);
        for k in 1..200 {
            let pieces = payloads(range(k, k), &body(3000, 0), 1024);
            let device = format!("d{}", k % 50);
            assert_eq!(feed(&mut assembler, &device, &pieces[0]), Ok(None));
            assert!(assembler.bytes() <= limits.bytes, "{}", assembler.bytes());
            dropped += assembler.take_given_up().len();
        }
        assert!(dropped > 150);
        let partials = assembler.partials.len();
        assert!((10..=20).contains(&partials), "{partials} partials");
        for k in 0..50 {
            assembler.forget(&format!("d{k}"));
        }
        assert_eq!((assembler.bytes(), assembler.partials.len()), (0, 0));
    }

    /// Forty bytes that claim two mebibytes cost what they are, not what they claim.
    #[test]
    fn a_claimed_length_reserves_nothing() {
        let frame =
            SegmentFrame::Chunk { store: store(), range: range(1, 1), hash: 0, offset: 9, total: 2 << 20, bytes: b"x" };
        let mut assembler = Assembler::new(AssemblerLimits::default());
        assert_eq!(assembler.accept("a", frame), Ok(None));
        assert!(assembler.bytes() < 1024, "{}", assembler.bytes());
    }

    /// Pieces that do not add up are dropped whole, so that the next sending starts clean.
    #[test]
    fn pieces_that_do_not_add_up_are_dropped() {
        let mut assembler = Assembler::new(AssemblerLimits::default());
        let chunk = |offset, bytes| SegmentFrame::Chunk {
            store: store(),
            range: range(1, 1),
            hash: 1,
            offset,
            total: 4,
            bytes,
        };
        assert_eq!(assembler.accept("a", chunk(0, b"ab")), Ok(None));
        assert_eq!(assembler.accept("a", chunk(2, b"cd")), Err(WireError::Hash));
        assert_eq!(assembler.bytes(), 0);
    }

    /// What no receiver would take is not sent: an empty body, or one above the cap.
    #[test]
    fn impossible_bodies_are_refused_at_the_sender() {
        assert_eq!(frames(store(), range(1, 1), &[], 1024).next(), Some(Err(WireError::Chunk)));
        let over = vec![0; MAX_BODY_BYTES + 1];
        assert!(frames(store(), range(1, 1), &over, 120 * 1024).all(|f| f == Err(WireError::Chunk)));
    }
}
