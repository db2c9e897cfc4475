//! What an end of a connection means: rumqttc's errors in, [`LinkFault`] out.
//!
//! What enters: the error, how long the connection stood, what it carried, when. What leaves: the fault. Pure. Some faults
//! show only over several connections, as one closed connection is the network and several in a row are somebody.

use super::LinkFault;
use crate::clock::Now;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

/// Below this a connection counts as short-lived.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// So many short-lived connections in a row, or closings at a large publish, are no accident.
const IN_A_ROW: u32 = 3;

/// So many closings within [`CONTEST`] are no accident either, however long the connections stood: two clients of one id
/// that both back off take turns of up to two minutes.
const CLOSINGS: usize = 5;

/// How long a closing is remembered; and how long a connection must stand after a contest for it to be over.
pub(super) const CONTEST: Duration = Duration::from_secs(15 * 60);

/// No broker's limit is below this: it is the least that `max_payload` may be.
const LARGE_BYTES: usize = 4 * 1024;

/// What is known of an attempt when it fails.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only certificates are for names"))]
    host: String,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Trial>,
}

impl Trial {
    pub(super) fn plain(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// How long it stood; `None`: it never did.
    pub(super) stood: Option<Duration>,
    /// When, since the client was started.
    pub(super) at: Duration,
    /// The largest payload that the broker had not acknowledged, in bytes; 0 for none.
    pub(super) unanswered: usize,
    /// The largest that it had, in bytes.
    pub(super) taken: usize,
}

/// Remembers ends.
#[derive(Debug, Default)]
pub(super) struct Judge {
    short: u32,
    closings: VecDeque<Duration>,
    /// Closings in a row at a payload larger than any that was taken, and the smallest such payload.
    stuck: u32,
    stuck_bytes: usize,
    taken: usize,
}

impl Judge {
    /// The fault that `error` is; `now` is the wall clock.
    pub(super) fn judge(&mut self, error: ConnectionError, end: End, trial: &Trial, now: Now) -> LinkFault {
        self.taken = self.taken.max(end.taken);
        let Some(stood) = end.stood else {
            *self = Self { taken: self.taken, ..Self::default() };
            return not_made(error, trial, now);
        };
        if !is_closing(&error) {
            (self.short, self.stuck) = (0, 0);
            return broken(error, stood, trial, now);
        }
        self.count(end, stood);
        if self.stuck >= IN_A_ROW {
            return LinkFault::TooLarge { bytes: self.stuck_bytes, taken: self.taken, times: self.stuck };
        }
        let times = self.short.max(u32::try_from(self.closings.len()).unwrap_or(u32::MAX));
        if self.short >= IN_A_ROW || self.closings.len() >= CLOSINGS {
            return LinkFault::Evicted { times };
        }
        broken(error, stood, trial, now)
    }

    fn count(&mut self, end: End, stood: Duration) {
        self.short = if stood < SHORT { self.short + 1 } else { 0 };
        self.closings.retain(|at| end.at.saturating_sub(*at) < CONTEST);
        self.closings.truncate(4 * CLOSINGS);
        self.closings.push_front(end.at);
        if end.unanswered > self.taken.max(LARGE_BYTES) {
            self.stuck_bytes = if self.stuck == 0 { end.unanswered } else { self.stuck_bytes.min(end.unanswered) };
            self.stuck += 1;
        } else {
            self.stuck = 0;
        }
    }
}

/// The I/O error inside, wherever rumqttc put it.
fn io_error(error: &ConnectionError) -> Option<&std::io::Error> {
    match error {
        ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(rumqttc::Error::Io(e))) => Some(e),
        #[cfg(feature = "tls")]
        ConnectionError::Tls(rumqttc::TlsError::Io(e)) => Some(e),
        _ => None,
    }
}

fn is_closing(error: &ConnectionError) -> bool {
    let reset = |e: &std::io::Error| {
        matches!(
            e.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        )
    };
    matches!(error, ConnectionError::MqttState(StateError::ConnectionAborted)) || io_error(error).is_some_and(reset)
}

