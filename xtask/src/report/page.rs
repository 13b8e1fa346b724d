//! The Markdown of a grid: tables from records, and nothing that was typed.

use std::collections::BTreeSet;

use lowburn::grouped;
use lowburn_glue::Task;

use super::peer;
use super::published;
use super::stats::Summary;
use super::table::{Align, Table, bytes, duration};
use super::words;
use crate::grid::Approach;
use crate::record::Record;
use crate::results::{CellResults, Results};

/// In the place of what no run has given yet.
pub(super) const MISSING: &str = "missing";

/// One model's part of a page.
pub(crate) struct Part {
    /// Its records.
    pub(crate) results: Results,
    /// Names of its figures.
    pub(crate) figures: Vec<String>,
}

/// The whole of `results/<grid>/README.md`.
pub(crate) fn page(results: &Results, parts: &[Part]) -> String {
    let grid = &results.grid;
    let mut text = format!("# {}\n\n{}\n\n", grid.title, grid.about);
    text += &format!(
        "Rendered from `records/` by `cargo xtask report {0}`; made by `{1}`.\n{2}\n",
        grid.name,
        command(results),
        provenance(results)
    );
    text += &published::section(results);
    for part in parts {
        text += &of_one_model(part, parts.len() > 1);
    }
    text
}

/// Tables and figures of one model, under its name where there are several.
fn of_one_model(part: &Part, named: bool) -> String {
    let Part { results, figures } = part;
    let mut text = String::new();
    if named {
        let model = results.grid.models().join(", ");
        text += &format!("\n# {model}\n\n{}\n", provenance(results));
    }
    text += "\n## Best score by task and method\n\n";
    text += "Mean and standard deviation over seeds of each run's best score on the dev set, in points; \
             `vs full` is the difference of the means.\n\n";
    text += &main_table(results).markdown();
    text += &peer::section(results);
    if !figures.is_empty() {
        text += "\n## Figures\n";
        for name in figures {
            text += &format!("\n![{}]({name})\n", caption(name));
        }
    }
    text += "\n## Cost\n\n";
    text += &cost_table(results).markdown();
    text += "\n## Every run\n\n";
    text += &runs_table(results).markdown();
    text
}

fn command(results: &Results) -> String {
    if results.grid.models() == ["mini"] {
        return format!("cargo xtask reproduce {}", results.grid.name);
    }
    format!(
        "cargo xtask reproduce {} --models DIR --data DIR",
        results.grid.name
    )
}

/// The figures of a model.
const KINDS: [&str; 6] = [
    "methods.svg",
    "curves.svg",
    "peer.svg",
    "parameters.svg",
    "ranks.svg",
    "cost.svg",
];

fn caption(name: &str) -> &'static str {
    let kind = KINDS.iter().find(|kind| name.ends_with(*kind));
    match kind.copied().unwrap_or_default() {
        "methods.svg" => "Best score of every seed by method, one panel a task",
        "curves.svg" => "Score at every evaluation by method, one panel a task",
        "peer.svg" => {
            "Score at every evaluation of lowburn and of PyTorch + PEFT, one panel a task"
        }
        "parameters.svg" => "Best score by number of trained parameters, one panel a task",
        "cost.svg" => "Peak memory and training time by method, a dot a run",
        "ranks.svg" => "Best score by rank of the adapters, one panel a task",
        _ => "Figure",
    }
}

/// Machine, threads and version, or the several of them.
fn provenance(results: &Results) -> String {
    if results.is_empty() {
        return "No run is there yet.".to_owned();
    }
    let machines: BTreeSet<String> = results
        .all()
        .map(|record| {
            let plural = if record.threads == 1 { "" } else { "s" };
            let place = format!("{}, {} thread{plural}", record.cpu, record.threads);
            match record.device.as_deref() {
                None | Some("flex" | "cpu") => place,
                Some(card) => format!("{card} ({place})"),
            }
        })
        .collect();
    let versions: BTreeSet<String> = results
        .all()
        .filter_map(|record| record.version.clone())
        .collect();
    let machines: Vec<String> = machines.into_iter().collect();
    let versions: Vec<String> = versions.into_iter().collect();
    let (done, all) = (
        results.all().count(),
        results.cells.len() * results.grid.seeds.len(),
    );
    format!(
        "{done} of {all} runs, lowburn {}, on {}.",
        versions.join(" and "),
        machines.join("; ")
    )
}

