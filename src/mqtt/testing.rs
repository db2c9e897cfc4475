//! A real broker and a bad link, for tests.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A mosquitto of its own; ends with the value.
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// With more lines of configuration; `{dir}` stands for its directory, which `files` go to.
    pub(crate) fn with(lines: &str) -> Self {
        Self::with_files(lines, |_| {})
    }

    pub(crate) fn with_files(lines: &str, files: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        files(dir.path());
        let port = free_port();
        let config = dir.path().join("mosquitto.conf");
        let lines = lines.replace("{dir}", &dir.path().to_string_lossy());
        let user = "user root\n";
        std::fs::write(&config, format!("{user}listener {port} 127.0.0.1\npersistence false\n{lines}"))
            .expect("config");
        let child = spawn(&config);
        let broker = Self { child, port, dir };
        eventually("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        broker
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// A new one on the same port, with nothing of the old.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.dir.path().join("mosquitto.conf"));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path) -> Child {
    let binary = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("mosquitto is not installed; tests/run installs what the tests need");
    let mut command = Command::new(binary);
    command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("mosquitto starts")
}

/// Writes a file that only its owner may read.
pub(crate) fn secret(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("chmod");
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// The longest that a test waits for what takes a moment, or a few seconds, on a machine with nothing else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A link with latency that can be cut: everything between a client and the broker goes through it.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<ProxyShared>,
}

struct ProxyShared {
    to: SocketAddr,
    latency_ms: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

impl Proxy {
    pub(crate) fn to(port: u16, latency: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("bound").port();
        let shared = Arc::new(ProxyShared {
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            latency_ms: AtomicU64::new(latency.as_millis() as u64),
            open: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    accepting.carry(client);
                }
            }
        });
        Self { port: own, shared }
    }

    /// Breaks every connection; what was on its way is gone.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl ProxyShared {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.to) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let clones = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some((c1, s1)), Some((c2, s2))) = (clones(), clones()) else { return };
        self.open.lock().expect("lock").extend([c1, s1]);
        self.pump(client, s2);
        self.pump(server, c2);
    }

    fn pump(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let (send, receive) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1024);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let due = Instant::now() + Duration::from_millis(shared.latency_ms.load(Ordering::Relaxed));
                if send.send((due, buffer[..n].to_vec())).is_err() {
                    break;
                }
            }
        });
        thread::spawn(move || {
            while let Ok((due, bytes)) = receive.recv() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
