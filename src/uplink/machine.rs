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
//! - A catalogue page goes out before the segments that cite it.
//! - A store whose numbers the fleet has seen used otherwise (a rolled-back file, a clone) is written to no more: a fresh
//!   id is taken, and the old store is *rechecked*: all of it is sent again, and only what the fleet has verified since
//!   counts as acknowledged.
//! - New readings first, within a share of the window; the backlog has the rest.
//! - Bounded: [`wire::MAX_STORES`] stores, one page of heads a lane, [`wire::MAX_RANGES`] wanted ranges, one snapshot.

use super::flights::{Flights, WINDOW};
use super::lane::{Head, Lane, PAGE, Want};
use super::ranges;
use crate::clock::{BootNanos, SECOND};
use crate::reading::{SegmentSeq, SeqRange};
use crate::wire::{self, Ack, Request, StoreAck, StoreUuid};
use std::collections::VecDeque;
use std::time::Duration;

/// How long the retained ack may take after a connection before segments go out without it.
pub const ACK_PATIENCE_NS: i64 = 5 * SECOND;

/// The least time between two states whose stores or rechecks differ.
pub const STATE_NS: i64 = 10 * SECOND;

/// The least time between two states that differ in figures only.
pub const FIGURES_NS: i64 = 60 * SECOND;

/// The least time between two publications of the whole catalogue.
pub const CATALOG_NS: i64 = 10 * SECOND;

/// How long after a failure of the store it is asked again.
pub const STORE_PAUSE_NS: i64 = 30 * SECOND;

/// How often the store is looked at without a cause, lest one be missed.
pub const LOOK_NS: i64 = 60 * SECOND;

/// Places of the window that new readings leave to the backlog.
const BACKLOG_SHARE: usize = 2;

/// How often a broken connection takes a snapshot back to the beginning of the store it was in.
const SNAPSHOT_RESTARTS: u32 = 3;

/// A store in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub store: StoreUuid,
    /// Whether commits go there.
    pub current: bool,
    /// The highest sequence number committed.
    pub high: SegmentSeq,
    /// Set while it is rechecked.
    pub recheck: Option<u64>,
}

