//! Reads replicas back, row by row and reading by reading, for the stories of the receiver.

use crate::reading::SeqRange;
use crate::segment::{Content, Values, decode};
use rusqlite::Connection;
use std::path::Path;

/// A reading as it lies in a replica: variant, series name, stamp, value.
pub(in crate::fleet) type Row = (u32, String, i64, i64);

/// Every reading of integer series in the replica at `path`, sorted.
pub(in crate::fleet) fn readings(path: &Path) -> Vec<Row> {
    let conn = Connection::open(path).expect("a replica");
    let mut rows = Vec::new();
    for (store, variant, _, body) in bodies(&conn) {
        let Content::Data { readings, .. } = decode(&body).expect("a segment").content else { continue };
        for column in &readings.columns {
            let name: String = conn
                .query_row("SELECT name FROM series WHERE store = ?1 AND id = ?2", (store, column.series.0), |r| {
                    r.get(0)
                })
                .expect("every series that is cited is known");
            let Values::Int(values) = &column.values else { panic!("integers") };
            let stamps = &readings.timelines[column.timeline].stamps;
            rows.extend(stamps.iter().zip(values).map(|(stamp, value)| (variant, name.clone(), *stamp, *value)));
        }
    }
    rows.sort();
    rows
}

/// Variant and range of every segment that is a loss, or of every one that is none.
pub(in crate::fleet) fn segments(path: &Path, losses: bool) -> Vec<(u32, SeqRange)> {
    let conn = Connection::open(path).expect("a replica");
    let is_loss = |body: &[u8]| matches!(decode(body).expect("a segment").content, Content::Loss(_));
    bodies(&conn)
        .into_iter()
        .filter(|(_, _, _, body)| is_loss(body) == losses)
        .map(|(_, variant, range, _)| (variant, range))
        .collect()
}

/// One number out of a replica.
pub(in crate::fleet) fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).expect("a replica").query_row(sql, [], |row| row.get(0)).expect(sql)
}

fn bodies(conn: &Connection) -> Vec<(i64, u32, SeqRange, Vec<u8>)> {
    let sql = "SELECT store.id, variant, first_seq, last_seq, body FROM segment JOIN store ON store.id = segment.store \
               ORDER BY segment.id";
    let mut select = conn.prepare(sql).expect("prepared");
    let rows = select.query_map([], |row| {
        let range = SeqRange::new(row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64).expect("a range");
        Ok((row.get(0)?, row.get(1)?, range, row.get(4)?))
    });
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}
