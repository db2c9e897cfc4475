//! Power cuts under a replica: what the fleet has acknowledged, a device may delete, so no cut may take it.
//!
//! What enters: workloads of one device's segments: new ones in groups, a compacted one for several, a loss, the same again,
//! another history, closing and opening. What leaves: images of the folder at every boundary, opened by the shelf as a receiver
//! opens it. The recorder, the threat model and the judging are the store's own: `store::crash`, docs/crash.md.

use super::super::shelf::Shelf;
use super::{Arrived, Known, Placed, Replica};
use crate::clock::{SECOND, UtcNanos};
use crate::reading::{BootId, Kind, Scale, SeqRange, SeriesDef, SeriesId};
use crate::segment::{
    self, Column, Content, Loss, LossReason, Readings, Segment, Timeline, TimelineClock, Values, View,
};
use crate::store::crash::chance::{Chance, hash, scatter};
use crate::store::crash::change::Change;
use crate::store::crash::held::Held;
use crate::store::crash::log::{self, Lies};
use crate::store::crash::medium::{Image, Threat};
use crate::store::crash::proof::{Case, Effort, Known as Recovered, LOST, Proof, Subject, directory, recovered};
use crate::store::crash::run::{Workload, cut, is_whole, scaled};
use crate::wire::{CatalogBoot, CatalogPage, StoreUuid};
use std::path::PathBuf;

const DEVICE: &str = "pump-17";
const STORE: StoreUuid = StoreUuid::from_u128(7);
const NOW: UtcNanos = UtcNanos(1_790_000_000_000_000_000);

/// What a receiver finds in its folder.
struct Fleet {
    data: PathBuf,
}

impl Subject for Fleet {
    fn recover(&self, _: &Image, known: &mut Recovered) -> Result<[Held; 2], String> {
        let mut shelf = Shelf::open(&self.data).map_err(|e| format!("the shelf: {e}"))?;
        let found = {
            let (replica, notices) = shelf.replica(DEVICE, STORE, NOW).map_err(|e| format!("open: {e}"))?;
            if !notices.is_empty() {
                return Err(format!("notices {notices:?}"));
            }
            let content = recovered(&self.data.join(DEVICE));
            if let Some(states) = known.of(content) {
                return Ok(states);
            }
            let found = whole(replica)?;
            log::mark(Change::Acknowledged(1));
            log::mark(Change::Begun(2));
            place(replica, &[data(found.high + 1, found.high + 1, 3, 0)])?;
            (content, found)
        };
        commit(&mut shelf)?;
        log::mark(Change::Acknowledged(2));
        let after = whole(shelf.replica(DEVICE, STORE, NOW).map_err(|e| e.to_string())?.0)?;
        if after.n != found.1.n + 3 {
            return Err(format!("a segment made {after:?} of {:?}", found.1));
        }
        drop(shelf);
        let mut shelf = Shelf::open(&self.data).map_err(|e| format!("the shelf again: {e}"))?;
        let again = whole(shelf.replica(DEVICE, STORE, NOW).map_err(|e| format!("reopen: {e}"))?.0)?;
        if again != after {
            return Err(format!("reopened, it {LOST} {again:?} instead of {after:?}"));
        }
        known.learn(found.0, [found.1, after]);
        Ok([found.1, after])
    }
}

/// What the replica holds, decoded, and what it would tell the device to be held.
fn whole(replica: &mut Replica) -> Result<Held, String> {
    let verdict: String =
        replica.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(|e| e.to_string())?;
    if verdict != "ok" {
        return Err(format!("integrity_check: {verdict}"));
    }
    held(replica)
}

fn held(replica: &mut Replica) -> Result<Held, String> {
    let standing = replica.standing(DEVICE, None).map_err(|e| e.to_string())?;
    let mut held = Held { high: standing.high.0, ..Held::default() };
    let told = standing.held.iter().map(|range| scatter(scatter(range.first.0) ^ range.last.0));
    held.sum = told.fold(0, u64::wrapping_add);
    let mut rows = replica.conn.prepare_cached("SELECT id, body FROM segment").map_err(|e| e.to_string())?;
    let mut rows = rows.query([]).map_err(|e| e.to_string())?;
    while let Some(row) = rows.next().map_err(|e| e.to_string())? {
        let (id, body): (i64, Vec<u8>) =
            (row.get(0).map_err(|e| e.to_string())?, row.get(1).map_err(|e| e.to_string())?);
        let segment = segment::decode(&body).map_err(|e| format!("segment {id}: {e}"))?;
        match &segment.content {
            Content::Data { .. } => held.n += segment.content.n() as u64,
            Content::Loss(_) => held.lost += 1,
        }
        held.sum = held.sum.wrapping_add(hash(id as u64, &body));
    }
    Ok(held)
}

