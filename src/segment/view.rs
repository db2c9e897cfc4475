//! The reader's side: a segment whose checksum is right and whose directory is known, column by column on demand.
//!
//! What enters: a body. What leaves: its range, names, bounds and heads at once; the values of a column when they are
//! asked for. Bytes from a disk or the net end up here first: nothing is believed before it is checked.

use super::body::{CHUNKS, LOSS, NAMES, open, take_blob, take_names, take_varint};
use super::coder::{self, Reader};
use super::columns::{ChunkModel, Distinct};
use super::directory::Directory;
use super::{
    Column, Content, Loss, MAX_TEXT_TOTAL_BYTES, Missing, Readings, Segment, SegmentError, Timeline, TimelineClock,
    Values,
};
use crate::clock::{BootNanos, UtcNanos};
use crate::reading::{BootId, Kind, SeqRange, SeriesDef, SeriesId};
use std::cell::Cell;
use std::ops::Range;

/// A column as the directory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnHead {
    /// Whose readings.
    pub series: SeriesId,
    /// Index of its timeline.
    pub timeline: usize,
    /// How many readings.
    pub n: usize,
    /// What its values are.
    pub kind: Kind,
}

/// Where a segment lies in time; each `None` where no stamp is of that clock. For finding, not for computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The lowest boot cited.
    pub boot_min: Option<BootId>,
    /// The highest.
    pub boot_max: Option<BootId>,
    /// The earliest stamp in `boot_min`.
    pub boottime_min: Option<BootNanos>,
    /// The latest stamp in `boot_max`.
    pub boottime_max: Option<BootNanos>,
    /// The earliest stamp that readings brought themselves.
    pub utc_min: Option<UtcNanos>,
    /// The latest.
    pub utc_max: Option<UtcNanos>,
}

/// A segment that is opened and not yet decoded.
#[derive(Debug, Clone)]
pub struct View {
    range: SeqRange,
    loss: Option<Loss>,
    names: Vec<(SeriesId, SeriesDef)>,
    timelines: Vec<Timeline>,
    heads: Vec<ColumnHead>,
    places: Vec<Place>,
    texts: Vec<u8>,
    /// The stream that the directory begins and the first chunk goes on, then all other chunks.
    chunks: Vec<u8>,
    /// Where the first chunk begins.
    first: Option<coder::Place>,
    decoded: Cell<Decoded>,
}

/// How much of a segment was decoded since it was opened, what had to be on the way to another column included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// Columns.
    pub columns: usize,
    /// Values in them, those that are missing included.
    pub values: usize,
}

/// Where a column's bytes are.
#[derive(Debug, Clone)]
struct Place {
    /// In `chunks`.
    chunk: Range<usize>,
    /// The first column of that chunk.
    chunk_begins: usize,
    distinct: Distinct,
    /// In `texts`.
    text: Range<usize>,
}

/// The way through one chunk, whose columns can only be decoded one after the other.
struct Walk<'a> {
    /// The first column of the chunk.
    begins: usize,
    /// The one that comes next.
    next: usize,
    reader: Reader<'a>,
    model: ChunkModel,
}

impl View {
    /// Opens `body`: the checksum, the frame, the directory with all stamps, and the names.
    ///
    /// # Errors
    /// Every [`SegmentError`] but those of [`super::encode`].
    pub fn parse(body: &[u8]) -> Result<Self, SegmentError> {
        let (flags, range, mut rest) = open(body)?;
        let mut view = Self {
            range,
            loss: None,
            names: Vec::new(),
            timelines: Vec::new(),
            heads: Vec::new(),
            places: Vec::new(),
            texts: Vec::new(),
            chunks: Vec::new(),
            first: None,
            decoded: Cell::default(),
        };
        if flags & LOSS != 0 {
            let loss = postcard::from_bytes(rest).map_err(|_| SegmentError::Corrupt("a loss of an unknown kind"))?;
            view.loss = Some(loss);
            return Ok(view);
        }
        let mut blob = take_blob(flags, &mut rest)?;
        let length = if flags & CHUNKS == 0 { rest.len() as u64 } else { take_varint(&mut rest)? };
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let first = &rest[..length.ok_or(SegmentError::Corrupt("a directory that is cut short"))?];
        let mut reader = Reader::new(first);
        let directory = Directory::read(&mut reader)?;
        view.first = Some(reader.place(first));
        view.chunks = rest.to_vec();
        view.set_heads(&directory);
        if flags & NAMES != 0 {
            let mut cited: Vec<_> = view.heads.iter().map(|head| (head.series, head.kind)).collect();
            cited.dedup();
            let taken;
            (view.names, taken) = take_names(&blob, &cited)?;
            blob.drain(..taken);
        }
        view.texts = blob;
        view.timelines = directory.timelines;
        view.set_places(&directory.heads, first.len())?;
        Ok(view)
    }

