//! A broker with a TLS listener for devices and a plain one for the receiver, and the receiver.

use super::process::{Process, free_port, mosquitto};
use super::relay::Relay;
use super::{Bytes, Outcome, until};
use smol::channel::Receiver;
use std::path::{Path, PathBuf};
use std::process::Command;
use varved::mqtt::{Client, Event, Settings, Tls};

/// See the room.
pub(crate) struct Site {
    dir: PathBuf,
    tls_port: u16,
    _broker: Process,
    _receiver: Process,
}

impl Site {
    /// With all its files in `dir`; `receiver` is the program.
    pub(crate) fn start(dir: &Path, receiver: &Path) -> Outcome<Self> {
        certificates(dir)?;
        let (plain, tls_port) = (free_port()?, free_port()?);
        let d = dir.display();
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {plain} 127.0.0.1\nlistener {tls_port} 127.0.0.1\ncafile {d}/ca.pem\ncertfile {d}/broker.pem\n\
             keyfile {d}/broker.key\nallow_anonymous true\npersistence false\nuser root\nset_tcp_nodelay true\n"
        );
        std::fs::write(&config, text)?;
        let broker = mosquitto(&config, plain)?;
        let (config, log) = (dir.join("fleet.toml"), dir.join("fleet.log"));
        std::fs::write(&config, format!("[fleet]\ndata = \"{d}/data\"\nbroker = \"mqtt://127.0.0.1:{plain}\"\n"))?;
        let mut command = Command::new(receiver);
        command.args(["run", "--config"]).arg(&config).env("RUST_LOG", "info");
        let receiver = Process::start(&mut command, &log)?;
        until("the receiver to connect", || Ok(std::fs::read_to_string(&log)?.contains("mqtt: connected")))?;
        Ok(Self { dir: dir.to_owned(), tls_port, _broker: broker, _receiver: receiver })
    }

    /// A folder of its own for `device`.
    pub(crate) fn folder(&self, device: &str) -> Outcome<PathBuf> {
        let dir = self.dir.join(device);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A relay to the TLS listener.
    pub(crate) fn relay(&self) -> Outcome<Relay> {
        Relay::to(self.tls_port)
    }

    /// The authority that signed the broker's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// What a device of this name connects with.
    pub(crate) fn settings(&self, device: &str, relay: &Relay) -> Settings {
        let tls = Tls { ca: Some(self.ca()), cert: None, key: None, alpn: None };
        Settings { tls: Some(tls), ..Settings::device(device, "127.0.0.1", relay.port) }
    }
}

/// A connection that stands, and what it took.
pub(crate) fn connect(settings: Settings, relay: &Relay) -> Outcome<(Client, Receiver<Event>, Bytes)> {
    let (client, events) = Client::start(settings)?;
    match events.recv_blocking()? {
        Event::Connected { .. } => Ok((client, events, relay.settled())),
        other => Err(format!("instead of a connection: {other:?}").into()),
    }
}

/// An authority and a certificate for 127.0.0.1, on the curve that is usual.
fn certificates(dir: &Path) -> Outcome<()> {
    let openssl = |args: &str| -> Outcome<()> {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let out = out.map_err(|cause| format!("openssl: {cause}"))?;
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into()) }
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 30 -subj /CN=ca -keyout ca.key -out ca.pem"))?;
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1")?;
    openssl(&format!("req {key} -subj /CN=broker -keyout broker.key -out broker.csr"))?;
    openssl("x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out broker.pem")
}
