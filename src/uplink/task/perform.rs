//! The actions, one by one: what the machine decided, done with the store and the connection.
//!
//! What enters: an action. What leaves: the event that tells of its outcome, or why it did not come to its end. Here is only
//! what waits: the store's thread and the connection. What they say is in [`answers`] and [`voice`](super::super::voice).

use super::super::answers::{self, Asked};
use super::super::machine::{Action, Event};
use super::super::status::lock;
use super::super::voice::Outgoing;
use super::{Failed, Task, random};
use crate::mqtt::{self, PublishError};
use smol::future::FutureExt;
use std::time::Duration;

/// What ends the wait for a publish to be taken, or happens meanwhile.
enum Either {
    Taken(Result<(), PublishError>),
    Arrived(Option<mqtt::Event>),
    Stop,
}

impl Task {
    pub(super) async fn perform(&mut self, action: Action) -> Result<Event, Failed> {
        let (now, page_bytes, begun) = (self.clock.now(), self.voice.page_bytes(), self.voice.begun(&action));
        let asked = Asked { now, nonce: random(), page_bytes, begun };
        let found = self.store.run(move |store| answers::find(store, action, asked)).await??;
        let answer = self.voice.answer(found, self.clock.now());
        if let Some(before) = answer.before.clone() {
            self.tell(before);
        }
        let mut bytes = 0;
        for Outgoing { topic, retain, payload, page } in answer.messages() {
            bytes += payload.len() as u64;
            self.publish(&topic, retain, payload).await?;
            page.into_iter().for_each(|page| self.voice.said(page));
        }
        let whole = matches!(answer.after, Event::Sent { .. } | Event::Copied { told: Some(_), .. });
        if whole || matches!(answer.after, Event::Piece(_) | Event::CopyPiece(_)) {
            let mut status = lock(&self.status);
            status.sent_segments += u64::from(whole);
            status.sent_bytes += bytes;
        }
        if matches!(answer.after, Event::AckedSet) {
            self.client.was_of_use();
        }
        Ok(answer.after)
    }

    /// Waits until what is on the way leaves room for a message of `bytes`, lest a ping wait behind it for too long.
    async fn turn(&mut self, bytes: usize) -> Result<(), Failed> {
        while !self.machine.has_room(bytes, self.now()) {
            let arrived = async { Some(Either::Arrived(self.inbox.recv().await.ok())) };
            let stop = async {
                let _ = self.stop.recv().await;
                Some(Either::Stop)
            };
            let time = async {
                smol::Timer::after(Duration::from_secs(1)).await;
                None
            };
            if let Some(meanwhile) = stop.or(arrived).or(time).await {
                self.meanwhile(meanwhile)?;
            }
        }
        Ok(())
    }

    /// Publishes, taking in meanwhile what arrives.
    async fn publish(&mut self, topic: &str, retain: bool, payload: Vec<u8>) -> Result<(), Failed> {
        let bytes = topic.len() + payload.len();
        self.turn(bytes).await?;
        let client = self.client.clone();
        let mut publish = std::pin::pin!(client.publish(topic, retain, payload));
        loop {
            let taken = async { Either::Taken(publish.as_mut().await) };
            let arrived = async { Either::Arrived(self.inbox.recv().await.ok()) };
            let stop = async {
                let _ = self.stop.recv().await;
                Either::Stop
            };
            match taken.or(arrived).or(stop).await {
                Either::Taken(Ok(())) => {
                    self.tell(Event::Published { bytes: bytes as u64, begun: self.now() });
                    return Ok(());
                }
                Either::Taken(Err(PublishError::NotConnected)) => return Err(Failed::Connection(None)),
                Either::Taken(Err(e)) => {
                    log::warn!("uplink: {topic}: {e}");
                    return Ok(());
                }
                other => self.meanwhile(other)?,
            }
        }
    }

    fn meanwhile(&mut self, what: Either) -> Result<(), Failed> {
        match what {
            Either::Arrived(Some(event @ mqtt::Event::Disconnected { .. })) => Err(Failed::Connection(Some(event))),
            Either::Arrived(Some(event)) => {
                self.arrived(event);
                Ok(())
            }
            Either::Taken(_) | Either::Arrived(None) => Err(Failed::Connection(None)),
            Either::Stop => Err(Failed::Stopped),
        }
    }
}
