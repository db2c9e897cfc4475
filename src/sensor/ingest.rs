//! From lines to readings: the part that sockets and commands share.
//!
//! What enters: lines, or bytes of a stream, and the time of their arrival. What leaves: readings with their series keys,
//! in the order of the lines. Each connection has its own [`Ingest`]: it remembers which raw bytes mean which series, and
//! which of them came after which. A source repeats itself: a line of the usual names in their usual order, with plain
//! numbers and a stamp, is read in one walk that compares names instead of looking for their ends; any other line costs
//! a hash look-up a field; neither allocates. That memory is bounded, and when it is full it starts anew: a source with
//! more series gets slower, never bigger.
//!
//! A bad line is counted and one in a while is shown in the log; the good lines around it are kept.

use super::counters::{Counters, Seldom};
use super::line_protocol::{self, Field, Refusal};
use super::name::Name;
use super::stream::{Found, LineBuffer, MAX_LINE_BYTES, sample};
use crate::batch::Registry;
use crate::clock::{BootNanos, UtcNanos};
use crate::reading::{Kind, Reading, Scale, SeriesDef, SeriesKey, Stamp};
use std::collections::HashMap;
use std::sync::Arc;

/// What a connection may remember of names, map entries included.
const CACHE_BYTES: usize = 256 * 1024;
/// A rough size of one entry beside its bytes.
const ENTRY_BYTES: usize = 96;

/// Turns the lines of one connection into readings.
#[derive(Debug)]
pub struct Ingest {
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    seldom: Seldom,
    /// By raw name, a place in `order`.
    known: HashMap<Arc<[u8]>, u32>,
    order: Vec<Named>,
    /// The place of the one met last.
    last: usize,
    known_bytes: usize,
    /// Kept from line to line for their memory alone.
    fields: Vec<Field>,
    raw_name: Vec<u8>,
}

/// A raw name and what it means.
#[derive(Debug)]
struct Named {
    /// Head, blank, key, kind.
    raw: Arc<[u8]>,
    /// Bytes of the head.
    head: usize,
    series: SeriesKey,
    /// The place of the one that came after it the last time: a source repeats itself.
    next: u32,
}

impl Named {
    fn is(&self, head: &str, key: &str, kind: Kind) -> bool {
        let Some((front, rest)) = self.raw.split_at_checked(head.len()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return false };
        *last == kind as u8 && middle.split_first() == Some((&b' ', key.as_bytes())) && front == head.as_bytes()
    }

    fn head(&self) -> &[u8] {
        &self.raw[..self.head]
    }

    /// From the head on, or, for a field behind others, from the key on.
    fn spelling(&self, with_head: bool) -> &[u8] {
        &self.raw[if with_head { 0 } else { self.head + 1 }..self.raw.len() - 1]
    }

    fn is_of(&self, kind: Kind) -> bool {
        self.raw.last() == Some(&(kind as u8))
    }
}

impl Ingest {
    /// An ingest that knows no names yet.
    pub fn new(registry: Arc<Registry>, counters: Arc<Counters>) -> Self {
        Self {
            registry,
            counters,
            seldom: Seldom::default(),
            known: HashMap::new(),
            order: Vec::new(),
            last: 0,
            known_bytes: 0,
            fields: Vec::new(),
            raw_name: Vec::new(),
        }
    }

    /// Takes one line without its newline and appends its readings to `out`. Refused lines are counted and leave nothing.
    pub fn line(&mut self, line: &[u8], now: BootNanos, out: &mut Vec<Reading>) {
        if let Err(why) = self.try_line(line, now, out) {
            self.refuse(why, line, now);
        }
    }

    /// Takes the next bytes of a stream that is cut by `buffer`.
    pub(super) fn stream(&mut self, buffer: &mut LineBuffer, bytes: &[u8], now: BootNanos, out: &mut Vec<Reading>) {
        buffer.feed(bytes, |found| match found {
            Found::Line(line) => self.line(line, now, out),
            Found::TooLong(front) => self.refuse(Refusal::TooLong, front, now),
        });
    }

    /// The stream has ended. A line without its newline may be the front half of a number: it is refused.
    pub(super) fn end_of_stream(&mut self, buffer: &mut LineBuffer, now: BootNanos) {
        let rest = buffer.finish();
        if !rest.trim_ascii().is_empty() {
            self.refuse(Refusal::Unfinished, &rest, now);
        }
    }

    /// Takes one datagram: lines, of which the last needs no newline.
    pub(super) fn datagram(&mut self, bytes: &[u8], now: BootNanos, out: &mut Vec<Reading>) {
        if bytes.len() > MAX_LINE_BYTES {
            return self.refuse(Refusal::TooLong, bytes, now);
        }
        bytes.split(|b| *b == b'\n').for_each(|line| self.line(line, now, out));
    }

