//! What an open does to every kind of file.

use super::super::file::set_meta;
use super::super::testing::{Bench, at, held, put};
use super::*;
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::{LossReason, View};
use crate::store::Step;
use std::os::unix::fs::{FileExt, PermissionsExt};

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|e| e.kind).collect()
}

fn fill(bench: &Bench, commits: i64) -> Uuid {
    let mut store = bench.open_calm();
    (0..commits).for_each(|s| drop(put(&mut store, 10, 10, s * 10).unwrap()));
    let uuid = store.uuid();
    store.close().unwrap();
    uuid
}

/// A clean stop and a start are no event, and leave the log in place and the number where it was.
#[test]
fn a_clean_stop_is_no_event() {
    let bench = Bench::new();
    let uuid = fill(&bench, 3);
    let wal = std::fs::metadata(bench.file("-wal")).unwrap().len();
    assert!(wal >= 4 << 20, "{wal}");
    let store = bench.open_calm();
    assert_eq!((store.uuid(), store.next_seq()), (uuid, SegmentSeq(4)));
    drop(store);
    assert_eq!(std::fs::metadata(bench.file("-wal")).unwrap().len(), wal);
}

/// After a clean stop the next start has next to nothing to replay, however much was in the log: replaying it would write
/// every page of it to the database once more, at every start.
#[test]
fn a_clean_stop_leaves_nothing_to_replay() {
    for powersafe in [false, true] {
        let mut bench = Bench::new();
        bench.cfg.powersafe = powersafe;
        fill(&bench, 40);
        let found = wal_scan::scan(&bench.cfg.path, None).unwrap();
        assert!((1..=16).contains(&found.replayed), "{found:?}");
        bench.open_calm();
    }
}

/// The first block of a log holds no end of a commit: torn, it would be taken for a log that ends there, and pages of long ago
/// would come back.
#[test]
fn the_first_block_of_a_log_holds_no_commit() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    for round in 0..4 {
        (0..5).for_each(|s| drop(put(&mut store, 3, 2, round * 100 + s * 10).unwrap()));
        let log = std::fs::read(bench.file("-wal")).unwrap();
        let whole = (0..).map(|frame| 32 + frame * 536).take_while(|at| at + 536 <= 4096);
        assert!(whole.clone().count() == 7 && whole.clone().all(|at| log[at + 4..at + 8] == [0; 4]), "round {round}");
        store.checkpoint().unwrap();
    }
}

/// A lock that is let go in a moment is waited for: a child that the last owner was just starting may have it still. (It ended
/// a start of the service.)
#[test]
fn a_lock_that_is_let_go_soon_is_waited_for() {
    let bench = Bench::new();
    let owner = ground::Lock::take(&bench.cfg.path).unwrap();
    let later = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(owner);
    });
    assert!(ground::Lock::take(&bench.cfg.path).is_ok());
    later.join().unwrap();
}

/// Two services on one file would tear each other's numbers apart: the second is told who the first is.
#[test]
fn a_second_service_is_told_who_has_the_file() {
    let bench = Bench::new();
    let _first = bench.open_calm();
    let Err(refused) = Store::open(&bench.cfg, &bench.me, at(0)) else { panic!("two stores on one file") };
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    assert_eq!((refused.verdict(), refused.exit()), (Verdict::Retry, Exit::TryAgain));
}

