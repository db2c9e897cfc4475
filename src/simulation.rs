//! The proof of delivery: a device and a fleet, whole, over a network at its worst, for hours that take milliseconds.
//!
//! ```text
//! board: real store, real machine, answers, voice ─► net: broker, two links ─► hub: real receiver, real replicas
//!    └─ commits ─► account ◄─ acks as they are published ─┘                          judged from the files at the end
//! ```
//!
//! What enters: seeds. What leaves: that nothing committed was lost, doubled or made up, that gaps are exactly the losses
//! written down, that no ack named what was not durable, and that all of it arrives once the weather clears. Everything
//! follows from the seed, but for the ids of stores. `docs/delivery-proof.md` says what is simulated, what is not, and how
//! a seed is told again. Power cuts here end a process; what they do to a medium is the store's crash proof.

mod account;
mod board;
mod dice;
mod hub;
mod net;
mod plan;
mod tests;
mod world;

use crate::clock::SECOND;
use crate::config::BacklogOrder;
use crate::upkeep::Chore;
use account::Account;
use dice::Dice;
use net::{Message, Net, Side};
use plan::Plan;
use std::ops::AddAssign;

const PREFIX: &str = "plant";
const DEVICE: &str = "pump-17";

/// True UTC at the beginning of every story.
const EPOCH_NS: i64 = 1_790_000_000 * SECOND;

const HOUR_NS: i64 = 3600 * SECOND;

/// How long nothing goes wrong at the end: as long as it takes a segment that was sent for nothing ten times to be sent
/// again, and then as long again.
const CALM_NS: i64 = 2 * HOUR_NS;

/// What a side finds around it when it acts.
struct Around<'a> {
    now: i64,
    net: &'a mut Net,
    account: &'a mut Account,
    figures: &'a mut Figures,
    dice: &'a mut Dice,
}

impl Around<'_> {
    fn publish(&mut self, side: Side, message: Message) {
        self.net.publish(side, message, self.now, self.dice);
    }
}

/// What happened in a story, or in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    hours: u64,
    commits: u64,
    readings: u64,
    /// Segments sent, and messages.
    sent: u64,
    published: u64,
    /// Messages that the receiver took in, and groups of them.
    received: u64,
    groups: u64,
    acks: u64,
    acks_heard: u64,
    requests: u64,
    connections: u64,
    cuts: u64,
    partitions: u64,
    half_open: u64,
    broker_restarts: u64,
    boots: u64,
    device_power_cuts: u64,
    fleet_power_cuts: u64,
    cut_groups: u64,
    put_back: u64,
    clock_steps: u64,
    asked: u64,
    /// Messages that the broker took and lost, doubled, had no room for; acks that were overtaken.
    lost: u64,
    twice: u64,
    overflowed: u64,
    late_acks: u64,
    compactions: u64,
    expiries: u64,
    /// Stories of which the device's link was dark for hours; with a thin link, a rate limit, a daily budget; that send the
    /// newest first.
    blackouts: u64,
    thin: u64,
    limited: u64,
    budgeted: u64,
    newest: u64,
    full: u64,
    store_failures: u64,
    most_in_flight: usize,
    judged: account::Judged,
}

impl Figures {
    /// What kind of story this was.
    fn note(&mut self, plan: &Plan) {
        let pace = &plan.board.pace;
        self.thin = u64::from(plan.manners.thin);
        self.limited = u64::from(pace.rate_limit.is_some());
        self.budgeted = u64::from(pace.budget_daily.is_some());
        self.newest = u64::from(pace.backlog == BacklogOrder::Newest);
    }

    fn count(&mut self, chore: Chore) {
        match chore {
            Chore::Compact => self.compactions += 1,
            Chore::Expire => self.expiries += 1,
            Chore::Vacuum | Chore::Checkpoint => {}
        }
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        macro_rules! sum {
            ($($field:ident)*) => { $( self.$field += other.$field; )* };
        }
        sum!(hours commits readings sent published received groups acks acks_heard requests connections cuts partitions
             half_open broker_restarts boots device_power_cuts fleet_power_cuts cut_groups put_back clock_steps asked lost
             twice overflowed late_acks compactions expiries blackouts thin limited budgeted newest full store_failures);
        self.most_in_flight = self.most_in_flight.max(other.most_in_flight);
        self.judged.delivered += other.judged.delivered;
        self.judged.lost += other.judged.lost;
        self.judged.segments += other.judged.segments;
        self.judged.losses += other.judged.losses;
    }
}
