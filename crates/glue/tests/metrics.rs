//! The metrics against scikit-learn and SciPy (`tests/data/make_references.py`).

use lowburn_glue::{accuracy, f1, matthews, pearson, spearman};
use serde::Deserialize;

#[derive(Deserialize)]
struct References {
    classes: Vec<Classes>,
    scores: Vec<Scores>,
}

#[derive(Deserialize)]
struct Classes {
    name: String,
    predicted: Vec<usize>,
    expected: Vec<usize>,
    accuracy: Option<f64>,
    f1: Option<f64>,
    matthews: Option<f64>,
}

#[derive(Deserialize)]
struct Scores {
    name: String,
    predicted: Vec<Option<f64>>,
    expected: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
}

fn references() -> References {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn check(name: &str, metric: &str, ours: f64, reference: Option<f64>) {
    match reference {
        None => assert!(
            ours.is_nan(),
            "{name}, {metric}: {ours} where the reference is undefined"
        ),
        // Sums in another order: a few units in the last place.
        Some(value) => assert!(
            (ours - value).abs() <= 1e-12,
            "{name}, {metric}: {ours}, reference {value}"
        ),
    }
}

#[test]
fn class_metrics_equal_scikit_learn() {
    let cases = references().classes;
    assert!(cases.len() >= 12);
    for case in cases {
        let (p, e) = (&case.predicted, &case.expected);
        check(&case.name, "accuracy", accuracy(p, e), case.accuracy);
        check(&case.name, "f1", f1(p, e), case.f1);
        check(&case.name, "matthews", matthews(p, e), case.matthews);
    }
}

#[test]
fn score_metrics_equal_scipy() {
    let cases = references().scores;
    assert!(cases.len() >= 11);
    for case in cases {
        let p: Vec<f64> = case
            .predicted
            .iter()
            .map(|value| value.unwrap_or(f64::NAN))
            .collect();
        check(
            &case.name,
            "pearson",
            pearson(&p, &case.expected),
            case.pearson,
        );
        check(
            &case.name,
            "spearman",
            spearman(&p, &case.expected),
            case.spearman,
        );
    }
}
