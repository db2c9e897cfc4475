//! The end of the log, mended before SQLite replays it: what a power cut left there must not mislead the next one.
//!
//! SQLite pads a commit with copies of its last frame up to the end of its block, and writes what of the last copy lies in
//! the next block after the fsync: a power cut takes that part away, also of a commit that was acknowledged. SQLite then
//! goes on right behind the last whole copy, in a block with frames that must stay, and the next power cut may turn that
//! block to garbage. So the missing part is written here, where nothing else is. A commit whose padding isn't there at all
//! was never acknowledged, and is left as it is.
//!
//! Frames of the transaction that the cut tore may lie behind that, whole ones too. If another one were torn on top of them,
//! both together would look like commits that rotted away. So they become zeros.
//!
//! A copy in which a bit rotted hides every commit behind it from SQLite. What it held is known from the frame before it, and
//! where the frame behind it goes on from just that, it is written again.
//!
//! What enters: the path, what [`wal_scan`](super::wal_scan) found. What leaves: a log that ends behind its block, and
//! nothing of its own behind that; and what is found in it by then. Other rot is left as it is.

use super::disk::PlainFile;
use super::error::StoreError;
use super::file::{FRAME_HEADER_BYTES, beside};
use super::vfs::BLOCK_BYTES;
use super::wal_scan::{self, Frame, HEADER_BYTES, WalScan};
use std::path::Path;

/// Copies that are mended at a start: one bit is in one of them.
const MOST_COPIES: usize = 4;

/// Mends the log of the database at `db`; what is found in it then.
///
/// # Errors
/// Those of the file system.
pub(super) fn mend(db: &Path, scan: WalScan) -> Result<WalScan, StoreError> {
    let Some(log) = PlainFile::open_to_change(&beside(db, "-wal"))? else { return Ok(scan) };
    let mut scan = scan;
    for _ in 0..MOST_COPIES {
        if !mend_copy(&log, scan)? {
            break;
        }
        scan = wal_scan::scan(db, scan.page_bytes)?;
    }
    mend_end(&log, scan).map(|()| scan)
}

/// Writes the copy again that the log breaks at, if it is one.
fn mend_copy(log: &PlainFile, scan: WalScan) -> Result<bool, StoreError> {
    let Some(page_bytes) = scan.page_bytes.filter(|_| scan.replayed > 0) else { return Ok(false) };
    if scan.broken_at != Some(scan.replayed + 1) || scan.live_behind == 0 {
        return Ok(false);
    }
    let frame_bytes = (FRAME_HEADER_BYTES + u64::from(page_bytes)) as usize;
    let at = HEADER_BYTES as u64 + scan.replayed * frame_bytes as u64;
    let (mut magic, mut frames) = ([0; 4], vec![0; 3 * frame_bytes]);
    if !log.read_at(&mut magic, 0)? || !log.read_at(&mut frames, at - frame_bytes as u64)? {
        return Ok(false);
    }
    let big_endian = magic[3] & 1 == 1;
    let (last, (broken, next)) = (&frames[..frame_bytes], frames[frame_bytes..].split_at(frame_bytes));
    let copy = Frame(last).copy_behind(big_endian);
    if broken == copy || !Frame(&copy).is_before(&Frame(next), big_endian) {
        return Ok(false);
    }
    // Not a byte more: other blocks of it may be whole, and a power cut now could take them.
    let mut from = 0;
    while from < frame_bytes {
        let to = (((at + from as u64) / BLOCK_BYTES + 1) * BLOCK_BYTES - at).min(frame_bytes as u64) as usize;
        if broken[from..to] != copy[from..to] {
            log.write_at(&copy[from..to], at + from as u64)?;
        }
        from = to;
    }
    log.fdatasync()?;
    Ok(true)
}

