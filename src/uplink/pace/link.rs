//! What the link carries, learnt from the time that messages take to the broker.
//!
//! What enters: each message as it is handed over, and that the broker has it. What leaves: the rate that decisions go by,
//! what is on the way, and how large the next message may be. Pure; the time is passed in. A connection begins carefully,
//! whatever the one before it was like, and grows with every answer: a link of 1 MB/s is known after three of them.
//!
//! The rate is that of BBR (draft-cardwell-iccrg-bbr-congestion-control, "delivery rate estimation"): the bytes that
//! arrived while one message was on the way, by the longer of the times in which they were sent and arrived. It never
//! shows more than the link carries, but less where there was little to send; so what is more counts at once, and what is
//! less only where a message took long.
//!
//! A broker's PUBACK is no storage and is not taken for it here: it says when the bytes were across, and nothing else.

use crate::clock::{BootNanos, SECOND};
use std::collections::VecDeque;

/// What a connection begins with, in bytes a second, unless the one before it was slower.
const FIRST_RATE: f64 = 1024.0;

/// The least rate that is reckoned with: a link that stands still has no say in how long to wait.
const LEAST_RATE: f64 = 128.0;

/// One answer raises the rate by this factor at most.
const GROWTH: f64 = 8.0;

/// A message that took so much longer than two round trips says that the link is slower, not that there was little to send.
const SLOW_NS: i64 = 7 * SECOND / 4;

/// How long the largest message takes at the rate: a new reading waits for it, and what it adds to a message in bytes is
/// small beside this.
const MESSAGE_S: f64 = 1.0;

/// Another message of the backlog goes out when what is on the way takes no longer than this or two round trips: enough to
/// keep a link busy, and no more for a new reading to wait for than it takes by itself.
const LEAD_S: f64 = 0.5;

/// New readings and pages go out as long as all that is on the way takes no longer: a ping behind it must be answered
/// before the next one is due, 30 s later.
const QUEUE_S: f64 = 20.0;

/// The smallest message that a segment is cut into, in bytes.
const LEAST_MESSAGE: usize = 1024;

/// What has been on the way for so long is not reckoned with any more: its answer may never come.
const STALE_NS: i64 = 60 * SECOND;

/// The most messages that are followed; a client has fewer in flight.
const MOST: usize = 256;

/// A message on the way, with the account as it was when it was handed over.
#[derive(Debug, Clone, Copy)]
struct Passing {
    bytes: u64,
    begun: BootNanos,
    delivered: u64,
    delivered_at: BootNanos,
    first_begun: BootNanos,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Link {
    bytes_per_s: f64,
    /// The last estimate that an answer has made or confirmed; outlives the connection.
    measured: Option<f64>,
    way: VecDeque<Passing>,
    delivered: u64,
    delivered_at: BootNanos,
    first_begun: BootNanos,
    /// The shortest time that an answer has taken on this connection; 0 while there was none.
    round_ns: i64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            bytes_per_s: FIRST_RATE,
            measured: None,
            way: VecDeque::new(),
            delivered: 0,
            delivered_at: BootNanos(0),
            first_begun: BootNanos(0),
            round_ns: 0,
        }
    }
}

impl Link {
    /// A connection begins, or is gone: nothing is on the way, and what it carries is not known.
    pub(super) fn anew(&mut self) {
        self.way.clear();
        self.bytes_per_s = self.bytes_per_s.min(FIRST_RATE);
        self.round_ns = 0;
    }

    /// `bytes` are handed over since `begun`.
    pub(super) fn begin(&mut self, bytes: u64, begun: BootNanos) {
        if self.way.is_empty() {
            (self.delivered_at, self.first_begun) = (begun, begun);
        }
        if self.way.len() == MOST {
            self.way.pop_front();
        }
        let (delivered, delivered_at, first_begun) = (self.delivered, self.delivered_at, self.first_begun);
        self.way.push_back(Passing { bytes, begun, delivered, delivered_at, first_begun });
    }

    /// The broker has the message that was handed over first.
    pub(super) fn passed(&mut self, now: BootNanos) {
        let Some(message) = self.way.pop_front() else { return };
        self.delivered += message.bytes;
        (self.delivered_at, self.first_begun) = (now, message.begun);
        let arrived_in = now.0 - message.delivered_at.0;
        let sent_in = message.begun.0 - message.first_begun.0;
        let seconds = arrived_in.max(sent_in).max(1_000_000) as f64 / SECOND as f64;
        let took_ns = (now.0 - message.begun.0).max(1);
        self.round_ns = if self.round_ns == 0 { took_ns } else { self.round_ns.min(took_ns) };
        self.learn((self.delivered - message.delivered) as f64 / seconds, took_ns);
    }

    fn learn(&mut self, sample: f64, took_ns: i64) {
        if sample >= self.bytes_per_s {
            self.bytes_per_s = sample.min(self.bytes_per_s * GROWTH);
        } else if took_ns > SLOW_NS + 2 * self.round_ns {
            self.bytes_per_s = ((self.bytes_per_s + sample) / 2.0).max(LEAST_RATE);
        } else {
            return;
        }
        self.measured = Some(self.bytes_per_s);
    }

    /// Bytes a second, as last measured.
    pub(super) fn measured(&self) -> Option<f64> {
        self.measured
    }

    /// The largest message, in bytes, of at most `limit`.
    pub(super) fn message_bytes(&self, limit: usize) -> usize {
        ((self.bytes_per_s * MESSAGE_S) as usize).max(LEAST_MESSAGE).min(limit)
    }

    /// Whether the backlog may add to what is on the way.
    pub(super) fn is_short(&self, now: BootNanos) -> bool {
        let two_rounds_s = 2.0 * self.round_ns as f64 / SECOND as f64;
        self.waiting(now) as f64 <= self.bytes_per_s * two_rounds_s.max(LEAD_S)
    }

