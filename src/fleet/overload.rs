//! When the receiver is overloaded, and whom to ask for silence.
//!
//! What enters: messages as they come, and once a second whether many wait. What leaves: the devices to send
//! [`Request::Pause`](crate::wire::Request::Pause) to. Pure. A device that is asked keeps what it has and goes on recording;
//! the rest are served meanwhile. It is a courtesy and no protection: who ignores it is held back by the broker alone.

use crate::clock::{BootNanos, SECOND};
use std::collections::BTreeMap;

/// A crowd that lasts for so long: the receiver does not keep up.
const CROWDED_NS: i64 = 5 * SECOND;

/// How long the busiest are asked to be silent, and how many of them at a time.
pub const PAUSE_S: u32 = 30;
const BUSIEST: usize = 8;

/// Devices that are counted; what others send is not.
const COUNTED: usize = 4096;

/// See the room.
#[derive(Debug, Default)]
pub struct Overload {
    since: Option<BootNanos>,
    /// Bytes of segments, by device, since the crowd began.
    bytes: BTreeMap<String, u64>,
}

impl Overload {
    /// A segment's frame of `bytes` came from `device`.
    pub fn took(&mut self, device: &str, bytes: usize) {
        if let Some(sum) = self.bytes.get_mut(device) {
            *sum = sum.saturating_add(bytes as u64);
        } else if self.bytes.len() < COUNTED {
            self.bytes.insert(device.to_owned(), bytes as u64);
        }
    }

    /// Whether the waiting room is `crowded` at `now`: whom to ask, if anyone. Then it is waited again to see what comes of it.
    pub fn pauses(&mut self, crowded: bool, now: BootNanos) -> Vec<String> {
        if !crowded {
            (self.since, self.bytes) = (None, BTreeMap::new());
            return Vec::new();
        }
        if now.0 - self.since.get_or_insert(now).0 < CROWDED_NS {
            return Vec::new();
        }
        self.since = Some(now);
        let mut devices: Vec<(String, u64)> = std::mem::take(&mut self.bytes).into_iter().collect();
        devices.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        devices.truncate(BUSIEST);
        devices.into_iter().map(|(device, _)| device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> BootNanos {
        BootNanos(seconds * SECOND)
    }

    /// A crowd that lasts makes the busiest devices be asked, and again if it goes on; one that passes does not.
    #[test]
    fn the_busiest_are_asked_when_a_crowd_lasts() {
        let mut overload = Overload::default();
        let mut second = |now: i64, crowded: bool| {
            (0..20).for_each(|k| overload.took(&format!("d-{k}"), 100 * (k % 10) + k));
            overload.pauses(crowded, at(now))
        };
        assert!((0..5).all(|now| second(now, true).is_empty()));
        assert!(second(5, false).is_empty(), "it passed");
        assert!((6..11).all(|now| second(now, true).is_empty()));
        let asked = second(11, true);
        assert_eq!(asked, ["d-19", "d-9", "d-18", "d-8", "d-17", "d-7", "d-16", "d-6"]);
        assert!((12..16).all(|now| second(now, true).is_empty()));
        assert_eq!(second(16, true).len(), BUSIEST);
    }
}
