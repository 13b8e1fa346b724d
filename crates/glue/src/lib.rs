//! GLUE as data: the nine tasks and the diagnostic set, their files, tokenisation, batches and metrics.
//!
//! A trainer needs four things from a benchmark: rows, token ids, an order to see them in and a
//! number at the end. This crate gives exactly these and knows neither a tensor library nor a model:
//!
//! 1. [`Task`] says what a task is: text columns, classes, metrics, evaluation splits. Code asks the
//!    task; nothing else in the project compares task names.
//! 2. [`Dataset`] reads rows from the Parquet files of the Hugging Face data set `nyu-mll/glue`
//!    (or, for prediction, from `.parquet`, `.jsonl` or `.tsv`). Files are not trusted: each way in
//!    which one can be wrong is a [`GlueError`] that names the file, the value and a way out.
//! 3. [`Tokenizer`] turns texts into ids equal to those of Python's `transformers`; [`collate`] pads a
//!    batch to its longest row and [`Order`] decides which rows meet in a batch.
//! 4. [`score`] computes the task's metrics, equal to scikit-learn and SciPy, and [`submission_zip`]
//!    packs predictions for GLUE's server.
//!
//! ```
//! use lowburn_glue::{Label, Metric, Prediction, Task, score};
//!
//! let task: Task = "mrpc".parse()?;
//! assert_eq!(task.columns(), ("sentence1", Some("sentence2")));
//! let scores = score(
//!     task,
//!     &[Prediction::Class(1), Prediction::Class(0), Prediction::Class(1)],
//!     &[Label::Class(1), Label::Class(0), Label::Class(0)],
//! );
//! assert_eq!(scores.get(Metric::Accuracy), Some(2.0 / 3.0));
//! # Ok::<(), lowburn_glue::GlueError>(())
//! ```

mod batch;
mod columnar;
mod dataset;
mod digest;
mod error;
mod guard;
mod labels;
mod metrics;
mod order;
mod scores;
mod shards;
mod spm;
mod submission;
mod task;
mod textual;
mod tokenizer;
mod tokenizer_files;
mod values;
mod vocabulary;

pub use batch::{Batch, Encoding, collate};
pub use dataset::{DataFile, Dataset, Example};
pub use error::GlueError;
pub use labels::Label;
pub use metrics::{accuracy, f1, matthews, pearson, spearman};
pub use order::{Order, padding_fraction};
pub use scores::{Metric, Prediction, Scores, score};
pub use submission::{SubmissionFile, submission_table, submission_text, submission_zip};
pub use task::Task;
pub use tokenizer::Tokenizer;
