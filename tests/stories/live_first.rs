//! Live first: what is recorded now goes to the fleet as soon with a backlog of a million readings as without one.

use crate::support::plant::Plant;
use crate::support::proxy::{Direction, Proxy, Way};
use crate::support::*;
use smol::channel::Receiver;
use std::time::{Duration, Instant};
use varved::mqtt::{Client, Event, Settings};
use varved::reading::SegmentSeq;
use varved::wire::{self, Ack};

const DEVICE: &str = "pump-17";

/// The link, each way.
const BYTES_PER_S: u64 = 20_000;
const LATENCY_MS: u64 = 50;

/// How long one piece of the backlog may hold up what comes after it, on a machine that has other things to do.
const CHUNK: Duration = Duration::from_millis(1500);

/// Readings that come in at a time while the latency is taken.
const LIVE: u64 = 100;

/// The acks that the fleet publishes, as they come.
struct Acks {
    client: Client,
    inbox: Receiver<Event>,
}

impl Acks {
    fn listen(port: u16) -> Self {
        let filters = vec![format!("varved/v1/{DEVICE}/ack")];
        let settings = Settings { filters, ..Settings::device("onlooker", "127.0.0.1", port) };
        let (client, inbox) = Client::start(settings).unwrap();
        let acks = Self { client, inbox };
        wait_for("the onlooker's connection", 30, || acks.client.is_connected().then_some(()));
        acks
    }

    /// When the ack came that covers `seq`.
    fn wait_for(&self, seq: SegmentSeq, seconds: u64) -> Instant {
        wait_for("the ack of what is live", seconds, || {
            while let Ok(event) = self.inbox.try_recv() {
                let Event::Message { payload, .. } = event else { continue };
                let ack: Ack = wire::decode(&payload).unwrap();
                if ack.stores.iter().any(|stated| stated.held().contains(seq)) {
                    return Some(Instant::now());
                }
            }
            None
        })
    }
}

struct Scene {
    plant: Plant,
    site: Site,
    acks: Acks,
}

impl Scene {
    /// From the socket to the fleet's ack, for readings that come in now.
    fn latency(&mut self) -> Duration {
        let begun = Instant::now();
        self.plant.send(&self.site, LIVE);
        assert!(self.plant.flush(&self.site));
        let last = self.site.high();
        self.acks.wait_for(SegmentSeq(last), 120) - begun
    }

    fn pending(&self) -> u64 {
        wait_for("the account of what waits", 30, || self.site.ask("status")?["pending"]["readings"].as_u64())
    }

    /// Records a backlog while the broker is away.
    fn is_away(&mut self, broker: &mut Broker, readings: u64) {
        broker.kill9();
        wait_for("the loss of the link", 30, || (self.site.ask("status")?["link"]["state"] == "down").then_some(()));
        for _ in 0..readings / 20_000 {
            self.plant.send(&self.site, 20_000);
        }
        assert!(self.plant.flush(&self.site));
        broker.restart();
        self.link_opens();
    }

    /// What is live while a backlog goes out.
    fn measure(&mut self, backlog: u64, latencies: &mut Vec<Duration>) {
        while self.pending() > backlog / 10 && latencies.len() < 40 {
            let latency = self.latency();
            // Only what was acknowledged before the backlog was counts.
            if self.pending() > LIVE {
                latencies.push(latency);
            }
        }
    }

    fn link_opens(&self) {
        wait_for("the link", 120, || (self.site.ask("status")?["link"]["state"] == "open").then_some(()));
    }
}

fn median(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort();
    latencies[latencies.len() / 2]
}

/// On a link of 20 kB/s, from the socket to the fleet's ack: with a backlog of 200,000 readings (a million with `tests/run
/// --full`) at most twice as long as without, and the time that one piece of the backlog takes.
#[test]
fn live_readings_do_not_wait_behind_the_backlog() {
    let backlog = if full() { 1_000_000 } else { 200_000 };
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let proxy = Proxy::to(broker.port, seed());
    proxy.set_both(Way { bytes_per_s: Some(BYTES_PER_S), ..Way::late(LATENCY_MS) });
    let uplink = format!("[uplink]\nbroker = \"{}\"", proxy.url());
    // Commits come with each flush only, so that the latency is the link's.
    let site = Site::new(&dir.path().join("site"), DEVICE, "commit_interval = \"60s\"", &uplink);
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let (device, receiver) = (site.run(), fleet.run());
    let mut scene = Scene { plant: Plant::default(), site, acks: Acks::listen(broker.port) };
    scene.link_opens();
    scene.latency();
    let without: Vec<_> = (0..9).map(|_| scene.latency()).collect();

    let (carried, begun) = (proxy.carried(Direction::Up), Instant::now());
    let mut with = Vec::new();
    // On a machine that is slow beside the link, one backlog is out before there is much to measure.
    for _ in 0..4 {
        if with.len() < 5 {
            scene.is_away(&mut broker, backlog);
            scene.measure(backlog, &mut with);
        }
    }
    println!("without a backlog: {without:?}\nwith {backlog} readings waiting: {with:?}");
    assert!(with.len() >= 5, "only {} live commits while the backlog went out", with.len());
    let (without, with) = (median(without), median(with));
    println!("medians: {without:?} without, {with:?} with");
    wait_for("the backlog to go out", 600, || (scene.pending() == 0).then_some(()));
    let (bytes, took) = (proxy.carried(Direction::Up) - carried, begun.elapsed());
    println!("all of it took {took:?}: {bytes} bytes, {:.0} a second", bytes as f64 / took.as_secs_f64());
    scene.plant.assert_arrived(&fleet, DEVICE);
    assert!(with <= without * 2 + CHUNK * slowness(), "live latency {with:?} with a backlog, {without:?} without");
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
}
