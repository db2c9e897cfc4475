//! `varved serve-pull`: the far end of `varved pull`, also as the one thing that a key may do.

use super::args::{Argument, Arguments, Place};
use super::service::{Asked, ask_rows, status_of};
use super::{CliError, Command};
use crate::clock::Clock;
use crate::clock::system::SystemClock;
use crate::fault::{Exit, Fault, Verdict};
use crate::pull::link::Link;
use crate::pull::serve::{AskError, Board, Got, Rows, serve};
use crate::store::Identity;
use crate::store::query::Session;
use crate::wire::Running;
use std::fmt;
use std::io::{BufReader, BufWriter, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const COMMAND: Command = Command {
    name: "serve-pull",
    args: "[--config F] [--db F]",
    brief: "the far end of `varved pull`; made for a key's forced command",
    long: "
  --config F   the configuration whose store is read; default /etc/varved/varved.toml
  --db F       the store itself

Speaks to `varved pull` over standard input and output, and only reads. In authorized_keys:

  restrict,command=\"varved serve-pull\" ssh-ed25519 AAAA... technician

Whoever has that key may pull this store and nothing else: no shell, no other file, no forwarding. docs/pull.md tells more.",
    run,
};

/// How much less urgent than the service this is.
const NICENESS: i32 = 10;

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut db, mut config) = (None, None);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "db" => db = Some(arguments.path()?),
            Argument::Option(name) if name == "config" || name == "c" => config = Some(arguments.path()?),
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let place = Place::find(db, config)?;
    if let Some(asked) = std::env::var_os("SSH_ORIGINAL_COMMAND") {
        permitted(&asked.to_string_lossy(), &place).map_err(CliError::fault)?;
    }
    // Best effort: where it may not be, commits are as urgent as this.
    let _ = rustix::process::nice(NICENESS);
    let mut rows = open(&place)?;
    let board = Board { device: place.device.clone().unwrap_or_default(), running: running(), health: health(&place) };
    let (input, output) = (BufReader::new(stdin().lock()), BufWriter::with_capacity(32 << 10, stdout().lock()));
    serve(&mut *rows, board, &mut Link::new(input, output)).map_err(CliError::fault)?;
    Ok(Exit::Ok)
}

/// The file, or the service that alone may read it.
fn open(place: &Place) -> Result<Box<dyn Rows>, CliError> {
    if let Some(socket) = &place.keeper {
        let mut kept = Kept { socket: socket.clone() };
        match kept.ask("SELECT 1") {
            Ok(_) => return Ok(Box::new(kept)),
            Err(why) if why.exit == NOBODY => {}
            Err(why) => return Err(CliError::fault(Refused::Service { exit: why.exit, text: why.text })),
        }
    }
    let mut session = Session::open(&place.path).map_err(CliError::fault)?;
    let refused = |why: AskError| CliError::fault(Refused::Service { exit: why.exit, text: why.text });
    let tables =
        session.ask("SELECT count(*) FROM sqlite_schema WHERE name IN ('segment', 'series')").map_err(refused)?;
    if tables.first().and_then(|row| row.first()).and_then(Got::int) != Some(2) {
        return Err(CliError::fault(crate::store::reader::ReadError::NotAStore { path: place.path.clone() }));
    }
    let format = session.ask("SELECT value FROM meta WHERE key = 'format_major'").map_err(refused)?;
    match format.first().and_then(|row| row.first()).and_then(Got::int) {
        Some(major) if major > crate::store::file::FORMAT_MAJOR => {
            Err(CliError::fault(crate::store::reader::ReadError::Newer { path: place.path.clone(), major }))
        }
        _ => Ok(Box::new(session)),
    }
}

/// Both clocks, and the boot that they are of.
fn running() -> Option<Running> {
    let identity = Identity::read(Path::new("/")).ok()?;
    Some(Running::new(identity.boot_uuid, SystemClock::new(Path::new("/")).now()))
}

fn health(place: &Place) -> Result<String, String> {
    let Some(socket) = &place.control else { return Err("no configuration names its control socket".to_owned()) };
    status_of(socket)
}

