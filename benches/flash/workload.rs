//! The workload: 50 series at 1 Hz in one tick, the same on every machine.
//!
//! | series | value | noise |
//! |---|---|---|
//! | 20 temperatures | 2 decimals, slow swing | ±0.02 |
//! | 5 humidities | 2 decimals, slow swing | ±0.02 |
//! | 10 voltages | 3 decimals | ±0.002 to ±0.005 |
//! | 5 currents | 3 decimals, slow swing | ±0.002 to ±0.005 |
//! | 5 counters | integer | +0 to +6 a tick |
//! | 3 states | integer, a change per about 10 min | none |
//! | 2 pressures | 2 decimals, slow swing | ±0.02 |

use varved::clock::{BootNanos, Now, SECOND, UtcNanos};
use varved::reading::{Kind, Scale, SeriesDef, Value};

/// Series in a tick.
pub(crate) const SERIES: usize = 50;

/// Boottime of tick 0: late enough for a history before it.
const FIRST_BOOT: i64 = 100_000_000 * SECOND;
/// UTC of the same moment.
const FIRST_UTC: i64 = 1_790_000_000 * SECOND;

/// One scheduled moment and what was read at it.
pub(crate) struct Tick {
    /// Its number, which is also the seconds since tick 0; a history before that has negative ones.
    pub second: i64,
    /// As many as [`SERIES`], in the order of [`Workload::defs`].
    pub values: Vec<Value>,
}

impl Tick {
    /// Both clocks at this tick.
    pub(crate) fn now(&self) -> Now {
        now(self.second)
    }
}

/// Both clocks, so many seconds after tick 0.
pub(crate) fn now(second: i64) -> Now {
    Now { boot: BootNanos(FIRST_BOOT + second * SECOND), utc: UtcNanos(FIRST_UTC + second * SECOND), trusted: true }
}

/// Makes ticks, one after the other.
pub(crate) struct Workload {
    sources: Vec<Source>,
    random: Random,
    second: i64,
}

struct Source {
    def: SeriesDef,
    shape: Shape,
}

enum Shape {
    /// A sine of this period around `base`, with noise, rounded to decimals.
    Swing {
        base: f64,
        swing: f64,
        period_s: f64,
        noise: f64,
        decimals: i32,
    },
    Counter(i64),
    State(i64),
}

impl Workload {
    /// The one workload, whose next tick is number `second`. The seed is fixed.
    pub(crate) fn from(second: i64) -> Self {
        let mut random = Random::new();
        let mut sources = Vec::with_capacity(SERIES);
        let mut swings = |group: &str, unit: &str, n: usize, (base, swing): (f64, f64), noise: (f64, f64), decimals| {
            for i in 0..n {
                let shape = Shape::Swing {
                    base: base * random.between(0.8, 1.2),
                    swing: swing * random.between(0.5, 1.0),
                    period_s: random.between(3_600.0, 86_400.0),
                    noise: random.between(noise.0, noise.1),
                    decimals,
                };
                let def =
                    SeriesDef { name: format!("{group}/{i}"), unit: unit.into(), kind: Kind::Float, scale: Scale::ONE };
                sources.push(Source { def, shape });
            }
        };
        swings("temperature", "Cel", 20, (40.0, 8.0), (0.02, 0.02), 2);
        swings("humidity", "%RH", 5, (50.0, 10.0), (0.02, 0.02), 2);
        swings("voltage", "V", 10, (5.0, 0.01), (0.002, 0.005), 3);
        swings("current", "A", 5, (1.0, 0.2), (0.002, 0.005), 3);
        let mut whole = |group: &str, n: usize, shape: fn(i64) -> Shape| {
            for i in 0..n {
                let def =
                    SeriesDef { name: format!("{group}/{i}"), unit: String::new(), kind: Kind::Int, scale: Scale::ONE };
                sources.push(Source { def, shape: shape(i as i64) });
            }
        };
        whole("counter", 5, |i| Shape::Counter(i * 100_000));
        whole("state", 3, Shape::State);
        for i in 0..2 {
            let def =
                SeriesDef { name: format!("pressure/{i}"), unit: "hPa".into(), kind: Kind::Float, scale: Scale::ONE };
            let period_s = 86_400.0 * (i + 1) as f64;
            sources.push(Source {
                def,
                shape: Shape::Swing { base: 1013.0, swing: 5.0, period_s, noise: 0.02, decimals: 2 },
            });
        }
        assert_eq!(sources.len(), SERIES);
        Self { sources, random, second }
    }

    /// What the series are.
    pub(crate) fn defs(&self) -> impl Iterator<Item = &SeriesDef> {
        self.sources.iter().map(|source| &source.def)
    }

    /// The next tick.
    pub(crate) fn tick(&mut self) -> Tick {
        let second = self.second;
        self.second += 1;
        let random = &mut self.random;
        Tick { second, values: self.sources.iter_mut().map(|source| source.shape.at(second, random)).collect() }
    }
}

impl Shape {
    fn at(&mut self, second: i64, random: &mut Random) -> Value {
        match self {
            Self::Swing { base, swing, period_s, noise, decimals } => {
                let phase = *base * 10.0 + std::f64::consts::TAU * second as f64 / *period_s;
                let value = *base + *swing * phase.sin() + random.between(-*noise, *noise);
                let ten = 10f64.powi(*decimals);
                Value::Float((value * ten).round() / ten)
            }
            Self::Counter(count) => {
                *count += (random.next() % 7) as i64;
                Value::Int(*count)
            }
            Self::State(state) => {
                if random.next() % 600 == 0 {
                    *state = (*state + 1 + (random.next() % 3) as i64) % 4;
                }
                Value::Int(*state)
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few lines that give the same numbers everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// From the one seed.
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// So many letters that mean nothing.
    pub(crate) fn text(&mut self, bytes: usize) -> String {
        (0..bytes).map(|_| char::from(b'0' + (self.next() % 64) as u8)).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
}
