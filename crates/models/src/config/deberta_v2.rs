//! What only DeBERTa-v2's config.json has.
//!
//! The published files leave much unsaid (no pooler, no `type_vocab_size` above 0) and write
//! `pos_att_type` as the string "p2c|c2p"; files that transformers saved again have a list.

use serde_json::Value;

use super::fields::Fields;
use super::{Activation, Defaults, Family, ModelConfig};
use crate::ModelError;

/// DeBERTa-v2's own hyperparameters.
#[derive(Debug, Clone, PartialEq)]
pub struct DebertaV2Config {
    /// Width of the word embedding; projected to `hidden_size` where it differs.
    pub embedding_size: usize,
    /// Whether absolute positions are added to the words.
    pub position_biased_input: bool,
    /// Disentangled attention, or `None` for plain attention (`relative_attention` false).
    pub relative: Option<RelativeConfig>,
    /// Summands of an attention score that `pos_att_type` names, plus one: scores are divided by
    /// sqrt(terms x head size), also where `relative_attention` is false.
    pub score_terms: usize,
    /// The convolution after the first layer, if there is one.
    pub convolution: Option<ConvolutionConfig>,
    /// Dropout in front of the pooler.
    pub pooler_dropout: f64,
    /// Activation of the pooler.
    pub pooler_hidden_act: Activation,
    /// Dropout in front of the classifier; the hidden dropout when the file has none.
    pub cls_dropout: f64,
}

/// Disentangled attention (He et al. 2021, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeConfig {
    /// Content to position: a query meets position keys.
    pub c2p: bool,
    /// Position to content: a key meets position queries.
    pub p2c: bool,
    /// Positions are projected by the layer's own key and query instead of matrices of their own.
    pub share_att_key: bool,
    /// Distances beyond which positions are no longer told apart.
    pub max_relative_positions: usize,
    /// Logarithmic buckets on each side, or `None` for one embedding per distance.
    pub position_buckets: Option<usize>,
    /// LayerNorm over the position embeddings (`norm_rel_ebd` holds "layer_norm").
    pub normalised: bool,
}

/// The convolution whose output is added to the first layer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionConfig {
    /// Tokens that it sees, odd.
    pub kernel_size: usize,
    /// Groups of channels; divides `hidden_size`.
    pub groups: usize,
    /// Its activation.
    pub activation: Activation,
}

/// Wider than any convolution over tokens ever published.
const WIDEST_KERNEL: usize = 255;

impl RelativeConfig {
    /// Half the rows of the position embedding (`pos_ebd_size` in transformers).
    pub fn span(&self) -> usize {
        self.position_buckets.unwrap_or(self.max_relative_positions)
    }
}

impl DebertaV2Config {
    pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, ModelError> {
        let hidden = fields.size("hidden_size", None)?;
        let heads = fields.size("num_attention_heads", None)?;
        // transformers builds the output projection for heads x size = hidden only.
        fields.refuse_unless("attention_head_size", &[(hidden / heads).into()])?;
        fields.refuse_unless("pooler_hidden_size", &[hidden.into()])?;
        let hidden_dropout = fields.probability("hidden_dropout_prob", Some(0.1))?;
        let (c2p, p2c) = position_terms(fields)?;
        let own = Self {
            embedding_size: fields.size("embedding_size", Some(hidden))?,
            position_biased_input: fields.flag("position_biased_input", true)?,
            relative: relative(fields, c2p, p2c)?,
            score_terms: 1 + usize::from(c2p) + usize::from(p2c),
            convolution: convolution(fields, hidden)?,
            pooler_dropout: fields.probability("pooler_dropout", Some(0.0))?,
            pooler_hidden_act: fields.activation("pooler_hidden_act", Activation::Gelu)?,
            cls_dropout: fields.probability("cls_dropout", Some(hidden_dropout))?,
        };
        let defaults = Defaults {
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            pad_token_id: 0,
        };
        ModelConfig::shared(fields, &defaults, Family::DebertaV2(own))
    }

    /// Elements of the matrices that RoBERTa does not have.
    pub(super) fn matrix_elements(&self, config: &ModelConfig) -> u128 {
        let wide = |n: usize| n as u128;
        let hidden = wide(config.hidden_size);
        let relative = self.relative.map_or(0, |relative| {
            let own = match relative.share_att_key {
                true => 0,
                false => wide(self.score_terms - 1) * wide(config.num_hidden_layers),
            };
            2 * wide(relative.span()) * hidden + own * hidden * hidden
        });
        let convolution = self.convolution.map_or(0, |convolution| {
            wide(convolution.kernel_size) * hidden * hidden
        });
        relative + convolution + wide(self.embedding_size) * hidden
    }
}

