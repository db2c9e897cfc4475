//! What the uplink does next: a machine without I/O.
//!
//! What enters: [`Event`]s and the time. What leaves: one [`Action`] at a time, from [`Machine::next`]; whoever performs
//! it reports the outcome as an event before asking again.
//!
//! ```text
//!          Connected                 /ack came, or 5 s                     Disconnected
//!  Down ──────────────► Waiting ───────────────────────► Open ─────────────────────────────► Down
//!             birth, catalogue            segments, as the window allows
//! ```
//!
//! Rules that hold at every moment:
//! - The ack is the only truth. It states what the fleet holds, and may shrink; a broker's PUBACK means nothing.
//! - A catalogue page goes out before the segments that cite it, and a state that begins a recheck before those that it is
//!   about; [`LEAD_NS`] before, since a broker may let messages of one topic overtake those of another.
//! - A store whose numbers the fleet has seen used otherwise (a rolled-back file, a clone) is written to no more: a fresh
//!   id is taken, and the old store is *rechecked*: all of it is sent again, and only what the fleet has verified since
//!   counts as acknowledged.
//! - New readings first, each class within its share of the window; nothing goes faster than the link, the rate limit and
//!   the budgets allow, and nothing but new readings goes in more than one message at a time.
//! - While the fleet asks for a pause no segment goes out; it ends with the connection, or after an hour.
//! - Bounded: [`MAX_STORES`](crate::wire::MAX_STORES) stores, one page of heads a lane, [`MAX_RANGES`](crate::wire::MAX_RANGES) wanted ranges, one snapshot.

mod acks;
mod catalog;
mod choice;
mod due;
mod event;
mod outcome;
mod plan;
mod snapshot;

pub use event::{Action, Cut, Doubt, Event, Line, Purpose, Rest, Told};

use super::flights::{Flights, Window};
use super::lane::Head;
use super::pace::{Figures, Outlook, Pace};
use crate::clock::{BootNanos, SECOND};
use crate::config::{BacklogOrder, PaceConfig};
use crate::reading::SeqRange;
use crate::wire::{Ack, StoreUuid};
use catalog::Catalog;
use due::Due;
use plan::Plan;
use snapshot::Snapshot;
use std::collections::VecDeque;
use std::time::Duration;

/// How long the retained ack may take after a connection before segments go out without it.
pub const ACK_PATIENCE_NS: i64 = 5 * SECOND;

/// The least time between two states whose stores or rechecks differ.
pub const STATE_NS: i64 = 10 * SECOND;

/// The least time between two states that differ in figures only.
pub const FIGURES_NS: i64 = 60 * SECOND;

/// The same where bytes are paid for.
pub const METERED_FIGURES_NS: i64 = 600 * SECOND;

/// What must be known before a segment is understood goes out this much earlier. A broker that keeps a log per topic, as the
/// fleet's embedded one does, hands them on within milliseconds of each other but not in order.
pub const LEAD_NS: i64 = SECOND / 5;

/// The least time between two publications of the whole catalogue that the fleet asks for.
pub const CATALOG_NS: i64 = 10 * SECOND;

/// How long after a failure of the store it is asked again.
pub const STORE_PAUSE_NS: i64 = 30 * SECOND;

/// How often the store is looked at without a cause, lest one be missed.
pub const LOOK_NS: i64 = 60 * SECOND;

/// A message of so many bytes never waits for its turn.
const SMALL: usize = 1024;

/// The longest that the fleet may ask for silence.
pub const PAUSE_NS: i64 = 3600 * SECOND;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Down,
    /// There is one; the ack is awaited until then.
    Waiting {
        /// The end of patience.
        until: BootNanos,
    },
    /// Segments may go.
    Open,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    standing: Standing,
    plans: Vec<Plan>,
    flights: Flights,
    pace: Pace,
    order: BacklogOrder,
    /// A segment of which some messages went out.
    rest: Option<Rest>,
    wanted: VecDeque<(StoreUuid, SeqRange)>,
    snapshot: Option<Snapshot>,
    snapshot_every_ns: Option<i64>,
    next_snapshot: Option<BootNanos>,
    /// The number of the last snapshot that nobody asked for.
    own_nonce: u64,
    /// Things for the store that an ack brought about; at most two a store.
    todo: VecDeque<Action>,
    /// The one of them that is being performed: if the store fails, it is still to be done.
    doing: Option<Action>,
    look: Due,
    state: Due,
    figures: Due,
    catalog: Catalog,
    /// Segments wait until then for what went out before them.
    held_until: Option<BootNanos>,
    /// The next stores read mark where the backlog ends.
    mark_live: bool,
    /// The last ack of this connection, for stores that turn up after it.
    ack: Option<Ack>,
    paused_until: Option<BootNanos>,
    /// The fleet has asked for no segments until then.
    silent_until: Option<BootNanos>,
    /// A segment, or a state, was held back by its cost: when it is worth asking again.
    slowed_until: Option<BootNanos>,
    unaffordable_until: Option<BootNanos>,
}

