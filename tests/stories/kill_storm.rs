//! A storm: readings come in at a steady pace while broker, receiver and device are killed with -9 again and again, at random
//! moments, each of them where it hurts. Nothing that `flush` confirmed is lost, and nothing is at the fleet twice.

use crate::support::plant::{Plant, Progress};
use crate::support::proxy::{Proxy, Way};
use crate::support::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DEVICE: &str = "pump-17";

/// Readings a second, offered in tenths.
const PER_SECOND: u64 = 2000;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// It has no persistence: what it had acknowledged and not handed on dies with it.
    Broker,
    /// It comes back to what it has committed.
    Receiver,
    /// It comes back to what it has committed; what was not confirmed may be lost.
    Device,
}

/// The processes in whose midst it strikes.
struct Targets<'a> {
    broker: Broker,
    site: &'a Site,
    fleet: &'a Fleet,
    device: Option<Process>,
    receiver: Option<Process>,
    lives: Arc<AtomicU64>,
}

impl Targets<'_> {
    fn strike(&mut self, victim: Victim) {
        match victim {
            Victim::Broker => self.broker.restart(),
            Victim::Receiver => {
                self.receiver.take().unwrap().kill9();
                self.receiver = Some(self.fleet.run());
            }
            Victim::Device => {
                self.lives.fetch_add(1, Ordering::SeqCst);
                self.device.take().unwrap().kill9();
                self.device = Some(self.site.run());
                self.lives.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Readings come in for so long, confirmed now and then, whatever happens.
fn record(plant: &mut Plant, site: &Site, progress: &mut Progress, seconds: u64) {
    let begun = Instant::now();
    for tenth in 1..=seconds * 10 {
        plant.send(site, PER_SECOND / 10);
        // Seldomer than it commits by itself: what is killed may have been committed, and acknowledged, without anyone's knowing.
        if tenth % 25 == 0 {
            plant.flush(site);
        }
        if let Some(status) = site.ask("status") {
            progress.look(&status);
        }
        let due = begun + Duration::from_millis(tenth * 100);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Each victim as often as the others, in random order, at random moments; the last ones well before the end.
fn plan(each: usize, seconds: u64, dice: &mut Dice) -> Vec<(Duration, Victim)> {
    let victims = [Victim::Broker, Victim::Receiver, Victim::Device];
    let moment = |dice: &mut Dice| Duration::from_millis(500 + dice.roll(seconds * 1000 - 1500));
    let mut kills: Vec<_> = (0..each * 3).map(|k| (moment(dice), victims[k % 3])).collect();
    kills.sort_by_key(|(at, _)| *at);
    kills
}

/// 2,000 readings a second over a link with latency, so that something is always under way; broker, receiver and device killed three times each in half a minute, or twenty times each in ten
/// minutes: 0 lost, 0 twice.
#[test]
fn a_storm_of_kills_loses_nothing_and_repeats_nothing() {
    let (each, seconds) = if full() { (20, 600) } else { (3, 25) };
    let kills = plan(each, seconds, &mut Dice::new(seed()));
    println!("seed {}: {kills:?}", seed());
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let proxy = Proxy::to(broker.port, seed());
    proxy.set_both(Way::late(50));
    let uplink = format!("[uplink]\nbroker = \"{}\"", proxy.url());
    let site = Site::new(&dir.path().join("site"), DEVICE, "commit_interval = \"1s\"", &uplink);
    let back = Proxy::to(broker.port, seed());
    back.set_both(Way::late(500));
    let fleet = Fleet::new(&dir.path().join("fleet"), &back.url());
    let (device, receiver) = (Some(site.run()), Some(fleet.run()));
    let (mut plant, mut progress) = (Plant::default(), Progress::new());
    let lives = Arc::clone(&plant.lives);
    let mut targets = Targets { broker, site: &site, fleet: &fleet, device, receiver, lives };

    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, victim) in kills {
                std::thread::sleep((begun + at).saturating_duration_since(Instant::now()));
                targets.strike(victim);
            }
        });
        record(&mut plant, &site, &mut progress, seconds);
    });
    // What the last life of the device was given before it was killed is in doubt; what comes now is not.
    plant.flush(&site);
    plant.send(&site, PER_SECOND);
    assert!(plant.flush(&site), "the device does not answer after the storm");
    let raged = begun.elapsed();
    // While the device was away there was nothing to send: where it takes long to come back, the story is as much longer.
    let least = seconds * PER_SECOND * 9 / 10;
    for _ in 0..3 * seconds {
        if plant.sent >= least && plant.confirmed() >= plant.sent / 2 {
            break;
        }
        record(&mut plant, &site, &mut progress, 1);
        assert!(plant.flush(&site), "the device does not answer after the storm");
    }
    wait_for("the backlog to go out", 240, || progress.look(&site.ask("status")?).then_some(()));
    println!(
        "{} readings in {raged:?}, {} confirmed; longest stand of the acknowledged number {:?}; all acknowledged after {:?}",
        plant.sent,
        plant.confirmed(),
        progress.longest,
        begun.elapsed(),
    );
    plant.assert_arrived(&fleet, DEVICE);
    assert!(plant.sent >= least, "the pace was kept: {}", plant.sent);
    assert!(plant.confirmed() >= plant.sent / 2, "most readings were confirmed: {}", plant.confirmed());
    assert_eq!(targets.device.take().unwrap().stop(), Some(0));
    assert_eq!(targets.receiver.take().unwrap().stop(), Some(0));
}
