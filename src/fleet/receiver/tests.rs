//! Stories of devices and one receiver, with real replicas in a folder of their own.

mod conflicts;
mod floods;
mod fuzz;
mod gaps;
mod hostile;
mod random;
mod requests;
mod rig;
mod stories;
