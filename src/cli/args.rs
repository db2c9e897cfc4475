//! The arguments of one command, one by one.
//!
//! What enters: words. What leaves: options with their values and what is left over, or an error that names the command's
//! own help.

use super::{CliError, Command, Program};
use crate::config::{Config, DEFAULT_CONFIG, Locking};
use lexopt::{Arg, ValueExt};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The words behind a command's name.
pub struct Arguments {
    parser: lexopt::Parser,
    wants_help: bool,
    see: String,
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").field("see", &self.see).finish_non_exhaustive()
    }
}

/// An argument, ready to be matched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// `--name`, or `-n` as `n`.
    Option(String),
    /// What is not an option.
    Value(OsString),
}

impl Arguments {
    pub(super) fn new(program: &Program, command: &Command, words: impl Iterator<Item = OsString>) -> Self {
        let words: Vec<OsString> = words.collect();
        // Only before `--`, behind which nothing is an option.
        let wants_help = words.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h");
        let see = format!("{} help {}", program.name, command.name);
        Self { parser: lexopt::Parser::from_args(words), wants_help, see }
    }

    pub(super) fn ask_for_help(&self) -> bool {
        self.wants_help
    }

    /// The next one, or `None` at the end.
    pub fn next_argument(&mut self) -> Result<Option<Argument>, CliError> {
        let argument = match self.parser.next() {
            Ok(argument) => argument,
            Err(error) => return Err(CliError::Usage { problem: error.to_string(), see: self.see.clone() }),
        };
        Ok(argument.map(|argument| match argument {
            Arg::Short(letter) => Argument::Option(letter.to_string()),
            Arg::Long(name) => Argument::Option(name.to_owned()),
            Arg::Value(value) => Argument::Value(value),
        }))
    }

    /// The value of the option that came last, as text.
    pub fn text(&mut self) -> Result<String, CliError> {
        let text = self.parser.value().and_then(|value| value.string());
        text.map_err(|error| self.wrong(error.to_string()))
    }

    /// The value of the option that came last, as a path.
    pub fn path(&mut self) -> Result<PathBuf, CliError> {
        self.parser.value().map(PathBuf::from).map_err(|error| self.wrong(error.to_string()))
    }

    /// The value of the option that came last, one of a few words.
    pub fn word<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, CliError> {
        let text = self.text()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(format!("`{text}` is not one of {}", words.join(", ")))
        })
    }

    /// An error of usage.
    pub fn wrong(&self, problem: impl Into<String>) -> CliError {
        CliError::Usage { problem: problem.into(), see: self.see.clone() }
    }

    /// The error for an argument that the command doesn't take.
    pub fn unexpected(&self, argument: &Argument) -> CliError {
        self.wrong(match argument {
            Argument::Option(name) if name.chars().count() == 1 => {
                format!("`-{name}` is not an option of this command")
            }
            Argument::Option(name) => format!("`--{name}` is not an option of this command"),
            Argument::Value(value) => format!("`{}` is one argument too many", value.to_string_lossy()),
        })
    }
}

/// The store that is meant.
#[derive(Debug)]
pub(super) struct Place {
    /// Its file: what was named, else that of the configuration, else where it is installed.
    pub(super) path: PathBuf,
    /// The control socket of the service that alone reads the file while it runs: under exclusive locking.
    #[cfg_attr(not(feature = "device"), allow(dead_code, reason = "only the device's commands can ask it"))]
    pub(super) keeper: Option<PathBuf>,
    /// The control socket of the service whose store it is.
    #[cfg_attr(not(feature = "device"), allow(dead_code, reason = "only the device's commands can ask it"))]
    pub(super) control: Option<PathBuf>,
    /// The name of the device whose store it is.
    #[cfg_attr(not(feature = "device"), allow(dead_code, reason = "only the device's commands tell it"))]
    pub(super) device: Option<String>,
}

impl Place {
    /// From `--db` and `--config`, or from the installed configuration.
    pub(super) fn find(db: Option<PathBuf>, config: Option<PathBuf>) -> Result<Self, CliError> {
        let config = match (config, Path::new(DEFAULT_CONFIG)) {
            (Some(file), _) => Some(Config::load(&file).map_err(CliError::fault)?),
            (None, installed) if !installed.exists() => None,
            // A file that is named is read whatever the installed configuration is worth.
            (None, installed) if db.is_some() => Config::load(installed).ok(),
            (None, installed) => Some(Config::load(installed).map_err(CliError::fault)?),
        };
        let configured = config.as_ref().map(|config| config.store.path.clone());
        let path = db.or(configured).unwrap_or_else(|| PathBuf::from("/var/lib/varved/varved.db"));
        let own = config.filter(|config| is_same(&config.store.path, &path));
        let exclusive = own.as_ref().is_some_and(|config| config.store.locking == Locking::Exclusive);
        let device = own.as_ref().map(|config| config.device.clone());
        let control = own.and_then(|config| config.control.listen);
        Ok(Self { path, keeper: control.clone().filter(|_| exclusive), control, device })
    }
}

pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// The store that is meant, for a command that reads the file itself.
pub(super) fn store_path(named: Option<PathBuf>) -> Result<PathBuf, CliError> {
    Place::find(named, None).map(|place| place.path)
}
