//! `run`, `status` and `flush`: the service, and the two questions that its control socket answers.

use super::args::{Argument, Arguments};
use super::{CliError, Command, output};
use crate::config::{Config, DEFAULT_CONFIG};
use crate::device;
use crate::device::control::{Answer, Request, ask};
use crate::fault::{Exit, Fault, Verdict};
use crate::store::query::Field;
use serde::Deserialize;
use serde_json::Value as Json;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

pub(super) const RUN: Command = Command {
    name: "run",
    args: "[--config F]",
    brief: "the service, in the foreground",
    long: "  --config F   the configuration; default /etc/varved/varved.toml

Tells the service manager when it records (sd_notify READY, WATCHDOG). SIGTERM and SIGINT commit what is in RAM and end
it; SIGUSR1, SIGPWR and the input of [power_fail] commit at once. What the log says is set by RUST_LOG: error, warn,
info (default), debug.",
    run,
};

pub(super) const STATUS: Command = Command {
    name: "status",
    args: "[--config F] [--json | --prom]",
    brief: "readings at risk now, last commit, backlog, link, clock, file and flash",
    long: "  --config F   the configuration of the service that is asked; default /etc/varved/varved.toml
  --json       all of it, as one object
  --prom       every number as a metric, in the text format of Prometheus

Ends with 69 where no service answers.",
    run: status,
};

pub(super) const FLUSH: Command = Command {
    name: "flush",
    args: "[--config F]",
    brief: "commit what is in RAM; returns when it is on flash",
    long: "  --config F   the configuration of the service that is asked; default /etc/varved/varved.toml

Everything that had been written to the service's stream sockets before is part of it.",
    run: flush,
};

/// How `status` is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Prometheus,
}

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let config = Config::load(&only_config(arguments)?).map_err(CliError::fault)?;
    super::log_to_stderr();
    let report = device::run(config).map_err(CliError::fault)?;
    log::info!("device: ended; {} readings taken, {} committed", report.recorded.taken, report.recorded.committed);
    Ok(Exit::Ok)
}

fn flush(arguments: &mut Arguments) -> Result<Exit, CliError> {
    question(&only_config(arguments)?, &Request::Flush).map(|_| Exit::Ok)
}

fn status(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut config, mut form) = (PathBuf::from(DEFAULT_CONFIG), Form::Text);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "config" || name == "c" => config = arguments.path()?,
            Argument::Option(name) if name == "json" => form = Form::Json,
            Argument::Option(name) if name == "prom" => form = Form::Prometheus,
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let status = question(&config, &Request::Status)?;
    output::print(&match form {
        Form::Text => text(&status),
        Form::Json => format!("{status:#}\n"),
        Form::Prometheus => prometheus(&status),
    })?;
    Ok(Exit::Ok)
}

fn only_config(arguments: &mut Arguments) -> Result<PathBuf, CliError> {
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "config" || name == "c" => config = arguments.path()?,
            other => return Err(arguments.unexpected(&other)),
        }
    }
    Ok(config)
}

/// Asks the service of this configuration.
fn question(config: &Path, request: &Request) -> Result<Json, CliError> {
    let settings = Config::load(config).map_err(CliError::fault)?;
    let Some(socket) = settings.control.listen else {
        return Err(CliError::fault(NoAnswer::Off { config: config.to_owned() }));
    };
    answer(&socket, request).map_err(CliError::fault)
}

fn answer(socket: &Path, request: &Request) -> Result<Json, NoAnswer> {
    match ask(socket, request) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error { exit, text }) => Err(NoAnswer::Refused { exit: Exit::of_code(exit), text }),
        Err(cause) => Err(NoAnswer::Silent { socket: socket.to_owned(), cause }),
    }
}

