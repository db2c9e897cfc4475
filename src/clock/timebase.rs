//! From boottime to UTC: the best that the anchors of a store allow, at the moment of asking.
//!
//! ```text
//!   UTC ▲            · trusted anchors: interpolate between two, go on at 1 s/s outside them
//!       │      ×───×/
//!       │     /    ·    (the crystal drifts: each stretch has its own slope)
//!       └────┴───┴────► boottime of one boot
//! ```
//!
//! A boot without a trusted anchor is *estimated*: from what an unproven clock said, held between the neighbouring boots,
//! since boots follow each other; and where no clock said anything, right after the boot before.
//! What enters: anchors. What leaves: UTC and its quality. Nothing here is stored: a later anchor corrects every earlier
//! answer without a byte rewritten.

use super::{Anchor, BootNanos, UtcNanos};
use crate::reading::BootId;
use std::collections::BTreeMap;

/// How far a derived UTC can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// From a synchronised clock.
    Ok,
    /// From an unproven clock, or from the order of boots alone.
    Estimated,
}

impl Quality {
    /// The word in the `quality` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Estimated => "estimated",
        }
    }
}

/// What is known of the boots of one store.
#[derive(Debug, Clone, Default)]
pub struct Timebase {
    boots: BTreeMap<BootId, Track>,
}

/// One boot: anchors to compute by (ascending boottime, at least one), and what they are worth.
#[derive(Debug, Clone)]
struct Track {
    anchors: Vec<Anchor>,
    quality: Quality,
}

impl Timebase {
    /// Derives the relation of each boot from its anchors. Order of anchors within a boot does not matter.
    pub fn new(boots: impl IntoIterator<Item = (BootId, Vec<Anchor>)>) -> Self {
        let mut all: BTreeMap<BootId, Track> =
            boots.into_iter().map(|(id, anchors)| (id, Track::new(anchors))).collect();
        order_estimates(&mut all);
        Self { boots: all }
    }

    /// UTC of `at` in `boot`. A boot that is not known is an estimate that begins at 1970.
    pub fn utc(&self, boot: BootId, at: BootNanos) -> (UtcNanos, Quality) {
        match self.boots.get(&boot) {
            Some(track) => (track.utc(at), track.quality),
            None => (UtcNanos(at.0), Quality::Estimated),
        }
    }

    /// Whether any moment in `range` of `boot` has another UTC here than in `other`, or another quality. Both are straight between
    /// their anchors: where all of these and both ends agree, so does what lies between, to the nanosecond of rounding.
    pub fn differs(&self, other: &Self, boot: BootId, range: std::ops::RangeInclusive<BootNanos>) -> bool {
        let anchors = |base: &Self| base.boots.get(&boot).map_or(Vec::new(), |track| track.anchors.clone());
        let corners = anchors(self).into_iter().chain(anchors(other)).map(|anchor| anchor.boot);
        let inside = corners.filter(|at| range.contains(at));
        let mut knots = inside.chain([*range.start(), *range.end()]);
        knots.any(|at| self.utc(boot, at) != other.utc(boot, at))
    }

    /// The earliest and the latest UTC of any moment in `from..=to` of `boot`. Not simply the UTC of both ends: where the
    /// wall clock was stepped back between two anchors, time runs backwards in between.
    pub fn bounds(&self, boot: BootId, from: BootNanos, to: BootNanos) -> (UtcNanos, UtcNanos) {
        let (a, b) = (self.utc(boot, from).0, self.utc(boot, to).0);
        let corners = self.boots.get(&boot).map_or(&[][..], |track| &track.anchors);
        let inside = corners.iter().filter(|c| from <= c.boot && c.boot <= to).map(|c| c.utc);
        inside.fold((a.min(b), a.max(b)), |(low, high), utc| (low.min(utc), high.max(utc)))
    }
}

impl Track {
    fn new(mut anchors: Vec<Anchor>) -> Self {
        let trusted = anchors.iter().any(|a| a.trusted);
        anchors.retain(|a| a.trusted == trusted);
        anchors.sort_by_key(|a| a.boot);
        anchors.dedup_by_key(|a| a.boot);
        if !trusted {
            // An unproven clock that was set by hand says it best last.
            anchors = anchors.last().copied().into_iter().collect();
        }
        Self { anchors, quality: if trusted { Quality::Ok } else { Quality::Estimated } }
    }

    fn utc(&self, at: BootNanos) -> UtcNanos {
        let after = self.anchors.partition_point(|a| a.boot <= at);
        match (after.checked_sub(1).and_then(|i| self.anchors.get(i)), self.anchors.get(after)) {
            (Some(a), Some(b)) => interpolate(a, b, at),
            (Some(a), None) | (None, Some(a)) => offset(a, at),
            (None, None) => UtcNanos(at.0),
        }
    }
}

