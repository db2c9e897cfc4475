//! `varved check`: is this configuration right, and what does it mean?

use super::args::{Argument, Arguments};
use super::{CliError, Command, output};
use crate::config::advice::{self, Advice};
use crate::config::units::{duration_text, size_text};
use crate::config::{Config, DEFAULT_CONFIG, Locking, SensorKind, page};
use crate::fault::Exit;
use crate::mqtt::{Login, Settings, Tls};
use crate::power_fail;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub(super) const COMMAND: Command = Command {
    name: "check",
    args: "[--config F] [--keys]",
    brief: "validate a configuration; an error names file, line and key",
    long: "
  --config F   the file; default /etc/varved/varved.toml
  --keys       print every key with its meaning, range, default and cost, as Markdown

Says in a few lines what the configuration means, which of the files it names are not there, and what the broker would
not take. Certificates, keys and passwords that are there are read; keys and passwords must be for owner and group only.
The power-fail input is looked for, and not taken.
Ends with 78 where something is wrong.

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
    let files = config.uplink.as_ref().map_or_else(Files::default, |uplink| Files {
        section: "uplink",
        tls: uplink.broker.tls,
        ca: uplink.ca.as_deref(),
        cert: uplink.cert.as_deref(),
        key: uplink.key.as_deref(),
        password: uplink.password_file.as_deref(),
    });
    let mut advice = advice::of_device(&config);
    advice.extend(of_power(&config));
    conclude(&path, &advice, &files, &summary(&config))
}

/// What is to be said of the power-fail input. One that is not here may be on the board that the configuration is for.
fn of_power(config: &Config) -> Option<Advice> {
    let input = config.power_fail.as_ref()?;
    let why = power_fail::look(input, &config.root).err()?;
    let key = input.input.key().to_owned();
    Some(match why.is_of_this_place() {
        true => {
            let problem = format!("names {}, which can't be watched here: {why}", input.input);
            Advice { key, problem, fatal: false }
        }
        false => Advice { key, problem: why.to_string(), fatal: true },
    })
}

/// The files of one side of a broker.
#[derive(Default)]
pub(super) struct Files<'a> {
    pub(super) section: &'static str,
    pub(super) tls: bool,
    pub(super) ca: Option<&'a Path>,
    pub(super) cert: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
    pub(super) password: Option<&'a Path>,
}

/// Says on standard error what is wrong or doubtful in `config`, and in the files that it names as far as they are here;
/// where nothing is wrong, what it means.
pub(super) fn conclude(config: &Path, advice: &[Advice], files: &Files<'_>, meaning: &str) -> Result<Exit, CliError> {
    let mut wrong = advice.iter().any(|advice| advice.fatal);
    for Advice { key, problem, fatal } in advice {
        match fatal {
            true => eprintln!("{}: {key}: {problem}", config.display()),
            false => eprintln!("note: {key} {problem}"),
        }
    }
    let here = files.named().into_iter().filter(|(key, file)| files.is_here(key, file)).map(|(key, _)| key).collect();
    for fault in files.faults(here) {
        wrong = true;
        eprintln!("{}: {fault}", config.display());
    }
    if wrong { Ok(Exit::Config) } else { output::print(meaning).map(|()| Exit::Ok) }
}

impl Files<'_> {
    fn named(&self) -> Vec<(&'static str, &Path)> {
        let all = [("ca", self.ca), ("cert", self.cert), ("key", self.key), ("password_file", self.password)];
        all.into_iter().filter_map(|(key, file)| Some((key, file?))).collect()
    }

    /// Whether the file can be opened here; if not, that is noted: a configuration may be checked on another machine.
    fn is_here(&self, key: &str, file: &Path) -> bool {
        let why = match std::fs::File::open(file) {
            Ok(_) => return true,
            Err(e) if e.kind() == ErrorKind::NotFound => "is not on this machine".to_owned(),
            Err(e) => format!("cannot be read by who runs this: {e}"),
        };
        eprintln!("note: {}.{key} names {}, which {why}", self.section, file.display());
        false
    }

    /// What is wrong with the files that are here: each side of the connection by itself, as far as it is complete.
    fn faults(&self, here: Vec<&str>) -> Vec<String> {
        let is_here = |key: &str| here.contains(&key);
        let path = |file: Option<&Path>| file.map(Path::to_path_buf);
        let blank = || Settings::device("check", "broker", 1);
        let login =
            is_here("password_file").then(|| Login { username: "check".into(), password_file: path(self.password) });
        let pair = is_here("cert") && is_here("key");
        let tls = (self.tls && is_here("ca")).then(|| Tls {
            ca: path(self.ca),
            cert: path(self.cert).filter(|_| pair),
            key: path(self.key).filter(|_| pair),
            alpn: None,
        });
        let sides = [Settings { login, ..blank() }, Settings { tls, ..blank() }];
        sides.iter().filter_map(|settings| settings.check().err()).map(|fault| fault.to_string()).collect()
    }
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
    if let Some(power) = &config.power_fail {
        let _ = writeln!(text, "  power fails when {} is {}", power.input, power.active.as_str());
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
