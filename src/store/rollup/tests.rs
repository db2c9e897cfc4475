//! That each reading is in the figures once, whatever becomes of its segment.

use super::super::testing::{Bench, at, compact_all, put, put_with};
use super::thin::ROW_BYTES;
use super::*;
use crate::batch::{Sealed, Track, TrackClock};
use crate::clock::Anchor;
use crate::config::StoreConfig;
use crate::reading::{Kind, SeriesDef};
use crate::segment::Values;
use uuid::Uuid;

fn anchor(s: i64) -> Anchor {
    Anchor { boot: at(s).boot, utc: at(s).utc, trusted: true }
}

/// Hours, readings, lowest and highest value, hours and days together. The sum that is kept over them is right each time.
fn sums(store: &Store) -> (i64, i64, f64, f64) {
    assert!(sum::adds_up(&store.conn).unwrap());
    let sql = "SELECT count(DISTINCT hour), coalesce(sum(n), 0), coalesce(min(min), 0), coalesce(max(max), 0) FROM \
               (SELECT hour, n, min, max FROM rollup UNION ALL SELECT -day, n, min, max FROM rollup_day)";
    store.conn.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap()
}

fn counted(store: &Store) -> i64 {
    sums(store).1
}

/// A commit of 3 × 60 readings each minute of this boot, from minute `from` to before `to`.
fn minutes(store: &mut Store, from: i64, to: i64) {
    (from..to).for_each(|m| drop(put(store, 3, 60, m * 60).unwrap()));
}

/// However often segments are joined, each reading counts once, in its hour and unit; and still does when its segment has
/// gone. (Figures used to go with their segments.)
#[test]
fn every_reading_counts_once_and_outlives_its_segment() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0), anchor(200_000)]).unwrap();
    minutes(&mut store, 1, 200);
    compact_all(&mut store, at(4_000));
    compact_all(&mut store, at(100_000));
    let before = sums(&store);
    let (hours, n, min, max) = before;
    assert_eq!((hours, n), (4, 3 * 60 * 200));
    assert!(min >= 19.8 && max <= 20.2 && min < max, "{min} {max}");
    let rows: i64 = store.conn.query_row("SELECT count(*) FROM rollup", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 3 * 4, "a row for each series and hour");
    while store.make_room(at(100_000)).unwrap() == Step::Worked {}
    assert!(store.facts().unwrap().readings <= 180, "only the newest segment is left");
    assert_eq!(sums(&store), before);
    assert_eq!((store.rollup_rows.hours, store.rollup_rows.days), (12, 0));
}

/// What is dropped before compaction came to it is counted first: its hours have figures all the same.
#[test]
fn what_is_dropped_in_a_hurry_is_counted_first() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    minutes(&mut store, 1, 120);
    while store.make_room(at(7_200)).unwrap() == Step::Worked {}
    assert_eq!(counted(&store), 3 * 60 * 119);
}

/// The figures are those of the readings.
#[test]
fn the_figures_are_right() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 2, 60, 0, &[anchor(0)]).unwrap();
    (1..150).for_each(|m| drop(put(&mut store, 2, 60, m * 60).unwrap()));
    for s in (3_000..30_000).step_by(1_000) {
        compact_all(&mut store, at(s));
    }
    let sql = "SELECT r.hour, r.n, r.min, r.mean, r.max, r.last, s.name FROM rollup r JOIN series s ON s.store = r.store \
               AND s.id = r.series ORDER BY r.hour";
    let mut statement = store.conn.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut seen = 0;
    while let Some(row) = rows.next().unwrap() {
        let (hour, n, name): (i64, i64, String) = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(6).unwrap());
        let k: i64 = name.trim_start_matches("bench/s").parse().unwrap();
        // As `testing::put` makes them: commit `m` has 60 readings from second 60 m on, of this noise.
        let noise = |s: i64| (s + k).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 56;
        let own: Vec<f64> = (0..150 * 60)
            .filter(|s| at(*s).utc.0.div_euclid(HOUR_NANOS) == hour)
            .map(|s| (20_000 + noise(s)) as f64 / 1000.0)
            .collect();
        let figure = |i| row.get::<_, f64>(i).unwrap();
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        assert_eq!(n as usize, own.len());
        assert_eq!(figure(2), own.iter().copied().fold(f64::MAX, f64::min));
        assert!((figure(3) - mean).abs() < 1e-9, "{} {mean}", figure(3));
        assert_eq!(figure(4), own.iter().copied().fold(f64::MIN, f64::max));
        assert_eq!(Some(&figure(5)), own.last());
        seen += n;
    }
    assert_eq!(seen, 2 * 60 * 150);
}