    fn set_heads(&mut self, directory: &Directory) {
        let head = |head: &super::directory::Head| ColumnHead {
            series: head.series,
            timeline: head.timeline,
            n: directory.timelines[head.timeline].stamps.len(),
            kind: head.kind,
        };
        self.heads = directory.heads.iter().map(head).collect();
    }

    fn set_places(&mut self, heads: &[super::directory::Head], first: usize) -> Result<(), SegmentError> {
        let (mut chunk_at, mut chunk_begins, mut text_at) = (0_usize, 0, 0_usize);
        for (index, head) in heads.iter().enumerate() {
            let text_end = text_at.checked_add(head.distinct.bytes).filter(|end| *end <= self.texts.len());
            let text_end = text_end.ok_or(SegmentError::Corrupt("texts beyond the blob"))?;
            self.places.push(Place {
                chunk: chunk_at..chunk_at,
                chunk_begins,
                distinct: head.distinct,
                text: text_at..text_end,
            });
            text_at = text_end;
            let Some(length) = head.chunk else { continue };
            let length = if chunk_begins == 0 { first } else { length };
            let end = chunk_at.checked_add(length).filter(|end| *end <= self.chunks.len());
            let end = end.ok_or(SegmentError::Corrupt("a chunk beyond the end"))?;
            self.places[chunk_begins..].iter_mut().for_each(|place| place.chunk.end = end);
            (chunk_at, chunk_begins) = (end, index + 1);
        }
        let chunk_at = if heads.is_empty() { first } else { chunk_at };
        if chunk_begins != heads.len() || chunk_at != self.chunks.len() || text_at != self.texts.len() {
            return Err(SegmentError::Corrupt("bytes that belong to no column"));
        }
        Ok(())
    }

    /// Its identity within its store.
    pub fn range(&self) -> SeqRange {
        self.range
    }

    /// Whether it is an account of readings that are no more.
    pub fn is_loss(&self) -> bool {
        self.loss.is_some()
    }

    /// That account.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// How many readings it holds.
    pub fn n(&self) -> usize {
        self.heads.iter().map(|head| head.n).sum()
    }

    /// The definitions of its series by ascending id, or empty where it only cites ids.
    pub fn names(&self) -> &[(SeriesId, SeriesDef)] {
        &self.names
    }

    /// The ids and boots that it cites, ascending, each once. A loss cites the boots of its period.
    pub fn cites(&self) -> (Vec<SeriesId>, Vec<BootId>) {
        let mut series: Vec<SeriesId> = self.heads.iter().map(|head| head.series).collect();
        series.dedup();
        let of_timelines = self.timelines.iter().filter_map(|timeline| match timeline.clock {
            TimelineClock::Boot(boot) => Some(boot),
            TimelineClock::Utc => None,
        });
        let of_loss = self.loss.iter().flat_map(|loss| [loss.from, loss.to]).flatten().map(|(boot, _)| boot);
        let mut boots: Vec<BootId> = of_timelines.chain(of_loss).collect();
        boots.sort_unstable();
        boots.dedup();
        (series, boots)
    }

