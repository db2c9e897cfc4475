//! The examples of docs/brokers, as they are in the tree: a real mosquitto with exactly that configuration and those rules
//! lets everybody do their own work and nothing else; the policies for AWS IoT say the same of the same topics.

use crate::support::*;
use serde_json::Value as Json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use varved::wire::topics::{self, Topic};

const CONF: &str = include_str!("../../docs/brokers/mosquitto.conf");
const DEVICE_POLICY: &str = include_str!("../../docs/brokers/aws-iot-device.json");
const FLEET_POLICY: &str = include_str!("../../docs/brokers/aws-iot-fleet.json");
const PASSWORD: &str = "hunter2-of-pump-19";

fn run(dir: &Path, program: &str, args: &[&str]) -> Output {
    let out = Command::new(program).args(args).current_dir(dir).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}; tests/run installs what the tests need"));
    assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
    out
}

/// An authority, and certificates of it for the broker and for these clients.
fn certificates(dir: &Path, clients: &[&str]) {
    std::fs::create_dir_all(dir).unwrap();
    let openssl = |args: String| drop(run(dir, "openssl", &args.split(' ').collect::<Vec<_>>()));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(format!("req -x509 {key} -days 30 -subj /CN=works -keyout ca.key -out ca.pem"));
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    for name in clients.iter().chain(&["broker"]) {
        openssl(format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out {name}.pem"
        ));
    }
}

/// A mosquitto with the configuration and the rules of the docs; only places and ports are this test's own.
struct Works {
    dir: PathBuf,
    certificate_port: u16,
    password_port: u16,
    _broker: Process,
}

impl Works {
    fn open(dir: &Path) -> Self {
        let [certificate_port, password_port] = [free_port(), free_port()];
        certificates(&dir.join("certs"), &["pump-17", "pump-18", "fleet"]);
        run(dir, "mosquitto_passwd", &["-b", "-c", "passwd", "pump-19", PASSWORD]);
        std::fs::create_dir_all(dir.join("kept")).unwrap();
        let here = |name: &str| dir.join(name).display().to_string();
        let acl = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/brokers/mosquitto.acl");
        let mut conf = format!("user root\n{CONF}");
        for (theirs, ours) in [
            ("/etc/mosquitto/varved.acl", acl.to_owned()),
            ("/etc/mosquitto/varved.passwd", here("passwd")),
            ("/etc/mosquitto/certs", here("certs")),
            ("/var/lib/mosquitto/", here("kept/")),
            ("listener 8883", format!("listener {certificate_port} 127.0.0.1")),
            ("listener 8884", format!("listener {password_port} 127.0.0.1")),
        ] {
            assert!(conf.contains(theirs), "{theirs} is not in the example");
            conf = conf.replace(theirs, &ours);
        }
        std::fs::write(dir.join("mosquitto.conf"), conf).unwrap();
        let mut command = Command::new("mosquitto");
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).arg("-c").arg(dir.join("mosquitto.conf"));
        let broker = Process::start(&mut command, &dir.join("mosquitto.log"));
        wait_for("mosquitto to listen", 20, || std::net::TcpStream::connect(("127.0.0.1", password_port)).ok());
        Self { dir: dir.to_owned(), certificate_port, password_port, _broker: broker }
    }

    fn certs(&self, name: &str) -> String {
        self.dir.join("certs").join(name).display().to_string()
    }

    /// `mosquitto_pub` or `_sub` as this user: with a certificate, or as pump-19 with the password.
    fn client(&self, program: &str, user: &str) -> Command {
        // Line by line, also into a file.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-h", "127.0.0.1", "-i", user, "-q", "1", "--cafile", &self.certs("ca.pem")]);
        if user == "pump-19" {
            command.args(["-p", &self.password_port.to_string(), "-u", user, "-P", PASSWORD]);
        } else {
            let (cert, key) = (self.certs(&format!("{user}.pem")), self.certs(&format!("{user}.key")));
            command.args(["-p", &self.certificate_port.to_string(), "--cert", &cert, "--key", &key]);
        }
        command
    }

    /// Publishes; whether the rules allow it shows in what others receive, since mosquitto says nothing.
    fn publish(&self, user: &str, topic: &str) {
        let out = self.client("mosquitto_pub", user).args(["-t", topic, "-m", user]).output().unwrap();
        assert!(out.status.success(), "{user} to {topic}: {}", text(&out));
    }

    /// Subscribes to everything; what the rules let through goes to the log, as `topic publisher`.
    fn listen(&self, user: &str) -> Process {
        let mut command = self.client("mosquitto_sub", user);
        command.args(["-t", "#", "-F", "%t %p", "-d"]);
        let listener = Process::start(&mut command, &self.dir.join(format!("heard-by-{user}")));
        wait_for("the subscription", 20, || listener.log_text().contains("SUBACK").then_some(()));
        listener
    }
}

