//! What must hold of a message beyond its types: caps, order, bounds. Checked on the way out and on the way in.
//!
//! What enters: a message, or a list while it is being decoded. What leaves: nothing, or the rule that is broken.

use super::{
    Account, Ack, CatalogPage, FromBoard, FromLaptop, MAX_ANCHORS, MAX_BODY_BYTES, MAX_PAGE_BOOTS, MAX_PAGE_SERIES,
    MAX_PULL_EVENTS, MAX_PULL_RANGES, MAX_PULL_STORES, MAX_PULL_TEXT_BYTES, MAX_RANGES, MAX_STORES, MAX_WORD_BYTES,
    Request, SegmentFrame, SnapshotRequest, State, Stretch, WireError,
};
use crate::reading::{MAX_NAME_BYTES, Scale, SeqRange, SeriesDef};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The rules of a message type.
pub trait Rules {
    /// Whether they hold.
    ///
    /// # Errors
    /// The first that does not.
    fn check(&self) -> Result<(), WireError>;
}

impl Rules for SegmentFrame<'_> {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Whole { range, body, .. } => {
                ascending("range", &[*range])?;
                if body.is_empty() { Err(WireError::Chunk) } else { Ok(()) }
            }
            Self::Chunk { range, offset, total, bytes, .. } => {
                ascending("range", &[*range])?;
                let inside = u64::from(*offset) + bytes.len() as u64 <= u64::from(*total);
                let fits = *total as usize <= MAX_BODY_BYTES;
                if inside && fits && !bytes.is_empty() { Ok(()) } else { Err(WireError::Chunk) }
            }
            Self::Account(account) => account.check(),
        }
    }
}

impl Rules for CatalogPage {
    fn check(&self) -> Result<(), WireError> {
        at_most("series", self.series.len(), MAX_PAGE_SERIES)?;
        at_most("boots", self.boots.len(), MAX_PAGE_BOOTS)?;
        self.boots.iter().try_for_each(|boot| at_most("anchors", boot.anchors.len(), MAX_ANCHORS))?;
        self.series.iter().try_for_each(|(_, def)| definition(def))
    }
}

impl Rules for State {
    fn check(&self) -> Result<(), WireError> {
        at_most("stores", self.stores.len(), MAX_STORES)?;
        if self.version.len() > MAX_WORD_BYTES {
            return Err(WireError::Definition { what: "version text" });
        }
        self.stores.iter().try_for_each(|s| ascending("pending", &s.pending))
    }
}

impl Rules for Ack {
    fn check(&self) -> Result<(), WireError> {
        at_most("stores", self.stores.len(), MAX_STORES)?;
        for store in &self.stores {
            ascending("ranges", &store.ranges)?;
            if store.ranges.first().is_some_and(|r| r.first <= store.cumulative) {
                return Err(WireError::Ranges { what: "ranges above cumulative" });
            }
            ascending("conflicts", &store.conflicts)?;
            if let Some((_, verified)) = &store.verified {
                ascending("verified", verified)?;
            }
        }
        Ok(())
    }
}

impl Rules for Request {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Segments { ranges, .. } => ascending("ranges", ranges),
            Self::Catalog | Self::Pause { .. } => Ok(()),
            Self::Snapshot(request) => request.check(),
        }
    }
}

impl Rules for FromBoard<'_> {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => {
                at_most("stores", hello.stores.len(), MAX_PULL_STORES)?;
                at_most("events", hello.events.len(), MAX_PULL_EVENTS)?;
                let (Ok(health) | Err(health)) = &hello.health;
                let texts = hello.events.iter().all(|event| event.detail.len() <= MAX_PULL_TEXT_BYTES / 64);
                match hello.device.len() <= MAX_WORD_BYTES && health.len() <= MAX_PULL_TEXT_BYTES && texts {
                    true => Ok(()),
                    false => Err(WireError::Definition { what: "text of a hello" }),
                }
            }
            Self::Segment(frame) => frame.check(),
            Self::Unreadable { why, .. } if why.len() > MAX_PULL_TEXT_BYTES => {
                Err(WireError::Definition { what: "text of what is unreadable" })
            }
            Self::Acked { ranges, .. } => ordered("acked", ranges, MAX_PULL_RANGES),
            Self::Page(page) => page.check(),
            Self::Plan { .. } | Self::Unreadable { .. } | Self::End => Ok(()),
        }
    }
}

