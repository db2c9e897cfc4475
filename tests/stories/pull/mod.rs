//! A technician comes by with a laptop: `varved pull` through a real `ssh` and a real sshd, from services that run or are dead.

mod card;
mod cuts;
mod errors;
mod keys;
mod while_running;

use crate::support::plant;
use crate::support::ssh::Sshd;
use crate::support::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `varved pull` from the host `board` of `sshd`.
fn pull(sshd: &Sshd, db: &Path, out: &Path, more: &[&str]) -> Output {
    pulling(sshd, db, out, more).output().unwrap()
}

fn pulling(sshd: &Sshd, db: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(VARVED);
    command.args(["pull", "--ssh", &sshd.client(), &format!("board:{}", db.display())]).arg(out).args(more);
    command
}

/// Standard output of a command that must succeed.
fn said(out: &Output) -> String {
    assert!(out.status.success(), "{}", text(out));
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Exit code and the last line of standard error of a command that must fail.
fn told(out: &Output) -> (i32, String) {
    assert!(!out.status.success(), "{}", text(out));
    let words = String::from_utf8(out.stderr.clone()).unwrap();
    (out.status.code().unwrap(), words.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// What a statement over a file gives, as CSV.
fn rows(db: &Path, sql: &str) -> String {
    let out = Command::new(VARVED).args(["query", "--format", "csv", "--db"]).arg(db).arg(sql).output().unwrap();
    said(&out)
}

/// Every reading of a file, in an order of its own. Numbers of segments are not compared: compaction changes them.
fn readings(db: &Path) -> String {
    rows(db, "SELECT series, time, utc, value, unit, quality FROM reading ORDER BY series, time, value")
}

/// The stock shell, reading only.
fn stock(db: &Path, sql: &str) -> String {
    said(&Command::new("sqlite3").arg("-readonly").arg(db).arg(sql).output().unwrap()).trim_end().to_owned()
}

/// A device that was sent so many readings, in commits of 500.
fn fill(site: &Site, from: u64, n: u64) {
    for at in (from..from + n).step_by(500) {
        site.send(&plant::lines(at..(at + 500).min(from + n)));
        site.flush();
    }
}

/// No file beside those of `names`.
fn only(dir: &Path, names: &[&str]) {
    let mut found: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, names);
}

fn folder(dir: &Path, name: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
