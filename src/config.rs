//! The configuration: TOML in, typed values out.
//!
//! What enters: the text of `varved.toml` or `fleet.toml`. What leaves: [`Config`] or [`FleetConfig`], every value in its
//! range and possible together with the others; or the first error, with file, line and key, what is allowed, and an example.
//! What it does not do: open the sockets and files that are named, or ask whether the hardware is there.

pub mod address;
pub mod advice;
pub mod flash;
pub mod fleet;
pub mod keys;
pub mod page;
pub mod power_fail;
mod read;
pub mod sensor;
pub mod store;
pub mod units;
pub mod uplink;

pub use address::{Broker, Listen};
pub use flash::{FlashConfig, Goal, Span};
pub use fleet::{DEFAULT_FLEET_CONFIG, FleetConfig};

pub use power_fail::{GpioLine, Level, PowerFailConfig, PowerInput};

pub(crate) use read::nearest;
pub use sensor::{ExecConfig, FileConfig, ProcConfig, ProcGroup, SensorConfig, SensorKind, SocketConfig, SysfsConfig};
pub use store::{ControlConfig, Locking, StoreConfig};
pub use uplink::{BacklogOrder, PaceConfig, UplinkConfig};

use crate::fault::{Exit, Fault, Verdict};
use read::{Section, Source};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeTable;

/// Where the device's configuration is, unless told.
pub const DEFAULT_CONFIG: &str = "/etc/varved/varved.toml";

/// The device's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The device's name, `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    pub device: String,
    /// Where `/sys`, `/proc`, GPIO chips in `/dev` and `/etc/machine-id` are looked up.
    pub root: PathBuf,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[flash]`, with the intervals of `[store]` that it may choose between.
    pub flash: FlashConfig,
    /// `[control]`.
    pub control: ControlConfig,
    /// `[power_fail]`; without it only SIGPWR says that the power fails.
    pub power_fail: Option<PowerFailConfig>,
    /// `[[sensor]]`, in the order of the file.
    pub sensors: Vec<SensorConfig>,
    /// `[uplink]`; without it varved is a local recorder.
    pub uplink: Option<UplinkConfig>,
}

impl Config {
    /// Reads a file; the hostname is the default of `device`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a text; `file` is its name in messages, and this machine's hostname the default of `device`.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self::parse_on(text, file, &hostname)
    }

    /// As [`Config::parse`], on a machine of this name.
    pub fn parse_on(text: &str, file: &str, hostname: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let document = document(source)?;
        let table = document.get_ref();
        let top = Section::top(source, table, &["store", "flash", "control", "power_fail", "sensor", "uplink"])?;
        let store_section = Section::of(source, table, "store")?;
        let store = StoreConfig::read(&store_section)?;
        let flash = FlashConfig::read(&Section::of(source, table, "flash")?, &store_section, store.commit_interval)?;
        let control = ControlConfig::read(&Section::of(source, table, "control")?, store.locking)?;
        let power_fail = Section::of(source, table, "power_fail")?;
        let power_fail = if power_fail.is_written() { Some(PowerFailConfig::read(&power_fail)?) } else { None };
        let sections = Section::array(source, table, "sensor")?;
        let sensors = sections.iter().map(SensorConfig::read).collect::<Result<Vec<_>, _>>()?;
        refuse_collisions(&control, &sensors, &sections)?;
        let uplink = Section::of(source, table, "uplink")?;
        let uplink = if uplink.is_written() { Some(UplinkConfig::read(&uplink)?) } else { None };
        let root = top.parsed("root", absolute_path)?;
        Ok(Self { device: device(&top, hostname)?, root, store, flash, control, power_fail, sensors, uplink })
    }
}

/// What is wrong with a configuration. Every text ends with what to do.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not TOML.
    Syntax {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A key is unknown, missing, or has a value that is not allowed.
    Wrong {
        /// Which file.
        file: String,
        /// Which line, from 1; that of the table where the key is missing.
        line: usize,
        /// Which key, with its table: `store.commit_interval`.
        key: String,
        /// What is wrong, what is allowed, and an example.
        problem: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, cause } => {
                write!(f, "{file}: {cause}; name another file with --config, or see docs/examples/minimal.toml")
            }
            Self::Syntax { file, line, problem } => {
                write!(f, "{file}:{line}: {problem}; this is not TOML: a line is key = value, and text is in quotes")
            }
            Self::Wrong { file, line, key, problem } => write!(f, "{file}:{line}: {key}: {problem}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. } => Some(cause),
            Self::Syntax { .. } | Self::Wrong { .. } => None,
        }
    }
}

impl Fault for ConfigError {
    fn verdict(&self) -> Verdict {
        Verdict::Halt
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { file: path.display().to_string(), cause })
}

fn document<'a>(source: Source<'a>) -> Result<Spanned<DeTable<'a>>, ConfigError> {
    DeTable::parse(source.text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + source.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        ConfigError::Syntax { file: source.file.to_owned(), line, problem: error.message().trim().to_owned() }
    })
}

/// `device`, or what of the hostname may stand in a topic and in a file name.
fn device(top: &Section<'_>, hostname: &str) -> Result<String, ConfigError> {
    let written = top.parsed_if_written("device", |text| {
        if is_device_name(text) {
            Ok(text.to_owned())
        } else {
            Err(format!(
                "{text:?} is not a device name; write 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a \
                 digit, such as \"pump-17\""
            ))
        }
    })?;
    let fallback = || {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
        let name: String = hostname.trim().chars().map(plain).skip_while(|c| !c.is_ascii_alphanumeric()).collect();
        name.chars().take(64).collect::<String>()
    };
    let name = written.unwrap_or_else(fallback);
    if name.is_empty() {
        return Err(top.error("device", "is missing, and this machine has no hostname; write device = \"pump-17\""));
    }
    Ok(name)
}

/// Whether `text` may be a device's name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
pub fn is_device_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
}

/// No two sensors on one socket, none on the control socket, no two files under one name.
fn refuse_collisions(
    control: &ControlConfig,
    sensors: &[SensorConfig],
    sections: &[Section<'_>],
) -> Result<(), ConfigError> {
    let mut sockets: Vec<Listen> = control.listen.iter().cloned().map(Listen::Unix).collect();
    let mut names: Vec<&str> = Vec::new();
    for (sensor, section) in sensors.iter().zip(sections) {
        match &sensor.kind {
            SensorKind::Socket(socket) => {
                if sockets.iter().any(|taken| taken.collides(&socket.listen)) {
                    let problem =
                        format!("{} is taken by another sensor or by [control]; give each its own", socket.listen);
                    return Err(section.error("listen", problem));
                }
                sockets.push(socket.listen.clone());
            }
            SensorKind::File(file) => {
                if names.contains(&file.name.as_str()) {
                    let problem = format!("{:?} is the name of another file too; give each series its own", file.name);
                    return Err(section.error("name", problem));
                }
                names.push(&file.name);
            }
            _ => {}
        }
    }
    Ok(())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("is an empty path; write the name of a file, or leave the key out".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    path(text).and_then(|path| {
        if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} does not begin with /; write the whole path")) }
    })
}

#[cfg(test)]
mod tests;
