//! A bad link: a TCP proxy on loopback that makes everything between two processes slow, cut, deaf or false.
//!
//! What enters: connections to [`Proxy::port`]. What leaves: connections to the far end. In each direction:
//!
//! ```text
//! sender ─► buffer of a modem (about 4 KiB, the kernel's) ─► line: so many bytes a second ─► under way: latency ─► far end
//! ```
//!
//! A slow line takes no more from the sender than it carries, so that the sender feels it. All of it is bounded: connections
//! by [`MOST_CONNECTIONS`], what is under way by [`PARCELS`]. What is random follows from a seed. The conditions can be changed
//! at any time; they hold for the bytes that are read from then on.

use super::Dice;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// More connections at once than this are closed at once.
const MOST_CONNECTIONS: usize = 16;

/// The most pieces under way in one direction of a connection, of at most [`PIECE`] bytes.
const PARCELS: usize = 512;
const PIECE: usize = 4096;

/// How long a thread may sleep before it looks whether its connection still stands.
const LOOK: Duration = Duration::from_millis(100);

/// Towards the broker, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What one direction is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Way {
    pub latency: Duration,
    /// `None`: as fast as loopback.
    pub bytes_per_s: Option<u64>,
    /// One byte in so many has a bit flipped, at random; 0: none.
    pub false_one_in: u64,
    /// What enters is swallowed while the connection stays open. A connection that has lost bytes in the hole never comes out
    /// of it, as one whose way back through a gateway is forgotten.
    pub hole: bool,
}

impl Way {
    pub fn late(latency_ms: u64) -> Self {
        Self { latency: Duration::from_millis(latency_ms), ..Self::default() }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends read to the end of the stream.
    Close,
    /// Both ends get an RST.
    Reset,
}

/// One direction, of all connections together: they share the line.
#[derive(Default)]
struct Line {
    way: Mutex<Way>,
    /// When the line has carried what it was given.
    free_at: Mutex<Option<Instant>>,
    carried: AtomicU64,
    falsified: AtomicU64,
    swallowed: AtomicU64,
}

/// A connection through the proxy.
struct Wire {
    near: TcpStream,
    far: TcpStream,
    cut: AtomicBool,
}

struct Shared {
    to: u16,
    seed: u64,
    up: Line,
    down: Line,
    open: Mutex<Vec<Arc<Wire>>>,
    accepted: AtomicU64,
    cuts: AtomicU64,
    stop: AtomicBool,
}

/// See the file.
pub(crate) struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A perfect link to `port`.
    pub fn to(port: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Accepted connections take this over, before the first byte: later it would be too late for the window.
        set_socket_recv_buffer_size(&listener, PIECE).unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to: port,
            seed,
            up: Line::default(),
            down: Line::default(),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { port: own, shared }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, direction: Direction, way: Way) {
        *self.shared.line(direction).way.lock().unwrap() = way;
    }

    /// The same in both directions.
    pub fn set_both(&self, way: Way) {
        self.set(Direction::Up, way);
        self.set(Direction::Down, way);
    }

    /// Ends every connection now; what is under way is gone.
    pub fn cut(&self, how: Cut) {
        self.shared.cut(how);
    }

