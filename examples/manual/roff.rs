//! Text as roff: what comes in means itself, whatever it holds; what goes out is for `man`, in ASCII.
//!
//! The escapes are those of groff_man_style(7), section "Portability", which mandoc reads too.

/// What is typed or read as it stands: a command, an option, a path.
pub(crate) fn literal(text: &str) -> String {
    text.chars().map(|c| escape(c, true)).collect()
}

/// A line that begins with no request: a leading dot or quote would make it one.
pub(crate) fn guarded(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// Markdown's `code` and [links](to), and nothing else of it: code is bold, of a link its words are left.
pub(crate) fn prose(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            out += &format!("\\fB{}\\fR", literal(part));
        } else {
            out += &words(&without_links(part));
        }
    }
    guarded(out)
}

/// Prose of several lines.
pub(crate) fn paragraph(text: &str) -> String {
    text.lines().map(|line| prose(line.trim()) + "\n").collect()
}

/// Lines as they are, such as an example to type.
pub(crate) fn verbatim<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines: String = lines.into_iter().map(|line| guarded(literal(line)) + "\n").collect();
    format!(".PP\n.RS 4\n.EX\n{lines}.EE\n.RE\n")
}

/// The argument of a macro, blanks and quotes included.
pub(crate) fn argument(text: &str) -> String {
    format!("\"{}\"", literal(text).replace('"', "\\(dq"))
}

/// In prose a hyphen within a word is one, and may be where a line ends; before a word it is the minus of an option.
fn words(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::new();
    for c in text.chars() {
        out += &escape(c, !before.is_alphanumeric());
        before = c;
    }
    out
}

fn escape(c: char, minus: bool) -> String {
    match c {
        '\\' => "\\e".to_owned(),
        '-' if minus => "\\-".to_owned(),
        '\'' => "\\(aq".to_owned(),
        '`' => "\\(ga".to_owned(),
        '^' => "\\(ha".to_owned(),
        '~' => "\\(ti".to_owned(),
        c if c.is_ascii() => c.to_string(),
        c => format!("\\[u{:04X}]", u32::from(c)),
    }
}

fn without_links(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some((open, middle, close)) = link(&out) {
        out = format!("{}{}{}", &out[..open], &out[open + 1..middle], &out[close + 1..]);
    }
    out
}

/// Where `[`, `](` and `)` of the first link are.
fn link(text: &str) -> Option<(usize, usize, usize)> {
    let middle = text.find("](")?;
    Some((text[..middle].rfind('[')?, middle, middle + text[middle..].find(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What roff would take for its own comes out as itself.
    #[test]
    fn nothing_in_a_text_is_a_request_or_an_escape() {
        assert_eq!(
            guarded(literal(".TH of 'it' -x \\n ~/.ssh ^")),
            "\\&.TH of \\(aqit\\(aq \\-x \\en \\(ti/.ssh \\(ha"
        );
        assert_eq!(prose("'tis"), "\\(aqtis");
        assert_eq!(argument("a \"b\""), "\"a \\(dqb\\(dq\"");
        assert_eq!(literal("5 µs…"), "5 \\[u00B5]s\\[u2026]");
    }

    /// A hyphen within a word stays one, the minus of an option is one to copy.
    #[test]
    fn code_is_bold_and_its_hyphens_are_minus_signs() {
        assert_eq!(prose("read-only, see `--keys` (-wal)"), "read-only, see \\fB\\-\\-keys\\fR (\\-wal)");
        assert_eq!(prose("see [Thin links](link.md#a) and [b](c)."), "see Thin links and b.");
    }
}
