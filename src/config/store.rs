//! `[store]` and `[control]`: the file on flash and its bounds.
//!
//! What enters: the two tables. What leaves: [`StoreConfig`] and [`ControlConfig`], each value in its range and possible
//! together with the others.

use super::ConfigError;
use super::address::Listen;
use super::read::Section;
use super::units::size_text;
use std::path::PathBuf;
use std::time::Duration;

/// What a reading may take in RAM before it is committed, in bytes: stamp, value, and the slack of growing vectors.
pub const BUFFERED_READING_BYTES: u64 = 32;

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database.
    pub path: PathBuf,
    /// The longest that a reading waits in RAM while the medium accepts writes.
    pub commit_interval: Duration,
    /// Commit when so many wait.
    pub commit_readings: u32,
    /// RAM for readings not yet committed, in bytes.
    pub buffer_bytes: u64,
    /// SQLite's page cache, in bytes.
    pub cache_bytes: u64,
    /// What readers may map, in bytes.
    pub mmap_bytes: u64,
    /// Database and WAL together, in bytes.
    pub max_size_bytes: u64,
    /// What is older goes, where the time is trusted; `None` where age is no reason.
    pub max_age: Option<Duration>,
    /// Left free on the partition, in bytes; 0 where the file is bounded by its size alone.
    pub headroom_bytes: u64,
    /// The most series.
    pub max_series: u32,
    /// Who may open the live file.
    pub locking: Locking,
    /// Whether the medium keeps the neighbours of a torn write.
    pub powersafe: bool,
}

/// Who may open the live file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Any SQLite tool.
    Shared,
    /// Only the service.
    Exclusive,
}

impl StoreConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let config = Self {
            path: section.parsed("path", super::path)?,
            commit_interval: section.duration("commit_interval")?,
            commit_readings: section.count("commit_readings")?,
            buffer_bytes: section.size("buffer")?,
            cache_bytes: section.size("cache")?,
            mmap_bytes: section.size("mmap")?,
            max_size_bytes: section.size("max_size")?,
            max_age: section.duration_or_off("max_age")?,
            headroom_bytes: section.size("headroom")?,
            max_series: section.count("max_series")?,
            locking: if section.word("locking")? == "shared" { Locking::Shared } else { Locking::Exclusive },
            powersafe: section.flag("powersafe")?,
        };
        let needed = u64::from(config.commit_readings) * BUFFERED_READING_BYTES;
        if config.buffer_bytes < needed {
            return Err(section.error(
                "buffer",
                format!(
                    "{} does not hold one commit of {} readings; make it \"{}\" or more, or commit_readings smaller",
                    size_text(config.buffer_bytes),
                    config.commit_readings,
                    size_text(needed.next_multiple_of(1024)),
                ),
            ));
        }
        Ok(config)
    }
}

/// `[control]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// The unix socket; `None` where it is off.
    pub listen: Option<PathBuf>,
}

impl ControlConfig {
    pub(super) fn read(section: &Section<'_>, locking: Locking) -> Result<Self, ConfigError> {
        let listen = section.parsed("listen", |text| match text {
            "off" => Ok(None),
            text => match Listen::parse(text) {
                Ok(Listen::Unix(path)) => Ok(Some(path)),
                _ => Err(format!(
                    "{text:?} is not a unix stream socket; write \"unix:///run/varved/control.sock\", or \"off\""
                )),
            },
        })?;
        if listen.is_none() && locking == Locking::Exclusive {
            return Err(section.error(
                "listen",
                "\"off\" with store.locking = \"exclusive\" leaves no way to read the file; write \
                 \"unix:///run/varved/control.sock\", or locking = \"shared\"",
            ));
        }
        Ok(Self { listen })
    }
}
