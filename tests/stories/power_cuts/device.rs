//! The device: `varved run`, its commits confirmed by `flush`.

use super::*;
use crate::support::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use varved::clock::{BootNanos, Now, UtcNanos};
use varved::config::{Config, StoreConfig};
use varved::reading::SegmentSeq;
use varved::store::{Identity, Store};

/// What a device must hold after each flush.
#[derive(Clone)]
struct Flushes {
    config: StoreConfig,
    me: Identity,
    /// After so many flushes; the first is nothing at all.
    states: Arc<Vec<Sum>>,
    acknowledged: usize,
    bodies: HashMap<u64, Sum>,
}

impl Witness for Flushes {
    fn hear(&mut self, step: &Step) {
        if let What::Told(bytes) = &step.what {
            self.acknowledged += String::from_utf8_lossy(bytes).matches("{\"ok\":null}").count();
        }
    }

    fn moment(&self) -> u64 {
        self.acknowledged as u64
    }

    fn judge(&mut self, dir: &Path) -> Result<(), String> {
        self.config.path = dir.join("varved.db");
        let now = Now { boot: BootNanos(1 << 50), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true };
        let (store, events) = Store::open(&self.config, &self.me, now).map_err(|e| format!("open: {e}"))?;
        if let Some(event) = events.first() {
            return Err(format!("event {event}"));
        }
        let found = self.held(&store)?;
        let right = &self.states[self.acknowledged..self.states.len().min(self.acknowledged + 2)];
        match right.contains(&found) {
            true => Ok(()),
            false => Err(format!("holds {found:?} instead of one of {right:?}, {} acknowledged", self.acknowledged)),
        }
    }
}

impl Flushes {
    /// Before the first of them, of the site that was [`recorded`] in `dir`.
    fn of(dir: &Path, states: Vec<Sum>) -> Self {
        let text = std::fs::read_to_string(dir.join("site/varved.toml")).unwrap();
        Self {
            config: Config::parse(&text, "varved.toml").unwrap().store,
            me: Identity::read(Path::new("/")).unwrap(),
            states: Arc::new(states),
            acknowledged: 0,
            bodies: HashMap::new(),
        }
    }

    /// Everything, decoded to the last value; the same bodies come up in every image.
    fn held(&mut self, store: &Store) -> Result<Sum, String> {
        let mut sum = Sum::default();
        let line = store.stores()[0];
        let mut seq = 1;
        while seq <= line.high.0 {
            let found = store.body(line.uuid, SegmentSeq(seq)).map_err(|e| e.to_string())?;
            let (range, body) = found.ok_or_else(|| format!("number {seq} is missing"))?;
            let key = scatter(identity(&BTreeMap::from([(String::new(), body.clone())])));
            let known = match self.bodies.get(&key) {
                Some(known) => *known,
                None => Sum::of_body(&body)?,
            };
            self.bodies.insert(key, known);
            sum = sum.add(known);
            seq = range.last.0 + 1;
        }
        Ok(sum)
    }
}

/// Records under strace, flush by flush, over two starts. The logs, and what must be held after each flush.
fn recorded(dir: &Path, flushes: usize, chance: &mut Chance) -> (Vec<PathBuf>, Vec<Sum>) {
    let site = Site::new(&dir.join("site"), "pump-17", "commit_interval = \"1h\"\nmax_size = \"8MiB\"", "");
    let (mut logs, mut states, mut sent) = (Vec::new(), vec![Sum::default()], 0);
    for life in 0..2 {
        let log = dir.join(format!("trace-{life}"));
        let mut command = trace::traced(Path::new(VARVED), &log);
        let device = Process::start(command.args(["run", "--config"]).arg(&site.config), &dir.join("device.log"));
        wait_for("the traced device to answer", 60, || site.ask("status"));
        for _ in 0..flushes / 2 {
            let n = 1 + chance.below(90) as u64;
            site.send(&lines(sent..sent + n));
            site.ask("flush").expect("a flush is answered");
            let last = *states.last().unwrap();
            states.push((sent..sent + n).fold(last, |sum, number| sum.add(Sum::of_number(number))));
            sent += n;
        }
        // The first life ends in the midst of things, and the second start has a log to replay.
        match life {
            0 => device.kill9(),
            _ => assert_eq!(device.stop(), Some(0)),
        }
        wait_for("the tracer to end", 30, || {
            let text = std::fs::read_to_string(&log).unwrap();
            (text.contains("+++ exited") || text.contains("+++ killed")).then_some(())
        });
        std::thread::sleep(Duration::from_millis(200));
        logs.push(log);
    }
    (logs, states)
}

/// The power is cut at every write, fsync, name and answer of the real service: at a first start, commits of all sizes with
/// folds of the log, an abrupt end, a start that replays, a clean stop. Whatever a medium may hold then opens without a
/// report, and holds exactly what was flushed, or that and what was being flushed.
#[test]
fn a_power_cut_under_the_real_service_loses_nothing_flushed() {
    let (flushes, per_boundary) = if full() { (1400, 16) } else { (200, 6) };
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let begun = std::time::Instant::now();
    let (logs, states) = recorded(dir.path(), flushes, &mut Chance::new(seed()));
    let steps = trace::read(&logs, &dir.path().join("site"));
    let traced = begun.elapsed();
    let witness = Flushes::of(dir.path(), states);
    let mut all = witness.clone();
    steps.iter().for_each(|step| all.hear(step));
    assert_eq!(all.acknowledged, flushes, "every answer is in the trace");
    let figures = cut_everywhere(&steps, per_boundary, seed(), &witness);
    println!(
        "seed {}: {} boundaries, {} images of the device, {} bad; traced in {traced:?}, judged after {:?}",
        seed(),
        figures.boundaries,
        figures.images,
        figures.bad.len(),
        begun.elapsed(),
    );
    assert!(figures.bad.is_empty(), "{:#?}", figures.bad);
    assert!(figures.images >= if full() { 120_000 } else { 12_000 }, "{} images", figures.images);
}

/// Negative control: if every flush is taken for answered one write earlier than it was, images are found that lack it.
#[test]
fn an_answer_before_its_fsync_is_caught() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (logs, states) = recorded(dir.path(), 20, &mut Chance::new(seed()));
    let mut steps = trace::read(&logs, &dir.path().join("site"));
    // The fsync behind which an answer stood is no more.
    let answers: Vec<usize> = (0..steps.len()).filter(|at| matches!(steps[*at].what, What::Told(_))).collect();
    for at in answers {
        if let Some(fsync) = (0..at).rev().find(|at| matches!(steps[*at].what, What::Fsync)) {
            steps[fsync].what = What::Told(Vec::new());
        }
    }
    let witness = Flushes::of(dir.path(), states);
    let figures = cut_everywhere(&steps, 4, seed(), &witness);
    assert!(figures.bad.iter().any(|why| why.contains("holds")), "{:#?}", figures.bad);
}
