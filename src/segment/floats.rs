//! Doubles as columns of integers, bit for bit.
//!
//! What enters: `f64` of any bit pattern. What leaves: a [`Shape`] and one or two columns of integers, and back.
//! Most sensors print decimals: such a value is `q / 10^k`, and `q` is coded. What the quotient misses is a distance in
//! units of the last place, and is coded beside it: nearly always 0, so nearly free, and it keeps every NaN, −0.0 and odd
//! value without a list of exceptions. Where decimals don't fit, the double's own bits are the integer, in order of size.

use super::coder::{Bit, Coder, Number};
use super::numbers::{Model, Role, estimate};

/// How a column of doubles became integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shape {
    /// The doubles' own bits.
    bits: bool,
    /// `k`: values are `q / 10^k`.
    decimals: u32,
    /// Where above 0, every `q` has at most this many significant digits and is coded by its [`rank`] among such numbers:
    /// what `%g` prints.
    significant: u32,
}

/// Powers of ten that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// The most decimals that are looked for.
const MAX_DECIMALS: u32 = 17;
/// Integers up to here are exact doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The contexts of [`Shape`]s.
#[derive(Debug, Clone)]
pub(super) struct FloatModel {
    bits: Bit,
    decimals: Number,
    significant: Number,
}

impl FloatModel {
    pub(super) const NEW: Self = Self { bits: Bit::EVEN, decimals: Number::NEW, significant: Number::NEW };

    /// Codes a column: a writer leaves `values` as they are, a reader fills them in.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, model: &mut Model, values: &mut [f64]) {
        let (shape, mut ints, mut ulps) = if C::WRITES {
            Shape::split(values)
        } else {
            (Shape::default(), vec![0; values.len()], vec![0; values.len()])
        };
        let shape = self.shape(coder, shape);
        model.code(coder, if shape.bits { Role::Bits } else { Role::Floats }, &mut ints);
        if !shape.bits {
            model.code(coder, Role::Ulps, &mut ulps);
        }
        if !C::WRITES {
            shape.join(&ints, &ulps, values);
        }
    }

    fn shape<C: Coder>(&mut self, coder: &mut C, shape: Shape) -> Shape {
        if coder.bit(&mut self.bits, shape.bits) {
            return Shape { bits: true, ..Shape::default() };
        }
        let decimals = self.decimals.code(coder, shape.decimals.into()).min(22) as u32;
        let significant = self.significant.code(coder, shape.significant.into()).min(17) as u32;
        Shape { bits: false, decimals, significant }
    }
}

impl Shape {
    /// The cheapest shape for `values`, with the integers and the units in the last place.
    fn split(values: &[f64]) -> (Self, Vec<i64>, Vec<i64>) {
        let mut best: Option<(f32, (Self, Vec<i64>, Vec<i64>))> = None;
        let mut offer = |shape: Self, ints: Vec<i64>, ulps: Vec<i64>| {
            let cost = estimate(&ints) + estimate(&ulps);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, (shape, ints, ulps)));
            }
        };
        let mut fits = false;
        for decimals in candidates(values) {
            let shape = Self { decimals, ..Self::default() };
            let (ints, ulps) = shape.decimal(values);
            fits |= decimals <= 9 && ulps.iter().all(|u| *u == 0);
            if let Some(significant) = significant_digits(&ints, &ulps) {
                let ranked = Self { significant, ..shape };
                let (ints, ulps) = ranked.decimal(values);
                offer(ranked, ints, ulps);
            }
            offer(shape, ints, ulps);
            if fits {
                break;
            }
        }
        if !fits {
            let ints = values.iter().map(|v| ordered(*v)).collect();
            offer(Self { bits: true, ..Self::default() }, ints, Vec::new());
        }
        best.map_or_else(|| (Self::default(), Vec::new(), Vec::new()), |(_, split)| split)
    }

    fn decimal(&self, values: &[f64]) -> (Vec<i64>, Vec<i64>) {
        let scale = TENS[self.decimals as usize];
        let (mut ints, mut ulps) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        let (mut last, mut last_f) = (0, 0.0);
        for v in values {
            let scaled = v * scale;
            let rounded = (scaled + 0.5_f64.copysign(scaled)) as i64;
            if scaled.abs() < EXACT {
                let coded = if self.significant > 0 { rank(rounded, self.significant) } else { Some(rounded) };
                if let Some(coded) = coded {
                    (last, last_f) = (coded, rounded as f64);
                }
            }
            ints.push(last);
            ulps.push(ordered(*v).wrapping_sub(ordered(last_f / scale)));
        }
        (ints, ulps)
    }

    fn join(&self, ints: &[i64], ulps: &[i64], values: &mut [f64]) {
        if self.bits {
            values.iter_mut().zip(ints).for_each(|(v, int)| *v = unordered(*int));
            return;
        }
        let scale = TENS[self.decimals as usize];
        for ((v, int), ulp) in values.iter_mut().zip(ints).zip(ulps) {
            let int = if self.significant > 0 { unrank(*int, self.significant) } else { *int };
            let near = int as f64 / scale;
            *v = if *ulp == 0 { near } else { unordered(ordered(near).wrapping_add(*ulp)) };
        }
    }
}

