//! The entropy coder: an adaptive binary range coder, the one of LZMA with finer probabilities.
//!
//! What enters: bits with a context ([`Bit`]) or without one. What leaves: bytes, and back. [`Writer`] and [`Reader`] are
//! two sides of one trait, so that everything above is written once: the writer returns what it was given, the reader
//! ignores that and returns what it read. A reader never fails and never reads past its bytes (it sees zeros there); the
//! caller judges what it reads.

/// One adaptive probability: of a 0, in 65,536ths, and how many bits it has seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bit {
    p: u16,
    seen: u8,
}

/// A context that has seen this many bits no longer adapts faster than 1 in `SEEN_LIMIT` + 1.5.
const SEEN_LIMIT: usize = 64;
/// No probability leaves `P_MIN..=65,536 − P_MIN`.
const P_MIN: i32 = 48;

/// `65,536 / (seen + 1.5)`: a context begins as a count of what it saw, then forgets slowly.
static RATE: [i32; SEEN_LIMIT + 1] = {
    let mut rate = [0; SEEN_LIMIT + 1];
    let mut seen = 0;
    while seen <= SEEN_LIMIT {
        rate[seen] = (2 * 65_536 / (2 * seen + 3)) as i32;
        seen += 1;
    }
    rate
};

impl Bit {
    /// Both outcomes equally likely, nothing seen.
    pub(super) const EVEN: Self = Self { p: 1 << 15, seen: 0 };

    /// A context that begins as if it had seen a few of `bit`.
    pub(super) const fn likely(bit: bool) -> Self {
        Self { p: if bit { 3 << 9 } else { 125 << 9 }, seen: 6 }
    }

    #[inline]
    fn learn(&mut self, bit: bool) {
        let target = if bit { P_MIN } else { 65_536 - P_MIN };
        let p = i32::from(self.p);
        self.p = (p + (((target - p) * (RATE[self.seen as usize] >> 1)) >> 15)) as u16;
        self.seen += u8::from((self.seen as usize) < SEEN_LIMIT);
    }
}

/// Either direction.
pub(super) trait Coder {
    /// Whether this side writes.
    const WRITES: bool;

    /// Codes `bit` in the context `ctx`.
    fn bit(&mut self, ctx: &mut Bit, bit: bool) -> bool;

    /// Codes the low `bits` (0..=16) bits of `value`, all equally likely.
    fn raw16(&mut self, value: u32, bits: u32) -> u32;

    /// Codes the low `bits` (0..=64) bits of `value`, all equally likely.
    #[inline]
    fn raw(&mut self, value: u64, bits: u32) -> u64 {
        let (mut left, mut out) = (bits, 0);
        while left > 0 {
            let step = left.min(16);
            left -= step;
            out = out << step | u64::from(self.raw16((value >> left) as u32 & ((1 << step) - 1), step));
        }
        out
    }
}

/// Writes a stream of bits.
#[derive(Debug)]
pub(super) struct Writer {
    low: u64,
    range: u32,
    cache: u8,
    pending: u32,
    begun: bool,
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { low: 0, range: u32::MAX, cache: 0, pending: 0, begun: false, out: Vec::new() }
    }

    /// Moves the top byte out; a run of 0xFF waits, since a carry may still turn it over.
    #[inline]
    fn shift(&mut self) {
        if self.low < 0xFF00_0000 || self.low > 0xFFFF_FFFF {
            let carry = (self.low >> 32) as u8;
            if self.begun {
                self.out.push(self.cache.wrapping_add(carry));
            }
            self.begun = true;
            for _ in 0..std::mem::take(&mut self.pending) {
                self.out.push(0xFF_u8.wrapping_add(carry));
            }
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00FF_FFFF) << 8;
    }

    /// The bytes: the shortest that name a number inside the final interval, without trailing zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let end = self.low + u64::from(self.range);
        let best = (0..=31).rev().map(|s| (1_u64 << s) - 1).map(|mask| (self.low + mask) & !mask).find(|v| *v < end);
        self.low = best.unwrap_or(self.low);
        for _ in 0..5 {
            self.shift();
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

impl Coder for Writer {
    const WRITES: bool = true;

    #[inline]
    fn bit(&mut self, ctx: &mut Bit, bit: bool) -> bool {
        let bound = (self.range >> 16) * u32::from(ctx.p);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        ctx.learn(bit);
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
        bit
    }

    #[inline]
    fn raw16(&mut self, value: u32, bits: u32) -> u32 {
        self.range >>= bits;
        self.low += u64::from(self.range) * u64::from(value);
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
        value
    }
}

/// Adds up what a [`Writer`] would write, in bits, and learns nothing: a price by the contexts as they are.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// In 256ths of a bit.
    cost: u64,
}

