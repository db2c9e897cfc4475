//! What is commonly sent instead: JSON per reading, and InfluxDB's line protocol.

use super::set::{Row, Set};
use std::fmt::Write as _;
use varved::reading::Kind;

/// An object and a line for each reading.
pub(crate) fn json(set: &Set, rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let (series, stamp) = (&set.names[row.series], row.stamp_ms);
        let value = if row.text.is_empty() { "null" } else { &row.text };
        let _ = writeln!(out, r#"{{"series":"{series}","timestamp":"{stamp}","value":{value},"device":"pump-17"}}"#);
    }
    out
}

/// One line for each reading that has a value; the protocol has no other.
pub(crate) fn line_protocol(set: &Set, rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows.iter().filter(|row| !row.text.is_empty()) {
        let suffix = if set.kinds[row.series] == Kind::Int { "i" } else { "" };
        let _ = writeln!(out, "{} value={}{suffix} {}000000", set.names[row.series], row.text, row.stamp_ms);
    }
    out
}
