//! The directory of a segment: timelines with their stamps, column heads, chunks. Enough to know what a segment holds
//! without decoding a value.
//!
//! What enters: timelines and heads. What leaves: one coded stream, and back, every count checked against its cap before
//! anything is reserved for it.

use super::coder::{Bit, Coder, Number, Reader, Writer};
use super::columns::Distinct;
use super::numbers::{Model, Role};
use super::{MAX_COLUMNS, MAX_READINGS, SegmentError, Timeline, TimelineClock};
use crate::reading::{BootId, Kind, SeriesId};

/// What the directory says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) series: SeriesId,
    pub(super) timeline: usize,
    pub(super) kind: Kind,
    pub(super) distinct: Distinct,
    /// The length in bytes of the chunk that ends with this column, if one does; 0 for the first chunk, which goes on in
    /// the stream of the directory.
    pub(super) chunk: Option<usize>,
}

/// The whole directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) timelines: Vec<Timeline>,
    pub(super) heads: Vec<Head>,
}

/// Trees of two decisions, by the kind of the column before: most likely the same again.
const KIND_LIKE_THE_LAST: [[Bit; 4]; 4] = {
    let mut trees = [[Bit::EVEN; 4]; 4];
    let mut kind = 0;
    while kind < 4 {
        trees[kind][1] = Bit::likely(kind & 2 != 0);
        trees[kind][2 | kind >> 1] = Bit::likely(kind & 1 != 0);
        kind += 1;
    }
    trees
};

const KINDS: [Kind; 4] = [Kind::Int, Kind::Float, Kind::Bool, Kind::Text];
/// A timeline is looked for in this many before it.
const BASES: usize = 8;
/// A timeline keeps at least one stamp in this many of its base: that bounds the work of a reader.
const KEEP_ONE_IN: usize = 8;
/// A timeline with more stamps that its base lacks is coded by itself.
const MAX_TAIL: usize = 8;

struct DirectoryModel {
    stamps: Model,
    timelines: Number,
    columns: Number,
    clock: Number,
    n: Number,
    base: Number,
    keep: [Bit; 4],
    tail: Number,
    tail_step: Number,
    series: Number,
    timeline: Number,
    same_timeline: Bit,
    kind: [[Bit; 4]; 4],
    chunk_ends: Bit,
    in_first_chunk: bool,
    chunk: Number,
    texts: Number,
}

impl DirectoryModel {
    fn new() -> Self {
        Self {
            stamps: Model::new(),
            timelines: Number::likely(1),
            columns: Number::NEW,
            clock: Number::NEW,
            n: Number::NEW,
            base: Number::likely(0),
            keep: [Bit::EVEN; 4],
            tail: Number::NEW,
            tail_step: Number::NEW,
            series: Number::likely(1),
            timeline: Number::NEW,
            same_timeline: Bit::likely(true),
            kind: KIND_LIKE_THE_LAST,
            chunk_ends: Bit::likely(false),
            in_first_chunk: true,
            chunk: Number::NEW,
            texts: Number::NEW,
        }
    }

    fn clock<C: Coder>(&mut self, coder: &mut C, clock: TimelineClock) -> Option<TimelineClock> {
        let code = match clock {
            TimelineClock::Utc => 0,
            TimelineClock::Boot(boot) => u64::from(boot.0) + 1,
        };
        match self.clock.code(coder, code).checked_sub(1) {
            None => Some(TimelineClock::Utc),
            Some(boot) => u32::try_from(boot).ok().map(|boot| TimelineClock::Boot(BootId(boot))),
        }
    }

    /// One bit for each stamp of the base: whether it is in the timeline too.
    fn keep<C: Coder>(&mut self, coder: &mut C, past: &mut usize, keep: bool) -> bool {
        let keep = coder.bit(&mut self.keep[*past], keep);
        *past = *past << 1 & 3 | usize::from(!keep);
        keep
    }

