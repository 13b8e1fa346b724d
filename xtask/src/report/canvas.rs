//! What all figures share: size, fonts, colours, the legend row, and one panel a task.
//!
//! Figures are small multiples: one panel a task, side by side, under a common title and legend. Everything is drawn by
//! plotters into a string; coordinates are whole pixels, so the same records give the same bytes.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::grid::Approach;

/// Where figures are drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(34, 34, 34);
/// Less important text.
pub(crate) const MUTED: RGBColor = RGBColor(95, 95, 95);
/// Grid lines.
const GRID: RGBColor = RGBColor(226, 226, 226);
/// The PyTorch + PEFT peer.
pub(crate) const PEER: RGBColor = RGBColor(0, 140, 100);

const PANEL_WIDTH: u32 = 390;
const PANEL_HEIGHT: u32 = 340;
const HEADER: u32 = 78;
const MARGIN: u32 = 12;

/// Shades for LoRA by rank, light to dark.
const LORA: [RGBColor; 4] = [
    RGBColor(0, 98, 168),
    RGBColor(86, 170, 226),
    RGBColor(20, 60, 120),
    RGBColor(140, 200, 240),
];

/// The colour of a method; `ranks` are all ranks of the grid in rising order.
pub(crate) fn color(approach: &Approach, ranks: &[usize]) -> RGBColor {
    match approach {
        Approach::Full => RGBColor(213, 94, 0),
        Approach::Head => RGBColor(120, 120, 120),
        Approach::Bitfit => RGBColor(170, 70, 150),
        Approach::Lora { rank, .. } => {
            let place = ranks
                .iter()
                .rev()
                .position(|other| other == rank)
                .unwrap_or(0);
            LORA[place % LORA.len()]
        }
    }
}

/// How a legend entry is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A line with a dot.
    Line,
    /// A filled dot.
    Dot,
    /// A hollow diamond.
    Diamond,
    /// A dashed line with a hollow diamond.
    Dashed,
}

/// One entry of the legend.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The words.
    pub(crate) label: String,
    /// The colour.
    pub(crate) color: RGBColor,
    /// The sign.
    pub(crate) mark: Mark,
}

/// A font of this size in this colour, anchored as said.
pub(crate) fn text(size: u32, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    let font = ("sans-serif", size).into_font();
    TextStyle {
        font,
        color: color.to_backend_color(),
        pos: Pos::new(h, v),
    }
}

/// Draws a figure of `panels` panels and gives the SVG text.
///
/// # Errors
/// When plotters refuses a coordinate or a size.
pub(crate) fn figure(
    title: &str,
    note: &str,
    legend: &[Entry],
    panels: usize,
    mut draw: impl FnMut(usize, &Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    // Three in a row, or four where that makes whole rows of many.
    let columns = match panels {
        8 => 4,
        other => other.clamp(1, 3),
    };
    let rows = panels.div_ceil(columns).max(1);
    let size = (
        (PANEL_WIDTH * columns as u32 + 2 * MARGIN)
            .max(620)
            .max(legend_width(legend)),
        HEADER + PANEL_HEIGHT * rows as u32 + MARGIN,
    );
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let heading = text(22, INK, HPos::Left, VPos::Top);
        root.draw_text(title, &heading, (MARGIN as i32 + 6, 10))
            .map_err(drawing)?;
        let small = text(16, MUTED, HPos::Right, VPos::Top);
        root.draw_text(note, &small, (size.0 as i32 - MARGIN as i32 - 6, 14))
            .map_err(drawing)?;
        draw_legend(&root, legend)?;
        let body = root.margin(HEADER, MARGIN, MARGIN, MARGIN);
        for (index, area) in body
            .split_evenly((rows, columns))
            .iter()
            .enumerate()
            .take(panels)
        {
            draw(index, area)?;
        }
        root.present().map_err(drawing)?;
    }
    svg.push('\n');
    Ok(svg)
}

