//! What a device has said that its ids mean, since the receiver started.
//!
//! What enters: catalogue pages. What leaves: whether all that a segment cites was stated. Pure; ids in a row are one piece.

use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange, SeriesId};
use crate::segment::View;
use crate::wire::CatalogPage;

/// Ids that a device has stated the meaning of, each plus one, since the receiver started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    series: RangeSet,
    boots: RangeSet,
}

impl Known {
    /// How many pieces it is in; each takes some 32 bytes.
    pub fn pieces(&self) -> usize {
        self.series.len() + self.boots.len()
    }

    /// Adds all that `page` defines.
    pub fn learn(&mut self, page: &CatalogPage) {
        self.series.extend(page.series.iter().map(|(id, _)| place_of(id.0)));
        self.boots.extend(page.boots.iter().map(|boot| place_of(boot.id.0)));
    }

    /// Whether the meaning of this series was stated.
    pub fn has_series(&self, id: SeriesId) -> bool {
        self.series.covers(place_of(id.0))
    }

    /// Whether the meaning of this boot was stated.
    pub fn has_boot(&self, id: BootId) -> bool {
        self.boots.covers(place_of(id.0))
    }

    /// Whether the meaning of all that a segment cites was stated.
    pub fn covers(&self, view: &View) -> bool {
        let (series, boots) = view.cites();
        series.into_iter().all(|id| self.has_series(id)) && boots.into_iter().all(|id| self.has_boot(id))
    }
}

fn place_of(id: u32) -> SeqRange {
    let place = SegmentSeq(u64::from(id) + 1);
    SeqRange { first: place, last: place }
}
