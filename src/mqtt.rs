//! MQTT: a connection that is always being made or kept. The only room that knows rumqttc.
//!
//! What enters: [`Settings`], messages to publish. What leaves: [`Event`]s. Each [`Client`] has one thread of its own, with
//! rumqttc's event loop on it, so that neither a slow database nor a slow task starves the keep-alive.
//!
//! Promises: everything is bounded (events by [`EVENTS`], publishes by taking one only when the event loop can); a broken
//! connection is made again after a [`Backoff`] with full jitter; what goes wrong is said once in words that end with what
//! to do. What it does not promise: delivery. A publish that was taken may die with its connection, and even a broker's
//! PUBACK is not storage; the one who publishes must hold what it sent until the other end itself says that it has it.
//!
//! Why the event loop is made anew for every connection: rumqttc 0.25.1 keeps what was in flight over a reconnect and then
//! drops it where the broker has no session for it, and it never clears a packet id collision, which blocks publishing for
//! ever. With no request kept across connections there is nothing to drop or to block. Its request channel has capacity 0:
//! a publish waits with its caller, not in a queue that a reconnect empties.

mod backoff;
mod fault;
mod judge;
mod link;
mod secret;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(feature = "tls")]
mod tls;

pub use backoff::{Backoff, BackoffLimits};
pub use fault::LinkFault;
pub use settings::{Login, Settings, Tls, WallClock, Will};

use link::{Link, Shared};
use rumqttc::QoS;
use smol::channel::Receiver;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most events that wait for the one who reads them.
pub const EVENTS: usize = 64;

/// What happens to a [`Client`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker answered and the subscriptions stand (or the session from before still holds them).
    Connected {
        /// Counts connections of this client.
        connection: u64,
    },
    /// The broker has acknowledged one more of the publishes of this connection, in their order; where
    /// [`Settings::paced`]. It says that the bytes are across, and nothing of where they are kept.
    Passed,
    /// A message to one of the subscribed filters.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Whether the broker had it stored when we subscribed.
        retained: bool,
        /// For [`Client::ack`], where acks are manual.
        ticket: Ticket,
    },
    /// The connection ended, or could not be made. The next attempt is under way by itself.
    Disconnected {
        /// Why.
        fault: LinkFault,
        /// When the next attempt begins at the latest.
        retry_in: Duration,
    },
}

/// Which message of which connection: an ack for a message of an earlier connection would hit another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    connection: u64,
    pkid: u16,
}

#[cfg(test)]
impl Ticket {
    /// Of no connection.
    pub(crate) fn for_tests(pkid: u16) -> Self {
        Self { connection: 0, pkid }
    }
}

/// A handle on the connection; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Starts the thread. The first event tells whether the settings, the files they name and the broker are in order.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(settings: Settings) -> std::io::Result<(Self, Receiver<Event>)> {
        let (events, receiver) = smol::channel::bounded(EVENTS);
        let shared = Arc::new(Shared::default());
        let link = Link::new(settings, Arc::clone(&shared), events);
        // 128 KiB do for an optimised build, TLS included.
        let stack_bytes = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };
        std::thread::Builder::new().name("mqtt".into()).stack_size(stack_bytes).spawn(move || link.run())?;
        Ok((Self { shared }, receiver))
    }

    /// Hands `payload` to the event loop, QoS 1; waits until it takes it, which it does when the broker has acknowledged
    /// enough of what is in flight. Cancelling the wait withdraws the message, or leaves it sent.
    ///
    /// # Errors
    /// [`PublishError::NotConnected`] at once where there is no connection, or when it ends meanwhile.
    pub async fn publish(&self, topic: &str, retain: bool, payload: Vec<u8>) -> Result<(), PublishError> {
        let (client, max_payload_bytes) = self.shared.live().ok_or(PublishError::NotConnected)?;
        if payload.len() > max_payload_bytes {
            return Err(PublishError::TooLarge { bytes: payload.len(), max: max_payload_bytes });
        }
        let bytes = payload.len();
        client.publish(topic, QoS::AtLeastOnce, retain, payload).await.map_err(|_| PublishError::NotConnected)?;
        self.shared.took(bytes);
        Ok(())
    }

    /// Tells the broker that this message was taken in and need not come again; for [`Settings::manual_acks`]. An ack for
    /// a message of an earlier connection is silently none: the broker sends that message again.
    ///
    /// # Errors
    /// [`PublishError::NotConnected`] where the connection ends meanwhile.
    pub async fn ack(&self, ticket: Ticket) -> Result<(), PublishError> {
        let Some(client) = self.shared.live_in(ticket.connection) else { return Ok(()) };
        let mut publish = rumqttc::Publish::new("", QoS::AtLeastOnce, Vec::new());
        publish.pkid = ticket.pkid;
        client.ack(&publish).await.map_err(|_| PublishError::NotConnected)
    }

    /// This connection has done what it is for: when it breaks, however early, the next attempt begins without the waits that
    /// failures have added up to. On a link that breaks within seconds they would soon be minutes, although each connection
    /// carries something.
    pub fn was_of_use(&self) {
        self.shared.was_of_use();
    }

    /// What the link is known to carry, for the connections that are made from now on.
    pub fn expect_rate(&self, bytes_per_s: u64) {
        self.shared.expect_rate(bytes_per_s);
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.live().is_some()
    }

    /// Takes leave of the broker, where there is a connection (it then does not publish the will), and ends the thread. A
    /// thread that is in the middle of connecting ends when that does, at the latest after the connect timeout.
    pub async fn stop(&self) {
        self.shared.ask_to_stop();
        let Some((client, _)) = self.shared.live() else { return };
        let leave = async {
            let _ = client.disconnect().await;
        };
        let patience = async {
            smol::Timer::after(Duration::from_secs(2)).await;
        };
        smol::future::or(leave, patience).await;
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// There is no connection, or it ended; publish again when there is one.
    NotConnected,
    /// It would kill the connection.
    TooLarge {
        /// Its payload.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => write!(f, "there is no connection to the broker; it is being made again"),
            Self::TooLarge { bytes, max } => {
                write!(f, "a payload of {bytes} bytes is above the limit of {max}: raise max_payload or report it")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl crate::fault::Fault for PublishError {
    fn verdict(&self) -> crate::fault::Verdict {
        match self {
            Self::NotConnected => crate::fault::Verdict::Retry,
            Self::TooLarge { .. } => crate::fault::Verdict::Reject,
        }
    }

    fn exit(&self) -> crate::fault::Exit {
        crate::fault::Exit::Unavailable
    }
}

#[cfg(test)]
mod tests;
