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
                Err(PublishError::NotConnected) => self.forget(),
                Err(error) => log::error!("receiver: {error}"),
            }
        }
    }

    fn next(&mut self) -> Option<Sending> {
        let client = self.client.clone();
        let (topic, retain, payload) = match self.queue.pop_front()? {
            Post::Taken(ticket) => return Some(Box::pin(async move { client.ack(ticket).await })),
            Post::Once(once) => (once.topic, once.retain, once.payload),
            Post::Retained(topic) => {
                let payload = self.retained.remove(&topic)?;
                (topic, true, payload)
            }
        };
        Some(Box::pin(async move { client.publish(&topic, retain, payload).await }))
    }

    /// The connection ended: devices are told again after the next one. PUBACKs stay: those of this connection are none any
    /// more, and one of the next that were left out would take a place in the broker's window for as long as that stands.
    fn forget(&mut self) {
        self.queue.retain(|post| matches!(post, Post::Taken(_)));
        self.retained.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Settings;

    fn publication(topic: &str, payload: u8, retain: bool) -> Publication {
        Publication { topic: topic.into(), payload: vec![payload], retain }
    }

    /// While the connection takes nothing, a device with many acks costs the room of one, the newest; requests and PUBACKs
    /// keep their order.
    #[test]
    fn of_many_acks_for_a_device_the_newest_waits() {
        let (client, _events) = Client::start(Settings::receiver("r", "127.0.0.1", 1)).expect("a thread");
        let mut outbox = Outbox::new(client);
        for n in 0..100 {
            outbox.add(vec![publication("a/ack", n, true), publication("b/ack", n, true)], Vec::new());
        }
        outbox.add(vec![publication("a/request", 1, false), publication("a/request", 2, false)], Vec::new());
        let order = outbox.queue.iter().map(|post| match post {
            Post::Retained(topic) => (topic.as_str(), outbox.retained[topic][0]),
            Post::Once(once) => (once.topic.as_str(), once.payload[0]),
            Post::Taken(_) => ("puback", 0),
        });
        let order: Vec<_> = order.collect();
        assert_eq!(order, [("a/ack", 99), ("b/ack", 99), ("a/request", 1), ("a/request", 2)]);
    }

    /// What was to be said when a connection ended is forgotten, since all are told after the next; PUBACKs are not, in
    /// their order.
    #[test]
    fn an_ended_connection_takes_answers_and_no_pubacks() {
        let (client, _events) = Client::start(Settings::receiver("r", "127.0.0.1", 1)).expect("a thread");
        let mut outbox = Outbox::new(client);
        for n in 0..3 {
            let answers = vec![publication("a/ack", 0, true), publication("a/request", 0, false)];
            outbox.add(answers, vec![Ticket::for_tests(n)]);
        }
        outbox.forget();
        let left = outbox.queue.iter().map(|post| match post {
            Post::Taken(ticket) => Some(*ticket),
            _ => None,
        });
        assert_eq!(left.collect::<Vec<_>>(), [0, 1, 2].map(|n| Some(Ticket::for_tests(n))));
        assert!(outbox.retained.is_empty());
        outbox.add(vec![publication("a/ack", 1, true)], Vec::new());
        assert_eq!((outbox.queue.len(), outbox.retained.len()), (4, 1), "and the next ack waits like any");
    }
}
