//! Rows of fixed width: what a table of plain rows holds, without the pages around it.

use super::set::Row;

/// Two bytes of series, eight of stamp, eight of value.
pub(crate) fn plain(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 18);
    for row in rows {
        out.extend((row.series as u16).to_le_bytes());
        out.extend(row.stamp_ms.to_le_bytes());
        out.extend(row.float().to_le_bytes());
    }
    out
}
