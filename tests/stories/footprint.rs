//! What the service takes of a small board: memory, threads and descriptors are constants, whatever clients, brokers and
//! time do. `docs/footprint.md` says what the memory consists of, and how a build for a board is put to these questions.

use crate::support::*;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Resident KiB of an idle service that is connected: mqtt://, mqtts://. The pages of code in it differ by 200 from run to
/// run.
struct Bounds {
    plain_kib: u64,
    tls_kib: u64,
}

impl Bounds {
    /// For a board's build (`--no-default-features --features device,tls --profile board`), which `VARVED_BINARY` names: one
    /// and a half times what its parts take by themselves (3.9 and 5.1 MB). Measured: 5,640 and 5,988; the commands are in
    /// `docs/footprint.md`.
    const BOARD: Self = Self { plain_kib: 5_850, tls_kib: 7_650 };
    /// For the release profile, which does not count bytes and holds the demo and the receiver: most are pages of code (all but
    /// 980 of 8,796 without an uplink). Measured: 10,152 in the clear (9,028 before pacing, snapshots and the diagnosis of links).
    const RELEASE: Self = Self { plain_kib: 11_000, tls_kib: 12_200 };
    /// Without an optimiser.
    const DEBUG: Self = Self { plain_kib: 20_000, tls_kib: 22_000 };

    fn of_the_service() -> Self {
        match (std::env::var_os("VARVED_BINARY"), cfg!(debug_assertions)) {
            (Some(_), _) => Self::BOARD,
            (None, false) => Self::RELEASE,
            (None, true) => Self::DEBUG,
        }
    }
}

/// What the process had at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    threads: usize,
    descriptors: usize,
    rss_kib: u64,
}

impl Taken {
    fn by(pid: u32) -> Self {
        let entries = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        Self { threads: entries("task"), descriptors: entries("fd"), rss_kib: rss_kib(pid) }
    }

    fn counts(&self) -> (usize, usize) {
        (self.threads, self.descriptors)
    }
}

/// Sensors of every shape that needs no hardware: `/proc` each second, and sockets for streams and datagrams.
fn site(dir: &Path, uplink: &str) -> Site {
    let sensors = format!(
        "[[sensor]]\nkind = \"proc\"\ninterval = \"1s\"\n\
         [[sensor]]\nkind = \"socket\"\nlisten = \"unixgram://{}/datagrams.sock\"\n",
        dir.display()
    );
    Site::new(dir, "pump-17", "commit_interval = \"1s\"", &format!("{sensors}[uplink]\n{uplink}\n"))
}

fn connected(site: &Site) {
    // "open" once the fleet has answered, or has had its time to.
    let up = |link: &str| link == "open" || link.starts_with("waiting");
    wait_for("a connection", 60, || site.status()["link"]["state"].as_str().is_some_and(up).then_some(()));
}

/// Waits until the counts are what they were; what a moment needs (a client that is being hung up on) is given back.
fn settled(pid: u32, counts: (usize, usize)) -> Option<Taken> {
    (0..100).map(|_| Taken::by(pid)).find(|taken| {
        let settled = taken.counts() == counts;
        if !settled {
            std::thread::sleep(Duration::from_millis(50));
        }
        settled
    })
}

/// What it takes once its counts have been the same for two seconds.
fn at_rest(pid: u32) -> Taken {
    let mut last = (Taken::by(pid), Instant::now());
    wait_for("the service to be at rest", 30, || {
        let now = Taken::by(pid);
        if now.counts() != last.0.counts() {
            last = (now, Instant::now());
            return None;
        }
        (last.1.elapsed() >= Duration::from_secs(2)).then_some(())
    });
    Taken::by(pid)
}

