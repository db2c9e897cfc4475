//! A thin VFS between SQLite and the system's own: two lies that save a block each, and what makes them safe.
//!
//! What enters: SQLite's calls (sqlite.org/vfs.html). What leaves: the same calls to the VFS below, but for two.
//!
//! 1. *The database is said to lie in sectors of 512 bytes*, so that a commit writes the pages that changed and not, each
//!    time, their neighbours in the 4 KiB block (`pagerWriteLargeSector`). The neighbours still have to be in the log
//!    before a checkpoint rewrites their block, in case it turns to garbage on the way: [`super::neighbours`] commits them
//!    once a round instead. The log keeps its sectors of 4,096 bytes, to which each commit is padded.
//! 2. *Under exclusive locking the end of the padding is held back.* SQLite pads with copies of the last frame, writes the
//!    part of the last copy that lies behind the sync point after the fsync, and the kernel writes that block out half
//!    empty before the next commit fills it. Held here, it goes out with that next commit. No promise hangs on it: it is
//!    part of a copy, of which the first is on the medium. Other connections would miss it, hence only where there are none.
//!
//! The only other file of the store with `unsafe` is [`super::raw`].
#![allow(unsafe_code)]

use rusqlite::ffi;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// Bytes of a block that goes to the medium as a whole, and to which SQLite pads the log.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What the database is said to lie in.
const SECTOR_BYTES: c_int = 512;

/// The VFS for connections that write the store, by its name; `exclusive` where no other connection will be.
pub(super) fn name(exclusive: bool) -> &'static str {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        register(None, c"varved", false);
        register(None, c"varved-exclusive", true);
    });
    if exclusive { "varved-exclusive" } else { "varved" }
}

/// What a registered VFS stands on.
struct Below {
    vfs: *mut ffi::sqlite3_vfs,
    holds: bool,
}

/// Registers a VFS called `name` over the one called `base`, or the default.
pub(super) fn register(base: Option<&CStr>, name: &'static CStr, holds: bool) {
    // SAFETY: `sqlite3_vfs_find` takes a NUL-terminated name or null and returns a VFS that stays registered for the life of
    // the process (nothing here unregisters one). What is registered is leaked, so it lives as long; it begins as a copy
    // of the one below, so every field is valid, and the methods put in its place have the signatures of SQLite's header.
    unsafe {
        let below = ffi::sqlite3_vfs_find(base.map_or(std::ptr::null(), CStr::as_ptr));
        assert!(!below.is_null(), "SQLite has a default VFS on every system that varved is built for");
        let mut vfs = *below;
        vfs.zName = name.as_ptr();
        vfs.pNext = std::ptr::null_mut();
        vfs.pAppData = Box::into_raw(Box::new(Below { vfs: below, holds })).cast();
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
    // SAFETY: the VFS below has filled `file`, which SQLite owns, and set its methods where it opened it. The table put in
    // their place is the first field of a `File` that lives until `close`.
    unsafe {
        if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            let mut methods = *(*file).pMethods;
            if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
                methods.xSectorSize = Some(sector_size);
                methods.xClose = Some(close);
            } else if flags & ffi::SQLITE_OPEN_WAL != 0 && below(vfs).holds {
                methods.xClose = Some(close);
                methods.xRead = Some(read);
                methods.xWrite = Some(write);
                methods.xSync = Some(sync);
                methods.xTruncate = Some(truncate);
                methods.xFileSize = Some(file_size);
            } else {
                return code;
            }
            let own = File { methods, below: (*file).pMethods, tail: Tail::default() };
            (*file).pMethods = Box::into_raw(Box::new(own)).cast();
        }
    }
    code
}

/// What stands in the place of an open file's methods.
#[repr(C)]
struct File {
    /// First, so that a pointer to it is one to the whole.
    methods: ffi::sqlite3_io_methods,
    below: *const ffi::sqlite3_io_methods,
    tail: Tail,
}

/// SAFETY for callers: `file` was opened by [`open`], which put a [`File`] in the place of its methods, and SQLite doesn't
/// use one file from two threads at once.
unsafe fn own<'a>(file: *mut ffi::sqlite3_file) -> &'a mut File {
    // SAFETY: `pMethods` is the pointer that `Box::into_raw` gave, and the box is freed only in `close`.
    unsafe { &mut *(*file).pMethods.cast_mut().cast::<File>() }
}

