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
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peer")]

import torch
from peft import PeftModel
from transformers import AutoTokenizer, RobertaForMaskedLM, RobertaForSequenceClassification, RobertaModel
from transformers.utils import logging as transformers_logging

from adapters import ADAPTERS, write_adapters
from glue_data import encode, load_tokenizer
from parity_files import Writer, adapter_facts, global_norm, gradients_of, run_trajectory
from tiny_models import write_models
from toy_glue import write_sets

WRITER = Writer("scripts/reference/make_references.py")
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
    WRITER.json(root / "tokens.json", {"cases": cases})


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
        WRITER.tensors(root / f"forward_{name}.safetensors", tensors)
        layers = model.config.num_hidden_layers
        cases.append({"model": name, "texts": TEXTS, "max_length": 30, "layers": layers, "labels": LABELS.get(name)})
    WRITER.json(root / "forward.json", {"cases": cases})


def make_gradients(root):
    """Gradients of a mean cross-entropy loss on the forward batch, for adapters with non-zero B and for every parameter."""
    folder, cases = root / "models", []
    for case, name, adapter in (("lora_tiny", "tiny", "plain"), ("lora_pad0", "pad0", "pad0_plain"), ("full_tiny", "tiny", None)):
        model, (ids, mask) = load(folder, name), batch_of(folder, name)
        if adapter:
            model = PeftModel.from_pretrained(model, root / "adapters" / adapter, is_trainable=True).eval()
        labels = torch.arange(len(ids)) % LABELS[name]
        loss, gradients = gradients_of(model, {"input_ids": ids, "attention_mask": mask}, labels)
        WRITER.tensors(root / f"gradients_{case}.safetensors", {**gradients, "batch.labels": labels.to(torch.int32)})
        facts = {"name": case, "model": name, "adapter": adapter, "labels": labels.tolist()}
        cases.append({**facts, "loss": loss.item(), "grad_norm": global_norm(gradients)})
    WRITER.json(root / "gradients.json", {"cases": cases})


def make_adapter_references(root):
    """Logits of each adapter as PEFT computes them after reading the folder back, unmerged and merged."""
    cases = []
    for name, (model, _) in ADAPTERS.items():
        if model in LABELS:
            base, (ids, mask) = load(root / "models", model), batch_of(root / "models", model)
            facts = adapter_facts(base, root / "adapters" / name, {"input_ids": ids, "attention_mask": mask})
            cases.append({"name": name, "model": model, **facts})
    WRITER.json(root / "adapters.json", {"cases": cases})


def make_trajectories(root):
    """Runs the peer's loop on the toy sets: steps, evaluations, trained tensors of the best epoch, norms of the best and the last."""
    out = root / "trajectories"
    out.mkdir()
    for name, (model, adapter, flags) in TRAJECTORIES.items():
        tensors, facts = run_trajectory(root, root / "glue", model, adapter, flags)
        WRITER.tensors(out / f"{name}.safetensors", tensors)
        # Their exact gradient is 0: Adam turns rounding noise into steps, which the softmax then cancels.
        noise = sorted(n for n in tensors if n.endswith("key.bias"))
        WRITER.json(out / f"{name}.json", {"name": name, **facts, "rounding_only": noise})


def main():
    """Makes everything in a sibling folder first and puts it in place at the end; README.md and deberta/ are kept."""
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
        if (output / "deberta").exists():
            shutil.copytree(output / "deberta", root / "deberta")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(root, output)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {total:,} bytes")


if __name__ == "__main__":
    main()
