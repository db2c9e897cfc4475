//! What is to be measured, and where: the command line.

use crate::Outcome;
use std::path::{Path, PathBuf};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Read and ingest speed of varved beside plain rows in stock SQLite; see docs/speed.md.

  cargo bench --bench speed [-- [PART…] [--quick] [--dir D]]

  PART      read, ingest, article; all of them where none is named
  --quick   fewer readings and repetitions: whether it runs, not how fast
  --dir D   where the files are made, target/tmp otherwise
  --keep    leaves them there
";

/// A table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Out of the table `reading`.
    Read,
    /// From the socket to the medium.
    Ingest,
    /// The operations that an article about SQLite on servers names.
    Article,
}

/// The command line.
pub(crate) struct Args {
    parts: Vec<Part>,
    /// Fewer readings, fewer repetitions.
    pub quick: bool,
    dir: PathBuf,
    keep: bool,
}

impl Args {
    /// `None` where help was asked for.
    pub(crate) fn read() -> Outcome<Option<Self>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        let mut args = Self { parts: Vec::new(), quick: false, dir, keep: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "read" => args.parts.push(Part::Read),
                "ingest" => args.parts.push(Part::Ingest),
                "article" => args.parts.push(Part::Article),
                "--quick" => args.quick = true,
                "--dir" => args.dir = words.next().ok_or("--dir needs a folder")?.into(),
                "--keep" => args.keep = true,
                // What cargo itself adds.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("{other:?} is none of the options; see --help").into()),
            }
        }
        Ok(Some(args))
    }

    /// Whether this part was asked for.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    /// An empty folder for files, which goes away with the value unless it is to be kept.
    pub(crate) fn folder(&self) -> Outcome<tempfile::TempDir> {
        std::fs::create_dir_all(&self.dir)?;
        Ok(tempfile::Builder::new().prefix("speed").disable_cleanup(self.keep).tempdir_in(&self.dir)?)
    }
}
