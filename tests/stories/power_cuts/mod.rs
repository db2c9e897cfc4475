//! Power cuts under the real binaries. strace takes down every write, fsync, name and acknowledgement of a process in one order;
//! at each of them the power is cut: images are made of what the medium may hold then, and the code that opens the files on
//! the board, or at the fleet, opens each. What had been acknowledged must be there, once and the same.
//!
//! The medium is the one of `src/store/crash` ("Power cuts, simulated", docs/crash.md); here nothing of the process is
//! replaced: its own start, threads, system calls and answers make the log.

#[path = "../../../src/store/crash/chance.rs"]
#[allow(dead_code, reason = "the proof of the store uses more of it")]
mod chance;
#[path = "../../../src/store/crash/change.rs"]
#[allow(dead_code, reason = "the medium knows marks that nobody sets here")]
mod change;
mod device;
#[path = "../../../src/store/crash/medium.rs"]
#[allow(dead_code, reason = "the proof of the store uses more of it")]
mod medium;
mod receiver;
mod trace;

use chance::{Chance, scatter};
use change::{Change, Entry};
use medium::{Image, Medium, SHAPES, Shape, Threat, identity};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use trace::{Step, What};
use varved::segment::{Content, Values, decode};

/// Who knows what was acknowledged, and looks whether it is there.
trait Witness: Clone + Send {
    /// What the process told at this point.
    fn hear(&mut self, step: &Step);
    /// Anything that tells two moments apart at which the same files may be right and wrong.
    fn moment(&self) -> u64;
    /// Opens what is in `dir`, and says what is wrong with it.
    fn judge(&mut self, dir: &Path) -> Result<(), String>;
}

/// The folders of a process, each with names of its own.
#[derive(Clone, Default)]
struct Tree(BTreeMap<String, Medium>);

impl Tree {
    fn take(&mut self, step: &Step) -> bool {
        let change = match &step.what {
            What::Create => Change::Create,
            What::Write { at, bytes } => Change::Write { at: *at, bytes: bytes.as_slice().into() },
            What::SetLength(bytes) => Change::SetLength(*bytes),
            What::Fsync => Change::Fsync,
            What::FsyncDirectory => Change::FsyncDirectory,
            What::Rename { to } => Change::Rename { to: to.clone() },
            What::Remove => Change::Remove,
            What::Told(_) => return false,
        };
        self.0.entry(step.dir.clone()).or_default().take(&Entry { name: step.name.clone(), change })
    }

    fn unsettled(&self) -> bool {
        self.0.values().any(Medium::unsettled)
    }

    /// What a cut may leave. A folder's own name stands in its parent, with a slash behind it.
    fn cut(&self, shape: Shape, chance: &mut Chance) -> Image {
        let mut all = Image::new();
        for (dir, medium) in &self.0 {
            let there = dir.is_empty() || all.contains_key(&format!("{dir}/"));
            let image = medium.cut(shape, Threat::Garbage, chance);
            let path = |name: String| if dir.is_empty() { name } else { format!("{dir}/{name}") };
            all.extend(image.into_iter().filter(|_| there).map(|(name, bytes)| (path(name), bytes)));
        }
        all
    }
}

#[derive(Default)]
struct Figures {
    boundaries: u64,
    images: u64,
    bad: Vec<String>,
}

/// Cuts the power at every boundary of `steps`, some times each, on both cores.
fn cut_everywhere(steps: &[Step], per_boundary: usize, seed: u64, witness: &impl Witness) -> Figures {
    const THREADS: usize = 2;
    let all: Vec<Figures> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|k| {
                let witness = witness.clone();
                let chance = Chance::new(seed + k as u64);
                scope.spawn(move || cut_some(steps, (k, THREADS), per_boundary, chance, witness))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    all.into_iter().fold(Figures::default(), |mut sum, part| {
        sum.boundaries += part.boundaries;
        sum.images += part.images;
        sum.bad.extend(part.bad);
        sum
    })
}

/// Every boundary whose number is `of.0` modulo `of.1`.
fn cut_some(
    steps: &[Step],
    of: (usize, usize),
    per_boundary: usize,
    mut chance: Chance,
    mut witness: impl Witness,
) -> Figures {
    let (mut tree, mut seen, mut figures) = (Tree::default(), HashSet::new(), Figures::default());
    let ram = tempfile::tempdir_in("/dev/shm").unwrap();
    for (at, step) in steps.iter().enumerate() {
        witness.hear(step);
        let changed = tree.take(step);
        if at % of.1 != of.0 {
            continue;
        }
        figures.boundaries += u64::from(changed);
        for n in 0..per_boundary.max(2) {
            let shape = match n {
                0 => Shape::All,
                1 => Shape::None,
                _ if tree.unsettled() => SHAPES[2 + chance.below(SHAPES.len() - 2)],
                _ => break,
            };
            let image = tree.cut(shape, &mut chance);
            if !seen.insert(scatter(identity(&image) ^ scatter(witness.moment()))) {
                continue;
            }
            figures.images += 1;
            lay_out(ram.path(), &image);
            if let Err(why) = witness.judge(ram.path()) {
                keep(&image, &steps[..=at], figures.bad.len());
                figures.bad.push(format!("step {at} ({step}), {shape:?}: {why}"));
                if figures.bad.len() >= 5 {
                    return figures;
                }
            }
        }
    }
    figures
}

fn lay_out(dir: &Path, image: &Image) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    for (name, bytes) in image {
        match name.strip_suffix('/') {
            Some(folder) => std::fs::create_dir_all(dir.join(folder)).unwrap(),
            None => std::fs::write(dir.join(name), bytes).unwrap(),
        }
    }
}

/// `VARVED_KEEP` names a folder for what was bad.
fn keep(image: &Image, steps: &[Step], n: usize) {
    if let Some(folder) = std::env::var_os("VARVED_KEEP") {
        let dir = Path::new(&folder).join(n.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        lay_out(&dir, image);
        let log: String = steps.iter().enumerate().map(|(at, step)| format!("{at} {step}\n")).collect();
        std::fs::write(dir.join("steps"), log).unwrap();
    }
}

/// Readings, as what they add up to: how many, and the sum of a hash of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    n: u64,
    sum: u64,
}

impl Sum {
    fn add(self, other: Self) -> Self {
        Self { n: self.n + other.n, sum: self.sum.wrapping_add(other.sum) }
    }

    fn of_reading(stamp: i64, value: i64) -> Self {
        Self { n: 1, sum: scatter(stamp as u64 ^ scatter(value as u64)) }
    }

    /// Reading `number` of a plant: its stamp, and a value that compresses badly.
    fn of_number(number: u64) -> Self {
        Self::of_reading(number as i64 + 1, scatter(number) as i64)
    }

    fn of_body(body: &[u8]) -> Result<Self, String> {
        let Content::Data { readings, .. } = decode(body).map_err(|e| e.to_string())?.content else {
            return Err("a loss, where nothing was lost".to_owned());
        };
        let mut sum = Self::default();
        for column in &readings.columns {
            let Values::Int(values) = &column.values else { return Err("a value of another kind".to_owned()) };
            let stamps = &readings.timelines[column.timeline].stamps;
            for (stamp, value) in stamps.iter().zip(values) {
                sum = sum.add(Self::of_reading(*stamp, *value));
            }
        }
        Ok(sum)
    }
}

/// Readings `numbers` as line protocol, of three series.
fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("plant,s={} v={}i {}\n", n % 3, scatter(n) as i64, n + 1)).collect()
}
