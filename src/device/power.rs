//! The power-fail input at work: when it says that the power fails, what is in RAM is committed at once.
//!
//! What enters: what is [`Seen`](crate::power_fail::Seen) of the input. What leaves: a request to the recorder, one line in the log once
//! that is done, what `status` shows. While the power fails commits are short and upkeep rests, for as long as a supercap may
//! last; then the service goes on as before. It promises that no fault of the input ends or delays the recording.

use super::recorder::Ask;
use super::{Desk, lock};
use crate::clock::{BootNanos, SECOND, UtcNanos};
use crate::config::PowerFailConfig;
use crate::power_fail::{Input, InputError, News, Supply};
use serde::{Deserialize, Serialize};
use smol::Timer;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{or, pending};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Before an input that is not there is looked for again: a driver may come late.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// How long the line in the log waits for the commit that it tells of.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// What the tasks know of the input.
pub(super) type SharedPower = Arc<Mutex<Known>>;

/// What is known of the input.
#[derive(Debug, Default)]
pub(super) struct Known {
    supply: Supply,
    /// From the latest edge to the commit, where it was waited for.
    committed_in: Option<Duration>,
    fault: Option<String>,
}

/// What `status` shows of the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PowerReport {
    /// Whether there is one to watch.
    configured: bool,
    /// Which.
    input: Option<String>,
    /// It says that the power fails; none where it is not known.
    active: Option<bool>,
    /// How often it failed since the service started.
    times: u64,
    /// UTC of the last time, ISO 8601, by the clock of the time.
    last: Option<String>,
    /// Seconds since then, by the clock that does not jump.
    last_age_s: Option<f64>,
    /// How long it took then until what was in RAM was on flash, in milliseconds.
    last_commit_ms: Option<f64>,
    /// Why there is no input, and what to do; none while all is well.
    fault: Option<String>,
}

impl Desk {
    /// Watches the input that is configured, for ever.
    pub(super) async fn watch_power(self, config: PowerFailConfig, asks: Sender<Ask>) {
        let mut watch = Watch { desk: self, name: config.input.to_string(), asks, unanswered: None };
        loop {
            let why = match Input::open(&config, &watch.desk.config.root) {
                Ok(input) => watch.follow(input).await,
                Err(why) => why,
            };
            watch.note_fault(&why);
            Timer::after(OPEN_AGAIN).await;
        }
    }

    /// What `status` shows.
    pub(super) fn power_report(&self) -> PowerReport {
        let (config, now) = (&self.config.power_fail, self.clock.boot());
        let known = lock(&self.power);
        let last = known.supply.last();
        PowerReport {
            configured: config.is_some(),
            input: config.as_ref().map(|config| config.input.to_string()),
            active: known.supply.is_failing(),
            times: known.supply.times(),
            last: last.map(|at| UtcNanos(at.utc.0).to_string()),
            last_age_s: last.map(|at| (now.0 - at.boot.0).max(0) as f64 / SECOND as f64),
            last_commit_ms: known.committed_in.map(|span| span.as_secs_f64() * 1e3),
            fault: known.fault.clone(),
        }
    }
}

/// The task that watches.
struct Watch {
    desk: Desk,
    /// The input, as it is configured.
    name: String,
    asks: Sender<Ask>,
    /// A commit that was asked for and not answered yet. There is one at the most, lest those who wait grow in number while
    /// the medium takes no writes.
    unanswered: Option<Receiver<()>>,
}

impl Watch {
    /// Until the input is lost, and why.
    async fn follow(&mut self, mut input: Input) -> InputError {
        let mut first = true;
        loop {
            let steady_at = lock(&self.desk.power).supply.steady_at();
            let seen = match or(async { Some(input.next().await) }, self.wait_until(steady_at)).await {
                Some(Ok(seen)) => Some(seen),
                Some(Err(why)) => return why,
                None => None,
            };
            let now = self.desk.clock.now();
            let news = {
                let supply = &mut lock(&self.desk.power).supply;
                let news = match seen {
                    Some(seen) => supply.see(seen, now),
                    None => supply.wait(now.boot),
                };
                self.desk.shared.hurry(supply.hurry_until());
                news
            };
            match news {
                Some(News::Fails { from_the_start }) => self.power_fails(from_the_start).await,
                Some(News::Back { after }) => {
                    let after_s = after.0 as f64 / SECOND as f64;
                    log::info!("power: back after {after_s:.3} s, says {}; recording goes on as before", self.name);
                }
                None => {}
            }
            if std::mem::take(&mut first) {
                self.note_found();
            }
        }
    }

    async fn wait_until<T>(&self, at: Option<BootNanos>) -> Option<T> {
        let Some(at) = at else { return pending().await };
        let left = (at.0 - self.desk.clock.boot().0).max(0).unsigned_abs();
        Timer::after(Duration::from_nanos(left)).await;
        None
    }

