//! All chance of a story, from its seed: SplitMix64 (Steele, Lea, Flood 2014), which tells the same story everywhere.

/// See the room.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

/// One step of SplitMix64's output function; also what readings are summed up with.
pub(super) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Evenly from `0..below`.
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.word() % below.max(1)
    }

    /// Evenly from `from..=to`.
    pub(super) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.roll((to - from).unsigned_abs() + 1) as i64
    }

    /// From `from..=to`, each doubling as likely as the next: mostly short, now and then long.
    pub(super) fn spread(&mut self, from: i64, to: i64) -> i64 {
        let doublings = (to as f64 / from as f64).log2();
        let share = self.roll(1 << 30) as f64 / (1u64 << 30) as f64;
        (from as f64 * (share * doublings).exp2()) as i64
    }

    pub(super) fn per_mille(&mut self, chance: u64) -> bool {
        self.roll(1000) < chance
    }
}
