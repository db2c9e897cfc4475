//! Whether a device is there: births and last wills in the order of the device's sessions, not of their arrival.
//!
//! What enters: the session facts of `state` messages. What leaves: which of them count. Pure. Brokers deliver a will late,
//! deliver the will of a newer connection when an older one ends, and repeat retained births; what can be told apart by
//! session is told apart here, the rest heals with the next `state`. Sessions that take turns are two devices of one name.

use crate::clock::UtcNanos;
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
    /// When its last state was made, by the device's clock.
    said: UtcNanos,
    /// Earlier sessions, and when the last state of each was made.
    former: VecDeque<(u64, UtcNanos)>,
    returns: u32,
}

/// The session facts of one `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Whether it is a birth, or news of a session that is up; else a will or a farewell.
    pub online: bool,
    /// The session's random number.
    pub session: u64,
    /// Its run number.
    pub run: u64,
    /// When it was made, by the device's clock; a will has no time.
    pub utc: UtcNanos,
}

/// What a `state` message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A session begins.
    Born,
    /// The session goes on; what it says is newer than what was known.
    Still,
    /// A session that another one had taken the place of speaks anew, for the `times`th time in this contest: once may be a
    /// broker that mixed up two messages, again and again it is a second device of this name.
    Returned {
        /// How often.
        times: u32,
    },
    /// The session ended.
    Gone,
    /// Of an earlier session: nothing in it counts.
    Stale,
}

impl Presence {
    /// What was known before a restart of the receiver; `said` is when the session's last state was made, `former` as
    /// [`Presence::former`] gave it.
    pub fn known(online: bool, session: Option<u64>, run: u64, said: UtcNanos, former: &[(u64, UtcNanos)]) -> Self {
        Self { online, session, run, said, former: former.iter().copied().collect(), returns: 0 }
    }

