//! Commits: what is there after them, and what fails without a trace.

use super::super::testing::{Bench, SmallMedium, at, def, held, put, put_with};
use super::*;
use crate::batch::{Track, TrackClock};
use crate::segment::Values;

/// What was committed is there after a crash, under the numbers that were given, and the next ones go on from there.
#[test]
fn what_was_committed_survives_a_crash() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let done = put(&mut store, 5, 10, 1).unwrap();
    assert_eq!((done.ranges.as_slice(), done.n), ([SeqRange::new(1, 1).unwrap()].as_slice(), 50));
    put(&mut store, 7, 10, 11).unwrap();
    let uuid = store.uuid();
    let after = bench.crash();
    let again = after.open_calm();
    assert_eq!((again.uuid(), again.next_seq(), again.run()), (uuid, SegmentSeq(3), 2));
    assert_eq!(held(&again, uuid), [(1, 1, 50), (2, 2, 70)]);
    assert_eq!(again.facts().unwrap().pending_readings, 120);
}

/// Ids are given once: a series keeps its id over restarts, and one whose unit changes gets another.
#[test]
fn series_keep_their_ids() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 3, 1, 1).unwrap();
    store.close().unwrap();
    let mut store = bench.open_calm();
    put(&mut store, 4, 1, 2).unwrap();
    let mut all = Vec::new();
    each_series(&store.conn, store.current().no, |id, def| all.push((id.0, def))).unwrap();
    assert_eq!(all, (0..4).map(|k| (k + 1, def(k))).collect::<Vec<_>>());
    store.close().unwrap();
    let mut store = bench.open_calm();
    let registry = Registry::new(10);
    let key = registry.key(&SeriesDef { unit: "K".into(), ..def(0) }).unwrap();
    let track =
        Track { key, clock: TrackClock::Boot, stamps: vec![1], values: Values::Int(vec![1]), missing: Vec::new() };
    store.commit(&Sealed::new(vec![track], None, None), &registry, &[], at(3)).unwrap();
    let segment = segment::decode(&store.body(store.uuid(), SegmentSeq(3)).unwrap().unwrap().1).unwrap();
    let Content::Data { readings, .. } = segment.content else { panic!("a loss") };
    assert_eq!(readings.columns[0].series, SeriesId(5));
}

/// What overflowed in RAM becomes a dated loss in the same commit.
#[test]
fn overflow_is_a_loss_of_its_own() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let lost = Overflowed { readings: 99, from: at(1).boot, to: at(5).boot, utc: None };
    let done = store.commit(&Sealed::new(Vec::new(), None, Some(lost)), &Registry::new(1), &[], at(6)).unwrap();
    assert_eq!(done.ranges.len(), 1);
    let segment = segment::decode(&store.body(store.uuid(), SegmentSeq(1)).unwrap().unwrap().1).unwrap();
    assert_eq!(segment.content, Content::Loss(overflowed(&lost, store.boot())));
    assert_eq!(
        store.commit(&Sealed::new(Vec::new(), None, None), &Registry::new(1), &[], at(7)).unwrap(),
        Committed::default()
    );
}

/// A commit that finds no room takes no number and changes nothing; the same batch goes in when there is room. The
/// limit on pages stands for the full medium.
#[test]
fn a_commit_that_fails_may_be_made_again() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    for s in 0..20 {
        put(&mut store, 50, 10, s * 10).unwrap();
    }
    let pages = store.pragma("page_count").unwrap();
    store.conn.pragma_update(None, "max_page_count", pages as i64).unwrap();
    let before = (store.next_seq(), store.facts().unwrap().readings, store.next_series);
    let mut failed = 0;
    for _ in 0..3 {
        match put(&mut store, 400, 20, 300) {
            Err(StoreError::Full { .. }) => failed += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!((store.next_seq(), store.facts().unwrap().readings, store.next_series), before);
    }
    assert_eq!(failed, 3);
    store.conn.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let done = put(&mut store, 400, 20, 300).unwrap();
    assert_eq!(done.ranges, [SeqRange::new(21, 21).unwrap()]);
    let crashed = bench.crash();
    assert_eq!(crashed.open_calm().next_seq(), SegmentSeq(22));
}

/// In steady state a commit of 50 readings puts two or three pages into the log, and the copies that fill the block: this is
/// what the layout of the `segment` table is for. Prints the mean, for docs/store.md.
#[test]
fn a_small_commit_writes_few_bytes() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 50, 1, 1).unwrap();
    store.checkpoint().unwrap();
    put(&mut store, 50, 1, 2).unwrap();
    let (before, _) = store.log.state(&store.conn).unwrap();
    for s in 0..200 {
        put(&mut store, 50, 1, 3 + s).unwrap();
    }
    let (after, _) = store.log.state(&store.conn).unwrap();
    let frames = after - before;
    let bytes = frames * (512 + super::super::file::FRAME_HEADER_BYTES) / 200;
    println!("{bytes} bytes of log per commit of 50 readings, bodies of {} bytes", store.body_bytes / 202);
    assert!(bytes < 4_600, "{bytes} bytes per commit");
}

