//! Which runs of a grid are meant.

use anyhow::{Result, ensure};

use crate::grid::{Cell, Grid};

/// A cell with a seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick<'a> {
    /// The recipe.
    pub(crate) cell: &'a Cell,
    /// The cell whose run of the same seed it starts from.
    pub(crate) start: Option<&'a Cell>,
    /// The seed.
    pub(crate) seed: u64,
}

impl Pick<'_> {
    /// The run's name.
    pub(crate) fn name(&self) -> String {
        self.cell.run_name(self.seed)
    }

    /// The name of the run that it starts from.
    pub(crate) fn start_name(&self) -> Option<String> {
        self.start.map(|start| start.run_name(self.seed))
    }
}

/// The runs whose names hold one of the filters (all for none) and those that they start from, seed by seed, so that every
/// cell has its first number early.
///
/// # Errors
/// When no run matches.
pub(crate) fn picks<'a>(grid: &'a Grid, filters: &[String]) -> Result<Vec<Pick<'a>>> {
    let matches = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let all: Vec<Pick<'a>> = grid
        .seeds
        .iter()
        .flat_map(|&seed| {
            grid.cells.iter().map(move |cell| Pick {
                cell,
                start: grid.start_of(cell),
                seed,
            })
        })
        .collect();
    let matching = || all.iter().filter(|pick| matches(&pick.name()));
    let starts: Vec<String> = matching().filter_map(Pick::start_name).collect();
    let picked = |pick: &&Pick<'a>| {
        let name = pick.name();
        matches(&name) || starts.contains(&name)
    };
    let picks: Vec<Pick<'a>> = all.iter().filter(picked).copied().collect();
    ensure!(
        !picks.is_empty(),
        "no run of the grid {} matches --filter {}",
        grid.name,
        filters.join(" ")
    );
    Ok(picks)
}

/// The cells of these runs, as a grid.
pub(crate) fn cells_of(grid: &Grid, picks: &[Pick<'_>]) -> Grid {
    let used = |cell: &&Cell| picks.iter().any(|pick| pick.cell == *cell);
    Grid {
        cells: grid.cells.iter().filter(used).cloned().collect(),
        ..grid.clone()
    }
}
