//! Columns of 64-bit integers: stamps, integer values, and what floats, booleans and texts are turned into.
//!
//! What enters: integers. What leaves: bits in a [`Coder`], and back; any `i64` survives, arithmetic wraps on both sides.
//! The first value and the common step of all others to it are taken out, the rest is predicted from its predecessors, or
//! from a line, or by what [`super::adaptive`] has learnt from it and a column before it; what the prediction missed is
//! coded by its length in bits, in contexts that adapt. Columns that share a [`Model`] learn from each other: a column of
//! 17 values is too short to learn from itself.

use super::adaptive::{Adaptive, LAGS};
use super::coder::{Bit, Coder, Meter, Number};
use std::collections::VecDeque;

/// `(c1·y1 + c2·y2 + c3·y3 + c4·y4) >> shift`, of the four values before.
pub(super) const PREDICTORS: [([i64; 4], u32); 7] = [
    ([0, 0, 0, 0], 0),
    ([1, 0, 0, 0], 0),
    ([2, -1, 0, 0], 0),
    ([3, -1, 0, 0], 1),
    ([1, 1, 0, 0], 1),
    ([3, -3, 1, 0], 0),
    ([1, 1, 1, 1], 2),
];
/// After those of the table: a line through the first value.
pub(super) const LINE: u8 = 7;
/// The line's slope is in so many binary digits after the point.
pub(super) const LINE_SHIFT: u32 = 16;
/// From here on: [`Adaptive`], beside the column so many places before as the number is above this.
pub(super) const ADAPTIVE: u8 = 8;
/// So many columns before are at hand,
pub(super) const BESIDE: usize = 7;
/// of at most so many values each.
const BESIDE_VALUES: usize = 4096;

/// What the parameters of a column belong to; each learns apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Stamps = 0,
    Ints = 1,
    Floats = 2,
    Ulps = 3,
    Bits = 4,
    Words = 5,
    Bools = 6,
}
const ROLES: usize = 7;

impl Role {
    /// Whether other columns may be beside such a one.
    fn is_beside(self) -> bool {
        matches!(self, Self::Ints | Self::Floats | Self::Bits)
    }
}

/// How one column is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// The first value.
    pub(super) base: i64,
    /// Common divisor of all differences to `base`; 0 where every value is `base`.
    pub(super) step: u64,
    /// Index into [`PREDICTORS`], [`LINE`], or [`ADAPTIVE`] and above.
    pub(super) predictor: u8,
    /// Of the line, in 2^-[`LINE_SHIFT`].
    pub(super) slope: i64,
    /// Added to every prediction; 0 where the predictor adapts.
    pub(super) center: i64,
    /// The usual length in bits of a residual that is not 0.
    pub(super) usual: u8,
    /// How often a residual is 0: 0 never, 1 up to a quarter, 2 up to three quarters, 3 more, 4 always.
    pub(super) zeros: u8,
    /// Whether any residual is negative.
    pub(super) signed: bool,
}

/// The contexts of a chunk of columns.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// By role; on the heap, since a thread's stack may be small.
    params: Vec<Params>,
    zero: [[Bit; 8]; 4],
    reach: [Bit; LEVELS],
    above: [[Bit; 16]; LEVELS],
    below: [[Bit; 16]; LEVELS],
    sign: [Bit; 3],
    first: [Bit; 16],
    second: [[Bit; 2]; 16],
    /// The reduced values of the last columns that others may be beside, the newest first.
    beside: VecDeque<Vec<i64>>,
}
const LEVELS: usize = 9;

#[derive(Debug, Clone)]
struct Params {
    base: Number,
    tens: Number,
    step: Number,
    predictor: [Bit; 16],
    slope: Number,
    center: Number,
    usual: Number,
    zeros: [Bit; 8],
    signed: Bit,
}

