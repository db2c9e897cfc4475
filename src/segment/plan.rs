//! How a column of integers is best coded: the choice of [`Plan`].
//!
//! What enters: integers. What leaves: the plan that an estimate calls the cheapest. Only a writer comes here; another
//! choice costs bytes, never truth.

use super::adaptive::LAGS;
use super::numbers::{ADAPTIVE, Divider, Guesser, LINE, LINE_SHIFT, PREDICTORS, Plan, predict};
use std::borrow::Cow;
use std::collections::VecDeque;

/// A column of at most so many values is coded by the cheapest of several plans at the prices of the moment; a longer one
/// by what an estimate calls the cheapest.
const SHORT: usize = 64;
/// So many plans of a short column.
const OFFERS: usize = 2;
/// Fewer values teach an adaptive prediction nothing.
const ADAPTS_FROM: usize = 24;
/// An adaptive prediction is tried on at most this many values.
const TRIED: usize = 2048;
/// A column beside is no help where less than this much of the moves of both is common,
const HARDLY: f32 = 0.03;
/// and surely one from here on.
const CLEARLY: f32 = 0.2;

impl Plan {
    /// The plans worth a look, the cheapest by estimate first; never none. `beside` are the columns before, the newest
    /// first.
    pub(super) fn offers(values: &[i64], beside: &VecDeque<Vec<i64>>) -> Vec<Self> {
        let base = values[0];
        let step = common_step(values);
        let plain = Self { base, step, ..Self::default() };
        if step == 0 {
            return vec![plain];
        }
        let divide = Divider::new(step);
        let ys: Vec<i64> = values.iter().map(|v| divide.exact(v.wrapping_sub(base))).collect();
        let mut offers = plain.simple(&ys);
        offers.sort_by(|a, b| a.price.total_cmp(&b.price));
        offers.truncate(if ys.len() > SHORT { 1 } else { OFFERS });
        let adaptive = if ys.len() >= ADAPTS_FROM { adaptive(&offers[0], &ys, beside) } else { None };
        if adaptive.is_some() && ys.len() > SHORT {
            offers.clear();
        }
        let whole = ys.len() <= WINDOW;
        let simple =
            offers.iter().map(|offer| offer.plan.described(if whole { offer.cost } else { offer.plan.cost(&ys) }));
        simple.chain(adaptive).collect()
    }

    /// Those without adaptation.
    fn simple(&self, ys: &[i64]) -> Vec<Offer> {
        let window = &*window(ys);
        let mut offers = Vec::with_capacity(8);
        let mut offer = |plan: Self, extra: f32| {
            let cost = plan.cost(window);
            offers.push(Offer { price: cost.bits() * ys.len() as f32 / window.len() as f32 + extra, plan, cost });
        };
        for predictor in most_promising(window) {
            offer(Self { predictor, ..*self }, 0.0);
        }
        for predictor in [0, 1] {
            let plan = Self { predictor, ..*self };
            let center = plan.median(window);
            if center != 0 {
                offer(Self { center, ..plan }, 8.0);
            }
        }
        if let Some(slope) = slope(ys) {
            let plan = Self { predictor: LINE, slope, ..*self };
            let plan = Self { center: plan.median(ys), ..plan };
            let cost = plan.cost(ys);
            offers.push(Offer { price: cost.bits() + 48.0, plan, cost });
        }
        offers
    }

    fn residuals<'a>(&self, ys: &'a [i64], beside: &'a VecDeque<Vec<i64>>) -> impl Iterator<Item = i64> + use<'a> {
        let mut guesser = Guesser::new(self, ys.len(), beside);
        ys[1..].iter().map(move |now| {
            let residual = now.wrapping_sub(guesser.guess());
            guesser.learn(*now);
            residual
        })
    }

    fn median(&self, ys: &[i64]) -> i64 {
        let every = ys.len().div_ceil(63).max(1);
        let mut some: Vec<i64> = self.residuals(ys, &VecDeque::new()).step_by(every).collect();
        let middle = some.len() / 2;
        if some.is_empty() { 0 } else { *some.select_nth_unstable(middle).1 }
    }

    fn cost(&self, ys: &[i64]) -> Cost {
        self.cost_beside(ys, &VecDeque::new())
    }

