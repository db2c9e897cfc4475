//! Real processes, a real broker, and a link between device and broker as they are in the field: late, cut, thin, deaf on one
//! side, false. Each story asks the same: what `flush` confirmed is at the fleet once, the same bit for bit, without a gap or a
//! loss; and the number acknowledged never stands still for long while something waits.

use crate::support::plant::{Plant, Progress};
use crate::support::proxy::{Direction, Proxy, Way};
use crate::support::*;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICE: &str = "pump-17";

/// A device behind a bad link, a broker and a receiver.
struct Scene {
    plant: Plant,
    progress: Progress,
    proxy: Proxy,
    /// The receiver's own link to the broker, which is good unless a story says otherwise.
    back: Proxy,
    site: Site,
    fleet: Fleet,
    device: Process,
    receiver: Process,
    broker: Broker,
    /// When it began.
    slowness: u32,
}

impl Scene {
    fn new(dir: &Path, way: Way) -> Self {
        Self::with(dir, way, "commit_interval = \"1s\"", true)
    }

    /// `up`: the broker runs from the beginning; otherwise [`Scene::appear`] starts it. `store` goes into `[store]`.
    fn with(dir: &Path, way: Way, store: &str, up: bool) -> Self {
        let mut broker = Broker::start(dir);
        if !up {
            broker.kill9();
        }
        let proxy = Proxy::to(broker.port, seed());
        proxy.set_both(way);
        let uplink = format!("[uplink]\nbroker = \"{}\"", proxy.url());
        let site = Site::new(&dir.join("site"), DEVICE, store, &uplink);
        let back = Proxy::to(broker.port, seed());
        let fleet = Fleet::new(&dir.join("fleet"), &back.url());
        let (device, receiver) = (site.run(), fleet.run());
        let (plant, progress, slowness) = (Plant::default(), Progress::new(), slowness());
        Self { plant, progress, proxy, back, site, fleet, device, receiver, broker, slowness }
    }

    /// The broker comes; from here on the progress counts.
    fn appear(&mut self) {
        self.broker.restart();
        self.progress = Progress::new();
    }

    /// So many readings a second for so long, confirmed every second.
    fn record(&mut self, seconds: u64, per_second: u64) {
        let begun = Instant::now();
        for tenth in 1..=seconds * 10 {
            self.plant.send(&self.site, per_second / 10);
            if tenth % 10 == 0 {
                assert!(self.plant.flush(&self.site), "the device does not answer");
            }
            self.look();
            let next = begun + Duration::from_millis(tenth * 100);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// On until the story has had what it is about, for ten times as long at the most.
    fn record_until(&mut self, seconds: u64, per_second: u64, enough: impl Fn(&Proxy) -> bool, what: &str) {
        self.record(seconds, per_second);
        for _ in 0..10 * seconds {
            if enough(&self.proxy) {
                return;
            }
            self.record(1, per_second);
        }
        panic!("in vain: {what}");
    }

    /// Until nothing waits.
    fn drain(&mut self, seconds: u64) {
        let (site, progress) = (&self.site, &mut self.progress);
        wait_for("the acknowledgement of everything", seconds, || progress.look(&site.ask("status")?).then_some(()));
    }

    fn look(&mut self) {
        self.progress.look(&self.site.ask("status").expect("a status"));
    }

    /// The account of the story, and that the acknowledged number never stood still for longer than `window`, on a machine that
    /// has nothing else to do.
    fn close(self, window: Duration) {
        let (up, down) = (self.proxy.carried(Direction::Up), self.proxy.carried(Direction::Down));
        println!(
            "{} connections, {} cut, {up} bytes up, {down} down, {} + {} falsified, {} + {} swallowed; longest stand {:?}",
            self.proxy.connections(),
            self.proxy.cuts(),
            self.proxy.falsified(Direction::Up),
            self.proxy.falsified(Direction::Down),
            self.proxy.swallowed(Direction::Up),
            self.proxy.swallowed(Direction::Down),
            self.progress.longest,
        );
        self.plant.assert_arrived(&self.fleet, DEVICE);
        assert_eq!(self.plant.confirmed(), self.plant.sent, "everything was confirmed");
        let (stood, window) = (self.progress.longest, window * self.slowness.max(slowness()));
        assert!(stood <= window, "the acknowledged number stood still for {stood:?}; at most {window:?} is allowed");
        assert_eq!(self.device.stop(), Some(0));
        assert_eq!(self.receiver.stop(), Some(0));
    }
}

/// Short for every day, long with `tests/run --full`.
fn length(short: u64, long: u64) -> u64 {
    if full() { long } else { short }
}

fn late(latency_ms: u64, window_s: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(dir.path(), Way::late(latency_ms));
    scene.record(length(6, 60), 1000);
    scene.drain(60);
    scene.close(Duration::from_secs(window_s));
}

/// 15 ms each way: everything arrives, and acknowledgements keep coming.
#[test]
fn fifteen_milliseconds_of_latency_lose_nothing() {
    late(15, 5);
}

/// 2 s each way, as over a satellite: connecting alone takes three round trips of 4 s; then everything arrives.
#[test]
fn two_seconds_of_latency_lose_nothing() {
    late(2000, 30);
}

/// A link of 15 ms that breaks every 700 ms, by RST or by closing: the one that makes a client lose what it believed to be
/// sent. Progress goes on between the cuts, without long waits for the next attempt. The receiver is slow to answer, so that
/// some of what had arrived is sent again; it is at the fleet once.
#[test]
fn cuts_every_700_ms_lose_nothing_and_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Many commits, so that every cut finds something under way.
    let mut scene = Scene::with(dir.path(), Way::late(15), "commit_interval = \"200ms\"", true);
    scene.back.set_both(Way::late(700));
    scene.proxy.cut_every(Duration::from_millis(700));
    let cuts = length(4, 50);
    scene.record_until(length(10, 120), 1000, |proxy| proxy.cuts() >= cuts, "so many cuts");
    scene.drain(150);
    scene.close(Duration::from_secs(30));
}

/// 2 kB/s with 2 s of latency: a backlog drains at the link's pace. Nothing is sent twice for slowness: what went over the
/// link is little more than the segments themselves.
#[test]
fn two_kilobytes_a_second_drain_a_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let way = Way { bytes_per_s: Some(2000), ..Way::late(2000) };
    let mut scene = Scene::with(dir.path(), way, "commit_interval = \"1s\"", false);
    scene.plant.send(&scene.site, length(15_000, 120_000));
    assert!(scene.plant.flush(&scene.site));
    let bytes = scene.site.status()["recorded"]["segment_bytes"].as_u64().unwrap();
    scene.appear();
    let begun = Instant::now();
    scene.drain(60 + bytes / 2000 * 2);
    let took = begun.elapsed();
    let carried = scene.proxy.carried(Direction::Up);
    println!("{bytes} bytes of segments took {took:?} and {carried} bytes on the link");
    assert!(carried <= bytes + bytes / 8 + 6000, "{carried} bytes went up for {bytes} of segments");
    scene.close(Duration::from_secs(length(40, 60)));
}