/// What a service answers to a statement.
#[derive(Debug, Deserialize)]
pub(super) struct Rows {
    /// The names of the columns.
    pub(super) columns: Vec<String>,
    /// As many values in each.
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A value of an answer; a blob has become its hex.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Cell {
    /// NULL, or a number that JSON has not: an infinity.
    Null,
    /// An integer.
    Int(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
}

impl Cell {
    /// As a field of a row.
    pub(super) fn field(&self) -> Field<'_> {
        match self {
            Self::Null => Field::Null,
            Self::Int(number) => Field::Int(*number),
            Self::Real(number) => Field::Real(*number),
            Self::Text(text) => Field::Text(text.as_bytes()),
        }
    }
}

/// Asks the service at `socket` to run a statement; `None` where no service runs, which leaves the file to whoever reads it.
pub(super) fn rows_of(socket: &Path, sql: &str) -> Result<Option<Rows>, CliError> {
    let malformed = |cause| NoAnswer::Silent { socket: socket.to_owned(), cause: io::Error::other(cause) };
    match answer(socket, &Request::Query { sql: sql.to_owned() }) {
        Ok(rows) => serde_json::from_value(rows).map(Some).map_err(|cause| CliError::fault(malformed(cause))),
        Err(silent) if silent.is_nobody() => Ok(None),
        Err(other) => Err(CliError::fault(other)),
    }
}

/// What became of a statement for a service.
pub(super) enum Asked {
    /// It was answered.
    Rows(Rows),
    /// There is no service.
    Nobody,
    /// It was not, and why.
    Refused { exit: Exit, text: String },
}

/// The same as [`rows_of`], for who goes on by the exit code.
pub(super) fn ask_rows(socket: &Path, sql: &str) -> Asked {
    match rows_of(socket, sql) {
        Ok(Some(rows)) => Asked::Rows(rows),
        Ok(None) => Asked::Nobody,
        Err(why) => Asked::Refused { exit: why.exit(), text: why.to_string() },
    }
}

/// What the service at `socket` says of itself, as `status --json` prints it; or why it says nothing.
pub(super) fn status_of(socket: &Path) -> Result<String, String> {
    answer(socket, &Request::Status).map(|status| status.to_string()).map_err(|why| why.to_string())
}

/// Why a service did not answer what it was asked.
#[derive(Debug)]
enum NoAnswer {
    /// It has no control socket.
    Off { config: PathBuf },
    /// It answered that it can't.
    Refused { exit: Exit, text: String },
    /// Nobody is there, or nobody that we may ask.
    Silent { socket: PathBuf, cause: io::Error },
}

impl NoAnswer {
    /// Whether there is no service.
    fn is_nobody(&self) -> bool {
        let Self::Silent { cause, .. } = self else { return false };
        matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off { config } => {
                write!(f, "{} has no control socket; set control.listen, and restart the service", config.display())
            }
            Self::Refused { text, .. } => f.write_str(text),
            Self::Silent { socket, cause } => {
                let at = socket.display();
                match cause.kind() {
                    _ if self.is_nobody() => write!(f, "no service answers at {at}; start it with `varved run`"),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "{at} is for its owner and group; join the group, or ask as the service's user")
                    }
                    _ => write!(f, "{at}: {cause}; ask again"),
                }
            }
        }
    }
}

impl std::error::Error for NoAnswer {}

impl Fault for NoAnswer {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Off { .. } | Self::Silent { .. } => Exit::Unavailable,
            Self::Refused { exit, .. } => *exit,
        }
    }
}

