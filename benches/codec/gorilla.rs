//! Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015, §4.1: per series a name, then
//! delta-of-delta stamps and XORed doubles. Stamps are in milliseconds, so the last of the paper's widths, for seconds, is
//! wider here. Bits are counted, not written.

use super::set::{Row, Set};

/// The length of `rows` as one block for each series, names inside.
pub(crate) fn payload(set: &Set, rows: &[Row]) -> usize {
    let one = |(series, rows): &(usize, Vec<&Row>)| set.names[*series].len() + 2 + bits(rows).div_ceil(8);
    set.by_series(rows).iter().map(one).sum()
}

fn bits(rows: &[&Row]) -> usize {
    let value = |row: &Row| row.float().to_bits();
    let mut bits = 128;
    let (mut delta, mut window) = (0, (0_u32, 0_u32));
    for pair in rows.windows(2) {
        let now = pair[1].stamp_ms - pair[0].stamp_ms;
        bits += match now - delta {
            0 => 1,
            -63..=64 => 9,
            -255..=256 => 12,
            -2047..=2048 => 16,
            _ => 36,
        };
        delta = now;
        let xor = value(pair[0]) ^ value(pair[1]);
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        bits += if xor == 0 {
            1
        } else if window.1 > 0 && lead >= window.0 && trail >= 64 - window.0 - window.1 {
            2 + window.1 as usize
        } else {
            window = (lead, 64 - lead - trail);
            13 + window.1 as usize
        };
    }
    bits
}
