//! `[uplink]`: the device's way to the broker; and the login that the receiver's file shares with it.
//!
//! What enters: the table. What leaves: [`UplinkConfig`], whose limits go together. Files it names are not opened here.

use super::ConfigError;
use super::address::Broker;
use super::read::Section;
use super::units::{SIZE_FORM, duration_text, parse_size, size_text};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// `[uplink]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkConfig {
    /// The broker.
    pub broker: Broker,
    /// Certificates that the broker's must descend from, PEM; always there with TLS.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM; there if and only if `key` is.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The login; there if and only if `password_file` is, but for brokers that want only a name.
    pub username: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The protocol to ask for in the TLS handshake; with TLS only.
    pub alpn: Option<String>,
    /// The first part of every topic.
    pub prefix: String,
    /// How often everything is sent.
    pub snapshot_every: Option<Duration>,
    /// The largest payload, in bytes.
    pub max_payload_bytes: u32,
    /// The longest wait after a connection that had stood.
    pub reconnect_spread: Duration,
    /// How fast and how much.
    pub pace: PaceConfig,
}

/// What the link and its price allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceConfig {
    /// The most messages in flight.
    pub max_in_flight: u16,
    /// The most bytes in flight; not below the largest payload.
    pub max_in_flight_bytes: u32,
    /// Between two pings.
    pub keep_alive: Duration,
    /// Which end of the backlog goes first.
    pub backlog: BacklogOrder,
    /// Bytes a second on the wire, at the mean.
    pub rate_limit: Option<u64>,
    /// Bytes a day on the wire.
    pub budget_daily: Option<u64>,
    /// Bytes a month on the wire.
    pub budget_monthly: Option<u64>,
    /// The part of each budget, in percent, that the backlog leaves to new readings.
    pub live_reserve_percent: u8,
}

impl Default for PaceConfig {
    /// What holds where nothing is written.
    fn default() -> Self {
        Self {
            max_in_flight: 8,
            max_in_flight_bytes: 256 << 10,
            keep_alive: Duration::from_secs(30),
            backlog: BacklogOrder::Oldest,
            rate_limit: None,
            budget_daily: None,
            budget_monthly: None,
            live_reserve_percent: 20,
        }
    }
}

/// Which end of the backlog goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BacklogOrder {
    /// As it was recorded.
    Oldest,
    /// Backwards from the newest.
    Newest,
}

/// The certificates and login of one side of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Login {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) alpn: Option<String>,
}

impl UplinkConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let broker = section.parsed("broker", Broker::parse)?;
        let Login { ca, cert, key, username, password_file, alpn } = Login::read(section, &broker)?;
        let max_payload_bytes = u32::try_from(section.size("max_payload")?).unwrap_or(u32::MAX);
        let pace = PaceConfig::read(section)?;
        let (payload, flight) = (max_payload_bytes.min(LONGEST_PAYLOAD), pace.max_in_flight_bytes);
        if payload > flight {
            let [payload, flight] = [payload, flight].map(|bytes| size_text(u64::from(bytes)));
            // At the one that is written, or at the other whose default does not go with it.
            let name = if section.has("max_payload") { "max_payload" } else { "max_in_flight_bytes" };
            let problem = format!(
                "a payload of up to {payload} does not fit in the {flight} of max_in_flight_bytes; lower max_payload to \
                 {flight}, or raise max_in_flight_bytes if the broker takes it"
            );
            return Err(section.error(name, problem));
        }
        pace.affords_pings(section, broker.tls)?;
        Ok(Self {
            ca,
            cert,
            key,
            username,
            password_file,
            alpn,
            prefix: section.parsed("prefix", prefix)?,
            snapshot_every: section.duration_or_off("snapshot_every")?,
            max_payload_bytes,
            reconnect_spread: section.duration("reconnect_spread")?,
            pace,
            broker,
        })
    }
}

impl PaceConfig {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let backlog = section.word("backlog")?;
        Ok(Self {
            max_in_flight: u16::try_from(section.count("max_in_flight")?).unwrap_or(u16::MAX),
            max_in_flight_bytes: u32::try_from(section.size("max_in_flight_bytes")?).unwrap_or(u32::MAX),
            keep_alive: section.duration("keep_alive")?,
            backlog: if backlog == "newest" { BacklogOrder::Newest } else { BacklogOrder::Oldest },
            rate_limit: section.parsed("rate_limit", |text| size_or_off(text, 64..=1 << 30))?,
            budget_daily: section.parsed("budget_daily", |text| size_or_off(text, BUDGET_BYTES))?,
            budget_monthly: section.parsed("budget_monthly", |text| size_or_off(text, BUDGET_BYTES))?,
            live_reserve_percent: section.parsed("live_reserve", percent)?,
        })
    }
}

