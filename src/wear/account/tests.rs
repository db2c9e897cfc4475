//! The account under restarts, power cuts, other media, and clocks that lie.

use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

fn sample(s: i64, sectors: u64, own: u64) -> Sample {
    let now = Now { boot: BootNanos(s * SECOND), utc: UtcNanos(0), trusted: false };
    Sample { sight: Sight { sectors: Some(sectors), own_bytes: Some(own), life: None }, tally: Tally::default(), now }
}

fn trusted(s: i64, utc_s: i64) -> Sample {
    let now = Now { boot: BootNanos(s * SECOND), utc: UtcNanos(utc_s * SECOND), trusted: true };
    Sample { now, ..sample(s, 0, 0) }
}

fn saved(account: &Account) -> Account {
    serde_json::from_str(&serde_json::to_string(account).expect("json")).expect("an account")
}

fn before(last_s: i64, bytes_per_s: f64) -> Before {
    Before { last_recorded: Some(BootNanos(last_s * SECOND)), bytes_per_s: Some(bytes_per_s) }
}

/// What was there before is no part of it; then each sector counts once.
#[test]
fn it_begins_where_it_is_begun() {
    let mut account = Account::begin(None, A, &sample(50, 1000, 77));
    let spent = account.take(Source::Device, &sample(60, 1010, 1077));
    assert_eq!((spent.bytes, spent.own_bytes, spent.on_ns), (5120, Some(1000), 10 * SECOND as u64));
    assert_eq!(account.take(Source::Device, &sample(60, 1010, 1077)).bytes, 0);
    assert_eq!((account.bytes, account.own_bytes), (5120, 1000));
}

/// A counter that wraps at 2^32 goes on; one that begins anew lower down was plugged in again; one that is not to be
/// read for once loses nothing.
#[test]
fn counters_wrap_and_begin_anew() {
    assert_eq!(advance(u64::from(u32::MAX) - 4, 5), 10);
    assert_eq!(advance(5_000_000, 40), 40);
    assert_eq!(advance((1 << 32) + 5, 40), 40);
    let mut account = Account::begin(None, A, &sample(0, 100, 0));
    let mut blind = sample(5, 0, 0);
    blind.sight.sectors = None;
    assert_eq!(account.take(Source::Device, &blind).bytes, 0);
    assert_eq!(account.take(Source::Device, &sample(10, 108, 0)).bytes, 4096);
}

/// After kill -9 in the same boot the disk has counted on: nothing is lost, nothing counted twice, and the process has
/// its share of what it can't have counted.
#[test]
fn a_restart_in_the_same_boot_loses_nothing() {
    let mut account = Account::begin(None, A, &sample(0, 0, 0));
    account.take(Source::Device, &sample(10, 100, 25_600));
    let after = sample(30, 300, 0);
    let mut again = saved(&account).resume(None, A, &after, before(25, 1e9));
    again.take(Source::Device, &after);
    assert_eq!((again.bytes, again.estimated_bytes, again.elapsed_ns), (300 * 512, 0, 30 * SECOND as u64));
    assert_eq!(again.own_bytes, 25_600 + 51_200);
}

/// A power cut: what was written after the last saving is put at the learnt rate up to the last reading that the store
/// has; what the new boot wrote before varved began is counted.
#[test]
fn a_power_cut_costs_an_estimate_and_not_the_account() {
    let mut account = Account::begin(None, A, &sample(100, 0, 0));
    account.take(Source::Device, &sample(200, 200, 51_200));
    let after = sample(40, 20, 0);
    let mut again = saved(&account).resume(None, B, &after, before(260, 1000.0));
    again.take(Source::Device, &after);
    assert_eq!((again.bytes, again.estimated_bytes), (200 * 512 + 60_000 + 20 * 512, 60_000));
    assert_eq!(again.elapsed_s(), 100.0 + 60.0 + 40.0);
    let busier = sample(40, 900, 0);
    let mut again = saved(&account).resume(None, B, &busier, before(200, 0.0));
    again.take(Source::Device, &busier);
    assert_eq!(again.bytes, 200 * 512 + 900 * 512, "from the counter of another boot nothing is subtracted");
    let unknown = saved(&account).resume(None, B, &after, Before { last_recorded: None, bytes_per_s: Some(1000.0) });
    assert_eq!(unknown.estimated_bytes, 1800 * 1000);
    let young = Before { bytes_per_s: None, ..before(260, 0.0) };
    let young = saved(&account).resume(None, B, &after, young);
    assert_eq!(young.estimated_bytes, 60 * 512, "200 sectors in the 200 s of that boot");
}

