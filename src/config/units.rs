//! Durations and sizes as people write them: `10s`, `250ms`, `64MiB`, `4096`; and what is written of flash:
//! `20GiB/year`, `10y`.
//!
//! What enters: the text of one value. What leaves: a `Duration` or bytes, and the text again for messages and the
//! documentation. Ranges are not checked here; the table of keys has them.

use std::time::Duration;

/// The units of a duration, in milliseconds, largest first.
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of a size, in bytes, largest first; a bare number is bytes.
const SIZES: [(&str, u64); 6] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1), ("B", 1)];

/// How a duration is written, for messages.
pub const DURATION_FORM: &str = "write a number and ms, s, m, h or d, such as \"10s\"";

/// How a size is written, for messages.
pub const SIZE_FORM: &str = "write a number of bytes, or one with KiB, MiB or GiB, such as \"256KiB\"";

/// Reads `10s`, `250ms`, `1h`, `7d`, or `0`; `None` for anything else, and for what overflows.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    parse_with(text, &SPANS).map(Duration::from_millis)
}

/// Reads `256KiB`, `64MiB`, `2GiB`, `512B` or `4096`, in bytes; `None` for anything else, and for what overflows.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_with(text, &SIZES)
}

/// The spans of a budget and of a lifetime, in days. A year is 365 days and a month its twelfth, near enough for flash.
const LONG_SPANS: [(&str, f64); 4] = [("day", 1.0), ("week", 7.0), ("month", 365.0 / 12.0), ("year", 365.0)];

/// How a budget is written, for messages.
pub const RATE_FORM: &str = "write a size per day, week, month or year, such as \"20GiB/year\", or \"off\"";

/// How a lifetime is written, for messages.
pub const LIFETIME_FORM: &str = "write years or days, such as \"10y\" or \"900d\", or \"off\"";

/// Reads `20GiB/year`, in bytes a day; `None` for anything else.
pub fn parse_rate(text: &str) -> Option<f64> {
    let (size, span) = text.split_once('/')?;
    let (_, days) = LONG_SPANS.iter().find(|(name, _)| *name == span)?;
    Some(parse_size(size)? as f64 / days)
}

/// Reads `10y` or `900d`, in days; `None` for anything else.
pub fn parse_lifetime(text: &str) -> Option<f64> {
    let days = parse_with(text, &[("y", 365), ("d", 1)])?;
    Some(days as f64)
}

/// The shortest exact text of a duration in whole milliseconds.
pub fn duration_text(duration: Duration) -> String {
    text_with(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &SPANS)
}

/// The shortest exact text of a size.
pub fn size_text(bytes: u64) -> String {
    text_with(bytes, &SIZES)
}

fn parse_with(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn text_with(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, factor)| number != 0 && number % factor == 0);
    match unit {
        Some((name, factor)) => format!("{}{name}", number / factor),
        None => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form of the documentation is read, and written back the way it came.
    #[test]
    fn durations_survive_the_round_trip() {
        for text in ["10s", "250ms", "1h", "7d", "90s", "0", "1500ms"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Some(text));
        }
        for bad in ["", "10", "10x", "s", "-1s", "1.5s", "10 s", "10S", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    /// A budget is a size by a span, a lifetime years or days, and nothing else is either.
    #[test]
    fn budgets_and_lifetimes_are_read() {
        assert_eq!(parse_rate("365MiB/year"), Some(f64::from(1 << 20)));
        assert_eq!(parse_rate("7KiB/week"), Some(1024.0));
        assert_eq!((parse_lifetime("10y"), parse_lifetime("90d")), (Some(3650.0), Some(90.0)));
        for bad in ["20GiB", "20GiB/y", "GiB/year", "20 GiB/year", "/day", "10", "y", "10h", "1.5y"] {
            assert_eq!((parse_rate(bad), parse_lifetime(bad)), (None, None), "{bad}");
        }
    }

    /// A bare number is bytes; powers of 1024 only, since a file system counts so.
    #[test]
    fn sizes_survive_the_round_trip() {
        for text in ["256KiB", "64MiB", "4097", "2GiB", "3TiB", "0"] {
            assert_eq!(parse_size(text).map(size_text).as_deref(), Some(text));
        }
        assert_eq!(parse_size("512B"), Some(512));
        for bad in ["", "KiB", "64MB", "1k", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
