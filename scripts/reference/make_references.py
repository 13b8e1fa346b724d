"""Makes the small checked-in parity references of `data/parity/` with PyTorch, transformers and PEFT.

Rust tests read these files and compare: token ids, hidden states, logits, gradients, training trajectories, and adapters made by PEFT.
Everything is seeded and runs on one thread, so that a second run with the versions of scripts/requirements.txt gives the same files.

    pip install -r scripts/requirements.txt
    python scripts/reference/make_references.py                 # rewrites data/parity/
    python scripts/reference/make_references.py --output DIR    # elsewhere, to compare

The layout is described in data/parity/README.md.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peer")]

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoTokenizer, RobertaForMaskedLM, RobertaForSequenceClassification, RobertaModel
from transformers.utils import logging as transformers_logging

import train_peft
from adapters import ADAPTERS, plain_name, write_adapters
from glue_data import encode, load_tokenizer
from tiny_models import write_models
from toy_glue import write_sets

HEADER = {
    "made_by": "scripts/reference/make_references.py",
    "versions": {name: version(name) for name in ("torch", "transformers", "peft", "tokenizers", "safetensors")},
}
LABELS = {"tiny": 2, "pad0": 3}
TEXTS = [
    ("the old lantern", None),
    ("the ferry captain sold two crates of plums before dawn.", "Zoë measured a clock worth €40"),
    ("warm", "seven maps, seven maps"),
    ("this film is dull and clumsy ", None),
]
TOKEN_TEXTS = [
    *TEXTS,
    ("", None),
    ("", "b"),
    (" ", None),
    (" two  spaces\tand a tab\nand a line ", None),
    ("naïve café — “quotes” … 😀 日本語", "Ünïcödé n\u0303 \u200b fin"),
    ("her uncle repaired the red bicycle at 6:30. " * 4, "short"),
    ("short", "her uncle repaired the red bicycle at 6:30. " * 4),
    ("a wooden boat, the third key, seven maps. " * 3, "the music is worth every minute, I'd say; it's not clumsy. " * 3),
    ("a <pad> b", "x </s> y"),
]
TOKEN_LENGTHS = [40, 17, 8]
TRAJECTORIES = {
    "lora_mrpc": ("tiny", "plain", "--task mrpc --method lora --epochs 3 --batch-size 7 --lr 3e-3 --warmup-ratio 0.1 --max-length 56"),
    "full_sst2": ("tiny", None, "--task sst2 --method full --epochs 3 --batch-size 5 --lr 2e-3 --warmup-ratio 0.1 --max-length 48"),
    "head_mrpc": ("tiny", None, "--task mrpc --method head --epochs 1 --batch-size 7 --lr 5e-3 --warmup-ratio 0 --max-length 56"),
    "accumulate_uneven": (
        "tiny", "plain",
        "--task mrpc --method lora --epochs 2 --batch-size 5 --accumulate 2 --train-rows 57 --lr 3e-3 --warmup-steps 2 --max-length 56",
    ),
    "accumulate_single": (
        "tiny", "plain", "--task mrpc --method lora --epochs 2 --batch-size 5 --accumulate 4 --lr 3e-3 --warmup-steps 1 --max-length 64",
    ),
    "lora_stsb": ("base", "stsb_start", "--task stsb --method lora --epochs 2 --batch-size 8 --lr 3e-3 --warmup-steps 2 --max-length 32"),
}  # fmt: skip
COMMON = "--weight-decay 0.1 --shuffle false --seed 0"


def write_json(path, content):
    """JSON with the header first."""
    path.write_text(json.dumps({"header": HEADER, **content}, indent=1, ensure_ascii=False) + "\n")


def write_tensors(path, tensors):
    """Safetensors; no metadata beyond the script's name, since several entries would be written in random order."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, {"made_by": HEADER["made_by"]})


def make_tokens(root):
    """Ids by the tokenizer that transformers builds from the folder, and by tokenizers alone: the two must agree."""
    cases = []
    for model in ("tiny", "pad0", "base"):
        folder = root / "models" / model
        official, own = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
        for text, pair in TOKEN_TEXTS:
            for length in TOKEN_LENGTHS:
                row = (text,) if pair is None else (text, pair)
                found = official(*row, truncation="longest_first", max_length=length)["input_ids"]
                assert encode(own, [row], length) == [found], (model, row, length)
                types = own.encode(*row).type_ids
                cases.append({"model": model, "text": text, "pair": pair, "max_length": length, "ids": found, "type_ids": types})
    write_json(root / "tokens.json", {"cases": cases})


def load(folder, name):
    """The checkpoint in float32, with plain attention and without dropout."""
    kind = {"base": RobertaModel, "mlm": RobertaForMaskedLM}.get(name, RobertaForSequenceClassification)
    return kind.from_pretrained(folder / name, dtype=torch.float32, attn_implementation="eager").eval()


def batch_of(folder, name):
    """TEXTS as ids and mask [rows, longest] for this checkpoint."""
    rows = [tuple(text for text in row if text is not None) for row in TEXTS]
    ids = encode(load_tokenizer(folder / name), rows, 30)
    longest, pad = max(map(len, ids)), json.loads((folder / name / "config.json").read_text())["pad_token_id"]
    padded = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return padded, mask


@torch.no_grad()
def forward_tensors(model, name, ids, mask, prefix="", **more):
    """Hidden states after the embeddings and each layer (0 at padding) and the logits if there is a head."""
    encoder = model if name == "base" else model.roberta
    states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more).hidden_states
    tensors = {f"{prefix}hidden.{n}": state * mask.unsqueeze(-1) for n, state in enumerate(states)}
    if name in LABELS:
        tensors[f"{prefix}logits"] = model(input_ids=ids, attention_mask=mask, **more).logits
    return tensors


