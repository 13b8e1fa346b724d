//! Our runs beside published numbers, in the layout of the LoRA paper's table 2: a model and method a row, a task a
//! column.

use lowburn_glue::Task;

use super::page::MISSING;
use super::stats::Summary;
use super::table::{Align, Table};
use super::words;
use crate::grid::{Approach, Published};
use crate::results::{CellResults, Results};

/// The order of the paper's columns.
const COLUMNS: [Task; 9] = [
    Task::Mnli,
    Task::Sst2,
    Task::Mrpc,
    Task::Cola,
    Task::Qnli,
    Task::Qqp,
    Task::Rte,
    Task::Stsb,
    Task::Wnli,
];

/// Heading, words and table; nothing when the grid has no published number.
pub(super) fn section(results: &Results) -> String {
    if results
        .cells
        .iter()
        .all(|cell| cell.cell.published.is_none())
    {
        return String::new();
    }
    format!(
        "\n## Beside the published numbers\n\nOurs is the median over seeds of each run's best score on the dev set, with \
         the standard deviation and the number of runs in parentheses; published is what the grid cites, with its \
         spread where it has one. A difference is `within` when the published range (value and spread) and the range \
         of our seeds have a value in common. The average is over the row's tasks, when none is missing.\n\n{}",
        table(results).markdown()
    )
}

fn table(results: &Results) -> Table {
    let used = |task: &Task| results.cells.iter().any(|cell| cell.cell.task == *task);
    let tasks: Vec<Task> = COLUMNS.into_iter().filter(used).collect();
    let mut columns = vec![
        ("Model".to_owned(), Align::Left),
        ("Method".to_owned(), Align::Left),
        (String::new(), Align::Left),
    ];
    columns.extend(
        tasks
            .iter()
            .map(|&task| (words::task(task).to_owned(), Align::Right)),
    );
    columns.push(("Average".to_owned(), Align::Right));
    let mut table = Table::new(columns);
    for (model, approach) in rows(results) {
        let found: Vec<Option<&CellResults>> = tasks
            .iter()
            .map(|&task| {
                let mut cells = results.of_task(task);
                cells.find(|cell| {
                    cell.cell.model == model && cell.cell.approach.slug() == approach.slug()
                })
            })
            .collect();
        let ours: Vec<Option<Summary>> = found
            .iter()
            .map(|cell| cell.and_then(|cell| Summary::of(&cell.points())))
            .collect();
        let published: Vec<Option<Published>> = found
            .iter()
            .map(|cell| cell.and_then(|cell| cell.cell.published))
            .collect();
        let first = found
            .iter()
            .flatten()
            .next()
            .map_or("", |cell| cell.cell.short_model());
        let mut line = |head: [String; 3], cells: Vec<String>, average: String| {
            table.row(head.into_iter().chain(cells).chain([average]));
        };
        // A task that the row has no cell of stays empty; a cell without a run is missing.
        let asked: Vec<bool> = found.iter().map(Option::is_some).collect();
        line(
            [first.to_owned(), approach.label(), "ours".to_owned()],
            ours.iter()
                .zip(&asked)
                .map(|(summary, asked)| our_cell(*summary, *asked))
                .collect(),
            average(
                &ours
                    .iter()
                    .map(|summary| summary.map(|summary| summary.median))
                    .collect::<Vec<_>>(),
                &asked,
            ),
        );
        line(
            [String::new(), String::new(), "published".to_owned()],
            published
                .iter()
                .map(|published| published.map_or(String::new(), published_cell))
                .collect(),
            average(
                &published
                    .iter()
                    .map(|published| published.map(|published| published.value))
                    .collect::<Vec<_>>(),
                &asked,
            ),
        );
        line(
            [String::new(), String::new(), "difference".to_owned()],
            ours.iter()
                .zip(&published)
                .map(|(ours, published)| difference(*ours, *published))
                .collect(),
            String::new(),
        );
    }
    table
}

/// Model and method of every row, in the grid's order.
fn rows(results: &Results) -> Vec<(String, Approach)> {
    let mut rows: Vec<(String, Approach)> = Vec::new();
    for cell in &results.cells {
        let (model, approach) = (&cell.cell.model, &cell.cell.approach);
        if !rows
            .iter()
            .any(|(other, known)| other == model && known.slug() == approach.slug())
        {
            rows.push((model.clone(), approach.clone()));
        }
    }
    rows
}

fn our_cell(summary: Option<Summary>, asked: bool) -> String {
    match summary {
        Some(summary) if summary.count > 1 => {
            format!(
                "{:.1} ± {:.1} ({})",
                summary.median, summary.deviation, summary.count
            )
        }
        Some(summary) => format!("{:.1} (1)", summary.median),
        None if asked => MISSING.to_owned(),
        None => String::new(),
    }
}

fn published_cell(published: Published) -> String {
    match published.spread {
        Some(spread) => format!("{:.1} ± {spread:.1}", published.value),
        None => format!("{:.1}", published.value),
    }
}

/// `-0.3 within`: ours less the published value, and whether the ranges meet.
fn difference(ours: Option<Summary>, published: Option<Published>) -> String {
    let (Some(ours), Some(published)) = (ours, published) else {
        return String::new();
    };
    let spread = published.spread.unwrap_or(0.0);
    let meet = ours.min <= published.value + spread && published.value - spread <= ours.max;
    let word = if meet { "within" } else { "outside" };
    format!("{:+.1} {word}", ours.median - published.value)
}

/// The mean over the tasks of a row, if none of them is missing.
fn average(values: &[Option<f64>], asked: &[bool]) -> String {
    let wanted = values
        .iter()
        .zip(asked)
        .filter(|(_, asked)| **asked)
        .map(|(value, _)| *value);
    let all: Option<Vec<f64>> = wanted.collect();
    all.filter(|all| all.len() > 1)
        .and_then(|all| Summary::of(&all))
        .map_or(String::new(), |all| format!("{:.1}", all.mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(value: f64, spread: Option<f64>) -> Option<Published> {
        Some(Published { value, spread })
    }

    #[test]
    fn ranges_meet_or_do_not() {
        let ours = Summary::of(&[95.0, 95.4, 95.6]);
        assert_eq!(difference(ours, published(95.1, Some(0.2))), "+0.3 within");
        assert_eq!(difference(ours, published(94.9, Some(0.1))), "+0.5 within");
        assert_eq!(difference(ours, published(94.8, Some(0.1))), "+0.6 outside");
        assert_eq!(difference(ours, published(95.7, None)), "-0.3 outside");
        assert_eq!(difference(None, published(95.7, None)), "");
        assert_eq!(difference(ours, None), "");
    }

    #[test]
    fn what_is_missing_is_missing_and_not_zero() {
        assert_eq!(our_cell(None, true), "missing");
        assert_eq!(our_cell(None, false), "");
        assert_eq!(our_cell(Summary::of(&[90.0]), true), "90.0 (1)");
        assert_eq!(average(&[Some(90.0), None], &[true, true]), "");
        assert_eq!(
            average(&[Some(90.0), None, Some(80.0)], &[true, false, true]),
            "85.0"
        );
    }
}
