//! The command line: one table of commands for each binary, and the commands that only read.
//!
//! What enters: the arguments. What leaves: an exit code after BSD `sysexits.h` ([`Exit`]), results on standard output,
//! everything else on standard error. Every error names what to do next. What a command does beyond reading files is in the
//! room that does it.

#[cfg(feature = "device")]
pub mod account;
mod args;
mod check;
mod commands;
#[cfg(all(feature = "device", feature = "broker"))]
mod demo;
#[cfg(feature = "device")]
mod export;
#[cfg(feature = "fleet")]
pub mod fleet;
mod interrupt;
pub mod output;
#[cfg(feature = "laptop")]
mod pull;
pub mod query;
#[cfg(feature = "laptop")]
mod report;
#[cfg(feature = "device")]
mod serve_pull;
#[cfg(feature = "device")]
mod service;
mod snapshot;
mod verify;

pub use args::Arguments;
pub use commands::{Command, Program, VARVED};

use crate::fault::{Exit, Fault, Verdict};
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

/// `varved`.
pub fn varved(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    start(&VARVED, arguments)
}

/// Runs the command that the arguments name, the program's own name first. The one place where an error is printed.
pub fn start(program: &'static Program, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = match dispatch(program, arguments.into_iter().skip(1).collect()) {
        Ok(exit) => exit,
        Err(error) => {
            if !error.is_closed_pipe() {
                eprintln!("{}: {error}", program.name);
            }
            error.exit()
        }
    };
    ExitCode::from(exit as u8)
}

fn dispatch(program: &'static Program, arguments: Vec<OsString>) -> Result<Exit, CliError> {
    let mut words = arguments.into_iter();
    let word = words.next().map(|word| word.to_string_lossy().into_owned());
    match word.as_deref() {
        None => {
            output::print(&program.help())?;
            Ok(Exit::Usage)
        }
        Some("--help" | "-h") => output::print(&program.help()).map(|()| Exit::Ok),
        Some("--version" | "-V") => output::print(&program.version()).map(|()| Exit::Ok),
        Some("help") => match words.next() {
            None => output::print(&program.help()).map(|()| Exit::Ok),
            Some(name) => output::print(&program.find(&name.to_string_lossy())?.help(program)).map(|()| Exit::Ok),
        },
        Some(name) => {
            let command = program.find(name)?;
            let mut arguments = Arguments::new(program, command, words);
            if arguments.ask_for_help() {
                return output::print(&command.help(program)).map(|()| Exit::Ok);
            }
            (command.run)(&mut arguments)
        }
    }
}

/// What `RUST_LOG` says, or what an operator should know; the chatter of the embedded broker stays out unless asked for.
#[cfg(any(feature = "device", feature = "fleet"))]
fn log_to_stderr() {
    let mut logger = env_logger::Builder::new();
    logger.filter_level(log::LevelFilter::Info).format_target(false);
    logger.filter_module("rumqttd", log::LevelFilter::Off).filter_module("tracing", log::LevelFilter::Off);
    logger.parse_default_env();
    // A logger that is there already is as good.
    let _ = logger.try_init();
}

/// Why a command ended without doing all it should.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong.
    Usage {
        /// What is wrong with it.
        problem: String,
        /// What to type to learn more.
        see: String,
    },
    /// The output can't be written.
    Output(std::io::Error),
    /// Another room's fault, with its text and exit code.
    Fault(Box<dyn Fault + Send + Sync>),
}

impl CliError {
    /// Another room's fault.
    pub fn fault(fault: impl Fault + Send + Sync + 'static) -> Self {
        Self::Fault(Box::new(fault))
    }

    /// Whether the one who read our output has gone (`| head`), which is no fault.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { problem, see } => write!(f, "{problem}; see `{see}`"),
            Self::Output(error) => {
                write!(f, "cannot write the output: {error}; check where it goes and the free space")
            }
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for CliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Usage { .. } => None,
            Self::Output(error) => Some(error),
            Self::Fault(fault) => fault.source(),
        }
    }
}

impl Fault for CliError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Usage { .. } | Self::Output(_) => Verdict::Reject,
            Self::Fault(fault) => fault.verdict(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Output(_) if self.is_closed_pipe() => Exit::Ok,
            Self::Output(_) => Exit::Io,
            Self::Fault(fault) => fault.exit(),
        }
    }
}

#[cfg(test)]
mod tests;
