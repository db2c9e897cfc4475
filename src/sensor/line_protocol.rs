//! InfluxDB line protocol, read and written: <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>.
//!
//! ```text
//! measurement[,tag=value…] field=value[,field=value…] [stamp]
//! ```
//!
//! What enters: one line without its newline. What leaves: its fields, borrowed from the line, and its stamp in
//! nanoseconds of UTC; or the reason why the whole line is refused. It never takes half a line.
//!
//! Decisions, where the specification leaves room:
//! - `NaN` and `Inf` are floats. A decimal that overflows to infinity is refused.
//! - An unsigned integer above `i64::MAX` is refused, as is a stamp outside `i64` nanoseconds (years 1677 to 2262).
//! - A newline inside a string ends the line, as the specification says; so one stray quote costs one line, not the stream.
//! - A carriage return at the end of the line is taken off. Comments (`#`) and blank lines are no lines.
//! - The same field twice in a line: both are kept, in their order.
//!
//! What it does not do: look at tags (that is [`super::name`]'s, once per series), split streams
//! (`stream::LineBuffer`), or know series ([`super::ingest`]).

mod number;

use super::name::{BadName, Name};
use crate::clock::UtcNanos;
use crate::reading::{Kind, MAX_TEXT_BYTES, Scale, SeriesDef, Value};
use number::read_bare;
pub(super) use number::{read_short_number, read_usual_stamp};
use std::fmt::Write as _;
use std::ops::Range;

/// Why a line was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not UTF-8.
    Encoding,
    /// Not of the form `measurement[,tag=value…] field=value… [stamp]`.
    Syntax,
    /// A tag twice, an empty tag or a tag without `=`.
    Tag,
    /// A measurement, field or tag that is empty, holds control characters or ends in a backslash, or a name that gets
    /// too long ([`crate::reading::MAX_NAME_BYTES`]).
    Name,
    /// A value that is neither number, boolean nor string, or a number that does not fit.
    Number,
    /// A text above [`MAX_TEXT_BYTES`].
    Text,
    /// A stamp outside 64-bit nanoseconds.
    Stamp,
    /// A line longer than [`super::stream::MAX_LINE_BYTES`], or a datagram longer than that.
    TooLong,
    /// A stream ended before the line did. What is there may be the front half of a number, so it is not taken.
    Unfinished,
    /// `max_series` series are known already and this would be one more. Counted for each field; known fields of the
    /// same line are taken.
    SeriesFull,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Encoding,
        Self::Syntax,
        Self::Tag,
        Self::Name,
        Self::Number,
        Self::Text,
        Self::Stamp,
        Self::TooLong,
        Self::Unfinished,
        Self::SeriesFull,
    ];

    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Syntax => "syntax",
            Self::Tag => "tag",
            Self::Name => "name",
            Self::Number => "number",
            Self::Text => "text",
            Self::Stamp => "stamp",
            Self::TooLong => "too-long",
            Self::Unfinished => "unfinished",
            Self::SeriesFull => "series-full",
        }
    }
}

impl From<BadName> for Refusal {
    fn from(bad: BadName) -> Self {
        match bad {
            BadName::Tag => Self::Tag,
            BadName::Part => Self::Name,
        }
    }
}

/// One field of a line, its texts as ranges of the line.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key as it stands there, escapes included.
    pub key: Range<usize>,
    /// The value.
    pub value: FieldValue,
}

/// A value in a line.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// `12i`, `12u`
    Int(i64),
    /// `12`, `1.2e1`, `NaN`
    Float(f64),
    /// `t`, `False`…
    Bool(bool),
    /// What stands between the quotes, escapes included.
    Text(Range<usize>),
}

impl FieldValue {
    /// What series it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
        }
    }

    /// The value itself, where it is a number or a truth.
    pub fn number(&self) -> Option<Value> {
        match self {
            Self::Int(i) => Some(Value::Int(*i)),
            Self::Float(f) => Some(Value::Float(*f)),
            Self::Bool(b) => Some(Value::Bool(*b)),
            Self::Text(_) => None,
        }
    }

    /// The value itself; `line` is the line it was read from.
    pub fn value(&self, line: &str) -> Value {
        match self {
            Self::Text(range) => Value::Text(unquote(&line[range.clone()])),
            Self::Int(i) => Value::Int(*i),
            Self::Float(f) => Value::Float(*f),
            Self::Bool(b) => Value::Bool(*b),
        }
    }
}

