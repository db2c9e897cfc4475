//! The laptop's side of a pull: asks for what is missing, checks what comes, keeps it.
//!
//! What enters: a [`Link`] to a board, the [`Arrivals`] to keep things in, and what the file they are for has. What leaves:
//! [`Fetched`], and before that [`Progress`] now and then. It believes no byte: a body is kept once its checksum is right and it is of
//! the range that it came as; what a hostile board may send is bounded by what it said it would.

use super::link::{Link, LinkError};
use crate::clock::{SECOND, UtcNanos};
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::{SegmentError, View};
use crate::store::arrivals::{Arrival, Arrivals, Begun, Had};
use crate::store::reader::ReadError;
use crate::wire::{
    BoardHello, FromBoard, FromLaptop, MAX_PULL_RANGES, Partial, Running, SegmentFrame, StoreUuid, WireError, hash_of,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// What has arrived is committed so often, or after so many bytes of bodies.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
const COMMIT_BYTES: u64 = 128 * 1024;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a board may send beyond what it said: compaction meanwhile sends some bodies again as a part of a larger one.
const SPARE_BYTES: u64 = 64 << 20;

/// The most catalogue pages, as many as describe four million series.
const MAX_PAGES: u64 = 20_000;

/// How many reasons are named; the rest are counted.
const MAX_NAMED: usize = 8;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Segments that came.
    pub segments: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Segments that were on their way when it began.
    pub of_segments: u64,
    /// Bytes of their bodies.
    pub of_bytes: u64,
    /// Since it began.
    pub elapsed: Duration,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// What the board said of itself.
    pub hello: BoardHello,
    /// What came.
    pub progress: Progress,
    /// Bytes that came over the line, and that went.
    pub received: u64,
    /// See `received`.
    pub sent: u64,
    /// Segments that could not be read there, or that came as no segment.
    pub unreadable: u64,
    /// The first few of them, in words.
    pub reasons: Vec<String>,
    /// Whether the laptop's clock stands for the time of the board's boot.
    pub anchored: bool,
}

/// Pulls what neither `held` nor `arrivals` have. `now` gives the laptop's clock.
///
/// # Errors
/// See [`PullError`]; what had arrived is kept in `arrivals`.
pub fn fetch(
    link: &mut Link<impl BufRead, impl Write>,
    arrivals: &mut Arrivals,
    held: &Holding,
    now: &dyn Fn() -> UtcNanos,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Fetched, PullError> {
    link.greeted().map_err(PullError::Link)?;
    let asked = now();
    link.greet().map_err(PullError::Link)?;
    let FromBoard::Hello(hello) = link.receive().map_err(PullError::Link)? else { return Err(PullError::Order) };
    let laptop = Moments { asked, answered: now() };
    held.accepts(&hello, arrivals)?;
    arrivals.note(&hello, laptop.answered)?;
    // In the order of their age, by which a file of several is read.
    hello.stores.iter().rev().try_for_each(|store| arrivals.know(&store.store))?;
    for had in together(&held.had, &arrivals.had()?) {
        // Where there are more, the longest: what is not named comes again, and is known by then.
        let mut ranges: Vec<_> = had.ranges.iter().collect();
        ranges.sort_by_key(|range| std::cmp::Reverse(range.last.0 - range.first.0));
        ranges.truncate(MAX_PULL_RANGES);
        ranges.sort_by_key(|range| range.first);
        let have = FromLaptop::Have { store: had.store, series: had.series, ranges };
        link.send(&have).map_err(PullError::Link)?;
    }
    let begun = arrivals.partial()?;
    if let Some(begun) = &begun {
        let (store, range, bytes) = (begun.store, begun.range, begun.bytes.len() as u32);
        let partial = Partial { store, range, bytes, hash: crc32fast::hash(&begun.bytes) };
        link.send(&FromLaptop::Partial(partial)).map_err(PullError::Link)?;
    }
    link.send(&FromLaptop::Go).and_then(|()| link.flush()).map_err(PullError::Link)?;
    let FromBoard::Plan { segments, bytes } = link.receive().map_err(PullError::Link)? else {
        return Err(PullError::Order);
    };
    let progress = Progress { of_segments: segments, of_bytes: bytes, ..Progress::default() };
    let mut taking = Taking::new(arrivals, &hello, progress, begun);
    let taken = taking.all(link, tell);
    // Cut or not: what came is kept.
    let kept = taking.keep();
    taken?;
    kept?;
    let (progress, unreadable, reasons) = (taking.progress, taking.unreadable, std::mem::take(&mut taking.reasons));
    let anchored = laptop.anchor(&hello, arrivals)?;
    arrivals.commit()?;
    let (received, sent) = (link.received(), link.sent());
    Ok(Fetched { hello, progress, received, sent, unreadable, reasons, anchored })
}

/// When the laptop's clock was read, around the moment when the board read its own.
#[derive(Debug, Clone, Copy)]
struct Moments {
    asked: UtcNanos,
    answered: UtcNanos,
}

impl Moments {
    /// Tells a board that does not know the time what the laptop's clock says.
    fn anchor(self, hello: &BoardHello, arrivals: &mut Arrivals) -> Result<bool, PullError> {
        let trip = self.answered.0.saturating_sub(self.asked.0);
        let (Some(running), Some(store)) = (hello.running, hello.stores.first()) else { return Ok(false) };
        // A trip of a minute says that the laptop's clock was set meanwhile, or nothing worth to know.
        if running.trusted || !(0..60 * SECOND).contains(&trip) {
            return Ok(false);
        }
        let running = Running { boottime: running.boottime, ..running };
        Ok(arrivals.anchor(&store.store, &running, UtcNanos(self.asked.0 + trip / 2))?)
    }
}

/// What is in the file that is added to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// Its name, for messages.
    pub name: String,
    /// Whether there is one.
    pub exists: bool,
    /// The device that it is of.
    pub device: Option<String>,
    /// What it has.
    pub had: Vec<Had>,
}

