//! **varved** lays sensor readings down in layers in one SQLite file, compacts them when idle, sends them to the fleet when
//! there is a link, and gives a technician the core over SSH.
//!
//! # The path of a reading
//!
//! ```text
//! sensor ─► batch ─► store (a commit is a segment) ─► uplink ─► MQTT ─► fleet replica ─► ack ─► the device may expire it
//!                       └ when idle: compact, expire, incremental vacuum (upkeep)
//! ```
//!
//! One direction; only the acknowledgement comes back.
//!
//! # The rooms
//!
//! Imports go downward only; `tests/stories/layers.rs` reads them and fails on an upward one.
//!
//! | layer | rooms | what they may touch |
//! |---|---|---|
//! | 0 | [`reading`], [`clock`], [`fault`] | vocabulary; no I/O but the one file that asks the system for the time |
//! | 1 | [`config`], [`segment`], [`batch`], [`wire`] | pure |
//! | 2 | [`sensor`], [`store`], [`mqtt`], [`signals`], [`power_fail`] | each the only room for its I/O |
//! | 3 | [`uplink`], [`upkeep`], [`wear`], [`pull`], [`report`] | decisions first, I/O at the edge |
//! | 4 | [`device`], [`fleet`], [`cli`] | wire the rooms together |
//! | 5 | `main.rs`, `bin/varved-fleet.rs` | a screenful each |
//!
//! In test builds `simulation` joins both sides over a network that it makes up; see `docs/delivery-proof.md`.
//!
//! What is deliberately absent: an unbounded queue, a task per event, a second copy of the data, a write to the database
//! through mmap, and any way to delete a reading that the fleet has not committed without writing that down.

pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "device")]
pub mod device;
pub mod fault;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod mqtt;
pub mod power_fail;
#[cfg(feature = "device")]
pub mod pull;
pub mod reading;
#[cfg(feature = "laptop")]
pub mod report;
pub mod segment;
#[cfg(feature = "device")]
pub mod sensor;
pub mod signals;
#[cfg(all(test, feature = "device", feature = "fleet"))]
mod simulation;
pub mod store;
#[cfg(feature = "device")]
pub mod upkeep;
#[cfg(feature = "device")]
pub mod uplink;
#[cfg(feature = "device")]
pub mod wear;
pub mod wire;
