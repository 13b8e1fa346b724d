//! `lowburn devices`.

use lowburn_trainer::{DeviceKind, DeviceName, FoundDevice, check_device_with, found_devices};
use serde_json::{Value, json};

use super::{note, print};
use crate::args::DevicesArgs;
use crate::show::columns;

pub(super) fn execute(args: &DevicesArgs) -> anyhow::Result<()> {
    if let Some(name) = args.check {
        return check(name, args.quiet);
    }
    let found = found_devices();
    if args.json {
        return print(&format!("{}\n", as_json(&found, DeviceName::best())));
    }
    print(&table(&found))?;
    note(args.quiet, &hints(&found, DeviceName::best()));
    Ok(())
}

/// Runs the device suite; an error, and so an exit code, where the device does not pass.
fn check(name: DeviceName, quiet: bool) -> anyhow::Result<()> {
    let report = check_device_with(name, &mut |what| note(quiet, what))?;
    print(&format!("{}\n", report.to_string().trim_end()))?;
    if !report.passed() {
        anyhow::bail!(
            "the device {name} does not compute what the processor computes: train on another, and please report what \
             is printed above"
        );
    }
    Ok(())
}

fn table(found: &[FoundDevice]) -> String {
    let head = ["device", "numbers", "what it is"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for device in found {
        let dtypes: Vec<&str> = device.dtypes.iter().map(|dtype| dtype.name()).collect();
        let numbers = match device.problem {
            None => dtypes.join(" "),
            Some(_) => "none".to_owned(),
        };
        let what = match &device.problem {
            None => device.description.clone(),
            Some(problem) => format!("{}: cannot be used: {problem}", device.description),
        };
        rows.push(vec![device.name.to_string(), numbers, what]);
    }
    columns(&rows, 3)
}

/// What `auto` takes, and how to get what is not there.
fn hints(found: &[FoundDevice], best: DeviceName) -> String {
    let mut lines = vec![format!(
        "\nWithout --device a command computes on {best}; --dtype takes the numbers of that device."
    )];
    let (missing, foreign): (Vec<DeviceKind>, Vec<DeviceKind>) = absent(found)
        .into_iter()
        .partition(|kind| kind.is_compiled());
    for kind in missing {
        lines.push(format!(
            "{kind}: in this build, but no {} is found; it needs {}",
            kind.what(),
            kind.needs()
        ));
    }
    if !foreign.is_empty() {
        lines.push("Not in this build:".to_owned());
        let mut rows = Vec::new();
        for kind in foreign {
            let words = [
                format!("  {kind}"),
                kind.what().to_owned(),
                kind.build_command(),
            ];
            rows.push(words.to_vec());
        }
        lines.push(columns(&rows, 3).trim_end().to_owned());
    }
    lines.join("\n")
}

/// The kinds of which there is none.
fn absent(found: &[FoundDevice]) -> Vec<DeviceKind> {
    let mut kinds = DeviceKind::ALL.to_vec();
    kinds.retain(|kind| found.iter().all(|device| device.name.kind() != *kind));
    kinds
}

fn as_json(found: &[FoundDevice], best: DeviceName) -> Value {
    let absent: Vec<Value> = absent(found)
        .into_iter()
        .map(|kind| {
            json!({
                "kind": kind.name(),
                "compiled": kind.is_compiled(),
                "needs": kind.needs(),
                "build": kind.build_command(),
            })
        })
        .collect();
    json!({"auto": best, "devices": found, "absent": absent})
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowburn_trainer::Dtype;

    fn found() -> Vec<FoundDevice> {
        let card = DeviceName::new(DeviceKind::Cuda, 1);
        vec![
            FoundDevice {
                name: DeviceName::FLEX,
                description: "the processor, fast".to_owned(),
                dtypes: Dtype::ALL.to_vec(),
                problem: None,
            },
            FoundDevice {
                name: card,
                description: "a card".to_owned(),
                dtypes: Vec::new(),
                problem: Some("no memory".to_owned()),
            },
        ]
    }

    #[test]
    fn a_device_is_a_line() {
        let text = table(&found());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "device  numbers       what it is");
        assert_eq!(lines[1], "flex    f32 bf16 f16  the processor, fast");
        assert_eq!(
            lines[2],
            "cuda:1  none          a card: cannot be used: no memory"
        );
    }

    #[test]
    fn what_is_not_there_has_a_way() {
        let text = hints(&found(), DeviceName::FLEX);
        assert!(text.contains("computes on flex"), "{text}");
        assert!(!text.contains("--features cuda"), "{text}");
        for kind in [DeviceKind::Rocm, DeviceKind::Metal, DeviceKind::Vulkan] {
            let way = match kind.is_compiled() {
                true => kind.needs().to_owned(),
                false => kind.build_command(),
            };
            assert!(text.contains(&way), "no {way} in {text}");
        }
    }

    #[test]
    fn json_has_names_as_they_are_typed() {
        let value = as_json(&found(), DeviceName::FLEX);
        assert_eq!(value["auto"], "flex");
        assert_eq!(value["devices"][1]["name"], "cuda:1");
        assert_eq!(value["devices"][1]["problem"], "no memory");
        let kinds: Vec<&Value> = value["absent"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|absent| &absent["kind"])
            .collect();
        assert_eq!(kinds, ["rocm", "metal", "vulkan", "wgpu"]);
    }
}
