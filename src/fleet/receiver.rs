//! The receiver: messages in, replicas written, acknowledgements out.
//!
//! What enters: groups of messages as a broker delivered them, the moment, ticks. What leaves: messages to publish, made
//! only from what a commit has returned for. It promises that an `ack` names nothing that is not durable with every name
//! and boot it cites, and that what one device sends changes nothing for another. It does no networking and never waits;
//! whoever calls it publishes what it answers, and gives the broker its PUBACKs after that.
//!
//! A segment is read with the definitions that *this device* has stated since the receiver started (`Known`): a clone that
//! gave an id another meaning is found out before a reading of its is taken for another's. Until they are there the
//! segment is not kept; the pages are asked for, and the device sends the segment again for want of an ack.

mod answers;
mod device;
mod notices;
mod retrievals;
#[cfg(test)]
mod tests;

use super::presence::Heard;
use super::refusal::Refusal;
use super::replica::roster::{Happened, Roster};
use super::replica::{Arrived, Merged, Placed};
use super::shelf::{MAX_PREPARED, Shelf};
use super::{FAR_SEQUENCE, FleetError, MAX_DEVICES, MAX_STORES_PER_DEVICE};
use crate::clock::{BootNanos, Now, SECOND};
use crate::reading::SegmentSeq;
use crate::segment::{SegmentError, View};
use crate::wire::topics::{self, Topic};
use crate::wire::{
    Assembled, Assembler, AssemblerLimits, CatalogPage, SegmentFrame, State, StoreUuid, WireError, decode,
};
pub(in crate::fleet) use device::gaps as device_gaps;

use answers::Answers;
use device::Device;
use notices::{Stranger, Strangers};
use retrievals::Retrievals;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most messages of one group, which is committed together.
pub const MAX_GROUP: usize = 1024;

/// How often the roster is written at most.
const SAVE_EVERY: i64 = 5 * SECOND;

/// Acks that are published again at one tick after a reconnect.
const ACKS_PER_TICK: usize = 64;

/// Requests for gaps that are published at one tick.
const REQUESTS_PER_TICK: usize = 64;

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

/// A message to publish at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// See the room.
pub struct Receiver {
    prefix: String,
    shelf: Shelf,
    roster: Roster,
    devices: BTreeMap<String, Device>,
    assembler: Assembler,
    changed: BTreeSet<String>,
    events: Vec<Happened>,
    saved: Option<BootNanos>,
    again: BTreeSet<String>,
    retrievals: Retrievals,
    strangers: Strangers,
    /// Incomplete segments that were dropped for want of room for all devices.
    pushed_out: u64,
    /// Commits of replicas that failed.
    uncommitted: u64,
}

impl Receiver {
    /// Opens the data folder, made where it isn't there, for devices below `prefix`.
    pub fn open(data: &Path, prefix: &str) -> Result<Self, FleetError> {
        let shelf = Shelf::open(data)?;
        let roster = Roster::open(data)?;
        let devices = roster.load()?.into_iter().map(|(name, entry)| (name, Device::restored(entry))).collect();
        Ok(Self {
            prefix: prefix.to_owned(),
            shelf,
            roster,
            devices,
            assembler: Assembler::new(AssemblerLimits::default()),
            changed: BTreeSet::new(),
            events: Vec::new(),
            saved: None,
            again: BTreeSet::new(),
            retrievals: Retrievals::default(),
            strangers: Strangers::default(),
            pushed_out: 0,
            uncommitted: 0,
        })
    }

