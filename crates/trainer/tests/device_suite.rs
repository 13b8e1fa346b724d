//! The device suite on flex, which every build has: Burn's own operations against the fused ones.

use lowburn_trainer::{DeviceKind, DeviceName, check_device, check_device_with};

#[test]
fn flex_passes() {
    let mut parts: Vec<String> = Vec::new();
    let mut tell = |what: &str| parts.push(what.to_owned());
    let report = check_device_with(DeviceName::FLEX, &mut tell).expect("flex is there");
    let text = report.to_string();
    assert!(report.passed(), "{text}");

    // Products; for each model seven rows in f32 with LoRA and in full, four in bf16 and in f16.
    let count = 1 + 2 * (2 * 7 + 2 * 4);
    assert_eq!(report.checks().len(), count, "{text}");
    assert!(
        text.ends_with(&format!("{count} of {count} checks passed\n")),
        "{text}"
    );
    for on in [
        "RoBERTa, lora",
        "RoBERTa, full",
        "DeBERTa-v2, lora, bf16",
        "DeBERTa-v2, lora, f16",
    ] {
        let rows = report.checks().iter().filter(|check| check.on == on);
        assert!(rows.count() >= 4, "{on} in {text}");
    }
    assert!(
        parts
            .iter()
            .any(|part| part == "DeBERTa-v2, full: logits, gradients"),
        "{parts:?}"
    );

    // What is compared is not the same code twice: with halves, and against the fused operations, something differs.
    for check in report.checks() {
        let difference = check.outcome.as_ref().expect("an answer");
        let again = check.what.ends_with("computed again");
        assert!(
            again || difference.absolute > 0.0,
            "{}, {}",
            check.on,
            check.what
        );
        assert!(!check.tolerance.reason.is_empty());
    }
}

#[test]
fn a_device_that_is_not_there_has_no_report() {
    let none = DeviceName::new(DeviceKind::Rocm, 99);
    let message = check_device(none).expect_err("no such card").to_string();
    assert!(message.starts_with("device is rocm:99: "), "{message}");
}
