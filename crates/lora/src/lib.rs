//! LoRA for Burn: a linear layer that carries an adapter, and the files that adapters live in.
//!
//! A pretrained weight W is left as it is and a product of two thin matrices is trained beside it
//! (Hu et al. 2021): `y = x W + b + scale * dropout(x) A B`, with `scale = alpha / r`. This crate
//! has what a model needs for that and nothing of any model:
//!
//! - [`Linear`]: the layer, with or without an [`Adapter`]; merging and unmerging.
//! - [`LoraConfig`], [`Targets`]: which layers get an adapter, and of which rank and scale, given
//!   the dotted names of the layers. The rules are PEFT's, to the letter.
//! - [`read_peft`], [`write_peft`]: adapter folders of PEFT. [`read_loralib`], [`write_loralib`]:
//!   the `.bin` files of the LoRA authors. Both give an [`AdapterFile`].
//!
//! Which layers get one is data, not code: a model lists the names of its linear layers, asks
//! [`LoraConfig::plan`] (or, for an adapter from disk, [`AdapterFile::plan`]) and attaches what it
//! says. Names are plain strings; use those of the original checkpoint, and adapters can be
//! exchanged with PEFT.
//!
//! Silent mistakes are what adapters are known for: a wrong alpha, a target that matches nothing,
//! a head that was not saved, a field of a newer variant that is ignored. Here each of them is an
//! error with the name of the file and of the value in it. Files are never trusted: lengths are
//! checked, pickles are not executed, and what is written appears whole or not at all.
//!
//! # In a model of your own
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Distribution, Tensor};
//! use lowburn_lora::{AdapterFile, Linear, LoraConfig, LoraError, Targets};
//!
//! #[derive(Module, Debug)]
//! struct FeedForward {
//!     up: Linear,
//!     down: Linear,
//! }
//!
//! impl FeedForward {
//!     fn linears(&mut self) -> Vec<(String, &mut Linear)> {
//!         vec![("mlp.up".into(), &mut self.up), ("mlp.down".into(), &mut self.down)]
//!     }
//!
//!     /// `key` seeds the dropout of the adapters; `None` is for evaluation.
//!     fn forward(&self, x: Tensor<2>, key: Option<u64>) -> Tensor<2> {
//!         let hidden = burn::tensor::activation::relu(self.up.forward(x, key));
//!         self.down.forward(hidden, key.map(|key| key + 1))
//!     }
//! }
//!
//! # fn main() -> Result<(), LoraError> {
//! let device = Device::default();
//! let random = |shape| Tensor::random(shape, Distribution::Default, &device);
//! let mut model = FeedForward {
//!     up: Linear::new(random([8, 32]), None),
//!     down: Linear::new(random([32, 8]), None),
//! };
//!
//! let config = LoraConfig::new(4, 8.0, Targets::names(["up"]));
//! let names: Vec<String> = model.linears().into_iter().map(|(name, _)| name).collect();
//! let plan = config.plan(&names)?;
//! for (seed, (name, linear)) in model.linears().into_iter().enumerate() {
//!     if let Some(settings) = plan.get(&name) {
//!         linear.attach(settings, config.init, seed as u64);
//!     }
//! }
//! assert!(model.up.adapter.is_some() && model.down.adapter.is_none());
//!
//! // B starts at zero, so nothing has changed yet; train, then fold the change into the weights.
//! let output = model.forward(random([2, 8]), None);
//! assert_eq!(output.dims(), [2, 8]);
//! model.up.merge();
//! # let _ = AdapterFile::new(config);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod bounds;
mod config;
mod error;
mod files;
mod linear;
mod loralib;
mod matcher;
mod names;
mod patterns;
mod peft;
mod plan;
mod targets;
mod tensor;

pub use adapter::AdapterFile;
pub use bounds::torch_file_problem;
pub use config::{LoraConfig, LoraInit, ResolvedAdapter, SEQ_CLS_HEADS};
pub use error::LoraError;
pub use linear::{Adapter, Linear};
pub use loralib::{read_loralib, write_loralib};
pub use matcher::Matcher;
pub use patterns::PatternMap;
pub use peft::{read_peft, write_peft};
pub use targets::Targets;
pub use tensor::{Factors, FileDtype, HostTensor};
