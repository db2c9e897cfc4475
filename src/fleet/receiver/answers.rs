//! What is said to devices: acks, and requests for gaps and catalogues.
//!
//! What enters: who is to be answered, once the group is committed. What leaves: messages to publish, made from what the
//! replicas hold durably.

use super::device::Device;
use super::{Publication, Receiver};
use crate::clock::Now;
use crate::fleet::FleetError;
use crate::reading::ranges::both_ends;
use crate::wire::topics::{self, Topic};
use crate::wire::{Ack, MAX_RANGES, MAX_STORES, Request, StoreAck, StoreUuid, WireError, encode};
use std::collections::BTreeSet;

/// The longest `ack` payload, in bytes; a longer one names fewer ranges.
pub(super) const MAX_ACK_BYTES: usize = 100 * 1024;

/// What a group of messages asks for beside the commit.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) acks: BTreeSet<String>,
    pub(super) catalogs: BTreeSet<String>,
}

impl Receiver {
    pub(super) fn answer(&mut self, answers: Answers, now: Now) -> Vec<Publication> {
        let mut out = Vec::new();
        for name in &answers.acks {
            match self.ack(name, now) {
                Ok((ack, gaps)) => {
                    out.extend(self.publication(name, Topic::Ack, ack_payload(ack), true));
                    let asked: Vec<Request> =
                        gaps.into_iter().filter_map(|store| self.device(name).ask_for_gaps(store, now.boot)).collect();
                    out.extend(asked.iter().filter_map(|r| self.publication(name, Topic::Request, encode(r), false)));
                }
                Err(cause) => log::error!("receiver: {name}: no ack now: {cause}"),
            }
        }
        for name in &answers.catalogs {
            if self.device(name).may_ask_for_catalog(now.boot) {
                out.extend(self.publication(name, Topic::Request, encode(&Request::Catalog), false));
            }
        }
        // What an answer had to open may have begun nothing, but nothing may stay open in a transaction either.
        self.commit(now);
        out
    }

    /// Requests for gaps that have stood long enough, at most `most`: a device that has nothing new to say is asked too.
    pub(super) fn ask_for_standing_gaps(&mut self, most: usize, now: Now) -> Vec<Publication> {
        let of = |(name, device): (&String, &Device)| -> Vec<(String, StoreUuid)> {
            device.stores_with_gaps_due(now.boot).map(|store| (name.clone(), store)).collect()
        };
        let due: Vec<_> = self.devices.iter().flat_map(of).take(most).collect();
        let ask = |(name, store): (String, StoreUuid)| {
            let request = self.device(&name).ask_for_gaps(store, now.boot)?;
            self.publication(&name, Topic::Request, encode(&request), false)
        };
        due.into_iter().filter_map(ask).collect()
    }

    pub(super) fn publication(
        &self,
        name: &str,
        topic: Topic,
        payload: Result<Vec<u8>, WireError>,
        retain: bool,
    ) -> Option<Publication> {
        match payload {
            Ok(payload) => Some(Publication { topic: topics::name(&self.prefix, name, topic), payload, retain }),
            Err(error) => {
                log::error!("receiver: {name}: {error}");
                None
            }
        }
    }

    /// All that `name` may be told, and its stores with gaps.
    fn ack(&mut self, name: &str, now: Now) -> Result<(Ack, Vec<StoreUuid>), FleetError> {
        let mut stores = self.device(name).stores_to_tell();
        if !self.device(name).has_stated() {
            // A store that is not named is not held: without the device's word, all of them may be in its file.
            let more: Vec<_> = self.shelf.stores_of(name).filter(|store| !stores.contains(store)).collect();
            stores.extend(more);
        }
        stores.retain(|store| self.shelf.has(name, *store));
        stores.truncate(MAX_STORES);
        let mut ack = Ack { stores: Vec::new() };
        let mut gaps = Vec::new();
        for store in stores {
            let recheck = self.device(name).brought(store).recheck;
            let (replica, notices) = self.shelf.replica(name, store, now.utc)?;
            let standing = replica.standing(name, recheck);
            self.report(notices, now);
            let standing = standing?;
            let device = self.device(name);
            if device.find_gaps(store, &standing.present, now.boot) {
                gaps.push(store);
            }
            ack.stores.push(StoreAck {
                store,
                cumulative: standing.held.cumulative(),
                ranges: standing.held.rest(MAX_RANGES),
                high: standing.high,
                conflicts: standing.conflicts.joined(MAX_RANGES),
                verified: recheck.map(|nonce| (nonce, both_ends(standing.verified.iter().collect(), MAX_RANGES))),
            });
        }
        Ok((ack, gaps))
    }
}

/// The payload of `ack`; where it would be too long, with fewer ranges: it may leave out any.
pub(super) fn ack_payload(mut ack: Ack) -> Result<Vec<u8>, WireError> {
    let mut limit = MAX_RANGES;
    loop {
        let payload = encode(&ack)?;
        if payload.len() <= MAX_ACK_BYTES || limit <= 1 {
            return Ok(payload);
        }
        limit /= 2;
        for store in &mut ack.stores {
            store.ranges = both_ends(std::mem::take(&mut store.ranges), limit);
            store.conflicts.truncate(limit);
            if let Some((_, verified)) = &mut store.verified {
                *verified = both_ends(std::mem::take(verified), limit);
            }
        }
    }
}
