//! The recorder: an SQLite VFS that passes every call on to the one of the system and tells the log what reached a file.
//! With `ram` the only file of the proof with `unsafe`; each block has its proof.
//!
//! What enters: SQLite's calls, or those of another VFS that has this one as its base. What leaves: the same calls, to
//! `unix` or to a directory in memory (`ram`), answered as `unix` answers them, and for each that changed something a line in the log of the thread. Shared
//! memory and locks pass through unseen: neither outlives a power cut. Writing through mmap would not be seen; varved never does.
//! (sqlite.org/vfs.html, sqlite.org/c3ref/io_methods.html)
#![allow(unsafe_code)]

use super::change::Change;
use super::ram::path_of;
use super::{files, log};
use rusqlite::ffi;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

/// What SQLite (or a VFS above) knows it by.
const NAME: &CStr = c"recorder";

/// A file of ours. SQLite allocates `szOsFile` bytes for it: these, and behind them the file of the base.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    /// SQLite keeps it unchanged until the file is closed; null for a temporary file, which no cut outlives.
    path: *const c_char,
    /// The first fsync of a log or journal that may be new fsyncs its directory too (os_unix.c, `UNIXFILE_DIRSYNC`).
    directory_owed: bool,
}

const OWN_BYTES: usize = size_of::<File>().next_multiple_of(16);

/// Makes the VFS known, once per process.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a null name asks for `unix` by the constant; the answer is null or a VFS that lives as long as the
        // process. It is copied while nobody writes to it, and the copy is leaked, so that it lives as long too. Its own
        // functions are given the copy instead of the original: those of os_unix.c look at nothing of it but
        // mxPathname and pAppData, which are the same, and xOpen, which they would be wrong in, is replaced.
        unsafe {
            let base = ffi::sqlite3_vfs_find(c"unix".as_ptr());
            assert!(!base.is_null(), "SQLite has a VFS for this system");
            let mut own = *base;
            own.zName = NAME.as_ptr();
            own.pNext = std::ptr::null_mut();
            own.szOsFile += OWN_BYTES as c_int;
            assert!(
                super::ram::BYTES <= (*base).szOsFile as usize,
                "a file in memory needs no more room than one of unix"
            );
            own.xOpen = Some(open);
            own.xDelete = Some(delete);
            own.xAccess = Some(access);
            own.xFullPathname = Some(full_pathname);
            let code = ffi::sqlite3_vfs_register(Box::leak(Box::new(own)), 0);
            assert_eq!(code, ffi::SQLITE_OK, "registering the recorder");
        }
    });
}

fn unix() -> *mut ffi::sqlite3_vfs {
    // SAFETY: as in `register`; the list of VFSs has its own mutex.
    unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) }
}

fn tell(path: *const c_char, change: impl FnOnce() -> Change) {
    if !path.is_null() {
        // SAFETY: not null; SQLite gives NUL-terminated names and keeps them for as long as this call or the open file.
        log::tell(unsafe { path_of(path) }, change);
    }
}

/// Whether an fsync of it is to fail.
fn fails(path: *const c_char) -> bool {
    // SAFETY: as in `tell`.
    !path.is_null() && log::fsync_fails(unsafe { path_of(path) })
}

fn exists(path: *const c_char) -> bool {
    // SAFETY: as in `tell`; the caller has looked for null.
    files::metadata(unsafe { path_of(path) }).is_ok()
}

