//! Forward and backward passes on random ids, with this project's LoRA or with Burn's own on the same encoder.

use std::time::Instant;

use anyhow::Result;
use burn::module::{Lora, Module, ParamGroup};
use burn::tensor::Device;
use lowburn_kernels::uniform;
use lowburn_models::{
    Dtype, LoadOptions, Method, Mode, ModelInput, SequenceClassifier, load_classifier,
};
use serde_json::json;

use super::ours::{Meter, OursArgs, answer, ready, wait};

/// Serves steps until the input ends.
///
/// # Errors
/// When the checkpoint cannot be loaded.
pub(super) fn serve(args: &OursArgs, burns_own: bool) -> Result<()> {
    let device = Device::flex().autodiff();
    let options = LoadOptions {
        num_labels: 2,
        head_seed: 0,
        dtype: Dtype::F32,
    };
    let (model, config, _) = load_classifier(&args.model, &options, &device)?;
    let model = if burns_own {
        with_burns_lora(model, args)
    } else {
        with_ours(model, args)?
    };
    let threads = args.threads;
    let mut meter = Meter::new(threads);
    let (batch, length) = (args.batch, args.length);
    let mut number = 0;
    let mut step = || {
        // Ids from the middle of the vocabulary, where no special token is.
        let id = |at: usize| {
            let at = (number * batch * length + at) as u64;
            1000 + (uniform(7, at) * (config.vocab_size - 2000) as f64) as i32
        };
        let ids = (0..batch * length).map(id).collect();
        number += 1;
        let input = ModelInput::new(ids, batch, length, vec![length; batch]);
        let began = Instant::now();
        let logits = model.forward(&input, &mut Mode::train(number as u64));
        let loss = logits.powi_scalar(2).mean();
        let value: f32 = loss.clone().into_scalar();
        let gradients = loss.backward();
        let seconds = began.elapsed().as_secs_f64();
        drop(gradients);
        (seconds, value)
    };
    step();
    answer(&ready(threads, model.num_params()));
    loop {
        wait(&["step"], &meter);
        let before = lowburn_kernels::product_seconds();
        let (seconds, loss) = step();
        meter.add(seconds, lowburn_kernels::product_seconds() - before);
        answer(&json!({"seconds": seconds, "loss": loss}));
    }
}

/// Query and value of every layer by this project's factored layers. The head is trained in neither.
fn with_ours(mut model: SequenceClassifier, args: &OursArgs) -> Result<SequenceClassifier> {
    let lora = args.lora();
    let plan = lora.plan(&model.linear_names())?;
    model.attach(&plan, lora.init, 0);
    Ok(model.set_trainable(Method::Lora))
}

/// The same by Burn's, which adds the product of the factors to the weight.
fn with_burns_lora(model: SequenceClassifier, args: &OursArgs) -> SequenceClassifier {
    let lora = args.lora();
    let layers = model.backbone.encoder.layer.len();
    let paths: Vec<String> = (0..layers)
        .flat_map(|layer| {
            ["query", "value"].map(|name| {
                format!("backbone.encoder.layer.{layer}.attention.self_attention.{name}.weight")
            })
        })
        .collect();
    let paths = paths.iter().map(String::as_str).collect();
    let group = ParamGroup::from_paths(paths);
    model.apply_lora(Lora::new(lora.rank, lora.alpha).set_param_group(group))
}
