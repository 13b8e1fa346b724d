"""What the scripts that write below `data/parity` share: file formats, and one gradient, adapter or trajectory at a time."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file

import train_peft
from adapters import plain_name

COMMON = "--weight-decay 0.1 --shuffle false --seed 0"


class Writer:
    """Writes the references of one script, whose name and versions stand in every file."""

    def __init__(self, script, *more):
        names = ("torch", "transformers", "peft", "tokenizers", "safetensors", *more)
        self.header = {"made_by": script, "versions": {name: version(name) for name in names}}

    def json(self, path, content):
        """JSON with the header first."""
        path.write_text(json.dumps({"header": self.header, **content}, indent=1, ensure_ascii=False) + "\n")

    def tensors(self, path, tensors):
        """Safetensors; no metadata beyond the script's name, since several entries would be written in random order."""
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, {"made_by": self.header["made_by"]})


def gradients_of(model, inputs, labels):
    """Mean cross-entropy on a batch, and its gradient by the plain name of every trained tensor."""
    loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
    loss.backward()
    return loss, {plain_name(n): p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def global_norm(gradients):
    """L2 norm over all of them together."""
    return torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values()])).item()


@torch.no_grad()
def adapter_facts(base, folder, inputs):
    """Modules, logits and merged logits of an adapter as PEFT computes them after reading the folder back."""
    plain = base(**inputs).logits
    wrapped = PeftModel.from_pretrained(base, folder).eval()
    layers = {n: m for n, m in wrapped.named_modules() if hasattr(m, "lora_A") and "default" in m.lora_A}
    modules = {plain_name(n): {"rank": m.r["default"], "scale": m.scaling["default"]} for n, m in layers.items()}
    logits = wrapped(**inputs).logits
    merged = wrapped.merge_and_unload()(**inputs).logits
    assert (logits - plain).abs().max() > 0.05, f"{folder} hardly changes the model"
    assert torch.allclose(logits, merged, atol=1e-5), folder
    return {"modules": dict(sorted(modules.items())), "logits": logits.tolist(), "merged_logits": merged.tolist()}


def norms_of(named):
    """L2 norm of each tensor by its plain name."""
    return {name: norm for name, norm in sorted((plain_name(name), tensor.norm().item()) for name, tensor in named)}


def run_trajectory(root, glue, model, adapter, flags):
    """Runs the peer's loop on a toy set; the trained tensors of the best epoch, and the facts for the JSON file."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = ["--model", root / "models" / model, "--data-dir", glue, "--output", scratch, "--threads", 1]
        inputs += ["--init-adapter", root / "adapters" / adapter] if adapter else []
        words = [*flags.split(), *COMMON.split()]
        run = train_peft.Run(train_peft.parse_arguments([*map(str, inputs), *words]))
        record = run.train()
        steps = [json.loads(line) for line in (Path(scratch) / "log.jsonl").read_text().splitlines()]
    return {plain_name(n): tensor for n, tensor in run.best_tensors.items()}, {
        "model": f"models/{model}",
        "init_adapter": f"adapters/{adapter}" if adapter else None,
        "flags": words,
        "parameters": record["parameters"],
        "steps": steps,
        "evaluations": record["evaluations"],
        "best": record["best"],
        "best_norms": norms_of(run.best_tensors.items()),
        "last_norms": norms_of((n, p) for n, p in run.model.named_parameters() if p.requires_grad),
    }
