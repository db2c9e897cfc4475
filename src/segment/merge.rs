//! Neighbours joined into one segment, and the question whether one segment holds all of another.
//!
//! What enters: decoded segments. What leaves: one segment that covers their range, or an answer. What is compared here is
//! content: bytes of equal readings differ between a fresh segment and a compacted one.

use super::{Column, Content, Missing, Readings, Segment, SegmentError, Timeline, TimelineClock, Values};
use crate::reading::{Kind, SeqRange, SeriesDef, SeriesId, Value};
use std::collections::{BTreeMap, HashMap};

/// The readings of one series on one clock, from one part after the other.
struct Line {
    stamps: Vec<i64>,
    values: Values,
    missing: Vec<Missing>,
}

/// Joins `parts`, which are neighbours in ascending order, into one segment over their whole range: per series and clock
/// the readings of the first part, then those of the second, and so on. Names are kept where every part has them; a caller
/// that knows all names sets them instead.
///
/// # Errors
/// [`SegmentError::Unfit`] for no parts, parts out of order, a loss among several parts (a loss stays a segment of its
/// own), or a series whose kind changes. What is too large, [`super::encode`] says.
pub fn merge(parts: &[Segment]) -> Result<Segment, SegmentError> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(SegmentError::Unfit("there is nothing to merge"));
    };
    if let [only] = parts {
        return Ok(only.clone());
    }
    if !parts.windows(2).all(|pair| pair[0].range.last < pair[1].range.first) {
        return Err(SegmentError::Unfit("the parts of a merge are out of order"));
    }
    let (mut lines, mut names) = (BTreeMap::new(), BTreeMap::new());
    let mut all_named = true;
    for part in parts {
        let Content::Data { readings, names: of_part } = &part.content else {
            return Err(SegmentError::Unfit("a loss cannot be merged"));
        };
        all_named &= !of_part.is_empty() || readings.columns.is_empty();
        names.extend(of_part.iter().map(|(id, def)| (*id, def)));
        readings.columns.iter().try_for_each(|column| append(&mut lines, column, readings))?;
    }
    let names = if all_named { owned(names) } else { Vec::new() };
    let range = SeqRange { first: first.range.first, last: last.range.last };
    let readings = gather(lines);
    let two_kinds =
        |pair: &[Column]| pair[0].series == pair[1].series && pair[0].values.kind() != pair[1].values.kind();
    if readings.columns.windows(2).any(two_kinds) {
        return Err(SegmentError::Unfit("a series has values of two kinds"));
    }
    Ok(Segment { range, content: Content::Data { readings, names } })
}

fn owned(names: BTreeMap<SeriesId, &SeriesDef>) -> Vec<(SeriesId, SeriesDef)> {
    names.into_iter().map(|(id, def)| (id, def.clone())).collect()
}

type Lines = BTreeMap<(SeriesId, TimelineClock), Line>;

fn append(lines: &mut Lines, column: &Column, readings: &Readings) -> Result<(), SegmentError> {
    let timeline = readings.timelines.get(column.timeline);
    let timeline = timeline.filter(|timeline| timeline.stamps.len() == column.values.len());
    let timeline = timeline.ok_or(SegmentError::Unfit("a column and its timeline differ in length"))?;
    let line = lines.entry((column.series, timeline.clock)).or_insert_with(|| Line {
        stamps: Vec::new(),
        values: Values::of(column.values.kind()),
        missing: Vec::new(),
    });
    let before = line.stamps.len() as u32;
    line.stamps.extend_from_slice(&timeline.stamps);
    line.values.append(&column.values)?;
    line.missing.extend(column.missing.iter().map(|m| Missing { at: m.at + before, why: m.why }));
    Ok(())
}