/// Where no clock could be trusted there are no figures: an hour that may be wrong is worse than none. When the clock is
/// trusted, later in the same boot, what was compacted before is counted too. (It used to stay without.)
#[test]
fn what_was_compacted_before_the_clock_was_right_is_counted_later() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    minutes(&mut store, 0, 200);
    compact_all(&mut store, at(100_000));
    assert_eq!(sums(&store), (0, 0, 0.0, 0.0));
    assert!(store.facts().unwrap().segments < 10);
    put_with(&mut store, 3, 60, 200 * 60, &[anchor(0)]).unwrap();
    compact_all(&mut store, at(100_001));
    assert_eq!(counted(&store), 3 * 60 * 201);
}

/// Where the row of a series can't be read, what its whole numbers count is not known: counting stops with the error, and nothing
/// is counted as if the scale were 1. A series that has no row has no figures, and the others have theirs.
#[test]
fn a_scale_that_cannot_be_read_is_an_error() {
    for (damage, others) in
        [("UPDATE series SET scale = 'ten' WHERE id = 2", None), ("DELETE FROM series WHERE id = 2", Some(2))]
    {
        let bench = Bench::new();
        let mut store = bench.open_calm();
        put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
        minutes(&mut store, 1, 20);
        store.conn.execute(damage, []).unwrap();
        let at_once = (0..50).find_map(|_| match store.roll_step(at(100_000)) {
            Ok(Step::Idle) => Some(Ok(())),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        });
        match others {
            None => assert!(matches!(at_once, Some(Err(StoreError::Damaged { .. }))), "{at_once:?}"),
            Some(series) => assert!(matches!(at_once, Some(Ok(()))) && counted(&store) == series * 60 * 20),
        }
        let sql = "SELECT count(*) FROM rollup WHERE series = 2";
        assert_eq!(store.conn.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap(), 0);
    }
}

/// A boot that ended without a trusted clock has no figures, and doesn't hold up those of the boots around it.
#[test]
fn a_boot_without_a_clock_is_left_out() {
    let mut bench = Bench::new();
    for boot in 1..=3 {
        bench.me.boot_uuid = Uuid::from_u128(boot);
        let mut store = bench.open_calm();
        let anchors = if boot == 2 { vec![] } else { vec![anchor(0)] };
        put_with(&mut store, 3, 60, 0, &anchors).unwrap();
        minutes(&mut store, 1, 30);
        store.close().unwrap();
    }
    let mut store = bench.open_calm();
    compact_all(&mut store, at(100_000));
    assert_eq!(counted(&store), 2 * 3 * 60 * 30);
}

/// The power may fail after any step: nothing is counted twice, nothing is left out.
#[test]
fn a_power_cut_counts_nothing_twice() {
    let mut bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    for m in 1..100 {
        put(&mut store, 3, 60, m * 60).unwrap();
        if m % 10 == 0 {
            store.compact_step(&[], at(m * 60 + 7_200)).unwrap();
            let cut = bench.crash();
            drop(store);
            bench = cut;
            store = bench.open_calm();
        }
    }
    compact_all(&mut store, at(100_000));
    assert_eq!(counted(&store), 3 * 60 * 100);
    assert_eq!(store.rollup_rows.hours, sums(&store).0 as u64 * 3);
}

