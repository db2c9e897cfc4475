//! Every key of the configuration, once: its form, range, default, meaning and cost.
//!
//! What enters: nothing. What leaves: [`KEYS`], from which the reader takes defaults, ranges and the words of its
//! messages, and the documentation its tables. A key that is not here can't be read; a test reads every one that is.

use super::units::{DURATION_FORM, SIZE_FORM, duration_text, size_text};
use std::time::Duration;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The table it is in; empty for the top of the file.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// In `[[sensor]]`, the kinds that take it; empty for all, and in every other section.
    pub kinds: &'static [&'static str],
    /// What may be written, and its range.
    pub form: Form,
    /// What holds where it is not written.
    pub default: Fallback,
    /// What it is for.
    pub doc: &'static str,
    /// What more or less of it costs.
    pub cost: &'static str,
}

/// What may be written.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// A duration such as `"10s"`, in milliseconds inclusive; where `off` is allowed, the word `"off"` too.
    Duration {
        /// The shortest.
        min_ms: u64,
        /// The longest.
        max_ms: u64,
        /// Whether `"off"` is allowed.
        off: bool,
    },
    /// A size such as `"256KiB"`, in bytes, inclusive.
    Size {
        /// The smallest.
        min_bytes: u64,
        /// The largest.
        max_bytes: u64,
    },
    /// A whole number, inclusive.
    Count {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of some form, and an example of it.
    Text(&'static str, &'static str),
    /// A list of texts of some form, and an example of the list.
    List(&'static str, &'static str),
}

impl Form {
    /// What is allowed, for a message or a table.
    pub fn allowed(&self) -> String {
        match *self {
            Self::Duration { min_ms, max_ms, off } => {
                let or_off = if off { ", or \"off\"" } else { "" };
                let [min, max] = [min_ms, max_ms].map(|ms| duration_text(Duration::from_millis(ms)));
                format!("a duration from {min} to {max}{or_off}")
            }
            Self::Size { min_bytes, max_bytes } => {
                format!("a size from {} to {}", size_text(min_bytes), size_text(max_bytes))
            }
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Flag => "true or false".to_owned(),
            Self::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ").replacen("", "one of ", 1)
            }
            Self::Text(what, _) | Self::List(what, _) => what.to_owned(),
        }
    }

    /// How it is written, with an example: the end of an error message.
    pub fn advice(&self) -> String {
        match *self {
            Self::Duration { .. } => DURATION_FORM.to_owned(),
            Self::Size { .. } => SIZE_FORM.to_owned(),
            Self::Count { min, .. } => format!("write a number without quotes, such as {min}"),
            Self::Flag => "write true or false without quotes".to_owned(),
            Self::Word(words) => format!("write one of them, such as \"{}\"", words.first().unwrap_or(&"")),
            Self::Text(_, example) => format!("write it in quotes, such as \"{example}\""),
            Self::List(_, example) => format!("write a list of texts, such as {example}"),
        }
    }
}

/// What holds where a key is not written.
#[derive(Debug, Clone, Copy)]
pub enum Fallback {
    /// This, in the form of the key without its quotes.
    Value(&'static str),
    /// Nothing does: it must be written.
    Required,
    /// Nothing in the file; these words say what that means.
    Absent(&'static str),
}

/// The key of this name, if the section has one. Where several sensor kinds each have their own, that of `kind`.
pub fn find(section: &str, kind: &str, name: &str) -> Option<&'static Key> {
    of(section, kind).find(|key| key.name == name)
}

/// The keys that a section takes; of `[[sensor]]`, those that `kind` takes.
pub fn of<'a>(section: &'a str, kind: &'a str) -> impl Iterator<Item = &'static Key> + 'a {
    KEYS.iter().filter(move |key| key.section == section && (key.kinds.is_empty() || key.kinds.contains(&kind)))
}

/// The sensor kinds.
pub const SENSOR_KINDS: [&str; 9] = ["hwmon", "iio", "thermal", "power_supply", "w1", "file", "proc", "exec", "socket"];

/// What `proc` can read.
pub const PROC_GROUPS: [&str; 5] = ["cpu", "memory", "disk", "load", "network"];

