//! The segments that a laptop lacks: found by their rows, sent as they are stored.
//!
//! Rows are looked at [`HEADS`] at a time, and bodies read [`STEP_BYTES`] at a time; between two steps the file may change.
//! Compaction joins what was not sent yet with what was: then the joined one is sent, and the laptop puts it in the place of its
//! parts. Where a page of the tree is damaged, what lies before it and, from the other end, behind it is sent all the same.

use super::rows::{AskError, Got, Rows};
use super::{Known, Line, SEQ_MASK, STEP_BYTES, ServeError, ids_of};
use crate::pull::link::Link;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::wire::{FromBoard, Partial, SegmentFrame, hash_of};
use std::io::{BufRead, Write};

/// Rows looked at at a time.
const HEADS: usize = 256;

/// The most bytes of a body in one frame: what a cut costs at most, beside what is under way.
const PIECE_BYTES: usize = 16 * 1024;

/// Where bodies go to.
struct To<'a> {
    line: &'a Line,
    /// The segment that was cut off.
    partial: Option<Partial>,
}

/// A row of `segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    id: i64,
    range: SeqRange,
    bytes: i64,
}

/// What is done with a page of rows.
type Visit<'a> = dyn FnMut(&mut dyn Rows, &[Head]) -> Result<(), ServeError> + 'a;

/// Which end a walk begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Oldest,
    Newest,
}

/// How many segments of `line` are not in `known`, and the bytes of their bodies.
pub(super) fn plan(rows: &mut dyn Rows, line: &Line, known: &RangeSet) -> Result<(u64, u64), ServeError> {
    let (mut segments, mut bytes) = (0, 0);
    walk(rows, line, known, &mut |_, heads| {
        segments += heads.len() as u64;
        bytes += heads.iter().map(|head| head.bytes.unsigned_abs()).sum::<u64>();
        Ok(())
    })?;
    Ok((segments, bytes))
}

/// Sends them.
pub(super) fn send(
    rows: &mut dyn Rows,
    line: &Line,
    known: &Known,
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let to = &To { line, partial: known.partial };
    let damaged = walk(rows, line, &known.ranges, &mut |rows, heads| {
        let mut rest = heads;
        while let Some(first) = rest.first() {
            let group = group_bytes(rest);
            let (now, later) = rest.split_at(group);
            match now {
                [one] if one.bytes > STEP_BYTES => large(rows, to, first.id, link)?,
                several => small(rows, to, several, link)?,
            }
            rest = later;
        }
        Ok(())
    })?;
    match damaged {
        None => Ok(()),
        Some((low, high)) => unreadable(line, link, format!("numbers {low} to {high}: the file is damaged there")),
    }
}

/// How many of these are read in one step: neighbours, and not too much.
fn group_bytes(heads: &[Head]) -> usize {
    let mut bytes = 0;
    let fits = |head: &&Head| {
        bytes += head.bytes;
        bytes <= STEP_BYTES
    };
    heads.iter().take_while(fits).count().max(1)
}

/// Shows `each` the rows of `line` that `known` lacks, page by page: in the order of their numbers, and where the tree is damaged
/// on the way, from the other end as far as that goes. The numbers in between, if so.
fn walk(
    rows: &mut dyn Rows,
    line: &Line,
    known: &RangeSet,
    each: &mut Visit<'_>,
) -> Result<Option<(i64, i64)>, ServeError> {
    let (mut low, end) = ids_of(line.no);
    let mut high = end.min((line.no << 48) | line.held.high.0 as i64);
    let (mut from, mut limit) = (From::Oldest, HEADS);
    loop {
        let page = match heads(rows, low, high, (from, limit)) {
            Ok(page) => page,
            // What stands right before the damage can be read, too.
            Err(why) if why.damaged && limit > 1 => {
                limit /= 4;
                continue;
            }
            Err(why) if why.damaged && from == From::Oldest => {
                (from, limit) = (From::Newest, HEADS);
                continue;
            }
            Err(why) if why.damaged => return Ok(Some((low & SEQ_MASK, high & SEQ_MASK))),
            Err(why) => return Err(why.into()),
        };
        let Some(last) = page.last() else {
            // From the newest down to where the oldest ended, nothing is missing but what could not be read.
            return Ok((from == From::Newest).then_some((low & SEQ_MASK, high & SEQ_MASK)));
        };
        match from {
            From::Oldest => low = last.id + 1,
            From::Newest => high = last.id - 1,
        }
        let wanted: Vec<Head> = page.into_iter().filter(|head| !known.covers(head.range)).collect();
        each(rows, &wanted)?;
    }
}