impl Meter {
    pub(super) fn bits(&self) -> f32 {
        self.cost as f32 / 256.0
    }
}

/// What a bit of probability `(i + 1/2) / 128` costs, in 256ths of a bit.
static PRICE: [u16; 128] = {
    let mut price = [0; 128];
    let mut i = 0_u64;
    while i < 128 {
        // The logarithm bit by bit: a square doubles it.
        let (mut value, mut log, mut round): (u64, i64, i64) = ((2 * i + 1) << 16, -1, 0);
        while value < 1 << 24 {
            value <<= 1;
            log += 1;
        }
        while round < 8 {
            value = (value * value) >> 24;
            log <<= 1;
            if value >= 1 << 25 {
                value >>= 1;
            } else {
                log += 1;
            }
            round += 1;
        }
        price[i as usize] = log as u16;
        i += 1;
    }
    price
};

impl Coder for Meter {
    const WRITES: bool = true;

    #[inline]
    fn bit(&mut self, ctx: &mut Bit, bit: bool) -> bool {
        let place = usize::from(ctx.p >> 9);
        self.cost += u64::from(PRICE[if bit { 127 - place } else { place }]);
        bit
    }

    #[inline]
    fn raw16(&mut self, value: u32, bits: u32) -> u32 {
        self.cost += u64::from(bits) << 8;
        value
    }
}

/// Reads a stream of bits.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    code: u32,
    range: u32,
    bytes: std::slice::Iter<'a, u8>,
}

/// Where a [`Reader`] stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    code: u32,
    range: u32,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { code: 0, range: u32::MAX, bytes: bytes.iter() };
        for _ in 0..4 {
            reader.code = reader.code << 8 | reader.next();
        }
        reader
    }

    /// Where it stands, to go on from there later.
    pub(super) fn place(&self, bytes: &[u8]) -> Place {
        Place { code: self.code, range: self.range, at: bytes.len() - self.bytes.len() }
    }

    /// Goes on in `bytes` where another reader of them stood.
    pub(super) fn resume(bytes: &'a [u8], place: Place) -> Self {
        let bytes = bytes.get(place.at..).unwrap_or_default().iter();
        Self { code: place.code, range: place.range, bytes }
    }

    #[inline]
    fn next(&mut self) -> u32 {
        self.bytes.next().copied().unwrap_or(0).into()
    }

    #[inline]
    fn refill(&mut self) {
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
    }
}

impl Coder for Reader<'_> {
    const WRITES: bool = false;

    #[inline]
    fn bit(&mut self, ctx: &mut Bit, _: bool) -> bool {
        let bound = (self.range >> 16) * u32::from(ctx.p);
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        ctx.learn(bit);
        self.refill();
        bit
    }

    #[inline]
    fn raw16(&mut self, _: u32, bits: u32) -> u32 {
        self.range >>= bits;
        // Only damaged bytes can ask for more than `bits` hold.
        let value = (self.code / self.range).min((1 << bits) - 1);
        self.code = self.code.wrapping_sub(value.wrapping_mul(self.range));
        self.refill();
        value
    }
}