impl Machine {
    /// One without a connection that knows of no store.
    pub fn new(snapshot_every: Option<Duration>, now: BootNanos) -> Self {
        let snapshot_every_ns = snapshot_every.map(|every| i64::try_from(every.as_nanos()).unwrap_or(i64::MAX));
        Self {
            standing: Standing::Down,
            plans: Vec::new(),
            flights: Flights::default(),
            pace: Pace::default(),
            order: BacklogOrder::Oldest,
            rest: None,
            wanted: VecDeque::new(),
            snapshot: None,
            snapshot_every_ns,
            next_snapshot: snapshot_every_ns.map(|every| BootNanos(now.0.saturating_add(every))),
            own_nonce: 0,
            todo: VecDeque::new(),
            doing: None,
            look: Due { wanted: true, ..Due::default() },
            state: Due::default(),
            figures: Due::default(),
            catalog: Catalog::default(),
            held_until: None,
            mark_live: false,
            ack: None,
            paused_until: None,
            silent_until: None,
            slowed_until: None,
            unaffordable_until: None,
        }
    }

    /// Numbers its own snapshots from `nonce` on, which should be as good as unique.
    pub fn numbered_from(self, nonce: u64) -> Self {
        Self { own_nonce: nonce, ..self }
    }

    /// The same within what is configured; a message has at most `max_payload_bytes`.
    #[must_use]
    pub fn paced(self, config: PaceConfig, max_payload_bytes: usize, tls: bool, now: BootNanos) -> Self {
        let limit =
            Window { segments: usize::from(config.max_in_flight), bytes: u64::from(config.max_in_flight_bytes) };
        let pace = Pace::new(config, max_payload_bytes, tls, now);
        Self { flights: Flights::new(limit), pace, order: config.backlog, ..self }
    }

    /// Goes on with the account of traffic that an earlier run has saved; false for a text that is none.
    #[must_use]
    pub fn resume_account(&mut self, text: &str) -> bool {
        self.pace.resume(text)
    }

    /// The account of traffic where it is time to save it, with the next commit.
    pub fn account_to_save(&mut self) -> Option<String> {
        self.pace.save()
    }

    /// The account of traffic at a clean end.
    pub fn last_account(&self) -> String {
        self.pace.last_word()
    }

