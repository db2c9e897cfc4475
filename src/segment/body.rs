//! The frame of a segment: version, range, names, blob, directory, chunks, checksum.
//!
//! What enters: a [`Segment`]. What leaves: its bytes, and for the reader's side ([`super::view`]) the parts of a frame
//! whose checksum is right.

use super::coder::Writer;
use super::columns::{ChunkModel, Distinct};
use super::directory::{Directory, Head};
use super::{
    Column, Content, MAX_BODY_BYTES, MAX_COLUMNS, MAX_READINGS, MAX_TEXT_TOTAL_BYTES, Readings, Segment, SegmentError,
    VERSION,
};
use crate::reading::{Kind, MAX_NAME_BYTES, MAX_TEXT_BYTES, Scale, SeqRange, SeriesDef, SeriesId};
use std::cell::RefCell;

/// The content is a loss.
pub(super) const LOSS: u8 = 1;
/// The blob begins with the names of all series cited.
pub(super) const NAMES: u8 = 2;
/// There is a blob.
pub(super) const BLOB: u8 = 4;
/// The blob is compressed with zstd.
pub(super) const ZSTD: u8 = 8;

/// The range is of more than one sequence number.
pub(super) const SPAN: u8 = 16;
/// There are chunks after the first.
pub(super) const CHUNKS: u8 = 32;

/// Version, flags, a sequence number of one byte, checksum.
const SHORTEST: usize = 7;

/// A chunk ends with the column that brings it to this many readings. Columns of one chunk learn from each other, and one
/// of them is decoded only after those before it.
const CHUNK_READINGS: usize = 4096;

/// Names and texts are few bytes: a high level costs little.
const ZSTD_LEVEL: i32 = 19;
const ZSTD_LEVEL_LARGE: i32 = 3;
const LARGE_BYTES: usize = 16 << 10;

/// The bytes of `segment`, checksum included: what is stored and what is shipped.
///
/// # Errors
/// [`SegmentError::TooLarge`] above [`MAX_BODY_BYTES`], [`MAX_READINGS`], [`MAX_COLUMNS`] or [`MAX_TEXT_TOTAL_BYTES`];
/// [`SegmentError::Unfit`] where columns, timelines and names contradict each other.
pub fn encode(segment: &Segment) -> Result<Vec<u8>, SegmentError> {
    if let Content::Data { readings, names } = &segment.content {
        check(readings)?;
        check_names(readings, names)?;
    }
    encode_unchecked(segment)
}

/// As [`encode`], of a segment that holds together.
pub(super) fn encode_unchecked(segment: &Segment) -> Result<Vec<u8>, SegmentError> {
    let mut out = vec![VERSION, 0];
    put_varint(&mut out, segment.range.first.0);
    let span = segment.range.last.0.checked_sub(segment.range.first.0);
    let span = span.ok_or(SegmentError::Unfit("its range ends before it begins"))?;
    if span > 0 {
        out[1] |= SPAN;
        put_varint(&mut out, span);
    }
    match &segment.content {
        Content::Loss(loss) => {
            out[1] |= LOSS;
            out = postcard::to_extend(loss, out).map_err(|_| SegmentError::Unfit("its loss has no encoding"))?;
        }
        Content::Data { readings, names } => encode_data(&mut out, readings, names)?,
    }
    out.extend(crc32fast::hash(&out).to_le_bytes());
    at_most("bytes", out.len(), MAX_BODY_BYTES)?;
    Ok(out)
}

