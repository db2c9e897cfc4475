//! The end of the log, mended before SQLite replays it: what a power cut left there must not mislead the next one.
//!
//! SQLite pads a commit with copies of its last frame up to the end of its block, and writes what of the last copy lies in
//! the next block after the fsync: a power cut takes that part away, also of a commit that was acknowledged. SQLite then
//! goes on right behind the last whole copy, in a block with frames that must stay, and the next power cut may turn that
//! block to garbage. So the missing part is written here, where nothing else is. A commit whose padding isn't there at all
//! was never acknowledged, and is left as it is.
//!
//! Frames of the transaction that the cut tore may lie behind that. If another one were torn on top of them, both together
//! would look like commits that rotted away. So they become zeros.
//!
//! What enters: the path, what [`wal_scan`](super::wal_scan) found. What leaves: a log that ends behind its block, and
//! nothing of its own behind that. A log with rot in it is left as it is.

use super::disk::PlainFile;
use super::error::StoreError;
use super::file::{FRAME_HEADER_BYTES, beside};
use super::vfs::BLOCK_BYTES;
use super::wal_scan::{Frame, HEADER_BYTES, WalScan};
use std::path::Path;

/// Mends the end of the log of the database at `db`.
///
/// # Errors
/// Those of the file system.
pub(super) fn mend(db: &Path, scan: WalScan) -> Result<(), StoreError> {
    let Some(page_bytes) = scan.page_bytes.filter(|_| !scan.rot()) else { return Ok(()) };
    let Some(log) = PlainFile::open_to_change(&beside(db, "-wal"))? else { return Ok(()) };
    let frame_bytes = FRAME_HEADER_BYTES + u64::from(page_bytes);
    let end = |frames: u64| HEADER_BYTES as u64 + frames * frame_bytes;
    let boundary = end(scan.replayed).next_multiple_of(BLOCK_BYTES);
    let mut changed = scan.replayed > 0 && complete(&log, end(scan.replayed), boundary, frame_bytes as usize)?;
    if scan.live_behind > 0 {
        // What was completed is behind the boundary, and shorter than a frame.
        let from = if changed { end(scan.replayed + 1) } else { boundary };
        changed |= clear(&log, from, end(scan.last_live))?;
    }
    if changed { log.fdatasync() } else { Ok(()) }
}

/// Writes the part behind `boundary` of the padding frame that begins at `end`, if the part before is there.
fn complete(log: &PlainFile, end: u64, boundary: u64, frame_bytes: usize) -> Result<bool, StoreError> {
    let before = (boundary - end) as usize;
    if before == 0 || before >= frame_bytes {
        return Ok(false);
    }
    let (mut magic, mut last, mut there) = ([0; 4], vec![0; frame_bytes], vec![0; before]);
    let there_is = log.read_at(&mut magic, 0)?
        && log.read_at(&mut last, end - frame_bytes as u64)?
        && log.read_at(&mut there, end)?;
    if !there_is {
        return Ok(false);
    }
    let copy = Frame(&last).copy_behind(magic[3] & 1 == 1);
    if copy[..before] != there[..] {
        return Ok(false);
    }
    log.write_at(&copy[before..], boundary).map(|()| true)
}

/// Writes zeros over `from..to`.
fn clear(log: &PlainFile, from: u64, to: u64) -> Result<bool, StoreError> {
    let zeros = [0; BLOCK_BYTES as usize];
    let mut at = from;
    while at < to {
        let piece = (to - at).min(BLOCK_BYTES) as usize;
        log.write_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(from < to)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, put};
    use super::*;
    use crate::store::wal_scan::scan;

    /// The part of the padding that a power cut takes away comes back, and the log ends behind its block.
    #[test]
    fn the_end_of_the_padding_comes_back() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        for second in 1..30 {
            put(&mut store, 5, 10, second * 10).unwrap();
            let crashed = bench.crash();
            let db = crashed.cfg.path.clone();
            let found = scan(&db, None).unwrap();
            let end = |frames: u64| 32 + frames * 536;
            if end(found.replayed) % BLOCK_BYTES == 0 {
                continue;
            }
            assert!(end(store.log.frames()) > end(found.replayed), "the copy below lacks what is held back");
            mend(&db, found).unwrap();
            let whole = scan(&db, None).unwrap();
            assert_eq!(whole.replayed, store.log.frames(), "second {second}");
            assert!(end(whole.replayed) / BLOCK_BYTES > end(found.replayed) / BLOCK_BYTES);
            mend(&db, whole).unwrap();
            assert_eq!(scan(&db, None).unwrap(), whole, "once is enough");
        }
    }
}
