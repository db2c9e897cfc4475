//! What the store says to an action of the machine, on the store's thread.
//!
//! What enters: the store, an action, the moment. What leaves: [`Found`]: an event for the machine, or what [`super::voice`]
//! puts into words. Whatever an action changes in the store is committed, or has failed, when it returns. It publishes
//! nothing and waits for nobody.

use super::lane::Head;
use super::machine::{Action, Cut, Event, Line, Purpose, Told};
use crate::clock::Now;
use crate::reading::{SegmentSeq, SeqRange};
use crate::store::{Shipment, Store, StoreError, StoreLine};
use crate::wire::{self, Account, CatalogPage, StoreState, StoreUuid};

/// What an action needs besides the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When.
    pub(crate) now: Now,
    /// A random number, for an action that begins a recheck.
    pub(crate) nonce: u64,
    /// The most bytes of one catalogue page.
    pub(crate) page_bytes: usize,
}

/// What the store had to say.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing to publish.
    Told(Event),
    /// A segment, at most [`wire::MAX_BODY_BYTES`] long.
    Segment {
        /// Whose.
        store: StoreUuid,
        /// Its range.
        range: SeqRange,
        /// As stored.
        body: Vec<u8>,
        /// As asked.
        purpose: Purpose,
        /// As asked.
        cut: Cut,
    },
    /// A segment of a snapshot, likewise.
    Copy {
        /// Whose.
        store: StoreUuid,
        /// As asked.
        within: SeqRange,
        /// What it is.
        told: Told,
        /// As stored.
        body: Vec<u8>,
        /// As asked.
        cut: Cut,
    },
    /// How far a snapshot is.
    Account(Account),
    /// The whole catalogue.
    Catalog {
        /// Its version.
        version: u64,
        /// All of it.
        pages: Vec<CatalogPage>,
        /// As asked.
        all: bool,
    },
    /// What the state says of the stores.
    State(Vec<StoreState>),
}

/// Does what `action` asks of the store.
///
/// # Errors
/// Those of the store; what the action was to change has not changed then.
pub(crate) fn find(store: &mut Store, action: Action, asked: Asked) -> Result<Found, StoreError> {
    match action {
        Action::ReadStores => stores(store).map(Found::Told),
        Action::ReadHeads { store: of, purpose, after, limit } => {
            let heads = store.pending(of, after, limit)?;
            let heads = heads.iter().map(|head| Head { range: head.range, bytes: head.bytes }).collect();
            Ok(Found::Told(Event::Heads { store: of, purpose, after, heads }))
        }
        Action::ReadNewest { store: of, before, limit } => {
            let heads = store.pending_newest(of, before, limit)?;
            let heads = heads.iter().map(|head| Head { range: head.range, bytes: head.bytes }).collect();
            Ok(Found::Told(Event::Newest { store: of, before, heads }))
        }
        Action::Send { store: of, at, purpose, catalog, cut } => match outdated(store, catalog) {
            Some(changed) => Ok(changed),
            None => segment(store, of, at, purpose, cut, asked.now),
        },
        Action::Copy { store: of, within, catalog, cut } => match outdated(store, catalog) {
            Some(changed) => Ok(changed),
            None => copy(store, of, within, cut, asked.now),
        },
        Action::PublishAccount(account) => Ok(Found::Account(account)),
        Action::PublishCatalog { all } => {
            Ok(Found::Catalog { version: store.catalog_version(), pages: store.catalog(asked.page_bytes)?, all })
        }
        Action::PublishState => states(store).map(Found::State),
        Action::SetAcked { store: of, ranges } => {
            store.set_acked(of, ranges)?;
            Ok(Found::Told(Event::AckedSet))
        }
        Action::RecordGone { store: of, range } => gone(store, of, range, asked.now).map(Found::Told),
        Action::Recheck { store: of, why } => {
            log::warn!("uplink: store {of}: {why:?}; all of it is sent again and new readings get a fresh store id");
            store.begin_recheck(of, asked.nonce, asked.now)?;
            Ok(Found::Told(Event::Rechecking { store: of, nonce: asked.nonce }))
        }
    }
}

fn stores(store: &Store) -> Result<Event, StoreError> {
    let line = |line: &StoreLine| -> Result<Line, StoreError> {
        let recheck = store.recheck(line.uuid)?;
        Ok(Line { store: line.uuid, current: line.current, high: line.high, recheck })
    };
    let lines = lines_of(store).iter().map(line).collect::<Result<_, _>>()?;
    Ok(Event::Stores { lines, catalog: store.catalog_version() })
}

/// What is said instead of a segment where the catalogue has changed since `catalog`.
fn outdated(store: &Store, catalog: u64) -> Option<Found> {
    let version = store.catalog_version();
    (version != catalog).then_some(Found::Told(Event::CatalogChanged { catalog: version }))
}

fn segment(
    store: &mut Store,
    of: StoreUuid,
    at: SegmentSeq,
    purpose: Purpose,
    cut: Cut,
    now: Now,
) -> Result<Found, StoreError> {
    Ok(match store.outgoing(of, at, now)? {
        Some(Shipment { range, body, .. }) if fits(of, range, &body) => {
            Found::Segment { store: of, range, body, purpose, cut }
        }
        _ => Found::Told(Event::Missing { store: of, at, purpose }),
    })
}

/// What does not fit is told of all the same: it is the device's, and the fleet is to name it as lacking.
fn copy(store: &mut Store, of: StoreUuid, within: SeqRange, cut: Cut, now: Now) -> Result<Found, StoreError> {
    let Some(Shipment { range, body, loss, readings }) = store.next_outgoing(of, within, now)? else {
        return Ok(Found::Told(Event::Copied { store: of, within, told: None }));
    };
    let told = Told { range, bytes: body.len() as u64, readings, loss };
    if !fits(of, range, &body) {
        return Ok(Found::Told(Event::Copied { store: of, within, told: Some(told) }));
    }
    Ok(Found::Copy { store: of, within, told, body, cut })
}

fn fits(of: StoreUuid, range: SeqRange, body: &[u8]) -> bool {
    let fits = !body.is_empty() && body.len() <= wire::MAX_BODY_BYTES;
    if !fits {
        log::warn!("uplink: segment {range} of store {of} cannot be sent: its body has {} bytes", body.len());
    }
    fits
}

fn states(store: &Store) -> Result<Vec<StoreState>, StoreError> {
    let state = |line: &StoreLine| -> Result<StoreState, StoreError> {
        let pending = store.pending_ranges(line.uuid)?.joined(wire::MAX_RANGES);
        Ok(StoreState { store: line.uuid, high: line.high, pending, recheck: store.recheck(line.uuid)? })
    };
    lines_of(store).iter().map(state).collect()
}

/// What is a loss now is sent as such; should it not be there all the same, it is passed over rather than asked for for ever.
fn gone(store: &mut Store, of: StoreUuid, range: SeqRange, now: Now) -> Result<Event, StoreError> {
    store.record_gone(of, range, now)?;
    let found = store.body(of, range.first)?.is_some();
    let through = if found { SegmentSeq(range.first.0 - 1) } else { range.first };
    Ok(Event::Gone { store: of, through })
}

/// The stores that the wire has room for, the current one first.
fn lines_of(store: &Store) -> Vec<StoreLine> {
    let mut lines = store.stores();
    lines.truncate(wire::MAX_STORES);
    lines
}
