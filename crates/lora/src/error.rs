//! Everything that can go wrong with a LoRA configuration or an adapter file.
//!
//! Each message names the file (where there is one), the value that was found and a way out.

use std::path::{Path, PathBuf};

/// What went wrong with a LoRA configuration or an adapter file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// A hyperparameter has a value that cannot be trained or applied.
    #[error("{field} is {value}: {rule}")]
    InvalidValue {
        /// Field of [`LoraConfig`](crate::LoraConfig).
        field: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },

    /// A pattern is not a valid regular expression.
    #[error("{field} holds {pattern:?}, which is not a valid regular expression: {reason}")]
    InvalidPattern {
        /// Field of [`LoraConfig`](crate::LoraConfig).
        field: &'static str,
        /// The pattern as given.
        pattern: String,
        /// What the regular-expression engine says.
        reason: String,
    },

    /// A target or pattern matches no linear layer of the model.
    #[error("{field} {name:?} matches no linear layer of this model; {hint}")]
    UnknownTarget {
        /// Field of [`LoraConfig`](crate::LoraConfig).
        field: &'static str,
        /// The name or pattern that matches nothing.
        name: String,
        /// Near misses, or what the model does have.
        hint: String,
    },

    /// A target names a module that is trained and saved whole.
    #[error(
        "target {name:?} is the head (modules_to_save), which is trained in full and never gets LoRA; leave it out of the targets"
    )]
    TargetIsHead {
        /// The name as given.
        name: String,
    },

    /// The targets are fine one by one, but exclusions and layer limits leave nothing.
    #[error(
        "targets {targets} match no linear layer of this model once exclude_modules, modules_to_save and layers_to_transform are applied; {hint}"
    )]
    NothingMatched {
        /// The targets as given.
        targets: String,
        /// What the model does have.
        hint: String,
    },

    /// The folder is not a PEFT adapter folder.
    #[error("{}: not a PEFT adapter folder, {problem}", dir.display())]
    NotAnAdapter {
        /// The folder as given.
        dir: PathBuf,
        /// What is missing, and where it may be.
        problem: String,
    },

    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as in "cannot ...".
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },

    /// `adapter_config.json` is not JSON, or not an object.
    #[error("{}: not a JSON object: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },

    /// A field of `adapter_config.json` has a value of the wrong kind or out of range.
    #[error("{}: field {field:?} is {value}: {problem}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What is expected.
        problem: String,
    },

    /// The file asks for something that changes the results and that this crate does not compute.
    #[error("{}: {field} = {value} is not implemented here ({what}); applying the adapter without it would give other results", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field or tensor.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What it stands for.
        what: String,
    },

    /// A weight file is truncated, lies about its content or is not of its format.
    #[error("{}: unreadable as {format}: {reason}; the file is damaged or incomplete, get it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The expected format.
        format: &'static str,
        /// What the reader says.
        reason: String,
    },

    /// A tensor of an adapter file is missing, surplus or of the wrong shape or type.
    #[error("{}: tensor {name:?}: {problem}", path.display())]
    BadTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// What is wrong and what is expected.
        problem: String,
    },

    /// An adapter does not fit the model it is put on.
    #[error("the adapter does not belong to this model: {problem}")]
    OtherModel {
        /// Which modules disagree, with near misses.
        problem: String,
    },

    /// An adapter in memory contradicts itself (only met when writing one).
    #[error("the adapter is inconsistent: {problem}")]
    Inconsistent {
        /// What disagrees with what.
        problem: String,
    },
}

impl LoraError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(crate) fn tensor(path: &Path, name: &str, problem: impl Into<String>) -> Self {
        Self::BadTensor {
            path: path.to_path_buf(),
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}
