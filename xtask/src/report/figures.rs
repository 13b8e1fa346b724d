//! The figures of a grid, as SVG text.

use std::collections::BTreeSet;

use anyhow::Result;
use lowburn_glue::Task;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{
    Area, Axes, Entry, INK, MUTED, Mark, PEER, color, diamond, drawing, figure, panel, text,
};
use super::curves;
use super::stats::Summary;
use super::words;
use crate::grid::Approach;
use crate::record::Record;
use crate::results::{CellResults, Results};

/// File names and SVG texts of all figures that the records allow.
///
/// # Errors
/// When plotters fails.
pub(crate) fn render(results: &Results) -> Result<Vec<(&'static str, String)>> {
    if results.is_empty() {
        return Ok(Vec::new());
    }
    let mut figures = vec![
        ("methods.svg", by_method(results)?),
        ("curves.svg", curves::all(results)?),
        ("parameters.svg", by_parameters(results)?),
    ];
    if ranks(results).len() > 1 {
        figures.push(("ranks.svg", by_rank(results)?));
    }
    figures.push(("cost.svg", cost(results)?));
    if let Some(svg) = curves::beside_peer(results)? {
        figures.push(("peer.svg", svg));
    }
    Ok(figures)
}

/// The ranks of the grid in rising order.
pub(super) fn ranks(results: &Results) -> Vec<usize> {
    let ranks: BTreeSet<usize> = results
        .grid
        .cells
        .iter()
        .filter_map(|cell| cell.approach.rank())
        .collect();
    ranks.into_iter().collect()
}

/// The methods of the grid in a fixed order: head, BitFit, LoRA by rank, full.
fn approaches(results: &Results) -> Vec<Approach> {
    let mut found = results.grid.approaches();
    found.sort_by_key(|approach| match approach {
        Approach::Head => (0, 0),
        Approach::Bitfit => (1, 0),
        Approach::Lora { rank, .. } => (2, *rank),
        Approach::Full => (3, 0),
    });
    found
}

/// The methods of ours that `wanted` picks.
pub(super) fn methods_legend(
    results: &Results,
    mark: Mark,
    wanted: impl Fn(&Approach) -> bool,
) -> Vec<Entry> {
    let ranks = ranks(results);
    approaches(results)
        .iter()
        .filter(|approach| wanted(approach))
        .map(|approach| Entry {
            label: approach.label(),
            color: color(approach, &ranks),
            mark,
        })
        .collect()
}

/// All methods, and the peer where it has runs.
fn legend(results: &Results) -> Vec<Entry> {
    let mut entries = methods_legend(results, Mark::Dot, |_| true);
    let mut peers: Vec<String> = Vec::new();
    for cell in results.cells.iter().filter(|cell| !cell.peer.is_empty()) {
        let label = cell.cell.approach.label();
        if !peers.contains(&label) {
            peers.push(label);
        }
    }
    if !peers.is_empty() {
        let label = format!("{}, {}", words::PEER, peers.join(" and "));
        entries.push(Entry {
            label,
            color: PEER,
            mark: Mark::Diamond,
        });
    }
    entries
}

/// Model and seeds, in the corner of a figure.
pub(super) fn note(results: &Results) -> String {
    let count = results.grid.seeds.len();
    format!(
        "{}, {count} seed{}",
        results.grid.models().join(", "),
        if count == 1 { "" } else { "s" }
    )
}

/// A filled dot.
pub(super) fn dot(area: &Area<'_>, at: (i32, i32), radius: i32, style: RGBAColor) -> Result<()> {
    area.draw(&Circle::new(at, radius, style.filled()))
        .map_err(drawing)
}

/// A line through pixels.
pub(super) fn stroke(
    area: &Area<'_>,
    points: Vec<(i32, i32)>,
    style: RGBAColor,
    width: u32,
) -> Result<()> {
    area.draw(&PathElement::new(points, style.stroke_width(width)))
        .map_err(drawing)
}

/// An axis with a place for each method: its range and the words on it.
fn method_axis(approaches: &[Approach]) -> ((f64, f64), Vec<(f64, String)>) {
    // Many do not fit side by side in full; the legend has the whole words.
    let words = |approach: &Approach| match approach.rank() {
        Some(rank) if approaches.len() > 4 => format!("r {rank}"),
        _ => approach.label(),
    };
    let place = |(place, approach): (usize, &Approach)| (place as f64, words(approach));
    let ticks = approaches.iter().enumerate().map(place).collect();
    ((-0.6, approaches.len() as f64 - 0.4), ticks)
}

