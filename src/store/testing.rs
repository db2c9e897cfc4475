//! What the tests of this room share: a store in a directory of its own, and readings to put into it.

use super::{Committed, Event, Identity, Step, Store, StoreError};
use crate::batch::{Registry, Sealed, Track, TrackClock};
use crate::clock::{Anchor, BootNanos, Now, SECOND, UtcNanos};
use crate::config::{Locking, StoreConfig};
use crate::reading::{Kind, Scale, SegmentSeq, SeriesDef};
use crate::segment::{Content, Values, decode};
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// A directory with a database in it, and the machine that runs it.
pub(crate) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) cfg: StoreConfig,
    pub(super) me: Identity,
}

/// Second `s` of the test.
pub(crate) fn at(s: i64) -> Now {
    Now { boot: BootNanos(s * SECOND), utc: UtcNanos((1_790_000_000 + s) * SECOND), trusted: true }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cfg = StoreConfig {
            path: dir.path().join("v.db"),
            commit_interval: Duration::from_secs(10),
            commit_readings: 10_000,
            buffer_bytes: 1 << 20,
            cache_bytes: 256 << 10,
            mmap_bytes: 0,
            max_size_bytes: 64 << 20,
            max_age: None,
            headroom_bytes: 0,
            max_series: 2000,
            locking: Locking::Shared,
            powersafe: false,
        };
        Self { dir, cfg, me: Identity { machine_hash: [7; 16], boot_uuid: Uuid::from_u128(1) } }
    }

    pub(super) fn open(&self) -> (Store, Vec<Event>) {
        Store::open(&self.cfg, &self.me, at(0)).unwrap()
    }

    /// Opens where nothing is expected to have happened.
    pub(crate) fn open_calm(&self) -> Store {
        let (store, events) = self.open();
        assert_eq!(events, []);
        store
    }

    /// A reader of the live file in the same process.
    pub(super) fn beside(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(super::file::uri(&self.cfg.path, &format!("vfs={}", super::vfs::reader()))).unwrap()
    }

    pub(super) fn file(&self, suffix: &str) -> PathBuf {
        super::file::beside(&self.cfg.path, suffix)
    }

    /// What a power cut leaves at this moment, in a directory of its own.
    pub(super) fn crash(&self) -> Self {
        let mut other = Self::new();
        other.me = self.me;
        other.cfg = StoreConfig { path: other.cfg.path.clone(), ..self.cfg.clone() };
        for suffix in ["", "-wal", "-high-water", "-suspect"] {
            if self.file(suffix).exists() {
                std::fs::copy(self.file(suffix), other.file(suffix)).unwrap();
            }
        }
        other
    }
}

/// Commits `n` readings of each of `series` series, taken at second `s`.
pub(crate) fn put(store: &mut Store, series: u32, n: usize, s: i64) -> Result<Committed, StoreError> {
    put_with(store, series, n, s, &[])
}

/// Whoever reads the body of segment `seq` from now on finds damage; its row says nothing of it.
pub(crate) fn spoil(store: &Store, seq: SegmentSeq) {
    let sql = "UPDATE segment SET body = zeroblob(length(body)) WHERE first_seq = ?1";
    store.conn.execute(sql, [seq.0 as i64]).unwrap();
}

pub(super) fn put_with(
    store: &mut Store,
    series: u32,
    n: usize,
    s: i64,
    anchors: &[Anchor],
) -> Result<Committed, StoreError> {
    let registry = Registry::new(5000);
    let track = |k: u32| {
        let noise = |i: i64| (s + i + i64::from(k)).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 56;
        Track {
            key: registry.key(&def(k)).unwrap(),
            clock: TrackClock::Boot,
            stamps: (0..n as i64).map(|i| (s + i) * SECOND).collect(),
            values: Values::Int((0..n as i64).map(|i| 20_000 + noise(i)).collect()),
            missing: Vec::new(),
        }
    };
    let batch = Sealed::new((0..series).map(track).collect(), Some(at(s).boot), None);
    store.commit(&batch, &registry, anchors, at(s))
}

/// What series key `k` stands for.
pub(super) fn def(k: u32) -> SeriesDef {
    SeriesDef { name: format!("bench/s{k}"), unit: "Cel".into(), kind: Kind::Int, scale: Scale::MILLI }
}

/// Every segment of a store: first, last and readings (0 for a loss).
pub(super) fn held(store: &Store, uuid: Uuid) -> Vec<(u64, u64, usize)> {
    let mut all = Vec::new();
    let high = store.stores().iter().find(|l| l.uuid == uuid).unwrap().high.0;
    let mut seq = 1;
    while seq <= high {
        match store.body(uuid, SegmentSeq(seq)).unwrap() {
            Some((range, body)) => {
                let segment = decode(&body).unwrap();
                assert_eq!(segment.range, range);
                let n = match &segment.content {
                    Content::Data { .. } => segment.content.n(),
                    Content::Loss(_) => 0,
                };
                all.push((range.first.0, range.last.0, n));
                seq = range.last.0 + 1;
            }
            None => seq += 1,
        }
    }
    all
}

/// Compacts until there is nothing to do.
pub(crate) fn compact_all(store: &mut Store, now: Now) {
    while store.compact_step(&[], now).unwrap() == Step::Worked {}
}

/// A file system of 8 MiB, in RAM; mounting needs root.
pub(super) struct SmallMedium {
    pub(super) path: PathBuf,
}

impl SmallMedium {
    pub(super) fn mount(path: &std::path::Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success(), "a file system of one's own needs root");
        Self { path: path.to_owned() }
    }
}

impl Drop for SmallMedium {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
