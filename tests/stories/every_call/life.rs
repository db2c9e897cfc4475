//! One short life of the service with one fault in it, and the look at what it left.

use super::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use varved::clock::{BootNanos, Now, UtcNanos};
use varved::config::Config;
use varved::store::{Identity, Store};

/// Readings in a commit.
const EACH: u64 = 8;
/// Commits in the log that a start has to replay.
const COMMITS_BEFORE: u64 = 3;
/// How long anything may take: an open that failed is tried again after 5 s, and the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// Which part of a life is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    /// A start without any file, and a commit.
    First,
    /// A start that finds a log to replay, and a commit.
    Replay,
    /// From a start on, so many commits and the clean stop.
    Running {
        /// How many.
        commits: u64,
    },
}

/// How a life went with its fault, where nothing was wrong.
pub(super) enum Outcome {
    /// The fault was not met.
    Missed,
    /// All was answered; or the process was killed, and what it had answered is there.
    Lived,
    /// The service ended with a documented code, and said why.
    Ended,
}

/// The files that a life begins with, and how many readings are in them.
pub(super) struct Base {
    files: BTreeMap<String, Vec<u8>>,
    held: u64,
}

impl Base {
    pub(super) fn of(life: Life) -> Self {
        if life == Life::First {
            return Self { files: BTreeMap::new(), held: 0 };
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let site = site(dir.path());
        let device = site.run();
        let held = COMMITS_BEFORE * EACH;
        for n in 0..COMMITS_BEFORE {
            site.send(&lines(n * EACH));
            site.ask("flush").unwrap();
        }
        device.kill9();
        let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("varved.db"));
        let files = ours.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
        Self { files: files.collect(), held }
    }

    fn lay_out(&self, dir: &Path) {
        self.files.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
    }
}

fn site(dir: &Path) -> Site {
    Site::new(dir, "pump-17", "commit_interval = \"1h\"\nmax_size = \"8MiB\"", "")
}

fn lines(from: u64) -> String {
    (from..from + EACH).map(|n| format!("m v={n}i {}\n", n + 1)).collect()
}

/// The files that faults are injected for, whether they are there or not.
fn watched(dir: &Path) -> Vec<PathBuf> {
    let names = ["", "-wal", "-shm", "-high-water", "-lock", "-journal", "-suspect", "-moving", "-rescue", "-rescued"];
    let mut all: Vec<PathBuf> = names.iter().map(|name| dir.join(format!("varved.db{name}"))).collect();
    all.push(dir.to_owned());
    all
}

/// A service that lives, and its tracer.
struct Traced {
    service: Child,
    /// Where it is not the service's own grandparent, as it were.
    tracer: Option<Child>,
    site: Site,
    trace: PathBuf,
}

impl Life {
    /// How often each of `calls` is made by the thread that makes it most often: strace counts by thread.
    pub(super) fn count(self, base: &Base, calls: &[&'static str]) -> BTreeMap<&'static str, u64> {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        base.lay_out(dir.path());
        let mut traced = self.begin(dir.path(), &["-e".to_owned(), format!("trace={}", calls.join(","))]);
        let (sent, answered) = self.go_on(&mut traced, base.held);
        assert_eq!(sent, answered, "without a fault everything is answered");
        assert!(traced.stop().is_some_and(|status| status.success()));
        let text = std::fs::read_to_string(&traced.trace).unwrap();
        let mut counts: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
        for line in text.lines() {
            let (pid, rest) = line.split_once(' ').unwrap();
            for call in
                calls.iter().filter(|call| rest.trim_start().strip_prefix(**call).is_some_and(|r| r.starts_with('(')))
            {
                *counts.entry((pid, call)).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), n) in counts {
            let entry = most.entry(call).or_insert(0);
            *entry = n.max(*entry);
        }
        most
    }

    /// One life with what `inject` says.
    pub(super) fn run(self, base: &Base, inject: &str, kills: bool) -> Result<Outcome, String> {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        base.lay_out(dir.path());
        let call = inject.split(':').next().unwrap();
        let words = ["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), format!("inject={inject}")];
        let mut traced = self.begin(dir.path(), &words);
        let (sent, answered) = self.go_on(&mut traced, base.held);
        let ended_by_itself = traced.ended();
        let status = traced.stop().ok_or("does not end")?;
        let said = std::fs::read_to_string(dir.path().join("device.log")).unwrap_or_default();
        let told = |why: String| Err(format!("{why}\n    {}", said.lines().collect::<Vec<_>>().join("\n    ")));
        let fired = if kills { status.signal() == Some(9) } else { traced.fired() };
        if status.signal().is_some_and(|signal| !(kills && signal == 9)) || said.contains("panicked") {
            return told(format!("{status}"));
        }
        if !kills && ended_by_itself {
            let documented = matches!(status.code(), Some(65 | 69 | 74 | 75 | 78));
            let starting = answered == base.held && !matches!(self, Self::Running { .. });
            if !documented || !starting || !said.contains("varved: ") {
                return told(format!("ended with {status}"));
            }
        } else if !kills && (sent != answered || status.code() != Some(0)) {
            return told(format!("{} of {} answered, {status}", answered, sent));
        }
        if let Err(why) = look(dir.path(), sent, answered) {
            return told(why);
        }
        Ok(match (fired, ended_by_itself && !kills) {
            (false, _) => Outcome::Missed,
            (true, false) => Outcome::Lived,
            (true, true) => Outcome::Ended,
        })
    }

    /// Starts the service under strace, or attaches strace to one that has started.
    fn begin(self, dir: &Path, words: &[String]) -> Traced {
        let (site, trace) = (site(dir), dir.join("trace"));
        let log =
            || Stdio::from(std::fs::OpenOptions::new().create(true).append(true).open(dir.join("device.log")).unwrap());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o"]).arg(&trace).args(words).stdin(Stdio::null());
        for file in watched(dir) {
            strace.arg("-P").arg(file);
        }
        if !matches!(self, Self::Running { .. }) {
            // Then other calls don't stop the process; signals can't be injected so.
            let signals = words.iter().any(|word| word.contains("signal="));
            strace.args(if signals { &[][..] } else { &["--seccomp-bpf"] });
            strace.args(["-D", "-q"]).arg(VARVED).args(["run", "--config"]).arg(&site.config);
            let service = strace.stdout(log()).stderr(log()).spawn().unwrap();
            return Traced { service, tracer: None, site, trace };
        }
        let mut service = Command::new(VARVED);
        service.args(["run", "--config"]).arg(&site.config).stdin(Stdio::null()).stdout(log()).stderr(log());
        let service = service.spawn().unwrap();
        let mut traced = Traced { service, tracer: None, site, trace };
        // It answers, so that it has started; upkeep may look at the files meanwhile.
        assert!(traced.until(|traced| traced.site.ask("status").map(drop)).is_some(), "the service starts");
        let told = std::fs::File::create(dir.join("strace.log")).unwrap();
        strace.args(["-p", &traced.service.id().to_string()]).stdout(Stdio::null()).stderr(told);
        traced.tracer = Some(strace.spawn().unwrap());
        let attached = |_: &mut Traced| {
            let told = std::fs::read_to_string(dir.join("strace.log")).unwrap_or_default();
            told.contains("attached").then_some(())
        };
        assert!(traced.until(attached).is_some(), "strace attaches");
        traced
    }

    /// Sends and flushes, on from `held` readings; how many were sent, and how many were answered for.
    fn go_on(self, traced: &mut Traced, held: u64) -> (u64, u64) {
        let commits = if let Self::Running { commits } = self { commits } else { 1 };
        let (mut sent, mut answered) = (held, held);
        let path = traced.site.dir.join("ingest.sock");
        let Some(mut client) = traced.until(|_| UnixStream::connect(&path).ok()) else { return (sent, answered) };
        for _ in 0..commits {
            if client.write_all(lines(sent).as_bytes()).is_err() {
                break;
            }
            sent += EACH;
            if traced.until(|traced| traced.site.ask("flush")).is_none() {
                break;
            }
            answered = sent;
        }
        (sent, answered)
    }
}

/// Between two looks: short at first, since most things come at once, and longer where a life waits for its next try, since
/// many live at a time and every look costs.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(4))
    }
}

impl Pause {
    fn take(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 3 / 2).min(Duration::from_millis(100));
    }
}