fn hole(direction: Direction) {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(dir.path(), Way::late(15));
    scene.record(2, 500);
    scene.drain(30);
    scene.proxy.set(direction, Way { hole: true, ..Way::late(15) });
    let before = scene.proxy.swallowed(direction);
    wait_for("something to fall into the hole", 60, || {
        scene.record(1, 500);
        (scene.proxy.swallowed(direction) > before).then_some(())
    });
    // What is in the hole stays there; a new connection has a way.
    scene.proxy.set(direction, Way::late(15));
    scene.record(length(5, 120), 500);
    scene.drain(150);
    assert!(scene.proxy.connections() >= 2, "the half-open connection was noticed");
    scene.close(Duration::from_secs(75));
}

/// What the device sends vanishes while the connection stays open, without FIN or RST; or what the broker sends does,
/// acknowledgements and its answers to pings: it is noticed, and all arrives. Both at one time, since each is mostly a wait for
/// the end of the keep-alive.
#[test]
fn a_black_hole_on_either_way_is_noticed() {
    std::thread::scope(|scope| {
        for direction in [Direction::Up, Direction::Down] {
            scope.spawn(move || hole(direction));
        }
    });
}

/// One byte in 5,000 has a bit flipped, in both directions, without TLS to notice: what MQTT takes for a message is found out
/// by its CRC and not acknowledged, what breaks MQTT ends the connection; nothing false gets into the replica, and what was
/// damaged comes again.
#[test]
fn flipped_bits_reach_no_replica() {
    let dir = tempfile::tempdir().unwrap();
    let way = Way { false_one_in: 5000, ..Way::late(15) };
    let mut scene = Scene::with(dir.path(), way, "commit_interval = \"250ms\"", true);
    let falsified = |proxy: &Proxy| proxy.falsified(Direction::Up) + proxy.falsified(Direction::Down) > 0;
    scene.record_until(length(12, 120), 2000, falsified, "a flipped bit");
    // A segment that was damaged three times in a row would wait for minutes: the proof is that it comes.
    scene.proxy.set_both(Way::late(15));
    scene.drain(300);
    scene.close(Duration::from_secs(75));
}
