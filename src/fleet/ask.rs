//! What an operator asks of a device, written down for the receiver to put to it.
//!
//! What enters: the data folder, the device, what is wanted. What leaves: the number of the request, and how it stands. It works
//! beside a running receiver, or while there is none, and whether or not the device is there.

use super::replica::account;
use super::replica::retrievals::{Added, Question, Standing};
use super::replica::roster::{self, Entry, Roster};
use super::retrieval::What;
use super::shelf::Shelf;
use super::{FleetError, report};
use crate::clock::UtcNanos;
use crate::reading::SeqRange;
use crate::wire::{State, StoreState, StoreUuid, decode};
use std::path::Path;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Everything.
    Snapshot,
    /// A range of this store, or of the one that the device writes to.
    Range(SeqRange, Option<StoreUuid>),
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its number.
    pub request: i64,
    /// The same was under way already.
    pub known: bool,
    /// Whether the device is there, as far as the receiver knows.
    pub online: bool,
}

/// Asks `device`; `nonce` is a random number, `now` the moment.
///
/// # Errors
/// The device, its store or the range is not known, too much is under way, or the roster can't be written.
pub fn ask(data: &Path, device: &str, wanted: Wanted, nonce: u64, now: UtcNanos) -> Result<Asked, FleetError> {
    let (shelf, entry) = known(data, device)?;
    let what = match wanted {
        Wanted::Snapshot => What::Snapshot,
        Wanted::Range(range, store) => range_of(&shelf, device, range, store, &entry)?,
    };
    let question = Question { device, nonce, what, asked: now, by_device: false };
    let (request, known) = match open(data)?.ask(&question)? {
        Added::New(id) => (id, false),
        Added::Same(id) => (id, true),
        Added::TooMany => return Err(FleetError::TooManyRequests { device: device.to_owned() }),
    };
    Ok(Asked { request, known, online: entry.online })
}

/// Ends all that was asked of `device` and is under way; how many requests that were. The receiver asks for no more of them; what
/// the device has begun to send comes to its end, and is filed as ever.
///
/// # Errors
/// The device is not known, or the roster can't be written.
pub fn cancel(data: &Path, device: &str, now: UtcNanos) -> Result<usize, FleetError> {
    known(data, device)?;
    Ok(open(data)?.cancel(device, now)?)
}

fn known(data: &Path, device: &str) -> Result<(Shelf, Entry), FleetError> {
    let shelf = report::shelf(data)?;
    let entry = roster::read(data)?.0.remove(device);
    if entry.is_none() && shelf.stores_of(device).next().is_none() {
        return Err(FleetError::NoDevice { device: device.to_owned() });
    }
    Ok((shelf, entry.unwrap_or_default()))
}

fn open(data: &Path) -> Result<Roster, FleetError> {
    Roster::open_beside(data)?.ok_or_else(|| FleetError::NoRoster { data: data.to_owned() })
}

/// How a request stands; `None` where it is no longer remembered.
///
/// # Errors
/// The roster can't be read.
pub fn look(data: &Path, request: i64) -> Result<Option<Standing>, FleetError> {
    Ok(roster::read(data)?.1.into_iter().find(|standing| standing.retrieval.id == request))
}

fn range_of(
    shelf: &Shelf,
    device: &str,
    range: SeqRange,
    store: Option<StoreUuid>,
    entry: &Entry,
) -> Result<What, FleetError> {
    let state: Option<State> = entry.state.as_deref().and_then(|payload| decode(payload).ok());
    let said: &[StoreState] = state.as_ref().map(|state| state.stores.as_slice()).unwrap_or_default();
    let Some(store) = store.or(said.first().map(|said| said.store)) else {
        return Err(FleetError::BadRequest(format!(
            "{device} has not said yet which store it writes to; wait until it is there, or name a store with --store"
        )));
    };
    let stated = said.iter().find(|said| said.store == store).map(|said| said.high);
    if stated.is_none() && !shelf.has(device, store) {
        return Err(FleetError::BadRequest(format!(
            "{device} has no store {store}; `varved-fleet devices` lists those that it has"
        )));
    }
    // What it said last may be a minute old, and what came since is in the replica.
    let held = shelf.path_of(store).filter(|path| path.exists());
    let held = held.map(|path| account::high(&path)).transpose()?;
    let high = stated.into_iter().chain(held).max().unwrap_or_default();
    if high < range.first {
        return Err(FleetError::BadRequest(format!(
            "store {store} of {device} has numbers up to {high} as far as is known; ask for a range below that, or later"
        )));
    }
    Ok(What::Range(store, range))
}
