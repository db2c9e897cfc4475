//! The manual pages: of each program in section 1, of each configuration file in section 5.

use crate::roff::{argument, guarded, literal, paragraph, prose, verbatim};
use crate::synopsis::{Interface, defined};
use varved::cli::Command;
use varved::config::keys::{KEYS, Key};
use varved::config::page::{SECTIONS, default_of};

/// The card of docs/technician.md: its commands are the examples of the page.
const CARD: &str = include_str!("../../docs/technician.md");

/// A program's page: every command with all that its help says.
pub(crate) fn of_program(program: &Interface, date: &str) -> String {
    let name = program.name;
    let mut page = head(name, "1", "User Commands", date);
    page += &format!(".SH NAME\n{} \\- {}\n", literal(name), prose(program.brief));
    page += &format!(".SH SYNOPSIS\n.B {0}\n.I COMMAND\n.RI [ ARGUMENT ]...\n.br\n", literal(name));
    page +=
        &format!(".B {0} help\n.RI [ COMMAND ]\n.br\n.B {0}\n.BR \\-\\-help \" | \" \\-\\-version\n", literal(name));
    page += ".SH COMMANDS\n";
    program.commands.iter().for_each(|command| page += &of_command(name, command));
    page += EXIT_STATUS;
    page += &format!(".SH ENVIRONMENT\n.TP\n.B RUST_LOG\n{}", paragraph(LOG));
    page + &around(program)
}

const LOG: &str = "How much the service logs on standard error: `error`, `warn`, `info` (the default) or `debug`.";

const EXIT_STATUS: &str = ".SH EXIT STATUS
.TP
.B 0
All is done.
.TP
.B 64
The command line is wrong.
.TP
.B 65
The data is wrong, or not all of it could be read.
.TP
.B 69
A service or a host that is needed does not answer.
.TP
.B 74
An error of the file system or a device.
.TP
.B 75
Nothing is wrong, but not now: try again.
.TP
.B 78
The configuration is wrong.
";

/// FILES, EXAMPLES and SEE ALSO.
fn around(program: &Interface) -> String {
    let entry = |(path, what): &(&str, &str)| format!(".TP\n.I {}\n{}\n", literal(path), prose(what));
    if program.name == "varved-fleet" {
        let files = [
            ("/etc/varved/fleet.toml", "The configuration: varved-fleet.toml(5)."),
            ("/var/lib/varved-fleet/", "A folder for each device, in it one replica for each of its stores."),
        ];
        let files: String = files.iter().map(entry).collect();
        return format!(".SH FILES\n{files}.SH SEE ALSO\n.BR varved (1),\n.BR varved\\-fleet.toml (5)\n");
    }
    let files = [
        ("/etc/varved/varved.toml", "The configuration: varved.toml(5)."),
        (
            "/var/lib/varved/varved.db",
            "The store, an SQLite file, with its `-wal`, `-shm` and `-high-water` beside it.",
        ),
        ("/run/varved/", "The sockets of the service."),
    ];
    let files: String = files.iter().map(entry).collect();
    let card = CARD.split("```").nth(1).unwrap_or_default().lines().skip(1);
    let card = verbatim(card.filter(|line| !line.is_empty()));
    format!(
        ".SH FILES\n{files}.SH EXAMPLES\n{}{card}{}.SH SEE ALSO\n.BR varved.toml (5),\n.BR varved\\-fleet (1),\n.BR ssh (1),\n.BR sqlite3 (1)\n",
        paragraph("For the technician: a board's readings on a laptop with `varved` and `ssh`."),
        format_args!(".PP\n{}", paragraph(NEVER)),
    )
}

const NEVER: &str = "Never copy the store of a running service with `cp`, `scp` or `rsync`: the newest readings are in the `-wal` beside it.
`varved snapshot` makes one file of it. `pull` and `report` are the laptop's: a board's `varved` is built without them.";

fn of_command(program: &str, command: &Command) -> String {
    let (name, args) = (literal(command.name), literal(command.args));
    let mut text = format!(".SS {name}\n.B {} {name}\n{}\n", literal(program), guarded(args));
    let brief = command.brief.trim_end_matches('.');
    let (first, rest) = brief.split_at(brief.chars().next().map_or(0, char::len_utf8));
    text += &format!(".PP\n{}.\n", prose(&(first.to_uppercase() + rest)));
    text + &help(command.long)
}

