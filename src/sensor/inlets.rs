//! Streams that are open, and how far each has been read: what lets a flush include everything written before it.
//!
//! What enters: streams as they are accepted, and how much of each has been read and handed on. What leaves: the moment at
//! which everything that the kernel held when one asked has become readings in the queue. Datagrams are not followed: their
//! sender can't know either whether they arrived.

use rustix::io::ioctl_fionread;
use smol::Timer;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Between two looks. Each lets the reactor turn once, which accepts whoever has connected.
const LOOK: Duration = Duration::from_millis(2);

/// The same where a stream is held back because the medium takes no writes, which may last.
const SELDOM: Duration = Duration::from_millis(100);

/// So many looks come before the seldom ones.
const LOOKS: u32 = 250;

/// All streams that are open, in any source.
#[derive(Debug, Clone, Default)]
pub struct Inlets {
    open: Arc<Mutex<Vec<Weak<Inlet>>>>,
}

/// One of them, for as long as its reader holds it.
#[derive(Debug)]
pub(super) struct Inlet {
    /// A second descriptor of the same socket: the stream itself is with its reader.
    socket: OwnedFd,
    read: AtomicU64,
    handed_on: AtomicU64,
}

impl Inlets {
    /// Follows a stream, while what this returns is kept.
    pub(super) fn follow(&self, socket: impl AsFd) -> std::io::Result<Arc<Inlet>> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let inlet = Arc::new(Inlet { socket, read: AtomicU64::new(0), handed_on: AtomicU64::new(0) });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&inlet));
        Ok(inlet)
    }

    /// Returns when everything that clients had written before the call is in the queue. A stream that is held back is waited
    /// for as long as that lasts: whoever asks is told that all is committed, and must not be told so too early.
    pub async fn drain(&self) {
        // Twice: once for the clients that wait to be accepted, once for what they have written.
        for _ in 0..2 {
            Timer::after(LOOK).await;
        }
        let goals = self.goals();
        let reached = |(inlet, goal): &(Weak<Inlet>, u64)| inlet.upgrade().is_none_or(|i| i.handed_on() >= *goal);
        let mut looks = 0_u32;
        while !goals.iter().all(reached) {
            Timer::after(if looks < LOOKS { LOOK } else { SELDOM }).await;
            looks = looks.saturating_add(1);
        }
    }

    /// How far each stream is to be read to have taken in all that the kernel holds of it now.
    fn goals(&self) -> Vec<(Weak<Inlet>, u64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let goal = |inlet: &Weak<Inlet>| {
            let held = inlet.upgrade()?;
            let waiting = ioctl_fionread(&held.socket).unwrap_or(0);
            Some((inlet.clone(), held.read.load(Relaxed) + waiting))
        };
        open.iter().filter_map(goal).collect()
    }
}

impl Inlet {
    /// So many bytes were read.
    pub(super) fn has_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Relaxed);
    }

    /// What was read is in the queue.
    pub(super) fn has_handed_on(&self) {
        self.handed_on.store(self.read.load(Relaxed), Relaxed);
    }

    fn handed_on(&self) -> u64 {
        self.handed_on.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// A stream with bytes in the kernel is waited for, however long it is held back; one that is read to there, or closed, is
    /// not. (After two seconds a flush once answered that all was committed, whatever the kernel held.)
    #[test]
    fn a_drain_waits_for_what_the_kernel_holds() {
        let inlets = Inlets::default();
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let inlet = inlets.follow(&server).expect("followed");
        client.write_all(b"twelve bytes").expect("written");
        assert_eq!(inlets.goals()[0].1, 12);
        let drained_within = |inlets: &Inlets, ms: u64| {
            let patience = async {
                Timer::after(Duration::from_millis(ms)).await;
                false
            };
            smol::block_on(smol::future::or(
                async {
                    inlets.drain().await;
                    true
                },
                patience,
            ))
        };
        let drained = |inlets: &Inlets| drained_within(inlets, 100);
        assert!(!drained_within(&inlets, 2_500), "twelve bytes wait");
        std::io::Read::read_exact(&mut &server, &mut [0; 12]).expect("read");
        inlet.has_read(12);
        assert!(!drained(&inlets), "read, but not handed on");
        inlet.has_handed_on();
        assert!(drained(&inlets));
        client.write_all(b"more").expect("written");
        drop(inlet);
        assert!(drained(&inlets), "its reader has gone");
    }
}
