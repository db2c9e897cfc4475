//! Writes the manual pages and the completions for bash, zsh and fish from the tables that the programs run by.
//!
//! What enters: a folder to write to, and `--board` to leave out what only the laptop's `varved` has. What leaves: files that
//! a package installs. Nothing of this is in a board's binary.

mod pages;
mod roff;
mod shells;
mod synopsis;

use std::path::{Path, PathBuf};
use synopsis::Interface;
use varved::cli::VARVED;
use varved::cli::fleet::VARVED_FLEET;
use varved::clock::UtcNanos;
use varved::clock::civil::iso8601;

/// What a board's `varved` is built without: the features `laptop` and `broker`.
const LAPTOP_ONLY: [&str; 3] = ["demo", "pull", "report"];

fn main() -> std::io::Result<()> {
    let (mut to, mut board) = (None, false);
    for argument in std::env::args_os().skip(1) {
        if argument == "--board" { board = true } else { to = Some(PathBuf::from(argument)) }
    }
    let Some(to) = to else {
        eprintln!("usage: manual DIR [--board]");
        std::process::exit(64);
    };
    write(&to, &[varved(board), Interface::of(&VARVED_FLEET)], &date())
}

fn varved(board: bool) -> Interface {
    let mut varved = Interface::of(&VARVED);
    varved.commands.retain(|command| !(board && LAPTOP_ONLY.contains(&command.name)));
    varved
}

fn write(to: &Path, programs: &[Interface], date: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for program in programs {
        let name = program.name;
        std::fs::write(to.join(format!("{name}.1")), pages::of_program(program, date))?;
        std::fs::write(to.join(format!("{name}.bash")), shells::bash(program))?;
        std::fs::write(to.join(format!("_{name}")), shells::zsh(program))?;
        std::fs::write(to.join(format!("{name}.fish")), shells::fish(program))?;
    }
    std::fs::write(to.join("varved.toml.5"), pages::of_device_config(date))?;
    std::fs::write(to.join("varved-fleet.toml.5"), pages::of_fleet_config(date))
}

/// The day on the pages: that of SOURCE_DATE_EPOCH, so that the same source makes the same pages; none without it.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<i64>().ok());
    epoch.map(|seconds| iso8601(UtcNanos(seconds * 1_000_000_000))[..10].to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// bash, asked as it asks at a TAB: the words that it would offer behind `line`, the last word of which is unfinished.
    fn offered(program: &Interface, line: &str, folder: &Path) -> Vec<String> {
        let script = folder.join("completion");
        std::fs::write(&script, shells::bash(program)).unwrap();
        let ask = r#"
            source "$1"; shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            "$(complete -p "$1" | sed 's/.*-F \([^ ]*\) .*/\1/')"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let words = line.split(' ');
        let asked =
            Command::new("bash").args(["-uc", ask, "bash"]).arg(&script).args(words).current_dir(folder).output();
        let asked = asked.expect("bash");
        assert!(
            asked.status.success() && asked.stderr.is_empty(),
            "{line}: {}",
            String::from_utf8_lossy(&asked.stderr)
        );
        String::from_utf8(asked.stdout).unwrap().lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Each command of the table is offered, by its beginning too; and of each, every option of its help.
    #[test]
    fn bash_offers_every_command_and_option() {
        let folder = tempfile::tempdir().unwrap();
        for program in [varved(false), Interface::of(&VARVED_FLEET)] {
            let all = offered(&program, &format!("{} ", program.name), folder.path());
            for command in &program.commands {
                assert!(all.iter().any(|word| word == command.name), "{}", command.name);
                let options = offered(&program, &format!("{} {} -", program.name, command.name), folder.path());
                for word in command.long.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
                    assert!(options.iter().any(|option| option == word), "{} {word}: {options:?}", command.name);
                }
            }
        }
        assert_eq!(offered(&varved(false), "varved ex", folder.path()), ["export"]);
        assert_eq!(offered(&varved(false), "varved help ver", folder.path()), ["verify"]);
    }

    /// Values are offered where they are known: words of a choice, files with blanks in their names, folders alone.
    #[test]
    fn bash_offers_words_files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("my board.toml"), "").unwrap();
        std::fs::create_dir(folder.path().join("my replicas")).unwrap();
        let (varved, fleet) = (varved(false), Interface::of(&VARVED_FLEET));
        let ask = |program: &Interface, line: &str| offered(program, line, folder.path());
        assert_eq!(ask(&varved, "varved query --format "), ["table", "csv", "json"]);
        assert_eq!(ask(&varved, "varved query --format c"), ["csv"]);
        // `--format=c`, as bash cuts it.
        assert_eq!(ask(&varved, "varved query --format = c"), ["csv"]);
        assert_eq!(ask(&varved, "varved run --config my"), ["my board.toml", "my replicas"]);
        assert_eq!(ask(&varved, "varved verify my"), ["my board.toml", "my replicas"]);
        assert_eq!(ask(&varved, "varved snapshot -o my"), ["my board.toml", "my replicas"]);
        assert_eq!(ask(&varved, "varved pull host my"), ["my board.toml", "my replicas"]);
        assert_eq!(ask(&fleet, "varved-fleet devices --data my"), ["my replicas"]);
        assert_eq!(ask(&fleet, "varved-fleet request pump-17 "), ["snapshot", "cancel"]);
        assert!(ask(&varved, "varved export --since ").is_empty());
        assert!(ask(&varved, "varved nonsense ").is_empty());
    }

    /// A board's pages and completions name no command that a board lacks; the laptop's have them.
    #[test]
    fn the_boards_pages_are_without_the_laptops_commands() {
        for (board, there) in [(true, false), (false, true)] {
            let (page, words) = (pages::of_program(&varved(board), ""), shells::bash(&varved(board)));
            for name in LAPTOP_ONLY {
                assert_eq!(page.contains(&format!(".SS {name}\n")), there, "{name}");
                assert_eq!(words.split([' ', '\'']).any(|word| word == name), there, "{name}");
            }
            assert!(page.contains(".SS serve\\-pull\n"));
        }
    }

    /// Every key of the tables has its place on one of the two pages.
    #[test]
    fn every_key_is_on_a_page() {
        for key in varved::config::keys::KEYS {
            let page = if key.section == "fleet" { pages::of_fleet_config("") } else { pages::of_device_config("") };
            let entry = format!(".TP\n\\fB{}\\fR", roff::literal(key.name));
            assert!(page.contains(&entry), "{}.{}", key.section, key.name);
        }
    }
}
