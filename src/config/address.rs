//! Addresses in the configuration: where a socket listens, and which broker.
//!
//! What enters: text such as `unix:///run/varved/ingest.sock`, `tcp://127.0.0.1:8094`, `mqtts://broker.example:8883`.
//! What leaves: the typed address, or words that say what is allowed. Nothing is opened or resolved here.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where line protocol comes in, with Telegraf's spelling of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `unix:///path`: a stream socket; a full intake holds the sender back.
    Unix(PathBuf),
    /// `unixgram:///path`: a datagram socket; what does not fit is dropped and counted.
    UnixGram(PathBuf),
    /// `tcp://ip:port`: a stream.
    Tcp(SocketAddr),
    /// `udp://ip:port`: datagrams.
    Udp(SocketAddr),
}

/// The longest path of a unix socket, in bytes (`sun_path` of unix(7), less its final NUL).
const MAX_UNIX_PATH_BYTES: usize = 107;

impl Listen {
    /// Reads one of the four forms; the error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme {
            "unix" => socket_path(rest).map(Self::Unix),
            "unixgram" => socket_path(rest).map(Self::UnixGram),
            "tcp" => socket_address(rest).map(Self::Tcp),
            "udp" => socket_address(rest).map(Self::Udp),
            _ => Err(format!(
                "{text:?} is not an address to listen on; write unix:///path, unixgram:///path, tcp://ip:port or \
                 udp://ip:port, such as \"unix:///run/varved/ingest.sock\""
            )),
        }
    }

    /// Whether both can't be open at once: the same path, or the same port of the same protocol on one address or on
    /// every address.
    pub fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a) | Self::UnixGram(a), Self::Unix(b) | Self::UnixGram(b)) => a == b,
            (Self::Tcp(a), Self::Tcp(b)) | (Self::Udp(a), Self::Udp(b)) => {
                a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixGram(path) => write!(f, "unixgram://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
        }
    }
}

/// Reads `ip:port`; names are not allowed, since what they mean may change under a running service.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| {
        format!("{text:?} is not an IP address and a port; write them as \"127.0.0.1:8094\" or \"[::1]:8094\"")
    })
}

fn socket_path(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(format!(
            "{text:?} is not the absolute path of a socket; write three slashes, as in \"unix:///run/varved/a.sock\""
        ));
    }
    if text.len() > MAX_UNIX_PATH_BYTES {
        return Err(format!("the path has {} bytes, a unix socket may have {MAX_UNIX_PATH_BYTES}", text.len()));
    }
    Ok(PathBuf::from(text))
}

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// A name or an address, without brackets.
    pub host: String,
    /// 1883 for `mqtt://`, 8883 for `mqtts://` where none is written.
    pub port: u16,
    /// Whether the scheme was `mqtts://`.
    pub tls: bool,
}

impl Broker {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`; the error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} {why}; write mqtt://host[:port] or mqtts://host[:port], such as \"mqtts://broker:8883\"")
        };
        if let Some((login, host)) = text.rsplit_once('@') {
            // Not cited: what stands before the @ is a password, and messages go to logs.
            let scheme = if login.starts_with("mqtt://") { "mqtt" } else { "mqtts" };
            return Err(format!("holds a login, which belongs in username and password_file; write {scheme}://{host}"));
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(&format!("has the scheme {scheme}:// instead of MQTT's"))),
            None => return Err(wrong("has no scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => Some(if tls { 8883 } else { 1883 }),
            Some(port) => port.parse().ok().filter(|port| *port != 0),
        };
        let port = port.ok_or_else(|| wrong("has a port that is not a number from 1 to 65535"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong("names no host"));
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The four schemes are read and written back; everything else is told what is allowed.
    #[test]
    fn listen_addresses_are_one_of_four_forms() {
        for text in ["unix:///run/a.sock", "unixgram:///run/a.sock", "tcp://127.0.0.1:8094", "udp://[::1]:8094"] {
            assert_eq!(Listen::parse(text).map(|listen| listen.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "/run/a.sock", "http://x", "unix://run/a.sock", "tcp://localhost:80", "tcp://1.2.3.4:0"] {
            assert!(Listen::parse(bad).is_err_and(|why| why.contains("write")), "{bad}");
        }
        assert!(Listen::parse(&format!("unix:///{}", "a".repeat(107))).is_err());
    }

    /// Two sensors on one socket would take turns at each other's lines.
    #[test]
    fn addresses_collide_by_path_or_port() {
        let listen = |text| Listen::parse(text).expect("an address");
        assert!(listen("unix:///a").collides(&listen("unixgram:///a")));
        assert!(listen("tcp://0.0.0.0:80").collides(&listen("tcp://127.0.0.1:80")));
        assert!(!listen("tcp://127.0.0.1:80").collides(&listen("udp://127.0.0.1:80")));
        assert!(!listen("unix:///a").collides(&listen("unix:///b")));
    }

    /// A broker has its scheme's port unless it says another, and never a password in the open.
    #[test]
    fn brokers_have_their_schemes_port() {
        let broker = |text| Broker::parse(text).map(|broker| broker.to_string());
        assert_eq!(broker("mqtt://a").as_deref(), Ok("mqtt://a:1883"));
        assert_eq!(broker("mqtts://broker.example/").as_deref(), Ok("mqtts://broker.example:8883"));
        assert_eq!(broker("mqtt://[::1]:99").as_deref(), Ok("mqtt://[::1]:99"));
        for bad in ["", "a:1883", "http://a", "mqtt://", "mqtt://a:0", "mqtt://a:x", "mqtt://u:p@a", "mqtt://a/b"] {
            assert!(broker(bad).is_err(), "{bad}");
        }
    }
}
