//! (being built)
mod counters;
mod hwmon;
mod thermal;
mod power_supply;
mod poll;
mod sysfs;
pub mod ingest;
pub mod line_protocol;
pub mod name;
pub mod stream;
