//! Whether a device is there: births and last wills in the order of the device's sessions, not of their arrival.
//!
//! What enters: the session facts of `state` messages. What leaves: which of them count. Pure. Brokers deliver a will late,
//! deliver the will of a newer connection when an older one ends, and repeat retained births; what can be told apart by
//! session is told apart here, the rest heals with the next `state`.

use std::collections::VecDeque;

/// Sessions that are over, remembered so that a late birth of one is not taken for a new one.
const FORMER_SESSIONS: usize = 8;

/// What is known of a device's session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presence {
    /// Whether the latest session is up.
    pub online: bool,
    /// Its random number; `None` before anything was heard.
    pub session: Option<u64>,
    /// Its run number.
    pub run: u64,
    former: VecDeque<u64>,
}

/// What a `state` message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A session begins.
    Born,
    /// The session goes on; what it says is newer than what was known.
    Still,
    /// The session ended.
    Gone,
    /// Of an earlier session: nothing in it counts.
    Stale,
}

impl Presence {
    /// What was known before a restart of the receiver.
    pub fn known(online: bool, session: Option<u64>, run: u64) -> Self {
        Self { online, session, run, former: VecDeque::new() }
    }

    /// Takes in one `state`: its `online`, `session` and `run`.
    pub fn hear(&mut self, online: bool, session: u64, run: u64) -> Heard {
        if online { self.birth(session, run) } else { self.will(session, run) }
    }

    /// A birth of a session not known to be over is the newest, also with a lower run: a file restored from a copy counts
    /// its runs anew.
    fn birth(&mut self, session: u64, run: u64) -> Heard {
        if self.former.contains(&session) {
            return Heard::Stale;
        }
        let heard = if self.session == Some(session) { Heard::Still } else { Heard::Born };
        self.begin(session, run);
        self.online = true;
        heard
    }

    /// A will counts for the session that is known, or for one whose birth was missed: it then has a higher run.
    fn will(&mut self, session: u64, run: u64) -> Heard {
        let missed = self.session.is_none() || run > self.run;
        if self.session != Some(session) && (!missed || self.former.contains(&session)) {
            return Heard::Stale;
        }
        self.begin(session, run);
        self.online = false;
        Heard::Gone
    }

    fn begin(&mut self, session: u64, run: u64) {
        if let Some(former) = self.session.filter(|former| *former != session) {
            self.former.push_back(former);
            if self.former.len() > FORMER_SESSIONS {
                self.former.pop_front();
            }
        }
        self.session = Some(session);
        self.run = run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A will that arrives after the next birth does not take the device offline.
    #[test]
    fn a_late_will_never_overrides_a_newer_birth() {
        let mut presence = Presence::default();
        assert_eq!(presence.hear(true, 100, 1), Heard::Born);
        assert_eq!(presence.hear(true, 200, 2), Heard::Born);
        assert_eq!(presence.hear(false, 100, 1), Heard::Stale);
        assert!(presence.online);
        assert_eq!(presence.hear(false, 200, 2), Heard::Gone);
        assert!(!presence.online);
    }

    /// A birth that is delivered again after its session ended changes nothing, be it of a lower run or not.
    #[test]
    fn a_repeated_birth_of_an_ended_session_is_stale() {
        let mut presence = Presence::default();
        presence.hear(true, 100, 1);
        presence.hear(true, 200, 2);
        assert_eq!(presence.hear(true, 100, 1), Heard::Stale);
        assert_eq!((presence.session, presence.run), (Some(200), 2));
    }

    /// A device that was restored from a copy counts its runs from an earlier one; it is there all the same.
    #[test]
    fn a_restored_device_with_a_lower_run_is_heard() {
        let mut presence = Presence::default();
        presence.hear(true, 100, 40);
        assert_eq!(presence.hear(true, 300, 7), Heard::Born);
        assert_eq!(presence.hear(false, 100, 40), Heard::Stale, "the will of the session before");
        assert!(presence.online);
    }

    /// The birth was missed and the will is all there is: a higher run is newer, a lower one is not.
    #[test]
    fn a_will_without_its_birth_counts_by_run() {
        let mut presence = Presence::known(true, Some(100), 5);
        assert_eq!(presence.hear(false, 99, 4), Heard::Stale);
        assert_eq!(presence.hear(false, 101, 6), Heard::Gone);
        assert!(!presence.online);
        assert_eq!(Presence::default().hear(false, 1, 1), Heard::Gone);
    }

    /// The same session goes on after its own will was delivered too early, as rumqttd may do.
    #[test]
    fn a_session_that_goes_on_after_its_will_is_back() {
        let mut presence = Presence::default();
        presence.hear(true, 100, 1);
        presence.hear(false, 100, 1);
        assert_eq!(presence.hear(true, 100, 1), Heard::Still);
        assert!(presence.online);
    }
}
