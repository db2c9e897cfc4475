//! `varved pull`: a board's readings to a file on the laptop.

mod account;

use super::args::{Argument, Arguments};
use super::service::size as few_digits;
use super::{CliError, Command};
use crate::clock::Clock;
use crate::clock::UtcNanos;
use crate::clock::system::SystemClock;
use crate::fault::Exit;
use crate::pull::fetch::{Fetched, Holding, Progress, PullError, fetch};
use crate::pull::link::{Link, LinkError};
use crate::pull::ssh::{Far, Session, SshError};
use crate::store::arrivals::Arrivals;
use crate::store::file::beside;
use crate::store::reader::ReadError;
use crate::store::rows_file::{self, Added};
use std::io::{BufReader, BufWriter, IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};

pub(super) const COMMAND: Command = Command {
    name: "pull",
    args: "[USER@]HOST[:DB] OUT [--raw] [--ssh COMMAND] | --db FILE OUT [--raw]",
    brief: "a board's readings over SSH to a file on this machine",
    long: "
  HOST          the board, as `ssh` knows it: ~/.ssh/config, keys, jump hosts and ports apply
  DB            the store there; default: that of its /etc/varved/varved.toml
  OUT           the file to make, or to add to: plain SQLite rows, for any tool
  --raw         the store itself as one file, instead of rows
  --ssh C       what to run instead of `ssh`, such as \"ssh -p 2222 -i key\" or dbclient
  --db FILE     a store on this machine, such as on the card of a dead board, instead of a host

Only what OUT lacks travels. What has arrived before a cut stays in OUT.part: the same command goes on from there. OUT gets
its name, or what is new, once all of it is there. Progress is told on standard error, the account on standard output.

The board's service goes on; nothing is changed there. Where the board does not know the time, this machine's clock gives its
readings their place: they are `estimated`.

  varved pull tech@pump-17 pump-17.db
  sqlite3 pump-17.db \"SELECT utc, value, unit FROM reading WHERE series = 'cpu/temp' ORDER BY time DESC LIMIT 10\"",
    run,
};

/// What is to be pulled, and where to.
struct Task {
    from: From,
    out: PathBuf,
    raw: bool,
}

enum From {
    Host { far: Far, ssh: String },
    File(PathBuf),
}

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let task = task(arguments)?;
    let part = rows_file::part_of(&task.out);
    let holding = holding(&task, &part).map_err(CliError::fault)?;
    let mut arrivals = Arrivals::open(&part, holding.exists && !task.raw).map_err(CliError::fault)?;
    let fetched = converse(&task, &mut arrivals, &holding)?;
    let added = finish(&task, arrivals, &part).map_err(CliError::fault)?;
    account::print(&task.out, &fetched, added)
}

fn task(arguments: &mut Arguments) -> Result<Task, CliError> {
    let (mut raw, mut ssh, mut db, mut values) = (false, "ssh".to_owned(), None, Vec::new());
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "raw" => raw = true,
            Argument::Option(name) if name == "ssh" => ssh = arguments.text()?,
            Argument::Option(name) if name == "db" => db = Some(arguments.path()?),
            Argument::Value(value) if values.len() < 2 => values.push(value),
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let out = values.pop().map(PathBuf::from);
    let (from, out) = match (db, values.pop(), out) {
        (Some(db), None, Some(out)) => (From::File(db), out),
        (None, Some(host), Some(out)) => {
            let far = host.to_str().and_then(Far::parse);
            let far =
                far.ok_or_else(|| arguments.wrong(format!("`{}` is not [USER@]HOST[:DB]", host.to_string_lossy())))?;
            (From::Host { far, ssh }, out)
        }
        _ => return Err(arguments.wrong("write [USER@]HOST[:DB] OUT, or --db FILE OUT")),
    };
    Ok(Task { from, out, raw })
}