/// A directory that is missing is made; one that can't be is an error that says what to do, and may be tried again.
#[test]
fn a_missing_directory_is_made_or_named() {
    let mut bench = Bench::new();
    bench.cfg.path = bench.dir.path().join("a/b/v.db");
    drop(bench.open_calm());
    let mode = std::fs::metadata(bench.dir.path().join("a/b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750 & mode);
    bench.cfg.path = PathBuf::from("/proc/nothing/v.db");
    let Err(refused) = Store::open(&bench.cfg, &bench.me, at(0)) else { panic!("a file in /proc") };
    assert!(refused.to_string().contains("/proc/nothing"), "{refused}");
    assert_eq!(refused.verdict(), Verdict::Retry);
}

/// An older copy put back in place is found out by the mark beside it: the numbers in between become a void, none is
/// used twice, and it is said once.
#[test]
fn a_file_put_back_is_found_out() {
    let bench = Bench::new();
    let uuid = fill(&bench, 3);
    let old: Vec<_> = ["", "-wal"].map(|s| (s, std::fs::read(bench.file(s)).unwrap())).into();
    let mut store = bench.open_calm();
    (3..8).for_each(|s| drop(put(&mut store, 10, 10, s * 10).unwrap()));
    store.close().unwrap();
    old.iter().for_each(|(s, bytes)| std::fs::write(bench.file(s), bytes).unwrap());
    std::fs::remove_file(bench.file("-shm")).unwrap();
    let (mut store, events) = bench.open();
    assert_eq!(kinds(&events), [EventKind::Rollback]);
    assert_eq!((store.uuid(), store.next_seq()), (uuid, SegmentSeq(9)));
    put(&mut store, 10, 1, 99).unwrap();
    assert_eq!(held(&store, uuid)[3..], [(4, 8, 0), (9, 9, 10)]);
    let (_, body) = store.body(uuid, SegmentSeq(4)).unwrap().unwrap();
    assert_eq!(View::parse(&body).unwrap().loss().unwrap().reason, LossReason::Void);
    store.close().unwrap();
    bench.open_calm();
}

/// On another machine the file takes a fresh id: a golden image on a thousand boards is a thousand stores. What it
/// held stays readable and pending.
#[test]
fn another_machine_takes_a_fresh_id() {
    let mut bench = Bench::new();
    let old = fill(&bench, 2);
    bench.me.machine_hash = [8; 16];
    let (mut store, events) = bench.open();
    assert_eq!(kinds(&events), [EventKind::FreshId]);
    assert_ne!(store.uuid(), old);
    assert_eq!(store.next_seq(), SegmentSeq(1));
    put(&mut store, 10, 1, 5).unwrap();
    assert_eq!(held(&store, old), [(1, 1, 100), (2, 2, 100)]);
    assert_eq!(store.pending_ranges(old).unwrap(), RangeSet::from_iter([SeqRange::new(1, 2).unwrap()]));
    let fresh = store.uuid();
    assert_eq!(store.stores().iter().map(|l| (l.uuid, l.current)).collect::<Vec<_>>(), [(fresh, true), (old, false)]);
    store.close().unwrap();
    assert_eq!(bench.open_calm().uuid(), fresh);
}

/// A copy that says it is one takes a fresh id, once.
#[test]
fn a_marked_copy_takes_a_fresh_id() {
    let bench = Bench::new();
    let old = fill(&bench, 2);
    let conn = open_rw(&bench.cfg.path, &Pragmas::device(&bench.cfg)).unwrap();
    set_meta(&conn, "copied_from", old.to_string()).unwrap();
    drop(conn);
    let (store, events) = bench.open();
    assert_eq!(kinds(&events), [EventKind::FreshId]);
    assert_ne!(store.uuid(), old);
    drop(store);
    bench.open_calm();
}

/// A database that was exchanged for another one leaves a mark that doesn't fit: its numbers are not gone on with.
#[test]
fn a_replaced_file_takes_a_fresh_id() {
    let (bench, other) = (Bench::new(), Bench::new());
    fill(&bench, 2);
    fill(&other, 2);
    std::fs::copy(other.file("-high-water"), bench.file("-high-water")).unwrap();
    assert_eq!(kinds(&bench.open().1), [EventKind::FreshId]);
}

/// On request, and in mid run: the boot and its anchors go with it, and commits go on under the new id.
#[test]
fn a_fresh_id_can_be_taken_while_running() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 3, 1, 1).unwrap();
    let old = store.uuid();
    let fresh = store.take_fresh_id(FreshWhy::Fleet, at(2)).unwrap();
    put(&mut store, 3, 1, 3).unwrap();
    assert_eq!((held(&store, old), held(&store, fresh)), (vec![(1, 1, 3)], vec![(1, 1, 3)]));
    assert_eq!(store.catalog(1 << 16).unwrap().iter().map(|p| p.series.len()).collect::<Vec<_>>(), [3, 3]);
    drop(store);
    assert_eq!(bench.open_calm().uuid(), fresh);
}

