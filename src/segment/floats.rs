//! Doubles as columns of integers, bit for bit.
//!
//! What enters: `f64` of any bit pattern. What leaves: a [`Shape`] and one or two columns of integers, and back.
//! Most sensors print decimals: such a value is `q / 10^k`, and `q` is coded. Others multiply a count by a factor, or
//! divide it by one: `q` is the count. What that misses is a distance in units of the last place, and is coded beside it:
//! nearly always 0, so nearly free, and it keeps every NaN, −0.0 and odd value without a list of exceptions. Where nothing
//! of this fits, the double's own bits are the integer, in order of size. All of this is done in single precision where
//! every value of the column came from there.

use super::coder::{Bit, Coder, Number};
use super::numbers::{Model, Role, tree};
use super::plan::estimate;

/// How a column of doubles became integers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Shape {
    /// Every value is one of single precision; places and units in the last place are those of singles.
    single: bool,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// `q / 10^decimals`. Where `significant` is above 0, every `q` has at most so many significant digits and is coded
    /// by its [`rank`] among such numbers: what `%g` prints.
    Decimal { decimals: u32, significant: u32 },
    /// The value's own bits.
    Bits,
    /// `q × factor`.
    Times(f64),
    /// `q / divisor`.
    Over(f64),
}

impl Default for Form {
    fn default() -> Self {
        Self::Decimal { decimals: 0, significant: 0 }
    }
}

/// Powers of ten that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// So many are taken without a look at anything else.
const PLAIN_DECIMALS: u32 = 4;
/// The most decimals that are looked for.
const MAX_DECIMALS: u32 = 17;
/// Integers up to here are exact doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A tree of three decisions in which 0 is the likely one.
const MOSTLY_DECIMAL: [Bit; 8] = {
    let mut tree = [Bit::EVEN; 8];
    tree[1] = Bit::likely(false);
    tree[2] = Bit::likely(false);
    tree[4] = Bit::likely(false);
    tree
};

/// The contexts of [`Shape`]s.
#[derive(Debug, Clone)]
pub(super) struct FloatModel {
    single: Bit,
    form: [Bit; 8],
    decimals: Number,
    significant: Number,
    exact: Bit,
    /// Of the decimal column before: a writer that sees few values is not fooled by a zero at the end of one.
    before: u32,
}

impl FloatModel {
    pub(super) const NEW: Self = Self {
        single: Bit::likely(false),
        form: MOSTLY_DECIMAL,
        decimals: Number::NEW,
        significant: Number::NEW,
        exact: Bit::likely(true),
        before: 0,
    };

    /// Codes a column: a writer leaves `values` as they are, a reader fills them in.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, model: &mut Model, values: &mut [f64]) {
        let (shape, mut ints, mut ulps) = if C::WRITES {
            Shape::split(values, self.before)
        } else {
            (Shape::default(), vec![0; values.len()], vec![0; values.len()])
        };
        let shape = self.shape(coder, shape);
        if let Form::Decimal { decimals, .. } = shape.form {
            self.before = decimals;
        }
        if shape.form == Form::Bits {
            model.code(coder, Role::Bits, &mut ints);
        } else {
            model.code(coder, Role::Floats, &mut ints);
            let exact = ulps.iter().all(|ulp| *ulp == 0);
            if !coder.bit(&mut self.exact, exact) {
                model.code(coder, Role::Ulps, &mut ulps);
            }
        }
        if !C::WRITES {
            shape.join(&ints, &ulps, values);
        }
    }

    fn shape<C: Coder>(&mut self, coder: &mut C, shape: Shape) -> Shape {
        let single = coder.bit(&mut self.single, shape.single);
        let (number, factor) = match shape.form {
            Form::Decimal { significant: 0, .. } => (0, 0.0),
            Form::Decimal { .. } => (1, 0.0),
            Form::Bits => (2, 0.0),
            Form::Times(factor) => (3, factor),
            Form::Over(divisor) => (4, divisor),
        };
        let (decimals, significant) =
            if let Form::Decimal { decimals, significant } = shape.form { (decimals, significant) } else { (0, 0) };
        let number = tree(&mut self.form, coder, number);
        let form = match number {
            0 | 1 => Form::Decimal {
                decimals: self.decimals.code(coder, decimals.into()).min(22) as u32,
                significant: if number == 0 {
                    0
                } else {
                    self.significant.code(coder, significant.into()).min(17) as u32
                },
            },
            3 => Form::Times(f64::from_bits(coder.raw(factor.to_bits(), 64))),
            4 => Form::Over(f64::from_bits(coder.raw(factor.to_bits(), 64))),
            _ => Form::Bits,
        };
        Shape { single, form }
    }
}

