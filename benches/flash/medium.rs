//! The medium: ext4 on a loop device over a file in a tmpfs of its own, and what the block device has counted.
//!
//! The loop device counts what the file system sends it, to the byte. This program runs in a mount namespace of its own
//! ([`go_inside`]), and the loop device detaches itself with its last mount, so nothing is left behind however it ends.

use crate::{Outcome, sys};
use rustix::fs::syncfs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Below 512 MB mkfs would choose other parameters. The file is sparse: what is never written takes no memory.
const IMAGE_BYTES: u64 = 640 << 20;

/// Said to the program that runs in the namespace.
const INSIDE: &str = "VARVED_FLASH_INSIDE";

/// What a block device has done since it was made (`Documentation/block/stat.rst` of the kernel, fields 5, 7 and 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Write requests completed.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Flush requests completed.
    pub flushes: u64,
}

impl std::ops::Sub for Counters {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            bytes: self.bytes - before.bytes,
            flushes: self.flushes - before.flushes,
        }
    }
}

/// A mounted file system with nothing on it.
pub(crate) struct Medium {
    dir: PathBuf,
    tmpfs: PathBuf,
    device: String,
    root: tempfile::TempDir,
}

impl Medium {
    /// Makes and mounts one.
    pub(crate) fn new() -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        let (tmpfs, dir) = (root.path().join("ram"), root.path().join("disk"));
        std::fs::create_dir(&tmpfs)?;
        std::fs::create_dir(&dir)?;
        tool("mount", &["-t", "tmpfs", "-o", "size=700m", "tmpfs", text(&tmpfs)?])?;
        // From here on, dropping it unmounts.
        let mut medium = Self { dir, tmpfs, device: String::new(), root };
        let image = medium.tmpfs.join("image");
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        tool("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", now, text(&image)?])?;
        tool("mount", &["-o", "loop,noatime,commit=300", text(&image)?, text(&medium.dir)?])?;
        let dev = std::fs::metadata(&medium.dir)?.dev();
        medium.device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        medium.commit_journal()?;
        Ok(medium)
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory beside it, for what is not to be counted.
    pub(crate) fn outside(&self) -> &Path {
        self.root.path()
    }

    /// `major:minor` of the loop device.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// What was written so far.
    pub(crate) fn counters(&self) -> Outcome<Counters> {
        let path = format!("/sys/dev/block/{}/stat", self.device);
        let text = std::fs::read_to_string(&path)?;
        let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        match fields[..] {
            [_, _, _, _, writes, _, sectors, _, _, _, _, _, _, _, _, flushes, ..] => {
                Ok(Counters { writes, bytes: sectors * 512, flushes })
            }
            _ => Err(format!("{path} has {} fields; a kernel from 5.5 on has 17", fields.len()).into()),
        }
    }

    /// What the kernel does by itself with pages that have been dirty for 30 s: writes them, without metadata or flush.
    pub(crate) fn write_back(&self) -> Outcome<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                sys::write_back(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What `commit=300` does every 300 s: commits the journal; and writes everything that is still dirty.
    pub(crate) fn commit_journal(&self) -> Outcome<()> {
        Ok(syncfs(File::open(&self.dir)?)?)
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        for dir in [&self.dir, &self.tmpfs] {
            // What was never mounted is none of ours to complain about.
            let _ = Command::new("umount").arg("-q").arg(dir).output();
        }
    }
}

/// Goes on in a mount namespace of this program's own: once, this program is begun anew in there, in the same process.
/// Not root: an error that says so.
pub(crate) fn go_inside() -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting a loop device takes root: run it as root (sudo -E cargo bench --bench flash)".into());
    }
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let failed = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(format!("unshare: {failed}; install util-linux").into())
}

/// Runs a tool to its end; its output.
pub(crate) fn tool(name: &str, args: &[&str]) -> Outcome<String> {
    let done = Command::new(name).args(args).output().map_err(|e| format!("{name}: {e}; install it"))?;
    if !done.status.success() {
        return Err(format!("{name} {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// `path` as an argument.
pub(crate) fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}
