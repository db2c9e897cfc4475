//! A line: the history of one store in the file, as the running service keeps account of it.
//!
//! What enters: the tables, once, at the open. What leaves: how far its numbers go, what of it is acknowledged, how much it is.

use super::error::StoreError;
use super::file::{MAX_SEQ, StoreNo, meta, sql_of};
use super::rollup;
use crate::reading::ranges::RangeSet;
use crate::reading::{SegmentSeq, SeqRange};
use rusqlite::Connection;
use uuid::Uuid;

/// One line of sequence numbers in the file.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) no: StoreNo,
    pub(super) uuid: Uuid,
    /// The highest number committed; 0 before the first.
    pub(super) high: SegmentSeq,
    pub(super) acked: RangeSet,
    /// Whether `acked` differs from what the file says.
    pub(super) ack_unwritten: bool,
    /// Up to here every reading that is held is in the hourly figures.
    pub(super) rolled: SegmentSeq,
    pub(super) tally: Tally,
}

/// Counts of what a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) segments: u64,
    pub(super) readings: u64,
    pub(super) pending_segments: u64,
    pub(super) pending_readings: u64,
}

impl Tally {
    /// Counts a segment in.
    pub(super) fn add(&mut self, range: &SeqRange, n: u64, acked: &RangeSet) {
        self.segments += 1;
        self.readings += n;
        if !acked.covers(*range) {
            self.pending_segments += 1;
            self.pending_readings += n;
        }
    }

    /// Counts a segment out.
    pub(super) fn remove(&mut self, range: &SeqRange, n: u64, acked: &RangeSet) {
        self.segments = self.segments.saturating_sub(1);
        self.readings = self.readings.saturating_sub(n);
        if !acked.covers(*range) {
            self.pending_segments = self.pending_segments.saturating_sub(1);
            self.pending_readings = self.pending_readings.saturating_sub(n);
        }
    }
}

/// The stores in the file by age, the current one last.
pub(super) fn lines(conn: &Connection) -> Result<Vec<Line>, StoreError> {
    let fail = |e| sql_of(conn, "read the stores", e);
    let mut rows = conn.prepare("SELECT id, uuid FROM store WHERE variant = 0 ORDER BY id").map_err(fail)?;
    let found: Vec<(i64, String)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(fail)?;
    let current: Option<String> = meta(conn, "store")?;
    let mut lines = Vec::with_capacity(found.len());
    for (no, text) in found {
        let uuid = Uuid::parse_str(&text).map_err(|_| StoreError::Damaged { what: format!("store id {text:?}") })?;
        lines.push(line(conn, StoreNo(no), uuid)?);
    }
    lines.sort_by_key(|line| (current.as_deref() == Some(line.uuid.to_string().as_str()), line.no));
    Ok(lines)
}

fn line(conn: &Connection, no: StoreNo, uuid: Uuid) -> Result<Line, StoreError> {
    let fail = |e| sql_of(conn, "read the segments", e);
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let mut rows =
        conn.prepare_cached("SELECT first_seq, last_seq FROM ack WHERE store = ?1 ORDER BY first_seq").map_err(fail)?;
    let acked: Vec<Option<SeqRange>> = rows
        .query_map([no.0], |row| Ok(SeqRange::new(count(row.get(0)?), count(row.get(1)?))))
        .and_then(Iterator::collect)
        .map_err(fail)?;
    let acked = acked.into_iter().flatten().collect::<RangeSet>();
    let rolled = rollup::rolled(conn, no)?;
    let mut line = Line { no, uuid, high: SegmentSeq(0), acked, ack_unwritten: false, rolled, tally: Tally::default() };
    let mut rows = conn
        .prepare_cached(
            "SELECT id, last_seq, n FROM segment WHERE id BETWEEN ?1 << 48 AND ((?1 + 1) << 48) - 1 ORDER BY id",
        )
        .map_err(fail)?;
    let mut rows = rows.query([no.0]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let (id, last, n) = (get::<i64>(row, 0)?, count(get(row, 1)?), count(get(row, 2)?));
        let first = count(id & MAX_SEQ as i64);
        let Some(range) = SeqRange::new(first, last) else {
            return Err(StoreError::Damaged { what: format!("segment {first}..={last}") });
        };
        line.high = line.high.max(range.last);
        line.tally.add(&range, n, &line.acked);
    }
    Ok(line)
}

fn get<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>, at: usize) -> Result<T, StoreError> {
    row.get(at).map_err(|e| StoreError::Damaged { what: format!("a row of the segment table: {e}") })
}
