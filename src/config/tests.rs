//! The configuration as its users meet it: examples, defaults, and what each mistake is told.

use super::*;
use std::time::Duration;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse_on(text, "varved.toml", "a host")
}

fn told(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => {
            assert_eq!(error.exit(), Exit::Config);
            error.to_string()
        }
    }
}

/// An empty file is a recorder with every default of the table of keys, named after the machine.
#[test]
fn an_empty_file_has_every_default() {
    let config = parse("").expect("an empty file");
    assert_eq!(config.device, "a-host");
    assert_eq!(config.store.path, Path::new("/var/lib/varved/varved.db"));
    assert_eq!(config.store.commit_interval, Duration::from_secs(10));
    assert_eq!((config.store.commit_readings, config.store.max_series), (10_000, 2_000));
    assert_eq!((config.store.cache_bytes, config.store.mmap_bytes), (256 << 10, 0));
    assert_eq!((config.store.buffer_bytes, config.store.max_size_bytes), (1 << 20, 64 << 20));
    assert_eq!((config.store.locking, config.store.powersafe), (Locking::Shared, false));
    assert_eq!(config.control.listen.as_deref(), Some(Path::new("/run/varved/control.sock")));
    assert!(config.sensors.is_empty() && config.uplink.is_none());
}

/// What the advice on a buffer that is too large names is taken: that buffer, or that size.
#[test]
fn the_buffer_that_is_advised_is_taken() {
    for store in ["max_size = \"8MiB\"\nbuffer = \"1867KiB\"", "max_size = \"9MiB\"\nbuffer = \"2MiB\""] {
        let config = Config::parse(&format!("device = \"d\"\n[store]\n{store}"), "test").unwrap();
        assert!(config.store.largest_commit_bytes() <= config.store.max_size_bytes / 4);
    }
}

