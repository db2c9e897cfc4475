//! What a configuration allows and a broker does not, or nobody would want: told by `check`, never in the way of `run`.
//!
//! What enters: one side of a broker, as it was read. What leaves: [`Advice`]. Pure. The limits are those that a broker
//! publishes; they may change, so what they forbid is an error of `check` and not of the service.

use super::{Broker, Config, FleetConfig};
use crate::wire::topics::{self, Topic};

/// AWS IoT Core quotas, *Message broker*: payload 128 KB, 7 slashes and 256 bytes a topic.
const AWS_PAYLOAD_BYTES: u32 = 128 * 1024;
const AWS_SLASHES: usize = 7;
const AWS_TOPIC_BYTES: usize = 256;

/// The ALPN names of AWS IoT on port 443: with a client certificate, and with a login (*Device communication protocols*).
const AWS_ALPN: (&str, &str) = ("x-amzn-mqtt-ca", "mqtt");

/// mosquitto.conf(5), `max_inflight_messages`.
const MOSQUITTO_IN_FLIGHT: u16 = 20;

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The key, with its table: `uplink.alpn`.
    pub key: String,
    /// What is wrong, and what to write.
    pub problem: String,
    /// Whether it cannot work, so that `check` fails.
    pub fatal: bool,
}

/// One side of a broker.
struct Side<'a> {
    section: &'static str,
    broker: &'a Broker,
    /// The most slashes and bytes of its topics.
    longest_topic: String,
    /// With which it presents itself, where that is also a name of AWS.
    thing: Option<&'a str>,
    max_payload_bytes: Option<u32>,
    has_certificate: bool,
    has_username: bool,
    has_password: bool,
    alpn: Option<&'a str>,
}

/// What is to be said of the device's uplink.
pub fn of_device(config: &Config) -> Vec<Advice> {
    let Some(uplink) = &config.uplink else { return Vec::new() };
    let mut all = of(&Side {
        section: "uplink",
        broker: &uplink.broker,
        longest_topic: topics::name(&uplink.prefix, &config.device, Topic::Catalog(u16::MAX)),
        thing: Some(&config.device),
        max_payload_bytes: Some(uplink.max_payload_bytes),
        has_certificate: uplink.cert.is_some(),
        has_username: uplink.username.is_some(),
        has_password: uplink.password_file.is_some(),
        alpn: uplink.alpn.as_deref(),
    });
    if uplink.pace.max_in_flight > MOSQUITTO_IN_FLIGHT {
        let problem = format!(
            "is {}; mosquitto takes {MOSQUITTO_IN_FLIGHT} unless its max_inflight_messages is raised",
            uplink.pace.max_in_flight
        );
        all.push(Advice { key: "uplink.max_in_flight".into(), problem, fatal: false });
    }
    all
}

/// What is to be said of the receiver's way to an outside broker.
pub fn of_fleet(config: &FleetConfig) -> Vec<Advice> {
    let Some(broker) = &config.broker else { return Vec::new() };
    of(&Side {
        section: "fleet",
        broker,
        longest_topic: topics::name(&config.prefix, &"d".repeat(64), Topic::Catalog(u16::MAX)),
        thing: None,
        max_payload_bytes: None,
        has_certificate: config.cert.is_some(),
        has_username: config.username.is_some(),
        has_password: config.password_file.is_some(),
        alpn: config.alpn.as_deref(),
    })
}

fn of(side: &Side<'_>) -> Vec<Advice> {
    let mut all = logins(side);
    if is_aws(&side.broker.host) {
        all.extend(aws(side));
    }
    all
}

fn logins(side: &Side<'_>) -> Vec<Advice> {
    let note = |key, problem: &str| advice(side, key, problem.to_owned(), false);
    let mut all = Vec::new();
    if side.has_password && !side.broker.tls {
        all.push(note("broker", "sends the password in the open over mqtt://; write mqtts:// and `ca`"));
    }
    if side.has_username && !side.has_password && !side.has_certificate {
        all.push(note("username", "has no `password_file` beside it; few brokers take a name alone"));
    }
    all
}

