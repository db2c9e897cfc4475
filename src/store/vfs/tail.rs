//! What is held back of the log: the part of a padding frame that lies behind the sync point. No I/O.
//!
//! What enters: the writes and fsyncs of the log in their order. What leaves: whether a write is held, and what a read has
//! to see of it. At most one piece is held, shorter than a block. It goes out before the next write and before the next
//! fsync, so that holding it is no more than what the kernel's cache does with every write.

use super::BLOCK_BYTES;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What is held of one log, and how it is known.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) at: i64,
    pub(super) bytes: Vec<u8>,
    /// What went out last, and where to, until an fsync went through.
    sent: (i64, Vec<u8>),
    /// Where the last write ended.
    written_to: i64,
    /// Whether an fsync came after it.
    synced: bool,
}

impl Tail {
    /// Whether this write is to be held back: it is the first after an fsync, begins where the last one ended, at the start
    /// of a block, and doesn't fill it. That is the rest of a padding frame, or the header of a next frame, whose page
    /// follows and has both written out.
    pub(super) fn is_tail(&mut self, at: i64, piece: &[u8]) -> bool {
        let fresh = self.synced && at > 0 && at == self.written_to && at % BLOCK_BYTES as i64 == 0;
        self.synced = false;
        self.written_to = at + piece.len() as i64;
        fresh && self.bytes.is_empty() && (piece.len() as u64) < BLOCK_BYTES
    }

    /// An fsync went through.
    pub(super) fn synced(&mut self) {
        self.synced = true;
        self.sent.1.clear();
    }

    /// What was held has been written.
    pub(super) fn went_out(&mut self) {
        self.sent = (self.at, std::mem::take(&mut self.bytes));
    }

    /// An fsync failed: what it was for may never arrive. SQLite writes its frames again, and what it takes for long there
    /// has to go out before them once more, or nothing behind it could be read.
    pub(super) fn failed(&mut self) {
        if self.bytes.is_empty() {
            (self.at, self.bytes) = std::mem::take(&mut self.sent);
        }
    }

    pub(super) fn hold(&mut self, at: i64, piece: &[u8]) {
        self.at = at;
        self.bytes.extend_from_slice(piece);
    }

    /// Where what is held ends; 0 where nothing is.
    pub(super) fn end(&self) -> i64 {
        if self.bytes.is_empty() { 0 } else { self.at + self.bytes.len() as i64 }
    }

    /// Lays what is held over `out`, which was read from `at` on. Whether that reaches the end of `out`.
    pub(super) fn overlay(&self, at: i64, out: &mut [u8]) -> bool {
        let end = at + out.len() as i64;
        let (from, to) = (self.at.max(at), self.end().min(end));
        if from >= to {
            return false;
        }
        let place = |n: i64, origin: i64| usize::try_from(n - origin).unwrap_or(0);
        out[place(from, at)..place(to, at)].copy_from_slice(&self.bytes[place(from, self.at)..place(to, self.at)]);
        to == end
    }
}

/// The tail of one log, shared by all connections of this process that go through this VFS.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Tail>>);

impl Shared {
    /// That of the log at `path`, which is known as long as somebody has it open.
    pub(super) fn of(path: &Path) -> Self {
        type Known = Vec<(PathBuf, Weak<Mutex<Tail>>)>;
        static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, tail)| tail.strong_count() > 0);
        if let Some(tail) = known.iter().find(|(of, _)| of == path).and_then(|(_, tail)| tail.upgrade()) {
            return Self(tail);
        }
        let tail = Arc::default();
        known.push((path.to_owned(), Arc::downgrade(&tail)));
        Self(tail)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit of three frames of 536 bytes and its copies: what lies behind the sync point is held, and only that.
    #[test]
    fn only_what_lies_behind_the_sync_point_is_held() {
        let mut tail = Tail::default();
        assert!(!tail.is_tail(0, &[1; 32]));
        assert!(!tail.is_tail(32, &[1; 4064]));
        tail.synced();
        assert!(tail.is_tail(4096, &[2; 200]));
        tail.hold(4096, &[2; 200]);
        assert_eq!(tail.end(), 4296);
        assert!(!tail.is_tail(4296, &[3; 24]), "the next commit");
        tail.bytes.clear();
        tail.synced();
        assert!(!tail.is_tail(8000, &[3; 24]), "not where the last write ended");
        tail.synced();
        assert!(!tail.is_tail(8024, &[3; 24]), "not at the start of a block");
        let mut anew = Tail::default();
        anew.synced();
        assert!(!anew.is_tail(0, &[1; 32]), "the header of a log that begins anew");
    }

    /// What went out in vain goes out again, and once is enough.
    #[test]
    fn what_a_failed_fsync_may_have_dropped_goes_out_again() {
        let mut tail = Tail::default();
        tail.hold(4096, &[2; 200]);
        tail.went_out();
        assert_eq!(tail.end(), 0);
        tail.failed();
        assert_eq!((tail.at, tail.end()), (4096, 4296));
        tail.went_out();
        tail.synced();
        tail.failed();
        assert_eq!(tail.end(), 0);
    }

    /// A read sees what is held as if it were in the file.
    #[test]
    fn a_read_sees_what_is_held() {
        let mut tail = Tail::default();
        let mut out = [0; 10];
        assert!(!tail.overlay(4090, &mut out));
        tail.hold(4096, &[7; 8]);
        assert!(!tail.overlay(4080, &mut out));
        assert_eq!(out, [0; 10]);
        assert!(tail.overlay(4092, &mut out));
        assert_eq!(out, [0, 0, 0, 0, 7, 7, 7, 7, 7, 7]);
        out = [1; 10];
        assert!(!tail.overlay(4100, &mut out), "it ends before the read does");
        assert_eq!(out, [7, 7, 7, 7, 1, 1, 1, 1, 1, 1]);
    }
}