/// What `help COMMAND` says below its synopsis: definitions, examples, paragraphs, told apart by how they are set in.
fn help(long: &str) -> String {
    let (mut page, mut example, mut fresh) = (String::new(), Vec::new(), true);
    for line in long.lines().chain([""]) {
        if line.starts_with("  ") && defined(line).is_none() {
            example.push(&line[2..]);
            continue;
        }
        if !example.is_empty() {
            page += &verbatim(example.drain(..));
        }
        if let Some((name, words)) = defined(line) {
            page += &format!(".TP\n\\fB{}\\fR\n{}\n", literal(name), prose(words));
        } else if line.is_empty() {
            fresh = true;
            continue;
        } else {
            page += if fresh { ".PP\n" } else { "" };
            page += &paragraph(line);
        }
        fresh = false;
    }
    page
}

/// The page of `varved.toml`.
pub(crate) fn of_device_config(date: &str) -> String {
    let examples = [
        ("The least:", include_str!("../../docs/examples/minimal.toml")),
        ("The usual:", include_str!("../../docs/examples/usual.toml")),
    ];
    let mut page = head("varved.toml", "5", "File Formats", date);
    page += ".SH NAME\nvarved.toml \\- configuration of varved, the datastore service of a device\n";
    page += &format!(".SH SYNOPSIS\n.I /etc/varved/varved.toml\n.SH DESCRIPTION\n{}", paragraph(FORM));
    page += &format!(
        ".PP\n{}",
        paragraph("`varved check` says whether a file is right, and where not: file, line, key, what is allowed.")
    );
    SECTIONS.iter().filter(|(section, ..)| *section != "fleet").for_each(|section| page += &of_section(*section));
    page += ".SH EXAMPLES\n";
    examples.iter().for_each(|(words, text)| page += &format!("{words}\n{}", verbatim(text.lines())));
    page + ".SH SEE ALSO\n.BR varved (1)\n"
}

/// The page of `fleet.toml`, under a name that says whose it is.
pub(crate) fn of_fleet_config(date: &str) -> String {
    let mut page = head("varved-fleet.toml", "5", "File Formats", date);
    page += ".SH NAME\nvarved\\-fleet.toml \\- configuration of varved\\-fleet, the receiver\n";
    page += &format!(".SH SYNOPSIS\n.I /etc/varved/fleet.toml\n.SH DESCRIPTION\n{}", paragraph(FORM));
    page += &format!(
        ".PP\n{}",
        paragraph(
            "`varved-fleet check` says whether a file is right, and where not: file, line, key, what is allowed."
        )
    );
    SECTIONS.iter().filter(|(section, ..)| *section == "fleet").for_each(|section| page += &of_section(*section));
    page + ".SH SEE ALSO\n.BR varved\\-fleet (1)\n"
}

const FORM: &str =
    "The file is TOML. Durations are written \"10s\", \"250ms\", \"1h\", \"7d\"; sizes \"4096\", \"256KiB\", \"64MiB\".
An unknown key is an error.";

fn of_section((section, title, words): (&str, &str, &str)) -> String {
    let title = title.replace('`', "").replace("varved.toml", "the file");
    let keys: String = KEYS.iter().filter(|key| key.section == section).map(of_key).collect();
    format!(".SH {}\n{}{keys}", argument(&title), paragraph(words))
}

fn of_key(key: &Key) -> String {
    let kinds = match key.kinds {
        [] => String::new(),
        kinds => format!(" ({})", literal(&kinds.join(", "))),
    };
    let head = format!(".TP\n\\fB{}\\fR{kinds}\n{}\n.br\n", literal(key.name), prose(key.doc));
    let allowed = format!("Allowed: {}. Default: {}.", key.form.allowed(), default_of(key));
    let cost =
        if key.cost == "None." { String::new() } else { format!(".br\n{}", paragraph(&format!("Cost: {}", key.cost))) };
    head + &prose(&allowed) + "\n" + &cost
}

fn head(name: &str, section: &str, volume: &str, date: &str) -> String {
    let version = argument(&format!("varved {}", env!("CARGO_PKG_VERSION")));
    let title = argument(&name.to_uppercase());
    format!(
        ".\\\" Written from the program's own tables by examples/manual.\n.TH {title} {section} \"{date}\" {version} {}\n",
        argument(volume)
    )
}
