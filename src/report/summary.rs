//! What a report shows, read from a store: a bounded picture of each series, and everything that is missing.

use super::{BINS, MAX_CHARTS};
use crate::clock::UtcNanos;
use crate::clock::timebase::Quality;
use crate::reading::{BootId, Kind};
use crate::segment::{Loss, View};
use crate::store::reader::{ReadError, Reader, StoredBody};
use crate::store::scan::{Cell, Row, Selection};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The device, where the file says which.
    pub device: Option<String>,
    /// The file.
    pub file: String,
    /// The first and the last moment of a reading.
    pub period: Option<(UtcNanos, UtcNanos)>,
    /// Readings, and how many of them at an estimated time, and without a value.
    pub readings: u64,
    /// See `readings`.
    pub estimated: u64,
    /// See `readings`.
    pub missing: u64,
    /// By name; at most [`MAX_CHARTS`].
    pub series: BTreeMap<String, Series>,
    /// Series that have no chart.
    pub series_left_out: usize,
    /// Accounts of what was lost.
    pub losses: Vec<Lost>,
    /// Losses beyond those.
    pub losses_left_out: u64,
    /// Segments that can't be read.
    pub unreadable: u64,
    /// The first of them, in words.
    pub reasons: Vec<String>,
    /// Events of the file, newest first.
    pub events: Vec<(UtcNanos, String, String)>,
    /// What the service said of itself, JSON; and when, where that was at a pull.
    pub health: Option<(String, Option<UtcNanos>)>,
}

/// A series over the period.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// SenML symbol.
    pub unit: String,
    /// What its values are.
    pub kind: Kind,
    /// Readings.
    pub n: u64,
    /// How many have no value.
    pub missing: u64,
    /// The moments of the first and the last.
    pub period: (UtcNanos, UtcNanos),
    /// The newest value, as it is shown.
    pub last: String,
    /// Least, mean and greatest of the finite values.
    pub figures: Option<(f64, f64, f64)>,
    /// By time: [`BINS`] of them.
    pub bins: Vec<Bin>,
    sum: f64,
    finite: u64,
}

/// A stretch of the period.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Readings in it.
    pub n: u32,
    /// How many at an estimated time.
    pub estimated: u32,
    /// Least and greatest of the finite values.
    pub values: Option<(f64, f64)>,
}

/// What is known of a loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// The account.
    pub loss: Loss,
    /// From when to when, as far as that is known.
    pub period: Option<(UtcNanos, UtcNanos)>,
}

/// The most losses that are listed.
const MAX_LOSSES: usize = 100;

/// The most events that are listed.
const MAX_EVENTS: u32 = 20;

/// The longest newest value, in characters.
const MAX_LAST: usize = 80;

impl Summary {
    /// Reads all of it, unless `stop` is set before the end.
    ///
    /// # Errors
    /// See [`ReadError`]; segments that can't be read are counted instead.
    pub fn of(reader: &Reader, health: Option<&str>, stop: &AtomicBool) -> Result<Self, ReadError> {
        let now = health.map(|health| (health.to_owned(), None));
        let at = reader.meta_text("pulled_at")?.and_then(|at| at.parse().ok()).map(UtcNanos);
        let pulled = reader.meta_text("pulled_health")?.map(|health| (health, at));
        let mut summary = Self {
            device: reader.meta_text("pulled_device")?,
            file: reader.path().display().to_string(),
            period: period(reader, stop)?,
            readings: 0,
            estimated: 0,
            missing: 0,
            series: BTreeMap::new(),
            series_left_out: 0,
            losses: Vec::new(),
            losses_left_out: 0,
            unreadable: 0,
            reasons: Vec::new(),
            events: reader.events(MAX_EVENTS)?,
            health: now.or(pulled).filter(|(health, _)| !health.is_empty()),
        };
        summary.read_series(reader, stop)?;
        summary.read_losses(reader)?;
        Ok(summary)
    }

    fn read_series(&mut self, reader: &Reader, stop: &AtomicBool) -> Result<(), ReadError> {
        let Some(period) = self.period else { return Ok(()) };
        let mut left_out = std::collections::BTreeSet::new();
        let mut rows = reader.scan(&Selection::default())?;
        while let Some(mut column) = rows.next_column()? {
            if stop.load(Ordering::Relaxed) {
                return Err(ReadError::Interrupted);
            }
            while column.advance() {
                let row = column.row();
                let Some(moment) = row.moment else { continue };
                self.readings += 1;
                let estimated = moment.quality == Quality::Estimated;
                self.estimated += u64::from(estimated);
                self.missing += u64::from(row.value == Cell::Null);
                let known = self.series.contains_key(&row.series.name);
                if !known && self.series.len() == MAX_CHARTS {
                    left_out.insert(row.series.name.clone());
                    continue;
                }
                if !known {
                    self.series.insert(row.series.name.clone(), Series::new(&row, moment.utc));
                }
                if let Some(series) = self.series.get_mut(&row.series.name) {
                    series.add(&row, moment.utc, estimated, period);
                }
            }
        }
        self.unreadable = rows.tally().unreadable;
        self.reasons = rows.tally().reasons.clone();
        self.series_left_out = left_out.len();
        self.series.values_mut().for_each(Series::settle);
        Ok(())
    }

