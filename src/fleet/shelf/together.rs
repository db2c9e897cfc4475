//! Work that waits for the medium, several pieces at a time.
//!
//! What enters: pieces of work that do not touch each other. What leaves: all of it done, whatever threads the system gives.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Replicas that wait for the medium at one time. A file system joins the flushes of several files into one.
const AT_A_TIME: usize = 16;

/// Does `work` with each, [`AT_A_TIME`] at one time.
pub(super) fn at_a_time<T: Send>(all: impl ExactSizeIterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let threads = all.len().min(AT_A_TIME);
    let all = Mutex::new(all);
    let next = || locked(&all).next();
    let work = || {
        while let Some(one) = next() {
            work(one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system gives no thread, the others do its part.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Condvar;
    use std::time::Duration;

    /// As many as may wait for the medium do so at one time, no more, and each piece of work is done once.
    #[test]
    fn so_many_wait_at_a_time() {
        let (inside, changed) = (Mutex::new((0, 0, 0)), Condvar::new());
        at_a_time(0..3 * AT_A_TIME, |_| {
            let mut at = locked(&inside);
            at.0 += 1;
            at.1 = at.1.max(at.0);
            changed.notify_all();
            // The first wait for each other; the rest find that they have met.
            let met = changed.wait_timeout_while(at, Duration::from_secs(60), |at| at.1 < AT_A_TIME);
            let mut at = met.unwrap_or_else(PoisonError::into_inner).0;
            (at.0, at.2) = (at.0 - 1, at.2 + 1);
        });
        let (now, most, done) = *locked(&inside);
        assert_eq!((now, most, done), (0, AT_A_TIME, 3 * AT_A_TIME));
    }
}