/// What there is of the file; for a raw pull a copy of it is what is added to.
fn holding(task: &Task, part: &Path) -> Result<Holding, ReadError> {
    let inspected = if task.raw { rows_file::inspect_raw(&task.out)? } else { rows_file::inspect(&task.out)? };
    let name = task.out.display().to_string();
    let Some((device, had)) = inspected else { return Ok(Holding { name, ..Holding::default() }) };
    if task.raw && !part.exists() {
        let copy = beside(&task.out, ".copy");
        let copied = std::fs::copy(&task.out, &copy).and_then(|_| std::fs::rename(&copy, part));
        copied.map_err(|source| {
            // What there is of it takes the room that is missing.
            let _ = std::fs::remove_file(&copy);
            match source.kind() {
                std::io::ErrorKind::StorageFull => ReadError::NoRoom { path: task.out.clone() },
                _ => ReadError::Io { doing: "copy", path: task.out.clone(), source },
            }
        })?;
    }
    Ok(Holding { name, exists: true, device, had: if task.raw { Vec::new() } else { had } })
}

fn converse(task: &Task, arrivals: &mut Arrivals, holding: &Holding) -> Result<Fetched, CliError> {
    let (session, from, to) = match &task.from {
        From::Host { far, ssh } => Session::start(ssh, far),
        From::File(db) => serve_here(db),
    }
    .map_err(CliError::fault)?;
    let clock = SystemClock::new(Path::new("/"));
    let now = || UtcNanos(clock.now().utc.0);
    let mut link = Link::new(BufReader::with_capacity(64 << 10, from), BufWriter::new(to));
    let fetched = fetch(&mut link, arrivals, holding, &now, &mut tell);
    // The far side sees its streams end, and ends.
    drop(link);
    if stderr().is_terminal() {
        eprintln!();
    }
    match fetched {
        Ok(fetched) => {
            // It has said all it had to say; how it then ended changes nothing.
            let _ = session.end();
            Ok(fetched)
        }
        Err(PullError::Link(why @ (LinkError::Io(_) | LinkError::Silent | LinkError::NotVarved))) => {
            match (session.end(), &why) {
                // Cut in the middle: `ssh` knows no more than that.
                (Ok(()) | Err(SshError::Other { .. }), _) | (Err(SshError::NoHost { .. }), LinkError::Io(_)) => {
                    Err(CliError::fault(why))
                }
                (Err(known), _) => Err(CliError::fault(known)),
            }
        }
        Err(why) => {
            session.stop();
            Err(CliError::fault(why))
        }
    }
}

/// The far end on this machine, in a process of its own.
fn serve_here(db: &Path) -> Result<(Session, std::process::ChildStdout, std::process::ChildStdin), SshError> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("varved"));
    let mut command = std::process::Command::new(program);
    command.arg("serve-pull").arg("--db").arg(db).env_remove("SSH_ORIGINAL_COMMAND");
    Session::spawn(&mut command, false, &db.display().to_string())
}

/// Gives what has arrived its name, or adds it to what has it.
fn finish(task: &Task, arrivals: Arrivals, part: &Path) -> Result<Option<Added>, ReadError> {
    if task.raw {
        arrivals.into_store(&task.out)?;
        remove(&beside(part, "-journal"));
        return Ok(None);
    }
    drop(arrivals);
    let added = rows_file::add(part, &task.out)?;
    // It is in the file now; where it can't be removed, the next pull finds that it is.
    remove(part);
    remove(&beside(part, "-journal"));
    Ok(Some(added))
}

fn remove(path: &Path) {
    if let Err(why) = std::fs::remove_file(path) {
        if why.kind() != std::io::ErrorKind::NotFound {
            eprintln!("varved: cannot remove {}: {why}; it is not needed any more", path.display());
        }
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    few_digits(bytes as f64)
}

/// One line, written over where that is a terminal.
fn tell(progress: &Progress) {
    let seconds = progress.elapsed.as_secs_f64().max(0.001);
    let rate = progress.bytes as f64 / seconds;
    let left_bytes = progress.of_bytes.saturating_sub(progress.bytes);
    let left = match progress.bytes {
        0 => String::new(),
        _ => format!(", {} left in {:.0} s", size(left_bytes), left_bytes as f64 / rate),
    };
    let line = format!(
        "{} of {}, {} of {} segments, {}/s{left}",
        size(progress.bytes),
        size(progress.of_bytes),
        progress.segments,
        progress.of_segments,
        size(rate as u64),
    );
    let mut to = stderr().lock();
    // Where standard error is closed nobody wants to know.
    let _ = match to.is_terminal() {
        true => write!(to, "\r{line}\x1b[K").and_then(|()| to.flush()),
        false => writeln!(to, "{line}"),
    };
}
