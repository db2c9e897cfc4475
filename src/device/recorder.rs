//! The recorder: readings into the batch, batches into the store.
//!
//! What enters: readings from the sensors, anchors from the clock, requests to flush. What leaves: commits. One batch fills
//! while the one before is being committed; both together are bounded by the configuration, and what does not fit while
//! the medium takes no writes is counted and dated by the batch, as a loss that is committed as soon as anything is. While
//! it does take writes nothing overflows: a source that is faster than the flash is held back instead.
//! A commit that fails is tried again with the same readings on the same connection, for as long as the service runs:
//! after a failed fsync the only copy that is whole is the one in RAM.

use super::status::Shared;
use crate::batch::{Batch, BatchLimits, Registry, Sealed};
use crate::clock::{Anchor, Clock};
use crate::reading::Reading;
use crate::store::thread::{StoreGone, StoreHandle};
use crate::store::{Committed, StoreError};
use smol::channel::{Receiver, Sender};
use smol::future::{or, pending};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Between two tries of a commit that failed: from this …
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// … doubling up to this.
const RETRY_LAST: Duration = Duration::from_secs(15);

/// While the power fails what comes in is committed after this, if not before.
const HURRIED: Duration = Duration::from_millis(250);

/// What the control socket and the signals ask of the recorder.
#[derive(Debug)]
pub enum Ask {
    /// Commit everything that has arrived. Nobody waits, so that many are one.
    Commit,
    /// Commit everything that has arrived, then answer.
    Flush(Sender<()>),
    /// The same, then end: no reading is taken after this.
    Finish(Sender<()>),
}

/// The ends that the recorder reads from and writes to.
#[derive(Debug)]
pub struct Ends {
    /// From the sensors.
    pub readings: Receiver<Vec<Reading>>,
    /// From the clock task.
    pub anchors: Receiver<Anchor>,
    /// From the control socket, the signals and the power-fail input.
    pub asks: Receiver<Ask>,
    /// To the uplink: something was committed. Bounded to one, since once is as good as often.
    pub committed: Sender<()>,
}

/// The task and what it holds in RAM.
pub struct Recorder {
    ends: Ends,
    batch: Batch,
    /// The commit interval that is configured.
    interval: Duration,
    /// Of the buffer, in bytes: from here on a commit is waited for before more is taken in.
    hold_back_bytes: u64,
    anchors: Vec<Anchor>,
    committing: Option<Committing>,
    /// Chunks of readings taken in so far.
    taken: u64,
    /// Who asked, and how many chunks must be taken in before the question can be answered: those that were in the queue.
    asked: VecDeque<(u64, Ask)>,
    /// Batches sealed so far; a flush waits for one of these numbers to be done.
    sealed: u64,
    waiting: Vec<(u64, Sender<()>)>,
    /// The batch up to which a commit was asked for by somebody who doesn't wait.
    wanted: u64,
    finishing: bool,
    desk: Desk,
}

/// What a commit needs besides its readings.
#[derive(Clone)]
pub struct Desk {
    /// Where it goes.
    pub store: StoreHandle,
    /// What the series are.
    pub registry: Arc<Registry>,
    /// When it is.
    pub clock: Arc<dyn Clock>,
    /// Where it is told.
    pub shared: Arc<Shared>,
    /// Whether the last try failed.
    pub failing: Arc<AtomicBool>,
}

type Committing = Pin<Box<dyn Future<Output = Result<Committed, StoreGone>> + Send>>;

/// What woke the recorder.
enum Wake {
    Readings(Vec<Reading>),
    Anchor(Anchor),
    Ask(Ask),
    Done(Result<Committed, StoreGone>),
    Due,
}

impl Recorder {
    /// A recorder whose batch has these limits.
    pub fn new(limits: BatchLimits, ends: Ends, desk: Desk) -> Self {
        Self {
            ends,
            batch: Batch::new(limits, desk.registry.clone()),
            interval: limits.interval,
            hold_back_bytes: limits.buffer_bytes / 4 * 3,
            anchors: Vec::new(),
            committing: None,
            taken: 0,
            asked: VecDeque::new(),
            sealed: 0,
            waiting: Vec::new(),
            wanted: 0,
            finishing: false,
            desk,
        }
    }

    /// Records until [`Ask::Finish`] has been answered.
    ///
    /// # Errors
    /// [`StoreGone`] when the store's thread has ended.
    pub async fn run(mut self) -> Result<(), StoreGone> {
        loop {
            self.hear_those_whose_turn_it_is();
            self.answer_flushes();
            if self.finishing && self.waiting.is_empty() {
                return Ok(());
            }
            self.batch.set_interval(self.interval_now());
            self.begin_commit_if_due();
            match self.next().await {
                Wake::Readings(readings) => self.take(readings),
                Wake::Anchor(anchor) => self.anchors.push(anchor),
                Wake::Ask(ask) => self.note_ask(ask),
                Wake::Done(outcome) => self.note_commit(&outcome?),
                Wake::Due => {}
            }
        }
    }

    /// That of the wear governor where there is one; a short one while the power fails.
    fn interval_now(&self) -> Duration {
        let interval = self.desk.shared.interval().unwrap_or(self.interval);
        let hurries = self.desk.shared.hurries(self.desk.clock.boot());
        if hurries { interval.min(HURRIED) } else { interval }
    }

