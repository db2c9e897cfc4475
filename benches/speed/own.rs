//! A store of the workload, compacted as upkeep leaves it.

use crate::Outcome;
use crate::workload::{SERIES, Tick, Workload, now};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use varved::batch::{Batch, BatchLimits, Registry, Sealed};
use varved::clock::Anchor;
use varved::config::{Config, StoreConfig};
use varved::reading::{Reading, SeriesKey, Stamp};
use varved::store::{Committed, Identity, Step, Store};

/// Seconds between two commits.
pub(crate) const INTERVAL_S: i64 = 10;

/// The store as the service has it: the default configuration but for the path and the room.
pub(crate) struct Own {
    /// The open store.
    pub store: Store,
    batch: Batch,
    registry: Arc<Registry>,
    workload: Workload,
    /// The second of the next tick.
    second: i64,
}

impl Own {
    /// A new store in `dir`.
    pub(crate) fn new(dir: &Path) -> Outcome<Self> {
        let config = config(dir)?;
        let me = Identity { machine_hash: [7; 16], boot_uuid: Uuid::from_u128(7) };
        let (store, _) = Store::open(&config, &me, now(0))?;
        let registry = Arc::new(Registry::new(SERIES as u32));
        let workload = Workload::from(0);
        for def in workload.defs() {
            registry.key(def)?;
        }
        let limits = BatchLimits { interval: Duration::from_secs(3600), readings: u32::MAX, buffer_bytes: 64 << 20 };
        Ok(Self { store, batch: Batch::new(limits, Arc::clone(&registry)), registry, workload, second: 0 })
    }

    /// Commits so many more seconds of the workload, [`INTERVAL_S`] at a time; each tick is shown to `each` too.
    pub(crate) fn record(&mut self, seconds: i64, mut each: impl FnMut(&Tick) -> Outcome<()>) -> Outcome<()> {
        let until = self.second + seconds;
        while self.second < until {
            let tick = self.workload.tick();
            self.second += 1;
            each(&tick)?;
            let boot = tick.now().boot;
            for (series, value) in tick.values.into_iter().enumerate() {
                let series = SeriesKey(series as u32);
                self.batch.push(Reading { series, stamp: Stamp::Boot(boot), value }, boot)?;
            }
            if self.second % INTERVAL_S == 0 || self.second == until {
                let sealed = self.batch.seal();
                self.commit(&sealed)?;
            }
        }
        Ok(())
    }

    /// Commits a batch of its own series.
    pub(crate) fn commit(&mut self, sealed: &Sealed) -> Outcome<Committed> {
        let now = now(self.second);
        // The clock is trusted, and says so once.
        let anchors: &[Anchor] = match self.store.next_seq().0 {
            1 => &[Anchor { boot: now.boot, utc: now.utc, trusted: true }],
            _ => &[],
        };
        Ok(self.store.commit(sealed, &self.registry, anchors, now)?)
    }

    /// Compacts until there is nothing left to do, and folds the log.
    pub(crate) fn compact(&mut self) -> Outcome<()> {
        while self.store.compact_step(&[], now(self.second))? == Step::Worked {}
        Ok(self.store.checkpoint()?)
    }
}

/// Where [`Own`] has its file.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("varved.db")
}

fn config(dir: &Path) -> Outcome<StoreConfig> {
    let text = format!("device = \"bench\"\n[store]\npath = {:?}\nmax_size = \"256MiB\"\n", path(dir));
    Ok(Config::parse(&text, "the benchmark's configuration")?.store)
}
