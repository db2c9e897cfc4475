//! The commands of `varved-fleet`.
//!
//! What enters: the arguments. What leaves: an exit code, results on standard output, all else on standard error. What a
//! command does is in [`crate::fleet`]; here it is found, and told.

mod request;

use super::args::Argument;
use super::check::{self, Files};
use super::output::{self, Format};
use super::query::{FORMATS, print};
use super::{Arguments, CliError, Command, Program};
use crate::config::advice;
use crate::config::{DEFAULT_FLEET_CONFIG, FleetConfig};
use crate::fault::Exit;
use crate::fleet::{report, run};
use crate::signals;
use crate::store::query::Session;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The table.
pub static VARVED_FLEET: Program = Program {
    name: "varved-fleet",
    brief: "the receiver: every device's readings in one replica per store, each reading once",
    commands: &[RUN, CHECK, DEVICES, EVENTS, QUERY, request::REQUEST],
};

/// `varved-fleet`.
pub fn varved_fleet(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    super::start(&VARVED_FLEET, arguments)
}

const RUN: Command = Command {
    name: "run",
    args: "[--config F]",
    brief: "receives, in the foreground, until SIGTERM or SIGINT",
    long: "
  --config F   the receiver's file; default: /etc/varved/fleet.toml

Tells systemd when it is ready (sd_notify). What it has acknowledged is on the disk, so it may be stopped in any way.
RUST_LOG=debug says more.

  varved-fleet run --config fleet.toml",
    run: run_command,
};

const CHECK: Command = Command {
    name: "check",
    args: "[--config F]",
    brief: "validate the receiver's file; an error names file, line and key",
    long: "
  --config F   the receiver's file; default: /etc/varved/fleet.toml

Reads certificates, keys and passwords too, as far as they are on this machine. Ends with 78 where something is wrong.

  varved-fleet check --config fleet.toml",
    run: check_command,
};

const DEVICES: Command = Command {
    name: "devices",
    args: "[--config F] [--data DIR] [--json]",
    brief: "every device: last seen, stores, readings, gaps, losses, conflicts, refused messages",
    long: "
  --config F   the receiver's file, for its data folder; default: /etc/varved/fleet.toml
  --data DIR   the data folder itself
  --json       one array of objects

HELD are the sequence numbers that are there, losses included. GAPS are numbers that are neither held, nor pending at the
device as it last said, nor lost. CONFLICTS are numbers that arrived with more than one content; all are kept. Below come the
requests that are under way, and of each device the last that ended and the last snapshot that was verified.",
    run: devices_command,
};

const EVENTS: Command = Command {
    name: "events",
    args: "[--config F] [--data DIR] [--json]",
    brief: "what happened, the newest first: refused messages, conflicts, moved cards, topics of nobody",
    long: "
  --config F   the receiver's file, for its data folder; default: /etc/varved/fleet.toml
  --data DIR   the data folder itself
  --json       one array of objects; `device` is null for what is of no device

What somebody may cause without end is told at its first time, its tenth, its hundredth, with its count. The newest 10,000 are
kept.",
    run: events_command,
};

const QUERY: Command = Command {
    name: "query",
    args: "DEVICE [--config F] [--data DIR] [--format table|csv|json] SQL",
    brief: "read-only SQL over all that one device sent, with the `reading` table",
    long: "
  --config F   the receiver's file, for its data folder; default: /etc/varved/fleet.toml
  --data DIR   the data folder itself
  --format F   table (default), csv, or json: one array of objects

All stores that began with the device are read as one. The table `reading` is that of `varved query`.

  varved-fleet query pump-17 \"SELECT utc, value FROM reading WHERE series = 'cpu/temp' ORDER BY time DESC LIMIT 10\"",
    run: query_command,
};

fn named_config(arguments: &mut Arguments) -> Result<PathBuf, CliError> {
    let mut config = PathBuf::from(DEFAULT_FLEET_CONFIG);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "config" => config = arguments.path()?,
            other => return Err(arguments.unexpected(&other)),
        }
    }
    Ok(config)
}

fn check_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let path = named_config(arguments)?;
    let config = FleetConfig::load(&path).map_err(CliError::fault)?;
    let broker = match (&config.broker, config.listen) {
        (Some(broker), _) => format!("over {broker}"),
        (None, listen) => format!("with its own broker on {}", listen.map(|at| at.to_string()).unwrap_or_default()),
    };
    let meaning = format!("ok: receives {} {broker} into {}\n", config.prefix, config.data.display());
    let files = Files {
        section: "fleet",
        tls: config.broker.as_ref().is_some_and(|broker| broker.tls),
        ca: config.ca.as_deref(),
        cert: config.cert.as_deref(),
        key: config.key.as_deref(),
        password: config.password_file.as_deref(),
    };
    check::conclude(&path, &advice::of_fleet(&config), &files, &meaning)
}

fn run_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let config = FleetConfig::load(&named_config(arguments)?).map_err(CliError::fault)?;
    super::log_to_stderr();
    let stop = signals::end_of_service()?;
    let ready = |_| {
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    };
    run::serve(config, stop, ready).map_err(CliError::fault)?;
    Ok(Exit::Ok)
}

fn devices_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (data, json) = data_and_json(arguments)?;
    let devices = report::devices(&data).map_err(CliError::fault)?;
    let text = match json {
        true => report::json(&devices) + "\n",
        false => report::table(&devices, &report::of_nobody(&data).map_err(CliError::fault)?),
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}

fn events_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (data, json) = data_and_json(arguments)?;
    let events = report::happened(&data).map_err(CliError::fault)?;
    output::print(&if json { report::json(&events) + "\n" } else { report::happened_table(&events) })?;
    Ok(Exit::Ok)
}

fn data_and_json(arguments: &mut Arguments) -> Result<(PathBuf, bool), CliError> {
    let (mut place, mut json) = (Place::default(), false);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "json" => json = true,
            Argument::Option(name) if place.takes(&name, arguments)? => {}
            other => return Err(arguments.unexpected(&other)),
        }
    }
    Ok((place.data()?, json))
}

fn query_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut place, mut format, mut device, mut sql) = (Place::default(), Format::Table, None, None);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "format" => format = arguments.word(&FORMATS)?,
            Argument::Option(name) if place.takes(&name, arguments)? => {}
            Argument::Value(value) if sql.is_none() => {
                let text = value.into_string().map_err(|_| arguments.wrong("the argument is not UTF-8"))?;
                if device.is_none() { device = Some(text) } else { sql = Some(text) }
            }
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let (Some(device), Some(sql)) = (device, sql) else {
        return Err(arguments.wrong("a device and a statement are needed"));
    };
    let replicas = report::replicas(&place.data()?, &device).map_err(CliError::fault)?;
    let session = Session::open_all(&replicas).map_err(CliError::fault)?;
    print(&session, &sql, format)
}

/// Where the data is: named, or in the configuration.
#[derive(Default)]
struct Place {
    config: Option<PathBuf>,
    data: Option<PathBuf>,
}

impl Place {
    fn takes(&mut self, name: &str, arguments: &mut Arguments) -> Result<bool, CliError> {
        match name {
            "config" => self.config = Some(arguments.path()?),
            "data" => self.data = Some(arguments.path()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn data(self) -> Result<PathBuf, CliError> {
        if let Some(data) = self.data {
            return Ok(data);
        }
        let config = self.config.unwrap_or_else(|| DEFAULT_FLEET_CONFIG.into());
        FleetConfig::load(&config).map(|config| config.data).map_err(CliError::fault)
    }
}
