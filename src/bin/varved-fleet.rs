//! `varved-fleet`: the receiver of a fleet's segments.

use std::process::ExitCode;

fn main() -> ExitCode {
    varved::cli::fleet::varved_fleet(std::env::args_os())
}