/// The best score of every seed as a point, the mean as a bar with its value.
fn by_method(results: &Results) -> Result<String> {
    let (tasks, approaches, ranks) = (results.grid.tasks(), approaches(results), ranks(results));
    figure(
        "Best score by method",
        &note(results),
        &legend(results),
        tasks.len(),
        |index, area| {
            let task = tasks[index];
            let (range, ticks) = method_axis(&approaches);
            let axes = panel(
                area,
                words::task(task),
                ("", &words::axis(task)),
                range,
                &ticks,
                &all_points(results, task),
            )?;
            for cell in results.of_task(task) {
                let slug = cell.cell.approach.slug();
                let place = approaches
                    .iter()
                    .position(|approach| approach.slug() == slug)
                    .unwrap_or(0) as f64;
                let shade = color(&cell.cell.approach, &ranks);
                method_column(area, &axes, cell, place, shade)?;
            }
            Ok(())
        },
    )
}

fn method_column(
    area: &Area<'_>,
    axes: &Axes,
    cell: &CellResults,
    place: f64,
    shade: RGBColor,
) -> Result<()> {
    let peer = Summary::of(&cell.peer_points());
    let middle = if peer.is_some() { place - 0.14 } else { place };
    if let Some(summary) = Summary::of(&cell.points()) {
        mean_bar(area, axes, middle, &summary, shade)?;
    } else {
        let at = axes.at(place, axes.y.0);
        area.draw_text(
            "missing",
            &text(15, MUTED, HPos::Center, VPos::Bottom),
            (at.0, at.1 - 6),
        )
        .map_err(drawing)?;
    }
    let count = cell.ours.len().max(1) as f64;
    for (index, value) in cell.points().into_iter().enumerate() {
        let spread = (index as f64 - (count - 1.0) / 2.0) * 0.09;
        dot(area, axes.at(middle + spread, value), 5, shade.mix(0.75))?;
    }
    for (index, value) in cell.peer_points().into_iter().enumerate() {
        let spread = (index as f64 - (cell.peer.len() as f64 - 1.0) / 2.0) * 0.09;
        area.draw(&diamond(axes.at(place + 0.26 + spread, value), PEER))
            .map_err(drawing)?;
    }
    Ok(())
}

fn mean_bar(
    area: &Area<'_>,
    axes: &Axes,
    place: f64,
    summary: &Summary,
    shade: RGBColor,
) -> Result<()> {
    let (x, y) = axes.at(place, summary.mean);
    stroke(area, vec![(x - 22, y), (x + 22, y)], shade.to_rgba(), 3)?;
    let top = axes.at(place, summary.max).1.min(y) - 9;
    let value = format!("{:.1}", summary.mean);
    area.draw_text(&value, &text(17, INK, HPos::Center, VPos::Bottom), (x, top))
        .map_err(drawing)
}

/// Mean and range over seeds by the number of trained parameters, on a logarithmic axis.
fn by_parameters(results: &Results) -> Result<String> {
    let (tasks, ranks) = (results.grid.tasks(), ranks(results));
    let counts: Vec<f64> = results
        .all()
        .map(|record| (record.parameters.trainable.max(1) as f64).log10())
        .collect();
    let low = counts.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let high = counts
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .ceil()
        .max(low + 1.0);
    let ticks: Vec<(f64, String)> = (low as i32..=high as i32)
        .map(|power| (f64::from(power), words::power(power)))
        .collect();
    figure(
        "Best score by trained parameters",
        &note(results),
        &methods_legend(results, Mark::Dot, |_| true),
        tasks.len(),
        |index, area| {
            let task = tasks[index];
            let names = ("trained parameters, head included", words::axis(task));
            let values: Vec<f64> = results
                .of_task(task)
                .flat_map(CellResults::points)
                .collect();
            let axes = panel(
                area,
                words::task(task),
                (names.0, &names.1),
                (low, high),
                &ticks,
                &values,
            )?;
            for cell in results.of_task(task) {
                let (Some(summary), Some(counts)) =
                    (Summary::of(&cell.points()), cell.parameters())
                else {
                    continue;
                };
                let shade = color(&cell.cell.approach, &ranks);
                let x = (counts.trainable.max(1) as f64).log10();
                range_and_mean(area, &axes, x, &summary, shade)?;
            }
            Ok(())
        },
    )
}

fn range_and_mean(
    area: &Area<'_>,
    axes: &Axes,
    x: f64,
    summary: &Summary,
    shade: RGBColor,
) -> Result<()> {
    let (low, high) = (axes.at(x, summary.min), axes.at(x, summary.max));
    stroke(area, vec![low, high], shade.to_rgba(), 2)?;
    for end in [low, high] {
        stroke(
            area,
            vec![(end.0 - 5, end.1), (end.0 + 5, end.1)],
            shade.to_rgba(),
            2,
        )?;
    }
    dot(area, axes.at(x, summary.mean), 6, shade.to_rgba())
}