impl Params {
    const NEW: Self = Self {
        base: Number::NEW,
        tens: Number::likely(0),
        step: Number::likely(1),
        predictor: [Bit::EVEN; 16],
        slope: Number::NEW,
        center: Number::likely(0),
        usual: Number::NEW,
        zeros: [Bit::EVEN; 8],
        signed: Bit::EVEN,
    };

    fn code<C: Coder>(&mut self, coder: &mut C, role: Role, plan: &Plan, n: usize) -> Plan {
        let mut out = Plan { base: self.base(coder, role, plan.base), ..Plan::default() };
        if n == 1 {
            return out;
        }
        let tens = if plan.step == 0 { 0 } else { trailing_tens(plan.step) };
        let odd = self.step.code(coder, plan.step / 10_u64.pow(tens));
        if odd == 0 {
            return out;
        }
        let tens = self.tens.code(coder, tens.into()).min(19) as u32;
        out.step = odd.wrapping_mul(10_u64.pow(tens));
        out.predictor = tree(&mut self.predictor, coder, plan.predictor);
        if out.predictor == LINE {
            out.slope = self.slope.code_signed(coder, plan.slope);
        }
        if out.predictor < ADAPTIVE {
            out.center = self.center.code_signed(coder, plan.center);
        }
        out.zeros = tree(&mut self.zeros, coder, plan.zeros).min(4);
        if out.zeros < 4 {
            out.usual = self.usual.code(coder, plan.usual.into()).clamp(1, 64) as u8;
            out.signed = coder.bit(&mut self.signed, plan.signed);
        }
        out
    }

    /// Stamps are nanoseconds, and mostly whole seconds or milliseconds.
    fn base<C: Coder>(&mut self, coder: &mut C, role: Role, base: i64) -> i64 {
        if role != Role::Stamps {
            return self.base.code_signed(coder, base);
        }
        let tens = if base == 0 { 0 } else { trailing_tens(base.unsigned_abs()).min(18) };
        let tens = self.tens.code(coder, tens.into()).min(18) as u32;
        let unit = 10_i64.pow(tens);
        self.base.code_signed(coder, base / unit).wrapping_mul(unit)
    }
}

/// Codes a number below `N` (a power of 2) through a tree of contexts.
pub(super) fn tree<const N: usize, C: Coder>(tree: &mut [Bit; N], coder: &mut C, value: u8) -> u8 {
    let mut node = 1;
    for bit in (0..N.ilog2()).rev() {
        node = node << 1 | usize::from(coder.bit(&mut tree[node], value >> bit & 1 == 1));
    }
    (node - N) as u8
}

fn trailing_tens(mut step: u64) -> u32 {
    let mut tens = 0;
    while step % 10 == 0 && tens < 19 {
        step /= 10;
        tens += 1;
    }
    tens
}

/// What the residuals before say about the next: how long they were, whether they were 0, and on which side.
struct Past {
    /// The mean length, in 64ths of a bit, of which the newest is an eighth.
    length: i32,
    /// One bit for each of the last three, the newest lowest.
    zeros: usize,
    sign: usize,
}

/// What is expected of the next value.
pub(super) struct Guesser<'a> {
    way: Way<'a>,
    center: i64,
    /// The values before, the newest first.
    y: [i64; LAGS],
    at: usize,
}

enum Way<'a> {
    Table([i64; 4], u32),
    Line(i64),
    Adaptive(Box<Adaptive>, Option<&'a [i64]>),
}

impl<'a> Guesser<'a> {
    /// Of a column of `n` values. `beside` are the columns before, the newest first.
    pub(super) fn new(plan: &Plan, n: usize, beside: &'a VecDeque<Vec<i64>>) -> Self {
        let way = match PREDICTORS.get(usize::from(plan.predictor)) {
            Some((c, shift)) => Way::Table(*c, *shift),
            None if plan.predictor < ADAPTIVE => Way::Line(plan.slope),
            None => {
                let back = usize::from(plan.predictor - ADAPTIVE);
                let beside = back.checked_sub(1).and_then(|place| beside.get(place)).filter(|z| z.len() == n);
                Way::Adaptive(Box::new(Adaptive::new(beside.is_some(), plan.usual)), beside.map(Vec::as_slice))
            }
        };
        Self { way, center: plan.center, y: [0; LAGS], at: 0 }
    }

