//! Both sides of a pull over a pair of sockets, on real files.

use super::*;
use crate::clock::{Anchor, BootNanos, SECOND, UtcNanos};
use crate::pull::fetch::{Fetched, Holding, PullError, fetch};
use crate::reading::{BootId, SeqRange, SeriesId};
use crate::segment::{Column, Content, Readings, Segment, Timeline, TimelineClock, Values};
use crate::store::arrivals::Arrivals;
use crate::store::file::{StoreNo, upsert_anchor};
use crate::store::query::Session;
use crate::store::rows_file::{self, Added};
use crate::store::sample;
use crate::store::testing::{Bench, at, compact_all, put};
use crate::wire::{SegmentFrame, decode, encode};
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;

const LAPTOP: UtcNanos = UtcNanos(1_796_000_000 * SECOND);

/// A board whose newest boot runs, and whose clock says 1970.
fn board() -> Board {
    let running = Running { boot: uuid::Uuid::from_u128(3), boottime: 100 * SECOND, utc: 100 * SECOND, trusted: false };
    Board { device: "pump-17".into(), running: Some(running), health: Err("no service runs".into()) }
}

/// Pulls from the store at `db` what `out` lacks, without putting it there.
fn fetched(db: &Path, out: &Path) -> Result<Fetched, PullError> {
    fetched_up_to(db, out, u64::MAX)
}

/// The same where the line is cut after so many bytes.
fn fetched_up_to(db: &Path, out: &Path, bytes: u64) -> Result<Fetched, PullError> {
    let (near, far) = UnixStream::pair().expect("a pair");
    let inspected = rows_file::inspect(out).expect("a file of ours");
    let exists = inspected.is_some();
    let (device, had) = inspected.unwrap_or_default();
    let holding = Holding { name: out.display().to_string(), exists, device, had };
    let mut arrivals = Arrivals::open(&rows_file::part_of(out), exists).expect("a file for what arrives");
    let db = db.to_owned();
    let serving = std::thread::spawn(move || {
        let mut rows = Session::open(&db).expect("a store");
        serve(&mut rows, board(), &mut Link::new(BufReader::new(&far), &far))
    });
    let from = BufReader::new(std::io::Read::take(&near, bytes));
    let got = fetch(&mut Link::new(from, &near), &mut arrivals, &holding, &|| LAPTOP, &mut |_| ());
    near.shutdown(std::net::Shutdown::Both).expect("the end");
    // Where the laptop would not go on, the board is cut off; it may have said all by then.
    let served = serving.join().expect("no panic");
    assert!(served.is_ok() || got.is_err(), "{got:?}");
    got
}

fn pull(db: &Path, out: &Path) -> (Fetched, Added) {
    let got = fetched(db, out).expect("a pull");
    let part = rows_file::part_of(out);
    let added = rows_file::add(&part, out).expect("a file of rows");
    std::fs::remove_file(part).expect("what arrived");
    (got, added)
}

/// Every reading, in an order of its own; every bit of a value.
fn readings(db: &Path) -> Vec<Vec<Got>> {
    let sql = "SELECT series, time, utc, quote(value), unit, quality FROM reading ORDER BY series, time, 4";
    Session::open(db).expect("a file").ask(sql).expect("rows")
}

fn count(db: &Path, what: &str) -> i64 {
    let rows = Session::open(db).expect("a file").ask(&format!("SELECT count(*) FROM {what}")).expect("a count");
    rows[0][0].int().expect("a count")
}

/// Every kind of value, missing ones, stamps of three boots and own ones, a loss: the file has what `reading` of the store has. A
/// second pull brings nothing.
#[test]
fn a_pull_has_what_the_store_shows() {
    let (directory, db) = sample::store();
    let out = directory.path().join("out.db");
    let (got, added) = pull(&db, &out);
    assert_eq!((got.progress.segments, added.readings, got.unreadable), (5, sample::READINGS as u64, 0));
    assert_eq!(readings(&out), readings(&db));
    assert_eq!(count(&out, "segment WHERE kind = 1"), 1);
    assert_eq!(count(&out, "reading WHERE (boot IS NULL) <> (boottime IS NULL)"), 0);
    assert_eq!(count(&out, "reading WHERE boot IS NULL"), 2, "two brought their own time");
    let (again, added) = pull(&db, &out);
    assert_eq!((again.progress.segments, added), (0, Added::default()));
    assert!(again.received < got.received);
    assert_eq!(readings(&out), readings(&db));
}

fn in_boot_three(seq: u64) -> Segment {
    let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(3)), stamps: vec![10 * SECOND, 90 * SECOND] }];
    let values = Values::Int(vec![1, 2]);
    let columns = vec![Column { series: SeriesId(2), timeline: 0, values, missing: Vec::new() }];
    let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
    Segment { range: SeqRange::new(seq, seq).expect("a range"), content }
}

