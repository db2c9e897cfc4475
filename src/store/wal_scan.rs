//! A look at the `-wal` before SQLite replays it: is its end torn, or has it rotted in the middle?
//!
//! SQLite replays frames up to the first one that does not check, and calls that the database. After a power cut that is
//! right: what is behind is the transaction in flight. If a bit rotted in between, committed transactions are behind it,
//! and they vanish without a word. What enters: the path. What leaves: a [`WalScan`]. It promises to raise no alarm for
//! what one power cut can leave; it can't tell damage in the very last transaction from a torn end; nothing can.
//! It reads only, and repairs nothing.
//!
//! ```text
//! header 32 bytes: magic, version, page size, checkpoint no, salt 1, salt 2, checksum 1, checksum 2       (u32 BE)
//! frame: page no, size after commit or 0, salt 1, salt 2, checksum 1, checksum 2 (u32 BE), the page
//! ```
//! (sqlite.org/fileformat2.html §4.) Frames whose salt is that of the header are *live*. At most one transaction was in
//! flight, so at most one commit may lie behind the first bad frame; two are rot. A frame's size and its salt may lie in two
//! sectors, one of which did not arrive: then what was there before says whether it is a commit, unless it checks. With `psow=0` SQLite fills the block up
//! with copies of the commit frame, which are one commit together. A torn transaction that a shorter one overwrites leaves
//! live frames behind it, which a later scan would take for rot; therefore the room's `open` begins the log anew (another
//! salt) whenever frames were replayed or rot was found. A log that the database holds all of already can't lose anything either: it breaks
//! near its beginning when the power goes while it is begun anew.

use super::disk::PlainFile;
use super::error::StoreError;
use super::file::{FRAME_HEADER_BYTES, beside};
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

/// Bytes of the log before its first frame.
pub(super) const HEADER_BYTES: usize = 32;
const FRAME_HEADER: usize = FRAME_HEADER_BYTES as usize;

/// What a medium writes whole, at least.
const SECTOR_BYTES: u64 = 512;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalScan {
    /// Frames up to the last commit that SQLite will replay.
    pub replayed: u64,
    /// The first frame that does not check, counted from 1, where live ones are behind it.
    pub broken_at: Option<u64>,
    /// Frames of the same log at and behind the break.
    pub live_behind: u64,
    /// The last frame of the same log, before the break or behind it, counted from 1.
    pub last_live: u64,
    /// Commits at and behind the break.
    pub commits_behind: u64,
    /// The header itself is damaged although the frames are its own.
    pub header_rotten: bool,
    /// It breaks where only rot breaks one, and the database holds all of it: none of it may be replayed, for what is before
    /// the break is older than what the database has.
    pub folded: bool,
    /// Bytes per page, where there is a log.
    pub page_bytes: Option<u32>,
    /// Which log it is, where its header checks.
    pub log: Option<LogId>,
    /// How often it had begun anew, as its header says.
    pub begun_anew: u32,
}

/// Which log a `-wal` is: the first salt of its header. SQLite takes it by chance where it finds no log that it could go on
/// with, and adds 1 to it whenever the log begins anew (sqlite.org/walformat.html §5, `walRestartHdr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId(pub(super) u32);

impl LogId {
    /// More than a log begins anew between two marks, also where service after service was cut off before it could set one;
    /// one log in 32,768 is that near to another one by chance.
    const NEAR: u32 = 1 << 16;

    /// Whether one of both may have become the other by beginning anew.
    pub fn is_near(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).min(other.0.wrapping_sub(self.0)) <= Self::NEAR
    }

    /// Of the log of the database at `db`, where there is one with a header that checks.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file is there and can't be read.
    pub fn of(db: &Path) -> Result<Option<Self>, StoreError> {
        let Some(file) = PlainFile::open(&beside(db, "-wal"))? else { return Ok(None) };
        let mut bytes = [0; HEADER_BYTES];
        let header = file.read_at(&mut bytes, 0)?.then(|| Header::read(&bytes));
        Ok(header.filter(|header| header.valid).map(|header| Self(header.salt.0)))
    }
}

impl WalScan {
    /// Whether committed transactions are lost to damage.
    pub fn rot(&self) -> bool {
        self.header_rotten || self.commits_behind >= 2
    }

    /// Whether SQLite will go on with this log. Where it finds none, or a first one without a commit, it takes new salts by
    /// chance.
    pub fn is_gone_on_with(&self) -> bool {
        self.log.is_some() && (self.begun_anew > 0 || self.replayed > 0) && !self.rot() && !self.folded
    }
}

/// Scans the `-wal` of the database at `db`; `page_bytes` is the database's own, for a header that can't be read.
///
/// # Errors
/// [`StoreError::Io`] where the file is there and can't be read.
pub fn scan(db: &Path, page_bytes: Option<u32>) -> Result<WalScan, StoreError> {
    let path = beside(db, "-wal");
    let Some(file) = PlainFile::open(&path)? else { return Ok(WalScan::default()) };
    let mut input = BufReader::with_capacity(64 << 10, file.reader());
    let (mut found, newest) = walk(&mut input, page_bytes).map_err(|e| StoreError::io("read", &path, e))?;
    if found.rot() && newest.are_in(db, found.replayed == 0) {
        (found.commits_behind, found.header_rotten, found.folded) = (0, false, true);
    }
    Ok(found)
}