impl Traced {
    fn ended(&mut self) -> bool {
        self.service.try_wait().unwrap().is_some()
    }

    /// Asks until there is an answer, or the service has ended, or patience has.
    fn until<T>(&mut self, mut ready: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let (end, mut pause) = (Instant::now() + PATIENCE, Pause::default());
        loop {
            if let Some(answer) = ready(self) {
                return Some(answer);
            }
            if self.ended() || Instant::now() > end {
                return None;
            }
            pause.take();
        }
    }

    /// SIGTERM where it lives, and how it ended; then the tracer has too.
    fn stop(&mut self) -> Option<ExitStatus> {
        if !self.ended() {
            let _ = Command::new("kill").args(["-TERM", &self.service.id().to_string()]).stderr(Stdio::null()).status();
        }
        let (end, mut pause) = (Instant::now() + PATIENCE, Pause::default());
        while !self.ended() {
            if Instant::now() > end {
                let _ = self.service.kill();
                return None;
            }
            pause.take();
        }
        let (pid, mut pause) = (self.service.id().to_string(), Pause::default());
        while Instant::now() < end && !self.tracer_has_ended(&pid) {
            pause.take();
        }
        self.service.try_wait().unwrap()
    }

    fn tracer_has_ended(&mut self, pid: &str) -> bool {
        match &mut self.tracer {
            Some(tracer) => tracer.try_wait().unwrap().is_some(),
            None => {
                let text = std::fs::read_to_string(&self.trace).unwrap_or_default();
                text.lines().rev().take(8).any(|line| line.starts_with(pid) && line.contains("+++ "))
            }
        }
    }

    fn fired(&self) -> bool {
        std::fs::read_to_string(&self.trace).unwrap_or_default().contains("(INJECTED)")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.service).chain(&mut self.tracer) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Opens what is left with the code of the service: every reading that was answered for is there, each once and the same.
fn look(dir: &Path, sent: u64, answered: u64) -> Result<(), String> {
    let text = std::fs::read_to_string(dir.join("varved.toml")).unwrap();
    let config = Config::parse(&text, "varved.toml").unwrap().store;
    let now = Now { boot: BootNanos(1 << 50), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
    let me = Identity::read(Path::new("/")).unwrap();
    let (store, events) = Store::open(&config, &me, now).map_err(|e| format!("open: {e}"))?;
    let sql = format!(
        "SELECT count(*), count(DISTINCT time), coalesce(sum(time <= {answered}), 0), coalesce(max(time), 0), \
         coalesce(sum(value = time - 1), 0) FROM reading"
    );
    let answer = store.query(&sql).map_err(|e| format!("query: {e}"))?;
    let row: Vec<u64> = answer["rows"][0].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let [n, distinct, sure, last, same] = row[..] else { return Err(format!("{answer}")) };
    if sure != answered || n != distinct || n != same || last > sent {
        return Err(format!(
            "{answered} of {sent} answered; count, distinct, answered, last, same: {row:?}; {events:?}"
        ));
    }
    Ok(())
}
