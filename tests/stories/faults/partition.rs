//! The partition under the running service: full, or made read-only by the kernel.

use super::*;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The partition fills while the service runs: commits go on in the log's reserve, then readings wait in RAM within `buffer`,
/// and what overflows is a dated loss. When space is freed it recovers by itself; each reading is committed or counted.
#[test]
fn a_partition_that_fills_costs_only_what_overflows_and_that_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Tmpfs::new(&dir.path().join("full"), "24m");
    let store = "commit_interval = \"200ms\"\nmax_size = \"16MiB\"\nbuffer = \"256KiB\"\ncommit_readings = 2000";
    let site = site_on(dir.path(), &mount.path.join("varved.db"), store);
    let device = site.run();
    acknowledged(&site, 0..1000);
    mount.fill("ballast");
    let mut plant = plant::Plant::default();
    let full = wait_for("the fault", 120, || {
        plant.send(&site, 2000);
        told(&site.try_status()?)
    });
    assert!(full.contains("free space"), "{full}");
    let before = rss_kib(device.pid());
    let status = wait_for("the buffer to overflow", 120, || {
        plant.send(&site, 4000);
        let status = site.try_status()?;
        let count = |at: &str| status.pointer(at).and_then(Json::as_u64).unwrap();
        // What overflows is told with the loss, once that is committed; until then it is what is in none of the accounts.
        let kept = count("/recorded/committed") + count("/risk/readings");
        (told(&status).is_some() && count("/recorded/taken") > kept + 10_000).then_some(status)
    });
    println!("at risk {}, RSS {} to {} KiB", status["risk"], before, rss_kib(device.pid()));
    assert!(rss_kib(device.pid()) < before + 4096, "memory is bounded: {before} to {} KiB", rss_kib(device.pid()));
    std::fs::remove_file(mount.path.join("ballast")).unwrap();
    let status = wait_for("the account to close", 120, || {
        let status = site.try_status()?;
        let count = |name: &str| status["recorded"][name].as_u64().unwrap();
        (count("taken") == plant.sent + 1000 && count("committed") + count("overflowed") == count("taken"))
            .then_some(status)
    });
    let recorded = &status["recorded"];
    assert!(recorded["overflowed"].as_u64().unwrap() > 0 && recorded["fault"].is_null(), "{recorded}");
    println!(
        "{} readings: {} committed, {} overflowed",
        recorded["taken"], recorded["committed"], recorded["overflowed"]
    );
    assert_eq!(site.count("reading"), recorded["committed"].as_i64().unwrap());
    let losses = site.query("SELECT count(*) AS n FROM segment WHERE kind = 1 AND boottime_min < boottime_max");
    assert!(losses[0]["n"].as_i64().unwrap() > 0, "the loss is dated");
    assert_eq!(device.stop(), Some(0));
}

/// Whether this may mount a file system with a medium under it: who is root of a name space of his own may not.
fn is_really_root() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// A loop device with an ext4 in it, that becomes read-only at its first error.
struct Ext4 {
    path: PathBuf,
    device: String,
}

