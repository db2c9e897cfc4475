//! Room is made: by what goes first, what stays, and what is told of it.

use super::super::retention::spare_bytes;
use super::super::testing::{Bench, at, compact_all, held, put, put_with};
use super::super::{FreshWhy, StoreFacts};
use super::*;
use crate::clock::SECOND;
use crate::clock::timebase::Timebase;
use crate::reading::ranges::RangeSet;
use crate::segment::{Content, Loss, LossReason, decode};
use rusqlite::Connection;

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).unwrap()
}

fn small() -> Bench {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 1 << 20;
    bench
}

/// Commits and expires as the service does, until `commits` are made.
fn churn(store: &mut Store, commits: i64, ack: bool) -> u64 {
    let mut most = 0;
    for s in 0..commits {
        put(store, 40, 60, s * 60).unwrap();
        if ack {
            let uuid = store.uuid();
            store.set_acked(uuid, RangeSet::from_iter([range(1, store.next_seq().0 - 1)])).unwrap();
        }
        while store.expire_step(&[], at(s * 60)).unwrap() == Step::Worked {}
        let facts: StoreFacts = store.facts().unwrap();
        most = most.max(facts.file_bytes + facts.wal_bytes);
    }
    most
}

fn losses(store: &Store) -> Vec<(SeqRange, Loss)> {
    let mut found = Vec::new();
    for (first, last, n) in held(store, store.uuid()) {
        let body = store.body(store.uuid(), SegmentSeq(first)).unwrap().unwrap().1;
        if let Content::Loss(loss) = decode(&body).unwrap().content {
            assert_eq!(n, 0);
            found.push((range(first, last), loss));
        }
    }
    found
}

/// Without a fleet the oldest go when the file is full, and every one of them is in the account: what is held and what
/// is lost are all that was committed, without a gap. File and log together stay within `max_size`.
#[test]
fn what_retention_drops_is_counted() {
    let bench = small();
    let mut store = bench.open_calm();
    let most = churn(&mut store, 500, false);
    assert!(most <= bench.cfg.max_size_bytes, "{most} bytes");
    let all = held(&store, store.uuid());
    assert_eq!(all.iter().map(|h| h.1 - h.0 + 1).sum::<u64>(), 500, "no gap, no overlap");
    let lost = losses(&store);
    assert_eq!(lost.len(), 1, "neighbouring losses become one");
    assert_eq!(lost[0].1.reason, LossReason::Retention);
    let kept: usize = all.iter().map(|h| h.2).sum();
    assert_eq!(lost[0].1.readings.unwrap() + kept as u64, 500 * 2400);
    assert_eq!(lost[0].1.from.unwrap().1, at(0).boot);
    assert!(kept > 200_000, "{kept} readings kept");
    let again = bench.crash().open_calm();
    assert_eq!(held(&again, again.uuid()), all);
    let counted = (again.facts().unwrap().segments, again.facts().unwrap().pending_readings);
    assert_eq!(counted, (store.facts().unwrap().segments, store.facts().unwrap().pending_readings));
}

/// The count of what retention drops stays known behind a void, of which nobody knows what it held. (The void used to
/// be taken in, and with it every later count was unknown, for good.)
#[test]
fn what_retention_drops_behind_a_void_is_counted() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..3).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
    store.skip_above(SegmentSeq(6), at(3)).unwrap();
    (4..8).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
    while store.make_room(at(9)).unwrap() == Step::Worked {}
    let found: Vec<_> = losses(&store).into_iter().map(|(at, loss)| (at, loss.reason, loss.readings)).collect();
    let (retention, void) = (LossReason::Retention, LossReason::Void);
    let expected =
        [(range(1, 3), retention, Some(300)), (range(4, 6), void, None), (range(7, 9), retention, Some(300))];
    assert_eq!(found, expected);
    store.skip_above(SegmentSeq(11), at(10)).unwrap();
    put(&mut store, 10, 10, 11).unwrap();
    while store.make_room(at(12)).unwrap() == Step::Worked {}
    assert_eq!(losses(&store)[2].1.readings, Some(400));
}

/// What the fleet has goes without a trace, but for the newest segment, which keeps the count; the acknowledgement is
/// on the medium with the deletion.
#[test]
fn what_the_fleet_has_goes_first() {
    let bench = small();
    let mut store = bench.open_calm();
    churn(&mut store, 700, true);
    assert_eq!(losses(&store), []);
    let uuid = store.uuid();
    assert!(held(&store, uuid)[0].0 > 100);
    let again = bench.crash().open_calm();
    assert_eq!(again.next_seq(), SegmentSeq(701));
    let first = held(&again, uuid)[0].0;
    assert!(again.line(uuid).unwrap().acked.covers(range(1, first - 1)), "deleted, so acknowledged in the file");
}

