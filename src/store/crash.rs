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
//! | `vfs`, `log` | the recorder |
//! | `medium` | the threat model: from the log to images |
//! | `held` | what a store holds, in comparable numbers |
//! | `proof` | images opened and judged, a share of them cut again |
//! | `work`, `tests` | workloads, and each protection switched off to see the proof fail |

mod chance;
mod held;
pub(super) mod log;
mod medium;
mod proof;
#[cfg(test)]
mod tests;
mod vfs;
mod work;
