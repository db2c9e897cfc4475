//! `[flash]`, and the two keys of `[store]` that it governs: how long the medium is to last, and what may be done for
//! it.
//!
//! What enters: the two tables. What leaves: [`FlashConfig`], whose keys are possible together. What it does not do:
//! ask the medium what it stands; that is known when the service runs.

use super::ConfigError;
use super::read::Section;
use super::units::{LIFETIME_FORM, RATE_FORM, parse_lifetime, parse_rate, parse_size};
use std::time::Duration;

/// `[flash]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlashConfig {
    /// What to keep to; none: writes are counted and nothing else.
    pub goal: Option<Goal>,
    /// What the host may write to the medium before it is worn, in bytes.
    pub endurance_bytes: Option<u64>,
    /// The commit intervals to choose from; none: it is `commit_interval`, whatever is spent.
    pub span: Option<Span>,
}

/// What to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Bytes a day, at the mean.
    BytesPerDay(f64),
    /// Days that the medium is to last.
    Days(f64),
}

/// From the shortest to the longest commit interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Span {
    /// What of the span is nearest to `interval`.
    pub fn clamp(&self, interval: Duration) -> Duration {
        interval.clamp(self.min, self.max)
    }
}

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const BUDGET_BYTES_PER_DAY: std::ops::RangeInclusive<f64> = (1 << 20) as f64 / 365.0..=(1024 * TIB) as f64;
const LIFETIME_DAYS: std::ops::RangeInclusive<f64> = 30.0..=36_500.0;
const ENDURANCE_BYTES: std::ops::RangeInclusive<u64> = GIB..=1024 * TIB;

impl FlashConfig {
    /// From `[flash]` and `[store]`, whose `commit_interval` is `interval`.
    pub(super) fn read(flash: &Section<'_>, store: &Section<'_>, interval: Duration) -> Result<Self, ConfigError> {
        let budget = flash.parsed("budget", off_or(budget))?;
        let lifetime = flash.parsed("lifetime", off_or(lifetime))?;
        if budget.is_some() && lifetime.is_some() {
            let problem = "beside budget: each says what may be written; keep the one that you mean, or write \"off\"";
            return Err(flash.error("lifetime", problem));
        }
        let goal = budget.map(Goal::BytesPerDay).or(lifetime.map(Goal::Days));
        let endurance_bytes = flash.parsed_if_written("endurance", endurance)?;
        Ok(Self { goal, endurance_bytes, span: span(store, goal, interval)? })
    }
}

fn span(store: &Section<'_>, goal: Option<Goal>, interval: Duration) -> Result<Option<Span>, ConfigError> {
    const NAMES: [&str; 2] = ["commit_interval_min", "commit_interval_max"];
    let (min, max) = (store.duration_or_off(NAMES[0])?, store.duration_or_off(NAMES[1])?);
    let name = match (min, max) {
        (None, None) => return Ok(None),
        (Some(_), _) => NAMES[0],
        (None, Some(_)) => NAMES[1],
    };
    if goal.is_none() {
        let problem = "has nothing to choose by; write budget = \"20GiB/year\" or lifetime = \"10y\" under [flash], \
                       or leave it out";
        return Err(store.error(name, problem));
    }
    if let (Some(min), Some(max)) = (min, max) {
        if min > max {
            return Err(store.error(NAMES[0], "is above commit_interval_max; exchange the two"));
        }
        // A default that nobody wrote gives way; what was written does not.
        if !store.has("commit_interval") {
            return Ok(Some(Span { min, max }));
        }
    }
    let problem = |which: &str| {
        format!("is {which} commit_interval, where it begins and what the other end is if it is off; move one of them")
    };
    if min.is_some_and(|min| min > interval) {
        return Err(store.error(NAMES[0], problem("above")));
    }
    if max.is_some_and(|max| max < interval) {
        return Err(store.error(NAMES[1], problem("below")));
    }
    Ok(Some(Span { min: min.unwrap_or(interval), max: max.unwrap_or(interval) }))
}

fn off_or<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    move |text| if text == "off" { Ok(None) } else { parse(text).map(Some) }
}

fn budget(text: &str) -> Result<f64, String> {
    let rate = parse_rate(text).ok_or_else(|| format!("{text:?} is not a budget; {RATE_FORM}"))?;
    match BUDGET_BYTES_PER_DAY.contains(&rate) {
        true => Ok(rate),
        false => Err(format!("{text:?} is out of range: allowed is from \"1MiB/year\" to \"1024TiB/day\"")),
    }
}

