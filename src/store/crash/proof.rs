//! Is what a power cut left a store, and does it hold what it must?
//!
//! What enters: an image, and the states that are right at that point. What leaves: why it is bad, if it is. The store is
//! opened by the code that runs on the board, checked to the last value, written to, closed and opened once more. A share of
//! the images is cut again while that goes on.

use super::super::event::{Event, EventKind};
use super::super::testing::{at, put};
use super::super::{Identity, Store};
use super::chance::{Chance, scatter};
use super::held::{Bodies, Held, held, unaccounted};
use super::log::{self, Change, Entry, Lies};
use super::medium::{Image, Medium, SHAPES, Shape, Threat, identity};
use crate::config::StoreConfig;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// How a reason begins that says it.
const LOST: &str = "holds";

/// What was looked at, and what was bad.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Changes that reached a file: the power was cut at each.
    pub(super) boundaries: u64,
    /// Distinct images.
    pub(super) images: u64,
    /// Distinct images of cuts while another one was being recovered.
    pub(super) again: u64,
    /// Images per shape, of those that no earlier one was equal to.
    pub(super) shapes: BTreeMap<Shape, u64>,
    /// Why, of the first few.
    pub(super) bad: Vec<String>,
    /// How many.
    pub(super) bad_count: u64,
    /// Of those, the ones that open and are whole, and miss something acknowledged or hold something that never was.
    pub(super) lost: u64,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Boundaries to cut at, about; where there are more, some of them are left out.
    pub(super) boundaries: usize,
    /// Images per boundary beside those of everything and of nothing.
    pub(super) per_boundary: usize,
    /// One image in so many is cut again.
    pub(super) again_one_in: usize,
    /// Cuts of each of those.
    pub(super) again: usize,
    /// Bad images after which it ends,
    pub(super) most_bad: u64,
    /// if they have lost something.
    pub(super) until_lost: bool,
}

/// One workload's log, and everything that is needed to judge what it leaves.
pub(super) struct Case {
    pub(super) name: String,
    /// Where it ran, and where its images are opened: some files hold paths.
    pub(super) dir: tempfile::TempDir,
    pub(super) cfg: StoreConfig,
    pub(super) me: Identity,
    pub(super) entries: Vec<Entry>,
    /// What is held after each operation, the first of which is nothing at all.
    pub(super) states: Vec<Held>,
    /// What a recovery may report.
    pub(super) events: Vec<EventKind>,
    pub(super) threat: Threat,
}

/// What is known by now.
#[derive(Default)]
pub(super) struct Proof {
    seen: HashSet<u64>,
    bodies: Bodies,
    pub(super) figures: Figures,
}

/// A directory in RAM, where there is one.
pub(super) fn directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory")
}

