//! One column in a chunk: missing values, then the values by kind.
//!
//! What enters: a [`Column`]'s values, or its kind and length. What leaves: bits in a [`Coder`], and back. Texts leave
//! through the side: a column holds the lengths and the order of its distinct texts, their bytes are in the segment's
//! blob.

use super::coder::{Bit, Coder, Number, Reader, Writer};
use super::floats::FloatModel;
use super::numbers::{Model, Role};
use super::{Missing, SegmentError, Values};
use crate::reading::{Kind, MAX_TEXT_BYTES, NoValue};
use std::collections::HashMap;

/// What the columns of a chunk learn together.
#[derive(Debug)]
pub(super) struct ChunkModel {
    numbers: Model,
    floats: FloatModel,
    text_length: Number,
    missing_n: Number,
    missing_gap: Number,
    missing_why: [Bit; 8],
}

/// The distinct texts of a column, as the directory has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Distinct {
    /// How many.
    pub(super) texts: usize,
    /// Their length in all, in bytes.
    pub(super) bytes: usize,
}

impl Distinct {
    /// Those of a column, which are appended to `blob`.
    pub(super) fn take(values: &Values, missing: &[Missing], blob: &mut Vec<u8>) -> Self {
        let Values::Text(all) = values else { return Self::default() };
        let (known, begin) = (distinct(all, missing).0, blob.len());
        known.iter().for_each(|text| blob.extend_from_slice(text.as_bytes()));
        Self { texts: known.len(), bytes: blob.len() - begin }
    }
}

impl ChunkModel {
    pub(super) fn new() -> Self {
        Self {
            numbers: Model::new(),
            floats: FloatModel::NEW,
            text_length: Number::NEW,
            missing_n: Number::likely(0),
            missing_gap: Number::NEW,
            missing_why: [Bit::EVEN; 8],
        }
    }

    /// Writes a column.
    pub(super) fn write(&mut self, w: &mut Writer, values: &Values, missing: &[Missing]) {
        self.missing(w, missing.len(), missing);
        match values {
            Values::Int(all) => self.numbers.code(w, Role::Ints, &mut present(all, missing)),
            Values::Float(all) => self.floats.code(w, &mut self.numbers, &mut present(all, missing)),
            Values::Bool(all) => {
                let mut bits: Vec<i64> = present(all, missing).into_iter().map(i64::from).collect();
                self.numbers.code(w, Role::Bools, &mut bits);
            }
            Values::Text(all) => {
                let (known, mut words) = distinct(all, missing);
                for text in known {
                    self.text_length.code(w, text.len() as u64);
                }
                self.numbers.code(w, Role::Words, &mut words);
            }
        }
    }

    /// Reads a column of `n` readings. `blob` holds its distinct texts; `text_left` is how many bytes of text the segment
    /// may still have, since a text that is stored once may be repeated.
    pub(super) fn read(
        &mut self,
        r: &mut Reader<'_>,
        (kind, n): (Kind, usize),
        distinct: Distinct,
        (blob, text_left): (&[u8], &mut usize),
    ) -> Result<(Values, Vec<Missing>), SegmentError> {
        let missing = self.read_missing(r, n)?;
        let mut ints = vec![0; if kind == Kind::Float { 0 } else { n - missing.len() }];
        let values = match kind {
            Kind::Int => {
                self.numbers.code(r, Role::Ints, &mut ints);
                Values::Int(spread(ints, &missing, n))
            }
            Kind::Float => {
                let mut floats = vec![0.0; n - missing.len()];
                self.floats.code(r, &mut self.numbers, &mut floats);
                Values::Float(spread(floats, &missing, n))
            }
            Kind::Bool => {
                self.numbers.code(r, Role::Bools, &mut ints);
                Values::Bool(spread(ints.into_iter().map(|bit| bit != 0).collect(), &missing, n))
            }
            Kind::Text => {
                Values::Text(spread(self.read_texts(r, &mut ints, distinct, (blob, text_left))?, &missing, n))
            }
        };
        Ok((values, missing))
    }

