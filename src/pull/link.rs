//! The line between a board and a laptop: a greeting of each side, then frames.
//!
//! ```text
//! varved-pull 1 1 0.1.0\n        lowest and highest version spoken, the software; at most 128 bytes
//! length (4 bytes, little-endian) │ envelope (docs/wire.md), at most 256 KiB      … until one side closes
//! ```
//!
//! What enters: a byte stream each way. What leaves: messages. Untrusted bytes reserve no more than what arrived, and never
//! panic. Before the greeting a login shell of the board may say things: up to 64 KiB of that are passed over.

use crate::fault::{Exit, Fault, Verdict};
use crate::wire::{Envelope, MAX_ENVELOPE, PULL_VERSION, WireError, decode, encode};
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// What a greeting begins with.
const MAGIC: &str = "varved-pull ";

/// The longest greeting, in bytes.
const MAX_GREETING_BYTES: u64 = 128;

/// What may come before the greeting, in bytes.
const MAX_NOISE_BYTES: u64 = 64 * 1024;

/// Both directions of a conversation.
#[derive(Debug)]
pub struct Link<R, W: Write> {
    from: R,
    to: W,
    frame: Vec<u8>,
    received: u64,
    sent: u64,
}

/// What the other side said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The lowest version that it speaks.
    pub lowest: u32,
    /// The highest.
    pub highest: u32,
    /// Its software.
    pub software: String,
}

impl<R: BufRead, W: Write> Link<R, W> {
    /// Over an open stream each way.
    pub fn new(from: R, to: W) -> Self {
        Self { from, to, frame: Vec::new(), received: 0, sent: 0 }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Says which versions we speak.
    pub fn greet(&mut self) -> Result<(), LinkError> {
        let line = format!("{MAGIC}{PULL_VERSION} {PULL_VERSION} {}\n", env!("CARGO_PKG_VERSION"));
        self.sent += line.len() as u64;
        self.to.write_all(line.as_bytes()).map_err(LinkError::Io)?;
        self.flush()
    }

    /// The other side's greeting, if both speak a version in common.
    pub fn greeted(&mut self) -> Result<Greeting, LinkError> {
        let begun = self.received;
        loop {
            let mut line = Vec::new();
            let read = (&mut self.from).take(MAX_NOISE_BYTES).read_until(b'\n', &mut line).map_err(LinkError::Io)?;
            self.received += read as u64;
            // What a shell says may end without the end of a line.
            let at = line.windows(MAGIC.len()).position(|part| part == MAGIC.as_bytes());
            if let Some(greeting) = at.filter(|_| line.ends_with(b"\n")).and_then(|at| Greeting::parse(&line[at..])) {
                return greeting.accepted();
            }
            if read == 0 {
                return Err(LinkError::Silent);
            }
            if self.received - begun >= MAX_NOISE_BYTES {
                return Err(LinkError::NotVarved);
            }
        }
    }

    /// Sends a message; it may wait in a buffer until [`Link::flush`].
    pub fn send<'a, T: Envelope<'a>>(&mut self, message: &T) -> Result<(), LinkError> {
        let envelope = encode(message).map_err(LinkError::Wire)?;
        let length = u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.sent += (length.len() + envelope.len()) as u64;
        self.to.write_all(&length).and_then(|()| self.to.write_all(&envelope)).map_err(LinkError::Io)
    }

    /// Sends what waits in buffers.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        self.to.flush().map_err(LinkError::Io)
    }

    /// The next message. It borrows its bytes from here.
    pub fn receive<'a, T: Envelope<'a>>(&'a mut self) -> Result<T, LinkError> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).map_err(LinkError::Io)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_ENVELOPE {
            return Err(LinkError::Wire(WireError::TooLong { bytes: length }));
        }
        self.frame.clear();
        // As it comes: a length is only a claim.
        let read = (&mut self.from).take(length as u64).read_to_end(&mut self.frame).map_err(LinkError::Io)?;
        self.received += (4 + read) as u64;
        if read < length {
            return Err(LinkError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        decode(&self.frame).map_err(LinkError::Wire)
    }
}

impl Greeting {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").filter(|line| line.len() as u64 <= MAX_GREETING_BYTES)?;
        let mut words = std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.trim_end().splitn(3, ' ');
        let (lowest, highest) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let software: String = words.next()?.chars().filter(char::is_ascii_graphic).collect();
        (lowest <= highest).then_some(Self { lowest, highest, software })
    }

    fn accepted(self) -> Result<Self, LinkError> {
        match (self.lowest..=self.highest).contains(&PULL_VERSION) {
            true => Ok(self),
            false => Err(LinkError::Version { theirs: self }),
        }
    }
}