def make_forward(root):
    """forward_<model>.safetensors for the four checkpoints; pad0 a second time with token types of its own."""
    folder, cases = root / "models", []
    for name in ("tiny", "pad0", "base", "mlm"):
        model, (ids, mask) = load(folder, name), batch_of(folder, name)
        tensors = {"ids": ids.to(torch.int32), "lengths": mask.sum(1).to(torch.int32)}
        tensors |= forward_tensors(model, name, ids, mask)
        if name == "pad0":
            types = (torch.arange(ids.shape[1]) % 3 == 1).long().expand_as(ids) * mask
            tensors["type_ids"] = types.to(torch.int32)
            tensors |= forward_tensors(model, name, ids, mask, "typed.", token_type_ids=types)
        write_tensors(root / f"forward_{name}.safetensors", tensors)
        layers = model.config.num_hidden_layers
        cases.append({"model": name, "texts": TEXTS, "max_length": 30, "layers": layers, "labels": LABELS.get(name)})
    write_json(root / "forward.json", {"cases": cases})


def make_gradients(root):
    """Gradients of a mean cross-entropy loss on the forward batch, for adapters with non-zero B and for every parameter."""
    folder, cases = root / "models", []
    for case, name, adapter in (("lora_tiny", "tiny", "plain"), ("lora_pad0", "pad0", "pad0_plain"), ("full_tiny", "tiny", None)):
        model, (ids, mask) = load(folder, name), batch_of(folder, name)
        if adapter:
            model = PeftModel.from_pretrained(model, root / "adapters" / adapter, is_trainable=True).eval()
        labels = torch.arange(len(ids)) % LABELS[name]
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels)
        loss.backward()
        gradients = {plain_name(n): p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values()]))
        write_tensors(root / f"gradients_{case}.safetensors", {**gradients, "batch.labels": labels.to(torch.int32)})
        facts = {"name": case, "model": name, "adapter": adapter, "labels": labels.tolist()}
        cases.append({**facts, "loss": loss.item(), "grad_norm": norm.item()})
    write_json(root / "gradients.json", {"cases": cases})


@torch.no_grad()
def make_adapter_references(root):
    """Logits of each adapter as PEFT computes them after reading the folder back, unmerged and merged."""
    cases = []
    for name, (model, _) in ADAPTERS.items():
        if model not in LABELS:
            continue
        base, (ids, mask) = load(root / "models", model), batch_of(root / "models", model)
        plain = base(input_ids=ids, attention_mask=mask).logits
        wrapped = PeftModel.from_pretrained(base, root / "adapters" / name).eval()
        layers = {n: m for n, m in wrapped.named_modules() if hasattr(m, "lora_A") and "default" in m.lora_A}
        modules = {plain_name(n): {"rank": m.r["default"], "scale": m.scaling["default"]} for n, m in layers.items()}
        logits = wrapped(input_ids=ids, attention_mask=mask).logits
        merged = wrapped.merge_and_unload()(input_ids=ids, attention_mask=mask).logits
        assert (logits - plain).abs().max() > 0.05, f"{name} hardly changes the model"
        assert torch.allclose(logits, merged, atol=1e-5), name
        facts = {"name": name, "model": model, "modules": dict(sorted(modules.items()))}
        cases.append({**facts, "logits": logits.tolist(), "merged_logits": merged.tolist()})
    write_json(root / "adapters.json", {"cases": cases})


def norms_of(named):
    """L2 norm of each tensor by its plain name."""
    return {name: norm for name, norm in sorted((plain_name(name), tensor.norm().item()) for name, tensor in named)}


def make_trajectories(root):
    """Runs the peer's loop on the toy sets: steps, evaluations, trained tensors of the best epoch, norms of the best and the last."""
    out = root / "trajectories"
    out.mkdir()
    for name, (model, adapter, flags) in TRAJECTORIES.items():
        with tempfile.TemporaryDirectory() as scratch:
            inputs = ["--model", root / "models" / model, "--data-dir", root / "glue", "--output", scratch, "--threads", 1]
            inputs += ["--init-adapter", root / "adapters" / adapter] if adapter else []
            words = [*flags.split(), *COMMON.split()]
            run = train_peft.Run(train_peft.parse_arguments([*map(str, inputs), *words]))
            record = run.train()
            steps = [json.loads(line) for line in (Path(scratch) / "log.jsonl").read_text().splitlines()]
        tensors = {plain_name(n): tensor for n, tensor in run.best_tensors.items()}
        write_tensors(out / f"{name}.safetensors", tensors)
        facts = {
            "name": name,
            "model": f"models/{model}",
            "init_adapter": f"adapters/{adapter}" if adapter else None,
            "flags": words,
            "parameters": record["parameters"],
            "steps": steps,
            "evaluations": record["evaluations"],
            "best": record["best"],
            "best_norms": norms_of(run.best_tensors.items()),
            "last_norms": norms_of((n, p) for n, p in run.model.named_parameters() if p.requires_grad),
            # Their exact gradient is 0: Adam turns rounding noise into steps, which the softmax then cancels.
            "rounding_only": sorted(n for n in tensors if n.endswith("key.bias")),
        }
        write_json(out / f"{name}.json", facts)


def main():
    """Makes everything in a sibling folder first and puts it in place at the end; README.md is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE.parent.parent / "data" / "parity")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        root = Path(scratch)
        write_sets(root / "glue")
        write_models(root / "models")
        write_adapters(root / "models", root / "adapters")
        for make in (make_tokens, make_forward, make_gradients, make_adapter_references, make_trajectories):
            make(root)
            print(make.__name__, flush=True)
        if (output / "README.md").exists():
            shutil.copy(output / "README.md", root)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(root, output)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {total:,} bytes")


if __name__ == "__main__":
    main()
