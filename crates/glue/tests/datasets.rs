//! Reading data sets: what must work, and one clear error for each way a file can be wrong.

mod support;

use std::fs;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, LargeStringArray, StringArray, StringViewArray, UInt8Array,
};
use lowburn_glue::{Dataset, Label, Task};
use support::{class_names, floats, ints, load, longs, of_task, parquet, put, refusal, strings};

#[test]
fn every_task_is_read_by_its_columns() {
    for task in Task::ALL {
        let dataset = load(task, &of_task(task, 20)).unwrap();
        assert_eq!(
            (dataset.task, dataset.split.as_str(), dataset.len()),
            (task, "validation", 20)
        );
        assert_eq!(dataset.sha256.len(), 64);
        let row = &dataset.examples[4];
        assert_eq!((row.idx, row.text.as_str()), (9, "first 4 x x x x "));
        assert_eq!(
            row.text_pair.as_deref(),
            task.columns().1.map(|_| "second 4 x x x x ")
        );
        let expected = if task.is_regression() {
            Label::Score(2.0)
        } else {
            Label::Class(4 % task.num_labels())
        };
        assert_eq!(row.label, Some(expected));
        dataset.require_labels().unwrap();
    }
}

#[test]
fn types_and_writers_differ() {
    let texts = ["a", "", "caf\u{e9} \u{1f600}"];
    let kinds: [ArrayRef; 4] = [
        strings(&texts),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
        Arc::new(
            texts
                .into_iter()
                .collect::<arrow_array::DictionaryArray<arrow_array::types::Int32Type>>(),
        ),
    ];
    for array in kinds {
        let labels: ArrayRef = Arc::new(UInt8Array::from(vec![1, 0, 1]));
        // Columns in another order, one more than needed, and no idx.
        let bytes = parquet(
            vec![
                ("label", labels),
                ("more", longs(&[1, 2, 3])),
                ("sentence", array),
            ],
            None,
            2,
        );
        let dataset = load(Task::Sst2, &bytes).unwrap();
        let read: Vec<&str> = dataset
            .examples
            .iter()
            .map(|row| row.text.as_str())
            .collect();
        assert_eq!(read, texts);
        assert_eq!(dataset.examples[2].idx, 2);
        assert_eq!(dataset.examples[0].label, Some(Label::Class(1)));
    }
    let scores: ArrayRef = Arc::new(Float64Array::from(vec![2.25, -1.0]));
    let bytes = parquet(
        vec![
            ("sentence1", strings(&["a", "b"])),
            ("sentence2", strings(&["a", "b"])),
            ("label", scores),
        ],
        None,
        9,
    );
    let labels: Vec<Option<Label>> = load(Task::Stsb, &bytes)
        .unwrap()
        .examples
        .iter()
        .map(|row| row.label)
        .collect();
    assert_eq!(labels, [Some(Label::Score(2.25)), None]);
}

#[test]
fn shards_make_one_split() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (of_task(Task::Rte, 8), of_task(Task::Rte, 5));
    put(dir.path(), Task::Rte, "train-00001-of-00002.parquet", &two);
    put(dir.path(), Task::Rte, "train-00000-of-00002.parquet", &one);
    let dataset = Dataset::load(dir.path(), Task::Rte, "train").unwrap();
    assert_eq!((dataset.len(), dataset.files.len()), (13, 2));
    assert_eq!(dataset.examples[8].text, "first 0 ");
    let whole = dir.path().join("whole.parquet");
    fs::write(&whole, [one.as_slice(), &two].concat()).unwrap();
    // The digest is of all bytes in order; the file itself is read as its last footer says.
    assert_ne!(dataset.sha256, dataset.files[0].sha256);
    assert_eq!(
        Dataset::from_file(&whole, Task::Rte)
            .err()
            .map(|e| e.to_string().contains("whole")),
        Some(true)
    );
    let alone = Dataset::from_file(&dataset.files[1].path, Task::Rte).unwrap();
    assert_eq!(alone.sha256, dataset.files[1].sha256);

    fs::remove_file(dir.path().join("rte/train-00000-of-00002.parquet")).unwrap();
    let message = Dataset::load(dir.path(), Task::Rte, "train")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("train-00000-of-00002.parquet is missing"),
        "{message}"
    );
}

