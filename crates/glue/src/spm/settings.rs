//! What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say beside an `spm.model`.
//!
//! The published DeBERTa-v2 has only the first, with `do_lower_case` and `vocab_type`. A folder that
//! transformers saved from its slow tokenizer has all three, and says most things twice: `added_tokens_decoder`
//! of the first, where it is there, replaces the other two files. So it is here.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::Beside;

const CONFIG: &str = "tokenizer_config.json";
const NAMES: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// The special tokens by name with DeBERTa-v2's defaults, in the order in which transformers adds them.
const SPECIAL: [(&str, &str); 7] = [
    ("bos_token", "[CLS]"),
    ("eos_token", "[SEP]"),
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// A file's name and what is wrong in it.
type Problem = (&'static str, String);

/// An added token with the id that a file claims for it.
pub(super) struct Claim {
    /// The token.
    pub(super) token: AddedToken,
    /// Its id.
    pub(super) id: u32,
    /// The file that says so.
    pub(super) file: &'static str,
}

/// What the JSON files say, checked.
pub(super) struct Settings {
    /// Texts are put into lower case first.
    pub(super) do_lower_case: bool,
    /// Punctuation stands alone, whatever the pieces.
    pub(super) split_by_punct: bool,
    /// Tokens with ids, by id.
    pub(super) claimed: Vec<Claim>,
    /// Special tokens without ids; those that are there already come first in the vocabulary.
    pub(super) special: Vec<AddedToken>,
}

impl Settings {
    /// Reads and checks the three files.
    pub(super) fn read(beside: &Beside<'_>) -> Result<Self, Problem> {
        let config = object(CONFIG, beside.config)?;
        let names = object(NAMES, beside.names)?;
        let added = object(ADDED, beside.added)?;
        refuse_other_tokenizers(&config)?;
        let decoder = match config.get("added_tokens_decoder") {
            None | Some(Value::Null) => None,
            Some(decoder) => Some(object(CONFIG, decoder)?),
        };
        let names = if decoder.is_some() { Map::new() } else { names };
        let special = special_tokens(&config, &names)?;
        let claimed = match decoder {
            Some(decoder) => decoder_tokens(&decoder, &texts(&special))?,
            None => added_tokens(&added, &texts(&special), &explicit(&config, &names)?)?,
        };
        Ok(Self {
            do_lower_case: flag(&config, "do_lower_case")?,
            split_by_punct: flag(&config, "split_by_punct")?,
            claimed,
            special,
        })
    }
}

/// Settings that would give other ids than DeBERTa-v2's.
fn refuse_other_tokenizers(config: &Map<String, Value>) -> Result<(), Problem> {
    let only = |key: &str, allowed: &[&str]| match config.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
        Some(value) => Err((
            CONFIG,
            format!("{key} is {value}, and only {} is known", allowed.join(" or ")),
        )),
    };
    only("vocab_type", &["spm"])?;
    only(
        "tokenizer_class",
        &["DebertaV2Tokenizer", "DebertaV2TokenizerFast"],
    )?;
    if flag(config, "split_special_tokens")? {
        let problem = "split_special_tokens is true, and only false is known";
        return Err((CONFIG, problem.to_owned()));
    }
    Ok(())
}

/// The seven named tokens and `additional_special_tokens`, each once.
fn special_tokens(
    config: &Map<String, Value>,
    names: &Map<String, Value>,
) -> Result<Vec<AddedToken>, Problem> {
    let mut tokens: Vec<AddedToken> = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |token: AddedToken| {
        if seen.insert(token.content.clone()) {
            tokens.push(token);
        }
    };
    for (name, default) in SPECIAL {
        let Some((file, value)) = setting(config, names, name) else {
            add(AddedToken::from(default, true).normalized(name == "unk_token"));
            continue;
        };
        if matches!(name, "cls_token" | "sep_token") && content(value) != Some(default) {
            return Err((file, format!("{name} is {value}, and only {default} is known")));
        }
        if !value.is_null() {
            let token = token(file, name, value, true)?;
            // transformers gives this one token, where it is only named, to the text after the character map.
            let normalized = token.normalized || (name == "unk_token" && value.is_string());
            add(token.normalized(normalized));
        }
    }
    for (file, value) in additional(config, names)? {
        add(token(file, "additional_special_tokens", value, true)?);
    }
    Ok(tokens)
}

/// The texts of the special tokens that a file names itself.
fn explicit<'a>(
    config: &'a Map<String, Value>,
    names: &'a Map<String, Value>,
) -> Result<HashSet<&'a str>, Problem> {
    let named = SPECIAL
        .iter()
        .filter_map(|(name, _)| setting(config, names, name).map(|(_, value)| value));
    let more = additional(config, names)?.into_iter().map(|(_, value)| value);
    Ok(named.chain(more).filter_map(content).collect())
}

