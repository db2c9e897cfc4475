//! Is what a power cut left usable, and does it hold what it must?
//!
//! What enters: a [`Case`]: the log of a workload, the states that are right at each point of it, and the [`Subject`] that
//! opens what a cut leaves. What leaves: counts, and why an image is bad. Every image is opened by the code that runs on the
//! board or at the fleet. A share of them is cut again while that goes on.
//!
//! Nothing is judged twice: an image with a content that was seen before is compared with what was found in that, and a
//! recovered store that is, page by page, one that was seen before isn't written to and opened again.

use super::chance::Chance;
use super::change::{Change, Entry};
use super::files;
use super::held::{Bodies, Held};
use super::log::{self, Lies};
use super::medium::{Image, Medium, SHAPES, Shape, Threat, identity};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// How a reason begins that says it.
pub(crate) const LOST: &str = "holds";

/// What opens the files that a cut left in a directory, and goes on with them.
pub(crate) trait Subject: Send {
    /// Opens, checks that all is whole, goes on, opens again. What it held when it was opened, and after it went on;
    /// [`log::mark`] says when what it holds was answered, and when it went on.
    fn recover(&self, image: &Image, known: &mut Known) -> Result<[Held; 2], String>;
}

/// What is known of recovered files.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) bodies: Bodies,
    recovered: HashMap<u64, [Held; 2]>,
    /// What goes on is recorded, so that it has to happen.
    recording: bool,
}

impl Known {
    /// What was found in a recovered directory with this content.
    pub(crate) fn of(&self, content: u64) -> Option<[Held; 2]> {
        self.recovered.get(&content).copied().filter(|_| !self.recording)
    }

    /// Remembers that.
    pub(crate) fn learn(&mut self, content: u64, states: [Held; 2]) {
        self.recovered.insert(content, states);
    }
}

/// What was looked at, and what was bad.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Changes that reached a file: the power was cut at each.
    pub(crate) boundaries: u64,
    /// Distinct images.
    pub(crate) images: u64,
    /// Distinct images of cuts while another one was being recovered.
    pub(crate) again: u64,
    /// Images per shape, of those that no earlier one was equal to.
    pub(crate) shapes: BTreeMap<Shape, u64>,
    /// Why, of the first few.
    pub(crate) bad: Vec<String>,
    /// How many.
    pub(crate) bad_count: u64,
    /// Of those, the ones that open and are whole, and miss something acknowledged or hold something that never was.
    pub(crate) lost: u64,
}

impl Figures {
    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.boundaries += other.boundaries;
        self.images += other.images;
        self.again += other.again;
        self.bad_count += other.bad_count;
        self.lost += other.lost;
        other.shapes.into_iter().for_each(|(shape, n)| *self.shapes.entry(shape).or_default() += n);
        self.bad.extend(other.bad);
        self.bad.truncate(5);
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// One boundary in so many is cut at: every one, but in a debug build.
    pub(crate) one_in: usize,
    /// Images per boundary, those of everything and of nothing included.
    pub(crate) per_boundary: usize,
    /// One image in so many is cut again.
    pub(crate) again_one_in: usize,
    /// Cuts of each of those.
    pub(crate) again: usize,
    /// Bad images after which it ends,
    pub(crate) most_bad: u64,
    /// if they have lost something.
    pub(crate) until_lost: bool,
}

/// Images per boundary, at most, where not everything is done that can be.
const FEW: usize = 8;

impl Effort {
    /// About `images` at the boundaries of `case`, and at most so many at each.
    pub(crate) fn of(case: &Case, images: u64, most: usize) -> Self {
        if super::run::seed().is_some() {
            // A replay looks at all that there is.
            return Self { one_in: 1, per_boundary: most, again_one_in: 2, again: 24, most_bad: 20, until_lost: false };
        }
        let boundaries = case.boundaries().max(1);
        // Rather another seed than one more of the same.
        let most = if super::run::is_full() { most } else { most.min(FEW) };
        let per_boundary = (images / boundaries).clamp(3, most as u64) as usize;
        let one_in = if super::run::is_full() { 1 } else { (boundaries * 3 / images.max(1)).max(1) as usize };
        // Each of them has to be gone on with, which costs as much as three others.
        let again_one_in = if super::run::is_full() { 30 } else { 15 };
        Self { one_in, per_boundary, again_one_in, again: 8, most_bad: 20, until_lost: false }
    }
}