/// A board that never knew the time gets the laptop's, as an estimate; once it knows better, what was pulled before is
/// corrected.
#[test]
fn the_laptops_clock_stands_in_until_the_board_knows_the_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (db, out) = (directory.path().join("varved.db"), directory.path().join("out.db"));
    let conn = sample::store_at(&db);
    sample::add(&conn, &in_boot_three(8));
    assert!(pull(&db, &out).0.anchored);
    let rows = |quality: &str, time: i64| {
        count(&out, &format!("reading WHERE boot = 3 AND quality = '{quality}' AND time = {time}"))
    };
    // The board's boottime was 100 s when the laptop's clock was read.
    assert_eq!((rows("estimated", LAPTOP.0 - 90 * SECOND), rows("estimated", LAPTOP.0 - 10 * SECOND)), (1, 1));
    // The board's own clock without a proof, later in that boot, does not push it aside.
    let untrusted = Anchor { boot: BootNanos(200 * SECOND), utc: UtcNanos(200 * SECOND), trusted: false };
    upsert_anchor(&conn, StoreNo(1), BootId(3), &untrusted).expect("an anchor");
    let (got, added) = pull(&db, &out);
    assert!(got.anchored && added == Added::default(), "{added:?}");
    let trusted = Anchor { boot: BootNanos(300 * SECOND), utc: UtcNanos(LAPTOP.0 + 500 * SECOND), trusted: true };
    upsert_anchor(&conn, StoreNo(1), BootId(3), &trusted).expect("an anchor");
    let (got, added) = pull(&db, &out);
    assert!(!got.anchored);
    assert!(added.retimed >= 2, "{added:?}");
    assert_eq!(rows("ok", LAPTOP.0 + 210 * SECOND), 1);
    assert_eq!(readings(&out), readings(&db));
}

/// What compaction has joined since the last pull is there once; only what was not covered came again.
#[test]
fn what_was_joined_meanwhile_is_there_once() {
    let (bench, directory) = (Bench::new(), tempfile::tempdir().expect("a directory"));
    let (mut store, out) = (bench.open_calm(), directory.path().join("out.db"));
    let db = store.path().to_owned();
    (0..50).for_each(|s| drop(put(&mut store, 3, 4, s * 4).expect("a commit")));
    assert_eq!(pull(&db, &out).1.readings, 600);
    compact_all(&mut store, at(9_000));
    let (got, added) = pull(&db, &out);
    assert_eq!((got.progress.segments, added.readings), (0, 0), "joined of what is known");
    (50..100).for_each(|s| drop(put(&mut store, 3, 4, s * 4).expect("a commit")));
    compact_all(&mut store, at(19_000));
    let added = pull(&db, &out).1;
    assert_eq!(added.readings, 600);
    assert_eq!(readings(&out), readings(&db));
    assert_eq!(count(&out, "reading"), 1_200);
}

/// A body that has rotted is named, and all others come; a segment larger than a step, and than a frame, comes whole.
#[test]
fn a_rotten_body_is_named_and_a_large_one_comes_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let (db, out) = (directory.path().join("varved.db"), directory.path().join("out.db"));
    let conn = sample::store_at(&db);
    let mixed = |i: i64| i.wrapping_mul(-7_046_029_254_386_353_131);
    let noise = |i: i64| mixed(mixed(i) ^ (mixed(i) >> 29)) >> 16;
    let timelines = vec![Timeline { clock: TimelineClock::Utc, stamps: (0..60_000).map(|s| s * SECOND).collect() }];
    let values = Values::Int((0..60_000).map(noise).collect());
    let columns = vec![Column { series: SeriesId(2), timeline: 0, values, missing: Vec::new() }];
    let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
    sample::add(&conn, &Segment { range: SeqRange::new(8, 8).expect("a range"), content });
    sample::add(&conn, &sample::filler(9));
    assert!(count(&db, "segment WHERE length(body) > 2 * 131072") == 1);
    conn.execute("UPDATE segment SET body = zeroblob(length(body)) WHERE first_seq = 7", []).expect("rot");
    let (got, _) = pull(&db, &out);
    assert_eq!((got.unreadable, got.reasons.len()), (1, 1));
    assert!(got.reasons[0].contains("segment 7..=7"), "{:?}", got.reasons);
    assert_eq!(count(&out, "reading"), sample::READINGS as i64 - 100 + 60_000 + 50);
    assert_eq!(count(&out, "segment WHERE first_seq = 7"), 0, "it is asked for again");
    assert_eq!(readings(&out), readings(&db));
}