    /// Whether `bytes` may be added at all, of which `limit` may be on the way.
    pub(super) fn has_room(&self, bytes: u64, limit: u64, now: BootNanos) -> bool {
        let waiting = self.waiting(now);
        waiting == 0 || (waiting + bytes <= limit && (waiting + bytes) as f64 <= self.bytes_per_s * QUEUE_S)
    }

    /// When what is on the way need no longer be reckoned with, at the latest.
    pub(super) fn forgets_at(&self) -> Option<BootNanos> {
        self.way.back().map(|message| BootNanos(message.begun.0.saturating_add(STALE_NS)))
    }

    /// How long what is on the way takes, twice over: no answer to it can be expected sooner.
    pub(super) fn patience_ns(&self, now: BootNanos) -> i64 {
        (2.0 * self.waiting(now) as f64 / self.bytes_per_s * SECOND as f64) as i64
    }

    /// Bytes on the way.
    fn waiting(&self, now: BootNanos) -> u64 {
        let fresh = |message: &&Passing| now.0 - message.begun.0 < STALE_NS;
        self.way.iter().filter(fresh).map(|message| message.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> BootNanos {
        BootNanos(ms * (SECOND / 1000))
    }

    /// A link of `rate` bytes a second with `round_ms` for a round trip, kept as busy as [`Link::is_short`] allows for
    /// `seconds`; the longest time that a message had for its own bytes.
    fn busy(link: &mut Link, rate: f64, round_ms: i64, from_ms: i64, seconds: i64) -> i64 {
        let (mut free, mut longest) = (from_ms, 0);
        let mut answers: VecDeque<i64> = VecDeque::new();
        for now in from_ms..from_ms + seconds * 1000 {
            while answers.front().is_some_and(|at| *at <= now) {
                answers.pop_front();
                link.passed(ms(now));
            }
            while link.is_short(ms(now)) {
                let bytes = link.message_bytes(120 << 10) as u64;
                link.begin(bytes, ms(now));
                let takes = (bytes as f64 / rate * 1000.0) as i64;
                longest = longest.max(takes);
                free = free.max(now) + takes;
                answers.push_back(free + round_ms);
            }
        }
        longest
    }

    /// From the first careful message the estimate finds a link of any rate, and no message on the way there takes longer
    /// than a broker waits.
    #[test]
    fn the_estimate_finds_the_link() {
        for (rate, round_ms) in [(500.0, 600), (2_000.0, 4_000), (50_000.0, 600), (1_000_000.0, 40)] {
            let mut link = Link::default();
            link.anew();
            let longest = busy(&mut link, rate, round_ms, 0, 120);
            let found = link.measured().unwrap_or(0.0);
            assert!((0.6 * rate..=1.1 * rate).contains(&found), "{rate} B/s: {found}");
            assert!(longest <= 20_000, "{rate} B/s: a message of {longest} ms");
        }
    }

    /// A fast link is known within three answers.
    #[test]
    fn a_fast_link_is_hardly_slowed() {
        let mut link = Link::default();
        link.anew();
        let mut now = 0;
        for _ in 0..3 {
            link.begin(link.message_bytes(120 << 10) as u64, ms(now));
            now += 10;
            link.passed(ms(now));
        }
        assert_eq!(link.message_bytes(120 << 10), 120 << 10);
        assert!(link.has_room(200 << 10, 256 << 10, ms(now)));
        link.begin(100 << 10, ms(now));
        assert!(link.has_room(156 << 10, 256 << 10, ms(now)) && !link.has_room(157 << 10, 256 << 10, ms(now)));
    }

    /// A link that becomes ten times slower is believed within a few messages, and one that has little to send does not
    /// become slow by that.
    #[test]
    fn a_link_that_slows_down_is_noticed() {
        let mut link = Link::default();
        link.anew();
        busy(&mut link, 20_000.0, 100, 0, 60);
        link.way.clear();
        let before = link.measured().unwrap_or(0.0);
        link.begin(200, ms(100_000));
        link.passed(ms(100_500));
        assert_eq!(link.measured(), Some(before), "a small message says nothing");
        link.way.clear();
        busy(&mut link, 2_000.0, 100, 200_000, 400);
        let after = link.measured().unwrap_or(0.0);
        assert!((1_500.0..3_000.0).contains(&after), "{after}");
    }

    /// Answers that were held up and come all at once do not make a slow link look fast.
    #[test]
    fn answers_in_a_bunch_are_not_believed() {
        let mut link = Link::default();
        link.anew();
        busy(&mut link, 2_000.0, 1_000, 0, 60);
        let before = link.measured().unwrap_or(0.0);
        link.way.clear();
        for k in 0..4 {
            link.begin(8_000, ms(100_000 + k * 4_000));
        }
        for k in 0..4 {
            link.passed(ms(130_000 + k));
        }
        assert!(link.measured().unwrap_or(0.0) <= before * 1.3, "{:?} after {before}", link.measured());
    }

    /// Without any answer the backlog stops, and goes on when it has waited long enough: an answer may never come.
    #[test]
    fn a_missing_answer_stops_nothing_for_ever() {
        let mut link = Link::default();
        link.begin(8_192, ms(0));
        assert!(!link.is_short(ms(59_000)) && !link.has_room(20_000, 1 << 20, ms(59_000)));
        assert!(link.is_short(ms(60_000)));
        assert_eq!(link.forgets_at(), Some(ms(60_000)));
        assert!(link.patience_ns(ms(0)) == 16 * SECOND, "{}", link.patience_ns(ms(0)));
    }
}
