//! The data folder: which store's replica lies where, and the few that are open.
//!
//! ```text
//! <data>/<device>/<store uuid>.db      the replica, in the folder of the device that brought the store first
//! <data>/<other>/<store uuid>.db       a link to it: the same store came from another device too (a card that was moved)
//! <data>/<device>/<uuid>.db.damaged-N  a file that was no database any more, set aside
//! <data>/_roster.db                    see `replica::roster`; no device name begins with `_`
//! ```
//!
//! What enters: device names that were checked, store ids. What leaves: open replicas, at most [`MAX_OPEN`]. A store id is
//! global: whoever brings it, there is one replica.

mod together;

use super::FleetError;
use super::replica::Replica;
use crate::clock::UtcNanos;
use crate::reading::SeqRange;
use crate::store::StoreError;
use crate::store::file::beside;
use crate::wire::{StoreUuid, topics};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use together::{at_a_time, locked};

/// Replicas that are open at one time: three file handles and at most about 400 KiB each, of which 256 KiB are SQLite's cache.
/// With more devices than this at work, replicas are closed and opened again, which reads the list of their segments.
pub const MAX_OPEN: usize = 256;

/// As many where the medium takes nothing: what has a failed commit behind it stays open until one succeeds.
const MAX_OPEN_IN_TROUBLE: usize = MAX_OPEN + MAX_OPEN / 4;

/// Replicas that are opened ahead of their messages.
pub const MAX_PREPARED: usize = MAX_OPEN / 2;

/// The most that the catalogues of open replicas may take between two commits, in bytes: those used longest ago are closed.
pub const MAX_OPEN_CATALOG_BYTES: usize = 128 << 20;

/// See the room.
pub struct Shelf {
    data: PathBuf,
    /// The folder of each store's replica, by the device whose folder it is.
    homes: HashMap<StoreUuid, String>,
    /// Stores that each device has brought.
    brought: BTreeMap<String, BTreeSet<StoreUuid>>,
    open: HashMap<StoreUuid, Open>,
    uses: u64,
    max_catalog_bytes: usize,
    /// The stores whose replicas [`Shelf::prepare`] has opened, for tests that ask whether it is called.
    #[cfg(test)]
    pub(super) prepared: Vec<StoreUuid>,
}

struct Open {
    replica: Replica,
    used: u64,
}

/// What an operator should hear of, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A store came from a device other than the one that brought it first.
    Moved {
        /// Which store.
        store: StoreUuid,
        /// Who brought it first.
        from: String,
        /// Who brings it now.
        to: String,
    },
    /// A replica was no database any more and was set aside; the device is told that nothing of it is held.
    SetAside {
        /// Which store.
        store: StoreUuid,
        /// The file's new name.
        path: PathBuf,
    },
}

impl Shelf {
    /// Reads what is in `data`, which is made where it isn't there.
    pub fn open(data: &Path) -> Result<Self, FleetError> {
        fs::create_dir_all(data).map_err(|cause| folder(data, cause))?;
        let mut shelf = Self {
            data: data.to_owned(),
            homes: HashMap::new(),
            brought: BTreeMap::new(),
            open: HashMap::new(),
            uses: 0,
            max_catalog_bytes: MAX_OPEN_CATALOG_BYTES,
            #[cfg(test)]
            prepared: Vec::new(),
        };
        let mut devices: Vec<String> = names(data)?.into_iter().filter(|name| topics::valid_device(name)).collect();
        devices.sort();
        for device in devices {
            shelf.index(device)?;
        }
        Ok(shelf)
    }

