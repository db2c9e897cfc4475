//! The page `docs/config.md`, written from the table of keys.
//!
//! What enters: nothing. What leaves: Markdown. A test compares it with the file, so that the page can't fall behind.

use super::keys::{Fallback, Form, KEYS, Key};
use std::fmt::Write as _;

/// The sections in the order of the page, with their titles and the words above their keys.
pub const SECTIONS: [(&str, &str, &str); 8] = [
    ("", "The top of `varved.toml`", "Before the first table."),
    ("store", "`[store]`", "The file on flash."),
    (
        "flash",
        "`[flash]`",
        "Optional: how long the medium is to last. What the keys do together: [How long will my card live]\
         (flash.md#how-long-will-my-card-live).",
    ),
    ("control", "`[control]`", "The socket of the service for the commands of this machine."),
    (
        "power_fail",
        "`[power_fail]`",
        "Optional: an input of the board that says that its power fails, for one with a supercap. What then happens: \
         [When the power fails](store.md#when-the-power-fails).",
    ),
    ("sensor", "`[[sensor]]`", "One for each thing to read; as many as wanted."),
    (
        "uplink",
        "`[uplink]`",
        "Optional: without it varved is a local recorder. What limits and budgets do: [Thin links and metered SIMs](link.md).",
    ),
    ("fleet", "`[fleet]`, in `fleet.toml`", "The receiver's own file."),
];

/// The page of every key, as Markdown.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         The device reads `/etc/varved/varved.toml`, the receiver `/etc/varved/fleet.toml`, or what `--config` names. \
         Durations are written \n\"10s\", \"250ms\", \"1h\", \"7d\"; sizes \"4096\", \"256KiB\", \"64MiB\". An unknown \
         key is an error. `varved check` says whether a file is\nright, and where not: file, line, key, what is allowed. \
         Examples: [minimal](examples/minimal.toml), [usual](examples/usual.toml),\n\
         [everything](examples/everything.toml). This page is written from the table that the program reads by \
         (`varved check --keys`).\n",
    )
    .replace(" \n", "\n");
    for (section, title, words) in SECTIONS {
        // Writing to a String can't fail.
        let _ = write!(
            page,
            "\n## {title}\n\n{words}\n\n| key | what it is for | allowed | default | cost |\n|---|---|---|---|---|\n"
        );
        KEYS.iter().filter(|key| key.section == section).for_each(|key| row(&mut page, key));
    }
    page
}

fn row(page: &mut String, key: &Key) {
    let kinds = match key.kinds {
        [] => String::new(),
        kinds => format!(" ({})", kinds.join(", ")),
    };
    let name = format!("`{}`{kinds}", key.name);
    let line = [name, key.doc.to_owned(), key.form.allowed(), default_of(key), key.cost.to_owned()];
    let _ = writeln!(page, "| {} |", line.map(|cell| cell.replace('|', "\\|")).join(" | "));
}

/// What holds where the key is not written, as Markdown.
pub fn default_of(key: &Key) -> String {
    match key.default {
        Fallback::Value("") => "`\"\"`".to_owned(),
        Fallback::Value(text) => match key.form {
            Form::Count { .. } | Form::Flag | Form::List(..) => format!("`{text}`"),
            _ => format!("`\"{text}\"`"),
        },
        Fallback::Required => "must be written".to_owned(),
        Fallback::Absent(words) => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in the tree is the one that the table writes. `VARVED_WRITE_DOCS=1 cargo test page` renews it.
    #[test]
    fn the_page_in_docs_is_the_table_of_keys() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
        if std::env::var_os("VARVED_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("docs/config.md");
        }
        let held = std::fs::read_to_string(path).expect("docs/config.md");
        assert_eq!(held, markdown(), "renew it with VARVED_WRITE_DOCS=1 cargo test --lib page");
    }

    /// Every key is on the page: no section is forgotten in it.
    #[test]
    fn every_key_has_its_row() {
        let rows = markdown().lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, KEYS.len());
    }
}
