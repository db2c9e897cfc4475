//! What every source is given, and reading a stream of lines to its end.
//!
//! What enters: bytes of a socket or of a command's output. What leaves: chunks of readings in the queue, or nothing once the
//! service stops. A full queue holds the stream back. Memory per stream is constant: [`READ_BYTES`], one line, the names
//! ([`super::ingest`]) and one chunk.

use super::counters::Counters;
use super::ingest::Ingest;
use super::inlets::{Inlet, Inlets};
use super::poll::hand_on;
use super::stream::LineBuffer;
use crate::batch::Registry;
use crate::clock::Clock;
use crate::reading::Reading;
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::io::{AsyncRead, AsyncReadExt as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// What every source is given.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) registry: Arc<Registry>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) out: Sender<Vec<Reading>>,
    /// Closes when all is to stop.
    pub(super) stop: Receiver<()>,
    pub(super) inlets: Inlets,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// By its other side.
    Closed,
    /// By an error.
    Failed(io::Error),
    /// Nothing came for the time allowed.
    Silent,
    /// The service stops.
    Stop,
}

impl Source {
    /// Reads lines until the stream ends, or is silent for longer than `patience`; tells `inlet` how far it has come.
    pub(super) async fn pump(
        &self,
        mut stream: impl AsyncRead + Unpin,
        patience: Option<Duration>,
        inlet: Option<&Inlet>,
    ) -> End {
        let mut ingest = Ingest::new(self.registry.clone(), self.counters.clone());
        let (mut buffer, mut bytes) = (LineBuffer::new(), vec![0; READ_BYTES]);
        // The next chunk is mostly as long as the last.
        let mut usual = 0;
        let end = loop {
            let read = within(patience, stream.read(&mut bytes)).await;
            let n = match read {
                None => break End::Silent,
                Some(Ok(0)) => break End::Closed,
                Some(Ok(n)) => n,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Some(Err(error)) => break End::Failed(error),
            };
            if let Some(inlet) = inlet {
                inlet.has_read(n);
            }
            let mut chunk = Vec::with_capacity(usual);
            ingest.stream(&mut buffer, &bytes[..n], self.clock.boot(), &mut chunk);
            usual = chunk.len() + chunk.len() / 8;
            if !self.hand_on(chunk).await {
                break End::Stop;
            }
            if let Some(inlet) = inlet {
                inlet.has_handed_on();
            }
        };
        ingest.end_of_stream(&mut buffer, self.clock.boot());
        end
    }

    /// Counts readings and hands them on; false where it is time to end.
    pub(super) async fn hand_on(&self, chunk: Vec<Reading>) -> bool {
        self.counters.add_readings(chunk.len(), 0);
        let go_on = hand_on(chunk, &self.out, &self.stop, &self.counters).await;
        // A stream that always has more would otherwise never let another task have its turn.
        smol::future::yield_now().await;
        go_on
    }
}

/// The answer, or `None` where it took longer than `patience`.
pub(super) async fn within<T>(patience: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    let Some(patience) = patience else { return Some(work.await) };
    or(async { Some(work.await) }, async {
        smol::Timer::after(patience).await;
        None
    })
    .await
}

/// Full-jitter backoff: uniform between nothing and `base × 2^attempt`, at most `cap`. (Marc Brooker, "Exponential Backoff
/// And Jitter", 2015.) `random` is any 64 bits.
pub(super) fn backoff(attempt: u32, base: Duration, cap: Duration, random: u64) -> Duration {
    let highest = base.saturating_mul(1 << attempt.min(20)).min(cap);
    let highest = u64::try_from(highest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(random) * u128::from(highest)) >> 64) as u64)
}

/// 64 bits that nobody can foresee: the keys that the standard library draws for its hash maps.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait grows with each attempt up to its cap, and two sources that fail together do not come back together.
    #[test]
    fn backoff_grows_to_its_cap_and_is_spread_from_zero() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(60));
        let highest: Vec<_> = (0..9).map(|n| backoff(n, base, cap, u64::MAX).as_secs_f64().round()).collect();
        assert_eq!(highest, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert_eq!(backoff(5, base, cap, 0), Duration::ZERO);
        assert_eq!(backoff(u32::MAX, base, cap, u64::MAX / 2).as_secs_f64().round(), 30.0);
        assert_ne!(random(), random());
    }
}
