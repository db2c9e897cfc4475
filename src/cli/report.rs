//! `varved report`: one page about a store.

use super::args::{Argument, Arguments, Place};
use super::interrupt::watch;
use super::service::{size, status_of};
use super::{CliError, Command};
use crate::fault::Exit;
use crate::report::write;
use crate::store::reader::{ReadError, Reader};
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

pub(super) const COMMAND: Command = Command {
    name: "report",
    args: "[--config F | --db F] -o F|- [--force]",
    brief: "one HTML page: every series over time, what is missing, how the device is",
    long: "
  --config F   the configuration whose store is read; default /etc/varved/varved.toml
  --db F       the store itself, a snapshot, or what `varved pull` brought
  -o F         the page; `-` is standard output
  --force      replace a file that is there

The page needs no network: open it in any browser, or send it. Charts mark where there are no readings, where the clock was
not trusted, and what was lost; below them are the losses with reasons, and the events of the file.

  varved report --db pump-17.db -o pump-17.html",
    run,
};

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut db, mut config, mut out, mut force) = (None, None, None::<PathBuf>, false);
    while let Some(argument) = arguments.next_argument()? {
        let Argument::Option(name) = &argument else { return Err(arguments.unexpected(&argument)) };
        match name.as_str() {
            "db" => db = Some(arguments.path()?),
            "config" | "c" => config = Some(arguments.path()?),
            "o" | "output" => out = Some(arguments.path()?),
            "force" => force = true,
            _ => return Err(arguments.unexpected(&argument)),
        }
    }
    let out = out.ok_or_else(|| arguments.wrong("-o is missing: the page to write, or - for standard output"))?;
    let place = Place::find(db, config)?;
    let reader = Reader::open(&place.path).map_err(CliError::fault)?;
    let health = place.control.as_deref().and_then(|socket| status_of(socket).ok());
    let stop = watch(reader.interrupter())?;
    let mut page = Vec::new();
    let unreadable = write(&reader, health.as_deref(), &stop, &mut page)?.map_err(CliError::fault)?;
    if out == Path::new("-") {
        let mut to = BufWriter::new(stdout().lock());
        to.write_all(&page).and_then(|()| to.flush())?;
    } else {
        save(&out, &page, force).map_err(CliError::fault)?;
        eprintln!("{} to {}", size(page.len() as f64), out.display());
    }
    Ok(if unreadable > 0 { Exit::Data } else { Exit::Ok })
}

/// Under its name once all of it is there.
fn save(out: &Path, page: &[u8], force: bool) -> Result<(), ReadError> {
    if out.exists() && !force {
        return Err(ReadError::Exists { path: out.to_owned() });
    }
    let part = crate::store::file::beside(out, &format!(".{}.part", std::process::id()));
    let written = std::fs::write(&part, page).and_then(|()| std::fs::rename(&part, out));
    written.map_err(|source| {
        // What there is of it is of no use.
        let _ = std::fs::remove_file(&part);
        ReadError::Io { doing: "write", path: out.to_owned(), source }
    })
}
