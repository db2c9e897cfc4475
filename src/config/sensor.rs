//! `[[sensor]]`: what is read, and how often.
//!
//! What enters: the tables. What leaves: [`SensorConfig`], one for each. Whether the hardware is there is not asked here.

use super::ConfigError;
use super::address::Listen;
use super::read::Section;
use crate::reading::{MAX_NAME_BYTES, Scale};
use std::path::PathBuf;
use std::time::Duration;

/// One `[[sensor]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorConfig {
    /// What is read.
    pub kind: SensorKind,
    /// How often; zero for `exec` and `socket`, which speak when they like.
    pub interval: Duration,
}

/// What is read.
#[derive(Debug, Clone, PartialEq)]
pub enum SensorKind {
    /// `/sys/class/hwmon`.
    Hwmon(SysfsConfig),
    /// `/sys/bus/iio/devices`.
    Iio(SysfsConfig),
    /// `/sys/class/thermal`.
    Thermal(SysfsConfig),
    /// `/sys/class/power_supply`.
    PowerSupply(SysfsConfig),
    /// `/sys/bus/w1/devices`.
    W1(SysfsConfig),
    /// One file with one value.
    File(FileConfig),
    /// `/proc`.
    Proc(ProcConfig),
    /// A program that writes line protocol.
    Exec(ExecConfig),
    /// A socket that takes line protocol.
    Socket(SocketConfig),
}

impl SensorKind {
    /// The word of the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Hwmon(_) => "hwmon",
            Self::Iio(_) => "iio",
            Self::Thermal(_) => "thermal",
            Self::PowerSupply(_) => "power_supply",
            Self::W1(_) => "w1",
            Self::File(_) => "file",
            Self::Proc(_) => "proc",
            Self::Exec(_) => "exec",
            Self::Socket(_) => "socket",
        }
    }
}

/// Which of the devices of a sysfs class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SysfsConfig {
    /// Globs of names or labels; empty takes all.
    pub matching: Vec<String>,
}

/// `kind = "file"`.
#[derive(Debug, Clone, PartialEq)]
pub struct FileConfig {
    /// The file, looked up below `root`.
    pub path: PathBuf,
    /// The series' name.
    pub name: String,
    /// SenML symbol, or empty.
    pub unit: String,
    /// What an integer is multiplied by.
    pub scale: Scale,
}

/// `kind = "proc"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcConfig {
    /// Each at most once.
    pub groups: Vec<ProcGroup>,
}

/// What of `/proc` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcGroup {
    /// `/proc/stat`.
    Cpu,
    /// `/proc/meminfo`.
    Memory,
    /// `/proc/diskstats`.
    Disk,
    /// `/proc/loadavg`.
    Load,
    /// `/proc/net/dev`.
    Network,
}

impl ProcGroup {
    /// All of them, with the words of the configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("cpu", Self::Cpu),
        ("memory", Self::Memory),
        ("disk", Self::Disk),
        ("load", Self::Load),
        ("network", Self::Network),
    ];
}

/// `kind = "exec"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecConfig {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// A program that is silent for so long is started again.
    pub timeout: Option<Duration>,
    /// The longest wait before it is started again.
    pub backoff: Duration,
}

/// `kind = "socket"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Where.
    pub listen: Listen,
    /// The most streams at once.
    pub clients: u32,
}

impl SensorConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let kind = match section.kind() {
            "hwmon" => SensorKind::Hwmon(sysfs(section)?),
            "iio" => SensorKind::Iio(sysfs(section)?),
            "thermal" => SensorKind::Thermal(sysfs(section)?),
            "power_supply" => SensorKind::PowerSupply(sysfs(section)?),
            "w1" => SensorKind::W1(sysfs(section)?),
            "file" => SensorKind::File(file(section)?),
            "proc" => SensorKind::Proc(ProcConfig { groups: groups(section)? }),
            "exec" => SensorKind::Exec(exec(section)?),
            _ => SensorKind::Socket(SocketConfig {
                listen: section.parsed("listen", Listen::parse)?,
                clients: section.count("clients")?,
            }),
        };
        let speaks = matches!(kind, SensorKind::Exec(_) | SensorKind::Socket(_));
        let interval = if speaks { Duration::ZERO } else { section.duration("interval")? };
        Ok(Self { kind, interval })
    }
}

fn sysfs(section: &Section<'_>) -> Result<SysfsConfig, ConfigError> {
    let matching = section.list("match")?;
    match matching.iter().find(|glob| glob.is_empty()) {
        Some(_) => Err(section.error("match", "an empty glob fits nothing; write \"*\" for all, or leave `match` out")),
        None => Ok(SysfsConfig { matching }),
    }
}

fn file(section: &Section<'_>) -> Result<FileConfig, ConfigError> {
    Ok(FileConfig {
        path: section.parsed("path", super::absolute_path)?,
        name: section.parsed("name", series_name)?,
        unit: section.parsed("unit", unit)?,
        scale: section.parsed("scale", |text| {
            Scale::parse(text).ok_or_else(|| {
                format!("{text:?} is not a decimal factor; write one in quotes, such as \"0.001\" or \"1e-3\", not 0")
            })
        })?,
    })
}

fn groups(section: &Section<'_>) -> Result<Vec<ProcGroup>, ConfigError> {
    let words = section.list("groups")?;
    let mut groups = Vec::new();
    for word in &words {
        let known = ProcGroup::ALL.into_iter().find(|(name, _)| name == word);
        let (_, group) = known.ok_or_else(|| {
            section.error("groups", format!("{word:?} is not one of {}", super::keys::PROC_GROUPS.join(", ")))
        })?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    if groups.is_empty() {
        return Err(section.error("groups", "an empty list reads nothing; leave `groups` out for all of them"));
    }
    Ok(groups)
}

fn exec(section: &Section<'_>) -> Result<ExecConfig, ConfigError> {
    let command = section.list("command")?;
    if command.first().is_none_or(String::is_empty) {
        return Err(section.error("command", "names no program; write a list such as [\"/usr/bin/my-probe\"]"));
    }
    Ok(ExecConfig { command, timeout: section.duration_or_off("timeout")?, backoff: section.duration("backoff")? })
}

fn series_name(text: &str) -> Result<String, String> {
    let (measurement, field) = text.split_once('/').unwrap_or((text, ""));
    let plain = !text.chars().any(|c| c.is_control() || c == ' ');
    if measurement.is_empty() || field.is_empty() || !plain || text.len() > MAX_NAME_BYTES {
        return Err(format!(
            "{text:?} is not the name of a series; write measurement/field[,tag=value…] without blanks, of at most \
             {MAX_NAME_BYTES} bytes, such as \"net/carrier\""
        ));
    }
    Ok(text.to_owned())
}

fn unit(text: &str) -> Result<String, String> {
    if text.len() > 32 || text.chars().any(char::is_control) {
        return Err(format!(
            "{text:?} is not a unit symbol of at most 32 bytes; write one such as \"Cel\", \"V\", \"\""
        ));
    }
    Ok(text.to_owned())
}
