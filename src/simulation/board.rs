//! The device: a real store, the real machine, what answers it, and as little else as a board needs.
//!
//! What enters: the time, what the network brings, what the weather does. What leaves: messages, commits to the account.
//! In place of `uplink/task.rs` there is `talk`; in place of `device.rs` it commits, and runs the steps of upkeep that
//! [`Upkeep`] chooses. A power cut drops the store without closing it: the batch
//! that was waiting and whatever the store keeps in RAM, acks among it, are gone.

mod talk;

use super::dice::Dice;
use super::net::{Message, Net, Side};
use super::plan::{BoardPlan, Fault};
use super::{Around, DEVICE, EPOCH_NS, PREFIX};
use crate::batch::{Registry, Sealed, Track, TrackClock};
use crate::clock::keeper::Keeper;
use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::config::{Locking, StoreConfig};
use crate::reading::ranges::RangeSet;
use crate::reading::{Kind, Scale, SegmentSeq, SeqRange, SeriesDef, SeriesKey};
use crate::segment::Values;
use crate::store::{Identity, SegmentHead, Step, Store, StoreError};
use crate::upkeep::{Chore, Idle, Upkeep};
use crate::uplink::machine::{Event, Machine};
use crate::uplink::voice::{Outgoing, Session, Voice};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, StoreUuid};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// Steps of upkeep in one pause.
const STEPS: usize = 8;

/// See the room.
pub(super) struct Board {
    plan: BoardPlan,
    fault: Option<Fault>,
    cfg: StoreConfig,
    registry: Registry,
    running: Option<Running>,
    /// When it comes back, where it is off.
    power_at: i64,
    /// Whether what comes back is another boot.
    reboots: bool,
    boots: u128,
    boot_at: i64,
    /// What is added to the true time, and whether the system calls that synchronised.
    utc_error: i64,
    trusted: bool,
    sync_at: i64,
    series: u32,
    commit_at: i64,
    committed_at: i64,
    upkeep_at: i64,
    /// No more readings come: what waits is delivered.
    resting: bool,
}

/// What a power cut ends.
struct Running {
    store: Store,
    machine: Machine,
    voice: Voice,
    keeper: Keeper,
    upkeep: Upkeep,
    speaking: Option<Speaking>,
    /// When it is worth asking again whether there is room for the next message.
    turn_at: i64,
    wake_at: i64,
    /// When the machine was last told the time.
    timed: Option<BootNanos>,
    /// For a planted fault: what its client took.
    believed: Vec<(StoreUuid, SeqRange)>,
}

/// An action in the middle of its messages.
struct Speaking {
    left: VecDeque<Outgoing>,
    after: Event,
}

impl Board {
    pub(super) fn new(plan: BoardPlan, fault: Option<Fault>, dir: &Path) -> Self {
        let cfg = StoreConfig {
            path: dir.join("v.db"),
            commit_interval: Duration::from_nanos(plan.commit_ns.unsigned_abs()),
            commit_readings: 10_000,
            buffer_bytes: 64 << 10,
            cache_bytes: 256 << 10,
            mmap_bytes: 0,
            max_size_bytes: plan.max_size_bytes,
            max_age: None,
            headroom_bytes: 0,
            max_series: 200,
            locking: if plan.exclusive { Locking::Exclusive } else { Locking::Shared },
            powersafe: false,
        };
        let series = plan.series;
        Self {
            plan,
            fault,
            cfg,
            registry: Registry::new(200),
            running: None,
            power_at: 0,
            reboots: true,
            boots: 0,
            boot_at: 0,
            utc_error: 0,
            trusted: false,
            sync_at: i64::MAX,
            series,
            commit_at: 0,
            committed_at: 0,
            upkeep_at: 0,
            resting: false,
        }
    }

    /// When it has something to do.
    pub(super) fn next_at(&self) -> i64 {
        let Some(running) = &self.running else { return self.power_at };
        let commit = if self.resting { i64::MAX } else { self.commit_at };
        let wake = if running.speaking.is_some() { running.turn_at } else { running.wake_at };
        commit.min(self.upkeep_at).min(wake).min(self.sync_at)
    }

