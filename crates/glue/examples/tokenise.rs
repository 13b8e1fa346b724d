//! From a file of texts to padded batches: `cargo run -p lowburn-glue --example tokenise`.
//!
//! Writes a small RTE-like file into a temporary folder, reads it with the checks that every file
//! gets, tokenises it and prints two batches.

use std::error::Error;
use std::fs;
use std::path::Path;

use lowburn_glue::{Dataset, Order, Task, Tokenizer, collate, padding_fraction};

const ROWS: &str = "sentence1\tsentence2\tlabel
The small cat sat on the warm mat.\tA cat sat.\tentailment
A dog and a cat are not the same animal.\tA dog is a cat.\tnot_entailment
The market will open again on Monday.\tThe market is open now.\tnot_entailment
The old dog slept.\tA dog slept.\tentailment
She said that the market opened on Monday morning.\tThe market opened.\tentailment
";

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("rows.tsv");
    fs::write(&file, ROWS)?;

    let dataset = Dataset::from_file(&file, Task::Rte)?;
    dataset.require_labels()?;

    // Any model's folder with tokenizer.json, or vocab.json and merges.txt. This one is for tests.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bpe");
    let tokenizer = Tokenizer::from_dir(&model)?;
    let encodings = tokenizer.encode_dataset(&dataset, 48)?;

    let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.len()).collect();
    let order = Order {
        shuffle: true,
        group_by_length: true,
        seed: 1,
        batch_size: 3,
    };
    let batches = order.epoch(0, &lengths);
    for rows in &batches {
        let batch = collate(&encodings, &dataset.examples, rows, tokenizer.pad_id());
        println!(
            "rows {rows:?}, {} x {} ids, labels {:?}",
            batch.rows, batch.length, batch.labels
        );
        for ids in batch.ids.chunks(batch.length) {
            println!("  {ids:?}");
        }
    }
    println!(
        "{} tokens, {:.1} % padding",
        lengths.iter().sum::<usize>(),
        100.0 * padding_fraction(&batches, &lengths)
    );
    Ok(())
}