/// UTC at `at`, at one second a second from `anchor`.
fn offset(anchor: &Anchor, at: BootNanos) -> UtcNanos {
    clamp(i128::from(anchor.utc.0) + i128::from(at.0) - i128::from(anchor.boot.0))
}

/// UTC at `at` on the line through two anchors of ascending boottime.
fn interpolate(a: &Anchor, b: &Anchor, at: BootNanos) -> UtcNanos {
    if let Some(utc) = interpolate_within_64_bits(a, b, at) {
        return utc;
    }
    let run = i128::from(b.boot.0) - i128::from(a.boot.0);
    let rise = i128::from(b.utc.0) - i128::from(a.utc.0);
    clamp(i128::from(a.utc.0) + (i128::from(at.0) - i128::from(a.boot.0)) * rise / run)
}

/// The same for nearly all that is ever asked, without a division of 128 bits: both clocks go on at about the same pace, and
/// what they differ by is a small number. `None` where it is not.
fn interpolate_within_64_bits(a: &Anchor, b: &Anchor, at: BootNanos) -> Option<UtcNanos> {
    let (run, rise) = (b.boot.0.checked_sub(a.boot.0)?, b.utc.0.checked_sub(a.utc.0)?);
    let since = at.0.checked_sub(a.boot.0).filter(|since| *since >= 0 && rise >= 0)?;
    // since × rise / run = since + since × (rise − run) / run, and rounding down commutes with whole numbers.
    let differ = since.checked_mul(rise.checked_sub(run)?)?.checked_div_euclid(run)?;
    a.utc.0.checked_add(since)?.checked_add(differ).map(UtcNanos)
}