/// What TLS itself says, in the handshake or as the first answer after it: a TLS 1.3 broker refuses our certificate when
/// for us the handshake is over.
#[cfg(feature = "tls")]
fn of_tls(error: &ConnectionError, trial: &Trial, now: Now) -> Option<LinkFault> {
    let tls = trial.tls.as_ref()?;
    let told = io_error(error).and_then(|e| super::tls::told(e, tls, &trial.host, now));
    match error {
        ConnectionError::Tls(rumqttc::TlsError::Io(e)) => Some(told.unwrap_or_else(|| super::tls::left(e, tls))),
        ConnectionError::Tls(rumqttc::TlsError::DNSName(_)) => {
            Some(LinkFault::Tls { cause: "the broker's address is no valid name".into() })
        }
        ConnectionError::Tls(other) => Some(LinkFault::Tls { cause: other.to_string() }),
        _ => told,
    }
}

#[cfg(not(feature = "tls"))]
fn of_tls(_: &ConnectionError, _: &Trial, _: Now) -> Option<LinkFault> {
    None
}

fn not_made(error: ConnectionError, trial: &Trial, now: Now) -> LinkFault {
    if let Some(fault) = of_tls(&error, trial, now) {
        return fault;
    }
    match error {
        ConnectionError::ConnectionRefused(code) => refused(code),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => LinkFault::Timeout,
        ConnectionError::Io(e) => LinkFault::Unreachable { cause: e.to_string() },
        other if is_closing(&other) => hung_up(trial),
        // The first bytes of a TLS alert, or of any other protocol.
        ConnectionError::MqttState(StateError::Deserialization(_)) | ConnectionError::NotConnAck(_) => {
            LinkFault::NotMqtt
        }
        other => LinkFault::Protocol { cause: other.to_string() },
    }
}

fn refused(code: ConnectReturnCode) -> LinkFault {
    let because = |cause: &str| LinkFault::Refused { cause: cause.into() };
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => LinkFault::Credentials,
        ConnectReturnCode::ServiceUnavailable => LinkFault::Busy,
        ConnectReturnCode::BadClientId => because("it does not allow the client id, which is the device's name"),
        ConnectReturnCode::RefusedProtocolVersion => because("it does not speak MQTT 3.1.1"),
        ConnectReturnCode::Success => because("it says success and means something else"),
    }
}

/// Closed instead of a CONNACK.
#[cfg(feature = "tls")]
fn hung_up(trial: &Trial) -> LinkFault {
    let cause = "it closed the connection after the TLS handshake, instead of answering; it may want another \
                 certificate, login or alpn";
    if trial.tls.is_some() { LinkFault::Refused { cause: cause.into() } } else { LinkFault::NotMqtt }
}

#[cfg(not(feature = "tls"))]
fn hung_up(_: &Trial) -> LinkFault {
    LinkFault::NotMqtt
}

