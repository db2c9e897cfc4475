//! The outbox: acks and requests for devices, PUBACKs for the broker, until the connection takes them.
//!
//! What enters: what a commit has returned for. What leaves: the same on MQTT, in order; of several acks for one device
//! only the newest, since an ack states all that is held. Bounded by that, by the times at which requests are made at most,
//! and by the 65,535 messages that a broker may have in flight. A PUBACK goes out after the acks of its group. It never
//! waits for a commit, nor a commit for it.

use crate::fleet::receiver::Publication;
use crate::mqtt::{Client, PublishError, Ticket};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a publish may wait before it is given up, with all that waits behind it; devices then hear of it with the next
/// ack.
const PATIENCE: Duration = Duration::from_secs(30);

enum Post {
    /// The newest retained message of this topic.
    Retained(String),
    /// A message that is said once.
    Once(Publication),
    /// The broker need not repeat this one.
    Taken(Ticket),
}

type Sending = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

/// See the room.
pub(super) struct Outbox {
    client: Client,
    queue: VecDeque<Post>,
    /// What waits to be retained, by topic.
    retained: HashMap<String, Vec<u8>>,
    sending: Option<Sending>,
}

impl Outbox {
    pub(super) fn new(client: Client) -> Self {
        Self { client, queue: VecDeque::new(), retained: HashMap::new(), sending: None }
    }

    /// Adds the answers to a group, and after them the PUBACKs for it, in order of arrival: rumqttd closes a connection that
    /// gives them in another. A message that could not be kept has its PUBACK too: the device has had no ack for it and
    /// sends it again, while a PUBACK withheld would hold up every other device.
    pub(super) fn add(&mut self, answers: Vec<Publication>, taken: Vec<Ticket>) {
        for answer in answers {
            if !answer.retain {
                self.queue.push_back(Post::Once(answer));
            } else if self.retained.insert(answer.topic.clone(), answer.payload).is_none() {
                self.queue.push_back(Post::Retained(answer.topic));
            }
        }
        self.queue.extend(taken.into_iter().map(Post::Taken));
    }

    /// Sends as long as it is polled; never ends. Cancelling loses nothing.
    pub(super) async fn send(&mut self) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let sending = match &mut self.sending {
                Some(sending) => sending,
                None => match self.next() {
                    Some(next) => self.sending.insert(next),
                    None => return Poll::Pending,
                },
            };
            let Poll::Ready(sent) = sending.as_mut().poll(context) else { return Poll::Pending };
            self.sending = None;
            match sent {
                Ok(()) => {}
                // After the next connection the broker repeats what has had no PUBACK, and devices are told again.
                Err(PublishError::NotConnected) => self.clear(),
                Err(error) => log::error!("receiver: {error}"),
            }
        }
    }

    fn next(&mut self) -> Option<Sending> {
        let client = self.client.clone();
        let (topic, retain, payload) = match self.queue.pop_front()? {
            Post::Taken(ticket) => return Some(patient(async move { client.ack(ticket).await })),
            Post::Once(once) => (once.topic, once.retain, once.payload),
            Post::Retained(topic) => {
                let payload = self.retained.remove(&topic)?;
                (topic, true, payload)
            }
        };
        Some(patient(async move { client.publish(&topic, retain, payload).await }))
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.retained.clear();
    }
}

fn patient(work: impl Future<Output = Result<(), PublishError>> + Send + 'static) -> Sending {
    Box::pin(smol::future::or(work, async {
        smol::Timer::after(PATIENCE).await;
        Err(PublishError::NotConnected)
    }))
}
