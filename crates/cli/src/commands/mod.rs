//! One file for each command: from arguments to a plan, from an outcome to a print.

mod convert;
mod devices;
mod evaluate;
mod init;
mod inspect;
mod merge;
mod predict;
mod submit;
mod train;

use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::args::Command;

pub use train::train_config;

/// Does what was asked.
///
/// # Errors
/// Whatever goes wrong; nothing half-written is left behind.
pub fn execute(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Train(args) => train::execute(args),
        Command::Eval(args) => evaluate::execute(args),
        Command::Predict(args) => predict::execute(args),
        Command::Submit(args) => submit::execute(args),
        Command::Merge(args) => merge::execute(args),
        Command::Convert(args) => convert::execute(args),
        Command::Inspect(args) => inspect::execute(args),
        Command::Init(args) => init::execute(args),
        Command::Devices(args) => devices::execute(args),
    }
}

/// Writes a result to standard output; unlike `print!` it fails without a panic.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// A message for people, on standard error.
fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Refuses an output that exists, unless it may be replaced and is of the right kind.
fn check_output(path: &Path, overwrite: bool, folder: bool) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let kind = if folder { "folder" } else { "file" };
    if !overwrite {
        anyhow::bail!(
            "output {kind} {} exists: replace it with --overwrite or give another --output",
            path.display()
        );
    }
    if path.is_dir() != folder {
        anyhow::bail!(
            "output {} is not a {kind}: give another --output",
            path.display()
        );
    }
    Ok(())
}

/// Refuses a file in a folder that is not there, before any work goes into it.
fn check_parent(path: &Path) -> anyhow::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => anyhow::bail!(
            "output {}: there is no folder {}: create its folder first",
            path.display(),
            parent.display()
        ),
        _ => Ok(()),
    }
}

/// Whether two paths are one file or folder that exists.
fn same_place(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Builds a folder whole or not at all; replaces one that holds `marker`, and no other.
fn write_folder(
    output: &Path,
    marker: &str,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let occupied = output.is_dir() && output.read_dir()?.next().is_some();
    if occupied && !output.join(marker).exists() {
        anyhow::bail!(
            "output folder {} holds no {marker}: it is not what would be replaced; give another --output",
            output.display()
        );
    }
    if let Some(parent) = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let mut failure = None;
    let outcome = lowburn_trainer::replace_folder(output, |folder| {
        build(folder).map_err(|error| {
            let text = crate::guard::one_line(&error);
            failure = Some(error);
            lowburn_trainer::TrainError::State {
                path: folder.to_path_buf(),
                reason: text,
            }
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(outcome?),
    }
}
