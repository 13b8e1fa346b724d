"""Loads an adapter folder written by lowburn with PEFT and compares logits.

    python scripts/reference/check_adapter_with_peft.py --model DIR --adapter DIR --logits FILE.json

FILE.json: {"input_ids": [[...], ...], "attention_mask": [[...], ...] (optional),
"logits": [[...], ...], "tolerance": 1e-4 (optional)}. The number of labels is that of the logits.
Also reports every tensor of the folder that PEFT did not take, or missed. Exit status 1 on any
difference.

Versions: torch 2.15, transformers 5.23, peft 0.21 (scripts/requirements.txt); older versions of
PEFT work too, down to 0.5.
"""

import argparse
import json
import sys
import warnings

import torch
import transformers
from peft import PeftConfig, PeftModel
from safetensors import safe_open


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--logits", required=True)
    arguments = parser.parse_args()
    with open(arguments.logits) as file:
        reference = json.load(file)
    expected = torch.tensor(reference["logits"])

    torch.manual_seed(0)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        arguments.model, num_labels=expected.shape[1], dtype=torch.float32
    )
    config = PeftConfig.from_pretrained(arguments.adapter)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, arguments.adapter)
    problems = [str(w.message) for w in caught if "adapter keys" in str(w.message)]
    problems += not_taken(model, arguments.adapter)

    ids = torch.tensor(reference["input_ids"])
    mask = torch.tensor(reference.get("attention_mask", torch.ones_like(ids).tolist()))
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    worst = (logits - expected).abs().max().item()
    tolerance = reference.get("tolerance", 1e-4)
    print(f"r {config.r}, alpha {config.lora_alpha}, targets {config.target_modules}")
    print(f"largest difference of a logit: {worst:.3g} (allowed: {tolerance:g})")
    if not worst <= tolerance:
        problems.append("the logits differ")
    for problem in problems:
        print(f"FAILED: {problem}")
    sys.exit(1 if problems else 0)


def not_taken(model, folder):
    """Tensors of the file whose values are not those in the model."""
    state = model.state_dict()
    problems = []
    with safe_open(f"{folder}/adapter_model.safetensors", "pt") as file:
        for key in file.keys():
            wanted = file.get_tensor(key)
            candidates = [key.replace(".weight", ".default.weight") if ".lora_" in key else saved(key)]
            candidates += [name for name in state if name.replace("modules_to_save.default.", "") == key]
            held = next((state[name] for name in candidates if name in state), None)
            if held is None or not torch.equal(held.float(), wanted.float()):
                problems.append(f"{key} of the folder is not what the model holds")
    return problems


def saved(key):
    head, _, rest = key.removeprefix("base_model.model.").partition(".")
    return f"base_model.model.{head}.modules_to_save.default.{rest}"


if __name__ == "__main__":
    main()