    fn head<C: Coder>(&mut self, coder: &mut C, before: Option<&Head>, (head, is_last): (Head, bool)) -> Option<Head> {
        let (series_before, timeline_before, kind_before) =
            before.map_or((0, 0, Kind::Int), |b| (b.series.0, b.timeline, b.kind));
        let series = self.series.code(coder, u64::from(head.series.0.wrapping_sub(series_before)));
        let series = u32::try_from(series).ok()?.checked_add(series_before)?;
        let same = coder.bit(&mut self.same_timeline, head.timeline == timeline_before);
        let timeline = if same {
            timeline_before
        } else {
            usize::try_from(self.timeline.code(coder, head.timeline as u64)).ok()?
        };
        let kind = self.kind(coder, kind_before, head.kind);
        let distinct = if kind == Kind::Text { self.distinct(coder, head.distinct)? } else { Distinct::default() };
        let chunk = if !is_last && !coder.bit(&mut self.chunk_ends, head.chunk.is_some()) {
            None
        } else if std::mem::take(&mut self.in_first_chunk) {
            Some(0)
        } else {
            Some(usize::try_from(self.chunk.code(coder, head.chunk.unwrap_or(0) as u64)).ok()?)
        };
        Some(Head { series: SeriesId(series), timeline, kind, distinct, chunk })
    }

    fn kind<C: Coder>(&mut self, coder: &mut C, before: Kind, kind: Kind) -> Kind {
        let (tree, kind) = (&mut self.kind[before as usize], kind as usize);
        let high = usize::from(coder.bit(&mut tree[1], kind & 2 != 0));
        let low = usize::from(coder.bit(&mut tree[2 | high], kind & 1 != 0));
        KINDS[high << 1 | low]
    }

    fn distinct<C: Coder>(&mut self, coder: &mut C, distinct: Distinct) -> Option<Distinct> {
        let texts = usize::try_from(self.texts.code(coder, distinct.texts as u64)).ok()?;
        let bytes = usize::try_from(self.texts.code(coder, distinct.bytes as u64)).ok()?;
        Some(Distinct { texts, bytes })
    }
}

/// Which earlier timeline has the stamps of this one: those marked in `keep`, then the last `tail` of it.
struct Derived {
    base: usize,
    keep: Vec<bool>,
    tail: usize,
}

impl Derived {
    fn find(all: &[Timeline], index: usize) -> Option<Self> {
        let wanted = &all[index];
        let bases = (0..index).rev().filter(|base| all[*base].clock == wanted.clock).take(BASES);
        bases
            .filter_map(|base| Self::of(base, &all[base].stamps, &wanted.stamps))
            .min_by_key(|d| d.tail * 16 + d.skipped())
    }

    fn of(base: usize, stamps: &[i64], wanted: &[i64]) -> Option<Self> {
        let mut left = wanted.iter().peekable();
        let keep: Vec<bool> = stamps.iter().map(|stamp| left.next_if_eq(&stamp).is_some()).collect();
        let tail = left.len();
        (tail <= MAX_TAIL && keeps_enough(wanted.len() - tail, stamps.len())).then_some(Self { base, keep, tail })
    }

    fn skipped(&self) -> usize {
        self.keep.iter().filter(|keep| !**keep).count()
    }
}

impl Directory {
    /// Begins the stream that goes on with the first chunk.
    pub(super) fn write(w: &mut Writer, timelines: &[Timeline], heads: &[Head]) {
        let mut m = DirectoryModel::new();
        m.timelines.code(w, timelines.len() as u64);
        for (index, timeline) in timelines.iter().enumerate() {
            m.clock(w, timeline.clock);
            match Derived::find(timelines, index) {
                Some(derived) => write_derived(&mut m, w, &derived, index, &timeline.stamps),
                None => {
                    m.base.code(w, 0);
                    m.n.code(w, timeline.stamps.len() as u64);
                    m.stamps.code(w, Role::Stamps, &mut timeline.stamps.clone());
                }
            }
        }
        m.columns.code(w, heads.len() as u64);
        let mut before = None;
        for (index, head) in heads.iter().enumerate() {
            m.head(w, before, (*head, index + 1 == heads.len()));
            before = Some(head);
        }
    }

