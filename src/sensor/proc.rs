//! `/proc`: what any Linux machine can say about itself.
//!
//! Source: Linux `Documentation/filesystems/proc.rst` and `Documentation/admin-guide/iostats.rst`. Everything is an integer
//! as the kernel prints it, with the scale that makes it a unit:
//!
//! | group | file | series |
//! |---|---|---|
//! | cpu | `/proc/stat` | `cpu/user,cpu=total`… seconds since boot, USER_HZ ticks of 10 ms; `kernel/interrupts`, `kernel/context_switches`, `kernel/forks`, `kernel/running`, `kernel/blocked` |
//! | memory | `/proc/meminfo` | `memory/MemAvailable`… bytes, printed in KiB |
//! | disk | `/proc/diskstats` | `disk/read_bytes,disk=mmcblk0`… whole disks with a device behind them; sectors of 512 bytes whatever the disk's |
//! | load | `/proc/loadavg` | `load/1min`… |
//! | network | `/proc/net/dev` | `network/rx_bytes,interface=eth0`… all but `lo` |
//!
//! Counters are given raw; differences are the reader's business. Not read: processes one by one, partitions.

use super::poll::{Driver, Heard};
use super::sysfs::{self, Decimal};
use crate::config::ProcGroup;
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most that is read of one file; `/proc/stat` of a big machine has some tens of KiB.
const MAX_BYTES: u64 = 256 * 1024;

/// USER_HZ is 100 on every architecture that varved runs on (`include/asm-generic/param.h`).
const TICK: Scale = Scale { mantissa: 1, exponent: -2 };
const KIB: Scale = Scale { mantissa: 1024, exponent: 0 };
const SECTOR: Scale = Scale { mantissa: 512, exponent: 0 };

const CPU: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

const KERNEL: [(&str, &str); 5] = [
    ("intr", "interrupts"),
    ("ctxt", "context_switches"),
    ("processes", "forks"),
    ("procs_running", "running"),
    ("procs_blocked", "blocked"),
];

const MEMORY: [&str; 14] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapTotal",
    "SwapFree",
    "Dirty",
    "Writeback",
    "AnonPages",
    "Mapped",
    "Shmem",
    "Slab",
    "SReclaimable",
];

/// Column after the device's name, name, unit, scale.
const DISK: [(usize, &str, &str, Scale); 7] = [
    (0, "reads", "count", Scale::ONE),
    (2, "read_bytes", "B", SECTOR),
    (4, "writes", "count", Scale::ONE),
    (6, "written_bytes", "B", SECTOR),
    (9, "busy", "s", Scale::MILLI),
    (11, "discards", "count", Scale::ONE),
    (15, "flushes", "count", Scale::ONE),
];

/// Column after the colon, name, unit.
const NETWORK: [(usize, &str, &str); 8] = [
    (0, "rx_bytes", "B"),
    (1, "rx_packets", "count"),
    (2, "rx_errors", "count"),
    (3, "rx_dropped", "count"),
    (8, "tx_bytes", "B"),
    (9, "tx_packets", "count"),
    (10, "tx_errors", "count"),
    (11, "tx_dropped", "count"),
];

/// One number that a group found.
struct Found<'a> {
    measurement: &'a str,
    field: &'a str,
    tag: Option<(&'a str, &'a str)>,
    unit: &'a str,
    scale: Scale,
    text: &'a str,
}

