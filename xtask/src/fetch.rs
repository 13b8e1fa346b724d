//! `cargo xtask fetch`: brings everything that a grid needs onto this machine, so that it can train without a network.

use std::path::PathBuf;

use anyhow::Result;

use crate::grid::Grid;
use crate::reproduce::{Inputs, Places};

/// Arguments of `cargo xtask fetch`.
#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// Grid to fetch for: a built-in one, or a .toml file
    #[arg(default_value = "mini")]
    grid: String,
    /// Folder that may hold the grid's checkpoint as a folder
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Folder of the data, if it is not to be fetched
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// For a bad grid, and when something cannot be fetched.
pub(crate) fn run(args: &FetchArgs) -> Result<()> {
    let grid = Grid::load(&args.grid)?;
    let places = Places {
        models: args.models.as_deref(),
        data: args.data.as_deref(),
        fetch: true,
    };
    let inputs = Inputs::find(&grid, places)?;
    for (name, path) in &inputs.models {
        println!("model {name}: {}", path.display());
    }
    let tasks: Vec<&str> = grid.tasks().iter().map(|task| task.name()).collect();
    let data = inputs.data.unwrap_or_default();
    println!(
        "data {} ({}): {}",
        grid.data,
        tasks.join(", "),
        data.display()
    );
    Ok(())
}
