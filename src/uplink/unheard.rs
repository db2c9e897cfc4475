//! Segments that go out again and again and are never acknowledged by the fleet, while smaller ones are: some brokers
//! acknowledge a payload above their limit and drop it without a word.
//!
//! What enters: what was sent, and the fleet's acks. What leaves: a [`Silence`] when one is long enough to be no accident.
//! Pure. It decides nothing; the segments go on being sent at their own pace.

use crate::reading::SeqRange;
use crate::wire::{Ack, StoreUuid};
use std::collections::VecDeque;
use std::fmt;

/// A segment sent so often without an ack is told of: after the waits of 30 s, 1 min and 2 min.
const LONG: u32 = 4;

/// Segments that are followed; of more, the one that was sent first is forgotten.
const MOST: usize = 64;

/// Payloads of that kind, so far.
#[derive(Debug)]
pub(super) struct Unheard {
    max_payload_bytes: u64,
    sent: VecDeque<Sent>,
    /// The largest payload that the fleet has acknowledged, in bytes.
    heard_bytes: u64,
}

#[derive(Debug)]
struct Sent {
    store: StoreUuid,
    range: SeqRange,
    bytes: u64,
    times: u32,
}

/// What to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silence {
    bytes: u64,
    times: u32,
    heard_bytes: u64,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, times, heard_bytes } = self;
        write!(
            f,
            "a payload of {bytes} bytes was sent {times} times and the fleet has none of it, while it has others of up to \
             {heard_bytes}: the broker may drop what is above its limit (mosquitto: message_size_limit); raise that, or \
             lower max_payload, or look at the receiver's refusals with `varved-fleet devices`"
        )
    }
}

impl Unheard {
    /// None yet, of an uplink whose payloads have at most so many bytes.
    pub(super) fn new(max_payload_bytes: usize) -> Self {
        Self { max_payload_bytes: max_payload_bytes as u64, sent: VecDeque::new(), heard_bytes: 0 }
    }

    /// A segment of `bytes` went out, in one payload or in pieces. What to tell, at the fourth time and each doubling.
    pub(super) fn sent(&mut self, store: StoreUuid, range: SeqRange, bytes: u64) -> Option<Silence> {
        let bytes = bytes.min(self.max_payload_bytes);
        let same = self.sent.iter().position(|sent| sent.store == store && range.covers(&sent.range));
        let times = same.and_then(|at| self.sent.remove(at)).map_or(1, |sent| sent.times.saturating_add(1));
        if self.sent.len() >= MOST {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { store, range, bytes, times });
        let long = times >= LONG && times.is_power_of_two() && bytes > self.heard_bytes && self.heard_bytes > 0;
        long.then_some(Silence { bytes, times, heard_bytes: self.heard_bytes })
    }

    /// The fleet states what it holds.
    pub(super) fn heard(&mut self, ack: &Ack) {
        for stated in &ack.stores {
            let held = stated.held();
            self.sent.retain(|sent| {
                let arrived = sent.store == stated.store && held.covers(sent.range);
                if arrived {
                    self.heard_bytes = self.heard_bytes.max(sent.bytes);
                }
                !arrived
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::SegmentSeq;
    use crate::wire::StoreAck;

    const STORE: StoreUuid = StoreUuid::from_u128(1);

    fn only(seq: u64) -> SeqRange {
        SeqRange::new(seq, seq).expect("a range")
    }

    fn ack(cumulative: u64) -> Ack {
        let (ranges, conflicts) = (Vec::new(), Vec::new());
        let cumulative = SegmentSeq(cumulative);
        Ack { stores: vec![StoreAck { store: STORE, cumulative, ranges, high: cumulative, conflicts, verified: None }] }
    }

    /// A large payload that is sent four times while a smaller one is acknowledged is told of, with both sizes; and again
    /// at the eighth time, not in between.
    #[test]
    fn a_payload_that_never_arrives_is_told_of() {
        let mut unheard = Unheard::new(120 << 10);
        unheard.sent(STORE, only(1), 700);
        unheard.heard(&ack(1));
        let told: Vec<Option<Silence>> = (1..=8).map(|_| unheard.sent(STORE, only(2), 90_000)).collect();
        let times: Vec<u32> = told.iter().flatten().map(|silence| silence.times).collect();
        assert_eq!(times, [4, 8]);
        let words = told.iter().flatten().next().expect("one").to_string();
        assert!(words.contains("90000 bytes was sent 4 times") && words.contains("up to 700"), "{words}");
    }

    /// Where nothing is acknowledged the receiver is away, and where something larger is, it is not the size.
    #[test]
    fn a_receiver_that_is_away_is_no_silence() {
        let mut unheard = Unheard::new(120 << 10);
        assert!((0..9).all(|_| unheard.sent(STORE, only(2), 90_000).is_none()));
        unheard.heard(&ack(2));
        assert!((0..9).all(|_| unheard.sent(STORE, only(3), 80_000).is_none()));
        assert!((0..999).all(|seq| unheard.sent(STORE, only(seq + 4), 80_000).is_none()));
        assert!(unheard.sent.len() <= MOST);
    }
}
