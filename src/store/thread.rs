//! The store on its own thread. A commit may block for hundreds of milliseconds on a card; nothing else may wait for it.
//!
//! What enters: closures over the store, through a bounded channel. What leaves: their answers. One at a time, in order.
//! It decides nothing. A closure that panics ends the thread, and every call after that answers [`StoreGone`].

use super::{Store, StoreError};
use smol::channel::{Receiver, Sender, bounded};

/// Calls that may wait; the next one waits to be let in.
const QUEUE: usize = 8;

/// SQLite's own needs are below 100 KiB here; the rest is for decoding and merging segments.
const STACK_BYTES: usize = 512 << 10;

/// The store's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreGone;

impl std::fmt::Display for StoreGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store has been closed; restart varved")
    }
}

impl std::error::Error for StoreGone {}

enum Job {
    Run(Box<dyn FnOnce(&mut Store) + Send>),
    Close(Sender<Result<(), StoreError>>),
}

/// A way to call the store from any task. Cheap to clone; when the last one is dropped the store is closed.
#[derive(Clone)]
pub struct StoreHandle {
    jobs: Sender<Job>,
}

/// Moves `store` to a thread of its own, named `varved-store`.
///
/// # Errors
/// [`StoreError::Io`] where the system gives no thread.
pub fn spawn(store: Store) -> Result<StoreHandle, StoreError> {
    let (jobs, queue) = bounded(QUEUE);
    let path = store.path().to_owned();
    std::thread::Builder::new()
        .name("varved-store".into())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(store, &queue))
        .map_err(|e| StoreError::io("start a thread for", &path, e))?;
    Ok(StoreHandle { jobs })
}

fn serve(mut store: Store, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv_blocking() {
        match job {
            Job::Run(work) => work(&mut store),
            Job::Close(answer) => {
                queue.close();
                // The one who asked may have gone; the store is closed all the same.
                let _ = answer.try_send(store.close());
                return;
            }
        }
    }
    if let Err(e) = store.close() {
        log::error!("store: closing: {e}");
    }
}

impl StoreHandle {
    /// Runs `work` on the store's thread. If the caller stops waiting, the work is done all the same.
    ///
    /// # Errors
    /// [`StoreGone`] after [`StoreHandle::close`].
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> R + Send + 'static,
    ) -> Result<R, StoreGone> {
        let (answer, answered) = bounded(1);
        let job = Job::Run(Box::new(move |store| {
            // The one who asked may have stopped waiting.
            let _ = answer.try_send(work(store));
        }));
        self.jobs.send(job).await.map_err(|_| StoreGone)?;
        answered.recv().await.map_err(|_| StoreGone)
    }

    /// Ends the thread after a clean stop of the store: what is in the queue before this is done first.
    ///
    /// # Errors
    /// [`StoreGone`] where it had ended before. The inner result is that of [`Store::close`].
    pub async fn close(&self) -> Result<Result<(), StoreError>, StoreGone> {
        let (answer, answered) = bounded(1);
        self.jobs.send(Job::Close(answer)).await.map_err(|_| StoreGone)?;
        answered.recv().await.map_err(|_| StoreGone)
    }
}