    /// Sessions that are over, the oldest first, and when the last state of each was made.
    pub fn former(&self) -> impl Iterator<Item = (u64, UtcNanos)> + '_ {
        self.former.iter().copied()
    }

    /// Takes in one `state`.
    pub fn hear(&mut self, said: Said) -> Heard {
        if said.online { self.birth(said) } else { self.will(said) }
    }

    /// A birth of a session not known to be over is the newest, also with a lower run: a file restored from a copy counts
    /// its runs anew. One that is over and says something new is not over; one that repeats itself is a late delivery.
    fn birth(&mut self, said: Said) -> Heard {
        let former = self.former.iter().position(|(session, _)| *session == said.session);
        let heard = match former {
            Some(at) if self.former[at].1 == said.utc => return Heard::Stale,
            Some(at) => {
                self.former.remove(at);
                self.returns = self.returns.saturating_add(1);
                Heard::Returned { times: self.returns }
            }
            None if self.session == Some(said.session) => Heard::Still,
            None => {
                self.returns = 0;
                Heard::Born
            }
        };
        self.begin(said);
        self.said = said.utc;
        self.online = true;
        heard
    }

    /// A will counts for the session that is known, or for one whose birth was missed: it then has a higher run.
    fn will(&mut self, said: Said) -> Heard {
        let missed = self.session.is_none() || said.run > self.run;
        let over = self.former.iter().any(|(session, _)| *session == said.session);
        if self.session != Some(said.session) && (!missed || over) {
            return Heard::Stale;
        }
        self.begin(said);
        self.online = false;
        Heard::Gone
    }

    fn begin(&mut self, said: Said) {
        if let Some(former) = self.session.filter(|former| *former != said.session) {
            self.former.push_back((former, self.said));
            self.said = UtcNanos(0);
            if self.former.len() > FORMER_SESSIONS {
                self.former.pop_front();
            }
        }
        self.session = Some(said.session);
        self.run = said.run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn birth(session: u64, run: u64, utc: i64) -> Said {
        Said { online: true, session, run, utc: UtcNanos(utc) }
    }

    fn will(session: u64, run: u64) -> Said {
        Said { online: false, session, run, utc: UtcNanos(0) }
    }

    /// A will that arrives after the next birth does not take the device offline.
    #[test]
    fn a_late_will_never_overrides_a_newer_birth() {
        let mut presence = Presence::default();
        assert_eq!(presence.hear(birth(100, 1, 1)), Heard::Born);
        assert_eq!(presence.hear(birth(200, 2, 1)), Heard::Born);
        assert_eq!(presence.hear(will(100, 1)), Heard::Stale);
        assert!(presence.online);
        assert_eq!(presence.hear(will(200, 2)), Heard::Gone);
        assert!(!presence.online);
    }

    /// A birth that is delivered again after its session ended changes nothing, be it of a lower run or not.
    #[test]
    fn a_repeated_birth_of_an_ended_session_is_stale() {
        let mut presence = Presence::default();
        presence.hear(birth(100, 1, 1));
        presence.hear(birth(200, 2, 1));
        assert_eq!(presence.hear(birth(100, 1, 1)), Heard::Stale);
        assert_eq!((presence.session, presence.run), (Some(200), 2));
    }

    /// A device that was restored from a copy counts its runs from an earlier one; it is there all the same.
    #[test]
    fn a_restored_device_with_a_lower_run_is_heard() {
        let mut presence = Presence::default();
        presence.hear(birth(100, 40, 1));
        assert_eq!(presence.hear(birth(300, 7, 1)), Heard::Born);
        assert_eq!(presence.hear(will(100, 40)), Heard::Stale, "the will of the session before");
        assert!(presence.online);
    }

    /// The birth was missed and the will is all there is: a higher run is newer, a lower one is not.
    #[test]
    fn a_will_without_its_birth_counts_by_run() {
        let mut presence = Presence::known(true, Some(100), 5, UtcNanos(1), &[]);
        assert_eq!(presence.hear(will(99, 4)), Heard::Stale);
        assert_eq!(presence.hear(will(101, 6)), Heard::Gone);
        assert!(!presence.online);
        assert_eq!(Presence::default().hear(will(1, 1)), Heard::Gone);
    }

    /// The same session goes on after its own will was delivered too early, as rumqttd may do.
    #[test]
    fn a_session_that_goes_on_after_its_will_is_back() {
        let mut presence = Presence::default();
        presence.hear(birth(100, 1, 1));
        presence.hear(will(100, 1));
        assert_eq!(presence.hear(birth(100, 1, 1)), Heard::Still);
        assert!(presence.online);
    }

    /// The receiver is started anew between a birth and the late will of the session before it, and between a will and the
    /// birth that comes after it.
    #[test]
    fn a_restart_of_the_receiver_changes_nothing() {
        let restarted = |before: &Presence| {
            let former: Vec<_> = before.former().collect();
            Presence::known(before.online, before.session, before.run, before.said, &former)
        };
        let mut presence = Presence::default();
        presence.hear(birth(100, 1, 1));
        presence.hear(birth(200, 2, 2));
        presence = restarted(&presence);
        assert_eq!(presence.hear(will(100, 1)), Heard::Stale);
        assert!(presence.online);
        presence.hear(will(200, 2));
        presence = restarted(&presence);
        assert_eq!(presence.hear(birth(300, 3, 3)), Heard::Born);
        assert!(presence.online);
        // A file that was put back to a copy counts its runs anew.
        presence.hear(birth(400, 2, 4));
        presence = restarted(&presence);
        assert_eq!(presence.hear(will(300, 3)), Heard::Stale, "of a higher run, and over");
        assert!(presence.online);
    }

    /// A receiver that has lost its roster does not know which sessions are over: a late will with a higher run, from before
    /// the device was restored from a copy, is believed, and the device's next state puts it right.
    #[test]
    fn what_a_late_will_took_away_comes_back_with_the_next_state() {
        let mut presence = Presence::known(true, Some(300), 7, UtcNanos(5), &[]);
        assert_eq!(presence.hear(will(100, 40)), Heard::Gone);
        assert_eq!(presence.hear(birth(300, 7, 6)), Heard::Returned { times: 1 });
        assert!(presence.online);
    }

    /// Two devices of one name take turns: each turn is counted. A device that is started again and again is no contest, nor
    /// are its old births, delivered again.
    #[test]
    fn two_devices_that_take_turns_are_counted() {
        let mut presence = Presence::default();
        presence.hear(birth(100, 4, 1));
        assert_eq!(presence.hear(birth(200, 9, 1)), Heard::Born);
        let turns: Vec<Heard> = (2..6).map(|utc| presence.hear(birth(100 + 100 * (utc % 2), 4, utc as i64))).collect();
        assert_eq!(turns, [1, 2, 3, 4].map(|times| Heard::Returned { times }));
        let mut presence = Presence::default();
        for run in 1..20 {
            assert_eq!(presence.hear(birth(run * 10, run, run as i64)), Heard::Born);
            if run > 1 {
                assert_eq!(presence.hear(birth(run * 10 - 10, run - 1, run as i64 - 1)), Heard::Stale);
            }
        }
    }
}