    /// The directory that `r` begins with; the first chunk follows.
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, SegmentError> {
        let mut m = DirectoryModel::new();
        let mut directory = Self::default();
        let count = cap(m.timelines.code(r, 0), MAX_COLUMNS, "more timelines than a segment may hold")?;
        let mut left = MAX_READINGS;
        for _ in 0..count {
            let clock = m.clock(r, TimelineClock::Utc).ok_or(SegmentError::Corrupt("a boot beyond 32 bits"))?;
            let stamps = read_stamps(&mut m, r, &directory.timelines, left)?;
            left -= stamps.len();
            directory.timelines.push(Timeline { clock, stamps });
        }
        directory.read_heads(r, &mut m)?;
        Ok(directory)
    }

    fn read_heads(&mut self, r: &mut Reader<'_>, m: &mut DirectoryModel) -> Result<(), SegmentError> {
        let count = cap(m.columns.code(r, 0), MAX_COLUMNS, "more columns than a segment may hold")?;
        let mut left = MAX_READINGS;
        for index in 0..count {
            let blank =
                Head { series: SeriesId(0), timeline: 0, kind: Kind::Int, distinct: Distinct::default(), chunk: None };
            let head = m
                .head(r, self.heads.last(), (blank, index + 1 == count))
                .ok_or(SegmentError::Corrupt("a column head out of range"))?;
            let timeline =
                self.timelines.get(head.timeline).ok_or(SegmentError::Corrupt("a column without timeline"))?;
            let n = timeline.stamps.len();
            left = left.checked_sub(n).ok_or(SegmentError::Corrupt("more readings than a segment may hold"))?;
            self.heads.push(head);
        }
        Ok(())
    }
}

fn keeps_enough(kept: usize, of: usize) -> bool {
    kept > 0 && kept * KEEP_ONE_IN >= of
}

fn write_derived(m: &mut DirectoryModel, w: &mut Writer, derived: &Derived, index: usize, stamps: &[i64]) {
    m.base.code(w, (index - derived.base) as u64);
    let mut past = 0;
    for keep in &derived.keep {
        m.keep(w, &mut past, *keep);
    }
    m.tail.code(w, derived.tail as u64);
    let kept = stamps.len() - derived.tail;
    for pair in stamps[kept - 1..].windows(2) {
        let difference = pair[1].wrapping_sub(pair[0]);
        // Stamps are nanoseconds, and mostly whole milliseconds.
        let whole = difference % 1_000_000 == 0;
        m.tail.code(w, whole.into());
        m.tail_step.code_signed(w, if whole { difference / 1_000_000 } else { difference });
    }
}

fn read_stamps(
    m: &mut DirectoryModel,
    r: &mut Reader<'_>,
    before: &[Timeline],
    left: usize,
) -> Result<Vec<i64>, SegmentError> {
    const MANY: &str = "more stamps than a segment may hold";
    let back = cap(m.base.code(r, 0), before.len(), "a timeline without its base")?;
    if back == 0 {
        let n = cap(m.n.code(r, 0), left, MANY)?;
        if n == 0 {
            return Err(SegmentError::Corrupt("a timeline without stamps"));
        }
        let mut stamps = vec![0; n];
        m.stamps.code(r, Role::Stamps, &mut stamps);
        return Ok(stamps);
    }
    let mut past = 0;
    let mut stamps = before[before.len() - back].stamps.clone();
    let whole = stamps.len();
    stamps.retain(|_| m.keep(r, &mut past, false));
    if !keeps_enough(stamps.len(), whole) {
        return Err(SegmentError::Corrupt("a timeline that keeps too little of its base"));
    }
    let tail = cap(m.tail.code(r, 0), MAX_TAIL, "a timeline that is not like its base")?;
    for _ in 0..tail {
        let whole = m.tail.code(r, 0) == 1;
        let difference = m.tail_step.code_signed(r, 0);
        let difference = if whole { difference.wrapping_mul(1_000_000) } else { difference };
        let last = stamps.last().copied().unwrap_or(0);
        stamps.push(last.wrapping_add(difference));
    }
    if stamps.len() > left {
        return Err(SegmentError::Corrupt(MANY));
    }
    Ok(stamps)
}

fn cap(number: u64, most: usize, what: &'static str) -> Result<usize, SegmentError> {
    usize::try_from(number).ok().filter(|number| *number <= most).ok_or(SegmentError::Corrupt(what))
}
