//! `varved`: the service for the board and the technician's commands.

fn main() {}
