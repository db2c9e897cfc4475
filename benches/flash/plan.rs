//! What is measured: the command line, and the list of runs that it asks for.

use crate::Outcome;
use crate::medium::Medium;
use crate::own::{Own, Setup};
use crate::rows::{Floor, Rows};
use crate::run::Extent;
use crate::subject::Subject;
use std::fmt;

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    /// A minute or two instead of ten: fewer runs, fewer rounds of the log.
    pub quick: bool,
    /// Only runs whose name has one of these in it.
    pub only: Vec<String>,
    /// Say which block each byte went to, instead of the table.
    pub explain: bool,
    /// Rounds of the log.
    pub cycles: u64,
    /// Runs at a time, each on a medium of its own.
    pub jobs: usize,
}

/// What `--help` says.
pub(crate) const HELP: &str = "\
Counts host bytes per reading at the block device: varved, plain rows in stock SQLite, and the log floor. Needs root.

    cargo bench --bench flash [-- OPTIONS]

    --quick        a shorter run: one round of the log, the main settings
    --only WORDS   only runs whose name contains WORDS, such as \"shared\" or \"T=10\"; may be given more than once
                   \"service\" is the real-time run of varved itself, one or two minutes at the end
    --explain      where the bytes of a commit go, block by block
    --cycles N     rounds of the write-ahead log to measure [5]
    --jobs N       runs at a time [4]
";

impl Args {
    /// Reads them; `None` where help was asked for.
    pub(crate) fn read() -> Outcome<Option<Self>> {
        use lexopt::prelude::*;
        let mut args = Self { quick: false, only: Vec::new(), explain: false, cycles: 5, jobs: 4 };
        let mut cycles = None;
        let mut words = lexopt::Parser::from_env();
        while let Some(word) = words.next()? {
            match word {
                Long("quick") => args.quick = true,
                Long("only") => args.only.push(words.value()?.string()?),
                Long("explain") => args.explain = true,
                Long("cycles") => cycles = Some(words.value()?.parse()?),
                Long("jobs") => args.jobs = words.value()?.parse()?,
                // cargo says so to every benchmark.
                Long("bench") => {}
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        args.cycles = cycles.unwrap_or(if args.quick || args.explain { 1 } else { args.cycles }).max(1);
        args.jobs = args.jobs.clamp(1, 16);
        Ok(Some(args))
    }
}

impl Args {
    /// Whether the service itself is run at the end.
    pub(crate) fn cross_check(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|words| words == "service")
    }
}

/// What commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// varved's store.
    Own(Setup),
    /// Plain rows, a commit an interval.
    Rows,
    /// Plain rows, a commit a row.
    RowsSingly,
    /// The log floor.
    Floor,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// What commits.
    pub what: What,
    /// How often, in seconds.
    pub interval_s: i64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Own(setup) => {
                let medium = if setup.powersafe { "powersafe" } else { "guarded" };
                let locking = if setup.exclusive { "exclusive" } else { "shared" };
                let upkeep = if setup.upkeep { "compaction+retention" } else { "plain" };
                write!(f, "varved {medium} {locking} {upkeep}")?;
            }
            What::Rows => f.write_str("rows, stock SQLite")?,
            What::RowsSingly => f.write_str("rows, one per commit")?,
            What::Floor => f.write_str("log floor")?,
        }
        write!(f, " T={}", self.interval_s)
    }
}

/// All lines that `args` asks for, in the order of the table.
pub(crate) fn lines(args: &Args) -> Vec<Line> {
    let mut all = Vec::new();
    for interval_s in [1, 10, 60] {
        for what in [What::Floor, What::Rows].into_iter().chain(setups(args.quick).map(What::Own)) {
            all.push(Line { what, interval_s });
        }
    }
    all.push(Line { what: What::RowsSingly, interval_s: 1 });
    all.retain(|line| args.only.is_empty() || args.only.iter().any(|words| has(&line.to_string(), words)));
    all
}

/// Whether `name` has `words` in it; `T=1` is not in `T=10`.
fn has(name: &str, words: &str) -> bool {
    let digit = |text: Option<char>| text.is_some_and(|c| c.is_ascii_digit());
    let broken = |at: usize| digit(words.chars().last()) && digit(name[at + words.len()..].chars().next());
    name.match_indices(words).any(|(at, _)| !broken(at))
}

fn setups(quick: bool) -> impl Iterator<Item = Setup> {
    let all = (0..8).map(|i| Setup { powersafe: i & 4 != 0, exclusive: i & 2 != 0, upkeep: i & 1 != 0 });
    all.filter(move |s| !quick || (s.exclusive && !s.upkeep) || (s.upkeep && !s.powersafe))
}

impl Line {
    /// The subject, new on the medium.
    pub(crate) fn subject(&self, medium: &Medium) -> Outcome<Box<dyn Subject>> {
        let dir = medium.dir();
        Ok(match self.what {
            What::Own(setup) => Box::new(Own::new(dir, setup, self.interval_s)?),
            What::Rows => Box::new(Rows::new(dir, false)?),
            What::RowsSingly => Box::new(Rows::new(dir, true)?),
            What::Floor => Box::new(Floor::new(dir)?),
        })
    }

    /// How long to measure it: where there is no log to go by, 20 minutes and 50 commits at least.
    pub(crate) fn extent(&self, args: &Args) -> Extent {
        let seconds = if args.quick { 600 } else { 1_800 };
        Extent { cycles: args.cycles, commits: (seconds / self.interval_s as u64).max(60) }
    }
}
