//! Series names: `measurement/field[,tag=value…]`, one text for one series.
//!
//! What enters: a measurement, a field and tags as plain texts. What leaves: the name, and back.
//!
//! ```text
//! name        = measurement "/" field *( "," key "=" value )      keys ascending by their plain bytes, each once
//! measurement : "\" before  ,  and space
//! field       : "\" before  ,  =  space  and  /      so the last "/" without "\" before the tags ends the measurement
//! key, value  : "\" before  ,  =  and space
//! ```
//!
//! That is line protocol's own escaping and one sign more: a slash inside a field. A measurement's slashes stay as they
//! are, so `hwmon/k10temp/Tctl` and `plant/line1/flow` read, and match a GLOB, as one expects.
//!
//! As in line protocol a backslash before any other sign is a backslash. So a part cannot end in one (what follows would
//! count as escaped), nor hold a control character: such a name is refused. With that, two different series never share a
//! name. Not checked: whether the texts mean anything.

use crate::reading::MAX_NAME_BYTES;

const MEASUREMENT: &[char] = &[',', ' '];
const FIELD: &[char] = &[',', '=', ' ', '/'];
const TAG: &[char] = &[',', '=', ' '];
/// What line protocol escapes in a field key.
const LINE_FIELD: &[char] = TAG;

/// A series' name in its parts, as plain texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// What is measured, or by what.
    pub measurement: String,
    /// Which value of it.
    pub field: String,
    /// Ascending by key, each key once.
    pub tags: Vec<(String, String)>,
}

/// Why there is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// A tag key twice, an empty tag key or value, or a tag without `=`.
    Tag,
    /// An empty measurement or field, a control character, a part that ends in a backslash, or more than
    /// [`MAX_NAME_BYTES`].
    Part,
}

impl Name {
    /// The name of these parts; tags in any order.
    pub fn new(measurement: &str, field: &str, tags: &[(&str, &str)]) -> Result<Self, BadName> {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { measurement: measurement.to_owned(), field: field.to_owned(), tags }.checked()
    }

    /// Reads what [`Name::to_text`] wrote.
    pub fn parse(name: &str) -> Result<Self, BadName> {
        let (head, tags) = name.split_at(find(name, &[',']).unwrap_or(name.len()));
        let slash = rfind_slash(head).ok_or(BadName::Part)?;
        let measurement = unescape(&head[..slash], MEASUREMENT);
        Self { measurement, field: unescape(&head[slash + 1..], FIELD), tags: read_tags(tags)? }.checked()
    }

    /// The name of one field of a line: `head` is `measurement[,tag=value…]`, `key` the field's key, both as they stand
    /// in the line.
    pub(super) fn from_line(head: &str, key: &str) -> Result<Self, BadName> {
        let (measurement, tags) = head.split_at(find(head, &[',']).unwrap_or(head.len()));
        let measurement = unescape(measurement, MEASUREMENT);
        Self { measurement, field: unescape(key, LINE_FIELD), tags: read_tags(tags)? }.checked()
    }

    /// The one text of this name.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(64);
        escape(&mut text, &self.measurement, MEASUREMENT);
        text.push('/');
        escape(&mut text, &self.field, FIELD);
        self.write_tags(&mut text);
        text
    }

    /// `measurement[,tag=value…] field`, as a line of line protocol begins.
    pub(super) fn write_line_head(&self, line: &mut String) {
        escape(line, &self.measurement, MEASUREMENT);
        self.write_tags(line);
        line.push(' ');
        escape(line, &self.field, LINE_FIELD);
    }

    fn write_tags(&self, text: &mut String) {
        for (key, value) in &self.tags {
            text.push(',');
            escape(text, key, TAG);
            text.push('=');
            escape(text, value, TAG);
        }
    }

    fn checked(mut self) -> Result<Self, BadName> {
        self.tags.sort_unstable();
        let twice = self.tags.windows(2).any(|pair| pair[0].0 == pair[1].0);
        if twice || self.tags.iter().any(|(key, value)| key.is_empty() || value.is_empty()) {
            return Err(BadName::Tag);
        }
        let fits = |part: &str| !part.is_empty() && !part.ends_with('\\') && !part.contains(char::is_control);
        let tags_fit = self.tags.iter().all(|(key, value)| fits(key) && fits(value));
        if !tags_fit || !fits(&self.measurement) || !fits(&self.field) || self.measurement.starts_with('#') {
            return Err(BadName::Part);
        }
        if self.to_text().len() > MAX_NAME_BYTES { Err(BadName::Part) } else { Ok(self) }
    }
}

