//! The sources together, as the service runs them: real sockets, real commands, a directory for a board.

use super::*;
use crate::clock::system::SystemClock;
use crate::config::{ExecConfig, FileConfig, Listen, ProcConfig, ProcGroup, SocketConfig};
use crate::reading::{NoValue, Scale, Stamp, Value};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

/// The sources of a configuration at work in a directory of their own.
struct Bench {
    dir: tempfile::TempDir,
    registry: Arc<Registry>,
    out: Receiver<Vec<Reading>>,
    running: Option<Running>,
    executor: Arc<Executor<'static>>,
    _end: Sender<()>,
    waiting: std::collections::VecDeque<Reading>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Bench {
    fn start(queue: usize, max_series: u32, configs: impl FnOnce(&Path) -> Vec<SensorConfig>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let configs = configs(dir.path());
        let registry = Arc::new(Registry::new(max_series));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Path::new("/")));
        let (give, out) = smol::channel::bounded(queue);
        let executor = Arc::new(Executor::new());
        let running = start(&configs, dir.path(), &registry, &clock, &give, &executor).expect("started");
        let (end, ended) = smol::channel::bounded::<()>(1);
        let turning = executor.clone();
        std::thread::spawn(move || smol::block_on(turning.run(async { ended.recv().await.is_err() })));
        Self { dir, registry, out, running: Some(running), executor, _end: end, waiting: Default::default() }
    }

    fn one(kind: SensorKind) -> Self {
        Self::start(64, 100, |_| vec![block(kind)])
    }

    fn unix(clients: u32) -> Self {
        Self::start(64, 1000, |dir| vec![listening(Listen::Unix(dir.join("s")), clients)])
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("s")).expect("connected")
    }

    fn counters(&self) -> Snapshot {
        self.running.as_ref().expect("running").counters()[0].snapshot()
    }

    /// The next reading: name, value, stamp.
    fn next(&mut self) -> (String, Value, Stamp) {
        while self.waiting.is_empty() {
            let chunk = smol::block_on(source::within(Some(PATIENCE), self.out.recv()));
            self.waiting.extend(chunk.expect("a reading in time").expect("sources at work"));
        }
        let reading = self.waiting.pop_front().expect("checked above");
        (self.registry.def(reading.series).name.clone(), reading.value, reading.stamp)
    }

    fn values(&mut self, n: usize) -> Vec<Value> {
        (0..n).map(|_| self.next().1).collect()
    }

    fn until(&self, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let began = Instant::now();
        loop {
            let seen = self.counters();
            if what(&seen) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "not in time: {seen:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) -> Duration {
        let began = Instant::now();
        smol::block_on(self.running.take().expect("running").stop());
        assert!(self.executor.is_empty(), "no task is left");
        began.elapsed()
    }
}

fn block(kind: SensorKind) -> SensorConfig {
    SensorConfig { kind, interval: Duration::from_millis(20) }
}

fn listening(listen: Listen, clients: u32) -> SensorConfig {
    block(SensorKind::Socket(SocketConfig { listen, clients }))
}

fn shell(script: &str, timeout: Option<Duration>) -> SensorKind {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    SensorKind::Exec(ExecConfig { command, timeout, backoff: Duration::from_millis(40) })
}

fn free_address(udp: bool) -> SocketAddr {
    if udp {
        return UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("an address");
    }
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("an address")
}

/// A line comes in the same way through each kind of socket, with its own stamp or the time of its arrival.
#[test]
fn a_line_comes_in_through_every_kind_of_socket() {
    let line = b"weather,station=7 temp=21.5 1000\n";
    let expect = |mut bench: Bench| {
        let (name, value, stamp) = bench.next();
        assert_eq!((name.as_str(), value), ("weather/temp,station=7", Value::Float(21.5)));
        assert_eq!(stamp, Stamp::Utc(crate::clock::UtcNanos(1000)));
        assert!(bench.stop() < STOP_PATIENCE);
        assert!(!bench.dir.path().join("s").exists(), "the socket file is gone");
    };
    let bench = Bench::unix(2);
    bench.connect().write_all(line).expect("sent");
    expect(bench);

    let bench = Bench::start(8, 10, |dir| vec![listening(Listen::UnixGram(dir.join("s")), 8)]);
    let client = UnixDatagram::unbound().expect("a socket");
    client.send_to(line, bench.dir.path().join("s")).expect("sent");
    expect(bench);

    let at = free_address(false);
    let bench = Bench::one(listening(Listen::Tcp(at), 8).kind);
    TcpStream::connect(at).expect("connected").write_all(line).expect("sent");
    expect(bench);

    let at = free_address(true);
    let bench = Bench::one(listening(Listen::Udp(at), 8).kind);
    UdpSocket::bind("127.0.0.1:0").expect("a socket").send_to(&line[..line.len() - 1], at).expect("sent");
    expect(bench);
}