/// Wherever the line is cut, what had arrived does not come again, and the file has its name only once all of it is there.
#[test]
fn a_cut_costs_what_was_under_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let (db, whole) = (directory.path().join("varved.db"), directory.path().join("whole.db"));
    let conn = sample::store_at(&db);
    (8..200).for_each(|seq| sample::add(&conn, &sample::filler(seq)));
    let all = pull(&db, &whole).0;
    for cut in 1..20 {
        let out = directory.path().join(format!("{cut}.db"));
        let cut = fetched_up_to(&db, &out, all.received * cut / 20);
        assert!(matches!(cut, Err(PullError::Link(LinkError::Io(_) | LinkError::Silent))), "{cut:?}");
        assert!(!out.exists());
        let had = Arrivals::open(&rows_file::part_of(&out), false).expect("what arrived").had().expect("ranges");
        let had: u64 = had.iter().map(|had| had.ranges.numbers()).sum();
        let (rest, _) = pull(&db, &out);
        let segments = all.progress.segments - rest.progress.segments;
        // Three numbers of the sample are in one segment.
        assert!(segments == had || segments + 2 == had, "{segments} did not come again, {had} were there");
        assert_eq!(readings(&out), readings(&db));
    }
    let late = directory.path().join("late.db");
    drop(fetched_up_to(&db, &late, all.received * 9 / 10));
    let rest = pull(&db, &late).0.progress.segments;
    assert!(rest < all.progress.segments / 4, "{rest} of {} segments came again", all.progress.segments);
}

/// A page of garbage in the middle of the file: what lies before and behind it comes, and what does not is said.
#[test]
fn a_damaged_tree_gives_what_lies_around_the_damage() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().expect("a directory");
    let (db, out) = (directory.path().join("varved.db"), directory.path().join("out.db"));
    let conn = sample::store_at(&db);
    (8..400).for_each(|seq| sample::add(&conn, &sample::filler(seq)));
    conn.pragma_update(None, "journal_mode", "delete").expect("one file");
    drop(conn);
    let length = std::fs::metadata(&db).expect("the store").len();
    let file = std::fs::OpenOptions::new().write(true).open(&db).expect("the store");
    file.write_all_at(&[0xa5; 4096], length / 2 / 4096 * 4096).expect("garbage");
    let (got, added) = pull(&db, &out);
    assert!(got.unreadable >= 1 && got.reasons[0].contains("damaged"), "{:?}", got.reasons);
    let whole = (sample::READINGS + 392 * 50) as u64;
    println!("{} of {whole} readings around a damaged page: {:?}", added.readings, got.reasons);
    assert!(added.readings < whole && added.readings > whole * 3 / 4, "{} of {whole}", added.readings);
    let bounds = Session::open(&out).expect("a file").ask("SELECT min(first_seq), max(last_seq) FROM segment");
    assert_eq!(bounds.expect("rows")[0], [Got::Int(1), Got::Int(399)]);
}

/// A laptop talks to a hostile board: each message that is not what it should be ends the pull, and nothing has the final name.
#[test]
fn a_hostile_board_is_not_believed() {
    let (directory, db) = sample::store();
    let body = match Session::open(&db).expect("a store").ask("SELECT body FROM segment LIMIT 1") {
        Ok(mut rows) => rows.remove(0).remove(0).into_bytes().expect("a body"),
        Err(why) => panic!("{why:?}"),
    };
    let store = uuid::Uuid::from_u128(7);
    let stranger = uuid::Uuid::from_u128(8);
    let range = |first, last| SeqRange::new(first, last).expect("a range");
    let held = StoreHeld { store, high: SegmentSeq(1) };
    let hello = FromBoard::Hello(BoardHello {
        device: "pump-17".into(),
        running: None,
        stores: vec![held],
        health: Err(String::new()),
        events: Vec::new(),
    });
    let segment = |store, range| FromBoard::Segment(SegmentFrame::Whole { store, range, body: &body });
    let plan = FromBoard::Plan { segments: 1, bytes: 10 };
    let page = crate::wire::CatalogPage { store: stranger, series: Vec::new(), boots: Vec::new() };
    let told = |messages: &[&FromBoard<'_>]| {
        let mut said = b"varved-pull 1 1 x\n".to_vec();
        for message in messages {
            let envelope = encode(*message).expect("a message");
            decode::<FromBoard<'_>>(&envelope).expect("and back");
            said.extend(u32::try_from(envelope.len()).expect("short").to_le_bytes());
            said.extend(envelope);
        }
        let mut arrivals = Arrivals::open(&directory.path().join("x.part"), false).expect("arrivals");
        let mut link = Link::new(&said[..], std::io::sink());
        fetch(&mut link, &mut arrivals, &Holding::default(), &|| LAPTOP, &mut |_| ())
    };
    assert!(matches!(told(&[&plan]), Err(PullError::Order)));
    assert!(matches!(told(&[&hello, &hello]), Err(PullError::Order)));
    assert!(matches!(told(&[&hello, &plan, &plan]), Err(PullError::Order)));
    assert!(matches!(told(&[&hello, &plan, &segment(stranger, range(1, 1))]), Err(PullError::Order)));
    assert!(matches!(told(&[&hello, &plan, &FromBoard::Page(page)]), Err(PullError::Order)));
    assert!(matches!(told(&[&hello, &plan]), Err(PullError::Link(LinkError::Io(_)))));
    let other = told(&[&hello, &plan, &segment(store, range(2, 9)), &FromBoard::End]).expect("an end");
    assert_eq!(other.unreadable, 1, "it is of another range");
    let good = told(&[&hello, &plan, &segment(store, range(1, 1)), &FromBoard::End]).expect("an end");
    assert_eq!((good.unreadable, good.progress.segments), (0, 1));
}