impl Values {
    /// No values of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Int => Self::Int(Vec::new()),
            Kind::Float => Self::Float(Vec::new()),
            Kind::Bool => Self::Bool(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
        }
    }

    /// The values in `part`, which must lie inside.
    pub(crate) fn slice(&self, part: std::ops::Range<usize>) -> Self {
        match self {
            Self::Int(all) => Self::Int(all[part].to_vec()),
            Self::Float(all) => Self::Float(all[part].to_vec()),
            Self::Bool(all) => Self::Bool(all[part].to_vec()),
            Self::Text(all) => Self::Text(all[part].to_vec()),
        }
    }

    fn append(&mut self, other: &Self) -> Result<(), SegmentError> {
        match (self, other) {
            (Self::Int(all), Self::Int(more)) => all.extend_from_slice(more),
            (Self::Float(all), Self::Float(more)) => all.extend_from_slice(more),
            (Self::Bool(all), Self::Bool(more)) => all.extend_from_slice(more),
            (Self::Text(all), Self::Text(more)) => all.extend_from_slice(more),
            _ => return Err(SegmentError::Unfit("a series has values of two kinds")),
        }
        Ok(())
    }
}

fn gather(lines: Lines) -> Readings {
    let mut timelines = Timelines::default();
    let mut columns = Vec::with_capacity(lines.len());
    for ((series, clock), line) in lines {
        let timeline = timelines.place(clock, &line.stamps);
        columns.push(Column { series, timeline, values: line.values, missing: line.missing });
    }
    Readings { timelines: timelines.all, columns }
}

/// Timelines, each once.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    /// In the order in which they were first met.
    pub(crate) all: Vec<Timeline>,
    by_hash: HashMap<u64, Vec<usize>>,
}

impl Timelines {
    /// The index of the timeline with this clock and these stamps, which is added where it is new.
    pub(crate) fn place(&mut self, clock: TimelineClock, stamps: &[i64]) -> usize {
        let hash = stamps.iter().fold(stamps.len() as u64, |hash, stamp| {
            (hash.rotate_left(5) ^ *stamp as u64).wrapping_mul(0x517c_c1b7_2722_0a95)
        });
        let known = self.by_hash.entry(hash).or_default();
        let equal = known.iter().find(|i| self.all[**i].clock == clock && self.all[**i].stamps == stamps);
        if let Some(index) = equal {
            return *index;
        }
        known.push(self.all.len());
        self.all.push(Timeline { clock, stamps: stamps.to_vec() });
        self.all.len() - 1
    }
}

/// Whether every reading of `other` is in `held`, per series and clock in the same order, and next to each other. That
/// tells a duplicate from a conflict: compaction joins readings, it neither drops nor changes one. A loss is in an equal
/// loss only.
pub fn contains(held: &Segment, other: &Segment) -> bool {
    match (&held.content, &other.content) {
        (Content::Loss(held), Content::Loss(other)) => held == other,
        (Content::Data { readings: held, .. }, Content::Data { readings: other, .. }) => contains_readings(held, other),
        _ => false,
    }
}

fn contains_readings(held: &Readings, other: &Readings) -> bool {
    let clock = |readings: &Readings, column: &Column| readings.timelines.get(column.timeline).map(|t| t.clock);
    other.columns.iter().all(|column| {
        let begin = held.columns.partition_point(|c| c.series < column.series);
        let mut same = held.columns[begin..].iter().take_while(|c| c.series == column.series);
        same.any(|c| clock(held, c) == clock(other, column) && runs_in(held, c, other, column))
    })
}

/// Whether the readings of `part` are a run of those of `whole`.
fn runs_in(held: &Readings, whole: &Column, other: &Readings, part: &Column) -> bool {
    let (Some(whole_t), Some(part_t)) = (held.timelines.get(whole.timeline), other.timelines.get(part.timeline)) else {
        return false;
    };
    let n = part_t.stamps.len();
    if n == 0 {
        return true;
    }
    let starts = whole_t.stamps.windows(n).enumerate().filter(|(_, stamps)| *stamps == part_t.stamps);
    starts.map(|(start, _)| start).any(|start| (0..n).all(|i| same(whole, start + i, part, i)))
}

fn same(whole: &Column, at: usize, part: &Column, i: usize) -> bool {
    let why = |column: &Column, at: usize| {
        column.missing.binary_search_by_key(&at, |m| m.at as usize).ok().map(|i| column.missing[i].why)
    };
    let (a, b) = (why(whole, at), why(part, i));
    if a.is_some() || b.is_some() {
        return a == b;
    }
    match (whole.values.get(at), part.values.get(i)) {
        (Some(Value::Float(a)), Some(Value::Float(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a.is_some() && a == b,
    }
}
