//! The store of a board after a power cut: opened by the code that runs there, checked to the last value, written to,
//! closed and opened once more.
//!
//! What enters: the directory that the cut left. What leaves: what the store held, or why that is bad.

use super::super::event::{Event, EventKind};
use super::super::testing::{at, put};
use super::super::{Identity, Store};
use super::change::Change;
use super::held::{Held, held, unaccounted};
use super::medium::Image;
use super::proof::{Known, LOST, Subject, recovered};
use super::{files, log};
use crate::config::StoreConfig;

/// What a store is opened with, and what it may say.
pub(crate) struct Board {
    pub(crate) cfg: StoreConfig,
    pub(crate) me: Identity,
    /// What a recovery may report.
    pub(crate) events: Vec<EventKind>,
    /// A file of a newer format, which nothing may write to: its name and bytes.
    pub(crate) untouched: Option<(String, Vec<u8>)>,
    /// Whether the numbers given are part of what is right. Not where an fsync failed: the transaction that was in flight
    /// then and the one that was written over it can look like two that rotted away, for which numbers are left out.
    pub(crate) numbers: bool,
}

impl Subject for Board {
    fn recover(&self, _: &Image, known: &mut Known) -> Result<[Held; 2], String> {
        let (store, events) = Store::open(&self.cfg, &self.me, at(1_000_000)).map_err(|e| format!("open: {e}"))?;
        unexpected(&events, &self.events)?;
        let dir = self.cfg.path.parent().expect("a directory");
        let content = recovered(dir);
        if let Some(states) = known.of(content) {
            return Ok(states);
        }
        let states = self.go_on(store, known)?;
        known.learn(content, states);
        Ok(states)
    }
}

impl Board {
    fn go_on(&self, mut store: Store, known: &mut Known) -> Result<[Held; 2], String> {
        let verdict: Result<String, _> = store.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        match verdict {
            Ok(verdict) if verdict == "ok" => {}
            other => return Err(format!("integrity_check: {other:?}")),
        }
        let found = held(&store, &mut known.bodies)?;
        if !self.events.contains(&EventKind::Salvage) {
            unaccounted(&store)?;
        }
        if let Some((name, bytes)) = &self.untouched {
            let now = files::read(&self.cfg.path.with_file_name(name)).map_err(|e| format!("{name}: {e}"))?;
            if now != *bytes {
                return Err(format!("{name} was written to"));
            }
        }
        log::mark(Change::Acknowledged(1));
        log::mark(Change::Begun(2));
        put(&mut store, 2, 3, 1_000_000).map_err(|e| format!("commit: {e}"))?;
        log::mark(Change::Acknowledged(2));
        let after = held(&store, &mut known.bodies)?;
        // Where the file is full, room is made for it, and that is told.
        if after.n + after.lost != found.n + found.lost + 6 || after.high != found.high + 1 {
            return Err(format!("a commit made {after:?} of {found:?}"));
        }
        store.close().map_err(|e| format!("close: {e}"))?;
        let (store, events) = Store::open(&self.cfg, &self.me, at(1_000_010)).map_err(|e| format!("reopen: {e}"))?;
        unexpected(&events, &self.events).map_err(|e| format!("reopen: {e}"))?;
        let again = held(&store, &mut known.bodies)?;
        match again == after {
            true if self.numbers => Ok([found, after]),
            true => Ok([found, after].map(|state| Held { high: 0, ..state })),
            false => Err(format!("reopened, it {LOST} {again:?} instead of {after:?}")),
        }
    }
}

fn unexpected(events: &[Event], fine: &[EventKind]) -> Result<(), String> {
    match events.iter().find(|event| !fine.contains(&event.kind)) {
        Some(event) => Err(format!("event {event}")),
        None => Ok(()),
    }
}
