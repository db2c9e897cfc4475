//! The real store of varved, called as the service calls it.

use crate::subject::{Batcher, Subject};
use crate::workload::{Random, Tick, now};
use crate::{Outcome, interrupted};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;
use varved::clock::keeper::Keeper;
use varved::clock::{BootNanos, Now, SECOND, UtcNanos};
use varved::config::Config;
use varved::reading::{Kind, MAX_TEXT_BYTES, Reading, Scale, SeqRange, SeriesDef, Stamp, Value};
use varved::store::{Identity, Step, Store};
use varved::upkeep::{Chore, Idle, Upkeep};

/// How the store is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// `powersafe = true`.
    pub powersafe: bool,
    /// `locking = "exclusive"`.
    pub exclusive: bool,
    /// Compaction and retention run: the file is full from the beginning, and the fleet acknowledges what it gets.
    pub upkeep: bool,
}

impl Setup {
    /// The configuration file, for a database in `dir` and a commit every `interval`, such as `10s`.
    pub(crate) fn config(&self, dir: &Path, interval: &str) -> String {
        let locking = if self.exclusive { "exclusive" } else { "shared" };
        let powersafe = self.powersafe;
        format!(
            "device = \"bench\"\n[store]\npath = \"{}/varved.db\"\ncommit_interval = \"{interval}\"\n\
             locking = \"{locking}\"\npowersafe = {powersafe}\n",
            dir.display()
        )
    }
}

/// The store, and what the service keeps beside it.
pub(crate) struct Own {
    store: Store,
    batcher: Batcher,
    keeper: Keeper,
    upkeep: Upkeep,
    with_upkeep: bool,
    interval_s: i64,
    wal: PathBuf,
    /// How many bytes the bodies have had.
    body_bytes: u64,
}

/// The file is filled with a history that begins so long ago, a segment a second.
const FILL_S: i64 = 10_000;

/// Texts in a segment of it.
const FILL_TEXTS: usize = 4;

impl Own {
    /// A new store on the medium; with [`Setup::upkeep`] one that is full.
    pub(crate) fn new(dir: &Path, setup: Setup, interval_s: i64) -> Outcome<Self> {
        let config =
            Config::parse(&setup.config(dir, &format!("{interval_s}s")), "the benchmark's configuration")?.store;
        let me = Identity { machine_hash: [7; 16], boot_uuid: Uuid::from_u128(7) };
        let (store, _) = Store::open(&config, &me, now(-FILL_S))?;
        let wal = PathBuf::from(format!("{}-wal", config.path.display()));
        let (batcher, keeper) = (Batcher::new()?, Keeper::default());
        let (upkeep, with_upkeep) = (Upkeep::new(now(0)), setup.upkeep);
        let mut own = Self { store, batcher, keeper, upkeep, with_upkeep, interval_s, wal, body_bytes: 0 };
        if with_upkeep {
            own.fill()?;
        }
        Ok(own)
    }

    /// Fills the file with texts that don't compress, in segments as large as compacted ones, until some must go.
    fn fill(&mut self) -> Outcome<()> {
        let def = SeriesDef { name: "ballast/text".into(), unit: String::new(), kind: Kind::Text, scale: Scale::ONE };
        let series = self.batcher.registry.key(&def)?;
        let mut random = Random::new();
        for second in -FILL_S..0 {
            interrupted()?;
            let now = now(second);
            for _ in 0..FILL_TEXTS {
                let value = Value::Text(random.text(MAX_TEXT_BYTES).into_boxed_str());
                self.batcher.batch.push(Reading { series, stamp: Stamp::Boot(now.boot), value }, now.boot)?;
            }
            let sealed = self.batcher.batch.seal();
            self.store.commit(&sealed, &self.batcher.registry, &[], now)?;
            self.acknowledge()?;
            if self.store.facts()?.nearly_full() {
                return Ok(());
            }
        }
        Err("the file does not fill: is max_size in force?".into())
    }

    /// What the fleet does: it has all that was committed before this interval.
    fn acknowledge(&mut self) -> Outcome<()> {
        let (uuid, high) = (self.store.uuid(), self.store.next_seq().0.saturating_sub(2));
        Ok(self.store.set_acked(uuid, SeqRange::new(1, high).into_iter().collect())?)
    }
}

impl Subject for Own {
    fn commit(&mut self, ticks: &[Tick], _pace: &mut dyn FnMut()) -> Outcome<u64> {
        let Some(last) = ticks.last() else { return Ok(0) };
        let anchors: Vec<_> = ticks.iter().flat_map(|tick| self.keeper.observe(tick.now())).collect();
        let sealed = self.batcher.seal(ticks)?;
        let committed = self.store.commit(&sealed, &self.batcher.registry, &anchors, last.now())?;
        self.body_bytes += committed.bytes;
        Ok(1)
    }

    /// The seconds from this commit to the next, as the service lives through them.
    fn rest(&mut self, now: Now) -> Outcome<()> {
        if !self.with_upkeep {
            return Ok(());
        }
        self.acknowledge()?;
        for second in 0..self.interval_s {
            let nanos = second * SECOND;
            let then = Now { boot: BootNanos(now.boot.0 + nanos), utc: UtcNanos(now.utc.0 + nanos), ..now };
            let span = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
            let until_commit = Some(span(self.interval_s - second));
            let idle = Idle { since_commit: span(second), until_commit };
            let Some(chore) = self.upkeep.next(idle, &self.store.facts()?, then) else { continue };
            let step = match chore {
                Chore::Expire => self.store.expire_step(&[], then)?,
                Chore::Vacuum => self.store.vacuum_step()?,
                Chore::Checkpoint => self.store.checkpoint().map(|()| Step::Idle)?,
                Chore::Compact => self.store.compact_step(&[], then)?,
            };
            self.upkeep.done(chore, Some(step), then);
        }
        Ok(())
    }

    fn wal(&self) -> Option<&Path> {
        Some(&self.wal)
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}
