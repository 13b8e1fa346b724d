//! Names to files on disk: what `--model` and `--data-dir` mean.
//!
//! A user names a model or a data set in one word; everything else in the workspace wants a folder. This crate turns
//! the one into the other and says clearly when it cannot. It knows three kinds of argument:
//!
//! 1. a folder on disk, taken as it is after a look at what it holds ([`model`], [`data`]);
//! 2. `mini`, the small pretrained model and the three small tasks that this project made itself. Their files are
//!    embedded in the program and unpacked into a cache folder on first use ([`unpack_mini`]), so that a first
//!    fine-tuning needs no download;
//! 3. any other name, which is refused with the way out: downloads are not built in yet.
//!
//! The crate looks at names and files only. It reads no model, no data set and no configuration, and depends on no
//! other crate of the workspace.

mod error;
mod locate;
mod mini;

pub use error::{HubError, Kind};
pub use locate::{Located, data, model};
pub use mini::{MINI, Mini, cache_dir, mini_digest, unpack_mini};
