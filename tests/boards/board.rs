//! The machine: its disk, its power, its console.

use crate::support::*;
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file system's bytes; behind it lies the sector of the marks.
pub const DISK_BYTES: u64 = 24 << 20;
/// Where the marks are written, in sectors of 512 bytes.
pub const MARK_SECTOR: u64 = DISK_BYTES / 512;
/// The address of this machine as the board sees it: what it sends there arrives on loopback.
pub const HERE: &str = "10.0.2.2";
/// Its network card, which is also what the store knows the machine by.
pub const CARD: &str = "52:54:00:76:61:72";

/// A board, while it has power.
pub struct Board {
    process: Process,
    console: PathBuf,
    monitor: PathBuf,
    /// Where a connection on loopback arrives at the board's port 2222.
    pub pull_port: u16,
}

/// What `tests/boards/run` has prepared, and which board it is.
fn prepared(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start this by tests/boards/run"))
}

/// Makes a disk with a file system, and on it the stories and what is in `files`.
pub fn disk(image: &Path, files: &Path) {
    let stories = files.join("stories");
    std::fs::create_dir_all(&stories).unwrap();
    for story in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boards/guest/stories")).unwrap().flatten()
    {
        std::fs::copy(story.path(), stories.join(story.file_name())).unwrap();
    }
    std::fs::File::create(image).unwrap().set_len(DISK_BYTES + (64 << 10)).unwrap();
    let blocks = format!("{}k", DISK_BYTES >> 10);
    run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", "size=4", "-d", &path(files), &path(image), &blocks]);
}

/// Runs a program to its end, which must be a good one.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}; tests/boards/run installs it"));
    assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn path(path: &Path) -> String {
    path.display().to_string()
}

impl Board {
    /// Gives it power: boots from `disk`, with `words` for its story on the kernel's command line, and a log of all that is written to
    /// the disk in `log`. `more` are arguments of QEMU.
    pub fn boot(dir: &Path, disk: &Path, log: &Path, words: &str, more: &[&str]) -> Self {
        let (prepared_dir, qemu) = (PathBuf::from(prepared("VARVED_BOARD")), prepared("VARVED_QEMU"));
        // Debian's 64-bit kernel leaves too little of 64 MB: it has killed processes there, the RAM disk being in RAM as well.
        let (name, machine, cpu, megabytes) = match prepared("VARVED_BOARD_ARCH").as_str() {
            "armv7" => ("qemu-system-arm", "virt,highmem=off", "cortex-a7", "64"),
            _ => ("qemu-system-aarch64", "virt", "cortex-a53", "96"),
        };
        std::fs::File::create(log).unwrap();
        let pull_port = free_port();
        let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{pull_port}-:2222");
        let (console, monitor) = (dir.join("console"), dir.join("monitor"));
        let _ = std::fs::remove_file(&console);
        let mut command = Command::new(format!("{qemu}/usr/bin/{name}"));
        command.env("LD_LIBRARY_PATH", format!("{qemu}/usr/lib/x86_64-linux-gnu:{qemu}/lib/x86_64-linux-gnu"));
        command.args(["-L", &format!("{qemu}/usr/share/qemu"), "-M", machine, "-cpu", cpu, "-m", megabytes]);
        command.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path(&monitor))]);
        command.arg("-kernel").arg(prepared_dir.join("kernel")).arg("-initrd").arg(prepared_dir.join("initrd"));
        command.args(["-append", &format!("console=ttyAMA0 quiet mark={MARK_SECTOR} {words}")]);
        command.args(["-blockdev", &format!("driver=file,node-name=file,filename={}", path(disk))]);
        command.args(["-blockdev", &format!("driver=file,node-name=log,filename={}", path(log))]);
        command.args([
            "-blockdev",
            "driver=blklogwrites,node-name=disk,file=file,log=log,log-sector-size=512,log-super-update-interval=1",
        ]);
        command.args(["-device", "virtio-blk-device,drive=disk,id=disk"]);
        command.args(["-netdev", &forward, "-device", &format!("virtio-net-device,netdev=net,mac={CARD}")]);
        command.args(more);
        Self { process: Process::start(&mut command, &console), console, monitor, pull_port }
    }

    /// Waits for a line `board: WORD …` of its console, and gives what stands behind the word.
    pub fn says(&mut self, word: &str, seconds: u64) -> String {
        wait_for(&format!("the board to say {word}"), seconds, || {
            let text = self.text();
            if let Some(line) = text.lines().find_map(|line| line.strip_prefix("board: failed")) {
                panic!("the board failed:{line}\n{text}");
            }
            let found = said(&text, word).last().map(|rest| rest.trim().to_owned());
            if found.is_none() && !self.process.is_running() {
                panic!("the board has ended\n{text}");
            }
            found
        })
    }

    /// All that its console has said so far; a line that is still being written is left out.
    pub fn text(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap_or_default();
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        String::from_utf8_lossy(&bytes[..whole]).replace('\r', "")
    }

    /// Takes its power away: nothing that it had not been told was on the disk must be there.
    pub fn cut(self) -> String {
        let text = self.text();
        self.process.kill9();
        text
    }

    /// What QEMU has counted at the disk: bytes and operations written, flushes (`query-blockstats`).
    pub fn disk_counts(&self) -> (u64, u64, u64) {
        let answer = self.ask("query-blockstats");
        let disks = answer["return"].as_array().unwrap();
        let stats = &disks.iter().find(|d| d["qdev"].as_str().is_some_and(|q| q.contains("disk"))).unwrap_or(&disks[0])
            ["stats"];
        let count = |key: &str| stats[key].as_u64().unwrap();
        (count("wr_bytes"), count("wr_operations"), count("flush_operations"))
    }

    /// A command of QEMU's machine protocol.
    pub fn ask(&self, what: &str) -> Json {
        let mut socket = UnixStream::connect(&self.monitor).unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
        let mut answer = |socket: &mut UnixStream, what: &str| -> Json {
            socket.write_all(format!("{{\"execute\":\"{what}\"}}\n").as_bytes()).unwrap();
            loop {
                let line: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
                if line.get("return").is_some() || line.get("error").is_some() {
                    return line;
                }
            }
        };
        answer(&mut socket, "qmp_capabilities");
        answer(&mut socket, what)
    }
}

/// What stands behind `board: word ` on each line that begins with it.
pub fn said<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!("board: {word}");
    text.lines()
        .filter_map(move |line| line.strip_prefix(begin.as_str()))
        .filter(|rest| rest.is_empty() || rest.starts_with(' '))
}
