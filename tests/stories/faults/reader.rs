//! A reader that holds a transaction.

use super::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// A technician's shell sits in a transaction: the log grows to its bound and no further, readings then wait in RAM, and
/// `status` names the process to end. When it has ended commits go on by themselves, and nothing is lost.
#[test]
fn a_reader_that_holds_on_is_named_and_the_log_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = "commit_interval = \"100ms\"\nmax_size = \"8MiB\"\ncommit_readings = 4000\nbuffer = \"1MiB\"";
    let site = Site::new(dir.path(), "pump-17", store, "");
    let device = site.run();
    let mut plant = plant::Plant::default();
    plant.send(&site, 1000);
    plant.flush(&site);
    let mut shell = Command::new("sqlite3").arg(site.db()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut typed = shell.stdin.take().unwrap();
    typed.write_all(b"BEGIN;\nSELECT count(*) FROM segment;\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut most = 0;
    let why = wait_for("commits to wait", 150, || {
        plant.send(&site, 8000);
        let status = site.try_status()?;
        let bytes = |name: &str| status["store"][name].as_u64().unwrap_or(0);
        most = most.max(bytes("file_bytes") + bytes("wal_bytes"));
        told(&status)
    });
    println!("file and log took {most} bytes at most; {} readings sent", plant.sent);
    assert!(why.contains(&format!("end process {}", shell.id())), "{why}, and the shell is {}", shell.id());
    assert!(most <= 8 << 20, "{most} bytes");
    drop(typed);
    shell.wait().unwrap();
    let status = recovered(&site);
    let recorded = &status["recorded"];
    assert_eq!(site.count("reading"), recorded["committed"].as_i64().unwrap());
    assert_eq!(device.stop(), Some(0));
}