/// A mebibyte without a newline, binary noise and stamps of the year 2500 between good lines: the good ones are all
/// there, in order, and each bad one is counted under its reason. 1970 is a stamp like any other.
#[test]
fn good_lines_survive_what_comes_between_them() {
    let mut bench = Bench::unix(1);
    let mut client = bench.connect();
    let began = SystemClock::new(Path::new("/")).now().boot;
    client.write_all(b"m a=1 0\n").expect("sent");
    client.write_all(&vec![b'x'; 1 << 20]).expect("sent");
    client.write_all(b"\nm a=2\n\xff\xfe\x00\nm a=3 16725225600000000000\nm a=NaN\n").expect("sent");
    let (_, one, stamp) = bench.next();
    assert_eq!((one, stamp), (Value::Float(1.0), Stamp::Utc(crate::clock::UtcNanos(0))));
    let (_, two, stamp) = bench.next();
    assert_eq!(two, Value::Float(2.0));
    assert!(matches!(stamp, Stamp::Boot(at) if at >= began), "{stamp:?}");
    assert!(matches!(bench.next().1, Value::Float(nan) if nan.is_nan()));
    let refused: Vec<_> = bench.counters().refused.into_iter().collect();
    assert_eq!(refused, [("encoding", 1), ("stamp", 1), ("too-long", 1)]);
}

/// A client that goes away in mid-line loses that line, not the front half of its number; and its worker serves the next
/// client.
#[test]
fn half_a_line_is_never_taken_for_a_value() {
    let mut bench = Bench::unix(1);
    bench.connect().write_all(b"m a=1i\nm a=234").expect("sent");
    bench.connect().write_all(b"m a=5i\n").expect("sent");
    assert_eq!(bench.values(2), [Value::Int(1), Value::Int(5)]);
    let seen = bench.until(|seen| seen.clients == 0);
    assert_eq!((seen.refused.get("unfinished"), seen.reconnects), (Some(&1), 2));
}

/// One client more than there are workers waits, and is served when one goes.
#[test]
fn clients_above_the_limit_wait_for_their_turn() {
    let mut bench = Bench::unix(2);
    let (first, second) = (bench.connect(), bench.connect());
    bench.until(|seen| seen.clients == 2);
    bench.connect().write_all(b"m a=3i\n").expect("taken by the kernel");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((bench.counters().clients, bench.out.len()), (2, 0));
    drop(first);
    assert_eq!(bench.values(1), [Value::Int(3)]);
    drop(second);
}