    /// Where it lies in time.
    pub fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        if let Some(loss) = &self.loss {
            for (boot, at) in [loss.from, loss.to].into_iter().flatten() {
                bounds.take_boot(boot, at.0, at.0);
            }
            bounds.utc_min = loss.utc.map(|utc| utc.0);
            bounds.utc_max = loss.utc.map(|utc| utc.1);
        }
        for timeline in &self.timelines {
            let (Some(min), Some(max)) = (timeline.stamps.iter().min(), timeline.stamps.iter().max()) else { continue };
            match timeline.clock {
                TimelineClock::Boot(boot) => bounds.take_boot(boot, *min, *max),
                TimelineClock::Utc => {
                    bounds.utc_min = Some(bounds.utc_min.map_or(UtcNanos(*min), |least| least.min(UtcNanos(*min))));
                    bounds.utc_max = Some(bounds.utc_max.map_or(UtcNanos(*max), |most| most.max(UtcNanos(*max))));
                }
            }
        }
        bounds
    }

    /// The columns, ascending by series.
    pub fn columns(&self) -> &[ColumnHead] {
        &self.heads
    }

    /// The timelines, by index.
    pub fn timelines(&self) -> &[Timeline] {
        &self.timelines
    }

    /// The timeline with this index.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] where there is no such timeline.
    pub fn timeline(&self, index: usize) -> Result<&Timeline, SegmentError> {
        self.timelines.get(index).ok_or(SegmentError::Corrupt("no timeline of this number"))
    }

    /// Decodes the column with this index, after those before it in its chunk (at most about 4,096 readings).
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] where there is no such column, or it is not what the directory says.
    pub fn column(&self, index: usize) -> Result<Column, SegmentError> {
        let mut columns = self.decode_columns([index])?;
        columns.pop().ok_or(SegmentError::Corrupt("no column of this number"))
    }

    /// Decodes the columns with these indexes, which ascend, in one pass: of each chunk that is wanted every column up to
    /// the last one wanted, once.
    ///
    /// # Errors
    /// As of [`View::column`].
    pub fn decode_columns(&self, indexes: impl IntoIterator<Item = usize>) -> Result<Vec<Column>, SegmentError> {
        let (mut columns, mut text_left) = (Vec::new(), MAX_TEXT_TOTAL_BYTES);
        let mut walk: Option<Walk<'_>> = None;
        for index in indexes {
            let place = self.places.get(index).ok_or(SegmentError::Corrupt("no column of this number"))?;
            let here = walk.take().filter(|walk| walk.begins == place.chunk_begins && walk.next <= index);
            let walk = walk.insert(here.unwrap_or_else(|| self.walk(place)));
            while walk.next < index {
                self.read(walk, &mut text_left)?;
            }
            columns.push(self.read(walk, &mut text_left)?);
        }
        Ok(columns)
    }

    /// At the beginning of the chunk that `place` is in.
    fn walk(&self, place: &Place) -> Walk<'_> {
        let begins = place.chunk_begins;
        Walk { begins, next: begins, reader: self.chunk(place), model: ChunkModel::new() }
    }

    /// A reader at the beginning of the chunk that `place` is in.
    fn chunk(&self, place: &Place) -> Reader<'_> {
        let bytes = &self.chunks[place.chunk.clone()];
        match self.first {
            Some(first) if place.chunk_begins == 0 => Reader::resume(bytes, first),
            _ => Reader::new(bytes),
        }
    }

    /// The next column of the chunk that is walked through.
    fn read(&self, walk: &mut Walk<'_>, text_left: &mut usize) -> Result<Column, SegmentError> {
        let (head, place) = (&self.heads[walk.next], &self.places[walk.next]);
        walk.next += 1;
        let Decoded { columns, values } = self.decoded.get();
        self.decoded.set(Decoded { columns: columns + 1, values: values + head.n });
        let texts = &self.texts[place.text.clone()];
        let (values, missing): (Values, Vec<Missing>) =
            walk.model.read(&mut walk.reader, (head.kind, head.n), place.distinct, (texts, text_left))?;
        Ok(Column { series: head.series, timeline: head.timeline, values, missing })
    }

    /// What was decoded so far.
    pub fn decoded(&self) -> Decoded {
        self.decoded.get()
    }

    /// The whole segment.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] where a column is not what the directory says.
    pub fn into_segment(mut self) -> Result<Segment, SegmentError> {
        if let Some(loss) = self.loss {
            return Ok(Segment { range: self.range, content: Content::Loss(loss) });
        }
        let columns = self.decode_columns(0..self.heads.len())?;
        let readings = Readings { timelines: std::mem::take(&mut self.timelines), columns };
        Ok(Segment { range: self.range, content: Content::Data { readings, names: self.names } })
    }
}

impl Bounds {
    fn take_boot(&mut self, boot: BootId, min: i64, max: i64) {
        if self.boot_min.is_none_or(|least| boot < least) {
            (self.boot_min, self.boottime_min) = (Some(boot), Some(BootNanos(min)));
        } else if self.boot_min == Some(boot) {
            self.boottime_min = self.boottime_min.min(Some(BootNanos(min)));
        }
        if self.boot_max.is_none_or(|most| boot > most) {
            (self.boot_max, self.boottime_max) = (Some(boot), Some(BootNanos(max)));
        } else if self.boot_max == Some(boot) {
            self.boottime_max = self.boottime_max.max(Some(BootNanos(max)));
        }
    }
}

/// The whole segment in `body`.
///
/// # Errors
/// Those of [`View::parse`] and [`View::into_segment`].
pub fn decode(body: &[u8]) -> Result<Segment, SegmentError> {
    View::parse(body)?.into_segment()
}
