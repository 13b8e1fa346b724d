//! What only RoBERTa's config.json has.

use super::fields::Fields;
use super::{Defaults, Family, ModelConfig};
use crate::ModelError;

/// RoBERTa's own hyperparameters.
#[derive(Debug, Clone, PartialEq)]
pub struct RobertaConfig {
    /// Dropout of the head; the hidden dropout when the file has null.
    pub classifier_dropout: f64,
}

impl RobertaConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, ModelError> {
        fields.refuse_unless("position_embedding_type", &["absolute".into()])?;
        let hidden_dropout = fields.probability("hidden_dropout_prob", Some(0.1))?;
        let own = Self {
            classifier_dropout: fields.probability("classifier_dropout", Some(hidden_dropout))?,
        };
        let defaults = Defaults {
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 1,
        };
        let config = ModelConfig::shared(fields, &defaults, Family::Roberta(own))?;
        if config.type_vocab_size == 0 {
            return Err(fields.wrong("type_vocab_size is 0; expected at least 1".into()));
        }
        let (positions, pad) = (config.max_position_embeddings, config.pad_token_id);
        if positions < pad + 2 {
            return Err(fields.wrong(format!(
                "max_position_embeddings {positions} leaves no position after pad_token_id {pad}; \
                 expected at least {}",
                pad + 2
            )));
        }
        Ok(config)
    }
}