/// Nothing goes before its time: below the limit an expiry has nothing to do.
#[test]
fn below_the_limit_nothing_goes() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..20).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
    store.set_acked(store.uuid(), RangeSet::from_iter([range(1, 20)])).unwrap();
    assert_eq!(store.expire_step(&[], at(99)).unwrap(), Step::Idle);
    assert_eq!(held(&store, store.uuid()).len(), 20);
}

/// What is in flight stays, so that the fleet never gets both a segment and its loss.
#[test]
fn what_is_in_flight_stays() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..8).for_each(|s| drop(put(&mut store, 10, 10, s).unwrap()));
    store.in_flight = vec![(store.uuid(), range(1, 2)), (store.uuid(), range(5, 5))];
    while store.make_room(at(9)).unwrap() == Step::Worked {}
    let all: Vec<_> = held(&store, store.uuid()).iter().map(|h| (h.0, h.1, h.2 > 0)).collect();
    assert_eq!(all, [(1, 1, true), (2, 2, true), (3, 4, false), (5, 5, true), (6, 7, false), (8, 8, true)]);
}

/// A store of old that holds nothing any more is forgotten, with its series and boots.
#[test]
fn an_empty_old_store_is_forgotten() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 3, 1, 1).unwrap();
    let old = store.uuid();
    store.take_fresh_id(FreshWhy::Request, at(2)).unwrap();
    put(&mut store, 3, 1, 3).unwrap();
    store.set_acked(old, RangeSet::from_iter([range(1, 1)])).unwrap();
    assert_eq!(store.make_room(at(4)).unwrap(), Step::Worked);
    while store.expire_step(&[], at(5)).unwrap() == Step::Worked {}
    assert_eq!(store.stores().len(), 1);
    assert_eq!(store.catalog(1 << 16).unwrap().len(), 1);
    let series: i64 = store.conn.query_row("SELECT count(*) FROM series", [], |r| r.get(0)).unwrap();
    assert_eq!(series, 3);
    drop(store);
    bench.open_calm();
}

/// What is found to be gone long after is a loss of the present boot, with a low number: the boots of the readings behind it
/// are cited all the same, and their time stays known. (Their anchors went, and with them the time of all that was held.)
#[test]
fn a_late_loss_leaves_earlier_boots_their_time() {
    let mut bench = Bench::new();
    for boot in 1..=24 {
        bench.me.boot_uuid = Uuid::from_u128(boot);
        let mut store = bench.open_calm();
        let anchor = crate::clock::Anchor { boot: at(0).boot, utc: at(0).utc, trusted: true };
        put_with(&mut store, 1, 5, 0, &[anchor]).unwrap();
        store.close().unwrap();
    }
    bench.me.boot_uuid = Uuid::from_u128(25);
    let mut store = bench.open_calm();
    let (uuid, no) = (store.uuid(), store.current().no);
    (1..=2).for_each(|seq| commit::delete(&store.conn, no, SegmentSeq(seq)).unwrap());
    store.record_gone(uuid, range(1, 2), at(9)).unwrap();
    while store.expire_step(&[], at(10)).unwrap() == Step::Worked {}
    let sql = "SELECT count(*) FROM segment WHERE kind = 0 AND boot_min NOT IN (SELECT boot FROM anchor)";
    let without_time: i64 = store.conn.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(without_time, 0);
    assert_eq!(store.boots(no).unwrap().len(), 25);
    // When nothing cites them any more they go.
    store.conn.execute("DELETE FROM segment WHERE boot_min < 20", []).unwrap();
    while store.expire_step(&[], at(11)).unwrap() == Step::Worked {}
    assert_eq!(store.boots(no).unwrap().first().unwrap().0, BootId(20));
}

