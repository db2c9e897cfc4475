//! The actions, one by one: what the machine decided, done with the store and the connection.
//!
//! What enters: an action. What leaves: the event that tells of its outcome, or why it did not come to its end.

use super::super::lane::Head;
use super::super::machine::{Action, Event, Line, Purpose};
use super::super::status::lock;
use super::{Failed, Task, random};
use crate::mqtt::{self, PublishError};
use crate::reading::{SegmentSeq, SeqRange};
use crate::store::{Store, StoreError, StoreLine};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, StoreState, StoreUuid};
use smol::future::FutureExt;

/// What an envelope adds to a catalogue page, and a little more.
const PAGE_OVERHEAD: usize = 64;

impl Task {
    pub(super) async fn perform(&mut self, action: Action) -> Result<Event, Failed> {
        match action {
            Action::ReadStores => self.read_stores().await,
            Action::ReadHeads { store, purpose, after, limit } => {
                let heads = move |from: &mut Store| match purpose {
                    Purpose::Snapshot => from.held(store, after, limit),
                    _ => from.pending(store, after, limit),
                };
                let heads = self.store.run(heads).await??;
                let heads = heads.iter().map(|head| Head { range: head.range, bytes: head.bytes }).collect();
                Ok(Event::Heads { store, purpose, after, heads })
            }
            Action::Send { store, at, purpose, catalog } => self.send(store, at, purpose, catalog).await,
            Action::PublishCatalog { all } => self.publish_catalog(all).await,
            Action::PublishState => self.publish_state().await,
            Action::SetAcked { store, ranges } => {
                self.store.run(move |to| to.set_acked(store, ranges)).await??;
                self.client.was_of_use();
                Ok(Event::AckedSet)
            }
            Action::RecordGone { store, range } => self.record_gone(store, range).await,
            Action::Recheck { store, why } => {
                log::warn!(
                    "uplink: store {store}: {why:?}; all of it is sent again and new readings get a fresh store id"
                );
                let (nonce, now) = (random(), self.clock.now());
                self.store.run(move |to| to.begin_recheck(store, nonce, now)).await??;
                Ok(Event::Rechecking { store, nonce })
            }
        }
    }

    async fn read_stores(&self) -> Result<Event, Failed> {
        let read = |store: &mut Store| -> Result<_, StoreError> {
            let line = |line: &StoreLine| -> Result<Line, StoreError> {
                let recheck = store.recheck(line.uuid)?;
                Ok(Line { store: line.uuid, current: line.current, high: line.high, recheck })
            };
            Ok((lines_of(store).iter().map(line).collect::<Result<Vec<_>, _>>()?, store.catalog_version()))
        };
        let (lines, catalog) = self.store.run(read).await??;
        Ok(Event::Stores { lines, catalog })
    }