/// One workload's log, and everything that is needed to judge what it leaves.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Where its images are opened in memory, that.
    pub(crate) _memory: Option<files::Directory>,
    /// What lives as long as it does.
    pub(crate) _dir: tempfile::TempDir,
    /// Where it ran, and where its images are opened: some files hold paths.
    pub(crate) at: PathBuf,
    pub(crate) entries: Vec<Entry>,
    /// What is held after each operation, the first of which is nothing at all.
    pub(crate) states: Vec<Held>,
    pub(crate) subject: Box<dyn Subject>,
    pub(crate) threat: Threat,
}

impl Case {
    /// Where the cuts begin.
    fn from(&self) -> usize {
        let begins = |entry: &Entry| matches!(entry.change, Change::Settled);
        let fails = self.entries.iter().position(|entry| entry.change == Change::FsyncFailed);
        fails.or_else(|| self.entries.iter().rposition(begins)).unwrap_or(0)
    }

    /// Changes that the power is cut at.
    fn boundaries(&self) -> u64 {
        let marks = |e: &&Entry| !matches!(e.change, Change::Begun(_) | Change::Acknowledged(_) | Change::Settled);
        self.entries[self.from()..].iter().filter(marks).count() as u64
    }
}

/// What is known by now.
#[derive(Default)]
pub(crate) struct Proof {
    /// By content, what an image was found to hold.
    judged: HashMap<u64, Held>,
    seen: HashSet<u64>,
    known: Known,
    pub(crate) figures: Figures,
}

/// A directory in RAM, where there is one.
pub(crate) fn directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory")
}

