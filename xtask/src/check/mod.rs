//! `cargo xtask check`: the one gate, cheapest check first.
//!
//! What a machine can check about this project is checked here and nowhere else, so that a change that passes at home
//! passes everywhere.

mod rules;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::grid::Grid;
use crate::{bench, report, workspace};

/// Runs the gate.
///
/// # Errors
/// With the first check that fails; all rules of the cheap kind are tried before it stops.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut failures = Vec::new();
    let mut quick = |name: &str, outcome: Result<()>| match outcome {
        Ok(()) => eprintln!("ok      {name}"),
        Err(error) => {
            eprintln!("FAILED  {name}: {error:#}");
            failures.push(name.to_owned());
        }
    };
    quick("dependencies point one way", rules::dependencies(&root));
    quick(
        "every source file says what it is for",
        rules::headers(&root),
    );
    quick("re-exports are explicit", rules::re_exports(&root));
    quick(
        "nothing is left unfinished or switched off",
        rules::unfinished(&root),
    );
    quick("records name no places", rules::records(&root));
    for name in Grid::names() {
        let outcome =
            Grid::load(name).and_then(|grid| report::check(&grid, &workspace::results(name)));
        quick(&format!("results/{name} is what its records give"), outcome);
    }
    quick(
        "docs/performance.md is what its records give",
        bench::check(),
    );
    if !failures.is_empty() {
        bail!(
            "{} of the quick checks failed: {}",
            failures.len(),
            failures.join("; ")
        );
    }
    for warning in rules::long_files(&root)? {
        eprintln!("note    {warning}");
    }
    cargo(&root, "format", &["fmt", "--all", "--check"], None)?;
    cargo(
        &root,
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        None,
    )?;
    let strict = Some(("RUSTDOCFLAGS", "-D warnings"));
    cargo(
        &root,
        "documentation",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        strict,
    )?;
    eprintln!("all checks passed");
    Ok(())
}

fn cargo(
    root: &Path,
    name: &str,
    arguments: &[&str],
    variable: Option<(&str, &str)>,
) -> Result<()> {
    let start = Instant::now();
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments);
    if let Some((key, value)) = variable {
        command.env(key, value);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot start cargo {}", arguments[0]))?;
    if !status.success() {
        bail!("{name} failed: cargo {}", arguments.join(" "));
    }
    eprintln!("ok      {name} ({:.0} s)", start.elapsed().as_secs_f64());
    Ok(())
}
