//! What segments cite, after them: names, units, boots and anchors; and what the fleet has.

use super::rows::{Got, Rows};
use super::{Line, ServeError};
use crate::clock::{Anchor, BootNanos, UtcNanos};
use crate::pull::link::Link;
use crate::reading::{BootId, Kind, Scale, SeqRange, SeriesDef, SeriesId};
use crate::wire::{CatalogBoot, CatalogPage, FromBoard, MAX_PULL_RANGES};
use std::io::{BufRead, Write};

/// Series in a page: with names as long as they may be it takes half of what an envelope may.
const PAGE_SERIES: usize = 200;

/// Boots and anchors in a page, together.
const PAGE_ANCHORS: usize = 1000;

/// What the fleet has acknowledged.
pub(super) fn acked(
    rows: &mut dyn Rows,
    line: &Line,
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let (no, mut after) = (line.no, 0);
    loop {
        let sql = format!(
            "SELECT first_seq, last_seq FROM ack WHERE store = {no} AND first_seq > {after} ORDER BY first_seq LIMIT {MAX_PULL_RANGES}"
        );
        let range =
            |row: &Vec<Got>| SeqRange::new(row.first()?.int()?.unsigned_abs(), row.get(1)?.int()?.unsigned_abs());
        let ranges: Vec<SeqRange> = rows.ask(&sql)?.iter().filter_map(range).collect();
        let Some(last) = ranges.last() else { return Ok(()) };
        after = last.first.0;
        link.send(&FromBoard::Acked { store: line.held.store, ranges })?;
    }
}

/// The series above `known`, and all boots.
pub(super) fn pages(
    rows: &mut dyn Rows,
    line: &Line,
    known: u32,
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let (no, mut after) = (line.no, i64::from(known));
    loop {
        let sql = format!(
            "SELECT id, name, unit, kind, scale FROM series WHERE store = {no} AND id > {after} ORDER BY id LIMIT {PAGE_SERIES}"
        );
        let found = rows.ask(&sql)?;
        let Some(last) = found.last().and_then(|row| row.first()?.int()) else { break };
        after = last;
        let series = found.iter().filter_map(|row| series(row)).collect();
        link.send(&FromBoard::Page(CatalogPage { store: line.held.store, series, boots: Vec::new() }))?;
    }
    boots(rows, line, link)
}

fn boots(rows: &mut dyn Rows, line: &Line, link: &mut Link<impl BufRead, impl Write>) -> Result<(), ServeError> {
    let (no, mut after) = (line.no, (-1, i64::MIN));
    loop {
        let sql = format!(
            "SELECT b.id, b.boot_uuid, a.boottime, a.utc, a.trusted FROM boot b \
             LEFT JOIN anchor a ON a.store = b.store AND a.boot = b.id \
             WHERE b.store = {no} AND (b.id > {} OR b.id = {} AND a.boottime > {}) \
             ORDER BY b.id, a.boottime LIMIT {PAGE_ANCHORS}",
            after.0, after.0, after.1
        );
        let found = rows.ask(&sql)?;
        let Some(last) = found.last() else { return Ok(()) };
        let Some(boot) = last.first().and_then(Got::int) else { return Ok(()) };
        after = (boot, last.get(2).and_then(Got::int).unwrap_or(i64::MAX));
        let mut boots: Vec<CatalogBoot> = Vec::new();
        for row in &found {
            let Some((id, uuid, anchor)) = boot_and_anchor(row) else { continue };
            if boots.last().is_none_or(|boot| boot.id != id) {
                boots.push(CatalogBoot { id, uuid, anchors: Vec::new() });
            }
            if let Some(boot) = boots.last_mut() {
                boot.anchors.extend(anchor);
            }
        }
        link.send(&FromBoard::Page(CatalogPage { store: line.held.store, series: Vec::new(), boots }))?;
    }
}

fn series(row: &[Got]) -> Option<(SeriesId, SeriesDef)> {
    let id = u32::try_from(row.first()?.int()?).ok()?;
    let def = SeriesDef {
        name: row.get(1)?.text()?.to_owned(),
        unit: row.get(2)?.text()?.to_owned(),
        // Of a later minor version: the column tells the kind.
        kind: Kind::parse(row.get(3)?.text()?).unwrap_or(Kind::Float),
        scale: Scale::parse(row.get(4)?.text()?).unwrap_or(Scale::ONE),
    };
    Some((SeriesId(id), def))
}

fn boot_and_anchor(row: &[Got]) -> Option<(BootId, uuid::Uuid, Option<Anchor>)> {
    let id = BootId(u32::try_from(row.first()?.int()?).ok()?);
    let uuid = uuid::Uuid::parse_str(row.get(1)?.text()?).ok()?;
    let anchor = || {
        let (boot, utc) = (BootNanos(row.get(2)?.int()?), UtcNanos(row.get(3)?.int()?));
        Some(Anchor { boot, utc, trusted: row.get(4)?.int()? != 0 })
    };
    Some((id, uuid, anchor()))
}
