//! Columns of 64-bit integers: stamps, integer values, and what floats, booleans and texts are turned into.
//!
//! What enters: integers. What leaves: bits in a [`Coder`], and back; any `i64` survives, arithmetic wraps on both sides.
//! The first value and the common step of all others to it are taken out, the rest is predicted from its predecessors by
//! one of [`PREDICTORS`], and what the prediction missed is coded by its length in bits, in contexts that adapt. Columns
//! that share a [`Model`] learn from each other: a column of 17 values is too short to learn from itself.

use super::coder::{Bit, Coder, Number};

/// `(c1·y1 + c2·y2 + c3·y3 + c4·y4) >> shift`, of the four values before. The last entry stands for coefficients that the
/// column brings itself, in 64ths.
pub(super) const PREDICTORS: [([i64; 4], u32); 8] = [
    ([0, 0, 0, 0], 0),
    ([1, 0, 0, 0], 0),
    ([2, -1, 0, 0], 0),
    ([3, -1, 0, 0], 1),
    ([1, 1, 0, 0], 1),
    ([3, -3, 1, 0], 0),
    ([1, 1, 1, 1], 2),
    ([0, 0, 0, 0], OWN_SHIFT),
];
pub(super) const OWN: u8 = 7;
pub(super) const OWN_SHIFT: u32 = 6;

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

/// How one column is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// The first value.
    pub(super) base: i64,
    /// Common divisor of all differences to `base`; 0 where every value is `base`.
    pub(super) step: u64,
    /// Index into [`PREDICTORS`].
    pub(super) predictor: u8,
    /// The coefficients where the predictor is [`OWN`].
    pub(super) own: [i64; 4],
    /// Added to every prediction.
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
}
const LEVELS: usize = 9;

#[derive(Debug, Clone)]
struct Params {
    base: Number,
    tens: Number,
    step: Number,
    predictor: [Bit; 8],
    own: Number,
    center: Number,
    usual: Number,
    zeros: [Bit; 8],
    signed: Bit,
}

impl Params {
    const NEW: Self = Self {
        base: Number::NEW,
        tens: Number::NEW,
        step: Number::NEW,
        predictor: [Bit::EVEN; 8],
        own: Number::NEW,
        center: Number::NEW,
        usual: Number::NEW,
        zeros: [Bit::EVEN; 8],
        signed: Bit::EVEN,
    };

    fn code<C: Coder>(&mut self, coder: &mut C, plan: &Plan) -> Plan {
        let mut out = Plan { base: self.base.code_signed(coder, plan.base), ..Plan::default() };
        let tens = if plan.step == 0 { 0 } else { trailing_tens(plan.step) };
        let odd = self.step.code(coder, plan.step / 10_u64.pow(tens));
        if odd == 0 {
            return out;
        }
        let tens = self.tens.code(coder, tens.into()).min(19) as u32;
        out.step = odd.wrapping_mul(10_u64.pow(tens));
        out.predictor = tree3(&mut self.predictor, coder, plan.predictor);
        if out.predictor == OWN {
            for (mine, given) in out.own.iter_mut().zip(plan.own) {
                *mine = self.own.code_signed(coder, given);
            }
        }
        out.center = self.center.code_signed(coder, plan.center);
        out.zeros = tree3(&mut self.zeros, coder, plan.zeros).min(4);
        if out.zeros < 4 {
            out.usual = self.usual.code(coder, plan.usual.into()).clamp(1, 64) as u8;
            out.signed = coder.bit(&mut self.signed, plan.signed);
        }
        out
    }
}

/// Codes a number below 8 through a tree of contexts.
pub(super) fn tree3<C: Coder>(tree: &mut [Bit; 8], coder: &mut C, value: u8) -> u8 {
    let mut node = 1;
    for bit in (0..3).rev() {
        node = node << 1 | usize::from(coder.bit(&mut tree[node], value >> bit & 1 == 1));
    }
    node as u8 & 7
}

fn trailing_tens(mut step: u64) -> u32 {
    let mut tens = 0;
    while step % 10 == 0 && tens < 19 {
        step /= 10;
        tens += 1;
    }
    tens
}

/// What the residuals before say about the next: how long they were against the usual length, and whether they were 0.
struct Past {
    length: [i32; 2],
    /// One bit for each of the last three, the newest lowest.
    zeros: usize,
    sign: usize,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            params: vec![Params::NEW; ROLES],
            zero: [[Bit::EVEN; 8]; 4],
            reach: [Bit::EVEN; LEVELS],
            above: [[Bit::EVEN; 16]; LEVELS],
            below: [[Bit::EVEN; 16]; LEVELS],
            sign: [Bit::EVEN; 3],
            first: [Bit::EVEN; 16],
            second: [[Bit::EVEN; 2]; 16],
        }
    }

    /// Codes a column: a [`super::coder::Writer`] leaves `values` as they are, a [`super::coder::Reader`] fills them in.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, role: Role, values: &mut [i64]) {
        if values.is_empty() {
            return;
        }
        let plan = if C::WRITES { Plan::of(values) } else { Plan::default() };
        let plan = self.params[role as usize].code(coder, &plan);
        if plan.step == 0 {
            values.fill(plan.base);
            return;
        }
        let Some((coefficients, shift)) = plan.coefficients() else { return };
        let mut past = Past { length: [i32::from(plan.usual); 2], zeros: 0, sign: 0 };
        let mut y = [0_i64; 4];
        let divide = Divider::new(plan.step);
        let mut each = values.iter_mut();
        if let Some(first) = each.next() {
            *first = plan.base;
        }
        for value in each {
            let guess = predict(&coefficients, shift, &y).wrapping_add(plan.center);
            let mut residual = 0;
            if C::WRITES {
                let now = divide.exact(value.wrapping_sub(plan.base));
                residual = now.wrapping_sub(guess);
            }
            if plan.zeros < 4 {
                residual = self.residual(coder, &plan, &mut past, residual);
            }
            let now = guess.wrapping_add(residual);
            if !C::WRITES {
                *value = plan.base.wrapping_add(now.wrapping_mul(plan.step as i64));
            }
            y = [now, y[0], y[1], y[2]];
        }
    }

    #[inline]
    fn residual<C: Coder>(&mut self, coder: &mut C, plan: &Plan, past: &mut Past, residual: i64) -> i64 {
        let usual = i32::from(plan.usual);
        let size = residual.unsigned_abs();
        if plan.zeros > 0 {
            let ctx = &mut self.zero[usize::from(plan.zeros)][past.zeros];
            if coder.bit(ctx, size == 0) {
                past.zeros = past.zeros << 1 & 7 | 1;
                past.length = [0, past.length[0]];
                return 0;
            }
            past.zeros = past.zeros << 1 & 7;
        }
        let level = (past.length[0] * 2 + past.length[1] - 3 * usual + 4).clamp(0, LEVELS as i32 - 1) as usize;
        let length = self.length(coder, usual, level, 64 - size.leading_zeros() as i32);
        past.length = [length, past.length[0]];
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
pub(super) fn predict(c: &[i64; 4], shift: u32, y: &[i64; 4]) -> i64 {
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
            1 => difference,
            step => difference.wrapping_div(step as i64),
        }
    }
}

impl Plan {
    /// What the values before are multiplied with, and how far the sum is shifted down.
    pub(super) fn coefficients(&self) -> Option<([i64; 4], u32)> {
        let (table, shift) = PREDICTORS.get(usize::from(self.predictor))?;
        Some((if self.predictor == OWN { self.own } else { *table }, *shift))
    }
}
