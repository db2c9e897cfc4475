//! The table of commands: from it come dispatch, `--help` and `help COMMAND`.

use super::{Arguments, CliError};
use crate::config::nearest;
use crate::fault::Exit;

/// A binary.
#[derive(Debug)]
pub struct Program {
    /// What is typed.
    pub name: &'static str,
    /// What it is, in a line.
    pub brief: &'static str,
    /// Its commands, in the order of the help.
    pub commands: &'static [Command],
}

/// A command.
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// Its arguments, as in a manual's synopsis.
    pub args: &'static str,
    /// What it does, in a line.
    pub brief: &'static str,
    /// What it does, its options, an example: the lines below the synopsis of its help.
    pub long: &'static str,
    /// Does it.
    pub run: fn(&mut Arguments) -> Result<Exit, CliError>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The commands of `varved`.
pub static VARVED: Program = Program {
    name: "varved",
    brief: "readings from sensors to one SQLite file to the fleet, with nothing lost at a power cut",
    commands: &[
        #[cfg(all(feature = "device", feature = "broker"))]
        super::demo::COMMAND,
        #[cfg(feature = "device")]
        super::service::RUN,
        super::check::COMMAND,
        #[cfg(feature = "device")]
        super::service::STATUS,
        #[cfg(feature = "device")]
        super::service::FLUSH,
        super::query::COMMAND,
        #[cfg(feature = "device")]
        super::export::COMMAND,
        #[cfg(feature = "laptop")]
        super::pull::COMMAND,
        #[cfg(feature = "device")]
        super::serve_pull::COMMAND,
        #[cfg(feature = "laptop")]
        super::report::COMMAND,
        super::snapshot::COMMAND,
        super::verify::COMMAND,
    ],
};

impl Program {
    /// The command of this name; the error suggests the nearest.
    pub fn find(&self, name: &str) -> Result<&'static Command, CliError> {
        self.commands.iter().find(|command| command.name == name).ok_or_else(|| {
            let near = nearest(name, self.commands.iter().map(|command| command.name));
            let meant = near.map(|near| format!(", did you mean `{} {near}`?", self.name)).unwrap_or_default();
            CliError::Usage {
                problem: format!("`{name}` is not a command{meant}"),
                see: format!("{} --help", self.name),
            }
        })
    }

    /// `--help`.
    pub fn help(&self) -> String {
        let mut text = format!("{} - {}\n\n", self.name, self.brief);
        for command in self.commands {
            text += &format!("  {:<10} {}\n", command.name, command.brief);
        }
        text += &format!("\n`{0} help COMMAND` tells more; `{0} --version` the version.\n", self.name);
        text += "Exit codes: 0 ok, 64 usage, 65 bad data, 69 unavailable, 74 I/O, 75 try again, 78 configuration.\n";
        text
    }

    /// `--version`.
    pub fn version(&self) -> String {
        format!("{} {}\n", self.name, env!("CARGO_PKG_VERSION"))
    }
}

impl Command {
    /// `help COMMAND`.
    pub fn help(&self, program: &Program) -> String {
        format!("{} {} {}\n{}\n\n{}\n", program.name, self.name, self.args, self.brief, self.long.trim_matches('\n'))
    }
}
