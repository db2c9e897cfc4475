//! What a technician takes along: a board's store over SSH, only what the laptop lacks, on the laptop a file for any SQLite tool.
//!
//! ```text
//! board                                                             laptop
//! store ─► serve-pull ─► stdout ──── ssh ────► varved pull ─► OUT.part ─► OUT
//!            (rows of the file, in small steps)                (segments)  (plain rows, or the store itself)
//! ```
//!
//! What enters: on the board a store that can be asked, on the laptop the name of a host. What leaves: messages of
//! [`crate::wire`], framed as in `docs/pull.md`. It promises that the board's side only reads, with bounded memory and no
//! transaction held while it waits for the link; that the laptop's side believes nothing it was sent before it has checked it, and
//! that what has arrived before a cut need not come again. SQL that writes is in [`crate::store`].
//!
//! | file | holds |
//! |---|---|
//! | [`link`] | greetings and frames |
//! | [`serve`] | the board's side |
//! | [`fetch`] | the laptop's side |
//! | [`ssh`] | the system's `ssh`, and what its failures mean |

#[cfg(feature = "laptop")]
pub mod fetch;
pub mod link;
pub mod serve;
#[cfg(feature = "laptop")]
pub mod ssh;