impl Proof {
    /// Cuts the power at every boundary of `case`.
    pub(super) fn run(&mut self, case: &Case, effort: Effort, chance: &mut Chance) {
        let mut medium = Medium::default();
        let (mut acked, mut begun) = (0, 0);
        let from = case.entries.iter().rposition(|entry| entry.change == Change::Settled).unwrap_or(0);
        let one_in = ((case.entries.len() - from) / effort.boundaries).max(1);
        for (at, entry) in case.entries.iter().enumerate() {
            match entry.change {
                Change::Begun(n) => begun = n,
                Change::Acknowledged(n) => acked = n,
                _ => {}
            }
            let changed = medium.take(entry);
            if at < from {
                continue;
            }
            if !chance.one_in(one_in) {
                continue;
            }
            self.figures.boundaries += u64::from(changed);
            let right = &case.states[acked.min(begun)..=begun];
            for image in 0..effort.per_boundary + 2 {
                let shape = match image {
                    0 => Shape::All,
                    1 => Shape::None,
                    _ if medium.unsettled() => SHAPES[2 + chance.below(SHAPES.len() - 2)],
                    _ => break,
                };
                let image = medium.cut(shape, case.threat, chance);
                // The same files may be right before a mark and wrong behind it.
                let key = scatter(identity(&image) ^ scatter((acked << 32 | begun) as u64));
                if !self.seen.insert(key) {
                    continue;
                }
                self.figures.images += 1;
                *self.figures.shapes.entry(shape).or_default() += 1;
                let again = if chance.one_in(effort.again_one_in) { effort.again } else { 0 };
                if let Err(why) = self.judge(case, &image, right, again, chance) {
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

    fn bad(&mut self, case: &Case, image: &Image, why: String) {
        self.figures.bad_count += 1;
        self.figures.lost += u64::from(why.contains(LOST));
        if let Some(keep) = std::env::var_os("VARVED_KEEP") {
            let dir = PathBuf::from(keep).join(self.figures.bad_count.to_string());
            std::fs::create_dir_all(&dir).expect("VARVED_KEEP");
            image.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).expect("VARVED_KEEP"));
            let log: String = case.entries.iter().enumerate().map(|(at, entry)| format!("{at} {entry}\n")).collect();
            std::fs::write(dir.join("why"), format!("{why}\n\n{log}")).expect("VARVED_KEEP");
        }
        if self.figures.bad.len() < 5 {
            self.figures.bad.push(why);
        }
    }

    fn judge(
        &mut self,
        case: &Case,
        image: &Image,
        right: &[Held],
        again: usize,
        chance: &mut Chance,
    ) -> Result<(), String> {
        if again == 0 {
            return self.recover(case, image, right).map(drop);
        }
        log::begin(case.dir.path(), Lies::default());
        let recovered = self.recover(case, image, right);
        let entries = log::end();
        let states = recovered?;
        for _ in 0..again {
            self.cut_again(case, image, &entries, right, &states, chance)?;
        }
        Ok(())
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
        if !self.seen.insert(scatter(identity(&second) ^ scatter(!((acked << 32 | begun) as u64)))) {
            return Ok(());
        }
        self.figures.again += 1;
        let told =
            |why| format!("then again at change {upto} of the recovery ({}), {shape:?}: {why}", entries[upto - 1]);
        // Until it is open nobody has seen what it holds.
        let right = if acked == 0 { right } else { &states[acked - 1..begun] };
        let done = self.recover(case, &second, right).map(drop).map_err(told);
        if let (Err(why), Some(keep)) = (&done, std::env::var_os("VARVED_KEEP")) {
            let dir = PathBuf::from(keep).join(format!("again-{upto}"));
            std::fs::create_dir_all(&dir).expect("VARVED_KEEP");
            second.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).expect("VARVED_KEEP"));
            let log: String = entries.iter().enumerate().map(|(at, entry)| format!("{at} {entry}\n")).collect();
            std::fs::write(dir.join("why"), format!("{why}\n\n{log}")).expect("VARVED_KEEP");
        }
        done
    }

    /// Opens, checks, goes on, opens again. What it held when it was opened, and after a commit.
    fn recover(&mut self, case: &Case, image: &Image, right: &[Held]) -> Result<[Held; 2], String> {
        lay_out(case.dir.path(), image);
        let (mut store, events) = Store::open(&case.cfg, &case.me, at(1_000_000)).map_err(|e| format!("open: {e}"))?;
        unexpected(&events, &case.events)?;
        let verdict: Result<String, _> = store.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        match verdict {
            Ok(verdict) if verdict == "ok" => {}
            other => return Err(format!("integrity_check: {other:?}")),
        }
        let found = held(&store, &mut self.bodies)?;
        if !right.contains(&found) {
            return Err(format!("{LOST} {found:?} instead of one of {right:?}"));
        }
        if !case.events.contains(&EventKind::Salvage) {
            unaccounted(&store)?;
        }
        log::mark(Change::Acknowledged(1));
        log::mark(Change::Begun(2));
        put(&mut store, 2, 3, 1_000_000).map_err(|e| format!("commit: {e}"))?;
        log::mark(Change::Acknowledged(2));
        let after = held(&store, &mut self.bodies)?;
        // Where the file is full, room is made for it, and that is told.
        if after.n + after.lost != found.n + found.lost + 6 || after.high != found.high + 1 {
            return Err(format!("a commit made {after:?} of {found:?}"));
        }
        store.close().map_err(|e| format!("close: {e}"))?;
        let (store, events) = Store::open(&case.cfg, &case.me, at(1_000_010)).map_err(|e| format!("reopen: {e}"))?;
        unexpected(&events, &case.events).map_err(|e| format!("reopen: {e}"))?;
        let again = held(&store, &mut self.bodies)?;
        if again != after {
            Err(format!("reopened, it holds {again:?} instead of {after:?}"))
        } else {
            Ok([found, after])
        }
    }
}

fn unexpected(events: &[Event], fine: &[EventKind]) -> Result<(), String> {
    match events.iter().find(|event| !fine.contains(&event.kind)) {
        Some(event) => Err(format!("event {event}")),
        None => Ok(()),
    }
}

/// Has `dir` hold `image` and nothing else.
fn lay_out(dir: &Path, image: &Image) {
    for entry in std::fs::read_dir(dir).expect("the directory").flatten() {
        std::fs::remove_file(entry.path()).expect("removed");
    }
    for (name, bytes) in image {
        std::fs::write(dir.join(name), bytes).expect("written");
    }
}