const SYSFS: &[&str] = &["hwmon", "iio", "thermal", "power_supply", "w1"];
const POLLED: &[&str] = &["hwmon", "iio", "thermal", "power_supply", "w1", "file", "proc"];
const FILE: &[&str] = &["file"];
const EXEC: &[&str] = &["exec"];
const SOCKET: &[&str] = &["socket"];
const ALL: &[&str] = &[];

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const BROKER: Form = Form::Text("mqtt://host[:port] or mqtts://host[:port]", "mqtts://broker.example:8883");
const RATE: &str = "a size from 1MiB to 1024TiB per day, week, month or year; or \"off\"";
const BYTES_A_SECOND: &str = "a size from 64 to 1GiB, or \"off\"";
const BYTES_OF_BUDGET: &str = "a size from 64KiB to 1TiB, or \"off\"";
const LIFETIME: &str = "years or days, from 30d to 100y; or \"off\"";
const ENDURANCE: &str = "a size from 1GiB to 1024TiB";
const NAME: Form = Form::Text("1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit", "pump-17");
const PREFIX: Form = Form::Text("1 to 4 topic levels without + # $ or blanks, of at most 64 bytes", "varved");
const ALPN: Form = Form::Text("the name of a protocol (RFC 7301)", "x-amzn-mqtt-ca");
const PATH: Form = Form::Text("a path", "/etc/varved/ca.pem");

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(
        "",
        "device",
        NAME,
        Fallback::Absent("the hostname"),
        "The device's name: its part of every topic, and its folder at the fleet.",
        "Two devices of one name push each other off the broker; a new name is a new device to the fleet.",
    ),
    key(
        "",
        "root",
        Form::Text("an absolute path", "/"),
        Fallback::Value("/"),
        "Where `/sys`, `/proc`, GPIO chips in `/dev` and `/etc/machine-id` are looked up: a container's mount of the host, or a test's folder.",
        "None.",
    ),
    key(
        "store",
        "path",
        Form::Text("a path", "/var/lib/varved/varved.db"),
        Fallback::Value("/var/lib/varved/varved.db"),
        "The database. Its `-wal`, `-shm` and high-water mark are kept beside it.",
        "Put it on the medium that is meant to wear; never on tmpfs.",
    ),
    key(
        "store",
        "commit_interval",
        Form::Duration { min_ms: 100, max_ms: HOUR, off: false },
        Fallback::Value("10s"),
        "How long readings wait in RAM: what a power cut loses at most, but for one commit's duration. With `commit_interval_max` it is only where that begins.",
        "Flash: about 5, 7.4 and 12 KiB a commit at 1, 10 and 60 s. Halving it nearly doubles the writes.",
    ),
    key(
        "store",
        "commit_interval_min",
        Form::Duration { min_ms: 100, max_ms: HOUR, off: true },
        Fallback::Value("off"),
        "With a `budget` or `lifetime` of `[flash]`: the shortest interval that the wear governor may choose. Off: `commit_interval`.",
        "Flash, as far as the budget has it to spare: down to this the loss window is shortened.",
    ),
    key(
        "store",
        "commit_interval_max",
        Form::Duration { min_ms: 100, max_ms: HOUR, off: true },
        Fallback::Value("off"),
        "The longest that it may choose: the loss window at the worst. Off: `commit_interval`. With both off nothing is governed.",
        "The loss window; and RAM, if so many readings are to wait: see `commit_readings` and `buffer`.",
    ),
    key(
        "store",
        "commit_readings",
        Form::Count { min: 1, max: 200_000 },
        Fallback::Value("10000"),
        "Commit when so many readings wait, if that is before the interval.",
        "RAM: up to 32 bytes each.",
    ),
    key(
        "store",
        "buffer",
        Form::Size { min_bytes: 64 * KIB, max_bytes: 256 * MIB },
        Fallback::Value("1MiB"),
        "RAM for readings that the medium does not take yet. What overflows is counted, dated and told to the fleet as a loss.",
        "RAM, all of it in the worst case; at least 32 bytes for each of `commit_readings`, and less than a quarter of `max_size`.",
    ),
    key(
        "store",
        "cache",
        Form::Size { min_bytes: 64 * KIB, max_bytes: 64 * MIB },
        Fallback::Value("256KiB"),
        "SQLite's page cache.",
        "RAM. A larger one writes no less.",
    ),
    key(
        "store",
        "mmap",
        Form::Size { min_bytes: 0, max_bytes: GIB },
        Fallback::Value("0"),
        "How much of the file readers may map.",
        "64MiB costs 8 MB of resident memory and gains nothing at the rates of a device.",
    ),
    key(
        "store",
        "max_size",
        Form::Size { min_bytes: MIN_STORE_BYTES, max_bytes: 1 << 40 },
        Fallback::Value("64MiB"),
        "The most that the database and its WAL may take. Beyond it, what the fleet has is expired first, then the oldest, as a dated loss.",
        "Flash. 64MiB hold about 100 million regular readings.",
    ),
    key(
        "store",
        "max_age",
        Form::Duration { min_ms: HOUR, max_ms: 36_500 * DAY, off: true },
        Fallback::Value("off"),
        "Readings older than this go, unsent ones as a dated loss; hourly and daily figures stay. Only by a trusted clock, and at most four days' worth a day, lest a wrong one empty the file.",
        "None. After a long time off it takes a while to catch up.",
    ),
    key(
        "store",
        "headroom",
        Form::Size { min_bytes: 0, max_bytes: 1 << 40 },
        Fallback::Value("0"),
        "Left free on the partition that the file shares with others. Where less is free, files set aside go first, then the file shrinks step by step, to an eighth of `max_size` (1MiB) at least; it grows again when there is room.",
        "History, when others fill the partition; at the worst unsent readings, as a dated loss.",
    ),
    key(
        "store",
        "max_series",
        Form::Count { min: 1, max: 100_000 },
        Fallback::Value("2000"),
        "The most series. A reading of one more is refused and counted.",
        "RAM: about 300 bytes each; and the size of every small segment.",
    ),
    key(
        "store",
        "locking",
        Form::Word(&["shared", "exclusive"]),
        Fallback::Value("shared"),
        "`shared`: any SQLite tool reads the live file. `exclusive`: nobody does; reads go through the control socket.",
        "While another process has the file open, `shared` writes its -shm out every 30 s: up to 15 bytes more a reading.",
    ),
    key(
        "store",
        "powersafe",
        Form::Flag,
        Fallback::Value("false"),
        "True only for media known to keep the neighbours of a torn write. It may be changed at any start.",
        "False writes 1 to 2 % more. True on a medium that does not hold it can cost the whole file at a power cut.",
    ),
    key(
        "control",
        "listen",
        Form::Text("unix:///path, or \"off\"", "unix:///run/varved/control.sock"),
        Fallback::Value("unix:///run/varved/control.sock"),
        "The socket of `status`, `flush`, and of reads under exclusive locking; for the owner and the group.",
        "None.",
    ),
    key(
        "flash",
        "budget",
        Form::Text(RATE, "20GiB/year"),
        Fallback::Value("off"),
        "What may be written to the medium of the store, by all programs, at the mean. With `commit_interval_min` or `_max` the commit interval is chosen to keep to it; without, `status` shows how it goes.",
        "None; the tighter, the longer the loss window.",
    ),
    key(
        "flash",
        "lifetime",
        Form::Text(LIFETIME, "10y"),
        Fallback::Value("off"),
        "Instead of `budget`: how long the medium is to last from the first start with varved. Needs its endurance.",
        "As `budget`.",
    ),
    key(
        "flash",
        "endurance",
        Form::Text(ENDURANCE, "3TiB"),
        Fallback::Absent("learnt from an eMMC's own wear estimate, once it has moved by two steps of 10 %"),
        "What the host may write to the medium before it is worn, from its data sheet (TBW) or measured.",
        "One that is too high ends the medium early.",
    ),
    key(
        "power_fail",
        "gpio",
        Form::Text("chip:offset or the name of a line, or \"off\"", "gpiochip0:17"),
        Fallback::Value("off"),
        "The GPIO line that says it: by its chip (`gpiochip0`, which may be another after the next boot, a label, or a path) and its offset there, or by its own name. It must give interrupts.",
        "None while nothing changes. The service's user needs the right to read the chip's device.",
    ),
    key(
        "power_fail",
        "file",
        Form::Text("an absolute path, or \"off\"", "/sys/class/power_supply/usb/online"),
        Fallback::Value("off"),
        "Instead of `gpio`: a file whose first character says it; 0 is low, another digit high.",
        "A thread with a stack of 64 KiB; and see `poll`.",
    ),
    key(
        "power_fail",
        "active",
        Form::Word(&["low", "high"]),
        Fallback::Value("low"),
        "The level that means: the power fails.",
        "The wrong one hides each failure and makes up one of all the time between; the log says so at the start.",
    ),
    key(
        "power_fail",
        "poll",
        Form::Duration { min_ms: 10, max_ms: 10 * SECOND, off: false },
        Fallback::Value("100ms"),
        "How often `file` is looked at. A sysfs file whose driver tells of changes (sysfs_notify) is looked at then too.",
        "The supply must last so much longer. A look takes about 40 µs: at 100ms 0.05 % of a core (x86-64), at 10ms 0.3 %; longer where the driver asks over a bus.",
    ),
    key("sensor", "kind", Form::Word(&SENSOR_KINDS), Fallback::Required, "What is read; see the kinds below.", "None."),
    for_kinds(
        POLLED,
        "sensor",
        "interval",
        Form::Duration { min_ms: 10, max_ms: DAY, off: false },
        Fallback::Value("1s"),
        "How often it is read, on ticks of this length since boot.",
        "A tenth of it is ten times the readings; a steady value costs next to nothing on flash, CPU it does.",
    ),
    for_kinds(
        SYSFS,
        "sensor",
        "match",
        Form::List("globs (* ? [a-z])", "[\"cpu*\", \"coretemp\"]"),
        Fallback::Value("[]"),
        "Only devices or channels whose name or label fits one of these; empty takes all. Numbers such as hwmon3 change between boots.",
        "None.",
    ),
    for_kinds(
        FILE,
        "sensor",
        "path",
        Form::Text("an absolute path", "/sys/class/net/eth0/carrier"),
        Fallback::Required,
        "The file; its first line is the value.",
        "None.",
    ),
    for_kinds(
        FILE,
        "sensor",
        "name",
        Form::Text("measurement/field[,tag=value…]", "net/carrier"),
        Fallback::Required,
        "The series' name.",
        "None.",
    ),
    for_kinds(
        FILE,
        "sensor",
        "unit",
        Form::Text("a SenML unit symbol (RFC 8428), or empty", "Cel"),
        Fallback::Value(""),
        "The unit of the scaled value.",
        "Another unit makes another series.",
    ),
    for_kinds(
        FILE,
        "sensor",
        "scale",
        Form::Text("a decimal number other than 0", "0.001"),
        Fallback::Value("1"),
        "What an integer in the file is multiplied by, exactly.",
        "Another scale makes another series.",
    ),
    for_kinds(
        &["proc"],
        "sensor",
        "groups",
        Form::List("of cpu, memory, disk, load, network", "[\"cpu\", \"memory\"]"),
        Fallback::Value("[\"cpu\", \"memory\", \"disk\", \"load\", \"network\"]"),
        "What of `/proc` is read.",
        "`network` and `disk` are several series for each interface and disk.",
    ),
    for_kinds(
        EXEC,
        "sensor",
        "command",
        Form::List("a program and its arguments", "[\"/usr/bin/my-probe\", \"--stream\"]"),
        Fallback::Required,
        "A program that writes line protocol to its standard output for as long as it runs; no shell is involved.",
        "One process; what it takes is not varved's to bound.",
    ),
    for_kinds(
        EXEC,
        "sensor",
        "timeout",
        Form::Duration { min_ms: SECOND, max_ms: DAY, off: true },
        Fallback::Value("off"),
        "A program that says nothing for so long is ended and started again.",
        "None.",
    ),
    for_kinds(
        EXEC,
        "sensor",
        "backoff",
        Form::Duration { min_ms: SECOND, max_ms: HOUR, off: false },
        Fallback::Value("1m"),
        "The longest wait before a program that ended is started again; the wait doubles from 1 s.",
        "None.",
    ),
    for_kinds(
        SOCKET,
        "sensor",
        "listen",
        Form::Text("unix:///path, unixgram:///path, tcp://ip:port or udp://ip:port", "unix:///run/varved/ingest.sock"),
        Fallback::Required,
        "Where InfluxDB line protocol comes in.",
        "Streams hold their senders back when the intake is full; datagrams are dropped and counted.",
    ),
    for_kinds(
        SOCKET,
        "sensor",
        "clients",
        Form::Count { min: 1, max: 256 },
        Fallback::Value("8"),
        "The most streams at once; one more is refused and counted.",
        "RAM: 16 KiB each, with its longest lines 80, and up to 256 for the names it sends.",
    ),
    key("uplink", "broker", BROKER, Fallback::Required, "The MQTT broker.", "`mqtts://` takes about 1.2 MB more RAM."),
    key(
        "uplink",
        "ca",
        PATH,
        Fallback::Absent("the usual public authorities are not trusted: mqtts:// needs it"),
        "The certificates, PEM, that the broker's must descend from.",
        "None.",
    ),
    key("uplink", "cert", PATH, Fallback::Absent("none"), "This device's certificate, PEM; with `key`.", "None."),
    key(
        "uplink",
        "key",
        Form::Text("a path", "/etc/varved/device.key"),
        Fallback::Absent("none"),
        "Its private key, PEM; with `cert`.",
        "Others than owner and group may not use the file.",
    ),
    key(
        "uplink",
        "username",
        Form::Text("a text", "pump-17"),
        Fallback::Absent("none"),
        "The login at the broker.",
        "None.",
    ),
    key(
        "uplink",
        "password_file",
        Form::Text("a path", "/etc/varved/password"),
        Fallback::Absent("none"),
        "A file whose first line is the password; with `username`. systemd's `LoadCredential` gives such a file.",
        "Over mqtt:// the password travels in the open. Others than owner and group may not use the file.",
    ),
    key(
        "uplink",
        "alpn",
        ALPN,
        Fallback::Absent("none"),
        "The protocol to ask for where a broker shares its port: AWS IoT on 443 wants x-amzn-mqtt-ca with a certificate, \
         mqtt with a login.",
        "A broker that does not know it refuses the connection.",
    ),
    key(
        "uplink",
        "prefix",
        PREFIX,
        Fallback::Value("varved"),
        "The first part of every topic.",
        "Some brokers allow 7 slashes in all.",
    ),
    key(
        "uplink",
        "snapshot_every",
        Form::Duration { min_ms: HOUR, max_ms: 365 * DAY, off: true },
        Fallback::Value("off"),
        "Send everything that the file holds at this interval, when nothing else waits; the receiver verifies it.",
        "Up to `max_size` over the link each time.",
    ),
    key(
        "uplink",
        "max_payload",
        Form::Size { min_bytes: 4 * KIB, max_bytes: MIB },
        Fallback::Value("120KiB"),
        "The largest MQTT payload; a larger segment goes in pieces. Some brokers take 128 KB, some 64 KB.",
        "RAM: a few times this.",
    ),
    key(
        "uplink",
        "reconnect_spread",
        Form::Duration { min_ms: 0, max_ms: 10 * 60 * SECOND, off: false },
        Fallback::Value("10s"),
        "A connection that had stood and broke is made again after a random part of this, lest a whole fleet come back at \
         once. Failures after that double it, to 2 minutes.",
        "What is live waits so long, in the mean half of it. 10,000 devices at 10s are 1,000 attempts a second.",
    ),
    key(
        "uplink",
        "max_in_flight",
        Form::Count { min: 1, max: 100 },
        Fallback::Value("8"),
        "The most messages that the broker has not acknowledged, and segments that the fleet has not. mosquitto takes 20 unless told otherwise, AWS IoT 100.",
        "More helps where the round trip is long; fewer than 4 slow a fast link.",
    ),
    key(
        "uplink",
        "max_in_flight_bytes",
        Form::Size { min_bytes: 4 * KIB, max_bytes: 16 * MIB },
        Fallback::Value("256KiB"),
        "The most bytes of them; not below `max_payload`. Azure Event Grid takes 64KiB.",
        "What a broken connection may have carried in vain.",
    ),
    key(
        "uplink",
        "keep_alive",
        Form::Duration { min_ms: 30 * SECOND, max_ms: 20 * 60 * SECOND, off: false },
        Fallback::Value("30s"),
        "How often the broker is pinged. One that hears nothing for one and a half times this publishes the last will.",
        "At 30s about 450 KiB a day, 600 with TLS. A longer one finds a dead link later; some networks forget a connection that is silent for minutes.",
    ),
    key(
        "uplink",
        "backlog",
        Form::Word(&["oldest", "newest"]),
        Fallback::Value("oldest"),
        "Which end of the backlog goes first after an outage. New readings go before either.",
        "`newest`: the fleet has gaps below what it holds for as long as the backlog lasts.",
    ),
    key(
        "uplink",
        "rate_limit",
        Form::Text(BYTES_A_SECOND, "2KiB"),
        Fallback::Value("off"),
        "Bytes a second on the wire, at the mean; a burst is at most 10 s of it and one message. The backlog waits, new readings hardly.",
        "The backlog takes longer.",
    ),
    key(
        "uplink",
        "budget_daily",
        Form::Text(BYTES_OF_BUDGET, "5MiB"),
        Fallback::Value("off"),
        "Bytes a day on the wire, both ways, with the headers of MQTT, TLS and TCP/IP and the pings. Days of UTC by a trusted clock, else 24 h of running.",
        "What does not fit waits for the next day. The account goes along with commits, about once an hour.",
    ),
    key(
        "uplink",
        "budget_monthly",
        Form::Text(BYTES_OF_BUDGET, "50MiB"),
        Fallback::Value("off"),
        "As `budget_daily`, for a month of UTC or 30 days of running.",
        "As `budget_daily`. Used up early, it leaves nothing for the rest of the month: set a daily one too.",
    ),
    key(
        "uplink",
        "live_reserve",
        Form::Text("a share from \"0%\" to \"100%\"", "20%"),
        Fallback::Value("20%"),
        "The part of each budget that is kept for new readings and the state when the backlog has used up the rest.",
        "The backlog takes longer.",
    ),
    key(
        "fleet",
        "data",
        Form::Text("a path", "/var/lib/varved-fleet"),
        Fallback::Value("/var/lib/varved-fleet"),
        "One folder a device, in it one replica file for each store id.",
        "Disk: all that the devices ever sent.",
    ),
    key("fleet", "broker", BROKER, Fallback::Absent("none: then `listen`"), "An outside broker; or `listen`.", "None."),
    key(
        "fleet",
        "listen",
        Form::Text("ip:port", "0.0.0.0:1883"),
        Fallback::Absent("none: then `broker`"),
        "Where the embedded broker listens: small fleets, the demo. It knows no TLS and no logins.",
        "The embedded broker keeps what is in flight in RAM only; the devices send it again.",
    ),
    key(
        "fleet",
        "prefix",
        PREFIX,
        Fallback::Value("varved"),
        "As the devices have it. One receiver group a prefix.",
        "None.",
    ),
    key(
        "fleet",
        "http",
        Form::Text("ip:port, or \"off\"", "127.0.0.1:8080"),
        Fallback::Value("off"),
        "Health and metrics.",
        "Who reaches it reads them: keep it on 127.0.0.1 or behind a proxy.",
    ),
    key("fleet", "ca", PATH, Fallback::Absent("none: mqtts:// needs it"), "As `ca` of `[uplink]`.", "None."),
    key("fleet", "alpn", ALPN, Fallback::Absent("none"), "As `alpn` of `[uplink]`.", "As there."),
    key("fleet", "cert", PATH, Fallback::Absent("none"), "As `cert` of `[uplink]`.", "None."),
    key(
        "fleet",
        "key",
        Form::Text("a path", "/etc/varved/fleet.key"),
        Fallback::Absent("none"),
        "As `key` of `[uplink]`.",
        "None.",
    ),
    key(
        "fleet",
        "username",
        Form::Text("a text", "receiver"),
        Fallback::Absent("none"),
        "The login at the outside broker.",
        "None.",
    ),
    key(
        "fleet",
        "password_file",
        Form::Text("a path", "/etc/varved/password"),
        Fallback::Absent("none"),
        "A file whose first line is the password; with `username`.",
        "Over mqtt:// the password travels in the open.",
    ),
];

/// What the WAL keeps for good, so that a full disk can still be worked free: SQLite's autocheckpoint comes at about 4 MB
/// and the file is never truncated.
pub const WAL_RESERVE_BYTES: u64 = 4 * MIB;

/// The smallest store: the WAL, and as much again for data, without which every checkpoint would have to expire something.
pub const MIN_STORE_BYTES: u64 = 2 * WAL_RESERVE_BYTES;

const fn key(
    section: &'static str,
    name: &'static str,
    form: Form,
    default: Fallback,
    doc: &'static str,
    cost: &'static str,
) -> Key {
    for_kinds(ALL, section, name, form, default, doc, cost)
}

const fn for_kinds(
    kinds: &'static [&'static str],
    section: &'static str,
    name: &'static str,
    form: Form,
    default: Fallback,
    doc: &'static str,
    cost: &'static str,
) -> Key {
    Key { section, name, kinds, form, default, doc: for_the_page(doc), cost: for_the_page(cost) }
}

/// What only the documentation has is not in a board's binary.
const fn for_the_page(text: &'static str) -> &'static str {
    if cfg!(any(feature = "fleet", feature = "laptop", test)) { text } else { "" }
}