/// `n` readings for each number of `first..=last`.
fn data(first: u64, last: u64, n: u64, salt: i64) -> Segment {
    let stamps: Vec<i64> = (first * 100..).take(((last - first + 1) * n) as usize).map(|s| s as i64 * SECOND).collect();
    let values = Values::Int(stamps.iter().map(|stamp| stamp / SECOND * 7 + salt).collect());
    let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(1)), stamps }];
    let columns = vec![Column { series: SeriesId(1), timeline: 0, values, missing: Vec::new() }];
    let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
    Segment { range: SeqRange::new(first, last).expect("a range"), content }
}

fn loss(seq: u64) -> Segment {
    let lost = Loss { reason: LossReason::Retention, readings: Some(5), from: None, to: None, utc: None };
    Segment { range: SeqRange::new(seq, seq).expect("a range"), content: Content::Loss(lost) }
}

fn page() -> CatalogPage {
    let def = SeriesDef { name: "m/s1".into(), unit: "Cel".into(), kind: Kind::Int, scale: Scale::MILLI };
    let boots = vec![CatalogBoot { id: BootId(1), uuid: uuid::Uuid::from_u128(1), anchors: Vec::new() }];
    CatalogPage { store: STORE, series: vec![(SeriesId(1), def)], boots }
}

/// Places segments, in the transaction that the next [`commit`] ends.
fn place(replica: &mut Replica, segments: &[Segment]) -> Result<Vec<Placed>, String> {
    let page = page();
    let mut known = Known::default();
    known.learn(&page);
    replica.merge(DEVICE, &page, NOW).map_err(|e| format!("merge: {e}"))?;
    let place = |segment: &Segment| {
        let body = segment::encode(segment).map_err(|e| e.to_string())?;
        let view = View::parse(&body).map_err(|e| e.to_string())?;
        replica.place(DEVICE, &known, None, Arrived { view: &view, body: &body }).map_err(|e| format!("place: {e}"))
    };
    segments.iter().map(place).collect()
}

fn commit(shelf: &mut Shelf) -> Result<(), String> {
    match shelf.commit().pop() {
        Some((_, why)) => Err(format!("commit: {why}")),
        None => Ok(()),
    }
}

/// A receiver at work on one device, under the recorder.
struct Work {
    dir: tempfile::TempDir,
    chance: Chance,
    shelf: Option<Shelf>,
    states: Vec<Held>,
    early: bool,
    next: u64,
}

impl Work {
    fn begin(seed: u64, lies: Lies, early: bool) -> Self {
        let dir = directory();
        std::fs::create_dir(dir.path().join(DEVICE)).expect("a folder");
        log::begin(&dir.path().join(DEVICE), lies);
        Self { dir, chance: Chance::new(seed), shelf: None, states: vec![Held::default()], early, next: 1 }
    }

    /// One group of messages: placed, committed, and only then acknowledged.
    fn group(&mut self, segments: &[Segment], wanted: &[Placed]) {
        let n = self.states.len();
        log::mark(Change::Begun(n));
        if self.early {
            log::mark(Change::Acknowledged(n));
        }
        let shelf = self.shelf.get_or_insert_with(|| Shelf::open(self.dir.path()).expect("a shelf"));
        let (replica, notices) = shelf.replica(DEVICE, STORE, NOW).expect("a replica");
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(place(replica, segments).expect("placed"), wanted);
        commit(shelf).expect("committed");
        log::mark(Change::Acknowledged(n));
        let (replica, _) = shelf.replica(DEVICE, STORE, NOW).expect("a replica");
        let standing = replica.standing(DEVICE, None).expect("a standing");
        let named = segments.iter().filter(|_| !wanted.contains(&Placed::Beside));
        named.for_each(|segment| assert!(standing.held.covers(segment.range), "what was committed is held"));
        self.states.push(held(replica).expect("readable"));
    }

