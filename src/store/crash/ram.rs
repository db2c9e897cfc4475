//! SQLite's side of a directory in memory ([`files`]): the methods of a file there, as `unix` has them for one on a disk.
//!
//! What enters: SQLite's calls for a file that the recorder has opened here. What leaves: the same answers that `unix` gives:
//! contents, lengths, the locks of a database, its shared index with the locks of that. Each connection is told from the
//! others, so that two in one process keep out of each other's way as two processes do. An fsync has nothing to do.
//! (sqlite.org/c3ref/io_methods.html, sqlite.org/walformat.html §2)
#![allow(unsafe_code)]

use super::files::{self, Inode};
use rusqlite::ffi;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Locks of an index (`SQLITE_SHM_NLOCK`).
const INDEX_LOCKS: usize = 8;

/// What the connections to one database share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The levels of the connections that hold a lock, by connection.
    levels: Vec<(usize, c_int)>,
    /// The index, by regions; words, for it is read as such.
    regions: Vec<Box<[u64]>>,
    /// Connections that have it mapped.
    mapped: usize,
    /// Who holds which of its locks: -1 is one alone, else so many together.
    held: [i32; INDEX_LOCKS],
}

/// What one connection has of a file.
struct Open {
    inode: Arc<Inode>,
    level: c_int,
    mapped: bool,
    alone: [bool; INDEX_LOCKS],
    together: [bool; INDEX_LOCKS],
    keeps_log: bool,
    powersafe: bool,
}

/// As SQLite has it: the methods first.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    open: *mut Open,
}

/// Bytes that SQLite allocates for a file here.
pub(super) const BYTES: usize = size_of::<File>();

/// Opens `path` if it lies in memory; `None` where it doesn't.
///
/// # Safety
/// `file` has room for [`BYTES`], and `path` is a name that SQLite gave to `xOpen`, or null.
pub(super) unsafe fn open(
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> Option<c_int> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and NUL-terminated as all names of SQLite's.
    let name = unsafe { path_of(path) };
    let found = match flags & ffi::SQLITE_OPEN_CREATE != 0 {
        true => Ok(files::make(name)?),
        false => files::inode(name)?,
    };
    let Ok(inode) = found else { return Some(ffi::SQLITE_CANTOPEN) };
    // SAFETY: the parameters of a URI can be asked for where the name is that of a database; the rest is the caller's word.
    unsafe {
        let powersafe =
            flags & ffi::SQLITE_OPEN_MAIN_DB == 0 || ffi::sqlite3_uri_boolean(path, c"psow".as_ptr(), 1) != 0;
        let open = Open {
            inode,
            level: ffi::SQLITE_LOCK_NONE,
            mapped: false,
            alone: Default::default(),
            together: Default::default(),
            keeps_log: false,
            powersafe,
        };
        file.cast::<File>().write(File { methods: &METHODS, open: Box::into_raw(Box::new(open)) });
        if !out.is_null() {
            *out = flags;
        }
    }
    Some(ffi::SQLITE_OK)
}

/// # Safety
/// `path` is NUL-terminated and outlives what is returned.
pub(super) unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: as above.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// # Safety
/// `file` was opened by [`open`] and not closed; SQLite uses a connection's files from one thread at a time.
unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: `open` put a pointer there that `close` takes back.
    unsafe { &mut *(*file.cast::<File>()).open }
}

