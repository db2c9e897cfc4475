//! `varved-fleet`: the receiver of a fleet's segments.

use std::process::ExitCode;

fn main() -> ExitCode {
    varved::fleet::commands::varved_fleet(std::env::args_os())
}