/// Of a boot that lasts, the anchors of the time that is held stay, with the one before them and the first of all; the rest
/// goes. Every reading that is held is given the same time as before.
#[test]
fn anchors_of_a_long_boot_go_with_its_readings() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    for hour in 0..400 {
        let now = at(hour * 3600);
        let drifted = crate::clock::UtcNanos(now.utc.0 + hour * hour * 1_000_000);
        let anchor = crate::clock::Anchor { boot: now.boot, utc: drifted, trusted: true };
        put_with(&mut store, 1, 5, hour * 3600 + 60, &[anchor]).unwrap();
    }
    let (no, boot) = (store.current().no, store.boot);
    let kept = |store: &Store| -> Vec<i64> {
        store.anchors(no, boot).unwrap().iter().map(|a| a.boot.0 / (3600 * SECOND)).collect()
    };
    let times = |store: &Store, from: i64| -> Vec<_> {
        let timebase = Timebase::new([(boot, store.anchors(no, boot).unwrap())]);
        (from..400).map(|hour| timebase.utc(boot, at(hour * 3600 + 60).boot)).collect()
    };
    let tidy = |store: &mut Store| while store.tidy(at(400 * 3600)).unwrap() == Step::Worked {};
    tidy(&mut store);
    assert_eq!(kept(&store).len(), 400, "all readings are held");
    (1..=300).for_each(|seq| commit::delete(&store.conn, no, SegmentSeq(seq)).unwrap());
    let before = times(&store, 300);
    tidy(&mut store);
    assert_eq!(kept(&store), [0].into_iter().chain(300..400).collect::<Vec<_>>());
    assert_eq!(times(&store, 300), before);
    // A few are not worth telling the catalogue anew.
    (301..=330).for_each(|seq| commit::delete(&store.conn, no, SegmentSeq(seq)).unwrap());
    tidy(&mut store);
    assert_eq!(kept(&store).len(), 101);
}

/// After `max_size` was lowered the file shrinks, step by step, to its new bound.
#[test]
fn a_lower_limit_is_reached_by_vacuum() {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 8 << 20;
    let mut store = bench.open_calm();
    (0..700).for_each(|s| drop(put(&mut store, 40, 60, s * 60).unwrap()));
    compact_all(&mut store, at(100));
    store.close().unwrap();
    bench.cfg.max_size_bytes = 1 << 20;
    let mut store = bench.open_calm();
    assert!(store.facts().unwrap().file_bytes > 1 << 20);
    while store.expire_step(&[], at(9)).unwrap() == Step::Worked {}
    while store.vacuum_step().unwrap() == Step::Worked {}
    store.checkpoint().unwrap();
    let facts = store.facts().unwrap();
    assert!(facts.file_bytes <= facts.file_limit_bytes, "{facts:?}");
    put(&mut store, 40, 60, 1).unwrap();
}

/// A burst fills the file, then its readings go by age: the file shrinks to what it holds, step by step, and stays there.
#[test]
fn the_file_shrinks_back_after_a_burst() {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 8 << 20;
    bench.cfg.max_age = Some(std::time::Duration::from_secs(3600));
    let mut store = bench.open_calm();
    let anchor = |s: i64| crate::clock::Anchor { boot: at(s).boot, utc: at(s).utc, trusted: true };
    put_with(&mut store, 2, 2, 0, &[anchor(0)]).unwrap();
    (1..700).for_each(|s| drop(put(&mut store, 40, 60, s).unwrap()));
    store.checkpoint().unwrap();
    let full = store.facts().unwrap();
    assert!(full.file_bytes > 1 << 20 && !full.has_spare(), "{full:?}");
    for s in (700..40_000).step_by(600) {
        put(&mut store, 40, 1, s).unwrap();
        while store.expire_step(&[], at(s)).unwrap() == Step::Worked {}
    }
    assert!(store.facts().unwrap().has_spare());
    let mut steps = 0;
    while store.vacuum_step().unwrap() == Step::Worked {
        steps += 1;
    }
    store.checkpoint().unwrap();
    let facts = store.facts().unwrap();
    let gone = full.pages - store.facts().unwrap().pages;
    let most = STEP_BYTES / u64::from(facts.page_bytes);
    assert!((gone / (most + 20)..=gone / most + 1).contains(&steps), "{gone} pages in {steps} steps");
    assert!(facts.file_bytes <= facts.used_bytes() + spare_bytes(facts.used_bytes(), facts.file_limit_bytes));
    assert!(facts.file_bytes < full.file_bytes / 2, "{} of {}", facts.file_bytes, full.file_bytes);
    assert!(!facts.is_uncut() && store.vacuum_step().unwrap() == Step::Idle);
    assert!(losses(&store).iter().all(|(_, loss)| loss.reason == LossReason::Retention && loss.readings.is_some()));
}

