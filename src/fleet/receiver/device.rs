//! What the receiver believes of one device between messages: its session, its stores, and when it was last asked.
//!
//! What enters: states, definitions, what is held. What leaves: which stores an ack names, which gaps are asked for and
//! when. Pure.

use super::notices::printable;
use crate::clock::{BootNanos, SECOND, UtcNanos};
use crate::fleet::presence::{Heard, Presence, Said};
use crate::fleet::replica::Known;
use crate::fleet::replica::roster::Entry;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::{CatalogPage, MAX_RANGES, Request, State, StoreState, StoreUuid, decode};
use std::collections::BTreeMap;

/// A gap is asked for once it has stood this long, and again after as long: what is on its way needs no asking.
const GAP_PATIENCE: i64 = 60 * SECOND;

/// That doubles up to this where nothing comes of it: a device that may send no more today pays for each question.
const MAX_GAP_PATIENCE: i64 = 3600 * SECOND;

/// How often a device is asked for its catalogue at most.
const CATALOG_PATIENCE: i64 = 10 * SECOND;

/// Stores that are followed for one device; the least of them are forgotten, which costs asking again.
const MAX_FOLLOWED: usize = 64;

/// The most pieces of what is known of a device's definitions, over all its stores: ids in a row are one. A store with every
/// other id of all that it may have still fits. Where there are more, those of other stores are forgotten, which costs asking
/// again.
pub(super) const MAX_KNOWN_PIECES: usize = 131_072;

/// See the room.
#[derive(Default)]
pub(super) struct Device {
    pub(super) entry: Entry,
    presence: Presence,
    state: Option<State>,
    stores: BTreeMap<StoreUuid, Brought>,
    catalog_asked: Option<BootNanos>,
    /// When it last began a snapshot of its own accord.
    own_snapshot: Option<BootNanos>,
    /// Times that it said other than what is held, since the receiver started.
    conflicts: u64,
}

/// What is believed of one store of a device.
#[derive(Default)]
pub(super) struct Brought {
    /// Definitions that the device has stated since the receiver started.
    pub(super) known: Known,
    /// While the device compares: its number.
    pub(super) recheck: Option<u64>,
    gaps: RangeSet,
    gaps_since: Option<BootNanos>,
    gaps_asked: Option<BootNanos>,
    /// What was asked for then,
    asked_for: RangeSet,
    /// and whether all of it has come.
    answered: bool,
    /// How long the next question has to wait after that one; 0 as long as none came to nothing.
    patience: i64,
}

impl Brought {
    fn gaps_are_due(&self, now: BootNanos) -> bool {
        let stood = self.gaps_since.is_some_and(|since| elapsed(since, now) >= GAP_PATIENCE);
        let rested = self.gaps_asked.is_none_or(|asked| elapsed(asked, now) >= self.patience.max(GAP_PATIENCE));
        stood && (rested || self.answered)
    }
}

impl Device {
    /// What was remembered over a restart. The definitions it stated are not: they are asked for.
    pub(super) fn restored(entry: Entry) -> Self {
        let state: Option<State> = entry.state.as_deref().and_then(|payload| decode(payload).ok());
        let said = state.as_ref().map_or(UtcNanos(0), |state| state.utc);
        let presence = Presence::known(entry.online, entry.session, entry.run, said, &entry.former);
        let mut device = Self { entry, presence, ..Self::default() };
        if let Some(state) = state {
            device.follow(&state.stores);
            device.state = Some(state);
        }
        device
    }

    /// Whether a state counts; if so, the session is what it says.
    pub(super) fn hear(&mut self, state: &State) -> Heard {
        let State { online, session, run, utc, .. } = *state;
        let heard = self.presence.hear(Said { online, session, run, utc });
        self.entry.online = self.presence.online;
        self.entry.session = self.presence.session;
        self.entry.run = self.presence.run;
        self.entry.former = self.presence.former().collect();
        heard
    }

    /// What to say where `state` is of one device of this name and the state before was of another.
    pub(super) fn contest(&self, state: &State, times: u32) -> String {
        let who = |state: &State| {
            let store = state.stores.first().map_or_else(|| "none".to_owned(), |said| said.store.to_string());
            format!("run {} of version {} with store {store}", state.run, printable(&state.version))
        };
        let other = self.state.as_ref().map_or_else(|| "one that has said nothing".to_owned(), who);
        format!(
            "two devices have this name and take turns at the broker ({times} times so far): {}, and {other}; give each its \
             own `device`",
            who(state)
        )
    }

    /// Whether a snapshot that it begins of its own accord counts; if so, the next one does not for `pause`.
    pub(super) fn may_begin_a_snapshot(&mut self, now: BootNanos, pause: i64) -> bool {
        let may = self.own_snapshot.is_none_or(|then| now.0.saturating_sub(then.0) >= pause);
        if may {
            self.own_snapshot = Some(now);
        }
        may
    }

    /// How often it has said other than what is held, this time included.
    pub(super) fn count_conflict(&mut self) -> u64 {
        self.conflicts = self.conflicts.saturating_add(1);
        self.conflicts
    }

    /// Takes `state` for what is.
    pub(super) fn believe(&mut self, state: State, payload: &[u8]) {
        self.follow(&state.stores);
        self.entry.state = Some(payload.to_vec());
        self.state = Some(state);
    }

    /// What is believed of `store`, if anything is.
    pub(super) fn has_brought(&self, store: StoreUuid) -> Option<&Brought> {
        self.stores.get(&store)
    }

