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
/// Adaptation has a quarter of a long column's values to show that it gains, but no fewer than this,
const PROBE: usize = 48;
/// and no more.
const MOST: usize = 512;
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
        let whole = ys.len() <= SMALL_WINDOW;
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
        for predictor in most_promising(if ys.len() > WINDOW { window } else { &window[..window.len().min(SHORT)] }) {
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
            let cost = if ys.len() > WINDOW { plan.cost(ys) } else { plan.cost_of_some(ys) };
            offers.push(Offer { price: cost.bits() * (ys.len() - 1) as f32 / cost.n() as f32 + 48.0, plan, cost });
        }
        offers
    }

    /// What the prediction of place `at`, which is not the first, misses, where it does not adapt: as [`Guesser`] has it.
    #[inline]
    fn missed(&self, ys: &[i64], at: usize) -> i64 {
        let guess = match (self.predictor, &ys[at.saturating_sub(4)..at]) {
            (0, _) => 0,
            (1, _) => ys[at - 1],
            (LINE, _) => self.slope.wrapping_mul(at as i64) >> LINE_SHIFT,
            (predictor, before) => {
                let mut y = [0; LAGS];
                y.iter_mut().zip(before.iter().rev()).for_each(|(y, value)| *y = *value);
                let (c, shift) = &PREDICTORS[usize::from(predictor)];
                predict(c, *shift, &y)
            }
        };
        ys[at].wrapping_sub(guess.wrapping_add(self.center))
    }

    fn median(&self, ys: &[i64]) -> i64 {
        let every = ys.len().div_ceil(63).max(1);
        let mut some: Vec<i64> = (1..ys.len()).step_by(every).map(|at| self.missed(ys, at)).collect();
        let middle = some.len() / 2;
        if some.is_empty() { 0 } else { *some.select_nth_unstable(middle).1 }
    }

    /// What it costs without adaptation.
    fn cost(&self, ys: &[i64]) -> Cost {
        let mut cost = Cost::NONE;
        let center = self.center;
        match self.predictor {
            0 => ys[1..].iter().for_each(|now| cost.add(now.wrapping_sub(center))),
            1 => ys.windows(2).for_each(|w| cost.add(w[1].wrapping_sub(w[0].wrapping_add(center)))),
            LINE => (1..ys.len()).for_each(|at| cost.add(self.missed(ys, at))),
            predictor => {
                let (c, shift) = &PREDICTORS[usize::from(predictor)];
                (1..ys.len().min(4)).for_each(|at| cost.add(self.missed(ys, at)));
                for w in ys.windows(5) {
                    let guess = predict(c, *shift, &[w[3], w[2], w[1], w[0], 0]);
                    cost.add(w[4].wrapping_sub(guess.wrapping_add(center)));
                }
            }
        }
        cost
    }

    /// What a line costs at most [`SMALL_WINDOW`] places, evenly.
    fn cost_of_some(&self, ys: &[i64]) -> Cost {
        let mut cost = Cost::NONE;
        (1..ys.len()).step_by(ys.len().div_ceil(SMALL_WINDOW)).for_each(|at| cost.add(self.missed(ys, at)));
        cost
    }

    /// What it costs with adaptation; `None` where it does not get and stay ahead of `offer`: of a long column it is asked
    /// after [`PROBE`] values, and whenever their number has doubled.
    fn adapted(&self, ys: &[i64], beside: &VecDeque<Vec<i64>>, (offer, n): (&Self, usize)) -> Option<Cost> {
        let mut guesser = Guesser::new(self, ys.len(), beside);
        let (mut cost, mut ahead, mut probe) = (Cost::NONE, 0, (n / 4).clamp(PROBE, MOST));
        for (at, now) in ys.iter().enumerate().skip(1) {
            let residual = now.wrapping_sub(guesser.guess());
            guesser.learn(*now);
            cost.add(residual);
            if at > probe / 2 {
                ahead += length(offer.missed(ys, at)) as i32 - length(residual) as i32;
            }
            if at == probe && ys.len() > SHORT {
                // By chance alone it is ahead by the root of their number; where there is time, that is looked into.
                if ahead < if n > WINDOW { 1 } else { (probe.isqrt() / 2) as i32 } {
                    return None;
                }
                (ahead, probe) = (0, probe * 2);
            }
        }
        Some(cost)
    }

    /// Filled in with what the residuals of all values look like.
    fn described(&self, cost: Cost) -> Self {
        let n = cost.n();
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
    let own = if some.len() <= SMALL_WINDOW { offer.cost } else { offer.plan.cost(some) };
    if own.bits() < some.len() as f32 / 2.0 {
        return None;
    }
    let plan = Plan { slope: 0, center: 0, ..offer.plan.described(own) };
    let (place, alike) = most_alike(ys, beside);
    let mut best: Option<(f32, u8, Cost)> = None;
    let mut try_one = |predictor, cost: Cost| {
        if best.is_none_or(|(least, ..)| cost.bits() < least) {
            best = Some((cost.bits(), predictor, cost));
        }
    };
    if alike < CLEARLY || ys.len() <= SHORT {
        let cost = Plan { predictor: ADAPTIVE, ..plan }.adapted(some, &VecDeque::new(), (&offer.plan, ys.len()));
        cost.into_iter().for_each(|cost| try_one(ADAPTIVE, cost));
    }
    if alike > HARDLY {
        let near = VecDeque::from([beside[place][..some.len()].to_vec()]);
        let cost = Plan { predictor: ADAPTIVE + 1, ..plan }.adapted(some, &near, (&offer.plan, ys.len()));
        cost.into_iter().for_each(|cost| try_one(ADAPTIVE + 1 + place as u8, cost));
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
    let owns = own.iter().fold(f32::MIN_POSITIVE, |sum, a| sum + a * a);
    let alike = |z: &[i64]| {
        let (mut both, mut others) = (0.0, 0.0);
        for (a, w) in own.iter().zip(z.windows(2)) {
            let b = w[1].wrapping_sub(w[0]) as f32;
            both += a * b;
            others += b * b;
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
        for (sum, (c, shift)) in lengths.iter_mut().zip(&PREDICTORS) {
            *sum += length(now.wrapping_sub(predict(c, *shift, &y)));
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
/// A column that is not longer than that is short of values to repay a choice: so many, in half as many runs.
const SMALL_WINDOW: usize = 128;

/// What plans are chosen by: runs of the column, evenly, one after another.
fn window(ys: &[i64]) -> Cow<'_, [i64]> {
    if ys.len() <= SMALL_WINDOW {
        return Cow::Borrowed(ys);
    }
    let (window, runs) = if ys.len() > WINDOW { (WINDOW, RUNS) } else { (SMALL_WINDOW, RUNS / 2) };
    let run = window / runs;
    let every = (ys.len() - run) / (runs - 1);
    Cow::Owned((0..runs).flat_map(|i| &ys[i * every..i * every + run]).copied().collect())
}

/// An estimate of what residuals cost: the entropy of their lengths, plus what is below the leading bit, plus signs.
#[derive(Clone, Copy)]
struct Cost {
    lengths: [u32; 65],
    negative: u32,
}

impl Cost {
    const NONE: Self = Self { lengths: [0; 65], negative: 0 };

    fn n(&self) -> u32 {
        self.lengths.iter().sum()
    }

    #[inline]
    fn add(&mut self, residual: i64) {
        self.lengths[length(residual) as usize] += 1;
        self.negative += u32::from(residual < 0);
    }

    /// How often a residual is 0, in the steps of [`Plan::zeros`].
    fn zeros(&self) -> u8 {
        let n = self.n();
        match self.lengths[0] {
            0 => 0,
            z if z == n => 4,
            z if z * 4 <= n => 1,
            z if z * 4 <= n * 3 => 2,
            _ => 3,
        }
    }

    fn bits(&self) -> f32 {
        let n = self.n();
        let mut bits = 0.0;
        for (length, &count) in self.lengths.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = count as f32;
            bits += count * (log2(n as f32 / count) + length.saturating_sub(1) as f32) + 1.5;
        }
        bits + if self.negative > 0 { (n - self.lengths[0]) as f32 } else { 0.0 }
    }
}

/// The length of the magnitude in bits, 0 to 64.
#[inline]
fn length(residual: i64) -> u32 {
    64 - residual.unsigned_abs().leading_zeros()
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

    /// What a plan is said to miss is what the writer will see: a plan that calls a column free of zeros or of signs and is
    /// wrong would lose values.
    #[test]
    fn a_plan_is_judged_by_what_the_writer_will_see() {
        let mut state = 1_u64;
        let mut wild = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state as i64) >> (state >> 58)
        };
        for n in (2..12).chain([600]) {
            let ys: Vec<i64> = std::iter::once(0).chain((1..n).map(|_| wild())).collect();
            for predictor in 0..=LINE {
                let plan = Plan { predictor, slope: 1 << 40, center: 7, step: 1, ..Plan::default() };
                let (mut seen, none) = (Cost::NONE, VecDeque::new());
                let mut guesser = Guesser::new(&plan, n, &none);
                for (at, now) in ys.iter().enumerate().skip(1) {
                    let residual = now.wrapping_sub(guesser.guess());
                    guesser.learn(*now);
                    seen.add(residual);
                    assert_eq!(plan.missed(&ys, at), residual, "predictor {predictor}, place {at} of {n}");
                }
                let said = plan.cost(&ys);
                assert_eq!(
                    (said.lengths, said.negative),
                    (seen.lengths, seen.negative),
                    "predictor {predictor} of {n}"
                );
            }
        }
    }

    /// The logarithm that plans are chosen by is right to four decimals, from 1 to more values than a segment holds.
    #[test]
    fn logarithms_are_close() {
        for value in (0..100_000).map(|i| 1.000_2_f32.powi(i)).take_while(|value| *value < 1e9) {
            assert!((log2(value) - value.log2()).abs() < 1e-4, "{value}: {} and {}", log2(value), value.log2());
        }
        assert_eq!(log2(1.0), 0.0);
    }
}