    fn read_texts(
        &mut self,
        r: &mut Reader<'_>,
        words: &mut [i64],
        distinct: Distinct,
        (mut blob, text_left): (&[u8], &mut usize),
    ) -> Result<Vec<Box<str>>, SegmentError> {
        if distinct.texts > words.len() {
            return Err(SegmentError::Corrupt("more distinct texts than readings"));
        }
        let mut known: Vec<&str> = Vec::with_capacity(distinct.texts);
        for _ in 0..distinct.texts {
            let length = usize::try_from(self.text_length.code(r, 0)).unwrap_or(usize::MAX);
            if length > blob.len() || length > MAX_TEXT_BYTES {
                return Err(SegmentError::Corrupt("a text longer than its blob"));
            }
            let (text, rest) = blob.split_at(length);
            known.push(std::str::from_utf8(text).map_err(|_| SegmentError::Corrupt("a text that is not UTF-8"))?);
            blob = rest;
        }
        self.numbers.code(r, Role::Words, words);
        let mut texts = Vec::with_capacity(words.len());
        for word in words {
            let text = usize::try_from(*word).ok().and_then(|word| known.get(word));
            let text = *text.ok_or(SegmentError::Corrupt("a text that is not in the blob"))?;
            let left = text_left.checked_sub(text.len());
            *text_left = left.ok_or(SegmentError::Corrupt("more text than a segment may hold"))?;
            texts.push(text.into());
        }
        Ok(texts)
    }

    fn missing<C: Coder>(&mut self, coder: &mut C, n: usize, missing: &[Missing]) -> u64 {
        let n = self.missing_n.code(coder, n as u64);
        let mut next = 0;
        for m in missing {
            self.one_missing(coder, u64::from(m.at) - next, m.why as u8);
            next = u64::from(m.at) + 1;
        }
        n
    }

    fn one_missing<C: Coder>(&mut self, coder: &mut C, gap: u64, why: u8) -> (u64, u8) {
        let gap = self.missing_gap.code(coder, gap);
        let mut node = 1;
        for bit in (0..3).rev() {
            node = node << 1 | usize::from(coder.bit(&mut self.missing_why[node], why >> bit & 1 == 1));
        }
        (gap, node as u8 & 7)
    }

    fn read_missing(&mut self, r: &mut Reader<'_>, n: usize) -> Result<Vec<Missing>, SegmentError> {
        let count = usize::try_from(self.missing(r, 0, &[])).ok().filter(|count| *count <= n);
        let count = count.ok_or(SegmentError::Corrupt("more missing values than readings"))?;
        let mut missing = Vec::with_capacity(count);
        let mut next = 0_u64;
        for _ in 0..count {
            let (gap, why) = self.one_missing(r, 0, 0);
            let at = next.checked_add(gap).filter(|at| *at < n as u64);
            let at = at.ok_or(SegmentError::Corrupt("a missing value beyond its column"))?;
            missing.push(Missing { at: at as u32, why: NoValue::from_code(why).unwrap_or(NoValue::Failed) });
            next = at + 1;
        }
        Ok(missing)
    }
}

/// The distinct ones of the texts that are not missing, in the order in which they come, and which of them each is.
fn distinct<'a>(all: &'a [Box<str>], missing: &[Missing]) -> (Vec<&'a str>, Vec<i64>) {
    let (mut known, mut order): (HashMap<&str, i64>, _) = (HashMap::new(), Vec::new());
    let texts: Vec<&str> = all.iter().map(|text| &**text).collect();
    let words = present(&texts, missing).into_iter().map(|text| {
        *known.entry(text).or_insert_with(|| {
            order.push(text);
            order.len() as i64 - 1
        })
    });
    let words = words.collect();
    (order, words)
}

/// The values that are not missing.
fn present<T: Clone>(all: &[T], missing: &[Missing]) -> Vec<T> {
    if missing.is_empty() {
        return all.to_vec();
    }
    let mut gone = missing.iter().map(|m| m.at as usize).peekable();
    let kept = |i: &usize| gone.next_if_eq(i).is_none();
    let kept: Vec<usize> = (0..all.len()).filter(kept).collect();
    kept.into_iter().map(|i| all[i].clone()).collect()
}

/// The reverse of [`present`], with defaults in the places of missing values.
fn spread<T: Default>(present: Vec<T>, missing: &[Missing], n: usize) -> Vec<T> {
    if missing.is_empty() {
        return present;
    }
    let mut gone = missing.iter().map(|m| m.at as usize).peekable();
    let mut present = present.into_iter();
    let place =
        |i: usize| if gone.next_if_eq(&i).is_some() { T::default() } else { present.next().unwrap_or_default() };
    (0..n).map(place).collect()
}