type Split = (Shape, Vec<i64>, Vec<i64>);

impl Shape {
    /// The cheapest shape for `values`, with the integers and the units in the last place.
    fn split(values: &[f64], before: u32) -> Split {
        for decimals in plain_decimals(values, before) {
            let shape = Self { single: false, form: Form::Decimal { decimals, significant: 0 } };
            let (ints, ulps) = shape.counts(values);
            if ulps.iter().all(|u| *u == 0) && significant_digits(&ints, &ulps).is_none() {
                return (shape, ints, ulps);
            }
        }
        let single = values.iter().all(|v| f64::from(*v as f32).to_bits() == v.to_bits());
        let mut best: Option<(f32, Split)> = None;
        let mut offer = |(shape, ints, ulps): Split, extra: f32| {
            let cost = estimate(&ints) + estimate(&ulps) + extra;
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, (shape, ints, ulps)));
            }
        };
        for decimals in candidates(values, single) {
            let shape = Self { single, form: Form::Decimal { decimals, significant: 0 } };
            let (ints, ulps) = shape.counts(values);
            let fits = decimals <= if single { 4 } else { 9 } && ulps.iter().all(|u| *u == 0);
            let ranked = significant_digits(&ints, &ulps)
                .map(|significant| Self { single, form: Form::Decimal { decimals, significant } });
            if fits && ranked.is_none() {
                return (shape, ints, ulps);
            }
            if let Some(ranked) = ranked {
                let (ints, ulps) = ranked.counts(values);
                offer((ranked, ints, ulps), 0.0);
            }
            offer((shape, ints, ulps), 0.0);
            if fits {
                return best.map(|(_, split)| split).unwrap_or_default();
            }
        }
        if let Some(form) = factor(values, single) {
            let shape = Self { single, form };
            let (ints, ulps) = shape.counts(values);
            offer((shape, ints, ulps), 64.0);
        }
        let ints = values.iter().map(|v| ordered(*v, single)).collect();
        offer((Self { single, form: Form::Bits }, ints, Vec::new()), 0.0);
        best.map(|(_, split)| split).unwrap_or_default()
    }

    /// About the count that `value` was made of.
    #[inline]
    fn count(&self, value: f64) -> f64 {
        match self.form {
            Form::Decimal { decimals, .. } => value * TENS[decimals as usize],
            Form::Times(factor) => value / factor,
            Form::Over(divisor) => value * divisor,
            Form::Bits => 0.0,
        }
    }

    /// The value that is made of `count`.
    #[inline]
    fn value(&self, count: f64) -> f64 {
        let value = match self.form {
            Form::Decimal { decimals, .. } => count / TENS[decimals as usize],
            Form::Times(factor) => count * factor,
            Form::Over(divisor) => count / divisor,
            Form::Bits => 0.0,
        };
        if self.single { f64::from(value as f32) } else { value }
    }

    fn significant(&self) -> u32 {
        if let Form::Decimal { significant, .. } = self.form { significant } else { 0 }
    }

    fn counts(&self, values: &[f64]) -> (Vec<i64>, Vec<i64>) {
        let significant = self.significant();
        let (mut ints, mut ulps) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        let (mut last, mut last_value) = (0, self.value(0.0));
        for v in values {
            let count = self.count(*v);
            let rounded = (count + 0.5_f64.copysign(count)) as i64;
            if count.abs() < EXACT {
                let coded = if significant > 0 { rank(rounded, significant) } else { Some(rounded) };
                if let Some(coded) = coded {
                    (last, last_value) = (coded, self.value(rounded as f64));
                }
            }
            ints.push(last);
            ulps.push(ordered(*v, self.single).wrapping_sub(ordered(last_value, self.single)));
        }
        (ints, ulps)
    }

    fn join(&self, ints: &[i64], ulps: &[i64], values: &mut [f64]) {
        if self.form == Form::Bits {
            values.iter_mut().zip(ints).for_each(|(v, int)| *v = unordered(*int, self.single));
            return;
        }
        let significant = self.significant();
        for ((v, int), ulp) in values.iter_mut().zip(ints).zip(ulps) {
            let int = if significant > 0 { unrank(*int, significant) } else { *int };
            let near = self.value(int as f64);
            *v = if *ulp == 0 { near } else { unordered(ordered(near, self.single).wrapping_add(*ulp), self.single) };
        }
    }
}

