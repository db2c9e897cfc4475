//! The receiver: `varved-fleet run`, its commits confirmed by acks to the device.

use super::*;
use crate::support::*;
use std::collections::HashMap;
use std::sync::Arc;
use varved::clock::{BootNanos, Now, UtcNanos};
use varved::config::Config;
use varved::fleet::receiver::Receiver;
use varved::fleet::shelf::Shelf;
use varved::reading::{SegmentSeq, SeqRange, ranges::RangeSet};
use varved::segment::View;
use varved::store::reader::Reader;
use varved::store::{Identity, Store};
use varved::wire::{
    self, Ack, StoreUuid,
    topics::{self, Topic},
};

const DEVICE: &str = "pump-17";

/// What the receiver has acknowledged so far, and what each number must hold.
#[derive(Clone)]
struct Acks {
    store: StoreUuid,
    /// By number, from 1.
    right: Arc<Vec<Sum>>,
    /// What each socket was told that is no whole packet yet.
    said: HashMap<String, Vec<u8>>,
    acked: RangeSet,
    /// Acks so far.
    count: u64,
    bodies: HashMap<u64, Sum>,
}

impl Witness for Acks {
    fn hear(&mut self, step: &Step) {
        let What::Told(bytes) = &step.what else { return };
        let said = self.said.entry(step.name.clone()).or_default();
        said.extend_from_slice(bytes);
        let mut told = Vec::new();
        while let Some((packet, bytes)) = packet(said) {
            told.extend(publish(&said[packet..bytes], said[0]));
            said.drain(..bytes);
        }
        for (topic, payload) in told {
            if topics::parse("varved", &topic) == Some((DEVICE, Topic::Ack)) {
                let ack: Ack = wire::decode(&payload).expect("an ack is an ack");
                for store in ack.stores.iter().filter(|line| line.store == self.store) {
                    self.acked = store.held();
                    self.count += 1;
                }
            }
        }
    }

    fn moment(&self) -> u64 {
        self.count
    }

    fn judge(&mut self, dir: &Path) -> Result<(), String> {
        let now = Now { boot: BootNanos(1), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
        let receiver = Receiver::open(dir, "varved").map_err(|e| format!("open: {e}"))?;
        receiver.close(now);
        let mut shelf = Shelf::open(dir).map_err(|e| format!("open: {e}"))?;
        let (replica, notices) = shelf.replica(DEVICE, self.store, now.utc).map_err(|e| format!("replica: {e}"))?;
        let standing = replica.standing(DEVICE, None).map_err(|e| format!("standing: {e}"))?;
        if !notices.is_empty() && self.count > 0 {
            return Err(format!("{notices:?}"));
        }
        let path = shelf.path_of(self.store).ok_or("no replica")?;
        let held = self.held(&path)?;
        let lacks = |range: &SeqRange| !held.covers(*range) || !standing.held.covers(*range);
        match self.acked.iter().find(lacks) {
            Some(range) => Err(format!("acknowledged {range:?}, holds {held:?}, would say {:?}", standing.held)),
            None => Ok(()),
        }
    }
}

impl Acks {
    /// The numbers that the replica has, each with what it must hold.
    fn held(&mut self, path: &Path) -> Result<RangeSet, String> {
        let reader = Reader::open(path).map_err(|e| e.to_string())?;
        let (mut held, mut bad) = (RangeSet::new(), None);
        let visited = reader.each_body(|stored| {
            let checked = self.check(stored.bytes);
            match checked {
                Ok(range) if held.meets(range) => bad = Some(format!("{range:?} is there twice")),
                Ok(range) => held.insert(range),
                Err(why) => bad = Some(why),
            }
        });
        visited.map_err(|e| e.to_string())?;
        bad.map_or(Ok(held), Err)
    }

    fn check(&mut self, body: &[u8]) -> Result<SeqRange, String> {
        let range = View::parse(body).map_err(|e| e.to_string())?.range();
        let key = identity(&BTreeMap::from([(String::new(), body.to_vec())]));
        let found = match self.bodies.get(&key) {
            Some(known) => *known,
            None => Sum::of_body(body)?,
        };
        self.bodies.insert(key, found);
        let numbers = self.right.get(range.first.0 as usize..=range.last.0 as usize).ok_or("a number never given")?;
        let right = numbers.iter().fold(Sum::default(), |sum, one| sum.add(*one));
        if found == right { Ok(range) } else { Err(format!("{range:?} holds {found:?} instead of {right:?}")) }
    }
}

/// Where the content of the first MQTT packet begins and where it ends, if it is whole (MQTT 3.1.1 §2.2).
fn packet(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes.len() >= at + length).then_some((at, at + length))
}