fn encode_data(out: &mut Vec<u8>, readings: &Readings, names: &[(SeriesId, SeriesDef)]) -> Result<(), SegmentError> {
    let mut blob = Vec::new();
    if !names.is_empty() {
        out[1] |= NAMES;
        put_names(&mut blob, names);
    }
    let mut heads = heads(&readings.columns, &mut blob);
    at_most("bytes of text", blob.len(), MAX_TEXT_TOTAL_BYTES)?;
    put_blob(out, &blob);
    let first_ends = heads.iter().position(|head| head.chunk.is_some()).map_or(0, |last| last + 1);
    let chunks = encode_chunks(&readings.columns[first_ends..], &mut heads[first_ends..]);
    let mut writer = Writer::new();
    Directory::write(&mut writer, &readings.timelines, &heads);
    encode_chunk(&mut writer, &readings.columns[..first_ends]);
    let first = writer.finish();
    if !chunks.is_empty() {
        out[1] |= CHUNKS;
        put_varint(out, first.len() as u64);
    }
    out.extend_from_slice(&first);
    out.extend_from_slice(&chunks);
    Ok(())
}

/// What the directory says, but for the lengths of chunks: where one ends there is a 0 yet. Texts go into `blob`.
fn heads(columns: &[Column], blob: &mut Vec<u8>) -> Vec<Head> {
    let mut readings = 0;
    let head = |(index, column): (usize, &Column)| {
        readings += column.values.len();
        let ends = readings >= CHUNK_READINGS || index + 1 == columns.len();
        if ends {
            readings = 0;
        }
        Head {
            series: column.series,
            timeline: column.timeline,
            kind: column.values.kind(),
            distinct: Distinct::take(&column.values, &column.missing, blob),
            chunk: ends.then_some(0),
        }
    };
    columns.iter().enumerate().map(head).collect()
}

/// The bytes of all chunks of `columns`, whose lengths go into `heads`.
fn encode_chunks(columns: &[Column], heads: &mut [Head]) -> Vec<u8> {
    let (mut chunks, mut begins) = (Vec::new(), 0);
    for (index, head) in heads.iter_mut().enumerate() {
        if let Some(length) = &mut head.chunk {
            let mut writer = Writer::new();
            encode_chunk(&mut writer, &columns[begins..=index]);
            let bytes = writer.finish();
            *length = bytes.len();
            chunks.extend_from_slice(&bytes);
            begins = index + 1;
        }
    }
    chunks
}

fn encode_chunk(writer: &mut Writer, columns: &[Column]) {
    let mut model = ChunkModel::new();
    columns.iter().for_each(|column| model.write(writer, &column.values, &column.missing));
}

fn at_most(what: &'static str, is: usize, limit: usize) -> Result<(), SegmentError> {
    if is > limit { Err(SegmentError::TooLarge { what, is, limit }) } else { Ok(()) }
}

fn check(readings: &Readings) -> Result<(), SegmentError> {
    at_most("readings", readings.n(), MAX_READINGS)?;
    at_most("columns", readings.columns.len(), MAX_COLUMNS)?;
    at_most("timelines", readings.timelines.len(), MAX_COLUMNS)?;
    at_most("stamps", readings.timelines.iter().map(|t| t.stamps.len()).sum(), MAX_READINGS)?;
    if readings.timelines.iter().any(|t| t.stamps.is_empty()) {
        return Err(SegmentError::Unfit("it has a timeline without stamps"));
    }
    if !readings.columns.windows(2).all(|pair| pair[0].series <= pair[1].series) {
        return Err(SegmentError::Unfit("its columns are not in the order of their series"));
    }
    readings.columns.iter().try_for_each(|column| check_column(column, readings))?;
    at_most("bytes of text", readings.text_bytes(), MAX_TEXT_TOTAL_BYTES)
}

fn check_column(column: &Column, readings: &Readings) -> Result<(), SegmentError> {
    let n = readings.timelines.get(column.timeline).map(|t| t.stamps.len());
    if n != Some(column.values.len()) {
        return Err(SegmentError::Unfit("a column and its timeline differ in length"));
    }
    let ascending = column.missing.windows(2).all(|pair| pair[0].at < pair[1].at);
    let inside = column.missing.last().is_none_or(|last| (last.at as usize) < column.values.len());
    if !ascending || !inside {
        return Err(SegmentError::Unfit("a column's missing values are out of order"));
    }
    match &column.values {
        super::Values::Text(texts) if texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) => {
            Err(SegmentError::Unfit("a text is too long"))
        }
        _ => Ok(()),
    }
}

