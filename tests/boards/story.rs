//! The board at work, cut off, and at work again.

use crate::board::{self, Board, CARD, HERE, path, said};
use crate::cuts;
use crate::support::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use varved::clock::{BootNanos, Now, UtcNanos};
use varved::config::Config;
use varved::store::{Identity, Store};

/// What is around a board: its folder, a broker with a certificate, and a receiver.
pub struct Works {
    pub dir: tempfile::TempDir,
    _broker: Broker,
    pub fleet: Fleet,
    pub disk: PathBuf,
    pub config: String,
}

/// The device's name.
pub const DEVICE: &str = "board-1";

impl Works {
    /// `store` goes into the section of that name, `sensors` behind the socket's.
    pub fn new(store: &str, sensors: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        certificates(dir.path());
        let port = free_port();
        let pem = |name: &str| path(&dir.path().join(name));
        let listener = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n",
            pem("ca.pem"),
            pem("broker.pem"),
            pem("broker.key"),
        );
        let broker = Broker::with(&dir.path().join("broker"), &listener);
        let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
        let config = format!(
            "device = \"{DEVICE}\"\n[store]\npath = \"/data/varved.db\"\nmax_size = \"8MiB\"\n{store}\n\
             [control]\nlisten = \"unix:///run/control.sock\"\n\
             [[sensor]]\nkind = \"socket\"\nlisten = \"tcp://127.0.0.1:8094\"\n{sensors}\n\
             [uplink]\nbroker = \"mqtts://{HERE}:{port}\"\nca = \"/data/ca.pem\"\n"
        );
        std::fs::write(files.join("varved.toml"), &config).unwrap();
        std::fs::copy(dir.path().join("ca.pem"), files.join("ca.pem")).unwrap();
        let disk = dir.path().join("disk");
        board::disk(&disk, &files);
        Self { dir, _broker: broker, fleet, disk, config }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// An authority, and a certificate of it for the broker as the board sees it.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "openssl {args}: {}", text(&out));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 30 -subj /CN=ca -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=broker -keyout broker.key -out broker.csr"));
    std::fs::write(dir.join("san"), format!("subjectAltName=IP:{HERE}")).unwrap();
    openssl("x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out broker.pem");
}

/// The readings that the board's script sends, in rounds of ten.
const ROUND: i64 = 10;

fn numbers(round: u64) -> Range<i64> {
    round as i64 * ROUND..(round as i64 + 1) * ROUND
}

fn value(number: i64) -> i64 {
    number * 7919 % 100_003
}

/// Looks at a mounted disk: every round that was acknowledged is there, of one that was under way what may be, each reading once
/// and right, and nothing else.
struct Look {
    config: String,
    me: Identity,
    /// The rounds that an earlier boot was told.
    before: Range<u64>,
    /// The first round of this boot.
    first: u64,
}

impl Look {
    fn new(works: &Works, before: Range<u64>, first: u64) -> Self {
        // The same machine as the board, for whom looks at its card and its number.
        let root = works.file("machine");
        let card = root.join("sys/class/net/eth0");
        std::fs::create_dir_all(card.join("device")).unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("proc/sys/kernel/random")).unwrap();
        std::fs::write(card.join("addr_assign_type"), "0\n").unwrap();
        std::fs::write(card.join("address"), format!("{CARD}\n")).unwrap();
        std::fs::copy(
            Path::new(&std::env::var("VARVED_BOARD").unwrap()).join("root/etc/machine-id"),
            root.join("etc/machine-id"),
        )
        .unwrap();
        std::fs::copy("/proc/sys/kernel/random/boot_id", root.join("proc/sys/kernel/random/boot_id")).unwrap();
        Self { config: works.config.clone(), me: Identity::read(&root).unwrap(), before, first }
    }

    fn at(&self, mounted: &Path, marked: Option<u64>) -> Result<(), String> {
        let mut config = Config::parse(&self.config, "varved.toml").unwrap().store;
        config.path = mounted.join("varved.db");
        let now = Now { boot: BootNanos(1 << 50), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
        let (store, events) = Store::open(&config, &self.me, now).map_err(|e| format!("open: {e}"))?;
        if let Some(event) = events.first() {
            return Err(format!("event {event}"));
        }
        let rows = store.query("SELECT time, value FROM reading WHERE series GLOB 'plant*' ORDER BY time");
        let rows = rows.map_err(|e| format!("query: {e}"))?;
        let next = marked.map_or(self.first, |round| round + 1);
        let sure = self.before.clone().chain(self.first..next);
        let mut missing: BTreeSet<i64> = sure.flat_map(numbers).collect();
        let mut under_way: BTreeSet<i64> = [self.before.end, next].into_iter().flat_map(numbers).collect();
        for row in rows["rows"].as_array().unwrap() {
            let (number, found) = (row[0].as_i64().unwrap() - 1, row[1].as_i64().unwrap());
            // Taken out, so that a second of them is one that nobody had sent.
            if found != value(number) || !missing.remove(&number) && !under_way.remove(&number) {
                return Err(format!("holds {found} as number {number}, with round {marked:?} marked"));
            }
        }
        match missing.first() {
            Some(number) => {
                Err(format!("lacks number {number} and {} others, with round {marked:?} marked", missing.len() - 1))
            }
            None => Ok(()),
        }
    }
}