/// Why a segment is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is pending, and new since the connection.
    Live,
    /// It is pending.
    Backlog,
    /// It was sent, and no ack came.
    Again,
    /// The fleet asked for it.
    Wanted,
    /// It is part of a snapshot.
    Snapshot,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker answers and the subscriptions stand.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// An ack came.
    Ack(Ack),
    /// A request came.
    Request(Request),
    /// The store committed something.
    Committed,
    /// Answer to [`Action::ReadStores`].
    Stores {
        /// The current one first.
        lines: Vec<Line>,
        /// Changes whenever a catalogue page would.
        catalog: u64,
    },
    /// Answer to [`Action::ReadHeads`], with its fields.
    Heads {
        /// Whose.
        store: StoreUuid,
        /// Which lane.
        purpose: Purpose,
        /// After which sequence number.
        after: SegmentSeq,
        /// At most as many as were asked for; fewer where there are no more.
        heads: Vec<Head>,
    },
    /// Answer to [`Action::Send`]: the broker's client took all of it.
    Sent {
        /// Whose.
        store: StoreUuid,
        /// What was sent: it covers what was asked for, and more where it has been compacted since.
        range: SeqRange,
        /// Length of its body.
        bytes: u64,
        /// As asked.
        purpose: Purpose,
    },
    /// Answer to [`Action::Send`]: the store holds nothing that covers `at`, or it cannot be put in frames.
    Missing {
        /// Whose.
        store: StoreUuid,
        /// As asked.
        at: SegmentSeq,
        /// As asked.
        purpose: Purpose,
    },
    /// Answer to [`Action::Send`]: the catalogue has changed since it was published; nothing was sent.
    CatalogChanged {
        /// Its version.
        catalog: u64,
    },
    /// Answer to [`Action::PublishCatalog`]: all that was due is out.
    CatalogPublished {
        /// Its version.
        catalog: u64,
        /// Whether every page went out.
        all: bool,
    },
    /// Answer to [`Action::PublishState`].
    StatePublished,
    /// Answer to [`Action::RecordGone`]: everything of what was asked for up to here is held, or is a loss now.
    Gone {
        /// Whose.
        store: StoreUuid,
        /// Inclusive.
        through: SegmentSeq,
    },
    /// Answer to [`Action::SetAcked`].
    AckedSet,
    /// Answer to [`Action::Recheck`].
    Rechecking {
        /// The store that is rechecked now.
        store: StoreUuid,
        /// The number that the fleet answers with.
        nonce: u64,
    },
    /// A publish was not taken: the connection ended.
    NotPublished,
    /// The store could not do what was asked.
    StoreFailed,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read which stores there are, and the catalogue's version.
    ReadStores,
    /// Read heads of segments of `store` above `after`, ascending: those pending, for [`Purpose::Snapshot`] all.
    ReadHeads {
        /// Whose.
        store: StoreUuid,
        /// For the answer.
        purpose: Purpose,
        /// Above this.
        after: SegmentSeq,
        /// At most so many.
        limit: usize,
    },
    /// Send the segment that covers `at`, unless the catalogue's version is no longer `catalog`.
    Send {
        /// Whose.
        store: StoreUuid,
        /// Any of its numbers.
        at: SegmentSeq,
        /// For the answer.
        purpose: Purpose,
        /// The version that was published.
        catalog: u64,
    },
    /// Publish the catalogue: the pages that differ from what was published, or all.
    PublishCatalog {
        /// Whether all.
        all: bool,
    },
    /// Publish the state, as the store has it.
    PublishState,
    /// Tell the store what the fleet holds of `store`: this and nothing else.
    SetAcked {
        /// Of which.
        store: StoreUuid,
        /// Ascending, disjoint.
        ranges: Vec<SeqRange>,
    },
    /// Write down a loss for what is not held at the beginning of `range`.
    RecordGone {
        /// Whose.
        store: StoreUuid,
        /// What was asked for.
        range: SeqRange,
    },
    /// Set a recheck of `store` that survives a restart, forget its acks and, where it is current, take a fresh id.
    Recheck {
        /// Which.
        store: StoreUuid,
        /// For the event log.
        why: Doubt,
    },
}

/// Why the fleet's account and ours of one store cannot both be of the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The fleet has seen numbers that we have not used yet: the file was rolled back, or has a twin.
    RolledBack {
        /// Our highest.
        ours: SegmentSeq,
        /// The fleet's highest.
        fleet: SegmentSeq,
    },
    /// A range came to the fleet with two contents.
    Conflict {
        /// The first such range.
        range: SeqRange,
    },
}

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

#[derive(Debug)]
struct Plan {
    line: Line,
    /// What the fleet last said that it holds; `None` until it has said anything.
    acked: Option<Vec<SeqRange>>,
    live: Lane,
    backlog: Lane,
    /// A recheck has been asked for and is not set yet: nothing of this store is sent meanwhile.
    doubted: bool,
}

impl Plan {
    /// Everything up to `live_from` is backlog.
    fn new(line: Line, live_from: SegmentSeq) -> Self {
        let (live, backlog) = Self::lanes(live_from);
        Self { line, acked: None, live, backlog, doubted: false }
    }

    fn lanes(live_from: SegmentSeq) -> (Lane, Lane) {
        (Lane::new(live_from, None), Lane::new(SegmentSeq(0), Some(live_from)))
    }

    /// Sending begins anew; what is pending now is backlog.
    fn restart(&mut self) {
        (self.live, self.backlog) = Self::lanes(self.line.high);
    }

    fn lane(&mut self, purpose: Purpose) -> &mut Lane {
        if purpose == Purpose::Live { &mut self.live } else { &mut self.backlog }
    }
}

