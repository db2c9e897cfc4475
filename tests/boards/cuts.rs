//! The power is cut at every flush and every mark of a disk's write log.
//!
//! What enters: the disk as it was, and the log of QEMU's `blklogwrites`, which has every write and flush in order (the format of
//! the kernel's `Documentation/admin-guide/device-mapper/log-writes.rst`). The power goes before a flush is done, or right behind a
//! mark: what earlier flushes have covered is there, and of what was written since all, nothing, or some in any choice of sectors.
//! Each such disk is mounted by the kernel, looked at, and checked by e2fsck.

use crate::board::{MARK_SECTOR, path, run};
use crate::support::Dice;
use std::path::Path;

const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// A write, or a flush of all before it.
enum Entry {
    Write { at: usize, bytes: Vec<u8> },
    Flush,
}

/// The log, as far as its own head counts; behind that it may be torn.
fn read(log: &Path) -> Vec<Entry> {
    let log = std::fs::read(log).unwrap();
    let word = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().unwrap());
    assert_eq!((word(0), word(8)), (MAGIC, 1), "not a write log");
    let (mut entries, mut at) = (Vec::new(), SECTOR);
    for _ in 0..word(16) {
        let (sector, sectors, flags) = (word(at) as usize, word(at + 8) as usize, word(at + 16));
        at += SECTOR;
        if flags & DISCARD == 0 && sectors > 0 {
            let bytes = log[at..at + sectors * SECTOR].to_vec();
            at += bytes.len();
            entries.push(Entry::Write { at: sector * SECTOR, bytes });
        }
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
    }
    entries
}

/// What was found.
#[derive(Default)]
pub struct Figures {
    /// Flushes and marks at which the power was cut.
    pub cuts: u64,
    pub images: u64,
    /// The newest round that was marked.
    pub marked: Option<u64>,
    pub bad: Vec<String>,
}

/// Cuts the power `per_cut` times at each. `look` is given the mounted disk, and the newest round that had been
/// marked when the power went.
pub fn everywhere(
    disk: &Path,
    log: &Path,
    per_cut: usize,
    dice: &mut Dice,
    mut look: impl FnMut(&Path, Option<u64>) -> Result<(), String>,
) -> Figures {
    let ram = tempfile::tempdir_in("/dev/shm").unwrap();
    let (image, mount) = (ram.path().join("disk"), ram.path().join("mounted"));
    std::fs::create_dir(&mount).unwrap();
    let mut settled = std::fs::read(disk).unwrap();
    let (mut figures, mut waiting): (Figures, Vec<(usize, Vec<u8>)>) = Default::default();
    for entry in read(log) {
        let flush = match entry {
            Entry::Write { at, bytes } => {
                let is_mark = at == MARK_SECTOR as usize * SECTOR;
                if is_mark {
                    figures.marked = Some(mark(&bytes));
                }
                waiting.push((at, bytes));
                if !is_mark {
                    continue;
                }
                false
            }
            Entry::Flush => true,
        };
        figures.cuts += 1;
        // With nothing to choose from there is no second.
        let choices = if waiting.is_empty() { 1 } else { per_cut };
        for n in 0..choices {
            figures.images += 1;
            let mut cut = settled.clone();
            for (at, bytes) in &waiting {
                for (n_sector, sector) in bytes.chunks(SECTOR).enumerate() {
                    if n == 0 || n > 1 && dice.roll(2) == 1 {
                        let at = at + n_sector * SECTOR;
                        cut[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            std::fs::write(&image, &cut).unwrap();
            if let Err(why) = look_at(&image, &mount, figures.marked, &mut look) {
                figures.bad.push(format!("cut {}, choice {n}: {why}", figures.cuts));
                if figures.bad.len() >= 5 {
                    return figures;
                }
            }
        }
        if flush {
            for (at, bytes) in waiting.drain(..) {
                settled[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }
    figures
}

/// `mark 17`.
fn mark(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    text.strip_prefix("mark ").and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a mark")
}

fn look_at(
    image: &Path,
    mount: &Path,
    marked: Option<u64>,
    look: &mut impl FnMut(&Path, Option<u64>) -> Result<(), String>,
) -> Result<(), String> {
    run("mount", &["-t", "ext4", "-o", "loop,noatime", &path(image), &path(mount)]);
    let found = look(mount, marked);
    run("umount", &[&path(mount)]);
    // The kernel has replayed the journal; nothing may be left to mend.
    run("e2fsck", &["-f", "-n", &path(image)]);
    found
}