/// Completes the padding of the last commit, also where rot is behind it: what is written next would share its block
/// otherwise. Clears what a torn transaction left behind it; of rot nothing.
fn mend_end(log: &PlainFile, scan: WalScan) -> Result<(), StoreError> {
    let Some(page_bytes) = scan.page_bytes else { return Ok(()) };
    let frame_bytes = FRAME_HEADER_BYTES + u64::from(page_bytes);
    let end = |frames: u64| HEADER_BYTES as u64 + frames * frame_bytes;
    let boundary = end(scan.replayed).next_multiple_of(BLOCK_BYTES);
    let mut changed = scan.replayed > 0 && complete(log, end(scan.replayed), boundary, frame_bytes as usize)?;
    if scan.last_live > scan.replayed && !scan.rot() {
        // From its end on, not only from the next block: what shares its block is a commit that nobody was answered for, or the
        // end of a copy. What was completed is shorter than a frame.
        changed |= clear(log, end(scan.replayed + u64::from(changed)), end(scan.last_live))?;
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

    /// A bit that rots in a copy between two commits costs neither: what it was is known. (It cost all that was behind it, and
    /// where that was one commit it was taken for a torn end.)
    #[test]
    fn a_rotten_copy_is_written_again() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        let mut mended = 0;
        for second in 1..12 {
            put(&mut store, 2, 3, second * 10).unwrap();
            let copies = store.log.frames();
            put(&mut store, 3, 3, second * 10 + 5).unwrap();
            let crashed = bench.crash();
            let (db, frame) = (&crashed.cfg.path, 536);
            let whole = scan(db, None).unwrap();
            let path = beside(db, "-wal");
            let bytes = std::fs::read(&path).unwrap();
            let last = (32 + (copies - 1) * frame) as usize;
            if bytes[last - 536..last - 528] != bytes[last..last + 8] {
                continue;
            }
            for at in [0, 9, 20, 24, 535] {
                let mut spoilt = bytes.clone();
                spoilt[last + at] ^= 4;
                std::fs::write(&path, &spoilt).unwrap();
                let found = scan(db, None).unwrap();
                assert!(found.replayed < whole.replayed, "byte {at}: {found:?}");
                assert_eq!(mend(db, found).unwrap(), whole, "byte {at}");
                assert_eq!(std::fs::read(&path).unwrap()[..last + 536], bytes[..last + 536], "byte {at}");
                mended += 1;
            }
        }
        assert!(mended > 5, "no commit had copies");
    }

    /// Rot behind a commit doesn't keep its padding from coming back: what a recovery writes next would share a block with
    /// it, and a second power cut took a commit that had been acknowledged.
    #[test]
    fn the_padding_comes_back_also_before_rot() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        let mut mended = 0;
        for second in 1..12 {
            put(&mut store, 3, 5, second * 100).unwrap();
            let frames = store.log.frames();
            (1..4).for_each(|n| drop(put(&mut store, 3, 5, second * 100 + n * 10).unwrap()));
            let crashed = bench.crash();
            let (db, end) = (&crashed.cfg.path, 32 + frames as usize * 536);
            let mut bytes = std::fs::read(beside(db, "-wal")).unwrap();
            let boundary = end / 4096 * 4096;
            if end == boundary {
                continue;
            }
            // The block that came after the boundary never arrived.
            bytes[boundary..boundary + 4096].fill(0);
            std::fs::write(beside(db, "-wal"), &bytes).unwrap();
            let found = scan(db, None).unwrap();
            assert!(found.rot() && found.replayed == frames - 1, "{found:?}");
            assert_eq!(mend(db, found).unwrap(), found);
            assert_eq!(scan(db, None).unwrap().replayed, frames, "second {second}");
            mended += 1;
        }
        assert!(mended > 5, "no commit crossed a block");
    }

    /// Nothing is left of a torn transaction, however short: with the next one torn on top of it, it was taken for rot.
    #[test]
    fn nothing_is_left_of_a_torn_transaction() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        for second in 1..20 {
            put(&mut store, 3, 5, second * 100).unwrap();
            let frames = store.log.frames();
            put(&mut store, 1, 1, second * 100 + 50).unwrap();
            let crashed = bench.crash();
            let (db, first) = (&crashed.cfg.path, 32 + frames as usize * 536);
            let mut bytes = std::fs::read(beside(db, "-wal")).unwrap();
            bytes[first + 100] ^= 1;
            std::fs::write(beside(db, "-wal"), &bytes).unwrap();
            let found = scan(db, None).unwrap();
            assert!(found.live_behind > 0 && found.replayed == frames, "{found:?}");
            mend(db, found).unwrap();
            let left = scan(db, None).unwrap();
            assert_eq!((left.live_behind, left.replayed), (0, frames), "second {second}");
        }
    }

    /// Nor where all frames that arrived are whole and only the commit lacks, so that nothing breaks: they were left, and the
    /// recovery's own commit, torn among them, was taken for two that rotted away.
    #[test]
    fn nothing_is_left_of_a_transaction_that_lacks_its_commit() {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        for second in 1..20 {
            put(&mut store, 3, 5, second * 100).unwrap();
            let frames = store.log.frames();
            put(&mut store, 40, 100, second * 100 + 50).unwrap();
            let crashed = bench.crash();
            let (db, end) = (&crashed.cfg.path, |frames: u64| 32 + frames as usize * 536);
            let mut bytes = std::fs::read(beside(db, "-wal")).unwrap();
            bytes[end(frames + 3)..].fill(0);
            std::fs::write(beside(db, "-wal"), &bytes).unwrap();
            let found = scan(db, None).unwrap();
            assert_eq!((found.live_behind, found.replayed, found.last_live), (0, frames, frames + 3), "{found:?}");
            mend(db, found).unwrap();
            let left = scan(db, None).unwrap();
            assert_eq!((left.last_live, left.replayed), (frames, frames), "second {second}");
        }
    }
}
