//! Bytes on the wire for each reading, MQTT and TLS included. `docs/wire-bytes.md` says how it is measured.
//!
//! ```text
//! cargo bench --bench wire                      # tests/data/linux_host_1hz.csv.zst, and target/wire.json
//! cargo bench --bench wire -- FILE.csv[.zst]…   # series,timestamp_ms,value, in order of arrival
//! ```

mod measure;

use measure::{Measured, Outcome, Set, Site, Way};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("wire: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if files.is_empty() {
        files.push(root.join("tests/data/linux_host_1hz.csv.zst").display().to_string());
    }
    let all = files.iter().map(|file| report(file)).collect::<Outcome<Vec<Json>>>()?;
    let path = root.join("target/wire.json");
    std::fs::write(&path, format!("{:#}\n", json!({ "version": env!("CARGO_PKG_VERSION"), "sets": all })))?;
    println!("\n{}", path.display());
    Ok(())
}

fn report(file: &str) -> Outcome<Json> {
    let set = Set::load(file)?;
    let folder = tempfile::tempdir()?;
    let site = Site::start(folder.path(), Path::new(env!("CARGO_BIN_EXE_varved-fleet")))?;
    let ways = [
        ("JSON per reading", Way::Json),
        ("JSON batches of 10 s, zstd 3", Way::JsonBatches(10)),
        ("JSON batches of 60 s, zstd 3", Way::JsonBatches(60)),
        ("line protocol batches of 10 s, zstd 3", Way::LineBatches(10)),
        ("line protocol batches of 60 s, zstd 3", Way::LineBatches(60)),
        ("varved, live, 10 s", Way::Live(10)),
        ("varved, live, 60 s", Way::Live(60)),
        ("varved, backlog", Way::Backlog),
    ];
    println!("\n{file}: {} readings of {} series", set.rows.len(), set.names.len());
    println!("{:<40}{:>9}{:>9}{:>9}{:>9}   handshake", "bytes per reading", "up", "down", "both", "×fewer");
    let (mut rows, mut dearest) = (Vec::new(), None);
    for (name, way) in ways {
        let measured = measure::measure(&site, &set, way)?;
        let both = measured.per_reading(measured.bytes.both());
        let fewer = *dearest.get_or_insert(both) / both;
        println!(
            "{name:<40}{:>9.3}{:>9.3}{both:>9.3}{fewer:>9.1}   {} + {}",
            measured.per_reading(measured.bytes.up),
            measured.per_reading(measured.bytes.down),
            measured.handshake.up,
            measured.handshake.down
        );
        rows.push(row(name, &measured, fewer));
    }
    Ok(json!({ "file": file, "readings": set.rows.len(), "series": set.names.len(), "ways": rows }))
}

fn row(name: &str, measured: &Measured, fewer: f64) -> Json {
    json!({
        "name": name, "readings": measured.readings, "times_fewer": fewer,
        "up": measured.bytes.up, "down": measured.bytes.down,
        "handshake_up": measured.handshake.up, "handshake_down": measured.handshake.down,
    })
}
