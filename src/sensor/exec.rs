//! A command whose standard output is line protocol, kept running.
//!
//! ```text
//! start ─► read lines ─► ended, silent for too long, or closed its output ─► end the process group ─► wait (backoff) ─► start
//! ```
//!
//! What enters: a command. What leaves: readings. What it writes to standard error goes to the log, a line a minute.
//! It runs in a process group of its own, which is ended as a whole: SIGTERM, and after [`GRACE`] SIGKILL; also what it
//! left running when it exited. The wait doubles with every early end, with full jitter, up to the configured cap.
//!
//! It does not limit what the command does to the machine; that is the init system's part.

use super::counters::Seldom;
use super::poll::stopped;
use super::source::{End, Source, backoff, random, within};
use super::stream::{Found, LineBuffer, sample};
use crate::config::ExecConfig;
use rustix::process::{Pid, Signal, kill_process_group};
use smol::future::or;
use smol::io::{AsyncRead, AsyncReadExt as _};
use smol::process::{Child, Command, Stdio};
use smol::{Executor, Task};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

/// How long a command has to end after SIGTERM, and its output to be read after it ended.
const GRACE: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Spawns the one task of a command.
pub(super) fn spawn(config: &ExecConfig, source: &Source, executor: &Executor<'static>) -> Task<()> {
    executor.spawn(keep_running(config.clone(), source.clone()))
}

async fn keep_running(config: ExecConfig, source: Source) {
    let (mut attempt, mut seldom) = (0, Seldom::default());
    loop {
        let started = source.clock.now().boot;
        let ended = run_once(&config, &source, &mut seldom).await;
        let now = source.clock.now().boot;
        let Some(why) = ended else { return };
        // One that ran for longer than the longest wait is not failing over and over.
        attempt = if now.0 - started.0 > config.backoff.as_nanos() as i64 { 0 } else { attempt };
        let wait = backoff(attempt, FIRST_WAIT, config.backoff, random());
        attempt = attempt.saturating_add(1);
        source.counters.add_error(&why);
        if let Some(others) = seldom.allow(now) {
            let name = source.counters.source();
            log::warn!("sensor: {name}: {why}; next start in {wait:.1?}; {others} notes held back");
        }
        if within(Some(wait), stopped(&source.stop)).await.is_some() {
            return;
        }
        source.counters.add_reconnect();
    }
}

/// Runs the command to its end and says why it ended; `None` where the service stops.
async fn run_once(config: &ExecConfig, source: &Source, seldom: &mut Seldom) -> Option<String> {
    let mut child = match start(&config.command) {
        Ok(child) => child,
        Err(error) => return Some(format!("can't start {:?}: {error}", config.command.first())),
    };
    let mut group = Group::of(&child);
    let (out, err) = (child.stdout.take()?, child.stderr.take()?);
    let talk = source.pump(out, config.timeout, None);
    let exited = async {
        let status = child.status().await;
        // What is still in the pipe is read; what a process it left behind would write is not waited for.
        smol::Timer::after(GRACE).await;
        match status {
            Ok(status) => End::Failed(io::Error::other(status.to_string())),
            Err(error) => End::Failed(error),
        }
    };
    let listen = async {
        log_lines(err, source, seldom).await;
        std::future::pending().await
    };
    let stop = async {
        stopped(&source.stop).await;
        End::Stop
    };
    let end = or(or(talk, exited), or(listen, stop)).await;
    let status = group.end(&mut child).await;
    match end {
        End::Stop => None,
        End::Silent => Some(format!("silent for {:?}", config.timeout.unwrap_or_default())),
        End::Closed => Some(status),
        End::Failed(error) => Some(error.to_string()),
    }
}

fn start(command: &[String]) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut plain = std::process::Command::new(program);
    plain.args(arguments).process_group(0);
    Command::from(plain).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// A process group that is killed when this is dropped, unless it was ended before.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(i32::try_from(child.id()).ok().and_then(Pid::from_raw))
    }

    /// Ends the group, gently first, and says how its leader ended.
    async fn end(&mut self, child: &mut Child) -> String {
        self.signal(Signal::TERM);
        let status = within(Some(GRACE), child.status()).await;
        // Those of the group that did not listen, and those that the leader left behind. (The leader may have been reaped
        // by now. Its number can only be another group's if it was given anew within these moments, after all others.)
        self.signal(Signal::KILL);
        let status = match status {
            Some(status) => Some(status),
            None => within(Some(GRACE), child.status()).await,
        };
        self.0 = None;
        match status {
            Some(Ok(status)) => format!("ended, {status}"),
            Some(Err(error)) => format!("ended, {error}"),
            None => "does not end; the kernel holds it".to_owned(),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // ESRCH: none of the group is left, which is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn log_lines(mut stream: impl AsyncRead + Unpin, source: &Source, seldom: &mut Seldom) {
    let (mut buffer, mut bytes) = (LineBuffer::new(), vec![0; 1024]);
    while let Ok(n @ 1..) = stream.read(&mut bytes).await {
        let now = source.clock.now().boot;
        buffer.feed(&bytes[..n], |found| {
            let (Found::Line(line) | Found::TooLong(line)) = found;
            if let Some(others) = seldom.allow(now) {
                let name = source.counters.source();
                log::warn!("sensor: {name}: it says: {}; {others} notes held back", sample(line));
            }
        });
    }
}
