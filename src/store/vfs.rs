//! A thin VFS between SQLite and the system's own. It keeps three kinds of bytes off the flash that no promise hangs on.
//!
//! What enters: SQLite's calls (sqlite.org/vfs.html). What leaves: the same calls to the VFS below, but for three things.
//!
//! 1. *The database is said to lie in sectors of 512 bytes*, so that a commit writes the pages that changed and not, each
//!    time, their neighbours in the 4 KiB block (`pagerWriteLargeSector`). The neighbours still have to be in the log
//!    before a checkpoint rewrites their block, in case it turns to garbage on the way: [`super::neighbours`] commits them
//!    once a round instead. The log keeps its sectors of 4,096 bytes, to which each commit is padded.
//! 2. *The end of the padding is held back.* SQLite pads with copies of the last frame, writes the part of the last copy
//!    that lies behind the sync point after the fsync, and the kernel writes that block out half empty before the next
//!    commit fills it. Held here ([`tail`]), it goes out with that next commit. It is part of a copy, of which the first is
//!    on the medium. Other processes would miss it: it is held only while none can read the log.
//! 3. *The index of the log stays in memory of our own while nobody else has it open*: see [`index`].
//!
//! It decides nothing about commits or checkpoints. Only here, in [`index`] and in [`super::raw`] the store has `unsafe`.
#![allow(unsafe_code)]

mod index;
mod tail;
#[cfg(test)]
mod tests;

use index::Index;
use rusqlite::ffi;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use tail::Shared;

/// Bytes of a block that goes to the medium as a whole, and to which SQLite pads the log.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What the database is said to lie in.
const SECTOR_BYTES: c_int = 512;

/// A file control of the database that lets in who waits to read; numbers from 100 on are free for a VFS
/// (sqlite.org/c3ref/file_control.html).
pub(super) const LET_READERS_IN: c_int = 0x7661_7201;

/// The lock that a commit takes, by its place in the index (sqlite.org/walformat.html §2.3).
const WRITE_LOCK: c_int = 0;

/// A lock that can't be let go is tried again so often, for two seconds in all.
const UNLOCK_TRIES: u32 = 200;

/// Between two of these tries.
const UNLOCK_AGAIN: Duration = Duration::from_millis(10);

/// For whom a registered VFS is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The writer; other processes may read.
    Shared,
    /// The writer, and nobody else: SQLite has no index in a file.
    Exclusive,
    /// A reader, which may be in the writer's process.
    Beside,
}

/// The VFS for connections that write the store, by its name; `exclusive` where no other connection will be.
pub(super) fn name(exclusive: bool) -> &'static str {
    register_all();
    #[cfg(test)]
    if super::crash::log::is_between() {
        static CUT: OnceLock<()> = OnceLock::new();
        CUT.get_or_init(|| {
            register(Some(c"recorder"), c"varved-cut", Use::Shared);
            register(Some(c"recorder"), c"varved-exclusive-cut", Use::Exclusive);
        });
        return if exclusive { "varved-exclusive-cut" } else { "varved-cut" };
    }
    if exclusive { "varved-exclusive" } else { "varved" }
}

/// The VFS for connections that read a store, by its name. In another process than the writer's any other does as well.
pub(super) fn reader() -> &'static str {
    register_all();
    #[cfg(test)]
    if super::crash::files::in_memory() {
        static CUT: OnceLock<()> = OnceLock::new();
        CUT.get_or_init(|| register(Some(c"recorder"), c"varved-beside-cut", Use::Beside));
        return "varved-beside-cut";
    }
    "varved-beside"
}

fn register_all() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        register(None, c"varved", Use::Shared);
        register(None, c"varved-exclusive", Use::Exclusive);
        register(None, c"varved-beside", Use::Beside);
    });
}

/// What a registered VFS stands on.
struct Below {
    vfs: *mut ffi::sqlite3_vfs,
    by: Use,
}

