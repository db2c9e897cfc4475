//! Reading one table of the file by the table of keys.
//!
//! What enters: parsed TOML with its positions. What leaves: typed values within their ranges, or an error that names file,
//! line and key, says what is allowed and gives an example. Unknown keys are errors, with the nearest known one. What keys
//! mean together is not judged here.

use super::ConfigError;
use super::keys::{self, Fallback, Form, Key};
use super::units::{parse_duration, parse_size};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text that is being read, for positions.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// An error at a byte of the text.
    pub(super) fn error(&self, at: usize, key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        let line = 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        ConfigError::Wrong { file: self.file.to_owned(), line, key: key.into(), problem: problem.into() }
    }
}

/// One table: `[store]`, or one of `[[sensor]]`, or the top of the file.
pub(super) struct Section<'a> {
    source: Source<'a>,
    name: &'static str,
    kind: &'static str,
    table: Option<&'a DeTable<'a>>,
    at: usize,
}

impl<'a> Section<'a> {
    /// The section of this name. One that is not in the file has its defaults.
    pub(super) fn of(source: Source<'a>, top: &'a DeTable<'a>, name: &'static str) -> Result<Self, ConfigError> {
        let found = top.get(name);
        let table = match found.map(|value| (value, value.get_ref().as_table())) {
            None => None,
            Some((_, Some(table))) => Some(table),
            Some((value, None)) => {
                return Err(source.error(value.span().start, name, format!("is not a table; write [{name}]")));
            }
        };
        let at = found.map_or(0, |value| value.span().start);
        let section = Self { source, name, kind: "", table, at };
        section.refuse_unknown()?;
        Ok(section)
    }

    /// The top of the file, whose keys may also be the names of `sections`.
    pub(super) fn top(
        source: Source<'a>,
        top: &'a DeTable<'a>,
        sections: &[&'static str],
    ) -> Result<Self, ConfigError> {
        let section = Self { source, name: "", kind: "", table: Some(top), at: 0 };
        section.refuse_unknown_beside(sections)?;
        Ok(section)
    }

    /// Each `[[name]]`, with the kind that its key `kind` says.
    pub(super) fn array(
        source: Source<'a>,
        top: &'a DeTable<'a>,
        name: &'static str,
    ) -> Result<Vec<Self>, ConfigError> {
        let Some(found) = top.get(name) else { return Ok(Vec::new()) };
        let wrong =
            |at| source.error(at, name, format!("is not a list of tables; write [[{name}]] with double brackets"));
        let array = found.get_ref().as_array().ok_or_else(|| wrong(found.span().start))?;
        let mut sections = Vec::with_capacity(array.len());
        for element in array {
            let at = element.span().start;
            let table = element.get_ref().as_table().ok_or_else(|| wrong(at))?;
            let mut section = Self { source, name, kind: "", table: Some(table), at };
            section.kind = section.word("kind")?;
            section.refuse_unknown()?;
            sections.push(section);
        }
        Ok(sections)
    }

    /// Whether the file has it.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has this key of it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.written(name).is_some()
    }

    /// The kind of a `[[sensor]]`.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// An error at a key, or at the section where the key is not written.
    pub(super) fn error(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        let at = self.written(name).map_or(self.at, |value| value.span().start);
        self.source.error(at, self.path(name), problem)
    }

    pub(super) fn duration(&self, name: &'static str) -> Result<Duration, ConfigError> {
        Ok(self.duration_or_off(name)?.unwrap_or(Duration::ZERO))
    }

    /// `None` for `"off"`.
    pub(super) fn duration_or_off(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let key = self.key(name);
        let text = self.string(key)?.unwrap_or_default();
        let Form::Duration { min_ms, max_ms, off } = key.form else { unreachable!("{name} is no duration") };
        if off && text == "off" {
            return Ok(None);
        }
        let duration = parse_duration(&text).ok_or_else(|| self.wrong(key, &text, "is not a duration"))?;
        let range = Duration::from_millis(min_ms)..=Duration::from_millis(max_ms);
        if !range.contains(&duration) {
            return Err(self.outside(key, &text));
        }
        Ok(Some(duration))
    }

    /// Bytes.
    pub(super) fn size(&self, name: &'static str) -> Result<u64, ConfigError> {
        let key = self.key(name);
        // A bare number is bytes, and nothing is gained by insisting on quotes around it.
        let text = match self.written(name).map(Spanned::get_ref) {
            Some(DeValue::Integer(number)) if number.radix() == 10 => number.as_str().replace('_', ""),
            _ => self.string(key)?.unwrap_or_default(),
        };
        let Form::Size { min_bytes, max_bytes } = key.form else { unreachable!("{name} is no size") };
        let bytes = parse_size(&text).ok_or_else(|| self.wrong(key, &text, "is not a size"))?;
        if !(min_bytes..=max_bytes).contains(&bytes) {
            return Err(self.outside(key, &text));
        }
        Ok(bytes)
    }

