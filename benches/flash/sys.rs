//! The calls that std does not have, and a door in front of `fsync` and `fdatasync`. The only file of this benchmark with
//! `unsafe`; each block has its proof.
//!
//! SQLite as rusqlite bundles it calls `fsync` where it could call `fdatasync`; this package builds it so that it calls
//! `fdatasync` (`.cargo/config.toml`). Both have to be measured in one program, so this program brings its own
//! `fdatasync`: on a thread that asked for [`stock`] it is `fsync`, as in the stock build, and elsewhere what it says.
#![allow(unsafe_code, unreachable_pub)]

use libc::c_int;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

thread_local! {
    static STOCK: Cell<bool> = const { Cell::new(false) };
    static SYNCS: Cell<u64> = const { Cell::new(0) };
}

/// From here on `fdatasync` is `fsync` on this thread, or no longer.
pub(crate) fn stock(yes: bool) {
    STOCK.set(yes);
}

/// `fsync` and `fdatasync` calls through libc of this thread so far.
pub(crate) fn syncs() -> u64 {
    SYNCS.get()
}

/// fdatasync(2), or fsync(2) on a thread that asked for [`stock`].
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    count();
    call(if STOCK.get() { libc::SYS_fsync } else { libc::SYS_fdatasync }, fd)
}

/// fsync(2), counted.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    count();
    call(libc::SYS_fsync, fd)
}

fn count() {
    SYNCS.set(SYNCS.get() + 1);
}

fn call(number: libc::c_long, fd: c_int) -> c_int {
    // SAFETY: both calls take one file descriptor and touch no memory of ours; a bad one is EBADF.
    let done = unsafe { libc::syscall(number, fd) };
    if done == 0 { 0 } else { -1 }
}

/// Writes out the dirty pages of `file` and waits for them; neither metadata nor a flush, which is what the kernel's own
/// writeback does (sync_file_range(2)).
///
/// A file that this process has open is not opened again: that would be a visitor to the store's index, which would first
/// have to be let in.
pub(crate) fn write_back(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = fd.filter(|_| std::fs::read_link(entry.path()).is_ok_and(|link| link == path)) {
            return write_range(fd);
        }
    }
    write_range(File::open(path)?.as_raw_fd())
}

fn write_range(fd: c_int) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call touches no memory of ours; a descriptor that isn't open is EBADF.
    let done = unsafe { libc::sync_file_range(fd, 0, 0, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