fn broken(error: ConnectionError, after: Duration, trial: &Trial, now: Now) -> LinkFault {
    if let Some(fault) = of_tls(&error, trial, now) {
        return fault;
    }
    if let Some(e) = io_error(&error) {
        return LinkFault::Broken { after, cause: e.to_string() };
    }
    match error {
        ConnectionError::FlushTimeout | ConnectionError::NetworkTimeout => LinkFault::Timeout,
        ConnectionError::MqttState(StateError::AwaitPingResp) => LinkFault::Silent,
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            LinkFault::Broken { after, cause: "the broker closed it".into() }
        }
        other => LinkFault::Protocol { cause: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootNanos, UtcNanos};

    const NOW: Now = Now { boot: BootNanos(0), utc: UtcNanos(0), trusted: false };

    fn closed() -> ConnectionError {
        ConnectionError::MqttState(StateError::ConnectionAborted)
    }

    /// The end of a connection that stood for `stood_s`, at `at_s`, and carried nothing.
    fn end(stood_s: u64, at_s: u64) -> End {
        let s = Duration::from_secs;
        End { stood: Some(s(stood_s)), at: s(at_s), unanswered: 0, taken: 0 }
    }

    fn told(judge: &mut Judge, end: End) -> LinkFault {
        judge.judge(closed(), end, &Trial::plain("broker"), NOW)
    }

    fn refusal(error: ConnectionError) -> LinkFault {
        Judge::default().judge(error, End { stood: None, ..end(0, 0) }, &Trial::plain("broker"), NOW)
    }

    /// Two clients with one id: each closing looks like the network; the third short one in a row is named.
    #[test]
    fn repeated_short_connections_are_named() {
        let mut judge = Judge::default();
        assert!(matches!(told(&mut judge, end(0, 1)), LinkFault::Broken { .. }));
        assert!(matches!(told(&mut judge, end(0, 2)), LinkFault::Broken { .. }));
        assert_eq!(told(&mut judge, end(0, 3)), LinkFault::Evicted { times: 3 });
        assert!(matches!(told(&mut judge, end(3600, 3700)), LinkFault::Broken { .. }));
        assert!(matches!(told(&mut judge, end(0, 3701)), LinkFault::Broken { .. }), "the count begins anew");
    }

    /// Two clients that back off take turns of minutes; the fifth closing within a quarter of an hour is named. The same
    /// number over a day is the network.
    #[test]
    fn a_contest_in_long_turns_is_named_and_a_bad_day_is_not() {
        let mut judge = Judge::default();
        let turns: Vec<LinkFault> = (1..=6).map(|n| told(&mut judge, end(90, n * 100))).collect();
        assert!(turns[..4].iter().all(|fault| matches!(fault, LinkFault::Broken { .. })), "{turns:?}");
        assert_eq!(turns[4..], [LinkFault::Evicted { times: 5 }, LinkFault::Evicted { times: 6 }]);
        let mut judge = Judge::default();
        for hour in 1..24 {
            assert!(matches!(told(&mut judge, end(3000, hour * 3600)), LinkFault::Broken { .. }));
        }
    }

    /// A broker that is away in between is no contest.
    #[test]
    fn a_broker_that_was_gone_is_no_contest() {
        let mut judge = Judge::default();
        for n in 1..20 {
            assert!(matches!(told(&mut judge, end(20, n * 30)), LinkFault::Broken { .. }));
            let io = ConnectionError::Io(ErrorKind::ConnectionRefused.into());
            judge.judge(io, End { stood: None, ..end(0, n * 30 + 1) }, &Trial::plain("broker"), NOW);
        }
    }

    /// Closed three times at a payload larger than any that was taken: that payload is named, with the largest taken. Where
    /// one as large was taken, it is not the size.
    #[test]
    fn a_payload_that_is_never_taken_is_named() {
        let carrying = |unanswered, taken, at| End { unanswered, taken, ..end(1, at) };
        let mut judge = Judge::default();
        told(&mut judge, carrying(120_000, 900, 1));
        told(&mut judge, carrying(90_000, 60_000, 2));
        let third = told(&mut judge, carrying(120_000, 0, 3));
        assert_eq!(third, LinkFault::TooLarge { bytes: 90_000, taken: 60_000, times: 3 });
        assert!(third.to_string().contains("max_payload"));
        let mut judge = Judge::default();
        let faults: Vec<_> = (1..=3).map(|at| told(&mut judge, carrying(120_000, 120_000, at))).collect();
        assert_eq!(faults[2], LinkFault::Evicted { times: 3 });
    }

    /// Each cause has words of its own, and each ends with something to do.
    #[test]
    fn causes_are_told_apart() {
        let code = |code| refusal(ConnectionError::ConnectionRefused(code));
        assert_eq!(code(ConnectReturnCode::NotAuthorized), LinkFault::Credentials);
        assert_eq!(code(ConnectReturnCode::ServiceUnavailable), LinkFault::Busy);
        assert!(code(ConnectReturnCode::BadClientId).to_string().contains("the device's name"));
        let io = std::io::Error::from(ErrorKind::ConnectionRefused);
        assert!(matches!(refusal(ConnectionError::Io(io)), LinkFault::Unreachable { .. }));
        assert_eq!(refusal(ConnectionError::NetworkTimeout), LinkFault::Timeout);
        assert_eq!(refusal(closed()), LinkFault::NotMqtt);
        let silent = ConnectionError::MqttState(StateError::AwaitPingResp);
        let trial = Trial::plain("broker");
        assert_eq!(Judge::default().judge(silent, end(60, 60), &trial, NOW), LinkFault::Silent);
    }
}