/// A bit that flips in mid-log costs what is behind it, and this is said: SQLite alone goes back in silence. The
/// numbers lost are not used again.
#[test]
fn rot_in_the_log_raises_an_alarm() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..20).for_each(|s| drop(put(&mut store, 10, 10, s * 10).unwrap()));
    let crashed = bench.crash();
    let wal = std::fs::File::options().write(true).open(crashed.file("-wal")).unwrap();
    let (frames, _) = store.log.state(&store.conn).unwrap();
    // Not in one of the copies behind a commit: those are mended.
    let log = std::fs::read(crashed.file("-wal")).unwrap();
    let inner = |frame: &u64| log[(32 + frame * 536 + 4) as usize..][..4] == [0; 4];
    let frame = (frames / 2..frames).find(inner).unwrap();
    wal.write_all_at(&[0xFF; 3], 32 + frame * 536 + 300).unwrap();
    let (again, events) = crashed.open();
    assert_eq!(kinds(&events), [EventKind::Rot]);
    assert!(again.next_seq() > SegmentSeq(21), "{}", again.next_seq());
    let kept = held(&again, again.uuid());
    assert!(kept.len() > 3 && kept.last().unwrap().2 == 0, "{kept:?}");
    let again = crashed.crash();
    again.open_calm();
}

/// A torn end is no alarm, and what the tear left in the log is none later, when shorter commits have been written
/// over its beginning.
#[test]
fn what_a_torn_commit_left_is_never_taken_for_rot() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 10, 10, 0).unwrap();
    let (before, _) = store.log.state(&store.conn).unwrap();
    put(&mut store, 400, 40, 10).unwrap();
    let crashed = bench.crash();
    let wal = std::fs::File::options().write(true).open(crashed.file("-wal")).unwrap();
    wal.write_all_at(&[0xA5; 100], 32 + before * 536 + 300).unwrap();
    let mut store = crashed.open_calm();
    assert_eq!(store.next_seq(), SegmentSeq(2));
    for round in 0..3 {
        put(&mut store, 2, 1, 100 + round).unwrap();
        let again = crashed.crash();
        assert_eq!(again.open_calm().next_seq(), SegmentSeq(3 + round as u64));
    }
    drop(store);
    let scan = wal_scan::scan(&crashed.cfg.path, None).unwrap();
    assert_eq!(scan.live_behind, 0);
}

/// A transaction that failed may have left its frames in the log; they too are never taken for rot.
#[test]
fn what_a_failed_commit_left_is_never_taken_for_rot() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 10, 10, 0).unwrap();
    let failed: Result<(), _> = store.transaction("fail", |_| Err(StoreError::Busy { doing: "fail" }));
    assert!(failed.is_err() && store.log.is_restart_due());
    put(&mut store, 10, 10, 1).unwrap();
    assert!(!store.log.is_restart_due());
    put(&mut store, 10, 10, 2).unwrap();
    assert!(store.log.state(&store.conn).unwrap().0 < 32);
}