/// Best score over seeds, one row a cell.
pub(crate) fn main_table(results: &Results) -> Table {
    let mut table = Table::new([
        ("Task", Align::Left),
        ("Method", Align::Left),
        ("Metric", Align::Left),
        ("Mean ± sd", Align::Right),
        ("Median", Align::Right),
        ("Min to max", Align::Right),
        ("vs full", Align::Right),
        ("Trained", Align::Right),
        ("of all", Align::Right),
        ("Time a run", Align::Right),
        ("Runs", Align::Right),
    ]);
    for task in results.grid.tasks() {
        let full = mean_of(results, task, |approach| matches!(approach, Approach::Full));
        for cell in results.of_task(task) {
            table.row(main_row(results, cell, full));
        }
    }
    table
}

fn main_row(results: &Results, cell: &CellResults, full: Option<f64>) -> Vec<String> {
    let task = cell.cell.task;
    let mut row = vec![
        words::task(task).to_owned(),
        cell.cell.approach.label(),
        words::metric(task.metrics()[0]).to_owned(),
    ];
    let runs = format!("{}/{}", cell.ours.len(), results.grid.seeds.len());
    let (Some(summary), Some(counts)) = (Summary::of(&cell.points()), cell.parameters()) else {
        row.extend([MISSING, "", "", "", "", "", ""].map(str::to_owned));
        row.push(runs);
        return row;
    };
    let difference = match full {
        Some(full) if cell.cell.approach != Approach::Full => {
            format!("{:+.1}", summary.mean - full)
        }
        _ => String::new(),
    };
    row.extend([
        summary.mean_and_deviation(),
        format!("{:.1}", summary.median),
        format!("{:.1} to {:.1}", summary.min, summary.max),
        difference,
        grouped(counts.trainable),
        percent(counts.trainable, counts.total),
        mean_time(&cell.ours),
        runs,
    ]);
    row
}

fn mean_of(results: &Results, task: Task, wanted: impl Fn(&Approach) -> bool) -> Option<f64> {
    let cell = results
        .of_task(task)
        .find(|cell| wanted(&cell.cell.approach))?;
    Summary::of(&cell.points()).map(|summary| summary.mean)
}

fn percent(part: usize, whole: usize) -> String {
    let share = part as f64 / whole.max(1) as f64 * 100.0;
    if share < 10.0 {
        format!("{share:.2} %")
    } else {
        format!("{share:.0} %")
    }
}

/// In the place of a time that was taken while the machine did other work.
pub(super) const SHARED: &str = "shared machine";

/// Mean time of a run; nothing where a time was taken on a busy machine.
pub(super) fn mean_time(runs: &[(u64, Record)]) -> String {
    if runs.iter().any(|(_, record)| !record.timing_valid) {
        return SHARED.to_owned();
    }
    let seconds: Vec<f64> = runs
        .iter()
        .map(|(_, record)| record.timing.total_seconds)
        .collect();
    Summary::of(&seconds)
        .map(|summary| duration(summary.mean))
        .unwrap_or_default()
}

/// Time and memory, one row a cell.
fn cost_table(results: &Results) -> Table {
    let mut table = Table::new([
        ("Task", Align::Left),
        ("Method", Align::Left),
        ("Time a run", Align::Right),
        ("Examples/s", Align::Right),
        ("Peak memory", Align::Right),
        ("Adapter", Align::Right),
        ("Head", Align::Right),
        ("Trained", Align::Right),
    ]);
    for cell in &results.cells {
        let of = |get: fn(&Record) -> f64| {
            let values: Vec<f64> = cell.ours.iter().map(|(_, record)| get(record)).collect();
            Summary::of(&values)
        };
        let mut row = vec![
            words::task(cell.cell.task).to_owned(),
            cell.cell.approach.label(),
        ];
        let (Some(time), Some(counts)) =
            (of(|record| record.timing.total_seconds), cell.parameters())
        else {
            row.push(MISSING.to_owned());
            table.row(row);
            continue;
        };
        let alone = cell.ours.iter().all(|(_, record)| record.timing_valid);
        let speed = of(|record| record.timing.examples_per_second)
            .filter(|_| alone)
            .map(|s| format!("{:.0}", s.median));
        let memory = cell
            .ours
            .iter()
            .filter_map(|(_, record)| record.peak_memory_bytes)
            .max();
        row.extend([
            if alone {
                duration(time.mean)
            } else {
                SHARED.to_owned()
            },
            speed.unwrap_or_default(),
            memory.map(bytes).unwrap_or_default(),
            grouped(counts.adapter),
            grouped(counts.head),
            grouped(counts.trainable),
        ]);
        table.row(row);
    }
    table
}

