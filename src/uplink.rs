//! The uplink: what the store has committed goes to the fleet, and what the fleet says it holds comes back.
//!
//! What enters: the store, the connection, the news of a commit. What leaves: envelopes on MQTT, acks for the store,
//! [`UplinkStatus`]. [`machine`] decides and touches nothing, `pace` how much and how fast; `answers` asks the store, `voice` puts into words what it
//! says, and [`run`] does what waits: it publishes, and listens.

pub(crate) mod answers;
mod flights;
mod lane;
pub mod machine;
mod pace;
mod status;
mod task;
mod unheard;
pub(crate) mod voice;

pub use lane::Head;
pub use pace::{Figures, Outlook};
pub use status::{SharedStatus, UplinkStatus};
pub use task::{UplinkEnd, run};

#[cfg(test)]
mod tests;
