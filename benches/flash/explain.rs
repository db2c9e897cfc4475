//! The account of one run, block by block: which file each block belongs to, what it was written for, how often it was
//! written before, and which pages SQLite put into the log for it.

use crate::Outcome;
use crate::frames::Frames;
use crate::medium::Medium;
use crate::plan::{Args, Line};
use crate::run::{Measured, Run, Watch};
use crate::trace::{BLOCK, Event, Owners, Trace};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Says where the bytes of `line` go.
pub(crate) fn explain(args: &Args, line: &Line) -> Outcome<()> {
    let medium = Medium::new()?;
    let mut subject = line.subject(&medium)?;
    let wal = subject.wal().map(Path::to_owned);
    let mut watcher = Watcher { trace: Trace::start(&medium)?, frames: None, wal };
    let measured = Run::new(&medium, subject.as_mut(), line.interval_s).measure(line.extent(args), &mut watcher)?;
    let Watcher { trace, frames, .. } = watcher;
    let account = Account::of(&trace.finish()?, &Owners::of(&medium)?);
    println!("\n{line}: {:.2} bytes per reading, {} commits", measured.per_reading(), measured.commits);
    account.print(&measured);
    if let Some(frames) = frames {
        print_frames(&frames, &measured);
    }
    Ok(())
}

struct Watcher {
    trace: Trace,
    frames: Option<Frames>,
    wal: Option<std::path::PathBuf>,
}

impl Watch for Watcher {
    fn phase(&mut self, name: &'static str) -> Outcome<()> {
        if let (None, Some(wal)) = (&self.frames, &self.wal) {
            self.frames = Some(Frames::follow(wal)?);
        }
        self.trace.mark(name)
    }

    fn committed(&mut self) -> Outcome<()> {
        self.frames.as_mut().map_or(Ok(()), Frames::next)
    }
}

/// Blocks written, by owner and by what was going on.
#[derive(Default)]
struct Account {
    blocks: BTreeMap<(String, String), u64>,
    /// Of those, blocks that had been written since the file's first block was last written.
    again: BTreeMap<(String, String), u64>,
    /// How many commits wrote so many blocks of this file.
    per_commit: BTreeMap<(String, u64), u64>,
    flushes: BTreeMap<String, u64>,
}

impl Account {
    fn of(events: &[Event], owners: &Owners) -> Self {
        let mut account = Self::default();
        let mut phase = None;
        let mut commit: HashMap<&str, u64> = HashMap::new();
        let mut seen: HashMap<&str, HashMap<u64, ()>> = HashMap::new();
        for event in events {
            match event {
                Event::Mark(word) => {
                    if phase == Some("commit") {
                        for (owner, blocks) in commit.drain() {
                            *account.per_commit.entry((owner.to_owned(), blocks)).or_default() += 1;
                        }
                    }
                    phase = Some(word.as_str());
                }
                Event::Flush => {
                    if let Some(phase) = phase {
                        *account.flushes.entry(phase.to_owned()).or_default() += 1;
                    }
                }
                Event::Write(first, blocks) => {
                    let Some(phase) = phase else { continue };
                    for block in *first..first + blocks {
                        let (owner, number) = owners.find(block);
                        let round = seen.entry(owner).or_default();
                        if number == 0 {
                            round.clear();
                        }
                        let key = (owner.to_owned(), phase.to_owned());
                        *account.blocks.entry(key.clone()).or_default() += 1;
                        if round.insert(number, ()).is_some() {
                            *account.again.entry(key).or_default() += 1;
                        }
                        if phase == "commit" {
                            *commit.entry(owner).or_default() += 1;
                        }
                    }
                }
            }
        }
        account
    }

    fn print(&self, measured: &Measured) {
        let readings = measured.readings as f64;
        let commits = measured.commits as f64;
        println!(
            "\n  {:<26} {:<10} {:>8} {:>12} {:>10} {:>12}",
            "written to", "in", "blocks", "a commit", "B/reading", "rewritten"
        );
        for ((owner, phase), blocks) in &self.blocks {
            let again = self.again.get(&(owner.clone(), phase.clone())).copied().unwrap_or(0);
            println!(
                "  {owner:<26} {phase:<10} {blocks:>8} {:>12.3} {:>10.3} {:>11.0}%",
                *blocks as f64 / commits,
                (*blocks * BLOCK) as f64 / readings,
                100.0 * again as f64 / *blocks as f64,
            );
        }
        for (phase, flushes) in &self.flushes {
            println!("  flushes                    {phase:<10} {flushes:>8} {:>12.3}", *flushes as f64 / commits);
        }
        println!("\n  blocks of a file in one commit, and how many commits wrote so many:");
        for ((owner, blocks), n) in &self.per_commit {
            println!("  {owner:<26} {blocks:>3} {n:>8}");
        }
    }
}

fn print_frames(frames: &Frames, measured: &Measured) {
    let commits = measured.commits as f64;
    println!("\n  frames of the log for each commit, body {} bytes:", measured.body_bytes / measured.commits.max(1));
    for (kind, n) in &frames.kinds {
        println!("  {kind:<26} {n:>8} {:>12.3}", *n as f64 / commits);
    }
    let (pages, blocks, neighbours) = frames.checkpoint();
    println!("  a round's checkpoint: {pages} pages in {blocks} blocks; {neighbours} pages of these not in the log");
    let mut all: Vec<_> = frames.commits.iter().collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    println!("\n  pages of one commit, and how many commits had these:");
    for (pages, n) in all.iter().take(16) {
        println!("  {n:>8}  {pages}");
    }
}
