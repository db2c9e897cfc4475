//! TLS against real servers, with certificates made by openssl: who is let in, and what is said of who is not.

use super::*;
use crate::clock::{BootNanos, Clock, Now, SECOND, UtcNanos};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Two authorities, `ca` and `foreign`; certificates of the first for a broker on 127.0.0.1 and a device, of the second for a
/// stranger; 30 days from now.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let output = std::process::Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let output = output.expect("openssl is not installed; tests/run installs what the tests need");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for ca in ["ca", "foreign"] {
        openssl(&format!("req -x509 {KEY} -days 30 -subj /O=Works/CN={ca} -keyout {ca}.key -out {ca}.pem"));
    }
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1,DNS:broker.example").expect("written");
    for (name, ca) in [("broker", "ca"), ("device", "ca"), ("stranger", "foreign")] {
        openssl(&format!("req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 30 -extfile san -out {name}.pem"
        ));
    }
}

const TLS: &str = "allow_anonymous true\ncafile {dir}/ca.pem\ncertfile {dir}/broker.pem\nkeyfile {dir}/broker.key\n";

fn files(dir: &Path, ca: &str, pair: Option<&str>) -> Tls {
    let file = |name: String| Some(dir.join(name));
    let (cert, key) = (pair.map(|name| format!("{name}.pem")), pair.map(|name| format!("{name}.key")));
    Tls { ca: file(format!("{ca}.pem")), cert: cert.and_then(file), key: key.and_then(file), alpn: None }
}

fn fault(settings: Settings) -> LinkFault {
    let (_client, events) = start(settings);
    next_fault(&events)
}

/// A clock that is set by hand.
struct MadeUp {
    utc_s: AtomicI64,
    trusted: AtomicBool,
}

impl MadeUp {
    fn at(utc_s: i64, trusted: bool) -> Arc<Self> {
        Arc::new(Self { utc_s: AtomicI64::new(utc_s), trusted: AtomicBool::new(trusted) })
    }
}

impl Clock for MadeUp {
    fn now(&self) -> Now {
        let utc = UtcNanos(self.utc_s.load(Ordering::Relaxed) * SECOND);
        Now { boot: BootNanos(0), utc, trusted: self.trusted.load(Ordering::Relaxed) }
    }
}

fn system_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs() as i64
}

/// With an authority of one's own and a client certificate a message goes through; each thing that may be wrong with
/// either side has its own words, with the names that it takes to put it right.
#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    let broker = Mosquitto::with_files(&format!("{TLS}require_certificate true\n"), certificates);
    let dir = broker.dir.path();
    let with = |tls: Tls| Settings { tls: Some(tls), ..device("d", broker.port) };
    let (client, events) = start(with(files(dir, "ca", Some("device"))));
    assert_eq!(next(&events), Event::Connected { connection: 1 });
    publish(&client, "a/b", &[7; 100_000]).expect("taken");

    let wrong_ca = fault(with(files(dir, "foreign", Some("device"))));
    let told = wrong_ca.to_string();
    assert!(matches!(wrong_ca, LinkFault::WrongCa { .. }), "{told}");
    assert!(told.contains("issued by O=Works, CN=ca, but ") && told.contains("foreign.pem holds O=Works, CN=foreign"));

    let wrong_name = fault(Settings { host: "localhost".into(), ..with(files(dir, "ca", Some("device"))) });
    let names = "127.0.0.1, broker.example".to_owned();
    assert!(matches!(&wrong_name, LinkFault::WrongName { host, .. } if host == "localhost"), "{wrong_name}");
    for name in names.split(", ") {
        assert!(wrong_name.to_string().contains(name), "{wrong_name}");
    }

    let missing = fault(with(files(dir, "ca", None)));
    assert!(matches!(missing, LinkFault::ClientCertificate { given: false, .. }), "{missing}");
    let stranger = fault(with(files(dir, "ca", Some("stranger"))));
    assert!(matches!(stranger, LinkFault::ClientCertificate { given: true, .. }), "{stranger}");
}

/// What is wrong with the files themselves is told with their names: missing, not PEM, one without the other, one of another,
/// or open to everybody.
#[test]
fn what_is_wrong_with_a_file_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    certificates(dir.path());
    let told = |tls: Tls| {
        let settings = Settings { tls: Some(tls), ..device("d", 1) };
        let fault = settings.check().expect_err("refused");
        assert!(matches!(fault, LinkFault::File { .. }), "{fault}");
        fault.to_string()
    };
    let good = || files(dir.path(), "ca", Some("device"));
    let at = |name: &str| Some(dir.path().join(name));
    assert!(told(files(dir.path(), "no-such", None)).contains("no-such.pem: No such file"));
    assert!(told(Tls { ca: at("ca.key"), ..good() }).contains("no PEM certificate"));
    assert!(told(Tls { key: None, ..good() }).contains("`cert` and `key` are needed together"));
    assert!(told(Tls { key: at("stranger.key"), ..good() }).contains("it does not go with"));
    assert!(told(Tls { key: at("device.pem"), ..good() }).contains("everybody may use it (mode 644)"));
    secret(&dir.path().join("empty"), "nothing");
    assert!(told(Tls { key: at("empty"), ..good() }).contains("no PEM private key"));
}