    pub(super) fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The store, for the judgement.
    pub(super) fn store(&self) -> Option<&Store> {
        self.running.as_ref().map(|running| &running.store)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.machine.in_flight().len())
    }

    /// Everything that is due.
    pub(super) fn run(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        if self.running.is_none() {
            if now < self.power_at {
                return Ok(());
            }
            self.boot(around)?;
        }
        if self.sync_at <= now {
            (self.sync_at, self.utc_error, self.trusted) = (i64::MAX, 0, true);
        }
        if self.commit_at <= now && !self.resting {
            self.commit(around)?;
        }
        if self.upkeep_at <= now {
            self.upkeep_at = now + self.plan.upkeep_ns;
            self.keep_up(around)?;
        }
        self.act(around)
    }

    /// The supply is gone for a while; what comes back is another boot, maybe with a clock that begins in 1970.
    pub(super) fn cut_power(&mut self, now: i64, off_ns: i64, net: &mut Net) {
        self.running = None;
        (self.power_at, self.reboots) = (now + off_ns, true);
        net.power_off(Side::Device, now);
    }

    /// The service ends and begins again within one boot: cleanly, or not.
    pub(super) fn restart_service(&mut self, cleanly: bool, around: &mut Around<'_>) -> Result<(), String> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        if cleanly {
            running.take_leave(around);
            running.store.close().map_err(|e| format!("closing: {e}"))?;
        }
        around.net.power_off(Side::Device, around.now);
        self.power_at = around.now + SECOND;
        Ok(())
    }

    pub(super) fn step_clock(&mut self, by_ns: i64, trusted: bool) {
        (self.utc_error, self.trusted) = (self.utc_error.saturating_add(by_ns), trusted);
    }

    pub(super) fn grow(&mut self) {
        self.series = (self.series + 1).min(40);
    }

    pub(super) fn checkpoint(&mut self) -> Result<(), String> {
        let checkpoint = |running: &mut Running| running.store.checkpoint().map_err(|e| format!("checkpoint: {e}"));
        self.running.as_mut().map_or(Ok(()), checkpoint)
    }

    /// What of all stores in the file is pending, for a report: each segment, and whether it is a loss.
    pub(super) fn pending_heads(&self) -> String {
        let Some(running) = &self.running else { return String::new() };
        let heads = running.store.pending(running.store.uuid(), SegmentSeq(0), 20).unwrap_or_default();
        let word = |head: &SegmentHead| {
            format!("{} ({} B{})", head.range, head.bytes, if head.loss { ", a loss" } else { "" })
        };
        heads.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// What of all stores in the file is pending.
    pub(super) fn pending(&self) -> Result<Vec<(StoreUuid, RangeSet)>, String> {
        let Some(running) = &self.running else { return Err("the device is off".into()) };
        let of = |uuid| running.store.pending_ranges(uuid).map(|pending| (uuid, pending));
        let all: Result<Vec<_>, _> = running.store.stores().iter().map(|line| of(line.uuid)).collect();
        let all = all.map_err(|e| format!("the store: {e}"))?;
        Ok(all.into_iter().filter(|(_, pending)| !pending.is_empty()).collect())
    }

    /// From here on nothing goes wrong, and no more readings come. A budget would have what waits go out in days: an operator
    /// lifts it.
    pub(super) fn calm(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        self.resting = true;
        self.power_at = self.power_at.min(around.now + SECOND);
        match self.plan.pace.budget_daily.take() {
            Some(_) => self.restart_service(true, around),
            None => Ok(()),
        }
    }

    fn boot(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        if std::mem::take(&mut self.reboots) {
            self.boots += 1;
            self.boot_at = now - SECOND;
            self.trusted = around.dice.per_mille(500);
            self.utc_error = match (self.trusted, around.dice.roll(3)) {
                (true, _) => 0,
                // No clock of its own: it begins in 1970.
                (false, 0) => -(EPOCH_NS + now),
                (false, _) => around.dice.between(-400, 30) * 86_400 * SECOND,
            };
            let late = around.dice.spread(10 * SECOND, 3 * 3600 * SECOND);
            self.sync_at = if self.trusted { i64::MAX } else { now + late };
        }
        let moment = self.moment(now);
        let me = Identity { machine_hash: [7; 16], boot_uuid: Uuid::from_u128(self.boots) };
        let (store, events) = Store::open(&self.cfg, &me, moment).map_err(|e| format!("opening: {e}"))?;
        if around.figures.boots > 0 && !events.is_empty() {
            return Err(format!("after a power cut: {events:?}"));
        }
        around.figures.boots += 1;
        let session = Session { number: around.dice.word(), run: store.run() };
        let will = wire::encode(&session.farewell()).map_err(|e| format!("the will: {e}"))?;
        let topic = topics::name(PREFIX, DEVICE, Topic::State);
        around.net.power_on(Side::Device, now, Some(Message { topic, payload: will, retain: true }));
        let mut machine = Machine::new(self.plan.snapshot_every, moment.boot).numbered_from(session.number).paced(
            self.plan.pace,
            self.plan.max_payload,
            false,
            moment.boot,
        );
        if let Some(text) = store.traffic().map_err(|e| format!("the account of traffic: {e}"))? {
            if !machine.resume_account(&text) {
                return Err(format!("the account of traffic can't be read: {text}"));
            }
        }
        let voice = Voice::new(PREFIX, DEVICE, session, self.plan.max_payload);
        let known = store.newest_anchor().map_err(|e| format!("the anchor: {e}"))?;
        let (keeper, upkeep) = (Keeper::new(known), Upkeep::new(moment));
        self.running = Some(Running {
            store,
            machine,
            voice,
            keeper,
            upkeep,
            speaking: None,
            turn_at: now,
            wake_at: now,
            timed: None,
            believed: Vec::new(),
        });
        (self.commit_at, self.committed_at) = (now + self.plan.commit_ns, now);
        self.upkeep_at = now + self.plan.upkeep_ns;
        Ok(())
    }

    fn commit(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        let moment = self.moment(now);
        let tracks = self.readings(now, around.dice);
        let Some(running) = &mut self.running else { return Ok(()) };
        let anchors = running.keeper.observe(moment);
        let sealed = Sealed::new(tracks.clone(), Some(moment.boot), None);
        self.commit_at = now + self.plan.commit_ns;
        match running.store.commit(&sealed, &self.registry, &anchors, moment) {
            Ok(done) => {
                let [range] = done.ranges[..] else { return Err(format!("one commit became {:?}", done.ranges)) };
                around.account.committed(
                    running.store.uuid(),
                    range.first,
                    running.store.boot(),
                    &tracks,
                    &self.registry,
                );
                self.committed_at = now;
                running.machine.on(Event::Committed, moment.boot);
                running.wake_at = now;
            }
            Err(StoreError::Full { .. }) => around.figures.full += 1,
            Err(e) => return Err(format!("a commit: {e}")),
        }
        Ok(())
    }

    /// What was taken since the last commit. Some stamps come twice, some are the readings' own, some values are missing
    /// from one commit to the next as series come and go.
    fn readings(&mut self, now: i64, dice: &mut Dice) -> Vec<Track> {
        let n = 1 + dice.roll(u64::from(self.plan.readings)) as i64;
        let since = self.committed_at - self.boot_at;
        let step = ((now - self.committed_at) / n).max(1);
        let mut tracks = Vec::new();
        for k in 0..self.series {
            if dice.per_mille(100) && k > 0 {
                continue;
            }
            let Ok(key) = self.registry.key(&def(k)) else { continue };
            let own = k % 5 == 4;
            let stamp = |i: i64| if own { EPOCH_NS + now / SECOND * SECOND } else { since + i / 2 * 2 * step };
            let word = |i: i64, dice: &mut Dice| {
                if self.plan.noisy { dice.word() as i64 >> 8 } else { 20_000 + i64::from(k) + i }
            };
            let values: Vec<i64> = (0..n).map(|i| word(i, dice)).collect();
            let values = match k % 3 {
                2 => Values::Float(values.iter().map(|v| *v as f64 / 100.0).collect()),
                _ => Values::Int(values),
            };
            tracks.push(track(key, own, (0..n).map(stamp).collect(), values));
        }
        tracks
    }

    /// The steps of upkeep that are due, with what is in flight left alone.
    fn keep_up(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        let moment = self.moment(now);
        let idle = Idle {
            since_commit: Duration::from_nanos((now - self.committed_at).unsigned_abs()),
            until_commit: Some(Duration::from_nanos((self.commit_at - now).unsigned_abs())),
        };
        let fault = self.fault;
        let Some(running) = &mut self.running else { return Ok(()) };
        for _ in 0..STEPS {
            let facts = running.store.facts().map_err(|e| format!("facts: {e}"))?;
            let Some(chore) = running.upkeep.next(idle, &facts, moment) else { break };
            let outcome = match running.take_step(chore, moment, fault) {
                Ok(outcome) => Some(outcome),
                Err(StoreError::Full { .. }) => None,
                Err(e) => return Err(format!("{chore:?}: {e}")),
            };
            if outcome == Some(Step::Worked) {
                around.figures.count(chore);
            }
            running.upkeep.done(chore, outcome, moment);
        }
        Ok(())
    }

    fn moment(&self, now: i64) -> Now {
        let utc = EPOCH_NS.saturating_add(now).saturating_add(self.utc_error);
        Now { boot: BootNanos(now - self.boot_at), utc: UtcNanos(utc), trusted: self.trusted }
    }
}