/// Garbage, half a file, or somebody else's database: recording goes on in a new file, and nothing is deleted.
#[test]
fn a_file_beyond_use_is_set_aside() {
    type Spoil = (&'static str, fn(&Bench));
    let spoil: [Spoil; 4] = [
        ("garbage", |b| std::fs::write(b.file(""), [0x5A; 9000]).unwrap()),
        ("short", |b| std::fs::write(b.file(""), b"SQLite").unwrap()),
        ("foreign", |b| {
            std::fs::remove_file(b.file("")).unwrap();
            std::fs::remove_file(b.file("-wal")).unwrap();
            Connection::open(b.file("")).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
        }),
        ("gone", |b| std::fs::remove_file(b.file("")).unwrap()),
    ];
    for (name, spoil) in spoil {
        let bench = Bench::new();
        let old = fill(&bench, 2);
        spoil(&bench);
        let (mut store, events) = bench.open();
        assert!(kinds(&events).starts_with(&[EventKind::Quarantine]), "{name}: {events:?}");
        assert_ne!(store.uuid(), old, "{name}");
        put(&mut store, 3, 3, 1).unwrap();
        store.close().unwrap();
        let aside = quarantine::aside(&bench.cfg.path).unwrap();
        assert_eq!(aside.len(), 1, "{name}: {aside:?}");
        bench.open_calm();
    }
}

/// Garbage in the root page of any table, in a file that was closed cleanly: the service starts and records, at once where the
/// table isn't read at a start. (In `boot`, `anchor` or `series` it was met too late in the start to be set aside, and each
/// start failed.)
#[test]
fn garbage_in_any_table_does_not_keep_a_service_from_starting() {
    const READ_AT_A_START: [&str; 7] = ["meta", "store", "series", "boot", "anchor", "segment", "ack"];
    for table in READ_AT_A_START.into_iter().chain(["rollup", "rollup_day", "event"]) {
        let bench = Bench::new();
        let old = fill(&bench, 2);
        let conn = bench.beside();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let root: i64 = conn.query_row(sql, [table], |row| row.get(0)).unwrap();
        // The last to close it takes the log away, which may hold the page.
        drop(conn);
        assert!(!bench.file("-wal").exists());
        let db = std::fs::File::options().write(true).open(bench.file("")).unwrap();
        db.write_all_at(&[0xEE; 512], (root as u64 - 1) * 512).unwrap();
        let (mut store, events) = bench.open();
        let aside = kinds(&events).starts_with(&[EventKind::Quarantine]);
        assert_eq!(aside, READ_AT_A_START.contains(&table), "{table}: {events:?}");
        assert!(aside || store.uuid() == old, "{table}");
        let read = ["series", "boot", "anchor", "ack"].contains(&table);
        assert!(!read || held(&store, old).len() == 2, "{table}: what is whole is taken over");
        put(&mut store, 3, 3, 1).unwrap();
        let Err(second) = Store::open(&bench.cfg, &bench.me, at(0)) else { panic!("{table}: no lock is held") };
        assert!(matches!(second, StoreError::InUse { .. }), "{table}: {second}");
        store.close().unwrap();
        bench.open_calm();
    }
}

/// A power cut in a checkpoint may leave garbage in the first block of the file, and the log still holds it. (The file was
/// set aside for it.)
#[test]
fn garbage_in_the_first_block_is_mended_from_the_log() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..3).for_each(|s| drop(put(&mut store, 10, 10, s * 10).unwrap()));
    let crashed = bench.crash();
    let db = std::fs::File::options().write(true).open(crashed.file("")).unwrap();
    let bytes = db.metadata().unwrap().len().min(4096) as usize;
    db.write_all_at(&vec![0x5A; bytes], 0).unwrap();
    let again = crashed.open_calm();
    assert_eq!(held(&again, store.uuid()).len(), 3);
}

/// A power cut while the file is made leaves part of a page and a journal that says there was nothing before: it is made
/// again. (It was set aside.)
#[test]
fn a_file_that_was_being_made_is_made_again() {
    let bench = Bench::new();
    std::fs::write(bench.file(""), [0x5A; 512]).unwrap();
    let mut journal = vec![0; 512];
    journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal[20..28].copy_from_slice(&[0, 0, 2, 0, 0, 0, 2, 0]);
    std::fs::write(bench.file("-journal"), journal).unwrap();
    put(&mut bench.open_calm(), 3, 3, 1).unwrap();
    assert!(!bench.file("-journal").exists());
    bench.open_calm();
}

/// A journal belongs to its database: beside a new one it would be rolled back into that. (It stayed.)
#[test]
fn a_journal_is_set_aside_with_its_database() {
    let bench = Bench::new();
    fill(&bench, 2);
    std::fs::write(bench.file(""), [0x5A; 9000]).unwrap();
    std::fs::write(bench.file("-journal"), [0x5A; 600]).unwrap();
    assert!(kinds(&bench.open().1).starts_with(&[EventKind::Quarantine]));
    assert!(!bench.file("-journal").exists());
}

