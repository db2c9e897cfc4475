//! What must hold in every such year.

use super::*;

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

/// Bursts, restarts, power cuts and a clock that lies, all in one year: still within 2 % of the budget, with few
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
            ..Life::calm(seed)
        };
        let years = live(hard);
        assert!((0.8..=1.02).contains(&years.used), "{}", years.used);
        assert!((0.98..1.02).contains(&years.account), "{}", years.account);
        assert!(years.report.estimated_bytes > 0);
        assert!(years.most_changes_a_day <= 10, "{}", years.most_changes_a_day);
        assert!(years.changes < 2 * 365, "{}", years.changes);
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

/// A store on a new card begins anew with its budget, and is governed from the first hour on.
#[test]
fn a_new_card_has_a_budget_of_its_own() {
    let mut world = World::new(Life::calm(1));
    let mut wear = world.start();
    for day in 0..20 {
        for _ in 0..TICKS_A_DAY {
            world.record(day);
            let sample = world.sample();
            let actions = wear.observe(&sample);
            world.act(actions);
        }
    }
    (world.card, world.life.fixed, world.saved) = (2, 100_000.0, wear.save());
    let before = wear.report(world.now());
    let mut wear = world.start();
    let anew = wear.report(world.now());
    assert_eq!((anew.written_bytes, anew.before_bytes), (0, before.written_bytes));
    for _ in 0..TICKS_A_DAY {
        world.record(20);
        let sample = world.sample();
        let actions = wear.observe(&sample);
        world.act(actions);
    }
    assert!(world.interval_s > 2.0 * before.commit_interval_s, "{} {}", world.interval_s, before.commit_interval_s);
}

/// What was saved may have rotted: nonsense is refused and told, and what can be read and means nothing makes no
/// interval leave its span and nothing panic.
#[test]
fn a_saved_account_of_nonsense_is_survived() {
    for text in ["", "{}", "null", "{\"account\":3}"] {
        let (kept, told) = Kept::read(Some(text));
        assert!(kept == Kept::default() && matches!(told, Some(Action::Warn(_))), "{text:?}");
    }
    let mut world = World::new(Life::calm(1));
    let mut wear = world.start();
    (0..50).for_each(|_| {
        world.record(0);
        let sample = world.sample();
        wear.observe(&sample);
    });
    let good = wear.save().expect("a text");
    let numbers: Vec<_> = good.match_indices(':').map(|(at, _)| at + 1).collect();
    let mut read = 0;
    for at in numbers {
        let end = at + good[at..].find([',', '}']).expect("an end");
        for odd in ["-1", "-1e300", "1e300", "18446744073709551615", "0", "null"] {
            let text = format!("{}{odd}{}", &good[..at], &good[end..]);
            let (kept, told) = Kept::read(Some(&text));
            read += u32::from(kept.0.is_some());
            world.saved = told.is_none().then_some(text);
            let mut wear = world.start();
            for _ in 0..30 {
                world.record(0);
                let sample = world.sample();
                let actions = wear.observe(&sample);
                world.act(actions);
            }
            let now = world.now();
            let _ = wear.report(now);
        }
    }
    assert!(read > 20, "{read}");
}
