//! A soak: device, broker and receiver at work for long behind a bad link, while somebody looks at what they take. Nothing grows:
//! descriptors, threads, memory, logs, the device's file; and nothing is lost, and nothing comes twice.

use crate::support::plant::{Plant, Progress};
use crate::support::proxy::{Cut, Direction, Proxy, Way};
use crate::support::*;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEVICE: &str = "pump-17";

/// Readings a second.
const PER_SECOND: u64 = 2000;

/// `store.max_size`: file and log of the device together, at every moment.
const MAX_BYTES: u64 = 8 << 20;

/// What a process and its files took at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    descriptors: u64,
    threads: u64,
    rss_kib: u64,
    wal_bytes: u64,
    db_bytes: u64,
}

/// What may be added between the middle of the soak and its end.
const SLACK: Taken = Taken {
    // A client of a socket, and a file of `/proc`, that are open as somebody looks.
    descriptors: 4,
    threads: 2,
    rss_kib: 2048,
    // A reader may be in the way of a checkpoint as it is due.
    wal_bytes: 512 << 10,
    db_bytes: u64::MAX,
};

impl Taken {
    fn by(pid: u32, db: &Path) -> Self {
        let entries = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count() as u64;
        let bytes = |path: PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let wal = PathBuf::from(format!("{}-wal", db.display()));
        Self {
            descriptors: entries("fd"),
            threads: entries("task"),
            rss_kib: rss_kib(pid),
            wal_bytes: bytes(wal),
            db_bytes: bytes(db.to_owned()),
        }
    }

    fn each(self) -> [(&'static str, u64); 5] {
        let Self { descriptors, threads, rss_kib, wal_bytes, db_bytes } = self;
        [
            ("descriptors", descriptors),
            ("threads", threads),
            ("RSS in KiB", rss_kib),
            ("bytes of log", wal_bytes),
            ("bytes of file", db_bytes),
        ]
    }

    fn most(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            rss_kib: self.rss_kib.max(other.rss_kib),
            wal_bytes: self.wal_bytes.max(other.wal_bytes),
            db_bytes: self.db_bytes.max(other.db_bytes),
        }
    }
}

/// What one process took, second by second.
struct Course {
    who: &'static str,
    samples: Vec<Taken>,
}

impl Course {
    fn new(who: &'static str) -> Self {
        Self { who, samples: Vec::new() }
    }

    /// The most in thirds `part` of the time.
    fn most(&self, part: Range<usize>) -> Taken {
        let n = self.samples.len();
        self.samples[n * part.start / 3..n * part.end / 3].iter().copied().fold(Taken::default(), Taken::most)
    }

    /// Whether the last third took more than the middle one; the first is for warming up.
    fn grown(&self) -> Vec<String> {
        let (middle, last) = (self.most(1..2).each(), self.most(2..3).each());
        println!("{}: {middle:?} at most in the middle third, {last:?} in the last", self.who);
        let pairs = middle.into_iter().zip(last).zip(SLACK.each());
        let grown = pairs.filter(|(((_, middle), (_, last)), (_, slack))| *last > middle.saturating_add(*slack));
        grown.map(|(((what, middle), (_, last)), _)| format!("{}: {what} from {middle} to {last}", self.who)).collect()
    }
}

/// What the link is like in second `n`: now late, now false, now thin, and cut every few seconds. In the long run it also goes
/// deaf, each quarter of an hour.
fn weather(n: u64, dice: &mut Dice, proxy: &Proxy) {
    let thin = Way { bytes_per_s: Some(20_000), ..Way::late(100) };
    match n % 60 {
        0 => proxy.set_both(Way::late(30)),
        10 => proxy.set_both(Way { false_one_in: 50_000, ..Way::late(30) }),
        20 => proxy.set_both(thin),
        35 => proxy.set_both(Way::late(400)),
        _ => {}
    }
    match n % 900 {
        300 => proxy.set(Direction::Up, Way { hole: true, ..Way::late(30) }),
        600 => proxy.set(Direction::Down, Way { hole: true, ..Way::late(30) }),
        _ => {}
    }
    if n % 7 == 3 {
        proxy.cut(if dice.roll(2) == 0 { Cut::Close } else { Cut::Reset });
    }
}

