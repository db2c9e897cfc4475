//! A year at 50 readings a second, in simulated time, through the real store: the file stays within `max_size` at every
//! moment, RAM doesn't grow, and the history is as long as promised.
//!
//! The year runs in a process of its own, so that its memory can be measured: `the_year_itself`, which the story starts. It
//! does what the service does from commit to commit, with the benchmark's workload. By default it is a file smaller than the
//! configuration takes and as many days as make it go round; `VARVED_FULL` makes it the usual file and the whole year. By hand,
//! `VARVED_YEAR=80:8 cargo test --release --test tests the_year_itself -- --ignored --nocapture` is 80 days with 8 MiB.

#[path = "../../benches/flash/workload.rs"]
#[allow(dead_code)]
mod workload;

use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use varved::batch::{Batch, BatchLimits, Registry};
use varved::clock::keeper::Keeper;
use varved::clock::{BootNanos, Now, SECOND, UtcNanos};
use varved::config::{Config, StoreConfig};
use varved::reading::{Reading, SeqRange, SeriesKey, Stamp};
use varved::store::{Identity, Step, Store};
use varved::upkeep::{Chore, Idle, Upkeep};
use workload::{SERIES, Workload, now};

const DAY_MINUTES: i64 = 24 * 60;
/// Between two commits, in seconds.
const INTERVAL_S: i64 = 60;

/// Days and MiB that the story asks of the process that lives through it: `days:size`.
fn plan() -> (i64, u64) {
    let plan = std::env::var("VARVED_YEAR").unwrap_or_else(|_| DAYS.into());
    let (days, mib) = plan.split_once(':').expect("days:size");
    (days.parse().unwrap(), mib.parse().unwrap())
}

/// Some days with a file that holds less than two; a build without optimization needs as long for them as another for a year.
const DAYS: &str = if cfg!(debug_assertions) { "3:4" } else { "6:4" };
/// The year with the usual file.
const WHOLE: &str = "365:64";

/// Everything between the sensors and the medium, as the service has it.
struct Device {
    store: Store,
    path: PathBuf,
    max_bytes: u64,
    batch: Batch,
    keys: Vec<SeriesKey>,
    registry: Arc<Registry>,
    workload: Workload,
    keeper: Keeper,
    upkeep: Upkeep,
    most_bytes: u64,
    vacuumed: u64,
}

impl Device {
    fn new(dir: &Path, max_bytes: u64) -> Self {
        let path = dir.join("varved.db");
        let text = format!("device = \"d\"\n[store]\npath = {path:?}\ncommit_interval = \"60s\"\n");
        let config = StoreConfig { max_size_bytes: max_bytes, ..Config::parse(&text, "test").unwrap().store };
        let me = Identity { machine_hash: [7; 16], boot_uuid: Uuid::from_u128(7) };
        let (store, _) = Store::open(&config, &me, now(0)).unwrap();
        let registry = Arc::new(Registry::new(config.max_series));
        let workload = Workload::from(0);
        let keys = workload.defs().map(|def| registry.key(def).unwrap()).collect();
        let limits = BatchLimits {
            interval: config.commit_interval,
            readings: config.commit_readings,
            buffer_bytes: config.buffer_bytes,
        };
        let batch = Batch::new(limits, registry.clone());
        let (keeper, upkeep) = (Keeper::default(), Upkeep::new(now(0)));
        Self { store, path, max_bytes, batch, keys, registry, workload, keeper, upkeep, most_bytes: 0, vacuumed: 0 }
    }

    /// A minute of readings and their commit; then upkeep until the next one.
    fn minute(&mut self, linked: bool) {
        let mut anchors = Vec::new();
        let mut then = now(0);
        for _ in 0..INTERVAL_S {
            let tick = self.workload.tick();
            then = tick.now();
            anchors.extend(self.keeper.observe(then));
            for (series, value) in self.keys.iter().zip(tick.values) {
                self.batch.push(Reading { series: *series, stamp: Stamp::Boot(then.boot), value }, then.boot).unwrap();
            }
        }
        let sealed = self.batch.seal();
        self.store.commit(&sealed, &self.registry, &anchors, then).unwrap();
        self.measure();
        if linked {
            let (uuid, high) = (self.store.uuid(), self.store.next_seq().0.saturating_sub(2));
            self.store.set_acked(uuid, SeqRange::new(1, high).into_iter().collect()).unwrap();
        }
        // The service looks once a second; here six times, for as many steps.
        for second in (1..INTERVAL_S).step_by(10) {
            for _ in 0..10 {
                if !self.keep_up(second, then) {
                    break;
                }
                self.measure();
            }
        }
    }

