//! The board's side of a pull: what `varved serve-pull` says.
//!
//! What enters: [`Rows`], which answers SQL: the file itself, or the service that alone may read it; and what the laptop has. What
//! leaves: what it has not, as stored. It only reads, one small answer at a time: at most [`STEP_BYTES`] of bodies are in RAM beside
//! one segment, and while the link is waited for, nothing of the file is held. It checks no body: that is the laptop's
//! work, which has the power for it. New commits do not keep it busy for ever: what was committed when it began is sent.
//!
//! ```text
//! Hello ─► (Have…, Go) ─► Plan ─► Segment… Unreadable… Acked… ─► Page… ─► End
//! ```

mod bodies;
mod catalog;
mod rows;

pub use rows::{AskError, Got, Rows};

use super::link::{Link, LinkError};
use crate::fault::{Exit, Fault, Verdict};
use crate::reading::SegmentSeq;
use crate::reading::ranges::RangeSet;
use crate::wire::{
    BoardHello, FromBoard, FromLaptop, MAX_PULL_EVENTS, MAX_PULL_RANGES, MAX_PULL_STORES, MAX_PULL_TEXT_BYTES,
    PulledEvent, Running, StoreHeld, StoreUuid,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};

/// Bytes of bodies that are asked for at a time.
pub const STEP_BYTES: i64 = 64 * 1024;

/// The most messages that a laptop may say what it has with.
const MAX_HAVES: usize = 4 * MAX_PULL_STORES;

/// What the board knows beside its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// Its name; empty where it has no configuration.
    pub device: String,
    /// The boot that runs, and both clocks.
    pub running: Option<Running>,
    /// `status` of the service, or why there is none.
    pub health: Result<String, String>,
}

/// What a laptop has of a store.
#[derive(Debug, Default)]
struct Known {
    series: u32,
    ranges: RangeSet,
}

/// A store of the file: its number in it, and what it holds.
#[derive(Debug, Clone, Copy)]
struct Line {
    no: i64,
    held: StoreHeld,
}

/// Answers one laptop.
///
/// # Errors
/// Those of the link and of the file; the laptop sees the line end, and the text on standard error.
pub fn serve(rows: &mut dyn Rows, board: Board, link: &mut Link<impl BufRead, impl Write>) -> Result<(), ServeError> {
    link.greet()?;
    link.greeted()?;
    let lines = lines(rows)?;
    let hello = hello(rows, board, &lines)?;
    link.send(&FromBoard::Hello(hello))?;
    link.flush()?;
    let known = known(link)?;
    let nothing = Known::default();
    let of = |line: &Line| known.get(&line.held.store).unwrap_or(&nothing);
    let (mut segments, mut bytes) = (0, 0);
    for line in &lines {
        let plan = bodies::plan(rows, line, &of(line).ranges)?;
        (segments, bytes) = (segments + plan.0, bytes + plan.1);
    }
    link.send(&FromBoard::Plan { segments, bytes })?;
    for line in &lines {
        bodies::send(rows, line, &of(line).ranges, link)?;
    }
    for line in &lines {
        catalog::acked(rows, line, link)?;
        catalog::pages(rows, line, of(line).series, link)?;
    }
    link.send(&FromBoard::End)?;
    link.flush()?;
    Ok(())
}

fn known(link: &mut Link<impl BufRead, impl Write>) -> Result<BTreeMap<StoreUuid, Known>, ServeError> {
    let mut all: BTreeMap<StoreUuid, Known> = BTreeMap::new();
    for _ in 0..=MAX_HAVES {
        match link.receive()? {
            FromLaptop::Go => return Ok(all),
            FromLaptop::Have { store, series, ranges } => {
                if all.len() >= MAX_PULL_STORES && !all.contains_key(&store) {
                    // It has more than the file can hold: of these nothing can be meant.
                    continue;
                }
                let known = all.entry(store).or_default();
                known.series = series;
                if known.ranges.len() < MAX_PULL_RANGES {
                    known.ranges.extend(ranges);
                }
            }
        }
    }
    Err(ServeError::Unbounded)
}

