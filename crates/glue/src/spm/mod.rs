//! DeBERTa-v2's tokenizer from `spm.model`, the SentencePiece model that its published checkpoints hold.
//!
//! A SentencePiece file says how text becomes pieces, and nothing of what a model does around them. Three steps
//! lead from one to the other:
//!
//! 1. [`wire`] and [`model`] read the file, which is a protocol buffer, without trusting it; [`charsmap`]
//!    follows every path of its compiled character map before the library gets to see it.
//! 2. [`settings`] reads what the JSON files beside it add: lower case, splitting at punctuation, more tokens.
//! 3. [`build`] puts a unigram model, the character map, the whitespace rules, the special tokens and the
//!    template `[CLS] A [SEP] B [SEP]` together.
//!
//! The result gives the ids of `DebertaV2TokenizerFast` of transformers 4.57, which converts the same file.
//! transformers 5 leaves the character map out and is no reference. Where the result differs from
//! SentencePiece itself, and why, is listed in `docs/formats.md`, with the one setting in which it follows
//! SentencePiece and not transformers.

mod build;
mod charsmap;
mod model;
mod settings;
mod wire;

use std::path::Path;

use serde_json::Value;

pub(crate) use model::check_length;

use crate::GlueError;
use crate::vocabulary::BROKEN;

/// The JSON files beside an `spm.model`; `Null` for one that is not there.
pub(crate) struct Beside<'a> {
    /// `tokenizer_config.json`.
    pub(crate) config: &'a Value,
    /// `special_tokens_map.json`.
    pub(crate) names: &'a Value,
    /// `added_tokens.json`.
    pub(crate) added: &'a Value,
}

/// The way out for a file that asks for what the tokenizer of DeBERTa-v2 does not do.
const OTHER: &str =
    "only the tokenizer of DeBERTa-v2 is built from spm.model; save another one as tokenizer.json";

/// Builds the tokenizer of a folder with `spm.model`, whose content is `bytes`.
pub(crate) fn from_spm(
    dir: &Path,
    bytes: &[u8],
    beside: &Beside<'_>,
) -> Result<tokenizers::Tokenizer, GlueError> {
    let path = dir.join("spm.model");
    let model = model::SpmModel::parse(bytes).map_err(|problem| GlueError::Tokenizer {
        path: path.clone(),
        problem,
        way_out: BROKEN,
    })?;
    let settings = settings::Settings::read(beside).map_err(|(file, problem)| {
        let path = dir.join(file);
        GlueError::Tokenizer {
            path,
            problem,
            way_out: OTHER,
        }
    })?;
    build::build(&path, model, settings)
}