/// The bits as an integer that grows with the value: −0.0 is −1, 0.0 is 0, NaNs are at both ends.
#[inline]
fn ordered(value: f64, single: bool) -> i64 {
    if single {
        let bits = (value as f32).to_bits() as i32;
        return i64::from(if bits < 0 { bits ^ i32::MAX } else { bits });
    }
    let bits = value.to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

#[inline]
fn unordered(int: i64, single: bool) -> f64 {
    if single {
        let int = int as i32;
        return f64::from(f32::from_bits(if int < 0 { int ^ i32::MAX } else { int } as u32));
    }
    f64::from_bits(if int < 0 { int ^ i64::MAX } else { int } as u64)
}

fn is_exact(value: f64, shape: &Shape) -> bool {
    let count = shape.count(value);
    let rounded = (count + 0.5_f64.copysign(count)) as i64;
    count.abs() < EXACT && shape.value(rounded as f64) == value
}

fn least_decimals(value: f64, single: bool) -> Option<u32> {
    let decimal = |decimals| Shape { single, form: Form::Decimal { decimals, significant: 0 } };
    (0..=if single { 10 } else { MAX_DECIMALS }).find(|k| is_exact(value, &decimal(*k)))
}

/// Few decimals that may do for all values: those of the column before where this one is short, then what a sample needs.
fn plain_decimals(values: &[f64], before: u32) -> impl Iterator<Item = u32> {
    let few = |value| least_decimals(value, false).filter(|k| *k <= PLAIN_DECIMALS);
    let needed: Option<Vec<u32>> = sample(values, 16).map(few).collect();
    let most = needed.and_then(|needed| needed.into_iter().max());
    let before = most.filter(|most| values.len() < 4 && *most < before && before <= *most + 2).map(|_| before);
    before.into_iter().chain(most)
}

/// At most `most` of the values, evenly.
fn sample(values: &[f64], most: usize) -> impl Iterator<Item = f64> + use<'_> {
    values.iter().copied().step_by(values.len().div_ceil(most).max(1))
}

/// Numbers of decimals worth trying: what the most demanding value needs, and what nine in ten and half get by with.
fn candidates(values: &[f64], single: bool) -> Vec<u32> {
    let mut some: Vec<u32> = sample(values, 32).filter_map(|v| least_decimals(v, single)).collect();
    some.sort_unstable();
    let mut most = some.last().copied().unwrap_or(0);
    // What the sample did not show; values that are no decimals at all are not looked at for ever.
    let mut looks = 16;
    for v in values {
        if looks > 0 && !is_exact(*v, &Shape { single, form: Form::Decimal { decimals: most, significant: 0 } }) {
            most = least_decimals(*v, single).map_or(most, |k| k.max(most));
            looks -= 1;
        }
    }
    let place = |nth: usize| some.get(some.len() * nth / 10).copied().unwrap_or(0);
    let mut all = vec![most, place(9), place(5)];
    all.dedup();
    all
}