/// A screen of text.
fn text(status: &Json) -> String {
    let mut out = String::new();
    let get = |at: &str| status.pointer(at).cloned().unwrap_or(Json::Null);
    let number = |at: &str| get(at).as_f64().unwrap_or(0.0);
    let word = |at: &str| get(at).as_str().unwrap_or("-").to_owned();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12} {value}");
    };
    line("device", format!("{} (varved {}, up {})", word("/device"), word("/version"), span(number("/uptime_s"))));
    let risk = number("/risk/readings");
    line("at risk", format!("{risk} readings in RAM, the oldest {}", span(number("/risk/oldest_s"))));
    let age = get("/recorded/last_commit_age_s").as_f64().map_or("none yet".to_owned(), |s| format!("{} ago", span(s)));
    line(
        "last commit",
        format!("{age}; {} readings in {} commits", number("/recorded/committed"), number("/recorded/commits")),
    );
    if let Some(fault) = get("/recorded/fault").as_str() {
        line("FAULT", fault.to_owned());
    }
    if number("/recorded/overflowed") > 0.0 {
        line(
            "LOST",
            format!("{} readings did not fit in RAM while the medium took no writes", number("/recorded/overflowed")),
        );
    }
    line(
        "file",
        format!(
            "{} + WAL {} of {}; {} readings, full in {}",
            size(number("/store/file_bytes")),
            size(number("/store/wal_bytes")),
            size(number("/store/max_bytes")),
            number("/store/readings"),
            get("/store/hours_to_full").as_f64().map_or("-".to_owned(), |h| span(h * 3600.0)),
        ),
    );
    line(
        "history",
        format!(
            "readings from {}, hours from {}, days from {}",
            word("/history/readings_from"),
            word("/history/hours_from"),
            word("/history/days_from")
        ),
    );
    line(
        "pending",
        format!(
            "{} readings in {} segments, the oldest of {}; about {}, sent in {}",
            number("/pending/readings"),
            number("/pending/segments"),
            word("/pending/oldest"),
            size(number("/pending/bytes")),
            get("/pending/drain_s").as_f64().map_or("-".to_owned(), span),
        ),
    );
    line("link", format!("{} {}", word("/link/state"), word("/link/last_error").trim_start_matches('-')));
    if let Some(traffic) = traffic(&status["link"]) {
        line("traffic", traffic);
    }
    if let Some(left) = get("/link/paused_s").as_f64() {
        line("PAUSED", format!("the fleet has asked for no segments for another {}", span(left)));
    }
    line(
        "clock",
        format!(
            "{} {}",
            word("/clock/utc"),
            if get("/clock/trusted") == true { "synchronised" } else { "not synchronised: times are estimates" }
        ),
    );
    line(
        "flash",
        format!(
            "{} written since start, {} a day",
            size(number("/flash/written_bytes")),
            size(number("/flash/bytes_per_day"))
        ),
    );
    for (name, value) in wear(status) {
        line(name, value);
    }
    if let Some((name, value)) = power(&status["power_fail"]) {
        line(name, value);
    }
    for sensor in get("/sensors").as_array().into_iter().flatten() {
        let refused: u64 =
            sensor["refused"].as_object().into_iter().flat_map(|r| r.values()).filter_map(Json::as_u64).sum();
        let source = sensor["source"].as_str().unwrap_or("-");
        line(
            "sensor",
            format!(
                "{source}: {} readings, {} without a value, {refused} refused",
                sensor["readings"], sensor["missing"]
            ),
        );
    }
    out
}

/// The power-fail input, as a line of the screen; none where none is configured.
fn power(power: &Json) -> Option<(&'static str, String)> {
    let input = power["input"].as_str()?;
    if let Some(fault) = power["fault"].as_str() {
        return Some(("NO POWER-FAIL", format!("input: {fault}")));
    }
    let times = power["times"].as_u64().unwrap_or(0);
    let last = power["last_age_s"].as_f64().map(|age| {
        let ms = power["last_commit_ms"].as_f64();
        let took = ms.map_or("not committed at once".to_owned(), |ms| format!("committed in {ms:.1} ms"));
        format!(", the last {} ago, {took}", span(age))
    });
    let account = format!("{times} failures since start{}", last.unwrap_or_default());
    Some(match power["active"].as_bool() {
        Some(true) => ("POWER FAILS", format!("says {input}; {account}")),
        Some(false) => ("power", format!("good, says {input}; {account}")),
        None => ("power", format!("{input} is not known yet")),
    })
}

