//! The binary: everything is in the library, so that other programs can do what it does.

use std::process::ExitCode;

/// Tensors keep their memory from step to step.
#[global_allocator]
static PAGES: lowburn::PagePool = lowburn::PagePool;

fn main() -> ExitCode {
    lowburn::run(std::env::args_os())
}