/// One row a run.
fn runs_table(results: &Results) -> Table {
    let mut table = Table::new([
        ("Run", Align::Left),
        ("Best", Align::Right),
        ("Epoch", Align::Right),
        ("Time", Align::Right),
        ("Digest", Align::Left),
    ]);
    for cell in &results.cells {
        for &seed in &results.grid.seeds {
            let name = cell.cell.run_name(seed);
            let found = cell
                .ours
                .iter()
                .find(|(other, _)| *other == seed)
                .map(|(_, record)| record);
            let Some(record) = found else {
                table.row([name, MISSING.to_owned()]);
                continue;
            };
            let epoch = record
                .best
                .as_ref()
                .map(|best| format!("{:.4}", best.epoch));
            table.row([
                name,
                record
                    .best_points()
                    .map_or("not a number".to_owned(), |points| format!("{points:.2}")),
                epoch.map(trim_zeros).unwrap_or_default(),
                if record.timing_valid {
                    duration(record.timing.total_seconds)
                } else {
                    SHARED.to_owned()
                },
                record
                    .digest
                    .as_deref()
                    .map(|digest| digest.chars().take(12).collect())
                    .unwrap_or_default(),
            ]);
        }
    }
    table
}

fn trim_zeros(number: String) -> String {
    if number.contains('.') {
        return number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned();
    }
    number
}

/// The short table of the project's README: one row a method, one column a task, and the mean over tasks.
pub(crate) fn summary_table(results: &Results) -> Table {
    let tasks = results.grid.tasks();
    let mut columns = vec![
        ("Method".to_owned(), Align::Left),
        ("Trained".to_owned(), Align::Right),
    ];
    columns.extend(
        tasks
            .iter()
            .map(|&task| (words::task(task).to_owned(), Align::Right)),
    );
    // The mean over tasks says something where there are several.
    if tasks.len() > 1 {
        columns.push(("Mean".to_owned(), Align::Right));
    }
    let mut table = Table::new(columns);
    let mut seen = BTreeSet::new();
    for cell in &results.cells {
        let slug = cell.cell.approach.slug();
        if !seen.insert(slug.clone()) {
            continue;
        }
        let same: Vec<Option<&CellResults>> = tasks
            .iter()
            .map(|&task| {
                results
                    .of_task(task)
                    .find(|other| other.cell.approach.slug() == slug)
            })
            .collect();
        let counts = same.iter().flatten().find_map(|cell| cell.parameters());
        let trained = counts
            .map(|counts| {
                let share = percent(counts.trainable, counts.total);
                format!("{} ({share})", grouped(counts.trainable))
            })
            .unwrap_or_default();
        let label = cell.cell.approach.label();
        let ours = same
            .iter()
            .map(|cell| Summary::of(&cell.map(CellResults::points).unwrap_or_default()));
        table.row(summary_row(label.clone(), trained.clone(), ours.collect()));
        let peer: Vec<Option<Summary>> = same
            .iter()
            .map(|cell| Summary::of(&cell.map(CellResults::peer_points).unwrap_or_default()))
            .collect();
        if peer.iter().any(Option::is_some) {
            table.row(summary_row(
                format!("{label}, {}", words::PEER),
                trained,
                peer,
            ));
        }
    }
    table
}

fn summary_row(label: String, trained: String, tasks: Vec<Option<Summary>>) -> Vec<String> {
    let means: Option<Vec<f64>> = tasks
        .iter()
        .map(|summary| summary.map(|summary| summary.mean))
        .collect();
    let mut row = vec![label, trained];
    row.extend(
        tasks.iter().map(|summary| {
            summary.map_or(MISSING.to_owned(), |summary| summary.mean_and_deviation())
        }),
    );
    if tasks.len() < 2 {
        return row;
    }
    row.push(
        means
            .and_then(|means| Summary::of(&means))
            .map_or(String::new(), |all| format!("{:.1}", all.mean)),
    );
    row
}