/// Where nobody takes readings the sender of a stream is held back, and nothing is lost once they are taken again.
#[test]
fn a_stream_is_held_back_while_the_queue_is_full() {
    const N: i64 = 200_000;
    let mut bench = Bench::start(1, 10, |dir| vec![listening(Listen::Unix(dir.join("s")), 1)]);
    let mut client = bench.connect();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sent = done.clone();
    let sender = std::thread::spawn(move || {
        let mut lines = String::new();
        (0..N).for_each(|i| lines.push_str(&format!("m a={i}i\n")));
        client.write_all(lines.as_bytes()).expect("sent");
        sent.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!done.load(std::sync::atomic::Ordering::SeqCst), "held back");
    assert!(bench.counters().readings < 50_000, "no more is read than fits the queue");
    for i in 0..N {
        assert_eq!(bench.next().1, Value::Int(i));
    }
    sender.join().expect("all sent");
}

/// A stop with a full queue that nobody drains ends all the same, and what was in hand is counted.
#[test]
fn a_stop_does_not_wait_for_the_queue() {
    let mut bench = Bench::start(1, 100, |dir| {
        let config = ProcConfig { groups: vec![ProcGroup::Load] };
        super::sysfs::fake::tree(dir, &[("proc/loadavg", "0.05 0.10 0.15 1/2 3\n")]);
        vec![block(SensorKind::Proc(config)), listening(Listen::Unix(dir.join("s")), 1)]
    });
    bench.until(|seen| seen.readings >= 6);
    let counters = bench.running.as_ref().expect("running").counters()[0].clone();
    assert!(bench.stop() < Duration::from_secs(2));
    assert_eq!((counters.snapshot().dropped, bench.out.len()), (3, 1));
}

/// Ten thousand names where a thousand are allowed: the rest is counted, and known names go on.
#[test]
fn ten_thousand_series_do_not_break_the_limit() {
    let mut bench = Bench::unix(1);
    let mut client = bench.connect();
    let mut lines = String::new();
    (0..10_000).for_each(|i| lines.push_str(&format!("m,id={i} a=1i\n")));
    lines.push_str("m,id=7 a=7i\n");
    let sender = std::thread::spawn(move || client.write_all(lines.as_bytes()).expect("sent"));
    assert_eq!(bench.values(1000), vec![Value::Int(1); 1000]);
    assert_eq!(bench.next().1, Value::Int(7));
    assert_eq!(bench.counters().refused.get("series-full"), Some(&9000));
    sender.join().expect("sent");
}

/// A socket that can't be bound is counted and tried again; the other sources do not wait for it.
#[test]
fn a_socket_that_is_taken_is_waited_for() {
    let at = free_address(false);
    let taken = std::net::TcpListener::bind(at).expect("taken");
    let mut bench =
        Bench::start(8, 10, |dir| vec![listening(Listen::Tcp(at), 1), listening(Listen::Unix(dir.join("s")), 1)]);
    bench.connect().write_all(b"m a=1i\n").expect("sent");
    assert_eq!(bench.values(1), [Value::Int(1)]);
    let seen = bench.until(|seen| seen.errors > 0);
    assert!(seen.last_error.is_some_and(|text| text.contains("can't listen")));
    drop(taken);
    let began = Instant::now();
    while TcpStream::connect(at).and_then(|mut client| client.write_all(b"m a=2i\n")).is_err() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(bench.values(1), [Value::Int(2)]);
}

/// A command that ends is started again, time after time, and why it ended can be read.
#[test]
fn a_command_that_ends_is_started_again() {
    let mut bench = Bench::one(shell("echo 'm a=1i'; echo oops >&2; exit 3", None));
    assert_eq!(bench.values(4), vec![Value::Int(1); 4]);
    let seen = bench.until(|seen| seen.reconnects >= 3);
    assert!(seen.errors >= 3);
    assert!(seen.last_error.is_some_and(|text| text.contains("exit status: 3")));
}

/// Two blocks of one kind can be told apart in `status`.
#[test]
fn each_block_has_a_label_of_its_own() {
    let mut bench = Bench::start(8, 10, |_| vec![block(shell("sleep 9", None)), block(shell("sleep 8", None))]);
    let running = bench.running.as_ref().expect("running");
    let labels: Vec<_> = running.counters().iter().map(|counters| counters.source().to_owned()).collect();
    assert_eq!(labels, ["exec /bin/sh", "exec /bin/sh #2"]);
    bench.stop();
}

/// A command that is not there is an error that can be read, not the end of the service.
#[test]
fn a_command_that_is_not_there_is_counted() {
    let command = vec!["/nonexistent/probe".to_owned()];
    let config = ExecConfig { command, timeout: None, backoff: Duration::from_millis(10) };
    let mut bench = Bench::one(SensorKind::Exec(config));
    let seen = bench.until(|seen| seen.errors >= 3);
    assert!(seen.last_error.is_some_and(|text| text.contains("/nonexistent/probe")));
    bench.stop();
}

/// A command that prints a mebibyte of noise without a newline costs one count; the line after it is good.
#[test]
fn noise_of_a_command_is_bounded() {
    let script = "head -c 1048576 /dev/zero; echo; echo 'm a=1i'; head -c 1048576 /dev/zero >&2; exec sleep 1000";
    let mut bench = Bench::one(shell(script, None));
    assert_eq!(bench.values(1), [Value::Int(1)]);
    assert_eq!(bench.counters().refused.get("too-long"), Some(&1));
    bench.stop();
}

fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A stop ends the command and the children it has, also those that ignore SIGTERM.
#[test]
fn a_stop_ends_the_whole_process_group() {
    let mut bench = Bench::one(shell("trap '' TERM; sleep 1000 & echo \"m pid=$!i\"; echo \"m pid=$$i\"; wait", None));
    let pids = bench.values(2).into_iter().map(|value| match value {
        Value::Int(pid) => pid,
        other => panic!("{other:?}"),
    });
    let pids: Vec<_> = pids.collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert!(bench.stop() < STOP_PATIENCE);
    let began = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(began.elapsed() < Duration::from_secs(2), "still alive: {pids:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command that exits and leaves a child behind with its output open is seen to have ended; the child is ended too.
#[test]
fn a_child_left_behind_does_not_hide_the_end() {
    let mut bench = Bench::one(shell("sleep 1000 & echo \"m pid=$!i\"", None));
    let Value::Int(pid) = bench.next().1 else { panic!("a pid") };
    bench.until(|seen| seen.errors >= 1);
    let began = Instant::now();
    while is_alive(pid) {
        assert!(began.elapsed() < Duration::from_secs(2), "still alive");
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.stop();
}

/// A command that says nothing for too long is started again.
#[test]
fn a_silent_command_is_started_again() {
    let mut bench = Bench::one(shell("echo 'm a=1i'; exec sleep 1000", Some(Duration::from_millis(100))));
    assert_eq!(bench.values(2), [Value::Int(1), Value::Int(1)]);
    assert!(bench.until(|seen| seen.errors >= 1).last_error.is_some_and(|text| text.contains("silent")));
    bench.stop();
}

/// A polled file: scheduled stamps at the multiples of the interval, a reason while it is gone, and values again after.
#[test]
fn a_polled_file_keeps_its_schedule_and_says_when_it_is_gone() {
    const INTERVAL: i64 = 20_000_000;
    let mut bench = Bench::start(64, 10, |dir| {
        super::sysfs::fake::tree(dir, &[("run/level", "7\n")]);
        let (path, name) = ("/run/level".into(), "tank/level".to_owned());
        vec![block(SensorKind::File(FileConfig { path, name, unit: "m".into(), scale: Scale::MILLI }))]
    });
    let file = bench.dir.path().join("run/level");
    let mut before = None;
    let mut wait_for = |value: Value| {
        for _ in 0..200 {
            let (name, seen, stamp) = bench.next();
            let Stamp::Boot(at) = stamp else { panic!("{stamp:?}") };
            assert_eq!((name.as_str(), at.0 % INTERVAL), ("tank/level", 0));
            assert!(before.is_none_or(|before| before < at), "each tick once");
            before = Some(at);
            if seen == value {
                return;
            }
        }
        panic!("never {value:?}");
    };
    wait_for(Value::Int(7));
    std::fs::remove_file(&file).expect("removed");
    wait_for(Value::None(NoValue::Absent));
    std::fs::write(&file, "8").expect("written");
    wait_for(Value::Int(8));
    assert!(bench.stop() < Duration::from_secs(2));
}

/// This machine's /proc gives readings through the whole of it: the demo's default source.
#[test]
fn this_machine_is_a_source() {
    let registry = Arc::new(Registry::new(2000));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Path::new("/")));
    let (give, out) = smol::channel::bounded(4);
    let groups = ProcGroup::ALL.map(|(_, group)| group).to_vec();
    let configs = [block(SensorKind::Proc(ProcConfig { groups }))];
    let executor = Executor::new();
    let running = start(&configs, Path::new("/"), &registry, &clock, &give, &executor).expect("started");
    let chunk = smol::block_on(source::within(Some(PATIENCE), out.recv())).expect("in time").expect("a chunk");
    assert!(chunk.len() > 30, "{} readings", chunk.len());
    smol::block_on(running.stop());
    assert!(chunk.iter().filter(|reading| matches!(reading.value, Value::None(_))).count() < chunk.len() / 10);
}

/// A `file` sensor whose name is none is refused at the start, with words that say what to write.
#[test]
fn a_name_that_is_none_is_refused_with_advice() {
    let config = FileConfig { path: "/x".into(), name: "a b\\".into(), unit: String::new(), scale: Scale::ONE };
    let registry = Arc::new(Registry::new(1));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Path::new("/")));
    let (give, _out) = smol::channel::bounded(1);
    let refused = start(&[block(SensorKind::File(config))], Path::new("/"), &registry, &clock, &give, &Executor::new());
    let error = refused.expect_err("refused");
    assert_eq!((error.verdict(), error.exit()), (Verdict::Reject, Exit::Config));
    assert!(error.to_string().contains("write measurement/field"));
}
