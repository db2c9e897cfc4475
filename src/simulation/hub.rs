//! The fleet's side: the real receiver on real replicas, and what `fleet/run.rs` does around it.
//!
//! What enters: the time, what the network brings, what the weather does. What leaves: acks and requests, and PUBACKs after
//! them. A power cut takes the process away at one of four moments of a group: between groups, with the transaction open,
//! after the commit and before the first answer, or between two answers. What the acks ever named must be there when it
//! starts again.

use super::dice::Dice;
use super::net::{Message, Side, Ticket};
use super::plan::{Fault, Plan};
use super::{Around, EPOCH_NS, PREFIX};
use crate::clock::{BootNanos, Now, SECOND, UtcNanos};
use crate::fleet::receiver::{self, MAX_GROUP, Publication, Receiver};
use crate::fleet::replica;
use crate::wire::topics::{self, Topic};
use crate::wire::{self, Ack, Request};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

/// What waits while a group is being worked on: fewer than in `fleet/run.rs`, so that it happens that no more are taken.
const MOST_WAITING: usize = 256 + 64;

/// When in its work on a group the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Idle,
    BeforeCommit,
    BeforeAnswers,
    BetweenAnswers,
}

/// See the room.
pub(super) struct Hub {
    data: PathBuf,
    /// An older copy of `data`.
    copy: PathBuf,
    fault: Option<Fault>,
    receiver: Option<Receiver>,
    inbox: VecDeque<(Message, Ticket)>,
    turn_at: i64,
    tick_at: i64,
    tick_ns: i64,
    service_ns: (i64, i64),
    power_at: i64,
    boot_at: i64,
    utc_error: i64,
    /// At the next group the power goes.
    doomed: Option<(Cut, i64)>,
}

