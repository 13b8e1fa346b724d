//! The real GLUE files, where there are some: set LOWBURN_SHARED to a folder with `glue/` (and `models/`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use lowburn_glue::{Dataset, GlueError, Label, Order, Task, Tokenizer, padding_fraction};
use sha2::{Digest, Sha256};

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("LOWBURN_SHARED").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: LOWBURN_SHARED is not set");
    }
    folder
}

/// Rows per class (STS-B: scored rows), and the unlabelled ones last.
fn counts(dataset: &Dataset) -> Vec<usize> {
    let mut counts = vec![0; dataset.task.num_labels() + 1];
    for row in &dataset.examples {
        match row.label {
            Some(Label::Class(class)) => counts[class] += 1,
            Some(Label::Score(_)) => counts[0] += 1,
            None => *counts.last_mut().unwrap() += 1,
        }
    }
    counts
}

#[test]
fn rows_classes_and_digests_are_those_of_the_hub() {
    let Some(folder) = shared() else { return };
    for (task, split, expected, sha256) in [
        (
            Task::Cola,
            "train",
            vec![2528, 6023, 0],
            "2e7538afa2000e63f5343f16a758d75c452661a384208399d2035cd2fce45c33",
        ),
        (
            Task::Cola,
            "test",
            vec![0, 0, 1063],
            "3c4d526b6f49f432621de43569f9ecf6af41f639baaf4a9d821b95d745def61d",
        ),
        (
            Task::Sst2,
            "train",
            vec![29780, 37569, 0],
            "66a253e67968acfabcbe49dbe9da964b42ac1c851c40ab760e8c8942efdb3229",
        ),
        (
            Task::Mrpc,
            "train",
            vec![1194, 2474, 0],
            "61fd41301e0e244b0420c4350a170c8e7cf64740335fc875a4af2d79af0df0af",
        ),
        (
            Task::Mrpc,
            "test",
            vec![578, 1147, 0],
            "a623ed1cbdf445b11f8e249acbf649d7d3a5ee58c918554c40cbd8307e488693",
        ),
        (
            Task::Stsb,
            "validation",
            vec![1500, 0],
            "152de7cf1fa34ee4df1c243bd209b02ade21a1d5c4fb3b7da5240f78e4000aa9",
        ),
        (
            Task::Stsb,
            "test",
            vec![0, 1379],
            "04fa2561f1ff3c395cf8980e3eed5d133c194abf636d5e1870d765c861087bd9",
        ),
        (
            Task::Rte,
            "validation",
            vec![146, 131, 0],
            "fb2aa2e04f551133ba663617a15ae133dc22b0f6a969bc0629b5ea6003ee9cf8",
        ),
        (
            Task::Wnli,
            "train",
            vec![323, 312, 0],
            "40f4c0c60db68addeda8e9cbe25e6344cd99d5bbb80125535994a9a3141ee0a9",
        ),
        (
            Task::Qnli,
            "validation",
            vec![2702, 2761, 0],
            "e69311b81dc65589286091d9905a27617a90436dd215c7a59832fa8f4f336169",
        ),
        (
            Task::Mnli,
            "validation_matched",
            vec![3479, 3123, 3213, 0],
            "7f918c09d9c35446b8e8f06a5672f8ab704e2897fecbf52e2e154141f3d7c421",
        ),
        (
            Task::Ax,
            "test",
            vec![0, 0, 0, 1104],
            "a07b802fe2d4968a1f7ccce9406826dc77e0d1dc53fea9491664bd8ebba8571a",
        ),
    ] {
        let dataset = Dataset::load(&folder.join("glue"), task, split).unwrap();
        assert_eq!(counts(&dataset), expected, "{task} {split}");
        assert_eq!(dataset.sha256, sha256, "{task} {split}");
        let unlabelled = expected.last().copied().unwrap() > 0;
        assert_eq!(
            matches!(dataset.require_labels(), Err(GlueError::Unlabelled { .. })),
            unlabelled,
            "{task} {split}"
        );
    }
}