#[test]
fn the_first_rows_can_be_taken() {
    let dataset = load(Task::Rte, &of_task(Task::Rte, 20)).unwrap();
    let digest = dataset.sha256.clone();
    let few = dataset.take(3);
    assert_eq!((few.len(), few.sha256.as_str()), (3, digest.as_str()));
    assert_eq!(few.clone().take(9).len(), 3);
    let none = few.take(0);
    assert!(
        none.is_empty()
            && none
                .require_labels()
                .unwrap_err()
                .to_string()
                .contains("no rows")
    );
}

#[test]
fn missing_things() {
    let dir = tempfile::tempdir().unwrap();
    let message = Dataset::load(dir.path(), Task::Rte, "train")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("rte") && message.contains("check that the path exists"),
        "{message}"
    );
    put(
        dir.path(),
        Task::Rte,
        "train-00000-of-00001.parquet",
        &of_task(Task::Rte, 3),
    );
    let message = Dataset::load(dir.path(), Task::Rte, "dev")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("\"dev\"") && message.contains("the splits there are train"),
        "{message}"
    );
    let message = Dataset::from_file(&dir.path().join("no.parquet"), Task::Rte)
        .unwrap_err()
        .to_string();
    assert!(message.contains("no.parquet"), "{message}");
    let message = Dataset::from_file(&dir.path().join("rows.csv"), Task::Rte)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("\"csv\"") && message.contains(".tsv"),
        "{message}"
    );
    assert!(Dataset::from_file(dir.path(), Task::Rte).is_err());
}

#[test]
fn unreadable_bytes() {
    let good = of_task(Task::Rte, 20);
    let message = refusal(Task::Rte, b"");
    assert!(message.contains("the file is empty"), "{message}");
    refusal(Task::Rte, b"PAR1");
    refusal(Task::Rte, b"PAR1PAR1");
    refusal(
        Task::Rte,
        b"<html>404 not found, this is no Parquet file at all</html>",
    );
    for length in (0..good.len()).step_by(13) {
        let message = refusal(Task::Rte, &good[..length]);
        assert!(message.contains("truncated or corrupt"), "{message}");
    }
    // A damaged page in front of an intact footer.
    let mut damaged = good.clone();
    damaged[4..200].fill(0xff);
    refusal(Task::Rte, &damaged);
}

#[test]
fn wrong_columns() {
    let message = refusal(Task::Rte, &of_task(Task::Mnli, 5));
    assert!(
        message.contains("no column \"sentence1\"")
            && message.contains("\"premise\", \"hypothesis\""),
        "{message}"
    );
    let two = vec![("sentence", strings(&["a"])), ("sentence", strings(&["b"]))];
    assert!(
        refusal(Task::Cola, &parquet(two, None, 9)).contains("more than one column \"sentence\"")
    );
}

#[test]
fn wrong_types() {
    for (column, array, expected) in [
        ("sentence", longs(&[1]), "a string"),
        ("sentence", floats(&[1.0]), "a string"),
        ("label", strings(&["1"]), "an integer"),
        ("label", floats(&[1.0]), "an integer"),
        ("idx", strings(&["1"]), "an integer"),
    ] {
        let mut columns = vec![
            ("sentence", strings(&["a"])),
            ("label", longs(&[1])),
            ("idx", ints(&[1])),
        ];
        let place = columns
            .iter()
            .position(|(name, _)| *name == column)
            .unwrap();
        columns[place].1 = array;
        let message = refusal(Task::Sst2, &parquet(columns, None, 9));
        assert!(
            message.contains(&format!("{column:?} is of type")) && message.contains(expected),
            "{message}"
        );
    }
    let texts = || strings(&["a"]);
    let columns = vec![
        ("sentence1", texts()),
        ("sentence2", texts()),
        ("label", longs(&[1])),
    ];
    let message = refusal(Task::Stsb, &parquet(columns, None, 9));
    assert!(
        message.contains("Int64") && message.contains("floating-point"),
        "{message}"
    );
}

#[test]
fn labels_out_of_range() {
    for bad in [2, -2, i64::MAX, i64::MIN] {
        let columns = vec![
            ("sentence", strings(&["a", "b"])),
            ("label", longs(&[0, bad])),
        ];
        let message = refusal(Task::Cola, &parquet(columns, None, 1));
        assert!(
            message.contains(&format!("label {bad} is out of range")),
            "{message}"
        );
        assert!(
            message.contains("row 1") && message.contains("0 (unacceptable), 1 (acceptable)"),
            "{message}"
        );
    }
    for bad in [5.1, -0.5, f32::NAN, f32::INFINITY] {
        let columns = vec![
            ("sentence1", strings(&["a", "b"])),
            ("sentence2", strings(&["a", "b"])),
            ("label", floats(&[0.0, bad])),
        ];
        let message = refusal(Task::Stsb, &parquet(columns, None, 9));
        assert!(
            message.contains(&format!("label {bad} is out of range")),
            "{message}"
        );
    }
}

