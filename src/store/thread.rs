//! The store on its own thread. A commit may block for hundreds of milliseconds on a card; nothing else may wait for it.
//!
//! What enters: closures over the store, through a bounded channel. What leaves: their answers. One at a time, in order.
//! It decides one thing: a store whose file turns out to be damaged is opened again, which sets the file aside; nobody else
//! may be there to restart the service. A closure that panics ends the thread, and every call after that answers
//! [`StoreGone`].

use super::{Store, StoreError};
use crate::fault::{Fault, Verdict};
use smol::channel::{Receiver, Sender, bounded};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Calls that may wait; the next one waits to be let in.
const QUEUE: usize = 8;

/// Between two tries to open a store that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// After so many tries to open a file that can't be read it is set aside: what is lost on the medium stays lost, and readings
/// wait in RAM meanwhile.
const UNREADABLE_TRIES: u32 = 3;

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
    closing: Arc<AtomicBool>,
}

/// Moves `store` to a thread of its own, named `varved-store`.
///
/// # Errors
/// [`StoreError::Io`] where the system gives no thread.
pub fn spawn(store: Store) -> Result<StoreHandle, StoreError> {
    on_thread(move |queue, _| serve(store, queue, Some))
}

/// The same with a store that is yet to be opened. One that can't be opened now, but may be later (a full disk, a file system
/// that is read-only), is tried again on that thread; calls wait until then. Each failure is `told`. `open` is given the
/// reason where the file could not be read several times in a row, so that it sets it aside.
///
/// # Errors
/// Of the first try, where another would be no better, or where another process has the file; [`StoreError::Io`] where the
/// system gives no thread.
pub fn spawn_opening(
    mut open: impl FnMut(Option<&StoreError>) -> Result<Store, StoreError> + Send + 'static,
    told: impl Fn(&StoreError) + Send + 'static,
) -> Result<StoreHandle, StoreError> {
    let first = match open(None) {
        Err(why) if why.verdict() != Verdict::Retry || matches!(why, StoreError::InUse { .. }) => return Err(why),
        other => other,
    };
    on_thread(move |queue, closing| {
        let Some(store) = opened(first, &mut open, &told, closing) else { return };
        serve(store, queue, |damaged| {
            log::error!("store: {} is damaged; it is opened again, which sets it aside", damaged.path().display());
            let carried = damaged.carried();
            drop(damaged);
            let mut store = opened(open(None), &mut open, &told, closing)?;
            store.carry_on(carried);
            Some(store)
        });
    })
}

fn on_thread(run: impl FnOnce(&Receiver<Job>, &AtomicBool) + Send + 'static) -> Result<StoreHandle, StoreError> {
    let (jobs, queue) = bounded(QUEUE);
    let closing = Arc::new(AtomicBool::new(false));
    let asked = closing.clone();
    let body = move || run(&queue, &asked);
    let thread = std::thread::Builder::new().name("varved-store".into()).stack_size(STACK_BYTES);
    thread.spawn(body).map_err(|e| StoreError::io("start a thread for", Path::new("the store"), e))?;
    Ok(StoreHandle { jobs, closing })
}

