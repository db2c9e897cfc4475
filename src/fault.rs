//! The vocabulary of faults: what a caller may do about one, and what a command's exit code says.
//!
//! Every room has its own closed error enum; what they share is here. An error whose text an operator can see ends with
//! what to do next.

/// What the one who called may do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is lost yet: the same call may succeed later, on the same connection.
    Retry,
    /// This input will never be good: count it, say so once, go on with the next.
    Reject,
    /// Going on would make it worse: stop this room, keep what is in RAM, tell the operator.
    Halt,
}

/// Exit codes of both binaries, after BSD `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Ok = 0,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// The data is wrong (EX_DATAERR).
    Data = 65,
    /// A service that is needed isn't there (EX_UNAVAILABLE).
    Unavailable = 69,
    /// An error of the file system or a device (EX_IOERR).
    Io = 74,
    /// Nothing is wrong, but not now (EX_TEMPFAIL).
    TryAgain = 75,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

impl Exit {
    /// The exit that has this code; [`Exit::Io`] for one that none has.
    pub fn of_code(code: u8) -> Self {
        let all = [Self::Ok, Self::Usage, Self::Data, Self::Unavailable, Self::TryAgain, Self::Config];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Io)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What every room's error enum answers beside its text.
pub trait Fault: std::error::Error {
    /// What the caller may do.
    fn verdict(&self) -> Verdict;

    /// The exit code of a command that ends with this fault.
    fn exit(&self) -> Exit;
}
