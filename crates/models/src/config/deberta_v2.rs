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
    /// `norm_rel_ebd` asks for a LayerNorm and there is nothing to normalise (`relative_attention` false):
    /// transformers has its two tensors in the file and never reads them.
    pub idle_norm: bool,
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

    /// Tokens of the longest row whose distances all have a bucket, where there is a longest. Buckets beyond the
    /// middle are a logarithm to the base (max_relative_positions - 1) / (buckets / 2), and there is none to
    /// the base 1.
    pub fn longest_row(&self) -> Option<usize> {
        let near = self.position_buckets? / 2 + 1;
        (self.max_relative_positions == near).then_some(near)
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
        let normalised = normalised(fields)?;
        let relative = relative(fields, c2p, p2c, normalised)?;
        let own = Self {
            embedding_size: fields.size("embedding_size", Some(hidden))?,
            position_biased_input: fields.flag("position_biased_input", true)?,
            idle_norm: normalised && relative.is_none(),
            relative,
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
    normalised: bool,
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
        normalised,
    };
    // Half the buckets stand in a denominator, whatever the distance.
    if buckets == Some(1) {
        return Err(fields.wrong(
            "position_buckets is 1; expected at least 2, or -1 for an embedding per distance"
                .into(),
        ));
    }
    if let (Some(buckets), Some(longest)) = (buckets, relative.longest_row())
        && positions > longest
    {
        return Err(fields.wrong(format!(
            "max_relative_positions is {longest} with position_buckets {buckets}: a distance of {longest} or \
             more has no bucket, and max_position_embeddings {positions} allows it; correct the wrong one"
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// A small configuration of 64 positions, with some fields changed.
    fn config(changes: Value) -> Result<ModelConfig, ModelError> {
        let mut config = json!({
            "model_type": "deberta-v2", "vocab_size": 99, "max_position_embeddings": 64, "hidden_size": 8,
            "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        });
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        ModelConfig::parse(config.to_string().as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn rows_end_where_the_positions_do_and_nowhere_else() {
        let long = 1 << 16;
        for (changes, trained, longest) in [
            (json!({}), 64, 64),
            (json!({"position_biased_input": false}), 64, long),
            (
                json!({"position_biased_input": false, "max_position_embeddings": 1 << 20}),
                1 << 20,
                1 << 20,
            ),
        ] {
            let config = config(changes).unwrap();
            assert_eq!(config.trained_length(), trained, "{:?}", config.raw);
            assert_eq!(config.max_length(), longest, "{:?}", config.raw);
        }
    }

    #[test]
    fn rows_end_where_a_distance_has_no_bucket() {
        let long = 1 << 16;
        for (buckets, positions, longest) in [
            (-1, -1, long),
            (2, -1, long),
            (3, 1, long),
            (8, 20, long),
            // Half the buckets are as many as there are distances, more, and fewer.
            (126, -1, 64),
            (128, -1, long),
            (124, -1, long),
            (256, 129, 129),
            (257, 129, 129),
            (256, 128, long),
        ] {
            let config = config(json!({
                "position_biased_input": false, "relative_attention": true, "pos_att_type": "c2p",
                "position_buckets": buckets, "max_relative_positions": positions,
            }))
            .unwrap();
            assert_eq!(config.trained_length(), 64);
            assert_eq!(config.max_length(), longest, "{buckets} of {positions}");
        }
        for (buckets, positions, expected) in [
            (1, -1, "position_buckets is 1; expected at least 2"),
            (2, 2, "max_relative_positions is 2 with position_buckets 2"),
            (9, 5, "a distance of 5 or more has no bucket"),
            (124, 63, "max_position_embeddings 64 allows it"),
        ] {
            let error = config(json!({
                "relative_attention": true, "position_buckets": buckets, "max_relative_positions": positions,
            }));
            let message = error.unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "{expected:?} is not in: {message}"
            );
        }
    }

    #[test]
    fn a_norm_of_nothing_is_known_and_not_written() {
        for (relative, norm, idle) in [
            (false, "layer_norm", true),
            (false, "none", false),
            (true, "layer_norm", false),
        ] {
            let config =
                config(json!({"relative_attention": relative, "norm_rel_ebd": norm})).unwrap();
            let Family::DebertaV2(own) = &config.family else {
                panic!("{:?} is of another family", config.family);
            };
            assert_eq!(own.idle_norm, idle);
            let written = config.to_classifier_json(2, None);
            assert_eq!(written["norm_rel_ebd"], if idle { "none" } else { norm });
        }
    }
}