    fn try_line(&mut self, line: &[u8], now: BootNanos, out: &mut Vec<Reading>) -> Result<(), Refusal> {
        let before = out.len();
        if self.take_usual(line, out).is_some() {
            return Ok(());
        }
        out.truncate(before);
        // Taken out for the loop, since resolving a name needs all of `self`.
        let mut fields = std::mem::take(&mut self.fields);
        let taken = self.take_line(line, now, &mut fields, out);
        self.fields = fields;
        if taken.is_err() {
            out.truncate(before);
        }
        taken
    }

    /// The readings of a line that is what it usually is. `None` is any other line, good or bad; what is appended then means
    /// nothing. It gives what [`Self::take_line`] would: a name is followed by `=`, and neither a head that is known nor a
    /// key has an end in it, or a backslash before it.
    fn take_usual(&mut self, line: &[u8], out: &mut Vec<Reading>) -> Option<()> {
        let (before, mut rest, mut place) = (out.len(), line, self.last);
        let mut head = None;
        let stamp = loop {
            place = self.order.get(place)?.next as usize;
            let named = self.order.get(place)?;
            rest = rest.strip_prefix(named.spelling(head.is_none()))?.strip_prefix(b"=")?;
            if *head.get_or_insert(named.head()) != named.head() {
                return None;
            }
            let (value, end) = line_protocol::read_short_number(rest, 0)?;
            if !named.is_of(value.kind()) {
                return None;
            }
            out.push(Reading { series: named.series, stamp: Stamp::Utc(UtcNanos(0)), value: value.number()? });
            match rest[end..].split_first()? {
                (b',', fields) => rest = fields,
                (b' ', stamp) if !stamp.is_empty() => break line_protocol::read_usual_stamp(stamp)?,
                _ => return None,
            }
        };
        out[before..].iter_mut().for_each(|reading| reading.stamp = Stamp::Utc(stamp));
        self.last = place;
        Some(())
    }