/// Why the conversation ended.
#[derive(Debug)]
pub enum LinkError {
    /// The stream broke, or ended within the conversation.
    Io(io::Error),
    /// It ended before the other side said anything of ours.
    Silent,
    /// What came is not ours.
    NotVarved,
    /// The other side speaks no version that we do.
    Version {
        /// What it speaks.
        theirs: Greeting,
    },
    /// What came is no message.
    Wire(WireError),
}

impl LinkError {
    /// Whether the line was cut, so that another try goes on from there.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
                write!(f, "the line was cut; what has arrived is kept, pull again to go on from there")
            }
            Self::Io(why) => {
                write!(f, "the line was cut ({why}); what has arrived is kept, pull again to go on from there")
            }
            Self::Silent => write!(f, "the far side ended without a word; run `ssh HOST varved --version` to see why"),
            Self::NotVarved => write!(
                f,
                "what the far side says is not of `varved serve-pull`; run `ssh HOST varved --version`, and see what its \
                 shell prints at a login"
            ),
            Self::Version { theirs } => {
                let older = theirs.highest < PULL_VERSION;
                let (side, which) = if older { ("the far side", "older") } else { ("this side", "newer") };
                write!(
                    f,
                    "the far side's varved {} is {which}: it speaks versions {} to {} of the pull, this one ({}) version \
                     {PULL_VERSION}; update {side}",
                    theirs.software,
                    theirs.lowest,
                    theirs.highest,
                    env!("CARGO_PKG_VERSION"),
                )
            }
            Self::Wire(why) => write!(f, "the far side sends what can't be read: {why}"),
        }
    }
}

impl std::error::Error for LinkError {}

impl Fault for LinkError {
    fn verdict(&self) -> Verdict {
        if self.is_cut() { Verdict::Retry } else { Verdict::Reject }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Io(_) => Exit::TryAgain,
            Self::Silent | Self::NotVarved | Self::Version { .. } => Exit::Unavailable,
            Self::Wire(_) => Exit::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FromLaptop;

    fn greeting_in(bytes: &[u8]) -> Result<Greeting, LinkError> {
        Link::new(bytes, io::sink()).greeted()
    }

    /// A login shell may say what it likes before the greeting, up to a bound; what never greets is told as what it is.
    #[test]
    fn a_greeting_is_found_behind_what_a_shell_says() {
        let mut ours = Vec::new();
        Link::new(&[][..], &mut ours).greet().expect("a greeting");
        for before in ["", "Welcome to pump-17!\n", "no end of line: ", "varved-pull nonsense\n"] {
            let said = [before.as_bytes(), &ours].concat();
            assert_eq!(greeting_in(&said).expect(before).software, env!("CARGO_PKG_VERSION"));
        }
        assert!(matches!(greeting_in(&vec![b'x'; 1 << 20]), Err(LinkError::NotVarved)));
        assert!(matches!(greeting_in(b"bash: varved: command not found\n"), Err(LinkError::Silent)));
    }

    /// Which side to update is said.
    #[test]
    fn other_versions_say_which_side_to_update() {
        let told = |line: &str| greeting_in(line.as_bytes()).expect_err("another version").to_string();
        assert!(told("varved-pull 0 0 0.0.9\n").ends_with("update the far side"));
        assert!(told("varved-pull 2 7 9.1.0\n").ends_with("update this side"));
        assert_eq!(greeting_in(b"varved-pull 0 7 9.1.0\n").expect("in common").highest, 7);
    }

    /// A length is a claim: nothing is reserved for it, and one beyond the bound is refused unread.
    #[test]
    fn a_frame_is_read_as_far_as_it_comes() {
        let mut bytes = Vec::new();
        Link::new(&[][..], &mut bytes).send(&FromLaptop::Go).expect("sent");
        assert_eq!(Link::new(&bytes[..], io::sink()).receive::<FromLaptop>().expect("received"), FromLaptop::Go);
        for cut in 0..bytes.len() {
            let error = Link::new(&bytes[..cut], io::sink()).receive::<FromLaptop>().expect_err("a cut");
            assert!(error.is_cut(), "{error}");
        }
        let long = [&u32::MAX.to_le_bytes()[..], &[0; 100]].concat();
        let mut link = Link::new(&long[..], io::sink());
        assert!(matches!(link.receive::<FromLaptop>(), Err(LinkError::Wire(WireError::TooLong { .. }))));
        assert_eq!(link.frame.capacity(), 0);
    }
}
