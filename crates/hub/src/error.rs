//! What can be wrong with a model or data argument, each with its way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What an argument was meant to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--model`: a checkpoint folder.
    Model,
    /// `--data-dir`: a folder with one folder per task.
    Data,
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Kind::Model => {
                "a folder with config.json, model.safetensors (or pytorch_model.bin) and tokenizer.json (or vocab.json and merges.txt)"
            }
            Kind::Data => "a folder that holds <task>/<split>-00000-of-00001.parquet",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Model => "model",
            Kind::Data => "data",
        })
    }
}

/// Errors of resolving a name to a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The argument is a bare name and no folder of that name exists.
    #[error(
        "{kind} `{argument}`: no such folder, and downloads by name are not built in yet; fetch it yourself (for \
         example `huggingface-cli download {argument} --local-dir FOLDER`) and give the folder: {}. \
         `mini` is built in",
        kind.expected()
    )]
    UnknownName {
        /// Model or data.
        kind: Kind,
        /// What was given.
        argument: String,
    },
    /// The argument looks like a path and nothing is there.
    #[error("{kind} folder `{}` does not exist; expected {}", path.display(), kind.expected())]
    Missing {
        /// Model or data.
        kind: Kind,
        /// What was given.
        path: PathBuf,
    },
    /// The argument names a file.
    #[error("{kind} `{}` is a file; expected {}", path.display(), kind.expected())]
    NotAFolder {
        /// Model or data.
        kind: Kind,
        /// What was given.
        path: PathBuf,
    },
    /// A model folder without its configuration.
    #[error(
        "model folder `{}` has no {file}; expected {}{}",
        folder.display(),
        Kind::Model.expected(),
        hint.as_deref().unwrap_or_default()
    )]
    MissingFile {
        /// The folder that was given.
        folder: PathBuf,
        /// The file that it lacks.
        file: &'static str,
        /// A better guess at what was meant, if there is one.
        hint: Option<String>,
    },
    /// A data argument that is a task's folder itself.
    #[error(
        "data folder `{}` holds Parquet files itself; give its parent, the folder with one folder per task",
        folder.display()
    )]
    TaskFolder {
        /// The folder that was given.
        folder: PathBuf,
    },
    /// An empty argument.
    #[error("the {kind} argument is empty; expected {}, or `mini`", kind.expected())]
    Empty {
        /// Model or data.
        kind: Kind,
    },
    /// The program was built outside the workspace.
    #[error(
        "this build carries no `mini` assets (it was built without the workspace's data/mini folder)"
    )]
    NoMiniAssets,
    /// No place for the unpacked assets.
    #[error(
        "no cache folder for the `mini` assets: set LOWBURN_CACHE to a folder that can be written"
    )]
    NoCacheFolder,
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
