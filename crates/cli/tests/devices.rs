//! `lowburn devices`: what is there, what is missing, and whether it computes right.

mod common;

use common::lowburn;
use serde_json::Value;

#[test]
fn the_processor_is_always_listed() {
    let said = lowburn(["devices"]);
    assert!(said.stderr.contains("Without --device"), "{said:#?}");
    if cfg!(not(feature = "cuda")) {
        let way = "cargo build --release --features cuda";
        assert!(said.stderr.contains(way), "{said:#?}");
    }
    let table = said.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("device  numbers"), "{table}");
    assert!(lines[1].starts_with("flex"), "{table}");
    assert!(
        lines[1].contains("f32 bf16 f16  the processor, "),
        "{table}"
    );
    let quiet = lowburn(["devices", "--quiet"]);
    assert_eq!(
        (quiet.stderr.as_str(), quiet.stdout.as_str()),
        ("", table.as_str())
    );
}

#[test]
fn programs_get_json() {
    let text = lowburn(["devices", "--json"]).ok();
    let value: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(value["devices"][0]["name"], "flex");
    let here = value["devices"].as_array().expect("a list").len();
    assert!(here >= 1 && value["absent"].as_array().is_some());
    let auto = value["auto"].as_str().expect("a name");
    let names: Vec<_> = value["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(names.iter().any(|device| device["name"] == auto), "{text}");
}

#[test]
fn the_processor_passes_its_own_check() {
    let report = lowburn(["devices", "--check", "flex"]).ok();
    assert!(report.contains("flex"), "{report}");
}

#[test]
fn a_device_that_is_not_there_cannot_be_checked() {
    lowburn(["devices", "--check", "rocm:99"])
        .fails_with(&["device is rocm:99", "what there is: flex"]);
    let said = lowburn(["devices", "--check", "abacus"]);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.stderr.contains("abacus"), "{said:#?}");
}
