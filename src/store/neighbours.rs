//! The neighbours of the pages in the log: what a checkpoint may tear must be in the log whole.
//!
//! A checkpoint rewrites blocks of 4 KiB of which the log may hold only some pages. Where the power fails and the block in
//! flight turns to garbage, the others would be gone. What enters: the frames of the log as they are written. What leaves:
//! the pages that the log lacks of the blocks it touches, and, on demand, a commit that puts them there as they are. After
//! it, and until the log begins anew, whatever a checkpoint writes can be written again from the log.
//!
//! SQLite does the same inside each commit when it is told of large sectors; a page that is rewritten in each of a thousand
//! commits then brings its neighbours a thousand times. Here they come once a round.
//!
//! A log that begins anew has a neighbour too, the old one under it: see [`begin_log`].
//!
//! What it does not do: decide when to checkpoint, or protect a checkpoint that another program's connection makes.

use super::error::StoreError;
use super::file::{FRAME_HEADER_BYTES, in_transaction, sql_of};
use super::raw;
use super::vfs::BLOCK_BYTES;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of the header of the log (sqlite.org/fileformat2.html §4.1).
const LOG_HEADER_BYTES: u64 = 32;

/// The page that SQLite never uses, at 1 GiB: its lock bytes lie there (sqlite.org/fileformat2.html §1.4).
const PENDING_BYTE: u64 = 0x4000_0000;

/// The blocks of the database that the log touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touched {
    page_bytes: u64,
    /// Of the log that was looked at: another one means that it began anew.
    salt: [u8; 8],
    /// Frames that were looked at.
    frames: u64,
    /// Which pages of a block the log holds, a bit each.
    blocks: BTreeMap<u32, u8>,
    held: u64,
}

impl Touched {
    /// Nothing was looked at yet. `page_bytes` is the database's own.
    pub(super) fn new(page_bytes: u64) -> Self {
        Self { page_bytes, salt: [0; 8], frames: 0, blocks: BTreeMap::new(), held: 0 }
    }

    /// Bytes per page of the database.
    pub(super) fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// Pages in a block; 1 where a page is a block or more and has no neighbours.
    fn per_block(&self) -> u64 {
        (BLOCK_BYTES / self.page_bytes).max(1)
    }

    /// Looks at the frames that were added: the log of `conn` has `frames` of them now.
    ///
    /// # Errors
    /// Where the log can't be read.
    pub(super) fn look(&mut self, conn: &Connection, frames: u64) -> Result<(), StoreError> {
        if self.per_block() == 1 {
            return Ok(());
        }
        let fail = |code| StoreError::Setting { name: "wal", wanted: "readable".into(), got: format!("error {code}") };
        let mut salt = [0; 8];
        if frames > 0 {
            raw::read_log(conn, 16, &mut salt).map_err(fail)?;
        }
        if salt != self.salt || frames < self.frames {
            *self = Self { salt, ..Self::new(self.page_bytes) };
        }
        for frame in self.frames..frames {
            let mut page = [0; 4];
            let at = LOG_HEADER_BYTES + frame * (self.page_bytes + FRAME_HEADER_BYTES);
            raw::read_log(conn, at, &mut page).map_err(fail)?;
            self.add(u32::from_be_bytes(page));
        }
        self.frames = frames;
        Ok(())
    }

    fn add(&mut self, page: u32) {
        let (at, per_block) = (u64::from(page.max(1)) - 1, self.per_block());
        let bit = 1 << (at % per_block);
        let block = self.blocks.entry((at / per_block) as u32).or_default();
        self.held += u64::from(*block & bit == 0);
        *block |= bit;
    }

    /// At most so many pages are lacking.
    pub(super) fn lacking(&self) -> u64 {
        self.blocks.len() as u64 * self.per_block() - self.held
    }

    /// The pages, of a database of `pages`, that share a block with one in the log and aren't in it.
    fn missing(&self, pages: u64) -> Vec<u64> {
        let (per_block, reserved) = (self.per_block(), PENDING_BYTE / self.page_bytes + 1);
        let of = |(&block, &mask): (&u32, &u8)| {
            let first = u64::from(block) * per_block + 1;
            (0..per_block).filter(move |i| mask & (1 << i) == 0).map(move |i| first + i)
        };
        self.blocks.iter().flat_map(of).filter(|&page| page <= pages && page != reserved).collect()
    }

