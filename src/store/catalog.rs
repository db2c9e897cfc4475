//! What segments cite: names, units, boots and anchors, in pages for the wire.
//!
//! What enters: the most that a page may take. What leaves: the pages of every store that holds anything, the current one
//! first. A segment cites numbers only, so the fleet acknowledges none before it knows what they stand for.

use super::Store;
use super::error::StoreError;
use super::file::{StoreNo, sql_of};
use crate::clock::{Anchor, BootNanos, UtcNanos};
use crate::reading::{BootId, SeriesDef};
use crate::wire::{CatalogBoot, CatalogPage};
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

/// Upper bounds of what postcard makes of the parts: varints of 10 bytes at most, enums and lengths of 5.
const PAGE_BYTES: usize = 64;
const BOOT_BYTES: usize = 32;
const ANCHOR_BYTES: usize = 21;

fn series_bytes(def: &SeriesDef) -> usize {
    def.name.len() + def.unit.len() + 40
}

impl Store {
    /// Pages of at most `max_page_bytes` each once encoded. One series or boot that is larger by itself still gets a page.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn catalog(&self, max_page_bytes: usize) -> Result<Vec<CatalogPage>, StoreError> {
        let mut pages = Vec::new();
        let current = self.uuid();
        for line in self.lines.iter().rev().filter(|line| line.uuid == current || line.tally.segments > 0) {
            let mut filling = Filling::new(line.uuid, max_page_bytes);
            self.each_series(line.no, |id, def| {
                filling.room_for(series_bytes(&def));
                filling.page.series.push((id, def));
            })?;
            for (id, uuid) in self.boots(line.no)? {
                filling.boot(id, uuid, self.anchors(line.no, id)?);
            }
            pages.append(&mut filling.finish());
        }
        Ok(pages)
    }

    /// The anchor of the running boot with the highest boottime, if the file has one.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn newest_anchor(&self) -> Result<Option<Anchor>, StoreError> {
        let sql =
            "SELECT boottime, utc, trusted FROM anchor WHERE store = ?1 AND boot = ?2 ORDER BY boottime DESC LIMIT 1";
        let of_row = |row: &rusqlite::Row<'_>| {
            Ok(Anchor { boot: BootNanos(row.get(0)?), utc: UtcNanos(row.get(1)?), trusted: row.get(2)? })
        };
        self.conn
            .query_row(sql, [self.current().no.0, self.boot.0.into()], of_row)
            .optional()
            .map_err(|e| self.failed("read the anchors", e))
    }

    /// Changes whenever [`Store::catalog`] would answer something else. Not the same from run to run.
    pub fn catalog_version(&self) -> u64 {
        self.run << 32 | u64::from(self.catalog_changes)
    }

    pub(super) fn boots(&self, no: StoreNo) -> Result<Vec<(BootId, Uuid)>, StoreError> {
        self.watched(boots(&self.conn, no))
    }

    /// Anchors of one boot by ascending boottime.
    pub(super) fn anchors(&self, no: StoreNo, boot: BootId) -> Result<Vec<Anchor>, StoreError> {
        let fail = |e| self.failed("read the anchors", e);
        let sql = "SELECT boottime, utc, trusted FROM anchor WHERE store = ?1 AND boot = ?2 ORDER BY boottime";
        let mut statement = self.conn.prepare_cached(sql).map_err(fail)?;
        let anchor = |row: &rusqlite::Row<'_>| {
            Ok(Anchor { boot: BootNanos(row.get(0)?), utc: UtcNanos(row.get(1)?), trusted: row.get(2)? })
        };
        let rows = statement.query_map(rusqlite::params![no.0, boot.0], anchor).map_err(fail)?;
        rows.collect::<Result<_, _>>().map_err(fail)
    }
}

/// The boots of store `no`, by ascending number.
pub(super) fn boots(conn: &Connection, no: StoreNo) -> Result<Vec<(BootId, Uuid)>, StoreError> {
    let fail = |e| sql_of(conn, "read the boots", e);
    let sql = "SELECT id, boot_uuid FROM boot WHERE store = ?1 ORDER BY id";
    let mut statement = conn.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map([no.0], |row| Ok((BootId(row.get(0)?), row.get::<_, String>(1)?))).map_err(fail)?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>().map_err(fail)?;
    let parse = |(id, text): (BootId, String)| match Uuid::parse_str(&text) {
        Ok(uuid) => Ok((id, uuid)),
        Err(_) => Err(StoreError::Damaged { what: format!("boot id {text:?}") }),
    };
    rows.into_iter().map(parse).collect()
}

/// A page that is being filled, and those before it.
struct Filling {
    done: Vec<CatalogPage>,
    page: CatalogPage,
    bytes: usize,
    limit: usize,
}

impl Filling {
    fn new(store: Uuid, limit: usize) -> Self {
        let page = CatalogPage { store, series: Vec::new(), boots: Vec::new() };
        Self { done: Vec::new(), page, bytes: PAGE_BYTES, limit }
    }

    /// Counts `bytes` in, on a new page where this one has no room for them.
    fn room_for(&mut self, bytes: usize) {
        let empty = self.page.series.is_empty() && self.page.boots.is_empty();
        if self.bytes + bytes > self.limit && !empty {
            let next = CatalogPage { store: self.page.store, series: Vec::new(), boots: Vec::new() };
            self.done.push(std::mem::replace(&mut self.page, next));
            self.bytes = PAGE_BYTES;
        }
        self.bytes += bytes;
    }

    /// A boot with more anchors than fit goes on, under its number, on the next page.
    fn boot(&mut self, id: BootId, uuid: Uuid, anchors: Vec<Anchor>) {
        let fit = (self.limit.saturating_sub(PAGE_BYTES + BOOT_BYTES) / ANCHOR_BYTES).max(1);
        let mut parts: Vec<&[Anchor]> = anchors.chunks(fit).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for part in parts {
            self.room_for(BOOT_BYTES + part.len() * ANCHOR_BYTES);
            self.page.boots.push(CatalogBoot { id, uuid, anchors: part.to_vec() });
        }
    }

    fn finish(mut self) -> Vec<CatalogPage> {
        self.done.push(self.page);
        self.done
    }
}
