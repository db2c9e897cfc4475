//! Where a run begins: whose file it is, from which number on it writes, and under which boot.
//!
//! What enters: the open file, the mark beside it, who we are. What leaves: whether a fresh store id is due, the number that
//! everything new must be above, rows of `boot` and `meta`. All that is written is part of the one transaction of the open.

use super::super::commit;
use super::super::error::StoreError;
use super::super::event::{Event, EventKind, record};
use super::super::file::{self, MAX_SEQ, StoreNo, execute, meta, set_meta, sql_of, upsert_boot, upsert_store};
use super::super::high_water::Mark;
use super::super::identity::Identity;
use super::super::line::{Line, Tally};
use super::super::wal_scan::WalScan;
use super::{FreshWhy, WRITER};
use crate::clock::Now;
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange};
use crate::segment::LossReason;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// Sequence numbers that are left out for each commit that rotted away: more segments than a commit ever has.
const SEQS_PER_COMMIT: u64 = 256;

/// Whether the numbers of the last line may be gone on with.
pub(super) fn why_fresh(
    conn: &Connection,
    lines: &[Line],
    mark: Option<Mark>,
    me: &Identity,
) -> Result<Option<FreshWhy>, StoreError> {
    if lines.is_empty() {
        return Ok(Some(FreshWhy::New));
    }
    if meta::<rusqlite::types::Value>(conn, "copied_from")?.is_some() {
        return Ok(Some(FreshWhy::Copy));
    }
    if meta::<Vec<u8>>(conn, "machine_hash")?.is_some_and(|hash| hash != me.machine_hash) {
        return Ok(Some(FreshWhy::Machine));
    }
    let known = mark.is_none_or(|mark| lines.iter().any(|line| line.uuid == mark.store));
    Ok((!known).then_some(FreshWhy::Replaced))
}

/// The number that everything new must be above. Says what happened where the file is behind it.
pub(super) fn floor(line: &Line, mark: Option<Mark>, scan: WalScan, events: &mut Vec<Event>) -> SegmentSeq {
    let marked = mark.filter(|mark| mark.store == line.uuid).map_or(0, |mark| mark.seq.0);
    let acked = line.acked.high().0;
    let mut floor = line.high.0.max(marked).max(acked);
    if scan.rot() {
        let lost = scan.commits_behind.max(1);
        floor += lost * SEQS_PER_COMMIT;
        let detail = format!(
            "the WAL is damaged at frame {}: {lost} or more committed transactions behind it are lost; check the medium",
            scan.broken_at.unwrap_or(0)
        );
        events.push(Event::new(EventKind::Rot, detail));
    } else if floor > line.high.0 {
        let detail = format!(
            "the file holds segments up to {}, but {floor} had been committed: it was put back, or the medium lied about a \
             flush",
            line.high
        );
        events.push(Event::new(EventKind::Rollback, detail));
    }
    SegmentSeq(floor.min(MAX_SEQ))
}

/// Writes down that the numbers up to `floor` were left out.
pub(super) fn void(
    conn: &Connection,
    line: &mut Line,
    floor: SegmentSeq,
    me: &Identity,
    now: Now,
) -> Result<(), StoreError> {
    let Some(range) = SeqRange::new(line.high.0 + 1, floor.0) else { return Ok(()) };
    let boot = boot_row(conn, line.no, &me.boot_uuid)?;
    commit::insert_loss(conn, line.no, range, commit::loss_here(LossReason::Void, boot, now))?;
    line.high = floor;
    line.tally.segments += 1;
    line.tally.pending_segments += u64::from(!line.acked.covers(range));
    Ok(())
}

pub(super) fn begin_run(conn: &Connection, me: &Identity, events: &[Event], now: Now) -> Result<u64, StoreError> {
    let run = meta::<i64>(conn, "run")?.unwrap_or(0) + 1;
    set_meta(conn, "run", run)?;
    if meta::<Vec<u8>>(conn, "machine_hash")?.is_none_or(|hash| hash != me.machine_hash) {
        set_meta(conn, "machine_hash", me.machine_hash.as_slice())?;
    }
    if meta::<String>(conn, "writer")?.is_none_or(|writer| writer != WRITER) {
        set_meta(conn, "writer", WRITER)?;
        // Another version may have written figures without moving it on.
        execute(conn, "begin a run", "DELETE FROM meta WHERE key = ?1", [super::super::rollup::sum::KEY])?;
    }
    execute(conn, "begin a run", "DELETE FROM meta WHERE key = 'copied_from'", [])?;
    events.iter().try_for_each(|event| record(conn, event, now))?;
    Ok(u64::try_from(run).unwrap_or(1))
}

/// Makes a store with a new id, which is then the current one.
pub(super) fn new_line(conn: &Connection, now: Now) -> Result<Line, StoreError> {
    let uuid = Uuid::new_v4();
    let no = upsert_store(conn, &uuid, 0, Some(now.utc))?;
    set_meta(conn, "store", uuid.to_string())?;
    Ok(Line {
        no,
        uuid,
        high: SegmentSeq(0),
        acked: RangeSet::new(),
        ack_unwritten: false,
        rolled: SegmentSeq(0),
        tally: Tally::default(),
    })
}

/// The number of this boot in `store`, added where it is new.
pub(super) fn boot_row(conn: &Connection, store: StoreNo, boot: &Uuid) -> Result<BootId, StoreError> {
    let fail = |e| sql_of(conn, "read the boots", e);
    let known: Option<u32> = conn
        .query_row("SELECT id FROM boot WHERE store = ?1 AND boot_uuid = ?2", params![store.0, boot.to_string()], |r| {
            r.get(0)
        })
        .optional()
        .map_err(fail)?;
    if let Some(id) = known {
        return Ok(BootId(id));
    }
    let next = "SELECT coalesce(max(id), 0) + 1 FROM boot WHERE store = ?1";
    let id = BootId(conn.query_row(next, [store.0], |row| row.get(0)).map_err(fail)?);
    upsert_boot(conn, store, id, boot)?;
    end_boot_before(conn, store)?;
    Ok(id)
}

/// Writes down how long the boot before lasted, as an anchor at its last reading, reckoned from the best that it has. It
/// changes no time of that boot; it is what a later boot that never knows the time is known to come after.
fn end_boot_before(conn: &Connection, store: StoreNo) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO anchor (store, boot, boottime, utc, trusted) \
               SELECT a.store, a.boot, last.at, a.utc + (last.at - a.boottime), a.trusted \
               FROM (SELECT boot_max AS boot, boottime_max AS at FROM segment \
                     WHERE id BETWEEN ?2 AND ?3 AND boot_max IS NOT NULL ORDER BY id DESC LIMIT 1) AS last \
               JOIN anchor AS a ON a.store = ?1 AND a.boot = last.boot AND a.boottime < last.at \
               WHERE a.utc BETWEEN -4000000000000000000 AND 4000000000000000000 \
               ORDER BY a.trusted DESC, a.boottime DESC LIMIT 1";
    let (from, to) = (file::row_id(store, SegmentSeq(0)), file::row_id(store, SegmentSeq(MAX_SEQ)));
    execute(conn, "end the boot before", sql, params![store.0, from, to]).map(drop)
}

pub(super) fn next_series(conn: &Connection, line: Option<&Line>) -> Result<u32, StoreError> {
    let sql = "SELECT coalesce(max(id), 0) + 1 FROM series WHERE store = ?1";
    conn.query_row(sql, [line.map_or(0, |l| l.no.0)], |row| row.get(0)).map_err(|e| sql_of(conn, "read the series", e))
}
