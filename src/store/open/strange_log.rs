//! A `-wal` that is another database's, before SQLite replays it.
//!
//! SQLite replays whatever log it finds beside a database: nothing in either says that they belong together. A log of another
//! database, left or put there while the service was stopped, overwrites pages of this one, and what was acknowledged is gone
//! without a word. What enters: the path. What leaves: the log under another name, where it is certain that it isn't this
//! database's; nothing of the database has changed then, and it is opened without. It is certain where the mark beside the
//! database is of a store that the database by itself, without any log, knows; where that mark says which log was there; and
//! where no log that began anew from that one could be this one. Everything else is taken for ours: a log that is wrongly set aside
//! would cost commits.
//!
//! What it can't tell: a log of the same database of another time, and a copy of the database beside the newer one's log.

use super::super::disk;
use super::super::error::StoreError;
use super::super::event::{Event, EventKind};
use super::super::high_water::{self, HighWater, Mark};
use super::super::wal_scan::{self, WalScan};
use super::super::{file, ground, quarantine};
use crate::clock::Now;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Sets the log of the database at `path` aside where it is another one's. Where SQLite is about to begin one with salts of
/// its own choice, the mark forgets the one before: else the next start would take that for a strange one.
///
/// # Errors
/// Those of the file system: nothing has changed, and it may be tried again.
pub(super) fn set_aside(path: &Path, page_bytes: u32, now: Now, events: &mut Vec<Event>) -> Result<(), StoreError> {
    if ground::length(path)? == 0 || !disk::exists(&high_water::path_of(path))? {
        return Ok(());
    }
    let mut high = HighWater::open(path)?;
    let Some((mark, known)) = high.mark().zip(high.log()) else { return Ok(()) };
    let header = ground::header(path)?;
    let scan = wal_scan::scan(path, header.map(|header| header.page_bytes))?;
    let strange = scan.log.is_some_and(|log| !log.is_near(known)) && knows(path, mark);
    if strange {
        let aside = quarantine::set_log_aside(path, now)?;
        let detail = format!(
            "the log beside {} is another database's; it is set aside as {}, and the database is opened without",
            path.display(),
            aside.display()
        );
        events.push(Event::new(EventKind::Quarantine, detail));
    }
    let rewritten = header.is_none_or(|header| header.page_bytes != page_bytes);
    if strange || rewritten || !WalScan::is_gone_on_with(&scan) {
        high.forget_log()?;
    }
    Ok(())
}

/// Whether the database by itself knows the store of the mark. One that a cut checkpoint left in pieces may not; its log is ours.
fn knows(path: &Path, mark: Mark) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let known =
        Connection::open_with_flags(file::uri(path, "mode=ro&vfs=unix-none&immutable=1"), flags).and_then(|db| {
            let sql = "SELECT count(*) FROM store WHERE uuid = ?1";
            db.query_row(sql, [mark.store.to_string()], |row| row.get::<_, i64>(0))
        });
    known.is_ok_and(|n| n > 0)
}
