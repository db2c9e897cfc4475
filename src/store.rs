//! The store: one SQLite file, and the only room with rusqlite beside the fleet's replica.
//!
//! What enters: sealed batches, acknowledgements, the moment. What leaves: segments for the uplink, figures for `status`.
//! It promises that what it returned as committed survives a power cut at any instant on media that honour a flush, that
//! nothing unacknowledged is deleted without a loss being written down, and that file and `-wal` keep within `max_size`.
//! It decides nothing about when: [`crate::upkeep`] and the device call its steps.

pub mod audit;
pub mod error;
pub mod file;
pub mod high_water;
pub mod identity;
pub mod plain;
pub mod query;
mod raw;
pub mod reader;
#[cfg(test)]
pub(crate) mod sample;
pub mod scan;
pub mod vtab;
pub mod wal_scan;

pub use error::StoreError;