#[test]
fn missing_values() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let message = refusal(Task::Cola, &parquet(vec![("sentence", texts)], None, 9));
    assert!(
        message.contains("row 1") && message.contains("null"),
        "{message}"
    );
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let dataset = load(
        Task::Cola,
        &parquet(
            vec![("sentence", strings(&["a", "b"])), ("label", labels)],
            None,
            9,
        ),
    );
    assert_eq!(dataset.unwrap().examples[1].label, None);
}

#[test]
fn no_rows() {
    let message = refusal(Task::Sst2, &of_task(Task::Sst2, 0));
    assert!(message.contains("no rows"), "{message}");
}

#[test]
fn unlabelled_splits_are_for_prediction_only() {
    let columns = || {
        vec![
            ("sentence", strings(&["a", "b", "c"])),
            ("label", longs(&[1, -1, -1])),
        ]
    };
    let dataset = load(Task::Sst2, &parquet(columns(), None, 9)).unwrap();
    let message = dataset.require_labels().unwrap_err().to_string();
    assert!(
        message.contains("2 of 3 rows of split \"validation\"") && message.contains("row 1"),
        "{message}"
    );
    let without = parquet(vec![columns().remove(0)], None, 9);
    let message = load(Task::Sst2, &without)
        .unwrap()
        .require_labels()
        .unwrap_err()
        .to_string();
    assert!(message.contains("3 of 3 rows"), "{message}");
}

#[test]
fn class_names_must_be_the_tasks() {
    let columns = || {
        vec![
            ("sentence1", strings(&["a"])),
            ("sentence2", strings(&["b"])),
            ("label", longs(&[1])),
        ]
    };
    let good = class_names(&["entailment", "not_entailment"]);
    load(Task::Rte, &parquet(columns(), good, 9)).unwrap();
    // WNLI has the same columns and numbers its classes the other way round.
    let other = class_names(&["not_entailment", "entailment"]);
    let message = refusal(Task::Rte, &parquet(columns(), other.clone(), 9));
    assert!(
        message.contains("[not_entailment, entailment]")
            && message.contains("[entailment, not_entailment]"),
        "{message}"
    );
    load(Task::Wnli, &parquet(columns(), other, 9)).unwrap();
    let message = refusal(Task::Rte, &parquet(columns(), Some("{".to_owned()), 9));
    assert!(
        message.contains("`huggingface` metadata is not JSON"),
        "{message}"
    );
    // Metadata of another kind says nothing about classes.
    load(
        Task::Rte,
        &parquet(columns(), Some("{\"info\": 3}".to_owned()), 9),
    )
    .unwrap();
}

#[test]
fn prediction_input_of_all_formats() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        Dataset::from_file(&path, Task::Rte)
    };
    let rows = parquet(
        vec![
            ("sentence1", strings(&["a", "c"])),
            ("sentence2", strings(&["b", "d"])),
        ],
        None,
        9,
    );
    let of_parquet = put("rows.parquet", &rows).unwrap();
    let jsonl =
        "{\"sentence1\":\"a\",\"sentence2\":\"b\"}\n{\"sentence1\":\"c\",\"sentence2\":\"d\"}\n";
    let of_jsonl = put("rows.jsonl", jsonl.as_bytes()).unwrap();
    let of_tsv = put("rows.TSV", b"sentence1\tsentence2\na\tb\nc\td\n").unwrap();
    assert_eq!(of_parquet.examples, of_jsonl.examples);
    assert_eq!(of_parquet.examples, of_tsv.examples);
    assert_eq!((of_tsv.split.as_str(), of_tsv.examples[1].idx), ("rows", 1));
    assert!(
        put("empty.jsonl", b"\n\n")
            .unwrap_err()
            .to_string()
            .contains("no rows")
    );
    assert!(
        put("header.tsv", b"sentence1\tsentence2\n")
            .unwrap_err()
            .to_string()
            .contains("no rows")
    );
}