fn check_names(readings: &Readings, names: &[(SeriesId, SeriesDef)]) -> Result<(), SegmentError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut cited: Vec<(SeriesId, Kind)> = readings.columns.iter().map(|c| (c.series, c.values.kind())).collect();
    cited.dedup();
    if !cited.into_iter().eq(names.iter().map(|(id, def)| (*id, def.kind))) {
        return Err(SegmentError::Unfit("its names are not those of its columns"));
    }
    let long = |def: &SeriesDef| def.name.len() > MAX_NAME_BYTES || def.unit.len() > MAX_NAME_BYTES;
    if names.iter().any(|(_, def)| long(def)) {
        return Err(SegmentError::Unfit("a name or unit is too long"));
    }
    Ok(())
}

/// Names, then units, then scales, in the order of the series: like beside like compresses best. Ids and kinds are in the
/// directory.
fn put_names(blob: &mut Vec<u8>, names: &[(SeriesId, SeriesDef)]) {
    for (_, def) in names {
        put_text(blob, &def.name);
    }
    for (_, def) in names {
        put_text(blob, &def.unit);
    }
    for (_, def) in names {
        put_varint(blob, (def.scale.mantissa << 1 ^ def.scale.mantissa >> 63) as u64);
        blob.push(def.scale.exponent as u8);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The names of the series `cited`, and what of `blob` is left after them.
pub(super) fn take_names(
    mut blob: &[u8],
    cited: &[(SeriesId, Kind)],
) -> Result<(Vec<(SeriesId, SeriesDef)>, usize), SegmentError> {
    let whole = blob.len();
    let names = cited.iter().map(|_| take_text(&mut blob)).collect::<Result<Vec<_>, _>>()?;
    let units = cited.iter().map(|_| take_text(&mut blob)).collect::<Result<Vec<_>, _>>()?;
    let mut defs = Vec::with_capacity(cited.len());
    for (((series, kind), name), unit) in cited.iter().zip(names).zip(units) {
        let zigzag = take_varint(&mut blob)?;
        let mantissa = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let (exponent, rest) = blob.split_first().ok_or(SegmentError::Corrupt("names that are cut short"))?;
        blob = rest;
        let scale = Scale { mantissa, exponent: *exponent as i8 };
        if mantissa == 0 || Scale::new(mantissa, scale.exponent.into()) != Some(scale) {
            return Err(SegmentError::Corrupt("a scale that is not in its normal form"));
        }
        defs.push((*series, SeriesDef { name: name.into(), unit: unit.into(), kind: *kind, scale }));
    }
    Ok((defs, whole - blob.len()))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, SegmentError> {
    let length = usize::try_from(take_varint(bytes)?).ok().filter(|l| *l <= MAX_NAME_BYTES && *l <= bytes.len());
    let (text, rest) = bytes.split_at(length.ok_or(SegmentError::Corrupt("names that are cut short"))?);
    *bytes = rest;
    std::str::from_utf8(text).map_err(|_| SegmentError::Corrupt("a name that is not UTF-8"))
}

/// What every frame begins with (RFC 8878 §3.1.1), and therefore need not be stored.
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

thread_local! {
    /// A context is some hundred kilobytes to set up; a thread that encodes keeps one.
    static ZSTD_WRITER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(blob: &[u8]) -> Option<Vec<u8>> {
    let level = if blob.len() > LARGE_BYTES { ZSTD_LEVEL_LARGE } else { ZSTD_LEVEL };
    ZSTD_WRITER.with_borrow_mut(|slot| {
        let writer = match slot {
            Some(writer) => writer,
            None => slot.insert(zstd::bulk::Compressor::new(level).ok()?),
        };
        writer.set_compression_level(level).ok()?;
        writer.include_contentsize(false).ok()?;
        let mut frame = writer.compress(blob).ok()?;
        frame.starts_with(&ZSTD_MAGIC).then(|| frame.split_off(ZSTD_MAGIC.len()))
    })
}

/// `raw length, stored length, bytes`, compressed where that is shorter.
fn put_blob(out: &mut Vec<u8>, blob: &[u8]) {
    if blob.is_empty() {
        return;
    }
    out[1] |= BLOB;
    let packed = compress(blob).filter(|packed| packed.len() < blob.len());
    if packed.is_some() {
        out[1] |= ZSTD;
    }
    let stored = packed.as_deref().unwrap_or(blob);
    put_varint(out, blob.len() as u64);
    put_varint(out, stored.len() as u64);
    out.extend_from_slice(stored);
}

/// The blob at the beginning of `bytes`, at most [`MAX_TEXT_TOTAL_BYTES`] whatever it declares.
pub(super) fn take_blob(flags: u8, bytes: &mut &[u8]) -> Result<Vec<u8>, SegmentError> {
    if flags & BLOB == 0 {
        return Ok(Vec::new());
    }
    let raw = usize::try_from(take_varint(bytes)?).ok().filter(|raw| *raw <= MAX_TEXT_TOTAL_BYTES);
    let raw = raw.ok_or(SegmentError::Corrupt("more text than a segment may hold"))?;
    let stored = usize::try_from(take_varint(bytes)?).ok().filter(|stored| *stored <= bytes.len());
    let (stored, rest) = bytes.split_at(stored.ok_or(SegmentError::Corrupt("a blob that is cut short"))?);
    *bytes = rest;
    let blob = if flags & ZSTD == 0 {
        stored.to_vec()
    } else {
        zstd::bulk::decompress(&[&ZSTD_MAGIC, stored].concat(), raw)
            .map_err(|_| SegmentError::Corrupt("a blob that is not zstd"))?
    };
    if blob.len() != raw {
        return Err(SegmentError::Corrupt("a blob of another length than declared"));
    }
    Ok(blob)
}

#[cfg(test)]
thread_local! {
    /// A planted fault: on this thread no checksum of a body is looked at.
    pub(crate) static UNCHECKED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The version, flags and range of a frame, and what follows them; the checksum is right.
pub(super) fn open(body: &[u8]) -> Result<(u8, SeqRange, &[u8]), SegmentError> {
    if body.len() < SHORTEST {
        return Err(SegmentError::Truncated);
    }
    let (frame, crc) = body.split_at(body.len() - 4);
    let checks = crc32fast::hash(frame).to_le_bytes() == crc;
    #[cfg(test)]
    let checks = checks || UNCHECKED.get();
    if !checks {
        return Err(SegmentError::Checksum);
    }
    if frame[0] == 0 {
        return Err(SegmentError::Corrupt("version 0"));
    }
    if frame[0] > VERSION {
        return Err(SegmentError::Newer { version: frame[0] });
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(SegmentError::Corrupt("more bytes than a segment may have"));
    }
    let flags = frame[1];
    if flags & !(LOSS | NAMES | BLOB | ZSTD | SPAN | CHUNKS) != 0 {
        return Err(SegmentError::Corrupt("a flag that version 1 does not have"));
    }
    let mut rest = &frame[2..];
    let first = take_varint(&mut rest)?;
    let span = if flags & SPAN == 0 { 0 } else { take_varint(&mut rest)? };
    let last = first.checked_add(span);
    let range = last.and_then(|last| SeqRange::new(first, last));
    Ok((flags, range.ok_or(SegmentError::Corrupt("a range that is none"))?, rest))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A little-endian base-128 number of at most ten bytes.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, SegmentError> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(SegmentError::Corrupt("a number that is cut short"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SegmentError::Corrupt("a number beyond 64 bits"))
}
