//! The card of a dead board, on a laptop that may not or must not write to it.

use super::*;
use std::os::unix::fs::FileExt;

/// The card of a board that was cut off: a log that was never folded, no -shm, and a file system that is read-only.
struct Card {
    site: Site,
    medium: Tmpfs,
}

impl Card {
    fn of_a_dead_board(dir: &Path) -> Self {
        let medium = Tmpfs::new(&dir.join("card"), "64m");
        let site = Site::new(&medium.path, "pump-17", "", "");
        let device = site.run();
        fill(&site, 0, 5_000);
        device.kill9();
        std::fs::remove_file(site.dir.join("varved.db-shm")).unwrap();
        Self { site, medium }
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = std::fs::read_dir(&self.site.dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    fn command(&self, words: &[&str]) -> Output {
        Command::new(VARVED).args(words).arg("--db").arg(self.site.db()).output().unwrap()
    }
}

/// Everything that had been committed, what only the log has included, is read from a read-only card by each of the commands, and
/// nothing on it changes. (Other tools see an older state, or nothing, and say that it is well.)
#[test]
fn a_dead_boards_card_is_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::of_a_dead_board(dir.path());
    let before = card.files();
    card.medium.remount("ro");
    assert!(rows(&card.site.db(), "SELECT count(*) FROM reading").contains("5000"));
    let csv = said(&card.command(&["export", "--format", "csv"]));
    assert_eq!(csv.lines().count(), 5_001);
    let verified = said(&Command::new(VARVED).arg("verify").arg(card.site.db()).output().unwrap());
    assert!(verified.contains("ok: ") && verified.contains("5000 readings"), "{verified}");
    let laptop = folder(dir.path(), "laptop");
    for (name, more) in [("x.db", None), ("raw.db", Some("--raw"))] {
        let out = laptop.join(name);
        let words = ["pull".as_ref(), out.as_os_str()].into_iter().chain(more.map(str::as_ref));
        let pulled = Command::new(VARVED).args(words).arg("--db").arg(card.site.db()).output().unwrap();
        let account = said(&pulled);
        assert!(account.contains("5000 of 50 series"), "{account}");
        assert_eq!(readings(&out), readings(&card.site.db()));
    }
    only(&laptop, &["raw.db", "x.db"]);
    assert_eq!(card.files(), before);
}

/// A damaged card: what lies around the damage is pulled, and the account and the exit code say that it is not all.
#[test]
fn a_damaged_card_gives_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::of_a_dead_board(dir.path());
    // A start folds the log into the file; then the card dies for good.
    let device = card.site.run();
    fill(&card.site, 5_000, 5_000);
    assert_eq!(device.stop(), Some(0));
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(card.site.dir.join(format!("varved.db{suffix}"))).unwrap();
    }
    let whole = readings(&card.site.db());
    let file = std::fs::OpenOptions::new().write(true).open(card.site.db()).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[0xa5; 4096], length / 2 / 4096 * 4096).unwrap();
    drop(file);
    card.medium.remount("ro");
    let verified = Command::new(VARVED).arg("verify").arg(card.site.db()).output().unwrap();
    assert_eq!(verified.status.code(), Some(65), "{}", text(&verified));
    let out = dir.path().join("x.db");
    let pulled = Command::new(VARVED).arg("pull").arg("--db").arg(card.site.db()).arg(&out).output().unwrap();
    assert_eq!(pulled.status.code(), Some(65), "{}", text(&pulled));
    assert!(text(&pulled).contains("UNREADABLE") && text(&pulled).contains("this is not all"), "{}", text(&pulled));
    let salvaged = readings(&out);
    println!("{} of {} readings from a damaged card", salvaged.lines().count() - 1, whole.lines().count() - 1);
    assert!(salvaged.lines().count() > whole.lines().count() / 2);
    assert!(salvaged.lines().all(|line| whole.contains(line)), "nothing is made up");
}
