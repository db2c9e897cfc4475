//! A set of readings from a file, and how a run of it becomes columns.
//!
//! What enters: CSV, `series,timestamp_ms,value`, with a line of headings. What leaves: rows in the order of the file. A
//! series is of integers where all its values are written so, else of doubles; an empty value is one that is missing.

use std::collections::HashMap;
use varved::reading::Kind;

/// One reading.
pub(crate) struct Row {
    /// Index of its series in [`Set::names`].
    pub series: usize,
    /// UTC, in milliseconds.
    pub stamp_ms: i64,
    /// The value as it is written.
    pub text: String,
}

/// All readings of a file.
pub(crate) struct Set {
    /// By series.
    pub names: Vec<String>,
    /// By series: integer or double.
    pub kinds: Vec<Kind>,
    /// In the order of the file.
    pub rows: Vec<Row>,
}

impl Set {
    /// The readings in `file`, which is compressed where its name ends in `.zst`.
    pub(crate) fn load(file: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let bytes = std::fs::read(file)?;
        let bytes = if file.ends_with(".zst") { zstd::stream::decode_all(&bytes[..])? } else { bytes };
        let text = String::from_utf8(bytes)?;
        let mut set = Self { names: Vec::new(), kinds: Vec::new(), rows: Vec::new() };
        let mut known: HashMap<&str, usize> = HashMap::new();
        for line in text.lines().skip(1) {
            let mut cells = line.rsplitn(3, ',');
            let (Some(value), Some(stamp), Some(name)) = (cells.next(), cells.next(), cells.next()) else { continue };
            let series = *known.entry(name).or_insert_with(|| {
                set.names.push(name.to_string());
                set.kinds.push(Kind::Int);
                set.names.len() - 1
            });
            if value.parse::<i64>().is_err() && !value.is_empty() {
                set.kinds[series] = Kind::Float;
            }
            set.rows.push(Row { series, stamp_ms: stamp.parse()?, text: value.into() });
        }
        Ok(set)
    }

    /// `rows` by series, without the series that have none.
    pub(crate) fn by_series<'a>(&self, rows: &'a [Row]) -> Vec<(usize, Vec<&'a Row>)> {
        let mut of: Vec<Vec<&Row>> = vec![Vec::new(); self.names.len()];
        rows.iter().for_each(|row| of[row.series].push(row));
        of.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).collect()
    }
}

impl Row {
    /// The value; 0 where it is missing.
    pub(crate) fn int(&self) -> i64 {
        self.text.parse().unwrap_or(0)
    }

    /// The value; NaN where it is missing.
    pub(crate) fn float(&self) -> f64 {
        self.text.parse().unwrap_or(f64::NAN)
    }
}
