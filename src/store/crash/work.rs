//! Workloads: what a device does to its store, by chance and by the seed, with an account of what must be there afterwards.
//!
//! What enters: a seed, a configuration, steps. What leaves: a [`Case`]: the log of everything that reached a file, and what
//! was held after each operation. The account of a commit is kept apart from the store: the batch itself says what it
//! brings. What compaction, checkpoints and reopening may not change is asserted here, on the living store.

use super::super::disk::{PlainFile, remove, write_whole};
use super::super::event::EventKind;
use super::super::file::{beside, uri};
use super::super::open::suspicion;
use super::super::testing::{Bench, at, def};
use super::super::{Committed, FreshWhy, Step, Store, StoreError};
use super::board::Board;
use super::chance::Chance;
use super::change::Change;
use super::files;
use super::held::{Bodies, Held, held};
use super::log::{self, Fault, Lies};
use super::medium::Threat;
use super::proof::{Case, directory};
use crate::batch::{Registry, Sealed, Track, TrackClock};
use crate::clock::SECOND;
use crate::config::{Locking, StoreConfig};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::Values;
use rusqlite::Connection;

/// Protections switched off, to see the proof fail.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Broken {
    pub(super) lies: Lies,
    /// `synchronous=NORMAL`.
    pub(super) normal: bool,
    /// Acknowledged before it was committed.
    pub(super) early: bool,
    /// After a failed fsync the file is opened again, and the page cache is believed.
    pub(super) reopens: bool,
}

/// A workload under way.
pub(super) struct Work {
    pub(super) cfg: StoreConfig,
    pub(super) chance: Chance,
    bench: Bench,
    dir: tempfile::TempDir,
    store: Option<Store>,
    reader: Option<Connection>,
    registry: Registry,
    broken: Broken,
    states: Vec<Held>,
    bodies: Bodies,
    events: Vec<EventKind>,
    untouched: Option<String>,
    /// Fsyncs fail: see [`Board::numbers`].
    failing: bool,
    /// An fsync failed where the service would have ended, or would have tried again for ever.
    over: bool,
    second: i64,
}

/// How often a commit is tried again after an fsync failed, until it is plain that all of them will.
const TRIES: usize = 3;

impl Work {
    /// An empty directory and a recorder.
    pub(super) fn begin(seed: u64, broken: Broken) -> Self {
        let (bench, dir) = (Bench::new(), directory());
        let cfg = StoreConfig { path: dir.path().join("v.db"), max_size_bytes: 1 << 20, ..bench.cfg.clone() };
        log::begin(dir.path(), broken.lies);
        Self {
            cfg,
            chance: Chance::new(seed),
            bench,
            dir,
            store: None,
            reader: None,
            registry: Registry::new(5000),
            broken,
            states: vec![Held::default()],
            bodies: Bodies::default(),
            events: Vec::new(),
            untouched: None,
            failing: false,
            over: false,
            second: 0,
        }
    }

    /// Has an fsync fail.
    pub(super) fn plant(&mut self, fault: Fault) {
        log::plant(fault);
        self.failing = true;
        self.may_report(&[EventKind::Rot, EventKind::NoReserve]);
    }

    /// Ends the log. `threat` is what the cuts may do.
    pub(super) fn end(mut self, name: &str, threat: Threat) -> Case {
        self.reader = None;
        self.store = None;
        let entries = log::end();
        let untouched = self.untouched.map(|name| {
            let bytes = std::fs::read(self.dir.path().join(&name)).expect("the file that nothing writes to");
            (name, bytes)
        });
        let numbers = !self.failing;
        if !numbers {
            self.states.iter_mut().for_each(|state| state.high = 0);
        }
        let subject = Box::new(Board { cfg: self.cfg, me: self.bench.me, events: self.events, untouched, numbers });
        let at = self.dir.path().to_owned();
        let memory = Some(files::Directory::new(&at));
        Case {
            name: name.to_owned(),
            _memory: memory,
            _dir: self.dir,
            at,
            entries,
            states: self.states,
            subject,
            threat,
        }
    }

    /// A recovery may report this from now on, and so may the next open.
    pub(super) fn may_report(&mut self, kinds: &[EventKind]) {
        self.events.extend_from_slice(kinds);
    }

