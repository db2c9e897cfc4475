//! What an operator is to hear of: who sent what could not be kept, which store came from elsewhere, what is in conflict.
//!
//! What enters: refusals, notices of the shelf, topics of nobody. What leaves: counts and dated events for the roster, which
//! `varved-fleet devices` shows, and a line in the log now and then. A flood is counted in full, and told at its first message,
//! its tenth, its hundredth: so whoever sends it is named, and pushes nothing else out.

use super::answers::Answers;
use super::{Receiver, Refused};
use crate::clock::{BootNanos, Now, SECOND};
use crate::fleet::refusal::Refusal;
use crate::fleet::replica::roster::Happened;
use crate::fleet::shelf::Notice;
use crate::wire::topics::{self, Topic};
use crate::wire::{GivenUp, State, StoreUuid};

/// How often a message that is of no device is named in the log at most.
const NAME_EVERY: i64 = 60 * SECOND;

/// Sessions of one device that took turns so often are two devices.
const CONTEST: u32 = 4;

/// Events that wait for the roster; more are counted only.
const MAX_WAITING_EVENTS: usize = 1024;

/// The most of a topic, or of what is wrong with a message, that is told.
const MAX_TOLD_CHARS: usize = 200;

impl Receiver {
    /// A message of `name` was not kept.
    pub(super) fn refused(&mut self, name: &str, (why, detail): Refused, now: Now) {
        let Some(device) = self.devices.get_mut(name) else { return };
        let refused = &mut device.entry.refused;
        let log = refused.count(why, now.boot);
        let (n, total) = (refused.of(why), refused.total());
        let detail = printable(&detail);
        if log {
            log::warn!("receiver: {name}: refused ({why}, {total} so far): {detail}");
        }
        if is_round(n) {
            self.happened(name, format!("refused ({why}, {n} so far): {detail}"), now);
        }
    }

    /// Pieces that were dropped for want of room before their segment was whole, named by whose they were. What the replica
    /// accounts for by now was a repetition that the device broke off: nobody needs to hear of that.
    pub(super) fn given_up(&mut self, now: Now) {
        for GivenUp { device, store, range, for_others } in self.assembler.take_given_up() {
            if for_others {
                self.pushed_out(&device, now);
            } else if !self.shelf.accounts_for(&device, store, range) {
                self.changed.insert(device.to_string());
                let detail = format!(
                    "pieces of segment {range} of store {store} were dropped before all had come: there is room for two such \
                     segments of a device"
                );
                self.refused(&device, (Refusal::Unfinished, detail), now);
            }
        }
    }

    /// The pieces that had waited longest of all were dropped, since others sent too much.
    fn pushed_out(&mut self, name: &str, now: Now) {
        self.pushed_out += 1;
        if is_round(self.pushed_out) {
            let told = format!(
                "incomplete segments fill the room for all devices, {} were dropped so far, the last of {name}; devices send \
                 them again. Look for one that sends many and completes none",
                self.pushed_out
            );
            log::warn!("receiver: {told}");
            self.happened("", told, now);
        }
    }

    /// A replica took no commit; on a full disk none does, again and again.
    pub(super) fn uncommitted(&mut self, store: StoreUuid, cause: &str, now: Now) {
        self.uncommitted += 1;
        if is_round(self.uncommitted) {
            let told = format!("store {store} could not be committed ({} such so far): {cause}", self.uncommitted);
            self.happened("", told, now);
        }
    }

    /// A message whose topic is no device's to write, or whose device would be one too many.
    pub(super) fn stranger(&mut self, topic: &str, kind: Stranger, now: Now) {
        let n = self.strangers.count(kind);
        let told = format!("{:?} {} ({n} such so far): check the broker's ACL", printable(topic), kind.as_str());
        if self.strangers.may_log(now.boot) {
            log::warn!("receiver: {told}");
        }
        if is_round(n) {
            let whose = topics::parse(&self.prefix, topic).map_or("", |(name, _)| name);
            let whose = if self.devices.contains_key(whose) { whose.to_owned() } else { String::new() };
            self.happened(&whose, told, now);
        }
    }

    /// Sessions of one name take turns: told when that is no accident any more, and at each doubling.
    pub(super) fn contest(&mut self, name: &str, state: &State, times: u32, now: Now) {
        if times >= CONTEST && times.is_power_of_two() {
            let detail = self.device(name).contest(state, times);
            log::warn!("receiver: {name}: {detail}");
            self.happened(name, detail, now);
        }
    }

    /// Everyone who brought the store learns of a conflict.
    pub(super) fn conflict(&mut self, name: &str, store: StoreUuid, detail: String, now: Now, answers: &mut Answers) {
        let n = self.device(name).count_conflict();
        if is_round(n) {
            let told = if n == 1 { detail } else { format!("{detail} ({n} such since the receiver started)") };
            log::warn!("receiver: {name}: {told}");
            self.happened(name, told, now);
        }
        let others = self.shelf.devices().filter(|(_, stores)| stores.contains(&store));
        answers.acks.extend(others.map(|(other, _)| other.to_owned()).filter(|other| self.devices.contains_key(other)));
    }

    pub(super) fn report(&mut self, notices: Vec<Notice>, now: Now) {
        for notice in notices {
            let (device, detail) = match notice {
                Notice::Moved { store, from, to } => (
                    to,
                    format!("brings store {store}, which came from {from} before: a card that was moved, or a clone"),
                ),
                Notice::SetAside { store, path } => {
                    self.forget(store);
                    (
                        String::new(),
                        format!("the replica of store {store} was damaged; set aside as {}", path.display()),
                    )
                }
            };
            log::warn!("receiver: {device}: {detail}");
            self.happened(&device, detail, now);
        }
    }

    pub(super) fn happened(&mut self, device: &str, detail: String, now: Now) {
        if self.events.len() < MAX_WAITING_EVENTS {
            self.events.push(Happened { utc: now.utc, device: device.to_owned(), detail });
        }
    }
}

/// Why a message is of no device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stranger {
    Nobody,
    OurOwn,
    TooMany,
}

impl Stranger {
    /// Of what can be said of a topic, if it is one of these.
    pub(super) fn of(topic: Option<Topic>) -> Option<Self> {
        match topic {
            None => Some(Self::Nobody),
            Some(Topic::Ack | Topic::Request) => Some(Self::OurOwn),
            Some(_) => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "is no device's topic",
            Self::OurOwn => "is the receiver's own to write",
            Self::TooMany => "would be of one device too many",
        }
    }
}

/// Messages that are of no device, by [`Stranger`].
#[derive(Default)]
pub(super) struct Strangers {
    counts: [u64; 3],
    logged: Option<BootNanos>,
}

impl Strangers {
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Counts one; how many of its kind that makes.
    fn count(&mut self, kind: Stranger) -> u64 {
        let count = &mut self.counts[kind as usize];
        *count = count.saturating_add(1);
        *count
    }

    fn may_log(&mut self, now: BootNanos) -> bool {
        let due = self.logged.is_none_or(|then| now.0.saturating_sub(then.0) >= NAME_EVERY);
        if due {
            self.logged = Some(now);
        }
        due
    }
}

/// 1, 10, 100 …
fn is_round(n: u64) -> bool {
    n.checked_ilog10().is_some_and(|digits| 10u64.pow(digits) == n)
}

/// Of a text that someone else may have written: its beginning, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(MAX_TOLD_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
