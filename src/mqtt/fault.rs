//! What ends a connection, in words that say what to do.
//!
//! What enters: rumqttc's errors, and how long the connection stood. What leaves: a [`LinkFault`].

use crate::fault::{Exit, Fault, Verdict};
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFault {
    /// A file that the settings name.
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The settings ask for TLS; this build has none.
    NoTls,
    /// An IPv6 address together with TLS.
    Address {
        /// As given.
        host: String,
    },
    /// Nobody answers at that address.
    Unreachable {
        /// The system's words.
        cause: String,
    },
    /// Connecting, or sending a packet, took too long.
    Timeout,
    /// The broker refuses name, password or certificate.
    Credentials,
    /// The broker refuses for another reason.
    Refused {
        /// Its words.
        cause: String,
    },
    /// The TLS handshake failed.
    Tls {
        /// rustls' words.
        cause: String,
    },
    /// The broker refuses a subscription.
    Subscription {
        /// To what.
        filter: String,
    },
    /// The broker closed one connection after another within seconds.
    Evicted {
        /// How often in a row.
        times: u32,
    },
    /// The connection broke.
    Broken {
        /// After how long.
        after: Duration,
        /// In what words.
        cause: String,
    },
    /// No answer to a ping.
    Silent,
    /// What arrived is not MQTT, or larger than allowed.
    Protocol {
        /// rumqttc's words.
        cause: String,
    },
    /// Our own side did not take in what arrived.
    Slow,
    /// We were asked to stop.
    Stopped,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, cause } => {
                write!(f, "{}: {cause}; put the file right, it is read again at the next attempt", path.display())
            }
            Self::NoTls => write!(f, "this build has no TLS: use mqtt://, or build with the feature `tls`"),
            Self::Address { host } => write!(
                f,
                "{host}: TLS needs a name here, since an IPv6 address cannot be checked against a certificate; give the broker a name"
            ),
            Self::Unreachable { cause } => {
                write!(f, "the broker cannot be reached: {cause}; check its address, the network and its firewall")
            }
            Self::Timeout => write!(f, "the broker took too long to answer or to take data; check the link"),
            Self::Credentials => write!(
                f,
                "the broker refuses this client: check username, password_file, cert and key, and the broker's list of users"
            ),
            Self::Refused { cause } => write!(f, "the broker refuses the connection: {cause}; its log should say why"),
            Self::Tls { cause } => {
                write!(f, "TLS: {cause}; check ca, the broker's certificate and name, and this machine's clock")
            }
            Self::Subscription { filter } => write!(
                f,
                "the broker refuses the subscription to {filter}: allow this client to read it in the broker's ACL"
            ),
            Self::Evicted { times } => write!(
                f,
                "the broker closed {times} connections in a row within seconds: most often another client uses the same id (a cloned card?), or the ACL or a payload limit of the broker forbids what is published; give each device its own name and look into the broker's log"
            ),
            Self::Broken { after, cause } => {
                write!(f, "the connection broke after {} s: {cause}; it is being made again", after.as_secs())
            }
            Self::Silent => write!(f, "the broker stopped answering; the connection is being made again"),
            Self::Protocol { cause } => write!(
                f,
                "what the broker sent cannot be taken: {cause}; check that it is an MQTT 3.1.1 broker and its payload limit"
            ),
            Self::Slow => write!(
                f,
                "received messages were not taken in for too long; the connection is made again so that the broker repeats them"
            ),
            Self::Stopped => write!(f, "stopped"),
        }
    }
}

impl std::error::Error for LinkFault {}

impl Fault for LinkFault {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoTls | Self::Address { .. } => Verdict::Halt,
            _ => Verdict::Retry,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::File { .. } | Self::NoTls | Self::Address { .. } => Exit::Config,
            _ => Exit::Unavailable,
        }
    }
}

/// Below this a connection counts as short-lived.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// So many short-lived connections in a row are no accident.
const EVICTIONS: u32 = 3;

/// Tells apart what single errors do not: one closed connection is the network, several in a row are somebody.
#[derive(Debug, Default)]
pub(super) struct Judge {
    short: u32,
}

