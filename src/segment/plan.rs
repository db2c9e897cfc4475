//! How a column of integers is best coded: the choice of [`Plan`].
//!
//! What enters: integers. What leaves: the plan that an estimate calls the cheapest. Only a writer comes here; another
//! choice costs bytes, never truth.

use super::numbers::{Divider, OWN, OWN_SHIFT, PREDICTORS, Plan, predict};
use std::borrow::Cow;

impl Plan {
    /// The cheapest plan for `values` by the estimate of [`Cost`].
    pub(super) fn of(values: &[i64]) -> Self {
        let base = values[0];
        let step = common_step(values);
        if step == 0 {
            return Self { base, ..Self::default() };
        }
        let divide = Divider::new(step);
        let ys: Vec<i64> = values.iter().map(|v| divide.exact(v.wrapping_sub(base))).collect();
        let window = &*window(&ys);
        let plain = Self { base, step, ..Self::default() };
        let mut best: Option<(f32, Self)> = None;
        let mut offer = |plan: Self, extra: f32| {
            let cost = plan.cost(window).bits() + extra;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, plan));
            }
        };
        for predictor in most_promising(window) {
            offer(Self { predictor, ..plain }, 0.0);
        }
        for predictor in [0, 1] {
            let plan = Self { predictor, ..plain };
            offer(Self { center: plan.median(window), ..plan }, 8.0);
        }
        if let Some(own) = own_coefficients(&ys[..ys.len().min(1024)]) {
            let plan = Self { predictor: OWN, own, ..plain };
            offer(Self { center: plan.median(window), ..plan }, 40.0);
        }
        let mut plan = best.map_or(plain, |(_, plan)| plan);
        plan.describe(&ys);
        plan
    }

    fn residuals<'a>(&self, ys: &'a [i64]) -> impl Iterator<Item = i64> + use<'a> {
        let (c, shift) = self.coefficients().unwrap_or_default();
        let center = self.center;
        let mut y = [0_i64; 4];
        ys[1..].iter().map(move |now| {
            let residual = now.wrapping_sub(predict(&c, shift, &y).wrapping_add(center));
            y = [*now, y[0], y[1], y[2]];
            residual
        })
    }

    fn median(&self, ys: &[i64]) -> i64 {
        let every = ys.len().div_ceil(63).max(1);
        let mut some: Vec<i64> = self.residuals(ys).step_by(every).collect();
        let middle = some.len() / 2;
        if some.is_empty() { 0 } else { *some.select_nth_unstable(middle).1 }
    }

    fn cost(&self, ys: &[i64]) -> Cost {
        let mut cost = Cost { lengths: [0; 65], negative: 0 };
        for residual in self.residuals(ys) {
            cost.lengths[64 - residual.unsigned_abs().leading_zeros() as usize] += 1;
            cost.negative += u32::from(residual < 0);
        }
        cost
    }

    /// Fills in what the residuals of all values look like.
    fn describe(&mut self, ys: &[i64]) {
        let cost = self.cost(ys);
        let (n, zeros) = (ys.len() as u32 - 1, cost.lengths[0]);
        self.zeros = match zeros {
            0 => 0,
            z if z == n => 4,
            z if z * 4 <= n => 1,
            z if z * 4 <= n * 3 => 2,
            _ => 3,
        };
        self.signed = cost.negative > 0;
        let (mut left, mut usual) = ((n - zeros) / 2, 1);
        while usual < 64 && cost.lengths[usual] <= left {
            left -= cost.lengths[usual];
            usual += 1;
        }
        self.usual = usual as u8;
    }
}

/// The two of the fixed predictors whose residuals are shortest in all, and the first two of the table, which are best for
/// what never falls, for that saves the signs.
fn most_promising(ys: &[i64]) -> impl Iterator<Item = u8> {
    let mut lengths = [0_u32; OWN as usize];
    let mut y = [0_i64; 4];
    for now in &ys[1..] {
        for (length, (c, shift)) in lengths.iter_mut().zip(&PREDICTORS) {
            let residual = now.wrapping_sub(predict(c, *shift, &y));
            *length += 64 - residual.unsigned_abs().leading_zeros();
        }
        y = [*now, y[0], y[1], y[2]];
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
struct Cost {
    lengths: [u32; 65],
    negative: u32,
}

impl Cost {
    fn bits(&self) -> f32 {
        let n: u32 = self.lengths.iter().sum();
        let mut bits = 0.0;
        for (length, &count) in self.lengths.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = count as f32;
            bits += count * ((n as f32 / count).log2() + length.saturating_sub(1) as f32) + 1.5;
        }
        bits + if self.negative > 0 { (n - self.lengths[0]) as f32 } else { 0.0 }
    }
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

/// Least squares over the four values before, in 64ths; `None` where there are too few values, or they are too large
/// for 64ths of them to be added up.
fn own_coefficients(ys: &[i64]) -> Option<[i64; 4]> {
    let small = |y: &i64| y.unsigned_abs() < 1 << 48;
    if ys.len() < 64 || !ys.iter().all(small) {
        return None;
    }
    let mean = ys.iter().sum::<i64>() as f64 / ys.len() as f64;
    let mut rows = [[0.0_f64; 5]; 4];
    for w in ys.windows(5) {
        let x = [w[3], w[2], w[1], w[0], w[4]].map(|v| v as f64 - mean);
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate().skip(i) {
                *cell += x[i] * x[j];
            }
        }
    }
    for (i, j) in (1..4).flat_map(|i| (0..i).map(move |j| (i, j))) {
        rows[i][j] = rows[j][i];
    }
    (0..4).for_each(|i| rows[i][i] *= 1.0 + 1e-6);
    solve(rows).map(|c| c.map(|c| (c * f64::from(1 << OWN_SHIFT)).round() as i64))
}

/// Gauss, with the largest pivot of each column.
fn solve(mut rows: [[f64; 5]; 4]) -> Option<[f64; 4]> {
    for i in 0..4 {
        let pivot = (i..4).max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() < 1e-9 {
            return None;
        }
        for below in i + 1..4 {
            let (from, factor) = (rows[i], rows[below][i] / rows[i][i]);
            rows[below].iter_mut().zip(from).skip(i).for_each(|(cell, from)| *cell -= factor * from);
        }
    }
    let mut c = [0.0; 4];
    for i in (0..4).rev() {
        let known: f64 = (i + 1..4).map(|j| rows[i][j] * c[j]).sum();
        c[i] = (rows[i][4] - known) / rows[i][i];
    }
    c.iter().all(|c| c.abs() < 16.0).then_some(c)
}