#[derive(Debug)]
struct Snapshot {
    /// Those still to do, the one under way first.
    stores: VecDeque<StoreUuid>,
    lane: Lane,
    restarts: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    standing: Standing,
    plans: Vec<Plan>,
    flights: Flights,
    wanted: VecDeque<(StoreUuid, SeqRange)>,
    snapshot: Option<Snapshot>,
    snapshot_every_ns: Option<i64>,
    next_snapshot: Option<BootNanos>,
    /// Things for the store that an ack brought about; at most two a store.
    todo: VecDeque<Action>,
    look: Due,
    state: Due,
    figures: Due,
    catalog: Due,
    catalog_known: u64,
    catalog_published: Option<u64>,
    /// That which is known to have reached the broker: a segment that went out after it was acknowledged. A page that was
    /// taken for publication may have died with its connection.
    catalog_arrived: Option<u64>,
    /// The next stores read mark where the backlog ends.
    mark_live: bool,
    /// The last ack of this connection, for stores that turn up after it.
    ack: Option<Ack>,
    paused_until: Option<BootNanos>,
}

/// Something that is to be done, and not too often.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    wanted: bool,
    at_once: bool,
    last: Option<BootNanos>,
}

impl Due {
    fn at_once(&mut self) {
        self.wanted = true;
        self.at_once = true;
    }

    /// When, if at all, given the least time between two.
    fn when(&self, gap_ns: i64) -> Option<BootNanos> {
        let rested = self.last.filter(|_| !self.at_once).map_or(i64::MIN, |last| last.0.saturating_add(gap_ns));
        self.wanted.then_some(BootNanos(rested))
    }

    fn done(&mut self, now: BootNanos) {
        *self = Self { wanted: false, at_once: false, last: Some(now) };
    }
}

impl Machine {
    /// One without a connection that knows of no store.
    pub fn new(snapshot_every: Option<Duration>, now: BootNanos) -> Self {
        let snapshot_every_ns = snapshot_every.map(|every| i64::try_from(every.as_nanos()).unwrap_or(i64::MAX));
        Self {
            standing: Standing::Down,
            plans: Vec::new(),
            flights: Flights::default(),
            wanted: VecDeque::new(),
            snapshot: None,
            snapshot_every_ns,
            next_snapshot: snapshot_every_ns.map(|every| BootNanos(now.0.saturating_add(every))),
            todo: VecDeque::new(),
            look: Due { wanted: true, ..Due::default() },
            state: Due::default(),
            figures: Due::default(),
            catalog: Due::default(),
            catalog_known: 0,
            catalog_published: None,
            catalog_arrived: None,
            mark_live: false,
            ack: None,
            paused_until: None,
        }
    }