/// Topic and payload, where the packet is a PUBLISH (§3.3).
fn publish(content: &[u8], kind: u8) -> Option<(String, Vec<u8>)> {
    if kind >> 4 != 3 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([content[0], content[1]]));
    let topic = String::from_utf8_lossy(&content[2..2 + length]).into_owned();
    let id = if kind >> 1 & 3 > 0 { 2 } else { 0 };
    Some((topic, content[2 + length + id..].to_vec()))
}

/// Which store the device has, once `last` is the newest number in it: each flush was a segment, and nothing else was.
fn store_of(site: &Site, last: u64) -> StoreUuid {
    let config = Config::parse(&std::fs::read_to_string(&site.config).unwrap(), "varved.toml").unwrap().store;
    let now = Now { boot: BootNanos(1 << 50), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
    let (store, _) = Store::open(&config, &Identity::read(Path::new("/")).unwrap(), now).unwrap();
    assert_eq!(store.stores()[0].high, SegmentSeq(last));
    store.stores()[0].uuid
}

/// The power is cut at every write, fsync, name and ack of the real receiver, while a real device sends to it, from its first
/// message to a clean stop. Whatever a medium may hold then opens, has all that any ack had named, and nothing twice or changed.
#[test]
fn a_power_cut_under_the_real_receiver_loses_nothing_acknowledged() {
    let (flushes, per_boundary) = if full() { (1600, 16) } else { (200, 6) };
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let begun = std::time::Instant::now();
    let broker = Broker::start(dir.path());
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let log = dir.path().join("trace");
    let mut command = trace::traced(Path::new(VARVED_FLEET), &log);
    command.args(["run", "--config"]).arg(&fleet.config);
    let receiver = Process::start(&mut command, &dir.path().join("fleet.log"));
    let uplink = format!("[uplink]\nbroker = \"{}\"", broker.url());
    let site = Site::new(&dir.path().join("site"), DEVICE, "commit_interval = \"1h\"", &uplink);
    let device = site.run();
    let (mut sent, mut chance) = (0, Chance::new(seed()));
    // What each number must hold, from 1.
    let mut right = vec![Sum::default()];
    // However fast the machine is, every second segment ends a group, with a commit and an ack of its own.
    for flush in 0..flushes {
        let n = 1 + chance.below(40) as u64;
        site.send(&lines(sent..sent + n));
        site.ask("flush").expect("a flush is answered");
        right.push((sent..sent + n).fold(Sum::default(), |sum, number| sum.add(Sum::of_number(number))));
        sent += n;
        if flush % 2 == 1 {
            wait_for("everything to be acknowledged", 60, || {
                site.ask("status").filter(|status| status["pending"]["segments"] == 0)
            });
        }
    }
    assert_eq!(device.stop(), Some(0));
    assert_eq!(receiver.stop(), Some(0));
    wait_for("the tracer to end", 30, || std::fs::read_to_string(&log).unwrap().contains("+++ exited").then_some(()));
    let store = store_of(&site, flushes as u64);
    let steps = trace::read(&[log], &dir.path().join("fleet/data"));
    let traced = begun.elapsed();
    let (acked, said, bodies) = (RangeSet::new(), HashMap::new(), HashMap::new());
    let witness = Acks { store, right: Arc::new(right), said, acked, count: 0, bodies };
    let mut all = witness.clone();
    steps.iter().for_each(|step| all.hear(step));
    assert!(all.acked.covers(SeqRange::new(1, flushes as u64).unwrap()), "all acks are in the trace: {:?}", all.acked);
    let figures = cut_everywhere(&steps, per_boundary, seed(), &witness);
    println!(
        "seed {}: {} boundaries, {} acks, {} images of the receiver, {} bad; traced in {traced:?}, judged after {:?}",
        seed(),
        figures.boundaries,
        all.count,
        figures.images,
        figures.bad.len(),
        begun.elapsed(),
    );
    assert!(figures.bad.is_empty(), "{:#?}", figures.bad);
    assert!(figures.images >= if full() { 80_000 } else { 8_000 }, "{} images", figures.images);
}
