//! The signals that a service of ours listens to. What enters: signals. What leaves: what they ask for, as something to
//! await. Nothing runs inside a signal handler but the write of a byte into a pipe.

use rustix::process::Signal;
use smol::Async;
use smol::io::AsyncReadExt;
use std::os::unix::net::UnixStream;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// SIGTERM or SIGINT: commit and end.
    End,
    /// SIGUSR1, or SIGPWR of a power-fail input: commit now.
    Commit,
}

/// The signals, taken over from their defaults, which would end the process. Made before any thread is.
#[derive(Debug)]
pub struct Signals {
    end: Async<UnixStream>,
    commit: Async<UnixStream>,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and of making a pipe.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self { end: pipe_of(&[Signal::TERM, Signal::INT])?, commit: pipe_of(&[Signal::USR1, Signal::POWER])? })
    }

    /// The next call.
    pub async fn next(&mut self) -> Call {
        // A pipe whose other end is a handler's never ends and never fails; one byte or many are one call.
        let (mut a, mut b) = ([0; 64], [0; 64]);
        let end = async {
            let _ = self.end.read(&mut a).await;
            Call::End
        };
        let commit = async {
            let _ = self.commit.read(&mut b).await;
            Call::Commit
        };
        smol::future::or(end, commit).await
    }

    /// Returns at the first call to end.
    pub async fn ended(&mut self) {
        while self.next().await != Call::End {}
    }
}

/// SIGURG, by which the kernel says that another process wants to read the live file. Its default is to be ignored.
#[derive(Debug)]
pub struct Visits(Async<UnixStream>);

impl Visits {
    /// Takes it over.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and of making a pipe.
    pub fn take() -> std::io::Result<Self> {
        pipe_of(&[Signal::URG]).map(Self)
    }

    /// The next one, or several at once.
    pub async fn next(&mut self) {
        // As above: such a pipe never ends and never fails.
        let _ = self.0.read(&mut [0; 64]).await;
    }
}

/// A channel that closes when the service is to end, for services that have nothing to commit at once. A thread of its own
/// waits for the signal.
///
/// # Errors
/// Those of [`Signals::take`] and of starting a thread.
pub fn end_of_service() -> std::io::Result<smol::channel::Receiver<()>> {
    let mut signals = Signals::take()?;
    let (end, ended) = smol::channel::bounded(1);
    std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(move || {
        smol::block_on(signals.ended());
        drop(end);
    })?;
    Ok(ended)
}

/// The read end of a pipe into which each of these signals writes a byte.
fn pipe_of(signals: &[Signal]) -> std::io::Result<Async<UnixStream>> {
    let (read, write) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(signal.as_raw(), write.try_clone()?)?;
    }
    Async::new(read)
}
