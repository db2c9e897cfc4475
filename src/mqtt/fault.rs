//! What ends a connection, in words that say what to do.
//!
//! What enters: the facts of an end, as `judge` finds them. What leaves: [`LinkFault`], a sentence for the log and for
//! `status`, which never holds a byte of a key or a password.

use crate::clock::UtcNanos;
use crate::clock::civil::iso8601;
use crate::fault::{Exit, Fault, Verdict};
use std::fmt;
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
    /// The broker has no room for us now (CONNACK 3).
    Busy,
    /// The broker refuses for another reason.
    Refused {
        /// Its words.
        cause: String,
    },
    /// We speak TLS, the port does not.
    NotTls,
    /// We do not speak TLS, and what answers is no MQTT broker either.
    NotMqtt,
    /// Nobody in `ca` vouches for the broker's certificate.
    WrongCa {
        /// Who issued what it presented.
        issuer: String,
        /// The file.
        ca: PathBuf,
        /// The names in it.
        authorities: String,
    },
    /// The broker's certificate is for other names.
    WrongName {
        /// As configured.
        host: String,
        /// What it is for.
        names: String,
    },
    /// The broker's certificate has run out.
    Expired {
        /// Its last moment.
        until: UtcNanos,
        /// The wall clock.
        now: UtcNanos,
        /// Whether the system vouches for it.
        trusted: bool,
    },
    /// The broker's certificate begins in the future, by a clock that is believed.
    NotYetValid {
        /// Its first moment.
        from: UtcNanos,
        /// The wall clock.
        now: UtcNanos,
    },
    /// No certificate can be checked before the clock is set; this rights itself.
    ClockUnset {
        /// The first moment of the broker's certificate.
        from: UtcNanos,
        /// The wall clock.
        now: UtcNanos,
    },
    /// The broker asks for a certificate, or does not take ours.
    ClientCertificate {
        /// Whether we gave one.
        given: bool,
        /// The alert.
        cause: String,
    },
    /// The broker does not speak the protocol that `alpn` asks for.
    Alpn {
        /// Which.
        asked: String,
    },
    /// The TLS handshake failed for another reason.
    Tls {
        /// rustls' words.
        cause: String,
    },
    /// The broker refuses a subscription.
    Subscription {
        /// To what.
        filter: String,
    },
    /// The broker closed one connection after another, and took the next at once.
    Evicted {
        /// How often.
        times: u32,
    },
    /// The broker closed one connection after another at a large publish.
    TooLarge {
        /// Its payload, in bytes.
        bytes: usize,
        /// The largest that the broker has taken.
        taken: usize,
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
            Self::Busy => {
                write!(
                    f,
                    "the broker is up and has no room for this client now; it is asked again later, look into its log"
                )
            }
            Self::Refused { cause } => write!(f, "the broker refuses the connection: {cause}; its log should say why"),
            Self::NotTls => write!(
                f,
                "what answers on that port does not speak TLS: write the broker's port for it (usually 8883), or mqtt:// if it has none; where it shares port 443, set alpn"
            ),
            Self::NotMqtt => write!(
                f,
                "what answers on that port speaks TLS, or no MQTT: write mqtts:// with ca, or the broker's plain port (usually 1883)"
            ),
            Self::WrongCa { issuer, ca, authorities } => write!(
                f,
                "the broker's certificate was issued by {issuer}, but {} holds {authorities}: put the broker's authority there; if nobody knows that issuer, find out who answers at this address",
                ca.display()
            ),
            Self::WrongName { host, names } => write!(
                f,
                "the broker's certificate is not for {host} but for {names}: write that name in `broker`, or give the broker a certificate with subjectAltName {host}"
            ),
            Self::Expired { until, now, trusted } => {
                write!(f, "the broker's certificate ended {}, and it is {}", iso8601(*until), iso8601(*now))?;
                match trusted {
                    true => write!(f, ": renew it"),
                    false => write!(f, " by a clock that nothing vouches for: set the clock, or renew the certificate"),
                }
            }
            Self::NotYetValid { from, now } => write!(
                f,
                "the broker's certificate begins {}, and it is {}: check the clock where it was made, and this one",
                iso8601(*from),
                iso8601(*now)
            ),
            Self::ClockUnset { from, now } => write!(
                f,
                "this machine's clock says {} and is not set yet, so the broker's certificate, which begins {}, cannot be checked: this rights itself once the time is known; if it stays, check NTP or the RTC",
                iso8601(*now),
                iso8601(*from)
            ),
            Self::ClientCertificate { given: false, cause } => {
                write!(f, "the broker asks for a client certificate ({cause}): set cert and key")
            }
            Self::ClientCertificate { given: true, cause } => write!(
                f,
                "the broker does not take this client's certificate ({cause}): check that cert is of an authority that the broker trusts, has not ended, and is valid by the broker's clock"
            ),
            Self::Alpn { asked } => write!(
                f,
                "the broker does not speak {asked} on this port: correct alpn, or leave it out (AWS IoT on 443: x-amzn-mqtt-ca with a certificate, mqtt with a login)"
            ),
            Self::Tls { cause } => {
                write!(f, "TLS: {cause}; check ca, the broker's certificate and name, and this machine's clock")
            }
            Self::Subscription { filter } => write!(
                f,
                "the broker refuses the subscription to {filter}: allow this client to read it in the broker's ACL"
            ),
            Self::Evicted { times } => write!(
                f,
                "the broker closed {times} connections and took the next one each time: most often another client has the same id (a cloned card, a second receiver), or the broker's ACL forbids what is published; give each device its own name and look into the broker's log"
            ),
            Self::TooLarge { bytes, taken, times } => write!(
                f,
                "the broker closed {times} connections in a row at a payload of {bytes} bytes, the largest that it has taken is {taken}: lower max_payload below its limit, or raise that (mosquitto: max_packet_size)"
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
