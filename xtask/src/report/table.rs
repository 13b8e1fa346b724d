//! Markdown tables that also read well on a terminal.

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        Self {
            columns: columns
                .into_iter()
                .map(|(name, align)| (name.into(), align))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; missing cells are empty.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// The Markdown, every column padded to its widest cell.
    pub(crate) fn markdown(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| {
                let cells = self.rows.iter().map(|row| row[index].chars().count());
                cells.chain([name.chars().count(), 3]).max().unwrap_or(3)
            })
            .collect();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let padded = |text: &str, index: usize| {
            let fill = " ".repeat(widths[index].saturating_sub(text.chars().count()));
            match self.columns[index].1 {
                Align::Left => format!("{text}{fill}"),
                Align::Right => format!("{fill}{text}"),
            }
        };
        let header = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| padded(name, index))
            .collect();
        let rule = self
            .columns
            .iter()
            .zip(&widths)
            .map(|((_, align), &width)| match align {
                Align::Left => "-".repeat(width),
                Align::Right => format!("{}:", "-".repeat(width - 1)),
            });
        let mut text = line(header) + &line(rule.collect());
        for row in &self.rows {
            text += &line(
                row.iter()
                    .enumerate()
                    .map(|(index, cell)| padded(cell, index))
                    .collect(),
            );
        }
        text
    }
}

/// Seconds as `42 s`, `7.5 min`, `2.5 h` or `10 days`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else if seconds < 6000.0 {
        format!("{:.1} min", seconds / 60.0)
    } else if seconds < 100.0 * 3600.0 {
        format!("{:.1} h", seconds / 3600.0)
    } else {
        format!("{:.0} days", seconds / 86400.0)
    }
}

/// Bytes as `310 MB` or `4.21 GB` (powers of ten).
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    if count < 1e9 {
        format!("{:.0} MB", count / 1e6)
    } else {
        format!("{:.2} GB", count / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_numbers_stand_right() {
        let mut table = Table::new([("Task", Align::Left), ("Mean", Align::Right)]);
        table.row(["rte", "7"]);
        table.row(["a long name"]);
        assert_eq!(
            table.markdown(),
            "| Task        | Mean |\n| ----------- | ---: |\n| rte         |    7 |\n| a long name |      |\n"
        );
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(duration(41.6), "42 s");
        assert_eq!(duration(450.0), "7.5 min");
        assert_eq!(duration(9000.0), "2.5 h");
        assert_eq!(duration(864_000.0), "10 days");
        assert_eq!(bytes(310_400_000), "310 MB");
        assert_eq!(bytes(4_212_000_000), "4.21 GB");
    }
}