/// Every mistake is told its file, its line and its key, what is allowed, and an example.
#[test]
fn each_mistake_is_told_its_line_and_its_remedy() {
    let table: &[(&str, usize, &str, &str)] = &[
        // (text, line, key, a part of the advice)
        (
            "\n[store]\ncommit_interval = \"10x\"",
            3,
            "store.commit_interval",
            "\"10x\" is not a duration; write a number and ms, s, m, h or d, such as \"10s\"",
        ),
        ("[store]\ncommit_interval = \"0\"", 2, "store.commit_interval", "a duration from 100ms to 1h"),
        ("[store]\ncommit_interval = 10", 2, "store.commit_interval", "\"10\" is not in quotes; write a number and"),
        ("[store]\ncommit_intervall = \"10s\"", 2, "store.commit_intervall", "did you mean `commit_interval`?"),
        ("devise = \"a\"", 1, "devise", "did you mean `device`?"),
        ("# x\n[stroe]", 2, "stroe", "did you mean `store`?"),
        ("[store]\nretention = \"7d\"", 2, "store.retention", "known here are path, commit_interval"),
        ("store = 3", 1, "store", "write [store]"),
        ("[sensor]\nkind = \"proc\"", 1, "sensor", "write [[sensor]] with double brackets"),
        ("[store]\nmax_size = \"6MiB\"", 2, "store.max_size", "a size from 8MiB"),
        ("[store]\nmax_size = \"64MB\"", 2, "store.max_size", "KiB, MiB or GiB"),
        ("[store]\nbuffer = \"64KiB\"", 2, "store.buffer", "make it \"313KiB\" or more, or commit_readings smaller"),
        (
            "[store]\nmax_size = \"8MiB\"\nbuffer = \"2MiB\"",
            3,
            "store.buffer",
            "make it \"1867KiB\" or less, or max_size \"9MiB\" or more",
        ),
        ("[store]\ncommit_readings = 0", 2, "store.commit_readings", "a whole number from 1 to 200000"),
        ("[store]\ncommit_readings = \"9\"", 2, "store.commit_readings", "without quotes"),
        ("[store]\npath = \"\"", 2, "store.path", "write the name of a file"),
        ("[store]\nlocking = \"exclusiv\"", 2, "store.locking", "did you mean \"exclusive\"?"),
        ("[store]\npowersafe = 1", 2, "store.powersafe", "write true or false"),
        (
            "[store]\nlocking = \"exclusive\"\n\n[control]\nlisten = \"off\"",
            5,
            "control.listen",
            "or locking = \"shared\"",
        ),
        ("[control]\nlisten = \"tcp://127.0.0.1:1\"", 2, "control.listen", "unix:///run/varved/control.sock"),
        ("device = \"-x\"", 1, "device", "such as \"pump-17\""),
        ("root = \"sys\"", 1, "root", "the whole path"),
        ("\n[[sensor]]\ninterval = \"1s\"", 2, "sensor.kind", "is missing: it is one of \"hwmon\""),
        ("[[sensor]]\nkind = \"hwmom\"", 2, "sensor.kind", "did you mean \"hwmon\"?"),
        ("[[sensor]]\nkind = \"hwmon\"\ncommand = []", 3, "sensor.command", "only of kind exec"),
        ("[[sensor]]\nkind = \"hwmon\"\ninterval = \"1ms\"", 3, "sensor.interval", "a duration from 10ms to 1d"),
        ("[[sensor]]\nkind = \"hwmon\"\nmatch = \"cpu\"", 3, "sensor.match", "write a list of texts"),
        ("[[sensor]]\nkind = \"hwmon\"\nmatch = [\"\"]", 3, "sensor.match", "write \"*\" for all"),
        ("[[sensor]]\nkind = \"file\"\npath = \"/a\"", 1, "sensor.name", "is missing"),
        ("[[sensor]]\nkind = \"file\"\npath = \"/a\"\nname = \"a\"", 4, "sensor.name", "measurement/field"),
        ("[[sensor]]\nkind = \"file\"\npath = \"/a\"\nname = \"a/b\"\nscale = \"0\"", 5, "sensor.scale", "\"0.001\""),
        ("[[sensor]]\nkind = \"proc\"\ngroups = [\"gpu\"]", 3, "sensor.groups", "cpu, memory, disk, load, network"),
        ("[[sensor]]\nkind = \"proc\"\ngroups = []", 3, "sensor.groups", "leave `groups` out"),
        ("[[sensor]]\nkind = \"exec\"\ncommand = []", 3, "sensor.command", "names no program"),
        ("[[sensor]]\nkind = \"socket\"\nlisten = \"/run/a\"", 3, "sensor.listen", "unixgram:///path"),
        (
            "[[sensor]]\nkind = \"socket\"\nlisten = \"unix:///run/varved/control.sock\"",
            3,
            "sensor.listen",
            "give each its own",
        ),
        (
            "[[sensor]]\nkind = \"socket\"\nlisten = \"udp://0.0.0.0:9\"\n[[sensor]]\nkind = \"socket\"\nlisten = \"udp://127.0.0.1:9\"",
            6,
            "sensor.listen",
            "taken by another sensor",
        ),
        ("[uplink]\nprefix = \"a\"", 1, "uplink.broker", "is missing"),
        ("[uplink]\nbroker = \"http://a\"", 2, "uplink.broker", "write mqtt://host[:port]"),
        ("[uplink]\nbroker = \"mqtt://a\"\nca = \"/x\"", 3, "uplink.ca", "write mqtts:// in `broker`"),
        ("[uplink]\nbroker = \"mqtts://a\"\ncert = \"/x\"", 1, "uplink.ca", "mqtts:// needs the certificates"),
        ("[uplink]\nbroker = \"mqtts://a\"\nca = \"/c\"\ncert = \"/x\"", 4, "uplink.cert", "no `key` beside it"),
        ("[uplink]\nbroker = \"mqtts://a\"\nca = \"/c\"\nkey = \"/x\"", 4, "uplink.key", "no `cert` beside it"),
        ("[uplink]\nbroker = \"mqtt://a\"\npassword_file = \"/x\"", 3, "uplink.password_file", "no `username`"),
        ("[uplink]\nbroker = \"mqtt://a\"\nalpn = \"mqtt\"", 3, "uplink.alpn", "write mqtts:// in `broker`"),
        ("[uplink]\nbroker = \"mqtts://a\"\nca = \"/c\"\nalpn = \"\"", 4, "uplink.alpn", "such as \"mqtt\""),
        ("[uplink]\nbroker = \"mqtt://a\"\nreconnect_spread = \"1h\"", 3, "uplink.reconnect_spread", "from 0 to 10m"),
        ("[uplink]\nbroker = \"mqtt://a\"\nprefix = \"a/#\"", 3, "uplink.prefix", "without wildcards"),
        ("[uplink]\nbroker = \"mqtt://a\"\nprefix = \"a//b\"", 3, "uplink.prefix", "without wildcards"),
        (
            "[uplink]\nbroker = \"mqtt://a\"\nsnapshot_every = \"1m\"",
            3,
            "uplink.snapshot_every",
            "a duration from 1h to 365d, or \"off\"",
        ),
        ("[uplink]\nbroker = \"mqtt://a\"\nmax_payload = \"1KiB\"", 3, "uplink.max_payload", "from 4KiB to 1MiB"),
        (
            "[uplink]\nbroker = \"mqtt://a\"\nmax_in_flight_bytes = \"64KiB\"",
            3,
            "uplink.max_in_flight_bytes",
            "lower max_payload to 64KiB",
        ),
        (
            "[uplink]\nbroker = \"mqtt://a\"\nmax_in_flight_bytes = \"64KiB\"\nmax_payload = \"65KiB\"",
            4,
            "uplink.max_payload",
            "does not fit in the 64KiB",
        ),
        ("[uplink]\nbroker = \"mqtt://a\"\nrate_limit = \"10\"", 3, "uplink.rate_limit", "from 64 to 1GiB"),
        ("[uplink]\nbroker = \"mqtt://a\"\nbudget_daily = \"5MB\"", 3, "uplink.budget_daily", "is not a size"),
        ("[uplink]\nbroker = \"mqtt://a\"\nbudget_daily = \"512KiB\"", 3, "uplink.budget_daily", "take 450 KiB of it"),
        ("[uplink]\nbroker = \"mqtt://a\"\nlive_reserve = \"101%\"", 3, "uplink.live_reserve", "from 0 to 100"),
    ];
    for (text, line, key, advice) in table {
        let message = told(text);
        let place = format!("varved.toml:{line}: {key}: ");
        assert!(message.starts_with(&place), "{text:?}\n  told {message}\n  not at {place}");
        assert!(message.contains(advice), "{text:?}\n  told {message}\n  without {advice}");
    }
}

