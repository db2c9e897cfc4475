//! Neighbours become one: what is joined, what is not, and that nothing of it is lost.

use super::super::testing::{Bench, at, compact_all, def, held, put};
use super::*;
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, Kind, Scale};
use crate::segment::{Column, Timeline, Values, decode};

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).unwrap()
}

/// Losses of one reason are joined also where one of another reason stands among them; before, none of them was.
#[test]
fn losses_of_one_reason_are_joined_beside_another() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    store.skip_above(SegmentSeq(3), at(1)).unwrap();
    let batch = |n| {
        let lost = crate::batch::Overflowed { readings: n, from: at(1).boot, to: at(2).boot, utc: None };
        crate::batch::Sealed::new(Vec::new(), None, Some(lost))
    };
    for n in 1..=3 {
        store.commit(&batch(n), &crate::batch::Registry::new(1), &[], at(2)).unwrap();
    }
    put(&mut store, 1, 1, 3).unwrap();
    compact_all(&mut store, at(9));
    assert_eq!(ranges(&store), [(1, 3), (4, 6), (7, 7)]);
}

fn ranges(store: &Store) -> Vec<(u64, u64)> {
    held(store, store.uuid()).iter().map(|h| (h.0, h.1)).collect()
}

/// Every reading: series, stamp, value.
fn readings(store: &Store) -> Vec<(u32, i64, String)> {
    let mut all = Vec::new();
    for (first, ..) in held(store, store.uuid()) {
        let body = store.body(store.uuid(), SegmentSeq(first)).unwrap().unwrap().1;
        let Content::Data { readings, .. } = decode(&body).unwrap().content else { continue };
        let timeline = |c: &Column| -> Timeline { readings.timelines[c.timeline].clone() };
        for column in &readings.columns {
            let stamps = timeline(column).stamps;
            all.extend((0..stamps.len()).map(|i| (column.series.0, stamps[i], format!("{:?}", column.values.get(i)))));
        }
    }
    all.sort();
    all
}

/// Compaction changes how readings are stored, not which: none is lost, none is there twice, after a crash either. The
/// segment names its series.
#[test]
fn compaction_keeps_every_reading() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..100).for_each(|s| drop(put(&mut store, 20, 10, s * 10).unwrap()));
    let (before, facts) = (readings(&store), store.facts().unwrap());
    compact_all(&mut store, at(10_000));
    assert_eq!(readings(&store), before);
    let after = store.facts().unwrap();
    assert!(after.segments <= 3, "{} segments", after.segments);
    assert_eq!((after.readings, after.pending_readings), (facts.readings, facts.pending_readings));
    let body = store.body(store.uuid(), SegmentSeq(1)).unwrap().unwrap().1;
    assert_eq!(View::parse(&body).unwrap().names()[3], (SeriesId(4), def(3)));
    let again = bench.crash().open_calm();
    assert_eq!(readings(&again), before);
    assert_eq!(again.facts().unwrap().readings, facts.readings);
}

/// Young segments are left alone until there are enough of them, and the newest always is.
#[test]
fn young_segments_wait() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..50).for_each(|s| drop(put(&mut store, 2, 2, s).unwrap()));
    assert_eq!(store.compact_step(&[], at(60)).unwrap(), Step::Idle);
    assert_eq!(store.compact_step(&[], at(4000)).unwrap(), Step::Worked);
    assert_eq!(ranges(&store), [(1, 49), (50, 50)]);
    assert_eq!(store.compact_step(&[], at(8000)).unwrap(), Step::Idle);
}

/// What is in flight stays as it was sent, and what the fleet has is never joined with what it hasn't.
#[test]
fn neighbours_of_another_state_stay_apart() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..100).for_each(|s| drop(put(&mut store, 2, 2, s).unwrap()));
    store.set_acked(store.uuid(), RangeSet::from_iter([range(1, 40)])).unwrap();
    let flying = [(store.uuid(), range(60, 61))];
    while store.compact_step(&flying, at(9000)).unwrap() == Step::Worked {}
    assert_eq!(ranges(&store), [(1, 40), (41, 59), (60, 60), (61, 61), (62, 99), (100, 100)]);
}

/// Losses of one reason become one loss that counts them all; others stay.
#[test]
fn losses_of_one_reason_are_joined() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    let loss = |n| Loss {
        reason: LossReason::Overflow,
        readings: Some(n),
        from: Some((store.boot(), at(n as i64).boot)),
        to: Some((store.boot(), at(n as i64 + 1).boot)),
        utc: None,
    };
    let parts: Vec<Segment> =
        (1..=3).map(|n| Segment { range: range(n, n), content: Content::Loss(loss(n)) }).collect();
    let joined = join_losses(&parts).unwrap();
    let Content::Loss(all) = joined.content else { panic!("not a loss") };
    assert_eq!((joined.range, all.readings, all.from, all.to), (range(1, 3), Some(6), loss(1).from, loss(3).to));
    let other = Segment { range: range(4, 4), content: Content::Loss(Loss { reason: LossReason::Void, ..loss(4) }) };
    assert!(join_losses(&[parts[2].clone(), other]).is_err());
    store.skip_above(SegmentSeq(3), at(1)).unwrap();
    store.skip_above(SegmentSeq(9), at(2)).unwrap();
    put(&mut store, 1, 1, 3).unwrap();
    compact_all(&mut store, at(4));
    assert_eq!(ranges(&store), [(1, 9), (10, 10)]);
}

