//! The medium under the store: which one it is, what has been written to it, how worn it says it is.
//!
//! What enters: the directory that stands for `/`, and where the store is. What leaves: a [`Sight`] at each call, of
//! small files in sysfs and procfs. What it promises: what can't be read is none, never zero, and [`Source`] says what
//! is counted instead. What it does not do: add anything up; counters begin anew at each boot, and [`crate::wear`]
//! deals with that.
//!
//! A partition is counted with its whole disk, since that is what wears; so is what lies under a device mapper that has
//! one disk under it.

use super::ground;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a sector of a `stat` file, whatever the device's own are (Linux `Documentation/block/stat.rst`).
pub const SECTOR_BYTES: u64 = 512;

/// "write sectors" is the seventh value (the same page), also of a partition
/// (`Documentation/ABI/stable/sysfs-block`).
const SECTORS_WRITTEN: usize = 6;

/// Device mappers upon each other that are looked through.
const MAX_DEPTH: usize = 8;

/// Where a medium's own name for itself may be: the CID of a card (Linux
/// `Documentation/driver-api/mmc/mmc-dev-attrs.rst`), the WWID or serial number of a disk
/// (`Documentation/ABI/stable/sysfs-block`, `.../testing/sysfs-nvme`).
const NAMES: [&str; 5] = ["device/cid", "wwid", "device/wwid", "device/serial", "serial"];

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// What the block device took, from whatever program.
    Device,
    /// What this process caused to be written: nothing is known of other programs, nor of what the file system adds.
    Process,
    /// Nothing: it is put at what a commit usually takes.
    Estimate,
}

/// The medium under one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    disk: Option<PathBuf>,
    io: PathBuf,
    /// What is counted.
    pub source: Source,
    /// `mmcblk0`; where there is no block device, the numbers of what there is.
    pub name: String,
    /// Its own name for itself, by which it is known again; none where it has none.
    pub identity: Option<String>,
}

/// Counters at one moment, each none where it can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sight {
    /// Sectors of [`SECTOR_BYTES`] that the disk was given to write since boot, or since it was plugged in.
    pub sectors: Option<u64>,
    /// Bytes that this process caused to be written since it began (`proc_pid_io(5)`, `write_bytes`).
    pub own_bytes: Option<u64>,
    /// What an eMMC says of itself.
    pub life: Option<Life>,
}

/// How worn an eMMC says it is: JESD84-B51 §7.4, EXT_CSD bytes 267 to 269, which Linux shows as `pre_eol_info` and
/// `life_time` from eMMC 5.0 on (`drivers/mmc/core/mmc.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The worse of DEVICE_LIFE_TIME_EST_TYP_A (268) and _B (269): 1 for 0–10 % used, 2 for 10–20 %, … 10 for 90–100 %,
    /// 11 for more than that.
    pub level: u8,
    /// PRE_EOL_INFO (267), of the reserved blocks: 1 normal, 2 warning (80 % used), 3 urgent; 0 where it isn't said.
    pub pre_eol: u8,
}

impl Medium {
    /// That of the store at `db`, as seen below `root`, which is `/` in service.
    pub fn find(root: &Path, db: &Path) -> Self {
        let device = std::fs::metadata(ground::directory(db)).map(|dir| dir.dev());
        let numbers = device.map(|dev| format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev)));
        let numbers = numbers.unwrap_or_default();
        let disk = disk(&root.join("sys/dev/block").join(&numbers)).filter(|disk| sectors(disk).is_some());
        let io = root.join("proc/self/io");
        let source = match &disk {
            Some(_) => Source::Device,
            None if own_bytes(&io).is_some() => Source::Process,
            None => Source::Estimate,
        };
        let name = disk.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let own_name = |disk: &PathBuf| {
            NAMES.iter().find_map(|name| word(&disk.join(name)).map(|value| format!("{name} {value}")))
        };
        Self { identity: disk.as_ref().and_then(own_name), name: name.unwrap_or(numbers), disk, io, source }
    }

    /// One that is nowhere, for tests of what is made of the counters.
    #[cfg(test)]
    pub(crate) fn made_up(source: Source) -> Self {
        Self { disk: None, io: PathBuf::new(), source, name: "mmcblk9".to_owned(), identity: None }
    }

    /// Its counters now.
    pub fn sight(&self) -> Sight {
        Sight {
            sectors: self.disk.as_deref().and_then(sectors),
            own_bytes: own_bytes(&self.io),
            life: self.disk.as_deref().and_then(life),
        }
    }
}

impl fmt::Display for Medium {
    /// What is counted, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Device => write!(f, "all that the block device {} takes", self.name),
            Source::Process => write!(
                f,
                "varved's own writes only: the file system of the store ({}) shows no block device, as overlay, tmpfs, UBIFS \
                 and btrfs don't",
                self.name
            ),
            Source::Estimate => write!(
                f,
                "an estimate from the commits: the file system of the store ({}) shows no block device, and the kernel keeps \
                 no account of a process's writes (CONFIG_TASK_IO_ACCOUNTING)",
                self.name
            ),
        }
    }
}