    /// The next value.
    #[inline]
    pub(super) fn guess(&mut self) -> i64 {
        self.at += 1;
        let guess = match &mut self.way {
            Way::Table(c, shift) => predict(c, *shift, &self.y),
            Way::Line(slope) => slope.wrapping_mul(self.at as i64) >> LINE_SHIFT,
            Way::Adaptive(adaptive, z) => {
                let z = z.map_or([0; 2], |z| [z[self.at], z[self.at - 1]]);
                adaptive.guess(&self.y, &z)
            }
        };
        guess.wrapping_add(self.center)
    }

    /// What it was.
    #[inline]
    pub(super) fn learn(&mut self, now: i64) {
        if let Way::Adaptive(adaptive, _) = &mut self.way {
            adaptive.learn(now.wrapping_sub(self.y[0]));
        }
        self.y.copy_within(..LAGS - 1, 1);
        self.y[0] = now;
    }
}

impl Model {
    pub(super) fn new() -> Self {
        // One is made and copied: making seven took half of the time that reading a small segment takes.
        let mut params = vec![Params::NEW; ROLES];
        // Stamps and their steps are mostly whole seconds.
        params[Role::Stamps as usize].tens = Number::likely(4);
        Self {
            params,
            zero: [[Bit::EVEN; 8]; 4],
            reach: [Bit::EVEN; LEVELS],
            above: [[Bit::EVEN; 16]; LEVELS],
            below: [[Bit::EVEN; 16]; LEVELS],
            sign: [Bit::EVEN; 3],
            first: [Bit::EVEN; 16],
            second: [[Bit::EVEN; 2]; 16],
            beside: VecDeque::new(),
        }
    }

