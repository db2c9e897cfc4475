//! A log of strace, read.
//!
//! What enters: what `strace -f -xx -y` wrote of a process. What leaves: what it did to files below one folder, and what it said
//! on sockets, in order. A write counts from its call on, since it may reach the medium at once; an fsync from its return on; an
//! answer from its call on, since the other side may have it then.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is traced: all that changes a file or a name, and all that says something.
const CALLS: &str = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,truncate,fallocate,\
                     unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,link,linkat,sendto,sendmsg,copy_file_range";

/// `program` under strace, which writes to `log`. The process is the program: the tracer is its grandchild.
pub(super) fn traced(program: &Path, log: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args([
        "-D",
        "-f",
        "--seccomp-bpf",
        "-q",
        "-xx",
        "-y",
        "-s",
        "4000000",
        "-e",
        &format!("trace={CALLS}"),
        "-o",
    ]);
    command.arg(log).arg(program);
    command
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Create,
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    SetLength(u64),
    Fsync,
    FsyncDirectory,
    Rename {
        to: String,
    },
    Remove,
    /// Bytes to the socket that `name` stands for.
    Told(Vec<u8>),
}

/// One change to `name` in the folder `dir`, which is relative to the one that is followed.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) dir: String,
    pub(super) name: String,
    pub(super) what: What,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Write { at, bytes } => write!(f, "write {} bytes at {at} of {}/{}", bytes.len(), self.dir, self.name),
            What::Told(bytes) => write!(f, "told {} {} bytes", self.name, bytes.len()),
            what => write!(f, "{what:?} {}/{}", self.dir, self.name),
        }
    }
}

/// Reads the logs of one process after the other, that ran on `root`.
pub(super) fn read(logs: &[PathBuf], root: &Path) -> Vec<Step> {
    let mut reader = Reader { root: root.to_owned(), names: BTreeSet::new(), steps: Vec::new() };
    for log in logs {
        let text = std::fs::read_to_string(log).unwrap();
        let mut begun: HashMap<&str, (&str, bool)> = HashMap::new();
        for line in text.lines() {
            let (pid, line) = line.split_once(' ').unwrap();
            let line = line.trim_start();
            if let Some(call) = line.strip_suffix("<unfinished ...>") {
                let early = reader.call(call, None);
                begun.insert(pid, (call, early));
            } else if let Some(resumed) = line.strip_prefix("<... ") {
                let (_, rest) = resumed.split_once("resumed>").unwrap();
                let (call, early) = begun.remove(pid).unwrap_or_else(|| panic!("resumed and never begun: {line}"));
                if !early {
                    reader.call(&format!("{call}{rest}"), result(rest));
                }
            } else if line.contains('(') && line.contains(" = ") {
                reader.call(line, result(line));
            }
        }
    }
    reader.steps
}

/// What a call returned. Before it a short line has blanks, to stand in its column.
fn result(line: &str) -> Option<i64> {
    let (_, result) = line.rsplit_once(" = ")?;
    result.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?.parse().ok()
}

struct Reader {
    root: PathBuf,
    /// The files that there are, by path.
    names: BTreeSet<PathBuf>,
    steps: Vec<Step>,
}

/// An argument of a call.
#[derive(Debug, Clone)]
enum Argument {
    /// A descriptor, and what it is open on.
    File(PathBuf),
    Bytes(Vec<u8>),
    Word(String),
}

