//! The proof of the store's first promise: a power cut at every write, and nothing that was acknowledged is missing.
//!
//! What enters: workloads by chance, from a seed. What leaves: counts of images, and of bad ones, which must be 0. The real
//! store runs above a recorder, which logs every write, fsync, truncation, creation, move and removal, by SQLite and by the
//! store itself, in one order with "begun" and "acknowledged". At every one of them the power is cut, in thought: images of
//! what the directory may then hold are written out, and the real store opens each. docs/crash.md has the threat model,
//! how to replay a failure, and what is not covered.
//!
//! | file | holds |
//! |---|---|
//! | `vfs`, `log`, `change` | the recorder |
//! | `files`, `ram` | a directory in memory, for the store and for SQLite |
//! | `medium` | the threat model: from the log to images |
//! | `held` | what a store holds, in comparable numbers |
//! | `proof`, `run` | images opened and judged, a share of them cut again; how many |
//! | `board` | what opens them: the store of a board. The replica of a receiver is in `fleet/replica/crash.rs` |
//! | `work`, `tests` | workloads, and each protection switched off to see the proof fail |
//! | `faults` | fsyncs that fail, and then the power |
//! | `flips` | single bits that rot |

mod board;
pub(crate) mod chance;
pub(crate) mod change;
mod faults;
pub(crate) mod files;
mod flips;
pub(crate) mod held;
pub(crate) mod log;
pub(crate) mod medium;
pub(crate) mod proof;
mod ram;
pub(crate) mod run;
mod tests;
mod vfs;
mod work;
