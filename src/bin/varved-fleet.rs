//! `varved-fleet`: the receiver of a fleet's segments.

fn main() {}
