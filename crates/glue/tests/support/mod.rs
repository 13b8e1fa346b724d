//! Small Parquet files as `datasets` writes them.
#![allow(dead_code)] // each test file uses its part

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use lowburn_glue::{Dataset, GlueError, Task};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// The bytes of a Parquet file with these columns; rows in groups of `group`.
pub(crate) fn parquet(
    columns: Vec<(&str, ArrayRef)>,
    huggingface: Option<String>,
    group: usize,
) -> Vec<u8> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let metadata: HashMap<String, String> = huggingface
        .map(|text| ("huggingface".to_owned(), text))
        .into_iter()
        .collect();
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(group))
        .build();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

pub(crate) fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

pub(crate) fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub(crate) fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

pub(crate) fn floats(values: &[f32]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

/// The metadata that `datasets` writes for a class label.
pub(crate) fn class_names(names: &[&str]) -> Option<String> {
    let names = serde_json::to_string(names).unwrap();
    Some(format!(
        r#"{{"info": {{"features": {{"label": {{"names": {names}, "_type": "ClassLabel"}}}}}}}}"#
    ))
}

/// A file of a task with made-up rows: labels go round, `idx` has gaps.
pub(crate) fn of_task(task: Task, rows: usize) -> Vec<u8> {
    let text = |word: &str| -> ArrayRef {
        let texts: Vec<String> = (0..rows)
            .map(|i| format!("{word} {i} {}", "x ".repeat(i % 5)))
            .collect();
        Arc::new(StringArray::from(texts))
    };
    let (first, second) = task.columns();
    let mut columns = vec![(first, text("first"))];
    if let Some(second) = second {
        columns.push((second, text("second")));
    }
    let names = task.labels();
    if task.is_regression() {
        columns.push((
            "label",
            floats(&(0..rows).map(|i| (i % 11) as f32 / 2.0).collect::<Vec<_>>()),
        ));
    } else {
        columns.push((
            "label",
            longs(
                &(0..rows)
                    .map(|i| (i % names.len()) as i64)
                    .collect::<Vec<_>>(),
            ),
        ));
    }
    columns.push((
        "idx",
        ints(&(0..rows).map(|i| 2 * i as i32 + 1).collect::<Vec<_>>()),
    ));
    parquet(
        columns,
        if names.is_empty() {
            None
        } else {
            class_names(names)
        },
        7,
    )
}

/// Writes `DIR/<task>/<name>`.
pub(crate) fn put(dir: &Path, task: Task, name: &str, bytes: &[u8]) -> PathBuf {
    let folder = dir.join(task.to_string());
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Reads bytes as the validation split.
pub(crate) fn load(task: Task, bytes: &[u8]) -> Result<Dataset, GlueError> {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), task, "validation-00000-of-00001.parquet", bytes);
    Dataset::load(dir.path(), task, "validation")
}

/// The message for bytes that must be refused; it must name the file.
pub(crate) fn refusal(task: Task, bytes: &[u8]) -> String {
    let message = load(task, bytes)
        .expect_err("this file must be refused")
        .to_string();
    assert!(
        message.contains("validation-00000-of-00001.parquet"),
        "{message}"
    );
    message
}
