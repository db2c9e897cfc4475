//! What a connection is made with. Files are read at every attempt, so that a renewed certificate or password needs no
//! restart.

use super::judge::Trial;
use super::{BackoffLimits, LinkFault, secret};
use crate::clock::system::SystemClock;
use crate::clock::{Clock, Now};
use rumqttc::{LastWill, MqttOptions, NetworkOptions, QoS, Transport};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// More than MQTT adds to a payload: fixed header 5, packet id 2, topic length 2 and a topic.
const PACKET_OVERHEAD: usize = 1024;

/// Everything about one connection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Unique at the broker: two clients of one id evict each other for ever.
    pub client_id: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// Usually 1883, or 8883 with TLS.
    pub port: u16,
    /// Set for `mqtts://`.
    pub tls: Option<Tls>,
    /// Name and password, if the broker asks for them.
    pub login: Option<Login>,
    /// Subscribed with QoS 1 at each connection.
    pub filters: Vec<String>,
    /// What the broker publishes, retained, when the connection breaks.
    pub will: Option<Will>,
    /// The most bytes of a payload, both ways.
    pub max_payload_bytes: usize,
    /// Publishes that the broker has not acknowledged; one more waits with its caller.
    pub inflight: u16,
    /// Whether the broker keeps the session, with what arrives for it, while we are away. A device says no: what it needs
    /// is retained. A receiver says yes.
    pub persistent: bool,
    /// Whether messages are acknowledged by [`super::Client::ack`] only, after they are safe.
    pub manual_acks: bool,
    /// Between two pings.
    pub keep_alive: Duration,
    /// Whether [`super::Event::Passed`] is told.
    pub paced: bool,
    /// The wait before an attempt.
    pub backoff: BackoffLimits,
    /// What certificates are valid by, and whether it is to be believed.
    pub clock: WallClock,
}

/// A clock that can be shown in a log.
#[derive(Clone)]
pub struct WallClock(pub Arc<dyn Clock>);

impl WallClock {
    pub(super) fn now(&self) -> Now {
        self.0.now()
    }
}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

/// The will of a [`Settings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
}

/// Name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// A file whose first line is the password, which only its owner and group may use; without it the password is empty.
    pub password_file: Option<PathBuf>,
}

/// The files of a TLS connection, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Who may have signed the broker's certificate; without it, the system's list.
    pub ca: Option<PathBuf>,
    /// Our certificate, for brokers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its key, which only its owner and group may use.
    pub key: Option<PathBuf>,
    /// The protocol to ask for in the handshake (RFC 7301), for brokers that share a port.
    pub alpn: Option<String>,
}

impl Settings {
    /// The usual settings of a device: no session at the broker, acks by themselves, 8 publishes in flight.
    pub fn device(client_id: &str, host: &str, port: u16) -> Self {
        Self {
            client_id: client_id.into(),
            host: host.into(),
            port,
            tls: None,
            login: None,
            filters: Vec::new(),
            will: None,
            max_payload_bytes: 120 * 1024,
            inflight: 8,
            persistent: false,
            manual_acks: false,
            keep_alive: Duration::from_secs(30),
            paced: false,
            backoff: BackoffLimits::default(),
            clock: WallClock(Arc::new(SystemClock::new(Path::new("/")))),
        }
    }

    /// The usual settings of a receiver: a session that outlives the connection, acks by hand, 64 publishes in flight.
    pub fn receiver(client_id: &str, host: &str, port: u16) -> Self {
        let device = Self::device(client_id, host, port);
        Self {
            inflight: 64,
            persistent: true,
            manual_acks: true,
            max_payload_bytes: crate::wire::MAX_ENVELOPE,
            // There is one of it, and the whole fleet waits for its acks.
            backoff: BackoffLimits { spread: Duration::from_secs(1), ..device.backoff },
            ..device
        }
    }

    /// Reads the files that the settings name and builds what can be built without a connection.
    ///
    /// # Errors
    /// A file is missing or not what it should be, others may use a secret, or the settings ask for TLS and this build has
    /// none.
    pub fn check(&self) -> Result<(), LinkFault> {
        self.options().map(|_| ())
    }

    /// What rumqttc connects with, and what is known of the attempt should it fail.
    pub(super) fn options(&self) -> Result<(MqttOptions, Trial), LinkFault> {
        let mut options = MqttOptions::new(&self.client_id, self.address()?, self.port);
        let packet = self.max_payload_bytes + PACKET_OVERHEAD;
        options
            .set_keep_alive(self.keep_alive)
            .set_clean_session(!self.persistent)
            .set_manual_acks(self.manual_acks)
            .set_inflight(self.inflight.max(1))
            .set_max_packet_size(packet, packet);
        if let Some(will) = &self.will {
            options.set_last_will(LastWill::new(&will.topic, will.payload.clone(), QoS::AtLeastOnce, true));
        }
        if let Some(login) = &self.login {
            options.set_credentials(&login.username, login.password()?);
        }
        let mut trial = Trial::plain(&self.host);
        if let Some(tls) = &self.tls {
            options.set_transport(tls.transport(&self.clock, &mut trial)?);
        }
        Ok((options, trial))
    }

    /// rumqttc joins host and port by a colon, so an IPv6 address needs brackets; for the name in a certificate it takes
    /// the same text, where brackets are no name.
    fn address(&self) -> Result<String, LinkFault> {
        match (self.host.contains(':'), &self.tls) {
            (true, Some(_)) => Err(LinkFault::Address { host: self.host.clone() }),
            (true, None) => Ok(format!("[{}]", self.host)),
            (false, _) => Ok(self.host.clone()),
        }
    }
}

/// A flush that takes longer than the connection timeout ends the connection, so it must cover a whole payload on a slow
/// link. The send buffer is kept small, lest a ping wait behind minutes of data: it holds what a link of `rate` bytes a
/// second carries in 4 s, within bounds, and 64 KiB while that is not known.
pub(super) fn network(rate: Option<u64>) -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(90);
    network.set_tcp_nodelay(true);
    network.set_tcp_send_buffer_size(send_buffer_bytes(rate));
    network
}

fn send_buffer_bytes(rate: Option<u64>) -> u32 {
    let seconds_4 = rate.map_or(u64::MAX, |rate| rate.saturating_mul(4));
    // Both ends are within u32.
    u32::try_from(seconds_4.clamp(8 << 10, 64 << 10)).unwrap_or(64 << 10)
}

impl Login {
    fn password(&self) -> Result<String, LinkFault> {
        let Some(path) = &self.password_file else { return Ok(String::new()) };
        let fault = |cause: &str| LinkFault::File { path: path.clone(), cause: cause.into() };
        let text = String::from_utf8(secret::read(path)?).map_err(|_| fault("it is not UTF-8 text"))?;
        let line = text.lines().next().filter(|line| !line.is_empty());
        line.map(str::to_owned).ok_or_else(|| fault("its first line, the password, is empty"))
    }
}

impl Tls {
    #[cfg(feature = "tls")]
    fn transport(&self, clock: &WallClock, trial: &mut Trial) -> Result<Transport, LinkFault> {
        let (config, known) = super::tls::client_config(self, clock)?;
        trial.tls = Some(known);
        Ok(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config)))
    }

    #[cfg(not(feature = "tls"))]
    fn transport(&self, _: &WallClock, _: &mut Trial) -> Result<Transport, LinkFault> {
        Err(LinkFault::NoTls)
    }
}
