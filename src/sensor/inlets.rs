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

/// A stream that is held back for longer than this, because the medium takes no writes, is not waited for.
const LOOKS: u32 = 1000;

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

    /// Returns when everything that clients had written before the call is in the queue, or after two seconds.
    pub async fn drain(&self) {
        // Twice: once for the clients that wait to be accepted, once for what they have written.
        for _ in 0..2 {
            Timer::after(LOOK).await;
        }
        let goals = self.goals();
        for _ in 0..LOOKS {
            if goals.iter().all(|(inlet, goal)| inlet.upgrade().is_none_or(|inlet| inlet.handed_on() >= *goal)) {
                return;
            }
            Timer::after(LOOK).await;
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

    /// A stream with bytes in the kernel is waited for; one that is read to there, or closed, is not.
    #[test]
    fn a_drain_waits_for_what_the_kernel_holds() {
        let inlets = Inlets::default();
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let inlet = inlets.follow(&server).expect("followed");
        client.write_all(b"twelve bytes").expect("written");
        assert_eq!(inlets.goals()[0].1, 12);
        let drained = |inlets: &Inlets| {
            let patience = async {
                Timer::after(Duration::from_millis(100)).await;
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
        assert!(!drained(&inlets), "twelve bytes wait");
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