    /// The commit first, all words after it: there may be no more than some hundred milliseconds.
    async fn power_fails(&mut self, from_the_start: bool) {
        let (begun, at_risk) = (Instant::now(), self.desk.shared.report(self.desk.clock.now()).0.readings);
        let done = self.commit().await;
        let took = done.then(|| begun.elapsed());
        lock(&self.desk.power).committed_in = took;
        let name = &self.name;
        let then = match took {
            Some(took) => format!("{at_risk} readings committed in {:.1} ms", took.as_secs_f64() * 1e3),
            None => format!("{at_risk} readings not committed yet; see what `varved status` says of the store"),
        };
        match from_the_start {
            false => log::warn!("power: it fails, says {name}; {then}"),
            true => log::warn!(
                "power: it fails already, says {name}, as it is found; {then}; if it does not fail, turn `active` round"
            ),
        }
    }

    /// Commits what is in RAM; false where that takes too long to wait for. It is done all the same.
    async fn commit(&mut self) -> bool {
        if self.unanswered.as_ref().is_some_and(|earlier| earlier.is_empty() && !earlier.is_closed()) {
            let _ = self.asks.send(Ask::Commit).await;
            return false;
        }
        let (reply, answered) = bounded(1);
        let _ = self.asks.send(Ask::Flush(reply)).await;
        let done = or(async { answered.recv().await.is_ok() }, async {
            Timer::after(COMMIT_PATIENCE).await;
            false
        });
        let done = done.await;
        self.unanswered = Some(answered);
        done
    }

    fn note_found(&self) {
        let was_lost = lock(&self.desk.power).fault.take().is_some();
        log::info!("power: watching {}{}", self.name, if was_lost { ", which is there again" } else { "" });
    }

    /// Once for each reason, not at each try.
    fn note_fault(&self, why: &InputError) {
        let why = why.to_string();
        let mut known = lock(&self.desk.power);
        known.supply.lose();
        if known.fault.as_ref() != Some(&why) {
            log::error!("power: recording goes on without the power-fail input: {why}");
            known.fault = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::power_fail::edge;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// The task and the other end of its questions, which the test answers as the recorder would.
    fn watch(dir: &tempfile::TempDir) -> (Watch, Receiver<Ask>) {
        let text =
            format!("[store]\npath = \"{}\"\n[power_fail]\ngpio = \"PWR_FAIL\"", dir.path().join("v.db").display());
        let desk = Desk::new(Config::parse_on(&text, "test.toml", "host").expect("a configuration")).expect("a start");
        let (asks, asked) = bounded(4);
        (Watch { desk, name: "PWR_FAIL".into(), asks, unanswered: None }, asked)
    }

    /// An edge of a line asks for a commit and starts the hurry; the way back ends it after a second; a chip that goes ends the
    /// watch and nothing else.
    #[test]
    fn an_edge_of_a_line_asks_for_a_commit() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut watch, asked) = watch(&dir);
        let (read, mut line) = UnixStream::pair().expect("a pair");
        let desk = watch.desk.clone();
        let hurries = || desk.shared.hurries(desk.clock.boot());
        let (followed, why) = std::sync::mpsc::channel();
        let task = std::thread::spawn(move || {
            let why = smol::block_on(watch.follow(Input::played(false, read.into())));
            watch.note_fault(&why);
            followed.send(why.to_string()).expect("a listener");
        });
        line.write_all(&edge(true)).expect("an edge");
        let Ok(Ask::Flush(reply)) = asked.recv_blocking() else { panic!("nothing is asked") };
        assert!(hurries() && desk.power_report().active == Some(true));
        assert_eq!(desk.power_report().last_commit_ms, None, "it is not on flash yet");
        reply.try_send(()).expect("an answer");
        line.write_all(&edge(false)).expect("an edge");
        while desk.power_report().active != Some(false) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!hurries() && asked.is_empty());
        let report = desk.power_report();
        assert!(report.times == 1 && report.last_commit_ms > Some(0.0) && report.last_age_s >= Some(1.0), "{report:?}");
        drop(line);
        assert!(why.recv().expect("why").starts_with("can't read line gpiochip0:1"));
        task.join().expect("the task");
        assert_eq!((desk.power_report().active, desk.power_report().fault.is_some()), (None, true));
    }

    /// While the medium takes no writes nobody answers; however often the power fails then, one of those who wait is ours.
    #[test]
    fn one_commit_is_waited_for_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut watch, asked) = watch(&dir);
        assert!(!smol::block_on(watch.commit()));
        let Ok(Ask::Flush(reply)) = asked.try_recv() else { panic!("a flush") };
        assert!(!smol::block_on(watch.commit()));
        assert!(matches!(asked.try_recv(), Ok(Ask::Commit)));
        reply.try_send(()).expect("an answer, late");
        drop(reply);
        assert!(!smol::block_on(watch.commit()));
        assert!(matches!(asked.try_recv(), Ok(Ask::Flush(_))));
    }
}