/// Registers a VFS called `name` over the one called `base`, or the default.
pub(super) fn register(base: Option<&CStr>, name: &'static CStr, by: Use) {
    // SAFETY: `sqlite3_vfs_find` takes a NUL-terminated name or null and returns a VFS that stays registered for the life of
    // the process (nothing here unregisters one). What is registered is leaked, so it lives as long; it begins as a copy
    // of the one below, so every field is valid, and the methods put in its place have the signatures of SQLite's header.
    unsafe {
        let below = ffi::sqlite3_vfs_find(base.map_or(std::ptr::null(), CStr::as_ptr));
        assert!(!below.is_null(), "SQLite has a default VFS on every system that varved is built for");
        let mut vfs = *below;
        vfs.zName = name.as_ptr();
        vfs.pNext = std::ptr::null_mut();
        vfs.pAppData = Box::into_raw(Box::new(Below { vfs: below, by })).cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        vfs.xRandomness = Some(randomness);
        let code = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0);
        assert_eq!(code, ffi::SQLITE_OK, "registering a VFS fails only where SQLite can't start");
    }
}

/// SAFETY for callers: `vfs` is one that [`register`] made.
unsafe fn below<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Below {
    // SAFETY: `pAppData` was set by `register` to a leaked `Below`, and nobody changes it.
    unsafe { &*(*vfs).pAppData.cast::<Below>() }
}

/// Calls a method of the VFS below; SQLite's header has these as always there.
macro_rules! pass_on {
    ($vfs:ident . $method:ident ( $($argument:expr),* )) => {{
        // SAFETY: SQLite calls this with the VFS that `register` made and arguments that are good for the same method of
        // the VFS below, which gets its own `sqlite3_vfs`.
        unsafe {
            let below = below($vfs).vfs;
            (*below).$method.map_or(ffi::SQLITE_ERROR, |method| method(below, $($argument),*))
        }
    }};
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    pass_on!(vfs.xDelete(name, sync))
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    pass_on!(vfs.xAccess(name, flags, out))
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    pass_on!(vfs.xFullPathname(name, length, out))
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, length: c_int, out: *mut c_char) -> c_int {
    pass_on!(vfs.xRandomness(length, out))
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let code = pass_on!(vfs.xOpen(name, file, flags, out));
    // SAFETY: the VFS below has filled `file`, which SQLite owns, and set its methods where it opened it. A database or log
    // has a NUL-terminated name. The table put in their place is the first field of a `Database` or `Log` that lives until
    // the file is closed. SQLite opens a log while its database is open, by the same VFS.
    unsafe {
        if code != ffi::SQLITE_OK || (*file).pMethods.is_null() {
            return code;
        }
        let by = below(vfs).by;
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            let path = path_of(name).as_os_str().to_owned();
            let (below, never) = ((*file).pMethods, by != Use::Shared);
            let mut shm = path;
            shm.push("-shm");
            let index = Index::new(shm.into(), never);
            #[cfg(test)]
            let index = if super::crash::files::in_memory() { Index::of_memory(!never) } else { index };
            let own = Database { methods: Database::METHODS(*below), below, index, log: None };
            (*file).pMethods = Box::into_raw(Box::new(own)).cast();
        } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
            let below = (*file).pMethods;
            let db = ffi::sqlite3_database_file_object(name);
            let own = Log { methods: Log::METHODS(*below), below, tail: Shared::of(path_of(name)), db, by };
            (*file).pMethods = Box::into_raw(Box::new(own)).cast();
            database(db).log = Some(file);
        }
    }
    code
}