fn draw_legend(root: &Area<'_>, legend: &[Entry]) -> Result<()> {
    let (mut x, y) = (MARGIN as i32 + 8, 54);
    for entry in legend {
        match entry.mark {
            Mark::Line => {
                let line = PathElement::new(vec![(x, y), (x + 24, y)], entry.color.stroke_width(3));
                root.draw(&line).map_err(drawing)?;
                root.draw(&Circle::new((x + 12, y), 4, entry.color.filled()))
                    .map_err(drawing)?;
            }
            Mark::Dot => root
                .draw(&Circle::new((x + 12, y), 5, entry.color.filled()))
                .map_err(drawing)?,
            Mark::Diamond => root
                .draw(&diamond((x + 12, y), entry.color))
                .map_err(drawing)?,
            Mark::Dashed => {
                for dash in dashes(&[(x - 4, y), (x + 28, y)]) {
                    root.draw(&PathElement::new(dash, entry.color.stroke_width(2)))
                        .map_err(drawing)?;
                }
                root.draw(&diamond((x + 12, y), entry.color))
                    .map_err(drawing)?;
            }
        }
        let style = text(17, INK, HPos::Left, VPos::Center);
        root.draw_text(&entry.label, &style, (x + 31, y))
            .map_err(drawing)?;
        x += entry_width(entry) as i32;
    }
    Ok(())
}

/// From the mark of an entry to that of the next.
fn entry_width(entry: &Entry) -> u32 {
    31 + entry.label.chars().count() as u32 * 9 + 18
}

fn legend_width(legend: &[Entry]) -> u32 {
    2 * MARGIN + legend.iter().map(entry_width).sum::<u32>()
}

/// A hollow diamond around a pixel.
pub(crate) fn diamond(center: (i32, i32), color: RGBColor) -> PathElement<(i32, i32)> {
    let (x, y) = center;
    let corners = vec![
        (x, y - 6),
        (x + 6, y),
        (x, y + 6),
        (x - 6, y),
        (x, y - 6),
        (x + 6, y),
    ];
    PathElement::new(corners, color.stroke_width(2))
}

/// The pieces of a dashed line through pixels; corners count as a piece's end.
pub(crate) fn dashes(line: &[(i32, i32)]) -> Vec<Vec<(i32, i32)>> {
    const ON: f64 = 7.0;
    const OFF: f64 = 5.0;
    let mut pieces = Vec::new();
    for ends in line.windows(2) {
        let (from, to) = (ends[0], ends[1]);
        let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let length = dx.hypot(dy);
        let at = |way: f64| {
            let share = way / length;
            (
                from.0 + (dx * share).round() as i32,
                from.1 + (dy * share).round() as i32,
            )
        };
        let mut way = 0.0;
        while way < length {
            pieces.push(vec![at(way), at((way + ON).min(length))]);
            way += ON + OFF;
        }
    }
    pieces
}

/// Axes of one panel in value space, and where they lie in pixels.
pub(crate) struct Axes {
    /// Smallest and largest value across.
    pub(crate) x: (f64, f64),
    /// Smallest and largest value upwards.
    pub(crate) y: (f64, f64),
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
}

impl Axes {
    /// The pixel of a value, in the panel's area.
    pub(crate) fn at(&self, x: f64, y: f64) -> (i32, i32) {
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        let pixel =
            |from: i32, to: i32, share: f64| from + (f64::from(to - from) * share).round() as i32;
        (
            pixel(self.left, self.right, across),
            pixel(self.bottom, self.top, up),
        )
    }
}

