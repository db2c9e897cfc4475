//! One page about a store, for a browser without a network: every series over time, what is missing, how the device is.
//!
//! What enters: an open [`Reader`], on a store, a snapshot or what a pull brought. What leaves: HTML with inline SVG, a few KiB a
//! series whatever the readings. It reads twice: once for the period, once for the values, of which it keeps [`BINS`] a series; so
//! a year takes no more memory than a day. It decides nothing about what is good or bad: it shows gaps, losses and times that are
//! estimates, so that a person sees them.
//!
//! | file | holds |
//! |---|---|
//! | [`summary`] | what is read: bins, gaps, losses |
//! | [`page`] | what is written |

pub mod page;
pub mod summary;

use crate::store::reader::{ReadError, Reader};
use std::io;
use std::sync::atomic::AtomicBool;

/// Columns of a chart: as many as a phone has points.
pub const BINS: usize = 600;

/// The most series that get a chart, by name.
pub const MAX_CHARTS: usize = 500;

/// Writes the page of the store that `reader` has. `health` is what its service says of itself, if it was asked.
///
/// # Errors
/// Those of the file, as the inner result; those of `out` as the outer one.
pub fn write(
    reader: &Reader,
    health: Option<&str>,
    stop: &AtomicBool,
    out: &mut impl io::Write,
) -> io::Result<Result<u64, ReadError>> {
    match summary::Summary::of(reader, health, stop) {
        Ok(summary) => page::write(&summary, out).map(|()| Ok(summary.unreadable)),
        Err(why) => Ok(Err(why)),
    }
}

#[cfg(test)]
mod tests;