/// In a steady state, full or bounded by age, no page is moved: what comes free is taken again.
#[test]
fn a_steady_state_moves_no_page() {
    for max_age in [None, Some(std::time::Duration::from_secs(7200))] {
        let mut bench = small();
        bench.cfg.max_age = max_age;
        let mut store = bench.open_calm();
        let anchor = crate::clock::Anchor { boot: at(0).boot, utc: at(0).utc, trusted: true };
        put_with(&mut store, 2, 2, 0, &[anchor]).unwrap();
        for commit in 1..600 {
            put(&mut store, 40, 60, commit * 60).unwrap();
            let now = at(commit * 60 + 59);
            while store.compact_step(&[], now).unwrap() == Step::Worked {}
            while store.expire_step(&[], now).unwrap() == Step::Worked {}
            assert!(!store.facts().unwrap().has_spare(), "{max_age:?} {commit}: {:?}", store.facts());
        }
        assert!(max_age.is_some() || held(&store, store.uuid())[0].2 == 0, "it has been full");
    }
}

/// Old readings go by age where the time is known beyond doubt, and only there: not what a boot without a clock recorded,
/// not while the clock isn't trusted, and not all at once for a clock that is years ahead.
#[test]
fn age_is_told_by_a_trusted_clock_only() {
    let mut bench = Bench::new();
    bench.cfg.max_age = Some(std::time::Duration::from_secs(86_400));
    let day = 86_400;
    let anchor = |s: i64| crate::clock::Anchor { boot: at(s).boot, utc: at(s).utc, trusted: true };
    drop(put(&mut bench.open_calm(), 1, 5, 0).unwrap());
    bench.me.boot_uuid = Uuid::from_u128(2);
    let mut store = bench.open_calm();
    put_with(&mut store, 1, 5, 0, &[anchor(0)]).unwrap();
    (1..72).for_each(|h| drop(put(&mut store, 1, 5, h * 3600).unwrap()));
    let from = |store: &Store| held(store, store.uuid()).iter().find(|h| h.0 > 1 && h.2 > 0).unwrap().0;
    let hour = |store: &mut Store, h: i64, utc_ahead_s: i64, trusted: bool| {
        let now = at(h * 3600);
        let utc = UtcNanos(now.utc.0 + utc_ahead_s * crate::clock::SECOND);
        while store.expire_step(&[], Now { utc, trusted, ..now }).unwrap() == Step::Worked {}
    };
    (73..100).for_each(|h| hour(&mut store, h, 3650 * day, false));
    assert_eq!(from(&store), 2, "no trust, no loss");
    // Ten years ahead and believed, for two hours.
    (100..103).for_each(|h| hour(&mut store, h, 3650 * day, true));
    assert_eq!(from(&store), 2 + 8, "four hours an hour");
    (103..140).for_each(|h| hour(&mut store, h, 0, true));
    assert_eq!(held(&store, store.uuid()).last().unwrap().0, 73, "the newest keeps the count");
    assert_eq!(held(&store, store.uuid())[0], (1, 1, 5), "whose time nobody knows");
    assert_eq!(losses(&store)[0].1.readings, Some(71 * 5));
}

