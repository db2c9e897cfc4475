//! `varved`: the service for the board and the technician's commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    varved::cli::varved(std::env::args_os())
}
