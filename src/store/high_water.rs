//! The high-water mark: the highest committed sequence number, kept outside the database in a small file beside it.
//!
//! SQLite replays its `-wal` up to the first frame that does not check and calls that the database. If a bit rots there, or
//! if somebody puts an older copy of the file back, the result is an older state without a word. A number kept elsewhere
//! turns that into an alarm, and keeps sequence numbers from being used twice. What enters and leaves: a [`Mark`]. It is
//! written at checkpoints and clean stops only (an fsync'd write with every commit would cost 8 bytes per reading at 10 s),
//! so it may lag behind the database and never runs ahead of it.
//!
//! ```text
//! one block of 4096 bytes
//!   0    slot 0: "vrvH"  version u8  uuid [16]  counter u64 LE  seq u64 LE  CRC-32 of the 37 bytes before, LE
//!   2048 slot 1: the same
//! ```
//! The slot with the lower counter is overwritten, so a torn write leaves the other one. The counter decides which holds.

use super::disk::PlainFile;
use super::error::StoreError;
use super::file::beside;
use super::ground::sync_directory;
use crate::reading::SegmentSeq;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MAGIC: &[u8; 4] = b"vrvH";
const VERSION: u8 = 1;
const SLOT_BYTES: usize = 41;
const SLOT_AT: [u64; 2] = [0, 2048];
const BLOCK_BYTES: u64 = 4096;

/// The highest committed sequence number of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which store.
    pub store: Uuid,
    /// The number.
    pub seq: SegmentSeq,
}

/// The file, open for writing.
pub struct HighWater {
    file: PlainFile,
    counter: u64,
    mark: Option<Mark>,
}

/// Where the mark of the database at `db` is kept.
pub fn path_of(db: &Path) -> PathBuf {
    beside(db, "-high-water")
}

impl HighWater {
    /// Opens or makes the mark of the database at `db`. A file without a slot that checks has no mark, as a new one.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Full`] as the file system says.
    pub fn open(db: &Path) -> Result<Self, StoreError> {
        let path = path_of(db);
        let file = PlainFile::open_or_create(&path)?;
        if file.length()? < BLOCK_BYTES {
            file.set_length(0)?;
            file.write_at(&[0; BLOCK_BYTES as usize], 0)?;
            file.fsync()?;
            sync_directory(db)?;
        }
        let slots = [read_slot(&file, SLOT_AT[0])?, read_slot(&file, SLOT_AT[1])?];
        let newest = slots.into_iter().flatten().max_by_key(|(counter, _)| *counter);
        Ok(Self { file, counter: newest.map_or(0, |(c, _)| c), mark: newest.map(|(_, m)| m) })
    }

    /// What it says.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Writes `mark` to the older slot and waits until it is on the medium. One that holds already costs nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the earlier mark still holds, and the same call may be made again.
    pub fn set(&mut self, mark: Mark) -> Result<(), StoreError> {
        if self.mark == Some(mark) {
            return Ok(());
        }
        let counter = self.counter + 1;
        let slot = write_slot(counter, mark);
        let at = SLOT_AT[(counter % 2) as usize];
        self.file.write_at(&slot, at)?;
        self.file.fdatasync()?;
        self.counter = counter;
        self.mark = Some(mark);
        Ok(())
    }
}

fn write_slot(counter: u64, mark: Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(MAGIC);
    slot[4] = VERSION;
    slot[5..21].copy_from_slice(mark.store.as_bytes());
    slot[21..29].copy_from_slice(&counter.to_le_bytes());
    slot[29..37].copy_from_slice(&mark.seq.0.to_le_bytes());
    let crc = crc32fast::hash(&slot[..37]);
    slot[37..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slot(file: &PlainFile, at: u64) -> Result<Option<(u64, Mark)>, StoreError> {
    let mut slot = [0; SLOT_BYTES];
    Ok(if file.read_at(&mut slot, at)? { parse(&slot) } else { None })
}

fn parse(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Mark)> {
    let crc = crc32fast::hash(&slot[..37]).to_le_bytes();
    if &slot[..4] != MAGIC || slot[4] != VERSION || slot[37..] != crc {
        return None;
    }
    let store = Uuid::from_slice(&slot[5..21]).ok()?;
    let number = |from: usize| slot[from..from + 8].try_into().ok().map(u64::from_le_bytes);
    Some((number(21)?, Mark { store, seq: SegmentSeq(number(29)?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    fn mark(seq: u64) -> Mark {
        Mark { store: Uuid::from_u128(7), seq: SegmentSeq(seq) }
    }

    /// What was set is there after reopening, and the newest of the two slots holds.
    #[test]
    fn the_newest_mark_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("v.db");
        assert_eq!(HighWater::open(&db).unwrap().mark(), None);
        for seq in [3, 9, 27] {
            HighWater::open(&db).unwrap().set(mark(seq)).unwrap();
            assert_eq!(HighWater::open(&db).unwrap().mark(), Some(mark(seq)));
        }
        assert_eq!(std::fs::metadata(path_of(&db)).unwrap().len(), BLOCK_BYTES);
    }

    /// A write that tears costs the newest mark, never the one before; both slots torn is no mark, not a wrong one.
    #[test]
    fn a_torn_slot_leaves_the_mark_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("v.db");
        let mut high = HighWater::open(&db).unwrap();
        high.set(mark(1)).unwrap();
        high.set(mark(2)).unwrap();
        let file = OpenOptions::new().write(true).open(path_of(&db)).unwrap();
        file.write_all_at(&[0xA5; 10], SLOT_AT[0] + 25).unwrap();
        assert_eq!(HighWater::open(&db).unwrap().mark(), Some(mark(1)));
        file.write_all_at(&[0xA5; 10], SLOT_AT[1] + 25).unwrap();
        assert_eq!(HighWater::open(&db).unwrap().mark(), None);
    }
}