/// The stores of the file, youngest first.
fn lines(rows: &mut dyn Rows) -> Result<Vec<Line>, AskError> {
    let sql = format!("SELECT id, uuid FROM store WHERE variant = 0 ORDER BY id DESC LIMIT {MAX_PULL_STORES}");
    let mut lines = Vec::new();
    for row in rows.ask(&sql)? {
        let (Some(no), Some(uuid)) = (row.first().and_then(Got::int), row.get(1).and_then(Got::text)) else { continue };
        let Ok(store) = StoreUuid::parse_str(uuid) else { continue };
        let (from, to) = ids_of(no);
        let sql = format!("SELECT last_seq FROM segment WHERE id BETWEEN {from} AND {to} ORDER BY id DESC LIMIT 1");
        // Where the end of the tree is damaged, what lies before it may be whole.
        let high = match rows.ask(&sql) {
            Ok(found) => found.first().and_then(|row| row.first()).and_then(Got::int).unwrap_or(0),
            Err(why) if why.damaged => to & SEQ_MASK,
            Err(why) => return Err(why),
        };
        lines.push(Line { no, held: StoreHeld { store, high: SegmentSeq(high.unsigned_abs()) } });
    }
    Ok(lines)
}

/// The lower bits of a row's id are its first number; see `schema.sql`.
const SEQ_MASK: i64 = (1 << 48) - 1;

/// The first and last row id that a store's segments may have.
fn ids_of(no: i64) -> (i64, i64) {
    (no << 48, (no << 48) | SEQ_MASK)
}

fn hello(rows: &mut dyn Rows, board: Board, lines: &[Line]) -> Result<BoardHello, AskError> {
    let newest_boot = match lines.first() {
        Some(line) => {
            let sql = format!("SELECT boot_uuid FROM boot WHERE store = {} ORDER BY id DESC LIMIT 1", line.no);
            let found = rows.ask(&sql)?;
            found.first().and_then(|row| row.first()).and_then(Got::text).map(str::to_owned)
        }
        None => None,
    };
    let running = board.running.filter(|running| newest_boot.is_some_and(|boot| boot == running.boot.to_string()));
    let sql = format!("SELECT utc, kind, substr(detail, 1, 400) FROM event ORDER BY id DESC LIMIT {MAX_PULL_EVENTS}");
    // Of an old file, or one whose table is damaged: what matters more is to come.
    let events = rows.ask(&sql).unwrap_or_default();
    let event = |row: &Vec<Got>| {
        let (utc, kind, detail) = (row.first()?.int()?, row.get(1)?.text()?, row.get(2)?.text()?);
        Some(PulledEvent { utc, kind: kind.chars().take(64).collect(), detail: detail.to_owned() })
    };
    let health = board.health.and_then(|health| match health.len() <= MAX_PULL_TEXT_BYTES {
        true => Ok(health),
        false => Err("what the service says of itself is too long".to_owned()),
    });
    let device = board.device.chars().take(64).collect();
    let stores = lines.iter().map(|line| line.held).collect();
    Ok(BoardHello { device, running, stores, health, events: events.iter().filter_map(event).collect() })
}

/// Why a laptop did not get all.
#[derive(Debug)]
pub enum ServeError {
    /// The line.
    Link(LinkError),
    /// The file, or the service that reads it.
    Ask(AskError),
    /// The laptop says without end what it has.
    Unbounded,
}

impl From<LinkError> for ServeError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<AskError> for ServeError {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(LinkError::Silent | LinkError::NotVarved) => {
                write!(f, "`serve-pull` is the far end of `varved pull [USER@]HOST OUT`; run that on the laptop")
            }
            Self::Link(why) => why.fmt(f),
            Self::Ask(why) => why.text.fmt(f),
            Self::Unbounded => write!(f, "the laptop says without end what it has; update its varved"),
        }
    }
}

impl std::error::Error for ServeError {}

impl Fault for ServeError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Link(why) => why.verdict(),
            Self::Ask(_) | Self::Unbounded => Verdict::Reject,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Link(LinkError::Silent | LinkError::NotVarved) => Exit::Usage,
            Self::Link(why) => why.exit(),
            Self::Ask(why) => why.exit,
            Self::Unbounded => Exit::Data,
        }
    }
}

#[cfg(all(test, feature = "laptop"))]
mod tests;