    pub(super) fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("an open store")
    }

    fn held(&mut self) -> Held {
        let store = self.store.as_ref().expect("an open store");
        held(store, &mut self.bodies).expect("a store that can be read")
    }

    fn before(&self) -> Held {
        self.states[self.states.len() - 1]
    }

    /// Does `work`, after which what is `expected` must be held. Where an fsync failed under it, it may be there and was not
    /// acknowledged.
    fn operate<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
        expected: impl FnOnce(&mut Self, Option<T>) -> Held,
    ) {
        if self.over {
            return;
        }
        let n = self.states.len();
        log::mark(Change::Begun(n));
        if self.broken.early {
            log::mark(Change::Acknowledged(n));
        }
        let answer = match work(self) {
            Ok(answer) => Some(answer),
            Err(e) => {
                assert!(log::has_failed(), "operation {n}: {e}");
                None
            }
        };
        let done = answer.is_some();
        if done {
            log::mark(Change::Acknowledged(n));
        }
        let expected = expected(self, answer);
        self.states.push(expected);
        if done && self.store.is_some() && !self.broken.reopens {
            assert_eq!(self.held(), expected, "the living store after operation {n}");
        }
    }

    /// Something that changes no reading.
    fn quietly(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        self.operate(work, |me, _| me.before());
    }

    pub(super) fn open(&mut self) {
        self.quietly(Self::open_now);
    }

    fn open_now(&mut self) -> Result<(), StoreError> {
        let opened = Store::open(&self.cfg, &self.bench.me, at(self.second));
        // The next start finds what the medium has, as after a cut: it drops the cache.
        self.over = opened.is_err();
        let (store, events) = opened?;
        let odd = events.iter().find(|event| !self.events.contains(&event.kind));
        assert!(odd.is_none(), "{odd:?}");
        if self.broken.normal {
            store.conn.pragma_update(None, "synchronous", 1).expect("a pragma");
        }
        self.store = Some(store);
        Ok(())
    }

    /// Opens a store that was spoiled: whatever is found then is right.
    pub(super) fn open_spoiled(&mut self) {
        self.operate(Self::open_now, |me, _| me.held());
        // What was lost was lost before anybody looked.
        let found = self.before();
        self.states.iter_mut().for_each(|state| *state = found);
    }

    /// `series` series with `n` readings each.
    pub(super) fn commit(&mut self, series: u32, n: usize) {
        if self.over {
            return;
        }
        let second = self.second;
        self.second += n as i64;
        let batch = |me: &mut Self| {
            let track = |k: u32| Track {
                key: me.registry.key(&def(k)).expect("room for a series"),
                clock: TrackClock::Boot,
                stamps: (0..n as i64).map(|i| (second + i) * SECOND).collect(),
                values: Values::Int((0..n).map(|_| 20_000 + (me.chance.next() >> 54) as i64).collect()),
                missing: Vec::new(),
            };
            (0..series).map(track).collect::<Vec<_>>()
        };
        let tracks = batch(self);
        let mut expected = self.before();
        let (boot, high) = (self.store().boot(), self.store().next_seq().0);
        for track in &tracks {
            let Values::Int(values) = &track.values else { continue };
            expected.add(&def(track.key.0).name, boot, &track.stamps, values);
        }
        let batch = Sealed::new(tracks, Some(at(second).boot), None);
        self.operate(
            |me| me.commit_at_last(&batch, second),
            |me, done| {
                expected.high += done.as_ref().map_or(1, |done| done.ranges.len() as u64);
                let first = done.map_or(high, |done| done.ranges[0].first.0);
                assert!(first == high || me.broken.reopens, "{first} instead of {high}");
                expected
            },
        );
    }

    /// As the service does: the same batch, on the same connection, until it is taken.
    fn commit_at_last(&mut self, batch: &Sealed, second: i64) -> Result<Committed, StoreError> {
        let mut tries = 0;
        loop {
            let store = self.store.as_mut().expect("an open store");
            let done = store.commit(batch, &self.registry, &[], at(second));
            tries += 1;
            self.over = done.is_err();
            if done.is_ok() || tries == TRIES || !log::has_failed() {
                return done;
            }
            if self.broken.reopens {
                self.store = None;
                self.open_now()?;
            }
        }
    }

    pub(super) fn checkpoint(&mut self) {
        self.quietly(|me| me.store().checkpoint());
    }

    /// The fleet has everything but the newest `but` segments.
    pub(super) fn acknowledge(&mut self, but: u64) {
        let store = self.store();
        let (uuid, high) = (store.uuid(), store.next_seq().0 - 1);
        let acked: RangeSet = SeqRange::new(1, high.saturating_sub(but)).into_iter().collect();
        store.set_acked(uuid, acked).expect("acknowledged");
    }

    /// Joins what can be joined, an hour later. How many steps did something.
    pub(super) fn compact(&mut self) -> u32 {
        let mut worked = 0;
        loop {
            let mut done = Step::Idle;
            let now = at(self.second + 4000);
            self.quietly(|me| me.store().compact_step(&[], now).map(|step| done = step));
            if done == Step::Idle {
                return worked;
            }
            worked += 1;
        }
    }

    /// Makes room as the service does before a commit. How many steps did something.
    pub(super) fn expire(&mut self) -> u32 {
        let mut worked = 0;
        loop {
            let (mut done, now) = (Step::Idle, at(self.second));
            let before = self.before();
            self.operate(
                |me| me.store().expire_step(&[], now).map(|step| done = step),
                |me, _| {
                    let after = me.held();
                    assert!(after.n <= before.n && after.lost >= before.lost && after.high == before.high, "{after:?}");
                    after
                },
            );
            if done == Step::Idle {
                return worked;
            }
            worked += 1;
        }
    }

    /// Gives pages back. How many steps did something.
    pub(super) fn vacuum(&mut self) -> u32 {
        let mut worked = 0;
        loop {
            let mut done = Step::Idle;
            self.quietly(|me| me.store().vacuum_step().map(|step| done = step));
            if done == Step::Idle {
                return worked;
            }
            worked += 1;
        }
    }

    pub(super) fn take_fresh_id(&mut self) {
        let now = at(self.second);
        self.quietly(|me| me.store().take_fresh_id(FreshWhy::Request, now).map(drop));
    }

    /// The fleet has something else under the numbers of this store.
    pub(super) fn recheck(&mut self) {
        let now = at(self.second);
        self.quietly(|me| {
            let uuid = me.store().uuid();
            me.store().begin_recheck(uuid, 7, now)
        });
    }

    /// A clean stop.
    pub(super) fn close(&mut self) {
        self.quietly(|me| me.store.take().expect("an open store").close());
        // What the process left in the cache, the next start drops: what it finds is what a cut leaves.
        self.over |= log::has_failed();
    }

    /// A process that ends without a word.
    pub(super) fn drop_store(&mut self) {
        self.quietly(|me| {
            me.store = None;
            Ok(())
        });
        self.over |= log::has_failed();
    }

    /// Everything so far is on the medium; the power is cut from here on.
    pub(super) fn settle(&mut self) {
        log::mark(Change::Settled);
    }

    /// Another connection begins to read, and holds on.
    pub(super) fn hold(&mut self) {
        let reader = Connection::open(uri(&self.cfg.path, "vfs=varved-beside")).expect("a reader");
        reader.execute_batch("BEGIN; SELECT count(*) FROM segment").expect("a snapshot");
        self.reader = Some(reader);
    }

    pub(super) fn let_go(&mut self) {
        self.reader = None;
    }

    /// Another program gives the closed file pages of 2,048 bytes.
    pub(super) fn make_pages_larger(&mut self) {
        let conn = Connection::open(uri(&self.cfg.path, "psow=0")).expect("the file");
        let rewrite = "PRAGMA journal_mode = DELETE; PRAGMA page_size = 2048; VACUUM; PRAGMA journal_mode = WAL";
        conn.execute_batch(rewrite).expect("other pages");
    }

    /// Another version's program changes the closed file, and leaves it whole.
    pub(super) fn rewrite(&mut self, sql: &str) {
        let conn = Connection::open(uri(&self.cfg.path, "psow=0")).expect("the file");
        conn.execute_batch(sql).expect("rewritten");
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("folded");
    }

    /// The file has a newer format by now; from here on another one is written, and this one never. It begins empty.
    pub(super) fn open_beside_a_newer_one(&mut self) {
        self.untouched = Some(log::name(&self.cfg.path));
        self.may_report(&[EventKind::Newer]);
        self.operate(Self::open_now, |me, _| me.held());
        assert_eq!(self.before(), Held::default(), "it begins empty");
        self.states.iter_mut().for_each(|state| *state = Held::default());
    }

    /// Somebody deletes the high-water mark of the closed file.
    pub(super) fn lose_the_mark(&mut self) {
        remove(&beside(&self.cfg.path, "-high-water")).expect("removed");
    }

    pub(super) fn exclusive(&mut self) {
        self.cfg.locking = Locking::Exclusive;
    }

    /// A leaf of the segment table rots in the closed file, and it is marked as it would be once that was met.
    pub(super) fn spoil(&mut self) {
        let wal = PlainFile::open_to_write(&beside(&self.cfg.path, "-wal")).expect("the log").expect("a log");
        wal.set_length(0).expect("cut");
        let bytes = std::fs::read(&self.cfg.path).expect("the file");
        let pages = bytes.len() / 512;
        let leaf = (pages / 2..pages).find(|page| bytes[page * 512] == 0x0D).expect("a leaf");
        let file = PlainFile::open_to_write(&self.cfg.path).expect("the file").expect("a file");
        file.write_at(&[0xEE; 512], leaf as u64 * 512).expect("spoilt");
        write_whole(&suspicion(&self.cfg.path), b"spoilt").expect("a mark");
    }
}