/// Calls a method of the file below.
macro_rules! beneath {
    ($file:ident . $method:ident ( $($argument:expr),* )) => {{
        // SAFETY: these methods are only reached through the table of a `File`; `below` is the table of the VFS below for
        // the same `sqlite3_file`, static or kept by that VFS while the file is open.
        unsafe { (*own($file).below).$method.map_or(ffi::SQLITE_IOERR, |method| method($file, $($argument),*)) }
    }};
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // Of what is held nothing is needed, but a log that ends whole raises no question at the next start.
    let _ = let_go(file);
    // SAFETY: as in `own`; the box is taken back once, and the file below is closed with its own methods in place.
    unsafe {
        let own = Box::from_raw((*file).pMethods.cast_mut().cast::<File>());
        (*file).pMethods = own.below;
        (*own.below).xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

/// Writes out what is held.
fn let_go(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `own`; the bytes are not touched while the file below writes them.
    let tail = unsafe { &mut own(file).tail };
    if tail.bytes.is_empty() {
        return ffi::SQLITE_OK;
    }
    let code = beneath!(file.xWrite(tail.bytes.as_ptr().cast(), tail.bytes.len() as c_int, tail.at));
    if code == ffi::SQLITE_OK {
        tail.bytes.clear();
    }
    code
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite passes `count` readable bytes; the rest as in `own`.
    let (tail, piece) = unsafe {
        (&mut own(file).tail, std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(count).unwrap_or(0)))
    };
    if tail.takes(at, piece) {
        return ffi::SQLITE_OK;
    }
    match let_go(file) {
        ffi::SQLITE_OK => beneath!(file.xWrite(bytes, count, at)),
        code => code,
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, count: c_int, at: i64) -> c_int {
    let code = beneath!(file.xRead(into, count, at));
    if code != ffi::SQLITE_OK && code != ffi::SQLITE_IOERR_SHORT_READ {
        return code;
    }
    // SAFETY: SQLite passes `count` writable bytes, all of which the file below has set, with zeros behind its end.
    let (tail, out) = unsafe {
        (&own(file).tail, std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(count).unwrap_or(0)))
    };
    // The tail begins where the file ends, if that is before the end of what is asked for.
    if tail.overlay(at, out) { ffi::SQLITE_OK } else { code }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let code = beneath!(file.xSync(flags));
    // SAFETY: as in `own`.
    unsafe { own(file).tail.synced = code == ffi::SQLITE_OK };
    code
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: as in `own`.
    let tail = unsafe { &mut own(file).tail };
    if length <= tail.at {
        tail.bytes.clear();
    }
    match let_go(file) {
        ffi::SQLITE_OK => beneath!(file.xTruncate(length)),
        code => code,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    let code = beneath!(file.xFileSize(out));
    // SAFETY: SQLite passes a place for one number, which the file below has filled; the rest as in `own`.
    unsafe {
        if code == ffi::SQLITE_OK {
            *out = (*out).max(own(file).tail.end());
        }
    }
    code
}

/// What is held of the log, and how it is known.
#[derive(Default)]
struct Tail {
    at: i64,
    bytes: Vec<u8>,
    /// Where the last write that went through ended.
    written_to: i64,
    /// Whether an fsync came after it.
    synced: bool,
}

impl Tail {
    /// Whether this write is held back: it is the first after an fsync, begins where the last one ended, at the start of a
    /// block, and doesn't fill it. That is the rest of a padding frame, or the header of a next frame, whose page follows.
    fn takes(&mut self, at: i64, piece: &[u8]) -> bool {
        let fresh = self.synced && at == self.written_to && at % BLOCK_BYTES as i64 == 0;
        self.synced = false;
        self.written_to = at + piece.len() as i64;
        if !fresh || !self.bytes.is_empty() || piece.len() as u64 >= BLOCK_BYTES {
            return false;
        }
        self.at = at;
        self.bytes.extend_from_slice(piece);
        true
    }

    fn end(&self) -> i64 {
        if self.bytes.is_empty() { 0 } else { self.at + self.bytes.len() as i64 }
    }

    /// Lays what is held over `out`, which was read from `at` on. Whether that reaches the end of `out`.
    fn overlay(&self, at: i64, out: &mut [u8]) -> bool {
        let end = at + out.len() as i64;
        let (from, to) = (self.at.max(at), self.end().min(end));
        if self.bytes.is_empty() || from >= to {
            return false;
        }
        let place = |n: i64, origin: i64| usize::try_from(n - origin).unwrap_or(0);
        out[place(from, at)..place(to, at)].copy_from_slice(&self.bytes[place(from, self.at)..place(to, self.at)]);
        to == end
    }
}