/// Hours that have no room become days, and days that have none go, the oldest first; until then no reading leaves the
/// figures, and the rows stay within their share.
#[test]
fn old_hours_become_days() {
    let mut bench = Bench::new();
    bench.cfg = StoreConfig { max_size_bytes: 1 << 20, buffer_bytes: 64 << 10, ..bench.cfg.clone() };
    let mut store = bench.open_calm();
    let most = Rows::most(store.bounds.file_bytes);
    put_with(&mut store, 40, 1, 0, &[anchor(0)]).unwrap();
    let mut full = false;
    for hour in 1..24 * 20 {
        let now = at(hour * 3600);
        put(&mut store, 40, 1, hour * 3600).unwrap();
        compact_all(&mut store, now);
        while store.expire_step(&[], now).unwrap() == Step::Worked {}
        let rows = store.rollup_rows;
        assert!(rows.hours <= most.hours && rows.days <= most.days, "{rows:?}");
        full |= rows.days + 40 > most.days;
        // The last two hours are not counted yet.
        assert!(full || counted(&store) >= 40 * (hour - 2), "hour {hour}: a reading has left before its time");
    }
    assert!(full);
    let (kept, hours) = (store.rollup_rows, sums(&store).0);
    assert!((55..100).contains(&hours), "{hours} hours and days");
    assert_eq!(store.recount().unwrap(), Step::Idle);
    assert_eq!(store.rollup_rows, kept, "the counts that are kept are those of the tables");
}

/// Commits one reading of a float at second `s`.
fn put_float(store: &mut Store, value: f64, s: i64, anchors: &[Anchor]) {
    let registry = crate::batch::Registry::new(1);
    let def = SeriesDef { name: "bench/f".into(), unit: "V".into(), kind: Kind::Float, scale: Scale::ONE };
    let track = Track {
        key: registry.key(&def).unwrap(),
        clock: TrackClock::Boot,
        stamps: vec![s * SECOND],
        values: Values::Float(vec![value]),
        missing: Vec::new(),
    };
    store.commit(&Sealed::new(vec![track], Some(at(s).boot), None), &registry, anchors, at(s)).unwrap();
}

/// Readings from both ends of what a double holds have a mean like others, and what comes later in their hour is counted. (The
/// mean was infinite, then no number, NULL in the file, and no later step could read that row: compaction, expiry and in the
/// end recording stood still for good.)
#[test]
fn the_mean_of_the_largest_numbers_is_a_number() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let values = [1.7e308, -1.7e308, 1.0, -1.7e308, -1.7e308, 1.7e308];
    for (s, value) in (0..).zip(values) {
        put_float(&mut store, value, s, &[anchor(0)]);
        store.roll(0, Some(store.next_seq()), at(s)).unwrap();
    }
    let sql = "SELECT n, min, mean, max FROM rollup";
    let figures = |store: &Store| -> (i64, f64, f64, f64) {
        store.conn.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap()
    };
    let (n, min, mean, max) = figures(&store);
    assert_eq!((n, min, max), (6, -1.7e308, 1.7e308));
    assert!((mean / (-1.7e308 / 6.0) - 1.0).abs() < 1e-9, "{mean}");
}

/// A row without a mean, as an earlier version left it, is counted on; its mean stays unknown, also in its day and in what
/// salvages the file. (A salvage made it 0.)
#[test]
fn a_mean_that_is_not_known_stays_so() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_float(&mut store, 1.0, 0, &[anchor(0)]);
    store.roll(0, Some(store.next_seq()), at(0)).unwrap();
    store.conn.execute_batch("UPDATE rollup SET mean = NULL").unwrap();
    put_float(&mut store, 3.0, 1, &[]);
    store.roll(0, Some(store.next_seq()), at(1)).unwrap();
    let row = |store: &Store, table: &str| -> (i64, f64, Option<f64>, f64) {
        let sql = format!("SELECT n, min, mean, max FROM {table}");
        store.conn.query_row(&sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap()
    };
    assert_eq!(row(&store, "rollup"), (2, 1.0, None, 3.0));
    drop(store);
    super::super::quarantine::set_aside(&bench.cfg.path, at(5)).unwrap();
    let mut store = bench.open().0;
    assert_eq!(row(&store, "rollup"), (2, 1.0, None, 3.0));
    store.bounds.file_bytes = 0;
    assert_eq!(store.thin_rollups().unwrap(), Step::Worked);
    assert_eq!(row(&store, "rollup_day"), (2, 1.0, None, 3.0));
}