    /// What is believed of `store`, beginning with nothing.
    pub(super) fn brought(&mut self, store: StoreUuid) -> &mut Brought {
        if !self.stores.contains_key(&store) && self.stores.len() >= MAX_FOLLOWED {
            let told = self.state.as_ref().map(|s| s.stores.as_slice()).unwrap_or_default();
            let idle = self.stores.keys().find(|id| told.iter().all(|s| s.store != **id)).copied();
            if let Some(idle) = idle {
                self.stores.remove(&idle);
            }
        }
        self.stores.entry(store).or_default()
    }

    /// Takes in that the device stated the definitions of `page`.
    pub(super) fn learn(&mut self, page: &CatalogPage) {
        self.brought(page.store).known.learn(page);
        while self.known_pieces() > MAX_KNOWN_PIECES {
            let others =
                self.stores.iter_mut().filter(|(id, brought)| **id != page.store && brought.known.pieces() > 0);
            let Some((_, most)) = others.max_by_key(|(_, brought)| brought.known.pieces()) else { return };
            most.known = Known::default();
        }
    }

    /// What is known of its definitions, in pieces.
    pub(super) fn known_pieces(&self) -> usize {
        self.stores.values().map(|brought| brought.known.pieces()).sum()
    }

    /// Drops what is believed of `store`, but for what the device compares.
    pub(super) fn forget(&mut self, store: StoreUuid) {
        if let Some(brought) = self.stores.get_mut(&store) {
            *brought = Brought { recheck: brought.recheck, ..Brought::default() };
        }
    }

    /// The stores that an ack is for: those in the device's file as it said, the current one first, then what it sent.
    pub(super) fn stores_to_tell(&self) -> Vec<StoreUuid> {
        let told = self.state.as_ref().map(|s| s.stores.as_slice()).unwrap_or_default();
        let mut stores: Vec<StoreUuid> = told.iter().map(|s| s.store).collect();
        stores.extend(self.stores.keys().filter(|id| told.iter().all(|s| s.store != **id)));
        stores
    }

    /// Whether any of its states counted, so that the stores in its file are known.
    pub(super) fn has_stated(&self) -> bool {
        self.state.is_some()
    }

    /// Compares what is held with what the device said: a gap is neither held (readings or an account of their loss) nor
    /// pending. Whether there is one.
    pub(super) fn find_gaps(&mut self, store: StoreUuid, held: &RangeSet, now: BootNanos) -> bool {
        let said = self.state.as_ref().and_then(|state| state.stores.iter().find(|s| s.store == store));
        let gaps = said.filter(|s| s.recheck.is_none()).map(|s| gaps(s, held)).unwrap_or_default();
        let brought = self.brought(store);
        brought.gaps_since = if gaps.is_empty() { None } else { brought.gaps_since.or(Some(now)) };
        if gaps != brought.gaps {
            brought.patience = 0;
            brought.answered = brought.asked_for.common(&gaps).is_empty();
        }
        brought.gaps = gaps;
        !brought.gaps.is_empty()
    }

    /// The request for the gaps of `store`, if it is time for one: for as many as fit, and for the next as soon as all of
    /// those have closed.
    pub(super) fn ask_for_gaps(&mut self, store: StoreUuid, now: BootNanos) -> Option<Request> {
        let online = self.entry.online;
        let brought = self.stores.get_mut(&store).filter(|brought| online && brought.gaps_are_due(now))?;
        brought.gaps_asked = Some(now);
        let ranges: Vec<SeqRange> = brought.gaps.iter().take(MAX_RANGES).collect();
        brought.asked_for = ranges.iter().copied().collect();
        brought.answered = false;
        // At first as long as a gap has to stand.
        brought.patience = (2 * brought.patience).clamp(GAP_PATIENCE, MAX_GAP_PATIENCE);
        Some(Request::Segments { store, ranges })
    }

    /// The stores in the device's file whose gaps it is time to ask for, whether or not it says anything.
    pub(super) fn stores_with_gaps_due(&self, now: BootNanos) -> impl Iterator<Item = StoreUuid> + '_ {
        let due = move |store: &StoreUuid| self.stores.get(store).is_some_and(|brought| brought.gaps_are_due(now));
        let state = self.state.as_ref().filter(|_| self.entry.online);
        state.into_iter().flat_map(|state| &state.stores).map(|said| said.store).filter(due)
    }

    /// A session of the device begins: what it was asked for before it has forgotten.
    pub(super) fn ask_anew(&mut self) {
        self.stores.values_mut().for_each(|brought| brought.patience = 0);
    }

    /// Whether the device may be asked for its catalogue now; if so, it is taken as asked.
    pub(super) fn may_ask_for_catalog(&mut self, now: BootNanos) -> bool {
        let rested = self.catalog_asked.is_none_or(|asked| elapsed(asked, now) >= CATALOG_PATIENCE);
        if rested {
            self.catalog_asked = Some(now);
        }
        rested
    }

    fn follow(&mut self, stores: &[StoreState]) {
        for said in stores {
            self.brought(said.store).recheck = said.recheck;
        }
    }
}

/// Numbers up to the highest committed that the device neither holds unacknowledged nor we hold.
pub(in crate::fleet) fn gaps(said: &StoreState, held: &RangeSet) -> RangeSet {
    let Some(all) = SeqRange::new(1, said.high.0) else { return RangeSet::new() };
    let mut gaps = held.gaps(all);
    said.pending.iter().for_each(|range| gaps.remove(*range));
    gaps
}

fn elapsed(since: BootNanos, now: BootNanos) -> i64 {
    now.0.saturating_sub(since.0)
}
