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
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// When.
    pub(crate) now: Now,
    /// A random number, for an action that begins a recheck.
    pub(crate) nonce: u64,
    /// The most bytes of one catalogue page.
    pub(crate) page_bytes: usize,
    /// The segment that the action goes on with, as it was found before its first message.
    pub(crate) begun: Option<Shipment>,
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
        /// Its range and body.
        shipment: Shipment,
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
        /// Its range and body.
        shipment: Shipment,
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
            None => segment(store, of, at, purpose, cut, &asked),
        },
        Action::Copy { store: of, within, catalog, cut } => match outdated(store, catalog) {
            Some(changed) => Ok(changed),
            None => copy(store, of, within, cut, &asked),
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
    asked: &Asked,
) -> Result<Found, StoreError> {
    Ok(match store.outgoing(of, at, asked.begun.as_ref(), asked.now)? {
        Some(shipment) if fits(of, &shipment) => Found::Segment { store: of, shipment, purpose, cut },
        _ => Found::Told(Event::Missing { store: of, at, purpose }),
    })
}

/// What does not fit is told of all the same: it is the device's, and the fleet is to name it as lacking.
fn copy(store: &mut Store, of: StoreUuid, within: SeqRange, cut: Cut, asked: &Asked) -> Result<Found, StoreError> {
    let Some(shipment) = store.next_outgoing(of, within, asked.begun.as_ref(), asked.now)? else {
        return Ok(Found::Told(Event::Copied { store: of, within, told: None }));
    };
    let Shipment { range, loss, readings, .. } = shipment;
    let told = Told { range, bytes: shipment.body.len() as u64, readings, loss };
    if !fits(of, &shipment) {
        return Ok(Found::Told(Event::Copied { store: of, within, told: Some(told) }));
    }
    Ok(Found::Copy { store: of, within, told, shipment, cut })
}

fn fits(of: StoreUuid, shipment: &Shipment) -> bool {
    let Shipment { range, body, .. } = shipment;
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

#[cfg(test)]
mod tests {
    use super::super::voice::{Session, Voice};
    use super::*;
    use crate::store::testing::{Bench, at, put, spoil};

    const FIRST: SegmentSeq = SegmentSeq(1);

    fn backlog(store: &Store, cut: Cut) -> Action {
        Action::Send {
            store: store.uuid(),
            at: FIRST,
            purpose: Purpose::Backlog,
            catalog: store.catalog_version(),
            cut,
        }
    }

    fn snapshot(store: &Store, cut: Cut) -> Action {
        let within = SeqRange { first: FIRST, last: FIRST };
        Action::Copy { store: store.uuid(), within, catalog: store.catalog_version(), cut }
    }

    /// A segment that goes out in pieces is read from the file and checked once, for the first of them: no look at its body
    /// after that would find it whole, and all of it arrives. So does one of a snapshot. (It was read, checked and, for a
    /// snapshot, decoded for each piece: one of 120 KiB on a thin link a hundred times.)
    #[test]
    fn a_segment_in_pieces_is_read_once() {
        for next in [backlog, snapshot] {
            let bench = Bench::new();
            let mut store = bench.open_calm();
            put(&mut store, 100, 200, 0).expect("a commit");
            let body = store.body(store.uuid(), FIRST).expect("read").expect("there").1;
            let mut voice = Voice::new("p", "pump", Session { number: 5, run: 1 }, 1024);
            let mut assembler = wire::Assembler::new(wire::AssemblerLimits::default());
            let (mut cut, mut pieces) = (Cut { payload_bytes: 1024, whole: false, rest: None }, 0);
            let whole = loop {
                let action = next(&store, cut);
                let asked = Asked { now: at(900), nonce: 1, page_bytes: 900, begun: voice.begun(&action) };
                let found = find(&mut store, action, asked).expect("found");
                let answer = voice.answer(found, at(900));
                let payload = answer.messages().next().expect("a message").payload;
                let frame = wire::decode::<wire::SegmentFrame<'_>>(&payload).expect("a frame");
                pieces += 1;
                if let Some(whole) = assembler.accept("pump", frame).expect("it adds up") {
                    break whole.body.into_owned();
                }
                let (Event::Piece(rest) | Event::CopyPiece(rest)) = answer.after else { panic!("{:?}", answer.after) };
                cut.rest = Some(rest);
                spoil(&store, FIRST);
            };
            assert!(pieces > 5, "{pieces} pieces");
            assert_eq!(whole, body);
            assert!(voice.begun(&next(&store, cut)).is_none(), "it is let go with its last piece");
        }
    }
}
