//! What an operator should know happened to the file. What enters: an [`Event`]. What leaves: a row in the `event` table,
//! of which the newest [`KEPT`] stay. It isn't a log: nothing that happens in good order is written here.

use super::error::StoreError;
use super::file::execute;
use crate::clock::Now;
use rusqlite::{Connection, params};
use std::fmt;

/// Events that a file keeps.
pub const KEPT: i64 = 1000;

/// What happened. The words are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A store id was taken.
    FreshId,
    /// The file holds less than had been committed before: it was rolled back.
    Rollback,
    /// The WAL is damaged in the middle; committed transactions are lost.
    Rot,
    /// A damaged file was set aside.
    Quarantine,
    /// Segments were taken over from a file that was set aside.
    Salvage,
    /// A file that had been set aside was deleted.
    Discard,
    /// The configured file has a newer format; this one is written instead.
    Newer,
    /// The file was rewritten with another page size.
    Rebuild,
    /// There was no room for what the WAL keeps in reserve.
    NoReserve,
    /// The open file lost its name, and was written anew under it.
    Moved,
}

impl EventKind {
    /// The word in the `event` table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FreshId => "fresh-id",
            Self::Rollback => "rollback",
            Self::Rot => "rot",
            Self::Quarantine => "quarantine",
            Self::Salvage => "salvage",
            Self::Discard => "discard",
            Self::Newer => "newer-format",
            Self::Rebuild => "rebuild",
            Self::NoReserve => "no-reserve",
            Self::Moved => "moved",
        }
    }
}

/// Something that happened to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The particulars, for a person.
    pub detail: String,
}

impl Event {
    pub(crate) fn new(kind: EventKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

/// Writes down `event`; the oldest ones give way.
pub(crate) fn record(conn: &Connection, event: &Event, now: Now) -> Result<(), StoreError> {
    let sql = "INSERT INTO event (utc, kind, detail) VALUES (?1, ?2, ?3)";
    execute(conn, "record an event", sql, params![now.utc.0, event.kind.as_str(), event.detail])?;
    let sql = "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1";
    execute(conn, "record an event", sql, [KEPT]).map(drop)
}
