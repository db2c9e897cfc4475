//! The index of the log (`-shm`) in memory of our own, for as long as nobody else wants to read it.
//!
//! SQLite keeps the index in a file that all its users map. Each commit dirties some of its pages, and every 30 s the kernel
//! writes them out: half of all that a commit every 10 s costs, for a file that no crash ever needs. The kernel can tell us
//! when somebody comes: whoever holds a *write lease* on a file (fcntl(2), F_SETLEASE) has it open alone, and an `open` by
//! another process waits, up to `/proc/sys/fs/lease-break-time`, until the lease is given up. So:
//!
//! ```text
//!            a write lock is taken, and nobody else has the -shm open
//!   shared ────────────────────────────────────────────────────────► private: anonymous memory at the same addresses
//!          ◄────────────────────────────────────────────────────────  the header in the file is zeros
//!            somebody opens it (SIGURG): tail written, memory copied into the file, file mapped again, lease given up
//! ```
//! SQLite never notices: its pointers stay. Its locks are taken on the file as ever. Should the kernel break the lease
//! because nobody answered in time, the newcomer finds zeros for a header, which SQLite takes for an index that is still to
//! be made, under the locks that a commit holds; whoever made one by the time we look is right, and ours is dropped.
//!
//! What it promises: before a lock is relied upon, and before a write lock is let go, the lease is looked at. Where there
//! are no leases (NFS, or the file is another user's) the index stays shared.
#![allow(unsafe_code)]

use rusqlite::ffi;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Bytes at the start of the index that say what the log holds: two copies of the header, and the reading marks
/// (sqlite.org/walformat.html §2.1).
const HEADER_BYTES: usize = 136;

/// Lets the lease signal be one whose default is to be ignored: a process that doesn't listen goes on.
const SIGNAL: c_int = libc::SIGURG;

/// fcntl(2), as the kernel numbers it on all targets that varved is built for.
const F_SETSIG: c_int = 10;

/// The index of one open database.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// As the VFS below has mapped them.
    regions: Vec<Region>,
    /// The descriptor that the VFS below has of the file.
    fd: Option<RawFd>,
    private: bool,
    /// There are no leases to be had here.
    never: bool,
}

#[derive(Debug, Clone, Copy)]
struct Region {
    at: *mut c_void,
    bytes: usize,
}

impl Index {
    /// Of the database whose index is at `path`; `never` where it stays as SQLite has it.
    pub(super) fn new(path: PathBuf, never: bool) -> Self {
        Self { path, regions: Vec::new(), fd: None, private: false, never }
    }

    /// Of one that never was in a file: `private` where nobody else is to be thought of.
    #[cfg(test)]
    pub(super) fn of_memory(private: bool) -> Self {
        Self { private, ..Self::new(PathBuf::new(), true) }
    }

    /// Whether nobody else sees it.
    pub(super) fn is_private(&self) -> bool {
        self.private
    }

    /// Region `no` was mapped, or asked for again.
    pub(super) fn mapped(&mut self, no: usize, at: *mut c_void, bytes: usize) -> c_int {
        if at.is_null() || self.regions.get(no).is_some_and(|region| region.at == at) {
            return ffi::SQLITE_OK;
        }
        if no != self.regions.len() {
            // Never seen: regions come one after the other. The index stays shared from here on.
            self.never = true;
            return ffi::SQLITE_OK;
        }
        let region = Region { at, bytes };
        self.regions.push(region);
        if self.private && self.fd.is_some() && !region.detach() { ffi::SQLITE_IOERR_SHMMAP } else { ffi::SQLITE_OK }
    }

    /// Whether somebody waits for the file, or no longer had to.
    pub(super) fn is_wanted(&self) -> bool {
        // SAFETY: asks about a descriptor; one that isn't open is an error, taken for a lease that is gone.
        self.private && self.fd.is_some_and(|fd| unsafe { libc::fcntl(fd, libc::F_GETLEASE) } != libc::F_WRLCK)
    }