impl Ext4 {
    /// Mounted in `dir`, with its image in `medium`.
    fn new(dir: &Path, medium: &Path) -> Self {
        assert!(
            is_really_root(),
            "an ext4 on a loop device needs root, and not of a name space of one's own: run `sudo tests/run`, or leave the \
             stories about ext4 out with `-- --skip ext4`"
        );
        let (image, path) = (medium.join("image"), dir.join("ext4"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir_all(&path).unwrap();
        ok(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F", "-e", "remount-ro"]).arg(&image));
        let device = ok(Command::new("losetup").args(["-f", "--show"]).arg(&image)).trim().to_owned();
        let ext4 = Self { path, device };
        ext4.mount();
        ext4
    }

    fn mount(&self) {
        ok(Command::new("mount").args(["-t", "ext4", "-o", "errors=remount-ro", &self.device]).arg(&self.path));
    }

    /// What the kernel does when the medium answers it with an error.
    fn fail(&self) {
        let name = self.device.trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    fn unmount(&self) {
        ok(Command::new("umount").arg(&self.path));
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

fn ok(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", text(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// The kernel makes the file system read-only: readings wait in RAM, `status` says why, nothing is acknowledged. Told to end,
/// the service gives the medium 20 s and ends with 74 and the count of what it could not commit. Everything acknowledged
/// is there when the medium is.
#[test]
fn an_ext4_that_turns_read_only_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let medium = Ext4::new(dir.path(), dir.path());
    let site = site_on(dir.path(), &medium.path.join("varved.db"), "commit_interval = \"200ms\"");
    let device = site.run();
    acknowledged(&site, 0..1000);
    medium.fail();
    site.send(&lines(1000..1500));
    let why = fault(&site);
    assert!(why.contains("ead-only") || why.contains("medium"), "{why}");
    wait_for("all of them at risk", 30, || (site.try_status()?["risk"]["readings"] == 500).then_some(()));
    let log = dir.path().join("device.log");
    assert_eq!(device.stop(), Some(74));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("ended with 500 readings in RAM"), "{log}");
    medium.unmount();
    medium.mount();
    let device = site.run();
    assert_holds(&site, 0..1000);
    acknowledged(&site, 1000..1500);
    assert_holds(&site, 0..1500);
    assert_eq!(device.stop(), Some(0));
}

/// The medium under the file system has promised more than it has (thin provisioning): the file system says that there is room,
/// and writes are lost on their way out. What was acknowledged until then is there once the medium has room again and the
/// file system was checked; nothing was acknowledged that was not on it.
#[test]
fn an_ext4_on_a_medium_that_promised_too_much_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let thin = Tmpfs::new(&dir.path().join("thin"), "24m");
    let medium = Ext4::new(dir.path(), &thin.path);
    let site = site_on(dir.path(), &medium.path.join("varved.db"), "commit_interval = \"200ms\"\nmax_size = \"16MiB\"");
    let device = site.run();
    acknowledged(&site, 0..1000);
    thin.fill("ballast");
    let (mut sure, mut sent) = (1000, 1000);
    let why = wait_for("the medium to fail", 120, || {
        site.send(&noisy(sent..sent + 2000));
        sent += 2000;
        let mut flush = Process::start(
            Command::new(VARVED).args(["flush", "--config"]).arg(&site.config),
            &dir.path().join("flush.log"),
        );
        loop {
            if let Some(why) = told(&site.try_status()?) {
                return Some(why);
            }
            if !flush.is_running() {
                sure = sent;
                return None;
            }
        }
    });
    println!("{sure} of {sent} readings were acknowledged before: {why}");
    assert_eq!(device.stop(), Some(74), "what was sent last is not on the medium");
    medium.unmount();
    std::fs::remove_file(thin.path.join("ballast")).unwrap();
    // 1: errors were found and corrected (e2fsck(8)).
    let check = Command::new("/usr/sbin/e2fsck").args(["-f", "-y", &medium.device]).output().unwrap();
    assert!(matches!(check.status.code(), Some(0 | 1)), "{}", text(&check));
    medium.mount();
    let device = site.run();
    let n = |which: &str| site.count(&format!("reading WHERE {which}")) as u64;
    assert_eq!(n(&format!("time <= {sure}")), sure, "{}", device.log_text());
    let distinct = site.count("(SELECT DISTINCT time FROM reading)") as u64;
    assert_eq!((n("time > 0"), n(&format!("time > {sent}"))), (distinct, 0));
    acknowledged(&site, sent..sent + 500);
    assert_eq!(n(&format!("time > {sent}")), 500);
    assert_eq!(device.stop(), Some(0));
}

/// As [`lines`], with values that compress badly.
fn noisy(numbers: Range<u64>) -> String {
    numbers.map(|n| format!("m noise={}i {}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64, n + 1)).collect()
}
