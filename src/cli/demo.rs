//! `varved demo`: the whole path on this machine, and an account that can fail.
//!
//! A broker, a receiver and a device run as processes of their own, in a folder of their own; the device records the
//! sensors of this machine. After the time asked for, the device is stopped (it commits what is in RAM), started once more
//! without sensors to deliver the rest, and everything is ended. Then both files are opened again and compared, reading by
//! reading: taken = committed = acknowledged = in the replica, or the exit code is not 0.

use super::account::{self, Account};
use super::args::{Argument, Arguments};
use super::{CliError, Command};
use crate::config::{Config, FleetConfig};
use crate::device::control::{self, Answer, Request};
use crate::device::{self, Report};
use crate::fault::{Exit, Fault, Verdict};
use crate::fleet;
use crate::signals::{self, Signals};
use serde_json::Value as Json;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::time::{Duration, Instant};

/// The device's name in the demo.
const DEVICE: &str = "demo";

/// How long a part may take to start, to deliver, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Marks a folder as one that the demo made and may empty.
const MARK: &str = "varved-demo";

pub(super) const COMMAND: Command = Command {
    name: "demo",
    args: "[--seconds N] [--dir D]",
    brief: "the whole path on this machine, with an account that is checked",
    long: "  --seconds N   how long to record this machine's sensors; default 12
  --dir D       where; default a folder in the system's temporary one, emptied by the next demo

Starts an embedded broker, a receiver and a device as processes of their own, shows what they do, ends them, opens both
files again and compares them reading by reading. Ends with 0 only if everything taken was committed, acknowledged, and
is in the replica, the same.",
    run: demo,
};

/// The processes of a demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The embedded broker.
    Broker,
    /// The receiver.
    Receiver,
    /// The device with this machine's sensors.
    Device,
    /// The same device without sensors: it delivers what is left.
    Deliver,
}

impl Part {
    const ALL: [(&'static str, Self); 4] =
        [("broker", Self::Broker), ("receiver", Self::Receiver), ("device", Self::Device), ("deliver", Self::Deliver)];

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, part)| *part == self).map_or("", |(name, _)| name)
    }
}

fn demo(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut seconds, mut dir, mut part) = (12, std::env::temp_dir().join("varved-demo"), None);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "seconds" => {
                let text = arguments.text()?;
                let number = text.parse().ok().filter(|n| (1..=86_400).contains(n));
                seconds = number.ok_or_else(|| arguments.wrong(format!("`{text}` is not a number from 1 to 86400")))?;
            }
            Argument::Option(name) if name == "dir" => dir = arguments.path()?,
            // How the demo starts its parts; of no use to anybody else.
            Argument::Option(name) if name == "part" => part = Some(arguments.word(&Part::ALL)?),
            other => return Err(arguments.unexpected(&other)),
        }
    }
    match part {
        Some(part) => be(part, &dir),
        None => Stage::set(&dir).and_then(|stage| stage.play(seconds)),
    }
    .map_err(CliError::fault)
}

/// Why there is no account.
#[derive(Debug)]
enum DemoError {
    /// The system refused something.
    Io(io::Error),
    /// A part did.
    Part(Box<dyn Fault + Send + Sync>),
    /// In words, with where to look.
    Told(String),
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DemoError {
    fn part(fault: impl Fault + Send + Sync + 'static) -> Self {
        Self::Part(Box::new(fault))
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(
                f,
                "the demo ended early: {error}; see that its folder can be written, or name another with --dir"
            ),
            Self::Part(fault) => fault.fmt(f),
            Self::Told(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DemoError {}

impl Fault for DemoError {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Io(_) | Self::Told(_) => Exit::Io,
            Self::Part(fault) => fault.exit(),
        }
    }
}

/// This process is one of the parts.
fn be(part: Part, dir: &Path) -> Result<Exit, DemoError> {
    let paths = Paths::new(dir);
    // A demo that is killed leaves nobody behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).map_err(io::Error::from)?;
    super::log_to_stderr();
    match part {
        Part::Broker => {
            let config = load_fleet(&paths)?;
            let Some(listen) = config.listen else {
                return Err(DemoError::Told("the broker has no address".to_owned()));
            };
            let _broker = fleet::broker::Broker::start(listen, &config.prefix).map_err(DemoError::part)?;
            let mut signals = Signals::take()?;
            smol::block_on(signals.ended());
        }
        Part::Receiver => {
            let mut config = load_fleet(&paths)?;
            config.broker = config.listen.take().map(|at| crate::config::Broker {
                host: at.ip().to_string(),
                port: at.port(),
                tls: false,
            });
            fleet::run(config, signals::end_of_service()?).map_err(DemoError::part)?;
        }
        Part::Device | Part::Deliver => {
            let mut config = Config::load(&paths.device_config).map_err(DemoError::part)?;
            if part == Part::Deliver {
                config.sensors.clear();
            }
            let report = device::run(config).map_err(DemoError::part)?;
            println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
        }
    }
    Ok(Exit::Ok)
}

fn load_fleet(paths: &Paths) -> Result<FleetConfig, DemoError> {
    FleetConfig::load(&paths.fleet_config).map_err(DemoError::part)
}

/// Where the demo keeps what.
#[derive(Debug, Clone)]
struct Paths {
    dir: PathBuf,
    db: PathBuf,
    control: PathBuf,
    device_config: PathBuf,
    fleet_config: PathBuf,
    fleet_data: PathBuf,
}

impl Paths {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            db: dir.join("device/varved.db"),
            control: dir.join("device/control.sock"),
            device_config: dir.join("device/varved.toml"),
            fleet_config: dir.join("fleet/fleet.toml"),
            fleet_data: dir.join("fleet/data"),
        }
    }
}

