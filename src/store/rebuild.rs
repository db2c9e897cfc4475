//! Another page size for a file that exists. In WAL mode a page size is for ever, so the file is written anew.
//!
//! What enters: the path and the page size that this version writes. What leaves: the same content in a file with those
//! pages. Safe at every point: first the log is folded into the old file, which is then whole by itself; the new
//! file is complete and fsynced before its name replaces the old one. A power cut leaves one or the other. It needs room for
//! both; where there is none, or somebody else has the file open, it stays as it is and is tried at the next start.

use super::disk::{PlainFile, remove, rename};
use super::error::StoreError;
use super::file::{beside, uri};
use super::ground::{Header, sync_directory};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Rewrites the file at `db` if `found` isn't what is wanted. True where it did.
///
/// # Errors
/// Those of SQLite and the file system. The file is as good as before.
pub(crate) fn rebuild(db: &Path, found: Header, page_bytes: u32) -> Result<bool, StoreError> {
    let anew = beside(db, "-rebuild");
    let gone = remove(&anew);
    if found.page_bytes == page_bytes && found.incremental_vacuum {
        return gone.map(|()| false);
    }
    gone?;
    let fail = |e| StoreError::sql("rewrite with another page size", db, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri(db, "psow=0"), flags).map_err(fail)?;
    conn.pragma_update(None, "synchronous", 2).map_err(fail)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(fail)?;
    if mode != "delete" {
        return Err(StoreError::Busy { doing: "rewrite with another page size" });
    }
    conn.pragma_update(None, "page_size", page_bytes).map_err(fail)?;
    conn.pragma_update(None, "auto_vacuum", 2).map_err(fail)?;
    let written = conn.execute("VACUUM INTO ?1", [uri(&anew, "psow=0")]).map_err(fail);
    drop(conn);
    if let Err(e) = written {
        remove(&anew)?;
        return Err(e);
    }
    if let Some(file) = PlainFile::open(&anew)? {
        file.fsync()?;
    }
    rename(&anew, db)?;
    sync_directory(db)?;
    Ok(true)
}

/// Has a file in rollback mode, as a snapshot or a rewrite makes them, be in WAL mode from here on. Under SQLite's own VFS:
/// its rollback journal has to keep what lies in the same block.
///
/// # Errors
/// Those of SQLite. The file is as good as before.
pub(crate) fn into_wal(db: &Path) -> Result<(), StoreError> {
    if super::ground::header(db)?.is_none_or(|header| header.wal) {
        return Ok(());
    }
    let fail = |e| StoreError::sql("begin a log for", db, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri(db, "psow=0"), flags).map_err(fail)?;
    conn.pragma_update(None, "synchronous", 2).map_err(fail)?;
    super::file::to_its_end(&conn, "PRAGMA journal_mode = WAL").map_err(fail)
}