/// Tries until the store is open; `None` once nobody wants it any more.
fn opened(
    mut tried: Result<Store, StoreError>,
    open: &mut impl FnMut(Option<&StoreError>) -> Result<Store, StoreError>,
    told: &impl Fn(&StoreError),
    closing: &AtomicBool,
) -> Option<Store> {
    let mut unreadable = 0;
    loop {
        let why = match tried {
            Ok(store) => return Some(store),
            Err(why) => why,
        };
        log::error!("store: not open; readings wait in RAM: {why}");
        told(&why);
        unreadable = if why.is_unreadable() { unreadable + 1 } else { 0 };
        let again = Instant::now() + OPEN_AGAIN;
        while Instant::now() < again {
            if closing.load(Relaxed) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        tried = open(Some(&why).filter(|_| unreadable >= UNREADABLE_TRIES));
    }
}

/// Answers calls; `again` gives the store to go on with where this one was found damaged.
fn serve(mut store: Store, queue: &Receiver<Job>, mut again: impl FnMut(Store) -> Option<Store>) {
    while let Ok(job) = queue.recv_blocking() {
        match job {
            Job::Run(work) => {
                work(&mut store);
                if store.is_damaged() {
                    let Some(other) = again(store) else { return };
                    store = other;
                }
            }
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
        self.closing.store(true, Relaxed);
        let (answer, answered) = bounded(1);
        self.jobs.send(Job::Close(answer)).await.map_err(|_| StoreGone)?;
        answered.recv().await.map_err(|_| StoreGone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, put, put_with};
    use super::*;
    use smol::future::block_on;

    fn opener(bench: &Bench) -> impl FnMut(Option<&StoreError>) -> Result<Store, StoreError> + Send + use<> {
        let (cfg, me) = (bench.cfg.clone(), bench.me);
        move |_| Store::open(&cfg, &me, at(0)).map(|(store, _)| store)
    }

    /// A store that can't be opened for now is opened later; calls that were made meanwhile are answered then. Where
    /// another service has the file, waiting would only hide that.
    #[test]
    fn a_store_that_opens_late_answers_late() {
        let bench = Bench::new();
        let mut open = opener(&bench);
        let mut failures = 1;
        let late = move |why: Option<&StoreError>| {
            if failures > 0 {
                failures -= 1;
                return Err(StoreError::Busy { doing: "open" });
            }
            open(why)
        };
        let (tell, told) = bounded(8);
        let handle = spawn_opening(late, move |why| drop(tell.try_send(why.to_string()))).unwrap();
        let done = block_on(handle.run(|store| put(store, 1, 1, 1))).unwrap().unwrap();
        assert_eq!((done.n, told.len()), (1, 1));
        assert!(matches!(spawn_opening(opener(&bench), |_| ()), Err(StoreError::InUse { .. })));
        block_on(handle.close()).unwrap().unwrap();
    }

    /// Damage that a commit runs into is not waited out: the file is set aside while the service runs, the batch that was
    /// refused goes into the new file, what was committed before is taken over, and the time of this boot stays known. (A
    /// store that only the next start would mend records nothing until somebody comes by.)
    #[test]
    fn a_file_that_is_damaged_while_running_is_set_aside() {
        let bench = Bench::new();
        let handle = spawn_opening(opener(&bench), |_| ()).unwrap();
        let db = bench.file("");
        let anchor = crate::clock::Anchor { boot: at(1).boot, utc: at(1).utc, trusted: true };
        let first = block_on(handle.run(move |store| {
            put_with(store, 2, 10, 1, &[anchor]).unwrap();
            for s in 0..30 {
                put(store, 40, 60, s * 60).unwrap();
            }
            // Twice: the log still holds what it was folded from, which would mend the file.
            store.checkpoint().unwrap();
            put(store, 1, 1, 3000).unwrap();
            store.checkpoint().unwrap();
            spoil(store, &db);
            store.uuid()
        }))
        .unwrap();
        let refused = block_on(handle.run(|store| put(store, 500, 20, 5000))).unwrap();
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
        let done = block_on(handle.run(|store| put(store, 500, 20, 5000))).unwrap().unwrap();
        assert_eq!(done.n, 10_000);
        let (now, known) = block_on(handle.run(|store| (store.uuid(), store.newest_anchor().unwrap()))).unwrap();
        assert_ne!(now, first, "a new file has a new id");
        assert_eq!(known, Some(anchor));
        let aside = std::fs::read_dir(bench.dir.path()).unwrap().flatten();
        assert!(aside.into_iter().any(|e| e.file_name().to_string_lossy().contains("quarantine")));
        block_on(handle.close()).unwrap().unwrap();
    }

    /// Damage that a step of upkeep or the uplink runs into, with no commit in sight, is not tried again for ever either: the file
    /// is set aside, and all but what the damage hit is there. (Each hour, and with each snapshot, the same read failed.)
    #[test]
    fn damage_that_only_a_read_meets_sets_the_file_aside() {
        type Read = fn(&mut Store, uuid::Uuid) -> Option<StoreError>;
        let reads: [Read; 3] = [
            |store, _| store.compact_step(&[], at(90_000)).err(),
            |store, uuid| store.outgoing(uuid, crate::reading::SegmentSeq(9), None, at(90_000)).err(),
            |store, uuid| store.body(uuid, crate::reading::SegmentSeq(9)).err(),
        ];
        for read in reads {
            let bench = Bench::new();
            let handle = spawn_opening(opener(&bench), |_| ()).unwrap();
            let db = bench.file("");
            let old = block_on(handle.run(move |store| {
                for s in 0..30 {
                    put(store, 40, 60, s * 60).unwrap();
                }
                // Twice, as above.
                store.checkpoint().unwrap();
                put(store, 1, 1, 3000).unwrap();
                store.checkpoint().unwrap();
                spoil_body(store, &db);
                store.uuid()
            }))
            .unwrap();
            let refused = block_on(handle.run(move |store| read(store, old))).unwrap();
            assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{refused:?}");
            let (now, kept) = block_on(handle.run(|store| (store.uuid(), store.facts().unwrap().segments))).unwrap();
            assert_ne!(now, old, "a new file has a new id");
            assert_eq!(kept, 30, "all but one were taken over");
            assert!(block_on(handle.run(move |store| read(store, old))).unwrap().is_none());
            block_on(handle.close()).unwrap().unwrap();
        }
    }

    /// Garbage in the first page that the body of segment 9 overflows to, which SQLite holds no copy of.
    fn spoil_body(store: &Store, db: &Path) {
        use std::os::unix::fs::FileExt;
        let body = store.body(store.uuid(), crate::reading::SegmentSeq(9)).unwrap().unwrap().1;
        store.conn.execute_batch("PRAGMA shrink_memory").unwrap();
        let bytes = std::fs::read(db).unwrap();
        // All of an overflow page but its first four bytes is content.
        let part = &body[body.len() / 3..][..32];
        let at = bytes.windows(32).position(|window| window == part).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(db).unwrap();
        file.write_all_at(&[0xa5; 512], (at / 512 * 512) as u64).unwrap();
    }

    /// Garbage over every page behind the first, which SQLite holds no copy of.
    fn spoil(store: &Store, db: &Path) {
        use std::os::unix::fs::FileExt;
        store.conn.execute_batch("PRAGMA shrink_memory").unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(db).unwrap();
        let len = file.metadata().unwrap().len();
        file.write_all_at(&vec![0xa5; (len - 2048) as usize], 2048).unwrap();
    }

    /// Calls are answered in order from the store's own thread; after the clean stop every call says that it is gone, and
    /// what was committed is in the file.
    #[test]
    fn calls_are_answered_until_the_store_is_closed() {
        let bench = Bench::new();
        let handle = spawn_opening(opener(&bench), |_| ()).unwrap();
        let other = handle.clone();
        block_on(async {
            for s in 0..20 {
                let done = handle.run(move |store| put(store, 40, 30, s * 30)).await.unwrap().unwrap();
                assert_eq!(done.ranges[0].first.0, s as u64 + 1);
            }
            let name = other.run(|_| std::thread::current().name().map(str::to_owned)).await.unwrap();
            assert_eq!(name.as_deref(), Some("varved-store"));
            let all = handle.run(|store| store.compact_step(&[], at(9000))).await.unwrap();
            assert!(all.is_ok());
            handle.close().await.unwrap().unwrap();
            assert_eq!(other.run(|_| ()).await, Err(StoreGone));
        });
        assert_eq!(bench.open_calm().next_seq().0, 21);
    }

    /// When the last handle is dropped the store is closed as well, and lets go of the file.
    #[test]
    fn the_store_closes_when_nobody_can_call_it() {
        let bench = Bench::new();
        drop(spawn_opening(opener(&bench), |_| ()).unwrap());
        let opened = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            super::super::Store::open(&bench.cfg, &bench.me, at(1)).is_ok()
        });
        assert!(opened);
    }
}