/// The newest content of each page by the commits of the log, behind a break too, so far as a frame checks.
#[derive(Default)]
struct Newest {
    page_bytes: usize,
    /// Page number to hash, and whether the frame is behind the break.
    committed: BTreeMap<u32, (u32, bool)>,
    open: Vec<(u32, (u32, bool))>,
    /// Frames at and behind the break that can't be read, up to the last live one: each may hold a newer page than the log
    /// seems to.
    unread: usize,
    /// The same since the last live one.
    dead: usize,
}

impl Newest {
    fn take(&mut self, page: u32, size: u32, hash: u32, behind: bool) {
        self.open.push((page, (hash, behind)));
        if size != 0 {
            self.committed.extend(self.open.drain(..));
            // What the commit cut off is in the database no more.
            drop(self.committed.split_off(&size.saturating_add(1)));
        }
    }

    /// Whether the database holds all of it: then the log had been folded, and its break costs nothing. A log that is
    /// begun anew breaks so when the power goes in its first block. Where nothing `leads` up to the break that would be
    /// replayed, a page from before it may have a newer version among the frames that can't be read.
    fn are_in(&self, db: &Path, leads: bool) -> bool {
        let Ok(Some(file)) = PlainFile::open(db) else { return false };
        let mut page = vec![0; self.page_bytes];
        let mut older = if leads { self.unread } else { 0 };
        let is_in = |(no, (hash, behind)): (&u32, &(u32, bool))| {
            let at = (u64::from(*no) - 1) * self.page_bytes as u64;
            let is = file.read_at(&mut page, at).is_ok_and(|all| all) && crc32fast::hash(&page) == *hash;
            let excused = !is && !behind && older > 0;
            older -= usize::from(excused);
            is || excused
        };
        !self.committed.is_empty() && self.committed.iter().all(is_in)
    }
}

fn walk(input: &mut impl Read, page_bytes: Option<u32>) -> std::io::Result<(WalScan, Newest)> {
    let mut bytes = [0; HEADER_BYTES];
    if !fill(input, &mut bytes)? || bytes == [0; HEADER_BYTES] {
        return Ok(Default::default());
    }
    let header = Header::read(&bytes);
    let sane = |n: &u32| n.is_power_of_two() && (512..=65_536).contains(n);
    let size = if header.valid { Some(header.page_bytes) } else { page_bytes.or(Some(header.page_bytes)) };
    let Some(size) = size.filter(sane) else { return Ok(Default::default()) };
    let mut frame = vec![0; FRAME_HEADER + size as usize];
    let mut walk = Walk::new(header);
    walk.found.page_bytes = Some(size);
    walk.newest.page_bytes = size as usize;
    walk.found.log = header.valid.then_some(LogId(header.salt.0));
    walk.found.begun_anew = header.begun_anew;
    while fill(input, &mut frame)? {
        if walk.seen == 0 && !header.valid {
            walk.header.salt = header.salt_by(&bytes, &frame);
        }
        walk.step(&frame);
    }
    Ok((walk.found, walk.newest))
}

/// Fills `buffer`; false where the input ends first.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

#[derive(Clone, Copy)]
struct Header {
    valid: bool,
    page_bytes: u32,
    begun_anew: u32,
    salt: (u32, u32),
    sum: Sum,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let magic = u32_at(bytes, 0);
        let sum = Sum { big_endian: magic & 1 == 1, a: 0, b: 0 }.over(&bytes[..24]);
        let valid = magic | 1 == 0x377f_0683 && u32_at(bytes, 4) == 3_007_000 && sum.is(bytes, 24);
        let salt = (u32_at(bytes, 16), u32_at(bytes, 20));
        Self { valid, page_bytes: u32_at(bytes, 8), begun_anew: u32_at(bytes, 12), salt, sum }
    }

    /// Its salt, where it may be the salt that rotted: with that of the first frame in its place the header then checks. A header
    /// that was torn does so once in 2⁶⁴.
    fn salt_by(&self, bytes: &[u8; HEADER_BYTES], frame: &[u8]) -> (u32, u32) {
        let mut mended = *bytes;
        mended[16..24].copy_from_slice(&frame[8..16]);
        let mended = Self::read(&mended);
        if mended.valid { mended.salt } else { self.salt }
    }
}

/// The running checksum of the log (§4.2).
#[derive(Clone, Copy)]
struct Sum {
    big_endian: bool,
    a: u32,
    b: u32,
}

impl Sum {
    fn over(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let word = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
            };
            self.a = self.a.wrapping_add(word(0)).wrapping_add(self.b);
            self.b = self.b.wrapping_add(word(4)).wrapping_add(self.a);
        }
        self
    }

    fn is(&self, bytes: &[u8], at: usize) -> bool {
        self.a == u32_at(bytes, at) && self.b == u32_at(bytes, at + 4)
    }
}