/// The messages that a listener got so far, without what mosquitto_sub says of itself.
fn heard(listener: &Process) -> Vec<String> {
    let log = listener.log_text();
    log.lines().filter(|line| line.starts_with("varved/") || line.starts_with("x ")).map(str::to_owned).collect()
}

fn wait_to_hear(listener: &Process, line: &str) -> Vec<String> {
    wait_for(line, 20, || Some(heard(listener)).filter(|lines| lines.iter().any(|heard| heard == line)))
}

/// What `user` writes of its own gets through, and nothing else that it may try; `last` is the state, which comes last.
fn tries_everything(works: &Works, user: &str) {
    for victim in ["pump-18", user] {
        for tail in ["ack", "request"] {
            works.publish(user, &format!("varved/v1/{victim}/{tail}"));
        }
    }
    for tail in ["segment", "catalog/0", "state"] {
        works.publish(user, &format!("varved/v1/pump-18/{tail}"));
    }
    for topic in ["varved/v1/segment", "varved/segment", "x"] {
        works.publish(user, topic);
    }
    for tail in ["segment", "catalog/0", "state"] {
        works.publish(user, &format!("varved/v1/{user}/{tail}"));
    }
}

/// Under the rules of the example a device writes its own three topics; it can write nothing of another device, no ack and
/// no request, not even its own, and reads nothing but what the fleet tells it. Only the receiver writes acks. That holds
/// for devices with a certificate and with a password, and whatever client id they claim.
#[test]
fn each_may_do_its_own_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let works = Works::open(dir.path());
    let (fleet, victim) = (works.listen("fleet"), works.listen("pump-18"));
    for user in ["pump-17", "pump-19"] {
        tries_everything(&works, user);
        let lines = wait_to_hear(&fleet, &format!("varved/v1/{user}/state {user}"));
        let own: Vec<String> =
            ["segment", "catalog/0", "state"].iter().map(|tail| format!("varved/v1/{user}/{tail} {user}")).collect();
        assert_eq!(lines[lines.len() - 3..], own, "{lines:?}");
        assert!(lines.len() <= 6, "{lines:?}");
    }
    // Who takes another's client id throws nobody out: the id is the user's name, whatever is claimed.
    let claim =
        works.client("mosquitto_pub", "pump-17").args(["-i", "pump-18", "-t", "x", "-m", "x"]).output().unwrap();
    assert!(claim.status.success(), "{}", text(&claim));

    drop(fleet);
    let curious = works.listen("pump-17");
    for (device, tail) in [("pump-18", "ack"), ("pump-18", "request"), ("pump-17", "request"), ("pump-17", "ack")] {
        works.publish("fleet", &format!("varved/v1/{device}/{tail}"));
    }
    let to_victim = wait_to_hear(&victim, "varved/v1/pump-18/request fleet");
    assert_eq!(to_victim, ["varved/v1/pump-18/ack fleet", "varved/v1/pump-18/request fleet"], "nothing forged");
    assert_eq!(victim.log_text().matches("CONNACK").count(), 1, "it was thrown out: {}", victim.log_text());
    let to_curious = wait_to_hear(&curious, "varved/v1/pump-17/ack fleet");
    assert_eq!(to_curious, ["varved/v1/pump-17/request fleet", "varved/v1/pump-17/ack fleet"], "nothing of others");
}

/// The login of a client of [`Works`], as lines of `[uplink]` or `[fleet]`.
fn login(works: &Works, user: &str) -> String {
    let ca = works.certs("ca.pem");
    if user == "pump-19" {
        let password = works.dir.join("password");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o440)).unwrap();
        let password = password.display();
        let broker = format!("mqtts://127.0.0.1:{}", works.password_port);
        return format!(
            "broker = \"{broker}\"\nca = \"{ca}\"\nusername = \"{user}\"\npassword_file = \"{password}\"\n"
        );
    }
    let (cert, key) = (works.certs(&format!("{user}.pem")), works.certs(&format!("{user}.key")));
    let broker = format!("mqtts://127.0.0.1:{}", works.certificate_port);
    format!("broker = \"{broker}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n")
}