/// The whole disk of the block device at `link`, in sysfs.
fn disk(link: &Path) -> Option<PathBuf> {
    let mut at = link.canonicalize().ok()?;
    for _ in 0..MAX_DEPTH {
        if at.join("partition").exists() {
            at = at.parent()?.to_owned();
        }
        let mut under = std::fs::read_dir(at.join("slaves")).into_iter().flatten().flatten();
        match (under.next(), under.next()) {
            (Some(one), None) => at = one.path().canonicalize().ok()?,
            _ => return Some(at),
        }
    }
    None
}

fn sectors(disk: &Path) -> Option<u64> {
    word(&disk.join("stat"))?.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()
}

fn own_bytes(io: &Path) -> Option<u64> {
    let text = word(io)?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

/// An eMMC that knows nothing of its wear says 0, which the standard leaves undefined.
fn life(disk: &Path) -> Option<Life> {
    let estimates = word(&disk.join("device/life_time"))?;
    let level = estimates.split_whitespace().map(hex).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    let pre_eol = word(&disk.join("device/pre_eol_info")).as_deref().and_then(hex).unwrap_or(0);
    (1..=11).contains(&level).then_some(Life { level, pre_eol })
}

fn hex(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// What a small file says; none where it is not there or says nothing.
fn word(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of files in a folder, and in it the place of the device under that folder.
    struct Board {
        dir: tempfile::TempDir,
        link: PathBuf,
    }

    impl Board {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let dev = std::fs::metadata(dir.path()).unwrap().dev();
            let numbers = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
            let link = dir.path().join("sys/dev/block").join(numbers);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            Self { dir, link }
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn stat(&self, place: &str, sectors: u64) {
            self.put(&format!("{place}/stat"), &format!("  3288  0  94720  1296  195014  18317 {sectors} 115 0 1 2\n"));
        }

        fn lies_on(&self, place: &str) {
            std::os::unix::fs::symlink(self.dir.path().join(place), &self.link).unwrap();
        }

        fn medium(&self) -> Medium {
            Medium::find(self.dir.path(), &self.dir.path().join("v.db"))
        }
    }

    /// A partition wears its whole disk; the disk's names and its wear are read beside its counter.
    #[test]
    fn a_partition_is_counted_with_its_disk() {
        let board = Board::new();
        let disk = "sys/devices/soc/mmc0/block/mmcblk0";
        board.stat(disk, 1000);
        board.stat(&format!("{disk}/mmcblk0p2"), 10);
        board.put(&format!("{disk}/mmcblk0p2/partition"), "2\n");
        board.put(&format!("{disk}/device/cid"), "15010038474e4434\n");
        board.put(&format!("{disk}/device/life_time"), "0x02 0x05\n");
        board.put(&format!("{disk}/device/pre_eol_info"), "0x01\n");
        board.put("proc/self/io", "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n");
        board.lies_on(&format!("{disk}/mmcblk0p2"));
        let medium = board.medium();
        assert_eq!((medium.source, medium.name.as_str()), (Source::Device, "mmcblk0"));
        assert_eq!(medium.identity.as_deref(), Some("device/cid 15010038474e4434"));
        let life = Some(Life { level: 5, pre_eol: 1 });
        assert_eq!(medium.sight(), Sight { sectors: Some(1000), own_bytes: Some(4096), life });
    }

    /// What lies under an encrypted volume is what wears.
    #[test]
    fn a_device_mapper_is_looked_through() {
        let board = Board::new();
        board.stat("sys/block/mmcblk0", 7);
        board.stat("sys/block/dm-0", 5);
        std::fs::create_dir_all(board.dir.path().join("sys/block/dm-0/slaves")).unwrap();
        let under = board.dir.path().join("sys/block/dm-0/slaves/mmcblk0");
        std::os::unix::fs::symlink(board.dir.path().join("sys/block/mmcblk0"), under).unwrap();
        board.lies_on("sys/block/dm-0");
        let medium = board.medium();
        assert_eq!((medium.name.as_str(), medium.sight().sectors), ("mmcblk0", Some(7)));
    }

    /// Without a block device the process is counted, without that nothing is, and it is said which; a counter that
    /// can't be read is none, not zero.
    #[test]
    fn what_is_not_known_is_said() {
        let board = Board::new();
        let medium = board.medium();
        assert_eq!((medium.source, medium.sight()), (Source::Estimate, Sight::default()));
        assert!(medium.to_string().contains("CONFIG_TASK_IO_ACCOUNTING"));
        board.put("proc/self/io", "write_bytes: 12\n");
        let medium = board.medium();
        assert_eq!((medium.source, medium.sight().own_bytes), (Source::Process, Some(12)));
        assert!(medium.to_string().contains("overlay"), "{medium}");
        board.put("sys/block/vda/stat", "1 2 3 4 5 6 what");
        board.lies_on("sys/block/vda");
        assert_eq!(board.medium().source, Source::Process);
        board.stat("sys/block/vda", 9);
        for odd in ["0x00 0x00", "what", "0x0c 0x01", "1 2"] {
            board.put("sys/block/vda/device/life_time", odd);
            assert_eq!(board.medium().sight(), Sight { sectors: Some(9), own_bytes: Some(12), life: None }, "{odd}");
        }
    }
}