impl Running {
    fn take_step(&mut self, chore: Chore, now: Now, fault: Option<Fault>) -> Result<Step, StoreError> {
        let in_flight = self.machine.in_flight();
        match chore {
            Chore::Expire if fault == Some(Fault::DeletesBeforeAck) => {
                let store = self.store.uuid();
                let all = RangeSet::from_iter(SeqRange::new(1, self.store.next_seq().0 - 1));
                let pending = self.store.pending_ranges(store)?;
                self.store.set_acked(store, all.clone())?;
                let done = self.store.expire_step(&in_flight, now);
                let mut held = all;
                pending.iter().for_each(|range| held.remove(range));
                self.store.set_acked(store, held)?;
                done
            }
            Chore::Expire => self.store.expire_step(&in_flight, now),
            Chore::Vacuum => self.store.vacuum_step(),
            Chore::Checkpoint => self.store.checkpoint().map(|()| Step::Idle),
            Chore::Compact => self.store.compact_step(&in_flight, now),
        }
    }
}

fn def(k: u32) -> SeriesDef {
    let (kind, scale) = if k % 3 == 2 { (Kind::Float, Scale::ONE) } else { (Kind::Int, Scale::MILLI) };
    SeriesDef { name: format!("board/s{k}"), unit: "Cel".into(), kind, scale }
}

fn track(key: SeriesKey, own: bool, stamps: Vec<i64>, values: Values) -> Track {
    let clock = if own { TrackClock::Utc } else { TrackClock::Boot };
    Track { key, clock, stamps, values, missing: Vec::new() }
}