impl Proof {
    /// Cuts the power at every boundary of `case`.
    pub(crate) fn run(&mut self, case: &Case, effort: Effort, chance: &mut Chance) {
        let mut medium = Medium::default();
        let (mut acked, mut begun) = (0, 0);
        let from = case.from();
        for (at, entry) in case.entries.iter().enumerate() {
            match entry.change {
                Change::Begun(n) => begun = n,
                Change::Acknowledged(n) => acked = n,
                _ => {}
            }
            let changed = medium.take(entry);
            if at < from || !chance.one_in(effort.one_in) {
                continue;
            }
            self.figures.boundaries += u64::from(changed);
            let right = &case.states[acked.min(begun)..=begun];
            for image in 0..effort.per_boundary {
                let shape = match image {
                    0 => Shape::All,
                    1 => Shape::None,
                    _ if medium.unsettled() => SHAPES[2 + chance.below(SHAPES.len() - 2)],
                    _ => break,
                };
                let image = medium.cut(shape, case.threat, chance);
                if let Err(why) = self.look(case, &image, shape, right, effort, chance) {
                    self.bad(case, &image, format!("{}, change {at} ({entry}), {shape:?}: {why}", case.name));
                    if self.figures.bad_count >= effort.most_bad && !effort.until_lost
                        || self.figures.lost >= effort.most_bad
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Judges an image, by what is known of it if it was seen before.
    fn look(
        &mut self,
        case: &Case,
        image: &Image,
        shape: Shape,
        right: &[Held],
        effort: Effort,
        chance: &mut Chance,
    ) -> Result<(), String> {
        let content = identity(image);
        if let Some(found) = self.judged.get(&content) {
            return holds(found, right);
        }
        if self.seen.insert(content) {
            self.figures.images += 1;
            *self.figures.shapes.entry(shape).or_default() += 1;
        }
        if effort.again == 0 || !chance.one_in(effort.again_one_in) {
            let [found, _] = self.recover(case, image)?;
            self.judged.insert(content, found);
            return holds(&found, right);
        }
        log::begin(&case.at, Lies::default());
        self.known.recording = true;
        let recovered = self.recover(case, image);
        self.known.recording = false;
        let (entries, states) = (log::end(), recovered?);
        self.judged.insert(content, states[0]);
        holds(&states[0], right)?;
        (0..effort.again).try_for_each(|_| self.cut_again(case, image, &entries, right, &states, chance))
    }

    /// One cut while `image` was being recovered, by what that recovery wrote.
    fn cut_again(
        &mut self,
        case: &Case,
        image: &Image,
        entries: &[Entry],
        right: &[Held],
        states: &[Held; 2],
        chance: &mut Chance,
    ) -> Result<(), String> {
        let mut medium = Medium::holding(image);
        let (mut acked, mut begun) = (0, 1);
        let upto = chance.below(entries.len().max(1)) + 1;
        for entry in entries.iter().take(upto) {
            match entry.change {
                Change::Begun(n) => begun = n,
                Change::Acknowledged(n) => acked = n,
                _ => drop(medium.take(entry)),
            }
        }
        let shape = SHAPES[chance.below(SHAPES.len())];
        let second = medium.cut(shape, case.threat, chance);
        let told =
            |why| format!("then again at change {upto} of the recovery ({}), {shape:?}: {why}", entries[upto - 1]);
        // Until it is open nobody has seen what it holds.
        let right = if acked == 0 { right } else { &states[acked - 1..begun] };
        let content = identity(&second);
        if let Some(found) = self.judged.get(&content) {
            return holds(found, right).map_err(told);
        }
        if self.seen.insert(content) {
            self.figures.again += 1;
        }
        let done = self.recover(case, &second).and_then(|[found, _]| {
            self.judged.insert(content, found);
            holds(&found, right)
        });
        let done = done.map_err(told);
        if let Err(why) = &done {
            keep(&format!("again-{upto}"), why, &second, entries);
        }
        done
    }

    fn recover(&mut self, case: &Case, image: &Image) -> Result<[Held; 2], String> {
        lay_out(&case.at, image);
        case.subject.recover(image, &mut self.known)
    }

    fn bad(&mut self, case: &Case, image: &Image, why: String) {
        self.figures.bad_count += 1;
        self.figures.lost += u64::from(why.contains(LOST));
        keep(&self.figures.bad_count.to_string(), &why, image, &case.entries);
        if self.figures.bad.len() < 5 {
            self.figures.bad.push(why);
        }
    }

    /// The contents that were seen.
    pub(crate) fn into_seen(self) -> (HashSet<u64>, Figures) {
        (self.seen, self.figures)
    }
}

fn holds(found: &Held, right: &[Held]) -> Result<(), String> {
    match right.contains(found) {
        true => Ok(()),
        false => Err(format!("{LOST} {found:?} instead of one of {right:?}")),
    }
}

/// Keeps what is bad with what led to it, where `VARVED_KEEP` says.
fn keep(name: &str, why: &str, image: &Image, entries: &[Entry]) {
    let Some(keep) = std::env::var_os("VARVED_KEEP") else { return };
    let dir = PathBuf::from(keep).join(name);
    std::fs::create_dir_all(&dir).expect("VARVED_KEEP");
    image.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).expect("VARVED_KEEP"));
    let log: String = entries.iter().enumerate().map(|(at, entry)| format!("{at} {entry}\n")).collect();
    std::fs::write(dir.join("why"), format!("{why}\n\n{log}")).expect("VARVED_KEEP");
}

/// Has `dir` hold `image` and nothing else.
pub(crate) fn lay_out(dir: &Path, image: &Image) {
    files::lay_out(dir, image).expect("laid out");
}

/// Identity of what SQLite and the store will read in `dir`: each database with its log laid over it, the length of that log,
/// and every other file but locks and the index. What is left of older logs has another salt and is never read.
pub(crate) fn recovered(dir: &Path) -> u64 {
    let mut files: Image = Image::new();
    for name in files::names(dir).expect("the directory") {
        let name = name.to_string_lossy().into_owned();
        if !name.ends_with("-shm") && !name.ends_with("-lock") {
            let bytes = files::read(&dir.join(&name)).expect("read");
            files.insert(name, bytes);
        }
    }
    let logs: Vec<String> = files.keys().filter(|name| name.ends_with("-wal")).cloned().collect();
    for name in logs {
        let log = files.remove(&name).unwrap_or_default();
        let database = files.entry(name.trim_end_matches("-wal").to_owned()).or_default();
        let frames = fold(database, &log);
        database.extend_from_slice(&frames.to_le_bytes());
    }
    identity(&files)
}

/// Lays the frames of `log` over `database`; how many there are (sqlite.org/fileformat2.html §4).
fn fold(database: &mut Vec<u8>, log: &[u8]) -> u64 {
    let number = |at: usize| log[at..at + 4].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    if log.len() < 32 || number(8) == 0 {
        return 0;
    }
    let (page, salt) = (number(8), &log[16..24]);
    let (mut at, mut frames) = (32, 0);
    while at + 24 + page <= log.len() && &log[at + 8..at + 16] == salt && number(at) > 0 {
        let to = (number(at) - 1) * page;
        if database.len() < to + page {
            database.resize(to + page, 0);
        }
        database[to..to + page].copy_from_slice(&log[at + 24..at + 24 + page]);
        (at, frames) = (at + 24 + page, frames + 1);
    }
    frames
}
