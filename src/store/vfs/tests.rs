//! Others who want to read the live file.

use super::super::testing::{Bench, held, put};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Reads a file on a thread of its own: what another process's `open` would wait for, this one waits for too.
fn read_aside(path: PathBuf) -> Receiver<Vec<u8>> {
    let (done, read) = channel();
    std::thread::spawn(move || done.send(std::fs::read(path)));
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(read.recv().unwrap().unwrap()));
    told
}

/// Whether the kernel lists a lease on the file (proc(5), /proc/locks). One reading of that list may miss a lock while
/// others come and go.
fn is_leased(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let listed = || std::fs::read_to_string("/proc/locks").unwrap();
    (0..10).any(|_| listed().lines().any(|line| line.contains("LEASE") && line.contains(&inode)))
}

/// Nobody else looks: the index is in memory of our own. Somebody does: he waits, is let in, and finds all of it; when he
/// has gone, the next commit takes it back (or one after that, if a child of this process still has his file).
#[test]
fn the_index_is_in_the_file_only_while_somebody_reads_it() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 5, 10, 1).unwrap();
    let shm = bench.file("-shm");
    assert!(is_leased(&shm));
    for round in 0..3 {
        let read = read_aside(shm.clone());
        assert!(read.recv_timeout(Duration::from_millis(100)).is_err(), "he has to wait");
        store.let_readers_in().unwrap();
        let index = read.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(index[..48], index[48..96], "both copies of the header");
        assert_ne!(index[..48], [0; 48]);
        assert!(!is_leased(&shm));
        let commit = |n| drop(put(&mut store, 5, 10, 20 + 10 * (100 * round + n)).unwrap());
        assert!((0..100i64).map(commit).any(|()| is_leased(&shm)), "taken back");
    }
    assert!(held(&store, store.uuid()).len() >= 4);
}

/// A commit lets in who waits, also without being told.
#[test]
fn a_commit_lets_in_who_waits() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 5, 10, 1).unwrap();
    let read = read_aside(bench.file("-shm"));
    assert!(read.recv_timeout(Duration::from_millis(100)).is_err());
    put(&mut store, 5, 10, 20).unwrap();
    let index = read.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_ne!(index[..48], [0; 48]);
}

/// The log in the file is whole for who is let in, also the part that was held back.
#[test]
fn who_is_let_in_finds_the_whole_log() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    for second in 1..40 {
        put(&mut store, 5, 10, second * 10).unwrap();
        let frames = store.log.frames() as usize;
        let before = std::fs::read(bench.file("-wal")).unwrap();
        let end = 32 + frames * 536;
        let read = read_aside(bench.file("-shm"));
        while !super::super::raw::let_readers_in(&store.conn).is_ok_and(|()| !is_leased(&bench.file("-shm"))) {}
        read.recv_timeout(Duration::from_secs(30)).unwrap();
        let after = std::fs::read(bench.file("-wal")).unwrap();
        assert_eq!(before[..end / 4096 * 4096], after[..end / 4096 * 4096]);
        let scan = super::super::wal_scan::scan(&bench.cfg.path, None).unwrap();
        assert_eq!((scan.replayed, scan.live_behind), (frames as u64, 0), "second {second}");
    }
}

/// The descriptor by which this process has the file open.
fn descriptor(path: &Path) -> i32 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let found = open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == path));
    found.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).next().unwrap()
}

/// Calls `work` while every write to the open file at `path` finds the medium full.
fn on_a_full_medium<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    use std::os::fd::AsRawFd;
    let (fd, full) = (descriptor(path), std::fs::File::options().write(true).open("/dev/full").unwrap());
    // SAFETY: only numbers go in and out; `fd` is SQLite's, which this thread alone uses, and is what it was afterwards.
    unsafe {
        let kept = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        assert!(kept >= 0 && libc::dup3(full.as_raw_fd(), fd, libc::O_CLOEXEC) == fd);
        let done = work();
        assert!(libc::dup3(kept, fd, libc::O_CLOEXEC) == fd && libc::close(kept) == 0);
        done
    }
}

/// A visitor of `shm`, once he waits.
fn waiting(shm: &Path) -> Receiver<Vec<u8>> {
    let (fd, read) = (descriptor(shm), read_aside(shm.to_owned()));
    // SAFETY: asks about a descriptor.
    while unsafe { libc::fcntl(fd, libc::F_GETLEASE) } == libc::F_WRLCK {
        std::thread::yield_now();
    }
    read
}

/// Somebody comes in the moment in which the medium doesn't take what was held back of the log. That fails, or puts him off,
/// and no lock stays: once the medium takes writes again he is let in, and commits and checkpoints go on. (The lock that was
/// being taken or given back stayed, and every later commit or checkpoint found it taken, until a restart.)
#[test]
fn a_visitor_on_a_full_medium_leaves_no_lock() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 5, 10, 1).unwrap();
    let (wal, shm) = (bench.file("-wal"), bench.file("-shm"));
    let holds = || !super::tail::Shared::of(&wal).lock().bytes.is_empty();
    let mut s = 10;
    let mut hold = |store: &mut crate::store::Store| {
        while !(holds() && is_leased(&shm)) {
            s += 10;
            put(store, 5, 10, s).unwrap();
        }
    };
    let fold = "PRAGMA wal_checkpoint(PASSIVE)";
    let busy = |store: &crate::store::Store| store.conn.query_row(fold, [], |row| row.get::<_, bool>(0));
    hold(&mut store);
    let read = waiting(&shm);
    on_a_full_medium(&wal, || assert!(!busy(&store).is_ok_and(|busy| !busy), "the lock is refused"));
    assert!(!busy(&store).unwrap(), "the lock of checkpoints is free");
    read.recv_timeout(Duration::from_secs(30)).unwrap();

    hold(&mut store);
    store.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let read = waiting(&shm);
    on_a_full_medium(&wal, || store.conn.execute_batch("ROLLBACK").unwrap());
    put(&mut store, 5, 10, 9_000).unwrap();
    read.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(held(&store, store.uuid()).last().unwrap().2, 50);
}

/// Another connection of this process sees what is held back.
#[test]
fn a_reader_beside_sees_every_commit() {
    let bench = Bench::new();
    let mut store = bench.open_calm();
    put(&mut store, 5, 10, 1).unwrap();
    let reader = bench.beside();
    for second in 2..200 {
        put(&mut store, 5, 10, second * 10).unwrap();
        let n: i64 = reader.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
        assert_eq!(n, second);
    }
    let verdict: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}