impl Reader {
    /// Takes a call; without a result it is still under way, and taken only if it counts from its beginning. Whether it was taken.
    fn call(&mut self, line: &str, result: Option<i64>) -> bool {
        let (call, rest) = line.split_once('(').unwrap();
        let arguments = arguments(rest);
        let begins = matches!(call, "write" | "pwrite64" | "sendto" | "sendmsg" | "writev");
        if result.is_none() && !begins {
            return false;
        }
        if result.is_some_and(|result| result < 0) {
            return true;
        }
        match (call, arguments.as_slice()) {
            ("pwrite64", [Argument::File(path), Argument::Bytes(bytes), _, Argument::Word(at), ..]) => {
                let written = result.map_or(bytes.len(), |n| n as usize);
                let (at, bytes) = (at.parse().unwrap(), bytes[..written].to_vec());
                self.push(path, What::Write { at, bytes });
            }
            ("write" | "sendto", [Argument::File(path), Argument::Bytes(bytes), ..]) if is_socket(path) => {
                let told = result.map_or(bytes.len(), |n| n as usize);
                let name = path.display().to_string();
                self.steps.push(Step { dir: String::new(), name, what: What::Told(bytes[..told].to_vec()) });
            }
            ("sendmsg" | "writev", [Argument::File(path), rest @ ..]) if is_socket(path) => {
                let told = rest.iter().filter_map(|a| if let Argument::Bytes(b) = a { Some(b.clone()) } else { None });
                let (name, told) = (path.display().to_string(), told.collect::<Vec<_>>().concat());
                self.steps.push(Step { dir: String::new(), name, what: What::Told(told) });
            }
            ("openat", [_, Argument::Bytes(path), Argument::Word(flags), ..]) if flags.contains("O_CREAT") => {
                let path = as_path(path);
                if self.names.insert(path.clone()) {
                    self.push(&path, What::Create);
                }
            }
            ("mkdir", [Argument::Bytes(path), ..]) => {
                // A folder is a name with a slash behind it.
                let path = format!("{}/", as_path(path).display());
                let inner = path.trim_end_matches('/').to_owned();
                if let Some((dir, name)) = self.place(Path::new(&inner)) {
                    self.steps.push(Step { dir, name: format!("{name}/"), what: What::Create });
                }
            }
            ("ftruncate", [Argument::File(path), Argument::Word(bytes), ..]) => {
                self.push(path, What::SetLength(bytes.parse().unwrap()));
            }
            ("fsync" | "fdatasync", [Argument::File(path), ..]) => match self.names.contains(path) {
                true => self.push(path, What::Fsync),
                false => self.fsync_directory(path),
            },
            ("unlink", [Argument::Bytes(path), ..]) => {
                let path = as_path(path);
                self.names.remove(&path);
                self.push(&path, What::Remove);
            }
            ("rename", [Argument::Bytes(from), Argument::Bytes(to), ..]) => {
                let (from, to) = (as_path(from), as_path(to));
                self.names.remove(&from);
                self.names.insert(to.clone());
                let to = to.file_name().unwrap().to_string_lossy().into_owned();
                self.push(&from, What::Rename { to });
            }
            ("open" | "openat", _) => {}
            // Nothing else of ours may change a file that is followed, or this would have to learn it.
            (_, arguments) => {
                for argument in arguments {
                    let path = match argument {
                        Argument::File(path) => path.clone(),
                        Argument::Bytes(bytes) => as_path(bytes),
                        Argument::Word(_) => continue,
                    };
                    assert!(
                        self.place(&path).is_none(),
                        "an unknown change to a file: {}",
                        &line[..line.len().min(400)]
                    );
                }
            }
        }
        true
    }

    fn push(&mut self, path: &Path, what: What) {
        if let Some((dir, name)) = self.place(path) {
            self.steps.push(Step { dir, name, what });
        }
    }

    fn fsync_directory(&mut self, path: &Path) {
        if let Ok(dir) = path.strip_prefix(&self.root) {
            let dir = dir.to_string_lossy().into_owned();
            self.steps.push(Step { dir, name: "names".to_owned(), what: What::FsyncDirectory });
        }
    }

    /// Folder and name of a file that is followed. What no power cut outlives isn't.
    fn place(&self, path: &Path) -> Option<(String, String)> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let name = relative.file_name()?.to_string_lossy().into_owned();
        let passing = ["-shm", "-lock", ".sock", ".toml"].iter().any(|end| name.ends_with(end));
        let dir = relative.parent()?.to_string_lossy().into_owned();
        (!passing).then_some((dir, name))
    }
}

fn is_socket(path: &Path) -> bool {
    path.to_string_lossy().starts_with("socket:")
}

fn as_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// The arguments of a call, as far as the line has them. With `-xx` no string holds a quote, a comma or a bracket.
fn arguments(text: &str) -> Vec<Argument> {
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '[', ']', '{', '}']);
        if let Some(name) = ["iov_base=", "msg_iov=", "iov_len="].iter().find(|name| rest.starts_with(**name)) {
            rest = &rest[name.len()..];
            continue;
        }
        if let Some(string) = rest.strip_prefix('"') {
            let end = string.find('"').unwrap_or(string.len());
            all.push(Argument::Bytes(unhex(&string[..end])));
            rest = string.get(end + 1..).unwrap_or("");
            continue;
        }
        let end = rest.find([',', ')', ' ', '}', ']']).unwrap_or(rest.len());
        let word = &rest[..end];
        match word.split_once('<') {
            Some((_, path)) => all.push(Argument::File(as_path(&unhex(path.trim_end_matches('>'))))),
            None => all.push(Argument::Word(word.to_owned())),
        }
        if rest.is_empty() || rest[end..].starts_with(')') || end == rest.len() {
            return all;
        }
        rest = &rest[end..];
    }
}

/// `\x61\x62` → `ab`.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(4).map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}