    /// Takes in at most [`MAX_GROUP`] messages, in order, in one transaction per replica, and answers. When it returns, all
    /// that the answers name is durable.
    pub fn apply(&mut self, group: &[Message<'_>], now: Now) -> Vec<Publication> {
        debug_assert!(group.len() <= MAX_GROUP, "one commit for too many messages");
        let mut answers = Answers::default();
        for some in group.chunks(MAX_PREPARED) {
            self.prepare(some, now);
            some.iter().for_each(|message| self.take(*message, now, &mut answers));
        }
        self.commit(now);
        self.answer(answers, now)
    }

    /// As [`Receiver::apply`], up to the moment before the commit: for who then cuts the power.
    #[cfg(test)]
    pub(crate) fn take_without_commit(&mut self, group: &[Message<'_>], now: Now) {
        let mut answers = Answers::default();
        group.iter().for_each(|message| self.take(*message, now, &mut answers));
    }

    /// A connection to the broker begins: it may have lost what it retained, so every device that is there is told again.
    pub fn connected(&mut self) {
        let there = self.devices.iter().filter(|(_, device)| device.entry.online);
        self.again.extend(there.map(|(name, _)| name.clone()));
        self.retrievals.begin_again(None);
    }

    /// What is due without a message; to be called about once a second.
    pub fn tick(&mut self, now: Now) -> Vec<Publication> {
        if self.saved.is_none_or(|then| now.boot.0.saturating_sub(then.0) >= SAVE_EVERY) {
            self.save(now);
        }
        let mut answers = Answers::default();
        while let Some(name) = self.again.pop_first() {
            answers.acks.insert(name);
            if answers.acks.len() == ACKS_PER_TICK {
                break;
            }
        }
        self.shelf.try_again();
        let mut out = self.answer(answers, now);
        out.extend(self.ask_for_standing_gaps(REQUESTS_PER_TICK, now));
        out.extend(self.retrieve(now));
        out
    }

    /// Writes the roster. Replicas need no closing: what was answered is durable.
    pub fn close(mut self, now: Now) {
        self.save(now);
    }

    /// Messages whose topic is nobody's or not a device's to write, or whose device would be one too many.
    #[cfg(test)]
    pub(crate) fn strangers(&self) -> u64 {
        self.strangers.total()
    }

    fn take(&mut self, message: Message<'_>, now: Now, answers: &mut Answers) {
        if self.shelf.is_crowded() {
            self.commit(now);
        }
        let parsed = topics::parse(&self.prefix, message.topic);
        if let Some(kind) = Stranger::of(parsed.map(|(_, topic)| topic)) {
            return self.stranger(message.topic, kind, now);
        }
        let Some((name, topic)) = parsed else { return };
        if !self.devices.contains_key(name) {
            if self.devices.len() >= MAX_DEVICES {
                return self.stranger(message.topic, Stranger::TooMany, now);
            }
            self.devices.insert(name.to_owned(), Device::default());
        }
        let taken = match topic {
            Topic::Segment => self.take_segment(name, message.payload, now, answers),
            // An empty payload is how a retained message is cleared.
            Topic::Catalog(_) | Topic::State if message.payload.is_empty() => Ok(()),
            Topic::Catalog(_) => self.take_page(name, message.payload, now, answers),
            Topic::State => self.take_state(name, message.payload, now, answers),
            Topic::Ack | Topic::Request => Ok(()),
        };
        let Some(device) = self.devices.get_mut(name) else { return };
        device.entry.seen = now.utc;
        if !self.changed.contains(name) {
            self.changed.insert(name.to_owned());
        }
        if let Err(refused) = taken {
            self.refused(name, refused, now);
        }
        self.given_up(now);
    }

    /// Makes the replicas of devices that `messages` are the first of, several at a time: the others wait meanwhile.
    fn prepare(&mut self, messages: &[Message<'_>], now: Now) {
        let mut new = Vec::new();
        for message in messages {
            let Some((name, Topic::Catalog(_))) = topics::parse(&self.prefix, message.topic) else { continue };
            let has_place = self.devices.contains_key(name) || self.devices.len() + new.len() < MAX_DEVICES;
            let is_new = has_place && self.shelf.stores_of(name).next().is_none();
            let page = is_new.then(|| decode::<CatalogPage>(message.payload).ok()).flatten();
            new.extend(page.map(|page| (name.to_owned(), page.store)));
        }
        if new.len() > 1 {
            if new.len() > self.shelf.room() {
                self.commit(now);
            }
            let notices = self.shelf.prepare(&new, now.utc);
            self.report(notices, now);
        }
    }

    fn take_segment(&mut self, name: &str, payload: &[u8], now: Now, answers: &mut Answers) -> Result<(), Refused> {
        let frame: SegmentFrame<'_> = decode(payload).map_err(bad_envelope)?;
        if let SegmentFrame::Account(account) = frame {
            return self.take_account(name, &account, now);
        }
        let Some(whole) = self.assembler.accept(name, frame).map_err(bad_envelope)? else { return Ok(()) };
        let view = checked(&whole)?;
        let store = whole.store;
        self.admit(name, store)?;
        let brought = self.devices.get(name).and_then(|device| device.has_brought(store));
        let Some(brought) = brought.filter(|brought| brought.known.covers(&view)) else {
            answers.catalogs.insert(name.to_owned());
            return Ok(());
        };
        let (replica, notices) = self.shelf.replica(name, store, now.utc).map_err(bad_replica)?;
        let arrived = Arrived { view: &view, body: &whole.body };
        let placed = replica.place(name, &brought.known, brought.recheck, arrived);
        self.report(notices, now);
        let placed = placed.map_err(|cause| self.fall_back(store, cause))?;
        if let Placed::Refused(why) = placed {
            return Err((why, format!("segment {} of store {store}", whole.range)));
        }
        let brought = self.device(name).brought(store);
        if placed == Placed::Back {
            brought.known = Default::default();
            answers.catalogs.insert(name.to_owned());
        }
        answers.acks.insert(name.to_owned());
        if matches!(placed, Placed::Beside | Placed::Back) {
            let detail = format!("{} of store {store} arrived with other content; both are kept", whole.range);
            self.retrievals.found(name, &detail);
            self.conflict(name, store, detail, now, answers);
        }
        Ok(())
    }

    fn take_page(&mut self, name: &str, payload: &[u8], now: Now, answers: &mut Answers) -> Result<(), Refused> {
        let page: CatalogPage = decode(payload).map_err(bad_envelope)?;
        let store = page.store;
        self.admit(name, store)?;
        let (replica, notices) = self.shelf.replica(name, store, now.utc).map_err(bad_replica)?;
        let merged = replica.merge(name, &page, now.utc);
        self.report(notices, now);
        let merged = merged.map_err(|cause| self.fall_back(store, cause))?;
        let device = self.device(name);
        match merged {
            Merged::Refused(why) => return Err((why, format!("a catalogue page of store {store}"))),
            Merged::Kept => device.learn(&page),
            Merged::Beside => {
                device.brought(store).known = Default::default();
                device.learn(&page);
                answers.catalogs.insert(name.to_owned());
                let detail = format!("store {store} has other definitions than were held; both are kept");
                self.conflict(name, store, detail, now, answers);
            }
        }
        Ok(())
    }

    fn take_state(&mut self, name: &str, payload: &[u8], now: Now, answers: &mut Answers) -> Result<(), Refused> {
        let state: State = decode(payload).map_err(bad_envelope)?;
        let pending = state.stores.iter().filter_map(|s| s.pending.last()).map(|range| range.last);
        for seq in state.stores.iter().map(|s| s.high).chain(pending) {
            near(seq)?;
        }
        let was_there = self.device(name).entry.online;
        let heard = self.device(name).hear(&state);
        let begins = matches!(heard, Heard::Born | Heard::Returned { .. });
        if begins || (heard == Heard::Still && !was_there) {
            self.device(name).ask_anew();
            self.retrievals.begin_again(Some(name));
        }
        match heard {
            Heard::Stale => return Ok(()),
            Heard::Gone => {
                self.assembler.forget(name);
                return Ok(());
            }
            Heard::Returned { times } => {
                self.assembler.forget(name);
                self.contest(name, &state, times, now);
            }
            Heard::Born => self.assembler.forget(name),
            // It was away: what it had begun to send begins anew.
            Heard::Still if !was_there => self.assembler.forget(name),
            Heard::Still => {}
        }
        let highs: Vec<(StoreUuid, SegmentSeq)> = state.stores.iter().map(|s| (s.store, s.high)).collect();
        self.device(name).believe(state, payload);
        answers.acks.insert(name.to_owned());
        for (store, high) in highs {
            if self.shelf.has(name, store) {
                if self.shelf.is_crowded() {
                    self.commit(now);
                }
                let (replica, notices) = self.shelf.replica(name, store, now.utc).map_err(bad_replica)?;
                let saw = replica.saw(high);
                self.report(notices, now);
                saw.map_err(|cause| self.fall_back(store, cause))?;
            }
        }
        Ok(())
    }

    /// Whether a device may bring this store: one more only while it has few.
    fn admit(&mut self, name: &str, store: StoreUuid) -> Result<(), Refused> {
        if self.shelf.has(name, store) || self.shelf.stores_of(name).count() < MAX_STORES_PER_DEVICE {
            return Ok(());
        }
        Err((Refusal::Stores, format!("store {store} would be one more than {MAX_STORES_PER_DEVICE}")))
    }

    fn commit(&mut self, now: Now) {
        for (store, cause) in self.shelf.commit() {
            log::error!("receiver: store {store} was not committed and is not acknowledged: {cause}");
            self.forget(store);
            self.uncommitted(store, &cause.to_string(), now);
        }
    }

    /// A write failed in the middle of a group: the store's part of the group is undone.
    fn fall_back(&mut self, store: StoreUuid, cause: crate::store::StoreError) -> Refused {
        self.shelf.roll_back(store);
        self.forget(store);
        (Refusal::Replica, format!("store {store}: {cause}"))
    }

    /// What was believed of a store since the last commit may be wrong: definitions are asked for and ranges verified again.
    fn forget(&mut self, store: StoreUuid) {
        for device in self.devices.values_mut() {
            device.forget(store);
        }
    }

    fn save(&mut self, now: Now) {
        self.saved = Some(now.boot);
        if self.changed.is_empty() && self.events.is_empty() {
            return;
        }
        let changed = self.changed.iter().filter_map(|name| Some((name.as_str(), &self.devices.get(name)?.entry)));
        match self.roster.save(changed, &self.events) {
            Ok(()) => {
                self.changed.clear();
                self.events.clear();
            }
            Err(cause) => log::error!("roster: {cause}"),
        }
    }

    fn device(&mut self, name: &str) -> &mut Device {
        self.devices.entry(name.to_owned()).or_default()
    }
}

/// Why a message is refused, and of what it spoke.
type Refused = (Refusal, String);

/// The body's directory, once the body is what its envelope says.
fn checked(whole: &Assembled<'_>) -> Result<View, Refused> {
    near(whole.range.last)?;
    let view = View::parse(&whole.body).map_err(|error| match error {
        SegmentError::Newer { .. } => (Refusal::NewerSegment, error.to_string()),
        _ => (Refusal::Segment, format!("{} of store {}: {error}", whole.range, whole.store)),
    })?;
    if view.range() != whole.range {
        return Err((Refusal::OtherRange, format!("{} in the envelope, {} in the body", whole.range, view.range())));
    }
    Ok(view)
}

fn near(seq: SegmentSeq) -> Result<(), Refused> {
    if seq.0 < FAR_SEQUENCE { Ok(()) } else { Err((Refusal::FarSequence, format!("sequence number {seq}"))) }
}

fn bad_envelope(error: WireError) -> Refused {
    let why = if matches!(error, WireError::Newer { .. }) { Refusal::NewerEnvelope } else { Refusal::Envelope };
    (why, error.to_string())
}

fn bad_replica(error: FleetError) -> Refused {
    (Refusal::Replica, error.to_string())
}