fn lifetime(text: &str) -> Result<f64, String> {
    let days = parse_lifetime(text).ok_or_else(|| format!("{text:?} is not a lifetime; {LIFETIME_FORM}"))?;
    match LIFETIME_DAYS.contains(&days) {
        true => Ok(days),
        false => Err(format!("{text:?} is out of range: allowed is from \"30d\" to \"100y\"")),
    }
}

fn endurance(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)
        .ok_or_else(|| format!("{text:?} is not a size; write a number with GiB or TiB, such as \"3TiB\""))?;
    match ENDURANCE_BYTES.contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("{text:?} is out of range: allowed is from \"1GiB\" to \"1024TiB\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn flash(text: &str) -> Result<FlashConfig, String> {
        Config::parse_on(text, "v.toml", "host").map(|config| config.flash).map_err(|error| error.to_string())
    }

    /// Nothing written, nothing governed; a goal alone is only compared with; one end alone has the other at
    /// `commit_interval`; and a default interval outside of both ends gives way to them.
    #[test]
    fn what_is_written_decides_what_is_governed() {
        let seconds = |min, max| Some(Span { min: Duration::from_secs(min), max: Duration::from_secs(max) });
        let none = FlashConfig { goal: None, endurance_bytes: None, span: None };
        assert_eq!(flash(""), Ok(none));
        let budget = FlashConfig { goal: Some(Goal::BytesPerDay(f64::from(1 << 20))), ..none };
        assert_eq!(flash("[flash]\nbudget = \"365MiB/year\""), Ok(budget));
        let end = |keys: &str| flash(&format!("[store]\n{keys}\n[flash]\nbudget = \"365MiB/year\"")).map(|f| f.span);
        assert_eq!(end("commit_interval_max = \"1m\""), Ok(seconds(10, 60)));
        assert_eq!(end("commit_interval = \"30s\"\ncommit_interval_min = \"1s\""), Ok(seconds(1, 30)));
        assert_eq!(end("commit_interval_min = \"20s\"\ncommit_interval_max = \"1m\""), Ok(seconds(20, 60)));
        let years = flash("[flash]\nlifetime = \"10y\"\nendurance = \"3TiB\"").expect("a lifetime");
        assert_eq!((years.goal, years.endurance_bytes), (Some(Goal::Days(3650.0)), Some(3 << 40)));
    }

    /// What can't be together is told where, and what to do.
    #[test]
    fn impossible_combinations_are_told_where() {
        let both = "[store]\ncommit_interval = \"1s\"\ncommit_interval_min = \"5s\"\ncommit_interval_max = \"1m\"";
        let table = [
            ("[flash]\nbudget = \"1GiB/day\"\nlifetime = \"1y\"", "v.toml:3: flash.lifetime: beside budget"),
            ("[store]\ncommit_interval_max = \"1m\"", "v.toml:2: store.commit_interval_max: has nothing to choose by"),
            (
                "[store]\ncommit_interval_min = \"2m\"\ncommit_interval_max = \"1m\"\n[flash]\nlifetime = \"1y\"",
                "v.toml:2: store.commit_interval_min: is above commit_interval_max",
            ),
            (
                &format!("{both}\n[flash]\nlifetime = \"1y\""),
                "v.toml:3: store.commit_interval_min: is above commit_interval,",
            ),
            (
                "[store]\ncommit_interval_max = \"1s\"\n[flash]\nlifetime = \"1y\"",
                "v.toml:2: store.commit_interval_max: is below commit_interval,",
            ),
            ("[flash]\nbudget = \"20GiB\"", "v.toml:2: flash.budget: \"20GiB\" is not a budget; write a size per day"),
            ("[flash]\nbudget = \"1KiB/year\"", "v.toml:2: flash.budget: \"1KiB/year\" is out of range"),
            ("[flash]\nlifetime = \"1d\"", "v.toml:2: flash.lifetime: \"1d\" is out of range"),
            ("[flash]\nendurance = \"3TB\"", "v.toml:2: flash.endurance: \"3TB\" is not a size"),
            ("[flash]\nendurance = \"3MiB\"", "v.toml:2: flash.endurance: \"3MiB\" is out of range"),
            ("[flash]\nwear = 1", "v.toml:2: flash.wear: is not a known key"),
        ];
        for (text, told) in table {
            let error = flash(text).expect_err(text);
            assert!(error.starts_with(told), "{text:?}\n  told {error}\n  not  {told}");
        }
    }
}
