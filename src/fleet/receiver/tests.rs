//! Stories of devices and one receiver, with real replicas in a folder of their own.

mod rig;
mod stories;
mod hostile;
mod random;
