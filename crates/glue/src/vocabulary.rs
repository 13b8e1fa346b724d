//! RoBERTa's tokenizer from `vocab.json` and `merges.txt`, the two files of the time before tokenizer.json.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;

use crate::GlueError;
use crate::guard::guard;

/// The way out for a tokenizer file that cannot be understood.
pub(crate) const BROKEN: &str =
    "fetch the file again, or save it anew with `save_pretrained` of transformers";

/// RoBERTa's byte-level BPE, as transformers builds it from the same two files. `<mask>` takes the
/// space before it, as in the tokenizer.json published with RoBERTa (transformers 5 drops that detail
/// when it has only the two files; it matters for texts that spell out "<mask>" and no others).
pub(crate) fn from_vocab(
    dir: &Path,
    vocab: &[u8],
    merges: &[u8],
    add_prefix_space: bool,
) -> Result<tokenizers::Tokenizer, GlueError> {
    let path = dir.join("vocab.json");
    let failed = |problem: String| GlueError::Tokenizer {
        path: path.clone(),
        problem,
        way_out: BROKEN,
    };
    let entries: HashMap<String, u32> = serde_json::from_slice(vocab)
        .map_err(|e| failed(format!("not a JSON object of tokens and ids: {e}")))?;
    let special = |token: &str| {
        let id = entries.get(token).copied();
        id.map(|id| (token.to_owned(), id))
            .ok_or_else(|| failed(format!("no token {token:?}")))
    };
    let (begin, end) = (special("<s>")?, special("</s>")?);
    let added: Vec<AddedToken> = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        .into_iter()
        .filter(|token| entries.contains_key(*token))
        .map(|token| AddedToken::from(token, true).lstrip(token == "<mask>"))
        .collect();
    let merges = parse_merges(&dir.join("merges.txt"), merges)?;
    built(&path, || {
        let entries: Vocab = entries.into_iter().collect();
        let model = BPE::builder()
            .vocab_and_merges(entries, merges)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix(String::new())
            .build()?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
        let processor = RobertaProcessing::new(end, begin);
        tokenizer.with_post_processor(Some(
            processor
                .trim_offsets(true)
                .add_prefix_space(add_prefix_space),
        ));
        tokenizer.add_special_tokens(added)?;
        Ok(tokenizer)
    })
}

/// One merge "left right" per line after an optional `#version` line.
fn parse_merges(path: &Path, bytes: &[u8]) -> Result<Vec<(String, String)>, GlueError> {
    let failed = |problem| GlueError::Tokenizer {
        path: path.to_owned(),
        problem,
        way_out: BROKEN,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| failed(format!("not UTF-8: {e}")))?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        match line.split(' ').collect::<Vec<_>>()[..] {
            [left, right] => merges.push((left.to_owned(), right.to_owned())),
            _ => {
                return Err(failed(format!(
                    "line {} is {line:?}, not two tokens",
                    number + 1
                )));
            }
        }
    }
    Ok(merges)
}

/// Runs a constructor of the library and names the file in its error.
pub(crate) fn built<T>(
    path: &Path,
    make: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, GlueError> {
    let failed = |problem| GlueError::Tokenizer {
        path: path.to_owned(),
        problem,
        way_out: BROKEN,
    };
    guard(make)
        .map_err(failed)?
        .map_err(|e| failed(e.to_string()))
}