/// A row takes what is reckoned for it.
#[test]
fn a_row_takes_what_is_reckoned() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let before = store.facts().unwrap().used_bytes();
    let mut rollups = Rollups::default();
    for hour in 0..200i64 {
        for series in 1..=50u32 {
            let f = 20.0 + f64::from(series) / 7.0;
            let figures = Figures { n: 3600, min: f - 1.3, mean: f, max: f + 1.7, last: f - 0.2, last_at: 0 };
            rollups.figures.insert((480_000 + hour, SeriesId(series)), figures);
        }
    }
    let no = store.current().no;
    store.transaction("test", |conn| rollups.write(conn, no, SegmentSeq(1_000_000), Rows::default())).unwrap();
    let each = (store.facts().unwrap().used_bytes() - before) / 10_000;
    assert!((ROW_BYTES * 7 / 8..=ROW_BYTES).contains(&each), "{each} bytes a row");
}

/// Readings with stamps of their own of any hour don't make the figures larger than the readings.
#[test]
fn stamps_of_any_hour_are_bounded() {
    let mut rollups = Rollups::default();
    for i in 0..50_000i64 {
        rollups.count((i * 77, SeriesId(1)), Figures::of(1.0, i), MOST_FIGURES);
    }
    assert_eq!((rollups.figures.len(), rollups.left_out), (MOST_FIGURES, 50_000 - MOST_FIGURES as u64));
}

/// Where there is more to count than one step writes, it takes several: no reading is left out for it, whether it is counted as it
/// is joined, after it was joined while the clock wasn't trusted, or before it goes. (Half of three days of 600 series, whose time
/// became known at the end, were in no figures.)
#[test]
fn what_is_more_than_one_step_is_counted_in_several() {
    let all = 300 * 40;
    assert!(all as usize > MOST_FIGURES);
    let hours = |store: &mut Store, trusted: bool| {
        (0..40).for_each(|hour| {
            let known = trusted || hour == 39;
            let anchors = [anchor(0)];
            put_with(store, 300, 1, hour * 3600, if known { &anchors } else { &[] }).unwrap();
            if !trusted && !known {
                compact_all(store, at(hour * 3600 + 90_000));
            }
        });
    };
    let late = at(40 * 3600 + 90_000);
    let (joined, waited, dropped) = (Bench::new(), Bench::new(), Bench::new());
    let mut store = joined.open_calm();
    hours(&mut store, true);
    compact_all(&mut store, late);
    assert_eq!(counted(&store), all, "counted as it is joined");
    assert!(store.facts().unwrap().segments < 5);
    let mut store = waited.open_calm();
    hours(&mut store, false);
    assert!(store.facts().unwrap().segments < 20, "joined before the time was known");
    compact_all(&mut store, late);
    assert_eq!(counted(&store), all, "counted after it was joined");
    let mut store = dropped.open_calm();
    hours(&mut store, true);
    while store.make_room(late).unwrap() == Step::Worked {}
    assert_eq!(counted(&store), all - 300, "counted before it goes, but for the newest");
}

/// A file of the version before, whose figures went with their segments, is counted anew, once.
#[test]
fn an_older_file_is_counted_anew() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    minutes(&mut store, 1, 100);
    compact_all(&mut store, at(100_000));
    let sql = "DROP TABLE rollup_day; DELETE FROM meta WHERE key LIKE 'roll%'; UPDATE rollup SET n = n + 1";
    store.conn.execute_batch(sql).unwrap();
    drop(store);
    let mut store = bench.open_calm();
    assert_eq!(counted(&store), 0);
    compact_all(&mut store, at(100_000));
    assert_eq!(counted(&store), 3 * 60 * 100);
}

/// A store of old whose readings have gone stays known for its figures, and isn't told of any more.
#[test]
fn figures_of_an_old_store_stay() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    let old = store.uuid();
    store.take_fresh_id(super::super::FreshWhy::Request, at(61)).unwrap();
    put(&mut store, 3, 1, 62).unwrap();
    store.set_acked(old, std::iter::once(crate::reading::SeqRange::new(1, 1).unwrap()).collect()).unwrap();
    while store.make_room(at(90)).unwrap() == Step::Worked {}
    while store.expire_step(&[], at(99)).unwrap() == Step::Worked {}
    assert_eq!((store.stores().len(), store.lines.len()), (1, 2));
    assert_eq!(counted(&store), 180);
    drop(store);
    assert_eq!(counted(&bench.open_calm()), 180);
}

