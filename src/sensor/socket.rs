//! Line protocol over sockets: `unix`, `tcp` (streams), `unixgram`, `udp` (datagrams).
//!
//! ```text
//! opener ── binds, again and again where it must ──► worker 1…n: accept, serve to the end, accept… (streams)
//!                                                └─► one receiver                                  (datagrams)
//! ```
//!
//! The tasks are as many as the configuration says, spawned once. A stream is held back while the queue is full; more
//! clients than workers wait in the kernel. Datagrams that do not fit the kernel's buffer are dropped by it; for UDP the
//! kernel's count of them is read (`proc_net_udp(5)`, column `drops`), a `unixgram` sender is blocked instead.
//!
//! A socket that can't be bound is counted, logged and tried again: it stops nothing else. A stale socket file is replaced only
//! if it is a socket and nobody listens on it. The file's mode is 0660.
//!
//! It does not know who writes, and encrypts nothing: bind TCP and UDP to localhost or a trusted network.

use super::counters::Seldom;
use super::ingest::Ingest;
use super::inlets::{Inlet, Inlets};
use super::poll::stopped;
use super::source::{Source, backoff, random, within};
use super::stream::MAX_LINE_BYTES;
use crate::config::{Listen, SocketConfig};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::net::unix::{UnixDatagram, UnixListener};
use smol::net::{TcpListener, UdpSocket};
use smol::{Executor, Task};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is asked for as the kernel's buffer of a datagram socket; it gives at most `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

const RETRY: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// How often the kernel is asked for the datagrams that it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(10);

/// Spawns the tasks of one socket. The first attempt to bind is made before this returns.
pub(super) fn spawn(config: &SocketConfig, source: &Source, executor: &Executor<'static>) -> Vec<Task<()>> {
    let workers = match config.listen {
        Listen::Unix(_) | Listen::Tcp(_) => config.clients.max(1) as usize,
        Listen::UnixGram(_) | Listen::Udp(_) => 1,
    };
    let (give, take) = smol::channel::bounded(workers);
    let first = bind(&config.listen);
    let mut tasks = vec![executor.spawn(open(config.listen.clone(), first, give, workers, source.clone()))];
    tasks.extend((0..workers).map(|_| executor.spawn(work(take.clone(), source.clone(), workers as u64))));
    tasks
}

/// The stream of a client.
type Client = (Box<dyn smol::io::AsyncRead + Send + Unpin>, Arc<Inlet>);

/// A bound socket.
#[derive(Clone)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
    UnixGram(UnixDatagram),
    Udp(UdpSocket),
}

/// Binds, gives the socket to every worker, and takes the file away at the end.
async fn open(
    listen: Listen,
    mut bound: io::Result<(Socket, Option<SocketFile>)>,
    give: Sender<Socket>,
    workers: usize,
    source: Source,
) {
    let (mut attempt, mut seldom) = (0, Seldom::default());
    let file = loop {
        match bound {
            Ok((socket, file)) => {
                for _ in 0..workers {
                    // The workers hold the other end for as long as the service runs.
                    let _ = give.send(socket.clone()).await;
                }
                break file;
            }
            Err(error) => note_failure(&source, &mut seldom, &format!("can't listen: {error}")),
        }
        let wait = backoff(attempt, RETRY, RETRY_CAP, random());
        attempt = attempt.saturating_add(1);
        if within(Some(wait), stopped(&source.stop)).await.is_some() {
            return;
        }
        bound = bind(&listen);
    };
    stopped(&source.stop).await;
    drop(file);
}

fn note_failure(source: &Source, seldom: &mut Seldom, what: &str) {
    source.counters.add_error(what);
    if seldom.allow(source.clock.now().boot).is_some() {
        log::warn!("sensor: {}: {what}; it is tried again until it works", source.counters.source());
    }
}

/// One worker: serves one client after the other, or all datagrams.
async fn work(take: Receiver<Socket>, source: Source, workers: u64) {
    let serve = async {
        match take.recv().await {
            Ok(socket @ (Socket::Unix(_) | Socket::Tcp(_))) => serve_streams(&socket, &source, workers).await,
            Ok(socket @ (Socket::UnixGram(_) | Socket::Udp(_))) => serve_datagrams(&socket, &source).await,
            Err(_) => {}
        }
    };
    let stop = async {
        stopped(&source.stop).await;
    };
    or(serve, stop).await;
}

async fn serve_streams(socket: &Socket, source: &Source, workers: u64) {
    let mut seldom = Seldom::default();
    loop {
        match socket.accept(&source.inlets).await {
            Ok((stream, inlet)) => {
                source.counters.add_reconnect();
                let (_mark, clients) = source.counters.client();
                if clients == workers {
                    let name = source.counters.source();
                    log::info!(
                        "sensor: {name}: all {workers} workers have a client; others wait (`clients` allows more)"
                    );
                }
                source.pump(stream, None, Some(&inlet)).await;
            }
            Err(error) => {
                note_failure(source, &mut seldom, &format!("can't accept: {error}"));
                smol::Timer::after(RETRY).await;
            }
        }
    }
}

