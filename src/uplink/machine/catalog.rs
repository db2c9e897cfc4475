//! When catalogue pages go out, and what is known of their arrival. Pure.
//!
//! What enters: the catalogue's version, the fleet's wish for all of it, acks of what was sent after it. What leaves:
//! when to publish, and whether all. Changed pages go at once, since segments wait for them; the whole goes at once too
//! when the fleet asks, but a fleet that goes on asking gets it no more often than every [`CATALOG_NS`].

use super::CATALOG_NS;
use super::due::Due;
use crate::clock::BootNanos;

/// See the room.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    known: u64,
    published: Option<u64>,
    /// That which is known to have reached the broker: a segment that went out after it was acknowledged. A page that was
    /// taken for publication may have died with its connection.
    arrived: Option<u64>,
    /// Its pages are going out: some may have been taken for publication.
    going_out: bool,
    /// The fleet wants all of it. Its clock runs from the last answer to such a wish and from nothing else: a page that
    /// was published a moment ago may be what the fleet is asking for.
    asked: Due,
    sent: Option<BootNanos>,
}

impl Catalog {
    /// The version that segments are read with.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// The store has this version now.
    pub(super) fn is(&mut self, version: u64) {
        self.known = version;
    }

    /// The fleet asks for all of it.
    pub(super) fn ask(&mut self) {
        self.asked.wanted = true;
    }

    /// When something is to be published, if anything is.
    pub(super) fn when(&self) -> Option<BootNanos> {
        let changed = self.published != Some(self.known);
        changed.then_some(BootNanos(i64::MIN)).or_else(|| self.asked.when(CATALOG_NS))
    }

    /// Whether that is all of it, at `now`, and not only the pages that changed.
    pub(super) fn whole(&self, now: BootNanos) -> bool {
        self.published.is_none() || self.asked.when(CATALOG_NS).is_some_and(|when| when <= now)
    }

    /// Its pages begin to go out.
    pub(super) fn goes_out(&mut self) {
        self.going_out = true;
    }

    /// It went out; whether the fleet had asked for that.
    pub(super) fn published(&mut self, version: u64, all: bool, now: BootNanos) -> bool {
        self.going_out = false;
        (self.published, self.known, self.sent) = (Some(version), version, Some(now));
        let answers = all && self.asked.wanted;
        if answers {
            self.asked.done(now);
        }
        answers
    }

    /// What was sent at `sent` has been acknowledged: whatever went out before it has arrived.
    pub(super) fn acked(&mut self, sent: Option<BootNanos>) {
        if self.sent.is_some() && sent >= self.sent {
            self.arrived = self.published;
        }
    }

    /// The connection is gone: what is not known to have arrived goes out again, also where it broke between two pages. (Those
    /// that had gone out by then were taken for said, and the fleet had to ask for them.)
    pub(super) fn disconnected(&mut self) {
        let between_pages = std::mem::take(&mut self.going_out);
        if between_pages || self.published != self.arrived {
            self.published = None;
        }
    }
}