/// The only replica that the receiver has.
fn replica(fleet: &Fleet) -> PathBuf {
    let of_device = |dir: PathBuf| {
        let names = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
        names.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "db"))
    };
    wait_for("the replica", 60, || of_device(fleet.dir.join("data").join(DEVICE)))
}

/// A minute of it, or an hour with `VARVED_FULL`: descriptors, threads, memory and logs of device and receiver are flat after the first
/// third, file and log of the device keep within `max_size` at every moment, and what was confirmed is at the fleet, once.
#[test]
fn a_soak_behind_a_bad_link_grows_nothing_and_loses_nothing() {
    let seconds = if full() { 3600 } else { 60 };
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let proxy = Proxy::to(broker.port, seed());
    proxy.set_both(Way::late(30));
    let uplink = format!("[uplink]\nbroker = \"{}\"", proxy.url());
    let site = Site::new(&dir.path().join("site"), DEVICE, "commit_interval = \"1s\"\nmax_size = \"8MiB\"", &uplink);
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let (device, receiver) = (site.run(), fleet.run());
    let (mut plant, mut progress, mut dice) = (Plant::default(), Progress::new(), Dice::new(seed()));
    let (mut of_device, mut of_receiver) = (Course::new("device"), Course::new("receiver"));
    let begun = Instant::now();
    plant.send(&site, PER_SECOND);
    assert!(plant.flush(&site));
    let replica = replica(&fleet);
    for n in 1..=seconds {
        weather(n, &mut dice, &proxy);
        for tenth in 0..10 {
            plant.send(&site, PER_SECOND / 10);
            let due = begun + Duration::from_millis(n * 1000 + tenth * 100);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if n % 5 == 0 {
            assert!(plant.flush(&site), "the device does not answer in second {n}");
        }
        let now = Taken::by(device.pid(), &site.db());
        assert!(now.db_bytes + now.wal_bytes <= MAX_BYTES, "second {n}: {now:?}");
        of_device.samples.push(now);
        of_receiver.samples.push(Taken::by(receiver.pid(), &replica));
    }
    assert!(plant.flush(&site));
    proxy.set_both(Way::late(30));
    // What was damaged again and again waits for minutes before it comes once more.
    wait_for("the acknowledgement of everything", 400, || progress.look(&site.ask("status")?).then_some(()));
    println!(
        "{:.0?}: {} connections, {} cut, {} + {} bytes falsified",
        begun.elapsed(),
        proxy.connections(),
        proxy.cuts(),
        proxy.falsified(Direction::Up),
        proxy.falsified(Direction::Down)
    );
    plant.assert_arrived(&fleet, DEVICE);
    assert_eq!(plant.confirmed(), plant.sent, "everything was confirmed");
    let grown = [of_device.grown(), of_receiver.grown()].concat();
    assert!(grown.is_empty(), "{grown:?}");
    assert_eq!((device.stop(), receiver.stop()), (Some(0), Some(0)));
}

/// Negative control: what grows is found, and what only begins high is not.
#[test]
fn growth_is_told_from_warming_up() {
    let course = |rss: &dyn Fn(u64) -> u64| {
        let sample = |n| Taken { rss_kib: rss(n), descriptors: 9 + n % 3, ..Taken::default() };
        Course { who: "nobody", samples: (0..90).map(sample).collect() }
    };
    assert_eq!(course(&|n| 5000 + 100 * n).grown(), ["nobody: RSS in KiB from 10900 to 13900"]);
    assert!(course(&|n| 5000 + 100 * n.min(30)).grown().is_empty());
    assert!(course(&|n| 9000 - 10 * n).grown().is_empty());
}