/// Under the example, real devices with a certificate and with a password bring all their readings to a real receiver over
/// TLS, and get their acks; `check` finds nothing wrong with either side.
#[test]
fn the_whole_path_works_under_the_examples() {
    let dir = tempfile::tempdir().unwrap();
    let works = Works::open(dir.path());
    let fleet = Fleet::new(&dir.path().join("fleet"), "mqtt://unused");
    let data = fleet.dir.join("data");
    std::fs::write(&fleet.config, format!("[fleet]\ndata = \"{}\"\n{}", data.display(), login(&works, "fleet")))
        .unwrap();
    let checked = fleet.command(&["check"]);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", text(&checked));
    let receiver = fleet.run();
    for name in ["pump-17", "pump-19"] {
        let uplink = format!("[uplink]\n{}", login(&works, name));
        let site = Site::new(&dir.path().join(name), name, "commit_interval = \"1s\"", &uplink);
        let checked = site.command("check");
        assert!(checked.status.success() && checked.stderr.is_empty(), "{}", text(&checked));
        let device = site.run();
        site.send(&(1..=5000).map(|n| format!("m v={n}i {n}\n")).collect::<String>());
        site.flush();
        wait_for("every reading at the fleet", 60, || (fleet.count(name) == 5000).then_some(()));
        wait_for("the acknowledgement", 60, || (site.status()["pending"]["readings"] == 0).then_some(()));
        assert_eq!(device.stop(), Some(0));
    }
    assert_eq!(receiver.stop(), Some(0));
}

/// At the most talkative log level, with logins that fail and files that are broken, no log holds a byte of a password or
/// of a key.
#[test]
fn no_log_holds_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let works = Works::open(dir.path());
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let key = std::fs::read_to_string(works.certs("pump-17.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    let wrong = secret("wrong", "not-the-right-one\n");
    let one_line = secret("one-line.key", &key.replace('\n', ""));
    let by_password = login(&works, "pump-19").replace(&dir.path().join("password").display().to_string(), &wrong);
    let by_certificate = login(&works, "pump-17");
    let broken_key = by_certificate.replace(&works.certs("pump-17.key"), &one_line);
    let shown = [("wrong-password", by_password), ("good", by_certificate), ("broken-key", broken_key)];
    for (name, login) in shown {
        let site = Site::new(&dir.path().join(name), "pump-17", "", &format!("[uplink]\n{login}"));
        let log = site.dir.join("trace.log");
        let mut command = Command::new(service());
        command.args(["run", "--config"]).arg(&site.config).env("RUST_LOG", "trace");
        let device = Process::start(&mut command, &log);
        let told = wait_for("the uplink to have tried", 30, || {
            let status = site.try_status()?;
            let error = status["link"]["last_error"].as_str().map(str::to_owned);
            if name == "good" {
                (status["link"]["state"] == "waiting for the fleet's ack").then(String::new)
            } else {
                error
            }
        });
        let checked = text(&site.command("check"));
        let told = format!("{told}{checked}{}{:#}", device.log_text(), site.status());
        for secret in ["not-the-right-one", PASSWORD, line] {
            assert!(!told.contains(secret), "{name}: {told}");
        }
        assert!(name != "good" || device.log_text().contains("DEBUG"), "a log that says this little proves little");
        assert_eq!(device.stop(), Some(0));
    }
}

/// Two boards from one image, with one name: the service of each says so, and so does the receiver, with their stores.
#[test]
fn two_devices_of_one_name_are_named_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let fleet = Fleet::new(&dir.path().join("fleet"), &broker.url());
    let _receiver = fleet.run();
    let uplink = format!("[uplink]\nbroker = \"{}\"\nreconnect_spread = \"0\"", broker.url());
    let boards = ["one", "other"].map(|place| {
        let site = Site::new(&dir.path().join(place), "pump-17", "", &uplink);
        let device = site.run();
        (site, device)
    });
    for (site, _) in &boards {
        wait_for("the device to name it", 120, || {
            let status = site.status();
            status["link"]["last_error"].as_str().filter(|why| why.contains("has the same id")).map(drop)
        });
    }
    let event = wait_for("the receiver to name it", 120, || {
        let devices = fleet.devices();
        let what = devices[0]["events"][0]["what"].as_str()?;
        what.contains("two devices have this name").then(|| what.to_owned())
    });
    for (site, _) in &boards {
        let stores = site.query("SELECT uuid FROM store");
        assert!(event.contains(stores[0]["uuid"].as_str().unwrap()), "{stores:?} in {event}");
    }
}

