//! What a commit asks of the flash, counted at the system calls of the real binary.

use crate::support::*;
use std::process::Command;

/// A commit waits for the medium once, and with fdatasync: fsync would drag the file's metadata along, 12 KiB each time.
/// A build of SQLite that was not told that the system has fdatasync fails here.
#[test]
fn a_commit_is_one_fdatasync() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "pump-17", "commit_interval = \"1h\"", "");
    let trace = dir.path().join("trace");
    let mut traced = Command::new("strace");
    // -D: the tracer is the grandchild, so that ending this process ends the service and not only its tracer.
    traced.args(["-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace);
    traced.args([VARVED, "run", "--config"]).arg(&site.config);
    let service = Process::start(&mut traced, &dir.path().join("strace.log"));
    wait_for("the traced device to answer (strace is installed by tests/run)", 30, || site.try_status());

    let count = |call: &str| {
        let text = std::fs::read_to_string(&trace).unwrap();
        text.lines().filter(|line| line.contains(&format!(" {call}("))).count()
    };
    let commit = |n: u64| {
        site.send(&format!("m v={n}i {n}\n"));
        site.flush();
    };
    (0..5).for_each(commit);
    let (fsyncs, fdatasyncs) = (count("fsync"), count("fdatasync"));
    (5..55).for_each(commit);
    assert_eq!(count("fsync") - fsyncs, 0, "fsync");
    assert_eq!(count("fdatasync") - fdatasyncs, 50, "fdatasync");
    assert_eq!(site.count("reading"), 55);
    drop(service);
}
