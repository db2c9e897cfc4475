//! (being built)
mod counters;
mod file;
mod hwmon;
mod iio;
mod poll;
mod power_supply;
mod proc;
mod sysfs;
mod thermal;
mod w1;
pub mod ingest;
pub mod line_protocol;
pub mod name;
pub mod stream;