fn texts(tokens: &[AddedToken]) -> HashSet<&str> {
    tokens.iter().map(|token| token.content.as_str()).collect()
}

/// `added_tokens_decoder`: an object of ids and tokens with all their properties.
fn decoder_tokens(
    decoder: &Map<String, Value>,
    special: &HashSet<&str>,
) -> Result<Vec<Claim>, Problem> {
    let mut claims = BTreeMap::new();
    for (key, value) in decoder {
        let id: u32 = key.parse().map_err(|_| {
            let problem = format!("added_tokens_decoder: {key:?} is no token id");
            (CONFIG, problem)
        })?;
        let mut token = token(CONFIG, "added_tokens_decoder", value, false)?;
        token.special |= special.contains(token.content.as_str());
        claims.insert(id, token);
    }
    Ok(claims
        .into_iter()
        .map(|(id, token)| Claim {
            token,
            id,
            file: CONFIG,
        })
        .collect())
}

/// `added_tokens.json`: an object of tokens and ids. The character map acts on those that are not special.
fn added_tokens(
    added: &Map<String, Value>,
    special: &HashSet<&str>,
    named: &HashSet<&str>,
) -> Result<Vec<Claim>, Problem> {
    let mut claims = BTreeMap::new();
    for (text, id) in added {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| (ADDED, format!("{text:?} has the id {id}")))?;
        let (text, normalized) = (text.as_str(), !named.contains(text.as_str()));
        let token = AddedToken::from(text, special.contains(text)).normalized(normalized);
        claims.insert(id, token);
    }
    Ok(claims
        .into_iter()
        .map(|(id, token)| Claim {
            token,
            id,
            file: ADDED,
        })
        .collect())
}

/// A setting's value and file; `special_tokens_map.json` has the last word.
fn setting<'a>(
    config: &'a Map<String, Value>,
    names: &'a Map<String, Value>,
    key: &str,
) -> Option<(&'static str, &'a Value)> {
    let of = |file, map: &'a Map<String, Value>| map.get(key).map(|value| (file, value));
    of(NAMES, names).or_else(|| of(CONFIG, config))
}

fn additional<'a>(
    config: &'a Map<String, Value>,
    names: &'a Map<String, Value>,
) -> Result<Vec<(&'static str, &'a Value)>, Problem> {
    let key = "additional_special_tokens";
    let mut all = Vec::new();
    for (file, map) in [(CONFIG, config), (NAMES, names)] {
        match map.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(tokens)) => all.extend(tokens.iter().map(|token| (file, token))),
            Some(value) => return Err((file, format!("{key} is {value}, not a list"))),
        }
    }
    Ok(all)
}

/// A token as a string, or as an object with its properties.
fn token(
    file: &'static str,
    key: &str,
    value: &Value,
    special: bool,
) -> Result<AddedToken, Problem> {
    let wrong = || (file, format!("{key}: {value} is no token"));
    let text = content(value).filter(|text| !text.is_empty()).ok_or_else(wrong)?;
    let Some(properties) = value.as_object() else {
        return Ok(AddedToken::from(text, special));
    };
    let property = |name: &str, default: bool| match properties.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(wrong()),
    };
    let special = special || property("special", false)?;
    Ok(AddedToken::from(text, special)
        .lstrip(property("lstrip", false)?)
        .rstrip(property("rstrip", false)?)
        .single_word(property("single_word", false)?)
        .normalized(property("normalized", !special)?))
}

fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<bool, Problem> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(value) => Err((CONFIG, format!("{key} is {value}, not true or false"))),
    }
}

fn object(file: &'static str, value: &Value) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map.clone()),
        other => Err((file, format!("{other} is no JSON object"))),
    }
}
