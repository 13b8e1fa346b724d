//! Learning curves: the deciding metric at every evaluation, of all methods, and of ours beside the peer's.

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, Axes, Entry, INK, Mark, color, dashes, diamond, drawing, figure, panel};
use super::figures::{dot, methods_legend, note, ranks, stroke};
use super::words;
use crate::grid::Approach;
use crate::record::Record;
use crate::results::{CellResults, Results};

/// Epochs done and points, at every evaluation of a run.
type Curve = Vec<(f64, f64)>;

/// Our curves of every method: one thin line a seed, a thick one for their mean.
///
/// # Errors
/// When plotters fails.
pub(super) fn all(results: &Results) -> Result<String> {
    let legend = methods_legend(results, Mark::Line, |_| true);
    let cells = results.cells.iter().collect();
    draw("Learning curves", results, &legend, cells, false)
}

/// Curves of the methods that the peer has runs of, ours solid, the peer's dashed; `None` when it has none.
///
/// # Errors
/// When plotters fails.
pub(super) fn beside_peer(results: &Results) -> Result<Option<String>> {
    let methods: Vec<String> = results.peer_methods().map(Approach::slug).collect();
    if methods.is_empty() {
        return Ok(None);
    }
    let compared = |approach: &Approach| methods.contains(&approach.slug());
    let mut legend = methods_legend(results, Mark::Line, compared);
    legend.push(Entry {
        label: words::PEER.to_owned(),
        color: INK,
        mark: Mark::Dashed,
    });
    let cells = results
        .cells
        .iter()
        .filter(|cell| compared(&cell.cell.approach))
        .collect();
    let title = "Learning curves beside the peer";
    draw(title, results, &legend, cells, true).map(Some)
}

/// One panel for each task of the cells.
fn draw(
    title: &str,
    results: &Results,
    legend: &[Entry],
    cells: Vec<&CellResults>,
    with_peer: bool,
) -> Result<String> {
    let ranks = ranks(results);
    let mut tasks = results.grid.tasks();
    tasks.retain(|task| cells.iter().any(|cell| cell.cell.task == *task));
    figure(title, &note(results), legend, tasks.len(), |index, area| {
        let task = tasks[index];
        let bundles: Vec<(RGBColor, Vec<Curve>, Vec<Curve>)> = cells
            .iter()
            .filter(|cell| cell.cell.task == task)
            .map(|cell| {
                let peer: &[(u64, Record)] = if with_peer { &cell.peer } else { &[] };
                let shade = color(&cell.cell.approach, &ranks);
                (shade, curves(&cell.ours), curves(peer))
            })
            .collect();
        let points: Curve = bundles
            .iter()
            .flat_map(|(_, ours, peer)| ours.iter().chain(peer).flatten().copied())
            .collect();
        let (range, ticks) = epoch_axis(&points);
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let names = ("epoch", words::axis(task));
        let axes = panel(
            area,
            words::task(task),
            (names.0, &names.1),
            range,
            &ticks,
            &values,
        )?;
        for (shade, ours, peer) in &bundles {
            bundle(area, &axes, ours, *shade, Side::Ours)?;
            bundle(area, &axes, peer, darker(*shade), Side::Peer)?;
        }
        Ok(())
    })
}

fn curves(records: &[(u64, Record)]) -> Vec<Curve> {
    records.iter().map(|(_, record)| record.curve()).collect()
}

/// Range and ticks for evaluations at these places: whole epochs, or parts of one where the run is that short.
fn epoch_axis(points: &[(f64, f64)]) -> ((f64, f64), Vec<(f64, String)>) {
    let last = points.iter().map(|(epoch, _)| *epoch).fold(1.0, f64::max);
    let first = points.iter().map(|(epoch, _)| *epoch).fold(1.0, f64::min);
    let air = 0.05 * last;
    let range = if first < 1.0 {
        (0.0, last + air)
    } else {
        (1.0 - air.max(0.25), last + air.max(0.25))
    };
    if last <= 1.0 && first < 1.0 {
        let ticks = (0..=5).map(|fifth| f64::from(fifth) / 5.0);
        return (range, ticks.map(|at| (at, format!("{at:.1}"))).collect());
    }
    let step = (last / 10.0).ceil() as u32;
    let ticks = (1..=last.floor() as u32).filter(|epoch| epoch % step == 0);
    let ticks = ticks.map(|epoch| (f64::from(epoch), epoch.to_string()));
    (range, ticks.collect())
}

/// Our dots or the peer's diamonds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Peer,
}

/// A shade that stays visible upon the method's own.
fn darker(shade: RGBColor) -> RGBColor {
    let dark = |part: u8| (f64::from(part) * 0.5) as u8;
    RGBColor(dark(shade.0), dark(shade.1), dark(shade.2))
}

/// A thin line a seed, and their mean with a mark at every evaluation.
fn bundle(
    area: &Area<'_>,
    axes: &Axes,
    curves: &[Curve],
    shade: RGBColor,
    side: Side,
) -> Result<()> {
    let line = |points: Vec<(i32, i32)>, style: RGBAColor, width| match side {
        Side::Ours => stroke(area, points, style, width),
        Side::Peer => dashes(&points)
            .into_iter()
            .try_for_each(|dash| stroke(area, dash, style, width)),
    };
    if curves.len() > 1 {
        for curve in curves {
            let points = curve.iter().map(|&(x, y)| axes.at(x, y)).collect();
            line(points, shade.mix(0.3), 1)?;
        }
    }
    let length = curves.iter().map(Vec::len).min().unwrap_or(0);
    let mean: Vec<(i32, i32)> = (0..length)
        .map(|index| {
            let total: f64 = curves.iter().map(|curve| curve[index].1).sum();
            axes.at(curves[0][index].0, total / curves.len() as f64)
        })
        .collect();
    let width = if side == Side::Ours { 3 } else { 2 };
    line(mean.clone(), shade.to_rgba(), width)?;
    for at in mean {
        match side {
            Side::Ours => dot(area, at, 4, shade.to_rgba())?,
            Side::Peer => area.draw(&diamond(at, shade)).map_err(drawing)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(points: &[(f64, f64)]) -> (f64, f64, Vec<String>) {
        let (range, ticks) = epoch_axis(points);
        let words = ticks.into_iter().map(|(_, words)| words).collect();
        (range.0, range.1, words)
    }

    #[test]
    fn the_axis_holds_every_evaluation_and_counts_epochs() {
        let whole: Vec<(f64, f64)> = (1..=5).map(|epoch| (f64::from(epoch), 0.0)).collect();
        let ticks = ["1", "2", "3", "4", "5"].map(str::to_owned).to_vec();
        assert_eq!(words(&whole), (0.75, 5.25, ticks));
        let parts = [(0.2375, 0.0), (0.95, 0.0), (1.0, 0.0)];
        let ticks = ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(str::to_owned);
        assert_eq!(words(&parts), (0.0, 1.05, ticks.to_vec()));
        assert_eq!(words(&[(1.0, 0.0)]).2, ["1"]);
        assert_eq!(words(&[(0.5, 0.0), (2.0, 0.0)]).2, ["1", "2"]);
        let long: Vec<(f64, f64)> = (1..=30).map(|epoch| (f64::from(epoch), 0.0)).collect();
        assert_eq!(words(&long).2.len(), 10);
    }
}