/// What the wire format takes; a higher limit means this.
const LONGEST_PAYLOAD: u32 = 256 << 10;

impl PaceConfig {
    /// What a ping costs on the wire with its answer: two packets of 54 bytes and the acknowledgement of the second; with
    /// TLS a record of 22 bytes more in each of the two.
    pub fn ping_bytes(tls: bool) -> u64 {
        2 * 54 + 52 + if tls { 2 * 22 } else { 0 }
    }

    /// A budget must leave something beside the pings, which can't be held back.
    fn affords_pings(&self, section: &Section<'_>, tls: bool) -> Result<(), ConfigError> {
        let day = 86_400 / self.keep_alive.as_secs().max(1) * Self::ping_bytes(tls);
        for (name, budget, pings) in
            [("budget_daily", self.budget_daily, day), ("budget_monthly", self.budget_monthly, 31 * day)]
        {
            if budget.is_some_and(|bytes| bytes < 2 * pings) {
                let (pings, every) = (pings / 1024, duration_text(self.keep_alive));
                let problem = format!(
                    "the pings of a keep_alive of {every} take {pings} KiB of it, more than half; write a longer keep_alive, \
                     such as \"10m\", or raise the budget"
                );
                return Err(section.error(name, problem));
            }
        }
        Ok(())
    }
}

const BUDGET_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 40;

fn size_or_off(text: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
    if text == "off" {
        return Ok(None);
    }
    let bytes = parse_size(text).ok_or_else(|| format!("{text:?} is not a size; {SIZE_FORM}, or \"off\""))?;
    if !range.contains(&bytes) {
        let [least, most] = [*range.start(), *range.end()].map(size_text);
        return Err(format!("{text:?} is out of range: allowed is a size from {least} to {most}, or \"off\""));
    }
    Ok(Some(bytes))
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok()).filter(|number| *number <= 100);
    number.ok_or_else(|| format!("{text:?} is not a share; write a whole number from 0 to 100 and %, such as \"20%\""))
}

impl Login {
    /// The six keys, possible together and with `broker`.
    pub(super) fn read(section: &Section<'_>, broker: &Broker) -> Result<Self, ConfigError> {
        let login = Self {
            ca: section.parsed_if_written("ca", super::path)?,
            cert: section.parsed_if_written("cert", super::path)?,
            key: section.parsed_if_written("key", super::path)?,
            username: section.text("username")?,
            password_file: section.parsed_if_written("password_file", super::path)?,
            alpn: section.parsed_if_written("alpn", alpn)?,
        };
        let wrong = |name: &str, problem: &str| Err(section.error(name, problem));
        if broker.tls && !cfg!(feature = "tls") {
            return wrong("broker", "this build has no TLS; write mqtt://, or build with the feature `tls`");
        }
        if broker.tls && login.ca.is_none() {
            return wrong("ca", "is missing: mqtts:// needs the certificates to trust, such as \"/etc/varved/ca.pem\"");
        }
        if !broker.tls {
            let written = [login.ca.is_some(), login.cert.is_some(), login.key.is_some(), login.alpn.is_some()];
            if let Some((name, _)) = ["ca", "cert", "key", "alpn"].into_iter().zip(written).find(|(_, is)| *is) {
                return wrong(name, "means nothing over mqtt://; write mqtts:// in `broker`, or leave it out");
            }
        }
        match (&login.cert, &login.key) {
            (Some(_), None) => return wrong("cert", "has no `key` beside it; give both, or neither"),
            (None, Some(_)) => return wrong("key", "has no `cert` beside it; give both, or neither"),
            _ => {}
        }
        if login.password_file.is_some() && login.username.is_none() {
            return wrong("password_file", "has no `username` beside it; give both, or neither");
        }
        if login.username.as_ref().is_some_and(String::is_empty) {
            return wrong("username", "is empty; write the login, or leave it out");
        }
        Ok(login)
    }
}

/// A name of the registry of RFC 7301, or one of the kind.
fn alpn(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{text:?} is not the name of a protocol; write what the broker asks for, such as \"mqtt\""
        ));
    }
    Ok(text.to_owned())
}

/// A topic prefix that leaves room for `/v1/<device>/catalog/<page>` in the 7 slashes that some brokers allow.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '+' | '#' | '$');
    let levels: Vec<&str> = text.split('/').collect();
    if text.len() > 64 || levels.len() > 4 || levels.iter().any(|level| level.is_empty()) || !text.chars().all(plain) {
        return Err(format!(
            "{text:?} is not a topic prefix; write 1 to 4 levels without wildcards (+ #), $ or blanks, of at most 64 \
             bytes, such as \"varved\" or \"plant/3/varved\""
        ));
    }
    Ok(text.to_owned())
}