    /// New segments of one group; as many as chance says.
    fn news(&mut self) -> u64 {
        let first = self.next;
        let n = 1 + self.chance.below(5) as u64;
        let readings = 1 + self.chance.below(60) as u64;
        let segments: Vec<Segment> = (first..first + n).map(|seq| data(seq, seq, readings, 0)).collect();
        self.next += n;
        self.group(&segments, &vec![Placed::Stored; segments.len()]);
        let before = self.states[self.states.len() - 2].n;
        assert_eq!(self.states[self.states.len() - 1].n, before + n * readings);
        first
    }

    fn end(mut self, name: &str, threat: Threat) -> Case {
        self.shelf = None;
        let subject = Box::new(Fleet { data: self.dir.path().to_owned() });
        let at = self.dir.path().join(DEVICE);
        let (name, entries) = (name.to_owned(), log::end());
        Case { name, _memory: None, _dir: self.dir, at, entries, states: self.states, subject, threat }
    }
}

/// Groups of new segments, the same again, compacted ones, losses, a receiver that is restarted.
fn receives(work: &mut Work) {
    for _ in 0..10 {
        match work.chance.below(8) {
            0..=3 => drop(work.news()),
            4 => {
                let (first, n) = (work.next, 2 + work.chance.below(4) as u64);
                let single: Vec<Segment> = (first..first + n).map(|seq| data(seq, seq, 100, 0)).collect();
                work.group(&single, &vec![Placed::Stored; single.len()]);
                work.group(&single[..1], &[Placed::Duplicate]);
                work.next += n;
                let joined = segment::merge(&single).expect("joined");
                work.group(&[joined], &[Placed::Stored]);
            }
            5 => {
                let seq = work.next;
                work.next += 1;
                work.group(&[loss(seq)], &[Placed::Stored]);
            }
            6 => work.shelf = None,
            _ => {
                let first = work.next;
                work.next += 40;
                let many: Vec<Segment> = (first..first + 40).map(|seq| data(seq, seq, 60, 0)).collect();
                work.group(&many, &vec![Placed::Stored; many.len()]);
            }
        }
    }
}

/// Other content for a number that is held: a history of its own begins, and goes on.
fn conflicts(work: &mut Work) {
    let first = work.news();
    work.news();
    work.group(&[data(first, first, 7, 5)], &[Placed::Beside]);
    work.news();
    work.shelf = None;
    work.news();
}

fn case(name: &str, seed: u64, work: fn(&mut Work)) -> Case {
    let mut doing = Work::begin(seed, Lies::default(), false);
    work(&mut doing);
    doing.end(name, Threat::Garbage)
}

/// A power cut at every boundary of what a receiver writes, and again while that is recovered: the replica opens, is whole, and
/// holds all that was acknowledged.
#[test]
fn a_power_cut_takes_nothing_that_the_fleet_has_acknowledged() {
    const WORKLOADS: [Workload; 2] = [
        Workload {
            name: "replica",
            thousands: 4,
            most_per_boundary: 40,
            case: |name, seed| case(name, seed, receives),
        },
        Workload {
            name: "replica's histories",
            thousands: 2,
            most_per_boundary: 40,
            case: |name, seed| case(name, seed, conflicts),
        },
    ];
    let figures = cut("power cuts at the fleet", &WORKLOADS);
    assert!(!is_whole() || figures.images >= scaled(6_000), "{} images", figures.images);
}

/// Negative controls: acknowledged before the commit, and a medium that has not flushed.
#[test]
fn a_replica_that_acknowledges_too_early_is_caught() {
    for (lies, early) in [(Lies::default(), true), (Lies { fsync: true }, false)] {
        let mut proof = Proof::default();
        let effort =
            Effort { one_in: 1, per_boundary: 4, again_one_in: usize::MAX, again: 0, most_bad: 3, until_lost: true };
        let mut work = Work::begin(3, lies, early);
        receives(&mut work);
        proof.run(&work.end("too early", Threat::Garbage), effort, &mut Chance::new(3));
        let figures = proof.figures;
        println!("power cuts at the fleet: {lies:?}, early {early}: {} images, {} lost", figures.images, figures.lost);
        assert!(figures.lost >= 3, "{figures:?}");
    }
}