/// A reader that holds the log, for as long as it likes: file and log stay within `max_size` through commits and every
/// step of upkeep, and all goes on when it has gone.
#[test]
fn a_reader_does_not_push_the_file_over_its_size() {
    let bench = small();
    let mut store = bench.open_calm();
    (0..300).for_each(|s| drop(put(&mut store, 40, 60, s * 60).unwrap()));
    let reader = Connection::open(&bench.cfg.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM segment").unwrap();
    let (mut most, mut refused, mut s) = (0, 0, 300);
    while refused < 3 && s < 900 {
        refused += u32::from(put(&mut store, 40, 60, s * 60).is_err());
        let now = at(s * 60);
        store.set_acked(store.uuid(), RangeSet::from_iter([range(1, store.next_seq().0 - 1)])).unwrap();
        for _ in 0..5 {
            let _ = (store.expire_step(&[], now), store.compact_step(&[], now), store.vacuum_step());
            let facts = store.facts().unwrap();
            most = most.max(facts.file_bytes + facts.wal_bytes);
        }
        s += 1;
    }
    assert!(most <= bench.cfg.max_size_bytes, "{most} bytes");
    assert!(refused > 0, "the log has come to its bound");
    reader.execute_batch("COMMIT").unwrap();
    put(&mut store, 40, 60, 1000 * 60).unwrap();
    while store.expire_step(&[], at(60_000)).unwrap() == Step::Worked {}
    put(&mut store, 40, 60, 1001 * 60).unwrap();
    let facts = store.facts().unwrap();
    assert!(facts.file_bytes + facts.wal_bytes <= bench.cfg.max_size_bytes, "{facts:?}");
}

/// On a partition that others fill the store gives way down to its floor, what was set aside first, and takes its room
/// again.
#[test]
fn a_full_partition_gets_its_headroom_back() {
    use super::super::testing::SmallMedium;
    let mut bench = Bench::new();
    let medium = SmallMedium::mount(&bench.dir.path().join("m"));
    bench.cfg.path = medium.path.join("v.db");
    (bench.cfg.max_size_bytes, bench.cfg.headroom_bytes) = (3 << 20, 2 << 20);
    let mut store = bench.open_calm();
    let churn = |store: &mut Store, from: i64, to: i64| {
        for s in from..to {
            put(store, 40, 240, s * 240).unwrap();
            for _ in 0..8 {
                store.look_at_medium().unwrap();
                let facts = store.facts().unwrap();
                if facts.nearly_full() || facts.aside_in_the_way {
                    store.expire_step(&[], at(s * 240)).unwrap();
                } else if facts.above_limit() && facts.free_pages > 0 {
                    store.vacuum_step().unwrap();
                } else if facts.is_uncut() {
                    store.checkpoint().unwrap();
                }
            }
        }
    };
    let free = || {
        let found = rustix::fs::statvfs(&medium.path).unwrap();
        found.f_bavail * found.f_frsize
    };
    churn(&mut store, 0, 450);
    let full = store.facts().unwrap();
    assert!(full.file_bytes > 2 << 20, "{full:?}");
    let aside = bench.file(".quarantine-20260101T000000Z-1");
    std::fs::write(&aside, vec![1; 3 << 19]).unwrap();
    std::fs::write(medium.path.join("others"), vec![1; 9 << 18]).unwrap();
    churn(&mut store, 450, 455);
    assert!(!aside.exists());
    assert_eq!(store.facts().unwrap().file_limit_bytes, full.file_limit_bytes, "that was enough");
    std::fs::write(medium.path.join("others"), vec![1; 17 << 18]).unwrap();
    churn(&mut store, 455, 500);
    let pressed = store.facts().unwrap();
    assert!(free() >= 2 << 20, "{} bytes free, {pressed:?}", free());
    assert!(pressed.file_limit_bytes < full.file_limit_bytes && pressed.readings > 100_000, "{pressed:?}");
    churn(&mut store, 500, 550);
    assert_eq!(store.facts().unwrap().file_limit_bytes, pressed.file_limit_bytes, "it doesn't swing");
    std::fs::remove_file(medium.path.join("others")).unwrap();
    churn(&mut store, 550, 900);
    assert!(store.facts().unwrap().file_bytes > 2 << 20, "{:?}", store.facts());
    let kept: usize = held(&store, store.uuid()).iter().map(|h| h.2).sum();
    assert_eq!(losses(&store)[0].1.readings.unwrap() + kept as u64, 900 * 9600, "all of it is accounted for");
}

/// What this thread has handed to the kernel to write, in bytes.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// In a steady state nothing is given back and the file keeps its length. To give every free page back at once would
/// move pages in nearly each commit, for a file that is cut and grows again: blocks that the file system frees and finds,
/// and a journal that says so, which no figure here counts. (Bytes in all are not the reason: they are the same within a
/// thousandth.)
#[test]
fn an_eager_vacuum_moves_pages_and_this_store_none() {
    let [calm, eager] = [false, true].map(|eager| {
        let bench = small();
        let mut store = bench.open_calm();
        let (mut all, mut moved, mut cuts) = (0, 0, 0);
        let mut full_since = None;
        for commit in 0..1000 {
            let now = at(commit * 60);
            let begun = written();
            put(&mut store, 40, 60, commit * 60).unwrap();
            store.compact_step(&[], now).unwrap();
            while store.used_bytes().unwrap() > target_bytes(store.bounds.file_bytes) {
                store.expire_step(&[], now).unwrap();
                full_since = full_since.or(Some(commit));
            }
            let (kept_up, pages) = (written(), store.pragma("page_count").unwrap());
            let free = store.pragma("freelist_count").unwrap();
            if eager && free > 0 {
                store.transaction("give all back", |conn| vacuum(conn, free)).unwrap();
            } else {
                assert_eq!(store.vacuum_step().unwrap(), Step::Idle);
            }
            match full_since.map(|since| commit - since) {
                // It settles first.
                None | Some(0..50) => {}
                Some(50..250) => {
                    all += written() - begun;
                    moved += written() - kept_up;
                    cuts += i64::from(store.pragma("page_count").unwrap() < pages);
                }
                Some(_) => return (all, moved, cuts),
            }
        }
        panic!("the file is never full");
    });
    println!("bytes in all, bytes by vacuum, cuts of the file: as it is {calm:?}, eager {eager:?}");
    assert_eq!((calm.1, calm.2), (0, 0));
    assert!(eager.1 > eager.0 / 10 && eager.2 >= 10, "{eager:?}");
}
