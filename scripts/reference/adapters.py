"""Adapter folders written by PEFT for the toy checkpoints, one for each way of naming targets, ranks and scales.

Every adapter has alpha != r, r != d and a B that is not 0, so that a swapped matrix or a wrong scale shows in the logits.
"""

import json
import math
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification

# Name -> (checkpoint, arguments of LoraConfig).
ADAPTERS = {
    "plain": ("tiny", dict(r=4, lora_alpha=10, target_modules=["query", "value"])),
    "patterns": (
        "tiny",
        dict(
            r=4,
            lora_alpha=10,
            target_modules=["query", "key", "value", "dense"],
            # Of two keys that match, the first counts. PEFT sorts them when it saves, so they are sorted here already:
            # otherwise the folder would mean something else than the model it was saved from.
            rank_pattern={"encoder.layer.2.attention.self.query": 6, r"layer\.[01]\.output\.dense": 3, "query": 2, "value": 5},
            alpha_pattern={"intermediate.dense": 7, r"layer\.2\..*query": 12, "value": 5},
        ),
    ),
    "rslora": ("tiny", dict(r=8, lora_alpha=3, use_rslora=True, target_modules=["query", "value"])),
    "regex": ("tiny", dict(r=3, lora_alpha=7, target_modules=r".*\.layer\.[02]\..*(query|output\.dense)")),
    "all_linear": ("tiny", dict(r=2, lora_alpha=5, target_modules="all-linear")),
    "layers": (
        "tiny",
        dict(r=4, lora_alpha=6, lora_dropout=0.1, target_modules=["query", "value"], layers_to_transform=[0, 2], layers_pattern="layer"),
    ),
    "exclude": ("tiny", dict(r=2, lora_alpha=6, target_modules=["query", "key", "value"], exclude_modules=["key"])),
    "pad0_plain": ("pad0", dict(r=5, lora_alpha=7, target_modules=["query", "value"])),
    "stsb_start": ("base", dict(r=3, lora_alpha=6, target_modules=["query", "value"])),
}
REGRESSION = {"stsb_start"}


def plain_name(name):
    """A parameter or module name without PEFT's wrapping, as in a file: no prefix, no adapter name."""
    for part in ("base_model.model.", "modules_to_save.default.", ".modules_to_save.default", ".default", ".base_layer"):
        name = name.replace(part, "")
    return name


def redraw(model, seed, spread=0.3):
    """A from N(0, 1/in), B with the standard deviation `spread`, and a head of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_A" in name:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
            elif "lora_B" in name:
                parameter.copy_(spread * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]) if parameter.dim() == 2 else 0.1 * noise)


def tidy(folder):
    """Removes the model card and writes sets as sorted lists, which makes the folder the same in each run."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    for key, value in settings.items():
        if key in ("target_modules", "exclude_modules") and isinstance(value, list):
            settings[key] = sorted(value)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def write_adapters(models, output, adapters=ADAPTERS, regression=REGRESSION):
    """Writes every one of `adapters` below `output`."""
    for number, (name, (base, settings)) in enumerate(adapters.items()):
        labels = {"num_labels": 1} if name in regression else {}
        model = AutoModelForSequenceClassification.from_pretrained(models / base, dtype=torch.float32, **labels)
        wrapped = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, **settings))
        redraw(wrapped, 100 + number)
        wrapped.peft_config["default"].base_model_name_or_path = base
        folder = Path(output) / name
        wrapped.save_pretrained(folder, save_embedding_layers=False)
        tidy(folder)
