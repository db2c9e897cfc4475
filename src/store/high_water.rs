//! The high-water mark: the highest committed sequence number, kept outside the database in a small file beside it.
//!
//! SQLite replays its `-wal` up to the first frame that does not check and calls that the database. If a bit rots there, or
//! if somebody puts an older copy of the file back, the result is an older state without a word. A number kept elsewhere
//! turns that into an alarm, and keeps sequence numbers from being used twice. What enters and leaves: a [`Mark`]. It is
//! written at checkpoints and clean stops only (an fsync'd write with every commit would cost 8 bytes per reading at 10 s),
//! so it may lag behind the database and never runs ahead of it.
//!
//! It also says which log was beside the database: SQLite replays any log that it finds there, and a log of another database
//! overwrites this one's pages.
//!
//! ```text
//! one block of 4096 bytes
//!   0    slot 0: "vrvH"  version u8  uuid [16]  counter u64 LE  seq u64 LE  CRC-32 of the 37 bytes before, LE
//!   64   its log: "vrvL"  counter u64 LE  first salt u32 LE  CRC-32 of the 16 bytes before, LE; zeros where it isn't known
//!   2048 slot 1: the same
//! ```
//! The slot with the lower counter is overwritten, so a torn write leaves the other one. The counter decides which holds. A log
//! with another counter than its slot's is of a version that knew nothing of logs and wrote the slot alone: it isn't known.

use super::disk::PlainFile;
use super::error::StoreError;
use super::file::beside;
use super::ground::sync_directory;
use super::wal_scan::LogId;
use crate::reading::SegmentSeq;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MAGIC: &[u8; 4] = b"vrvH";
const VERSION: u8 = 1;
const MARK_BYTES: usize = 41;
const LOG_MAGIC: &[u8; 4] = b"vrvL";
const LOG_AT: usize = 64;
const SLOT_BYTES: usize = LOG_AT + 20;
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
    db: PathBuf,
    counter: u64,
    mark: Option<Mark>,
    log: Option<LogId>,
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
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.counter);
        Ok(Self {
            file,
            db: db.to_owned(),
            counter: newest.map_or(0, |slot| slot.counter),
            mark: newest.map(|slot| slot.mark),
            log: newest.and_then(|slot| slot.log),
        })
    }

    /// What it says.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The log that was beside the database when the mark was set, where that is known.
    pub fn log(&self) -> Option<LogId> {
        self.log
    }

    /// Writes `mark`, and which log is beside the database now, to the older slot and waits until it is on the medium. A mark
    /// that holds already costs nothing, as long as the log is known.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the earlier mark still holds, and the same call may be made again.
    pub fn set(&mut self, mark: Mark) -> Result<(), StoreError> {
        if self.mark == Some(mark) && self.log.is_some() {
            return Ok(());
        }
        // Where it can't be read it isn't known, and nothing is said of it.
        let log = LogId::of(&self.db).unwrap_or_default();
        if self.mark == Some(mark) && log.is_none() {
            return Ok(());
        }
        self.write(Slot { counter: self.counter + 1, mark, log })
    }

    /// From now on nothing is known of the log: SQLite is about to begin one by chance. In both slots, so that it stays
    /// forgotten where one of them rots.
    ///
    /// # Errors
    /// As of [`Self::set`].
    pub fn forget_log(&mut self) -> Result<(), StoreError> {
        let Some(mark) = self.mark.filter(|_| self.log.is_some()) else { return Ok(()) };
        self.write(Slot { counter: self.counter + 1, mark, log: None })?;
        self.write(Slot { counter: self.counter + 1, mark, log: None })
    }

    fn write(&mut self, slot: Slot) -> Result<(), StoreError> {
        self.file.write_at(&write_slot(slot), SLOT_AT[(slot.counter % 2) as usize])?;
        self.file.fdatasync()?;
        (self.counter, self.mark, self.log) = (slot.counter, Some(slot.mark), slot.log);
        Ok(())
    }
}

/// What a slot says.
#[derive(Clone, Copy)]
struct Slot {
    counter: u64,
    mark: Mark,
    log: Option<LogId>,
}

fn write_slot(Slot { counter, mark, log }: Slot) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    if let Some(log) = log {
        let own = &mut slot[LOG_AT..];
        own[..4].copy_from_slice(LOG_MAGIC);
        own[4..12].copy_from_slice(&counter.to_le_bytes());
        own[12..16].copy_from_slice(&log.0.to_le_bytes());
        let crc = crc32fast::hash(&own[..16]);
        own[16..].copy_from_slice(&crc.to_le_bytes());
    }
    slot[..4].copy_from_slice(MAGIC);
    slot[4] = VERSION;
    slot[5..21].copy_from_slice(mark.store.as_bytes());
    slot[21..29].copy_from_slice(&counter.to_le_bytes());
    slot[29..37].copy_from_slice(&mark.seq.0.to_le_bytes());
    let crc = crc32fast::hash(&slot[..37]);
    slot[37..MARK_BYTES].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slot(file: &PlainFile, at: u64) -> Result<Option<Slot>, StoreError> {
    let mut slot = [0; SLOT_BYTES];
    Ok(if file.read_at(&mut slot, at)? { parse(&slot) } else { None })
}

fn parse(slot: &[u8; SLOT_BYTES]) -> Option<Slot> {
    let crc = crc32fast::hash(&slot[..37]).to_le_bytes();
    if &slot[..4] != MAGIC || slot[4] != VERSION || slot[37..MARK_BYTES] != crc {
        return None;
    }
    let store = Uuid::from_slice(&slot[5..21]).ok()?;
    let number = |from: usize| slot[from..from + 8].try_into().ok().map(u64::from_le_bytes);
    let (counter, mark) = (number(21)?, Mark { store, seq: SegmentSeq(number(29)?) });
    Some(Slot { counter, mark, log: parse_log(&slot[LOG_AT..], counter) })
}

fn parse_log(own: &[u8], counter: u64) -> Option<LogId> {
    let crc = crc32fast::hash(&own[..16]).to_le_bytes();
    let known = &own[..4] == LOG_MAGIC && own[4..12] == counter.to_le_bytes() && own[16..] == crc;
    own[12..16].try_into().ok().filter(|_| known).map(|salt| LogId(u32::from_le_bytes(salt)))
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

    /// Which log was there is read back with the mark, until it is forgotten; and where a version that knew nothing of logs has
    /// written the mark since, it isn't known.
    #[test]
    fn the_log_is_known_as_long_as_its_mark_holds() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("v.db");
        let (one, other) = (Some(LogId(7)), Some(LogId(8)));
        let mut high = HighWater::open(&db).unwrap();
        high.write(Slot { counter: 1, mark: mark(1), log: one }).unwrap();
        assert_eq!(HighWater::open(&db).unwrap().log(), one);
        high.write(Slot { counter: 2, mark: mark(2), log: other }).unwrap();
        assert_eq!(HighWater::open(&db).unwrap().log(), other);
        high.forget_log().unwrap();
        assert_eq!(HighWater::open(&db).unwrap().log(), None);
        high.write(Slot { counter: 5, mark: mark(3), log: one }).unwrap();
        let older = write_slot(Slot { counter: 7, mark: mark(4), log: None });
        high.file.write_at(&older[..MARK_BYTES], SLOT_AT[1]).unwrap();
        let found = HighWater::open(&db).unwrap();
        assert_eq!((found.mark(), found.log()), (Some(mark(4)), None));
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
