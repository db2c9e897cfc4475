//! A relay on loopback that counts: everything between one client and the broker goes through it.

use super::{Bytes, Outcome};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Nothing more comes after this time without a byte.
const QUIET: Duration = Duration::from_millis(300);

/// See the room.
pub(crate) struct Relay {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    stop: AtomicBool,
}

impl Relay {
    /// To `port` on loopback.
    pub(crate) fn to(port: u16) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { port: listener.local_addr()?.port(), shared: Arc::default() };
        let shared = Arc::clone(&relay.shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stop.load(Relaxed) {
                    return;
                }
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) {
                    carry(client, broker, &shared);
                }
            }
        });
        Ok(relay)
    }

    /// So far, of all connections.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes { up: self.shared.up.load(Relaxed), down: self.shared.down.load(Relaxed) }
    }

    /// The same once nothing more comes.
    pub(crate) fn settled(&self) -> Bytes {
        let (mut bytes, mut since) = (self.bytes(), Instant::now());
        while since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.bytes();
            if now != bytes {
                (bytes, since) = (now, Instant::now());
            }
        }
        bytes
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(client: TcpStream, broker: TcpStream, shared: &Arc<Shared>) {
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (Ok(to_client), Ok(to_broker)) = (client.try_clone(), broker.try_clone()) else { return };
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::spawn(move || pump(client, to_broker, &up.up));
    std::thread::spawn(move || pump(broker, to_client, &down.down));
}

fn pump(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        count.fetch_add(n as u64, Relaxed);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
