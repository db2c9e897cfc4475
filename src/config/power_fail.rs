//! `[power_fail]`: where the board says that its power fails.
//!
//! What enters: the table. What leaves: [`PowerFailConfig`]. Whether the line or the file is there is not asked here.

use super::ConfigError;
use super::read::Section;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The longest name of a chip or a line, in bytes (`linux/gpio.h`: GPIO_MAX_NAME_SIZE, less the zero at its end).
pub const MAX_GPIO_NAME_BYTES: usize = 31;

/// `[power_fail]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerFailConfig {
    /// What is watched.
    pub input: PowerInput,
    /// The level that says that the power fails.
    pub active: Level,
    /// How often a file is looked at.
    pub poll: Duration,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerInput {
    /// A line of a GPIO chip.
    Gpio(GpioLine),
    /// A file, looked up below `root`.
    File(PathBuf),
}

/// A line of a GPIO chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpioLine {
    /// By its chip (`gpiochip0`, a label, or a path) and its number there.
    Offset {
        /// The chip.
        chip: String,
        /// From 0.
        offset: u32,
    },
    /// By its own name, on whichever chip.
    Named(String),
}

/// One of the two levels of a line; of a file `0` is low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Low.
    Low,
    /// High.
    High,
}

impl Level {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

impl fmt::Display for GpioLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset { chip, offset } => write!(f, "{chip}:{offset}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for PowerInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpio(line) => line.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl PowerInput {
    /// The key that names it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Gpio(_) => "power_fail.gpio",
            Self::File(_) => "power_fail.file",
        }
    }
}

impl PowerFailConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let gpio = section.parsed("gpio", |text| if text == "off" { Ok(None) } else { line(text).map(Some) })?;
        let file = section
            .parsed("file", |text| if text == "off" { Ok(None) } else { super::absolute_path(text).map(Some) })?;
        let input = match (gpio, file) {
            (Some(line), None) => PowerInput::Gpio(line),
            (None, Some(path)) => PowerInput::File(path),
            (Some(_), Some(_)) => {
                return Err(
                    section.error("file", "beside gpio: one input is watched; write \"off\" for one of the two")
                );
            }
            (None, None) => {
                let problem = "names no input; write gpio = \"gpiochip0:17\" or file = \
                               \"/sys/class/power_supply/usb/online\", or leave [power_fail] out";
                return Err(section.error("gpio", problem));
            }
        };
        let active = if section.word("active")? == "low" { Level::Low } else { Level::High };
        Ok(Self { input, active, poll: section.duration("poll")? })
    }
}

/// `chip:offset` where the part after the last colon is a number; else the name of a line, which may have colons too.
fn line(text: &str) -> Result<GpioLine, String> {
    const FORM: &str = "write chip:offset, such as \"gpiochip0:17\", or the name of a line, such as \"PWR_FAIL\"";
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{text:?} names no line; {FORM}"));
    }
    if is_number(text) {
        return Err(format!("{text:?} names no chip; {FORM}"));
    }
    let (chip, offset) = match text.rsplit_once(':') {
        Some((chip, offset)) if is_number(offset) => (chip, Some(offset)),
        _ => (text, None),
    };
    let is_path = offset.is_some() && chip.starts_with('/');
    if chip.len() > MAX_GPIO_NAME_BYTES && !is_path {
        return Err(format!("{chip:?} is longer than the {MAX_GPIO_NAME_BYTES} bytes of any chip or line; {FORM}"));
    }
    match offset {
        None => Ok(GpioLine::Named(text.to_owned())),
        Some(_) if chip.is_empty() => Err(format!("{text:?} names no chip; {FORM}")),
        Some(offset) => match offset.parse() {
            Ok(offset) => Ok(GpioLine::Offset { chip: chip.to_owned(), offset }),
            Err(_) => Err(format!("{offset} is not the number of a line; {FORM}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<PowerFailConfig, String> {
        let text = format!("[power_fail]\n{text}");
        let config = Config::parse_on(&text, "v.toml", "host").map_err(|error| error.to_string())?;
        Ok(config.power_fail.expect("the section is written"))
    }

    fn gpio(text: &str) -> Result<GpioLine, String> {
        match parse(&format!("gpio = {text:?}"))?.input {
            PowerInput::Gpio(line) => Ok(line),
            PowerInput::File(path) => panic!("{}", path.display()),
        }
    }

    /// A line is named by its chip and number or by its own name; a name with colons in it is a name.
    #[test]
    fn a_line_has_a_chip_and_a_number_or_a_name() {
        let offset = |chip: &str, offset| Ok(GpioLine::Offset { chip: chip.into(), offset });
        assert_eq!(gpio("gpiochip0:17"), offset("gpiochip0", 17));
        assert_eq!(gpio("30200000.gpio:4"), offset("30200000.gpio", 4));
        assert_eq!(gpio("a:b:7"), offset("a:b", 7));
        let path = "/dev/gpio-of-a-long-name-for-the-power";
        assert_eq!(gpio(&format!("{path}:3")), offset(path, 3));
        for name in ["PWR_FAIL", "power:fail", "GPIO17", "x:1a"] {
            assert_eq!(gpio(name), Ok(GpioLine::Named(name.into())));
        }
    }

    /// What no chip or line can be called is told so, with the form.
    #[test]
    fn what_is_no_line_is_told_the_form() {
        for (text, why) in [
            ("", "names no line"),
            ("17", "names no chip"),
            (":17", "names no chip"),
            ("gpiochip0:99999999999", "is not the number of a line"),
            ("PWR_FAIL_OF_THE_BOARD_OF_THE_PUMP", "longer than the 31 bytes"),
        ] {
            let told = gpio(text).expect_err(text);
            assert!(told.starts_with("v.toml:2: power_fail.gpio: ") && told.contains(why), "{text}: {told}");
            assert!(told.ends_with("such as \"PWR_FAIL\""), "{text}: {told}");
        }
    }

    /// One input, no more and no fewer; the defaults are those of a supervisor whose output falls.
    #[test]
    fn there_is_one_input() {
        let config = parse("file = \"/sys/class/power_supply/usb/online\"").expect("a file");
        assert_eq!((config.active, config.poll), (Level::Low, Duration::from_millis(100)));
        assert_eq!(config.input, PowerInput::File("/sys/class/power_supply/usb/online".into()));
        assert_eq!(parse("gpio = \"a:1\"\nfile = \"off\"\nactive = \"high\"").expect("a line").active, Level::High);
        for (text, told) in [
            ("", "v.toml:1: power_fail.gpio: names no input; write gpio = "),
            ("gpio = \"off\"\nfile = \"off\"", "v.toml:2: power_fail.gpio: names no input"),
            ("gpio = \"a:1\"\nfile = \"/x\"", "v.toml:3: power_fail.file: beside gpio"),
            ("file = \"x\"", "v.toml:2: power_fail.file: \"x\" does not begin with /"),
            ("gpio = \"a:1\"\nactive = \"0\"", "v.toml:3: power_fail.active: \"0\" is not one of \"low\", \"high\""),
            ("file = \"/x\"\npoll = \"1ms\"", "v.toml:3: power_fail.poll: \"1ms\" is out of range"),
        ] {
            assert!(parse(text).expect_err(text).starts_with(told), "{text}: {:?}", parse(text));
        }
        assert_eq!(Config::parse_on("", "v.toml", "host").expect("nothing").power_fail, None);
    }
}
