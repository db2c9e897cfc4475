//! Bytes and nanoseconds per reading of the segment codec, beside what else is used for the same.
//!
//! ```text
//! cargo bench --bench codec                      # tests/data/linux_host_1hz.csv.zst
//! cargo bench --bench codec -- FILE.csv[.zst]…   # series,timestamp_ms,value, in order of arrival
//! ```
//!
//! What enters: readings. What leaves: a table per file, for segments of 1,000 and of 10,000 readings. Rows are cut into
//! segments in the order of the file, as a device cuts them: a cut falls anywhere in a tick. Every segment is decoded and
//! compared bit by bit before it counts. What it does not do: judge; decode the others; time
//! anything but this codec. Seconds of a shared machine say little, bytes say all.

mod columns;
mod gorilla;
mod ours;
mod rows;
mod set;
mod text;

use set::{Row, Set};

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if files.is_empty() {
        files.push(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linux_host_1hz.csv.zst").into());
    }
    for file in files {
        match Set::load(&file) {
            Ok(set) => report(&file, &set),
            Err(why) => eprintln!("{file}: {why}"),
        }
    }
}

fn report(file: &str, set: &Set) {
    println!("\n{file}: {} readings of {} series", set.rows.len(), set.names.len());
    println!("{:<48}{:>10}{:>10}", "bytes per reading; readings per segment:", 1_000, 10_000);
    let per = |n: usize, of: &dyn Fn(&[Row]) -> usize| {
        set.rows.chunks(n).map(of).sum::<usize>() as f64 / set.rows.len() as f64
    };
    let line = |what: &str, of: &dyn Fn(&[Row]) -> usize| {
        println!("{what:<48}{:>10.4}{:>10.4}", per(1_000, of), per(10_000, of));
    };
    line("varved, ids", &|rows| ours::payload(set, rows, false));
    line("varved, names inside", &|rows| ours::payload(set, rows, true));
    line("columns + zstd 3, ids", &|rows| columns::payload(set, rows, false));
    line("columns + zstd 3, names inside", &|rows| columns::payload(set, rows, true));
    line("Gorilla, names inside", &|rows| gorilla::payload(set, rows));
    line("rows (id, stamp, double)", &|rows| rows::plain(rows).len());
    line("rows, zstd 3", &|rows| zstd3(&rows::plain(rows)));
    line("JSON per reading", &|rows| text::json(set, rows).len());
    line("JSON, zstd 3", &|rows| zstd3(text::json(set, rows).as_bytes()));
    line("InfluxDB line protocol", &|rows| text::line_protocol(set, rows).len());
    line("InfluxDB line protocol, zstd 3", &|rows| zstd3(text::line_protocol(set, rows).as_bytes()));
    for (what, encoding) in [("encode, ns per reading", true), ("decode, ns per reading", false)] {
        let ns = |n| ours::time_ns(set, n, encoding);
        println!("{what:<48}{:>10.0}{:>10.0}", ns(1_000), ns(10_000));
    }
}

/// The length of `bytes` after zstd at level 3.
fn zstd3(bytes: &[u8]) -> usize {
    zstd::bulk::compress(bytes, 3).expect("compressed").len()
}