fn clamp(ns: i128) -> UtcNanos {
    UtcNanos(ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

/// Moves each estimated boot behind the latest moment known of the boots before it, and, where a proven boot follows, not
/// past that boot's start: the order of boots is certain even when every clock lies.
fn order_estimates(boots: &mut BTreeMap<BootId, Track>) {
    // From the newest: a boot can't have begun later than the next proven one.
    let mut ceiling = i64::MAX;
    let mut ceilings = BTreeMap::new();
    for (id, track) in boots.iter().rev() {
        ceilings.insert(*id, ceiling);
        if track.quality == Quality::Ok {
            ceiling = ceiling.min(track.utc(BootNanos(0)).0);
        }
    }
    let mut floor = i64::MIN;
    for (id, track) in boots.iter_mut() {
        if track.quality == Quality::Estimated {
            let said = track.anchors.last().copied().unwrap_or(Anchor {
                boot: BootNanos(0),
                utc: UtcNanos(floor.max(0)),
                trusted: false,
            });
            // The clock's word for the moment of its anchor, held between the boots around it.
            let utc =
                said.utc.0.min(ceilings.get(id).copied().unwrap_or(i64::MAX)).max(floor.saturating_add(said.boot.0));
            track.anchors = vec![Anchor { utc: UtcNanos(utc), ..said }];
        }
        let latest = track.anchors.last().map_or(i64::MIN, |a| a.utc.0);
        floor = floor.max(latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    const DAY: i64 = 86_400 * SECOND;
    /// 2026-11-22T00:00:00Z.
    const T: i64 = 20_779 * DAY;

    fn anchor(boot_s: i64, utc: i64, trusted: bool) -> Anchor {
        Anchor { boot: BootNanos(boot_s * SECOND), utc: UtcNanos(utc), trusted }
    }

    fn at(base: &Timebase, boot: u32, second: i64) -> (i64, Quality) {
        let (utc, quality) = base.utc(BootId(boot), BootNanos(second * SECOND));
        (utc.0, quality)
    }

    /// A board without RTC wakes in 1970; once the clock is proven, what was recorded before has its true time.
    #[test]
    fn a_boot_in_1970_is_corrected_from_its_start() {
        let before = Timebase::new([(BootId(1), vec![anchor(1, SECOND, false)])]);
        assert_eq!(at(&before, 1, 5), (5 * SECOND, Quality::Estimated));
        let after = Timebase::new([(BootId(1), vec![anchor(1, SECOND, false), anchor(60, T, true)])]);
        assert_eq!(at(&after, 1, 5), (T - 55 * SECOND, Quality::Ok));
    }

    /// A crystal that loses a second a day: in between, the error is shared out evenly.
    #[test]
    fn drift_is_shared_out_between_anchors() {
        let day = 86_400;
        let base = Timebase::new([(BootId(1), vec![anchor(0, T, true), anchor(day, T + DAY + SECOND, true)])]);
        assert_eq!(at(&base, 1, day / 2).0, T + DAY / 2 + SECOND / 2);
        assert_eq!(
            at(&base, 1, 2 * day).0,
            T + 2 * DAY + SECOND,
            "beyond the last anchor time runs at one second a second"
        );
    }

    /// A step back of the wall clock moves the answers around it and puts no reading out of reach of its bounds.
    #[test]
    fn a_step_back_keeps_every_moment_within_its_bounds() {
        let base = Timebase::new([(
            BootId(1),
            vec![anchor(0, T, true), anchor(100, T + 100 * SECOND, true), anchor(101, T + 41 * SECOND, true)],
        )]);
        let (low, high) = base.bounds(BootId(1), BootNanos(90 * SECOND), BootNanos(110 * SECOND));
        for second in 90..=110 {
            let utc = UtcNanos(at(&base, 1, second).0);
            assert!(low <= utc && utc <= high, "{second}");
        }
        assert_eq!(high.0, T + 100 * SECOND);
    }

    /// Two weeks stale (the RTC's battery): proven later in the same boot, the unproven word does not count at all.
    #[test]
    fn a_stale_clock_does_not_count_beside_a_proven_one() {
        let base = Timebase::new([(BootId(1), vec![anchor(10, T - 14 * DAY, false), anchor(3600, T, true)])]);
        assert_eq!(at(&base, 1, 10), (T - 3590 * SECOND, Quality::Ok));
    }

    /// A boot that was never synchronised lies between its neighbours, whatever its clock said, and says that it is a guess.
    #[test]
    fn a_boot_never_synchronised_lies_between_its_neighbours() {
        let proven = |utc| vec![anchor(100, utc, true)];
        for said in [0, T + 400 * DAY, T - 400 * DAY] {
            let base = Timebase::new([
                (BootId(1), proven(T)),
                (BootId(2), vec![anchor(5, said, false)]),
                (BootId(3), proven(T + DAY)),
            ]);
            let (utc, quality) = at(&base, 2, 10);
            assert_eq!(quality, Quality::Estimated);
            assert!((T..=T + DAY).contains(&utc), "clock said {said}: {utc}");
        }
    }

    /// With no clock at all, boots still follow each other.
    #[test]
    fn boots_without_any_clock_keep_their_order() {
        let base = Timebase::new([(BootId(1), vec![anchor(100, T, true)]), (BootId(2), vec![]), (BootId(3), vec![])]);
        assert!(at(&base, 2, 0).0 >= T);
        assert!(at(&base, 3, 0).0 >= at(&base, 2, 0).0);
        assert_eq!(at(&base, 9, 7), (7 * SECOND, Quality::Estimated), "a boot that nobody knows");
    }

    /// Extremes of the type do not overflow.
    #[test]
    fn extremes_are_held_at_the_ends_of_the_scale() {
        let base = Timebase::new([(BootId(1), vec![anchor(0, i64::MAX, true)])]);
        assert_eq!(base.utc(BootId(1), BootNanos(i64::MAX)).0, UtcNanos(i64::MAX));
        let base = Timebase::new([(
            BootId(1),
            vec![Anchor { boot: BootNanos(i64::MAX), utc: UtcNanos(i64::MIN), trusted: true }],
        )]);
        assert_eq!(base.utc(BootId(1), BootNanos(i64::MIN)).0, UtcNanos(i64::MIN));
    }

    proptest::proptest! {
        /// The short way between two anchors gives what 128 bits give, to the nanosecond.
        #[test]
        fn the_short_way_between_anchors_is_exact(
            boot in -1_000_000_000_000_i64..1_000_000_000_000, run in 1_i64..10_000_000_000_000, drift in -2_000_000_000_i64..2_000_000_000,
            utc in T - DAY..T, at in 0_i64..10_000_000_000_000,
        ) {
            let (a, b) = (boot, boot + run);
            let anchor = |boot, utc| Anchor { boot: BootNanos(boot), utc: UtcNanos(utc), trusted: true };
            let (first, second) = (anchor(a, utc), anchor(b, utc + run + drift));
            let at = BootNanos(a + at % run);
            if let Some(short) = interpolate_within_64_bits(&first, &second, at) {
                let rise = i128::from(run + drift);
                let long = i128::from(utc) + i128::from(at.0 - a) * rise / i128::from(run);
                proptest::prop_assert_eq!(i128::from(short.0), long);
            }
        }
    }
}
