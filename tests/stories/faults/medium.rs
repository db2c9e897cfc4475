//! Errors of the medium, as the system calls tell them.

use super::*;
use crate::support::strace::{Fault, fired};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn files(site: &Site) -> Vec<PathBuf> {
    ["", "-wal", "-high-water"].map(|suffix| site.dir.join(format!("varved.db{suffix}"))).to_vec()
}

/// A site in a folder of its own, and its service, which has these on flash.
fn recording(commit_interval: &str, numbers: Range<u64>) -> (tempfile::TempDir, Site, Process) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "pump-17", &format!("commit_interval = \"{commit_interval}\""), "");
    let device = site.run();
    acknowledged(&site, numbers);
    (dir, site, device)
}

/// As long as writes or fsyncs fail nothing is acknowledged, and `status` says why; when the medium works again all of it is
/// committed by the same process, once.
#[test]
fn a_medium_that_fails_for_long_is_waited_for() {
    for inject in ["fdatasync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:error=EROFS"] {
        let (dir, site, device) = recording("100ms", 0..500);
        let fault = Fault::inject(device.pid(), inject, &files(&site), &dir.path().join("trace"));
        site.send(&lines(500..1000));
        let why = super::fault(&site);
        assert!(why.contains("medium") || why.contains("free space"), "{inject}: {why}");
        let mut flush = Process::start(
            Command::new(VARVED).args(["flush", "--config"]).arg(&site.config),
            &dir.path().join("flush.log"),
        );
        std::thread::sleep(Duration::from_millis(700));
        assert!(flush.is_running(), "{inject}: acknowledged while the medium fails");
        assert!(fault.fired() > 1, "{inject}");
        fault.heal();
        wait_for("the flush to be answered", 60, || (!flush.is_running()).then_some(()));
        recovered(&site);
        assert_holds(&site, 0..1000);
        assert_eq!(device.stop(), Some(0));
        let device = site.run();
        assert_holds(&site, 0..1000);
        assert_eq!(device.stop(), Some(0));
    }
}

/// One failed fsync is tried again on the same connection: nothing is lost, nothing twice, and no restart is needed.
#[test]
fn one_failed_fsync_is_tried_again() {
    let (dir, site, device) = recording("1h", 0..100);
    let fault = Fault::inject(device.pid(), "fdatasync:error=EIO:when=3", &files(&site), &dir.path().join("trace"));
    for n in 1..8 {
        acknowledged(&site, n * 100..n * 100 + 100);
    }
    assert_eq!(fault.heal(), 1);
    assert_holds(&site, 0..800);
    assert!(device.log_text().contains("100 readings wait in RAM"), "{}", device.log_text());
    assert_eq!(device.stop(), Some(0));
}

/// Every fifth lock that is taken or let go is refused: the service asks again, and every flush is answered. (A lock that the
/// kernel once refused to let go was taken for another program's from then on, and nothing was committed any more.)
#[test]
fn locks_that_are_refused_now_and_then_stop_nothing() {
    let (dir, site, device) = recording("1h", 0..100);
    let index = [site.dir.join("varved.db-shm"), site.db()];
    let fault = Fault::inject(device.pid(), "fcntl:error=ENOLCK:when=5+5", &index, &dir.path().join("trace"));
    let mut sent = 100;
    // How many locks a commit takes is for SQLite to say.
    while fault.fired() < 40 {
        assert!(sent < 100_000, "{} locks refused so far", fault.fired());
        site.send(&lines(sent..sent + 100));
        sent += 100;
        // A flush that was refused for a lock is asked for again, as the service itself asks for what waits.
        wait_for("a flush to be answered", 60, || site.ask("flush"));
    }
    fault.heal();
    assert_holds(&site, 0..sent);
    assert_eq!(device.stop(), Some(0));
}

/// A log that can't be read at a start, now and for ever, is waited for a little, then set aside with its database; what had
/// been folded is taken over, and the service records. (It was tried again for ever, and nothing was ever recorded.)
#[test]
fn a_log_that_can_never_be_read_does_not_keep_a_service_from_recording() {
    let (dir, site, device) = recording("1h", 0..1000);
    assert_eq!(device.stop(), Some(0), "a stop folds the log");
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o"]).arg(&trace).args([
        "-e",
        "trace=read,pread64",
        "-e",
        "inject=read,pread64:error=EIO",
    ]);
    command.arg("-P").arg(dir.path().join("varved.db-wal")).args([VARVED, "run", "--config"]).arg(&site.config);
    let device = Process::start(&mut command, &dir.path().join("device.log"));
    wait_for("the fault to be told", 30, || told(&site.try_status()?).filter(|why| why.contains("varved.db-wal")));
    wait_for("the file to be set aside", 60, || device.log_text().contains("set aside as").then_some(()));
    // What the tracer follows is a name, and the new log has it too: the medium is exchanged, as it were.
    assert!(fired(&trace) > 0);
    device.stop();
    let device = site.run();
    acknowledged(&site, 1000..2000);
    assert_holds(&site, 0..2000);
    assert_eq!(device.stop(), Some(0));
}