impl Rules for FromLaptop {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Have { ranges, .. } => ordered("ranges", ranges, MAX_PULL_RANGES),
            Self::Go => Ok(()),
        }
    }
}

impl Account {
    fn check(&self) -> Result<(), WireError> {
        at_most("stores", self.stores.len(), MAX_STORES)?;
        self.stores.iter().try_for_each(|(_, range)| ascending("range", &[*range]))?;
        self.stretch.iter().try_for_each(Stretch::check)
    }
}

impl Stretch {
    fn check(&self) -> Result<(), WireError> {
        ascending("range", &[self.range])?;
        for (what, ranges) in [("readings", &self.readings), ("losses", &self.losses)] {
            ascending(what, ranges)?;
            if !ranges.iter().all(|range| self.range.covers(range)) {
                return Err(WireError::Ranges { what });
            }
        }
        Ok(())
    }
}

impl SnapshotRequest {
    fn check(&self) -> Result<(), WireError> {
        at_most("stores", self.done.len(), MAX_STORES)?;
        self.only.iter().try_for_each(|(_, range)| ascending("range", &[*range]))?;
        self.done.iter().try_for_each(|done| ascending("done", &done.ranges))
    }
}

/// A list of at most `MAX` elements; one more is an error before it is kept. The length that the bytes claim reserves at
/// most `MAX` places.
pub(super) fn capped<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            // Not reserved by the claimed length: one byte may claim a place of a hundred.
            let mut kept = Vec::new();
            while let Some(element) = list.next_element()? {
                if kept.len() == MAX {
                    return Err(A::Error::custom("too many"));
                }
                kept.push(element);
            }
            Ok(kept)
        }
    }

    from.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// [`super::StoreAck::verified`], its list capped.
pub(super) fn verified<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(u64, Vec<SeqRange>)>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Ranges(#[serde(deserialize_with = "capped::<_, _, MAX_RANGES>")] Vec<SeqRange>);

    Ok(Option::<(u64, Ranges)>::deserialize(from)?.map(|(nonce, ranges)| (nonce, ranges.0)))
}

fn at_most(what: &'static str, n: usize, max: usize) -> Result<(), WireError> {
    if n > max { Err(WireError::List { what, max }) } else { Ok(()) }
}

/// At most [`MAX_RANGES`], each begins at 1 or above and is not empty, and each lies wholly above the one before.
fn ascending(what: &'static str, ranges: &[SeqRange]) -> Result<(), WireError> {
    ordered(what, ranges, MAX_RANGES)
}

/// The same of at most `max`.
fn ordered(what: &'static str, ranges: &[SeqRange], max: usize) -> Result<(), WireError> {
    at_most(what, ranges.len(), max)?;
    let whole = ranges.iter().all(|r| r.first.0 >= 1 && r.first <= r.last);
    let ordered = ranges.windows(2).all(|pair| pair[0].last < pair[1].first);
    if whole && ordered { Ok(()) } else { Err(WireError::Ranges { what }) }
}

fn definition(def: &SeriesDef) -> Result<(), WireError> {
    let what = if def.name.is_empty() || def.name.len() > MAX_NAME_BYTES {
        "series name"
    } else if def.unit.len() > MAX_WORD_BYTES {
        "unit"
    } else if Scale::new(def.scale.mantissa, i32::from(def.scale.exponent)) != Some(def.scale) {
        "scale"
    } else {
        return Ok(());
    };
    Err(WireError::Definition { what })
}
