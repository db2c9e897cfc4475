//! The system's `ssh`, with its configuration, keys, jump hosts and ports; and what it means when it fails.
//!
//! What enters: a host, and what to run there. What leaves: a [`Child`] whose streams are the conversation, and in the end what
//! went wrong, in words with a remedy. What `ssh` and the far side say on standard error is shown as it comes; passwords and
//! host keys are asked for on the terminal itself, by `ssh`.

use crate::fault::{Exit, Fault, Verdict};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Far {
    /// `[USER@]HOST`, as `ssh` takes it.
    pub host: String,
    /// The store's file there; that of the board's configuration where there is none.
    pub db: Option<String>,
}

impl Far {
    /// `[USER@]HOST[:DB]`; a host that is an IPv6 address stands in brackets. `None` where it names no host, or one that `ssh`
    /// would take for an option.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
        // A path may hold an `@`: what is before a colon is the host.
        let (user, rest) = if user.is_some_and(|user| user.contains([':', '/'])) { (None, text) } else { (user, rest) };
        let (host, db) = match rest.strip_prefix('[') {
            Some(address) => {
                let (address, behind) = address.split_once(']')?;
                (address, behind.strip_prefix(':').or(behind.is_empty().then_some(""))?)
            }
            None => rest.split_once(':').unwrap_or((rest, "")),
        };
        let whole = user.map_or(host.to_owned(), |user| format!("{user}@{host}"));
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if host.is_empty() || whole.starts_with('-') || host.starts_with('-') || whole.contains(odd) {
            return None;
        }
        let db = (!db.is_empty()).then(|| db.to_owned());
        Some(Self { host: whole, db })
    }

    /// What runs on the board: words for its shell.
    pub fn command(&self) -> String {
        match &self.db {
            None => "varved serve-pull".to_owned(),
            Some(db) => format!("varved serve-pull --db {}", quoted(db)),
        }
    }
}

/// A word that a POSIX shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A running `ssh`, or another program whose streams are the conversation.
#[derive(Debug)]
pub struct Session {
    child: Child,
    words: JoinHandle<Vec<String>>,
    /// Whether the program is one that goes over a net.
    remote: bool,
    host: String,
}

/// The lines of standard error that are remembered.
const MAX_LINES: usize = 32;

/// The longest line of standard error that is shown, in bytes.
const MAX_LINE_BYTES: u64 = 1024;

impl Session {
    /// Starts `ssh` (or the words of `program`, such as `ssh -p 2222`) towards `far`.
    ///
    /// # Errors
    /// [`SshError::NoSsh`] where there is no such program.
    pub fn start(program: &str, far: &Far) -> Result<(Self, ChildStdout, ChildStdin), SshError> {
        let mut words = program.split_whitespace();
        let name = words.next().unwrap_or("ssh");
        let mut command = Command::new(name);
        command.args(words).arg(&far.host).arg(far.command());
        Self::spawn(&mut command, true, &far.host)
    }

    /// Starts another program in its place.
    ///
    /// # Errors
    /// [`SshError::NoSsh`] where there is no such program.
    pub fn spawn(command: &mut Command, remote: bool, host: &str) -> Result<(Self, ChildStdout, ChildStdin), SshError> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let program = || command.get_program().to_string_lossy().into_owned();
        let mut child = spawned.map_err(|why| SshError::NoSsh { program: program(), why })?;
        let (Some(stdout), Some(stdin), Some(stderr)) = (child.stdout.take(), child.stdin.take(), child.stderr.take())
        else {
            return Err(SshError::NoSsh { program: program(), why: io::ErrorKind::BrokenPipe.into() });
        };
        let words = std::thread::spawn(move || shown(BufReader::new(stderr)));
        Ok((Self { child, words, remote, host: host.to_owned() }, stdout, stdin))
    }

    /// Waits for its end, which comes once both its streams are dropped; why it failed, if it did.
    ///
    /// # Errors
    /// See [`SshError`].
    pub fn end(mut self) -> Result<(), SshError> {
        let status = self.child.wait();
        let said = self.words.join().unwrap_or_default();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(SshError::of(status, &said, self.remote, self.host)),
            Err(why) => Err(SshError::NoSsh { program: "ssh".to_owned(), why }),
        }
    }

    /// Ends it at once, for a conversation that has gone wrong on this side.
    pub fn stop(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.words.join();
    }
}

/// Shows what comes on standard error, without what a terminal would obey, and gives back the last lines.
fn shown(mut from: impl BufRead) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    loop {
        let mut line = Vec::new();
        match (&mut from).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim_end().chars().filter(|c| !c.is_control() || *c == '\t').collect();
        // Where even standard error is closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{text}");
        if kept.len() == MAX_LINES {
            kept.remove(0);
        }
        kept.push(text);
    }
}

