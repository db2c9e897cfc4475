//! A file whose first character is a level, watched by a thread of its own.
//!
//! What enters: the file, and how often it is looked at. What leaves: its level, then each change. Between two looks the thread
//! sleeps in poll(2): a sysfs file whose driver calls `sysfs_notify` wakes it (POLLPRI, sysfs.rst), any other is looked at when
//! the time is over. The file is opened for each look, so that one that was replaced, or whose device came back, is read too.

use super::{InputError, Seen};
use crate::config::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smol::channel::{Receiver, Sender, bounded};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Changes that may wait; a thread that finds it full waits.
const CHANGES: usize = 8;

/// A file is opened, read and closed; `std` puts its path on the stack.
const STACK_BYTES: usize = 64 << 10;

/// A file that is watched. Its thread ends when this is dropped, at its next look.
#[derive(Debug)]
pub struct Watched {
    changes: Receiver<Result<Seen, InputError>>,
}

impl Watched {
    /// Begins to watch the file.
    pub(super) fn start(path: PathBuf, active: Level, every: Duration) -> Result<Self, InputError> {
        let (out, changes) = bounded(CHANGES);
        let body = move || watch(&path, active, every, &out);
        let thread = std::thread::Builder::new().name("power-fail".into()).stack_size(STACK_BYTES);
        thread.spawn(body).map_err(|cause| InputError::Thread { cause })?;
        Ok(Self { changes })
    }

    pub(super) async fn next(&mut self) -> Result<Seen, InputError> {
        match self.changes.recv().await {
            Ok(change) => change,
            // It says why before it ends, unless it panicked.
            Err(_) => Err(InputError::Thread { cause: io::Error::other("it has ended") }),
        }
    }
}

/// Until the file can't be read twice in a row, or nobody listens. Once is no failure: who writes a file anew leaves it empty for a
/// moment.
fn watch(path: &Path, active: Level, every: Duration, out: &Sender<Result<Seen, InputError>>) {
    let (mut known, mut failed, mut woken) = (None, false, false);
    loop {
        match read(path) {
            Ok((level, file)) => {
                failed = false;
                if known == Some(level) {
                    // What cries without having changed isn't believed again before its time.
                    if woken {
                        std::thread::sleep(every);
                    }
                } else {
                    known = Some(level);
                    let active = level == active;
                    if out.send_blocking(Ok(Seen { active, was_active: active })).is_err() {
                        return;
                    }
                }
                woken = wait(&file, every);
            }
            Err(why) if failed => {
                let _ = out.send_blocking(Err(why));
                return;
            }
            Err(_) => {
                (failed, woken) = (true, false);
                std::thread::sleep(every);
            }
        }
        if out.is_closed() {
            return;
        }
    }
}

/// The level that the file says, and the file as it was read.
pub(super) fn read(path: &Path) -> Result<(Level, File), InputError> {
    let failed = |cause| InputError::File { path: path.to_owned(), cause };
    // Lest a pipe without a writer keeps us.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut begin = [0; 16];
    let n = file.read(&mut begin).map_err(failed)?;
    match begin[0] {
        b'0' if n > 0 => Ok((Level::Low, file)),
        b'1'..=b'9' if n > 0 => Ok((Level::High, file)),
        _ => {
            let text = String::from_utf8_lossy(&begin[..n]).trim_end().to_owned();
            Err(InputError::Content { path: path.to_owned(), text })
        }
    }
}

/// Sleeps for `every`; true where the file woke us before.
fn wait(file: &File, every: Duration) -> bool {
    let mut asked = [PollFd::new(file, PollFlags::PRI)];
    let timeout = Timespec::try_from(every).unwrap_or_default();
    // An interruption is as good as a change: both end in a look.
    poll(&mut asked, Some(&timeout)) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    const EVERY: Duration = Duration::from_millis(10);

    fn next(file: &mut Watched) -> Result<bool, String> {
        smol::block_on(file.next()).map(|seen| seen.active).map_err(|why| why.to_string())
    }

    /// The level is told as it is found, then at each change: of a file that is written, and of one that takes its place.
    #[test]
    fn a_file_tells_each_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("online"), dir.path().join("other"));
        std::fs::write(&path, "1\n").expect("a file");
        let mut file = Watched::start(path.clone(), Level::Low, EVERY).expect("a thread");
        assert_eq!(next(&mut file), Ok(false));
        std::fs::write(&path, "0\n").expect("a file");
        assert_eq!(next(&mut file), Ok(true));
        std::fs::write(&other, "2\n").and_then(|()| std::fs::rename(&other, &path)).expect("another file");
        assert_eq!(next(&mut file), Ok(false));
        std::fs::remove_file(&path).expect("gone");
        assert!(next(&mut file).is_err_and(|why| why.starts_with("there is no ")));
    }

    /// What is no level is told with what is there; one bad look, as of a file that is being written, is not.
    #[test]
    fn what_is_no_level_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("status");
        for (text, told) in [("Discharging\n", "begins with \"Discharging\""), ("", "begins with \"\""), ("\0", "\\0")]
        {
            std::fs::write(&path, text).expect("a file");
            let why = read(&path).expect_err(text).to_string();
            assert!(why.contains(told) && why.ends_with("write a file that begins with 0 or 1"), "{why}");
        }
        let mut file = Watched::start(path.clone(), Level::High, Duration::from_millis(500)).expect("a thread");
        std::thread::sleep(Duration::from_millis(100));
        std::fs::write(&path, "1").expect("a file");
        assert_eq!(next(&mut file), Ok(true));
    }

    /// What wakes before the time is over is what sysfs_notify sends, and nothing that any file is always ready for. Urgent bytes
    /// of a connection come by the same way.
    #[test]
    fn only_a_notice_wakes_before_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut writer = TcpStream::connect(listener.local_addr().expect("a port")).expect("a connection");
        let file = File::from(OwnedFd::from(listener.accept().expect("a connection").0));
        writer.write_all(b"1").expect("bytes");
        assert!(!wait(&file, Duration::from_millis(50)));
        rustix::net::send(&writer, b"!", rustix::net::SendFlags::OOB).expect("an urgent byte");
        assert!(wait(&file, Duration::from_secs(60)));
    }

    /// A file that cries all the time, such as a pipe whose writer is gone, is looked at no more often than any other.
    #[test]
    fn a_file_that_cries_without_a_change_is_not_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cries");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let open = |read| OpenOptions::new().read(read).write(!read).custom_flags(libc::O_NONBLOCK).open(&path);
        let kept = open(true).expect("a reader");
        open(false).expect("a writer").write_all(&[b'1'; 4096]).expect("bytes");
        let mut file = Watched::start(path.clone(), Level::Low, Duration::from_millis(100)).expect("a thread");
        assert_eq!(next(&mut file), Ok(false));
        std::thread::sleep(Duration::from_millis(500));
        let left = rustix::io::ioctl_fionread(&kept).expect("a count");
        assert!(left > 4096 - 16 * 16, "{left} bytes of 4096 are left");
    }
}
