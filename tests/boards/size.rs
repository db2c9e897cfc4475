//! What the board's service takes, seen from inside.

use crate::board::{Board, path, run, said};
use crate::story::{DEVICE, Works};
use crate::support::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// KiB: RSS, PSS, and what of it is memory of its own.
fn memory(text: &str) -> Vec<(String, [u64; 3])> {
    let lines = said(text, "memory").map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].to_owned(), [1, 2, 3].map(|n| words[n].parse().unwrap()))
    });
    lines.collect()
}

/// Memory at each stage: started, idle with TLS, while a million readings come in without a link, while segments are joined, while
/// the backlog goes up, and while a technician pulls.
#[test]
fn the_board_stays_within_its_memory() {
    let works = Works::new("commit_interval = \"10s\"\ncommit_readings = 5000", "");
    let _fleet = works.fleet.run();
    let mut board = Board::boot(works.dir.path(), &works.disk, &works.file("log"), "story=size", &[]);
    let ready: f64 = board.says("ready", 300).parse().unwrap();
    board.says("pull", 900);
    // A laptop, for whom `ssh` is a way into the board: there is no SSH server on its RAM disk.
    let bin = works.file("bin");
    std::fs::create_dir(&bin).unwrap();
    let ssh = format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{}\ncat <&3 & exec cat >&3\n", board.pull_port);
    std::fs::write(bin.join("ssh"), ssh).unwrap();
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut pull = Command::new(VARVED);
    pull.args(["pull", "board"]).arg(works.file("laptop.db")).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let pulled = pull.output().unwrap();
    assert!(pulled.status.success(), "{}", text(&pulled));
    board.says("ended", 120);
    let console = board.cut();

    let memory = memory(&console);
    for (stage, [rss, pss, own]) in &memory {
        println!("{stage:<11} RSS {rss} KiB, PSS {pss} KiB, of its own {own} KiB");
    }
    let open = said(&console, "open").next().unwrap();
    println!(
        "ready {ready} s after its start; descriptors{open}; backlog of{} readings",
        said(&console, "backlog").next().unwrap()
    );
    let pss = |stage: &str| memory.iter().find(|(name, _)| name == stage).unwrap_or_else(|| panic!("no {stage}")).1[1];
    assert!(pss("connected") <= 4096, "idle with TLS");
    for stage in ["started", "backlog", "compacting", "uploading", "pulled", "serving"] {
        assert!(pss(stage) <= 6144, "{stage}");
    }
    let rows = works.fleet.query(DEVICE, "SELECT count(*) AS n FROM reading WHERE series GLOB 'hall/*'").unwrap();
    assert_eq!(rows[0]["n"], 1_000_000);
    let laptop =
        run("sqlite3", &[&path(&works.file("laptop.db")), "SELECT count(*) FROM reading WHERE series GLOB 'hall/*'"]);
    assert_eq!(laptop.trim(), "1000000");
}

/// Instructions per reading, from the socket to the fleet's acknowledgement, commits and TLS included; and how many it takes until the
/// service records.
#[test]
fn a_reading_costs_few_instructions() {
    let works = Works::new("commit_interval = \"10s\"", "");
    let _fleet = works.fleet.run();
    let mut board =
        Board::boot(works.dir.path(), &works.disk, &works.file("log"), "story=count", &["-icount", "shift=0,sleep=on"]);
    let ready: f64 = board.says("ready", 300).parse().unwrap();
    let counted = board.says("instructions", 600);
    let console = board.cut();
    said(&console, "thread").for_each(|line| println!("{line} instructions"));
    let (spent, readings) = counted.split_once(' ').unwrap();
    let each = spent.parse::<f64>().unwrap() / readings.parse::<f64>().unwrap();
    println!("{each:.0} instructions a reading, of {readings}; ready after {:.0} million", ready * 1000.0);
    assert!(each <= 10_000.0, "{each}");
    assert!(ready <= 1.0, "{ready} s at 1 ns an instruction");
}
