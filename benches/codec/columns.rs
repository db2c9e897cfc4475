//! The reference to beat: plain columns, then zstd 3 over all of it. Stamps are shared by the series that have the same;
//! doubles are scaled integers where so few decimals as nine bring every one back, else their bits XORed; integers are
//! reduced by their base and common divisor, differenced zero to two times, and bit-packed, Rice-coded or written as runs
//! of zeros, whichever is shortest.
//!
//! What enters: rows. What leaves: the length of a payload, once its bytes gave all values back.

use super::set::{Row, Set};
use varved::reading::Kind;

/// What the envelope of a payload adds: the same as for the codec of this project.
const ENVELOPE_BYTES: usize = 26;

/// The length of `rows` as one payload.
pub(crate) fn payload(set: &Set, rows: &[Row], named: bool) -> usize {
    let (mut out, mut timelines) = (Vec::new(), Vec::new());
    let by_series = set.by_series(rows);
    varint(&mut out, by_series.len() as u64);
    if named {
        by_series.iter().for_each(|(series, _)| text(&mut out, &set.names[*series]));
    }
    for (series, rows) in &by_series {
        let stamps: Vec<i64> = rows.iter().map(|row| row.stamp_ms).collect();
        let known = timelines.iter().position(|t| *t == stamps);
        varint(&mut out, *series as u64);
        varint(&mut out, known.unwrap_or(timelines.len()) as u64);
        if known.is_none() {
            ints(&mut out, &stamps);
            timelines.push(stamps);
        }
        match set.kinds[*series] {
            Kind::Int => ints(&mut out, &rows.iter().map(|row| row.int()).collect::<Vec<_>>()),
            _ => floats(&mut out, &rows.iter().map(|row| row.float()).collect::<Vec<_>>()),
        }
    }
    super::zstd3(&out).min(out.len()) + ENVELOPE_BYTES
}

fn text(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn floats(out: &mut Vec<u8>, values: &[f64]) {
    let scaled = |decimals: i32| -> Option<Vec<i64>> {
        let ten = 10_f64.powi(decimals);
        let one = |v: &f64| {
            let int = (v * ten).round();
            (int.abs() < 9e15 && (int / ten).to_bits() == v.to_bits()).then_some(int as i64)
        };
        values.iter().map(one).collect()
    };
    if let Some((decimals, scaled)) = (0..=9).find_map(|k| scaled(k).map(|ints| (k, ints))) {
        out.push(decimals as u8);
        return ints(out, &scaled);
    }
    // Byte by byte over all values: like stands beside like.
    out.push(0xFF);
    let mut before = 0;
    let xored: Vec<u64> = values.iter().map(|v| std::mem::replace(&mut before, v.to_bits()) ^ v.to_bits()).collect();
    (0..8).for_each(|byte| out.extend(xored.iter().map(|x| (x >> (56 - 8 * byte)) as u8)));
}

fn ints(out: &mut Vec<u8>, values: &[i64]) {
    varint(out, values.len() as u64);
    let base = values[0];
    let gcd = values.iter().fold(0, |gcd, v| euclid(gcd, v.wrapping_sub(base).unsigned_abs()));
    varint(out, zigzag(base));
    varint(out, gcd);
    if gcd == 0 {
        return;
    }
    let mut order: Vec<i64> = values.iter().map(|v| v.wrapping_sub(base) / gcd as i64).collect();
    let mut best: Option<Vec<u8>> = None;
    for delta in 0..3_u8 {
        let coded: Vec<u64> = order[1..].iter().map(|v| zigzag(*v)).collect();
        for (way, bytes) in [packed(&coded), rice(&coded), runs(&coded)].into_iter().enumerate() {
            if best.as_ref().is_none_or(|least| bytes.len() + 1 < least.len()) {
                best = Some([&[delta << 4 | way as u8], &bytes[..]].concat());
            }
        }
        for i in (1..order.len()).rev() {
            order[i] = order[i].wrapping_sub(order[i - 1]);
        }
    }
    out.extend(best.unwrap_or_default());
}

fn euclid(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    free: u32,
}

impl Bits {
    fn put(&mut self, value: u64, bits: u32) {
        for at in (0..bits).rev() {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.out.last_mut() {
                *last |= ((value >> at & 1) as u8) << self.free;
            }
        }
    }
}

fn packed(values: &[u64]) -> Vec<u8> {
    let width = 64 - values.iter().fold(0, |all, v| all | v).leading_zeros();
    let mut bits = Bits { out: vec![width as u8], free: 0 };
    values.iter().for_each(|v| bits.put(*v, width));
    bits.out
}

fn rice(values: &[u64]) -> Vec<u8> {
    let length = |k: u32| values.iter().map(|v| (v >> k).min(40) + 1 + u64::from(k)).sum::<u64>();
    let k = (0..40).min_by_key(|k| length(*k)).unwrap_or(0);
    let mut bits = Bits { out: vec![k as u8], free: 0 };
    for value in values {
        let high = value >> k;
        if high < 40 {
            bits.put((1 << high) - 1, high as u32);
            bits.put(0, 1);
            bits.put(value & ((1 << k) - 1), k);
        } else {
            // Too far off: a mark of forty ones, then the value itself.
            bits.put((1 << 40) - 1, 40);
            bits.put(*value, 64);
        }
    }
    bits.out
}

fn runs(values: &[u64]) -> Vec<u8> {
    let (mut out, mut zeros) = (Vec::new(), 0);
    for value in values {
        if *value == 0 {
            zeros += 1;
            continue;
        }
        varint(&mut out, std::mem::take(&mut zeros));
        varint(&mut out, *value);
    }
    varint(&mut out, zeros);
    out
}
