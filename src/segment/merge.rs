//! Neighbours joined into one segment.
//!
//! What enters: decoded segments. What leaves: one segment that covers their range.

use super::{Column, Content, Missing, Readings, Segment, SegmentError, Timeline, TimelineClock, Values};
use crate::reading::{Kind, SeqRange, SeriesDef, SeriesId};
use std::collections::{BTreeMap, HashMap};

/// The readings of one series on one clock, from one part after the other.
#[derive(Debug)]
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
    if let [only] = parts {
        return Ok(only.clone());
    }
    let mut merge = Merge::default();
    parts.iter().for_each(|part| merge.add(part));
    merge.finish()
}

/// [`merge`] of parts that come one after the other, so that only one of them is in RAM beside what is joined.
#[derive(Debug, Default)]
pub struct Merge {
    range: Option<SeqRange>,
    lines: Lines,
    names: BTreeMap<SeriesId, SeriesDef>,
    /// Of the parts added, some have no names.
    unnamed: bool,
    fault: Option<SegmentError>,
}

impl Merge {
    /// Adds the next part. What is wrong with it, [`Merge::finish`] says.
    pub fn add(&mut self, part: &Segment) {
        if self.fault.is_none() {
            self.fault = self.take(part).err();
        }
    }

    fn take(&mut self, part: &Segment) -> Result<(), SegmentError> {
        if self.range.is_some_and(|before| before.last >= part.range.first) {
            return Err(SegmentError::Unfit("the parts of a merge are out of order"));
        }
        let Content::Data { readings, names } = &part.content else {
            return Err(SegmentError::Unfit("a loss cannot be merged"));
        };
        let first = self.range.map_or(part.range.first, |before| before.first);
        self.range = Some(SeqRange { first, last: part.range.last });
        self.unnamed |= names.is_empty() && !readings.columns.is_empty();
        self.names.extend(names.iter().cloned());
        readings.columns.iter().try_for_each(|column| append(&mut self.lines, column, readings))
    }

    /// All parts as one segment.
    ///
    /// # Errors
    /// As of [`merge`].
    pub fn finish(self) -> Result<Segment, SegmentError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let range = self.range.ok_or(SegmentError::Unfit("there is nothing to merge"))?;
        let names = if self.unnamed { Vec::new() } else { self.names.into_iter().collect() };
        let readings = gather(self.lines);
        let two_kinds =
            |pair: &[Column]| pair[0].series == pair[1].series && pair[0].values.kind() != pair[1].values.kind();
        if readings.columns.windows(2).any(two_kinds) {
            return Err(SegmentError::Unfit("a series has values of two kinds"));
        }
        Ok(Segment { range, content: Content::Data { readings, names } })
    }
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
