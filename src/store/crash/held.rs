//! What a store holds, as numbers that can be compared: the same before and after compaction, a checkpoint, a salvage.
//!
//! What enters: an open store, or readings on their way to one. What leaves: [`Held`]. Sums over readings, each with its
//! series' name, clock, stamp and value, so that order and segments don't matter and nothing may be missing or twice.

use super::super::{Store, commit};
use super::chance::{hash, scatter};
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange};
use crate::segment::{self, Column, Content, Timeline, TimelineClock, Values};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The readings of a store, and the account of those that are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// Readings.
    pub(crate) n: u64,
    /// Sum of a hash of each.
    pub(crate) sum: u64,
    /// Readings that losses stand for.
    pub(crate) lost: u64,
    /// Sum of the highest numbers of all lines.
    pub(crate) high: u64,
}

/// What bodies were found to hold: the same ones come up in every image.
#[derive(Default)]
pub(crate) struct Bodies(HashMap<(u64, usize), Body>);

#[derive(Clone)]
enum Body {
    /// Per series: readings, and the sum of their hashes without the name.
    Data(Vec<(u32, u64, u64)>),
    Loss(u64),
}

/// Numbers that were given, and that neither a segment nor a loss nor an acknowledgement accounts for.
pub(crate) fn unaccounted(store: &Store) -> Result<(), String> {
    for line in &store.lines {
        let Some(given) = SeqRange::new(1, line.high.0) else { continue };
        let heads = store.held(line.uuid, SegmentSeq(0), 1 << 20).map_err(|e| e.to_string())?;
        let gaps = heads.iter().map(|head| head.range).collect::<RangeSet>().gaps(given);
        if !line.acked.covers_all(&gaps) {
            return Err(format!("{gaps:?} of store {} are unaccounted for, {:?} acknowledged", line.no.0, line.acked));
        }
    }
    Ok(())
}

/// Everything that `store` holds, decoded to the last value.
pub(crate) fn held(store: &Store, bodies: &mut Bodies) -> Result<Held, String> {
    let mut held = Held::default();
    for line in &store.lines {
        held.high += line.high.0;
        let mut names = HashMap::new();
        commit::each_series(&store.conn, line.no, |id, def| {
            names.insert(id.0, named(&def.name));
        })
        .map_err(|e| e.to_string())?;
        let mut rows = store
            .conn
            .prepare_cached("SELECT body, id & ((1 << 48) - 1), last_seq FROM segment WHERE id >> 48 = ?1 ORDER BY id")
            .map_err(|e| e.to_string())?;
        let mut rows = rows.query([line.no.0]).map_err(|e| e.to_string())?;
        let mut before = 0;
        while let Some(row) = rows.next().map_err(|e| e.to_string())? {
            let get = |at| row.get::<_, i64>(at).map_err(|e| e.to_string());
            let (first, last) = (get(1)?, get(2)?);
            if first <= before || last < first {
                return Err(format!("segment {first}..={last} of store {} behind {before}", line.no.0));
            }
            before = last;
            let body = row.get_ref(0).map_err(|e| e.to_string())?;
            let body = body.as_blob().map_err(|e| e.to_string())?;
            match bodies.of(body).map_err(|e| format!("segment {first}..={last}: {e}"))? {
                Body::Loss(n) => held.lost += n,
                Body::Data(columns) => {
                    for (series, n, sum) in columns {
                        let name = names.get(series).ok_or_else(|| format!("series {series} has no name"))?;
                        held.n += n;
                        held.sum = held.sum.wrapping_add(name.wrapping_mul(*sum));
                    }
                }
            }
        }
    }
    Ok(held)
}

/// Odd, so that no sum of hashes vanishes by it.
fn named(name: &str) -> u64 {
    hash(1, name.as_bytes()) | 1
}

impl Bodies {
    fn of(&mut self, body: &[u8]) -> Result<&Body, String> {
        let key = (hash(0, body), body.len());
        match self.0.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(decoded(body)?)),
        }
    }
}

fn decoded(body: &[u8]) -> Result<Body, String> {
    match segment::decode(body).map_err(|e| e.to_string())?.content {
        Content::Loss(loss) => Ok(Body::Loss(loss.readings.unwrap_or(0))),
        Content::Data { readings, .. } => {
            let column = |c: &Column| {
                let (n, sum) = sum(&readings.timelines[c.timeline], &c.values);
                (c.series.0, n, sum)
            };
            Ok(Body::Data(readings.columns.iter().map(column).collect()))
        }
    }
}

fn sum(timeline: &Timeline, values: &Values) -> (u64, u64) {
    let Values::Int(values) = values else { panic!("workloads have integers") };
    let sum = timeline.stamps.iter().zip(values);
    let sum = sum.fold(0u64, |sum, (stamp, value)| sum.wrapping_add(reading(timeline.clock, *stamp, *value)));
    (values.len() as u64, sum)
}

fn reading(clock: TimelineClock, stamp: i64, value: i64) -> u64 {
    let clock = match clock {
        TimelineClock::Utc => 0,
        TimelineClock::Boot(BootId(boot)) => u64::from(boot) + 1,
    };
    scatter(scatter(scatter(clock) ^ stamp as u64) ^ value as u64)
}

impl Held {
    /// With readings of one series added, which are stamped by the clock of `boot`.
    pub(crate) fn add(&mut self, name: &str, boot: BootId, stamps: &[i64], values: &[i64]) {
        self.n += values.len() as u64;
        for (stamp, value) in stamps.iter().zip(values) {
            let one = reading(TimelineClock::Boot(boot), *stamp, *value);
            self.sum = self.sum.wrapping_add(named(name).wrapping_mul(one));
        }
    }
}
