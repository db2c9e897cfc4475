//! Numbers, booleans and stamps of line protocol: what nearly all lines have in a short way, the rest in the long one.
//!
//! What enters: bytes of a line. What leaves: the value, or why there is none. The short way answers exactly what the long
//! way would, or nothing.

use super::{FieldValue, Refusal};
use crate::clock::UtcNanos;

/// Powers of ten that a double holds exactly.
const TENS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
/// Up to here every integer is a double.
const EXACT: u64 = 1 << 53;

/// What sensors send: at most 18 digits, with a point or an `i`, read in one walk to where the value ends. `None` is
/// everything else, good or bad. A quotient of two exact doubles is rounded once, so it is the double nearest to the
/// decimal, which is what the slower way gives too (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
pub(in crate::sensor) fn read_short_number(bytes: &[u8], at: usize) -> Option<(FieldValue, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let begin = at + usize::from(negative);
    let (mut number, mut point, mut end) = (0_u64, None, begin);
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b'.' if point.is_none() => point = Some(end),
            _ => break,
        }
        end += 1;
    }
    let digits = end - begin - usize::from(point.is_some());
    if !(1..=18).contains(&digits) {
        return None;
    }
    match (bytes.get(end), point) {
        (None | Some(b',' | b' '), _) if number <= EXACT => {
            let value = number as f64 / TENS[point.map_or(0, |point| end - point - 1)];
            Some((FieldValue::Float(if negative { -value } else { value }), end))
        }
        (Some(b'i'), None) if matches!(bytes.get(end + 1), None | Some(b',' | b' ')) => {
            let value = number as i64;
            Some((FieldValue::Int(if negative { -value } else { value }), end + 1))
        }
        _ => None,
    }
}

/// A number or a boolean.
pub(super) fn read_bare(token: &[u8]) -> Result<FieldValue, Refusal> {
    let text = std::str::from_utf8(token).map_err(|_| Refusal::Number)?;
    match token {
        [] => Err(Refusal::Syntax),
        [digits @ .., b'i' | b'u'] => read_int(&text[..digits.len()], token[digits.len()] == b'u'),
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(FieldValue::Bool(true)),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(FieldValue::Bool(false)),
        _ => read_float(text),
    }
}

fn read_int(text: &str, unsigned: bool) -> Result<FieldValue, Refusal> {
    let value = text.parse::<i64>().map_err(|_| Refusal::Number)?;
    if unsigned && text.starts_with('-') { Err(Refusal::Number) } else { Ok(FieldValue::Int(value)) }
}

fn read_float(text: &str) -> Result<FieldValue, Refusal> {
    let value = text.parse::<f64>().map_err(|_| Refusal::Number)?;
    let overflowed = value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit());
    if overflowed { Err(Refusal::Number) } else { Ok(FieldValue::Float(value)) }
}

/// A stamp of at most 18 digits, or of 19 that begin with a 1: any from 1970 to 2033.
pub(in crate::sensor) fn read_usual_stamp(digits: &[u8]) -> Option<UtcNanos> {
    if !(digits.len() <= 18 || digits.len() == 19 && digits[0] == b'1') {
        return None;
    }
    let mut nanos = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        nanos = nanos * 10 + i64::from(digit);
    }
    Some(UtcNanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short way to read a number gives the very double, or integer, that the long way gives, or leaves it alone.
    #[test]
    fn short_numbers_are_the_numbers_that_the_long_way_reads() {
        let mut random = 1_u64;
        for i in 0..200_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let digits = (random >> 33).to_string();
            let more = if i % 3 == 0 { (random % 1_000_000_007).to_string() } else { String::new() };
            let all = digits + &more;
            let (whole, part) = all.split_at((i as usize) % (all.len() + 1));
            let sign = if i % 2 == 0 { "-" } else { "" };
            for text in [format!("{sign}{whole}.{part}"), format!("{sign}{all}"), format!("{sign}{all}i")] {
                let slow = read_bare(text.as_bytes());
                let Some((fast, end)) = read_short_number(text.as_bytes(), 0) else { continue };
                assert_eq!(end, text.len(), "{text}");
                match (fast, slow) {
                    (FieldValue::Float(fast), Ok(FieldValue::Float(slow))) => {
                        assert_eq!(fast.to_bits(), slow.to_bits(), "{text}");
                    }
                    (fast, slow) => assert_eq!(Ok(fast), slow, "{text}"),
                }
            }
        }
        for long in
            ["1234567890123456789", "9007199254740993", "1e3", "-", ".", "", "NaN", "1.2.3", "1.5i", "-1u", "12x"]
        {
            assert_eq!(read_short_number(long.as_bytes(), 0), None, "{long}");
        }
    }
}
