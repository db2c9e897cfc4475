//! Ctrl-C: the first ends the work in hand cleanly, the second ends the process.
//!
//! What enters: SIGINT and SIGTERM. What leaves: a flag that loops look at, and an interrupt of the statement that runs.

use crate::store::query::Interrupter;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Watches for the rest of the process. The flag is set by the first signal.
pub(super) fn watch(interrupter: Interrupter) -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut receiver, sender) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that comes while the flag is set takes the default action, which ends the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    let seen = Arc::clone(&stop);
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if receiver.read(&mut [0]).is_ok() {
            seen.store(true, Ordering::Relaxed);
            interrupter.interrupt();
        }
    })?;
    Ok(stop)
}