    fn cost_beside(&self, ys: &[i64], beside: &VecDeque<Vec<i64>>) -> Cost {
        let mut cost = Cost { lengths: [0; 65], negative: 0 };
        for residual in self.residuals(ys, beside) {
            cost.lengths[64 - residual.unsigned_abs().leading_zeros() as usize] += 1;
            cost.negative += u32::from(residual < 0);
        }
        cost
    }

    /// Filled in with what the residuals of all values look like.
    fn described(&self, cost: Cost) -> Self {
        let n: u32 = cost.lengths.iter().sum();
        let (mut left, mut usual) = ((n - cost.lengths[0]) / 2, 1);
        while usual < 64 && cost.lengths[usual] <= left {
            left -= cost.lengths[usual];
            usual += 1;
        }
        Self { zeros: cost.zeros(), signed: cost.negative > 0, usual: usual as u8, ..*self }
    }
}

/// A plan, what it costs on the window, and what that says of the whole.
struct Offer {
    price: f32,
    plan: Plan,
    cost: Cost,
}

/// A plan with an adaptive prediction instead of that of `offer`, where it is cheaper.
fn adaptive(offer: &Offer, ys: &[i64], beside: &VecDeque<Vec<i64>>) -> Option<Plan> {
    let some = &ys[..ys.len().min(TRIED)];
    let own = if some.len() <= WINDOW { offer.cost } else { offer.plan.cost(some) };
    if own.bits() < some.len() as f32 / 2.0 {
        return None;
    }
    let plan = Plan { slope: 0, center: 0, ..offer.plan.described(own) };
    let (place, alike) = most_alike(ys, beside);
    let mut best: Option<(f32, u8, Cost)> = None;
    let mut offer = |predictor, cost: Cost| {
        if best.is_none_or(|(least, ..)| cost.bits() < least) {
            best = Some((cost.bits(), predictor, cost));
        }
    };
    if alike < CLEARLY || ys.len() <= SHORT {
        offer(ADAPTIVE, Plan { predictor: ADAPTIVE, ..plan }.cost(some));
    }
    if alike > HARDLY {
        let near = VecDeque::from([beside[place][..some.len()].to_vec()]);
        offer(ADAPTIVE + 1 + place as u8, Plan { predictor: ADAPTIVE + 1, ..plan }.cost_beside(some, &near));
    }
    let (bits, predictor, cost) = best?;
    // What the rest of the column may bring is not known: either sign, and zeros neither always nor never.
    let zeros = cost.zeros().clamp(1, 3);
    (own.bits() - bits > 4.0).then_some(Plan { predictor, zeros, signed: true, ..plan })
}

/// The slope of the line through all values, by least squares; `None` where there are too few, or they are too large.
fn slope(ys: &[i64]) -> Option<i64> {
    let small = |y: &i64| y.unsigned_abs() < 1 << 46;
    if ys.len() < 8 || !ys.iter().all(small) {
        return None;
    }
    let middle = (ys.len() - 1) as f64 / 2.0;
    let (mut above, mut below) = (0.0, 0.0);
    for (i, y) in ys.iter().enumerate() {
        let at = i as f64 - middle;
        above += at * *y as f64;
        below += at * at;
    }
    Some((above / below * f64::from(1 << LINE_SHIFT)) as i64)
}

