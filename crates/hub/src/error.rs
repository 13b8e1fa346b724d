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
                "a folder with config.json, weights and a tokenizer, or a name on the hub like roberta-base"
            }
            Kind::Data => {
                "a folder that holds <task>/<split>-00000-of-00001.parquet, or a name on the hub like nyu-mll/glue"
            }
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
    /// An environment variable with a value that cannot be meant.
    #[error("{variable} is `{value}`, which {problem}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value, unless that is a secret.
        value: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// No place for downloads.
    #[error(
        "no cache folder for downloads: set HF_HOME or HF_HUB_CACHE to a folder that can be written"
    )]
    NoHubCache,
    /// Certificates that cannot be used.
    #[error("no certificate (PEM) in `{}`, which REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE names", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// Offline, and the cache does not hold what is needed.
    #[error(
        "{kind} `{repo}` is not in the cache `{}` ({lacks} is missing) and HF_HUB_OFFLINE forbids to fetch it: \
         unset HF_HUB_OFFLINE, or fetch it first where there is a network (`cargo xtask fetch` fetches all that a \
         grid needs) and set HF_HOME to that cache",
        cache.display()
    )]
    Offline {
        /// Model or data.
        kind: Kind,
        /// The repository, with its revision.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
        /// What is not there.
        lacks: String,
    },
    /// The hub does not know the repository, or does not say that it does.
    #[error(
        "{kind} `{repo}`: there is no such folder, and {endpoint} has no such repository or it is private: check the \
         name{}",
        if *token { ", and that your token may read it" } else { ", or set HF_TOKEN to a token that may read it" }
    )]
    RepoNotFound {
        /// Model or data.
        kind: Kind,
        /// The repository, with its revision.
        repo: String,
        /// The hub's address.
        endpoint: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error(
        "{repo}: the repository has no revision `{revision}`: leave `@{revision}` out or give another"
    )]
    RevisionNotFound {
        /// The repository, with its revision.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The revision has no such file.
    #[error(
        "{repo} has no file `{file}` on the hub: give a revision that has it after an @, or a folder"
    )]
    FileNotFound {
        /// The repository, with its revision.
        repo: String,
        /// The file's path in the repository.
        file: String,
    },
    /// The hub has the repository and gives it to others only.
    #[error("{endpoint} refuses `{repo}` ({status}{}): {way_out}", reason.as_ref().map(|r| format!(", {r}")).unwrap_or_default())]
    Refused {
        /// The repository, with its revision.
        repo: String,
        /// The hub's address.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// What the hub says.
        reason: Option<String>,
        /// What to do.
        way_out: &'static str,
    },
    /// An answer that nobody foresaw.
    #[error("{place} answers {status} to the request for {what}")]
    Status {
        /// Host that answered.
        place: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// No complete answer after all attempts.
    #[error(
        "cannot get {what} from {place}: {reason}{}; what has arrived is kept, so try again later or set \
         HF_HUB_OFFLINE=1 to take what the cache holds",
        if *attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() }
    )]
    Unreachable {
        /// What was asked for.
        what: String,
        /// The hub's address.
        place: String,
        /// The last failure.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The address cannot be used at all.
    #[error("cannot talk to {place}: {reason}; {way_out}")]
    Connection {
        /// The hub's address.
        place: String,
        /// The failure.
        reason: String,
        /// What to do.
        way_out: &'static str,
    },
    /// The server is no hub, or lies.
    #[error(
        "{place} gives {problem} for {what}: that is no answer of a hub; check HF_ENDPOINT and proxies"
    )]
    Answer {
        /// The server.
        place: String,
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The content is not what the hub promised.
    #[error(
        "{repo}: `{file}` arrived with {found} instead of {expected}, twice: it was damaged on the way (a proxy, a \
         mirror) and not kept; try again or from another network"
    )]
    WrongBytes {
        /// The repository, with its revision.
        repo: String,
        /// The file's path in the repository.
        file: String,
        /// The hub's digest.
        expected: String,
        /// The digest of what arrived.
        found: String,
    },
    /// A GLUE file that is not the known one.
    #[error(
        "{repo}: `{file}` has the sha256 {found}, and the known file of GLUE has {expected}: scores on it would not \
         compare with published ones; give another revision after an @, or the folder of a copy with --data-dir"
    )]
    NotGlue {
        /// The repository, with its revision.
        repo: String,
        /// The file's path in the repository.
        file: String,
        /// The known digest.
        expected: &'static str,
        /// The file's.
        found: String,
    },
    /// A repository without what is needed.
    #[error("{kind} `{repo}` has no {lacks} on the hub: {way_out}")]
    Lacks {
        /// Model or data.
        kind: Kind,
        /// The repository, with its revision.
        repo: String,
        /// What is not there.
        lacks: String,
        /// What to do.
        way_out: &'static str,
    },
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
