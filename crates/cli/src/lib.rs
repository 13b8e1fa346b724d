//! The command line of lowburn, as a library.
//!
//! A command goes through two stages: what was typed (the structs of [`args`], by clap) becomes a
//! checked plan of `lowburn-trainer`, and only plans do anything. Nothing here trains, evaluates
//! or knows a file format; it parses, shows progress, prints results and turns every failure,
//! even a panic of a library, into one line and an exit code.
//!
//! Results go to standard output, everything else to standard error.

pub mod args;
mod commands;
mod guard;
mod locate;
mod progress;
mod show;
mod tensorboard;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};
pub use commands::{execute, train_config};
pub use guard::{guarded, one_line};
pub use locate::{data, model, training_data};
pub use lowburn_trainer::PagePool;
pub use progress::{Progress, Verbosity};
pub use show::{duration, grouped, pace, score_table};
pub use tensorboard::TensorBoard;

/// Runs one command line, program name first, and says how it went:
/// 0 done, 1 failed, 2 not a valid command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code().clamp(0, 255) as u8);
        }
    };
    start_logging(cli.command.quiet());
    guarded(|| {
        set_threads(cli.command.threads())?;
        in_pool(|| execute(&cli.command))
    })
}

/// Messages of all crates go to standard error, as `RUST_LOG` says; warnings without it.
fn start_logging(quiet: bool) {
    let default = if quiet { "error" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    // A program that has set up its own logging keeps it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
}

/// Fixes the threads of the process, before anything computes; all cores where no number is given.
///
/// # Errors
/// When it is 0 or absurd.
pub fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        anyhow::bail!(
            "threads is {threads}: give a number from 1 to 4096, or leave it out for all cores"
        );
    }
    // To rayon 0 is as many as there are. A pool that is already there (another run in this process) stays.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .stack_size(STACK)
        .build_global();
    Ok(())
}

/// Bytes of stack of a thread of the pool: as much as a main thread has.
const STACK: usize = 8 << 20;

/// Does work on a thread of the pool that [`set_threads`] made. From outside every parallel operation would hand all of its work over and sleep until it is
/// done, some thousand times a step.
pub fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// The examples in the project's README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