impl Hub {
    pub(super) fn new(plan: &Plan, fault: Option<Fault>, dir: &Path) -> Self {
        replica::FORGETFUL.set(fault == Some(Fault::NoDedup));
        Self {
            data: dir.join("fleet"),
            copy: dir.join("fleet-copy"),
            fault,
            receiver: None,
            inbox: VecDeque::new(),
            turn_at: i64::MAX,
            tick_at: 0,
            tick_ns: plan.tick_ns,
            service_ns: plan.service_ns,
            power_at: 0,
            boot_at: -SECOND,
            utc_error: 0,
            doomed: None,
        }
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn is_on(&self) -> bool {
        self.receiver.is_some()
    }

    pub(super) fn next_at(&self) -> i64 {
        if self.receiver.is_none() { self.power_at } else { self.turn_at.min(self.tick_at) }
    }

    /// Everything that is due.
    pub(super) fn run(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        if self.receiver.is_none() {
            if now < self.power_at {
                return Ok(());
            }
            self.start(around)?;
        }
        let moment = self.moment(now);
        if self.turn_at <= now {
            self.turn_at = i64::MAX;
            self.apply(around)?;
        }
        if self.tick_at <= now {
            self.tick_at = now + self.tick_ns;
            let answers = self.receiver.as_mut().map(|receiver| receiver.tick(moment)).unwrap_or_default();
            self.publish(answers, around)?;
        }
        self.plan_turn(now, around.dice);
        Ok(())
    }

    pub(super) fn connected(&mut self, now: i64) {
        if let Some(receiver) = &mut self.receiver {
            receiver.connected();
            self.tick_at = self.tick_at.min(now + SECOND);
        }
    }

    pub(super) fn heard(&mut self, message: Message, ticket: Ticket, around: &mut Around<'_>) {
        // A client that is not read from holds back what the broker sends; here that is as good as a PUBACK withheld.
        if self.receiver.is_some() && self.inbox.len() < MOST_WAITING {
            self.inbox.push_back((message, ticket));
            self.plan_turn(around.now, around.dice);
        }
    }

    /// The power goes, for `off_ns`: now, or at that moment of the next group.
    pub(super) fn cut_power(&mut self, cut: Cut, off_ns: i64, around: &mut Around<'_>) {
        if cut == Cut::Idle { self.go_dark(off_ns, around) } else { self.doomed = Some((cut, off_ns)) }
    }

    /// No cut is to come any more.
    pub(super) fn calm(&mut self, now: i64) {
        self.doomed = None;
        self.power_at = self.power_at.min(now + SECOND);
    }

    pub(super) fn step_clock(&mut self, by_ns: i64) {
        self.utc_error = self.utc_error.saturating_add(by_ns);
    }

    /// Remembers the disk as it is.
    pub(super) fn copy_disk(&mut self) -> Result<(), String> {
        copy(&self.data, &self.copy).map_err(|e| format!("copying the fleet's disk: {e}"))
    }

    /// Puts the disk back to what was remembered; the process starts again.
    pub(super) fn put_back(&mut self, around: &mut Around<'_>) -> Result<bool, String> {
        if !self.copy.exists() {
            return Ok(false);
        }
        self.go_dark(10 * SECOND, around);
        copy(&self.copy, &self.data).map_err(|e| format!("putting the fleet's disk back: {e}"))?;
        around.account.put_back();
        Ok(true)
    }

    /// What `varved-fleet request` publishes.
    pub(super) fn request(&self, request: &Request, around: &mut Around<'_>) {
        if let (true, Ok(payload)) = (around.net.connected(Side::Fleet), wire::encode(request)) {
            let topic = topics::name(PREFIX, super::DEVICE, Topic::Request);
            around.publish(Side::Fleet, Message { topic, payload, retain: false });
        }
    }

    fn go_dark(&mut self, off_ns: i64, around: &mut Around<'_>) {
        let now = around.now;
        around.account.look_away();
        self.receiver = None;
        self.inbox.clear();
        self.doomed = None;
        (self.turn_at, self.power_at) = (i64::MAX, now + off_ns);
        around.net.power_off(Side::Fleet, now);
    }

    fn start(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        around.account.check_all_named(&self.data).map_err(|why| format!("after a power cut: {why}"))?;
        self.receiver = Some(Receiver::open(&self.data, PREFIX).map_err(|e| format!("the receiver: {e}"))?);
        (self.boot_at, self.tick_at) = (around.now - SECOND, around.now + SECOND);
        around.net.power_on(Side::Fleet, around.now, None);
        Ok(())
    }

    fn plan_turn(&mut self, now: i64, dice: &mut Dice) {
        if self.turn_at == i64::MAX && !self.inbox.is_empty() {
            self.turn_at = now + dice.between(self.service_ns.0, self.service_ns.1);
        }
    }

    /// One group: commit, answers, PUBACKs in order of arrival.
    fn apply(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let now = around.now;
        let moment = self.moment(now);
        let size = self.inbox.len().min(MAX_GROUP);
        let group: Vec<(Message, Ticket)> = self.inbox.drain(..size).collect();
        let messages: Vec<receiver::Message<'_>> =
            group.iter().map(|(m, _)| receiver::Message { topic: &m.topic, payload: &m.payload }).collect();
        let doom = self.doomed.take();
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        if let Some((Cut::BeforeCommit, off_ns)) = doom {
            around.figures.cut_groups += 1;
            if self.fault == Some(Fault::AckBeforeCommit) {
                return self.answer_and_forget(&messages, off_ns, around);
            }
            receiver.take_without_commit(&messages, moment);
            self.go_dark(off_ns, around);
            return Ok(());
        }
        let mut answers = receiver.apply(&messages, moment);
        around.figures.groups += 1;
        around.figures.received += group.len() as u64;
        if let Some((cut, off_ns)) = doom {
            around.figures.cut_groups += 1;
            let said = if cut == Cut::BeforeAnswers { 0 } else { answers.len() / 2 };
            answers.truncate(said);
            self.publish(answers, around)?;
            self.go_dark(off_ns, around);
            return Ok(());
        }
        self.publish(answers, around)?;
        group.iter().for_each(|(_, ticket)| around.net.puback(*ticket, now, around.dice));
        Ok(())
    }

    /// A planted fault: the answers go out, and then the commit they speak of turns out not to be on the medium.
    fn answer_and_forget(
        &mut self,
        messages: &[receiver::Message<'_>],
        off_ns: i64,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let before = self.data.with_extension("before");
        copy(&self.data, &before).map_err(|e| e.to_string())?;
        let moment = self.moment(around.now);
        let answers = self.receiver.as_mut().map(|receiver| receiver.apply(messages, moment)).unwrap_or_default();
        self.publish(answers, around)?;
        self.go_dark(off_ns, around);
        copy(&before, &self.data).map_err(|e| e.to_string())
    }

    fn publish(&self, answers: Vec<Publication>, around: &mut Around<'_>) -> Result<(), String> {
        for Publication { topic, payload, retain } in answers {
            if !around.net.connected(Side::Fleet) {
                break;
            }
            if retain {
                let ack: Ack = wire::decode(&payload).map_err(|e| format!("an ack: {e}"))?;
                around.account.acked(&ack, &self.data)?;
                around.figures.acks += 1;
            } else {
                around.figures.requests += 1;
            }
            around.publish(Side::Fleet, Message { topic, payload, retain });
        }
        Ok(())
    }

    fn moment(&self, now: i64) -> Now {
        let utc = EPOCH_NS.saturating_add(now).saturating_add(self.utc_error);
        Now { boot: BootNanos(now - self.boot_at), utc: UtcNanos(utc), trusted: true }
    }
}

/// Makes `to` the same as `from`. Links are for a second device, of which there is none; `-shm` is made anew.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
