//! How positions enter DeBERTa-v2's attention (He et al. 2021, section 3.1): embeddings of
//! distances, bucketed logarithmically, projected to position keys and position queries.

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn::tensor::Tensor;
use lowburn_kernels::{Dropout, PositionTerms, RelativeIndex, dropout};
use lowburn_lora::Linear;

use crate::config::RelativeConfig;
use crate::embeddings::{Table, activations};
use crate::input::ModelInput;
use crate::layers::LayerNorm;
use crate::mode::Mode;

/// Embeddings of distances, shared by all layers.
#[derive(Module, Debug)]
pub struct RelativePositions {
    /// `[2 span, d]`.
    pub rel_embeddings: Table,
    /// LayerNorm over them.
    pub layer_norm: Option<LayerNorm>,
    /// Which distance is which row.
    #[module(skip)]
    pub config: RelativeConfig,
}

/// What a layer does with the embeddings of distances.
#[derive(Module, Debug)]
pub struct PositionBranch {
    /// Position keys, where they do not come from the layer's own key projection.
    pub pos_key_proj: Option<Linear>,
    /// Position queries, where they do not come from the layer's own query projection.
    pub pos_query_proj: Option<Linear>,
    /// Whether position keys are used (c2p).
    pub c2p: bool,
    /// Whether position queries are used (p2c).
    pub p2c: bool,
    /// Whether adapters of the shared projections act on positions too; see [`LoraPositionBranch`].
    pub adapted: bool,
    /// Probability of the dropout on the embeddings.
    pub dropout: f64,
}

/// What adapters on the projections that positions share (`share_att_key`) do to positions.
///
/// The same file means another function under each: PEFT's wrapped layer serves positions too, so
/// that merging is exact; the LoRA authors' code calls the bare matrix there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraPositionBranch {
    /// The update acts on positions as well.
    #[default]
    Peft,
    /// Positions see the frozen matrix alone. Such a model cannot be merged.
    Authors,
}

impl LoraPositionBranch {
    /// Both, in the order of the help text.
    pub const ALL: [Self; 2] = [Self::Peft, Self::Authors];

    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Authors => "authors",
        }
    }

    /// True for PEFT's, which records leave unsaid.
    pub fn is_peft(&self) -> bool {
        *self == Self::Peft
    }
}

impl fmt::Display for LoraPositionBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no position branch of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no position branch {given:?}; give peft or authors")]
pub struct UnknownPositionBranch {
    /// What was given.
    pub given: String,
}

impl FromStr for LoraPositionBranch {
    type Err = UnknownPositionBranch;

    fn from_str(given: &str) -> Result<Self, UnknownPositionBranch> {
        let mut all = Self::ALL.into_iter();
        all.find(|branch| branch.name() == given)
            .ok_or_else(|| UnknownPositionBranch {
                given: given.to_owned(),
            })
    }
}

/// What is computed once for a forward pass: the rows that occur, and which distance is which row.
#[derive(Debug, Clone)]
pub(crate) struct Distances {
    /// `[2 span, d]` of the distances that the longest row of the batch has: what position keys and
    /// what position queries are made of. Both are the same numbers.
    pub(crate) tables: [Tensor<2>; 2],
    index: RelativeIndex,
}

impl Distances {
    /// The same distances with what `change` makes of each table.
    pub(crate) fn map(&self, change: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            tables: self.tables.clone().map(change),
            index: self.index.clone(),
        }
    }

    /// The tables behind a dropout, which position keys and position queries share.
    fn dropped(&self, mask: Dropout) -> [Tensor<2>; 2] {
        if mask.is_none() {
            return self.tables.clone();
        }
        let table = dropout(self.tables[0].clone(), mask);
        [table.clone(), table]
    }
}

impl RelativePositions {
    /// The embeddings that a batch needs. Rows of distances that do not occur are left out, which
    /// is exact: no score reads them.
    pub(crate) fn distances(&self, input: &ModelInput) -> Distances {
        let longest = input.longest();
        let config = self.config;
        let (whole, span) = (config.span(), config.span_of(longest));
        let table = self.rel_embeddings.weight.val();
        let table = activations(table.narrow(0, whole - span, 2 * span));
        let table = match &self.layer_norm {
            Some(norm) => norm.forward(table, None, None, Dropout::NONE),
            None => table,
        };
        Distances {
            tables: [table.clone(), table],
            index: RelativeIndex::new(span, longest, |distance| config.bucket(distance)),
        }
    }
}