/// A store that only the service may read: it is asked at its control socket, one small step at a time.
struct Kept {
    socket: PathBuf,
}

/// What stands for "no service runs" among exit codes.
const NOBODY: Exit = Exit::Unavailable;

/// The longest pause between two questions.
const MOST_REST: Duration = Duration::from_millis(50);

impl Rows for Kept {
    fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Got>>, AskError> {
        let begun = Instant::now();
        let answer = ask_rows(&self.socket, sql);
        // So that commits have at least half of the store's time, whatever the link carries.
        std::thread::sleep(begun.elapsed().min(MOST_REST));
        match answer {
            Asked::Rows(rows) => Ok(rows.rows.iter().map(|row| row.iter().map(got).collect()).collect()),
            Asked::Nobody => Err(AskError {
                text: "the service has ended; pull again, it goes on from there".to_owned(),
                exit: NOBODY,
                damaged: false,
            }),
            Asked::Refused { exit, text } => Err(AskError { text, exit, damaged: exit == Exit::Data }),
        }
    }
}

fn got(cell: &super::service::Cell) -> Got {
    use super::service::Cell;
    match cell {
        Cell::Null | Cell::Real(_) => Got::Null,
        Cell::Int(value) => Got::Int(*value),
        Cell::Text(text) => Got::Text(text.clone()),
    }
}

/// Whether what came with a key that may only do this asks for this, and for no other file.
fn permitted(asked: &str, place: &Place) -> Result<(), Refused> {
    let refused = || Refused::Command { path: place.path.clone() };
    let rest = asked.trim().strip_prefix("varved serve-pull").ok_or_else(refused)?;
    if rest.is_empty() {
        return Ok(());
    }
    let word = rest.strip_prefix(" --db ").and_then(one_word).ok_or_else(refused)?;
    if super::args::is_same(Path::new(&word), &place.path) { Ok(()) } else { Err(refused()) }
}

/// The one word that this is for a shell, quoted as `varved pull` quotes.
fn one_word(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(plain) {
        return Some(text.to_owned());
    }
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let parts: Vec<&str> = inner.split("'\\''").collect();
    parts.iter().all(|part| !part.contains('\'')).then(|| parts.join("'"))
}

/// Why nothing is served.
#[derive(Debug)]
enum Refused {
    /// The key that was used may not ask for what it asked for.
    Command {
        /// What it may pull.
        path: PathBuf,
    },
    /// The service or the file says no.
    Service { exit: Exit, text: String },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { path } => write!(
                f,
                "this key may only pull {}, and runs nothing else; use `varved pull HOST OUT`",
                path.display()
            ),
            Self::Service { text, .. } => f.write_str(text),
        }
    }
}

impl std::error::Error for Refused {}

impl Fault for Refused {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Command { .. } => Exit::Usage,
            Self::Service { exit, .. } => *exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key with a forced command pulls its store, and that is all: whatever else comes is refused, before any of it is
    /// looked at as a command.
    #[test]
    fn a_forced_command_is_for_one_store_only() {
        let place = Place { path: "/data/a 'b'.db".into(), keeper: None, control: None, device: None };
        let may = |asked: &str| permitted(asked, &place).is_ok();
        assert!(may("varved serve-pull") && may("varved serve-pull --db '/data/a '\\''b'\\''.db'"));
        for bad in [
            "",
            "sh",
            "varved run",
            "varved serve-pull --db /etc/shadow",
            "varved serve-pull --config /tmp/x.toml",
            "varved serve-pull; sh",
            "varved serve-pull --db '/data/a '\\''b'\\''.db' --config /tmp/x",
            "varved serve-pull --db '/data/a '\\''b'\\''.db'; sh",
            "varved serve-pull --db $(reboot)",
            "varved serve-pull --db '/data/a' '\\''b'\\''.db",
            "varved serve-pull --db",
            "/usr/lib/sftp-server",
            "scp -t /tmp",
            "varved serve-pull\nsh",
        ] {
            assert!(!may(bad), "{bad:?}");
        }
    }
}