/// A joined loss begins no later than it ends: one that knows only its end, before one that knows only its beginning, or a part
/// whose boot is an earlier one than that of the part before. (It began in the later boot and ended in the earlier one.)
#[test]
fn a_joined_loss_begins_before_it_ends() {
    let moment = |boot, s| Some((BootId(boot), at(s).boot));
    let join = |ends: &[(Option<_>, Option<_>)]| {
        let loss = |(from, to)| Loss { reason: LossReason::Void, readings: Some(1), from, to, utc: None };
        let segment = |(n, ends)| Segment { range: range(n, n), content: Content::Loss(loss(ends)) };
        let parts: Vec<Segment> = (1..).zip(ends.iter().copied()).map(segment).collect();
        let Content::Loss(all) = join_losses(&parts).unwrap().content else { panic!("not a loss") };
        (all.from, all.to)
    };
    let whole = (moment(1, 5), moment(2, 9));
    assert_eq!(join(&[(None, moment(1, 5)), (moment(2, 9), None)]), whole);
    assert_eq!(join(&[(moment(2, 8), moment(2, 9)), (moment(1, 5), moment(1, 6))]), whole);
    assert_eq!(join(&[(moment(1, 5), moment(1, 7)), (moment(1, 6), moment(2, 9))]), whole);
    assert_eq!(join(&[(None, moment(1, 5)), (None, moment(2, 9))]), (None, moment(2, 9)));
    assert_eq!(join(&[(None, None), (moment(1, 5), None)]), (moment(1, 5), None));
}

/// A body that doesn't decode becomes a loss that says how much it was, and those around it are still compacted.
#[test]
fn a_damaged_segment_becomes_a_loss() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..90).for_each(|s| drop(put(&mut store, 2, 2, s).unwrap()));
    store.conn.execute("UPDATE segment SET body = x'010203' WHERE first_seq = 20", []).unwrap();
    compact_all(&mut store, at(9000));
    assert_eq!(ranges(&store), [(1, 19), (20, 20), (21, 89), (90, 90)]);
    let body = store.body(store.uuid(), SegmentSeq(20)).unwrap().unwrap().1;
    let loss = *View::parse(&body).unwrap().loss().unwrap();
    assert_eq!((loss.reason, loss.readings), (LossReason::Damaged, Some(4)));
    assert_eq!(store.compact_step(&[], at(9001)).unwrap(), Step::Idle);
}

/// Over a long run each byte is rewritten a few times, not each hour: sizes grow by tiers.
#[test]
fn rewriting_is_bounded() {
    let head = |first, last, bytes| SegmentHead {
        range: range(first, last),
        bytes,
        n: 10,
        loss: false,
        from: None,
        to: None,
        utc: None,
    };
    let window: Vec<_> = std::iter::once(head(1, 100, 20_000)).chain((101..=140).map(|n| head(n, n, 100))).collect();
    let found = choose(&window, &|_| true, &|_| (false, false), &|_| true, true);
    assert_eq!(found, Found::Nothing(0), "40 small ones don't have the large one rewritten");
    let found = choose(&window[1..], &|_| true, &|_| (false, false), &|_| true, true);
    assert_eq!(found, Found::Run(0..40));
}

/// Long texts that are often the same are few bytes in a file; a run is joined only as far as they fit in RAM.
#[test]
fn what_is_joined_fits_in_ram_also_as_text() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..300).for_each(|s| put_texts(&mut store, 4, 4096, s));
    let before = texts(&store);
    assert_eq!(before.iter().map(|(n, _)| n).sum::<usize>(), 1200);
    compact_all(&mut store, at(10_000));
    let after = texts(&store);
    assert_eq!(after.iter().map(|(n, _)| n).sum::<usize>(), 1200);
    assert_eq!(after.iter().filter(|(n, _)| *n > 100).count(), 4, "{after:?}");
    assert!(after.iter().all(|(_, bytes)| *bytes <= MOST_TEXT_BYTES), "{after:?}");
    // Nothing is joined again and again.
    assert_eq!(store.compact_step(&[], at(10_001)).unwrap(), Step::Idle);
}

/// Commits `n` readings of one text of `bytes`.
fn put_texts(store: &mut Store, n: usize, bytes: usize, s: i64) {
    let registry = crate::batch::Registry::new(1);
    let def = SeriesDef { name: "bench/word".into(), unit: "".into(), kind: Kind::Text, scale: Scale::ONE };
    let track = crate::batch::Track {
        key: registry.key(&def).unwrap(),
        clock: crate::batch::TrackClock::Boot,
        stamps: (0..n as i64).map(|i| s * SECOND + i).collect(),
        values: Values::Text(vec!["x".repeat(bytes).into(); n]),
        missing: Vec::new(),
    };
    store.commit(&crate::batch::Sealed::new(vec![track], Some(at(s).boot), None), &registry, &[], at(s)).unwrap();
}

/// Of each segment, how many readings and bytes of text.
fn texts(store: &Store) -> Vec<(usize, usize)> {
    let bodies = held(store, store.uuid()).into_iter();
    let bodies = bodies.map(|(first, ..)| store.body(store.uuid(), SegmentSeq(first)).unwrap().unwrap().1);
    bodies.map(|body| decode(&body).unwrap().content).map(|content| (content.n(), content.text_bytes())).collect()
}
