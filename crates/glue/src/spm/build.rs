//! The parts of the tokenizers library that make up DeBERTa-v2's tokenizer, as transformers 4.57 puts them
//! together when it converts an `spm.model` (`DebertaV2Converter`).

use std::collections::HashSet;
use std::path::Path;

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior};

use super::OTHER;
use super::model::{Kind, SpmModel};
use super::settings::Settings;
use crate::GlueError;
use crate::vocabulary::built;

/// SentencePiece's sign for a space.
const SPACE: char = '\u{2581}';

/// Builds the tokenizer of a model that was read from `path`.
pub(super) fn build(
    path: &Path,
    model: SpmModel,
    settings: Settings,
) -> Result<tokenizers::Tokenizer, GlueError> {
    let failed = |path: &Path, problem: String| GlueError::Tokenizer {
        path: path.to_owned(),
        problem,
        way_out: OTHER,
    };
    let place = |token: &str| {
        let place = model.pieces.iter().position(|piece| piece.text == token);
        place.ok_or_else(|| failed(path, format!("it has no piece {token}")))
    };
    let (cls, sep) = (place("[CLS]")?, place("[SEP]")?);
    let claims: Vec<_> = settings
        .claimed
        .iter()
        .map(|claim| (claim.token.content.clone(), claim.id, claim.file))
        .collect();
    let tokenizer = built(path, || assemble(model, settings, [cls, sep]))?;
    for (token, id, file) in claims {
        let has = tokenizer.token_to_id(&token);
        if has != Some(id) {
            let has = has.map_or("none".to_owned(), |id| id.to_string());
            let problem = format!("{token:?} has the id {id} there and {has} after spm.model");
            return Err(failed(&path.with_file_name(file), problem));
        }
    }
    Ok(tokenizer)
}

fn assemble(
    model: SpmModel,
    settings: Settings,
    [cls, sep]: [usize; 2],
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let normalizer = normalizer(&model, settings.do_lower_case)?;
    // As SentencePiece has it. transformers puts a space before the text whatever the model says.
    let prefix = if model.add_dummy_prefix {
        PrependScheme::Always
    } else {
        PrependScheme::Never
    };
    let mut splits = Vec::new();
    if settings.split_by_punct {
        splits.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
    }
    splits.push(Metaspace::new(SPACE, prefix, true).into());
    let added = added_tokens(&model, settings);
    let pieces = model
        .pieces
        .into_iter()
        .map(|piece| (piece.text, f64::from(piece.score)));
    // No byte fallback even where the model has it: transformers has none either.
    let unigram = Unigram::from(pieces.collect(), Some(model.unk_id), false)?;
    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(splits)));
    tokenizer.with_decoder(Some(Metaspace::new(SPACE, prefix, true)));
    let template = TemplateProcessing::builder()
        .try_single("[CLS]:0 $A:0 [SEP]:0")?
        .try_pair("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")?
        .special_tokens(vec![("[CLS]", cls as u32), ("[SEP]", sep as u32)])
        .build()
        .map_err(|e| e.to_string())?;
    tokenizer.with_post_processor(Some(template));
    tokenizer.add_tokens(added)?;
    Ok(tokenizer)
}

/// Lower case, no whitespace at the ends, the model's character map, single spaces. In this order: what
/// the map turns into a space at an end stays there as one.
fn normalizer(model: &SpmModel, lower_case: bool) -> tokenizers::Result<Sequence> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if lower_case {
        steps.push(Lowercase.into());
    }
    steps.push(Strip::new(true, true).into());
    if !model.charsmap.is_empty() {
        let map = Precompiled::from(&model.charsmap).map_err(|e| e.to_string())?;
        steps.push(map.into());
    }
    steps.push(Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), " ")?.into());
    Ok(Sequence::new(steps))
}

/// The tokens that are looked for in a text before anything else is done to it: the model's own control and
/// user-defined pieces, those that the JSON files list, and the special ones that are in neither.
fn added_tokens(model: &SpmModel, settings: Settings) -> Vec<AddedToken> {
    let own = model.pieces.iter().filter_map(|piece| {
        let special = match piece.kind {
            Kind::Control => true,
            Kind::UserDefined => false,
            _ => return None,
        };
        Some(AddedToken::from(piece.text.as_str(), special).normalized(false))
    });
    let mut tokens: Vec<AddedToken> = own.collect();
    tokens.extend(settings.claimed.into_iter().map(|claim| claim.token));
    let there: HashSet<String> = tokens.iter().map(|token| token.content.clone()).collect();
    let missing = settings.special.into_iter();
    tokens.extend(missing.filter(|token| !there.contains(&token.content)));
    tokens
}
