//! Years of a device, simulated with a seed: its medium, its readings, its mishaps.

mod years;

use super::*;
use crate::clock::UtcNanos;
use crate::config::Span;
use crate::store::medium::{SECTOR_BYTES, Sight, Source};

const TICK_S: u64 = 300;
const TICKS_A_DAY: u64 = 86_400 / TICK_S;
const GIB: f64 = 1073741824.0;

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What the device lives through.
#[derive(Clone, Copy)]
struct Life {
    seed: u64,
    goal: Goal,
    endurance_bytes: Option<u64>,
    span: Option<(f64, f64)>,
    /// Of a commit, in bytes.
    fixed: f64,
    each: f64,
    /// Other programs, bytes a second.
    others: f64,
    /// From this day on a commit costs twice as much.
    doubles_on_day: u64,
    /// A day with ten times the readings and a flush every second, now and then.
    bursts: bool,
    restarts_a_day: f64,
    power_cuts_a_day: f64,
    clock_lies: bool,
    /// Written when the account is a day old, by someone else.
    blow_bytes: f64,
    /// An eMMC that stands so much.
    emmc_bytes: Option<f64>,
    days: u64,
}

impl Life {
    fn calm(seed: u64) -> Self {
        Self {
            seed,
            goal: Goal::BytesPerDay(60.0 * GIB / 365.0),
            endurance_bytes: None,
            span: Some((1.0, 300.0)),
            fixed: 10_000.0,
            each: 14.0,
            others: 0.0,
            doubles_on_day: u64::MAX,
            bursts: false,
            restarts_a_day: 0.0,
            power_cuts_a_day: 0.0,
            clock_lies: false,
            blow_bytes: 0.0,
            emmc_bytes: None,
            days: 365,
        }
    }
}

/// How it went.
struct Outcome {
    /// What the medium really took, by what the budget allows in the time that really passed.
    used: f64,
    /// What the account says, by what the medium took.
    account: f64,
    most_changes_a_day: u32,
    changes: u32,
    intervals: Vec<f64>,
    report: Report,
    warnings: Vec<String>,
}

struct World {
    life: Life,
    card: u32,
    dice: Dice,
    boot: u128,
    boot_s: u64,
    off_s: u64,
    sectors: f64,
    own: f64,
    total: f64,
    tally: Tally,
    due: f64,
    interval_s: f64,
    saved: Option<String>,
    waiting: Option<String>,
    last_recorded: Option<BootNanos>,
    changes: u32,
    warnings: Vec<String>,
}

impl World {
    fn now(&mut self) -> Now {
        let true_s = (1_800_000_000 + self.total_s()) as i64;
        let lie = self.life.clock_lies && self.dice.roll() < 0.3;
        let utc_s = if lie { (self.dice.roll() * 4e9) as i64 } else { true_s };
        let trusted = !self.life.clock_lies || (!lie && self.boot_s > 1800);
        let trusted = trusted || (lie && self.boot_s > 1800 && self.dice.roll() < 0.1);
        Now { boot: BootNanos(self.boot_s as i64 * SECOND), utc: UtcNanos(utc_s * SECOND), trusted }
    }

    fn total_s(&self) -> u64 {
        self.boot_s + self.off_s
    }

    fn sample(&mut self) -> Sample {
        let life = self.life.emmc_bytes.map(|bytes| {
            let level = (1.0 + 10.0 * self.total / bytes).min(11.0) as u8;
            crate::store::medium::Life { level, pre_eol: 1 }
        });
        let sectors = Some(self.sectors as u64 / SECTOR_BYTES);
        let sight = Sight { sectors, own_bytes: Some(self.own as u64), life };
        Sample { sight, tally: self.tally, now: self.now() }
    }

