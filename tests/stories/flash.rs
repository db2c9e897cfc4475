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

/// A technician's stock shell reads the live file in the midst of commits: each time it is let in long before the kernel
/// would break the service's lease (45 s), sees everything that was flushed, and finds the file sound.
#[test]
fn the_stock_shell_reads_the_live_file_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "pump-17", "commit_interval = \"100ms\"", "");
    let _service = site.run();
    let shm = dir.path().join(format!("{}-shm", site.db().file_name().unwrap().to_string_lossy()));
    let shell = |sql: &str| {
        let begun = std::time::Instant::now();
        let out = Command::new("sqlite3").arg(site.db()).arg(sql).output().expect("sqlite3 is installed by tests/run");
        assert!(out.status.success(), "{}", text(&out));
        assert!(begun.elapsed().as_secs() < 20, "it waited for {:?}", begun.elapsed());
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let mut sent = 0;
    for round in 0..30 {
        for n in 0..20 {
            site.send(&format!("m v={n}i {}\n", round * 1000 + n));
            sent += 1;
        }
        site.flush();
        if round % 3 == 0 {
            assert_eq!(shell("SELECT sum(n) FROM segment WHERE kind = 0"), sent.to_string(), "round {round}");
        }
    }
    assert_eq!(shell("PRAGMA integrity_check"), "ok");
    assert_eq!(site.count("reading"), sent);
    // To read its index is to visit it too.
    let index = std::fs::read(shm).unwrap();
    assert_eq!(index[..48], index[48..96], "both copies of the header");
}