    /// The next thing to do at `now`, or `None` until something happens or [`Machine::wake_at`] has come.
    pub fn next(&mut self, now: BootNanos) -> Option<Action> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        (self.slowed_until, self.unaffordable_until) = (None, None);
        self.silent_until = self.silent_until.filter(|until| now < *until);
        self.held_until = self.held_until.filter(|until| now < *until);
        if self.look.wanted || self.look.last.is_none_or(|last| now.0 - last.0 >= LOOK_NS) {
            self.look.done(now);
            return Some(Action::ReadStores);
        }
        if let Some(action) = self.todo.pop_front() {
            self.doing = Some(action.clone());
            return Some(action);
        }
        match self.standing {
            Standing::Down => None,
            Standing::Waiting { until } if now < until => self.announcement(now),
            Standing::Waiting { .. } => {
                self.standing = Standing::Open;
                self.next(now)
            }
            Standing::Open => {
                let held = self.held_until.is_some() || self.silent_until.is_some();
                self.announcement(now).or_else(|| if held { None } else { self.segment(now) })
            }
        }
    }

    /// When [`Machine::next`] is worth asking again though nothing happened.
    pub fn wake_at(&self) -> BootNanos {
        if let Some(until) = self.paused_until {
            return until;
        }
        let look = self.look.last.map(|last| BootNanos(last.0 + LOOK_NS));
        // What was held back is due all the time, and worth asking for only then.
        let small =
            || self.unaffordable_until.or_else(|| self.state_when().into_iter().chain(self.catalog.when()).min());
        let connected = match self.standing {
            Standing::Down => [None; 2],
            Standing::Waiting { until } => [Some(until), small()],
            Standing::Open => {
                let idle = self.snapshot.is_none();
                let snapshot = self.next_snapshot.filter(|_| idle);
                let segments = || self.flights.next_due().into_iter().chain(snapshot).min();
                let held = self.held_until.max(self.silent_until);
                [small(), held.or(self.slowed_until).or_else(segments)]
            }
        };
        connected.into_iter().chain([look]).flatten().min().unwrap_or_default()
    }

    /// Whether what is on the way leaves room for a message of `bytes`: a page, or the next piece of new readings. A small one
    /// never waits for its turn.
    pub fn has_room(&self, bytes: usize, now: BootNanos) -> bool {
        bytes <= SMALL || self.pace.has_room(bytes as u64, now)
    }

    /// Bytes on the wire and the rate of the link, for `status`.
    pub fn figures(&self) -> Figures {
        self.pace.figures()
    }

    /// What the time to drain follows from.
    pub fn outlook(&self) -> Outlook {
        self.pace.outlook()
    }

    #[cfg(test)]
    fn sends_segments(&self) -> bool {
        self.standing == Standing::Open && self.silent_until.is_none()
    }

    /// Until when the fleet has asked for no segments.
    pub fn silent_until(&self) -> Option<BootNanos> {
        self.silent_until
    }

    /// What was sent and is not acknowledged: compaction leaves it alone, lest it be sent twice in two shapes.
    pub fn in_flight(&self) -> Vec<(StoreUuid, SeqRange)> {
        let begun = self.rest.into_iter().chain(self.copying()).map(|rest| (rest.store, rest.range));
        self.flights.ranges().into_iter().chain(begun).collect()
    }

    /// Segments and bytes that take a place in the window.
    #[cfg(test)]
    pub(crate) fn window(&self) -> (usize, u64) {
        self.flights.window()
    }

    /// Where the connection stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Something happened.
    pub fn on(&mut self, event: Event, now: BootNanos) {
        match event {
            Event::Connected => self.connected(now),
            Event::Disconnected | Event::NotPublished => self.disconnected(now),
            Event::Ack(ack) => self.on_ack(ack),
            Event::Request(request) => self.requested(request, now),
            Event::Committed => {
                self.look.wanted = true;
                self.figures.wanted = true;
            }
            Event::Stores { lines, catalog } => self.stores(lines, catalog),
            Event::Heads { store, purpose, after, heads } => self.heads(store, purpose, after, &heads),
            Event::Newest { store, before, heads } => self.heads(store, Purpose::Backlog, before, &heads),
            Event::Piece(rest) => {
                self.committed_to(rest.store, rest.range.last);
                self.rest = Some(rest);
            }
            Event::Sent { store, range, bytes, purpose } => self.sent(store, range, bytes, purpose, now),
            Event::Missing { store, at, purpose } => self.missing(store, at, purpose),
            Event::CopyPiece(rest) => self.copy_begun(rest),
            Event::Copied { store, within, told } => self.copied(store, within, told),
            Event::AccountPublished(account) => self.account_published(&account),
            Event::CatalogChanged { catalog } => self.catalog.is(catalog),
            Event::CatalogPublished { catalog, all } => self.catalog_published(catalog, all, now),
            Event::Stating(highs) => highs.into_iter().for_each(|(store, high)| self.committed_to(store, high)),
            Event::StatePublished => self.state_published(now),
            Event::Gone { store, through } => self.gone(store, through),
            Event::AckedSet => {
                self.doing = None;
                self.figures.wanted = true;
            }
            Event::Rechecking { store, nonce } => self.rechecking(store, nonce),
            Event::StoreFailed => self.store_failed(now),
            Event::Time(now) => self.pace.time(now),
            Event::Published { bytes, begun } => self.pace.published(bytes, begun, now),
            Event::Passed => self.pace.passed(now),
            Event::Arrived { bytes } => self.pace.arrived(bytes),
        }
    }

    /// The plan of `store`, if that is in the file.
    fn plan(&mut self, store: StoreUuid) -> Option<&mut Plan> {
        self.plans.iter_mut().find(|plan| plan.line.store == store)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod thin;
