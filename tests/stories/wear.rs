//! The wear governor in the real service: counters of a made-up sysfs go in, `status` shows what follows.

use crate::support::*;
use serde_json::Value as Json;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

/// A device on a board of which only files are real: its block device takes what the test says.
struct Board {
    site: Site,
    root: PathBuf,
    stat: PathBuf,
    _dir: tempfile::TempDir,
}

impl Board {
    fn new(store: &str, flash: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(&dir.path().join("site"), "pump-17", store, flash);
        let root = dir.path().join("root");
        let text = std::fs::read_to_string(&site.config).unwrap();
        std::fs::write(&site.config, text.replacen("[store]", &format!("root = \"{}\"\n[store]", root.display()), 1))
            .unwrap();
        let dev = std::fs::metadata(&site.dir).unwrap().dev();
        let numbers = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        let stat = root.join("sys/dev/block").join(numbers).join("stat");
        let board = Self { site, root, stat, _dir: dir };
        board.boots("5d0c2bd4-0d6f-4c1c-9f0e-3a8b1b6d2a01");
        board
    }

    fn put(&self, path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn boots(&self, id: &str) {
        self.put(self.root.join("proc/sys/kernel/random/boot_id"), id);
    }

    /// The block device has taken so much since boot.
    fn takes(&self, bytes: u64) {
        self.put(self.stat.clone(), &format!("1 0 8 0 5 0 {} 0 0 0 0 0 0 0 0 3 0\n", bytes / 512));
    }

    /// The account of a running service, once `ready` is true of it.
    fn wear(&self, what: &str, ready: impl Fn(&Json) -> bool) -> Json {
        wait_for(what, 20, || Some(self.site.status()["flash"]["wear"].take()).filter(|w| !w.is_null() && ready(w)))
    }

    /// Commits a reading after another until the account is in the file.
    fn commits_the_account(&self) {
        wait_for("the account in the file", 20, || {
            self.site.send("m v=1i\n");
            self.site.flush();
            let n = self.site.count("meta WHERE key = 'wear'");
            (n == 1).then_some(())
        });
    }
}

fn written(wear: &Json) -> u64 {
    wear["written_bytes"].as_u64().unwrap()
}

/// What a tight budget is overspent by makes commits come seldom, within the span; a flush commits at once all the
/// same. The account, and with it the interval, outlives the end of the service, kill -9 with writes while it was away,
/// and another boot.
#[test]
fn a_tight_budget_makes_commits_seldom_and_outlives_everything() {
    let board = Board::new(
        "commit_interval = \"1s\"\ncommit_interval_max = \"45s\"",
        "[flash]\nbudget = \"1GiB/year\"\nendurance = \"100GiB\"",
    );
    let site = &board.site;
    board.takes(5 * GIB);
    let device = site.run();
    let wear = board.wear("the account", |_| true);
    assert_eq!((wear["commit_interval_s"].as_f64(), written(&wear)), (Some(1.0), 0), "{wear}");
    board.commits_the_account();

    board.takes(6 * GIB);
    let wear = board.wear("a longer interval", |wear| wear["commit_interval_s"].as_f64() > Some(1.0));
    assert!(wear["commit_interval_s"].as_f64() <= Some(45.0), "{wear}");
    assert_eq!(written(&wear), GIB);
    assert!(
        wear["budget_used"].as_f64() > Some(1.0)
            && wear["why"].as_str().unwrap().contains("overspent of 1.0 GiB a year"),
        "{wear}"
    );
    assert!(wear["years_left"].as_f64().is_some());
    site.send("m v=2i\n");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(site.status()["risk"]["readings"], 1, "the interval in force is the one shown");
    site.flush();
    assert_eq!(site.status()["risk"]["readings"], 0);
    let said = text(&site.command("status"));
    assert!(said.contains("wear ") && said.contains("1.0 GiB a year; ") && said.contains("commits "), "{said}");
    assert_eq!(device.stop(), Some(0));

    let device = site.run();
    let wear = board.wear("the account after a stop", |_| true);
    assert_eq!(written(&wear), GIB);
    assert!(wear["commit_interval_s"].as_f64() > Some(1.0), "{wear}");
    board.commits_the_account();
    device.kill9();
    board.takes(6 * GIB + GIB / 4);
    let device = site.run();
    let wear = board.wear("the account after kill -9", |_| true);
    assert_eq!(written(&wear), GIB + GIB / 4, "what was written meanwhile is in it");
    board.commits_the_account();
    device.kill9();

    board.boots("77e0b1a2-57a3-4f44-8b07-1c9be51a2b02");
    board.takes(GIB / 8);
    let _device = site.run();
    let wear = board.wear("the account after a power cut", |_| true);
    let estimated = wear["estimated_bytes"].as_u64().unwrap();
    assert_eq!(written(&wear) - estimated, GIB + GIB / 4 + GIB / 8, "{wear}");
}

/// Without a budget the interval is the configured one and the account is kept all the same; where there is no block
/// device it is said what is counted instead; a lifetime without an endurance is told of and governs nothing.
#[test]
fn without_a_budget_nothing_is_governed() {
    let plain = Board::new("commit_interval = \"2s\"", "");
    let _device = plain.site.run();
    let wear = plain.wear("the account", |_| true);
    assert_eq!((wear["commit_interval_s"].as_f64(), wear["source"].as_str()), (Some(2.0), Some("estimate")));
    assert_eq!(wear["why"], "commit_interval: no budget is set");
    assert!(wear["counted"].as_str().unwrap().contains("no block device"), "{wear}");
    assert!(wear["budget_used"].is_null() && wear["years_left"].is_null());

    let hopeful = Board::new("commit_interval_max = \"45s\"", "[flash]\nlifetime = \"10y\"");
    hopeful.takes(GIB);
    let device = hopeful.site.run();
    hopeful.takes(9 * GIB);
    let wear = hopeful.wear("the writes", |wear| written(wear) == 8 * GIB);
    assert_eq!(wear["commit_interval_s"].as_f64(), Some(10.0));
    assert!(device.log_text().contains("endurance = \"3TiB\""), "{}", device.log_text());
}

/// Keys that can't be together end the service at its start, with 78, the line and the key.
#[test]
fn impossible_keys_are_told_at_the_start() {
    let board = Board::new("commit_interval_max = \"45s\"", "");
    let out = board.site.command("run");
    assert_eq!(out.status.code(), Some(78));
    assert!(
        text(&out).contains("varved.toml:5: store.commit_interval_max: has nothing to choose by"),
        "{}",
        text(&out)
    );
}