/// Why the far side could not be reached, or ended.
#[derive(Debug)]
pub enum SshError {
    /// There is no `ssh` here.
    NoSsh {
        /// What was to be run.
        program: String,
        /// What the system answered.
        why: io::Error,
    },
    /// The host can't be reached.
    NoHost {
        /// Which.
        host: String,
    },
    /// Its host key is not the one that is known.
    HostKey {
        /// Which.
        host: String,
    },
    /// It takes none of our keys.
    NoKey {
        /// Which.
        host: String,
    },
    /// There is no `varved` on it.
    NoVarved {
        /// Which.
        host: String,
    },
    /// Its `varved` has no `serve-pull`.
    OldVarved {
        /// Which.
        host: String,
    },
    /// `serve-pull` says why not, on standard error.
    Refused {
        /// Its exit code.
        exit: Exit,
        /// Its words.
        words: String,
    },
    /// `ssh` ended for another reason, which it has said.
    Other {
        /// Which.
        host: String,
        /// How it ended.
        status: ExitStatus,
    },
}

impl SshError {
    fn of(status: ExitStatus, said: &[String], remote: bool, host: String) -> Self {
        let has = |part: &str| said.iter().any(|line| line.to_lowercase().contains(part));
        let ours = said.iter().rev().find_map(|line| line.strip_prefix("varved: "));
        match (status.code(), ours) {
            (Some(64), Some(words)) if words.contains("`serve-pull` is not a command") => Self::OldVarved { host },
            (Some(code), Some(words)) if code != 255 => {
                Self::Refused { exit: Exit::of_code(u8::try_from(code).unwrap_or(74)), words: words.to_owned() }
            }
            (Some(127), _) if remote => Self::NoVarved { host },
            _ if !remote => Self::Other { host, status },
            _ if has("host key verification failed") || has("host key") && has("changed") => Self::HostKey { host },
            _ if has("permission denied") || has("no supported authentication") || has("too many authentication") => {
                Self::NoKey { host }
            }
            _ if [
                "could not resolve",
                "connection refused",
                "timed out",
                "no route",
                "unreachable",
                "connect to host",
            ]
            .into_iter()
            .any(has) =>
            {
                Self::NoHost { host }
            }
            _ => Self::Other { host, status },
        }
    }
}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSsh { program, why } => {
                write!(f, "cannot run `{program}`: {why}; install an ssh client, or name one with --ssh")
            }
            Self::NoHost { host } => write!(
                f,
                "{host} can't be reached; check the name, the cable and the port (Host and Port in ~/.ssh/config, or --ssh \"ssh -p 2222\")"
            ),
            Self::HostKey { host } => write!(
                f,
                "the host key of {host} is not the one that is known: another board has its address, or it was set up anew; \
                 if you know why, `ssh-keygen -R HOST` forgets the old one"
            ),
            Self::NoKey { host } => write!(
                f,
                "{host} takes none of your keys; check the user, name the key (IdentityFile in ~/.ssh/config, or --ssh \"ssh -i KEY\"), \
                 and that it is in authorized_keys there"
            ),
            Self::NoVarved { host } => write!(
                f,
                "there is no `varved` on {host} where its shell looks; install it there, or put its folder into the PATH of that user"
            ),
            Self::OldVarved { host } => {
                write!(
                    f,
                    "the varved on {host} is older than `serve-pull`; update it, or take a snapshot there and copy that"
                )
            }
            Self::Refused { words, .. } => write!(f, "the far side says: {words}"),
            Self::Other { host, status } => {
                write!(
                    f,
                    "the session with {host} ended ({status}) before it was done; see what was said above, and pull again"
                )
            }
        }
    }
}

impl std::error::Error for SshError {}

impl Fault for SshError {
    fn verdict(&self) -> Verdict {
        match self.exit() {
            Exit::TryAgain => Verdict::Retry,
            _ => Verdict::Reject,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Refused { exit, .. } => *exit,
            Self::Other { .. } => Exit::TryAgain,
            _ => Exit::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed for a host, and what is refused: nothing reaches `ssh` as an option, or a shell as more than a word.
    #[test]
    fn a_host_is_never_an_option_and_a_path_one_word() {
        let far = |text: &str| Far::parse(text).map(|far| (far.host.clone(), far.command()));
        let plain = |host: &str| Some((host.to_owned(), "varved serve-pull".to_owned()));
        assert_eq!(far("pump-17"), plain("pump-17"));
        assert_eq!(far("tech@10.0.0.5"), plain("tech@10.0.0.5"));
        assert_eq!(far("tech@[fe80::1]"), plain("tech@fe80::1"));
        let with = |db: &str| Some(("h".to_owned(), format!("varved serve-pull --db {db}")));
        assert_eq!(far("h:/var/lib/varved/varved.db"), with("/var/lib/varved/varved.db"));
        assert_eq!(far("h:/a b/@c'd;rm"), with("'/a b/@c'\\''d;rm'"));
        assert_eq!(far("[::1]:/x").map(|far| far.0), Some("::1".to_owned()));
        for bad in ["", "-oProxyCommand=x", "a@-oProxyCommand=x", "-l@h", ":/x", "a b", "[::1", "u@", "h\n"] {
            assert_eq!(far(bad), None, "{bad}");
        }
    }
}