    pub(super) fn count(&self, name: &'static str) -> Result<u32, ConfigError> {
        let key = self.key(name);
        let text = match (self.written(name).map(Spanned::get_ref), key.default) {
            (Some(DeValue::Integer(number)), _) if number.radix() == 10 => number.as_str().replace('_', ""),
            (None, Fallback::Value(text)) => text.to_owned(),
            (Some(value), _) => return Err(self.wrong(key, &shown(value), "is not a whole number")),
            (None, _) => return Err(self.missing(key)),
        };
        let Form::Count { min, max } = key.form else { unreachable!("{name} is no count") };
        let in_range = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        in_range.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| self.outside(key, &text))
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        let key = self.key(name);
        match (self.written(name).map(Spanned::get_ref), key.default) {
            (Some(DeValue::Boolean(flag)), _) => Ok(*flag),
            (None, Fallback::Value(text)) => Ok(text == "true"),
            (Some(value), _) => Err(self.wrong(key, &shown(value), "is neither true nor false")),
            (None, _) => Err(self.missing(key)),
        }
    }

    /// One of the key's words.
    pub(super) fn word(&self, name: &'static str) -> Result<&'static str, ConfigError> {
        let key = self.key(name);
        let text = self.string(key)?.unwrap_or_default();
        let Form::Word(words) = key.form else { unreachable!("{name} has no words") };
        words.iter().find(|word| **word == text).copied().ok_or_else(|| {
            let meant = nearest(&text, words.iter().copied()).map(|word| format!("; did you mean \"{word}\"?"));
            self.error(name, format!("{text:?} is not {}{}", key.form.allowed(), meant.unwrap_or_default()))
        })
    }

    /// The text, or `None` where it is not written and has no default.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        self.string(self.key(name))
    }

    /// A text that must be there or has a default, through `parse`, whose error is put after file, line and key.
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.parsed_if_written(name, parse)?.ok_or_else(|| self.missing(self.key(name)))
    }

    /// A text through `parse`, or `None` where it is not written and has no default.
    pub(super) fn parsed_if_written<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.text(name)?.map(|text| parse(&text).map_err(|problem| self.error(name, problem))).transpose()
    }

    /// A list of texts; empty where it is not written and has no default.
    pub(super) fn list(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        let key = self.key(name);
        let Some(value) = self.written(name) else {
            return match key.default {
                Fallback::Required => Err(self.missing(key)),
                Fallback::Value(text) => Ok(text.split('"').skip(1).step_by(2).map(str::to_owned).collect()),
                Fallback::Absent(_) => Ok(Vec::new()),
            };
        };
        let texts = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|element| element.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| self.wrong(key, &shown(value.get_ref()), "is not a list of texts"))
    }

    fn key(&self, name: &'static str) -> &'static Key {
        keys::find(self.name, self.kind, name)
            .or_else(|| keys::find(self.name, "", name))
            .unwrap_or_else(|| unreachable!("the key {name} is read and not in the table of keys"))
    }

    fn written(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    fn path(&self, name: &str) -> String {
        if self.name.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name) }
    }

    fn string(&self, key: &Key) -> Result<Option<String>, ConfigError> {
        match (self.written(key.name).map(Spanned::get_ref), key.default) {
            (Some(DeValue::String(text)), _) => Ok(Some(text.to_string())),
            (Some(value), _) => Err(self.wrong(key, &shown(value), "is not in quotes")),
            (None, Fallback::Value(text)) => Ok(Some(text.to_owned())),
            (None, Fallback::Absent(_)) => Ok(None),
            (None, Fallback::Required) => Err(self.missing(key)),
        }
    }

    fn wrong(&self, key: &Key, text: &str, what: &str) -> ConfigError {
        self.error(key.name, format!("{text:?} {what}; {}", key.form.advice()))
    }

    fn outside(&self, key: &Key, text: &str) -> ConfigError {
        self.error(key.name, format!("{text:?} is out of range: allowed is {}", key.form.allowed()))
    }

    fn missing(&self, key: &Key) -> ConfigError {
        self.error(key.name, format!("is missing: it is {}; {}", key.form.allowed(), key.form.advice()))
    }

    fn refuse_unknown(&self) -> Result<(), ConfigError> {
        self.refuse_unknown_beside(&[])
    }

    fn refuse_unknown_beside(&self, sections: &[&'static str]) -> Result<(), ConfigError> {
        let known = || keys::of(self.name, self.kind).map(|key| key.name).chain(sections.iter().copied());
        // The file's first one is named, not the alphabet's.
        let unknown = self.table.into_iter().flat_map(|table| table.keys());
        let unknown = unknown.filter(|name| !known().any(|known| known == name.get_ref().as_ref()));
        let Some(first) = unknown.min_by_key(|name| name.span().start) else { return Ok(()) };
        let name: &str = first.get_ref();
        let elsewhere = keys::KEYS.iter().find(|key| key.section == self.name && key.name == name);
        let advice = match (elsewhere, nearest(name, known())) {
            (Some(key), _) => format!("only of kind {}", key.kinds.join(", ")),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("known here are {}", known().collect::<Vec<_>>().join(", ")),
        };
        Err(self.source.error(first.span().start, self.path(name), format!("is not a known key; {advice}")))
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::String(text) => text.to_string(),
        other => format!("this {}", other.type_str()),
    }
}

/// The word nearest to `text`, if one is so near that a slip of the fingers explains it: a third of its letters.
pub(crate) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = words.map(|word| (distance(text, word), word)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// Levenshtein's distance, by the row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip is put right; a word of another language is not guessed at.
    #[test]
    fn only_a_near_word_is_suggested() {
        let words = ["commit_interval", "cache", "mmap"];
        assert_eq!(nearest("comit_intervall", words.into_iter()), Some("commit_interval"));
        assert_eq!(nearest("mmpa", words.into_iter()), Some("mmap"));
        assert_eq!(nearest("retention", words.into_iter()), None);
        assert_eq!((distance("abc", "abc"), distance("", "abc"), distance("abc", "acb")), (0, 3, 2));
    }
}
