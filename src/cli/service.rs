//! `run`, `status` and `flush`: the service, and the two questions that its control socket answers.

use crate::config::Config;
use crate::device::control::{Answer, Request, ask};
use crate::device;
use crate::fault::{Exit, Fault};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// How `status` is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// The whole of it, for programs.
    Json,
    /// Every number as a metric, in the text format of Prometheus (`text/plain; version=0.0.4`).
    Prometheus,
}

/// The service in the foreground.
pub fn run(config: &Path) -> Exit {
    let told = |why: &dyn std::fmt::Display, exit| {
        eprintln!("varved: {why}");
        exit
    };
    match Config::load(config) {
        Err(why) => told(&why, why.exit()),
        Ok(config) => match device::run(config) {
            Ok(report) => {
                log::info!("device: ended; {} readings taken, {} committed", report.recorded.taken, report.recorded.committed);
                Exit::Ok
            }
            Err(why) => told(&why, why.exit()),
        },
    }
}

/// Commits what is in RAM; returns when it is on flash.
pub fn flush(config: &Path) -> Exit {
    match question(config, &Request::Flush) {
        Ok(_) => Exit::Ok,
        Err((exit, why)) => {
            eprintln!("varved flush: {why}");
            exit
        }
    }
}

/// Prints what the service knows of itself.
pub fn status(config: &Path, form: Form) -> Exit {
    match question(config, &Request::Status) {
        Ok(status) => {
            match form {
                Form::Text => print!("{}", text(&status)),
                Form::Json => println!("{status:#}"),
                Form::Prometheus => print!("{}", prometheus(&status)),
            }
            Exit::Ok
        }
        Err((exit, why)) => {
            eprintln!("varved status: {why}");
            exit
        }
    }
}

/// Asks the service of this configuration; the error is for the operator.
pub(super) fn question(config: &Path, request: &Request) -> Result<Json, (Exit, String)> {
    let settings = Config::load(config).map_err(|why| (why.exit(), why.to_string()))?;
    let Some(socket) = settings.control.listen else {
        let why = format!("{} has control.listen = \"off\"; set it, and restart the service", config.display());
        return Err((Exit::Unavailable, why));
    };
    match ask(&socket, request) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error { exit, text }) => Err((Exit::of_code(exit), text)),
        Err(why) => Err(no_answer(&socket, &why)),
    }
}

fn no_answer(socket: &Path, why: &io::Error) -> (Exit, String) {
    let at = socket.display();
    match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            (Exit::Unavailable, format!("no service answers at {at}; start it with `varved run`"))
        }
        io::ErrorKind::PermissionDenied => {
            (Exit::Unavailable, format!("{at} is for its owner and group; join the group, or ask as the service's user"))
        }
        _ => (Exit::TryAgain, format!("{at}: {why}; ask again")),
    }
}

/// A screen of text.
fn text(status: &Json) -> String {
    let mut out = String::new();
    let get = |at: &str| status.pointer(at).cloned().unwrap_or(Json::Null);
    let number = |at: &str| get(at).as_f64().unwrap_or(0.0);
    let word = |at: &str| get(at).as_str().unwrap_or("-").to_owned();
    let mut line = |name: &str, value: String| drop(writeln!(out, "{name:<12} {value}"));
    line("device", format!("{} (varved {}, up {})", word("/device"), word("/version"), span(number("/uptime_s"))));
    let risk = number("/risk/readings");
    line("at risk", format!("{risk} readings in RAM, the oldest {}", span(number("/risk/oldest_s"))));
    let age = get("/recorded/last_commit_age_s").as_f64().map_or("none yet".to_owned(), |s| format!("{} ago", span(s)));
    line("last commit", format!("{age}; {} readings in {} commits", number("/recorded/committed"), number("/recorded/commits")));
    if let Some(fault) = get("/recorded/fault").as_str() {
        line("FAULT", fault.to_owned());
    }
    if number("/recorded/overflowed") > 0.0 {
        line("LOST", format!("{} readings did not fit in RAM while the medium took no writes", number("/recorded/overflowed")));
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
        "pending",
        format!("{} readings in {} segments, the oldest of {}", number("/pending/readings"), number("/pending/segments"), word("/pending/oldest")),
    );
    line("link", format!("{} {}", word("/link/state"), word("/link/last_error").trim_start_matches('-')));
    line("clock", format!("{} {}", word("/clock/utc"), if get("/clock/trusted") == true { "synchronised" } else { "not synchronised: times are estimates" }));
    line("flash", format!("{} written since start, {} a day", size(number("/flash/written_bytes")), size(number("/flash/bytes_per_day"))));
    for sensor in get("/sensors").as_array().into_iter().flatten() {
        let refused: u64 = sensor["refused"].as_object().into_iter().flat_map(|r| r.values()).filter_map(Json::as_u64).sum();
        let source = sensor["source"].as_str().unwrap_or("-");
        line("sensor", format!("{source}: {} readings, {} without a value, {refused} refused", sensor["readings"], sensor["missing"]));
    }
    out
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        b if b < 10_240.0 => format!("{b:.0} B"),
        b if b < 10_485_760.0 => format!("{:.0} KiB", b / 1024.0),
        b => format!("{:.1} MiB", b / 1_048_576.0),
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

    /// A fault is on the screen; a figure that is not known is no zero.
    #[test]
    fn the_screen_shows_faults_and_admits_ignorance() {
        let screen = text(&json!({"device": "d-1", "recorded": {"fault": "disk full; free some room"}}));
        assert!(screen.contains("FAULT") && screen.contains("disk full"), "{screen}");
        assert!(screen.contains("none yet"), "{screen}");
    }
}