/// A store that is copied to another card begins that card's account; what it wrote before is kept apart. A name that
/// is not known is no proof of another card.
#[test]
fn another_medium_has_an_account_of_its_own() {
    let name = |n: &str| Some(format!("device/cid {n}"));
    let mut account = Account::begin(name("1"), A, &sample(0, 0, 0));
    account.take(Source::Device, &sample(10, 100, 0));
    let moved = saved(&account).resume(name("2"), B, &sample(9, 7, 0), Before::default());
    assert_eq!((moved.bytes, moved.before_bytes, moved.elapsed_ns), (0, 51_200, 0));
    for same in [name("1"), None] {
        let stayed = saved(&account).resume(same, A, &sample(10, 100, 0), Before::default());
        assert_eq!((stayed.bytes, stayed.before_bytes), (51_200, 0));
    }
}

/// While it runs no clock step changes the time that has passed; an absence is measured once both its ends are trusted
/// and steady, and one of a thousand years is not believed.
#[test]
fn clock_steps_are_no_time() {
    const SET_OUT: i64 = 1_000_000;
    let mut account = Account::begin(None, A, &trusted(0, SET_OUT));
    for (s, utc_s) in [(100, 1_000_100), (200, 9_000_000_000), (300, 5), (400, SET_OUT + 400), (1000, SET_OUT + 1000)] {
        account.take(Source::Device, &trusted(s, utc_s));
        assert_eq!(account.elapsed_s(), s as f64);
    }
    assert_eq!(account.began, Some(UtcNanos(SET_OUT * SECOND)));
    let mut again = saved(&account).resume(None, B, &sample(10, 0, 0), before(1000, 0.0));
    again.take(Source::Device, &trusted(10, 9_200_000_000));
    again.take(Source::Device, &trusted(20, SET_OUT + 6020));
    assert_eq!(again.elapsed_s(), 1020.0, "a clock that has just jumped is not asked");
    let mut late = saved(&again);
    again.take(Source::Device, &trusted(620, SET_OUT + 6620));
    assert_eq!(again.elapsed_s(), 1000.0 + 5000.0 + 620.0);
    again.take(Source::Device, &trusted(1630, SET_OUT + 600_000));
    again.take(Source::Device, &trusted(2630, SET_OUT + 601_000));
    assert_eq!(again.elapsed_s(), 6000.0 + 2630.0, "only once");
    late.take(Source::Device, &trusted(20, 9_200_000_000));
    late.take(Source::Device, &trusted(620, 9_200_000_600));
    assert_eq!(late.elapsed_s(), 1620.0 + 400.0 * 86_400.0);
}

/// Where nothing counts, commits are put at what they usually take, and it is known as an estimate.
#[test]
fn without_counters_commits_are_estimated() {
    let nothing = |s, commits| Sample {
        sight: Sight::default(),
        tally: Tally { readings: 500 * commits, commits },
        ..sample(s, 0, 0)
    };
    let mut account = Account::begin(None, A, &nothing(0, 0));
    let spent = account.take(Source::Estimate, &nothing(100, 10));
    assert_eq!((spent.bytes, spent.own_bytes), (10 * (10_240 + 7000), None));
    assert_eq!(account.estimated_bytes, account.bytes);
    let mut process = Account::begin(None, A, &sample(0, 0, 100));
    assert_eq!(process.take(Source::Process, &sample(10, 0, 4196)).bytes, 4096);
}