impl Holding {
    /// Whether the board is the one that the file is of.
    fn accepts(&self, hello: &BoardHello, arrivals: &Arrivals) -> Result<(), PullError> {
        let left = Self {
            name: arrivals.path().display().to_string(),
            exists: true,
            device: arrivals.device()?,
            had: arrivals.had()?,
        };
        for holding in [self, &left] {
            let named = holding.device.as_deref().filter(|_| !hello.device.is_empty());
            let common = hello.stores.iter().any(|store| holding.had.iter().any(|had| had.store == store.store));
            let other = named.map_or(!common && !holding.had.is_empty(), |device| device != hello.device);
            if holding.exists && other {
                let holds = holding.device.clone().unwrap_or_else(|| "another device".to_owned());
                let this = if hello.device.is_empty() { "another one".to_owned() } else { hello.device.clone() };
                return Err(PullError::OtherDevice { file: holding.name.clone(), holds, this });
            }
        }
        Ok(())
    }
}

/// What two files have, as one.
fn together(one: &[Had], other: &[Had]) -> Vec<Had> {
    let mut all: BTreeMap<StoreUuid, (u32, RangeSet)> = BTreeMap::new();
    for had in one.iter().chain(other) {
        let (series, ranges) = all.entry(had.store).or_default();
        *series = had.series.max(*series);
        ranges.extend(had.ranges.iter());
    }
    all.into_iter().map(|(store, (series, ranges))| Had { store, series, ranges }).collect()
}

/// What comes between the plan and the end.
struct Taking<'a> {
    arrivals: &'a mut Arrivals,
    stores: Vec<StoreUuid>,
    /// The body that comes in pieces now.
    begun: Option<Begun>,
    progress: Progress,
    since: Instant,
    committed: (Instant, u64),
    told: Option<Instant>,
    pages: u64,
    unreadable: u64,
    reasons: Vec<String>,
}

impl<'a> Taking<'a> {
    fn new(arrivals: &'a mut Arrivals, hello: &BoardHello, progress: Progress, begun: Option<Begun>) -> Self {
        let now = Instant::now();
        Self {
            arrivals,
            stores: hello.stores.iter().map(|store| store.store).collect(),
            begun,
            progress,
            since: now,
            committed: (now, 0),
            told: None,
            pages: 0,
            unreadable: 0,
            reasons: Vec::new(),
        }
    }

    fn all(
        &mut self,
        link: &mut Link<impl BufRead, impl Write>,
        tell: &mut dyn FnMut(&Progress),
    ) -> Result<(), PullError> {
        let most = self.progress.of_bytes.saturating_mul(2).saturating_add(SPARE_BYTES);
        loop {
            match link.receive().map_err(PullError::Link)? {
                FromBoard::Segment(frame) => self.frame(frame)?,
                FromBoard::Unreadable { store, why } => {
                    self.trouble(store.map_or(why.clone(), |store| format!("store {store}: {why}")));
                }
                FromBoard::Acked { store, ranges } => {
                    self.known(&store)?;
                    self.arrivals.acked(&store, &ranges)?;
                }
                FromBoard::Page(page) => {
                    self.known(&page.store)?;
                    self.pages += 1;
                    self.arrivals.merge(&page)?;
                }
                FromBoard::End => {
                    self.tell(tell, true);
                    return Ok(());
                }
                FromBoard::Hello(_) | FromBoard::Plan { .. } => return Err(PullError::Order),
            }
            if self.progress.bytes > most || self.pages > MAX_PAGES {
                return Err(PullError::Endless);
            }
            self.commit_if_due()?;
            self.tell(tell, false);
        }
    }

    fn known(&self, store: &StoreUuid) -> Result<(), PullError> {
        if self.stores.contains(store) { Ok(()) } else { Err(PullError::Order) }
    }

