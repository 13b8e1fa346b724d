//! Numbers as people read them.

use lowburn_trainer::{Evaluation, StepReport};

/// Seconds as `1 h 02 m`, `3 m 05 s` or `12 s`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() && seconds > 0.0 {
        seconds.round() as u64
    } else {
        0
    };
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} m {rest:02} s"),
        _ => format!("{hours} h {minutes:02} m"),
    }
}

/// Where a run is and how fast it goes: `epoch 0.52  loss 0.4321  lr 1.00e-3  31.5 rows/s  3 m 05 s to go`.
#[must_use]
pub fn pace(report: &StepReport) -> String {
    format!(
        "epoch {:.2}  loss {:.4}  lr {:.2e}  {:.1} rows/s  {} to go",
        report.epoch,
        report.loss,
        report.lr,
        report.examples_per_second,
        duration(report.eta_seconds)
    )
}

/// A number of bytes as `1.2 GB`.
#[must_use]
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let value = bytes as f64;
    units
        .into_iter()
        .find(|(_, size)| value >= *size)
        .map_or_else(
            || format!("{bytes} B"),
            |(unit, size)| format!("{:.1} {unit}", value / size),
        )
}

/// An integer with its thousands apart: `1,234,567`.
#[must_use]
pub fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with four digits behind the point, or `nan`.
#[must_use]
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => format!("{value:.4}"),
        _ => "nan".to_owned(),
    }
}

/// Evaluations as a small table, one line for each split.
#[must_use]
pub fn score_table(evaluations: &[Evaluation]) -> String {
    let mut rows = Vec::new();
    for evaluation in evaluations {
        let mut cells = vec![
            ("task".to_owned(), evaluation.task.to_string()),
            ("split".to_owned(), evaluation.split.clone()),
            ("rows".to_owned(), evaluation.rows.to_string()),
            ("loss".to_owned(), number(evaluation.loss)),
        ];
        for (metric, value) in evaluation.scores.iter() {
            cells.push((metric.to_string(), number(Some(value))));
        }
        if rows.is_empty() {
            rows.push(cells.iter().map(|(name, _)| name.clone()).collect());
        }
        rows.push(cells.into_iter().map(|(_, value)| value).collect());
    }
    columns(&rows, 2)
}

/// Rows of cells in columns, the first `left` flush left and the others flush right.
#[must_use]
pub(crate) fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let width = widths[column];
                if column < left {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(12.4), "12 s");
        assert_eq!(duration(185.0), "3 m 05 s");
        assert_eq!(duration(3720.0), "1 h 02 m");
        assert_eq!(duration(f64::NAN), "0 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_250_000), "1.2 MB");
        assert_eq!(grouped(124_645_632), "124,645,632");
        assert_eq!(grouped(12), "12");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(number(None), "nan");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = columns(&[row(["name", "n"]), row(["a", "1000"])], 1);
        assert_eq!(text, "name     n\na     1000\n");
    }
}
