"""What the training peer and the benchmark peer share; it loads nothing beyond PyTorch, so that peak memory stays comparable."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch

CLIP = 1.0


def head_modules(config):
    """The modules that are new in a classifier: trained as a whole beside LoRA, and saved with it."""
    return ["classifier", "pooler"] if config.model_type == "deberta-v2" else ["classifier"]


def is_head(name, config):
    """Whether a parameter's name is in one of them."""
    return name.startswith(tuple(f"{module}." for module in head_modules(config)))


def takes_type_ids(config):
    """Whether the second text of a pair has a type of its own; RoBERTa is always fed 0."""
    return config.model_type == "deberta-v2" and config.type_vocab_size > 1


def targets(text, config):
    """all-linear and regular expressions stay text, `query,value` (the default) becomes a list of suffixes in the architecture's names."""
    if text in (None, "query,value"):
        return ["query_proj", "value_proj"] if config.model_type == "deberta-v2" else ["query", "value"]
    plain = text.replace(",", "").replace("_", "").replace(".", "").isalnum()
    return text.split(",") if plain and text != "all-linear" else text


def build_optimizer(model, lr, weight_decay):
    """AdamW with two groups: biases and LayerNorm without decay, everything else that is trained with it."""
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or "LayerNorm" in name else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.999), eps=1e-8)


def loss_of(logits, labels, regression):
    """Mean cross-entropy, or mean squared error of the single logit."""
    if regression:
        return torch.nn.functional.mse_loss(logits[:, 0], labels)
    return torch.nn.functional.cross_entropy(logits, labels)


def peak_memory():
    """The largest resident size of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def versions():
    """Versions of everything that decides the numbers."""
    names = ("torch", "transformers", "peft", "tokenizers", "safetensors", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def cpu_name():
    """The processor's own name, or the architecture where it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def parameter_counts(model):
    """Totals as `lowburn inspect` counts them: the model once, then what is trained, split into adapter and head."""
    total = adapter = head = trainable = 0
    for name, parameter in model.named_parameters():
        # PEFT keeps a frozen copy of each module that it trains and saves as a whole.
        if "original_module" in name:
            continue
        count = parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
        adapter += count if "lora_" in name else 0
        head += count if ("classifier." in name or "pooler." in name) and "lora_" not in name else 0
    return {"total": total, "trainable": trainable, "adapter": adapter, "head": head}