/// What [`parse`] leaves beside the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line as text; the ranges of the fields are of this.
    pub text: &'a str,
    /// `measurement[,tag=value…]`, escapes included, not looked into.
    pub head: Range<usize>,
    /// The stamp, where the line brings one.
    pub stamp: Option<UtcNanos>,
}

/// Reads one line. Its fields are left in `fields`, whatever was there before; after an error they mean nothing.
/// `None` is a comment or a blank line.
pub fn parse<'a>(line: &'a [u8], fields: &mut Vec<Field>) -> Result<Option<Line<'a>>, Refusal> {
    fields.clear();
    let text = std::str::from_utf8(line).map_err(|_| Refusal::Encoding)?;
    let blanks = line.iter().rev().take_while(|b| matches!(b, b'\r' | b' ' | b'\t')).count();
    let bytes = &line[..line.len() - blanks];
    let start = bytes.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(bytes.len());
    if matches!(bytes.get(start), None | Some(b'#')) {
        return Ok(None);
    }
    let head = start..head_end(bytes, start)?;
    let after = read_fields(bytes, skip_blanks(bytes, head.end), fields)?;
    let stamp = read_stamp(&text[after..bytes.len()])?;
    Ok(Some(Line { text, head, stamp }))
}

/// Appends `def`'s reading as one line with its newline. False, and nothing appended, where the reading has no value:
/// line protocol has no word for that. The stamp is written in nanoseconds. A raw integer with a scale is written as
/// the decimal it stands for; a newline in a text becomes `\n`.
///
/// # Errors
/// The series' name is not of the form of [`Name`].
pub fn write_line(out: &mut String, def: &SeriesDef, value: &Value, at: UtcNanos) -> Result<bool, BadName> {
    let name = Name::parse(&def.name)?;
    if let Value::None(_) = value {
        return Ok(false);
    }
    name.write_line_head(out);
    out.push('=');
    // Writing to a String does not fail.
    let _ = match value {
        Value::Int(raw) if def.scale == Scale::ONE => write!(out, "{raw}i"),
        Value::Int(raw) => write!(out, "{}", def.scale.apply(*raw)),
        Value::Float(f) => write!(out, "{f}"),
        Value::Bool(b) => write!(out, "{b}"),
        Value::Text(text) => write!(out, "\"{}\"", quote(text)),
        Value::None(_) => Ok(()),
    };
    let _ = writeln!(out, " {}", at.0);
    Ok(true)
}

fn head_end(bytes: &[u8], start: usize) -> Result<usize, Refusal> {
    let end = find(bytes, start, |b| b == b' ').ok_or(Refusal::Syntax)?;
    if bytes[start] == b',' { Err(Refusal::Name) } else { Ok(end) }
}

/// Reads `key=value,key=value…` up to the blank after it or the end, and returns where that is.
fn read_fields(bytes: &[u8], mut at: usize, fields: &mut Vec<Field>) -> Result<usize, Refusal> {
    loop {
        let equals = find(bytes, at, |b| matches!(b, b'=' | b',' | b' ')).ok_or(Refusal::Syntax)?;
        if equals == at || bytes[equals] != b'=' {
            return Err(Refusal::Syntax);
        }
        let (value, end) = read_value(bytes, equals + 1)?;
        fields.push(Field { key: at..equals, value });
        match bytes.get(end) {
            Some(b',') => at = end + 1,
            Some(b' ') => return Ok(skip_blanks(bytes, end)),
            None => return Ok(end),
            Some(_) => return Err(Refusal::Syntax),
        }
    }
}

fn read_value(bytes: &[u8], at: usize) -> Result<(FieldValue, usize), Refusal> {
    if bytes.get(at) == Some(&b'"') {
        let end = string_end(bytes, at + 1)?;
        return if end - at - 1 > MAX_TEXT_BYTES {
            Err(Refusal::Text)
        } else {
            Ok((FieldValue::Text(at + 1..end), end + 1))
        };
    }
    if let Some(number) = read_short_number(bytes, at) {
        return Ok(number);
    }
    let length = bytes[at..].iter().position(|b| matches!(b, b',' | b' ')).unwrap_or(bytes.len() - at);
    Ok((read_bare(&bytes[at..at + length])?, at + length))
}

fn string_end(bytes: &[u8], mut at: usize) -> Result<usize, Refusal> {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Refusal::Syntax),
        }
    }
}

fn read_stamp(text: &str) -> Result<Option<UtcNanos>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(nanos) = read_usual_stamp(text.as_bytes()) {
        return Ok(Some(nanos));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    text.parse().map(|nanos| Some(UtcNanos(nanos))).map_err(|_| Refusal::Stamp)
}

