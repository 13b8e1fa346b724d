//! What the GLUE server takes: a zip archive of eleven tables of predictions.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{Prediction, Task};

/// One of the eleven files of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmissionFile {
    /// Its name in the archive, without the `.tsv`: "MNLI-mm".
    pub name: &'static str,
    /// The task whose model predicts it.
    pub task: Task,
    /// The task whose folder of the data set holds the rows: for the diagnostic set not the same.
    pub data: Task,
    /// The split with the rows.
    pub split: &'static str,
    /// The number of rows that the server expects.
    pub rows: usize,
}

const fn file(name: &'static str, task: Task, split: &'static str, rows: usize) -> SubmissionFile {
    SubmissionFile {
        name,
        task,
        data: task,
        split,
        rows,
    }
}

impl SubmissionFile {
    /// All of them. The diagnostic set is predicted by the model of MNLI.
    pub const ALL: [Self; 11] = [
        file("CoLA", Task::Cola, "test", 1_063),
        file("SST-2", Task::Sst2, "test", 1_821),
        file("MRPC", Task::Mrpc, "test", 1_725),
        file("STS-B", Task::Stsb, "test", 1_379),
        file("QQP", Task::Qqp, "test", 390_965),
        file("MNLI-m", Task::Mnli, "test_matched", 9_796),
        file("MNLI-mm", Task::Mnli, "test_mismatched", 9_847),
        file("QNLI", Task::Qnli, "test", 5_463),
        file("RTE", Task::Rte, "test", 3_000),
        file("WNLI", Task::Wnli, "test", 146),
        Self {
            data: Task::Ax,
            ..file("AX", Task::Mnli, "test", 1_104)
        },
    ];
}

/// A prediction as the server reads it: class names for QNLI, RTE, MNLI and the diagnostic set, class
/// numbers for the other tasks, and for STS-B a score between 0 and 5 with three digits.
///
/// # Panics
/// When the prediction is of another kind than the task's, or of a class that the task does not have.
pub fn submission_text(task: Task, prediction: Prediction) -> String {
    match (prediction, task) {
        (Prediction::Score(score), _) => format!("{:.3}", score.clamp(0.0, 5.0)),
        (Prediction::Class(class), Task::Mnli | Task::Qnli | Task::Rte | Task::Ax) => {
            task.labels()[class].to_owned()
        }
        (Prediction::Class(class), _) => class.to_string(),
    }
}

/// A table of predictions in GLUE's layout: a header, then index and prediction of each row.
///
/// # Panics
/// As [`submission_text`].
pub fn submission_table(task: Task, rows: impl IntoIterator<Item = (i64, Prediction)>) -> String {
    let mut text = "index\tprediction\n".to_owned();
    for (index, prediction) in rows {
        text.push_str(&format!("{index}\t{}\n", submission_text(task, prediction)));
    }
    text
}

/// The archive with the tables, by the names of [`SubmissionFile`]. The same tables give the same bytes.
///
/// # Errors
/// When the archive cannot be built.
pub fn submission_zip(tables: &BTreeMap<&'static str, String>) -> std::io::Result<Vec<u8>> {
    // No clock in it, and no compression: the largest table has 5 MB.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, table) in tables {
        zip.start_file(format!("{name}.tsv"), options)?;
        zip.write_all(table.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_its_files() {
        for task in Task::ALL {
            let count = |of: fn(&SubmissionFile) -> Task| {
                let files = SubmissionFile::ALL.iter();
                files.filter(|file| of(file) == task).count()
            };
            let (predicted, read) = match task {
                Task::Mnli => (3, 2),
                Task::Ax => (0, 1),
                _ => (1, 1),
            };
            assert_eq!(count(|file| file.task), predicted, "{task}");
            assert_eq!(count(|file| file.data), read, "{task}");
        }
    }

    #[test]
    fn classes_have_names_where_the_server_wants_them() {
        let text = |task, class| submission_text(task, Prediction::Class(class));
        assert_eq!(text(Task::Mnli, 2), "contradiction");
        assert_eq!(text(Task::Ax, 1), "neutral");
        assert_eq!(text(Task::Rte, 0), "entailment");
        assert_eq!(text(Task::Qnli, 1), "not_entailment");
        assert_eq!(text(Task::Wnli, 1), "1");
        assert_eq!(text(Task::Cola, 0), "0");
    }

    #[test]
    fn scores_stay_between_0_and_5() {
        let text = |score| submission_text(Task::Stsb, Prediction::Score(score));
        assert_eq!(text(2.345_67), "2.346");
        assert_eq!(text(5.2), "5.000");
        assert_eq!(text(-0.3), "0.000");
    }

    #[test]
    fn the_archive_holds_the_tables() {
        let table = submission_table(Task::Rte, [(0, Prediction::Class(1))]);
        assert_eq!(table, "index\tprediction\n0\tnot_entailment\n");
        let bytes = submission_zip(&BTreeMap::from([("RTE", table.clone())])).expect("a zip");
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("readable");
        let mut entry = zip.by_name("RTE.tsv").expect("there");
        assert_eq!(std::io::read_to_string(&mut entry).expect("text"), table);
    }
}
