//! What can go wrong at the boundary to files.

use std::path::PathBuf;

/// An error of a model folder: the file, what is wrong in it, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read or written.
    #[error("{}: {action} failed: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// config.json is not what the architecture needs.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The config.json.
        path: PathBuf,
        /// The field, its value and what is expected.
        problem: String,
    },
    /// A weight file is damaged or of a kind that is not supported.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The weight file or its folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The weights and the configuration do not belong together.
    #[error("{}: the weights do not fit config.json: {problem}", path.display())]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// Missing, unexpected and misshapen tensors, by name.
        problem: String,
    },
    /// There are no such numbers.
    #[error("there is no dtype {0:?}; give f32, bf16 or f16")]
    Dtype(String),
    /// An adapter does not fit the model.
    #[error("the adapter does not fit the model: {problem}")]
    Adapter {
        /// Names and shapes.
        problem: String,
    },
    /// The adapter is wrong in itself.
    #[error(transparent)]
    Lora(#[from] lowburn_lora::LoraError),
}

impl ModelError {
    pub(crate) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}
