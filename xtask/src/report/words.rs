//! How tasks and metrics are called in tables and figures.

use lowburn_glue::{Metric, Task};

/// The peer's name.
pub(crate) const PEER: &str = "PyTorch + PEFT";

/// The name of a task as papers print it.
pub(crate) fn task(task: Task) -> &'static str {
    match task {
        Task::Cola => "CoLA",
        Task::Sst2 => "SST-2",
        Task::Mrpc => "MRPC",
        Task::Qqp => "QQP",
        Task::Stsb => "STS-B",
        Task::Mnli => "MNLI",
        Task::Qnli => "QNLI",
        Task::Rte => "RTE",
        Task::Wnli => "WNLI",
        Task::Ax => "AX",
    }
}

/// The name of a metric.
pub(crate) fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::F1 => "F1",
        Metric::Matthews => "Matthews correlation",
        Metric::Pearson => "Pearson correlation",
        Metric::Spearman => "Spearman correlation",
    }
}

/// The label of a value axis: the deciding metric of a task, in points.
pub(crate) fn axis(task: Task) -> String {
    let name = metric(task.metrics()[0]);
    match task.metrics()[0] {
        Metric::Accuracy | Metric::F1 => format!("{name}, %"),
        _ => format!("{name} x 100"),
    }
}

/// A power of ten in words: `1 k`, `10 k`, `1 M`.
pub(crate) fn power(exponent: i32) -> String {
    let (unit, left) = match exponent {
        9.. => (" G", exponent - 9),
        6..=8 => (" M", exponent - 6),
        3..=5 => (" k", exponent - 3),
        _ => ("", exponent),
    };
    format!("{}{unit}", 10_i64.pow(left.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_read_as_people_say_them() {
        let words: Vec<String> = (0..=9).map(power).collect();
        assert_eq!(
            words,
            [
                "1", "10", "100", "1 k", "10 k", "100 k", "1 M", "10 M", "100 M", "1 G"
            ]
        );
    }
}