impl Open {
    fn who(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    fn shared<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.inode.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn set_level(&mut self, level: c_int) {
        let who = self.who();
        self.shared(|shared| {
            shared.levels.retain(|(other, _)| *other != who);
            if level > ffi::SQLITE_LOCK_NONE {
                shared.levels.push((who, level));
            }
        });
        self.level = level;
    }

    /// The highest level that another connection holds.
    fn others(&self) -> c_int {
        let who = self.who();
        self.shared(|shared| shared.levels.iter().filter(|(other, _)| *other != who).map(|(_, level)| *level).max())
            .unwrap_or(ffi::SQLITE_LOCK_NONE)
    }

    fn unmap(&mut self) {
        if !std::mem::take(&mut self.mapped) {
            return;
        }
        (0..INDEX_LOCKS).for_each(|no| self.release(no));
        self.shared(|shared| {
            shared.mapped -= 1;
            // The next one makes it anew, as `unix` does when nobody has the file open.
            if shared.mapped == 0 {
                shared.regions.clear();
            }
        });
    }

    fn release(&mut self, no: usize) {
        let (alone, together) = (std::mem::take(&mut self.alone[no]), std::mem::take(&mut self.together[no]));
        self.shared(|shared| match (alone, together) {
            (true, _) => shared.held[no] = 0,
            (_, true) => shared.held[no] -= 1,
            _ => {}
        });
    }

    fn take(&mut self, locks: std::ops::Range<usize>, alone: bool) -> c_int {
        let own = |no: usize| if alone { self.alone[no] } else { self.together[no] };
        let wanted: Vec<usize> = locks.filter(|no| !own(*no)).collect();
        let free = |held: i32| if alone { held == 0 } else { held >= 0 };
        let taken = self.shared(|shared| {
            let all = wanted.iter().all(|no| free(shared.held[*no]));
            if all {
                wanted.iter().for_each(|no| shared.held[*no] = if alone { -1 } else { shared.held[*no] + 1 });
            }
            all
        });
        if !taken {
            return ffi::SQLITE_BUSY;
        }
        let held = if alone { &mut self.alone } else { &mut self.together };
        wanted.into_iter().for_each(|no| held[no] = true);
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `of`; the box is taken back once.
    unsafe {
        let mut open = Box::from_raw((*file.cast::<File>()).open);
        open.unmap();
        open.set_level(ffi::SQLITE_LOCK_NONE);
        (*file).pMethods = std::ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite passes `n` writable bytes; the rest as in `of`.
    let (open, to) = unsafe { (of(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), n as usize)) };
    let done = open.inode.read_at(to, at as u64);
    to[done..].fill(0);
    if done == to.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: SQLite passes `n` readable bytes; the rest as in `of`.
    let (open, from) = unsafe { (of(file), std::slice::from_raw_parts(from.cast::<u8>(), n as usize)) };
    open.inode.write_at(from, at as u64);
    ffi::SQLITE_OK
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: as in `of`.
    unsafe { of(file) }.inode.bytes().resize(length as usize, 0);
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes a place for one number; the rest as in `of`.
    unsafe { *out = of(file).inode.bytes().len() as i64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `of`.
    let open = unsafe { of(file) };
    if open.level >= level {
        return ffi::SQLITE_OK;
    }
    let others = open.others();
    let free = match level {
        ffi::SQLITE_LOCK_SHARED => others < ffi::SQLITE_LOCK_PENDING,
        ffi::SQLITE_LOCK_RESERVED => others < ffi::SQLITE_LOCK_RESERVED,
        _ => others == ffi::SQLITE_LOCK_NONE,
    };
    if !free {
        return ffi::SQLITE_BUSY;
    }
    open.set_level(level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `of`.
    let open = unsafe { of(file) };
    if level < open.level {
        open.set_level(level);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a place for one number; the rest as in `of`.
    unsafe {
        let open = of(file);
        *out = c_int::from(open.level.max(open.others()) >= ffi::SQLITE_LOCK_RESERVED);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: as in `of`. The first control has a number of bytes; the others have one int, which says what is to be or,
    // where it is negative, asks.
    unsafe {
        let open = of(file);
        let setting = match op {
            // Nothing is mapped, whatever is asked for.
            ffi::SQLITE_FCNTL_MMAP_SIZE => {
                *argument.cast::<i64>() = 0;
                return ffi::SQLITE_OK;
            }
            ffi::SQLITE_FCNTL_PERSIST_WAL => &mut open.keeps_log,
            ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => &mut open.powersafe,
            _ => return ffi::SQLITE_NOTFOUND,
        };
        let argument = argument.cast::<c_int>();
        match *argument {
            ..0 => *argument = c_int::from(*setting),
            wanted => *setting = wanted != 0,
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `of`.
    let powersafe = unsafe { of(file) }.powersafe;
    ffi::SQLITE_IOCAP_SUBPAGE_READ | if powersafe { ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE } else { 0 }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    no: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: as in `of`; SQLite passes a place for an address. A region stays where it is until nobody has it mapped.
    unsafe {
        let open = of(file);
        let joins = !std::mem::replace(&mut open.mapped, true);
        *out = open.shared(|shared| {
            shared.mapped += usize::from(joins);
            while extend != 0 && shared.regions.len() <= no as usize {
                shared.regions.push(vec![0; bytes as usize / 8].into_boxed_slice());
            }
            shared.regions.get_mut(no as usize).map_or(std::ptr::null_mut(), |region| region.as_mut_ptr().cast())
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: as in `of`.
    let open = unsafe { of(file) };
    let locks = first as usize..(first + n) as usize;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        locks.for_each(|no| open.release(no));
        return ffi::SQLITE_OK;
    }
    open.take(locks, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as in `of`.
    unsafe { of(file) }.unmap();
    ffi::SQLITE_OK
}

unsafe extern "C" fn fetch(_: *mut ffi::sqlite3_file, _: i64, _: c_int, out: *mut *mut c_void) -> c_int {
    // SAFETY: SQLite passes a place for an address; null has it read instead.
    unsafe { *out = std::ptr::null_mut() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn unfetch(_: *mut ffi::sqlite3_file, _: i64, _: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
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