    fn frame(&mut self, frame: SegmentFrame<'_>) -> Result<(), PullError> {
        let (SegmentFrame::Whole { body: bytes, store, .. } | SegmentFrame::Chunk { bytes, store, .. }) = &frame else {
            return Err(PullError::Order);
        };
        self.known(store)?;
        self.progress.bytes += bytes.len() as u64;
        let (store, range, body) = match frame {
            SegmentFrame::Whole { store, range, body } => return self.body(&store, range, body),
            SegmentFrame::Chunk { store, range, hash, offset, total, bytes } => {
                let begun = Begun { store, range, hash, total, bytes: Vec::new() };
                let Some(whole) = self.piece(begun, offset, bytes)? else { return Ok(()) };
                (store, range, whole)
            }
            SegmentFrame::Account(_) => return Err(PullError::Order),
        };
        self.body(&store, range, &body)
    }

    /// Adds a piece to the body that it is of; the body where that is all of it. Pieces come in their order, one body after the
    /// other.
    fn piece(&mut self, of: Begun, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, PullError> {
        let same = |begun: &Begun| {
            (begun.store, begun.range, begun.hash, begun.total) == (of.store, of.range, of.hash, of.total)
        };
        let mut begun = match self.begun.take().filter(|begun| same(begun) && begun.bytes.len() == offset as usize) {
            Some(begun) => begun,
            None if offset == 0 => of,
            None => return Err(PullError::Order),
        };
        begun.bytes.extend_from_slice(bytes);
        if begun.bytes.len() < begun.total as usize {
            self.begun = Some(begun);
            return Ok(None);
        }
        if hash_of(&begun.bytes) != begun.hash {
            return Err(PullError::Link(LinkError::Wire(WireError::Hash)));
        }
        Ok(Some(begun.bytes))
    }

    fn body(&mut self, store: &StoreUuid, range: SeqRange, body: &[u8]) -> Result<(), PullError> {
        self.progress.segments += 1;
        match View::parse(body) {
            Ok(view) if view.range() == range => {
                if self.arrivals.take(store, &view, body)? == Arrival::Crosses {
                    self.trouble(format!("segment {range} of store {store}: it overlaps what is there"));
                }
            }
            Ok(_) => self.trouble(format!("segment {range} of store {store}: it is of another range")),
            Err(why @ SegmentError::Newer { .. }) => {
                self.trouble(format!("segment {range} of store {store}: {why}; update this varved"));
            }
            Err(why) => self.trouble(format!("segment {range} of store {store}: {why}")),
        }
        Ok(())
    }

    /// Commits what came, the beginning of a body included.
    fn keep(&mut self) -> Result<(), ReadError> {
        self.arrivals.begun(self.begun.as_ref())?;
        self.arrivals.commit()
    }

    fn trouble(&mut self, why: String) {
        self.unreadable += 1;
        if self.reasons.len() < MAX_NAMED {
            self.reasons.push(why);
        }
    }

    fn commit_if_due(&mut self) -> Result<(), PullError> {
        let (at, bytes) = self.committed;
        if self.progress.bytes - bytes >= COMMIT_BYTES || at.elapsed() >= COMMIT_EVERY {
            self.keep()?;
            self.committed = (Instant::now(), self.progress.bytes);
        }
        Ok(())
    }

    fn tell(&mut self, tell: &mut dyn FnMut(&Progress), last: bool) {
        if last || self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.progress.elapsed = self.since.elapsed();
            tell(&self.progress);
        }
    }
}

/// Why a pull did not bring all.
#[derive(Debug)]
pub enum PullError {
    /// The line, or what came over it.
    Link(LinkError),
    /// The laptop's own file.
    File(ReadError),
    /// What came is not what comes at this point.
    Order,
    /// More comes than was said.
    Endless,
    /// The file is of another device.
    OtherDevice {
        /// Which file.
        file: String,
        /// Whose it is.
        holds: String,
        /// Which device this is.
        this: String,
    },
}

impl From<ReadError> for PullError {
    fn from(error: ReadError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(why) => why.fmt(f),
            Self::File(why) => why.fmt(f),
            Self::Order => write!(f, "the far side does not keep to the conversation of a pull; update its varved"),
            Self::Endless => write!(
                f,
                "the far side sends more than it said; what has arrived is kept, see that it is what it should be"
            ),
            Self::OtherDevice { file, holds, this } if file.ends_with(".part") => write!(
                f,
                "{file} is what an interrupted pull left of {holds}, and this is {this}; delete it, or name another file"
            ),
            Self::OtherDevice { file, holds, this } => {
                write!(f, "{file} holds the readings of {holds}, and this is {this}; name another file")
            }
        }
    }
}

impl std::error::Error for PullError {}

impl Fault for PullError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Link(why) => why.verdict(),
            Self::File(why) => why.verdict(),
            Self::Order | Self::Endless | Self::OtherDevice { .. } => Verdict::Reject,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Link(why) => why.exit(),
            Self::File(why) => why.exit(),
            Self::Order | Self::Endless => Exit::Data,
            Self::OtherDevice { .. } => Exit::Usage,
        }
    }
}