/// A number of any size whose magnitude is learnt: its length in bits through a tree of contexts, the bit below the
/// leading one in a context of its own, the rest raw.
#[derive(Debug, Clone)]
pub(super) struct Number {
    tree: [Bit; 128],
    second: [Bit; 65],
}

impl Number {
    /// Nothing seen; but few numbers are of more than 31 bits, and fewer of 64.
    pub(super) const NEW: Self = {
        let mut tree = [Bit::EVEN; 128];
        tree[1] = Bit::likely(false);
        tree[2] = Bit::likely(false);
        tree[4] = Bit::likely(false);
        Self { tree, second: [Bit::EVEN; 65] }
    };

    /// As if numbers of this length in bits had been seen.
    pub(super) const fn likely(length: usize) -> Self {
        let mut number = Self::NEW;
        let (mut node, mut bit) = (1, 7);
        while bit > 0 {
            bit -= 1;
            let one = length >> bit & 1 == 1;
            number.tree[node] = Bit::likely(one);
            node = node << 1 | one as usize;
        }
        number
    }

    /// Codes `value`.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, value: u64) -> u64 {
        let length = 64 - value.leading_zeros();
        let mut node = 1;
        for bit in (0..7).rev() {
            node = node << 1 | usize::from(coder.bit(&mut self.tree[node], length >> bit & 1 == 1));
        }
        let length = (node as u32 & 127).min(64);
        if length < 2 {
            return length.into();
        }
        let second = coder.bit(&mut self.second[length as usize], value >> (length - 2) & 1 == 1);
        let low = length - 2;
        (2 | u64::from(second)) << low | coder.raw(value & ((1 << low) - 1), low)
    }

    /// Codes a number that may be negative, zigzag.
    pub(super) fn code_signed<C: Coder>(&mut self, coder: &mut C, value: i64) -> i64 {
        let zigzag = self.code(coder, (value << 1 ^ value >> 63) as u64);
        (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read again: skewed bits, raw bits and numbers of every length, and bytes that force carries.
    #[test]
    fn what_is_written_is_read_again() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        let script: Vec<(u64, u64)> = (0..20_000).map(|_| (random() % 3, random() << 20 ^ random())).collect();
        fn run<C: Coder>(coder: &mut C, script: &[(u64, u64)]) -> Vec<u64> {
            let (mut ctx, mut number) = (Bit::EVEN, Number::NEW);
            let each = |&(what, x): &(u64, u64)| match what {
                0 => u64::from(coder.bit(&mut ctx, x % 50 == 0)),
                1 => coder.raw(x & u64::MAX >> (x % 64), 64 - (x % 64) as u32),
                _ => number.code_signed(coder, x as i64 >> (x % 64)) as u64,
            };
            script.iter().map(each).collect()
        }
        let mut writer = Writer::new();
        let written = run(&mut writer, &script);
        let bytes = writer.finish();
        assert_eq!(run(&mut Reader::new(&bytes), &script), written);
    }

    /// A price is the logarithm of the probability, to a hundredth of a bit where it matters.
    #[test]
    fn prices_are_logarithms() {
        for (place, price) in PRICE.iter().enumerate() {
            let exact = -((place as f64 + 0.5) / 128.0).log2();
            assert!((f64::from(*price) / 256.0 - exact).abs() < 0.01, "{place}: {price} and {exact}");
        }
        let mut meter = Meter::default();
        meter.bit(&mut Bit::likely(true), true);
        assert!(meter.bits() < 0.1);
        meter.raw(0, 40);
        assert!((40.0..40.1).contains(&meter.bits()));
    }

    /// An empty stream costs nothing, and reading past the end is harmless.
    #[test]
    fn nothing_costs_nothing() {
        assert!(Writer::new().finish().is_empty());
        let mut reader = Reader::new(&[]);
        assert!((0..1_000).all(|_| reader.raw(0, 64) == 0));
        let mut wild = Reader::new(&[0xFF; 64]);
        let mut number = Number::NEW;
        assert_eq!((0..1_000).map(|_| number.code(&mut wild, 0)).count(), 1_000);
    }
}