/// The column beside which moves most with this one, and by the square of the correlation how much, judged by the beginnings
/// of both.
fn most_alike(ys: &[i64], beside: &VecDeque<Vec<i64>>) -> (usize, f32) {
    let moves = |ys: &[i64]| -> Vec<f32> {
        ys[..ys.len().min(96)].windows(2).map(|w| w[1].wrapping_sub(w[0]) as f32).collect()
    };
    let own = moves(ys);
    let alike = |z: &[i64]| {
        let (mut both, mut others, mut owns) = (0.0, 0.0, f32::MIN_POSITIVE);
        for (a, w) in own.iter().zip(z.windows(2)) {
            let b = w[1].wrapping_sub(w[0]) as f32;
            both += a * b;
            others += b * b;
            owns += a * a;
        }
        if others > 0.0 { both / owns * (both / others) } else { 0.0 }
    };
    let fit = beside.iter().enumerate().filter(|(_, z)| z.len() == ys.len()).map(|(place, z)| (place, alike(z)));
    fit.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// The two of the fixed predictors whose residuals are shortest in all, and the first two of the table, which are best for
/// what never falls, for that saves the signs.
fn most_promising(ys: &[i64]) -> impl Iterator<Item = u8> {
    let mut lengths = [0_u32; PREDICTORS.len()];
    let mut y = [0_i64; LAGS];
    for now in &ys[1..] {
        for (length, (c, shift)) in lengths.iter_mut().zip(&PREDICTORS) {
            let residual = now.wrapping_sub(predict(c, *shift, &y));
            *length += 64 - residual.unsigned_abs().leading_zeros();
        }
        y = [*now, y[0], y[1], y[2], y[3]];
    }
    let mut order = [0, 1, 2, 3, 4, 5, 6];
    order.sort_unstable_by_key(|p| (lengths[usize::from(*p)], *p));
    order.into_iter().enumerate().filter(|(place, p)| *place < 2 || *p < 2).map(|(_, p)| p)
}

/// Plans are chosen by at most this many values of a column,
const WINDOW: usize = 384;
/// which are so many runs of it.
const RUNS: usize = 4;

/// What plans are chosen by: runs of the column, evenly, one after another.
fn window(ys: &[i64]) -> Cow<'_, [i64]> {
    if ys.len() <= WINDOW {
        return Cow::Borrowed(ys);
    }
    let run = WINDOW / RUNS;
    let every = (ys.len() - run) / (RUNS - 1);
    Cow::Owned((0..RUNS).flat_map(|i| &ys[i * every..i * every + run]).copied().collect())
}

/// An estimate of what residuals cost: the entropy of their lengths, plus what is below the leading bit, plus signs.
#[derive(Clone, Copy)]
struct Cost {
    lengths: [u32; 65],
    negative: u32,
}

impl Cost {
    /// How often a residual is 0, in the steps of [`Plan::zeros`].
    fn zeros(&self) -> u8 {
        let n: u32 = self.lengths.iter().sum();
        match self.lengths[0] {
            0 => 0,
            z if z == n => 4,
            z if z * 4 <= n => 1,
            z if z * 4 <= n * 3 => 2,
            _ => 3,
        }
    }

    fn bits(&self) -> f32 {
        let n: u32 = self.lengths.iter().sum();
        let mut bits = 0.0;
        for (length, &count) in self.lengths.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = count as f32;
            bits += count * (log2(n as f32 / count) + length.saturating_sub(1) as f32) + 1.5;
        }
        bits + if self.negative > 0 { (n - self.lengths[0]) as f32 } else { 0.0 }
    }
}

/// The binary logarithm of a normal number above 0, to four decimals: the same on every machine, so that plans are; and
/// the system's library of mathematics would cost half a megabyte of resident memory.
fn log2(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000);
    // 2 artanh(s) is the logarithm of (1 + s) / (1 - s).
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let artanh = s * (1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square / 7.0)));
    exponent as f32 + 2.0 * std::f32::consts::LOG2_E * artanh
}

/// About how many bits `values` will take.
pub(super) fn estimate(values: &[i64]) -> f32 {
    let Some((base, step)) = values.first().map(|base| (*base, common_step(values))).filter(|(_, step)| *step > 0)
    else {
        return 0.0;
    };
    let divide = Divider::new(step);
    let ys: Vec<i64> = window(values).iter().map(|v| divide.exact(v.wrapping_sub(base))).collect();
    let bits = |predictor| Plan { base, step, predictor, ..Plan::default() }.cost(&ys).bits();
    let least = [0, 1, 2].into_iter().map(bits).fold(f32::INFINITY, f32::min);
    least * values.len() as f32 / ys.len() as f32
}

/// The greatest common divisor of all differences to the first value; 1 where a difference does not fit 64 bits.
fn common_step(values: &[i64]) -> u64 {
    let base = values[0];
    let mut step = 0_u64;
    for value in values {
        let Some(difference) = value.checked_sub(base).filter(|d| *d != i64::MIN) else { return 1 };
        let mut rest = difference.unsigned_abs();
        if step == 1 || rest == 0 {
            continue;
        }
        while rest != 0 {
            (step, rest) = (rest, step % rest);
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logarithm that plans are chosen by is right to four decimals, from 1 to more values than a segment holds.
    #[test]
    fn logarithms_are_close() {
        for value in (0..100_000).map(|i| 1.000_2_f32.powi(i)).take_while(|value| *value < 1e9) {
            assert!((log2(value) - value.log2()).abs() < 1e-4, "{value}: {} and {}", log2(value), value.log2());
        }
        assert_eq!(log2(1.0), 0.0);
    }
}
