//! `[fleet]`: the receiver's own file.
//!
//! What enters: the text of `fleet.toml`. What leaves: [`FleetConfig`].

use super::ConfigError;
use super::address::{Broker, socket_address};
use super::read::{Section, Source};
use super::uplink::{Login, prefix};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the receiver's configuration is, unless told.
pub const DEFAULT_FLEET_CONFIG: &str = "/etc/varved/fleet.toml";

/// `[fleet]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// One folder a device.
    pub data: PathBuf,
    /// An outside broker; exactly one of this and `listen` is there.
    pub broker: Option<Broker>,
    /// Where the embedded broker listens.
    pub listen: Option<SocketAddr>,
    /// The first part of every topic.
    pub prefix: String,
    /// Health and metrics.
    pub http: Option<SocketAddr>,
    /// Certificates that the broker's must descend from, PEM; always there with TLS.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM; there if and only if `key` is.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The login at the outside broker.
    pub username: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The protocol to ask for in the TLS handshake; with TLS only.
    pub alpn: Option<String>,
}

impl FleetConfig {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = super::read_file(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a text; `file` is its name in messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let document = super::document(source)?;
        Section::top(source, document.get_ref(), &["fleet"])?;
        let section = Section::of(source, document.get_ref(), "fleet")?;
        let broker = section.parsed_if_written("broker", Broker::parse)?;
        let listen = section.parsed_if_written("listen", socket_address)?;
        let login = match (&broker, &listen) {
            (Some(broker), None) => Login::read(&section, broker)?,
            (None, Some(_)) => embedded(&section)?,
            (Some(_), Some(_)) => {
                return Err(section.error("listen", "an outside `broker` is named too; keep one of the two"));
            }
            (None, None) => {
                let advice = "is missing; write broker = \"mqtt://127.0.0.1:1883\", or listen = \"0.0.0.0:1883\" for \
                              the embedded one";
                return Err(section.error("broker", advice));
            }
        };
        let Login { ca, cert, key, username, password_file, alpn } = login;
        Ok(Self {
            data: section.parsed("data", super::path)?,
            broker,
            listen,
            prefix: section.parsed("prefix", prefix)?,
            http: section
                .parsed("http", |text| if text == "off" { Ok(None) } else { socket_address(text).map(Some) })?,
            ca,
            cert,
            key,
            username,
            password_file,
            alpn,
        })
    }
}

/// The embedded broker has neither TLS nor logins: keys that promise either are refused, not ignored.
fn embedded(section: &Section<'_>) -> Result<Login, ConfigError> {
    if !cfg!(feature = "broker") {
        return Err(section.error(
            "listen",
            "this build has no embedded broker; name an outside one with `broker`, or build with the feature `broker`",
        ));
    }
    for name in ["ca", "cert", "key", "username", "password_file", "alpn"] {
        if section.text(name)?.is_some() {
            return Err(section.error(
                name,
                "the embedded broker knows no TLS and no logins; use an outside `broker`, or leave it out",
            ));
        }
    }
    Ok(Login::default())
}