    /// Goes private if nobody else has the file open. The caller holds the write lock.
    pub(super) fn try_private(&mut self) {
        if self.private || self.never || self.regions.is_empty() {
            return;
        }
        let Some(fd) = self.descriptor() else { return self.never = true };
        match lease(fd) {
            Err(libc::EAGAIN) => return,
            Err(_) => return self.never = true,
            Ok(()) => {}
        }
        // Addresses stay valid whichever of these fails: what isn't detached is still the file.
        let detached = self.regions.iter().take_while(|region| region.detach()).count();
        if detached < self.regions.len() || !write_at(fd, &[0; HEADER_BYTES], 0) {
            self.never = true;
            (0..detached).for_each(|no| {
                self.attach(fd, no, true);
            });
            release(fd);
            return;
        }
        self.private = true;
    }

    /// Gives the index back to the file, and lets in who waits.
    pub(super) fn publish(&mut self) -> c_int {
        let Some(fd) = self.fd.filter(|_| self.private) else { return ffi::SQLITE_OK };
        // Only where the lease was broken by force can there be another header than our zeros: it is the newer one.
        let ours = read_header(fd) == Some([0; HEADER_BYTES]);
        // The first region holds the header: it comes last.
        let attached = (0..self.regions.len()).rev().all(|no| self.attach(fd, no, ours));
        self.private = !attached;
        if !attached {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        release(fd);
        ffi::SQLITE_OK
    }

    /// The mappings are about to go.
    pub(super) fn unmapped(&mut self) {
        self.regions.clear();
        self.fd = None;
    }

    /// Puts the file at the addresses of region `no`; with what is there now, if `keep`.
    fn attach(&self, fd: RawFd, no: usize, keep: bool) -> bool {
        let Region { at, bytes } = self.regions[no];
        let offset: usize = self.regions[..no].iter().map(|region| region.bytes).sum();
        // SAFETY: `at..at + bytes` is mapped for reading by `detach` or the VFS below, and nobody writes it meanwhile.
        let content = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), bytes) };
        (!keep || write_at(fd, content, offset))
            && map(at, bytes, libc::MAP_SHARED | libc::MAP_FIXED, fd, offset as libc::off_t)
    }

    /// The one open file of this process that is the index.
    fn descriptor(&mut self) -> Option<RawFd> {
        if self.fd.is_none() {
            let open = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
            let found = open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == self.path));
            self.fd = found.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).next();
        }
        self.fd
    }
}

impl Region {
    /// Puts anonymous memory of the same content at its addresses. False where nothing changed.
    fn detach(self) -> bool {
        // SAFETY: the region is mapped for reading and writing, and this thread alone uses the connection.
        let content = unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.bytes) }.to_vec();
        if !map(self.at, self.bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0) {
            return false;
        }
        // SAFETY: as above, and just mapped anew.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast::<u8>(), self.bytes) }.copy_from_slice(&content);
        true
    }
}

/// Maps over `at..at + bytes`, which is a mapping of the index. Where pages are larger than a region (64 KiB) the kernel
/// refuses, and nothing has changed.
fn map(at: *mut c_void, bytes: usize, flags: c_int, fd: RawFd, offset: libc::off_t) -> bool {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: with MAP_FIXED this replaces exactly a region that the VFS below mapped for this connection and unmaps itself
    // at the end; nobody keeps references into it over this call.
    unsafe { libc::mmap(at, bytes, both, flags, fd, offset) == at }
}

/// A write lease on `fd`; the error number where there is none. With a word to this process when somebody opens the file.
fn lease(fd: RawFd) -> Result<(), c_int> {
    // SAFETY: plain numbers go in and out; on a descriptor that isn't open they fail.
    let done = unsafe {
        libc::fcntl(fd, F_SETSIG, SIGNAL) == 0
            && libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) }
}

fn release(fd: RawFd) {
    // SAFETY: as in `lease`. Where the kernel has broken it already there is nothing to give up.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
}

fn write_at(fd: RawFd, bytes: &[u8], at: usize) -> bool {
    // SAFETY: the bytes are readable for their length, and the descriptor is the VFS's below, open while it is mapped.
    unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at as libc::off_t) == bytes.len() as isize }
}

fn read_header(fd: RawFd) -> Option<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    // SAFETY: as in `write_at`, and the bytes are writable.
    let read = unsafe { libc::pread(fd, header.as_mut_ptr().cast(), HEADER_BYTES, 0) };
    (read == HEADER_BYTES as isize).then_some(header)
}
