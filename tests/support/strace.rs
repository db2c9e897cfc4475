//! A fault in the system calls of a living process, for as long as its value lives: strace with `-e inject=`.

use super::{Process, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracer that is attached to a process.
pub(crate) struct Fault {
    tracer: Process,
    log: PathBuf,
}

impl Fault {
    /// Answers the system calls of `pid` as `inject` says (strace(1), such as `fdatasync:error=EIO`), where they concern one of
    /// `files`. Returns when it is attached.
    pub fn inject(pid: u32, inject: &str, files: &[PathBuf], log: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o"]).arg(log).args(["-p", &pid.to_string()]);
        let calls = inject.split(':').next().unwrap();
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")]);
        for file in files {
            strace.arg("-P").arg(file);
        }
        let told = log.with_extension("told");
        let tracer = Process::start(&mut strace, &told);
        wait_for("strace to attach (tests/run installs it)", 20, || {
            std::fs::read_to_string(&told).ok().filter(|text| text.contains("attached"))
        });
        Self { tracer, log: log.to_owned() }
    }

    /// How many calls were answered with a fault so far.
    pub fn fired(&self) -> usize {
        fired(&self.log)
    }

    /// Ends it; the process goes on undisturbed. How often it fired.
    pub fn heal(self) -> usize {
        self.tracer.stop();
        fired(&self.log)
    }
}

/// The faults that a log of strace tells of.
pub(crate) fn fired(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().matches("(INJECTED)").count()
}