async fn serve_datagrams(socket: &Socket, source: &Source) {
    let mut ingest = Ingest::new(source.registry.clone(), source.counters.clone());
    // One byte more than the longest: a datagram that fills it was cut off by the kernel.
    let mut bytes = vec![0; MAX_LINE_BYTES + 1];
    let inode = socket.inode_that_drops();
    let (mut seldom, mut drops, mut asked) = (Seldom::default(), 0, source.clock.now().boot);
    loop {
        let received = within(inode.map(|_| DROPS_EVERY), socket.receive(&mut bytes)).await;
        let now = source.clock.boot();
        if let Some(inode) = inode.filter(|_| now.0 - asked.0 >= DROPS_EVERY.as_nanos() as i64) {
            asked = now;
            drops = count_drops(inode, drops, source);
        }
        match received {
            None => {}
            Some(Ok(n)) => {
                let mut chunk = Vec::new();
                ingest.datagram(&bytes[..n], now, &mut chunk);
                if !source.hand_on(chunk).await {
                    return;
                }
            }
            Some(Err(error)) => {
                note_failure(source, &mut seldom, &format!("can't receive: {error}"));
                smol::Timer::after(RETRY).await;
            }
        }
    }
}

impl Socket {
    /// The next client of a stream socket.
    async fn accept(&self, inlets: &Inlets) -> io::Result<Client> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let inlet = inlets.follow(&stream)?;
                Ok((Box::new(stream), inlet))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A client whose machine went away without a word would otherwise hold a worker for ever.
                sockopt::set_socket_keepalive(&stream, true)?;
                let inlet = inlets.follow(&stream)?;
                Ok((Box::new(stream), inlet))
            }
            Self::UnixGram(_) | Self::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The next datagram.
    async fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::UnixGram(socket) => socket.recv(bytes).await,
            Self::Udp(socket) => socket.recv(bytes).await,
            Self::Unix(_) | Self::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The inode by which the kernel's table names this socket, where it has such a table.
    fn inode_that_drops(&self) -> Option<u64> {
        let Self::Udp(socket) = self else { return None };
        rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino)
    }
}

fn count_drops(inode: u64, before: u64, source: &Source) -> u64 {
    // Of this very process and its network namespace, wherever `root` points.
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(std::fs::read_to_string);
    let Some(now) = tables.iter().flatten().find_map(|table| drops_of(table, inode)) else { return before };
    source.counters.add_dropped(now.saturating_sub(before));
    now
}

/// The last column of the line with this inode; `proc_net_udp(5)`.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let line = table.lines().skip(1).find(|line| line.split_ascii_whitespace().nth(9) == Some(&inode))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

fn bind(listen: &Listen) -> io::Result<(Socket, Option<SocketFile>)> {
    Ok(match listen {
        Listen::Tcp(address) => (Socket::Tcp(std::net::TcpListener::bind(address)?.try_into()?), None),
        Listen::Udp(address) => {
            let socket = std::net::UdpSocket::bind(address)?;
            enlarge(&socket);
            (Socket::Udp(socket.try_into()?), None)
        }
        Listen::Unix(path) => {
            let (socket, file) = bind_path(path, SocketType::STREAM, std::os::unix::net::UnixListener::bind)?;
            (Socket::Unix(socket.try_into()?), Some(file))
        }
        Listen::UnixGram(path) => {
            let (socket, file) = bind_path(path, SocketType::DGRAM, std::os::unix::net::UnixDatagram::bind)?;
            enlarge(&socket);
            (Socket::UnixGram(socket.try_into()?), Some(file))
        }
    })
}

/// Best effort: a smaller buffer drops datagrams earlier, and says so.
fn enlarge(socket: &impl AsFd) {
    if let Err(error) = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES) {
        log::debug!("sensor: SO_RCVBUF stays as it is: {error}");
    }
}

/// A unix stream socket for another room, under the same rules: a stale file is replaced, a living one is not, mode 0660.
///
/// # Errors
/// Those of `bind(2)`, with the path; `AddrInUse` where another process listens.
pub fn bind_unix(path: &Path) -> io::Result<(smol::Async<std::os::unix::net::UnixListener>, SocketFile)> {
    let (listener, file) = bind_path(path, SocketType::STREAM, std::os::unix::net::UnixListener::bind)?;
    Ok((smol::Async::new(listener)?, file))
}

/// The file of a unix socket; taken away when dropped, if it is still this one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // At the worst a stale file is left, which the next start replaces.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

fn bind_path<S>(path: &Path, kind: SocketType, bind: impl Fn(PathBuf) -> io::Result<S>) -> io::Result<(S, SocketFile)> {
    let hint = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let socket = match bind(path.to_owned()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, kind).map_err(hint)?;
            bind(path.to_owned())
        }
        other => other,
    };
    let socket = socket.map_err(hint)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(hint)? };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(hint)?;
    Ok((socket, file))
}

/// Removes the socket file of a process that is no more, and nothing else.
fn remove_stale(path: &Path, kind: SocketType) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "is there and is no socket; move it away"));
    }
    // Without blocking: a listener whose queue is full is alive too.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    match connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
        _ => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there; stop it or listen elsewhere"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own count of drops is found by the socket's inode.
    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                      12: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0000000000000000 0\n\
                      13: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 778 2 0000000000000000 41\n";
        assert_eq!((drops_of(table, 778), drops_of(table, 777), drops_of(table, 1)), (Some(41), Some(0), None));
    }

    /// A stale socket is replaced; a living one, of either type, and a plain file are not.
    #[test]
    fn only_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listen = Listen::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let living = bind(&listen).expect("the stale one is replaced");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        assert!(bind(&listen).is_err_and(|e| e.to_string().contains("another process")));
        assert!(bind(&Listen::UnixGram(path.clone())).is_err());
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "the living one still is");
        drop(living);
        assert!(!path.exists(), "a clean end takes its file away");
        std::fs::write(&path, "precious").expect("written");
        assert!(bind(&listen).is_err_and(|e| e.to_string().contains("no socket")));
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "precious");
    }
}
