//! Names to files on disk: what `--model` and `--data-dir` mean.
//!
//! A user names a model or a data set in one word; everything else in the workspace wants a folder. This crate turns
//! the one into the other and says clearly when it cannot. It knows three kinds of argument ([`model`], [`data`]):
//!
//! 1. a folder on disk, taken as it is after a look at what it holds;
//! 2. `mini`, the small pretrained model and the three small tasks that this project made itself. Their files are
//!    embedded in the program and unpacked into a cache folder on first use ([`unpack_mini`]), so that a first
//!    fine-tuning needs no download;
//! 3. any other name: a repository of the Hugging Face Hub, `name` or `owner/name`, with an optional `@revision`
//!    ([`RepoName`]). The files that are needed, and no others, are fetched into the cache that Python's
//!    `huggingface_hub` uses, in its layout ([`Hub`]), so that neither fetches what the other has.
//!
//! What arrives is believed only after it was verified: each file has the digest that the hub promises, or it is not
//! given its name in the cache; the files of GLUE are also compared with known digests ([`GLUE_FILES`]). A download
//! that was cut is gone on with, by this process or the next. The token goes to the hub and never to the host that a
//! redirect names. Without a network, or with `HF_HUB_OFFLINE`, the cache is enough.
//!
//! The crate looks at names and files only. It reads no model, no data set and no configuration, and depends on no
//! other crate of the workspace. It prints nothing; whoever asks hears [`Event`]s.

mod cache;
mod digest;
mod error;
mod event;
mod fetch;
mod glue;
mod http;
mod locate;
mod mini;
mod name;
mod repo;
mod select;
mod settings;
mod status;
mod url;

pub use error::{HubError, Kind};
pub use event::{Event, Hear};
pub use glue::{GLUE, GLUE_FILES, GlueFile};
pub use locate::{Located, data, data_here, model, model_here};
pub use mini::{MINI, Mini, cache_dir, mini_digest, unpack_mini};
pub use name::RepoName;
pub use repo::{Hub, Snapshot};
pub use select::Split;
pub use settings::{Settings, Token};