    fn read_losses(&mut self, reader: &Reader) -> Result<(), ReadError> {
        reader.each_body(|stored| {
            let Some(loss) = View::parse(stored.bytes).ok().and_then(|view| view.loss().copied()) else { return };
            if self.losses.len() < MAX_LOSSES {
                self.losses.push(Lost { loss, period: period_of(&loss, &stored) });
            } else {
                self.losses_left_out += 1;
            }
        })
    }
}

/// From the first to the last moment of all readings.
fn period(reader: &Reader, stop: &AtomicBool) -> Result<Option<(UtcNanos, UtcNanos)>, ReadError> {
    let only_times = Selection { values: false, ..Selection::default() };
    let mut rows = reader.scan(&only_times)?;
    let mut period: Option<(UtcNanos, UtcNanos)> = None;
    while let Some(mut column) = rows.next_column()? {
        if stop.load(Ordering::Relaxed) {
            return Err(ReadError::Interrupted);
        }
        while column.advance() {
            let Some(moment) = column.row().moment else { continue };
            let (from, to) = period.get_or_insert((moment.utc, moment.utc));
            (*from, *to) = (moment.utc.min(*from), moment.utc.max(*to));
        }
    }
    Ok(period)
}

fn period_of(loss: &Loss, stored: &StoredBody<'_>) -> Option<(UtcNanos, UtcNanos)> {
    let utc = |(boot, at): (BootId, _)| stored.store.timebase.utc(boot, at).0;
    let ends = [loss.from, loss.to].into_iter().flatten().map(utc);
    let ends: Vec<UtcNanos> = ends.chain(loss.utc.into_iter().flat_map(|(from, to)| [from, to])).collect();
    Some((*ends.iter().min()?, *ends.iter().max()?))
}

/// Which of [`BINS`] a moment of `period` is in.
pub fn bin_of(at: UtcNanos, (from, to): (UtcNanos, UtcNanos)) -> usize {
    let span = i128::from(to.0) - i128::from(from.0) + 1;
    let since = (i128::from(at.0) - i128::from(from.0)).clamp(0, span - 1);
    usize::try_from(since * BINS as i128 / span).unwrap_or(0).min(BINS - 1)
}

impl Series {
    fn new(row: &Row<'_>, at: UtcNanos) -> Self {
        Self {
            unit: row.series.unit.clone(),
            kind: row.series.kind,
            n: 0,
            missing: 0,
            period: (at, at),
            last: String::new(),
            figures: None,
            bins: vec![Bin::default(); BINS],
            sum: 0.0,
            finite: 0,
        }
    }

    fn add(&mut self, row: &Row<'_>, at: UtcNanos, estimated: bool, period: (UtcNanos, UtcNanos)) {
        let bin = &mut self.bins[bin_of(at, period)];
        bin.n = bin.n.saturating_add(1);
        bin.estimated = bin.estimated.saturating_add(u32::from(estimated));
        let number = match row.value {
            Cell::Int(value) => Some(value as f64),
            Cell::Real(value) => Some(value).filter(|value| value.is_finite()),
            Cell::Bool(value) => Some(f64::from(u8::from(value))),
            Cell::Null | Cell::Text(_) => None,
        };
        if let Some(number) = number {
            let (least, most) = bin.values.get_or_insert((number, number));
            (*least, *most) = (least.min(number), most.max(number));
            let (least, _, most) = self.figures.get_or_insert((number, number, number));
            (*least, *most) = (least.min(number), most.max(number));
            self.sum += number;
            self.finite += 1;
        }
        self.n += 1;
        self.missing += u64::from(row.value == Cell::Null);
        if at >= self.period.1 || self.n == 1 {
            self.last = shown(row);
        }
        self.period = (self.period.0.min(at), self.period.1.max(at));
    }

    fn settle(&mut self) {
        if let Some((least, mean, most)) = &mut self.figures {
            *mean = (self.sum / self.finite.max(1) as f64).clamp(*least, *most);
        }
    }

    /// Runs of bins in which readings are missing, between the first and the last: more of them than the usual distance of two
    /// readings explains.
    pub fn gaps(&self) -> Vec<(usize, usize)> {
        let held: Vec<usize> = (0..BINS).filter(|bin| self.bins[*bin].n > 0).collect();
        let mut steps: Vec<usize> = held.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_unstable();
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(1);
        let empty = held.windows(2).filter(|pair| pair[1] - pair[0] > (3 * usual).max(2));
        empty.map(|pair| (pair[0] + 1, pair[1])).collect()
    }
}

fn shown(row: &Row<'_>) -> String {
    match row.value {
        Cell::Null => row.quality.to_owned(),
        Cell::Int(value) => value.to_string(),
        Cell::Real(value) => format!("{value}"),
        Cell::Bool(value) => value.to_string(),
        Cell::Text(text) => text.chars().take(MAX_LAST).collect(),
    }
}