/// The first commit of a log that was begun anew is torn: nothing is replayed, and the next commits overwrite what is left
/// of it under another salt. (They kept the salt, so a later start counted its frames as commits that had rotted away.)
#[test]
fn what_a_torn_first_commit_left_is_never_taken_for_rot() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 10, 10, 0).unwrap();
    store.checkpoint().unwrap();
    put(&mut store, 400, 40, 10).unwrap();
    let crashed = bench.crash();
    let wal = std::fs::File::options().write(true).open(crashed.file("-wal")).unwrap();
    // Behind what each log begins with.
    wal.write_all_at(&[0xA5; 100], 32 + 16 * 536 + 300).unwrap();
    let found = wal_scan::scan(&crashed.cfg.path, None).unwrap();
    assert!(found.replayed == 16 && found.live_behind > 0, "{found:?}");
    let mut store = crashed.open_calm();
    put(&mut store, 2, 1, 100).unwrap();
    drop(store);
    assert_eq!(wal_scan::scan(&crashed.cfg.path, None).unwrap().live_behind, 0);
}

/// A power cut while the mark of a move is written leaves any bytes under its name: nothing was moved yet, nothing is moved
/// to a name made of garbage. (It was tried, at every start.)
#[test]
fn a_mark_of_a_move_that_was_torn_moves_nothing() {
    let bench = Bench::new();
    fill(&bench, 2);
    let aside = format!("{}.quarantine-2026", bench.cfg.path.display());
    for torn in [[0; 40].as_slice(), b"\xFF\xFE/x", b"", format!("{aside}\0\0").as_bytes()] {
        std::fs::write(bench.file("-moving"), torn).unwrap();
        bench.open_calm();
        assert!(!bench.file("-moving").exists());
    }
}

/// Where tables are damaged but others can be read, every segment that is whole is taken over under its old id.
#[test]
fn what_is_readable_is_salvaged() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    (0..40).for_each(|s| drop(put(&mut store, 40, 30, s * 30).unwrap()));
    let old = store.uuid();
    store.set_acked(old, RangeSet::from_iter([SeqRange::new(1, 5).unwrap()])).unwrap();
    store.close().unwrap();
    std::fs::remove_file(bench.file("-wal")).unwrap();
    std::fs::remove_file(bench.file("-shm")).unwrap();
    // One leaf of the segment table becomes garbage, and the file is marked as it would be once that was met.
    let db = std::fs::File::options().read(true).write(true).open(bench.file("")).unwrap();
    let pages = db.metadata().unwrap().len() / 512;
    let leaf = (pages / 2..pages)
        .find(|p| {
            let mut byte = [0];
            db.read_exact_at(&mut byte, p * 512).unwrap();
            byte[0] == 0x0D
        })
        .unwrap();
    db.write_all_at(&[0xEE; 512], leaf * 512).unwrap();
    std::fs::write(suspicion(&bench.cfg.path), "").unwrap();
    let (store, events) = bench.open();
    assert_eq!(kinds(&events), [EventKind::Quarantine, EventKind::Salvage]);
    let kept = held(&store, old);
    assert!(kept.len() < 40 && kept.len() >= 20, "{} segments", kept.len());
    assert!(kept.iter().all(|(_, _, n)| *n == 1200));
    assert_ne!(store.uuid(), old);
    let pending = store.pending_ranges(old).unwrap();
    assert!(!pending.is_empty() && !pending.meets(SeqRange::new(1, 5).unwrap()));
    assert!(store.catalog(1 << 20).unwrap().iter().any(|p| p.store == old && p.series.len() == 40));
    drop(store);
    bench.open_calm();
}

