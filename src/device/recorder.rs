//! The recorder: readings into the batch, batches into the store.
//!
//! What enters: readings from the sensors, anchors from the clock, requests to flush. What leaves: commits. One batch fills
//! while the one before is being committed; both together are bounded by the configuration, and what does not fit while
//! the medium takes no writes is counted and dated by the batch, as a loss that is committed as soon as anything is.
//! A commit that fails is tried again with the same readings on the same connection, for as long as the service runs:
//! after a failed fsync the only copy that is whole is the one in RAM.

use super::status::Shared;
use crate::batch::{Batch, BatchLimits, Registry, Sealed};
use crate::clock::{Anchor, Clock, SECOND};
use crate::reading::Reading;
use crate::store::{Committed, StoreError, StoreGone, StoreHandle};
use smol::channel::{Receiver, Sender};
use smol::future;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of a commit that failed: from this …
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// … doubling up to this.
const RETRY_LAST: Duration = Duration::from_secs(15);

/// What the control socket and the signals ask of the recorder.
#[derive(Debug)]
pub enum Ask {
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
    /// From the control socket and the signals.
    pub asks: Receiver<Ask>,
    /// To the uplink: something was committed. Bounded to one, since once is as good as often.
    pub committed: Sender<()>,
}

/// The task and what it holds in RAM.
pub struct Recorder {
    ends: Ends,
    batch: Batch,
    anchors: Vec<Anchor>,
    committing: Option<Committing>,
    /// Batches sealed so far; a flush waits for one of these numbers to be done.
    sealed: u64,
    waiting: Vec<(u64, Sender<()>)>,
    finishing: bool,
    desk: Desk,
}

/// What a commit needs besides its readings.
#[derive(Clone)]
struct Desk {
    store: StoreHandle,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

type Committing = Pin<Box<dyn Future<Output = Result<Committed, StoreGone>>>>;

/// What woke the recorder.
enum Wake {
    Readings(Option<Vec<Reading>>),
    Anchor(Anchor),
    Ask(Ask),
    Done(Result<Committed, StoreGone>),
    Due,
}

impl Recorder {
    /// A recorder with an empty batch.
    pub fn new(
        limits: BatchLimits,
        ends: Ends,
        store: StoreHandle,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            ends,
            batch: Batch::new(limits),
            anchors: Vec::new(),
            committing: None,
            sealed: 0,
            waiting: Vec::new(),
            finishing: false,
            desk: Desk { store, registry, clock, shared },
        }
    }

    /// Records until [`Ask::Finish`] has been answered.
    ///
    /// # Errors
    /// [`StoreGone`] when the store's thread has ended.
    pub async fn run(mut self) -> Result<(), StoreGone> {
        loop {
            self.answer_flushes();
            if self.finishing && self.waiting.is_empty() {
                return Ok(());
            }
            self.begin_commit_if_due();
            match self.next().await {
                Wake::Readings(readings) => self.take(readings.unwrap_or_default()),
                Wake::Anchor(anchor) => self.anchors.push(anchor),
                Wake::Ask(ask) => self.hear(ask),
                Wake::Done(outcome) => self.note_commit(&outcome?),
                Wake::Due => {}
            }
        }
    }

    async fn next(&mut self) -> Wake {
        let now = self.desk.clock.now().boot;
        let due = self.batch.due_at().filter(|_| self.committing.is_none()).map(|at| at.0 - now.0);
        let ends = &self.ends;
        let readings = async { Wake::Readings(ends.readings.recv().await.ok()) };
        let anchor = async { or_never(ends.anchors.recv().await.ok()).await };
        let ask = async { or_never(ends.asks.recv().await.ok()).await };
        let committing = &mut self.committing;
        let done = async {
            match committing {
                Some(commit) => Wake::Done(commit.await),
                None => future::pending().await,
            }
        };
        let timer = async {
            match due {
                Some(ns) => drop(smol::Timer::after(Duration::from_nanos(ns.max(0).unsigned_abs())).await),
                None => future::pending().await,
            }
            Wake::Due
        };
        // In this order: what is done frees room, who asks is waiting, and readings never run dry.
        let asked = future::or(async { Wake::Ask(ask.await) }, async { Wake::Anchor(anchor.await) });
        future::or(future::or(done, asked), future::or(timer, readings)).await
    }

    fn take(&mut self, readings: Vec<Reading>) {
        if readings.is_empty() && self.ends.readings.is_closed() {
            self.finishing |= self.ends.asks.is_closed();
        }
        let now = self.desk.clock.now().boot;
        self.desk.shared.taken(readings.len());
        for reading in readings {
            self.batch.push(reading, now);
        }
        self.show_risk();
    }

    fn hear(&mut self, ask: Ask) {
        while let Ok(readings) = self.ends.readings.try_recv() {
            self.take(readings);
        }
        while let Ok(anchor) = self.ends.anchors.try_recv() {
            self.anchors.push(anchor);
        }
        let (reply, finish) = match ask {
            Ask::Flush(reply) => (reply, false),
            Ask::Finish(reply) => (reply, true),
        };
        self.finishing |= finish;
        let open = !self.batch.is_empty() || (finish && !self.anchors.is_empty());
        self.waiting.push((self.sealed + u64::from(open), reply));
    }

    fn begin_commit_if_due(&mut self) {
        let now = self.desk.clock.now();
        let asked = self.waiting.iter().any(|(number, _)| *number > self.sealed);
        if self.committing.is_some() || !(asked || self.batch.due(now.boot)) {
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
        self.desk.shared.risk(self.batch.risk(), self.committing.is_some());
    }
}

impl Desk {
    /// Commits, for as long as it takes.
    async fn commit(self, sealed: Arc<Sealed>, anchors: Arc<[Anchor]>) -> Result<Committed, StoreGone> {
        self.shared.in_commit(sealed.n, sealed.oldest);
        let mut wait = RETRY_FIRST;
        loop {
            let (batch, anchors, desk) = (sealed.clone(), anchors.clone(), self.clone());
            let began = self.clock.now().boot;
            let outcome =
                self.store.run(move |store| store.commit(&batch, &desk.registry, &anchors, desk.clock.now())).await?;
            match outcome {
                Ok(committed) => {
                    let took_ms = (self.clock.now().boot.0 - began.0) * 1000 / SECOND;
                    log::debug!("store: {} readings in {} bytes on flash after {took_ms} ms", committed.n, committed.bytes);
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
        self.shared.store_fault(fault.to_string());
    }
}

/// A channel whose senders are gone has nothing more to say, which is no reason to wake.
async fn or_never<T>(message: Option<T>) -> T {
    match message {
        Some(message) => message,
        None => future::pending().await,
    }
}
