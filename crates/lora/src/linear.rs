//! A linear layer that may carry a LoRA adapter (Hu et al. 2021, section 4.1).

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use lowburn_kernels::{Dropout, LoraScale, Projection, derive_key, lora_linear, normal, uniform};

use crate::{LoraInit, ResolvedAdapter};

/// y = x W + b, plus scale * dropout(x) A B where an adapter is attached.
///
/// The adapter works in activation space: W is never rewritten while training. [`Linear::merge`]
/// folds the adapter into W, [`Linear::unmerge`] takes it out again.
#[derive(Module, Debug)]
pub struct Linear {
    /// W, `[in, out]`: the transpose of PyTorch's. Frozen, it may be of halves (bf16, f16).
    pub weight: Param<Tensor<2>>,
    /// b, `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter, if one is attached.
    pub adapter: Option<Adapter>,
}

/// The two factors of a LoRA adapter and how they are applied.
#[derive(Module, Debug)]
pub struct Adapter {
    /// A, `[in, r]`: the transpose of PEFT's `lora_A`.
    pub a: Param<Tensor<2>>,
    /// B, `[r, out]`: the transpose of PEFT's `lora_B`.
    pub b: Param<Tensor<2>>,
    /// alpha / r, or alpha / sqrt(r) when rank-stabilised.
    pub scale: f64,
    /// Probability of the dropout in front of A, active in training only.
    pub dropout: f64,
}

impl Adapter {
    /// A new adapter that changes nothing yet: B is zero and A is drawn as `init` says.
    ///
    /// The numbers depend on `key` only. PEFT's default is Kaiming-uniform with a = sqrt(5), which
    /// is U(-1/sqrt(in), 1/sqrt(in)).
    pub fn new(
        [inputs, outputs]: [usize; 2],
        settings: &ResolvedAdapter,
        init: LoraInit,
        key: u64,
        device: &Device,
    ) -> Self {
        let rank = settings.rank;
        let key = derive_key(key, 0x10_0a);
        let bound = 1.0 / (inputs as f64).sqrt();
        let a: Vec<f32> = (0..(inputs * rank) as u64)
            .map(|i| match init.standard_deviation(rank) {
                Some(deviation) => (normal(key, i) * deviation) as f32,
                None => ((2.0 * uniform(key, i) - 1.0) * bound) as f32,
            })
            .collect();
        let a = Tensor::from_data(TensorData::new(a, [inputs, rank]), device);
        Self::from_factors(a, Tensor::zeros([rank, outputs], device), settings)
    }

    /// An adapter with given factors A `[in, r]` and B `[r, out]`.
    ///
    /// # Panics
    /// Panics when the ranks of A and B differ.
    pub fn from_factors(a: Tensor<2>, b: Tensor<2>, settings: &ResolvedAdapter) -> Self {
        assert_eq!(a.dims()[1], b.dims()[0], "A is [in, r] and B is [r, out]");
        Self {
            a: Param::from_tensor(a),
            b: Param::from_tensor(b),
            scale: settings.scale,
            dropout: settings.dropout,
        }
    }

    /// The factors and how they are applied, with the dropout of a key or none.
    fn applied(&self, key: Option<u64>) -> ([Tensor<2>; 2], LoraScale) {
        let lora = LoraScale {
            scale: self.scale,
            dropout: key.map_or(Dropout::NONE, |key| Dropout::new(self.dropout, key)),
        };
        ([self.a.val(), self.b.val()], lora)
    }

    /// scale * A B, `[in, out]`, on the adapter's device and without a gradient. Always computed in f32 on the processor: the products of some
    /// cards keep 11 bits of their factors (TF32), which is too few for weights that are saved.
    pub fn delta(&self) -> Tensor<2> {
        let device = self.a.lazy_device().without_autodiff();
        let factors = [&self.a, &self.b].map(|factor| factor.val().inner());
        let [a, b] = factors.map(|factor| factor.to_device(&Device::flex()));
        a.matmul(b).mul_scalar(self.scale).to_device(&device)
    }
}

impl Linear {
    /// A layer with the given weight `[in, out]` and bias `[out]`, and no adapter.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
            adapter: None,
        }
    }

    /// [in, out].
    pub fn sizes(&self) -> [usize; 2] {
        self.weight.lazy_shape().dims()
    }

    /// Applies the layer. `key` is the key of the adapter's dropout, or `None` outside training.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`
    /// - returns `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>, key: Option<u64>) -> Tensor<D> {
        self.apply(x, self.bias.as_ref().map(Param::val), key)
    }

    /// Applies the layer without its bias, for a caller that adds the bias in a fused operation.
    ///
    /// # Shapes
    /// As [`Linear::forward`].
    pub fn forward_without_bias<const D: usize>(
        &self,
        x: Tensor<D>,
        key: Option<u64>,
    ) -> Tensor<D> {
        self.apply(x, None, key)
    }

    /// Applies the layer as if it had no adapter.
    ///
    /// # Shapes
    /// As [`Linear::forward`].
    pub fn forward_base<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        lowburn_kernels::linear(x, self.weight.val(), bias)
    }

    /// The layer for an operation that applies it itself. `key` as in [`Linear::forward`].
    pub fn projection(&self, key: Option<u64>) -> Projection {
        Projection {
            weight: self.weight.val(),
            bias: self.bias.as_ref().map(Param::val),
            adapter: self.adapter.as_ref().map(|adapter| adapter.applied(key)),
        }
    }

    fn apply<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        key: Option<u64>,
    ) -> Tensor<D> {
        let Some(adapter) = &self.adapter else {
            return lowburn_kernels::linear(x, self.weight.val(), bias);
        };
        let (factors, lora) = adapter.applied(key);
        lora_linear(x, self.weight.val(), bias, factors, lora)
    }

    /// Attaches a new adapter in the place of any other; see [`Adapter::new`].
    pub fn attach(&mut self, settings: &ResolvedAdapter, init: LoraInit, key: u64) {
        let device = self.weight.lazy_device();
        self.adapter = Some(Adapter::new(self.sizes(), settings, init, key, &device));
    }

    /// Folds the adapter into the weight, W <- W + scale A B, and hands it back.
    /// The bias stays as it is, a weight of halves becomes f32. Without an adapter nothing happens.
    pub fn merge(&mut self) -> Option<Adapter> {
        let adapter = self.adapter.take()?;
        self.add_to_weight(adapter.delta());
        Some(adapter)
    }

    /// Undoes [`Linear::merge`]: W <- W - scale A B, and the adapter is attached again.
    /// The weight is the one before the merge up to the rounding of f32.
    pub fn unmerge(&mut self, adapter: Adapter) {
        self.add_to_weight(adapter.delta().neg());
        self.adapter = Some(adapter);
    }

    fn add_to_weight(&mut self, delta: Tensor<2>) {
        let weight = self.weight.val();
        let (trainable, differentiable) = (weight.is_require_grad(), weight.is_autodiff());
        let mut merged = weight.inner().cast(DType::F32) + delta.inner();
        if differentiable {
            merged = merged.autodiff().set_require_grad(trainable);
        }
        self.weight = Param::initialized(self.weight.id, merged);
    }
}