    /// Ends every connection at this interval, by RST or by closing as the seed says, until the proxy ends.
    pub fn cut_every(&self, interval: Duration) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            let mut dice = Dice::new(shared.seed ^ 0xC075);
            loop {
                thread::sleep(interval);
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                shared.cut(if dice.roll(2) == 0 { Cut::Reset } else { Cut::Close });
            }
        });
    }

    /// Bytes that arrived at the far end of this direction.
    pub fn carried(&self, direction: Direction) -> u64 {
        self.shared.line(direction).carried.load(Ordering::Relaxed)
    }

    /// Bytes that had a bit flipped.
    pub fn falsified(&self, direction: Direction) -> u64 {
        self.shared.line(direction).falsified.load(Ordering::Relaxed)
    }

    /// Bytes that vanished in the hole.
    pub fn swallowed(&self, direction: Direction) -> u64 {
        self.shared.line(direction).swallowed.load(Ordering::Relaxed)
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.cut(Cut::Close);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn line(&self, direction: Direction) -> &Line {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // Where the far end is not there, the client's connection ends as soon as it stands.
            if let (Ok(client), Ok(far)) = (client, far_end(self.to)) {
                self.carry(client, far);
            }
        }
    }

    fn carry(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        for end in [&near, &far] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(LOOK)).unwrap();
            end.set_write_timeout(Some(LOOK)).unwrap();
        }
        let wire = Arc::new(Wire { near, far, cut: AtomicBool::new(false) });
        let number = {
            let mut open = self.open.lock().unwrap();
            // Only this list holds a wire whose threads have ended.
            open.retain(|wire| Arc::strong_count(wire) > 1);
            if open.len() >= MOST_CONNECTIONS {
                return;
            }
            open.push(Arc::clone(&wire));
            self.accepted.fetch_add(1, Ordering::Relaxed)
        };
        for direction in [Direction::Up, Direction::Down] {
            let (give, take) = sync_channel(PARCELS);
            let dice = Dice::new(self.seed.wrapping_add(2 * number + direction as u64));
            let (shared, from) = (Arc::clone(self), Arc::clone(&wire));
            thread::spawn(move || shared.feed(&from, direction, dice, &give));
            let (shared, to) = (Arc::clone(self), Arc::clone(&wire));
            thread::spawn(move || shared.deliver(&to, direction, &take));
        }
    }

    fn cut(&self, how: Cut) {
        for wire in self.open.lock().unwrap().drain(..) {
            if Arc::strong_count(&wire) > 1 {
                self.cuts.fetch_add(1, Ordering::Relaxed);
            }
            wire.end(how);
        }
    }

    /// From the sender onto the line.
    fn feed(&self, wire: &Wire, direction: Direction, mut dice: Dice, give: &SyncSender<Parcel>) {
        let line = self.line(direction);
        let mut from = wire.from(direction);
        let mut buffer = [0; PIECE];
        let mut swallowing = false;
        while !wire.is_cut() {
            // At most what the line carries in a twentieth of a second, so that the sender is held to its rate.
            let most = line.way().bytes_per_s.map_or(PIECE, |rate| (rate / 20).clamp(1, PIECE as u64) as usize);
            let n = match from.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if is_timeout(&e) => continue,
                Err(_) => break,
            };
            let way = line.way();
            let left_at = line.carry(n, way.bytes_per_s);
            thread::sleep(left_at.saturating_duration_since(Instant::now()));
            swallowing |= way.hole;
            if swallowing {
                line.swallowed.fetch_add(n as u64, Ordering::Relaxed);
                continue;
            }
            let bytes = line.falsify(&buffer[..n], way.false_one_in, &mut dice);
            if give.send(Parcel { due: left_at + way.latency, bytes }).is_err() {
                break;
            }
        }
    }

    /// From the line to the far end; when the sender has ended and all is delivered, the far end reads the end too.
    fn deliver(&self, wire: &Wire, direction: Direction, take: &Receiver<Parcel>) {
        let line = self.line(direction);
        let mut to = wire.to(direction);
        while let Ok(parcel) = take.recv() {
            while !wire.is_cut() && Instant::now() < parcel.due {
                thread::sleep(parcel.due.saturating_duration_since(Instant::now()).min(LOOK));
            }
            let mut rest = &parcel.bytes[..];
            while !rest.is_empty() {
                if wire.is_cut() {
                    return;
                }
                match to.write(rest) {
                    Ok(n) => {
                        line.carried.fetch_add(n as u64, Ordering::Relaxed);
                        rest = &rest[n..];
                    }
                    Err(e) if is_timeout(&e) => {}
                    Err(_) => return wire.end(Cut::Close),
                }
            }
        }
        if !wire.is_cut() {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}

/// Bytes on their way.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
}

