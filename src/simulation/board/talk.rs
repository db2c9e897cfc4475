//! What `uplink/task.rs` does, without the waiting: asks the machine, does what it says, tells it what came of it.
//!
//! What enters: the time, what the network brings. What leaves: messages, and what the machine and the store are told. One
//! action at a time; a message waits while the client is full, or while what is on the way leaves no room for it.

use super::super::net::{Message, Side};
use super::super::plan::Fault;
use super::super::{Around, PREFIX};
use super::{Board, Running, Speaking};
use crate::clock::{Now, SECOND};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::store::StoreError;
use crate::uplink::answers::{self, Asked};
use crate::uplink::machine::{Action, Event};
use crate::uplink::voice::Outgoing;
use crate::wire::topics::{self, Topic};
use crate::wire::{self, Request, StoreUuid};

impl Board {
    /// The uplink's task: one action at a time, until there is none or the client is busy.
    pub(super) fn act(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let moment = self.moment(around.now);
        let (fault, boot_at) = (self.fault, self.boot_at);
        let Some(running) = &mut self.running else { return Ok(()) };
        for turn in 0.. {
            running.keep_time(moment);
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

    pub(in crate::simulation) fn connected(&mut self, now: i64) {
        self.tell(Event::Connected, now);
    }

    pub(in crate::simulation) fn disconnected(&mut self, now: i64) {
        let speaking = self.running.as_mut().and_then(|running| running.speaking.take());
        if speaking.is_some() {
            self.tell(Event::NotPublished, now);
        }
        self.tell(Event::Disconnected, now);
    }

    /// The broker has the message that was handed over first.
    pub(in crate::simulation) fn passed(&mut self, now: i64) {
        self.tell(Event::Passed, now);
    }

    pub(in crate::simulation) fn heard(&mut self, message: &Message, around: &mut Around<'_>) -> Result<(), String> {
        let bytes = (message.topic.len() + message.payload.len()) as u64;
        self.tell(Event::Arrived { bytes }, around.now);
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
            if matches!(event, Event::Disconnected | Event::NotPublished) {
                running.voice.disconnected();
            }
            running.machine.on(event, moment.boot);
            running.wake_at = now;
        }
    }
}

impl Running {
    /// Tells the machine the time, once a second, and the store what is to be kept of it.
    fn keep_time(&mut self, moment: Now) {
        if self.timed.is_some_and(|last| moment.boot.0 - last.0 < SECOND) {
            return;
        }
        self.timed = Some(moment.boot);
        self.machine.on(Event::Time(moment), moment.boot);
        if let Some(text) = self.machine.account_to_save() {
            self.store.note_traffic(text);
        }
    }

    /// Says that the device goes, and keeps the account of traffic.
    pub(super) fn take_leave(&mut self, around: &mut Around<'_>) {
        if let Some(farewell) = self.voice.farewell().filter(|_| around.net.connected(Side::Device)) {
            let Outgoing { topic, retain, payload, .. } = farewell;
            around.publish(Side::Device, Message { topic, payload, retain });
        }
        self.store.note_traffic(self.machine.last_account());
    }

    /// Hands messages to the client while that takes them; whether all of the action is done.
    fn speak(&mut self, moment: Now, fault: Option<Fault>, around: &mut Around<'_>) -> Result<bool, String> {
        let Some(speaking) = &mut self.speaking else { return Ok(true) };
        let persistent = fault == Some(Fault::PersistentChannel);
        while let Some(next) = speaking.left.front() {
            let bytes = next.topic.len() + next.payload.len();
            if !around.net.connected(Side::Device) && !persistent {
                self.speaking = None;
                self.machine.on(Event::NotPublished, moment.boot);
                return Ok(true);
            }
            if !persistent && !self.machine.has_room(bytes, moment.boot) {
                self.turn_at = around.now + SECOND;
                return Ok(false);
            }
            if !around.net.has_room() && !persistent {
                self.turn_at = i64::MAX;
                return Ok(false);
            }
            let Some(Outgoing { topic, retain, payload, page }) = speaking.left.pop_front() else { break };
            around.figures.published += 1;
            around.publish(Side::Device, Message { topic, payload, retain });
            page.into_iter().for_each(|page| self.voice.said(page));
            if !persistent {
                let published = Event::Published { bytes: bytes as u64, begun: moment.boot };
                self.machine.on(published, moment.boot);
            }
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

    fn check_window(&self) -> Result<(), String> {
        let (count, bytes) = self.machine.window();
        if count > 8 || (count > 1 && bytes > 256 << 10) || self.machine.in_flight().len() > 256 {
            return Err(format!("{count} segments of {bytes} bytes are in the window"));
        }
        Ok(())
    }
}
