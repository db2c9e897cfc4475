//! A prediction that learns: recursive least squares over the column itself and, where there is one, a column beside it.
//!
//! What enters: the values before, and what is known of the column beside. What leaves: a guess. It promises that writer and
//! reader compute the same: every operation is one of IEEE 754 doubles in the order of `docs/segment.md`, there is no
//! library of mathematics in it, and whatever becomes of the numbers the guess is some integer. What it does not do: judge
//! whether it is worth its time; the plan does.

/// So many values before are looked at.
pub(super) const LAGS: usize = 5;
/// Inputs: four differences of the column, its last value, and of the column beside the newest difference and the value
/// before it.
const INPUTS: usize = 7;
/// Without a column beside.
const ALONE: usize = 5;
/// What each further value leaves of the weight of those before.
const MEMORY: f64 = 0.998;
/// No guess leaves ± this.
const FAR: f64 = 4_503_599_627_370_496.0;

/// The weights, and how sure they are.
#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    used: usize,
    weights: [f64; INPUTS],
    /// The inverse of the inputs' covariance; symmetric.
    inverse: [[f64; INPUTS]; INPUTS],
    inputs: [f64; INPUTS],
    sum: f64,
}

impl Adaptive {
    /// Nothing learnt. `usual` is the usual length in bits of what a guess misses.
    pub(super) fn new(beside: bool, usual: u8) -> Self {
        let mut inverse = [[0.0; INPUTS]; INPUTS];
        // A power of two, exactly: 4^-usual.
        let trust = f64::from_bits((1023 - 2 * u64::from(usual)) << 52);
        (0..INPUTS).for_each(|i| inverse[i][i] = trust);
        let used = if beside { INPUTS } else { ALONE };
        Self { used, weights: [0.0; INPUTS], inverse, inputs: [0.0; INPUTS], sum: 0.0 }
    }

    /// The next value of a column whose last values are `y`, the newest first; `z` is what the column beside has in the
    /// same place and the one before.
    #[inline]
    pub(super) fn guess(&mut self, y: &[i64; LAGS], z: &[i64; 2]) -> i64 {
        let less = |a: i64, b: i64| a.wrapping_sub(b) as f64;
        self.inputs = [
            less(y[0], y[1]),
            less(y[1], y[2]),
            less(y[2], y[3]),
            less(y[3], y[4]),
            y[0] as f64,
            less(z[0], z[1]),
            z[1] as f64,
        ];
        self.sum = if self.used == INPUTS { self.sum_of::<INPUTS>() } else { self.sum_of::<ALONE>() };
        y[0].wrapping_add(rounded(self.sum))
    }

    fn sum_of<const N: usize>(&self) -> f64 {
        let mut sum = 0.0;
        for i in 0..N {
            sum += self.weights[i] * self.inputs[i];
        }
        sum
    }

    /// What the difference to the value before came to.
    #[inline]
    pub(super) fn learn(&mut self, difference: i64) {
        let missed = difference as f64 - self.sum;
        if self.used == INPUTS { self.learn_by::<INPUTS>(missed) } else { self.learn_by::<ALONE>(missed) }
    }

    fn learn_by<const N: usize>(&mut self, missed: f64) {
        let mut gain = [0.0; N];
        let mut of_inputs = MEMORY;
        for (row, input) in self.inverse.iter().zip(self.inputs).take(N) {
            gain.iter_mut().zip(row).for_each(|(gain, cell)| *gain += cell * input);
        }
        for (gain, input) in gain.iter().zip(self.inputs) {
            of_inputs += gain * input;
        }
        let share = 1.0 / of_inputs;
        for i in 0..N {
            let by = gain[i] * share;
            self.weights[i] += by * missed;
            for (j, gain) in gain.iter().enumerate().take(i + 1) {
                let now = (self.inverse[i][j] - by * gain) * (1.0 / MEMORY);
                self.inverse[i][j] = now;
                self.inverse[j][i] = now;
            }
        }
    }
}

/// The nearest integer, of two the higher one; 0 for what is no number.
#[inline]
fn rounded(value: f64) -> i64 {
    let value = (value + 0.5).clamp(-FAR, FAR);
    let whole = value as i64;
    whole - i64::from(whole as f64 > value)
}