/// Draws title, grid lines, axes and their labels.
///
/// `x_ticks` are places and words; ticks of the value axis are chosen here so that `values` fit with some air.
///
/// # Errors
/// When plotters refuses a coordinate.
pub(crate) fn panel(
    area: &Area<'_>,
    title: &str,
    (x_name, y_name): (&str, &str),
    x: (f64, f64),
    x_ticks: &[(f64, String)],
    values: &[f64],
) -> Result<Axes> {
    let (width, height) = area.dim_in_pixel();
    let (low, high, step) = nice_range(values);
    let axes = Axes {
        x,
        y: (low, high),
        left: 62,
        right: width as i32 - 18,
        top: 34,
        bottom: height as i32 - 56,
    };
    let label = |h, v| text(16, MUTED, h, v);
    area.draw_text(
        title,
        &text(19, INK, HPos::Left, VPos::Bottom),
        (axes.left, axes.top - 10),
    )
    .map_err(drawing)?;
    for index in 0..=((high - low) / step).round() as i32 {
        let value = low + f64::from(index) * step;
        let (_, y) = axes.at(x.0, value);
        let line = PathElement::new(vec![(axes.left, y), (axes.right, y)], GRID.stroke_width(1));
        area.draw(&line).map_err(drawing)?;
        let words = if step < 1.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        };
        area.draw_text(
            &words,
            &label(HPos::Right, VPos::Center),
            (axes.left - 7, y),
        )
        .map_err(drawing)?;
    }
    let base = PathElement::new(
        vec![(axes.left, axes.bottom), (axes.right, axes.bottom)],
        INK.stroke_width(1),
    );
    area.draw(&base).map_err(drawing)?;
    for (place, words) in x_ticks {
        let (px, _) = axes.at(*place, low);
        let tick = PathElement::new(
            vec![(px, axes.bottom), (px, axes.bottom + 4)],
            INK.stroke_width(1),
        );
        area.draw(&tick).map_err(drawing)?;
        area.draw_text(
            words,
            &label(HPos::Center, VPos::Top),
            (px, axes.bottom + 8),
        )
        .map_err(drawing)?;
    }
    let middle = (axes.left + axes.right) / 2;
    area.draw_text(
        x_name,
        &label(HPos::Center, VPos::Top),
        (middle, axes.bottom + 31),
    )
    .map_err(drawing)?;
    let turned = label(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
    area.draw_text(y_name, &turned, (6, (axes.top + axes.bottom) / 2))
        .map_err(drawing)?;
    Ok(axes)
}

/// A range of round numbers around the values, and its step.
fn nice_range(values: &[f64]) -> (f64, f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !low.is_finite() || !high.is_finite() {
        return (0.0, 100.0, 20.0);
    }
    let span = (high - low).max(1.0);
    let powers = (-1..6).map(|power| 10_f64.powi(power));
    let step = powers
        .flat_map(|power| [power, 2.0 * power, 5.0 * power])
        .filter(|step| *step > 0.15)
        .find(|step| span / step <= 6.0)
        .unwrap_or(1e6);
    let round = |value: f64| value * step;
    // Nothing that is never negative has an axis that is.
    let lowest = match low {
        0.0 => 0.0,
        low => ((low - span * 0.06) / step).floor(),
    };
    let highest = ((high + span * 0.06) / step).ceil();
    // Scores end at 100: no axis goes on to 110.
    let top = if high < 100.0 {
        round(highest).min(100.0)
    } else {
        round(highest)
    };
    (round(lowest), top, step)
}

/// Plotters' error as ours.
pub(crate) fn drawing<E: std::error::Error + Send + Sync + 'static>(
    error: DrawingAreaErrorKind<E>,
) -> anyhow::Error {
    anyhow!("a figure cannot be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_round_and_hold_the_values() {
        for values in [
            vec![71.2, 77.9],
            vec![50.0, 99.8],
            vec![88.0, 88.0],
            vec![-3.0, 4.0],
        ] {
            let (low, high, step) = nice_range(&values);
            assert!(
                values.iter().all(|&value| low < value && value < high),
                "{values:?} in {low}..{high}"
            );
            let ticks = (high - low) / step;
            assert!(
                (ticks - ticks.round()).abs() < 1e-9 && (2.0..=9.0).contains(&ticks.round()),
                "{values:?}: {ticks} ticks"
            );
        }
        assert_eq!(nice_range(&[]), (0.0, 100.0, 20.0));
    }

    #[test]
    fn dashes_lie_on_the_line_and_end_with_it() {
        let pieces = dashes(&[(0, 0), (20, 0), (20, 9)]);
        let ends: Vec<_> = pieces.iter().map(|piece| (piece[0], piece[1])).collect();
        assert_eq!(
            ends,
            [((0, 0), (7, 0)), ((12, 0), (19, 0)), ((20, 0), (20, 7)),]
        );
        assert!(dashes(&[(3, 3), (3, 3)]).is_empty());
    }

    #[test]
    fn a_value_lies_where_its_share_says() {
        let axes = Axes {
            x: (0.0, 10.0),
            y: (0.0, 100.0),
            left: 100,
            right: 200,
            top: 50,
            bottom: 150,
        };
        assert_eq!(axes.at(0.0, 0.0), (100, 150));
        assert_eq!(axes.at(10.0, 100.0), (200, 50));
        assert_eq!(axes.at(5.0, 25.0), (150, 125));
    }
}
