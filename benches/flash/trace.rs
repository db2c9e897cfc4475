//! Every request that reaches the block device, from the kernel's own trace, and whose block it is.
//!
//! An instance of the kernel's tracing directory records `block_rq_issue` and our marks in one order
//! (`Documentation/trace/ftrace.rst`); `filefrag` and `debugfs` say which blocks belong to which file.

use crate::Outcome;
use crate::medium::{Medium, tool};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a block of the file system.
pub(crate) const BLOCK: u64 = 4096;

const TRACING: &str = "/sys/kernel/tracing";
/// Kilobytes for each CPU: some 100 bytes an event.
const BUFFER_KB: u32 = 65_536;

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// What this program said.
    Mark(String),
    /// Blocks from this one on, so many, were written.
    Write(u64, u64),
    /// The device was told to flush.
    Flush,
}

/// A recording that is under way.
pub(crate) struct Trace {
    dir: PathBuf,
    /// Open as long as it records.
    marker: Option<File>,
    device: String,
}

impl Trace {
    /// Records what reaches `medium`.
    pub(crate) fn start(medium: &Medium) -> Outcome<Self> {
        let root = Path::new(TRACING);
        if !root.join("instances").exists() {
            // In our own mount namespace: it goes with this program.
            tool("mount", &["-t", "tracefs", "tracefs", TRACING])
                .map_err(|e| format!("--explain needs the kernel's block events (CONFIG_BLK_DEV_IO_TRACE): {e}"))?;
        }
        let dir = root.join(format!("instances/varved-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        // From here on, dropping it removes the instance.
        let open = |name: &str| File::options().write(true).open(dir.join(name));
        let mut trace = Self { marker: None, device: medium.device().replace(':', ","), dir: dir.clone() };
        trace.marker = Some(open("trace_marker")?);
        write!(open("buffer_size_kb")?, "{BUFFER_KB}")?;
        write!(open("events/block/block_rq_issue/enable")?, "1")?;
        Ok(trace)
    }

    /// Puts a word between the events.
    pub(crate) fn mark(&mut self, word: &str) -> Outcome<()> {
        Ok(self.marker.as_mut().map_or(Ok(()), |marker| marker.write_all(word.as_bytes()))?)
    }

    /// All that was recorded.
    pub(crate) fn finish(self) -> Outcome<Vec<Event>> {
        std::fs::write(self.dir.join("tracing_on"), "0")?;
        let text = std::fs::read_to_string(self.dir.join("trace"))?;
        let lost = text.lines().find(|l| l.contains("LOST") || l.contains("lost"));
        if let Some(lost) = lost {
            return Err(format!("the kernel dropped events ({}): measure fewer --cycles", lost.trim()).into());
        }
        Ok(text.lines().filter_map(|line| self.event(line)).collect())
    }

    /// `… tracing_mark_write: WORD` or `… block_rq_issue: 7,0 WS 4096 () 266240 + 8 …`, sectors of 512 bytes.
    fn event(&self, line: &str) -> Option<Event> {
        if let Some((_, word)) = line.split_once("tracing_mark_write: ") {
            return Some(Event::Mark(word.trim().to_owned()));
        }
        let (_, issued) = line.split_once("block_rq_issue: ")?;
        let words: Vec<&str> = issued.split_whitespace().collect();
        let (device, kind) = (words.first()?, words.get(1)?);
        if *device != self.device {
            return None;
        }
        if kind.starts_with("FF") {
            return Some(Event::Flush);
        }
        let plus = words.iter().position(|word| *word == "+")?;
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let (sector, sectors) = (number(plus - 1)?, number(plus + 1)?);
        kind.contains('W').then_some(Event::Write(sector * 512 / BLOCK, (sectors * 512).div_ceil(BLOCK)))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.marker.take());
        // Events must be off before the kernel lets go of an instance.
        let _ = std::fs::write(self.dir.join("events/block/block_rq_issue/enable"), "0");
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// ext4's own (ext4(5); include/linux/ext4.h, EXT4_JOURNAL_INO).
const JOURNAL_INODE: u64 = 8;

/// Which blocks of the device are whose.
pub(crate) struct Owners {
    /// By the first block: the block behind the last, the block's number in its owner, and the owner.
    extents: BTreeMap<u64, (u64, u64, String)>,
}

impl Owners {
    /// Looks at all files of `medium`, and at its journal.
    pub(crate) fn of(medium: &Medium) -> Outcome<Self> {
        // Asked of the device, not of the files: to open the store's index would be to visit it.
        let mut files = vec![(JOURNAL_INODE, "ext4 journal".to_owned())];
        for entry in std::fs::read_dir(medium.dir())? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            files.push((entry.metadata()?.ino(), entry.file_name().to_string_lossy().into_owned()));
        }
        let device = format!("/sys/dev/block/{}", medium.device());
        let device = std::fs::canonicalize(device)?;
        let device = format!("/dev/{}", device.file_name().unwrap_or_default().to_string_lossy());
        let mut extents = BTreeMap::new();
        for (inode, name) in files {
            let listed = tool("debugfs", &["-R", &format!("ex <{inode}>"), &device])?;
            for (logical, physical, blocks) in listed.lines().filter_map(debugfs_line) {
                extents.insert(physical, (physical + blocks, logical, name.clone()));
            }
        }
        Ok(Self { extents })
    }

    /// Whose block this is, and which of the owner's.
    pub(crate) fn find(&self, block: u64) -> (&str, u64) {
        match self.extents.range(..=block).next_back() {
            Some((first, (end, logical, name))) if block < *end => (name, logical + block - first),
            _ => ("ext4 metadata in place", block),
        }
    }
}

/// ` 0/ 0   1/  1     0 -  4095  65536 -  69631   4096 `
fn debugfs_line(line: &str) -> Option<(u64, u64, u64)> {
    let line = line.replace(['-', '/'], " ");
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    match numbers[..] {
        // Level, depth, entry, entries, then the extent; only leaves hold file blocks.
        [level, depth, _, _, logical, _, physical, _, blocks] if level == depth => Some((logical, physical, blocks)),
        _ => None,
    }
}
