//! `[uplink]`: the device's way to the broker; and the login that the receiver's file shares with it.
//!
//! What enters: the table. What leaves: [`UplinkConfig`]. Files it names are not opened here.

use super::ConfigError;
use super::address::Broker;
use super::read::Section;
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
        let max_payload = section.size("max_payload")?;
        Ok(Self {
            ca,
            cert,
            key,
            username,
            password_file,
            alpn,
            prefix: section.parsed("prefix", prefix)?,
            snapshot_every: section.duration_or_off("snapshot_every")?,
            max_payload_bytes: u32::try_from(max_payload).unwrap_or(u32::MAX),
            reconnect_spread: section.duration("reconnect_spread")?,
            broker,
        })
    }
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