/// Finds the numbers in the text of a group's file; the path is the root.
type Visit = fn(&Path, &str, &mut dyn FnMut(&Found<'_>));

/// The chosen groups of `/proc`.
#[derive(Debug)]
pub(super) struct Proc {
    root: PathBuf,
    groups: Vec<ProcGroup>,
    /// Which series the latest discovery found, in their order; another value means another list.
    fingerprint: u64,
    /// Kept for its memory.
    text: String,
}

impl Proc {
    pub(super) fn new(root: &Path, groups: &[ProcGroup]) -> Self {
        Self { root: root.to_owned(), groups: groups.to_vec(), fingerprint: 0, text: String::new() }
    }

    /// Hands every number of every group to `each`; the same code finds the series and reads them.
    fn visit(&mut self, mut each: impl FnMut(&Found<'_>)) {
        let mut text = std::mem::take(&mut self.text);
        for group in &self.groups {
            let (file, visit): (_, Visit) = match group {
                ProcGroup::Cpu => ("proc/stat", cpu),
                ProcGroup::Memory => ("proc/meminfo", memory),
                ProcGroup::Disk => ("proc/diskstats", disk),
                ProcGroup::Load => ("proc/loadavg", load),
                ProcGroup::Network => ("proc/net/dev", network),
            };
            text.clear();
            let opened = File::open(self.root.join(file));
            // A file that can't be read finds nothing; its series then are no longer there, and say so.
            if opened.and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)).is_ok() {
                visit(&self.root, &text, &mut each);
            }
        }
        self.text = text;
    }
}

impl Driver for Proc {
    fn discover(&mut self) -> Vec<SeriesDef> {
        let (mut defs, mut hash) = (Vec::new(), DefaultHasher::new());
        self.visit(|found| {
            if let Some(def) = found.def() {
                found.identity(&mut hash);
                defs.push(def);
            }
        });
        self.fingerprint = hash.finish();
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        let mut hash = DefaultHasher::new();
        self.visit(|found| {
            // Names of interfaces and disks hold nothing that a name can't; were it so, `def` would leave it out above.
            if found.is_nameable() {
                found.identity(&mut hash);
                values.push(found.value());
            }
        });
        if hash.finish() == self.fingerprint { Heard::AsKnown } else { Heard::Changed }
    }
}

impl Found<'_> {
    fn def(&self) -> Option<SeriesDef> {
        let tags = self.tag.as_ref().map_or([].as_slice(), std::slice::from_ref);
        sysfs::series(self.measurement, self.field, tags, self.unit, Kind::Int, self.scale)
    }

    fn is_nameable(&self) -> bool {
        self.tag.is_none_or(|(_, value)| value.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'))
            || self.def().is_some()
    }

    fn identity(&self, hash: &mut DefaultHasher) {
        (self.measurement, self.field, self.tag).hash(hash);
    }

    fn value(&self) -> Value {
        // Load is printed with two decimals, all else without any; the scale says which.
        let decimals = if self.measurement == "load" { 2 } else { 0 };
        let number = Decimal::parse(self.text).and_then(|number| number.at(decimals));
        number.map_or(Value::None(NoValue::Unreadable), Value::Int)
    }
}

fn cpu(_: &Path, text: &str, each: &mut dyn FnMut(&Found<'_>)) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(cpu) = first.strip_prefix("cpu") {
            let tag = Some(("cpu", if cpu.is_empty() { "total" } else { cpu }));
            for (field, text) in CPU.iter().zip(words) {
                each(&Found { measurement: "cpu", field, tag, unit: "s", scale: TICK, text });
            }
        } else if let (Some((_, field)), Some(text)) = (KERNEL.iter().find(|(word, _)| *word == first), words.next()) {
            each(&Found { measurement: "kernel", field, tag: None, unit: "count", scale: Scale::ONE, text });
        }
    }
}

fn memory(_: &Path, text: &str, each: &mut dyn FnMut(&Found<'_>)) {
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let Some(text) = rest.trim().strip_suffix(" kB").filter(|_| MEMORY.contains(&name)) else { continue };
        each(&Found { measurement: "memory", field: name, tag: None, unit: "B", scale: KIB, text });
    }
}

fn disk(root: &Path, text: &str, each: &mut dyn FnMut(&Found<'_>)) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(name) = words.next().filter(|name| is_real_disk(root, name)) else { continue };
        let columns: Vec<_> = words.collect();
        for (column, field, unit, scale) in DISK {
            // Kernels before 5.5 have no column for flushes, before 4.18 none for discards.
            let Some(text) = columns.get(column) else { continue };
            each(&Found { measurement: "disk", field, tag: Some(("disk", name)), unit, scale, text });
        }
    }
}

/// A disk with a device behind it: not a partition, loop, RAM disk, or a mapping of other disks.
fn is_real_disk(root: &Path, name: &str) -> bool {
    // In /sys a slash of a device's name is an exclamation mark.
    root.join("sys/block").join(name.replace('/', "!")).join("device").exists()
}