/// A store of old that is forgotten takes its figures with it, and the kept count of rows knows. (It went on counting them, so
/// hours of others became days before their time.)
#[test]
fn forgotten_figures_are_not_counted_on() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    for k in 0..20 {
        put_with(&mut store, 3, 60, k * 100, &[anchor(k * 100)]).unwrap();
        store.take_fresh_id(super::super::FreshWhy::Request, at(k * 100 + 61)).unwrap();
    }
    put(&mut store, 3, 1, 9_000).unwrap();
    for line in store.stores().into_iter().filter(|line| !line.current) {
        store.set_acked(line.uuid, std::iter::once(crate::reading::SeqRange::new(1, 1).unwrap()).collect()).unwrap();
    }
    while store.make_room(at(9_001)).unwrap() == Step::Worked {}
    let before = store.rollup_rows;
    while store.expire_step(&[], at(9_002)).unwrap() == Step::Worked {}
    let kept = store.rollup_rows;
    assert!(store.lines.len() == 17 && kept.hours < before.hours, "{before:?} {kept:?}");
    store.recount().unwrap();
    assert_eq!(store.rollup_rows, kept, "the counts that are kept are those of the tables");
    store.close().unwrap();
    assert_eq!(bench.open_calm().rollup_rows, kept);
}

/// A file that is set aside leaves its figures to the new one, also those of readings that have gone, and none counts twice.
#[test]
fn a_salvage_takes_the_figures_over() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    minutes(&mut store, 1, 200);
    compact_all(&mut store, at(4_000));
    (0..3).for_each(|_| assert!(store.make_room(at(4_000)).is_ok()));
    compact_all(&mut store, at(100_000));
    let before = sums(&store);
    assert!(before.1 == 3 * 60 * 200 && store.facts().unwrap().readings < 3 * 60 * 200);
    drop(store);
    super::super::quarantine::set_aside(&bench.cfg.path, at(5)).unwrap();
    let (mut store, _) = bench.open();
    compact_all(&mut store, at(200_000));
    assert_eq!(sums(&store), before);
    assert_eq!(store.rollup_rows.hours, 12);
}

/// A figure that changes and a row that goes are told to who reads figures, and by `varved verify`; who reads others isn't
/// bothered. (Nobody knew.)
#[test]
fn figures_that_rot_are_told() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put_with(&mut store, 3, 60, 0, &[anchor(0)]).unwrap();
    minutes(&mut store, 1, 120);
    compact_all(&mut store, at(100_000));
    assert!(counted(&store) > 0);
    let told = |store: &Store, sql: &str| match store.query(sql) {
        Ok(_) => false,
        Err(super::super::reader::ReadError::Damaged { first, .. }) => first.contains("figures"),
        Err(other) => panic!("{other}"),
    };
    let (figures, other) = ("SELECT max(max) FROM rollup", "SELECT count(*) FROM series");
    assert!(!told(&store, figures));
    for rot in ["UPDATE rollup SET max = max + 1 WHERE series = 2", "DELETE FROM rollup WHERE series = 1"] {
        store.conn.execute_batch(&format!("SAVEPOINT s; {rot}")).unwrap();
        assert!(told(&store, figures) && !told(&store, other), "{rot}");
        store.conn.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
        assert!(!told(&store, figures));
    }
    store.conn.execute("UPDATE rollup SET n = n + 1 WHERE series = 3", []).unwrap();
    let reader = super::super::reader::Reader::open(&bench.cfg.path).unwrap();
    let audit = super::super::audit::audit(&reader).unwrap();
    assert!(audit.problems.first.iter().any(|problem| problem.contains("figures")), "{:?}", audit.problems);
    drop(store);
    // Another version may have written figures and knows of no sum: it is made anew.
    let store = bench.open_calm();
    assert!(told(&store, figures));
    store.conn.execute_batch("UPDATE meta SET value = 'varved 0.0.1' WHERE key = 'writer'").unwrap();
    drop(store);
    assert!(!told(&bench.open_calm(), figures));
}