    /// The next thing to do at `now`, or `None` until something happens or [`Machine::wake_at`] has come.
    pub fn next(&mut self, now: BootNanos) -> Option<Action> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        if self.look.wanted || self.look.last.is_none_or(|last| now.0 - last.0 >= LOOK_NS) {
            self.look.done(now);
            return Some(Action::ReadStores);
        }
        if let Some(action) = self.todo.pop_front() {
            return Some(action);
        }
        match self.standing {
            Standing::Down => None,
            Standing::Waiting { until } if now < until => self.announcement(now),
            Standing::Waiting { .. } => {
                self.standing = Standing::Open;
                self.next(now)
            }
            Standing::Open => self.announcement(now).or_else(|| self.segment(now)),
        }
    }

    /// When [`Machine::next`] is worth asking again though nothing happened.
    pub fn wake_at(&self) -> BootNanos {
        if let Some(until) = self.paused_until {
            return until;
        }
        let look = self.look.last.map(|last| BootNanos(last.0 + LOOK_NS));
        let connected = match self.standing {
            Standing::Down => [None; 6],
            Standing::Waiting { until } => [Some(until), self.state_when(), self.catalog_when(), None, None, None],
            Standing::Open => {
                let idle = self.snapshot.is_none();
                let snapshot = self.next_snapshot.filter(|_| idle);
                [self.state_when(), self.catalog_when(), self.flights.next_due(), snapshot, None, None]
            }
        };
        connected.into_iter().chain([look]).flatten().min().unwrap_or_default()
    }

    /// What was sent and is not acknowledged: compaction leaves it alone, lest it be sent twice in two shapes.
    pub fn in_flight(&self) -> Vec<(StoreUuid, SeqRange)> {
        self.flights.ranges()
    }

    /// Where the connection stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Something happened.
    pub fn on(&mut self, event: Event, now: BootNanos) {
        match event {
            Event::Connected => self.connected(now),
            Event::Disconnected | Event::NotPublished => self.disconnected(),
            Event::Ack(ack) => self.on_ack(ack),
            Event::Request(request) => self.requested(request),
            Event::Committed => {
                self.look.wanted = true;
                self.figures.wanted = true;
            }
            Event::Stores { lines, catalog } => self.stores(lines, catalog),
            Event::Heads { store, purpose, after, heads } => self.heads(store, purpose, after, &heads),
            Event::Sent { store, range, bytes, purpose } => self.sent(store, range, bytes, purpose, now),
            Event::Missing { store, at, purpose } => self.missing(store, at, purpose),
            Event::CatalogChanged { catalog } => self.catalog_is(catalog),
            Event::CatalogPublished { catalog, all } => self.catalog_published(catalog, all, now),
            Event::StatePublished => {
                self.state.done(now);
                self.figures.done(now);
            }
            Event::Gone { store, through } => self.gone(store, through),
            Event::AckedSet => self.figures.wanted = true,
            Event::Rechecking { store, nonce } => self.rechecking(store, nonce),
            Event::StoreFailed => {
                self.paused_until = Some(BootNanos(now.0.saturating_add(STORE_PAUSE_NS)));
                self.look.wanted = true;
            }
        }
    }

    // What there is to do.

    /// State and catalogue: what must be known before segments are understood.
    fn announcement(&mut self, now: BootNanos) -> Option<Action> {
        if self.state_when().is_some_and(|when| when <= now) {
            return Some(Action::PublishState);
        }
        if self.catalog_when().is_some_and(|when| when <= now) {
            return Some(Action::PublishCatalog { all: self.catalog.wanted || self.catalog_published.is_none() });
        }
        None
    }

    fn state_when(&self) -> Option<BootNanos> {
        // Figures are part of every state, so their clock runs from the last one of either kind.
        self.state.when(STATE_NS).into_iter().chain(self.figures.when(FIGURES_NS)).min()
    }

    /// Changed pages at once, since segments wait for them; all of them not too often.
    fn catalog_when(&self) -> Option<BootNanos> {
        let changed = self.catalog_published != Some(self.catalog_known);
        changed.then_some(BootNanos(i64::MIN)).or_else(|| self.catalog.when(CATALOG_NS))
    }

    /// The policy: what was asked for again, then new readings within their share of the window, then what the fleet
    /// wants, then the backlog of the current store, then older stores, and a snapshot when all else rests.
    fn segment(&mut self, now: BootNanos) -> Option<Action> {
        if let Some((store, range)) = self.flights.due(now) {
            return Some(self.send(store, range.first, Purpose::Again));
        }
        self.new_readings().or_else(|| self.wanted()).or_else(|| self.backlog()).or_else(|| self.snapshot(now))
    }

    fn new_readings(&mut self) -> Option<Action> {
        let plan = self.plans.iter().find(|plan| plan.line.current && !plan.doubted)?;
        let (store, want) = (plan.line.store, plan.live.want());
        let backlog_waits = self.plans.iter().any(|plan| !plan.doubted && plan.backlog.want() != Want::Nothing);
        let mine = self.flights.count(store, |range| !plan.backlog_holds(range));
        let full = backlog_waits && mine >= WINDOW - BACKLOG_SHARE;
        if full { None } else { self.pending(store, want, Purpose::Live) }
    }

    fn backlog(&mut self) -> Option<Action> {
        let open = self.plans.iter().filter(|plan| !plan.doubted);
        let wants: Vec<_> = open.map(|plan| (plan.line.store, plan.backlog.want())).collect();
        let (store, want) = wants.into_iter().find(|(_, want)| *want != Want::Nothing)?;
        self.pending(store, want, Purpose::Backlog)
    }

    fn pending(&mut self, store: StoreUuid, want: Want, purpose: Purpose) -> Option<Action> {
        match want {
            Want::Page(after) => Some(Action::ReadHeads { store, purpose, after, limit: PAGE }),
            Want::Head(head) if self.flights.holds(store, &head.range) => {
                let plan = self.plans.iter_mut().find(|plan| plan.line.store == store)?;
                let lane = plan.lane(purpose);
                lane.pass(head.range.last);
                let want = lane.want();
                self.pending(store, want, purpose)
            }
            Want::Head(head) if self.flights.room_for(head.bytes) => Some(self.send(store, head.range.first, purpose)),
            Want::Head(_) | Want::Nothing => None,
        }
    }

    fn wanted(&mut self) -> Option<Action> {
        let (store, range) = *self.wanted.front()?;
        Some(self.send(store, range.first, Purpose::Wanted))
    }

    fn snapshot(&mut self, now: BootNanos) -> Option<Action> {
        if self.snapshot.is_none() && self.next_snapshot.is_some_and(|when| when <= now) {
            self.begin_snapshot();
            self.next_snapshot = self.snapshot_every_ns.map(|every| BootNanos(now.0.saturating_add(every)));
        }
        loop {
            let snapshot = self.snapshot.as_mut()?;
            let Some(store) = snapshot.stores.front().copied() else {
                self.snapshot = None;
                return None;
            };
            match snapshot.lane.want() {
                Want::Page(after) => {
                    return Some(Action::ReadHeads { store, purpose: Purpose::Snapshot, after, limit: PAGE });
                }
                Want::Head(head) => return Some(self.send(store, head.range.first, Purpose::Snapshot)),
                Want::Nothing => {
                    snapshot.stores.pop_front();
                    let high =
                        snapshot.stores.front().and_then(|next| self.plans.iter().find(|p| p.line.store == *next));
                    snapshot.lane = Lane::new(SegmentSeq(0), high.map(|plan| plan.line.high));
                }
            }
        }
    }

    fn send(&self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) -> Action {
        Action::Send { store, at, purpose, catalog: self.catalog_known }
    }

    fn begin_snapshot(&mut self) {
        if self.snapshot.is_some() || self.plans.is_empty() {
            return;
        }
        let stores = self.plans.iter().map(|plan| plan.line.store).collect();
        // What is committed from now on is sent anyway.
        let lane = Lane::new(SegmentSeq(0), Some(self.plans[0].line.high));
        self.snapshot = Some(Snapshot { stores, lane, restarts: 0 });
    }

    // What happened.

    fn connected(&mut self, now: BootNanos) {
        self.standing = Standing::Waiting { until: BootNanos(now.0.saturating_add(ACK_PATIENCE_NS)) };
        self.flights.clear();
        self.look.wanted = true;
        self.mark_live = true;
        self.state.at_once();
        self.plans.iter_mut().for_each(Plan::restart);
    }

    fn disconnected(&mut self) {
        self.standing = Standing::Down;
        self.ack = None;
        if self.catalog_published != self.catalog_arrived {
            self.catalog_published = None;
        }
        self.flights.clear();
        if let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.restarts < SNAPSHOT_RESTARTS) {
            snapshot.restarts += 1;
            let high = snapshot.stores.front().and_then(|store| self.plans.iter().find(|p| p.line.store == *store));
            snapshot.lane = Lane::new(SegmentSeq(0), high.map(|plan| plan.line.high));
        }
    }

    fn on_ack(&mut self, ack: Ack) {
        for at in 0..self.plans.len() {
            let uuid = self.plans[at].line.store;
            let stated = ack.stores.iter().find(|stated| stated.store == uuid);
            self.acked_store(at, stated);
        }
        if matches!(self.standing, Standing::Waiting { .. }) {
            self.standing = Standing::Open;
        }
        self.ack = Some(ack);
    }

    fn acked_store(&mut self, at: usize, stated: Option<&StoreAck>) {
        let plan = &mut self.plans[at];
        let store = plan.line.store;
        if let Some(why) = stated.and_then(|stated| doubt(&plan.line, stated)) {
            if !plan.doubted {
                plan.doubted = true;
                self.todo.push_back(Action::Recheck { store, why });
            }
            return;
        }
        if plan.doubted {
            // Whatever this one says, it was written before the recheck: it must not count for the store after it.
            return;
        }
        let acked = match (plan.line.recheck, stated) {
            (None, Some(stated)) => ranges::held(stated),
            (Some(nonce), Some(StoreAck { verified: Some((answer, verified)), .. })) if *answer == nonce => {
                ranges::normal(verified.clone())
            }
            _ => Vec::new(),
        };
        let arrived = self.flights.acked(store, &acked);
        if arrived >= self.catalog.last && self.catalog.last.is_some() {
            self.catalog_arrived = self.catalog_published;
        }
        let plan = &mut self.plans[at];
        let grew_only = plan.acked.as_ref().is_some_and(|old| old.iter().all(|held| ranges::covered(&acked, held)));
        if plan.acked.as_ref() == Some(&acked) {
            return;
        }
        if !grew_only {
            // What had been passed as acknowledged may be pending again.
            plan.restart();
        }
        plan.acked = Some(acked.clone());
        self.todo.retain(|action| !matches!(action, Action::SetAcked { store: of, .. } if *of == store));
        self.todo.push_back(Action::SetAcked { store, ranges: acked });
    }

    fn requested(&mut self, request: Request) {
        match request {
            Request::Catalog => self.catalog.wanted = true,
            Request::Snapshot => self.begin_snapshot(),
            Request::Segments { store, ranges } => {
                let Some(plan) = self.plans.iter().find(|plan| plan.line.store == store) else { return };
                for range in ranges {
                    // What we have never committed is not ours to explain.
                    let Some(range) = SeqRange::new(range.first.0, range.last.min(plan.line.high).0) else { continue };
                    let known = self.wanted.iter().any(|(of, wanted)| *of == store && wanted.covers(&range));
                    if !known && self.wanted.len() < wire::MAX_RANGES {
                        self.wanted.push_back((store, range));
                    }
                }
            }
        }
    }

    fn stores(&mut self, mut lines: Vec<Line>, catalog: u64) {
        self.catalog_is(catalog);
        lines.truncate(wire::MAX_STORES);
        let mark_live = std::mem::take(&mut self.mark_live);
        let mut plans = Vec::with_capacity(lines.len());
        let mut reshaped = lines.len() != self.plans.len();
        let mut appeared = false;
        for line in lines {
            let known = self.plans.iter().position(|plan| plan.line.store == line.store);
            let mut plan = match known {
                Some(at) => self.plans.swap_remove(at),
                None => {
                    (reshaped, appeared) = (true, true);
                    // A store that appears while we are connected has only new readings.
                    Plan::new(line, if line.current && !mark_live { SegmentSeq(0) } else { line.high })
                }
            };
            reshaped |= (plan.line.current, plan.line.recheck) != (line.current, line.recheck);
            // What was sent was committed, whatever an older look said.
            let high = plan.line.high.max(line.high);
            let was_current = plan.line.current;
            plan.line = Line { high, ..line };
            if mark_live || was_current != line.current {
                plan.restart();
            }
            plan.live.grew();
            plan.backlog.grew();
            plans.push(plan);
        }
        self.plans = plans;
        self.state.wanted |= reshaped;
        let plans = &self.plans;
        self.wanted.retain(|(store, _)| plans.iter().any(|plan| plan.line.store == *store));
        if let Some(ack) = self.ack.clone().filter(|_| appeared) {
            self.on_ack(ack);
        }
    }

    fn heads(&mut self, store: StoreUuid, purpose: Purpose, after: SegmentSeq, heads: &[Head]) {
        if purpose == Purpose::Snapshot {
            if let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.stores.front() == Some(&store)) {
                snapshot.lane.page(after, heads);
            }
        } else if let Some(plan) = self.plan(store) {
            plan.lane(purpose).page(after, heads);
        }
    }

    fn sent(&mut self, store: StoreUuid, range: SeqRange, bytes: u64, purpose: Purpose, now: BootNanos) {
        match purpose {
            Purpose::Live | Purpose::Backlog => {
                if let Some(plan) = self.plan(store) {
                    plan.line.high = plan.line.high.max(range.last);
                    plan.lane(purpose).sent(&range);
                }
                self.flights.sent(store, range, bytes, now);
            }
            Purpose::Again => self.flights.sent(store, range, bytes, now),
            Purpose::Wanted => self.wanted_through(store, range.last),
            Purpose::Snapshot => self.snapshot_through(store, range.last),
        }
    }

    fn missing(&mut self, store: StoreUuid, at: SegmentSeq, purpose: Purpose) {
        let only = SeqRange { first: at, last: at };
        match purpose {
            Purpose::Live | Purpose::Backlog => {
                if let Some(plan) = self.plan(store) {
                    plan.lane(purpose).pass(at);
                }
            }
            Purpose::Again => self.flights.forget(store, &only),
            Purpose::Wanted => {
                if let Some((store, range)) = self.wanted.front().copied() {
                    self.todo.push_back(Action::RecordGone { store, range });
                }
            }
            Purpose::Snapshot => self.snapshot_through(store, at),
        }
    }

    fn gone(&mut self, store: StoreUuid, through: SegmentSeq) {
        self.wanted_through(store, through);
        // The loss is a segment that waits below what has been passed.
        if let Some(plan) = self.plan(store) {
            plan.restart();
        }
    }

    fn wanted_through(&mut self, store: StoreUuid, through: SegmentSeq) {
        let Some((of, range)) = self.wanted.front_mut().filter(|(of, _)| *of == store) else { return };
        debug_assert_eq!(*of, store);
        if range.last <= through {
            self.wanted.pop_front();
        } else {
            range.first = range.first.max(SegmentSeq(through.0 + 1));
        }
    }

    fn snapshot_through(&mut self, store: StoreUuid, through: SegmentSeq) {
        if let Some(snapshot) = self.snapshot.as_mut().filter(|s| s.stores.front() == Some(&store)) {
            snapshot.lane.pass(through);
        }
    }

    fn catalog_is(&mut self, catalog: u64) {
        self.catalog_known = catalog;
    }

    fn catalog_published(&mut self, catalog: u64, all: bool, now: BootNanos) {
        self.catalog_published = Some(catalog);
        self.catalog_known = catalog;
        self.catalog.last = Some(now);
        if all && self.catalog.wanted {
            // The fleet has what it missed: what it did not take is worth sending now.
            self.flights.hurry(now);
        }
        if all {
            self.catalog.done(now);
        }
    }

    fn rechecking(&mut self, store: StoreUuid, nonce: u64) {
        self.flights.forget_store(store);
        if let Some(plan) = self.plan(store) {
            plan.line.recheck = Some(nonce);
            plan.line.current = false;
            plan.acked = None;
            plan.doubted = false;
            plan.restart();
        }
        // The state with the number goes out before the first segment that it is about.
        self.look.wanted = true;
        self.state.at_once();
    }

    fn plan(&mut self, store: StoreUuid) -> Option<&mut Plan> {
        self.plans.iter_mut().find(|plan| plan.line.store == store)
    }
}

impl Plan {
    fn backlog_holds(&self, range: &SeqRange) -> bool {
        self.backlog.ends_at_or_above(range.first)
    }
}

/// Whether the fleet's account of a store is of another file than ours. An account of a store that is being rechecked says
/// nothing new.
fn doubt(line: &Line, stated: &StoreAck) -> Option<Doubt> {
    if line.recheck.is_some() && !line.current {
        return None;
    }
    if line.current && stated.high > line.high {
        return Some(Doubt::RolledBack { ours: line.high, fleet: stated.high });
    }
    stated.conflicts.first().map(|range| Doubt::Conflict { range: *range })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod simulation;
