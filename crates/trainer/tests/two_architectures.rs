//! One function in two architectures: a RoBERTa checkpoint, re-expressed as a DeBERTa-v2 one, gives the same
//! hidden states.
//!
//! Disentangled attention with zero position projections is plain attention whose scores are divided by
//! sqrt(3 x size) instead of sqrt(size), so queries are multiplied by sqrt(3); positions count from 0 instead
//! of from behind the padding id, and take up the one token type. The conversion is in f32, so that what is left is
//! rounding: a few 1e-6 on values of order 1, for which 1e-4 is far more than enough room.
//!
//! The model and the data that come with the repository are always compared; set LOWBURN_SHARED to a folder with
//! `models/minilm-l6-roberta` and `glue` to compare a real one on real sentences too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lowburn_glue::{Dataset, Task, Tokenizer, collate};
use lowburn_models::{LoadOptions, ModelConfig, ModelInput, SequenceClassifier, load_classifier};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

const ROWS: usize = 96;
const LARGEST_DIFFERENCE: f32 = 1e-4;

fn load(folder: &Path) -> SequenceClassifier {
    let options = LoadOptions {
        num_labels: 2,
        head_seed: 0,
        dtype: lowburn_models::Dtype::F32,
    };
    let (model, _, _) = load_classifier(folder, &options, &Device::flex()).unwrap();
    model
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a RoBERTa encoder as those of a DeBERTa-v2 encoder.
fn reexpressed(model: &SequenceClassifier, config: &ModelConfig) -> Tensors {
    let (width, first) = (config.hidden_size, config.pad_token_id + 1);
    let mut tensors = Tensors::new();
    let roberta = model.host_tensors(|name| name.starts_with("roberta."));
    let types = &roberta["roberta.embeddings.token_type_embeddings.weight"].data;
    for (name, tensor) in &roberta {
        let mut name = name.replacen("roberta", "deberta", 1);
        let (mut shape, mut data) = (tensor.shape.clone(), tensor.data.clone());
        if name.contains("token_type") {
            continue;
        }
        if name.contains("position_embeddings") {
            data.drain(..first * width);
            shape[0] -= first;
            let rows = data.chunks_exact_mut(width);
            rows.for_each(|row| row.iter_mut().zip(types).for_each(|(p, t)| *p += t));
        }
        for part in ["query", "key", "value"] {
            name = name.replace(&format!("self.{part}."), &format!("self.{part}_proj."));
        }
        if name.contains("query_proj") {
            data.iter_mut().for_each(|q| *q *= 3.0_f32.sqrt());
        }
        tensors.insert(name, (shape, data));
    }
    for layer in 0..config.num_hidden_layers {
        for part in ["pos_key_proj", "pos_query_proj"] {
            let name = format!("deberta.encoder.layer.{layer}.attention.self.{part}");
            let weight = (vec![width, width], vec![0.0; width * width]);
            tensors.insert(format!("{name}.weight"), weight);
            tensors.insert(format!("{name}.bias"), (vec![width], vec![0.0; width]));
        }
    }
    let distances = (vec![2 * BUCKETS, width], vec![0.0; 2 * BUCKETS * width]);
    tensors.insert("deberta.encoder.rel_embeddings.weight".into(), distances);
    tensors
}

const BUCKETS: usize = 16;

/// A DeBERTa-v2 checkpoint that computes what the RoBERTa checkpoint of `folder` does.
fn convert(folder: &Path, output: &Path) {
    let config = ModelConfig::from_dir(folder).unwrap();
    let tensors = reexpressed(&load(folder), &config);
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, data))| (name, data.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap();
        (name, view)
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(output.join("model.safetensors"), file).unwrap();
    let mut raw = config.raw.clone();
    let own = json!({
        "model_type": "deberta-v2", "relative_attention": true, "position_buckets": BUCKETS,
        "pos_att_type": "p2c|c2p", "share_att_key": false, "position_biased_input": true,
        "type_vocab_size": 0, "max_position_embeddings": config.max_length(),
    });
    raw.extend(own.as_object().unwrap().clone());
    std::fs::write(
        output.join("config.json"),
        serde_json::to_string(&raw).unwrap(),
    )
    .unwrap();
}

/// Batches of the first rows of a task, as token ids.
fn batches(data: &Path, task: Task, tokenizer: &Tokenizer, pad: u32) -> Vec<ModelInput> {
    let rows = Dataset::load(data, task, "validation").unwrap().take(ROWS);
    let encodings = tokenizer.encode_dataset(&rows, 60).unwrap();
    let numbers: Vec<usize> = (0..ROWS).collect();
    let batch = |numbers: &[usize]| {
        let batch = collate(&encodings, &rows.examples, numbers, pad);
        ModelInput::new(batch.ids, batch.rows, batch.length, batch.lengths)
    };
    numbers.chunks(32).map(batch).collect()
}

fn compare(folder: &Path, data: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    convert(folder, scratch.path());
    compare_two(folder, scratch.path(), data, LARGEST_DIFFERENCE);
}

fn compare_two(folder: &Path, other: &Path, data: &Path, most: f32) {
    let (roberta, deberta) = (load(folder), load(other));
    let tokenizer = Tokenizer::from_dir(folder).unwrap();
    let pad = ModelConfig::from_dir(folder).unwrap().pad_id();
    let mut worst = 0.0_f32;
    for task in ["sst2", "mrpc"] {
        for batch in batches(data, task.parse().unwrap(), &tokenizer, pad) {
            let ours = roberta.backbone.hidden_states(&batch);
            let theirs = deberta.backbone.hidden_states(&batch);
            assert_eq!(ours.len(), theirs.len());
            for (a, b) in ours.into_iter().zip(theirs) {
                worst = worst.max((a - b).abs().max().into_scalar::<f32>());
            }
        }
    }
    println!(
        "{}: largest difference {worst:e}",
        folder.file_name().unwrap().to_string_lossy()
    );
    assert!(worst > 0.0 && worst <= most, "{worst:e}");
}

#[test]
fn the_mini_model_is_the_same_function_in_both() {
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini");
    compare(&mini.join("model"), &mini.join("glue"));
}

#[test]
fn a_real_model_is_the_same_function_in_both() {
    let Some(folder) = std::env::var_os("LOWBURN_SHARED").map(PathBuf::from) else {
        println!("skipped: LOWBURN_SHARED is not set");
        return;
    };
    let model = folder.join("models/minilm-l6-roberta");
    compare(&model, &folder.join("glue"));
    // The same model as somebody else re-expressed and stored it, in float16: sqrt(3) x query is rounded to 11 bits there,
    // which moves hidden states by 1e-3, in transformers as here.
    let stored = folder.join("models/minilm-l6-deberta-v2");
    compare_two(&model, &stored, &folder.join("glue"), 2e-3);
}
