//! The README's first command: it ends with a whole account, leaves nothing running, and its account can fail.

use crate::support::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use varved::cli::account::{Account, compare};
use varved::segment::{self, Content, Values};

fn demo(dir: &Path, seconds: &str) -> Output {
    Command::new(VARVED).args(["demo", "--seconds", seconds, "--dir"]).arg(dir).output().unwrap()
}

/// The four numbers of the account line.
fn account_line(said: &str) -> Vec<u64> {
    let line = said.lines().find(|line| line.trim_start().starts_with("taken ") && line.contains("replica"));
    let line = line.unwrap_or_else(|| panic!("no account in\n{said}"));
    assert!(!line.contains('≠'), "{line}");
    let line = line.split_once('(').unwrap().0;
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The processes whose command line names this folder.
fn left_over(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(dir) && line.contains("--part")).collect()
}

/// Taken, committed, acknowledged and replicated are the same number; nothing runs on; the files are where it says, and
/// sound; what it says to type next works; the next demo may use the same folder.
#[test]
fn the_demo_accounts_for_every_reading_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    for seconds in ["3", "1"] {
        let out = demo(&dir, seconds);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
        let said = String::from_utf8_lossy(&out.stdout);
        let numbers = account_line(&said);
        assert_eq!(numbers.len(), 4, "{said}");
        assert!(numbers[0] > 0 && numbers.iter().all(|n| *n == numbers[0]), "{numbers:?}");
        assert!(left_over(&dir).is_empty(), "{:?}", left_over(&dir));
        assert!(said.contains(&format!("the files are in {}", dir.display())), "{said}");
        let next: Vec<&str> = said.lines().skip_while(|line| *line != "Next:").skip(1).collect();
        assert_eq!(next.len(), 4, "{said}");
        let answers = next.iter().map(|line| typed(line, &dir)).collect::<String>();
        assert!(answers.contains(&format!("{} readings in ", numbers[0])), "what `verify` counts: {answers}");
    }
}

/// What a line says when it is typed into a shell, which must succeed.
fn typed(line: &str, dir: &Path) -> String {
    let programs = Path::new(VARVED).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let out = Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{line}: {}", text(&out));
    text(&out)
}

/// A folder that holds something else is not touched.
#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("thesis.txt");
    std::fs::write(&theirs, "four years of work").unwrap();
    let out = demo(folder.path(), "1");
    assert_eq!(out.status.code(), Some(74), "{}", text(&out));
    assert!(text(&out).contains("--dir"), "{}", text(&out));
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "four years of work");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A demo that is killed in the middle takes its parts with it.
#[test]
fn a_demo_that_is_killed_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let mut command = Command::new(VARVED);
    let running =
        Process::start(command.args(["demo", "--seconds", "60", "--dir"]).arg(&dir), &folder.path().join("log"));
    wait_for("the first second of the demo", 30, || running.log_text().contains("1/60 s").then_some(()));
    assert_eq!(left_over(&dir).len(), 3);
    running.kill9();
    wait_for("its parts to end", 10, || left_over(&dir).is_empty().then_some(()));
}

/// The two sides of a finished demo, in copies that may be spoilt.
struct Sides {
    dir: PathBuf,
}

impl Sides {
    fn of(demo: &Path, dir: PathBuf) -> Self {
        assert!(Command::new("cp").arg("-a").args([demo, &dir]).status().unwrap().success());
        Self { dir }
    }

    fn device(&self) -> PathBuf {
        self.dir.join("device/varved.db")
    }

    fn replicas(&self) -> PathBuf {
        self.dir.join("fleet/data/demo")
    }

    fn replica(&self) -> rusqlite::Connection {
        let files = std::fs::read_dir(self.replicas()).unwrap().map(|entry| entry.unwrap().path());
        let mut files = files.filter(|path| path.extension().is_some_and(|ending| ending == "db"));
        rusqlite::Connection::open(files.next().expect("a replica")).unwrap()
    }

    fn account(&self) -> Account {
        compare(&self.device(), &self.replicas()).unwrap()
    }
}

/// One value changed in a body, which is then a sound one again with a right checksum.
fn forged(body: &[u8]) -> Vec<u8> {
    let mut segment = segment::decode(body).unwrap();
    let Content::Data { readings, .. } = &mut segment.content else { panic!("a loss") };
    match &mut readings.columns[0].values {
        Values::Int(all) => all[0] ^= 1,
        Values::Float(all) => all[0] = f64::from_bits(all[0].to_bits() ^ 1),
        Values::Bool(all) => all[0] = !all[0],
        Values::Text(all) => all[0] = "forged".into(),
    }
    readings.columns[0].missing.retain(|missing| missing.at != 0);
    segment::encode(&segment).unwrap()
}

/// A segment that is gone, one bit of one value that differs, a checksum that is wrong, a segment that nobody acknowledged:
/// each makes the account less than whole.
#[test]
fn each_difference_between_the_files_spoils_the_account() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let out = demo(&dir, "1");
    assert!(out.status.success(), "{}", text(&out));
    let copy = |name: &str| Sides::of(&dir, folder.path().join(name));

    let same = copy("same").account();
    assert!(same.is_whole() && same.committed > 0, "{same:?}");

    let gone = copy("gone");
    let largest = "SELECT id FROM segment WHERE kind = 0 ORDER BY n DESC LIMIT 1";
    assert_eq!(gone.replica().execute(&format!("DELETE FROM segment WHERE id = ({largest})"), []).unwrap(), 1);
    let account = gone.account();
    assert!(!account.is_whole() && account.replicated < account.committed, "{account:?}");
    assert!(account.differences[0].contains("on the device"), "{account:?}");

    let other = copy("other");
    let conn = other.replica();
    let id: i64 = conn.query_row(largest, [], |row| row.get(0)).unwrap();
    let body: Vec<u8> = conn.query_row("SELECT body FROM segment WHERE id = ?1", [id], |row| row.get(0)).unwrap();
    conn.execute("UPDATE segment SET body = ?1 WHERE id = ?2", rusqlite::params![forged(&body), id]).unwrap();
    let account = other.account();
    assert!(!account.is_whole() && account.replicated == account.committed, "{account:?}");
    assert_eq!(account.differences.len(), 1, "{account:?}");
    assert!(account.differences[0].contains("on the device") && account.differences[0].contains("in the replica"));

    let mut spoilt = body.clone();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 0x10;
    conn.execute("UPDATE segment SET body = ?1 WHERE id = ?2", rusqlite::params![spoilt, id]).unwrap();
    let account = other.account();
    assert!(!account.is_whole() && account.differences[0].contains("checksum"), "{account:?}");

    let unsaid = copy("unsaid");
    rusqlite::Connection::open(unsaid.device()).unwrap().execute("DELETE FROM ack", []).unwrap();
    let account = unsaid.account();
    assert!(!account.is_whole() && account.acknowledged == 0 && account.differences.is_empty(), "{account:?}");
}