/// Whether `pos_att_type` holds c2p and p2c; a string with bars or a list.
fn position_terms(fields: &Fields<'_>) -> Result<(bool, bool), ModelError> {
    let Some(value) = fields.get("pos_att_type") else {
        return Ok((false, false));
    };
    let parts: Option<Vec<&str>> = match value {
        Value::String(text) => Some(text.split('|').collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let (mut c2p, mut p2c) = (false, false);
    for part in parts.iter().flatten() {
        match part.trim().to_lowercase().as_str() {
            "c2p" => c2p = true,
            "p2c" => p2c = true,
            "" | "none" => {}
            _ => return Err(bad_terms(fields, value)),
        }
    }
    match parts {
        Some(_) => Ok((c2p, p2c)),
        None => Err(bad_terms(fields, value)),
    }
}

fn bad_terms(fields: &Fields<'_>, value: &Value) -> ModelError {
    fields.wrong(format!(
        "pos_att_type is {value}, which is not supported; it must be made of c2p and p2c, as the string \
         \"p2c|c2p\" or a list"
    ))
}

fn relative(
    fields: &Fields<'_>,
    c2p: bool,
    p2c: bool,
) -> Result<Option<RelativeConfig>, ModelError> {
    if !fields.flag("relative_attention", false)? {
        return Ok(None);
    }
    let positions = fields.size("max_position_embeddings", None)?;
    let buckets = fields
        .whole_or_negative("position_buckets")?
        .filter(|n| *n > 0);
    let relative = RelativeConfig {
        c2p,
        p2c,
        share_att_key: fields.flag("share_att_key", false)?,
        max_relative_positions: fields
            .whole_or_negative("max_relative_positions")?
            .filter(|n| *n > 0)
            .unwrap_or(positions),
        position_buckets: buckets,
        normalised: normalised(fields)?,
    };
    // mid = buckets / 2 stands in a denominator and in a logarithm of (positions - 1) / mid.
    if let Some(buckets) = buckets
        && (buckets < 4 || relative.max_relative_positions <= buckets / 2 + 1)
    {
        return Err(fields.wrong(format!(
            "position_buckets is {buckets} with max_relative_positions {}; expected at least 4 buckets, \
             and more than {} positions",
            relative.max_relative_positions,
            buckets / 2 + 1
        )));
    }
    Ok(Some(relative))
}

/// Whether `norm_rel_ebd`, words with bars between them, asks for a LayerNorm.
fn normalised(fields: &Fields<'_>) -> Result<bool, ModelError> {
    let Some(value) = fields.get("norm_rel_ebd") else {
        return Ok(false);
    };
    let words = value.as_str().map(str::to_lowercase);
    let mut found = false;
    for word in words.iter().flat_map(|words| words.split('|')) {
        match word.trim() {
            "layer_norm" => found = true,
            "none" | "" => {}
            _ => return Err(bad_norm(fields, value)),
        }
    }
    match words {
        Some(_) => Ok(found),
        None => Err(bad_norm(fields, value)),
    }
}

fn bad_norm(fields: &Fields<'_>, value: &Value) -> ModelError {
    fields.wrong(format!(
        "norm_rel_ebd is {value}, which is not supported; it must be \"none\" or \"layer_norm\""
    ))
}

fn convolution(
    fields: &Fields<'_>,
    hidden: usize,
) -> Result<Option<ConvolutionConfig>, ModelError> {
    let kernel_size = fields.whole("conv_kernel_size", Some(0))?;
    if kernel_size == 0 {
        return Ok(None);
    }
    if kernel_size % 2 == 0 || kernel_size > WIDEST_KERNEL {
        return Err(fields.wrong(format!(
            "conv_kernel_size is {kernel_size}; expected an odd number up to {WIDEST_KERNEL}, or 0 for none"
        )));
    }
    let groups = fields.size("conv_groups", Some(1))?;
    if !hidden.is_multiple_of(groups) {
        return Err(fields.wrong(format!(
            "hidden_size {hidden} is not a multiple of conv_groups {groups}; correct the wrong one"
        )));
    }
    Ok(Some(ConvolutionConfig {
        kernel_size,
        groups,
        activation: fields.activation("conv_act", Activation::Tanh)?,
    }))
}
