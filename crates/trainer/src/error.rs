//! One typed error per way a run can fail: each names the file or the value, and the way out.

use std::path::{Path, PathBuf};

use lowburn_glue::GlueError;
use lowburn_lora::LoraError;
use lowburn_models::ModelError;

/// What can go wrong between a configuration and a finished run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A hyperparameter or a combination of them that no run can have.
    #[error("{field} is {value}: {reason}")]
    Config {
        /// The field, named as on the command line without the dashes.
        field: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot be, and what to give instead.
        reason: String,
    },
    /// The data set, the tokenizer or a metric.
    #[error(transparent)]
    Data(#[from] GlueError),
    /// The checkpoint.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] LoraError),
    /// An adapter, head or checkpoint that does not belong to what it is used with.
    #[error("{path}: {reason}")]
    Mismatch {
        /// The folder or file.
        path: PathBuf,
        /// What does not fit, and the way out.
        reason: String,
    },
    /// The output folder is in the way.
    #[error("output folder {path} {state}: {way_out}")]
    Output {
        /// The folder.
        path: PathBuf,
        /// What was found.
        state: String,
        /// What to do.
        way_out: String,
    },
    /// The run in the output folder is another one.
    #[error(
        "cannot resume {path}: {differences}; give the configuration of the first start, or another --output"
    )]
    Changed {
        /// The output folder.
        path: PathBuf,
        /// The fields that differ, each as `name was X, is Y`.
        differences: String,
    },
    /// A saved state or record that cannot be used.
    #[error("{path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        reason: String,
    },
    /// The loss or the gradient stopped being a number.
    #[error(
        "{what} is {value} at step {step} (lr {lr:e}): the run stopped and the last good state is kept; \
         start again with --overwrite and a smaller --lr (a tenth) or a longer warm-up, and check the data \
         for empty texts and wrong labels"
    )]
    Diverged {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value seen: NaN or infinite.
        value: f64,
        /// The optimiser step, from 1.
        step: u64,
        /// The learning rate of that step.
        lr: f64,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}{}", hint(action, .source))]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl TrainError {
    /// An input/output error with its file and what was tried.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A bad hyperparameter.
    pub(crate) fn config(
        field: &'static str,
        value: impl std::fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self::Config {
            field,
            value: value.to_string(),
            reason: reason.into(),
        }
    }
}

/// The way out, where the system's answer does not suggest it.
fn hint(action: &str, error: &std::io::Error) -> &'static str {
    match (error.kind(), action) {
        (std::io::ErrorKind::PermissionDenied, _) => "; choose a place you may write to",
        (std::io::ErrorKind::NotFound, "write") => "; create its folder first",
        _ => "",
    }
}