    async fn next(&mut self) -> Wake {
        let now = self.desk.clock.boot();
        let due = self.batch.due_at().filter(|_| self.committing.is_none()).map(|at| at.0 - now.0);
        let open = !self.holds_back();
        let ends = &self.ends;
        let readings = async {
            match open {
                true => or_never(ends.readings.recv().await.ok()).await,
                false => pending().await,
            }
        };
        let committing = &mut self.committing;
        let done = async {
            match committing {
                Some(commit) => Wake::Done(commit.await),
                None => pending().await,
            }
        };
        let timer = async {
            match due {
                Some(ns) => drop(smol::Timer::after(Duration::from_nanos(ns.max(0).unsigned_abs())).await),
                None => pending().await,
            }
            Wake::Due
        };
        let ask = async { Wake::Ask(or_never(ends.asks.recv().await.ok()).await) };
        let anchor = async { Wake::Anchor(or_never(ends.anchors.recv().await.ok()).await) };
        // In this order: what is done frees room, who asks is waiting, and readings never run dry. The timer is only to wake
        // one who sleeps: whether a commit is due is looked at in every turn.
        or(or(done, or(ask, anchor)), or(async { Wake::Readings(readings.await) }, timer)).await
    }

    /// While a commit is on its way and the buffer nearly full, sources wait; where commits fail, it may be for long, and
    /// the newest readings are lost, with an account, rather than every source stopped.
    fn holds_back(&self) -> bool {
        let failing = self.desk.failing.load(Relaxed);
        self.committing.is_some() && !failing && self.batch.bytes() >= self.hold_back_bytes
    }

    fn take(&mut self, readings: Vec<Reading>) {
        let now = self.desk.clock.boot();
        self.taken += 1;
        self.desk.shared.taken(readings.len());
        for reading in readings {
            // An overflow is counted and dated by the batch, and becomes a loss segment.
            let _ = self.batch.push(reading, now);
        }
        self.show_risk();
    }

    /// Those who wait are as few as the workers of the control socket, and one. Signals come as fast as somebody sends them: of those
    /// for one state of the queue the first is enough.
    fn note_ask(&mut self, ask: Ask) {
        let after = self.taken + self.ends.readings.len() as u64;
        let known = |(other, asked): &(u64, Ask)| *other == after && matches!(asked, Ask::Commit);
        if !(matches!(ask, Ask::Commit) && self.asked.iter().any(known)) {
            self.asked.push_back((after, ask));
        }
    }

    /// What was in the queue when they asked has been taken in: the batch that it is in is the one to wait for.
    fn hear_those_whose_turn_it_is(&mut self) {
        while self.asked.front().is_some_and(|(after, _)| *after <= self.taken) {
            let Some((_, ask)) = self.asked.pop_front() else { return };
            while let Ok(anchor) = self.ends.anchors.try_recv() {
                self.anchors.push(anchor);
            }
            let (reply, finish) = match ask {
                Ask::Commit => {
                    self.wanted = self.sealed + u64::from(self.batch.due_at().is_some());
                    continue;
                }
                Ask::Flush(reply) => (reply, false),
                Ask::Finish(reply) => (reply, true),
            };
            self.finishing |= finish;
            let open = self.batch.due_at().is_some() || (finish && !self.anchors.is_empty());
            self.waiting.push((self.sealed + u64::from(open), reply));
        }
    }

    fn begin_commit_if_due(&mut self) {
        let now = self.desk.clock.boot();
        let asked = self.wanted > self.sealed || self.waiting.iter().any(|(number, _)| *number > self.sealed);
        if self.committing.is_some() || !(asked || self.batch.due(now)) {
            return;
        }
        let sealed = Arc::new(self.batch.seal());
        let anchors: Arc<[Anchor]> = std::mem::take(&mut self.anchors).into();
        self.sealed += 1;
        self.committing = Some(Box::pin(self.desk.clone().commit(sealed, anchors)));
        self.show_risk();
    }

    fn note_commit(&mut self, committed: &Committed) {
        self.committing = None;
        self.desk.shared.committed(committed, self.desk.clock.now());
        self.show_risk();
        let _ = self.ends.committed.try_send(());
    }

    fn answer_flushes(&mut self) {
        let done = self.sealed - u64::from(self.committing.is_some());
        self.waiting.retain(|(number, reply)| {
            let answered = *number <= done;
            if answered {
                let _ = reply.try_send(());
            }
            !answered
        });
    }

    fn show_risk(&self) {
        self.desk.shared.risk(self.batch.risk(), self.batch.due_at());
    }
}

impl Desk {
    /// Commits, for as long as it takes.
    async fn commit(self, sealed: Arc<Sealed>, anchors: Arc<[Anchor]>) -> Result<Committed, StoreGone> {
        let mut wait = RETRY_FIRST;
        loop {
            let (batch, anchors, desk) = (sealed.clone(), anchors.clone(), self.clone());
            let commit = self.store.run(move |store| store.commit(&batch, &desk.registry, &anchors, desk.clock.now()));
            match commit.await? {
                Ok(committed) => {
                    self.failing.store(false, Relaxed);
                    return Ok(committed);
                }
                Err(fault) => self.put_off(&fault, sealed.n, wait),
            }
            smol::Timer::after(wait).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    fn put_off(&self, fault: &StoreError, readings: u64, wait: Duration) {
        log::error!("store: {readings} readings wait in RAM, next try in {} ms: {fault}", wait.as_millis());
        self.failing.store(true, Relaxed);
        self.shared.store_fault(fault.to_string());
    }
}

/// A channel whose senders are gone has nothing more to say, which is no reason to wake.
async fn or_never<T>(message: Option<T>) -> T {
    match message {
        Some(message) => message,
        None => pending().await,
    }
}
