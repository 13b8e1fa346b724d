//! `results/README.md`: what there is, grid by grid.

use anyhow::Result;

use super::table::{Align, Table};
use super::words;
use crate::grid::{Approach, Grid};
use crate::results::Results;
use crate::workspace;

/// The whole page, from the records of every grid that ships with the project.
///
/// # Errors
/// For unreadable records.
pub(super) fn page() -> Result<String> {
    let mut table = Table::new([
        ("Grid", Align::Left),
        ("What", Align::Left),
        ("Models", Align::Left),
        ("Tasks", Align::Left),
        ("Methods", Align::Left),
        ("Runs", Align::Right),
        ("Peer", Align::Right),
    ]);
    for name in Grid::names() {
        let grid = Grid::load(name)?;
        let results = Results::load(&grid, &workspace::results(name))?;
        table.row(row(&results));
    }
    Ok(format!(
        "# Results\n\nEvery grid has a folder: `records/` holds what each run left (`run.json`, `log.jsonl`), `peer/` the same of \
         PyTorch + PEFT where it was run beside, and `README.md` with its figures is rendered from these and from nothing \
         else. `cargo xtask reproduce GRID` does the runs, `cargo xtask report GRID` renders. What has no run yet is shown as \
         missing.\n\n{}\nTimes of a training step beside PyTorch + PEFT are in [performance](../docs/performance.md), their \
         records in `bench/`.\n",
        table.markdown()
    ))
}

fn row(results: &Results) -> [String; 7] {
    let grid = &results.grid;
    let methods: Vec<String> = grid.approaches().iter().map(Approach::label).collect();
    let tasks: Vec<&str> = grid.tasks().into_iter().map(words::task).collect();
    let peer: usize = results.cells.iter().map(|cell| cell.peer.len()).sum();
    let all = grid.cells.len() * grid.seeds.len();
    [
        format!("[{0}]({0}/README.md)", grid.name),
        grid.title.clone(),
        grid.models().join(", "),
        tasks.join(", "),
        methods.join(", "),
        format!("{} of {all}", results.all().count()),
        if peer > 0 {
            peer.to_string()
        } else {
            String::new()
        },
    ]
}