impl Judge {
    /// The fault that `error` is, for a connection that stood for `stood` (`None`: it never did).
    pub(super) fn judge(&mut self, error: ConnectionError, stood: Option<Duration>) -> LinkFault {
        let closed_by_peer = stood.is_some_and(|stood| stood < SHORT) && is_closing(&error);
        self.short = if closed_by_peer { self.short + 1 } else { 0 };
        if self.short >= EVICTIONS {
            return LinkFault::Evicted { times: self.short };
        }
        match stood {
            None => not_made(error),
            Some(after) => broken(error, after),
        }
    }
}

fn is_closing(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        ConnectionError::MqttState(StateError::Io(e)) | ConnectionError::Io(e) => is_reset(e),
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::Error::Io(e))) => is_reset(e),
        _ => false,
    }
}

fn is_reset(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

fn not_made(error: ConnectionError) -> LinkFault {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => LinkFault::Credentials,
        ConnectionError::ConnectionRefused(code) => LinkFault::Refused { cause: format!("{code:?}") },
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => LinkFault::Timeout,
        #[cfg(feature = "tls")]
        ConnectionError::Tls(e) => LinkFault::Tls { cause: tls_words(&e) },
        ConnectionError::Io(e) => LinkFault::Unreachable { cause: e.to_string() },
        ConnectionError::MqttState(StateError::ConnectionAborted) => LinkFault::Refused {
            cause: "it closed the connection instead of answering (does it expect TLS here, or not?)".into(),
        },
        ConnectionError::NotConnAck(_) => LinkFault::Protocol { cause: "no CONNACK came first".into() },
        other => LinkFault::Protocol { cause: other.to_string() },
    }
}

fn broken(error: ConnectionError, after: Duration) -> LinkFault {
    match error {
        ConnectionError::FlushTimeout | ConnectionError::NetworkTimeout => LinkFault::Timeout,
        ConnectionError::MqttState(StateError::AwaitPingResp) => LinkFault::Silent,
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            LinkFault::Broken { after, cause: "the broker closed it".into() }
        }
        ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(rumqttc::Error::Io(e)))
        | ConnectionError::Io(e) => LinkFault::Broken { after, cause: e.to_string() },
        other => LinkFault::Protocol { cause: other.to_string() },
    }
}

/// The cause rather than its wrapping: rustls' own error sits inside an I/O error.
#[cfg(feature = "tls")]
fn tls_words(error: &rumqttc::TlsError) -> String {
    match error {
        rumqttc::TlsError::Io(e) => e.to_string(),
        rumqttc::TlsError::DNSName(_) => "the broker's address is no valid name".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> ConnectionError {
        ConnectionError::MqttState(StateError::ConnectionAborted)
    }

    /// Two clients with one id: each closing looks like the network; the third in a row is named.
    #[test]
    fn repeated_short_connections_are_named() {
        let mut judge = Judge::default();
        let short = Some(Duration::from_millis(300));
        assert!(matches!(judge.judge(closed(), short), LinkFault::Broken { .. }));
        assert!(matches!(judge.judge(closed(), short), LinkFault::Broken { .. }));
        assert_eq!(judge.judge(closed(), short), LinkFault::Evicted { times: 3 });
        assert!(matches!(judge.judge(closed(), Some(Duration::from_secs(60))), LinkFault::Broken { .. }));
        assert!(matches!(judge.judge(closed(), short), LinkFault::Broken { .. }), "the count begins anew");
    }

    /// Each cause has words of its own, and each ends with something to do.
    #[test]
    fn causes_are_told_apart() {
        let judge = |error| Judge::default().judge(error, None);
        let refused = |code| judge(ConnectionError::ConnectionRefused(code));
        assert_eq!(refused(ConnectReturnCode::NotAuthorized), LinkFault::Credentials);
        assert!(matches!(refused(ConnectReturnCode::ServiceUnavailable), LinkFault::Refused { .. }));
        let io = std::io::Error::from(ErrorKind::ConnectionRefused);
        assert!(matches!(judge(ConnectionError::Io(io)), LinkFault::Unreachable { .. }));
        assert_eq!(judge(ConnectionError::NetworkTimeout), LinkFault::Timeout);
        let silent = ConnectionError::MqttState(StateError::AwaitPingResp);
        assert_eq!(Judge::default().judge(silent, Some(SHORT)), LinkFault::Silent);
    }
}
