//! The embedded broker: rumqttd on threads of its own, for small fleets, the demo and tests.
//!
//! What enters: an address and the topic prefix. What leaves: a broker that listens there until
//! the process ends; rumqttd has no way to stop. It promises bounded memory per topic filter and payloads of up to
//! [`MAX_PAYLOAD_BYTES`]. What it deliberately is not: durable (retained messages and sessions live in RAM; the replicas
//! are the memory, and devices publish state and catalogue again when they reconnect), encrypted, or a judge of who may
//! connect and write which topic. A fleet that needs those runs a broker of its own and sets `broker` instead of `listen`.
//!
//! What rumqttd 0.20.0 does that matters here, read in its source:
//! - A PUBACK out of order closes the receiver's connection (`router/iobufs.rs`, `register_ack`): the receiver
//!   acknowledges in order of arrival.
//! - A filter's log drops its oldest messages once full, without a word (`segments/mod.rs`, `apply_retention`): devices
//!   send again what the receiver has not acknowledged.
//! - Retained messages come with the first subscription of a session only; a persistent session that subscribes again
//!   gets none (`router/routing.rs`, `prepare_filter`): the receiver asks for catalogues that it misses.
//! - Messages of different filters overtake each other, and when a client id connects twice, the will of the newer
//!   connection may be published (`handle_last_will` looks it up by client id): see [`super::presence`].
//! - A client that got no CONNACK (its link broke just then, or its id has a `/` or `+`) and comes back poisons a lock that every later
//!   connection needs (`server/broker.rs`, `remote`): the broker then accepts nobody. [`Broker::answers`] finds that out,
//!   and `run` ends with a fault, so that whoever supervises it starts it afresh.

use super::FleetError;
use rumqttd::{Config, ConnectionSettings, RouterConfig, SegmentConfig, ServerSettings};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The largest payload that the broker passes on, in bytes; a device's own limit is far below.
pub const MAX_PAYLOAD_BYTES: usize = 512 * 1024;

/// Connections at one time. Well above what one expects of an embedded broker: a connection refused for want of room is
/// one of those that break rumqttd.
const MAX_CONNECTIONS: usize = 4096;

/// RAM for the log of one of the receiver's filters, and of one of a device's, in bytes each: rumqttd keeps one segment
/// being written and drops the oldest of `max_segment_count`.
const RECEIVER_LOG_BYTES: usize = 32 * 1024 * 1024;
const DEVICE_LOG_BYTES: usize = 16 * 1024;

/// How long a new broker may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running broker. Dropping it does not stop it.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
}

impl Broker {
    /// Starts a broker at `listen` (port 0 takes a free one) for devices and a receiver with `prefix`, and returns once it
    /// answers. Fails where the address is taken or the broker does not answer within 10 s.
    pub fn start(listen: SocketAddr, prefix: &str) -> Result<Self, FleetError> {
        let address = free_address(listen).map_err(|cause| FleetError::Listen { address: listen, cause })?;
        let config = settings(address, prefix);
        std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                if let Err(error) = rumqttd::Broker::new(config).start() {
                    log::error!("broker: {error}");
                }
            })
            .map_err(|cause| FleetError::Listen { address, cause })?;
        let broker = Self { address };
        broker.wait_until_it_answers()?;
        Ok(broker)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a client on this machine reaches it.
    pub fn local_address(&self) -> SocketAddr {
        let mut address = self.address;
        match address {
            SocketAddr::V4(a) if a.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(a) if a.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    /// Whether the broker still accepts a new client within 2 s.
    pub fn answers(&self) -> bool {
        self.probe()()
    }

    /// The same question, to be asked on a thread that may wait.
    pub fn probe(&self) -> impl FnOnce() -> bool + Send + use<> {
        let address = self.local_address();
        move || probe(address).is_ok()
    }

    fn wait_until_it_answers(&self) -> Result<(), FleetError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            match probe(self.local_address()) {
                Ok(()) => return Ok(()),
                Err(cause) if Instant::now() >= until => {
                    return Err(FleetError::Listen { address: self.address, cause });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// The name of the probing client. It subscribes to nothing.
const PROBE_ID: &str = "varved-fleet-probe";

/// Connects as a client of its own, up to the CONNACK, and takes its leave.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&connect_packet(PROBE_ID))?;
    let mut connack = [0u8; 4];
    stream.read_exact(&mut connack)?;
    stream.write_all(&[0xE0, 0x00])?; // DISCONNECT (MQTT 3.1.1 §3.14)
    if connack == [0x20, 0x02, 0x00, 0x00] {
        Ok(())
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "no CONNACK that accepts"))
    }
}

/// MQTT 3.1.1 §3.1: protocol level 4, clean session, keep alive 10 s.
fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x0a\x00");
    packet.push(client_id.len() as u8);
    packet.extend_from_slice(client_id.as_bytes());
    packet
}

/// A port that is free now. rumqttd binds by itself and only logs a failure, so the failure is found here.
fn free_address(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(listen)?.local_addr()
}

fn settings(listen: SocketAddr, prefix: &str) -> Config {
    let server = ServerSettings {
        name: "mqtt".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 20_000,
            max_payload_size: MAX_PAYLOAD_BYTES,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    };
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: MAX_CONNECTIONS,
            max_outgoing_packet_count: 200,
            max_segment_size: DEVICE_LOG_BYTES / 2,
            max_segment_count: 2,
            custom_segment: Some(receiver_logs(prefix)),
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("mqtt".to_owned(), server)])),
        ..Config::default()
    }
}

/// The receiver's filters get the large logs; all others, one or two per device, the small ones.
fn receiver_logs(prefix: &str) -> HashMap<String, SegmentConfig> {
    let large = SegmentConfig { max_segment_size: RECEIVER_LOG_BYTES / 8, max_segment_count: 8 };
    ["segment", "catalog/+", "state"]
        .into_iter()
        .map(|channel| (format!("{prefix}/v1/+/{channel}"), large.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    /// A broker that was started answers, and one whose address is taken says so rather than only logging it.
    #[test]
    fn a_taken_address_is_a_fault() {
        let broker = Broker::start(local(), "varved").expect("a broker");
        assert!(broker.answers());
        let second = Broker::start(broker.address(), "varved");
        assert!(matches!(second, Err(FleetError::Listen { .. })), "{second:?}");
    }

    /// rumqttd 0.20.0 accepts nobody after a client that got no CONNACK came back. The day this test fails, that is mended,
    /// and the probe may go.
    #[test]
    fn the_probe_finds_a_broker_that_accepts_nobody() {
        let broker = Broker::start(local(), "varved").expect("a broker");
        let connect = connect_packet("bad/client+id#");
        for _ in 0..2 {
            let mut stream = TcpStream::connect(broker.local_address()).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            stream.write_all(&connect).expect("sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
        assert!(!broker.answers());
    }
}