/// A password in the broker's address is refused without being cited: messages go to logs.
#[test]
fn a_password_in_the_address_is_not_cited() {
    for address in ["mqtts://me:hunter2@broker:8883", "http://me:hunter2@broker:8883", "me:hunter2@broker:8883"] {
        let told = told(&format!("[uplink]\nbroker = \"{address}\""));
        assert!(told.contains("write mqtts://broker:8883") && !told.contains("hunter2"), "{told}");
    }
}

/// What is not TOML at all has its line too.
#[test]
fn broken_toml_is_told_its_line() {
    assert!(told("device = \"a\"\n\n[store\n").starts_with("varved.toml:3: "));
    assert!(told("device = a").contains("text is in quotes"));
    assert!(told("device = \"a\"\ndevice = \"b\"").starts_with("varved.toml:2: "));
}

/// A missing file names the way out.
#[test]
fn a_missing_file_is_told_where_to_look() {
    let error = Config::load(Path::new("/nonexistent/varved.toml")).expect_err("no such file");
    assert!(error.to_string().starts_with("/nonexistent/varved.toml: ") && error.to_string().contains("--config"));
}

/// The three examples parse; the last one writes every key that there is, so that none is forgotten in it.
#[test]
fn the_examples_parse_and_the_last_one_has_every_key() {
    let minimal = parse(include_str!("../../docs/examples/minimal.toml")).expect("minimal");
    assert_eq!(minimal.sensors.len(), 1);
    let usual = parse(include_str!("../../docs/examples/usual.toml"));
    let everything_text = include_str!("../../docs/examples/everything.toml");
    let everything = parse(everything_text);
    if cfg!(feature = "tls") {
        assert!(usual.expect("usual").uplink.expect("an uplink").broker.tls);
        assert_eq!(everything.expect("everything").sensors.len(), keys::SENSOR_KINDS.len());
    }
    for key in keys::KEYS.iter().filter(|key| key.section != "fleet") {
        let written = everything_text.lines().any(|line| line.starts_with(&format!("{} = ", key.name)));
        assert!(written, "{}.{} is not in everything.toml", key.section, key.name);
    }
}

