//! The uplink: what the store has committed goes to the fleet, and what the fleet says it holds comes back.
//!
//! What enters: the store, the connection, the news of a commit. What leaves: envelopes on MQTT, acks for the store,
//! [`UplinkStatus`]. [`machine`] decides and touches nothing; [`run`] performs what it decides.

mod flights;
mod lane;
pub mod machine;
mod status;
mod task;

pub use lane::Head;
pub use status::{SharedStatus, UplinkStatus};
pub use task::{UplinkEnd, run};

#[cfg(test)]
mod tests;
