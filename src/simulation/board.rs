//! The device: a real store, the real machine, what answers it, and as little else as a board needs.
//!
//! What enters: the time, what the network brings, what the weather does. What leaves: messages, commits to the account.
//! In place of `uplink/task.rs` it performs one action at a time and tells what came of it; in place of `device.rs` it
//! commits, and runs the steps of upkeep that [`Upkeep`] chooses. A power cut drops the store without closing it: the batch
//! that was waiting and whatever the store keeps in RAM, acks among it, are gone.

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
use crate::uplink::answers::{self, Asked};
use crate::uplink::machine::{Action, Event, Machine};
use crate::uplink::voice::{Outgoing, Session, Voice};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, Request, StoreUuid};
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
    wake_at: i64,
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
        let wake = if running.speaking.is_some() { i64::MAX } else { running.wake_at };
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

    /// The uplink's task: one action at a time, until there is none or the client is busy.
    fn act(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let moment = self.moment(around.now);
        let (fault, boot_at) = (self.fault, self.boot_at);
        let Some(running) = &mut self.running else { return Ok(()) };
        for turn in 0.. {
            if turn > 10_000 {
                return Err("the machine asks for more and more at one moment".into());
            }
            if running.speaking.is_some() {
                if !running.speak(moment, fault, around)? {
                    return Ok(());
                }
                continue;
            }
            let Some(action) = running.machine.next(moment.boot) else { break };
            if !around.net.calm && around.dice.per_mille(1) {
                around.figures.store_failures += 1;
                running.machine.on(Event::StoreFailed, moment.boot);
                continue;
            }
            let action = running.as_it_believes(action);
            let (page_bytes, begun) = (running.voice.page_bytes(), running.voice.begun(&action));
            let asked = Asked { now: moment, nonce: around.dice.word(), page_bytes, begun };
            let found = answers::find(&mut running.store, action, asked).map_err(|e| format!("the store: {e}"))?;
            let answer = running.voice.answer(found, moment);
            if let Some(before) = answer.before.clone() {
                running.machine.on(before, moment.boot);
            }
            let left = answer.messages().collect();
            running.speaking = Some(Speaking { left, after: answer.after });
        }
        running.check_window()?;
        running.wake_at = boot_at.saturating_add(running.machine.wake_at().0).max(around.now + SECOND / 100);
        Ok(())
    }

    pub(super) fn connected(&mut self, now: i64) {
        self.tell(Event::Connected, now);
    }

    pub(super) fn disconnected(&mut self, now: i64) {
        let speaking = self.running.as_mut().and_then(|running| running.speaking.take());
        if speaking.is_some() {
            self.tell(Event::NotPublished, now);
        }
        self.tell(Event::Disconnected, now);
    }

    pub(super) fn heard(&mut self, message: &Message, around: &mut Around<'_>) -> Result<(), String> {
        let read = match topics::parse(PREFIX, &message.topic).map(|(_, topic)| topic) {
            Some(Topic::Ack) => wire::decode(&message.payload).map(Event::Ack),
            Some(Topic::Request) => wire::decode(&message.payload).map(Event::Request),
            other => return Err(format!("the device hears {other:?}")),
        };
        let event = read.map_err(|e| format!("{}: {e}", message.topic))?;
        if matches!(event, Event::Ack(_)) {
            around.figures.acks_heard += 1;
            if self.fault == Some(Fault::AcksIgnored) {
                return Ok(());
            }
        }
        if matches!(event, Event::Request(Request::Segments { .. })) && self.fault == Some(Fault::PersistentChannel) {
            // What was delivered needs no sending again.
            return Ok(());
        }
        self.tell(event, around.now);
        Ok(())
    }

    fn tell(&mut self, event: Event, now: i64) {
        let moment = self.moment(now);
        if let Some(running) = &mut self.running {
            running.machine.on(event, moment.boot);
            running.wake_at = now;
        }
    }

    /// The supply is gone for a while; what comes back is another boot, maybe with a clock that begins in 1970.
    pub(super) fn cut_power(&mut self, now: i64, off_ns: i64, net: &mut Net) {
        self.running = None;
        (self.power_at, self.reboots) = (now + off_ns, true);
        net.power_off(Side::Device, now);
    }

    /// The service ends and begins again within one boot: cleanly, or not.
    pub(super) fn restart_service(&mut self, cleanly: bool, now: i64, net: &mut Net) -> Result<(), String> {
        let Some(running) = self.running.take() else { return Ok(()) };
        if cleanly {
            running.store.close().map_err(|e| format!("closing: {e}"))?;
        }
        net.power_off(Side::Device, now);
        self.power_at = now + SECOND;
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

    /// From here on nothing goes wrong, and no more readings come.
    pub(super) fn calm(&mut self, now: i64) {
        self.resting = true;
        self.power_at = self.power_at.min(now + SECOND);
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
        let machine = Machine::new(self.plan.snapshot_every, moment.boot);
        let voice = Voice::new(PREFIX, DEVICE, session, self.plan.max_payload);
        let known = store.newest_anchor().map_err(|e| format!("the anchor: {e}"))?;
        let (keeper, upkeep) = (Keeper::new(known), Upkeep::new(moment));
        let (speaking, believed) = (None, Vec::new());
        self.running = Some(Running { store, machine, voice, keeper, upkeep, speaking, wake_at: now, believed });
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
    /// Hands messages to the client while that takes them; whether all of the action is done.
    fn speak(&mut self, moment: Now, fault: Option<Fault>, around: &mut Around<'_>) -> Result<bool, String> {
        let Some(speaking) = &mut self.speaking else { return Ok(true) };
        let persistent = fault == Some(Fault::PersistentChannel);
        while let Some(Outgoing { topic, retain, payload, page }) = speaking.left.pop_front() {
            if !around.net.connected(Side::Device) && !persistent {
                self.speaking = None;
                self.machine.on(Event::NotPublished, moment.boot);
                return Ok(true);
            }
            if !around.net.has_room() && !persistent {
                speaking.left.push_front(Outgoing { topic, retain, payload, page });
                return Ok(false);
            }
            around.figures.published += 1;
            around.publish(Side::Device, Message { topic, payload, retain });
            page.into_iter().for_each(|page| self.voice.said(page));
        }
        let Some(Speaking { after, .. }) = self.speaking.take() else { return Ok(true) };
        if let Event::Sent { store, range, .. } = after {
            around.figures.sent += 1;
            if persistent {
                self.believe(store, range).map_err(|e| format!("the store: {e}"))?;
            }
        }
        self.machine.on(after, moment.boot);
        Ok(true)
    }

    /// A planted fault: what the client ever took stays at the fleet whatever an ack says.
    fn as_it_believes(&self, action: Action) -> Action {
        match action {
            Action::SetAcked { store, mut ranges } if !self.believed.is_empty() => {
                self.believed.iter().filter(|(of, _)| *of == store).for_each(|(_, range)| ranges.insert(*range));
                Action::SetAcked { store, ranges }
            }
            other => other,
        }
    }

    /// The same: what the client took is at the fleet.
    fn believe(&mut self, store: StoreUuid, range: SeqRange) -> Result<(), StoreError> {
        self.believed.push((store, range));
        let high = self.store.stores().iter().find(|line| line.uuid == store).map_or(0, |line| line.high.0);
        let pending = self.store.pending_ranges(store)?;
        let mut held = RangeSet::from_iter(SeqRange::new(1, high));
        pending.iter().for_each(|range| held.remove(range));
        held.insert(range);
        self.store.set_acked(store, held)
    }

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

    fn check_window(&self) -> Result<(), String> {
        let (count, bytes) = self.machine.window();
        if count > 8 || (count > 1 && bytes > 256 << 10) || self.machine.in_flight().len() > 256 {
            return Err(format!("{count} segments of {bytes} bytes are in the window"));
        }
        Ok(())
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
