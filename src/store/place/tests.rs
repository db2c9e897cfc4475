use super::super::testing::{Bench, SmallMedium, at, put};
use super::super::{Step, StoreError};
use super::*;

/// A store with some segments in the database and some in the log.
fn some(bench: &Bench) -> Store {
    let mut store = bench.open_calm();
    for s in 0..20 {
        put(&mut store, 40, 60, s * 60).unwrap();
    }
    store.checkpoint().unwrap();
    put(&mut store, 3, 5, 2000).unwrap();
    store
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

fn delete(bench: &Bench, suffixes: &[&str]) {
    suffixes.iter().for_each(|suffix| std::fs::remove_file(bench.file(suffix)).unwrap());
}

/// A commit after the name was taken is refused and stays with its caller; what was committed before, also what only the log
/// held, is under the name again, with its store id and its numbers. (All of it was gone with the process, without a word.)
#[test]
fn a_deleted_database_is_written_anew_from_the_open_one() {
    let all: &[&[&str]] = &[&[""], &["", "-wal"], &["", "-wal", "-shm", "-high-water", "-lock"], &["-wal"]];
    for gone in all {
        let bench = Bench::new();
        let mut store = some(&bench);
        let (uuid, next, facts) = (store.uuid(), store.next_seq(), store.facts().unwrap());
        delete(&bench, gone);
        let refused = put(&mut store, 3, 5, 3000);
        assert!(matches!(refused, Err(StoreError::Moved { .. })), "{gone:?}: {refused:?}");
        assert!(store.is_damaged(), "it is to be opened again");
        drop(store);
        let (mut store, events) = bench.open();
        assert!(!kinds(&events).iter().any(|k| matches!(k, EventKind::FreshId | EventKind::Rollback)), "{events:?}");
        assert_eq!((store.uuid(), store.next_seq()), (uuid, next), "{gone:?}");
        assert_eq!(store.facts().unwrap().readings, facts.readings, "{gone:?}");
        put(&mut store, 3, 5, 3000).unwrap();
        store.look_at_place(at(3001)).unwrap();
    }
}

/// A file that is put in the place of a live one doesn't get its log, and is not lost: it is set aside, whole.
#[test]
fn a_replaced_database_goes_on_and_the_other_is_set_aside() {
    let (bench, other) = (Bench::new(), Bench::new());
    let mut store = some(&bench);
    let (uuid, readings) = (store.uuid(), store.facts().unwrap().readings);
    let mut stranger = other.open_calm();
    put(&mut stranger, 2, 7, 10).unwrap();
    stranger.close().unwrap();
    std::fs::rename(other.file(""), bench.file("")).unwrap();
    assert!(matches!(store.look_at_place(at(3000)), Err(StoreError::Moved { .. })));
    drop(store);
    let (store, _) = bench.open();
    assert_eq!((store.uuid(), store.facts().unwrap().readings), (uuid, readings));
    let aside = quarantine::aside(&bench.cfg.path).unwrap();
    assert_eq!(aside.len(), 1);
    std::fs::rename(&aside[0], other.file("")).unwrap();
    assert!(!beside(&aside[0], "-wal").exists(), "the log is not its own");
    let (store, _) = other.open();
    assert_eq!(store.facts().unwrap().readings, 14);
}

/// What is cut off the open file is not there any more: that is damage, and told at once, not when a read meets it.
#[test]
fn a_database_that_is_cut_while_open_is_damage() {
    for (suffix, to) in [("", 0), ("", 8192), ("-wal", 0)] {
        let bench = Bench::new();
        let mut store = some(&bench);
        let file = std::fs::OpenOptions::new().write(true).open(bench.file(suffix)).unwrap();
        file.set_len(to).unwrap();
        let refused = put(&mut store, 3, 5, 3000);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{suffix} to {to}: {refused:?}");
        assert!(store.is_damaged());
    }
}

/// What was rescued and had not got its name when the process ended gets it at the next open.
#[test]
fn a_rescue_that_was_cut_off_is_finished() {
    let bench = Bench::new();
    let mut store = some(&bench);
    let (uuid, readings) = (store.uuid(), store.facts().unwrap().readings);
    store.checkpoint().unwrap();
    store.conn.execute("VACUUM INTO ?1", [uri(&bench.file("-rescued"), "psow=0&vfs=unix")]).unwrap();
    std::fs::write(bench.file("-rescue"), "a part of one").unwrap();
    drop(store);
    delete(&bench, &["", "-wal"]);
    let (store, _) = bench.open();
    assert_eq!((store.uuid(), store.facts().unwrap().readings), (uuid, readings));
    assert!(!bench.file("-rescue").exists() && !bench.file("-rescued").exists());
}

/// Nothing that the store itself does to its files is taken for somebody else's hand: folds, vacuum, a log that begins anew.
#[test]
fn what_the_store_does_itself_is_no_alarm() {
    let mut bench = Bench::new();
    bench.cfg.max_size_bytes = 2 << 20;
    let mut store = bench.open_calm();
    for s in 0..400 {
        put(&mut store, 40, 60, s * 60).unwrap();
        if s % 50 == 49 {
            while store.expire_step(&[], at(s * 60)).unwrap() == Step::Worked {}
            while store.vacuum_step().unwrap() == Step::Worked {}
            store.look_at_place(at(s * 60)).unwrap();
            store.checkpoint().unwrap();
            store.look_at_place(at(s * 60)).unwrap();
        }
    }
}

/// Where the copy has no room it isn't begun, however often it is looked: no event, no page is written for that, and the name stays
/// free. With room all of it is there again. A file that stands at its bound takes no event, and is written anew all the same.
#[test]
fn a_copy_without_room_is_not_begun() {
    let mut bench = Bench::new();
    let medium = SmallMedium::mount(&bench.dir.path().join("small"));
    bench.cfg.path = medium.path.join("v.db");
    bench.cfg.max_size_bytes = 1 << 20;
    let mut store = some(&bench);
    let readings = store.facts().unwrap().readings;
    delete(&bench, &[""]);
    let filler = medium.path.join("filler");
    let free = ground::free_bytes(&bench.cfg.path).unwrap();
    std::fs::write(&filler, vec![7; free as usize - (8 << 10)]).unwrap();
    let frames = store.log.frames();
    for s in 0..5 {
        let refused = store.look_at_place(at(3000 + s));
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    }
    assert_eq!(store.log.frames(), frames, "nothing was written");
    assert!(!bench.file("-rescue").exists() && !bench.file("").exists());
    std::fs::remove_file(&filler).unwrap();
    let pages = store.pragma("page_count").unwrap();
    store.conn.pragma_update(None, "max_page_count", pages as i64).unwrap();
    let more = "INSERT INTO event (utc, kind, detail) VALUES (0, 'x', ?1)";
    for bytes in [400, 10] {
        while store.conn.execute(more, ["x".repeat(bytes)]).is_ok() {}
    }
    let moved = store.look_at_place(at(4000));
    assert!(matches!(moved, Err(StoreError::Moved { .. })), "{moved:?}");
    drop(store);
    let (store, _) = bench.open();
    assert_eq!(store.facts().unwrap().readings, readings);
    drop(store);
}
