//! Host bytes per reading at the block device. `docs/flash.md` says how it is measured and how to read it.
//!
//! ```text
//! cargo bench --bench flash                  # as root; the table, and target/flash.json
//! cargo bench --bench flash -- --quick       # a shorter one
//! cargo bench --bench flash -- --explain --only "guarded exclusive plain T=1"
//! ```

mod explain;
mod frames;
mod medium;
mod own;
mod plan;
mod rows;
mod run;
mod service;
mod subject;
mod sys;
mod table;
mod trace;
mod workload;

use medium::Medium;
use plan::{Args, Line};
use run::{Measured, Run, Unwatched};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use table::Results;

/// What went wrong is for a person to read.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Set by Ctrl-C and SIGTERM.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// An error once the user wants it to end: what is mounted is then unmounted on the way out.
pub(crate) fn interrupted() -> Outcome<()> {
    match INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        true => Err("interrupted".into()),
        false => Ok(()),
    }
}

fn main() -> ExitCode {
    match work() {
        Ok(code) => code,
        Err(why) => {
            eprintln!("flash: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Outcome<ExitCode> {
    let Some(args) = Args::read()? else {
        print!("{}", plan::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    medium::go_inside()?;
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    let lines = plan::lines(&args);
    if args.explain {
        lines.iter().try_for_each(|line| explain::explain(&args, line))?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = measure_all(&args, &lines);
    table::print(&results);
    interrupted()?;
    let service = match args.cross_check() {
        true => Some(service::cross_check(if args.quick { 60 } else { 120 })?),
        false => None,
    };
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/flash.json");
    table::save(&path, &results, service)?;
    println!("\n{}", path.display());
    Ok(if results.iter().all(|(_, m)| m.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All lines, some at a time: a run sleeps most of its time, and each has a medium of its own.
fn measure_all(args: &Args, lines: &[Line]) -> Results {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.min(lines.len()) {
            scope.spawn(|| {
                while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let measured = measure(args, line).map_err(|e| e.to_string());
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    let figure = measured.as_ref().map_or_else(Clone::clone, |m| format!("{:.2}", m.per_reading()));
                    done.push((*line, measured));
                    eprintln!("{}/{} {line}: {figure}", done.len(), lines.len());
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(line, _)| lines.iter().position(|other| other == line));
    done
}

fn measure(args: &Args, line: &Line) -> Outcome<Measured> {
    let medium = Medium::new()?;
    let mut subject = line.subject(&medium)?;
    Run::new(&medium, subject.as_mut(), line.interval_s).measure(line.extent(args), &mut Unwatched)
}
