//! A random RoBERTa classifies a padded batch: build, attach LoRA, count, run.
//!
//!     cargo run -p lowburn-models --example classify

use std::path::Path;

use burn::tensor::Device;
use lowburn_lora::{LoraConfig, LoraInit, Targets};
use lowburn_models::{Method, Mode, ModelConfig, ModelInput, random_classifier};

const CONFIG: &str = r#"{
    "model_type": "roberta", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 34,
    "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::parse(CONFIG.as_bytes(), Path::new("config.json"))?;
    let mut model = random_classifier(&config, 2, 0, &Device::flex())?;

    let lora = LoraConfig::new(4, 8.0, Targets::names(["query", "value"]));
    let plan = lora.plan(&model.linear_names())?;
    model.attach(&plan, LoraInit::KaimingUniform, 0);
    let trained = model.host_tensors(|name| Method::Lora.trains(name));
    let count: usize = trained.values().map(|tensor| tensor.data.len()).sum();
    println!(
        "{count} trainable parameters in {} layers with adapters",
        plan.len()
    );

    // Two texts of 4 and 2 tokens; the second is padded with id 1.
    let ids = vec![0, 17, 42, 2, 0, 2, 1, 1];
    let input = ModelInput::new(ids, 2, 4, vec![4, 2]);
    println!("{}", model.forward(&input, &mut Mode::eval()));
    Ok(())
}