    /// The stores that `device` has brought.
    pub fn stores_of(&self, device: &str) -> impl Iterator<Item = StoreUuid> + '_ {
        self.brought.get(device).into_iter().flatten().copied()
    }

    /// Every device with a folder, and its stores.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &BTreeSet<StoreUuid>)> {
        self.brought.iter().map(|(device, stores)| (device.as_str(), stores))
    }

    /// Whether `device` has brought `store` before.
    pub fn has(&self, device: &str, store: StoreUuid) -> bool {
        self.brought.get(device).is_some_and(|stores| stores.contains(&store))
    }

    /// Where the replica of a known store lies.
    pub fn path_of(&self, store: StoreUuid) -> Option<PathBuf> {
        self.homes.get(&store).map(|home| self.path(home, store))
    }

    /// The replica of `store` for `device`, opened or made.
    pub fn replica(
        &mut self,
        device: &str,
        store: StoreUuid,
        now: UtcNanos,
    ) -> Result<(&mut Replica, Vec<Notice>), FleetError> {
        let mut notices = Vec::new();
        if !self.has(device, store) {
            notices.extend(self.bring(device, store)?);
        }
        if !self.open.contains_key(&store) {
            self.make_room(1);
            if self.open.len() >= MAX_OPEN_IN_TROUBLE {
                return Err(FleetError::Crowded);
            }
            let home = self.home_of(device, store);
            let (replica, notice) = open_file(&self.data.join(&home), &home, store, now)?;
            notices.extend(notice);
            self.open.insert(store, Open { replica, used: 0 });
        }
        self.uses += 1;
        let used = self.uses;
        match self.open.get_mut(&store) {
            Some(open) => {
                open.used = used;
                Ok((&mut open.replica, notices))
            }
            None => Err(FleetError::Config(format!("store {store} is not on the shelf"))),
        }
    }

    /// Opens or makes the replicas of `wanted`, stores by the device that brings each, several at a time: a new one waits for
    /// the medium a dozen times, and the devices of a fleet may all be new at once. A failure is left to [`Shelf::replica`],
    /// which tries again and tells.
    pub fn prepare(&mut self, wanted: &[(String, StoreUuid)], now: UtcNanos) -> Vec<Notice> {
        let wanted = &wanted[..wanted.len().min(MAX_PREPARED)];
        let (mut notices, mut closed) = (Vec::new(), BTreeMap::new());
        if self.make_folders(wanted).is_err() {
            return notices;
        }
        for (device, store) in wanted {
            let brought = if self.has(device, *store) { Ok(None) } else { self.bring(device, *store) };
            let Ok(notice) = brought else { continue };
            notices.extend(notice);
            if !self.open.contains_key(store) {
                closed.insert(*store, self.home_of(device, *store));
            }
        }
        self.make_room(closed.len());
        let room = MAX_OPEN.saturating_sub(self.open.len());
        let closed: Vec<_> = closed.into_iter().take(room).collect();
        let (data, opened) = (&self.data, Mutex::new(Vec::new()));
        at_a_time(closed.into_iter(), |(store, home)| {
            let replica = open_file(&data.join(&home), &home, store, now);
            locked(&opened).extend(replica.ok().map(|(replica, notice)| (store, replica, notice)));
        });
        for (store, replica, notice) in opened.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.uses += 1;
            self.open.insert(store, Open { replica, used: self.uses });
            #[cfg(test)]
            self.prepared.push(store);
            notices.extend(notice);
        }
        notices
    }

    /// Whether a commit is needed before another replica can be opened.
    pub fn is_crowded(&self) -> bool {
        self.room() == 0 && self.open.values().any(|open| open.replica.has_uncommitted())
    }

    /// Looks whether the media of replicas whose last commit failed take one again; to be called now and then.
    pub fn try_again(&mut self) {
        self.open.values_mut().for_each(|open| open.replica.try_again());
    }

    /// What the catalogues of open replicas take in memory, in bytes, roughly.
    pub fn catalog_bytes(&self) -> usize {
        self.open.values().map(|open| open.replica.catalog_bytes()).sum()
    }

    /// Another bound than [`MAX_OPEN_CATALOG_BYTES`], for tests that cannot wait for as much.
    #[cfg(test)]
    pub(super) fn set_max_catalog_bytes(&mut self, bytes: usize) {
        self.max_catalog_bytes = bytes;
    }

    /// How many replicas can be opened now, those closed for it that may be.
    pub fn room(&self) -> usize {
        MAX_OPEN.saturating_sub(self.open.values().filter(|open| open.replica.must_stay_open()).count())
    }

    /// Commits every open replica. The stores whose commit failed, with the cause: nothing new of them is held. Each waits
    /// for the medium by itself, so several wait at a time.
    pub fn commit(&mut self) -> Vec<(StoreUuid, StoreError)> {
        let waiting: Vec<(StoreUuid, &mut Replica)> = self
            .open
            .iter_mut()
            .filter(|(_, open)| open.replica.has_uncommitted())
            .map(|(store, open)| (*store, &mut open.replica))
            .collect();
        let failed = Mutex::new(Vec::new());
        at_a_time(waiting.into_iter(), |(store, replica)| {
            if let Err(cause) = replica.commit() {
                locked(&failed).push((store, cause));
            }
        });
        self.shed_catalogs();
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Undoes what was placed in `store` since the last commit.
    pub fn roll_back(&mut self, store: StoreUuid) {
        if let Some(open) = self.open.get_mut(&store) {
            open.replica.roll_back();
        }
    }

    /// How many replicas are open.
    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        self.open.len()
    }

    /// Every commit of the replicas that are open fails from now on, or none does.
    #[cfg(test)]
    pub(super) fn fail_commits(&mut self, fail: bool) {
        self.open.values_mut().for_each(|open| open.replica.fail_commits(fail));
    }

    /// Whether all of `range` is in the history of `device`, where the replica of `store` is open.
    pub fn accounts_for(&self, device: &str, store: StoreUuid, range: SeqRange) -> bool {
        self.open.get(&store).is_some_and(|open| open.replica.accounts_for(device, range))
    }

    /// The replica of `store` if it is open, for tests that break it.
    #[cfg(test)]
    pub(super) fn opened(&mut self, store: StoreUuid) -> Option<&mut Replica> {
        self.open.get_mut(&store).map(|open| &mut open.replica)
    }

    /// The folders of devices that have none, all made durable at once.
    fn make_folders(&self, wanted: &[(String, StoreUuid)]) -> Result<(), FleetError> {
        let own = |(device, _): &(String, StoreUuid)| self.data.join(device);
        let made: Vec<PathBuf> = wanted.iter().map(own).filter(|own| fs::create_dir(own).is_ok()).collect();
        if made.is_empty() {
            return Ok(());
        }
        fsync(&self.data).inspect_err(|_| {
            // What is there counts as durable.
            made.iter().for_each(|own| drop(fs::remove_dir(own)));
        })
    }

    /// The first device to bring a store gives it its place; for any other a link is made to it.
    fn bring(&mut self, device: &str, store: StoreUuid) -> Result<Option<Notice>, FleetError> {
        let own = self.data.join(device);
        if !own.is_dir() {
            fs::create_dir(&own).map_err(|cause| folder(&own, cause))?;
            fsync(&self.data)?;
        }
        let moved = match self.homes.get(&store) {
            None => {
                self.homes.insert(store, device.to_owned());
                None
            }
            Some(home) => {
                let target = Path::new("..").join(home).join(file_name(store));
                let link = own.join(file_name(store));
                std::os::unix::fs::symlink(target, &link).map_err(|cause| folder(&link, cause))?;
                fsync(&own)?;
                Some(Notice::Moved { store, from: home.clone(), to: device.to_owned() })
            }
        };
        self.brought.entry(device.to_owned()).or_default().insert(store);
        Ok(moved)
    }

    /// Whose folder the replica of `store` lies in, or is to lie in where `device` brings it first.
    fn home_of(&self, device: &str, store: StoreUuid) -> String {
        self.homes.get(&store).map_or(device, String::as_str).to_owned()
    }

    /// Closes replicas that may be closed, the one used longest ago first, until there is room for `more`.
    fn make_room(&mut self, more: usize) {
        while self.open.len() + more > MAX_OPEN {
            let idle = self.open.iter().filter(|(_, open)| !open.replica.must_stay_open());
            let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(store, _)| *store) else { return };
            self.open.remove(&oldest);
        }
    }

    /// Closes replicas, the one used longest ago first, until the catalogues of the others are within their bound. The one used
    /// last stays, whatever it is.
    fn shed_catalogs(&mut self) {
        while self.open.len() > 1 && self.catalog_bytes() > self.max_catalog_bytes {
            let idle = self.open.iter().filter(|(_, open)| open.used < self.uses && !open.replica.must_stay_open());
            let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(store, _)| *store) else { return };
            self.open.remove(&oldest);
        }
    }

    fn index(&mut self, device: String) -> Result<(), FleetError> {
        let own = self.data.join(&device);
        let mut stores = BTreeSet::new();
        for name in names(&own)? {
            let Some(store) = name.strip_suffix(".db").and_then(|stem| StoreUuid::parse_str(stem).ok()) else {
                continue;
            };
            let kind = fs::symlink_metadata(own.join(&name)).map_err(|cause| folder(&own, cause))?.file_type();
            if kind.is_file() {
                if let Some(other) = self.homes.insert(store, device.clone()) {
                    log::warn!("shelf: store {store} lies in the folders of {other} and {device}; the second is used");
                }
            }
            stores.insert(store);
        }
        self.brought.insert(device, stores);
        Ok(())
    }

    fn path(&self, device: &str, store: StoreUuid) -> PathBuf {
        self.data.join(device).join(file_name(store))
    }
}

