//! Time: the two clocks of a reading, what is known of their relation, and the only place that asks the system.
//!
//! Readings carry CLOCK_BOOTTIME, which never jumps. UTC is derived, afterwards and again whenever more is known, from
//! *anchors*: moments at which both clocks were read together. See [`timebase`] for that derivation, [`keeper`] for when
//! an anchor is worth keeping, [`civil`] for ISO 8601.

pub mod civil;
pub mod keeper;
pub mod system;
pub mod timebase;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Nanoseconds of CLOCK_BOOTTIME (`clock_gettime(2)`): since boot, time asleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct BootNanos(pub i64);

/// Nanoseconds since 1970-01-01T00:00:00Z without leap seconds (POSIX time). All of `i64` is valid: 1677-09-21 to
/// 2262-04-11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct UtcNanos(pub i64);

impl fmt::Display for UtcNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&civil::iso8601(*self))
    }
}

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// A reading of both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boot: BootNanos,
    /// CLOCK_REALTIME, whatever it is worth.
    pub utc: UtcNanos,
    /// Whether the system says that `utc` is synchronised.
    pub trusted: bool,
}

/// The source of [`Now`]: the system's in service, a made-up one in tests. Every decision takes a `Now`, never a clock.
pub trait Clock: Send + Sync {
    /// Both clocks at this moment.
    fn now(&self) -> Now;

    /// [`Now::boot`] alone, for who asks often: whether UTC can be trusted takes a look at files.
    fn boot(&self) -> BootNanos {
        self.now().boot
    }
}

/// A moment at which both clocks were known: `boot` of one boot was `utc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_BOOTTIME of that boot.
    pub boot: BootNanos,
    /// UTC at the same moment.
    pub utc: UtcNanos,
    /// True where the wall clock was synchronised then; false for what a clock without proof said.
    pub trusted: bool,
}