/// SAFETY for callers: `name` is NUL-terminated and outlives the path.
unsafe fn path_of<'a>(name: *const c_char) -> &'a Path {
    // SAFETY: as above.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// What stands in the place of the methods of an open database.
#[repr(C)]
struct Database {
    /// First, so that a pointer to it is one to the whole.
    methods: ffi::sqlite3_io_methods,
    below: *const ffi::sqlite3_io_methods,
    index: Index,
    /// While it is open.
    log: Option<*mut ffi::sqlite3_file>,
}

/// What stands in the place of the methods of an open log.
#[repr(C)]
struct Log {
    /// First, as above.
    methods: ffi::sqlite3_io_methods,
    below: *const ffi::sqlite3_io_methods,
    tail: Shared,
    db: *mut ffi::sqlite3_file,
    by: Use,
}

impl Database {
    const METHODS: fn(ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods = |below| ffi::sqlite3_io_methods {
        xClose: Some(close_database),
        xSectorSize: Some(sector_size),
        xFileControl: Some(file_control),
        xShmMap: Some(shm_map),
        xShmLock: Some(shm_lock),
        xShmUnmap: Some(shm_unmap),
        ..below
    };

    /// Lets in who waits to read: the log whole, then its index.
    fn let_readers_in(&mut self) -> c_int {
        if !self.index.is_wanted() {
            return ffi::SQLITE_OK;
        }
        self.publish()
    }

    fn publish(&mut self) -> c_int {
        match self.log.map_or(ffi::SQLITE_OK, let_go) {
            ffi::SQLITE_OK => self.index.publish(),
            code => code,
        }
    }
}

impl Log {
    const METHODS: fn(ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods = |below| ffi::sqlite3_io_methods {
        xClose: Some(close_log),
        xRead: Some(read),
        xWrite: Some(write),
        xSync: Some(sync),
        xTruncate: Some(truncate),
        xFileSize: Some(file_size),
        ..below
    };

    /// Whether no other process can be reading the log.
    fn is_alone(&self) -> bool {
        match self.by {
            Use::Exclusive => true,
            // SAFETY: as in `log`: the database is open for as long as its log is.
            Use::Shared => unsafe { database(self.db).index.is_private() },
            Use::Beside => false,
        }
    }
}

/// SAFETY for callers: `file` is a database that [`open`] opened, and SQLite doesn't use one connection's files from two
/// threads at once.
unsafe fn database<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Database {
    // SAFETY: `pMethods` is the pointer that `Box::into_raw` gave, and the box is freed only when the file is closed.
    unsafe { &mut *(*file).pMethods.cast_mut().cast::<Database>() }
}

/// SAFETY for callers: as of [`database`], for a log.
unsafe fn log<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Log {
    // SAFETY: as in `database`.
    unsafe { &mut *(*file).pMethods.cast_mut().cast::<Log>() }
}

/// Calls a method of the file below: `beneath!(kind, file.xMethod(arguments))`.
macro_rules! beneath {
    ($kind:ident, $file:ident . $method:ident ( $($argument:expr),* )) => {{
        // SAFETY: these methods are only reached through the table of a file of this kind; `below` is the table of the VFS
        // below for the same `sqlite3_file`, static or kept by that VFS while the file is open.
        unsafe { (*$kind($file).below).$method.map_or(ffi::SQLITE_IOERR, |method| method($file, $($argument),*)) }
    }};
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn close_database(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `database`; the box is taken back once, and the file below is closed with its own methods in place.
    unsafe {
        let own = Box::from_raw((*file).pMethods.cast_mut().cast::<Database>());
        (*file).pMethods = own.below;
        (*own.below).xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn close_log(file: *mut ffi::sqlite3_file) -> c_int {
    // Of what is held nothing is needed, but a log that ends whole raises no question at the next start.
    let _ = let_go(file);
    // SAFETY: as in `close_database`; the database is still open.
    unsafe {
        let own = Box::from_raw((*file).pMethods.cast_mut().cast::<Log>());
        database(own.db).log = None;
        (*file).pMethods = own.below;
        (*own.below).xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    if op == LET_READERS_IN {
        // SAFETY: as in `database`.
        return unsafe { database(file) }.let_readers_in();
    }
    beneath!(database, file.xFileControl(op, argument))
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    no: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let code = beneath!(database, file.xShmMap(no, bytes, extend, out));
    if code != ffi::SQLITE_OK {
        return code;
    }
    // SAFETY: SQLite passes a place for the address, which the VFS below has filled; the rest as in `database`.
    unsafe { database(file).index.mapped(no as usize, *out, bytes as usize) }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    let (locks, writes) = (flags & ffi::SQLITE_SHM_LOCK != 0, first == WRITE_LOCK);
    if !locks {
        if writes {
            // What was written under the lock must be there for who waits before he may look. Where the medium doesn't take
            // it he waits on, for the lease is still ours; the lock goes all the same, since SQLite takes it for gone.
            // SAFETY: as in `database`.
            let _ = unsafe { database(file) }.let_readers_in();
        }
        return unlock(file, first, count, flags);
    }
    let code = beneath!(database, file.xShmLock(first, count, flags));
    if code != ffi::SQLITE_OK {
        return code;
    }
    // SAFETY: as in `database`.
    let own = unsafe { database(file) };
    let code = own.let_readers_in();
    if code != ffi::SQLITE_OK {
        // SQLite takes a lock that it was refused for one that it hasn't got.
        let unlocks = (flags & !ffi::SQLITE_SHM_LOCK) | ffi::SQLITE_SHM_UNLOCK;
        let _ = unlock(file, first, count, unlocks);
        return code;
    }
    if writes {
        own.index.try_private();
    }
    code
}

/// Lets a lock go. The kernel may lack memory for that (fcntl(2), ENOLCK). SQLite doesn't ask twice, and from then on takes its
/// own lock for that of another program, for as long as the connection lives: so it is asked for again here.
fn unlock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    let mut code = beneath!(database, file.xShmLock(first, count, flags));
    for _ in 0..UNLOCK_TRIES {
        if code == ffi::SQLITE_OK {
            break;
        }
        std::thread::sleep(UNLOCK_AGAIN);
        code = beneath!(database, file.xShmLock(first, count, flags));
    }
    code
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: as in `database`.
    let code = unsafe { database(file) }.publish();
    let done = beneath!(database, file.xShmUnmap(delete));
    // SAFETY: as in `database`.
    unsafe { database(file) }.index.unmapped();
    if code == ffi::SQLITE_OK { done } else { code }
}

/// Writes out what is held of a log.
fn let_go(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `log`.
    let mut tail = unsafe { log(file) }.tail.lock();
    if tail.bytes.is_empty() {
        return ffi::SQLITE_OK;
    }
    let code = beneath!(log, file.xWrite(tail.bytes.as_ptr().cast(), tail.bytes.len() as c_int, tail.at));
    if code == ffi::SQLITE_OK {
        tail.went_out();
    }
    code
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite passes `count` readable bytes; the rest as in `log`.
    let (own, piece) =
        unsafe { (log(file), std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(count).unwrap_or(0))) };
    if own.tail.lock().is_tail(at, piece) && own.is_alone() {
        own.tail.lock().hold(at, piece);
        return ffi::SQLITE_OK;
    }
    match let_go(file) {
        ffi::SQLITE_OK => beneath!(log, file.xWrite(bytes, count, at)),
        code => code,
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, count: c_int, at: i64) -> c_int {
    let code = beneath!(log, file.xRead(into, count, at));
    if code != ffi::SQLITE_OK && code != ffi::SQLITE_IOERR_SHORT_READ {
        return code;
    }
    // SAFETY: SQLite passes `count` writable bytes, all of which the file below has set, with zeros behind its end.
    let (own, out) =
        unsafe { (log(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(count).unwrap_or(0))) };
    // What is held begins where the file ends, if that is before the end of what is asked for.
    if own.tail.lock().overlay(at, out) { ffi::SQLITE_OK } else { code }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // What was written before an fsync is on the medium after it, as ever.
    let code = match let_go(file) {
        ffi::SQLITE_OK => beneath!(log, file.xSync(flags)),
        code => code,
    };
    // SAFETY: as in `log`.
    let mut tail = unsafe { log(file) }.tail.lock();
    match code {
        ffi::SQLITE_OK => tail.synced(),
        _ => tail.failed(),
    }
    code
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    {
        // SAFETY: as in `log`.
        let mut tail = unsafe { log(file) }.tail.lock();
        if length <= tail.at {
            tail.bytes.clear();
        }
    }
    match let_go(file) {
        ffi::SQLITE_OK => beneath!(log, file.xTruncate(length)),
        code => code,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    let code = beneath!(log, file.xFileSize(out));
    // SAFETY: SQLite passes a place for one number, which the file below has filled; the rest as in `log`.
    unsafe {
        if code == ffi::SQLITE_OK {
            *out = (*out).max(log(file).tail.lock().end());
        }
    }
    code
}