/// Opens or makes the replica of `store` in `folder`, that of the device `home`.
fn open_file(
    folder: &Path,
    home: &str,
    store: StoreUuid,
    now: UtcNanos,
) -> Result<(Replica, Option<Notice>), FleetError> {
    let path = folder.join(file_name(store));
    let fresh = !path.exists();
    let opened = match Replica::open(&path, store, home, now) {
        Err(StoreError::Damaged { what }) => {
            log::error!("replica: {what}");
            let aside = set_aside(&path)?;
            let replica = Replica::open(&path, store, home, now)?;
            (replica, Some(Notice::SetAside { store, path: aside }))
        }
        other => (other?, None),
    };
    if fresh || opened.1.is_some() {
        fsync(folder)?;
    }
    Ok(opened)
}

fn file_name(store: StoreUuid) -> String {
    format!("{store}.db")
}

fn names(path: &Path) -> Result<Vec<String>, FleetError> {
    let fail = |cause| folder(path, cause);
    let mut names = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(fail)? {
            names.extend(entry.map_err(fail)?.file_name().into_string());
        }
    }
    Ok(names)
}

/// Renames the file and what belongs to it: a `-wal` left beside a new database would ruin it.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, FleetError> {
    let free = (1..10_000).map(|n| beside(path, &format!(".damaged-{n}"))).find(|aside| !aside.exists());
    let Some(aside) = free else {
        return Err(FleetError::Config(format!(
            "{}: too many damaged files beside it; move them away",
            path.display()
        )));
    };
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(path, suffix);
        if from.exists() {
            fs::rename(&from, beside(&aside, suffix)).map_err(|cause| folder(&from, cause))?;
        }
    }
    Ok(aside)
}

fn fsync(path: &Path) -> Result<(), FleetError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|cause| folder(path, cause))
}

fn folder(path: &Path, cause: std::io::Error) -> FleetError {
    FleetError::Folder { path: path.to_owned(), cause }
}
