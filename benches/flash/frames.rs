//! Which pages a commit put into the write-ahead log (sqlite.org/fileformat2.html §4).

use crate::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// Follows a log, commit by commit.
pub(crate) struct Frames {
    wal: File,
    round: u32,
    at: u64,
    page_bytes: u64,
    /// Pages of this round of the log, and of the one before.
    pages: [BTreeSet<u32>; 2],
    /// How often a commit had these pages.
    pub(crate) commits: BTreeMap<String, u64>,
    /// Frames of each kind of page.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
}

impl Frames {
    /// Follows from where the log is now.
    pub(crate) fn follow(wal: &Path) -> Outcome<Self> {
        let wal = File::open(wal)?;
        let (page_bytes, pages) = (0, Default::default());
        let mut frames =
            Self { wal, round: 0, at: 0, page_bytes, pages, commits: BTreeMap::new(), kinds: BTreeMap::new() };
        frames.next()?;
        frames.commits.clear();
        frames.kinds.clear();
        Ok(frames)
    }

    /// Takes in what was appended since the last call.
    pub(crate) fn next(&mut self) -> Outcome<()> {
        let mut header = [0; HEADER_BYTES as usize];
        self.wal.read_exact_at(&mut header, 0)?;
        let (page_bytes, round) = (u64::from(be32(&header, 8)), be32(&header, 12));
        if round != self.round {
            (self.round, self.at) = (round, 0);
            self.pages.swap(0, 1);
            self.pages[0].clear();
        }
        if self.page_bytes != page_bytes {
            self.page_bytes = page_bytes;
        }
        let salts = &header[16..24];
        let mut pages: Vec<&'static str> = Vec::new();
        let mut last = 0;
        loop {
            let mut frame = vec![0; (FRAME_HEADER_BYTES + page_bytes) as usize];
            let offset = HEADER_BYTES + self.at * frame.len() as u64;
            if self.wal.read_exact_at(&mut frame, offset).is_err() || frame[8..16] != *salts {
                break;
            }
            self.at += 1;
            self.pages[0].insert(be32(&frame, 0));
            let (number, committed) = (be32(&frame, 0), be32(&frame, 4) != 0);
            let again = committed && number == last;
            pages.push(if again { "padding" } else { kind(number, page_bytes, &frame[FRAME_HEADER_BYTES as usize..]) });
            last = if committed { number } else { 0 };
        }
        pages.iter().for_each(|page| *self.kinds.entry(page).or_default() += 1);
        *self.commits.entry(pages.join(" + ")).or_default() += 1;
        Ok(())
    }

    /// What the checkpoint of the last whole round had to write: pages, blocks of 4 KiB that they lie in, and pages of
    /// those blocks that were not in the log.
    pub(crate) fn checkpoint(&self) -> (usize, usize, usize) {
        let in_block = (4096 / self.page_bytes.max(1)).max(1) as u32;
        let pages = if self.pages[1].is_empty() { &self.pages[0] } else { &self.pages[1] };
        let blocks: BTreeSet<u32> = pages.iter().map(|page| (page - 1) / in_block).collect();
        let last = pages.last().copied().unwrap_or(0);
        let neighbours = blocks.iter().flat_map(|block| block * in_block + 1..=(block + 1) * in_block);
        (pages.len(), blocks.len(), neighbours.filter(|page| *page <= last && !pages.contains(page)).count())
    }
}

/// What a page is: by its number, or by its first byte (same document, §1.6 to §1.8).
fn kind(number: u32, page_bytes: u64, page: &[u8]) -> &'static str {
    let between_maps = page_bytes / 5 + 1;
    if number == 1 {
        return "page 1";
    }
    if (u64::from(number) - 2) % between_maps == 0 {
        return "pointer map";
    }
    match page.first() {
        Some(0x0d) => "leaf",
        Some(0x05) => "inner",
        Some(0x0a | 0x02) => "index",
        _ => "overflow",
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}
