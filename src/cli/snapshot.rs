//! `varved snapshot`: one consistent file of the whole store, taken while the service runs.

use super::args::{Argument, Arguments, store_path};
use super::interrupt::watch;
use super::{CliError, Command};
use crate::config::units::size_text;
use crate::fault::Exit;
use crate::store::plain::snapshot;
use crate::store::reader::Reader;

pub(super) const COMMAND: Command = Command {
    name: "snapshot",
    args: "[--db F] -o F [--force]",
    brief: "one consistent file of the whole store, no -wal beside it",
    long: "
  --db F    the store; default: that of /etc/varved/varved.toml
  -o F      the copy; it has this name only once it is complete and on the medium
  --force   replace a file that is there

The service goes on meanwhile. The copy is marked as one: a service that is started on it takes a fresh store id, so
that the fleet never sees two stores under one.

  varved snapshot -o /mnt/usb/pump-17.db",
    run,
};

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut db, mut out, mut force) = (None, None, false);
    while let Some(argument) = arguments.next_argument()? {
        let Argument::Option(name) = &argument else { return Err(arguments.unexpected(&argument)) };
        match name.as_str() {
            "db" => db = Some(arguments.path()?),
            "o" | "output" => out = Some(arguments.path()?),
            "force" => force = true,
            _ => return Err(arguments.unexpected(&argument)),
        }
    }
    let out = out.ok_or_else(|| arguments.wrong("-o is missing: the file to write"))?;
    if out.as_os_str() == "-" {
        return Err(arguments.wrong("a database can't be written to standard output; name a file with -o"));
    }
    let reader = Reader::open(&store_path(db)?).map_err(CliError::fault)?;
    watch(reader.interrupter())?;
    let bytes = snapshot(&reader, &out, force).map_err(CliError::fault)?;
    eprintln!("{} to {}", size_text(bytes), out.display());
    Ok(Exit::Ok)
}
