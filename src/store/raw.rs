//! The calls into SQLite's C API that rusqlite does not wrap. Beside `vfs` the only file of the store with `unsafe`; each block has its
//! proof. Nothing here decides anything.
#![allow(unsafe_code)]

use rusqlite::{Connection, ffi};
use std::ffi::c_int;

/// Whether the `-wal` file stays when the last connection closes (`SQLITE_FCNTL_PERSIST_WAL`). Returns what is in force
/// afterwards.
pub(crate) fn persist_wal(conn: &Connection, keep: bool) -> Result<bool, c_int> {
    file_control(conn, ffi::SQLITE_FCNTL_PERSIST_WAL, c_int::from(keep))?;
    Ok(file_control(conn, ffi::SQLITE_FCNTL_PERSIST_WAL, -1)? == 1)
}

/// Whether the medium is taken to keep the neighbours of a torn write (`SQLITE_FCNTL_POWERSAFE_OVERWRITE`).
pub(crate) fn powersafe_overwrite(conn: &Connection) -> Result<bool, c_int> {
    Ok(file_control(conn, ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1)? == 1)
}

/// A file control of the main database whose argument is one `int`, in and out. For the first two above, −1 asks
/// (sqlite.org/c3ref/c_fcntl_begin_atomic_write.html).
fn file_control(conn: &Connection, op: c_int, value: c_int) -> Result<c_int, c_int> {
    let mut argument = value;
    // SAFETY: the handle is open for as long as `conn` is borrowed, and no other thread uses it: `Connection` is not
    // Sync. The name is a NUL-terminated constant. The controls used here take a pointer to one int or none, which outlives
    // the call and is not kept.
    let code = unsafe { ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), op, (&raw mut argument).cast()) };
    if code == ffi::SQLITE_OK { Ok(argument) } else { Err(code) }
}

/// Lets in processes that wait to read the live file; see `store/vfs/index.rs`.
pub(crate) fn let_readers_in(conn: &Connection) -> Result<(), c_int> {
    file_control(conn, super::vfs::LET_READERS_IN, 0).map(drop)
}

/// Fills `into` with what the `-wal` holds from `at` on, as this connection sees it.
pub(crate) fn read_log(conn: &Connection, at: u64, into: &mut [u8]) -> Result<(), c_int> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let op = ffi::SQLITE_FCNTL_JOURNAL_POINTER;
    // SAFETY: as in `file_control`; this control fills in a pointer to the connection's open log, which stays open while
    // `conn` is borrowed, for no statement runs on it meanwhile. Its methods are set once it is open, and `into` is as long
    // as is said.
    unsafe {
        let code = ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), op, (&raw mut file).cast());
        if code != ffi::SQLITE_OK || file.is_null() || (*file).pMethods.is_null() {
            return Err(if code == ffi::SQLITE_OK { ffi::SQLITE_NOTFOUND } else { code });
        }
        let count = c_int::try_from(into.len()).map_err(|_| ffi::SQLITE_TOOBIG)?;
        let read = (*(*file).pMethods).xRead.ok_or(ffi::SQLITE_NOTFOUND)?;
        match read(file, into.as_mut_ptr().cast(), count, at as i64) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }
}