/// The factor or divisor that makes the values of counts; `None` where there is none to see. Euclid on a sample, with
/// several ideas of what is noise, then the neighbours of what it finds and their roundest forms.
fn factor(values: &[f64], single: bool) -> Option<Form> {
    let some: Vec<f64> = sample(values, 64).filter(|v| v.is_finite()).collect();
    let mut sizes: Vec<f64> = some.iter().map(|v| v.abs()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let largest = sizes.last().copied().unwrap_or(0.0);
    if some.len() < 12 || largest == 0.0 {
        return None;
    }
    let few: Vec<f64> = sample(&some, 12).collect();
    let mut best = None;
    for noise in if single { [1e-5, 1e-4, 1e-3] } else { [1e-11, 1e-9, 1e-7] } {
        let common = euclid(&sizes, largest * noise);
        if common <= largest * noise * 8.0 {
            continue;
        }
        for form in forms(refined(&sizes, common), single) {
            let misses = few.iter().filter(|v| !is_exact(**v, &Shape { single, form })).count();
            if best.is_none_or(|(least, _)| misses < least) {
                best = Some((misses, form));
            }
            if misses == 0 {
                return Some(form);
            }
        }
    }
    best.map(|(_, form)| form)
}

/// Euclid over `sizes`, which ascend; what is below `noise` is none. A value that is a multiple of the factor so far makes
/// it more exact, lest errors grow with every division.
fn euclid(sizes: &[f64], noise: f64) -> f64 {
    let mut common = 0.0_f64;
    for size in sizes.iter().filter(|size| **size > noise) {
        let times = (size / common).round();
        if times.is_finite() && (size / common - times).abs() < 0.1 {
            common = size / times;
            continue;
        }
        let mut rest = *size;
        while rest > noise {
            (common, rest) = (rest, (common % rest).min(rest - common % rest));
        }
    }
    common
}

/// A common factor made more exact by ever larger ones of `sizes`: the largest tells the most digits, once it is known
/// how many times the factor is in it.
fn refined(sizes: &[f64], common: f64) -> f64 {
    sizes.iter().fold(common, |common, size| {
        let times = (size / common).round();
        let fits = times >= 1.0 && (size / common - times).abs() < 0.2;
        if fits { size / times } else { common }
    })
}

/// `near` and the likeliest exact forms of it.
fn forms(near: f64, single: bool) -> Vec<Form> {
    let mut forms = Vec::with_capacity(48);
    for digits in 1..=12 {
        forms.extend(to_digits(near, digits).map(Form::Times));
        forms.extend(to_digits(1.0 / near, digits).map(Form::Over));
    }
    let at = ordered(near, single);
    let width = if single { 10 } else { 4 };
    forms.extend((0..=width).flat_map(|by| [at - by, at + by]).map(|int| Form::Times(unordered(int, single))));
    forms
}

/// `value` rounded to so many significant digits.
fn to_digits(value: f64, digits: i32) -> Option<f64> {
    let power = digits - 1 - decade(value);
    let (up, down) = if power >= 0 { (10_f64.powi(power), 1.0) } else { (1.0, 10_f64.powi(-power)) };
    let rounded = (value * up / down).round() / up * down;
    (rounded.is_finite() && rounded != 0.0).then_some(rounded)
}

/// The decimal exponent of a finite `value` other than 0: the floor of its logarithm, or one less for a power of ten that a
/// float can't hold. From the system's library of mathematics it would cost half a megabyte of resident memory.
fn decade(value: f64) -> i32 {
    let value = value.abs();
    let binary = (value.to_bits() >> 52) as i32 - 1023;
    // 78,913 / 2^18 is log10(2) to six digits: right for every exponent, or one too low by the mantissa.
    let low = (binary * 78_913) >> 18;
    low + i32::from(value >= 10_f64.powi(low + 1))
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

    /// The decimal exponent is that of the number as it is written, from the smallest normal float to the largest.
    #[test]
    fn decades_are_those_of_the_digits() {
        let mut bits = f64::MIN_POSITIVE.to_bits();
        while bits < f64::INFINITY.to_bits() {
            let value = -f64::from_bits(bits);
            let written = format!("{value:e}");
            assert_eq!(written.split_once('e').map(|(_, e)| e), Some(decade(value).to_string().as_str()), "{written}");
            bits += 0x0000_1234_5678_9ABC;
        }
        assert!((-22..=22).all(|power| decade(10_f64.powi(power)) == power));
    }

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
        assert!(rising.windows(2).all(|w| ordered(w[0], false) < ordered(w[1], false)));
        for bits in [0, 1, u64::MAX, 1 << 63, 0x7FF8_0000_0000_0001] {
            assert_eq!(unordered(ordered(f64::from_bits(bits), false), false).to_bits(), bits);
        }
    }
}
