//! What the uplink keeps in the file.
//!
//! What enters: the number of a recheck. What leaves: that number, also after a restart.

use super::error::StoreError;
use super::file::{meta, set_meta};
use super::{FreshWhy, Store};
use crate::clock::Now;
use crate::reading::ranges::RangeSet;
use uuid::Uuid;

impl Store {
    /// Segments of `uuid` that begin above `after`, acknowledged or not, ascending, at most `limit`.
    #[cfg(test)]
    pub(super) fn held(
        &self,
        uuid: Uuid,
        after: crate::reading::SegmentSeq,
        limit: usize,
    ) -> Result<Vec<super::SegmentHead>, StoreError> {
        let Some(line) = self.line(uuid) else { return Ok(Vec::new()) };
        self.heads(line.no, after.0.saturating_add(1), super::file::MAX_SEQ, limit)
    }

    /// The number of the recheck of `uuid`, where one is set; see [`crate::wire::StoreState::recheck`].
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn recheck(&self, uuid: Uuid) -> Result<Option<u64>, StoreError> {
        // SQLite's integers are signed; the bits are what counts.
        Ok(meta::<i64>(&self.conn, &key(uuid))?.map(|bits| bits as u64))
    }

    /// Sets a recheck of `uuid`: its acknowledgements are forgotten, and where it is the current store a fresh id is taken.
    /// The number is written first: a cut between the two leaves a current store with a recheck, which the next
    /// acknowledgement leads to the same end.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn begin_recheck(&mut self, uuid: Uuid, nonce: u64, now: Now) -> Result<(), StoreError> {
        self.transaction("begin a recheck", |conn| set_meta(conn, &key(uuid), nonce as i64))?;
        self.set_acked(uuid, RangeSet::new())?;
        if uuid == self.uuid() {
            self.take_fresh_id(FreshWhy::Fleet, now)?;
        }
        Ok(())
    }
}

fn key(uuid: Uuid) -> String {
    format!("recheck/{uuid}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, put};
    use super::*;
    use crate::reading::SeqRange;

    /// A recheck makes everything pending again, takes a fresh id, and is still set after a restart.
    #[test]
    fn a_recheck_survives_a_restart() {
        let bench = Bench::new();
        let mut store = bench.open().0;
        let old = store.uuid();
        for s in 0..3 {
            put(&mut store, 2, 5, s).expect("committed");
        }
        let all = SeqRange::new(1, 3).expect("a range");
        store.set_acked(old, RangeSet::from_iter([all])).expect("acked");
        assert_eq!(store.recheck(old).expect("read"), None);
        store.begin_recheck(old, u64::MAX, at(9)).expect("set");
        assert_ne!(store.uuid(), old);
        store.close().expect("closed");
        let store = bench.open().0;
        assert_eq!(store.recheck(old).expect("read"), Some(u64::MAX));
        assert_eq!(store.pending_ranges(old).expect("read"), RangeSet::from_iter([all]));
    }

    /// A recheck that comes right after a fold begins the log as every transaction does: no commit ends in its first block. (It
    /// went around that, so a torn first block could pass for a shorter log.)
    #[test]
    fn a_recheck_begins_the_log_like_any_transaction() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put(&mut store, 3, 2, 1).expect("committed");
        store.checkpoint().expect("folded");
        store.begin_recheck(Uuid::from_u128(9), 1, at(9)).expect("set");
        let log = std::fs::read(bench.file("-wal")).expect("read");
        let commits = (0..7).map(|frame| 32 + frame * 536).filter(|at| log[at + 4..at + 8] != [0; 4]).count();
        assert_eq!(commits, 0);
    }
}
