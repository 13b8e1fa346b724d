//! The numbers that a frozen base is stored in.

use std::fmt;
use std::str::FromStr;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::adapt::is_factor;
use crate::architecture::is_head;
use crate::classifier::SequenceClassifier;
use crate::named::{NamedMapper, is_transposed, map_named};

/// How the matrices of a frozen base lie in memory. What is trained, biases, LayerNorms and the head are
/// always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bit.
    #[default]
    F32,
    /// 16 bit with the range of f32 and 8 bits of precision.
    Bf16,
    /// 16 bit with 11 bits of precision and values up to 65504.
    F16,
}

impl Dtype {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The name on the command line and in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Whether it takes less than 32 bit.
    #[must_use]
    pub fn is_half(self) -> bool {
        self != Self::F32
    }

    /// The numbers that a parameter of that name and number of dimensions is stored in: halves are for the matrices
    /// below the head.
    #[must_use]
    pub fn of(self, name: &str, dimensions: usize) -> Self {
        match dimensions > 1 && !is_head(name) && !is_factor(name) {
            true => self,
            false => Self::F32,
        }
    }

    /// Burn's name.
    #[must_use]
    pub fn burn(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| ModelError::Dtype(text.to_owned()))
    }
}

impl SequenceClassifier {
    /// The classifier with the matrices below the head stored in `dtype`, those that are trained excepted: for a base that
    /// is frozen already. [`crate::LoadOptions::dtype`] does it while loading, without a moment of both.
    pub fn with_base_dtype(self, dtype: Dtype) -> Self {
        struct Cast(Dtype);
        impl NamedMapper for Cast {
            fn map<const D: usize>(
                &mut self,
                name: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                if param.val().is_require_grad() {
                    return param;
                }
                let (id, tensor, mapper) = param.consume();
                let differentiable = tensor.is_autodiff();
                let dtype = self.0.of(name, D).burn();
                // A weight is a transposed view and stays one: products read it in the order of the file.
                let mut cast = match is_transposed(name, D) {
                    true => tensor.inner().swap_dims(0, 1).cast(dtype).swap_dims(0, 1),
                    false => tensor.inner().cast(dtype),
                };
                if differentiable {
                    cast = cast.autodiff();
                }
                Param::from_mapped_value(id, cast, mapper)
            }
        }
        map_named(self, &mut Cast(dtype))
    }
}
