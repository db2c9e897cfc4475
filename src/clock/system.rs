//! The one file that asks the system for the time, and whether the time is to be believed.

use super::{BootNanos, Clock, Now, SECOND, UtcNanos};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::path::{Path, PathBuf};

/// systemd-timesyncd and chrony's systemd glue touch this file once the clock is synchronised
/// (`systemd-timesyncd.service(8)`).
const SYNCHRONISED_MARK: &str = "run/systemd/timesync/synchronized";

/// `status` bit of `adjtimex(2)`: the clock is not synchronised.
const STA_UNSYNC: i32 = 0x0040;

/// CLOCK_BOOTTIME and CLOCK_REALTIME of this machine.
#[derive(Debug, Clone)]
pub struct SystemClock {
    mark: PathBuf,
}

impl SystemClock {
    /// The system's clocks; `root` is where `/run` is looked for.
    pub fn new(root: &Path) -> Self {
        Self { mark: root.join(SYNCHRONISED_MARK) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // Boottime on both sides of UTC: a preemption between the calls can't shift the pair by more than half of itself.
        let before = nanos(clock_gettime(ClockId::Boottime));
        let utc = nanos(clock_gettime(ClockId::Realtime));
        let after = nanos(clock_gettime(ClockId::Boottime));
        let trusted = self.mark.exists() || kernel_is_synchronised();
        Now { boot: BootNanos(before + (after - before) / 2), utc: UtcNanos(utc), trusted }
    }

    fn boot(&self) -> BootNanos {
        BootNanos(nanos(clock_gettime(ClockId::Boottime)))
    }
}

fn nanos(at: Timespec) -> i64 {
    at.tv_sec.saturating_mul(SECOND).saturating_add(at.tv_nsec)
}

/// Asks `adjtimex(2)`, read-only (`modes` = 0), for the state that NTP daemons keep in the kernel.
#[allow(unsafe_code)]
fn kernel_is_synchronised() -> bool {
    // SAFETY: `timex` is plain integers, for which all zero bytes are a value; adjtimex with `modes` = 0 only writes to the
    // struct it is given, which outlives the call.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex.status)
    };
    // The return value is the clock state; TIME_ERROR (5) means unsynchronised, -1 that the call is not allowed here.
    (0..5).contains(&state) && status & STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boottime goes forward, UTC is after this was written, and the mark of the time daemon is believed.
    #[test]
    fn the_system_is_asked() {
        let root = tempfile::tempdir().expect("a folder");
        let clock = SystemClock::new(root.path());
        let (a, b) = (clock.now(), clock.now());
        assert!(a.boot <= b.boot && a.boot.0 > 0);
        assert!(a.utc.0 > 1_790_000_000 * SECOND);
        let mark = root.path().join(SYNCHRONISED_MARK);
        std::fs::create_dir_all(mark.parent().expect("a parent"))
            .and_then(|()| std::fs::write(&mark, ""))
            .expect("a mark");
        assert!(clock.now().trusted);
    }
}