/// Whether `host` is an endpoint of AWS IoT Core.
fn is_aws(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

fn aws(side: &Side<'_>) -> Vec<Advice> {
    let wrong = |key, problem: String| advice(side, key, problem, true);
    let mut all = Vec::new();
    if !side.broker.tls {
        let problem = format!("AWS IoT speaks TLS only; write mqtts://{}:8883", side.broker.host);
        all.push(wrong("broker", problem));
    }
    let slashes = side.longest_topic.matches('/').count();
    if slashes > AWS_SLASHES || side.longest_topic.len() > AWS_TOPIC_BYTES {
        let bytes = side.longest_topic.len();
        let problem = format!(
            "makes topics of {slashes} slashes and {bytes} bytes; AWS IoT allows {AWS_SLASHES} and {AWS_TOPIC_BYTES}; \
             write fewer levels"
        );
        all.push(wrong("prefix", problem));
    }
    if side.max_payload_bytes.is_some_and(|bytes| bytes > AWS_PAYLOAD_BYTES) {
        all.push(wrong("max_payload", "is above the 128 KB that AWS IoT takes; write \"128KiB\" or less".into()));
    }
    all.extend(aws_alpn(side));
    if let Some(name) = side.thing.filter(|name| name.contains('.')) {
        let problem =
            format!("{name:?} is the client id, and no name of a thing of AWS IoT may hold a dot; write another");
        all.push(Advice { key: "device".into(), problem, fatal: false });
    }
    all
}

/// On port 443 AWS IoT tells MQTT from HTTPS by ALPN, and the kinds of login too; on 8883 it needs none.
fn aws_alpn(side: &Side<'_>) -> Option<Advice> {
    if side.broker.port != 443 {
        return None;
    }
    let (wanted, why) = if side.has_certificate { (AWS_ALPN.0, "a certificate") } else { (AWS_ALPN.1, "a login") };
    let problem = format!("AWS IoT on port 443 with {why} wants alpn = \"{wanted}\"; write that, or port 8883");
    (side.alpn != Some(wanted)).then(|| advice(side, "alpn", problem, true))
}

fn advice(side: &Side<'_>, key: &str, problem: String, fatal: bool) -> Advice {
    Advice { key: format!("{}.{key}", side.section), problem, fatal }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that something is said of; those that `check` fails for are marked.
    fn keys(device: &str, uplink: &str) -> Vec<String> {
        let text = format!("device = \"{device}\"\n[uplink]\n{uplink}");
        let config = Config::parse(&text, "varved.toml").expect("a configuration");
        let mark = |advice: Advice| format!("{}{}", advice.key, if advice.fatal { "!" } else { "" });
        of_device(&config).into_iter().map(mark).collect()
    }

    const THING: &str = "ca = \"/c\"\ncert = \"/x\"\nkey = \"/k\"\n";

    /// What AWS IoT does not take is said for its hosts, and for no other.
    #[test]
    fn the_limits_of_aws_are_checked_for_its_hosts_only() {
        let at = |host: &str, more: &str| keys("pump-17", &format!("broker = \"mqtts://{host}\"\n{THING}{more}"));
        let (plain, shared) = ("a1-ats.iot.eu-west-1.amazonaws.com", "a1-ats.iot.eu-west-1.amazonaws.com:443");
        let none = Vec::<String>::new();
        assert_eq!(at("broker.example:443", "max_payload = \"1MiB\""), none);
        assert_eq!(at(plain, ""), none);
        assert_eq!(at(plain, "prefix = \"a/b/c/d\""), none, "7 slashes are allowed");
        assert_eq!(at(plain, "max_payload = \"128KiB\""), none);
        assert_eq!(at(plain, "max_payload = \"129KiB\""), ["uplink.max_payload!"]);
        assert_eq!(at(shared, ""), ["uplink.alpn!"]);
        assert_eq!(at(shared, "alpn = \"mqtt\""), ["uplink.alpn!"], "that is for logins");
        assert_eq!(at(shared, "alpn = \"x-amzn-mqtt-ca\""), none);
        assert_eq!(keys("pump.17", &format!("broker = \"mqtts://{plain}\"\n{THING}")), ["device"]);
        assert_eq!(keys("pump-17", &format!("broker = \"mqtt://{plain}\"\n")), ["uplink.broker!"]);
    }

    /// A topic of one level more than the prefix may have today would be refused, so that the two limits stay together.
    #[test]
    fn the_slashes_of_a_topic_are_counted() {
        let broker = Broker::parse("mqtts://x.amazonaws.com").expect("a broker");
        let side = |prefix: &str| Side {
            section: "uplink",
            broker: &broker,
            longest_topic: topics::name(prefix, "pump-17", Topic::Catalog(0)),
            thing: None,
            max_payload_bytes: None,
            has_certificate: true,
            has_username: false,
            has_password: false,
            alpn: None,
        };
        assert_eq!(of(&side("a/b/c/d")), []);
        assert_eq!(of(&side("a/b/c/d/e"))[0].key, "uplink.prefix");
    }

    /// A password over a plain connection and a name without a password are notes: some networks are closed, some brokers
    /// take a name.
    #[test]
    fn doubtful_logins_are_notes() {
        let login = "username = \"me\"\npassword_file = \"/p\"";
        assert_eq!(keys("a", &format!("broker = \"mqtt://b\"\n{login}")), ["uplink.broker"]);
        assert_eq!(keys("a", "broker = \"mqtt://b\"\nusername = \"me\""), ["uplink.username"]);
        assert_eq!(keys("a", &format!("broker = \"mqtts://b\"\nca = \"/c\"\n{login}")), Vec::<String>::new());
        let fleet =
            "[fleet]\nbroker = \"mqtts://x.amazonaws.com:443\"\nca = \"/c\"\nusername = \"me\"\npassword_file = \"/p\"";
        let fleet = FleetConfig::parse(fleet, "fleet.toml").expect("a configuration");
        assert!(of_fleet(&fleet)[0].problem.contains("alpn = \"mqtt\""));
    }
}