    /// Codes a column: a [`super::coder::Writer`] leaves `values` as they are, a [`super::coder::Reader`] fills them in.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, role: Role, values: &mut [i64]) {
        if values.is_empty() {
            return;
        }
        let plan = if C::WRITES { self.plan(role, values) } else { Plan::default() };
        self.code_by(coder, role, plan, values);
    }

    /// As [`Model::code`], by this plan, which a reader replaces by what it reads.
    fn code_by<C: Coder>(&mut self, coder: &mut C, role: Role, plan: Plan, values: &mut [i64]) {
        let plan = self.params[role as usize].code(coder, role, &plan, values.len());
        if plan.step == 0 {
            values.fill(plan.base);
            return;
        }
        let beside = std::mem::take(&mut self.beside);
        let mut guesser = Guesser::new(&plan, values.len(), &beside);
        let divide = Divider::new(plan.step);
        if C::WRITES {
            let next = |value: i64| divide.exact(value.wrapping_sub(plan.base));
            self.residuals(coder, &plan, &mut guesser, values[1..].iter().map(|value| next(*value)), |_| ());
        } else {
            values[0] = plan.base;
            let mut rest = values[1..].iter_mut();
            let n = rest.len();
            let put = |now: i64| {
                if let Some(value) = rest.next() {
                    *value = plan.base.wrapping_add(now.wrapping_mul(plan.step as i64));
                }
            };
            self.residuals(coder, &plan, &mut guesser, std::iter::repeat_n(0, n), put);
        }
        self.beside = beside;
        self.keep(role, &plan, values);
    }

    /// Codes what the guesses missed; `put` has each value.
    fn residuals<C: Coder>(
        &mut self,
        coder: &mut C,
        plan: &Plan,
        guesser: &mut Guesser<'_>,
        values: impl Iterator<Item = i64>,
        mut put: impl FnMut(i64),
    ) {
        let mut past = Past { length: i32::from(plan.usual) * 64, zeros: 0, sign: 0 };
        for value in values {
            let guess = guesser.guess();
            let mut residual = if C::WRITES { value.wrapping_sub(guess) } else { 0 };
            if plan.zeros < 4 {
                residual = self.residual(coder, plan, &mut past, residual);
            }
            let now = guess.wrapping_add(residual);
            put(now);
            guesser.learn(now);
        }
    }

    /// The reduced values of a column that is coded, for those that come after.
    fn keep(&mut self, role: Role, plan: &Plan, values: &[i64]) {
        if !role.is_beside() || values.len() > BESIDE_VALUES {
            return;
        }
        let divide = Divider::new(plan.step);
        self.beside.truncate(BESIDE - 1);
        self.beside.push_front(values.iter().map(|value| divide.exact(value.wrapping_sub(plan.base))).collect());
    }

    /// The cheapest of what [`Plan::offers`] names, at the prices of now where the column is short.
    fn plan(&mut self, role: Role, values: &[i64]) -> Plan {
        let none = VecDeque::new();
        let beside = std::mem::take(&mut self.beside);
        let offers = Plan::offers(values, if role.is_beside() { &beside } else { &none });
        let mut least = (f32::INFINITY, Plan::default());
        for plan in &offers {
            let price = if offers.len() == 1 { 0.0 } else { self.price(role, plan, values, &beside) };
            if price < least.0 {
                least = (price, *plan);
            }
        }
        self.beside = beside;
        least.1
    }

    fn price(&mut self, role: Role, plan: &Plan, values: &[i64], beside: &VecDeque<Vec<i64>>) -> f32 {
        let mut meter = Meter::default();
        self.params[role as usize].code(&mut meter, role, plan, values.len());
        let divide = Divider::new(plan.step);
        let next = |value: &i64| divide.exact(value.wrapping_sub(plan.base));
        let mut guesser = Guesser::new(plan, values.len(), beside);
        self.residuals(&mut meter, plan, &mut guesser, values[1..].iter().map(next), |_| ());
        meter.bits()
    }

    #[inline]
    fn residual<C: Coder>(&mut self, coder: &mut C, plan: &Plan, past: &mut Past, residual: i64) -> i64 {
        let usual = i32::from(plan.usual);
        let size = residual.unsigned_abs();
        if plan.zeros > 0 {
            let ctx = &mut self.zero[usize::from(plan.zeros)][past.zeros];
            if coder.bit(ctx, size == 0) {
                past.zeros = past.zeros << 1 & 7 | 1;
                past.length -= past.length >> 3;
                return 0;
            }
            past.zeros = past.zeros << 1 & 7;
        }
        let level = (((past.length - 64 * usual) * 2 + 288) >> 6).clamp(0, LEVELS as i32 - 1) as usize;
        let length = self.length(coder, usual, level, 64 - size.leading_zeros() as i32);
        past.length += (64 * length - past.length) >> 3;
        let mut negative = residual < 0;
        if plan.signed {
            negative = coder.bit(&mut self.sign[past.sign], negative);
            past.sign = 1 + usize::from(negative);
        } else {
            negative = false;
        }
        let size = self.mantissa(coder, usual, length, size) as i64;
        if negative { size.wrapping_neg() } else { size }
    }

    /// The length of a residual that is not 0, 1..=64: in unary, away from the usual one.
    #[inline]
    fn length<C: Coder>(&mut self, coder: &mut C, usual: i32, level: usize, length: i32) -> i32 {
        let mut at = usual;
        if usual == 1 || coder.bit(&mut self.reach[level], length >= usual) {
            while at < 64 && coder.bit(&mut self.above[level][(at - usual).min(15) as usize], length > at) {
                at += 1;
            }
        } else {
            at -= 1;
            while at > 1 && coder.bit(&mut self.below[level][(usual - at).min(15) as usize], length < at) {
                at -= 1;
            }
        }
        at
    }

    /// What is below the leading bit: two bits in contexts, the rest raw.
    #[inline]
    fn mantissa<C: Coder>(&mut self, coder: &mut C, usual: i32, length: i32, size: u64) -> u64 {
        if length < 2 {
            return 1;
        }
        let (near, low) = ((length - usual + 8).clamp(0, 15) as usize, length as u32 - 2);
        let first = coder.bit(&mut self.first[near], size >> low & 1 == 1);
        let top = 2 | u64::from(first);
        if low == 0 {
            return top;
        }
        let low = low - 1;
        let second = coder.bit(&mut self.second[near][usize::from(first)], size >> low & 1 == 1);
        let top = top << 1 | u64::from(second);
        top << low | coder.raw(size & ((1 << low) - 1), low)
    }
}

