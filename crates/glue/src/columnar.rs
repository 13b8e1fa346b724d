//! Rows from Parquet, by column name and type.
//!
//! The Arrow schema that writers embed is not used for the columns: read by their Parquet types,
//! strings are strings whether the writer held them as large, view or dictionary arrays, and one more
//! structure that a file could lie in is out of play. Only the `huggingface` entry is looked at.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::file::metadata::ParquetMetaData;

use crate::dataset::Row;
use crate::guard::guard;
use crate::labels::{allowed, class_label, score_label};
use crate::values::{integer, string};
use crate::{GlueError, Label, Task};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;
/// More rows than this are taken for a lie: a few bytes of run-length coding can claim billions.
/// The largest GLUE split has 392,702.
const MAX_ROWS: usize = 20_000_000;
/// More text than this is taken for a lie, too (dictionary pages can repeat a long text at no cost).
const MAX_TEXT_BYTES: usize = 4 << 30;

/// Reads all rows.
pub(crate) fn read(path: &Path, bytes: Vec<u8>, task: Task) -> Result<Vec<Row>, GlueError> {
    guard(|| File { path, task }.rows(bytes))
        .unwrap_or_else(|problem| Err(unreadable(path, problem)))
}

fn unreadable(path: &Path, problem: impl ToString) -> GlueError {
    GlueError::Parquet {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

/// The file that messages speak of.
struct File<'a> {
    path: &'a Path,
    task: Task,
}

/// Positions of the wanted columns among the file's root columns.
struct Columns {
    wanted: Vec<&'static str>,
    roots: Vec<usize>,
}

impl File<'_> {
    fn rows(&self, bytes: Vec<u8>) -> Result<Vec<Row>, GlueError> {
        if bytes.is_empty() {
            return Err(self.unreadable("the file is empty"));
        }
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::from(bytes), options)
                .map_err(|e| self.unreadable(e))?;
        let columns = self.columns(builder.schema())?;
        self.check_class_names(builder.metadata())?;
        let promised = self.promised_rows(builder.metadata())?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns.roots);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| self.unreadable(e))?;
        let mut rows = Vec::with_capacity(promised.min(1 << 16));
        let mut text_bytes = 0;
        for batch in reader {
            let batch = batch.map_err(|e| self.unreadable(e))?;
            let start = rows.len();
            self.append(&batch, &columns.wanted, &mut rows)?;
            text_bytes += rows[start..].iter().map(text_size).sum::<usize>();
            if rows.len() > promised || text_bytes > MAX_TEXT_BYTES {
                return Err(self.unreadable("it holds more rows or text than can be"));
            }
        }
        if rows.len() != promised {
            return Err(self.unreadable(format!("{promised} rows promised, {} found", rows.len())));
        }
        Ok(rows)
    }

    fn unreadable(&self, problem: impl ToString) -> GlueError {
        unreadable(self.path, problem)
    }

    fn promised_rows(&self, metadata: &ParquetMetaData) -> Result<usize, GlueError> {
        let promised = metadata.file_metadata().num_rows();
        usize::try_from(promised)
            .ok()
            .filter(|&rows| rows <= MAX_ROWS)
            .ok_or_else(|| {
                self.unreadable(format!("it claims {promised} rows, more than {MAX_ROWS}"))
            })
    }

    /// Finds the task's columns by name and checks their types; `label` and `idx` may be missing.
    fn columns(&self, schema: &Schema) -> Result<Columns, GlueError> {
        let (first, second) = self.task.columns();
        let required = std::iter::once(first).chain(second);
        let mut columns = Columns {
            wanted: Vec::new(),
            roots: Vec::new(),
        };
        for (name, needed) in required
            .map(|name| (name, true))
            .chain([("label", false), ("idx", false)])
        {
            let fields = schema.fields();
            let mut places = (0..fields.len()).filter(|&i| fields[i].name() == name);
            let place = match (places.next(), places.next()) {
                (Some(place), None) => place,
                (None, _) if !needed => continue,
                (place, _) => return Err(self.bad_column(name, place.is_some(), schema)),
            };
            self.check_type(name, fields[place].data_type())?;
            columns.wanted.push(name);
            columns.roots.push(place);
        }
        Ok(columns)
    }

    fn bad_column(&self, column: &str, doubled: bool, schema: &Schema) -> GlueError {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        GlueError::bad_column(self.path, self.task, column, doubled, names)
    }

    fn check_type(&self, column: &str, found: &DataType) -> Result<(), GlueError> {
        let (right, expected) = match column {
            "label" if self.task.is_regression() => (
                matches!(found, DataType::Float32 | DataType::Float64),
                "a floating-point number",
            ),
            "label" | "idx" => (found.is_integer(), "an integer"),
            _ => (
                matches!(
                    found,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                ),
                "a string",
            ),
        };
        if right {
            return Ok(());
        }
        Err(GlueError::ColumnType {
            path: self.path.to_owned(),
            task: self.task,
            column: column.to_owned(),
            expected,
            found: found.to_string(),
        })
    }

    /// Compares the class names of the `huggingface` metadata, when there, with the task's.
    fn check_class_names(&self, metadata: &ParquetMetaData) -> Result<(), GlueError> {
        let file = metadata.file_metadata();
        let plain = file.key_value_metadata().and_then(|entries| {
            entries
                .iter()
                .find(|entry| entry.key == "huggingface")
                .and_then(|entry| entry.value.clone())
        });
        let text = match plain {
            Some(text) => text,
            // Some writers keep schema metadata only inside the embedded Arrow schema.
            None => {
                let schema =
                    parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())
                        .map_err(|e| self.unreadable(e))?;
                match schema.metadata().get("huggingface") {
                    Some(text) => text.clone(),
                    None => return Ok(()),
                }
            }
        };
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| self.unreadable(format!("its `huggingface` metadata is not JSON: {e}")))?;
        let Some(names) = json
            .pointer("/info/features/label/names")
            .and_then(|names| names.as_array())
        else {
            return Ok(());
        };
        let found: Vec<String> = names
            .iter()
            .map(|name| {
                name.as_str()
                    .map_or_else(|| name.to_string(), str::to_owned)
            })
            .collect();
        if found == self.task.labels() {
            return Ok(());
        }
        Err(GlueError::LabelNames {
            path: self.path.to_owned(),
            task: self.task,
            found,
        })
    }

    fn append(
        &self,
        batch: &RecordBatch,
        wanted: &[&str],
        rows: &mut Vec<Row>,
    ) -> Result<(), GlueError> {
        let start = rows.len();
        rows.resize_with(start + batch.num_rows(), Row::default);
        for &name in wanted {
            let column = batch
                .column_by_name(name)
                .ok_or_else(|| self.unreadable(format!("{name:?} is lost")))?;
            for (i, row) in rows[start..].iter_mut().enumerate() {
                self.set(name, column, i, row)
                    .map_err(|problem| self.bad_value(name, start + i, problem))?;
            }
        }
        Ok(())
    }

    /// Puts value `i` of a column into its row.
    fn set(&self, name: &str, column: &ArrayRef, i: usize, row: &mut Row) -> Result<(), String> {
        let (first, second) = self.task.columns();
        if column.is_null(i) {
            return if name == "label" || name == "idx" {
                Ok(())
            } else {
                Err("the text is missing (null)".into())
            };
        }
        match name {
            "label" => row.label = self.label(column, i)?,
            "idx" => row.idx = Some(integer(column, i)?),
            _ if name == first => row.text = string(column, i)?,
            _ if Some(name) == second => row.text_pair = Some(string(column, i)?),
            _ => {}
        }
        Ok(())
    }

    fn label(&self, column: &ArrayRef, i: usize) -> Result<Option<Label>, String> {
        match column.data_type() {
            DataType::Float32 => {
                // Through the decimal form, so that the message shows 5.1 and not 5.099999904632568.
                let value = column.as_primitive::<Float32Type>().value(i);
                score_label(self.task, f64::from(value))
                    .map_err(|_| format!("label {value} is out of range for task {}", self.task))
            }
            DataType::Float64 => {
                score_label(self.task, column.as_primitive::<Float64Type>().value(i))
            }
            _ => class_label(self.task, integer(column, i)?),
        }
    }

    fn bad_value(&self, column: &str, row: usize, problem: String) -> GlueError {
        let way_out = match column {
            "label" => allowed(self.task),
            "idx" => "an idx is an integer below 2^63".to_owned(),
            _ => "remove the row or give it a text".to_owned(),
        };
        GlueError::Value {
            path: self.path.to_owned(),
            place: format!("row {row} (counted from 0), column {column:?}"),
            problem,
            way_out,
        }
    }
}

fn text_size(row: &Row) -> usize {
    row.text.len() + row.text_pair.as_ref().map_or(0, String::len)
}