fn heads(rows: &mut dyn Rows, low: i64, high: i64, (from, limit): (From, usize)) -> Result<Vec<Head>, AskError> {
    let order = if from == From::Oldest { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT id, last_seq, length(body) FROM segment WHERE id BETWEEN {low} AND {high} ORDER BY id {order} LIMIT {limit}"
    );
    Ok(rows.ask(&sql)?.iter().filter_map(|row| head(row)).collect())
}

fn head(row: &[Got]) -> Option<Head> {
    let id = row.first()?.int()?;
    let range = SeqRange::new((id & SEQ_MASK).unsigned_abs(), row.get(1)?.int()?.unsigned_abs())?;
    Some(Head { id, range, bytes: row.get(2)?.int()? })
}

/// Sends several small ones, one by one where the file is damaged on the way.
fn small(
    rows: &mut dyn Rows,
    to: &To<'_>,
    heads: &[Head],
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(()) };
    let ids: Vec<String> = heads.iter().map(|head| head.id.to_string()).collect();
    // What compaction has joined since then may be large: it is read in pieces.
    let sql = format!(
        "SELECT id, last_seq, length(body), CASE WHEN length(body) <= {STEP_BYTES} THEN body END FROM segment \
         WHERE id IN ({}) ORDER BY id",
        ids.join(", ")
    );
    let found = match rows.ask(&sql) {
        Ok(found) => found,
        Err(why) if why.damaged && heads.len() > 1 => {
            return heads.iter().try_for_each(|head| small(rows, to, std::slice::from_ref(head), link));
        }
        Err(why) if why.damaged => {
            return unreadable(to.line, link, format!("segment {}: the file is damaged there", first.range));
        }
        Err(why) => return Err(why.into()),
    };
    for mut row in found {
        let Some(head) = head(&row) else { continue };
        match row.pop().and_then(Got::into_bytes) {
            Some(body) => frames(to, head.range, &body, link)?,
            None => large(rows, to, head.id, link)?,
        }
    }
    log::trace!("sent {} to {}", first.id, last.id);
    Ok(())
}

/// Sends one that is read in pieces; begun anew where it becomes another one meanwhile.
fn large(
    rows: &mut dyn Rows,
    to: &To<'_>,
    id: i64,
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let mut body: Vec<u8> = Vec::new();
    let mut of = None;
    loop {
        let sql = format!(
            "SELECT id, last_seq, length(body), substr(body, {}, {STEP_BYTES}) FROM segment WHERE id = {id}",
            body.len() + 1
        );
        let row = match rows.ask(&sql) {
            Ok(found) => found.into_iter().next(),
            Err(why) if why.damaged => {
                return unreadable(to.line, link, format!("segment {}: the file is damaged there", id & SEQ_MASK));
            }
            Err(why) => return Err(why.into()),
        };
        // Expired meanwhile, or joined with what lies below it.
        let Some(mut row) = row else { return Ok(()) };
        let Some(head) = head(&row) else { return Ok(()) };
        let Some(piece) = row.pop().and_then(Got::into_bytes) else { return Ok(()) };
        if head.bytes > crate::wire::MAX_BODY_BYTES as i64 {
            return unreadable(to.line, link, format!("segment {}: longer than any", head.range));
        }
        if of.replace(head).is_some_and(|before| before != head) {
            body.clear();
            of = None;
            continue;
        }
        let none = piece.is_empty();
        body.extend_from_slice(&piece);
        if none || body.len() as i64 >= head.bytes {
            return frames(to, head.range, &body, link);
        }
    }
}

fn frames(
    to: &To<'_>,
    range: SeqRange,
    body: &[u8],
    link: &mut Link<impl BufRead, impl Write>,
) -> Result<(), ServeError> {
    let store = to.line.held.store;
    if body.is_empty() {
        return unreadable(to.line, link, format!("segment {range}: it is empty"));
    }
    if body.len() <= PIECE_BYTES {
        return Ok(link.send(&FromBoard::Segment(SegmentFrame::Whole { store, range, body }))?);
    }
    let (hash, total) = (hash_of(body), body.len() as u32);
    let same = to.partial.filter(|partial| {
        let had = body.get(..partial.bytes as usize).filter(|had| had.len() < body.len());
        partial.range == range && had.is_some_and(|had| crc32fast::hash(had) == partial.hash)
    });
    let begin = same.map_or(0, |partial| partial.bytes as usize);
    for (at, bytes) in body[begin..].chunks(PIECE_BYTES).enumerate() {
        let offset = (begin + at * PIECE_BYTES) as u32;
        link.send(&FromBoard::Segment(SegmentFrame::Chunk { store, range, hash, offset, total, bytes }))?;
    }
    Ok(())
}

fn unreadable(line: &Line, link: &mut Link<impl BufRead, impl Write>, why: String) -> Result<(), ServeError> {
    Ok(link.send(&FromBoard::Unreadable { store: Some(line.held.store), why })?)
}
