//! Rows of a task, read from disk and checked.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::sha256_of;
use crate::{GlueError, Label, Task, columnar, shards, textual};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The row's `idx` as in the file, or its number where the file has no such column.
    pub idx: i64,
    /// The text, or the first text of a pair.
    pub text: String,
    /// The second text; `Some` exactly for tasks on pairs.
    pub text_pair: Option<String>,
    /// The label; `None` for unlabelled rows (-1 in the files).
    pub label: Option<Label>,
}

/// A file that rows came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// The file.
    pub path: PathBuf,
    /// sha256 of its bytes.
    pub sha256: String,
}

/// All rows of a split, in file order. Never empty after reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The task.
    pub task: Task,
    /// The split's name; for single files the name without its extension.
    pub split: String,
    /// The rows.
    pub examples: Vec<Example>,
    /// The file, the first one where there are several.
    pub path: PathBuf,
    /// sha256 of the bytes of all files, one after the other: for a single file its own.
    pub sha256: String,
    /// Every file with its digest.
    pub files: Vec<DataFile>,
}

/// What a file holds, before it becomes an [`Example`].
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) idx: Option<i64>,
    pub(crate) text: String,
    pub(crate) text_pair: Option<String>,
    pub(crate) label: Option<Label>,
}

impl Dataset {
    /// Reads a split from `DIR/<task>/<split>-00000-of-00001.parquet`, or from all its shards.
    ///
    /// # Errors
    /// When the folder or a shard is missing, a file is no readable Parquet, has other columns, types
    /// or class names than the task's, holds values that cannot be, or has no rows.
    pub fn load(data_dir: &Path, task: Task, split: &str) -> Result<Self, GlueError> {
        let paths = shards::find(data_dir, task, split)?;
        let mut files = Vec::with_capacity(paths.len());
        let mut contents = Vec::with_capacity(paths.len());
        for path in paths {
            let bytes = read(&path)?;
            files.push(DataFile {
                sha256: sha256_of([bytes.as_slice()]),
                path,
            });
            contents.push(bytes);
        }
        let sha256 = sha256_of(contents.iter().map(Vec::as_slice));
        let mut rows = Vec::new();
        for (file, bytes) in files.iter().zip(contents) {
            rows.extend(columnar::read(&file.path, bytes, task)?);
        }
        Self::new(task, split.to_owned(), rows, files, sha256)
    }

    /// Reads one file by its extension: `.parquet`, `.jsonl` (one object per line) or `.tsv` (a header
    /// row with the task's column names, no quoting). Columns are the task's; `label` and `idx` may be
    /// missing. In `.jsonl` and `.tsv` a label may be given by its class name too.
    ///
    /// # Errors
    /// As for [`Dataset::load`]; also for an unknown extension.
    pub fn from_file(path: &Path, task: Task) -> Result<Self, GlueError> {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or("")
            .to_ascii_lowercase();
        let reader = match extension.as_str() {
            "parquet" => columnar::read,
            "jsonl" => textual::read_jsonl,
            "tsv" => textual::read_tsv,
            _ => {
                return Err(GlueError::UnknownFormat {
                    path: path.to_owned(),
                    extension,
                });
            }
        };
        let bytes = read(path)?;
        let sha256 = sha256_of([bytes.as_slice()]);
        let rows = reader(path, bytes, task)?;
        let split = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let files = vec![DataFile {
            path: path.to_owned(),
            sha256: sha256.clone(),
        }];
        Self::new(task, split, rows, files, sha256)
    }

    fn new(
        task: Task,
        split: String,
        rows: Vec<Row>,
        files: Vec<DataFile>,
        sha256: String,
    ) -> Result<Self, GlueError> {
        let path = files
            .first()
            .map(|file| file.path.clone())
            .unwrap_or_default();
        if rows.is_empty() {
            return Err(GlueError::Empty { path });
        }
        let examples = rows
            .into_iter()
            .enumerate()
            .map(|(number, row)| Example {
                idx: row.idx.unwrap_or(number as i64),
                text: row.text,
                text_pair: row.text_pair,
                label: row.label,
            })
            .collect();
        Ok(Self {
            task,
            split,
            examples,
            path,
            sha256,
            files,
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no rows; only after [`Dataset::take`] with 0.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The first `n` rows, or all where there are fewer. Digests stay those of the files.
    pub fn take(mut self, n: usize) -> Self {
        self.examples.truncate(n);
        self
    }

    /// Checks that every row has a label, as training and evaluation need.
    ///
    /// # Errors
    /// When a row has no label, or when there is no row.
    pub fn require_labels(&self) -> Result<(), GlueError> {
        if self.examples.is_empty() {
            return Err(GlueError::Empty {
                path: self.path.clone(),
            });
        }
        let mut without = self
            .examples
            .iter()
            .enumerate()
            .filter(|(_, e)| e.label.is_none());
        let Some((first, _)) = without.next() else {
            return Ok(());
        };
        Err(GlueError::Unlabelled {
            path: self.path.clone(),
            split: self.split.clone(),
            unlabelled: 1 + without.count(),
            rows: self.examples.len(),
            first,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, GlueError> {
    fs::read(path).map_err(|source| GlueError::Io {
        path: path.to_owned(),
        source,
    })
}