impl PositionBranch {
    /// The position keys and queries of one layer, `None` where neither is used.
    pub(crate) fn terms(
        &self,
        query: &Linear,
        key: &Linear,
        distances: &Distances,
        mode: &mut Mode,
    ) -> Option<PositionTerms> {
        if !self.c2p && !self.p2c {
            return None;
        }
        let [for_keys, for_queries] = distances.dropped(mode.dropout(self.dropout));
        let mut project = |table: Tensor<2>, own: &Option<Linear>, shared: &Linear| {
            let key = mode.key();
            match own {
                Some(own) => own.forward(table, key),
                None if self.adapted => shared.forward(table, key),
                None => shared.forward_base(table),
            }
        };
        let (key_proj, query_proj) = (&self.pos_key_proj, &self.pos_query_proj);
        Some(PositionTerms {
            key: self.c2p.then(|| project(for_keys, key_proj, key)),
            query: self.p2c.then(|| project(for_queries, query_proj, query)),
            index: distances.index.clone(),
        })
    }
}

impl RelativeConfig {
    /// The bucket of a distance (query position - key position): itself up to half the buckets,
    /// then logarithmic; an odd function. In f32 and in transformers' order of operations
    /// (`make_log_bucket_position`), so that rounding falls on the same side.
    pub(crate) fn bucket(&self, distance: isize) -> isize {
        let Some(buckets) = self.position_buckets else {
            return distance;
        };
        let mid = buckets / 2;
        let far = distance.unsigned_abs();
        if far <= mid {
            return distance;
        }
        let longest = ((self.max_relative_positions - 1) as f64 / mid as f64) as f32;
        let ratio = (far as f32 / mid as f32).ln() / longest.ln();
        let bucket = (ratio * (mid - 1) as f32).ceil() + mid as f32;
        distance.signum() * bucket as isize
    }

    /// Half the rows of the position embedding that a batch reads whose longest row has so many tokens.
    pub fn span_of(&self, longest: usize) -> usize {
        self.span().min(self.largest_bucket(longest) + 1)
    }

    /// The largest bucket, on either side, in a row of `longest` tokens. That of the largest distance, unless
    /// `max_relative_positions` is half the buckets or less: the logarithm falls then.
    fn largest_bucket(&self, longest: usize) -> usize {
        let buckets = (0..longest as isize).map(|distance| self.bucket(distance).unsigned_abs());
        buckets.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logarithmic(buckets: usize, positions: usize) -> RelativeConfig {
        RelativeConfig {
            c2p: true,
            p2c: true,
            share_att_key: true,
            max_relative_positions: positions,
            position_buckets: Some(buckets),
            normalised: true,
        }
    }

    /// The bucket of a distance and, with the other sign, of its negative.
    #[track_caller]
    fn assert_bucket(config: &RelativeConfig, distance: isize, expected: isize) {
        assert_eq!(
            config.bucket(distance),
            expected,
            "{distance} of {config:?}"
        );
        assert_eq!(
            config.bucket(-distance),
            -expected,
            "-{distance} of {config:?}"
        );
    }

    #[test]
    fn buckets_equal_those_of_transformers() {
        let path = "../../data/parity/deberta/buckets.json";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let size = |field: &str| case[field].as_u64().unwrap() as usize;
            let config = logarithmic(size("position_buckets"), size("max_relative_positions"));
            for (distance, expected) in case["buckets"].as_array().unwrap().iter().enumerate() {
                let (distance, expected) = (distance as isize, expected.as_i64().unwrap() as isize);
                assert_bucket(&config, distance, expected);
            }
        }
    }

    #[test]
    fn odd_numbers_of_buckets_and_positions_are_as_in_transformers() {
        // torch: make_log_bucket_position(torch.arange(10), buckets, positions)
        let cases: [(usize, usize, [isize; 10]); 7] = [
            (2, 1, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            (3, 12, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            (6, 2, [0, 1, 2, 3, 3, 3, 2, 2, 2, 1]),
            (8, 1, [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]),
            (8, 4, [0, 1, 2, 3, 4, 2, 0, -1, -3, -4]),
            (8, 6, [0, 1, 2, 3, 4, 7, 10, 12, 14, 15]),
            (64, 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ];
        for (buckets, positions, expected) in cases {
            let config = logarithmic(buckets, positions);
            let mut largest = 0_usize;
            for (distance, expected) in expected.into_iter().enumerate() {
                let distance = distance as isize;
                assert_bucket(&config, distance, expected);
                largest = largest.max(expected.unsigned_abs());
                assert_eq!(config.largest_bucket(distance as usize + 1), largest);
            }
        }
    }

    #[test]
    fn without_buckets_every_distance_is_its_own() {
        let config = RelativeConfig {
            c2p: true,
            p2c: false,
            share_att_key: false,
            max_relative_positions: 12,
            position_buckets: None,
            normalised: false,
        };
        assert_eq!(config.span(), 12);
        for distance in [-40, -1, 0, 7, 12, 13] {
            assert_eq!(config.bucket(distance), distance);
        }
    }

    #[test]
    fn branches_are_read_as_they_are_written() {
        for branch in LoraPositionBranch::ALL {
            assert_eq!(branch.to_string().parse(), Ok(branch));
        }
        let message = "both"
            .parse::<LoraPositionBranch>()
            .unwrap_err()
            .to_string();
        assert!(message.contains("peft or authors"), "{message}");
    }
}
