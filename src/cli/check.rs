//! `varved check`: is this configuration right, and what does it mean?

use super::args::{Argument, Arguments};
use super::{CliError, Command, output};
use crate::config::units::{duration_text, size_text};
use crate::config::{Config, DEFAULT_CONFIG, Locking, SensorKind, page};
use crate::fault::Exit;
use std::fmt::Write as _;
use std::path::PathBuf;

pub(super) const COMMAND: Command = Command {
    name: "check",
    args: "[--config F] [--keys]",
    brief: "validate a configuration; an error names file, line and key",
    long: "
  --config F   the file; default /etc/varved/varved.toml
  --keys       print every key with its meaning, range, default and cost, as Markdown

Says in a few lines what the configuration means, and which of the files it names are not there. Ends with 78 where it
is wrong.

  varved check --config board.toml",
    run,
};

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let mut path = PathBuf::from(DEFAULT_CONFIG);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "config" || name == "c" => path = arguments.path()?,
            Argument::Option(name) if name == "keys" => {
                return output::print(&page::markdown()).map(|()| Exit::Ok);
            }
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let config = Config::load(&path).map_err(CliError::fault)?;
    output::print(&summary(&config))?;
    for (key, file) in named_files(&config) {
        if !file.exists() {
            eprintln!("note: {key} names {}, which is not on this machine", file.display());
        }
    }
    broker_limits(&config).iter().for_each(|note| eprintln!("note: {note}"));
    Ok(Exit::Ok)
}

/// What some brokers take less of than is configured.
fn broker_limits(config: &Config) -> Vec<String> {
    let Some(uplink) = &config.uplink else { return Vec::new() };
    let (flight, payload) = (uplink.pace.max_in_flight, u64::from(uplink.max_payload_bytes));
    let mut notes = Vec::new();
    if flight > 20 {
        notes.push(format!(
            "uplink.max_in_flight is {flight}; mosquitto allows 20 unless its max_inflight_messages is raised"
        ));
    }
    if payload > 128_000 {
        notes.push(format!("uplink.max_payload is {}; AWS IoT closes a connection above 128 KB", size_text(payload)));
    }
    notes
}

/// What a configuration means, in words.
pub(super) fn summary(config: &Config) -> String {
    let store = &config.store;
    let sensors = match config.sensors.len() {
        0 => "no sensor: nothing will be recorded".to_owned(),
        1 => "1 sensor".to_owned(),
        n => format!("{n} sensors"),
    };
    // Writing to a String can't fail.
    let mut text = format!("ok: {sensors}, commits every {}", words(store.commit_interval));
    let _ = write!(text, " to {}, at most {}", store.path.display(), size_text(store.max_size_bytes));
    let to = config.uplink.as_ref().map_or("no uplink".to_owned(), |uplink| format!("uplink to {}", uplink.broker));
    let _ = writeln!(text, ", {to}\n  device {}", config.device);
    for sensor in &config.sensors {
        let _ = match &sensor.kind {
            SensorKind::Socket(socket) => writeln!(text, "  sensor socket on {}", socket.listen),
            SensorKind::Exec(exec) => writeln!(text, "  sensor exec: {}", exec.command.join(" ")),
            SensorKind::File(file) => {
                writeln!(
                    text,
                    "  sensor file {} as {}, every {}",
                    file.path.display(),
                    file.name,
                    words(sensor.interval)
                )
            }
            other => writeln!(text, "  sensor {}, every {}", other.as_str(), words(sensor.interval)),
        };
    }
    if store.locking == Locking::Exclusive {
        text += "  exclusive locking: only the service reads the live file\n";
    }
    text
}

/// `10 s`: for people.
fn words(duration: std::time::Duration) -> String {
    let text = duration_text(duration);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    format!("{} {}", &text[..digits], &text[digits..])
}

fn named_files(config: &Config) -> Vec<(&'static str, &PathBuf)> {
    let Some(uplink) = &config.uplink else { return Vec::new() };
    let files = [
        ("uplink.ca", &uplink.ca),
        ("uplink.cert", &uplink.cert),
        ("uplink.key", &uplink.key),
        ("uplink.password_file", &uplink.password_file),
    ];
    files.into_iter().filter_map(|(key, file)| file.as_ref().map(|file| (key, file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is above the limits of common brokers is told, and the defaults are below them.
    #[test]
    fn limits_above_those_of_common_brokers_are_told() {
        let notes = |lines: &str| {
            let text = format!("[uplink]\nbroker = \"mqtt://a\"\n{lines}");
            broker_limits(&Config::parse(&text, "test.toml").expect("a configuration"))
        };
        assert_eq!(notes(""), Vec::<String>::new());
        let told = notes("max_in_flight = 21\nmax_payload = \"126KiB\"\n");
        assert!(told[0].contains("mosquitto") && told[1].contains("AWS IoT"), "{told:?}");
    }
}
