//! What a replica holds, read beside a running receiver.
//!
//! What enters: the path of a replica. What leaves: figures. Read-only: it takes no lock that a writer would wait for.

use crate::reading::SegmentSeq;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::View;
use crate::store::StoreError;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::Path;
use std::time::Duration;

/// The account of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Segments with readings.
    pub segments: u64,
    /// Readings in them, of all histories.
    pub readings: u64,
    /// Segments that are losses.
    pub losses: u64,
    /// Readings that these say were lost, as far as they know.
    pub readings_lost: u64,
    /// Numbers held, in any history; losses included.
    pub held: RangeSet,
    /// Numbers that more than one history has.
    pub conflicts: RangeSet,
    /// Lines of content for these numbers; 1 in good order.
    pub histories: u32,
    /// The highest number ever seen.
    pub high: SegmentSeq,
}

/// Reads the account of the replica at `path`.
///
/// # Errors
/// As SQLite says; a file that is no replica is [`StoreError::Sqlite`] or [`StoreError::Damaged`].
pub fn read(path: &Path) -> Result<Account, StoreError> {
    read_only(path, count)
}

/// The highest number that was ever seen of the store whose replica is at `path`.
///
/// # Errors
/// As of [`read`].
pub fn high(path: &Path) -> Result<SegmentSeq, StoreError> {
    read_only(path, highest)
}

fn read_only<T>(path: &Path, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
    let fail = |e| StoreError::sql("read the replica", path, e);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fail)?;
    conn.busy_timeout(Duration::from_secs(10)).map_err(fail)?;
    read(&conn).map_err(fail)
}

fn highest(conn: &Connection) -> rusqlite::Result<SegmentSeq> {
    let sql = "SELECT value FROM meta WHERE key = 'fleet_high'";
    let high: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(SegmentSeq(high.map_or(0, i64::unsigned_abs)))
}

fn count(conn: &Connection) -> rusqlite::Result<Account> {
    // One transaction, so that all figures are of one moment.
    let conn = conn.unchecked_transaction()?;
    let mut account = Account::default();
    let mut last_store = 0;
    let mut of_store = RangeSet::new();
    let mut select =
        conn.prepare("SELECT store, first_seq, last_seq, kind, n, iif(kind = 1, body, NULL) FROM segment")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let store: i64 = row.get(0)?;
        if store != last_store {
            account.take_history(&std::mem::take(&mut of_store));
            last_store = store;
        }
        let seq = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        of_store.extend(SeqRange::new(seq(1)?, seq(2)?));
        if row.get::<_, i64>(3)? == 0 {
            account.segments += 1;
            account.readings += seq(4)?;
        } else {
            account.losses += 1;
            account.readings_lost += lost(row.get_ref(5)?.as_blob()?);
        }
    }
    account.take_history(&of_store);
    account.histories = conn.query_row("SELECT count(*) FROM store", [], |row| row.get(0))?;
    account.high = highest(&conn)?;
    Ok(account)
}

/// How many readings a loss speaks of; a body that can't be read speaks of none.
fn lost(body: &[u8]) -> u64 {
    View::parse(body).ok().and_then(|view| view.loss().and_then(|loss| loss.readings)).unwrap_or(0)
}

impl Account {
    fn take_history(&mut self, numbers: &RangeSet) {
        self.conflicts.extend(self.held.common(numbers).iter());
        self.held.extend(numbers.iter());
    }
}

/// A look at a replica beside its receiver that is kept open, for tests that look often.
#[cfg(test)]
pub(crate) struct Beside(Connection);

#[cfg(test)]
impl Beside {
    /// Opens the replica at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |e| StoreError::sql("read the replica", path, e);
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Self).map_err(fail)
    }

    /// Which of the numbers in `range` the file holds now, in any history.
    pub(crate) fn held(&self, range: SeqRange) -> rusqlite::Result<RangeSet> {
        let sql = "SELECT s.id & 0xFFFFFFFFFFFF, s.last_seq FROM store t JOIN segment s \
                   ON s.id BETWEEN t.id << 48 AND (t.id << 48) + ?2 WHERE s.last_seq >= ?1 \
                   AND s.id >= coalesce((SELECT max(b.id) FROM segment b WHERE b.id BETWEEN t.id << 48 AND (t.id << 48) + ?1), 0)";
        let mut select = self.0.prepare_cached(sql)?;
        let bounds = [range.first, range.last].map(|seq| seq.0 as i64);
        let rows = select.query_map(bounds, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let ranges: Vec<(i64, i64)> = rows.collect::<Result<_, _>>()?;
        Ok(ranges.into_iter().filter_map(|(first, last)| SeqRange::new(first as u64, last as u64)).collect())
    }
}
