//! How fast readings come in and go out, beside plain rows in stock SQLite. `docs/speed.md` says what each figure means.
//!
//! ```text
//! cargo bench --bench speed                 # all of it, and target/speed.json
//! cargo bench --bench speed -- read         # one part: read, ingest or article
//! cargo bench --bench speed -- --quick      # fewer readings, fewer repetitions
//! cargo bench --bench speed -- --dir D      # the files in D, not in target/tmp
//! cargo bench --bench speed -- --keep       # … and left there
//! ```
//!
//! Both sides of every comparison run in this one process, or under its eyes, in turns: what else the machine does meets
//! both alike. What is printed is the median of the turns.

mod article;
mod ingest;
mod measure;
mod own;
mod plan;
mod read;
mod rows;
#[path = "../flash/workload.rs"]
#[allow(dead_code)]
mod workload;

use plan::{Args, Part};
use serde_json::json;
use std::process::ExitCode;

/// What went wrong is for a person to read.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("speed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Outcome<()> {
    let Some(args) = Args::read()? else {
        print!("{}", plan::HELP);
        return Ok(());
    };
    let mut parts = serde_json::Map::new();
    if args.wants(Part::Read) {
        parts.insert("read".into(), read::measure(&args)?);
    }
    if args.wants(Part::Ingest) {
        parts.insert("ingest".into(), ingest::measure(&args)?);
    }
    if args.wants(Part::Article) {
        parts.insert("article".into(), article::measure(&args)?);
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/speed.json");
    let all = json!({ "version": env!("CARGO_PKG_VERSION"), "quick": args.quick, "parts": parts });
    std::fs::write(&path, format!("{all:#}\n"))?;
    println!("\n{}", path.display());
    Ok(())
}
