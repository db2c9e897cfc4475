//! `varved verify`: is this file what it should be, and what of it can be read?

use super::args::{Argument, Arguments};
use super::interrupt::watch;
use super::output::counted;
use super::{CliError, Command, output};
use crate::config::units::size_text;
use crate::fault::Exit;
use crate::reading::SeqRange;
use crate::segment::{Loss, LossReason};
use crate::store::audit::{Audit, Named, StoreAudit, audit};
use crate::store::reader::Reader;
use std::fmt::Write as _;

pub(super) const COMMAND: Command = Command {
    name: "verify",
    args: "F",
    brief: "integrity, every checksum, sequence gaps; the exit code tells",
    long: "
Checks the file with SQLite's own means, decodes every segment to its last value and holds it against its row, the
series and boots it cites, and its neighbours. A range of sequence numbers with neither readings, nor an account of
their loss, nor the fleet's word that it has them is a gap. Nothing is changed. Ends with 0 where all is well, with 65
where not; then it says what is wrong and how much can be read.

  varved verify /var/lib/varved/varved.db",
    run,
};

fn run(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let mut file = None;
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Value(value) if file.is_none() => file = Some(value),
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let file = file.ok_or_else(|| arguments.wrong("name the file to verify"))?;
    let reader = Reader::open(file.as_ref()).map_err(CliError::fault)?;
    watch(reader.interrupter())?;
    let audit = audit(&reader).map_err(CliError::fault)?;
    output::print(&words(&audit))?;
    Ok(if audit.is_sound() { Exit::Ok } else { Exit::Data })
}

/// An audit in words.
fn words(audit: &Audit) -> String {
    let mut text = String::new();
    for store in &audit.stores {
        store_words(&mut text, store);
    }
    list(&mut text, "wrong", &audit.problems, Clone::clone);
    let unsound: u64 = audit.stores.iter().map(|store| store.unsound).sum();
    text += &match (audit.is_sound(), audit.problems.count) {
        (true, _) => "ok: every checksum, count, bound and name is right, and nothing is missing\n".to_owned(),
        (false, 0) => {
            "readings are missing without an account; the fleet may have them: `varved status` tells\n".to_owned()
        }
        (false, _) => format!(
            "not ok: {} can't be relied on; `varved export` and `query` read the others, and the service \
             salvages them when it starts on this file\n",
            counted(unsound, "segment")
        ),
    };
    text
}

// Writing to a String can't fail: what the macros below return is always Ok.

fn store_words(text: &mut String, store: &StoreAudit) {
    let variant = if store.variant == 0 { String::new() } else { format!(" (variant {})", store.variant) };
    let _ = writeln!(
        text,
        "store {}{variant}: {} in {} of {}, up to number {}",
        store.uuid,
        counted(store.readings, "reading"),
        counted(store.sound, "sound segment"),
        size_text(store.bytes),
        store.high
    );
    list(text, "lost, and accounted for", &store.losses, |(range, loss)| format!("{range}: {}", loss_words(loss)));
    list(text, "missing without an account", &store.gaps, SeqRange::to_string);
}

fn loss_words(loss: &Loss) -> String {
    let why = match loss.reason {
        LossReason::Void => "numbers skipped at a start",
        LossReason::Overflow => "the buffer was full while the medium took nothing",
        LossReason::Retention => "room was needed before the fleet had them",
        LossReason::Damaged => "damaged on the medium",
        LossReason::Expired => "the fleet had them, and has lost them since",
    };
    match loss.readings {
        Some(readings) => format!("{}, {why}", counted(readings, "reading")),
        None => why.to_owned(),
    }
}

fn list<T>(text: &mut String, title: &str, named: &Named<T>, words: impl Fn(&T) -> String) {
    if named.count == 0 {
        return;
    }
    let _ = writeln!(text, "  {title}: {}", named.count);
    for one in &named.first {
        let _ = writeln!(text, "    {}", words(one));
    }
    let rest = named.count.saturating_sub(named.first.len() as u64);
    if rest > 0 {
        let _ = writeln!(text, "    and {rest} more");
    }
}