/// The base's file behind ours.
///
/// # Safety
/// `file` is one that SQLite allocated with this VFS's `szOsFile`.
unsafe fn base(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` is OWN_BYTES more than what the base asks for, and a multiple of 16 keeps its alignment.
    unsafe { file.cast::<u8>().add(OWN_BYTES).cast() }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let creates = !path.is_null() && flags & ffi::SQLITE_OPEN_CREATE != 0 && !exists(path);
    let logs = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let own = file.cast::<File>();
    // SAFETY: SQLite hands over `szOsFile` zeroed bytes, of which the first are ours and the rest the base's. A null
    // method table says that the file is not open, as SQLite wants after a failure. The base's table is valid when its
    // open succeeded.
    unsafe {
        own.write(File { methods: std::ptr::null(), path, directory_owed: false });
        let code = match super::ram::open(path, base(file), flags, out) {
            Some(code) => code,
            None => {
                let unix = unix();
                let Some(xopen) = (*unix).xOpen else { return ffi::SQLITE_CANTOPEN };
                xopen(unix, path, base(file), flags, out)
            }
        };
        let under = (*base(file)).pMethods;
        if !under.is_null() {
            (*own).methods = if (*under).xShmMap.is_some() { &WITH_SHM } else { &WITHOUT_SHM };
        }
        if code == ffi::SQLITE_OK {
            (*own).directory_owed = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & logs != 0;
            if creates {
                tell(path, || Change::Create);
            }
        }
        code
    }
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, path: *const c_char, directory: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own, passed on to the VFS that they fit.
    let code = unsafe {
        match files::inode(path_of(path)) {
            Some(Ok(_)) => files::remove_file(path_of(path)).map_or(ffi::SQLITE_IOERR_DELETE, |()| ffi::SQLITE_OK),
            Some(Err(_)) => ffi::SQLITE_IOERR_DELETE_NOENT,
            None => {
                let unix = unix();
                let Some(xdelete) = (*unix).xDelete else { return ffi::SQLITE_IOERR_DELETE };
                xdelete(unix, path, directory)
            }
        }
    };
    if code == ffi::SQLITE_OK {
        tell(path, || Change::Remove);
        if directory != 0 {
            tell(path, || Change::FsyncDirectory);
        }
    }
    code
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, path: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: as in `delete`; SQLite passes a place for the answer. As `unix` has it, an empty file doesn't exist.
    unsafe {
        match files::inode(path_of(path)) {
            Some(found) => {
                let asks_for_content = flags == ffi::SQLITE_ACCESS_EXISTS;
                *out = c_int::from(found.is_ok_and(|inode| !asks_for_content || !inode.bytes().is_empty()));
                ffi::SQLITE_OK
            }
            None => {
                let unix = unix();
                (*unix).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| access(unix, path, flags, out))
            }
        }
    }
}

unsafe extern "C" fn full_pathname(_: *mut ffi::sqlite3_vfs, path: *const c_char, n: c_int, out: *mut c_char) -> c_int {
    // SAFETY: as in `delete`; `out` has room for `n` bytes, which are enough where the name with its NUL is no longer.
    unsafe {
        let bytes = CStr::from_ptr(path).to_bytes_with_nul();
        if files::inode(path_of(path)).is_some() && bytes.len() <= n as usize {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
            return ffi::SQLITE_OK;
        }
        let unix = unix();
        (*unix).xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |whole| whole(unix, path, n, out))
    }
}

/// A method that only passes on.
macro_rules! pass {
    ($name:ident, $method:ident $(, $arg:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $arg: $type)*) -> c_int {
            // SAFETY: SQLite calls methods only on files that are open; then the base's table is valid, and the arguments
            // are SQLite's own.
            unsafe {
                let file = base(file);
                match (*(*file).pMethods).$method {
                    Some(method) => method(file $(, $arg)*),
                    None => ffi::SQLITE_NOTFOUND,
                }
            }
        }
    };
}

pass!(pass_close, xClose);
pass!(read, xRead, to: *mut c_void, n: c_int, at: i64);
pass!(pass_write, xWrite, from: *const c_void, n: c_int, at: i64);
pass!(pass_truncate, xTruncate, length: i64);
pass!(pass_sync, xSync, flags: c_int);
pass!(file_size, xFileSize, out: *mut i64);
pass!(lock, xLock, level: c_int);
pass!(unlock, xUnlock, level: c_int);
pass!(check_reserved_lock, xCheckReservedLock, out: *mut c_int);
pass!(file_control, xFileControl, op: c_int, argument: *mut c_void);
pass!(sector_size, xSectorSize);
pass!(device_characteristics, xDeviceCharacteristics);
pass!(shm_map, xShmMap, region: c_int, bytes: c_int, extend: c_int, out: *mut *mut c_void);
pass!(shm_lock, xShmLock, offset: c_int, n: c_int, flags: c_int);
pass!(shm_unmap, xShmUnmap, delete: c_int);
pass!(fetch, xFetch, at: i64, n: c_int, out: *mut *mut c_void);
pass!(unfetch, xUnfetch, at: i64, page: *mut c_void);

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as in `pass`.
    unsafe {
        let file = base(file);
        if let Some(barrier) = (*(*file).pMethods).xShmBarrier {
            barrier(file);
        }
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: passed on as it came; the base closes its part whatever it answers, and ours holds nothing.
    unsafe {
        let code = pass_close(file);
        (*file.cast::<File>()).methods = std::ptr::null();
        code
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: passed on as it came; `from` holds `n` bytes for the time of the call, and the file is one of ours.
    unsafe {
        let code = pass_write(file, from, n, at);
        if code == ffi::SQLITE_OK {
            let bytes = std::slice::from_raw_parts(from.cast::<u8>(), n as usize);
            tell((*file.cast::<File>()).path, || Change::Write { at: at as u64, bytes: bytes.into() });
        }
        code
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: passed on as it came; the file is one of ours.
    unsafe {
        let code = pass_truncate(file, length);
        if code == ffi::SQLITE_OK {
            tell((*file.cast::<File>()).path, || Change::SetLength(length as u64));
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: passed on as it came; the file is one of ours, and SQLite uses it from one thread at a time.
    unsafe {
        if fails((*file.cast::<File>()).path) {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        let code = pass_sync(file, flags);
        let own = file.cast::<File>();
        if code == ffi::SQLITE_OK {
            tell((*own).path, || Change::Fsync);
            if std::mem::take(&mut (*own).directory_owed) {
                tell((*own).path, || Change::FsyncDirectory);
            }
        }
        code
    }
}

const WITH_SHM: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// For files of a base that has none: SQLite reads off the table whether there can be a WAL with other readers.
const WITHOUT_SHM: ffi::sqlite3_io_methods =
    ffi::sqlite3_io_methods { xShmMap: None, xShmLock: None, xShmBarrier: None, xShmUnmap: None, ..WITH_SHM };
