//! What the wear governor and the uplink keep in the file: a row of `meta` each, which goes along with a commit that is
//! made anyway.
//!
//! What enters: a text, whenever there is a new one. What leaves: the text that is on the medium. It promises to cost
//! no transaction but at a clean stop. What it does not do: read the text.

use super::Store;
use super::error::StoreError;
use super::file::{meta, set_meta};
use crate::clock::BootNanos;
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

/// The keys in `meta`.
const WEAR: &str = "wear";
const TRAFFIC: &str = "traffic";

/// What waits for the next commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Unwritten {
    wear: Option<String>,
    traffic: Option<String>,
}

/// The newest segments among which the last one of an earlier boot is looked for: those of this boot are few at its
/// start.
const NEWEST: u32 = 256;

impl Store {
    /// The text that was written last, by this service or the one before it.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn ledger(&self) -> Result<Option<String>, StoreError> {
        meta(&self.conn, WEAR)
    }

    /// Has `text` written with the next commit, or at a clean stop.
    pub fn note_ledger(&mut self, text: String) {
        self.ledger_unwritten.wear = Some(text);
    }

    /// As [`Store::ledger`], of the bytes that went over the link.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn traffic(&self) -> Result<Option<String>, StoreError> {
        meta(&self.conn, TRAFFIC)
    }

    /// As [`Store::note_ledger`], of the bytes that went over the link.
    pub fn note_traffic(&mut self, text: String) {
        self.ledger_unwritten.traffic = Some(text);
    }

    /// The latest boottime stamp of the boot `boot` among the newest segments: until then, at least, it lasted.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn last_recorded(&self, boot: Uuid) -> Result<Option<BootNanos>, StoreError> {
        let sql = "SELECT max(s.boottime_max) FROM (SELECT store, boot_max, boottime_max FROM segment ORDER BY id DESC LIMIT ?2) s \
                   JOIN boot b ON b.store = s.store AND b.id = s.boot_max WHERE b.boot_uuid = ?1";
        let found: Result<Option<Option<i64>>, _> =
            self.conn.query_row(sql, (boot.to_string(), NEWEST), |row| row.get(0)).optional();
        Ok(found.map_err(|e| self.failed("look for the last segment of a boot", e))?.flatten().map(BootNanos))
    }

    pub(super) fn write_ledger_now(&mut self) -> Result<(), StoreError> {
        let unwritten = std::mem::take(&mut self.ledger_unwritten);
        if unwritten == Unwritten::default() {
            return Ok(());
        }
        let done = self.transaction("write the accounts", |conn| write(conn, &unwritten));
        if done.is_err() {
            self.ledger_unwritten = unwritten;
        }
        done
    }
}

/// Within a transaction.
pub(super) fn write(conn: &Connection, unwritten: &Unwritten) -> Result<(), StoreError> {
    let rows = [(WEAR, &unwritten.wear), (TRAFFIC, &unwritten.traffic)];
    rows.into_iter().try_for_each(|(key, text)| text.as_ref().map_or(Ok(()), |text| set_meta(conn, key, text)))
}

#[cfg(test)]
mod tests {
    use crate::store::testing::{Bench, at, put};
    use uuid::Uuid;

    /// The row goes along with a commit, which stays one transaction, or is written at a clean stop; a crash before
    /// leaves the one that was there.
    #[test]
    fn the_ledger_goes_along_with_a_commit() {
        let bench = Bench::new();
        let mut store = bench.open().0;
        assert_eq!(store.ledger().unwrap(), None);
        store.note_ledger("one".into());
        assert_eq!(store.ledger().unwrap(), None, "nothing is written for its own sake");
        put(&mut store, 2, 3, 10).unwrap();
        store.note_ledger("two".into());
        store.note_traffic("bytes".into());
        let crashed = bench.crash().open_calm();
        assert_eq!(crashed.ledger().unwrap().as_deref(), Some("one"));
        store.close().unwrap();
        let again = bench.open_calm();
        assert_eq!(again.ledger().unwrap().as_deref(), Some("two"));
        assert_eq!(again.traffic().unwrap().as_deref(), Some("bytes"));
    }

    /// An account that can't be written at a clean stop takes nothing else with it: acknowledgements and high water are written
    /// down. (The stop ended there.)
    #[test]
    fn a_stop_goes_on_without_the_ledger() {
        let bench = Bench::new();
        let mut store = bench.open().0;
        (1..4).for_each(|s| drop(put(&mut store, 2, 3, s * 10).unwrap()));
        let uuid = store.uuid();
        let acked = crate::reading::SeqRange::new(1, 2).unwrap();
        store.set_acked(uuid, std::iter::once(acked).collect()).unwrap();
        store.note_ledger("one".into());
        let refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.meta WHEN new.key = 'wear' \
                      BEGIN SELECT raise(FAIL, 'refused'); END";
        store.conn.execute_batch(refuse).unwrap();
        store.close().unwrap();
        let mark = super::super::high_water::HighWater::open(&bench.cfg.path).unwrap().mark().unwrap();
        assert_eq!((mark.store, mark.seq.0), (uuid, 3));
        let store = bench.open_calm();
        assert_eq!((store.ledger().unwrap(), store.facts().unwrap().pending_segments), (None, 1));
    }

    /// A boot lasted at least until its last reading; of a boot that recorded nothing it isn't known.
    #[test]
    fn a_boot_lasted_until_its_last_reading() {
        let bench = Bench::new();
        let mut store = bench.open().0;
        put(&mut store, 2, 3, 10).unwrap();
        put(&mut store, 2, 3, 500).unwrap();
        let last = store.last_recorded(bench.me.boot_uuid).unwrap().unwrap();
        assert!((at(500).boot..=at(510).boot).contains(&last), "{last:?}");
        assert_eq!(store.last_recorded(Uuid::from_u128(99)).unwrap(), None);
    }
}