/// The folder, the port, and the parts as they run; what still runs when this is dropped is ended.
struct Stage {
    paths: Paths,
    broker: SocketAddr,
    parts: Vec<(Part, Child)>,
}

impl Stage {
    /// Makes the folder and the two configurations.
    fn set(dir: &Path) -> Result<Self, DemoError> {
        let paths = Paths::new(dir);
        empty(dir)?;
        fs::create_dir_all(dir.join("device"))?;
        fs::create_dir_all(&paths.fleet_data)?;
        // Bound for a moment to have a port that is free; the broker binds it again.
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        fs::write(&paths.device_config, device_config(&paths, broker))?;
        fs::write(&paths.fleet_config, format!("[fleet]\ndata = {:?}\nlisten = \"{broker}\"\n", paths.fleet_data))?;
        Ok(Self { paths, broker, parts: Vec::new() })
    }

    fn play(mut self, seconds: u64) -> Result<Exit, DemoError> {
        println!("varved demo: {}", self.paths.dir.display());
        self.start(Part::Broker)?;
        let broker = self.broker;
        self.await_part("the broker", || TcpStream::connect(broker).ok().map(drop))?;
        self.start(Part::Receiver)?;
        self.start(Part::Device)?;
        let control = self.paths.control.clone();
        let first = self.await_part("the device", || status(&control))?;
        self.watch(seconds)?;
        let recorded = self.end_device(Part::Device)?;
        println!("  device stopped: it committed what was in RAM; once more without sensors, to deliver the rest");
        self.start(Part::Deliver)?;
        self.await_part("the acknowledgement of everything", || status(&control).filter(is_delivered).map(drop))?;
        let delivered = self.end_device(Part::Deliver)?;
        self.end(Part::Receiver)?;
        self.end(Part::Broker)?;
        self.tell(&first, &recorded, &delivered)
    }

