//! The question whether one segment holds all of another.
//!
//! What enters: two decoded segments. What leaves: an answer. What is compared is content: bytes of equal readings differ
//! between a fresh segment and a compacted one. It promises to take time in proportion to the readings of both, whatever they are:
//! a kilobyte from a hostile device may say a quarter of a million equal readings, twice.

use super::{Column, Content, MAX_READINGS, Readings, Segment, TimelineClock};
use crate::reading::{SeriesId, Value};
use std::collections::HashMap;

/// The most readings that are looked at for one answer. Segments in good order have one column for each series and clock, so
/// that each of their readings is looked at once.
const MAX_LOOKS: usize = 8 * MAX_READINGS;

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
    let mut by_line: HashMap<(SeriesId, TimelineClock), Vec<Run<'_>>> = HashMap::new();
    for run in held.columns.iter().filter_map(|column| Run::new(held, column)) {
        by_line.entry(run.line).or_default().push(run);
    }
    let mut looks = MAX_LOOKS;
    other.columns.iter().all(|column| {
        let Some(part) = Run::new(other, column) else { return false };
        let candidates = by_line.get(&part.line).map(Vec::as_slice).unwrap_or_default();
        candidates.iter().any(|whole| {
            let left = looks.checked_sub(whole.stamps.len() + part.stamps.len());
            looks = left.unwrap_or(0);
            left.is_some() && whole.has(&part)
        })
    })
}

/// The readings of a column, in order.
struct Run<'a> {
    line: (SeriesId, TimelineClock),
    stamps: &'a [i64],
    column: &'a Column,
}

impl<'a> Run<'a> {
    fn new(readings: &'a Readings, column: &'a Column) -> Option<Self> {
        let timeline = readings.timelines.get(column.timeline)?;
        Some(Self { line: (column.series, timeline.clock), stamps: &timeline.stamps, column })
    }

    /// Whether `part` is a run of this one. Knuth, Morris and Pratt, "Fast pattern matching in strings" (1977): no reading is
    /// compared with more than two others at the mean, also where all are equal but for the last.
    fn has(&self, part: &Self) -> bool {
        let n = part.stamps.len();
        if n == 0 {
            return true;
        }
        // Of each beginning of `part`, how much of it is also its end.
        let mut again = vec![0_usize; n];
        for at in 1..n {
            again[at] = part.matched(at, part, &again, again[at - 1]);
        }
        let mut matched = 0;
        (0..self.stamps.len()).any(|at| {
            matched = self.matched(at, part, &again, matched);
            matched == n
        })
    }

    /// How much of `part` ends at `at`, where `matched` of it ended before.
    fn matched(&self, at: usize, part: &Self, again: &[usize], mut matched: usize) -> usize {
        while matched > 0 && (matched == part.stamps.len() || !self.same(at, part, matched)) {
            matched = again[matched - 1];
        }
        matched + usize::from(self.same(at, part, matched))
    }

    fn same(&self, at: usize, part: &Self, i: usize) -> bool {
        if self.stamps.get(at) != part.stamps.get(i) {
            return false;
        }
        let why = |column: &Column, at: usize| {
            column.missing.binary_search_by_key(&at, |m| m.at as usize).ok().map(|i| column.missing[i].why)
        };
        let (a, b) = (why(self.column, at), why(part.column, i));
        if a.is_some() || b.is_some() {
            return a == b;
        }
        match (self.column.values.get(at), part.column.values.get(i)) {
            (Some(Value::Float(a)), Some(Value::Float(b))) => a.to_bits() == b.to_bits(),
            (a, b) => a.is_some() && a == b,
        }
    }
}
