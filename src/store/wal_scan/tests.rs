//! Torn or rotten: what the scan takes a log for.

use super::super::file::{Pragmas, open_rw};
use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

const FRAME: u64 = 2048 + FRAME_HEADER_BYTES;

/// A database whose log holds `commits` transactions, as a crash leaves it: a copy made while it is open.
fn crashed(commits: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live.db");
    let conn = open_rw(&live, &Pragmas { page_bytes: 2048, ..Pragmas::replica() }).unwrap();
    conn.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
    for i in 0..commits {
        conn.execute("INSERT INTO t (b) VALUES (randomblob(?1))", [200 + i % 7]).unwrap();
    }
    let copy = dir.path().join("copy.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(&live, suffix), beside(&copy, suffix)).unwrap();
    }
    (dir, copy)
}

fn wal(db: &Path) -> File {
    File::options().read(true).write(true).open(beside(db, "-wal")).unwrap()
}

fn flip(db: &Path, at: u64) {
    let mut byte = [0];
    wal(db).read_exact_at(&mut byte, at).unwrap();
    wal(db).write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn frames(db: &Path) -> u64 {
    (wal(db).metadata().unwrap().len() - HEADER_BYTES as u64) / FRAME
}

/// The first frames of each transaction, from the log itself: a frame begins one where the frame before is a commit
/// and it isn't that one's copy.
fn transactions(db: &Path) -> Vec<u64> {
    let read = |i: u64, at: u64, len: usize| {
        let mut bytes = vec![0; len];
        wal(db).read_exact_at(&mut bytes, HEADER_BYTES as u64 + i * FRAME + at).unwrap();
        bytes
    };
    let commit = |i: u64| read(i, 4, 4) != [0; 4];
    let page = |i: u64| (read(i, 0, 8), read(i, 24, 2048));
    (0..frames(db)).filter(|&i| i == 0 || (commit(i - 1) && page(i) != page(i - 1))).collect()
}

/// A log that is whole raises nothing, whatever it holds.
#[test]
fn a_whole_log_is_no_alarm() {
    let (_dir, db) = crashed(40);
    let found = scan(&db, None).unwrap();
    assert!(found.log.is_some() && found.begun_anew == 0);
    let (all, page_bytes) = (frames(&db), Some(2048));
    assert_eq!(found, WalScan { replayed: all, last_live: all, page_bytes, log: found.log, ..WalScan::default() });
    assert!(found.replayed > 40);
    assert_eq!(scan(Path::new("/nowhere/x.db"), None).unwrap(), WalScan::default());
}

/// One flipped bit anywhere but in the last two transactions is found: this is what SQLite passes over in silence.
#[test]
fn a_flipped_bit_in_the_middle_is_rot() {
    let (_dir, db) = crashed(30);
    let starts = transactions(&db);
    let safe = starts[starts.len() - 2];
    for frame in 0..safe {
        for at in [0, 5, 9, 17, 24, 24 + 1000, 24 + 2047] {
            let at = HEADER_BYTES as u64 + frame * FRAME + at;
            flip(&db, at);
            let found = scan(&db, None).unwrap();
            assert!(found.rot() && found.replayed <= frame, "frame {frame} at {at}: {found:?}");
            flip(&db, at);
        }
    }
    assert!(!scan(&db, None).unwrap().rot());
}

/// Damage in the header of the log hides every frame from SQLite; frames that carry its salt give it away, or the one that it
/// must have had. (Of a salt that rotted there was no word.)
#[test]
fn a_flipped_bit_in_the_header_is_rot() {
    let (_dir, db) = crashed(5);
    for at in 0..HEADER_BYTES as u64 {
        flip(&db, at);
        assert!(scan(&db, Some(2048)).unwrap().rot(), "byte {at}");
        flip(&db, at);
    }
}

/// A header is written again, the same, over a first transaction that was torn; when that is torn too, nothing that was
/// committed is behind it. (It was taken for rot.)
#[test]
fn a_torn_header_over_a_torn_first_commit_is_no_rot() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("v.db");
    let conn = open_rw(&db, &Pragmas { page_bytes: 2048, ..Pragmas::replica() }).unwrap();
    conn.execute_batch("BEGIN; CREATE TABLE t (a); CREATE TABLE u (a); CREATE TABLE v (a); COMMIT").unwrap();
    let log = std::fs::read(beside(&db, "-wal")).unwrap();
    let size = |frame: u64| u32_at(&log, HEADER_BYTES + (frame * FRAME) as usize + 4);
    let commit = (0..frames(&db)).find(|&frame| size(frame) != 0).unwrap();
    assert!(commit >= 2, "no frames before the commit");
    flip(&db, 29);
    assert!(scan(&db, Some(2048)).unwrap().rot());
    wal(&db).set_len(HEADER_BYTES as u64 + commit * FRAME).unwrap();
    let found = scan(&db, Some(2048)).unwrap();
    assert!(!found.rot(), "{found:?}");
}