/// A small matcher of AWS IoT policies: whether `policy` allows `action` on `resource` for this thing.
fn allows(policy: &str, thing: &str, action: &str, resource: &str) -> bool {
    let policy: Json = serde_json::from_str(policy).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let texts = |value: &Json| -> Vec<String> {
        let one = value.as_str().map(|text| vec![text.to_owned()]);
        one.unwrap_or_else(|| value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect())
    };
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        assert_eq!(statement["Effect"], "Allow", "the matcher knows no denials");
        let resources = texts(&statement["Resource"]);
        texts(&statement["Action"]).iter().any(|known| known == action)
            && resources.iter().any(|pattern| {
                let pattern = pattern.strip_prefix("arn:aws:iot:REGION:ACCOUNT:").unwrap();
                wild(&pattern.replace("${iot:Connection.Thing.ThingName}", thing), resource)
            })
    })
}

/// `*` is any text, slashes too; MQTT's own wildcards are plain characters to AWS.
fn wild(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| wild(tail, &rest[at..]))
        }),
    }
}

/// The policies for AWS IoT allow each side exactly its topics, whose names come from the program itself; and they are within
/// the 2,048 characters that a policy may have.
#[test]
fn the_policies_for_aws_allow_each_its_own() {
    let topic = |device: &str, topic| format!("topic/{}", topics::name("varved", device, topic));
    let device = |action: &str, resource: &str| allows(DEVICE_POLICY, "pump-17", action, resource);
    let fleet = |action: &str, resource: &str| allows(FLEET_POLICY, "", action, resource);
    for own in [Topic::Segment, Topic::Catalog(0), Topic::Catalog(u16::MAX), Topic::State] {
        let retained = own != Topic::Segment;
        assert!(device("iot:Publish", &topic("pump-17", own)));
        assert_eq!(device("iot:RetainPublish", &topic("pump-17", own)), retained);
        assert!(!device("iot:Publish", &topic("pump-18", own)) && !device("iot:Publish", &topic("pump-170", own)));
        assert!(fleet("iot:Receive", &topic("pump-17", own)) && !fleet("iot:Publish", &topic("pump-17", own)));
    }
    for told in [Topic::Ack, Topic::Request] {
        assert!(!device("iot:Publish", &topic("pump-17", told)) && !device("iot:Publish", &topic("pump-18", told)));
        assert!(device("iot:Receive", &topic("pump-17", told)) && !device("iot:Receive", &topic("pump-18", told)));
        assert!(fleet("iot:Publish", &topic("pump-17", told)));
        assert_eq!(fleet("iot:RetainPublish", &topic("pump-17", told)), told == Topic::Ack);
    }
    for filter in topics::device_filters("varved", "pump-17") {
        assert!(device("iot:Subscribe", &format!("topicfilter/{filter}")));
    }
    for filter in ["varved/v1/+/ack", "varved/v1/pump-18/ack", "varved/v1/#", "#"] {
        assert!(!device("iot:Subscribe", &format!("topicfilter/{filter}")), "{filter}");
    }
    for filter in topics::receiver_filters("varved") {
        assert!(fleet("iot:Subscribe", &format!("topicfilter/{filter}")));
    }
    assert!(device("iot:Connect", "client/pump-17") && !device("iot:Connect", "client/pump-18"));
    assert!(fleet("iot:Connect", "client/varved-fleet-varved") && !fleet("iot:Connect", "client/pump-17"));
    for policy in [DEVICE_POLICY, FLEET_POLICY] {
        let policy: Json = serde_json::from_str(policy).unwrap();
        assert!(policy.to_string().len() <= 2048, "{}", policy.to_string().len());
    }
}