/// A text from a driver, such as a chip's label, made fit to be a part of a name: control characters become spaces, and
/// neither spaces nor backslashes are left at the end. `None` where nothing is left.
pub(super) fn tidy(part: &str) -> Option<String> {
    let clean: String = part.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim_start().trim_end_matches(['\\', ' ']);
    let mut end = clean.len().min(128);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    let clean = clean[..end].trim_end_matches(['\\', ' ']);
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Where the first of `ends` stands that has no backslash before it.
pub(super) fn find(text: &str, ends: &[char]) -> Option<usize> {
    let bytes = text.as_bytes();
    text.match_indices(ends).map(|(at, _)| at).find(|at| *at == 0 || bytes[at - 1] != b'\\')
}

fn rfind_slash(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    text.rmatch_indices('/').map(|(at, _)| at).find(|at| *at == 0 || bytes[at - 1] != b'\\')
}

/// `,key=value,key=value…` or nothing.
fn read_tags(mut text: &str) -> Result<Vec<(String, String)>, BadName> {
    let mut tags = Vec::new();
    while let Some(rest) = text.strip_prefix(',') {
        let (tag, after) = rest.split_at(find(rest, &[',']).unwrap_or(rest.len()));
        let equals = find(tag, &['=']).ok_or(BadName::Tag)?;
        let value = &tag[equals + 1..];
        if find(value, &['=', ' ']).is_some() {
            return Err(BadName::Tag);
        }
        tags.push((unescape(&tag[..equals], TAG), unescape(value, TAG)));
        text = after;
    }
    Ok(tags)
}

fn escape(to: &mut String, part: &str, special: &[char]) {
    for sign in part.chars() {
        if special.contains(&sign) {
            to.push('\\');
        }
        to.push(sign);
    }
}

fn unescape(text: &str, special: &[char]) -> String {
    let mut part = String::with_capacity(text.len());
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        let escaped = if sign == '\\' { signs.next_if(|next| special.contains(next)) } else { None };
        part.push(escaped.unwrap_or(sign));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = String> {
        "[a-c/,= \\\\é\"#]{1,8}".prop_filter("a part does not end in a backslash", |s| !s.ends_with('\\'))
    }

    proptest! {
        /// Whatever the parts are made of, the name leads back to them; so two series never share a name.
        #[test]
        fn a_name_leads_back_to_its_parts(m in part(), f in part(), tags in proptest::collection::btree_map(part(), part(), 0..4)) {
            prop_assume!(!m.starts_with('#'));
            let tags: Vec<_> = tags.iter().rev().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let name = Name::new(&m, &f, &tags).expect("a name");
            prop_assert_eq!((&name.measurement, &name.field), (&m, &f));
            prop_assert_eq!(Name::parse(&name.to_text()), Ok(name));
        }
    }

    /// The texts that people will see and type.
    #[test]
    fn names_read_as_documented() {
        let text = |m: &str, f: &str, tags: &[(&str, &str)]| Name::new(m, f, tags).expect("a name").to_text();
        assert_eq!(text("weather", "temp", &[("station", "7")]), "weather/temp,station=7");
        assert_eq!(text("hwmon/k10temp", "Core 0", &[]), "hwmon/k10temp/Core\\ 0");
        assert_eq!(text("m", "l/min", &[("b", "2"), ("a", "x=y")]), "m/l\\/min,a=x\\=y,b=2");
        assert_eq!(Name::parse("plant/line1/flow").expect("a name").measurement, "plant/line1");
    }

    /// What has no name of its own is refused, not bent.
    #[test]
    fn bad_parts_are_refused() {
        assert_eq!(Name::new("", "f", &[]), Err(BadName::Part));
        assert_eq!(Name::new("m", "f\\", &[]), Err(BadName::Part));
        assert_eq!(Name::new("m", "f\u{7}", &[]), Err(BadName::Part));
        assert_eq!(Name::new("m", "f", &[("k", "")]), Err(BadName::Tag));
        assert_eq!(Name::new("m", "f", &[("k", "1"), ("k", "2")]), Err(BadName::Tag));
        assert_eq!(Name::new(&"m".repeat(600), "f", &[]), Err(BadName::Part));
        assert_eq!(Name::from_line("m,k", "f"), Err(BadName::Tag));
        assert_eq!(Name::from_line("m,k=a=b", "f"), Err(BadName::Tag));
        assert_eq!(Name::parse("no-slash"), Err(BadName::Part));
        assert_eq!(tidy(" Core\t0 \\"), Some("Core 0".to_owned()));
        assert_eq!(tidy("\n"), None);
    }
}
