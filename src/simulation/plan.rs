//! What one seed's story is made of: the board, the network, the weather, and a fault where one is planted.

use super::HOUR_NS;
use super::dice::Dice;
use super::net::Manners;
use crate::clock::SECOND;
use crate::config::{BacklogOrder, PaceConfig};
use std::time::Duration;

/// A fault that is put into one of the sides, to see that the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The receiver publishes its acks before its commit is on the medium, and the power is cut between the two.
    AckBeforeCommit,
    /// The receiver files what comes again as news.
    NoDedup,
    /// The device's client takes messages whether or not there is a connection; what it took counts as delivered, and what
    /// waits in it at a reconnect vanishes. (What a PUBACK taken for the truth amounts to.)
    PersistentChannel,
    /// The device does not listen to acks.
    AcksIgnored,
    /// The device lets go of what is not acknowledged yet as though it were.
    DeletesBeforeAck,
}

/// A thin link: about 2 s each way, and 2 kB/s.
const THIN_LATENCY_NS: (i64, i64) = (3 * SECOND / 2, 5 * SECOND / 2);
const THIN_BYTE_NS: i64 = SECOND / 2000;

/// How many times rarer commits and trouble are in a long story than in one of six hours.
const MOST_EASE: i64 = 20;

/// The device of a story.
#[derive(Debug, Clone)]
pub(super) struct BoardPlan {
    pub(super) commit_ns: i64,
    pub(super) upkeep_ns: i64,
    /// At most so many readings a series in a commit.
    pub(super) readings: u32,
    pub(super) series: u32,
    /// Values that do not shrink.
    pub(super) noisy: bool,
    pub(super) max_size_bytes: u64,
    pub(super) max_payload: usize,
    pub(super) exclusive: bool,
    pub(super) snapshot_every: Option<Duration>,
    pub(super) pace: PaceConfig,
}

/// Mean times between the events of the weather; `i64::MAX` where one does not happen.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    pub(super) mean_ns: i64,
    /// Whether the fleet's disk is put back once.
    pub(super) put_back: bool,
    /// How long the device's link is dark once, beside all else.
    pub(super) blackout_ns: Option<i64>,
}

/// See the room.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) board: BoardPlan,
    pub(super) manners: Manners,
    pub(super) weather: Weather,
    pub(super) tick_ns: i64,
    /// How long the receiver takes before it looks at what has come, the least and the most.
    pub(super) service_ns: (i64, i64),
}

impl Plan {
    /// The story of a seed. The longer it is, the rarer are commits and trouble in it: six hours hold as much of both as they
    /// can, a month is closer to a device's life.
    pub(super) fn of(hours: i64, dice: &mut Dice) -> Self {
        let pressed = dice.per_mille(250);
        let ease = (hours / 6).clamp(1, MOST_EASE);
        Self {
            board: board(pressed, ease, dice),
            manners: manners(dice),
            weather: Weather {
                mean_ns: ease * dice.spread(3 * 60 * SECOND, 30 * 60 * SECOND),
                put_back: dice.per_mille(150),
                blackout_ns: pressed.then(|| dice.between(HOUR_NS, 5 * HOUR_NS)),
            },
            tick_ns: dice.between(20, 60) * SECOND,
            service_ns: (SECOND / 1000, dice.spread(SECOND / 100, 5 * SECOND)),
        }
    }

    /// The same with what makes a planted fault show.
    pub(super) fn for_fault(mut self, fault: Fault) -> Self {
        match fault {
            Fault::DeletesBeforeAck | Fault::PersistentChannel => self.board.press(1),
            Fault::AckBeforeCommit | Fault::NoDedup | Fault::AcksIgnored => {}
        }
        self.weather.put_back = false;
        self
    }
}

impl BoardPlan {
    /// So much in so small a file that retention drops what has not been sent, or what has been acknowledged an hour ago.
    fn press(&mut self, ease: i64) {
        self.commit_ns = self.commit_ns.min(ease * 45 * SECOND);
        self.upkeep_ns = self.upkeep_ns.min(ease * 300 * SECOND);
        (self.noisy, self.readings, self.series) = (true, 40, self.series.max(6));
        self.max_size_bytes = 512 << 10;
    }
}

fn board(pressed: bool, ease: i64, dice: &mut Dice) -> BoardPlan {
    let mut plan = BoardPlan {
        commit_ns: (ease * dice.spread(30 * SECOND, 900 * SECOND)).min(HOUR_NS),
        upkeep_ns: ease * dice.between(120, 1200) * SECOND,
        readings: 1 + dice.roll(8) as u32,
        series: 1 + dice.roll(8) as u32,
        noisy: dice.per_mille(200),
        max_size_bytes: 8 << 20,
        max_payload: dice.spread(1024, 120 * 1024) as usize,
        exclusive: dice.per_mille(500),
        snapshot_every: dice
            .per_mille(200)
            .then(|| Duration::from_secs((3600 + dice.roll(7200)) * ease.unsigned_abs())),
        pace: pace(dice),
    };
    if pressed {
        plan.press(ease);
    }
    plan
}

fn pace(dice: &mut Dice) -> PaceConfig {
    let backlog = if dice.per_mille(250) { BacklogOrder::Newest } else { BacklogOrder::Oldest };
    let rate_limit = dice.per_mille(150).then(|| dice.spread(2_000, 50_000).unsigned_abs());
    // Between one in which a day's pings just fit and one that most days don't use up.
    let budget_daily = dice.per_mille(150).then(|| dice.spread(96 << 10, 4 << 20).unsigned_abs());
    let keep_alive = Duration::from_secs(if budget_daily.is_some() { 600 } else { 30 });
    PaceConfig { backlog, rate_limit, budget_daily, keep_alive, ..PaceConfig::default() }
}

fn manners(dice: &mut Dice) -> Manners {
    let latency = dice.spread(SECOND / 500, 2 * SECOND);
    let thin = dice.per_mille(150);
    Manners {
        thin,
        latency_ns: if thin { THIN_LATENCY_NS } else { (latency / 2, latency * 2) },
        byte_ns: if thin { THIN_BYTE_NS } else { dice.spread(100, 100_000) },
        overtaking_ns: dice.spread(SECOND / 1000, 2 * SECOND),
        lost: dice.roll(80),
        twice: dice.roll(80),
        late_acks: dice.roll(80),
        queue: dice.spread(10, 1000) as usize,
        remembers: dice.per_mille(500),
        retained_again: dice.per_mille(500),
    }
}