/// Every default of the table of keys is inside its own range: the reader takes them through the same door as the file's.
#[test]
fn every_key_is_read_and_every_default_is_allowed() {
    let required = "[[sensor]]\nkind = \"file\"\npath = \"/a\"\nname = \"a/b\"\n[[sensor]]\nkind = \"proc\"\n\
                    [[sensor]]\nkind = \"exec\"\ncommand = [\"/a\"]\n[[sensor]]\nkind = \"socket\"\nlisten = \"udp://0.0.0.0:9\"\n\
                    [[sensor]]\nkind = \"w1\"\n[uplink]\nbroker = \"mqtt://a\"\n";
    let config = parse(required).expect("defaults for the rest");
    let SensorKind::File(file) = &config.sensors[0].kind else { panic!("a file") };
    assert_eq!((file.unit.as_str(), file.scale), ("", crate::reading::Scale::ONE));
    let SensorKind::Proc(proc) = &config.sensors[1].kind else { panic!("proc") };
    assert_eq!(proc.groups, ProcGroup::ALL.map(|(_, group)| group));
    assert_eq!(config.sensors[2].interval, Duration::ZERO);
    let uplink = config.uplink.expect("an uplink");
    assert_eq!((uplink.prefix.as_str(), uplink.max_payload_bytes, uplink.snapshot_every), ("varved", 120 << 10, None));
    assert_eq!(uplink.pace, PaceConfig::default());
}

/// Sizes may be bare numbers; an interval of a sensor is its own.
#[test]
fn values_are_taken_as_written() {
    let config = parse("[store]\ncache = 131_072\n[[sensor]]\nkind = \"iio\"\nmatch = [\"adc*\"]\ninterval = \"20ms\"");
    let config = config.expect("a configuration");
    assert_eq!(config.store.cache_bytes, 131_072);
    assert_eq!(config.sensors[0].interval, Duration::from_millis(20));
    assert_eq!(config.sensors[0].kind, SensorKind::Iio(SysfsConfig { matching: vec!["adc*".to_owned()] }));
}

/// A hostname becomes a name that may stand in a topic; one of nothing usable is an error, not an empty topic level.
#[test]
fn the_hostname_is_made_fit_for_a_topic() {
    let device = |hostname: &str| Config::parse_on("", "varved.toml", hostname).map(|config| config.device);
    assert_eq!(device("Pump #17.local\n").expect("a name"), "Pump--17.local");
    assert_eq!(device("--x").expect("a name"), "x");
    assert_eq!(device(&"a".repeat(80)).expect("a name").len(), 64);
    assert!(device("+++").is_err_and(|error| error.to_string().contains("device = ")));
}

/// The receiver's file names exactly one broker, and promises nothing that the embedded one does not hold.
#[test]
fn the_receiver_has_exactly_one_broker() {
    let told = |text| FleetConfig::parse(text, "fleet.toml").map(|_| ()).map_err(|error| error.to_string());
    let config =
        FleetConfig::parse("[fleet]\nbroker = \"mqtt://127.0.0.1\"\nhttp = \"127.0.0.1:8080\"", "f").expect("ok");
    assert_eq!(config.data, Path::new("/var/lib/varved-fleet"));
    assert_eq!(config.http.map(|http| http.port()), Some(8080));
    assert!(told("").is_err_and(|why| why.contains("fleet.broker: is missing")));
    assert!(
        told("[fleet]\nbroker = \"mqtt://a\"\nlisten = \"0.0.0.0:1883\"")
            .is_err_and(|why| why.contains("fleet.toml:3: fleet.listen"))
    );
    assert!(told("[fleet]\nlisten = \"localhost:1883\"").is_err_and(|why| why.contains("IP address")));
    assert!(told("[store]\npath = \"x\"").is_err_and(|why| why.starts_with("fleet.toml:1: store: is not a known key")));
    if cfg!(feature = "broker") {
        assert!(told("[fleet]\nlisten = \"0.0.0.0:1883\"").is_ok());
        assert!(
            told("[fleet]\nlisten = \"0.0.0.0:1883\"\nusername = \"a\"").is_err_and(|why| why.contains("no logins"))
        );
    }
}
