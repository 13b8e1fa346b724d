//! Project tasks, run as `cargo xtask`: fetch, reproduce, report, bench, check.
//!
//! Everything that trains, evaluates or reads a model is in the crates; here lies what the project does with them:
//! running grids of experiments, rendering what came out, comparing speed, and the gate. Results go to standard
//! output, messages to standard error.

mod bench;
mod check;
mod estimate;
mod fetch;
mod grid;
mod record;
mod report;
mod reproduce;
mod results;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tensors keep their memory from step to step.
#[global_allocator]
static PAGES: lowburn::PagePool = lowburn::PagePool;

/// Tasks of the lowburn project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Fetch the model and the data that a grid needs, before going offline
    Fetch(fetch::FetchArgs),
    /// Run a grid of experiments and render its table and figures
    Reproduce(reproduce::ReproduceArgs),
    /// Render tables and figures from the records that are there
    Report(report::ReportArgs),
    /// Time a training step beside PyTorch + PEFT
    Bench(bench::BenchArgs),
    /// Check format, rules, results, lints and documentation
    Check,
    /// One run, for `reproduce`
    #[command(hide = true)]
    Work,
    /// Our side, for `bench`
    #[command(hide = true)]
    BenchOurs(bench::OursArgs),
    /// A command of the binary in a process of its own, for `bench`
    #[command(hide = true)]
    BenchCommand {
        /// The command and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        line: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    lowburn::guarded(|| match &cli.task {
        Task::Fetch(args) => fetch::run(args),
        Task::Reproduce(args) => reproduce::run(args),
        Task::Report(args) => report::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Check => check::run(),
        Task::Work => reproduce::work(),
        Task::BenchOurs(args) => bench::serve(args),
        Task::BenchCommand { line } => bench::command(line),
    })
}
