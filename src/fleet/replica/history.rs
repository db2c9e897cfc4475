//! One history of a store: its segments, its catalogue, and which numbers it holds.
//!
//! What enters: rows of one `store` of a replica. What leaves: the same as sets and maps, kept equal to the rows by every
//! write that goes through here. It decides nothing.

use super::Known;
use crate::clock::{Anchor, BootNanos, UtcNanos};
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, Kind, Scale, SegmentSeq, SeqRange, SeriesDef, SeriesId};
use crate::segment::View;
use crate::store::StoreError;
use crate::store::file::{self, StoreNo, execute, row_id, sql_of};
use crate::wire::{CatalogBoot, CatalogPage, StoreUuid};
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;

/// The most series and boots of one history, and the most anchors of all its boots together.
const MAX_SERIES: usize = 65_536;
const MAX_BOOTS: usize = 65_536;
const MAX_ANCHORS: usize = 262_144;

/// What a definition or a boot takes in memory beside its texts, and what an anchor does, in bytes, roughly.
const DEFINITION_BYTES: usize = 160;
const ANCHOR_BYTES: usize = 48;

/// See the room.
pub(super) struct History {
    pub(super) no: StoreNo,
    pub(super) variant: u32,
    pub(super) owner: String,
    /// Numbers of the segments in it.
    pub(super) held: RangeSet,
    /// Numbers whose equal content stands in another history.
    pub(super) elsewhere: RangeSet,
    series: BTreeMap<SeriesId, SeriesDef>,
    boots: BTreeMap<BootId, Boot>,
    anchors: usize,
    /// What the texts of the series take.
    text_bytes: usize,
}

struct Boot {
    uuid: uuid::Uuid,
    anchors: BTreeMap<BootNanos, (UtcNanos, bool)>,
}

/// A held segment, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldRow {
    pub(super) range: SeqRange,
    pub(super) bytes: u64,
    /// Readings in it; 0 for a loss.
    pub(super) readings: u64,
}

impl History {
    /// Makes an empty one.
    pub(super) fn create(
        conn: &Connection,
        uuid: &StoreUuid,
        variant: u32,
        owner: &str,
        now: UtcNanos,
    ) -> Result<Self, StoreError> {
        let no = file::upsert_store(conn, uuid, variant, Some(now))?;
        file::set_meta(conn, &format!("fleet_owner/{variant}"), owner)?;
        Ok(Self::empty(no, variant, owner.to_owned()))
    }