    async fn send(
        &mut self,
        store: StoreUuid,
        at: SegmentSeq,
        purpose: Purpose,
        catalog: u64,
    ) -> Result<Event, Failed> {
        let read =
            move |from: &mut Store| -> Result<_, StoreError> { Ok((from.catalog_version(), from.body(store, at)?)) };
        let (now, found) = self.store.run(read).await??;
        if now != catalog {
            return Ok(Event::CatalogChanged { catalog: now });
        }
        let Some((range, body)) = found else { return Ok(Event::Missing { store, at, purpose }) };
        let topic = topics::name(&self.prefix, &self.device, Topic::Segment);
        let mut bytes = 0;
        for frame in wire::frames(store, range, &body, self.max_payload) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(e) => {
                    log::warn!("uplink: segment {range} of store {store} cannot be sent: {e}");
                    return Ok(Event::Missing { store, at, purpose });
                }
            };
            bytes += frame.len() as u64;
            self.publish(&topic, false, frame).await?;
        }
        let mut status = lock(&self.status);
        status.sent_segments += 1;
        status.sent_bytes += bytes;
        drop(status);
        Ok(Event::Sent { store, range, bytes: body.len() as u64, purpose })
    }

    async fn publish_catalog(&mut self, all: bool) -> Result<Event, Failed> {
        let room = self.max_payload.saturating_sub(PAGE_OVERHEAD);
        let read =
            move |store: &mut Store| -> Result<_, StoreError> { Ok((store.catalog_version(), store.catalog(room)?)) };
        let (catalog, pages) = self.store.run(read).await??;
        for (number, page) in pages.iter().enumerate().take(usize::from(u16::MAX)) {
            let payload = match wire::encode(page) {
                Ok(payload) => payload,
                Err(e) => {
                    log::warn!("uplink: catalogue page {number}: {e}");
                    continue;
                }
            };
            let crc = wire::crc_of(&payload);
            if !all && crc.is_some() && self.pages.get(number) == Some(&crc) {
                continue;
            }
            let topic = topics::name(&self.prefix, &self.device, Topic::Catalog(number as u16));
            self.publish(&topic, true, payload).await?;
            self.pages.resize(self.pages.len().max(number + 1), None);
            self.pages[number] = crc;
        }
        Ok(Event::CatalogPublished { catalog, all })
    }

    async fn publish_state(&mut self) -> Result<Event, Failed> {
        let read = |store: &mut Store| -> Result<Vec<StoreState>, StoreError> {
            let state = |line: &StoreLine| -> Result<StoreState, StoreError> {
                let pending = store.pending_ranges(line.uuid)?.joined(wire::MAX_RANGES);
                Ok(StoreState { store: line.uuid, high: line.high, pending, recheck: store.recheck(line.uuid)? })
            };
            lines_of(store).iter().map(state).collect()
        };
        let stores = self.store.run(read).await??;
        self.tell(Event::Stating(stores.iter().map(|state| (state.store, state.high)).collect()));
        let now = self.clock.now();
        match wire::encode(&self.session.state(stores, Some((now.utc, now.trusted)))) {
            Ok(payload) => {
                let topic = topics::name(&self.prefix, &self.device, Topic::State);
                self.publish(&topic, true, payload).await?;
            }
            Err(e) => log::warn!("uplink: the state cannot be sent: {e}"),
        }
        Ok(Event::StatePublished)
    }

    async fn record_gone(&self, store: StoreUuid, range: SeqRange) -> Result<Event, Failed> {
        let now = self.clock.now();
        let record = move |to: &mut Store| -> Result<bool, StoreError> {
            to.record_gone(store, range, now)?;
            Ok(to.body(store, range.first)?.is_some())
        };
        // What is a loss now is sent as such; should it not be there all the same, it is passed over rather than asked for
        // for ever.
        let found = self.store.run(record).await??;
        let through = if found { SegmentSeq(range.first.0 - 1) } else { range.first };
        Ok(Event::Gone { store, through })
    }

    /// Publishes, taking in meanwhile what arrives.
    async fn publish(&mut self, topic: &str, retain: bool, payload: Vec<u8>) -> Result<(), Failed> {
        enum Either {
            Taken(Result<(), PublishError>),
            Arrived(Option<mqtt::Event>),
            Stop,
        }
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
                Either::Taken(Ok(())) => return Ok(()),
                Either::Taken(Err(PublishError::NotConnected)) => return Err(Failed::Connection(None)),
                Either::Taken(Err(e)) => {
                    log::warn!("uplink: {topic}: {e}");
                    return Ok(());
                }
                Either::Arrived(Some(event @ mqtt::Event::Disconnected { .. })) => {
                    return Err(Failed::Connection(Some(event)));
                }
                Either::Arrived(Some(event)) => self.arrived(event),
                Either::Arrived(None) => return Err(Failed::Connection(None)),
                Either::Stop => return Err(Failed::Stopped),
            }
        }
    }
}

/// The stores that the wire has room for, the current one first.
fn lines_of(store: &Store) -> Vec<StoreLine> {
    let mut lines = store.stores();
    lines.truncate(wire::MAX_STORES);
    lines
}
