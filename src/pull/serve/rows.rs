//! Who answers the board's side: the file, or whoever alone may read it.

use crate::fault::{Exit, Fault};
use crate::store::query::{Field, Session, Sink, Stopped};
use std::convert::Infallible;

/// A store that answers a SELECT. One answer is small: at most about [`super::STEP_BYTES`] of bodies.
pub trait Rows {
    /// The rows of one statement.
    ///
    /// # Errors
    /// See [`AskError`].
    fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Got>>, AskError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskError {
    /// In words, with what to do.
    pub text: String,
    /// What the command ends with.
    pub exit: Exit,
    /// Whether a part of the file can't be read: others may be whole.
    pub damaged: bool,
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    /// NULL, or a number that has no whole value.
    Null,
    /// An integer.
    Int(i64),
    /// Text; a blob as hex, where the answer came as JSON.
    Text(String),
    /// A blob.
    Bytes(Vec<u8>),
}

impl Got {
    /// The integer that it is.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    /// The blob that it is, or stands for.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Text(hex) => from_hex(&hex),
            Self::Null | Self::Int(_) => None,
        }
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

impl Rows for Session {
    fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Got>>, AskError> {
        let mut rows = Collected(Vec::new());
        match self.run(sql, &mut rows) {
            Ok(()) => Ok(rows.0),
            Err(Stopped::Read(why)) => {
                Err(AskError { text: why.to_string(), exit: why.exit(), damaged: why.is_damage() })
            }
            Err(Stopped::Sink(never)) => match never {},
        }
    }
}

struct Collected(Vec<Vec<Got>>);

impl Sink for Collected {
    type Error = Infallible;

    fn columns(&mut self, _: &[&str]) -> Result<(), Infallible> {
        Ok(())
    }

    fn row(&mut self, fields: &[Field<'_>]) -> Result<(), Infallible> {
        let got = |field: &Field<'_>| match field {
            Field::Null | Field::Real(_) => Got::Null,
            Field::Int(value) => Got::Int(*value),
            Field::Text(text) => Got::Text(String::from_utf8_lossy(text).into_owned()),
            Field::Blob(bytes) => Got::Bytes(bytes.to_vec()),
        };
        self.0.push(fields.iter().map(got).collect());
        Ok(())
    }
}