/// Whatever part of the last transaction arrived, in whatever state, is a torn end.
#[test]
fn a_torn_last_commit_is_no_rot() {
    let (_dir, db) = crashed(30);
    let starts = transactions(&db);
    let last = starts[starts.len() - 1];
    let begin = HEADER_BYTES as u64 + last * FRAME;
    let end = HEADER_BYTES as u64 + frames(&db) * FRAME;
    let whole = std::fs::read(beside(&db, "-wal")).unwrap();
    let mut block = begin / 4096 * 4096;
    while block < end {
        for garbage in [0xA5, 0] {
            let from = block.max(begin);
            let to = (block + 4096).min(end);
            wal(&db).write_all_at(&vec![garbage; (to - from) as usize], from).unwrap();
            let found = scan(&db, None).unwrap();
            assert!(!found.rot() && found.replayed >= last, "block at {block}: {found:?}");
            std::fs::write(beside(&db, "-wal"), &whole).unwrap();
        }
        block += 4096;
    }
}

/// A transaction is torn over an older log, and one of its frames has its salt in a sector that arrived and its size in one
/// that did not: what lay there before was the end of a commit, which is none now. (It was taken for a second one, and both
/// for rot.)
#[test]
fn half_a_header_over_an_older_commit_is_no_rot() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("v.db");
    let conn = open_rw(&db, &Pragmas { page_bytes: 2048, ..Pragmas::replica() }).unwrap();
    conn.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
    let insert = |n: u32, bytes: u32| {
        conn.execute_batch("BEGIN").unwrap();
        for _ in 0..n {
            conn.execute("INSERT INTO t (b) VALUES (randomblob(?1))", [bytes]).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
    };
    (0..60).for_each(|_| insert(1, 200));
    let older = std::fs::read(beside(&db, "-wal")).unwrap();
    let place = |frame: u64| (HEADER_BYTES as u64 + frame * FRAME) as usize;
    let sectors = |frame: u64| ((place(frame) + 4) / 512, (place(frame) + 15) / 512);
    let split = |frame: &u64| sectors(*frame).0 != sectors(*frame).1 && u32_at(&older, place(*frame) + 4) != 0;
    let split = (20..frames(&db)).find(split).expect("a commit with its header in two sectors");
    conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    insert(1, 200);
    while scan(&db, None).unwrap().replayed + 8 < split {
        insert(1, 200);
    }
    let committed = scan(&db, None).unwrap().replayed;
    insert(40, 2000);
    let mut torn = std::fs::read(beside(&db, "-wal")).unwrap();
    assert!(committed + 2 < split && scan(&db, None).unwrap().replayed > split + 2, "{committed} {split}");
    // The first frame didn't arrive, nor did the sector with the size of that one.
    for sector in [(place(committed) / 512 + 1) * 512, sectors(split).0 * 512] {
        torn[sector..sector + 512].copy_from_slice(&older[sector..sector + 512]);
    }
    let before = scan(&db, None).unwrap();
    std::fs::write(beside(&db, "-wal"), torn).unwrap();
    let found = scan(&db, None).unwrap();
    assert_eq!(
        (found.replayed, found.commits_behind, found.rot()),
        (committed, 1, false),
        "{found:?} after {before:?}"
    );
}

/// A log that has been folded loses nothing: garbage in its first block is what a cut leaves while it is begun anew. (It
/// was taken for rot.)
#[test]
fn a_broken_log_that_was_folded_is_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("v.db");
    let conn = open_rw(&db, &Pragmas { page_bytes: 2048, ..Pragmas::replica() }).unwrap();
    conn.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
    for i in 0..30 {
        conn.execute("INSERT INTO t (b) VALUES (randomblob(?1))", [200 + i]).unwrap();
    }
    let spoil = || wal(&db).write_all_at(&[0x5A; 2560], 1536).unwrap();
    let whole = std::fs::read(beside(&db, "-wal")).unwrap();
    spoil();
    assert!(scan(&db, None).unwrap().rot());
    std::fs::write(beside(&db, "-wal"), whole).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    spoil();
    let found = scan(&db, None).unwrap();
    assert!(!found.rot() && found.live_behind > 0, "{found:?}");
}

/// In a log that was begun anew, what is left of the one before has another salt and is nothing.
#[test]
fn frames_of_an_older_log_are_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("v.db");
    let conn = open_rw(&db, &Pragmas { page_bytes: 2048, ..Pragmas::replica() }).unwrap();
    conn.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
    let add = || conn.execute("INSERT INTO t (b) VALUES (randomblob(100))", []).unwrap();
    for _ in 0..30 {
        add();
    }
    conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    add();
    add();
    let found = scan(&db, None).unwrap();
    assert!(!found.rot() && found.live_behind == 0 && found.replayed < 10, "{found:?}");
}

/// A log that began anew from another one is near to it, also where the salt passes through zero; one by chance is not.
#[test]
fn a_log_that_began_anew_is_near() {
    let log = |salt| LogId(salt);
    assert!(log(7).is_near(log(7)) && log(9).is_near(log(7)) && log(7).is_near(log(9)));
    assert!(log(3).is_near(log(u32::MAX)) && log(u32::MAX).is_near(log(3)));
    assert!(!log(7).is_near(log(1 << 31)) && !log(0).is_near(log(1 << 20)));
}
