//! The desk: the thread that files and commits, so that neither keeps the connection from being served.
//!
//! What enters: one [`Job`] at a time. What leaves: for each, what is to be published and which messages the broker may
//! forget. The [`Receiver`] lives here and nowhere else.

use crate::clock::Clock;
use crate::clock::system::SystemClock;
use crate::fleet::FleetError;
use crate::fleet::receiver::{Message, Publication, Receiver};
use crate::mqtt::Ticket;
use smol::channel::{Receiver as Channel, Sender, bounded};
use std::path::Path;
use std::thread::JoinHandle;

/// A message as it came.
pub(super) struct Taken {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) ticket: Ticket,
}

/// What there is to do.
#[derive(Default)]
pub(super) struct Job {
    /// A connection to the broker has begun.
    pub(super) connected: bool,
    /// Messages, in order of arrival; at most [`MAX_GROUP`](crate::fleet::receiver::MAX_GROUP).
    pub(super) group: Vec<Taken>,
    /// It is time to look for what is due without a message.
    pub(super) tick: bool,
}

/// What came of a job: all that the answers name is durable.
pub(super) struct Done {
    pub(super) answers: Vec<Publication>,
    /// In order of arrival.
    pub(super) taken: Vec<Ticket>,
}

/// See the room.
pub(super) struct Desk {
    jobs: Sender<Job>,
    done: Channel<Done>,
    busy: bool,
    thread: JoinHandle<()>,
}

impl Desk {
    /// Gives `receiver` a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(receiver: Receiver) -> Result<Self, FleetError> {
        let (jobs, todo) = bounded(1);
        let (tell, done) = bounded(1);
        let thread = std::thread::Builder::new().name("filing".into());
        let thread = thread.spawn(move || work(receiver, &todo, &tell));
        let thread = thread.map_err(|e| FleetError::Thread { what: "filing", cause: e })?;
        Ok(Self { jobs, done, busy: false, thread })
    }

    /// Whether a job is being done.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands in a job, when none is being done.
    pub(super) fn hand_in(&mut self, job: Job) {
        debug_assert!(!self.busy, "one job at a time");
        // Where the thread is gone, the wait for its answer says so.
        self.busy = self.jobs.try_send(job).is_ok() || self.jobs.is_closed();
    }

    /// Waits for what came of the job; for ever where there is none. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) async fn done(&mut self) -> Result<Done, FleetError> {
        if !self.busy {
            return std::future::pending().await;
        }
        let gone = |_| FleetError::Gone { what: "the thread that files" };
        let done = self.done.recv().await.map_err(gone)?;
        self.busy = false;
        Ok(done)
    }

    /// Ends the thread when its job is done, after it has written the roster.
    pub(super) fn close(self) {
        drop((self.jobs, self.done));
        if self.thread.join().is_err() {
            log::error!("receiver: the thread that files panicked; what was acknowledged is durable");
        }
    }
}

fn work(mut receiver: Receiver, todo: &Channel<Job>, tell: &Sender<Done>) {
    let clock = SystemClock::new(Path::new("/"));
    while let Ok(job) = todo.recv_blocking() {
        if job.connected {
            receiver.connected();
        }
        let messages: Vec<Message<'_>> =
            job.group.iter().map(|taken| Message { topic: &taken.topic, payload: &taken.payload }).collect();
        let mut answers = receiver.apply(&messages, clock.now());
        if job.tick {
            answers.extend(receiver.tick(clock.now()));
        }
        let taken = job.group.iter().map(|taken| taken.ticket).collect();
        if tell.send_blocking(Done { answers, taken }).is_err() {
            break;
        }
    }
    receiver.close(clock.now());
}
