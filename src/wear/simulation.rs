//! Years of a device, simulated with a seed: what is spent stays within the budget, whatever happens to the device.

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
        let medium = Medium::made_up(Source::Device);
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

fn live(life: Life) -> Outcome {
    let mut world = World {
        life,
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
    };
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

/// In a year that is like any other the budget is kept and used: the interval settles, and stays.
#[test]
fn a_calm_year_keeps_to_its_budget_and_uses_it() {
    for seed in 1..4 {
        let year = live(Life::calm(seed));
        assert!((0.93..=1.0).contains(&year.used), "{}", year.used);
        assert!((0.999..1.001).contains(&year.account), "{}", year.account);
        assert!(year.most_changes_a_day <= 4 && year.changes <= 20, "{} {}", year.most_changes_a_day, year.changes);
        let late = &year.intervals[60..];
        let (low, high) = late.iter().fold((f64::MAX, 0f64), |(l, h), i| (l.min(*i), h.max(*i)));
        assert!(high / low < 1.5, "{low} {high}");
        assert!(year.warnings.is_empty(), "{:?}", year.warnings);
    }
}

/// Bursts, restarts, power cuts and a clock that lies, all in three years: still within 2 % of the budget, with few
/// changes, and the account within 2 % of what was really written.
#[test]
fn a_hard_life_keeps_to_its_budget() {
    for seed in 1..4 {
        let hard = Life {
            bursts: true,
            restarts_a_day: 1.0,
            power_cuts_a_day: 2.0,
            clock_lies: true,
            others: 50.0,
            days: 3 * 365,
            ..Life::calm(seed)
        };
        let years = live(hard);
        assert!((0.8..=1.02).contains(&years.used), "{}", years.used);
        assert!((0.98..1.02).contains(&years.account), "{}", years.account);
        assert!(years.report.estimated_bytes > 0);
        assert!(years.most_changes_a_day <= 10, "{}", years.most_changes_a_day);
        assert!(years.changes < 2 * 3 * 365, "{}", years.changes);
    }
}

/// A vehicle: power for half an hour at a time, cut off without a word. What each ride learns adds up, although none
/// lasts until the hour at which the interval would be chosen.
#[test]
fn short_rides_add_up() {
    let year = live(Life { power_cuts_a_day: 48.0, ..Life::calm(1) });
    assert!((0.7..=1.02).contains(&year.used), "{}", year.used);
    assert!((0.95..1.05).contains(&year.account), "{}", year.account);
    assert!(year.intervals[300..].iter().all(|s| *s < 10.0), "off for most of the time, it may commit more often");
}

/// An eMMC that says only by tens of percents how worn it is: after two of its steps the endurance is known, the
/// lifetime kept to from then on, and what was overspent before is paid back.
#[test]
fn an_emmc_teaches_its_endurance() {
    let endurance = 120.0 * GIB;
    let life = Life {
        goal: Goal::Days(3.0 * 365.0),
        endurance_bytes: None,
        emmc_bytes: Some(endurance),
        days: 1000,
        ..Life::calm(1)
    };
    let years = live(life);
    assert!(years.intervals[100..150].iter().all(|s| *s == 10.0), "not known yet");
    let told = years.report.endurance_bytes.map(|bytes| bytes as f64 / endurance);
    assert!(told.is_some_and(|part| (0.98..1.02).contains(&part)), "{told:?}");
    assert!(years.intervals[999] > 10.0);
    assert!((0.9..=1.01).contains(&years.used), "{}", years.used);
}

/// A medium whose commits begin to cost twice as much: the interval follows within days, before the budget is
/// overspent.
#[test]
fn a_cost_that_doubles_is_followed() {
    let year = live(Life { doubles_on_day: 200, ..Life::calm(1) });
    assert!(year.used <= 1.0, "{}", year.used);
    let mean = |days: &[f64]| days.iter().sum::<f64>() / days.len() as f64;
    let (before, after) = (mean(&year.intervals[150..200]), mean(&year.intervals[210..260]));
    assert!(after > 1.8 * before, "{before} {after}");
    assert!(year.most_changes_a_day <= 6, "{}", year.most_changes_a_day);
}

/// What was overspent at the beginning is paid back, and then the interval comes down again.
#[test]
fn an_overspent_account_is_paid_back() {
    let year = live(Life { blow_bytes: 2.0 * GIB, ..Life::calm(1) });
    assert!((0.9..=1.01).contains(&year.used), "{}", year.used);
    assert!(year.intervals[5] > 1.5 * year.intervals[360], "{} {}", year.intervals[5], year.intervals[360]);
    assert!(year.most_changes_a_day <= 6, "{}", year.most_changes_a_day);
}

/// A budget that the shortest interval keeps to leaves it there; one that the longest overspends is told of once, and
/// changes nothing but that. Other programs that write too much are named.
#[test]
fn the_ends_of_the_span_hold() {
    let rich = live(Life { goal: Goal::BytesPerDay(2000.0 * GIB / 365.0), days: 60, ..Life::calm(1) });
    assert_eq!(rich.intervals[59], 1.0);
    assert!(rich.report.why.contains("commit_interval_min"), "{}", rich.report.why);
    let poor = live(Life { goal: Goal::BytesPerDay(GIB / 365.0), others: 3000.0, days: 60, ..Life::calm(1) });
    assert!(poor.intervals[1..].iter().all(|s| *s == 300.0), "{:?}", poor.intervals);
    assert!(poor.report.overspends && poor.report.budget_used.is_some_and(|used| used > 1.0));
    assert_eq!(poor.warnings.len(), 1, "{:?}", poor.warnings);
    assert!(poor.warnings[0].contains("other programs") && poor.warnings[0].contains("raise the budget"));
}

/// A budget without a span changes nothing, and is told of where it is overspent.
#[test]
fn without_a_span_nothing_is_governed() {
    let year = live(Life { span: None, goal: Goal::BytesPerDay(GIB / 365.0), days: 60, ..Life::calm(1) });
    assert!(year.intervals.iter().all(|s| *s == 10.0));
    assert_eq!((year.changes, year.warnings.len()), (0, 1));
    assert!(year.warnings[0].contains("write commit_interval_max"), "{}", year.warnings[0]);
}

/// A lifetime is its endurance by the years; without an endurance it is told, and nothing is governed.
#[test]
fn a_lifetime_needs_an_endurance() {
    let ten_years = Life { goal: Goal::Days(3650.0), endurance_bytes: Some((600.0 * GIB) as u64), ..Life::calm(1) };
    let year = live(ten_years);
    assert!((0.93..=1.0).contains(&year.used), "{}", year.used);
    assert!(year.report.years_left.is_some_and(|left| (8.9..10.5).contains(&left)), "{:?}", year.report.years_left);
    assert!(year.report.end_of_life.is_some_and(|day| day.starts_with("203")), "2027 and ten years");
    let unknown = live(Life { endurance_bytes: None, days: 30, ..ten_years });
    assert!(unknown.intervals.iter().all(|s| *s == 10.0));
    assert!(unknown.warnings[0].contains("endurance = \"3TiB\""), "{:?}", unknown.warnings);
    assert_eq!((unknown.report.budget_used, unknown.report.years_left), (None, None));
    assert!(unknown.report.bytes_per_day > 0);
}