/// What goes over the link, with the budgets that are set; none where there is no account of it.
fn traffic(link: &Json) -> Option<String> {
    let spent = |spent: &str, budget: &str, words: &str| {
        let of = link[budget].as_f64().map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
        Some(format!("{}{of} {words}", size(link[spent].as_f64()?)))
    };
    let today = spent("today_bytes", "budget_daily_bytes", "today")?;
    let month = spent("month_bytes", "budget_monthly_bytes", "this month")?;
    let rate = link["rate_bytes_per_s"].as_f64();
    let rate =
        rate.map_or("its rate is not known yet".to_owned(), |rate| format!("it carries {}/s or more", size(rate)));
    Some(format!("{today}, {month}; {rate}"))
}

/// The account of the flash and the loss window, as lines of the screen; none while the store is not open.
fn wear(status: &Json) -> Vec<(&'static str, String)> {
    let wear = &status["flash"]["wear"];
    let (number, known) = (|key: &str| wear[key].as_f64().unwrap_or(0.0), |key: &str| wear[key].as_f64());
    if wear.is_null() {
        return Vec::new();
    }
    let a_reading = known("bytes_per_reading").map_or("-".to_owned(), |bytes| format!("{bytes:.1} B a reading"));
    let written = format!(
        "{} in {:.1} days, {} a day, {a_reading}; {}",
        size(number("written_bytes")),
        number("days"),
        size(number("bytes_per_day")),
        wear["counted"].as_str().unwrap_or("-"),
    );
    let old_enough = number("days") >= 1.0;
    let budget = known("budget_bytes_per_year").map_or("no budget".to_owned(), |budget| {
        let used = known("budget_used")
            .filter(|_| old_enough)
            .map(|used| format!(", {:.0} % used of what was due", used * 100.0));
        format!("{} a year{}", size(budget), used.unwrap_or_default())
    });
    let end = match (known("years_left"), wear["end_of_life"].as_str()) {
        (Some(_), _) if !old_enough => "an account of less than a day tells no end".to_owned(),
        (Some(years), Some(day)) => format!("worn in {years:.1} years, {day}"),
        (Some(years), None) => format!("worn in {years:.1} years"),
        (None, _) => "its end is not known: see endurance of [flash]".to_owned(),
    };
    let commits =
        format!("every {}, {}", span(number("commit_interval_s")), wear["why"].as_str().unwrap_or("-").trim_end());
    vec![("written", written), ("wear", format!("{budget}; {end}")), ("commits", commits)]
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// A few digits for people.
pub(super) fn size(bytes: f64) -> String {
    match bytes {
        b if b < 10_240.0 => format!("{b:.0} B"),
        b if b < 10_485_760.0 => format!("{:.0} KiB", b / 1024.0),
        b if b < 1_073_741_824.0 => format!("{:.1} MiB", b / 1_048_576.0),
        b => format!("{:.1} GiB", b / 1_073_741_824.0),
    }
}

/// `varved_store_file_bytes{device="pump-17"} 4096`, for every number and truth value that is not in a list.
fn prometheus(status: &Json) -> String {
    let device = status["device"].as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    let mut walk = vec![("varved".to_owned(), status)];
    while let Some((name, at)) = walk.pop() {
        let value = match at {
            Json::Object(fields) => {
                walk.extend(fields.iter().map(|(key, value)| (format!("{name}_{key}"), value)));
                continue;
            }
            Json::Number(number) => number.to_string(),
            Json::Bool(truth) => u8::from(*truth).to_string(),
            _ => continue,
        };
        let _ = writeln!(out, "{name}{{device=\"{device}\"}} {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every number of the status is a metric of its own name, and text is none.
    #[test]
    fn numbers_become_metrics() {
        let status = json!({"device": "d-1", "store": {"file_bytes": 4096, "path": "x"}, "clock": {"trusted": true}});
        let text = prometheus(&status);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["varved_clock_trusted{device=\"d-1\"} 1", "varved_store_file_bytes{device=\"d-1\"} 4096"]);
    }

    /// The screen says what was written, of which budget, until when, and why commits come as they do; and admits what it does not
    /// know.
    #[test]
    fn the_screen_shows_the_wear() {
        let mut status = json!({"flash": {"wear": {
            "written_bytes": 3221225472u64, "days": 41.0, "bytes_per_day": 78_643_200, "bytes_per_reading": 22.34,
            "counted": "all that mmcblk0 takes", "budget_bytes_per_year": 64424509440u64, "budget_used": 0.47,
            "years_left": 35.0, "end_of_life": "2061-01-02", "commit_interval_s": 12.5, "why": "as short as it affords",
        }}});
        let screen = text(&status);
        for part in [
            "3.0 GiB in 41.0 days, 75.0 MiB a day, 22.3 B a reading; all that mmcblk0 takes",
            "60.0 GiB a year, 47 % used of what was due; worn in 35.0 years, 2061-01-02",
            "every 12.5 s, as short as it affords",
        ] {
            assert!(screen.contains(part), "{screen}");
        }
        status["flash"]["wear"]["days"] = json!(0.3);
        assert!(text(&status).contains("60.0 GiB a year; an account of less than a day"), "{}", text(&status));
        for key in ["budget_bytes_per_year", "years_left"] {
            status["flash"]["wear"][key] = Json::Null;
        }
        let screen = text(&status);
        assert!(screen.contains("no budget; its end is not known"), "{screen}");
        assert!(!text(&json!({"flash": {"wear": null}})).contains("wear"));
    }

    /// The screen says what went over the link, of which budget, what it carries, and that the fleet asks for silence.
    #[test]
    fn the_screen_shows_the_traffic() {
        let mut status = json!({"pending": {"bytes": 2_097_152, "drain_s": 1200}, "link": {
            "today_bytes": 1_048_576, "budget_daily_bytes": 5_242_880, "month_bytes": 20_971_520,
            "rate_bytes_per_s": 2048, "paused_s": 30,
        }});
        let screen = text(&status);
        for part in [
            "about 2048 KiB, sent in 20.0 min",
            "1024 KiB of 5120 KiB today, 20.0 MiB this month; it carries 2048 B/s or more",
            "no segments for another 30.0 s",
        ] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        status["link"] = json!({"today_bytes": 0, "month_bytes": 0});
        assert!(text(&status).contains("0 B today, 0 B this month; its rate is not known yet"), "{}", text(&status));
        assert!(!text(&json!({})).contains("traffic"));
    }

    /// The screen says how the power is, how often it failed and how fast the commit was; or why nobody knows.
    #[test]
    fn the_screen_shows_the_power() {
        let mut power = json!({"configured": true, "input": "PWR_FAIL", "active": false, "times": 0});
        let screen = |power: &Json| text(&json!({"power_fail": power}));
        assert!(
            screen(&power).contains("power        good, says PWR_FAIL; 0 failures since start\n"),
            "{}",
            screen(&power)
        );
        (power["active"], power["times"], power["last_age_s"]) = (json!(true), json!(2), json!(90.0));
        assert!(
            screen(&power).contains("POWER FAILS  says PWR_FAIL; 2 failures since start, the last 1.5 min ago, not")
        );
        power["last_commit_ms"] = json!(31.25);
        assert!(screen(&power).contains("1.5 min ago, committed in 31.2 ms"), "{}", screen(&power));
        power["fault"] = json!("there is no GPIO chip x; load its driver");
        assert!(screen(&power).contains("NO POWER-FAIL input: there is no GPIO chip x; load"), "{}", screen(&power));
        assert!(!screen(&json!({"configured": false, "input": null})).to_lowercase().contains("power"));
    }

    /// A fault is on the screen; a figure that is not known is no zero.
    #[test]
    fn the_screen_shows_faults_and_admits_ignorance() {
        let screen = text(&json!({"device": "d-1", "recorded": {"fault": "disk full; free some room"}}));
        assert!(screen.contains("FAULT") && screen.contains("disk full"), "{screen}");
        assert!(screen.contains("none yet"), "{screen}");
    }
}