/// Memory and training time by method, a dot a run; times only where the machine did nothing else.
fn cost(results: &Results) -> Result<String> {
    type Read = fn(&Record) -> Option<f64>;
    let memory: Read = |record| record.peak_memory_bytes.map(|bytes| bytes as f64 / 1e6);
    let time: Read = |record| {
        let speed = record.timing.examples_per_second;
        (record.timing_valid && speed > 0.0).then(|| 1000.0 / speed)
    };
    let mut panels = vec![("Peak memory of a run", "MB", memory)];
    if results.all().any(|record| time(record).is_some()) {
        panels.push(("Training time of 1000 rows", "seconds", time));
    }
    let (approaches, ranks) = (approaches(results), ranks(results));
    let legend = methods_legend(results, Mark::Dot, |_| true);
    figure(
        "Cost by method",
        &note(results),
        &legend,
        panels.len(),
        |index, area| {
            let (title, unit, read) = panels[index];
            let of = |approach: &Approach| -> Vec<f64> {
                let cells = results
                    .cells
                    .iter()
                    .filter(|cell| cell.cell.approach.slug() == approach.slug());
                cells
                    .flat_map(|cell| cell.ours.iter().filter_map(|(_, record)| read(record)))
                    .collect()
            };
            let (range, ticks) = method_axis(&approaches);
            // A cost is read from zero.
            let values: Vec<f64> = approaches.iter().flat_map(of).chain([0.0]).collect();
            let axes = panel(area, title, ("", unit), range, &ticks, &values)?;
            for (place, approach) in approaches.iter().enumerate() {
                let (values, shade) = (of(approach), color(approach, &ranks));
                for value in &values {
                    dot(area, axes.at(place as f64, *value), 5, shade.mix(0.5))?;
                }
                if let Some(summary) = Summary::of(&values) {
                    mean_bar(area, &axes, place as f64, &summary, shade)?;
                }
            }
            Ok(())
        },
    )
}

/// LoRA's best score by rank; full and head as level lines.
fn by_rank(results: &Results) -> Result<String> {
    let (tasks, ranks) = (results.grid.tasks(), ranks(results));
    let ticks: Vec<(f64, String)> = ranks
        .iter()
        .enumerate()
        .map(|(place, rank)| (place as f64, rank.to_string()))
        .collect();
    figure(
        "Best score by rank",
        &note(results),
        &legend(results),
        tasks.len(),
        |index, area| {
            let task = tasks[index];
            // On the right there is room for the words on the levels.
            let range = (-0.7, ranks.len() as f64 + 0.7);
            let names = ("rank of the adapters", words::axis(task));
            let axes = panel(
                area,
                words::task(task),
                (names.0, &names.1),
                range,
                &ticks,
                &all_points(results, task),
            )?;
            let (mut means, mut levels) = (Vec::new(), Vec::new());
            for cell in results.of_task(task) {
                let Some(summary) = Summary::of(&cell.points()) else {
                    continue;
                };
                let shade = color(&cell.cell.approach, &ranks);
                let Some(place) = cell
                    .cell
                    .approach
                    .rank()
                    .and_then(|r| ranks.iter().position(|rank| *rank == r))
                else {
                    level_line(area, &axes, summary.mean, shade)?;
                    let words = format!("{} {:.1}", cell.cell.approach.label(), summary.mean);
                    levels.push((axes.at(axes.x.1, summary.mean), words, shade));
                    continue;
                };
                means.push((place, summary.mean));
                method_column(area, &axes, cell, place as f64, shade)?;
            }
            label_levels(area, levels)?;
            means.sort_by_key(|(place, _)| *place);
            let line = means
                .iter()
                .map(|&(place, mean)| axes.at(place as f64, mean))
                .collect();
            stroke(area, line, MUTED.mix(0.5), 1)
        },
    )
}

/// A dashed line over the whole width.
fn level_line(area: &Area<'_>, axes: &Axes, value: f64, shade: RGBColor) -> Result<()> {
    let (left, right) = (axes.at(axes.x.0, value), axes.at(axes.x.1, value));
    let mut x = left.0;
    while x < right.0 {
        stroke(
            area,
            vec![(x, left.1), ((x + 8).min(right.0), left.1)],
            shade.to_rgba(),
            2,
        )?;
        x += 13;
    }
    Ok(())
}

/// Words at the right ends of levels: above their lines, or below where the next line is close above.
fn label_levels(area: &Area<'_>, mut levels: Vec<((i32, i32), String, RGBColor)>) -> Result<()> {
    levels.sort_by_key(|((_, y), _, _)| *y);
    let mut above = i32::MIN;
    for ((x, y), words, shade) in levels {
        let (foot, side) = match y.saturating_sub(above) < 22 {
            true => (y + 4, VPos::Top),
            false => (y - 4, VPos::Bottom),
        };
        let style = text(16, shade, HPos::Right, side);
        area.draw_text(&words, &style, (x, foot)).map_err(drawing)?;
        above = y;
    }
    Ok(())
}

fn all_points(results: &Results, task: Task) -> Vec<f64> {
    results
        .of_task(task)
        .flat_map(|cell| [cell.points(), cell.peer_points()].concat())
        .collect()
}