/// A move that a power cut interrupts is gone on with: the database never meets a log that isn't there yet.
#[test]
fn a_quarantine_that_was_cut_off_is_finished() {
    let bench = Bench::new();
    let old = fill(&bench, 2);
    let aside = quarantine::set_aside(&bench.cfg.path, at(0)).unwrap();
    std::fs::rename(&aside, bench.file("")).unwrap();
    std::fs::write(bench.file("-moving"), aside.as_os_str().as_encoded_bytes()).unwrap();
    let (store, events) = bench.open();
    assert_eq!(kinds(&events), [EventKind::Salvage]);
    assert_eq!(held(&store, old).len(), 2);
    assert!(aside.exists() && !bench.file("-moving").exists());
}

/// A newer format is not damage: it is left alone, and recording goes on beside it, at every start.
#[test]
fn a_newer_format_is_left_alone() {
    let bench = Bench::new();
    fill(&bench, 2);
    let conn = open_rw(&bench.cfg.path, &Pragmas::device(&bench.cfg)).unwrap();
    set_meta(&conn, "format_major", FORMAT_MAJOR + 1).unwrap();
    drop(conn);
    let before = std::fs::read(bench.file("")).unwrap();
    for run in 1..3 {
        let (mut store, events) = bench.open();
        assert_eq!(kinds(&events), [EventKind::Newer]);
        assert_eq!((store.path(), store.run()), (bench.dir.path().join("v.v1.db").as_path(), run));
        put(&mut store, 1, 1, 1).unwrap();
    }
    assert_eq!(std::fs::read(bench.file("")).unwrap(), before);
    let conn = open_rw(&bench.cfg.path, &Pragmas::device(&bench.cfg)).unwrap();
    set_meta(&conn, "format_major", FORMAT_MAJOR).unwrap();
    set_meta(&conn, "format_minor", 7).unwrap();
    drop(conn);
    assert_eq!(bench.open_calm().path(), bench.cfg.path);
}

/// A file with other pages, or without incremental vacuum, is rewritten at the next start, with everything in it.
#[test]
fn another_page_size_rewrites_the_file() {
    let bench = Bench::new();
    let uuid = fill(&bench, 5);
    for settings in ["page_size = 2048", "auto_vacuum = 0"] {
        let conn = Connection::open(bench.file("")).unwrap();
        let rewrite = format!("PRAGMA journal_mode = DELETE; PRAGMA {settings}; VACUUM; PRAGMA journal_mode = WAL");
        conn.execute_batch(&rewrite).unwrap();
        drop(conn);
        let (store, events) = bench.open();
        assert_eq!(kinds(&events), [EventKind::Rebuild]);
        assert_eq!(store.facts().unwrap().page_bytes, 512);
        assert_eq!(held(&store, uuid).len(), 5);
        assert_eq!(store.pragma("auto_vacuum").unwrap(), 2);
        store.close().unwrap();
        bench.open_calm();
    }
}

/// `powersafe` decides what goes before a checkpoint, not how the file is laid out: it may be changed at any start.
#[test]
fn powersafe_is_one_file_format() {
    let mut bench = Bench::new();
    let uuid = fill(&bench, 5);
    for powersafe in [true, false] {
        bench.cfg.powersafe = powersafe;
        let store = bench.open_calm();
        assert_eq!(held(&store, uuid).len(), 5);
        store.close().unwrap();
    }
}

/// Exclusive locking leaves no shared memory file on flash.
#[test]
fn exclusive_locking_needs_no_shared_memory() {
    let mut bench = Bench::new();
    bench.cfg.locking = Locking::Exclusive;
    let mut store = bench.open_calm();
    put(&mut store, 1, 1, 1).unwrap();
    assert!(!bench.file("-shm").exists());
}