#[test]
fn a_board_records_uploads_is_cut_and_goes_on() {
    let (rounds, per_cut) = if full() { (220_u64, 4) } else { (40, 2) };
    let works = Works::new("commit_interval = \"1h\"", "[[sensor]]\nkind = \"proc\"\ninterval = \"1s\"");
    let _fleet = works.fleet.run();
    let begun = std::time::Instant::now();
    let disk = std::fs::read(&works.disk).unwrap();
    std::fs::write(works.file("disk-1"), disk).unwrap();
    let (log, words) = (works.file("log-1"), format!("story=record first=0 rounds={rounds}"));
    let mut board = Board::boot(works.dir.path(), &works.disk, &log, &words, &[]);
    println!("booted after {} s by its own clock, {:?} by ours", board.says("booted", 120), begun.elapsed());
    println!("exec and first answer at {} s of its clock", board.says("answers", 60));
    // In the midst of its work.
    board.says(&format!("round {}", rounds * 3 / 4), 300);
    let (bytes, writes, flushes) = board.disk_counts();
    let console = board.cut();
    let done = said(&console, "round").count() as u64;
    println!("{done} rounds in {:?}; {bytes} bytes in {writes} writes with {flushes} flushes", begun.elapsed());

    // The power comes back, and goes once more.
    std::fs::copy(&works.disk, works.file("disk-2")).unwrap();
    let (again, more) = (1000_u64, rounds / 4);
    let (log_2, words) = (works.file("log-2"), format!("story=record first={again} rounds={more}"));
    let mut board = Board::boot(works.dir.path(), &works.disk, &log_2, &words, &[]);
    board.says("uploaded", 300);
    let console_2 = board.cut();
    assert_eq!(said(&console_2, "round").count() as u64, more);

    // At the fleet: all that was acknowledged, each once, and the board's own sensors.
    let plants = works.fleet.query(DEVICE, "SELECT time, value FROM reading WHERE series GLOB 'plant*' ORDER BY time");
    let plants: Vec<(i64, i64)> =
        plants.unwrap().iter().map(|row| (row["time"].as_i64().unwrap() - 1, row["value"].as_i64().unwrap())).collect();
    assert!(plants.windows(2).all(|two| two[0].0 < two[1].0), "each once");
    assert!(plants.iter().all(|(number, v)| *v == value(*number)));
    let held = |rounds: Range<u64>| {
        let numbers = numbers(rounds.start).start..numbers(rounds.end).start;
        plants.iter().filter(|(number, _)| numbers.contains(number)).count() as u64
    };
    assert_eq!((held(0..done), held(again..again + more)), (done * ROUND as u64, more * ROUND as u64));
    assert!(held(done..again) <= ROUND as u64, "one round at most was under way");
    let own = works.fleet.query(DEVICE, "SELECT count(*) AS n FROM reading WHERE series NOT GLOB 'plant*'").unwrap();
    assert!(own[0]["n"].as_i64().unwrap() > 10, "{own:?}");

    let mut dice = Dice::new(seed());
    let mut judge = |disk: &str, log: &Path, look: Look| {
        let found = cuts::everywhere(&works.file(disk), log, per_cut, &mut dice, |disk, marked| look.at(disk, marked));
        println!(
            "{} cuts, {} images, up to round {:?}, {} bad",
            found.cuts,
            found.images,
            found.marked,
            found.bad.len()
        );
        assert!(found.bad.is_empty(), "{:#?}", found.bad);
        found
    };
    let one = judge("disk-1", &log, Look::new(&works, 0..0, 0));
    let two = judge("disk-2", &log_2, Look::new(&works, 0..done, again));
    assert!(one.marked >= Some(done - 1) && two.marked == Some(again + more - 1), "{:?} {:?}", one.marked, two.marked);
    assert!(one.cuts + two.cuts >= if full() { 400 } else { 100 });
}

#[test]
fn a_commit_without_its_sync_is_caught() {
    let works = Works::new("commit_interval = \"1h\"", "");
    std::fs::copy(&works.disk, works.file("disk-1")).unwrap();
    let log = works.file("log");
    let mut board = Board::boot(works.dir.path(), &works.disk, &log, "story=record first=0 rounds=20 unsynced", &[]);
    board.says("round 19", 300);
    board.cut();
    let look = Look::new(&works, 0..0, 0);
    let found =
        cuts::everywhere(&works.file("disk-1"), &log, 2, &mut Dice::new(seed()), |disk, marked| look.at(disk, marked));
    assert!(found.bad.iter().any(|why| why.contains("lacks")), "{} images, {:#?}", found.images, found.bad);
}