fn load(_: &Path, text: &str, each: &mut dyn FnMut(&Found<'_>)) {
    for (field, text) in ["1min", "5min", "15min"].into_iter().zip(text.split_ascii_whitespace()) {
        each(&Found { measurement: "load", field, tag: None, unit: "", scale: TICK, text });
    }
}

fn network(_: &Path, text: &str, each: &mut dyn FnMut(&Found<'_>)) {
    for line in text.lines() {
        let Some((name, rest)) = line.rsplit_once(':') else { continue };
        let name = name.trim();
        let columns: Vec<_> = rest.split_ascii_whitespace().collect();
        if name == "lo" {
            continue;
        }
        for (column, field, unit) in NETWORK {
            let Some(text) = columns.get(column) else { continue };
            each(&Found {
                measurement: "network",
                field,
                tag: Some(("interface", name)),
                unit,
                scale: Scale::ONE,
                text,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::polled;
    use super::super::sysfs::fake::tree;
    use super::*;

    const ALL: [ProcGroup; 5] =
        [ProcGroup::Cpu, ProcGroup::Memory, ProcGroup::Disk, ProcGroup::Load, ProcGroup::Network];

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let files = [
            ("proc/stat", "cpu  10 0 5 99 1 0 2 3 0 0\ncpu0 10 0 5 99 1 0 2 3 0 0\nintr 77 1 2\nctxt 88\nbtime 5\n"),
            ("proc/meminfo", "MemTotal:       1000 kB\nHugePages_Total:       0\nMemAvailable:    250 kB\n"),
            (
                "proc/diskstats",
                " 179 0 mmcblk0 7 1 80 4 5 6 90 8 0 120 9 0 0 0 0 3 1\n 179 1 mmcblk0p1 1 1 1 1 1 1 1 1 0 1 1\n 7 0 loop0 1 0 0 0 0 0 0 0 0 0 0\n",
            ),
            ("sys/block/mmcblk0/device/type", "SD"),
            ("sys/block/loop0/size", "0"),
            ("proc/loadavg", "0.05 1.48 12.00 3/101 11093\n"),
            (
                "proc/net/dev",
                "Inter-|   Receive |  Transmit\n face |bytes    packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:9 2 3 4 0 0 0 0 18446744073709551615 6 7 8 0 0 0 0\n",
            ),
        ];
        tree(root.path(), &files);
        root
    }

    fn shown(driver: &mut Proc) -> Vec<String> {
        let show = |(def, value): (SeriesDef, Value)| match value {
            Value::Int(raw) => format!("{} {} {}", def.name, def.scale.apply(raw), def.unit),
            other => format!("{} {other:?}", def.name),
        };
        polled(driver).into_iter().map(show).collect()
    }

    /// Every group, with units; partitions, loops and `lo` are left out; a counter that does not fit says so.
    #[test]
    fn each_group_is_read_with_its_units() {
        let root = machine();
        let seen = shown(&mut Proc::new(root.path(), &ALL));
        for line in [
            "cpu/user,cpu=total 0.1 s",
            "cpu/idle,cpu=0 0.99 s",
            "kernel/interrupts 77 count",
            "kernel/context_switches 88 count",
            "memory/MemAvailable 256000 B",
            "disk/read_bytes,disk=mmcblk0 40960 B",
            "disk/written_bytes,disk=mmcblk0 46080 B",
            "disk/busy,disk=mmcblk0 0.12 s",
            "disk/flushes,disk=mmcblk0 3 count",
            "load/5min 1.48 ",
            "load/15min 12 ",
            "network/rx_bytes,interface=eth0 9 B",
            "network/tx_bytes,interface=eth0 None(Unreadable)",
            "network/tx_dropped,interface=eth0 8 count",
        ] {
            assert!(seen.iter().any(|seen| seen == line), "{line} in {seen:#?}");
        }
        assert_eq!(seen.len(), 16 + 2 + 2 + 7 + 3 + 8);
    }

    /// An interface that appears is noticed at once, so that no value is taken for another's.
    #[test]
    fn another_interface_changes_the_list() {
        let root = machine();
        let mut driver = Proc::new(root.path(), &[ProcGroup::Network]);
        assert_eq!(shown(&mut driver).len(), 8);
        tree(root.path(), &[("proc/net/dev", "  wlan0: 9 2 3 4 0 0 0 0 1 6 7 8 0 0 0 0\n")]);
        assert_eq!(driver.poll(&mut Vec::new()), Heard::Changed);
        assert!(shown(&mut driver).contains(&"network/rx_bytes,interface=wlan0 9 B".to_owned()));
        std::fs::remove_file(root.path().join("proc/net/dev")).expect("removed");
        assert_eq!(driver.poll(&mut Vec::new()), Heard::Changed);
        assert_eq!(driver.discover(), []);
    }

    /// The machine that runs this test has a /proc that gives readings: it is the default source everywhere.
    #[test]
    fn this_machine_says_something_about_itself() {
        let seen = shown(&mut Proc::new(Path::new("/"), &ALL));
        for prefix in ["cpu/user,cpu=total ", "memory/MemTotal ", "load/1min ", "kernel/forks "] {
            assert!(
                seen.iter().any(|line| line.starts_with(prefix) && !line.contains("None")),
                "{prefix} in {seen:#?}"
            );
        }
    }
}