    /// Commits what is lacking, as it is, but for pages that hold nothing. How many pages that were.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub(super) fn complete(&self, conn: &Connection, path: &Path) -> Result<u64, StoreError> {
        let pages: i64 = conn
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .map_err(|e| sql_of(conn, "count the pages", e))?;
        let mut missing = self.missing(u64::try_from(pages).unwrap_or(0));
        if missing.is_empty() {
            return Ok(0);
        }
        let empty = empty_pages(conn)?;
        missing.retain(|page| empty.binary_search(page).is_err());
        in_transaction(conn, path, "complete the blocks of the log", |conn| {
            let fail = |e| sql_of(conn, "complete the blocks of the log", e);
            let sql = "UPDATE sqlite_dbpage SET data = data WHERE pgno = ?1";
            let mut write = conn.prepare_cached(sql).map_err(fail)?;
            missing.iter().try_for_each(|&page| write.execute([page as i64]).map(drop).map_err(fail))
        })?;
        Ok(missing.len() as u64)
    }
}

/// Begins the log anew with a commit whose last frame lies behind the first block of the log.
///
/// While the header of a new log is written, the block that holds it and the first frames of the old one may keep its front
/// and lose its end. If a commit lay in that front, SQLite would take it for the whole of the old log, and put pages of long
/// ago into a database that has newer ones. So none lies there: the first commit of each log is some pages as they are.
///
/// # Errors
/// Those of a commit; nothing has changed then.
pub(super) fn begin_log(conn: &Connection, path: &Path, page_bytes: u64) -> Result<(), StoreError> {
    let pages = (BLOCK_BYTES - LOG_HEADER_BYTES) / (page_bytes + FRAME_HEADER_BYTES) + 1;
    if pages == 1 {
        return Ok(());
    }
    in_transaction(conn, path, "begin the log", |conn| {
        let fail = |e| sql_of(conn, "begin the log", e);
        let sql = "UPDATE sqlite_dbpage SET data = data WHERE pgno = ?1";
        let mut write = conn.prepare_cached(sql).map_err(fail)?;
        (1..=pages as i64).try_for_each(|page| write.execute([page]).map(drop).map_err(fail))
    })
}

/// The pages that are free and hold nothing, ascending: the leaves of the freelist (sqlite.org/fileformat2.html §1.5).
/// Garbage in them harms nobody: the commit that takes one writes it anew.
fn empty_pages(conn: &Connection) -> Result<Vec<u64>, StoreError> {
    let fail = |e| sql_of(conn, "read the free pages", e);
    let mut read = conn.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1").map_err(fail)?;
    let mut page = |no: u64| read.query_row([no as i64], |row| row.get::<_, Vec<u8>>(0)).map_err(fail);
    let number = |page: &[u8], at: usize| -> u64 {
        page.get(at..at + 4).map_or(0, |bytes| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    };
    let first = page(1)?;
    let (mut trunk, mut left) = (number(&first, 32), number(&first, 36));
    let mut empty = Vec::new();
    // The count bounds the walk, also in a file whose chain is damaged.
    while trunk != 0 && left > 0 {
        let list = page(trunk)?;
        let leaves = number(&list, 4).min(left - 1);
        empty.extend((0..leaves).map(|i| number(&list, 8 + 4 * i as usize)));
        left -= leaves + 1;
        trunk = number(&list, 0);
    }
    empty.sort_unstable();
    Ok(empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole blocks lack nothing; of others, each page that exists and isn't in the log.
    #[test]
    fn what_a_block_lacks() {
        let mut touched = Touched::new(512);
        (1..=8).for_each(|page| touched.add(page));
        assert_eq!((touched.lacking(), touched.missing(100)), (0, vec![]));
        touched.add(10);
        touched.add(10);
        touched.add(22);
        assert_eq!(touched.lacking(), 14);
        assert_eq!(touched.missing(100), [9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24]);
        assert_eq!(touched.missing(20), [9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        let mut large = Touched::new(2048);
        large.add(7);
        assert_eq!(large.missing(100), [8]);
        let mut whole = Touched::new(4096);
        whole.add(7);
        assert_eq!((whole.lacking(), whole.missing(100)), (0, vec![]));
    }

    /// The page with SQLite's lock bytes is never read or written.
    #[test]
    fn the_page_of_the_lock_bytes_is_left_alone() {
        let mut touched = Touched::new(512);
        let reserved = PENDING_BYTE / 512 + 1;
        touched.add(u32::try_from(reserved).unwrap() + 1);
        assert!(!touched.missing(u64::MAX >> 1).contains(&reserved));
        assert_eq!(touched.missing(u64::MAX >> 1).len(), 6);
    }
}