/// A board without a clock of its own starts in 1970. That is said to be no fault of the certificate, and once the clock is
/// set the connection is made within seconds, however long the wait had grown.
#[test]
fn a_board_that_boots_in_1970_connects_soon_after_its_clock_is_set() {
    let broker = Mosquitto::with_files(TLS, certificates);
    let clock = MadeUp::at(10, false);
    let hour = Duration::from_secs(3600);
    let backoff = BackoffLimits { base: hour, cap: hour, ..quick(device("d", 1)).backoff };
    let tls = Some(files(broker.dir.path(), "ca", None));
    let settings = Settings { tls, backoff, clock: WallClock(clock.clone()), ..device("d", broker.port) };
    let (client, events) = start(settings);
    let fault = next_fault(&events);
    assert!(matches!(fault, LinkFault::ClockUnset { .. }), "{fault}");
    let told = fault.to_string();
    assert!(told.contains("clock says 1970-01-01T00:00:10") && told.contains("rights itself"), "{told}");
    clock.utc_s.store(system_s(), Ordering::Relaxed);
    eventually("connected", || client.is_connected());
}

/// By a clock that is believed, a certificate may be over or not begun; by one that is not believed, an ended one may be the
/// clock's fault.
#[test]
fn an_ended_certificate_and_one_that_has_not_begun_are_told_apart() {
    let broker = Mosquitto::with_files(TLS, certificates);
    let by = |clock: Arc<MadeUp>| {
        let tls = Some(files(broker.dir.path(), "ca", None));
        fault(Settings { tls, clock: WallClock(clock), ..device("d", broker.port) })
    };
    let year = 365 * 86_400;
    let ended = by(MadeUp::at(system_s() + year, true));
    assert!(matches!(ended, LinkFault::Expired { trusted: true, .. }), "{ended}");
    assert!(ended.to_string().ends_with("renew it"), "{ended}");
    let doubtful = by(MadeUp::at(system_s() + year, false)).to_string();
    assert!(doubtful.contains("clock that nothing vouches for"), "{doubtful}");
    let early = by(MadeUp::at(system_s() - year, true));
    assert!(matches!(early, LinkFault::NotYetValid { .. }), "{early}");
}

/// TLS spoken to a plain port, and nothing of it to a TLS port: each is told the other's scheme.
#[test]
fn the_wrong_scheme_is_named() {
    let broker = Mosquitto::with_files(TLS, certificates);
    assert_eq!(fault(device("d", broker.port)), LinkFault::NotMqtt);
    let plain = Mosquitto::start();
    let tls = Some(files(broker.dir.path(), "ca", None));
    assert_eq!(fault(Settings { tls, ..device("d", plain.port) }), LinkFault::NotTls);
}

/// A TLS server that knows one protocol, and tells what was agreed on.
fn server(dir: &Path, protocol: &'static str) -> (u16, std::sync::mpsc::Receiver<Option<Vec<u8>>>) {
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(dir.join("broker.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("broker.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut config = config.expect("a pair");
    config.alpn_protocols = vec![protocol.into()];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let config = Arc::new(config);
        for stream in listener.incoming().flatten() {
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = stream;
            // The first bytes of MQTT end the handshake for certain.
            let _ = rustls::Stream::new(&mut session, &mut stream).read(&mut [0; 16]);
            if tell.send(session.alpn_protocol().map(<[u8]>::to_vec)).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// The protocol that is asked for is what a real server sees; none is asked for unless told to; one that the server does
/// not know is named.
#[test]
fn the_protocol_of_a_shared_port_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    certificates(dir.path());
    let (port, agreed) = server(dir.path(), "x-amzn-mqtt-ca");
    let asking = |alpn: Option<&str>| {
        let tls = Tls { alpn: alpn.map(str::to_owned), ..files(dir.path(), "ca", None) };
        start(Settings { tls: Some(tls), ..device("d", port) })
    };
    for alpn in [Some("x-amzn-mqtt-ca"), None] {
        let _client = asking(alpn);
        // A client goes on trying, and the one before may have tried once more meanwhile.
        while agreed.recv_timeout(PATIENCE).expect("a handshake").as_deref() != alpn.map(str::as_bytes) {}
    }
    assert_eq!(next_fault(&asking(Some("mqtt")).1), LinkFault::Alpn { asked: "mqtt".into() });
}

/// Nothing that can be printed of the settings holds a password or a key.
#[test]
fn settings_show_no_secret() {
    let dir = tempfile::tempdir().expect("a folder");
    secret(&dir.path().join("password"), "hunter2\n");
    let path: PathBuf = dir.path().join("password");
    let login = Some(Login { username: "me".into(), password_file: Some(path) });
    let settings = Settings { login, ..device("d", 1) };
    settings.check().expect("in order");
    assert!(!format!("{settings:?}").contains("hunter2"));
}
