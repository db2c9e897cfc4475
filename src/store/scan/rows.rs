//! Readings as they are shown: a decoded column and its moments, row by row.
//!
//! What enters: what [`super::Scan`] found. What leaves: [`Row`]s, or one part of a row at a time for who needs no more. It
//! decodes nothing and allocates nothing.

use super::Moment;
use crate::clock::timebase::Quality;
use crate::reading::{NoValue, Scale, SegmentSeq, SeriesDef};
use crate::segment::{Column, Values};
use std::sync::Arc;

/// The readings of one series on one timeline of one segment.
#[derive(Debug)]
pub struct ColumnRows {
    pub(super) def: Arc<SeriesDef>,
    pub(super) seq: SegmentSeq,
    /// In UTC, where times or a range of time were asked for.
    pub(super) moments: Option<Arc<[Moment]>>,
    /// Where values were asked for.
    pub(super) column: Option<Column>,
    /// The next reading to look at,
    pub(super) at: usize,
    /// and the first behind the last that is meant.
    pub(super) end: usize,
    pub(super) since: i64,
    pub(super) until: i64,
}

/// One reading as it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// Its series.
    pub series: &'a SeriesDef,
    /// When; `None` where neither [`super::Selection::times`] nor a range of time was asked for.
    pub moment: Option<Moment>,
    /// The value; [`Cell::Null`] where there is none or none was asked for.
    pub value: Cell<'a>,
    /// `ok`, `estimated`, `nan`, `infinite`, or why there is no value.
    pub quality: &'static str,
    /// The first sequence number of its segment.
    pub seq: SegmentSeq,
}

/// A value as SQL, CSV and JSON have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// None.
    Null,
    /// An integer without scale, or a truth value as 0 or 1.
    Int(i64),
    /// A double, or an integer × scale; never NaN.
    Real(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(&'a str),
}

impl ColumnRows {
    /// Moves to the next reading in the range of time; false at the end. The first call moves to the first.
    pub fn advance(&mut self) -> bool {
        while self.at < self.end {
            self.at += 1;
            let moment = self.moments.as_ref().and_then(|moments| moments.get(self.at - 1));
            if moment.is_none_or(|moment| (self.since..=self.until).contains(&moment.utc.0)) {
                return true;
            }
        }
        false
    }

    /// The reading that [`ColumnRows::advance`] moved to.
    pub fn row(&self) -> Row<'_> {
        let (value, trouble) = self.shown();
        let (moment, by_clock) = (self.moment(), self.by_clock());
        Row { series: &self.def, moment, value, quality: trouble.unwrap_or(by_clock), seq: self.seq }
    }

    /// [`Row::series`] of it.
    pub(in crate::store) fn series(&self) -> &SeriesDef {
        &self.def
    }

    /// [`Row::moment`] of it.
    pub(in crate::store) fn moment(&self) -> Option<Moment> {
        self.moments.as_ref().and_then(|moments| moments.get(self.at.saturating_sub(1))).copied()
    }

    /// [`Row::value`] of it.
    pub(in crate::store) fn value(&self) -> Cell<'_> {
        self.shown().0
    }

    /// [`Row::quality`] of it.
    pub(in crate::store) fn quality(&self) -> &'static str {
        self.shown().1.unwrap_or_else(|| self.by_clock())
    }

    /// [`Row::seq`] of it.
    pub(in crate::store) fn seq(&self) -> SegmentSeq {
        self.seq
    }

    fn by_clock(&self) -> &'static str {
        self.moment().map_or(Quality::Ok, |moment| moment.quality).as_str()
    }

    fn shown(&self) -> (Cell<'_>, Option<&'static str>) {
        let at = self.at.saturating_sub(1);
        self.column.as_ref().map_or((Cell::Null, None), |column| shown(column, at, self.def.scale))
    }
}

/// A value of a column, and what is the matter with it.
pub(in crate::store) fn shown(column: &Column, at: usize, scale: Scale) -> (Cell<'_>, Option<&'static str>) {
    let missing = match column.missing.is_empty() {
        true => None,
        false => {
            u32::try_from(at).ok().and_then(|at| column.missing.binary_search_by_key(&at, |missing| missing.at).ok())
        }
    };
    if let Some(missing) = missing {
        return (Cell::Null, Some(column.missing[missing].why.as_str()));
    }
    let value = match &column.values {
        Values::Int(values) if scale == Scale::ONE => values.get(at).copied().map(Cell::Int),
        Values::Int(values) => values.get(at).map(|raw| Cell::Real(scale.apply(*raw))),
        Values::Float(values) => values.get(at).copied().map(Cell::Real),
        Values::Bool(values) => values.get(at).copied().map(Cell::Bool),
        Values::Text(values) => values.get(at).map(|text| Cell::Text(text)),
    };
    match value {
        Some(Cell::Real(number)) if number.is_nan() => (Cell::Null, Some("nan")),
        Some(Cell::Real(number)) if number.is_infinite() => (Cell::Real(number), Some("infinite")),
        Some(value) => (value, None),
        None => (Cell::Null, Some(NoValue::Unreadable.as_str())),
    }
}
