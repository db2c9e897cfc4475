//! The power-fail input: a GPIO line or a file that says that the board's power fails.
//!
//! What enters: `[power_fail]`, and the root below which `/dev` and files are looked up. What leaves: what was [`Seen`], first
//! at once and then at each change. A line costs nothing between two changes: its descriptor is awaited. A file has a thread
//! of its own, since a read may hang in a driver. What it does not do: decide what a failing power means, or try again.

mod file;
mod gpio;
mod supply;
mod uapi;

#[cfg(test)]
pub(crate) use uapi::edge;

pub use supply::{HURRY, News, STEADY, Supply};

use crate::config::{PowerFailConfig, PowerInput};
use crate::fault::{Exit, Fault, Verdict};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What was seen of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// It says now that the power fails.
    pub active: bool,
    /// It says so now, or did for a moment since it was last looked at.
    pub was_active: bool,
}

/// An input at work. Dropping it gives the line back.
#[derive(Debug)]
pub enum Input {
    /// A GPIO line.
    Gpio(gpio::Line),
    /// A file.
    File(file::Watched),
}

impl Input {
    /// Takes the line, or begins to watch the file.
    ///
    /// # Errors
    /// Why there is no such input, or not for us. Another try may find it: drivers come late, and files too.
    pub fn open(config: &PowerFailConfig, root: &Path) -> Result<Self, InputError> {
        match &config.input {
            PowerInput::Gpio(line) => gpio::Line::take(line, config.active, root).map(Self::Gpio),
            PowerInput::File(path) => {
                file::Watched::start(below(root, path), config.active, config.poll).map(Self::File)
            }
        }
    }

    /// A line that a test plays: its level at the start, and the descriptor of its events.
    #[cfg(test)]
    pub(crate) fn played(first: bool, events: std::os::fd::OwnedFd) -> Self {
        Self::Gpio(gpio::Line::played(first, events))
    }

    /// The level as it is found, then each change of it. To stop waiting loses nothing.
    ///
    /// # Errors
    /// The input is gone, or can't be read any more; open it again.
    pub async fn next(&mut self) -> Result<Seen, InputError> {
        match self {
            Self::Gpio(line) => line.next().await,
            Self::File(file) => file.next().await,
        }
    }
}

/// Whether the input is there, for `check`: nothing is taken and nothing is waited for.
///
/// # Errors
/// As [`Input::open`].
pub fn look(config: &PowerFailConfig, root: &Path) -> Result<(), InputError> {
    match &config.input {
        PowerInput::Gpio(line) => gpio::look(line, root),
        PowerInput::File(path) => file::read(&below(root, path)).map(drop),
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Why there is no input.
#[derive(Debug)]
pub enum InputError {
    /// This machine has no such chip.
    NoChip {
        /// As it is configured.
        chip: String,
        /// The chips that there are, with their labels.
        here: Vec<String>,
    },
    /// No line of any chip has this name.
    NoLine {
        /// As it is configured.
        name: String,
        /// How many lines were looked at.
        lines: usize,
    },
    /// The chip has fewer lines.
    NoOffset {
        /// The chip.
        chip: String,
        /// How many it has.
        lines: usize,
    },
    /// Several chips or lines have this name.
    Ambiguous {
        /// As it is configured.
        name: String,
        /// Where.
        places: Vec<String>,
    },
    /// Another program, or a driver, has the line.
    Taken {
        /// Which.
        line: String,
        /// What the other calls itself.
        by: String,
    },
    /// The line can be read and gives no interrupts.
    NoInterrupts {
        /// Which.
        line: String,
    },
    /// The device of a chip can't be used.
    Gpio {
        /// What was done.
        doing: &'static str,
        /// With which chip or line.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// The file can't be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is no level.
    Content {
        /// Which.
        path: PathBuf,
        /// How it begins.
        text: String,
    },
    /// The system gives no thread to watch the file.
    Thread {
        /// Why.
        cause: io::Error,
    },
}

impl InputError {
    /// Whether the input may well be there on another machine, or for another user.
    pub fn is_of_this_place(&self) -> bool {
        match self {
            Self::NoChip { .. } | Self::NoLine { .. } => true,
            Self::File { cause, .. } | Self::Gpio { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
            }
            _ => false,
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoChip { chip, here } if here.is_empty() => {
                write!(f, "there is no GPIO chip {chip}, nor any other; load its driver, in a kernel with GPIO_CDEV")
            }
            Self::NoChip { chip, here } => {
                write!(f, "there is no GPIO chip {chip}; write one that there is: {}", here.join(", "))
            }
            Self::NoLine { name, lines } => {
                write!(f, "none of {lines} GPIO lines is called {name}; `gpioinfo` lists them; or write chip:offset")
            }
            Self::NoOffset { chip, lines: 0 } => write!(f, "{chip} has no lines; write another chip"),
            Self::NoOffset { chip, lines } => {
                write!(f, "the lines of {chip} are 0 to {}; write one of them", lines - 1)
            }
            Self::Ambiguous { name, places } => {
                write!(f, "several are called {name}; write which one, of {}", places.join(", "))
            }
            Self::Taken { line, by } => {
                write!(f, "line {line} is taken by {by:?}; end that program or driver, or wire another line")
            }
            Self::NoInterrupts { line } => {
                write!(
                    f,
                    "line {line} gives no interrupts; wire another line, or write file = with one that tells its level"
                )
            }
            Self::Gpio { doing, what, cause } => match cause.kind() {
                io::ErrorKind::PermissionDenied => {
                    write!(f, "{what} is not for us; let the service's user read it (group gpio, or a rule of udev)")
                }
                _ if matches!(cause.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                    write!(
                        f,
                        "can't {doing} {what}: {cause}; name a GPIO chip, of a kernel of 5.10 or newer, or write file ="
                    )
                }
                _ => write!(f, "can't {doing} {what}: {cause}; see what the kernel's log says of it"),
            },
            Self::File { path, cause } => {
                let path = path.display();
                match cause.kind() {
                    io::ErrorKind::NotFound => write!(f, "there is no {path}; load its driver, or write another file"),
                    _ => write!(f, "can't read {path}: {cause}; let the service's user read it, or write another file"),
                }
            }
            Self::Content { path, text } => {
                let path = path.display();
                write!(f, "{path} begins with {text:?}, which is no level; write a file that begins with 0 or 1")
            }
            Self::Thread { cause } => {
                write!(f, "no thread to watch the file: {cause}; see why the system is short of them")
            }
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gpio { cause, .. } | Self::File { cause, .. } | Self::Thread { cause } => Some(cause),
            _ => None,
        }
    }
}

impl Fault for InputError {
    fn verdict(&self) -> Verdict {
        Verdict::Retry
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}