/// A frame as it lies in the log.
pub(super) struct Frame<'a>(pub(super) &'a [u8]);

impl Frame<'_> {
    /// The frame that SQLite writes behind this one when it pads: the same page and size, with the checksum going on.
    pub(super) fn copy_behind(&self, big_endian: bool) -> Vec<u8> {
        let mut copy = self.0.to_vec();
        let sum = Sum { big_endian, a: u32_at(&copy, 16), b: u32_at(&copy, 20) };
        let sum = sum.over(&copy[..8]).over(&copy[FRAME_HEADER..]);
        copy[16..20].copy_from_slice(&sum.a.to_be_bytes());
        copy[20..24].copy_from_slice(&sum.b.to_be_bytes());
        copy
    }

    /// Whether `next` goes on from it: of the same log, with the checksum that follows from its own.
    pub(super) fn is_before(&self, next: &Frame<'_>, big_endian: bool) -> bool {
        let sum = Sum { big_endian, a: u32_at(self.0, 16), b: u32_at(self.0, 20) };
        let sum = sum.over(&next.0[..8]).over(&next.0[FRAME_HEADER..]);
        self.0[8..16] == next.0[8..16] && sum.is(next.0, 16)
    }
}

/// A commit frame: its page, the size it left, and a hash of the page where the frame can be trusted.
#[derive(Clone, Copy)]
struct Commit {
    page: u32,
    size: u32,
    hash: Option<u32>,
}

impl Commit {
    /// Whether `other` may be a copy of it that fills the block. A damaged copy is taken for one.
    fn same(&self, other: &Self) -> bool {
        let hashes = self.hash.zip(other.hash);
        self.page == other.page && self.size == other.size && hashes.is_none_or(|(a, b)| a == b)
    }
}

struct Walk {
    header: Header,
    /// Of everything so far, or since the break of what the last frame says of itself; `None` where that is unknown.
    sum: Option<Sum>,
    seen: u64,
    last: Option<Commit>,
    found: WalScan,
    newest: Newest,
}

impl Walk {
    fn new(header: Header) -> Self {
        let (found, newest) = Default::default();
        Self { header, sum: header.valid.then_some(header.sum), seen: 0, last: None, found, newest }
    }

    fn step(&mut self, frame: &[u8]) {
        self.seen += 1;
        let live = (u32_at(frame, 8), u32_at(frame, 12)) == self.header.salt;
        let sum = self.sum.map(|sum| sum.over(&frame[..8]).over(&frame[FRAME_HEADER..]));
        let checks = live && u32_at(frame, 0) != 0 && sum.is_some_and(|sum| sum.is(frame, 16));
        let size = u32_at(frame, 4);
        let hash = checks.then(|| crc32fast::hash(&frame[FRAME_HEADER..]));
        let whole = self.header.valid && self.found.broken_at.is_none() && checks;
        match hash {
            Some(hash) => self.newest.take(u32_at(frame, 0), size, hash, !whole),
            None => self.newest.dead += 1,
        }
        if live {
            self.newest.unread += std::mem::take(&mut self.newest.dead);
            self.found.last_live = self.seen;
        }
        let commit = (size != 0).then_some(Commit { page: u32_at(frame, 0), size, hash });
        if whole {
            self.sum = sum;
            self.last = commit;
            if commit.is_some() {
                self.found.replayed = self.seen;
            }
            return;
        }
        // Half of a header is no word on whether it is a commit, or a copy of one.
        let known = checks || !self.is_split(frame.len());
        self.behind(live, checks, known, commit);
        let stored = Sum { big_endian: self.header.sum.big_endian, a: u32_at(frame, 16), b: u32_at(frame, 20) };
        self.sum = live.then_some(stored);
    }

    /// Whether the size and the salt of this frame, of `bytes` in all, lie in two sectors.
    fn is_split(&self, bytes: usize) -> bool {
        let at = HEADER_BYTES as u64 + (self.seen - 1) * bytes as u64;
        (at + 4) / SECTOR_BYTES != (at + 15) / SECTOR_BYTES
    }

    /// A frame at or behind the break.
    fn behind(&mut self, live: bool, checks: bool, known: bool, commit: Option<Commit>) {
        if !self.header.valid {
            // Frames without a commit are a transaction that was torn, and so is the header that was written before them again.
            self.found.header_rotten |= checks && commit.is_some();
            return;
        }
        self.found.broken_at = self.found.broken_at.or(Some(self.seen));
        if !live {
            return;
        }
        self.found.live_behind += 1;
        if !known {
            return;
        }
        match (commit, self.last) {
            (Some(commit), Some(last)) if last.same(&commit) => {
                self.last = Some(Commit { hash: last.hash.or(commit.hash), ..commit });
            }
            (Some(commit), _) => {
                self.found.commits_behind += 1;
                self.last = Some(commit);
            }
            (None, _) => self.last = None,
        }
    }
}

#[cfg(test)]
mod tests;