#[inline]
pub(super) fn predict(c: &[i64; 4], shift: u32, y: &[i64; LAGS]) -> i64 {
    let pairs = c[0].wrapping_mul(y[0]).wrapping_add(c[1].wrapping_mul(y[1]));
    pairs.wrapping_add(c[2].wrapping_mul(y[2])).wrapping_add(c[3].wrapping_mul(y[3])) >> shift
}

/// Division by a common step, skipped where the step is 1.
pub(super) struct Divider(u64);

impl Divider {
    pub(super) fn new(step: u64) -> Self {
        Self(step)
    }

    #[inline]
    pub(super) fn exact(&self, difference: i64) -> i64 {
        match self.0 {
            0 | 1 => difference,
            step => difference.wrapping_div(step as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::coder::{Reader, Writer};

    /// Whatever plan a column is coded by, and however little it suits the column, every integer comes back: a prediction
    /// that runs out of all numbers is as wrong on both sides.
    #[test]
    fn any_plan_brings_any_integer_back() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as i64
        };
        let mut wild =
            || [i64::MIN, i64::MAX, 0, random() << 11, random() % 1_000][random().unsigned_abs() as usize % 5];
        let first: Vec<i64> = (0..200).map(|_| wild()).collect();
        for predictor in 0..16 {
            let second: Vec<i64> = (0..200).map(|_| wild()).collect();
            let plan = |base| Plan {
                base,
                step: 1,
                predictor,
                slope: 1 << 40,
                center: if predictor < ADAPTIVE { 7 } else { 0 },
                usual: 30,
                zeros: 1,
                signed: true,
            };
            let (mut w, mut model) = (Writer::new(), Model::new());
            for values in [&first, &second] {
                model.code_by(&mut w, Role::Ints, plan(values[0]), &mut values.clone());
            }
            let bytes = w.finish();
            let (mut r, mut model) = (Reader::new(&bytes), Model::new());
            for values in [&first, &second] {
                let mut read = vec![0; values.len()];
                model.code_by(&mut r, Role::Ints, Plan::default(), &mut read);
                assert_eq!(&read, values, "predictor {predictor}");
            }
        }
    }

    /// A column is cheaper beside one that it follows, and stamps that are rounded from an even pace cost next to nothing.
    #[test]
    fn a_column_learns_from_one_beside_it() {
        let mut state = 5_u64;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i64 % 500
        };
        let wind: Vec<i64> = (0..400).map(|_| 5_000 + noise()).collect();
        let other: Vec<i64> = wind.iter().map(|v| v * 9 / 10 + noise() / 100).collect();
        let length = |columns: &[(&Vec<i64>, Role)]| {
            let (mut w, mut model) = (Writer::new(), Model::new());
            columns.iter().for_each(|(values, role)| model.code(&mut w, *role, &mut values.to_vec()));
            w.finish().len()
        };
        let (alone, both) = (length(&[(&wind, Role::Ints)]), length(&[(&wind, Role::Ints), (&other, Role::Ints)]));
        assert!(both < alone * 8 / 5, "{alone} alone, {both} with another");
        let stamps: Vec<i64> = (0..400).map(|i| 1_700_000_000_000 + i * 1_000 / 360).collect();
        assert!(length(&[(&stamps, Role::Stamps)]) < 40);
    }
}
