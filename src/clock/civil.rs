//! ISO 8601 text of a [`UtcNanos`] and back, in UTC, by the proleptic Gregorian calendar.
//!
//! The day arithmetic is that of Howard Hinnant's "chrono-compatible low-level date algorithms" (`days_from_civil`,
//! `civil_from_days`): eras of 400 years of 146,097 days, years beginning in March. Local time and free-form dates are not
//! done here; the commands ask SQLite's own date functions for those.

use super::{SECOND, UtcNanos};

/// A civil date and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u32,
    day: u32,
}

/// `2026-11-22T18:48:37Z`, with 3, 6 or 9 decimals where the time has them: as short as it can be without losing a digit,
/// and parsed by the date functions of SQLite 3.40.
pub fn iso8601(at: UtcNanos) -> String {
    let seconds = at.0.div_euclid(SECOND);
    let nanos = at.0.rem_euclid(SECOND);
    let Civil { year, month, day } = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
}

/// Months since the year 0: a number that grows by one with each month of the calendar.
pub fn month_number(at: UtcNanos) -> i64 {
    let Civil { year, month, .. } = civil_from_days(at.0.div_euclid(86_400 * SECOND));
    year * 12 + i64::from(month) - 1
}

/// Reads what [`iso8601`] writes, and with it any `YYYY-MM-DD[T ]HH:MM[:SS[.f…]]` with `Z` or an offset `±HH:MM`. A time
/// without either is UTC. `None` for all else, for dates that do not exist and for times outside 1677–2262.
pub fn parse(text: &str) -> Option<UtcNanos> {
    let (text, offset_s) = split_offset(text.trim())?;
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    let days = days_from_civil(Civil { year, month, day });
    if year > 9999 || civil_from_days(days) != (Civil { year, month, day }) {
        return None;
    }
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':').map(digits);
    let (h, m, s) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    if parts.next().is_some() || h > 23 || m > 59 || s > 59 || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<9}"))? };
    let seconds = days * 86_400 + h * 3600 + m * 60 + s - offset_s;
    let total = i128::from(seconds) * i128::from(SECOND) + i128::from(nanos);
    i64::try_from(total).ok().map(UtcNanos)
}

/// Takes `Z` or `±HH:MM` off the end: the rest, and the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(rest) = text.strip_suffix(['Z', 'z']) {
        return Some((rest, 0));
    }
    let Some(at) = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at) && text.contains(':')) else {
        return Some((text, 0));
    };
    let (rest, offset) = text.split_at(at);
    let sign = match offset.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Some((text, 0)),
    };
    let (h, m) = offset[1..].split_once(':')?;
    let (h, m) = (digits(h)?, digits(m)?);
    (h <= 18 && m <= 59).then_some((rest, sign * (h * 3600 + m * 60)))
}

/// The value of one or more ASCII digits, and of nothing else.
fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.bytes().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

fn days_from_civil(date: Civil) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = date.year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> Civil {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    Civil { year: era * 400 + year_of_era + i64::from(month <= 2), month: month as u32, day: day as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SQLite's own calendar agrees on known days, both ways.
    #[test]
    fn known_moments_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_373_317, "2026-11-22T18:48:37Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(iso8601(UtcNanos(seconds * SECOND)), text);
            assert_eq!(parse(text), Some(UtcNanos(seconds * SECOND)));
        }
        assert_eq!(iso8601(UtcNanos(1_500_000)), "1970-01-01T00:00:00.001500Z");
        assert_eq!(parse("2026-11-22 19:48:37.5+01:00"), Some(UtcNanos(1_795_373_317_500_000_000)));
        assert_eq!(parse("2026-11-22T18:48"), Some(UtcNanos(1_795_373_280 * SECOND)));
        assert_eq!(parse("2026-11-22"), Some(UtcNanos(1_795_305_600 * SECOND)));
    }

    /// What is no time is refused, not bent into one.
    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "now",
            "2026-02-29T00:00:00Z",
            "2026-13-01",
            "2026-01-01T24:00Z",
            "2026-01-01T1:2:3:4",
            "2500-01-01",
            "é2026-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        /// Every moment that an i64 can hold survives the way to text and back.
        #[test]
        fn every_moment_survives_the_round_trip(ns in any::<i64>()) {
            prop_assert_eq!(parse(&iso8601(UtcNanos(ns))), Some(UtcNanos(ns)));
        }
    }
}