    fn take_line(
        &mut self,
        line: &[u8],
        now: BootNanos,
        fields: &mut Vec<Field>,
        out: &mut Vec<Reading>,
    ) -> Result<(), Refusal> {
        let Some(line) = line_protocol::parse(line, fields)? else { return Ok(()) };
        let stamp = line.stamp.map_or(Stamp::Boot(now), Stamp::Utc);
        let head = &line.text[line.head.clone()];
        for field in fields.iter() {
            match self.series(head, &line.text[field.key.clone()], field.value.kind()) {
                Ok(series) => out.push(Reading { series, stamp, value: field.value.value(line.text) }),
                Err(Refusal::SeriesFull) => self.refuse(Refusal::SeriesFull, line.text.as_bytes(), now),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn series(&mut self, head: &str, key: &str, kind: Kind) -> Result<SeriesKey, Refusal> {
        let usual = self.order.get(self.last).map_or(0, |last| last.next as usize);
        if let Some(named) = self.order.get(usual).filter(|named| named.is(head, key, kind)) {
            self.last = usual;
            return Ok(named.series);
        }
        // The first blank of a head that is not escaped ends it, so these bytes are read in one way only.
        self.raw_name.clear();
        self.raw_name.extend_from_slice(head.as_bytes());
        self.raw_name.push(b' ');
        self.raw_name.extend_from_slice(key.as_bytes());
        self.raw_name.push(kind as u8);
        if let Some(place) = self.known.get(self.raw_name.as_slice()).copied() {
            self.go_to(place);
            return Ok(self.order[self.last].series);
        }
        let name = Name::from_line(head, key)?.to_text();
        let def = SeriesDef { name, unit: String::new(), kind, scale: Scale::ONE };
        let series = self.registry.key(&def).map_err(|_| Refusal::SeriesFull)?;
        self.remember(head.len(), series);
        Ok(series)
    }

    /// The name at `place` came after the one met last.
    fn go_to(&mut self, place: u32) {
        if let Some(last) = self.order.get_mut(self.last) {
            last.next = place;
        }
        self.last = place as usize;
    }

    fn remember(&mut self, head: usize, series: SeriesKey) {
        self.known_bytes += self.raw_name.len() + ENTRY_BYTES;
        if self.known_bytes > CACHE_BYTES {
            self.known.clear();
            self.order.clear();
            self.known_bytes = self.raw_name.len() + ENTRY_BYTES;
        }
        let (raw, place) = (Arc::<[u8]>::from(self.raw_name.as_slice()), self.order.len() as u32);
        self.known.insert(Arc::clone(&raw), place);
        self.order.push(Named { raw, head, series, next: 0 });
        self.go_to(place);
    }

    fn refuse(&mut self, why: Refusal, line: &[u8], now: BootNanos) {
        self.counters.add_refused(why);
        let Some(others) = self.seldom.allow(now) else { return };
        let (source, why, line) = (self.counters.source(), why.as_str(), sample(line));
        let hint =
            if why == Refusal::SeriesFull.as_str() { "; raise [store] max_series or send fewer names" } else { "" };
        log::warn!("sensor: {source}: line refused ({why}), {others} more since the last such note: {line}{hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UtcNanos;
    use crate::reading::Value;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    const NOW: BootNanos = BootNanos(5);

    proptest! {
        /// Whatever a line is, a connection that has met its like gives the same readings as one that has met none, and counts
        /// the same refusals.
        #[test]
        fn the_usual_way_gives_what_the_long_way_gives(
            lines in vec(vec(select(&PIECES[..]), 1..14).prop_map(|pieces| pieces.concat()), 1..12),
            seen in vec(select(&USUAL[..]), 0..8),
        ) {
            let (mut warm, registry, counters) = ingest(100);
            let (mut out, mut expected, mut refused) = (Vec::new(), Vec::new(), 0);
            let all = || seen.iter().copied().chain(lines.iter().map(String::as_str)).chain(USUAL);
            all().for_each(|line| warm.line(line.as_bytes(), NOW, &mut out));
            for line in all() {
                let cold_counters = Arc::new(Counters::new("test"));
                let mut cold = Ingest::new(registry.clone(), cold_counters.clone());
                cold.line(line.as_bytes(), NOW, &mut expected);
                refused += cold_counters.snapshot().refused.values().sum::<u64>();
            }
            prop_assert_eq!(format!("{out:?}"), format!("{expected:?}"));
            prop_assert_eq!(counters.snapshot().refused.values().sum::<u64>(), refused);
        }
    }

    const USUAL: [&str; 6] =
        ["m a=1 7", "m a=2,b=3i 8", "m,t=1 a=1,b=2i 9", "m\\ m a\\==1 10", "m b=1,a=2 11", "mm a=1,b=2 12"];
    const PIECES: [&str; 24] = [
        "m",
        "m ",
        "a",
        "b",
        "a=1",
        "b=3i",
        ",",
        "=",
        " ",
        "\\",
        "1",
        "i",
        ".5",
        "-",
        "t",
        "\"x y\"",
        "\r",
        "#",
        "é",
        " 7",
        " 99",
        "m a=1,b=2 ",
        ",t=1",
        "\\ m a\\=",
    ];

    /// A line of the usual names in their usual order is read in the short way; any other is not.
    #[test]
    fn what_a_source_repeats_is_read_in_the_short_way() {
        let (mut ingest, ..) = ingest(10);
        let usual = |ingest: &mut Ingest, line: &str| ingest.take_usual(line.as_bytes(), &mut Vec::new()).is_some();
        assert!(!usual(&mut ingest, "m a=1,b=2i 7"));
        for _ in 0..2 {
            ["m a=1,b=2i 7", "n c=1 7"].iter().for_each(|line| ingest.line(line.as_bytes(), NOW, &mut Vec::new()));
        }
        assert!(usual(&mut ingest, "m a=5.5,b=-3i 8"));
        for other in ["n c=1", "n c=1i 7", "n c=1 7 ", "n  c=1 7", "n c=1,b=2i 7", "n c=t 7", "m a=1 7", "n,x=1 c=1 7"]
        {
            assert!(!usual(&mut ingest, other), "{other}");
        }
        assert!(usual(&mut ingest, "n c=1 8"));
    }

    fn ingest(max_series: u32) -> (Ingest, Arc<Registry>, Arc<Counters>) {
        let (registry, counters) = (Arc::new(Registry::new(max_series)), Arc::new(Counters::new("test")));
        (Ingest::new(registry.clone(), counters.clone()), registry, counters)
    }

    /// The order of tags and the spelling do not make another series; a type does.
    #[test]
    fn one_series_however_its_tags_are_ordered() {
        let (mut ingest, registry, _) = ingest(10);
        let mut out = Vec::new();
        for line in ["m,b=2,a=1 f=1", "m,a=1,b=2 f=2 7", "m,b=2,a=1 f=3", "m,a=1,b=2 f=4i"] {
            ingest.line(line.as_bytes(), NOW, &mut out);
        }
        assert_eq!(out[0].series, out[1].series);
        assert_eq!(out[0].series, out[2].series);
        assert_ne!(out[0].series, out[3].series);
        assert_eq!(registry.def(out[0].series).name, "m/f,a=1,b=2");
        assert_eq!((out[0].stamp, out[1].stamp), (Stamp::Boot(NOW), Stamp::Utc(UtcNanos(7))));
    }

    /// Good lines around bad ones are kept, each bad one is counted under its reason, and a refused line leaves nothing,
    /// not even its good fields.
    #[test]
    fn good_lines_around_garbage_are_kept() {
        let (mut ingest, _, counters) = ingest(10);
        let mut out = Vec::new();
        let bytes = b"m a=1\n\x00\xff\xfe\nm a=2,b=x\nm,k=1,k=2 a=3\nm,k= a=4\n\nm a=5 99999999999999999999\nm a=8,\x01b=9\n# note\nm a=6\nm a=7";
        let mut buffer = LineBuffer::new();
        ingest.stream(&mut buffer, bytes, NOW, &mut out);
        ingest.end_of_stream(&mut buffer, NOW);
        let values: Vec<_> = out.into_iter().map(|r| r.value).collect();
        assert_eq!(values, [Value::Float(1.0), Value::Float(6.0)]);
        let refused = counters.snapshot().refused.into_iter().collect::<Vec<_>>();
        assert_eq!(refused, [("encoding", 1), ("name", 1), ("number", 1), ("stamp", 1), ("tag", 2), ("unfinished", 1)]);
    }

    /// Names that come in another order than before, or differ in their last byte or their kind only, are told apart.
    #[test]
    fn names_out_of_their_usual_order_are_told_apart() {
        let (mut ingest, registry, _) = ingest(100);
        let mut random = 7_u64;
        let lines = ["m a=1,b=2,c=3", "m a=1i,b=2", "m,t=1 a=1", "mm a=1", "m ab=1,a=2", "m,t=1 a=1,a=2"];
        for round in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let line = if round < 50 { lines[round % 6] } else { lines[(random >> 40) as usize % 6] };
            let mut out = Vec::new();
            ingest.line(line.as_bytes(), NOW, &mut out);
            let (head, fields) = line.split_once(' ').expect("a head");
            for (field, reading) in fields.split(',').zip(&out) {
                let (key, value) = field.split_once('=').expect("a field");
                let (measurement, tags) =
                    head.split_once(',').map_or((head, String::new()), |(m, t)| (m, format!(",{t}")));
                let def = registry.def(reading.series);
                assert_eq!(def.name, format!("{measurement}/{key}{tags}"));
                assert_eq!(def.kind == Kind::Int, value.ends_with('i'), "{line}");
            }
        }
    }

    /// A refused line makes no series: garbage can't use up `max_series`.
    #[test]
    fn refused_lines_take_no_series() {
        let (mut ingest, _, counters) = ingest(1);
        let mut out = Vec::new();
        for line in ["x a=1 99999999999999999999", "y a=1,b=?", "z,k=1,k=1 a=1", "good a=1"] {
            ingest.line(line.as_bytes(), NOW, &mut out);
        }
        assert_eq!(out.len(), 1);
        assert_eq!(counters.snapshot().refused.get("series-full"), None);
    }

    /// Ten thousand names where a thousand are allowed: the first thousand go on, the others are counted, the memory of
    /// names stays within its bound.
    #[test]
    fn series_above_the_limit_are_counted_and_the_others_go_on() {
        let (mut ingest, _, counters) = ingest(1000);
        for round in 0..2 {
            let mut out = Vec::new();
            (0..10_000).for_each(|i| ingest.line(format!("m,id={i} a=1,b=2").as_bytes(), NOW, &mut out));
            assert_eq!(out.len(), 1000, "round {round}");
            assert!(ingest.known_bytes <= CACHE_BYTES);
        }
        assert_eq!(counters.snapshot().refused.get("series-full"), Some(&38_000));
    }

    /// More names than the memory holds: still every reading gets its own series.
    #[test]
    fn a_full_memory_of_names_starts_anew_and_stays_right() {
        let (mut ingest, registry, _) = ingest(10_000);
        for _ in 0..2 {
            let mut out = Vec::new();
            (0..10_000).for_each(|i| ingest.line(format!("m,id={i} a={i}i").as_bytes(), NOW, &mut out));
            assert!(ingest.known_bytes <= CACHE_BYTES && ingest.known.len() < 10_000);
            for (i, reading) in out.iter().enumerate() {
                assert_eq!(registry.def(reading.series).name, format!("m/a,id={i}"));
            }
        }
    }

    /// A datagram is a frame of its own: its last line needs no newline; a datagram that fills the buffer may be cut off.
    #[test]
    fn a_datagram_needs_no_last_newline() {
        let (mut ingest, _, counters) = ingest(10);
        let mut out = Vec::new();
        ingest.datagram(b"m a=1\nm a=2", NOW, &mut out);
        ingest.datagram(&vec![b'x'; MAX_LINE_BYTES + 1], NOW, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(counters.snapshot().refused.get("too-long"), Some(&1));
    }
}
