//! Everything that can be wrong with data or tokenizer files, each with a way out.

use std::path::{Path, PathBuf};

use crate::Task;

/// What went wrong while reading data or a tokenizer, or while tokenising.
///
/// Each message names the file (or the argument), the offending value and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    /// A file or folder could not be read or written.
    #[error(
        "{}: {source}; check that the path exists and that it may be read and written",
        path.display()
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A task name that is none of [`Task::ALL`].
    #[error("unknown task {given:?}; the tasks are {}", task_list())]
    UnknownTask {
        /// The name as it was given.
        given: String,
    },

    /// `DIR/<task>` holds no file of the wanted split.
    #[error(
        "{}: no file of split {split:?} of task {task}, expected {split}-00000-of-00001.parquet; {found}",
        dir.display()
    )]
    NoSplit {
        /// The task's folder.
        dir: PathBuf,
        /// The task.
        task: Task,
        /// The wanted split.
        split: String,
        /// The splits that are there, as a sentence.
        found: String,
    },

    /// The shards of a split are incomplete or of two different sets.
    #[error("{}: the shards of split {split:?} do not make one whole: {problem}; {way_out}", dir.display())]
    Shards {
        /// The task's folder.
        dir: PathBuf,
        /// The split.
        split: String,
        /// What is missing or doubled.
        problem: String,
        /// What to do.
        way_out: &'static str,
    },

    /// An input file whose name does not end in a known format.
    #[error(
        "{}: unknown format {extension:?}; give a file that ends in .parquet, .jsonl or .tsv",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its extension, possibly empty.
        extension: String,
    },

    /// The file is no readable Parquet: empty, truncated, corrupt or of an unsupported kind.
    #[error(
        "{}: not a readable Parquet file ({problem}); \
         it may be truncated or corrupt: fetch it again and compare its size and sha256. \
         Supported: snappy or no compression",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        problem: String,
    },

    /// A column that the task needs is missing or there twice.
    #[error(
        "{}: {problem} {column:?}; task {task} needs the columns {needed}, the file has {found}; \
         choose the task that the file belongs to or rename its columns",
        path.display()
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// The task.
        task: Task,
        /// "no column" or "more than one column".
        problem: &'static str,
        /// The column's name.
        column: String,
        /// What the task needs.
        needed: String,
        /// What the file has.
        found: String,
    },

    /// A column of another type than the task's.
    #[error(
        "{}: column {column:?} is of type {found}, task {task} needs {expected}; \
         choose the task that the file belongs to or write the column anew with that type",
        path.display()
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The task.
        task: Task,
        /// The column's name.
        column: String,
        /// What would be right.
        expected: &'static str,
        /// What the file says.
        found: String,
    },

    /// One value that cannot be: a label out of range, a missing text, a line that is no JSON.
    #[error("{}, {place}: {problem}; {way_out}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// "row 3 (counted from 0), column ..." or "line 4".
        place: String,
        /// What is wrong, with the value.
        problem: String,
        /// What to do.
        way_out: String,
    },

    /// The class names written in the file are not the task's, or in another order.
    #[error(
        "{}: the file numbers its classes as [{}], task {task} as [{}]; \
         the labels would be read wrongly: choose the task that the file belongs to, \
         or renumber its label column",
        path.display(), found.join(", "), task.labels().join(", ")
    )]
    LabelNames {
        /// The file.
        path: PathBuf,
        /// The task.
        task: Task,
        /// The names in the file's `huggingface` metadata.
        found: Vec<String>,
    },

    /// A file or split without rows.
    #[error("{}: no rows; give a file that holds at least one row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },

    /// Labels are needed, and some rows have none.
    #[error(
        "{}: {unlabelled} of {rows} rows of split {split:?} have no label (-1 or none), the first is row {first} (counted from 0); \
         training and evaluation need a labelled split such as \"train\" or \"validation\", use `predict` for this one",
        path.display()
    )]
    Unlabelled {
        /// The file.
        path: PathBuf,
        /// The split.
        split: String,
        /// How many rows have no label.
        unlabelled: usize,
        /// How many rows there are.
        rows: usize,
        /// The first of them.
        first: usize,
    },

    /// The folder holds no tokenizer.
    #[error(
        "{}: no tokenizer here; the folder needs tokenizer.json, or vocab.json and merges.txt, or spm.model{hint}",
        dir.display()
    )]
    NoTokenizer {
        /// The model's folder.
        dir: PathBuf,
        /// More about what was found, empty or starting with "; ".
        hint: String,
    },

    /// A tokenizer file that cannot be understood.
    #[error("{}: not a usable tokenizer ({problem}); {way_out}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        way_out: &'static str,
    },

    /// No room for text beside the special tokens.
    #[error(
        "maximum length {max_length} leaves no room for text: the tokenizer adds {special} special tokens; \
         give at least {}", special + 1
    )]
    MaxLength {
        /// The length asked for.
        max_length: usize,
        /// The number of special tokens.
        special: usize,
    },

    /// The tokenizer failed on one text.
    #[error(
        "{tokenizer}: cannot tokenise {text:?}{row}: {problem}; check the tokenizer's vocabulary and unknown token",
        tokenizer = tokenizer.display()
    )]
    Encode {
        /// The tokenizer's file.
        tokenizer: PathBuf,
        /// The start of the text.
        text: String,
        /// " (row 3 of FILE)" or empty.
        row: String,
        /// The tokenizer's reason.
        problem: String,
    },
}

impl GlueError {
    /// A column that is missing or doubled, whatever the format.
    pub(crate) fn bad_column<'a>(
        path: &Path,
        task: Task,
        column: &str,
        doubled: bool,
        found: impl Iterator<Item = &'a str>,
    ) -> Self {
        let quoted: Vec<String> = found.map(|name| format!("{name:?}")).collect();
        let (first, second) = task.columns();
        let needed = match second {
            Some(second) => format!("{first:?} and {second:?}"),
            None => format!("{first:?}"),
        };
        Self::Column {
            path: path.to_owned(),
            task,
            problem: if doubled {
                "more than one column"
            } else {
                "no column"
            },
            column: column.to_owned(),
            needed: format!("{needed} (\"label\" and \"idx\" where known)"),
            found: if quoted.is_empty() {
                "none".to_owned()
            } else {
                quoted.join(", ")
            },
        }
    }
}

fn task_list() -> String {
    Task::ALL.map(Task::name).join(", ")
}