    fn start(&mut self) -> Wear {
        let (kept, told) = Kept::read(self.saved.as_deref());
        assert_eq!(told, None);
        let span = self
            .life
            .span
            .map(|(min, max)| Span { min: Duration::from_secs_f64(min), max: Duration::from_secs_f64(max) });
        let config = FlashConfig { goal: Some(self.life.goal), endurance_bytes: self.life.endurance_bytes, span };
        let mut medium = Medium::made_up(Source::Device);
        medium.identity = Some(format!("device/cid {}", self.card));
        let interval = Duration::from_secs(10);
        let start = Start {
            config,
            interval,
            medium,
            boot: Uuid::from_u128(self.boot),
            last_recorded: self.last_recorded,
            kept,
        };
        (self.own, self.tally) = (0.0, Tally::default());
        let first = self.sample();
        let (wear, actions) = Wear::new(start, &first);
        self.interval_s = 0.0;
        self.act(actions);
        wear
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Interval(interval) => {
                    self.changes += u32::from(self.interval_s != 0.0);
                    self.interval_s = interval.as_secs_f64();
                    let (min, max) = self.life.span.unwrap_or((10.0, 10.0));
                    assert!((min..=max).contains(&self.interval_s), "{interval:?}");
                }
                Action::Save(text) => self.waiting = Some(text),
                Action::Warn(text) => self.warnings.push(text),
                Action::Note(_) => {}
            }
        }
    }

    fn write(&mut self, bytes: f64, own: f64) {
        self.sectors += bytes;
        self.total += bytes;
        self.own += own;
    }

    /// Records for one tick.
    fn record(&mut self, day: u64) {
        let burst = self.life.bursts && day % 17 == 3;
        let readings = TICK_S as f64 * if burst { 500.0 } else { 50.0 } * (0.8 + 0.4 * self.dice.roll());
        self.due += if burst { TICK_S as f64 / self.interval_s.min(2.0) } else { TICK_S as f64 / self.interval_s };
        let commits = self.due.floor();
        self.due -= commits;
        let factor = if day >= self.life.doubles_on_day { 2.0 } else { 1.0 } * (0.9 + 0.2 * self.dice.roll());
        let bytes = factor * (commits * self.life.fixed + readings * self.life.each);
        self.write(bytes + self.life.others * TICK_S as f64, bytes * 0.8);
        self.tally.commits += commits as u64;
        self.tally.readings += readings as u64;
        if commits > 0.0 {
            self.saved = self.waiting.take().or(self.saved.take());
            self.last_recorded = Some(BootNanos((self.boot_s + TICK_S) as i64 * SECOND));
        }
        self.boot_s += TICK_S;
    }

    /// Off without a word, and on again a while later.
    fn power_cut(&mut self) {
        self.waiting = None;
        self.off_s += self.boot_s + (self.dice.roll() * 20_000.0) as u64;
        (self.boot, self.boot_s, self.sectors) = (self.boot + 1, 60, 0.0);
        self.write(1e6, 0.0);
    }
}

impl World {
    fn new(life: Life) -> Self {
        Self {
            life,
            card: 1,
            dice: Dice(life.seed),
            boot: 1,
            boot_s: 60,
            off_s: 0,
            sectors: 5e9,
            own: 0.0,
            total: 0.0,
            tally: Tally::default(),
            due: 0.0,
            interval_s: 0.0,
            saved: None,
            waiting: None,
            last_recorded: None,
            changes: 0,
            warnings: Vec::new(),
        }
    }
}

fn live(life: Life) -> Outcome {
    let mut world = World::new(life);
    let mut wear = world.start();
    let (mut most, mut changes, mut intervals) = (0, 0, Vec::new());
    for day in 0..life.days {
        world.changes = 0;
        for _ in 0..TICKS_A_DAY {
            world.record(day);
            if world.dice.roll() < life.power_cuts_a_day / TICKS_A_DAY as f64 {
                world.power_cut();
                wear = world.start();
            } else if world.dice.roll() < life.restarts_a_day / TICKS_A_DAY as f64 {
                wear = world.start();
            }
            let sample = world.sample();
            let actions = wear.observe(&sample);
            world.act(actions);
        }
        if day == 1 {
            world.write(life.blow_bytes, 0.0);
        }
        most = most.max(world.changes);
        changes += world.changes;
        intervals.push(world.interval_s);
    }
    let report = wear.report(world.now());
    let rate = report.budget_bytes_per_year.unwrap_or(u64::MAX) as f64 / YEAR_S;
    Outcome {
        used: world.total / (rate * world.total_s() as f64),
        account: report.written_bytes as f64 / world.total,
        most_changes_a_day: most,
        changes,
        intervals,
        report,
        warnings: world.warnings,
    }
}
