//! The binary: everything is in the library, so that other programs can do what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    lowburn::run(std::env::args_os())
}
