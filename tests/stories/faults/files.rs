//! What hands do to the files of a running service, and what they leave for the next start.

use super::*;
use std::path::PathBuf;

fn beside(site: &Site, suffix: &str) -> PathBuf {
    site.dir.join(format!("varved.db{suffix}"))
}

fn set_aside(site: &Site) -> usize {
    let names = std::fs::read_dir(&site.dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    // The name ends with the count of those of the same second.
    names.filter(|name| name.contains("quarantine") && name.ends_with("-1")).count()
}

/// The database is deleted, or all that belongs to it, while the service runs: what was acknowledged before is written anew, what
/// comes after is recorded, and the log says what not to do. (Commits succeeded on a file without a name, and all of it was
/// gone with the process.)
#[test]
fn a_deleted_database_comes_back_with_all_that_was_acknowledged() {
    for gone in [&[""][..], &["", "-wal", "-shm", "-high-water", "-lock"], &["-wal"]] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(dir.path(), "pump-17", "commit_interval = \"1h\"", "");
        let device = site.run();
        acknowledged(&site, 0..2000);
        gone.iter().for_each(|suffix| std::fs::remove_file(beside(&site, suffix)).unwrap());
        // Before or after upkeep has seen it, as it happens.
        acknowledged(&site, 2000..4000);
        wait_for("the database to be there again", 20, || site.db().exists().then_some(()));
        assert_holds(&site, 0..4000);
        assert!(device.log_text().contains("stop varved before its files are changed"), "{}", device.log_text());
        assert_eq!(device.stop(), Some(0));
        let device = site.run();
        acknowledged(&site, 4000..4010);
        assert_holds(&site, 0..4010);
        assert_eq!(device.stop(), Some(0));
    }
}

/// Another database is moved into the place of the live one: recording goes on in the store that was open, and the other is kept,
/// without the log of a stranger beside it.
#[test]
fn a_replaced_database_is_kept_and_so_is_the_live_one() {
    let dir = tempfile::tempdir().unwrap();
    let other = Site::new(&dir.path().join("other"), "pump-18", "", "");
    let device = other.run();
    acknowledged(&other, 0..77);
    assert_eq!(device.stop(), Some(0));
    let site = Site::new(&dir.path().join("site"), "pump-17", "commit_interval = \"1h\"", "");
    let device = site.run();
    acknowledged(&site, 0..1000);
    std::fs::rename(other.db(), site.db()).unwrap();
    acknowledged(&site, 1000..2000);
    assert_eq!(device.stop(), Some(0));
    assert_holds(&site, 0..2000);
    assert_eq!(set_aside(&site), 1, "the other one");
}

/// Bytes are cut off the live database: what they held is gone by that hand, and it is told at once; what is readable is taken
/// over, and what is acknowledged from then on is safe. (It was acknowledged into a file that nothing could be found in.)
#[test]
fn a_database_that_is_cut_costs_no_more_than_was_cut_off() {
    for suffix in ["", "-wal"] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(dir.path(), "pump-17", "commit_interval = \"1h\"", "");
        let device = site.run();
        acknowledged(&site, 0..1000);
        // A stop folds the log; what comes now is in the new one.
        assert_eq!(device.stop(), Some(0));
        let device = site.run();
        acknowledged(&site, 1000..1100);
        let file = std::fs::OpenOptions::new().write(true).open(beside(&site, suffix)).unwrap();
        file.set_len(0).unwrap();
        acknowledged(&site, 1100..2100);
        assert_eq!(device.stop(), Some(0));
        let device = site.run();
        let held = site.query("SELECT count(*) AS n FROM reading WHERE time > 1100")[0]["n"].as_i64();
        assert_eq!(held, Some(1000), "{suffix}: acknowledged afterwards; {}", device.log_text());
        assert!(device.log_text().contains("was cut while it was open"), "{}", device.log_text());
        assert_eq!(site.count("(SELECT time FROM reading GROUP BY time HAVING count(*) > 1)"), 0);
        if suffix == "-wal" {
            let folded = site.query("SELECT count(*) AS n FROM reading WHERE time <= 1000")[0]["n"].as_i64();
            assert_eq!(folded, Some(1000), "what had been folded; {}", device.log_text());
        }
    }
}
