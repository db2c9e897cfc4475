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

/// The share of `max_size` that the largest commit may need for itself: one in so many.
const LOG_SHARE: u64 = 4;

/// What a commit takes beside its bodies, in bytes, at most.
const COMMIT_FRAME_BYTES: u64 = 64 << 10;

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
        config.check_buffer(section)?;
        Ok(config)
    }

    /// The buffer holds one commit by count, and `max_size` one commit of the buffer: what can't be written within the bound
    /// would wait for ever.
    fn check_buffer(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let (has, readings) = (size_text(self.buffer_bytes), self.commit_readings);
        let needed = u64::from(readings) * BUFFERED_READING_BYTES;
        if self.buffer_bytes < needed {
            let least = size_text(needed.next_multiple_of(1024));
            let why = format!(
                "{has} does not hold one commit of {readings} readings; make it \"{least}\" or more, or commit_readings smaller"
            );
            return Err(section.error("buffer", why));
        }
        let most = self.most_log_bytes();
        if self.largest_commit_bytes() > most {
            let fits = size_text((most - COMMIT_FRAME_BYTES) / 17 * 16 / 1024 * 1024);
            let size = size_text((self.largest_commit_bytes() * LOG_SHARE).next_multiple_of(1 << 20));
            let why = format!(
                "a commit of {has} doesn't fit in max_size = \"{}\" beside what is to be kept; make it \"{fits}\" or less, \
                 or max_size \"{size}\" or more",
                size_text(self.max_size_bytes)
            );
            return Err(section.error("buffer", why));
        }
        Ok(())
    }

    /// What a commit of the whole buffer may take in the log, if nothing in it can be made smaller.
    pub(crate) fn largest_commit_bytes(&self) -> u64 {
        self.buffer_bytes + self.buffer_bytes / 16 + COMMIT_FRAME_BYTES
    }

    /// What the log may take of `max_size` for that.
    pub(crate) fn most_log_bytes(&self) -> u64 {
        self.max_size_bytes / LOG_SHARE
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