#[test]
fn a_file_of_another_task_is_refused() {
    let Some(folder) = shared() else { return };
    // RTE's and WNLI's files differ in nothing but the order of their classes.
    let path = folder.join("glue/wnli/train-00000-of-00001.parquet");
    let message = Dataset::from_file(&path, Task::Rte)
        .unwrap_err()
        .to_string();
    assert!(message.contains("numbers its classes"), "{message}");
}

#[test]
fn grouping_pads_less_than_five_percent_on_mrpc() {
    let Some(folder) = shared() else { return };
    let tokenizer = tokenizer(&folder);
    let dataset = Dataset::load(&folder.join("glue"), Task::Mrpc, "train").unwrap();
    let encodings = tokenizer.encode_dataset(&dataset, 128).unwrap();
    let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.len()).collect();
    let plain = Order {
        shuffle: true,
        group_by_length: false,
        seed: 0,
        batch_size: 16,
    };
    let grouped = Order {
        group_by_length: true,
        ..plain
    };
    let without = padding_fraction(&plain.epoch(0, &lengths), &lengths);
    let with = padding_fraction(&grouped.epoch(0, &lengths), &lengths);
    println!(
        "padding: {:.1} % shuffled, {:.1} % grouped by length",
        100.0 * without,
        100.0 * with
    );
    assert!(with < 0.05 && with < without);
    assert_ne!(grouped.epoch(0, &lengths), grouped.epoch(1, &lengths));
}

#[test]
fn an_uncased_tokenizer_of_a_roberta_model_works() {
    let Some(folder) = shared() else { return };
    let tokenizer = tokenizer(&folder);
    assert_eq!((tokenizer.pad_id(), tokenizer.max_id()), (0, 30521));
    let ids = tokenizer
        .encode("Hello, World!", Some("Goodbye"), 128)
        .unwrap()
        .ids;
    assert_eq!(ids, [101, 7592, 1010, 2088, 999, 102, 9119, 102]);
}

fn tokenizer(folder: &Path) -> Tokenizer {
    Tokenizer::from_dir(&folder.join("models/minilm-l6-roberta")).unwrap()
}

/// Set LOWBURN_SPM to what `scripts/reference/make_spm_fixtures.py --glue FOLDER/glue --output DIR` wrote.
#[test]
fn ids_equal_sentencepiece_on_every_row() {
    let (Some(folder), Some(spm)) = (shared(), std::env::var_os("LOWBURN_SPM")) else {
        println!("skipped: LOWBURN_SPM is not set");
        return;
    };
    let spm = PathBuf::from(spm);
    let tokenizer = Tokenizer::from_dir(&spm).unwrap();
    let (mut rows, mut differing) = (0, Vec::new());
    let (mut lines, start) = (0, Instant::now());
    for line in std::fs::read_to_string(spm.join("ids.tsv"))
        .unwrap()
        .lines()
    {
        let [file, column, count, digest] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (task, file_name) = file.split_once('/').unwrap();
        let split = file_name.split_once("-00000").unwrap().0;
        let task: Task = task.parse().unwrap();
        let dataset = Dataset::load(&folder.join("glue"), task, split).unwrap();
        assert_eq!(dataset.len().to_string(), count, "{file}");
        let mut ids = Sha256::new();
        for row in &dataset.examples {
            let first = task.columns().0 == column;
            let text = if first {
                Some(&row.text)
            } else {
                row.text_pair.as_ref()
            };
            let encoding = tokenizer.encode(text.unwrap(), None, 1 << 20).unwrap();
            for id in &encoding.ids[1..encoding.len() - 1] {
                ids.update(id.to_le_bytes());
            }
            ids.update([0xff; 4]);
        }
        rows += dataset.len();
        lines += 1;
        if format!("{:x}", ids.finalize()) != digest {
            differing.push(format!("{file} {column}"));
        }
    }
    println!(
        "{rows} texts in {lines} columns, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert!(
        differing.is_empty(),
        "ids differ from SentencePiece's in {differing:?}"
    );
}
