//! The options of a command, read from the two texts that its help consists of.
//!
//! What enters: `args` and `long` of a [`Command`]. What leaves: each option with what it takes and what it is for, and what
//! stands for itself. The synopsis says which values there are, the lines below it what they mean.

use varved::cli::{Command, Program};

/// A program, as a page or a shell sees it.
pub(crate) struct Interface {
    pub(crate) name: &'static str,
    pub(crate) brief: &'static str,
    pub(crate) commands: Vec<&'static Command>,
}

/// `--name VALUE   words`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opt {
    /// With its hyphens.
    pub(crate) name: &'static str,
    /// What it takes, if anything.
    pub(crate) value: Option<Value>,
    /// What it is for; empty where only the synopsis has it.
    pub(crate) words: &'static str,
}

/// What stands for an argument in a synopsis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A file: `F`, `FILE`, `OUT`, `F|-`.
    File,
    /// A folder: `D`, `DIR`.
    Folder,
    /// A choice; words to be typed as they are.
    Words(Vec<&'static str>),
    /// Anything else, by its name.
    Text(&'static str),
}

impl Interface {
    pub(crate) fn of(program: &'static Program) -> Self {
        Self { name: program.name, brief: program.brief, commands: program.commands.iter().collect() }
    }
}

/// The options of a command, those of the synopsis first, and what it takes without one.
pub(crate) fn options(command: &Command) -> (Vec<Opt>, Vec<Value>) {
    let (mut options, mut values) = (Vec::<Opt>::new(), Vec::new());
    let mut words = command.args.split_whitespace().filter(|word| *word != "|").peekable();
    while let Some(word) = words.next() {
        let bare = bare(word);
        if !bare.starts_with('-') {
            values.push(Value::of(bare));
            continue;
        }
        let takes = |next: &&str| !word.ends_with(']') && !next.starts_with(['-', '[']);
        let value = words.next_if(takes).map(|value| Value::of(self::bare(value)));
        if options.iter().all(|option| option.name != bare) {
            options.push(Opt { name: bare, value, words: "" });
        }
    }
    for (name, words) in command.long.lines().filter_map(defined).filter(|(name, _)| name.starts_with('-')) {
        let (name, value) = name.split_once(' ').map_or((name, None), |(name, value)| (name, Some(Value::of(value))));
        match options.iter_mut().find(|option| option.name == name) {
            Some(option) => option.words = words,
            None => options.push(Opt { name, value, words }),
        }
    }
    (options, values)
}

/// `  NAME   words`, as a line of a command's help defines an option, an argument or a column.
pub(crate) fn defined(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
    let (name, words) = line.split_once("  ")?;
    Some((name, words.trim_start()))
}

/// Without the brackets around it; those within, as of `[USER@]HOST[:DB]`, are its own.
fn bare(word: &str) -> &str {
    let inner = word.trim_start_matches('[').trim_end_matches(']');
    if inner.contains(['[', ']']) { word } else { inner }
}

impl Value {
    fn of(text: &'static str) -> Self {
        let words: Vec<_> = text.split('|').collect();
        match text {
            "F" | "FILE" | "OUT" | "F|-" => Self::File,
            "D" | "DIR" => Self::Folder,
            _ if words.len() > 1 => Self::Words(
                words.into_iter().filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')).collect(),
            ),
            _ => Self::Text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &'static str, long: &'static str) -> (Vec<Opt>, Vec<Value>) {
        let run = |_: &mut varved::cli::Arguments| Ok(varved::fault::Exit::Ok);
        options(&Command { name: "x", args, brief: "", long, run })
    }

    fn opt(name: &'static str, value: Option<Value>, words: &'static str) -> Opt {
        Opt { name, value, words }
    }

    /// Brackets and bars of a synopsis group; what is known of an option's value comes from there, its meaning from below.
    #[test]
    fn a_synopsis_and_the_lines_below_it_make_options() {
        let (options, values) = of(
            "[--config F | --db F] [--format table|csv] [--json | --prom] -o F|- SQL",
            "\n  --config F   the configuration\n  --format F   table or csv\n  --force      replace it\n\nIt does.\n  x --not  y",
        );
        let expected = [
            opt("--config", Some(Value::File), "the configuration"),
            opt("--db", Some(Value::File), ""),
            opt("--format", Some(Value::Words(vec!["table", "csv"])), "table or csv"),
            opt("--json", None, ""),
            opt("--prom", None, ""),
            opt("-o", Some(Value::File), ""),
            opt("--force", None, "replace it"),
        ];
        assert_eq!(options, expected);
        assert_eq!(values, [Value::Text("SQL")]);
    }

    /// Two ways to call a command, and brackets within a word.
    #[test]
    fn brackets_within_a_word_are_its_own() {
        let (options, values) = of("[USER@]HOST[:DB] OUT [--raw] [--ssh COMMAND] | --db FILE OUT [--raw]", "");
        let names: Vec<_> = options.iter().map(|option| option.name).collect();
        assert_eq!(names, ["--raw", "--ssh", "--db"]);
        assert_eq!(options[1].value, Some(Value::Text("COMMAND")));
        assert_eq!(values, [Value::Text("[USER@]HOST[:DB]"), Value::File, Value::File]);
        assert_eq!(of("DEVICE snapshot|RANGE|cancel", "").1[1], Value::Words(vec!["snapshot", "cancel"]));
    }
}