/// A log of another database that lies beside a stopped one is set aside before SQLite replays it: everything that had been
/// folded is there, the other log is kept, and the next start has nothing to say. (It was replayed: the file had the other
/// database's readings, and none of its own.)
#[test]
fn a_log_of_another_database_is_set_aside() {
    let (other, bench) = (Bench::new(), Bench::new());
    let mut store = other.open_calm();
    put(&mut store, 3, 20, 1).unwrap();
    let strange = other.crash();
    for lives in 1..3 {
        let uuid = fill(&bench, 5);
        std::fs::copy(strange.file("-wal"), bench.file("-wal")).unwrap();
        let (store, events) = bench.open();
        assert_eq!(kinds(&events), [EventKind::Quarantine], "{events:?}");
        assert_eq!(held(&store, uuid).len(), 5 * lives);
        assert_eq!(quarantine::aside(&bench.cfg.path).unwrap().len(), lives);
        drop(store);
        bench.open_calm().close().unwrap();
    }
}

/// Where the log of a stopped database is taken away or cut to nothing, SQLite begins one by chance. It is ours all the same, at
/// each later start and where the first one is cut off before it could say so.
#[test]
fn a_log_that_began_by_chance_is_ours() {
    let bench = Bench::new();
    let uuid = fill(&bench, 5);
    for gone in [true, false] {
        match gone {
            true => std::fs::remove_file(bench.file("-wal")).unwrap(),
            false => std::fs::OpenOptions::new().write(true).open(bench.file("-wal")).unwrap().set_len(0).unwrap(),
        }
        let mut store = bench.open_calm();
        put(&mut store, 3, 20, 1).unwrap();
        let cut = bench.crash();
        let n = held(&store, uuid).len();
        assert_eq!(held(&cut.open_calm(), uuid).len(), n);
        store.close().unwrap();
        bench.open_calm().close().unwrap();
    }
}

/// A file that stands at its bound, without a free page, starts all the same, boot after boot, until there is time to make room:
/// what a start writes down has pages of its own. (It was refused with "no room", for ever: what makes room runs after a start.
/// Month 137 of the simulator.)
#[test]
fn a_full_file_starts() {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 1 << 20;
    let mut store = bench.open_calm();
    (0..200).for_each(|s| drop(put(&mut store, 40, 60, s * 60).unwrap()));
    let mut filled = 0;
    for boot in 2..40 {
        let more = "INSERT INTO event (utc, kind, detail) VALUES (0, 'x', ?1)";
        for bytes in [400, 10] {
            while store.conn.execute(more, ["x".repeat(bytes)]).is_ok() {
                filled += 1;
            }
        }
        assert!(store.at_limit().unwrap());
        drop(store);
        bench.me.boot_uuid = Uuid::from_u128(boot);
        store = bench.open_calm();
        let facts = store.facts().unwrap();
        assert!(facts.file_bytes + facts.wal_bytes <= bench.cfg.max_size_bytes, "boot {boot}: {facts:?}");
    }
    assert!(filled > 100, "it was never full");
    assert_eq!(store.expire_step(&[], at(9000)).unwrap(), Step::Worked, "and then room is made");
    put(&mut store, 40, 60, 300 * 60).unwrap();
}

/// Another program is in the middle of a transaction: its frames in the log are not a torn one's, and stay. The start waits, says
/// so, and comes again. (They would have been cleared, and then committed.)
#[test]
fn a_transaction_of_another_program_is_not_cleared() {
    let bench = Bench::new();
    let uuid = fill(&bench, 20);
    let other = bench.beside();
    other.execute_batch("PRAGMA cache_size = 2; PRAGMA cache_spill = 1; BEGIN; CREATE TABLE theirs (x)").unwrap();
    (0..300).for_each(|_| assert_eq!(other.execute("INSERT INTO theirs VALUES (zeroblob(400))", []).unwrap(), 1));
    let found = wal_scan::scan(&bench.cfg.path, None).unwrap();
    assert!(found.last_live > found.replayed, "nothing was spilled: {found:?}");
    let refused = Store::open(&bench.cfg, &bench.me, at(1)).map(drop);
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    other.execute_batch("COMMIT").unwrap();
    let rows: i64 = other.query_row("SELECT count(*) FROM theirs", [], |row| row.get(0)).unwrap();
    drop(other);
    let store = bench.open_calm();
    assert_eq!((rows, store.uuid(), held(&store, uuid).len()), (300, uuid, 20));
    let verdict: String = store.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}
