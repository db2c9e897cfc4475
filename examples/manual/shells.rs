//! Completions for bash, zsh and fish: commands, options, words of a choice, files and folders.
//!
//! Each script is a table, so that it can be read; none needs more than its shell. What a value may be beyond that (a host, a
//! device, a time) is left to who types it.

use crate::synopsis::{Interface, Opt, Value, options};
use std::fmt::Write as _;

/// For bash 4 and newer, without the package bash-completion.
pub(crate) fn bash(program: &Interface) -> String {
    let name = program.name;
    let function = format!("_{}", name.replace('-', "_"));
    let (mut values, mut words) = (String::new(), String::new());
    for command in &program.commands {
        let (options, bare) = options(command);
        for Opt { name: option, value, .. } in &options {
            let Some(value) = value else { continue };
            let _ = writeln!(values, "        {},{option}) {} ;;", command.name, bash_offer(value));
        }
        let names: Vec<_> = options.iter().map(|option| option.name).chain(["--help"]).collect();
        let _ = writeln!(words, "            {},-*) words='{}' ;;", command.name, names.join(" "));
        if let Some(value) = bare.iter().find(|value| !matches!(value, Value::Text(_))) {
            let _ = writeln!(words, "            {},*) {} ;;", command.name, bash_offer(value));
        }
    }
    let names: Vec<_> = program.commands.iter().map(|command| command.name).collect();
    let names = names.join(" ");
    format!(
        "# bash completion for {name}; written from its table of commands.

{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} words='' kind=''
    COMPREPLY=()
    # bash makes three words of --option=value.
    [ \"$cur\" != = ] || cur=''
    [ \"$prev\" != = ] || prev=${{COMP_WORDS[COMP_CWORD - 2]}}
    [ \"$COMP_CWORD\" -gt 1 ] || prev=''
    case ${{COMP_WORDS[1]}},$prev in
        *,'') words='{names} help --help --version' ;;
        help,help) words='{names}' ;;
{values}        *) case ${{COMP_WORDS[1]}},$cur in
{words}            *) return ;;
        esac ;;
    esac
    if [ -n \"$kind\" ]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -A \"$kind\" -- \"$cur\")
    else
        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")
    fi
}}
complete -F {function} {name}
"
    )
}

fn bash_offer(value: &Value) -> String {
    match value {
        Value::File => "kind=file".to_owned(),
        Value::Folder => "kind=directory".to_owned(),
        Value::Words(words) => format!("words='{}'", words.join(" ")),
        Value::Text(_) => "return".to_owned(),
    }
}

/// For zsh, by its own `_arguments`.
pub(crate) fn zsh(program: &Interface) -> String {
    let name = program.name;
    let (mut names, mut cases) = (String::new(), String::new());
    for command in &program.commands {
        let _ =
            writeln!(names, "        {}", quoted(&format!("{}:{}", command.name, command.brief.replace(':', "\\:"))));
        let (options, bare) = options(command);
        let mut of_command: Vec<_> = options.iter().map(zsh_option).collect();
        of_command.extend(bare.iter().map(|value| quoted(&format!(":{}", zsh_value(value)))));
        let _ =
            writeln!(cases, "    {})\n        _arguments {} ;;", command.name, of_command.join(" \\\n            "));
    }
    format!(
        "#compdef {name}
# zsh completion for {name}; written from its table of commands.

local -a commands
commands=(
{names})
if (( CURRENT == 2 )); then
    _describe command commands
    _arguments '--help[what the commands are]' '--version[the version]'
    return
fi
shift words
(( CURRENT-- ))
case $words[1] in
    help) _describe command commands ;;
{cases}esac
"
    )
}

fn zsh_option(option: &Opt) -> String {
    let words: String =
        option.words.chars().map(|c| if "[]:\\".contains(c) { format!("\\{c}") } else { c.to_string() }).collect();
    let value = option.value.as_ref().map(|value| format!(":{}", zsh_value(value))).unwrap_or_default();
    quoted(&format!("{}[{words}]{value}", option.name))
}

/// `message:action`.
fn zsh_value(value: &Value) -> String {
    match value {
        Value::File => "file:_files".to_owned(),
        Value::Folder => "folder:_files -/".to_owned(),
        Value::Words(words) => format!("word:({})", words.join(" ")),
        Value::Text(name) => format!("{}: ", name.replace([':', '[', ']'], " ").trim()),
    }
}

/// For fish.
pub(crate) fn fish(program: &Interface) -> String {
    let name = program.name;
    let mut script =
        format!("# fish completion for {name}; written from its table of commands.\n\ncomplete -c {name} -f\n");
    let _ = writeln!(script, "complete -c {name} -n __fish_use_subcommand -l help -d 'what the commands are'");
    let _ = writeln!(script, "complete -c {name} -n __fish_use_subcommand -l version -d 'the version'");
    let _ = writeln!(script, "complete -c {name} -n __fish_use_subcommand -a help -d 'what a command does'");
    for command in &program.commands {
        let on = format!("complete -c {name} -n '__fish_seen_subcommand_from {}'", command.name);
        let brief = quoted(command.brief);
        let _ = writeln!(script, "complete -c {name} -n __fish_use_subcommand -a {} -d {brief}", command.name);
        let _ =
            writeln!(script, "complete -c {name} -n '__fish_seen_subcommand_from help' -a {} -d {brief}", command.name);
        let (options, bare) = options(command);
        for option in &options {
            let long = option.name.strip_prefix("--").map(|name| format!("-l {name}"));
            let flag = long.unwrap_or_else(|| format!("-s {}", option.name.trim_start_matches('-')));
            let value = option.value.as_ref().map(fish_value).unwrap_or_default();
            let _ = writeln!(script, "{on} {flag}{value} -d {}", quoted(option.words));
        }
        for value in bare.iter().filter(|value| !matches!(value, Value::Text(_))) {
            let _ = writeln!(script, "{on}{}", fish_value(value).replacen(" -x", "", 1).replacen(" -r", "", 1));
        }
    }
    script
}

fn fish_value(value: &Value) -> String {
    match value {
        Value::File => " -r -F".to_owned(),
        Value::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
        Value::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        Value::Text(_) => " -x".to_owned(),
    }
}

/// Within single quotes, for zsh and fish alike.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