/// The first byte from `at` on that `ends` names and that has no backslash before it.
#[inline]
fn find(bytes: &[u8], at: usize, ends: impl Fn(u8) -> bool) -> Option<usize> {
    let mut before = 0;
    for (i, byte) in bytes.get(at..)?.iter().enumerate() {
        if ends(*byte) && before != b'\\' {
            return Some(at + i);
        }
        before = *byte;
    }
    None
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|b| **b == b' ').count()
}

/// `\"` and `\\` are one sign each; before anything else a backslash is itself.
fn unquote(quoted: &str) -> Box<str> {
    if !quoted.contains('\\') {
        return quoted.into();
    }
    let mut text = String::with_capacity(quoted.len());
    let mut signs = quoted.chars().peekable();
    while let Some(sign) = signs.next() {
        let escaped = if sign == '\\' { signs.next_if(|next| matches!(next, '"' | '\\')) } else { None };
        text.push(escaped.unwrap_or(sign));
    }
    text.into_boxed_str()
}

fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (String, Vec<(String, Value)>, Option<i64>);

    fn read(line: &str) -> Result<Option<Parts>, Refusal> {
        let mut fields = Vec::new();
        let line = parse(line.as_bytes(), &mut fields)?;
        Ok(line.map(|line| {
            let all = fields.iter().map(|f| (line.text[f.key.clone()].to_owned(), f.value.value(line.text))).collect();
            (line.text[line.head.clone()].to_owned(), all, line.stamp.map(|s| s.0))
        }))
    }

    fn one(value: &str) -> Result<Value, Refusal> {
        read(&format!("m f={value}")).map(|line| line.expect("a line").1.remove(0).1)
    }

    /// The whole form at once: tags, every type, escapes, a stamp.
    #[test]
    fn a_full_line_gives_every_field_and_its_stamp() {
        let line = "we\\ ather,st=7,k\\,ey=v\\=1 a=1i,b\\ c=2.5,d=t,e=\"x, y=\\\"z\\\" \\\\ \\q\" -5\r";
        let (head, fields, stamp) = read(line).expect("a good line").expect("a line");
        assert_eq!(head, "we\\ ather,st=7,k\\,ey=v\\=1");
        assert_eq!(stamp, Some(-5));
        let expected = [
            ("a".to_owned(), Value::Int(1)),
            ("b\\ c".to_owned(), Value::Float(2.5)),
            ("d".to_owned(), Value::Bool(true)),
            ("e".to_owned(), Value::Text("x, y=\"z\" \\ \\q".into())),
        ];
        assert_eq!(fields, expected);
    }

    /// Each way to write a value, and each way to get it wrong.
    #[test]
    fn values_are_read_as_the_specification_says() {
        for (text, value) in [
            ("0", Value::Float(0.0)),
            ("-1.5e-3", Value::Float(-0.0015)),
            ("1.", Value::Float(1.0)),
            (".5", Value::Float(0.5)),
            ("-9223372036854775808i", Value::Int(i64::MIN)),
            ("9223372036854775807u", Value::Int(i64::MAX)),
            ("False", Value::Bool(false)),
            ("T", Value::Bool(true)),
            ("\"\"", Value::Text("".into())),
            ("Inf", Value::Float(f64::INFINITY)),
            ("-inf", Value::Float(f64::NEG_INFINITY)),
        ] {
            assert_eq!(one(text), Ok(value), "{text}");
        }
        assert!(matches!(one("NaN"), Ok(Value::Float(f)) if f.is_nan()));
        for bad in ["9223372036854775808i", "9223372036854775808u", "-1u", "i", "1.5i", "tru", "1e999", "0x10", "1_000"]
        {
            assert_eq!(one(bad), Err(Refusal::Number), "{bad}");
        }
        assert_eq!(one(&format!("\"{}\"", "x".repeat(MAX_TEXT_BYTES + 1))), Err(Refusal::Text));
    }

    /// A zero keeps its sign.
    #[test]
    fn a_negative_zero_is_one() {
        assert!(matches!(one("-0"), Ok(Value::Float(zero)) if zero == 0.0 && zero.is_sign_negative()));
    }

    /// Lines that are no lines of line protocol are refused as a whole, each for its own reason.
    #[test]
    fn malformed_lines_are_refused_as_a_whole() {
        for bad in [
            "m",
            "m ",
            "m f",
            "m f=",
            "m =1",
            "m f=1,",
            "m f=1,,g=2",
            "m f=\"x",
            "m f=\"x\"y",
            "m f=1 x",
            "m f=1 1 2",
            "m f,g=1",
        ] {
            assert_eq!(read(bad), Err(Refusal::Syntax), "{bad}");
        }
        assert_eq!(read(",a=b f=1"), Err(Refusal::Name));
        assert_eq!(parse(b"m f=\"\xff\"", &mut Vec::new()), Err(Refusal::Encoding));
        for blank in ["", " ", "\r", "# m f=1", "  # x", "\t"] {
            assert_eq!(read(blank), Ok(None), "{blank:?}");
        }
    }

    /// 1970 and 1677 are stamps; the year 2500 does not fit and is not bent into one that does.
    #[test]
    fn stamps_outside_64_bits_are_refused() {
        let stamp = |text: &str| read(&format!("m f=1  {text}")).map(|line| line.expect("a line").2);
        assert_eq!(stamp("0"), Ok(Some(0)));
        assert_eq!(stamp("-9223372036854775808"), Ok(Some(i64::MIN)));
        assert_eq!(stamp("16725225600000000000"), Err(Refusal::Stamp));
        assert_eq!(stamp("1e9"), Err(Refusal::Syntax));
        assert_eq!(stamp(""), Ok(None));
    }

    fn value() -> impl Strategy<Value = (Value, Scale)> {
        prop_oneof![
            any::<i64>().prop_map(|i| (Value::Int(i), Scale::ONE)),
            any::<f64>()
                .prop_filter("NaN is not equal to itself", |f| !f.is_nan())
                .prop_map(|f| (Value::Float(f), Scale::ONE)),
            any::<bool>().prop_map(|b| (Value::Bool(b), Scale::ONE)),
            "[^\\n]{0,20}".prop_map(|t| (Value::Text(t.into()), Scale::ONE)),
        ]
    }

    proptest! {
        /// Bytes of any kind are read or refused; they never stop the reader.
        #[test]
        fn no_bytes_stop_the_reader(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line, &mut Vec::new());
        }

        /// The same with bytes that look more like lines.
        #[test]
        fn no_near_lines_stop_the_reader(line in "[m,= \\\\\"tfi1é.#-]{0,40}") {
            let _ = read(&line);
        }

        /// What export writes, ingest reads: same series, same value, same stamp.
        #[test]
        fn a_written_line_reads_back_as_the_same_reading(
            m in "[a/,= \\\\é]{0,5}[a-z]",
            f in "[a/,= \\\\é\"]{0,5}[a-z]",
            tags in proptest::collection::btree_map("[a/,= \\\\]{0,3}[a-z]", "[a/,= \\\\]{0,3}[a-z]", 0..3),
            (value, scale) in value(),
            at in any::<i64>(),
        ) {
            let tags: Vec<_> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let name = Name::new(&m, &f, &tags);
            // A line can't begin with a blank: such a measurement is written with its escape, like any other.
            prop_assume!(name.is_ok());
            let name = name.expect("checked above").to_text();
            let kind = value.kind().expect("a value");
            let def = SeriesDef { name: name.clone(), unit: String::new(), kind, scale };
            let mut text = String::new();
            prop_assert_eq!(write_line(&mut text, &def, &value, UtcNanos(at)), Ok(true));
            let mut fields = Vec::new();
            let line = parse(text.strip_suffix('\n').expect("a newline").as_bytes(), &mut fields).expect("a good line").expect("a line");
            prop_assert_eq!(fields.len(), 1);
            let again = Name::from_line(&line.text[line.head.clone()], &line.text[fields[0].key.clone()]).expect("a name");
            prop_assert_eq!(again.to_text(), name);
            prop_assert_eq!(fields[0].value.value(line.text), value);
            prop_assert_eq!(line.stamp, Some(UtcNanos(at)));
        }
    }

    /// A raw count is written as the decimal that it stands for, and a reading without a value not at all.
    #[test]
    fn scaled_integers_are_written_as_decimals() {
        let def =
            SeriesDef { name: "hwmon/cpu/temp1".into(), unit: "Cel".into(), kind: Kind::Int, scale: Scale::MILLI };
        let mut text = String::new();
        write_line(&mut text, &def, &Value::Int(23_437), UtcNanos(7)).expect("a line");
        let none = write_line(&mut text, &def, &Value::None(crate::reading::NoValue::Failed), UtcNanos(8));
        assert_eq!((text.as_str(), none), ("hwmon/cpu temp1=23.437 7\n", Ok(false)));
    }
}