/// The double's bits as an integer that grows with the value: −0.0 is −1, 0.0 is 0, NaNs are at both ends.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn unordered(int: i64) -> f64 {
    f64::from_bits(if int < 0 { int ^ i64::MAX } else { int } as u64)
}

fn is_decimal(value: f64, decimals: u32) -> bool {
    let scale = TENS[decimals as usize];
    let scaled = value * scale;
    let rounded = (scaled + 0.5_f64.copysign(scaled)) as i64;
    scaled.abs() < EXACT && rounded as f64 / scale == value
}

fn least_decimals(value: f64) -> Option<u32> {
    (0..=MAX_DECIMALS).find(|k| is_decimal(value, *k))
}

/// Numbers of decimals worth trying: what the most demanding value needs, and what nine in ten get by with.
fn candidates(values: &[f64]) -> Vec<u32> {
    let every = values.len().div_ceil(32).max(1);
    let mut some: Vec<u32> = values.iter().step_by(every).filter_map(|v| least_decimals(*v)).collect();
    some.sort_unstable();
    let mut most = some.last().copied().unwrap_or(0);
    for v in values {
        if !is_decimal(*v, most) {
            most = least_decimals(*v).map_or(most, |k| k.max(most));
        }
    }
    let usual = some.get(some.len() * 9 / 10).copied().unwrap_or(0);
    let mut all = vec![most, usual, some.get(some.len() / 2).copied().unwrap_or(0)];
    all.dedup();
    all
}

/// How many significant digits the exact ones among `ints` have, where that is fewer than the largest has digits.
fn significant_digits(ints: &[i64], ulps: &[i64]) -> Option<u32> {
    let (mut significant, mut longest) = (1, 1);
    for (int, _) in ints.iter().zip(ulps).filter(|(int, ulp)| **ulp == 0 && **int != 0) {
        let mut rest = int.unsigned_abs();
        let digits = rest.ilog10() + 1;
        longest = longest.max(digits);
        if digits <= significant {
            continue;
        }
        let mut zeros = 0;
        while rest % 10 == 0 {
            rest /= 10;
            zeros += 1;
        }
        significant = significant.max(digits - zeros);
        if significant > 9 {
            return None;
        }
    }
    (significant >= 3 && significant < longest).then_some(significant)
}

/// The place of `int` among the integers of at most `digits` significant digits (1..=17); `None` where it has more.
/// Below 10^digits that is the number itself; each decade above has 9 × 10^(digits−1) of them.
fn rank(int: i64, digits: u32) -> Option<i64> {
    let whole = 10_i64.pow(digits);
    let size = int.unsigned_abs() as i64;
    if size < whole {
        return Some(int);
    }
    let decade = size.ilog10() + 1 - digits;
    let unit = 10_i64.pow(decade);
    if size % unit != 0 {
        return None;
    }
    let place = whole + i64::from(decade - 1) * (whole / 10 * 9) + size / unit - whole / 10;
    Some(if int < 0 { -place } else { place })
}

/// The reverse of [`rank`]; a rank beyond all integers gives an arbitrary one.
fn unrank(rank: i64, digits: u32) -> i64 {
    let whole = 10_i64.pow(digits.clamp(1, 17));
    let place = rank.unsigned_abs() as i64;
    if (0..whole).contains(&place) {
        return rank;
    }
    let (decade, in_decade) =
        (place.wrapping_sub(whole) / (whole / 10 * 9) + 1, (place.wrapping_sub(whole)) % (whole / 10 * 9));
    let unit = u32::try_from(decade).ok().and_then(|d| 10_i64.checked_pow(d)).unwrap_or(0);
    let size = in_decade.wrapping_add(whole / 10).wrapping_mul(unit);
    if rank < 0 { size.wrapping_neg() } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks count the numbers of three digits without a gap, and come back.
    #[test]
    fn ranks_count_what_percent_g_prints() {
        assert_eq!([999, 1000, 1010, 9990, 10_000].map(|i| rank(i, 3)), [999, 1000, 1001, 1899, 1900].map(Some));
        assert_eq!(rank(1001, 3), None);
        for place in -9_000..9_000 {
            assert_eq!(rank(unrank(place, 3), 3), Some(place));
        }
        for wild in [i64::MIN, i64::MAX, i64::MIN + 1, 1 << 60] {
            let all: Vec<i64> = (0..20).map(|digits| unrank(wild, digits)).collect();
            assert_eq!(all.len(), 20, "no rank is too wild to be read");
        }
    }

    /// The integer of a double orders as the double does, and every bit pattern comes back.
    #[test]
    fn doubles_and_their_integers_have_one_order() {
        let rising = [f64::NEG_INFINITY, -1.5, -1e-300, -0.0, 0.0, 5e-324, 1.0, 1e300, f64::INFINITY];
        assert!(rising.windows(2).all(|w| ordered(w[0]) < ordered(w[1])));
        for bits in [0, 1, u64::MAX, 1 << 63, 0x7FF8_0000_0000_0001] {
            assert_eq!(unordered(ordered(f64::from_bits(bits))).to_bits(), bits);
        }
    }
}