    fn start(&mut self, part: Part) -> Result<(), DemoError> {
        let log = fs::File::create(self.paths.dir.join(format!("{}.log", part.name())))?;
        let child = process::Command::new(std::env::current_exe()?)
            .args(["demo", "--part", part.name(), "--dir"])
            .arg(&self.paths.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        println!("  {} runs as process {}", part.name(), child.id());
        self.parts.push((part, child));
        Ok(())
    }

    /// Asks until there is an answer; fails when a part ends in the meantime, or patience does.
    fn await_part<T>(&mut self, what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T, DemoError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            for (part, child) in &mut self.parts {
                if let Some(exit) = child.try_wait()? {
                    return Err(self.paths.complain(*part, &format!("ended with {exit}")));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(DemoError::Told(format!(
            "waited {} s in vain for {what}; see the logs in {}",
            PATIENCE.as_secs(),
            self.paths.dir.display()
        )))
    }

    /// A line a second.
    fn watch(&mut self, seconds: u64) -> Result<(), DemoError> {
        let control = self.paths.control.clone();
        for second in 1..=seconds {
            std::thread::sleep(Duration::from_secs(1));
            let status = self.await_part("the device", || status(&control))?;
            println!("{}", progress(second, seconds, &status));
            io::stdout().flush()?;
        }
        Ok(())
    }

    fn end_device(&mut self, part: Part) -> Result<Report, DemoError> {
        let text = self.end(part)?;
        serde_json::from_str(&text).map_err(|why| self.paths.complain(part, &format!("left no account: {why}")))
    }

    /// SIGTERM, and what the part printed.
    fn end(&mut self, part: Part) -> Result<String, DemoError> {
        let at = self.parts.iter().position(|(p, _)| *p == part).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let (_, child) = self.parts.remove(at);
        signal(&child, rustix::process::Signal::TERM);
        let out = child.wait_with_output()?;
        if !out.status.success() {
            return Err(self.paths.complain(part, &format!("ended with {}", out.status)));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Opens both files and compares.
    fn tell(self, first: &Json, recorded: &Report, delivered: &Report) -> Result<Exit, DemoError> {
        let account = account::compare(&self.paths.db, &self.paths.fleet_data.join(DEVICE)).map_err(DemoError::part)?;
        let taken = recorded.recorded.taken + delivered.recorded.taken;
        let written = recorded.written_bytes.saturating_sub(first["flash"]["written_bytes"].as_u64().unwrap_or(0));
        let sent = recorded.sent_bytes + delivered.sent_bytes;
        println!("{}", verdict(taken, &account, written, sent));
        self.say_next();
        let fine = account.is_whole() && account.committed == taken;
        Ok(if fine { Exit::Ok } else { Exit::Data })
    }

    fn say_next(&self) {
        let db = self.paths.db.display();
        println!("\nThe processes have ended; the files are in {}\nNext:", self.paths.dir.display());
        println!(
            "  varved query --db {db} \"SELECT series, utc, value, unit FROM reading ORDER BY time DESC LIMIT 10\""
        );
        println!("  varved export --db {db} --format csv -o readings.csv");
        println!("  varved-fleet devices --config {}", self.paths.fleet_config.display());
        println!("  varved verify {db}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, child) in &mut self.parts {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Paths {
    /// What went wrong with a part, with the end of its log.
    fn complain(&self, part: Part, what: &str) -> DemoError {
        let log = self.dir.join(format!("{}.log", part.name()));
        let text = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        let mut said = format!("the {} {what}; its log is {}", part.name(), log.display());
        for line in tail.iter().rev() {
            let _ = write!(said, "\n    {line}");
        }
        DemoError::Told(said)
    }
}

/// Empties a folder that an earlier demo made; refuses any other that holds something.
fn empty(dir: &Path) -> Result<(), DemoError> {
    let mark = dir.join(MARK);
    match fs::read_dir(dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why.into()),
        Ok(mut entries) => {
            if entries.next().is_some() && !mark.exists() {
                let text = format!("{} is not empty and not of a demo; name another with --dir", dir.display());
                return Err(DemoError::Told(text));
            }
            fs::remove_dir_all(dir)?;
        }
    }
    fs::create_dir_all(dir)?;
    Ok(fs::write(mark, "made by varved demo; emptied by the next one\n")?)
}

fn device_config(paths: &Paths, broker: SocketAddr) -> String {
    let mut text = format!(
        "device = \"{DEVICE}\"\n\n[store]\npath = {:?}\ncommit_interval = \"2s\"\n\n[control]\nlisten = \"unix://{}\"\n",
        paths.db,
        paths.control.display()
    );
    for kind in ["proc", "hwmon", "thermal", "power_supply", "iio"] {
        let _ = write!(text, "\n[[sensor]]\nkind = \"{kind}\"\ninterval = \"250ms\"\n");
    }
    let _ = write!(text, "\n[uplink]\nbroker = \"mqtt://{broker}\"\n");
    text
}

fn status(control: &Path) -> Option<Json> {
    match control::ask(control, &Request::Status) {
        Ok(Answer::Ok(status)) => Some(status),
        _ => None,
    }
}

fn is_delivered(status: &Json) -> bool {
    status["store"]["pending_readings"] == 0
}

fn progress(second: u64, seconds: u64, status: &Json) -> String {
    let number = |at: &str| status.pointer(at).and_then(Json::as_u64).unwrap_or(0);
    let committed = number("/recorded/committed");
    format!(
        "  {second:>3}/{seconds} s   taken {:>7}   at risk {:>5}   committed {committed:>7}   acknowledged {:>7}   wire {:>8} B",
        number("/recorded/taken"),
        number("/risk/readings"),
        number("/store/readings").saturating_sub(number("/store/pending_readings")),
        number("/link/sent_bytes"),
    )
}

fn verdict(taken: u64, account: &Account, written: u64, sent: u64) -> String {
    let per = |bytes: u64| bytes as f64 / account.committed.max(1) as f64;
    let mark = |fine: bool| if fine { "=" } else { "≠" };
    let mut text = format!(
        "\nThe account, from both files opened again and compared value by value:\n  \
         taken {taken} {} committed {} {} acknowledged {} {} in the replica {}   ({} series)\n",
        mark(taken == account.committed),
        account.committed,
        mark(account.committed == account.acknowledged),
        account.acknowledged,
        mark(account.is_whole()),
        account.replicated,
        account.series,
    );
    for difference in &account.differences {
        let _ = writeln!(text, "  DIFFERENT: {difference}");
    }
    let _ = write!(
        text,
        "  {:.2} bytes per reading in the file's segments, {:.1} written to flash while recording, {:.2} on the wire",
        per(account.segment_bytes),
        per(written),
        per(sent)
    );
    text
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