/// A reader that never ends makes the log grow to its bound and no further; when it goes, commits go on.
#[test]
fn a_held_reader_is_bounded_and_named() {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 1 << 20;
    let mut store = bench.open_calm();
    put(&mut store, 40, 60, 0).unwrap();
    let reader = bench.beside();
    reader.execute_batch("BEGIN; SELECT * FROM segment").unwrap();
    let refused = (1..2000).find_map(|s| put(&mut store, 40, 60, s * 60).err());
    let Some(StoreError::Held { pids, .. }) = refused else { panic!("{refused:?}") };
    assert!(pids.is_empty(), "this process reads itself: {pids:?}");
    let facts = store.facts().unwrap();
    assert!(facts.file_bytes + facts.wal_bytes <= bench.cfg.max_size_bytes, "{facts:?}");
    reader.execute_batch("COMMIT").unwrap();
    put(&mut store, 40, 60, 3000 * 60).unwrap();
    put(&mut store, 40, 60, 3001 * 60).unwrap();
    assert!(store.facts().unwrap().wal_bytes <= 256 << 10);
}

/// After a transaction that failed the log is to begin anew, which a reader that holds it puts off. No commit waits for him: the
/// log is folded as far as he lets it, now and then, until he has gone. (Each commit waited twice for two seconds.)
#[test]
fn no_commit_waits_for_a_reader_after_a_failed_one() {
    static WAITED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let waited = || WAITED.load(std::sync::atomic::Ordering::Relaxed);
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 10, 10, 0).unwrap();
    let reader = bench.beside();
    reader.execute_batch("BEGIN; SELECT count(*) FROM segment").unwrap();
    put(&mut store, 10, 10, 10).unwrap();
    let failed: Result<(), _> = store.transaction("fail", |_| Err(StoreError::Busy { doing: "fail" }));
    assert!(failed.is_err() && store.log.is_restart_due());
    let wait = |_| WAITED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 9;
    store.conn.busy_handler(Some(wait)).unwrap();
    put(&mut store, 10, 10, 20).unwrap();
    assert!(waited() == 0 && store.log.is_restart_due());
    assert!(!store.log.fold_is_due(), "not tried again at once");
    put(&mut store, 10, 10, 30).unwrap();
    assert!(!store.log.fold_is_due());
    reader.execute_batch("COMMIT").unwrap();
    let more = (4..300).take_while(|s| store.log.is_restart_due() && put(&mut store, 10, 10, s * 10).is_ok()).count();
    assert!(!store.log.is_restart_due() && more > 3, "begun anew after {more} commits");
}

/// On a medium that fills up under the running store, commits go on within the reserve, then wait; none is lost, none
/// taken twice, and they go on by themselves when there is room.
#[test]
fn a_full_medium_holds_commits_back() {
    let mut bench = Bench::new();
    let medium = SmallMedium::mount(&bench.dir.path().join("small"));
    let dir = &medium.path;
    bench.cfg.path = dir.join("v.db");
    bench.cfg.max_size_bytes = 16 << 20;
    let mut store = bench.open_calm();
    put(&mut store, 40, 60, 0).unwrap();
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);
    let mut done = 1;
    let refused = (1..5000).find_map(|s| match put(&mut store, 40, 60, s * 60) {
        Ok(_) => {
            done += 1;
            None
        }
        Err(e) => Some(e),
    });
    assert!(matches!(refused, Some(StoreError::Full { .. })), "{refused:?}");
    assert!(done > 50, "{done} commits within the reserve");
    assert!(put(&mut store, 40, 60, 1).is_err());
    std::fs::remove_file(&filler).unwrap();
    put(&mut store, 40, 60, 6000 * 60).unwrap();
    assert_eq!(held(&store, store.uuid()).len(), done + 1);
    store.close().unwrap();
    let store = bench.open_calm();
    assert_eq!(held(&store, store.uuid()).len(), done + 1);
}

/// Anchors come back by boot, and change the version of the catalogue.
#[test]
fn anchors_are_kept_with_their_boot() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let anchor = Anchor { boot: at(3).boot, utc: at(3).utc, trusted: true };
    let version = store.catalog_version();
    put_with(&mut store, 1, 1, 3, &[anchor]).unwrap();
    assert_ne!(store.catalog_version(), version);
    let pages = store.catalog(1 << 16).unwrap();
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].boots[0].anchors, [anchor]);
}

/// A fleet that claims to hold the highest number there is takes the device's numbers, not its recording: it goes on
/// under a fresh id, also after a restart. (Every commit used to fail from then on, for ever.)
#[test]
fn a_line_without_numbers_left_goes_on_under_a_fresh_id() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 1, 1, 1).unwrap();
    let old = store.uuid();
    store.skip_above(SegmentSeq(u64::MAX), at(2)).unwrap();
    let done = put(&mut store, 1, 1, 3).unwrap();
    assert_eq!(done.ranges, [SeqRange::new(1, 1).unwrap()]);
    assert_ne!(store.uuid(), old);
    let fresh = store.uuid();
    store.set_acked(fresh, [SeqRange::new(1, u64::MAX).unwrap()].into_iter().collect()).unwrap();
    store.close().unwrap();
    let (mut store, _) = bench.open();
    put(&mut store, 1, 1, 4).unwrap();
    assert!(store.uuid() != fresh && store.uuid() != old);
}

/// Numbers that the fleet has seen and the file hasn't are left out, and said to be.
#[test]
fn numbers_above_are_left_out_as_a_void() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 1, 1, 1).unwrap();
    store.skip_above(SegmentSeq(9), at(2)).unwrap();
    store.skip_above(SegmentSeq(4), at(2)).unwrap();
    put(&mut store, 1, 1, 3).unwrap();
    assert_eq!(held(&store, store.uuid()), [(1, 1, 1), (2, 9, 0), (10, 10, 1)]);
}