impl Line {
    fn way(&self) -> Way {
        *self.way.lock().unwrap()
    }

    /// When `n` bytes, the next in turn, have left the sender's end.
    fn carry(&self, n: usize, bytes_per_s: Option<u64>) -> Instant {
        let now = Instant::now();
        let Some(rate) = bytes_per_s else { return now };
        let mut free_at = self.free_at.lock().unwrap();
        let begins = free_at.map_or(now, |at| at.max(now));
        *free_at.insert(begins + Duration::from_secs_f64(n as f64 / rate as f64))
    }

    fn falsify(&self, bytes: &[u8], one_in: u64, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if one_in > 0 {
            for byte in &mut bytes {
                if dice.roll(one_in) == 0 {
                    *byte ^= 1 << dice.roll(8);
                    self.falsified.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        bytes
    }
}

impl Wire {
    fn from(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::Up { &self.near } else { &self.far }
    }

    fn to(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::Up { &self.far } else { &self.near }
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// An RST goes out when the last of the threads lets go of its end, so they are woken and nothing is sent before.
    fn end(&self, how: Cut) {
        self.cut.store(true, Ordering::Relaxed);
        for end in [&self.near, &self.far] {
            if how == Cut::Reset {
                let _ = set_socket_linger(end, Some(Duration::ZERO));
            }
            let _ = end.shutdown(if how == Cut::Reset { Shutdown::Read } else { Shutdown::Both });
        }
    }
}

/// A connection to the far end whose receive buffer is small from the first byte.
fn far_end(port: u16) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_recv_buffer_size(&socket, PIECE)?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(TcpStream::from(socket))
}

fn is_timeout(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The instrument first: a line of 20 kB/s with 300 ms delivers that and not more, holds its sender back, keeps the order of
/// the bytes, ends both ends when it is cut, and goes silent rather than away in the hole.
#[test]
fn the_bad_link_does_what_it_says() {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(far.local_addr().unwrap().port(), 1);
    proxy.set(Direction::Up, Way { bytes_per_s: Some(20_000), ..Way::late(300) });
    let begun = Instant::now();
    let mut near = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    let mut end = far.accept().unwrap().0;
    let sent: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    set_socket_send_buffer_size(&near, PIECE).unwrap();
    let (mut writer, bytes) = (near.try_clone().unwrap(), sent.clone());
    let writing = thread::spawn(move || writer.write_all(&bytes).map(|()| Instant::now()));
    let mut first = [0; 1];
    end.read_exact(&mut first).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "the first byte after {:?}", begun.elapsed());
    let mut rest = vec![0; sent.len() - 1];
    end.read_exact(&mut rest).unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2_290) && took < Duration::from_secs(8), "40 kB at 20 kB/s took {took:?}");
    assert!(rest == sent[1..], "the bytes are the same, in order");
    let held_back = writing.join().unwrap().unwrap() - begun;
    assert!(held_back >= Duration::from_secs(1), "the sender was rid of 40 kB after {held_back:?}");
    super::wait_for("the account", 10, || (proxy.carried(Direction::Up) == 40_000).then_some(()));

    proxy.set(Direction::Up, Way { hole: true, ..Way::default() });
    near.write_all(b"into the hole").unwrap();
    end.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(is_timeout(&end.read(&mut first).unwrap_err()), "neither bytes nor an end");
    super::wait_for("the account", 10, || (proxy.swallowed(Direction::Up) == 13).then_some(()));
    end.write_all(b"!").unwrap();
    near.read_exact(&mut first).unwrap();
    assert_eq!(first, *b"!", "the other direction is open");

    proxy.cut(Cut::Reset);
    end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for (name, stream) in [("near", &mut near), ("far", &mut end)] {
        assert_eq!(stream.read(&mut first).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{name}");
    }
}