/// An idle service that is connected keeps within the bound, in the clear and with TLS.
#[test]
fn an_idle_service_fits_a_small_board() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let ca = dir.path().join("ca.pem");
    let files = ["broker.pem", "broker.key"].map(|name| dir.path().join(name).display().to_string());
    let plain = Broker::start(dir.path());
    let extra = format!("cafile {}\ncertfile {}\nkeyfile {}\n", ca.display(), files[0], files[1]);
    let secure = Broker::with(&dir.path().join("secure"), &extra);

    let bounds = Bounds::of_the_service();
    let uplinks = [
        ("plain", format!("broker = \"{}\"", plain.url()), bounds.plain_kib),
        ("tls", format!("broker = \"mqtts://127.0.0.1:{}\"\nca = \"{}\"", secure.port, ca.display()), bounds.tls_kib),
    ];
    let running = uplinks.map(|(name, uplink, bound)| {
        let site = site(&dir.path().join(name), &uplink);
        let device = site.run();
        (name, site, device, bound)
    });
    for (_, site, ..) in &running {
        wait_for("an open link", 60, || (site.status()["link"]["state"] == "open").then_some(()));
    }
    std::thread::sleep(Duration::from_secs(if full() { 60 } else { 5 }));
    for (name, site, device, bound) in running {
        let taken = Taken::by(device.pid());
        println!("idle, {name}: {taken:?}");
        assert_eq!(site.status()["link"]["state"], "open");
        assert!(taken.rss_kib <= bound, "idle, {name}: {} KiB resident; the bound is {bound}", taken.rss_kib);
        assert_eq!(device.stop(), Some(0));
    }
}

/// Two hundred clients, fifty flushes and a broker that goes away again and again leave as many threads and descriptors
/// as before, and no memory behind.
#[test]
fn clients_and_reconnects_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let site = site(&dir.path().join("site"), &format!("broker = \"{}\"", broker.url()));
    let device = site.run();
    connected(&site);
    // Once each before the count: what is kept for ever is made at the first use.
    clients(&site, 20);
    site.flush();
    reconnect(&mut broker, &site);
    let before = at_rest(device.pid());

    clients(&site, 200);
    (0..50).for_each(|_| site.flush());
    let many = settled(device.pid(), before.counts()).unwrap_or_else(|| Taken::by(device.pid()));
    // Each wait for a broker that vanished within seconds is longer than the one before.
    let times = if full() { 20 } else { 3 };
    for _ in 0..times {
        if full() {
            // A connection that stood for ten seconds begins the waits anew.
            std::thread::sleep(Duration::from_secs(11));
        }
        reconnect(&mut broker, &site);
    }
    let after = settled(device.pid(), before.counts()).unwrap_or_else(|| Taken::by(device.pid()));
    println!("before {before:?}\nafter 200 clients and 50 flushes {many:?}\nafter {times} reconnects {after:?}");
    for now in [many, after] {
        assert_eq!(now.counts(), before.counts(), "threads and descriptors");
        assert!(now.rss_kib <= before.rss_kib + 300, "resident memory from {} to {} KiB", before.rss_kib, now.rss_kib);
    }
    assert_eq!(device.stop(), Some(0));
}

/// A hundred thousand readings, or three times as many: at full speed the memory is the same.
#[test]
fn memory_does_not_grow_with_readings() {
    const CHUNK: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let site = site(&dir.path().join("site"), &format!("broker = \"{}\"", broker.url()));
    let device = site.run();
    connected(&site);
    let mut client = site.client();
    let mut memory = Vec::new();
    for chunk in 0..6 {
        let lines: String = (chunk * CHUNK..(chunk + 1) * CHUNK)
            .map(|n| format!("plant,s={} v={n}i {}\n", n % 50, 1_790_000_000_000_000_000 + n * 1_000_003))
            .collect();
        client.write_all(lines.as_bytes()).unwrap();
        site.flush();
        memory.push(rss_kib(device.pid()));
    }
    println!("resident KiB at each 50,000 readings: {memory:?}");
    let (early, late) = (memory[1], memory[5]);
    assert!(late <= early + 512, "resident memory grew from {early} to {late} KiB with the readings");
    assert_eq!(device.stop(), Some(0));
}

/// So many clients, one after the other and some at once; each writes a line and goes.
fn clients(site: &Site, n: usize) {
    for at in 0..n {
        let mut client = site.client();
        client.write_all(format!("plant,s={} v={at}i\n", at % 50).as_bytes()).unwrap();
    }
}

/// Kills the broker, sees it missed, and waits until the device is back.
fn reconnect(broker: &mut Broker, site: &Site) {
    broker.kill9();
    wait_for("the device to miss its broker", 20, || (site.status()["link"]["state"] == "down").then_some(()));
    broker.restart();
    connected(site);
}

/// An authority, and a certificate of it for a broker on 127.0.0.1.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let out = out.expect("openssl is not installed; tests/run installs it");
        assert!(out.status.success(), "openssl {args}: {}", text(&out));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 30 -subj /CN=ca -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=broker -keyout broker.key -out broker.csr"));
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl("x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out broker.pem");
}
