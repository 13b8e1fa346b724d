//! The suite is worth something only if it fails: devices that are wrong in one place, made of flex.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use lowburn_models::{NamedMapper, SequenceClassifier, map_named};

use super::*;
use crate::parameters::numbers;

/// Changes a number of one weight by as much as weights usually differ.
struct OneNumber;

impl NamedMapper for OneNumber {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !name.ends_with("layer.1.intermediate.dense.weight") {
            return param;
        }
        let (value, trained) = (param.val(), param.is_require_grad());
        let (shape, device) = (value.dims(), value.device());
        let mut values = numbers(value.inner().into_data());
        values[1_000] += 0.1;
        let changed = Tensor::from_data(TensorData::new(values, shape), &device);
        Param::initialized(param.id, changed.set_require_grad(trained))
    }
}

fn flex(composed: bool) -> Side {
    Side::new(Device::flex(), composed)
}

/// What the parts in f32 say of a device, by model, method and name.
fn checks(tested: Side, methods: &[Method]) -> Vec<DeviceCheck> {
    let mut parts = 0;
    let mut count = |_: &str| parts += 1;
    let mut suite = Suite::new(tested, flex(false), &mut count);
    for architecture in Architecture::ALL {
        let subject = Subject::new(architecture).expect("a subject");
        for method in methods {
            suite.in_f32(&subject, *method);
        }
    }
    let checks = suite.checks;
    assert_eq!(parts, 8 * methods.len(), "parts that were announced");
    assert_eq!(checks.len(), 14 * methods.len());
    checks
}

/// Whether a row compares the device with the reference, dropout or not.
fn is_logits_or_gradients(check: &DeviceCheck) -> bool {
    check.against == FLEX && (check.what.contains("logits") || check.what == "gradients")
}

#[test]
fn a_device_that_is_right_passes() {
    for check in checks(flex(true), &[Method::Lora]) {
        assert!(check.passed(), "{check:?}");
        // Another code, so other roundings; only layers that are computed again may have the same bits.
        let apart = check.outcome.expect("an answer").absolute;
        assert!(
            apart > 0.0 || check.against == ITSELF,
            "{} of {}",
            check.what,
            check.on
        );
    }
}

#[test]
fn one_number_of_one_weight_is_seen() {
    let wrong = Side {
        change: |model: SequenceClassifier| map_named(model, &mut OneNumber),
        ..flex(true)
    };
    let all = checks(wrong, &[Method::Lora, Method::Full]);
    for check in &all {
        let expected = !is_logits_or_gradients(check);
        if expected && check.against == FLEX {
            continue; // a trajectory may forget
        }
        assert_eq!(check.passed(), expected, "{check:?}");
    }
    assert_eq!(
        all.iter()
            .filter(|check| is_logits_or_gradients(check))
            .count(),
        12
    );
}

#[test]
fn other_masks_are_seen_where_there_is_dropout() {
    let wrong = Side {
        masks: 6,
        ..flex(true)
    };
    for check in checks(wrong, &[Method::Lora]) {
        let without = check.what == "logits without dropout" || check.against == ITSELF;
        assert_eq!(check.passed(), without, "{check:?}");
    }
}

#[test]
fn a_panic_is_a_row_and_not_the_end() {
    let wrong = Side {
        change: |_| panic!("no such\nkernel"),
        ..flex(true)
    };
    let report = DeviceReport {
        device: DeviceName::FLEX,
        facts: facts(DeviceName::FLEX),
        checks: checks(wrong, &[Method::Full]),
    };
    for check in report.checks() {
        assert_eq!(check.outcome, Err("no such kernel".to_owned()));
    }
    let text = report.to_string();
    assert!(
        !report.passed() && text.contains("0 of 14 checks passed"),
        "{text}"
    );
    assert!(
        text.contains("DeBERTa-v2, full, gradients: no such kernel"),
        "{text}"
    );
}
