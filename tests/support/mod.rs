//! Real processes for the stories: a broker, a device, a receiver. Each ends with the value that started it.

pub(crate) mod plant;
pub(crate) mod proxy;
pub(crate) mod ssh;
pub(crate) mod strace;

use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const VARVED: &str = env!("CARGO_BIN_EXE_varved");
pub(crate) const VARVED_FLEET: &str = env!("CARGO_BIN_EXE_varved-fleet");

/// The service that the stories run: the tests' own build, or the binary that `VARVED_BINARY` names, so that a build for a
/// board can be put to the same questions.
pub(crate) fn service() -> PathBuf {
    std::env::var_os("VARVED_BINARY").map_or_else(|| VARVED.into(), PathBuf::from)
}

/// Whether the proofs are to run at their full length (`tests/run --full`).
pub(crate) fn full() -> bool {
    std::env::var("VARVED_FULL").is_ok_and(|value| !value.is_empty())
}

/// What all chance of a story follows from: `VARVED_SEED`, or 7.
pub(crate) fn seed() -> u64 {
    std::env::var("VARVED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A machine that is busy with other things may take so many times as long as one that is not.
const SLOW: u64 = 4;

/// Asks until `ready` answers, and fails with `what` after `seconds`, of a machine that has nothing else to do: a slow one gets
/// [`SLOW`] times as many.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut ready: impl FnMut() -> Option<T>) -> T {
    let seconds = seconds * SLOW;
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {seconds} s in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many times as long as by itself something takes on this machine now: as many as processes want each core.
pub(crate) fn slowness() -> u32 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split_whitespace().next().and_then(|minute| minute.parse().ok()).unwrap();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    (load / cores as f64).ceil().max(1.0) as u32
}

/// A process that does not outlive its value; its output goes to a file that failures name.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}; tests/run installs what the tests need"));
        Self { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mosquitto of our own on loopback, without persistence: what it has is gone when it is killed.
pub(crate) struct Broker {
    pub port: u16,
    process: Option<Process>,
    config: PathBuf,
}

impl Broker {
    pub fn start(dir: &Path) -> Self {
        Self::with(dir, "")
    }

    /// The same with more lines for its listener.
    pub fn with(dir: &Path, lines: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let port = free_port();
        let config = dir.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n{lines}");
        std::fs::write(&config, text).unwrap();
        let mut broker = Self { port, process: None, config };
        broker.restart();
        broker
    }

    /// Kills it with -9 if it runs, and starts it anew on the same port.
    pub fn restart(&mut self) {
        self.kill9();
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|p| Path::new(p).exists());
        let program = program.expect("mosquitto is not installed; tests/run installs it");
        let log = self.config.with_extension("log");
        self.process = Some(Process::start(Command::new(program).arg("-c").arg(&self.config), &log));
        let port = self.port;
        wait_for("mosquitto to listen", 10, || TcpStream::connect(("127.0.0.1", port)).ok());
    }

    pub fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill9();
        }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

/// A folder with a device's config, database and sockets.
pub(crate) struct Site {
    pub dir: PathBuf,
    pub config: PathBuf,
}

impl Site {
    /// A device `name` with a line-protocol socket, and whatever `extra` adds. `store` goes into `[store]`.
    pub fn new(dir: &Path, name: &str, store: &str, extra: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let d = dir.display();
        let text = format!(
            "device = \"{name}\"\n[store]\npath = \"{d}/varved.db\"\n{store}\n\
             [control]\nlisten = \"unix://{d}/control.sock\"\n\
             [[sensor]]\nkind = \"socket\"\nlisten = \"unix://{d}/ingest.sock\"\n{extra}\n"
        );
        let config = dir.join("varved.toml");
        std::fs::write(&config, text).unwrap();
        Self { dir: dir.to_owned(), config }
    }

    pub fn db(&self) -> PathBuf {
        self.dir.join("varved.db")
    }

    /// Starts the service and waits until it answers.
    pub fn run(&self) -> Process {
        let process = self.spawn();
        wait_for("the device to answer", 20, || self.try_status());
        process
    }

    pub fn spawn(&self) -> Process {
        Process::start(
            Command::new(service()).args(["run", "--config"]).arg(&self.config).env("RUST_LOG", "info"),
            &self.dir.join("device.log"),
        )
    }

    pub fn command(&self, name: &str) -> Output {
        Command::new(VARVED).args([name, "--config"]).arg(&self.config).output().unwrap()
    }

    pub fn flush(&self) {
        let out = self.command("flush");
        assert!(out.status.success(), "flush: {}", text(&out));
    }

    pub fn try_status(&self) -> Option<Json> {
        let out = Command::new(VARVED).args(["status", "--json", "--config"]).arg(&self.config).output().unwrap();
        out.status.success().then(|| serde_json::from_slice(&out.stdout).unwrap())
    }

    pub fn status(&self) -> Json {
        self.try_status().expect("a status")
    }

    /// `status` or `flush` by the control socket itself, where starting a process each time would be too slow.
    pub fn ask(&self, what: &str) -> Option<Json> {
        let mut control = UnixStream::connect(self.dir.join("control.sock")).ok()?;
        control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        control.write_all(format!("{{\"ask\":\"{what}\"}}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(control).read_line(&mut answer).ok()?;
        let answer: Json = serde_json::from_str(&answer).ok()?;
        answer.get("ok").cloned()
    }

    /// A client of the line-protocol socket.
    pub fn client(&self) -> UnixStream {
        wait_for("the ingest socket", 10, || UnixStream::connect(self.dir.join("ingest.sock")).ok())
    }

    pub fn send(&self, lines: &str) {
        self.client().write_all(lines.as_bytes()).unwrap();
    }

    /// `varved query` on the device's file: rows as JSON.
    pub fn query(&self, sql: &str) -> Vec<Json> {
        let out =
            Command::new(VARVED).args(["query", "--format", "json", "--db"]).arg(self.db()).arg(sql).output().unwrap();
        assert!(out.status.success(), "query {sql}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    pub fn count(&self, what: &str) -> i64 {
        self.query(&format!("SELECT count(*) AS n FROM {what}"))[0]["n"].as_i64().unwrap()
    }

    /// The highest sequence number in the file: how many commits there were, whatever has become of their segments.
    pub fn high(&self) -> u64 {
        self.query("SELECT coalesce(max(last_seq), 0) AS seq FROM segment")[0]["seq"].as_u64().unwrap()
    }
}

/// The receiver.
pub(crate) struct Fleet {
    pub dir: PathBuf,
    pub config: PathBuf,
}

impl Fleet {
    pub fn new(dir: &Path, broker: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let config = dir.join("fleet.toml");
        std::fs::write(&config, format!("[fleet]\ndata = \"{}/data\"\nbroker = \"{broker}\"\n", dir.display()))
            .unwrap();
        Self { dir: dir.to_owned(), config }
    }

    pub fn run(&self) -> Process {
        Process::start(
            Command::new(VARVED_FLEET).args(["run", "--config"]).arg(&self.config).env("RUST_LOG", "info"),
            &self.dir.join("fleet.log"),
        )
    }

    pub fn query(&self, device: &str, sql: &str) -> Option<Vec<Json>> {
        let out = self.command(&["query", device, sql, "--format", "json"]);
        out.status.success().then(|| serde_json::from_slice(&out.stdout).unwrap())
    }

    pub fn count(&self, device: &str) -> i64 {
        let rows = self.query(device, "SELECT count(*) AS n FROM reading");
        rows.map_or(0, |r| r[0]["n"].as_i64().unwrap())
    }

    pub fn command(&self, args: &[&str]) -> Output {
        let (name, rest) = args.split_first().unwrap();
        Command::new(VARVED_FLEET).arg(name).arg("--config").arg(&self.config).args(rest).output().unwrap()
    }

    pub fn devices(&self) -> Json {
        let out = self.command(&["devices", "--json"]);
        assert!(out.status.success(), "devices: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

/// Both streams of a finished command, for messages.
pub(crate) fn text(out: &Output) -> String {
    format!("{} {}{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Private memory of a process, in KiB (`/proc/PID/smaps_rollup`, Linux `Documentation/filesystems/proc.rst`).
pub(crate) fn rss_kib(pid: u32) -> u64 {
    let mut rollup = String::new();
    std::fs::File::open(format!("/proc/{pid}/smaps_rollup")).unwrap().read_to_string(&mut rollup).unwrap();
    let line = rollup.lines().find(|l| l.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A small generator with a seed (xorshift64*), so that a failure can be run again.
pub(crate) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }
}

/// A small file system of its own, in RAM; needs root.
pub(crate) struct Tmpfs {
    pub path: PathBuf,
}

impl Tmpfs {
    pub fn new(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let out =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output();
        let out = out.unwrap();
        assert!(out.status.success(), "a file system of one's own needs root: {}", text(&out));
        Self { path: path.to_owned() }
    }

    /// A file that takes all the room that is left.
    pub fn fill(&self, name: &str) {
        let mut file = std::fs::File::create(self.path.join(name)).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn remount(&self, how: &str) {
        let out = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.path).output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