    /// One step of upkeep, if there is one to take.
    fn keep_up(&mut self, second: i64, then: Now) -> bool {
        let nanos = second * SECOND;
        let then = Now { boot: BootNanos(then.boot.0 + nanos), utc: UtcNanos(then.utc.0 + nanos), ..then };
        let span = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let idle = Idle { since_commit: span(second), until_commit: Some(span(INTERVAL_S - second)) };
        let Some(chore) = self.upkeep.next(idle, &self.store.facts().unwrap(), then) else { return false };
        let step = match chore {
            Chore::Expire => self.store.expire_step(&[], then),
            Chore::Vacuum => self.store.vacuum_step(),
            Chore::Checkpoint => self.store.checkpoint().map(|()| Step::Idle),
            Chore::Compact => self.store.compact_step(&[], then),
        };
        let step = step.unwrap();
        self.vacuumed += u64::from(chore == Chore::Vacuum && step == Step::Worked);
        self.upkeep.done(chore, Some(step), then);
        true
    }

    fn measure(&mut self) {
        let length = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |meta| meta.len())
        };
        let bytes = length("") + length("-wal");
        assert!(bytes <= self.max_bytes, "file and log have {bytes} bytes of {}", self.max_bytes);
        self.most_bytes = self.most_bytes.max(bytes);
    }

    /// Readings in hourly and daily figures.
    fn counted(&self) -> u64 {
        let sql = "SELECT coalesce((SELECT sum(n) FROM rollup), 0) + coalesce((SELECT sum(n) FROM rollup_day), 0) AS n";
        let answer = self.store.query(sql).unwrap();
        answer["rows"][0][0].as_u64().unwrap()
    }
}

/// Private memory and what was handed to the kernel to write, of this process.
fn own() -> (u64, u64) {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).and_then(|n| n.parse().ok());
    (crate::support::rss_kib(std::process::id()), written.unwrap_or(0))
}

/// Not a story by itself: started by the one below, in a process of its own.
#[test]
#[ignore = "the story below starts it"]
fn the_year_itself() {
    let (days, mib) = plan();
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let mut device = Device::new(dir.path(), mib << 20);
    let begun = Instant::now();
    let mut report = json!({});
    let each_day = (INTERVAL_S * SERIES as i64 * DAY_MINUTES) as u64;
    // The link is down for a while, longer than a small file holds.
    let away = days / 3..days / 3 + 4;
    for day in 0..days {
        for _ in 0..DAY_MINUTES {
            device.minute(!away.contains(&day));
        }
        let facts = device.store.facts().unwrap();
        if day == 0 {
            report["at_rest"] = json!(facts.used_bytes() as f64 / facts.readings as f64);
            report["written_first_day"] = json!(own().1 as f64 / each_day as f64);
        }
        if day == 1 {
            report["rss_kib_early"] = json!(own().0);
        }
        let (counted, all) = (device.counted(), each_day * (day as u64 + 1));
        assert!(counted <= all, "day {day}: {counted} of {all} readings are in the figures: some count twice");
        let figures = device.store.history().unwrap().rollups;
        let gone = figures.days_from.is_some_and(|utc| utc >= now(86_400).utc);
        assert!(gone || counted + each_day / 8 >= all, "day {day}: {counted} of {all} are in the figures");
    }
    let facts = device.store.facts().unwrap();
    let history = device.store.history().unwrap();
    let (rss, written) = own();
    let days_of = |from: UtcNanos| (now(days * 86_400).utc.0 - from.0) as f64 / (86_400 * SECOND) as f64;
    let all = each_day * days as u64;
    report["seconds"] = json!(begun.elapsed().as_secs_f64());
    report["readings_per_second"] = json!(all as f64 / begun.elapsed().as_secs_f64());
    report["readings_held"] = json!(facts.readings);
    report["most_bytes"] = json!(device.most_bytes);
    report["full_days"] = json!(history.readings_from.map(|(utc, _)| days_of(utc)));
    report["hour_days"] = json!(history.rollups.hours_from.map(days_of));
    report["day_days"] = json!(history.rollups.days_from.map(days_of));
    report["rss_kib"] = json!(rss);
    report["written"] = json!(written as f64 / all as f64);
    report["vacuum_steps"] = json!(device.vacuumed);
    report["days"] = json!(days);
    println!("\nYEAR {report}");
}

fn live_through(year: &str) -> Json {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stories::year::the_year_itself", "--ignored", "--nocapture"]).env("VARVED_YEAR", year);
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    let report = text.lines().find_map(|line| line.strip_prefix("YEAR ")).expect(&text);
    println!("{report}");
    serde_json::from_str(report).unwrap()
}

/// Recorded, compacted, acknowledged (but for some days), thinned: for days at 50 readings a second with a very small file, or for a
/// year with the usual one.
#[test]
fn a_year_fits_its_file() {
    let whole = std::env::var("VARVED_FULL").is_ok_and(|v| !v.is_empty());
    let report = live_through(if whole { WHOLE } else { DAYS });
    let figure = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    assert!(figure("at_rest") <= 0.65, "bytes per reading at rest: {report}");
    assert!(figure("rss_kib") <= figure("rss_kib_early") * 1.1 + 512.0, "RAM grows: {report}");
    assert_eq!(figure("vacuum_steps"), 0.0, "a steady state moves no page: {report}");
    let (full_days, hour_days) = if whole { (24.0, 180.0) } else { (1.4, figure("days")) };
    assert!(figure("full_days") >= full_days && figure("hour_days") >= hour_days, "{report}");
    assert!(!whole || figure("day_days") >= 364.0, "{report}");
}
