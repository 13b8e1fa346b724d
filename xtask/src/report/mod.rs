//! `cargo xtask report`: tables and figures from run records alone.
//!
//! The same records give the same bytes, so `--check` renders again and compares. What is in the repository can then
//! not differ from the runs that it claims to show.

pub(crate) mod canvas;
mod curves;
mod figures;
mod front;
mod markers;
mod page;
mod peer;
mod published;
mod stats;
mod table;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use markers::replace as replace_part;
pub(crate) use stats::Summary;
pub(crate) use table::{Align, Table, bytes, duration};

use crate::grid::Grid;
use crate::results::{Results, strays};
use crate::workspace;

/// Arguments of `cargo xtask report`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Grid to render; all that ship with the project when left out
    grid: Option<String>,
    /// Other seeds than the grid's, as given to reproduce
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// A key that was replaced in every recipe, as given to reproduce
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Compare with what is there instead of writing; fails on any difference
    #[arg(long)]
    check: bool,
    /// Folder that holds records/ and peer/ and gets the report [default: results/GRID]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// For unreadable records, and with `--check` for a rendering that differs.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let names: Vec<String> = match &args.grid {
        Some(name) => vec![name.clone()],
        None => Grid::names().into_iter().map(str::to_owned).collect(),
    };
    for name in names {
        let mut grid = Grid::load_with(&name, &args.set)?;
        if !args.seeds.is_empty() {
            grid.set_seeds(args.seeds.clone()).context("--seeds")?;
        }
        let folder = args
            .output
            .clone()
            .unwrap_or_else(|| workspace::results(&grid.name));
        if args.check {
            check(&grid, &folder)?;
        } else {
            println!("{}", write(&grid, &folder)?);
        }
    }
    Ok(())
}

/// Renders a grid into `folder`, and into the project's documents when `folder` is the project's own; gives the table
/// for the terminal.
///
/// # Errors
/// For unreadable records and for files that cannot be written.
pub(crate) fn write(grid: &Grid, folder: &Path) -> Result<String> {
    let results = Results::load(grid, folder)?;
    for (path, text) in rendered(&results, folder)? {
        workspace::write(&path, &text)?;
    }
    Ok(page::main_table(&results).markdown())
}

/// Fails when rendering a grid again would change a file.
///
/// # Errors
/// Naming the files that differ and the command that mends them.
pub(crate) fn check(grid: &Grid, folder: &Path) -> Result<()> {
    let results = Results::load(grid, folder)?;
    let stray = strays(grid, folder)?;
    if let Some(path) = stray.first() {
        bail!(
            "{} is no run of the grid {}; remove it",
            path.display(),
            grid.name
        );
    }
    let mut differing = Vec::new();
    for (path, text) in rendered(&results, folder)? {
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            differing.push(path.display().to_string());
        }
    }
    if !differing.is_empty() {
        bail!(
            "not what the records give: {}; render again with `cargo xtask report {}`",
            differing.join(", "),
            grid.name
        );
    }
    Ok(())
}

/// All files that a grid's records decide, whole.
fn rendered(results: &Results, folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let mut parts = Vec::new();
    let models = results.grid.models();
    for model in &models {
        let part = results.of_model(model);
        // With several models each has its figures, under names that begin with the model's.
        let prefix = match (models.len(), part.cells.first()) {
            (2.., Some(cell)) => format!("{}-", cell.cell.short_model()),
            _ => String::new(),
        };
        let mut names = Vec::new();
        for (name, svg) in figures::render(&part)? {
            let name = format!("{prefix}{name}");
            files.push((folder.join(&name), svg));
            names.push(name);
        }
        parts.push(page::Part {
            results: part,
            figures: names,
        });
    }
    files.insert(0, (folder.join("README.md"), page::page(results, &parts)));
    if folder == workspace::results(&results.grid.name) {
        files.extend(readme(results)?);
        let front = workspace::root().join("results").join("README.md");
        files.push((front, front::page()?));
    }
    Ok(files)
}

/// The project's README, if it has a place for this grid.
fn readme(results: &Results) -> Result<Option<(PathBuf, String)>> {
    let path = workspace::root().join("README.md");
    let name = format!("results {}", results.grid.name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if !text.contains(&format!("<!-- begin {name} -->")) {
        return Ok(None);
    }
    let changed = replace_part(&text, &name, &page::summary_table(results).markdown())
        .with_context(|| format!("in {}", path.display()))?;
    Ok(Some((path, changed)))
}