    /// All histories of `uuid` in the file, by variant.
    pub(super) fn load_all(conn: &Connection, uuid: &StoreUuid) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, variant FROM store WHERE uuid = ?1 ORDER BY variant";
        let stores = rows(conn, "read the stores", sql, [uuid.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        stores.into_iter().map(|(no, variant)| Self::load(conn, StoreNo(no), variant)).collect()
    }

    /// Whether the kinds and definitions in `view` are those of the catalogue, where it has any.
    pub(super) fn names_agree(&self, view: &View) -> bool {
        let kinds = view.columns().iter().all(|head| self.series.get(&head.series).is_none_or(|d| d.kind == head.kind));
        kinds && view.names().iter().all(|(id, def)| self.series.get(id).is_none_or(|known| known == def))
    }

    /// Whether both give the same meaning to all that `view` cites.
    pub(super) fn agrees(&self, other: &Self, view: &View) -> bool {
        let (series, boots) = view.cites();
        let boot = |history: &Self, id| history.boots.get(id).map(|b| b.uuid);
        series.iter().all(|id| self.series.get(id) == other.series.get(id))
            && boots.iter().all(|id| boot(self, id) == boot(other, id))
    }

    /// Whether all that `page` says is in the catalogue.
    pub(super) fn knows(&self, page: &CatalogPage) -> bool {
        page.series.iter().all(|(id, def)| self.series.get(id) == Some(def))
            && page.boots.iter().all(|boot| {
                self.boots.get(&boot.id).is_some_and(|known| {
                    known.uuid == boot.uuid && boot.anchors.iter().all(|anchor| !known.learns_from(anchor))
                })
            })
    }

    /// Whether `page` gives an id another meaning.
    pub(super) fn contradicts(&self, page: &CatalogPage) -> bool {
        page.series.iter().any(|(id, def)| self.series.get(id).is_some_and(|known| known != def))
            || page.boots.iter().any(|boot| self.boots.get(&boot.id).is_some_and(|known| known.uuid != boot.uuid))
    }

    /// Whether all of `page` would still fit, were it all new.
    pub(super) fn has_room(&self, page: &CatalogPage) -> bool {
        let anchors: usize = page.boots.iter().map(|boot| boot.anchors.len()).sum();
        self.series.len() + page.series.len() <= MAX_SERIES
            && self.boots.len() + page.boots.len() <= MAX_BOOTS
            && self.anchors + anchors <= MAX_ANCHORS
    }

    /// What the catalogue takes in memory, in bytes, roughly.
    pub(super) fn catalog_bytes(&self) -> usize {
        self.text_bytes + (self.series.len() + self.boots.len()) * DEFINITION_BYTES + self.anchors * ANCHOR_BYTES
    }

    /// Adds what is new in `page`, which does not contradict. An anchor at a boottime that has one replaces it only where
    /// it is trusted and that one was not.
    pub(super) fn learn(&mut self, conn: &Connection, page: &CatalogPage) -> Result<(), StoreError> {
        for (id, def) in &page.series {
            if !self.series.contains_key(id) {
                file::upsert_series(conn, self.no, *id, def)?;
                self.text_bytes += text_bytes(def);
                self.series.insert(*id, def.clone());
            }
        }
        page.boots.iter().try_for_each(|boot| self.learn_boot(conn, boot))
    }

    /// What of the catalogue is `known`, in one page.
    pub(super) fn catalog_page(&self, store: StoreUuid, known: &Known) -> CatalogPage {
        let anchors = |boot: &Boot| {
            let anchor = |(at, (utc, trusted)): (&BootNanos, &(UtcNanos, bool))| Anchor {
                boot: *at,
                utc: *utc,
                trusted: *trusted,
            };
            boot.anchors.iter().map(anchor).collect()
        };
        CatalogPage {
            store,
            series: self
                .series
                .iter()
                .filter(|(id, _)| known.has_series(**id))
                .map(|(id, def)| (*id, def.clone()))
                .collect(),
            boots: self
                .boots
                .iter()
                .filter(|(id, _)| known.has_boot(**id))
                .map(|(id, boot)| CatalogBoot { id: *id, uuid: boot.uuid, anchors: anchors(boot) })
                .collect(),
        }
    }

    /// The held segments that share a number with `range`, at most `limit` of them.
    pub(super) fn overlapping(
        &self,
        conn: &Connection,
        range: SeqRange,
        limit: usize,
    ) -> Result<Vec<HeldRow>, StoreError> {
        // Segments of a history are disjoint, so at most one that begins before the range reaches into it.
        let sql = "SELECT id & 0xFFFFFFFFFFFF, last_seq, length(body), iif(kind = 0, n, 0) FROM segment \
                   WHERE id BETWEEN coalesce((SELECT max(id) FROM segment WHERE id BETWEEN ?1 AND ?2), ?2) AND ?3 \
                   AND last_seq >= ?4 ORDER BY id LIMIT ?5";
        let values = params![
            row_id(self.no, SegmentSeq(0)),
            row_id(self.no, range.first),
            row_id(self.no, range.last),
            i64::try_from(range.first.0).unwrap_or(i64::MAX),
            i64::try_from(limit).unwrap_or(i64::MAX),
        ];
        let unsigned = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        rows(conn, "find segments", sql, values, |row| {
            Ok(HeldRow { range: seq_range(row)?, bytes: unsigned(row, 2)?, readings: unsigned(row, 3)? })
        })
    }

    /// The body of the segment that begins at `first`.
    pub(super) fn body(&self, conn: &Connection, first: SegmentSeq) -> Result<Vec<u8>, StoreError> {
        conn.prepare_cached("SELECT body FROM segment WHERE id = ?1")
            .and_then(|mut s| s.query_row([row_id(self.no, first)], |row| row.get(0)))
            .map_err(|e| sql_of(conn, "read a segment", e))
    }

    pub(super) fn insert(&mut self, conn: &Connection, view: &View, body: &[u8]) -> Result<(), StoreError> {
        file::insert_segment(conn, self.no, view, body)?;
        self.held.insert(view.range());
        Ok(())
    }

    pub(super) fn delete(&mut self, conn: &Connection, range: SeqRange) -> Result<(), StoreError> {
        execute(conn, "replace a segment", "DELETE FROM segment WHERE id = ?1", [row_id(self.no, range.first)])?;
        self.held.remove(range);
        Ok(())
    }

    /// Writes down that another history holds equal content for `range`.
    pub(super) fn remember_elsewhere(&mut self, conn: &Connection, range: SeqRange) -> Result<(), StoreError> {
        if self.elsewhere.covers(range) {
            return Ok(());
        }
        self.elsewhere.insert(range);
        let Some(whole) = self.elsewhere.overlapping(range).next() else { return Ok(()) };
        let (first, last) = (int(whole.first), int(whole.last));
        let doing = "write what stands elsewhere";
        let sql = "DELETE FROM ack WHERE store = ?1 AND first_seq BETWEEN ?2 AND ?3";
        execute(conn, doing, sql, params![self.no.0, first, last])?;
        let sql = "INSERT INTO ack (store, first_seq, last_seq) VALUES (?1, ?2, ?3)";
        execute(conn, doing, sql, params![self.no.0, first, last]).map(drop)
    }

    fn learn_boot(&mut self, conn: &Connection, boot: &CatalogBoot) -> Result<(), StoreError> {
        if !self.boots.contains_key(&boot.id) {
            file::upsert_boot(conn, self.no, boot.id, &boot.uuid)?;
        }
        let known = self.boots.entry(boot.id).or_insert(Boot { uuid: boot.uuid, anchors: BTreeMap::new() });
        for anchor in &boot.anchors {
            if known.learns_from(anchor) {
                file::upsert_anchor(conn, self.no, boot.id, anchor)?;
                let before = known.anchors.insert(anchor.boot, (anchor.utc, anchor.trusted));
                self.anchors += usize::from(before.is_none());
            }
        }
        Ok(())
    }

    fn empty(no: StoreNo, variant: u32, owner: String) -> Self {
        Self {
            no,
            variant,
            owner,
            held: RangeSet::new(),
            elsewhere: RangeSet::new(),
            series: BTreeMap::new(),
            boots: BTreeMap::new(),
            anchors: 0,
            text_bytes: 0,
        }
    }

    fn load(conn: &Connection, no: StoreNo, variant: u32) -> Result<Self, StoreError> {
        let owner = file::meta(conn, &format!("fleet_owner/{variant}"))?.unwrap_or_default();
        let mut history = Self::empty(no, variant, owner);
        let bounds = params![row_id(no, SegmentSeq(0)), row_id(StoreNo(no.0 + 1), SegmentSeq(0))];
        let sql = "SELECT id & 0xFFFFFFFFFFFF, last_seq FROM segment WHERE id >= ?1 AND id < ?2";
        history.held.extend(rows(conn, "read the segments", sql, bounds, seq_range)?);
        let sql = "SELECT first_seq, last_seq FROM ack WHERE store = ?1";
        history.elsewhere.extend(rows(conn, "read what stands elsewhere", sql, [no.0], seq_range)?);
        let sql = "SELECT id, name, unit, kind, scale FROM series WHERE store = ?1";
        history.series.extend(rows(conn, "read the series", sql, [no.0], series_row)?);
        history.text_bytes = history.series.values().map(text_bytes).sum();
        history.load_boots(conn)?;
        Ok(history)
    }

    fn load_boots(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let sql = "SELECT id, boot_uuid FROM boot WHERE store = ?1";
        for (id, uuid) in rows(conn, "read the boots", sql, [self.no.0], |row| {
            Ok((BootId(row.get(0)?), parsed(row, 1, |text| uuid::Uuid::parse_str(text).ok())?))
        })? {
            self.boots.insert(id, Boot { uuid, anchors: BTreeMap::new() });
        }
        let sql = "SELECT boot, boottime, utc, trusted FROM anchor WHERE store = ?1";
        for (id, at, utc, trusted) in rows(conn, "read the anchors", sql, [self.no.0], |row| {
            Ok((BootId(row.get(0)?), BootNanos(row.get(1)?), UtcNanos(row.get(2)?), row.get(3)?))
        })? {
            if let Some(boot) = self.boots.get_mut(&id) {
                boot.anchors.insert(at, (utc, trusted));
                self.anchors += 1;
            }
        }
        Ok(())
    }
}

impl Boot {
    fn learns_from(&self, anchor: &Anchor) -> bool {
        match self.anchors.get(&anchor.boot) {
            None => true,
            Some((_, trusted)) => anchor.trusted && !trusted,
        }
    }
}

/// What `page` would take in memory, were it all new, in bytes, roughly.
pub(super) fn page_bytes(page: &CatalogPage) -> usize {
    let anchors: usize = page.boots.iter().map(|boot| boot.anchors.len()).sum();
    let texts: usize = page.series.iter().map(|(_, def)| text_bytes(def)).sum();
    texts + (page.series.len() + page.boots.len()) * DEFINITION_BYTES + anchors * ANCHOR_BYTES
}

fn text_bytes(def: &SeriesDef) -> usize {
    def.name.len() + def.unit.len()
}

/// The history that each device's segments go to, as its place by variant.
pub(super) fn lines(conn: &Connection) -> Result<BTreeMap<String, usize>, StoreError> {
    let sql = "SELECT substr(key, 12), value FROM meta WHERE key >= 'fleet_line/' AND key < 'fleet_line0'";
    let lines = rows(conn, "read the meta table", sql, [], |row| Ok((row.get(0)?, row.get::<_, u32>(1)?)))?;
    Ok(lines.into_iter().map(|(device, variant)| (device, variant as usize)).collect())
}

fn rows<T>(
    conn: &Connection,
    doing: &'static str,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    conn.prepare_cached(sql).and_then(|mut s| s.query_map(values, read)?.collect()).map_err(|e| sql_of(conn, doing, e))
}

fn seq_range(row: &Row<'_>) -> rusqlite::Result<SeqRange> {
    let seq = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let (first, last) = (seq(0)?, seq(1)?);
    SeqRange::new(first, last).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, first as i64))
}

fn series_row(row: &Row<'_>) -> rusqlite::Result<(SeriesId, SeriesDef)> {
    let kind = parsed(row, 3, Kind::parse)?;
    let scale = parsed(row, 4, Scale::parse)?;
    Ok((SeriesId(row.get(0)?), SeriesDef { name: row.get(1)?, unit: row.get(2)?, kind, scale }))
}

fn parsed<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?.to_owned();
    let unreadable = || {
        let why = format!("{text:?} in column {column}");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
    };
    parse(&text).ok_or_else(unreadable)
}

fn int(seq: SegmentSeq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}
