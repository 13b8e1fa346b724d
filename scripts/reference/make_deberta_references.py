"""Makes the DeBERTa-v2 parity references of `data/parity/deberta/`, as make_references.py makes RoBERTa's beside them.

The same formats and fields; the training sets are `data/parity/glue`. A second run gives the same files.

    pip install -r scripts/requirements.txt
    python scripts/reference/make_deberta_references.py                 # rewrites data/parity/deberta/
    python scripts/reference/make_deberta_references.py --output DIR    # elsewhere, to compare

The layout is described in data/parity/README.md.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peer")]

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DebertaV2ForMaskedLM, DebertaV2ForSequenceClassification, DebertaV2Model, DebertaV2Tokenizer
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, make_log_bucket_position
from transformers.utils import logging as transformers_logging

from adapters import write_adapters
from common import takes_type_ids
from glue_data import encode_rows, load_tokenizer, model_inputs
from parity_files import Writer, adapter_facts, global_norm, gradients_of, run_trajectory
from tiny_deberta import write_models

PARITY = HERE.parent.parent / "data" / "parity"
WRITER = Writer("scripts/reference/make_deberta_references.py", "sentencepiece")
LABELS = {"deb_conv": 2, "deb_plain": 3, "deb_c2p": 2, "deb_absolute": 2}
TEXTS = [
    ("the old lantern", None),
    ("the ferry captain sold two crates of plums before dawn.", "Zoë measured a clock worth €40"),
    ("warm", "seven maps, seven maps"),
    ("this film is dull and clumsy ", None),
]
# Longer than the 64 positions of deb_conv, which has none of its own, and with every bucket in use.
LONG_TEXTS = [
    ("a wooden boat, the third key, seven maps. " * 3, "the music is worth every minute and her uncle weighed the red bicycle. " * 3),
    ("her latest play is a quiet joy and graceful.", None),
    ("cold", None),
]
# Name -> (checkpoint, texts, longest row); odd lengths on purpose.
FORWARD = {name: (name, TEXTS, 29) for name in ("deb_conv", "deb_plain", "deb_c2p", "deb_p2c", "deb_mlm", "deb_absolute")}
FORWARD["deb_conv_long"] = ("deb_conv", LONG_TEXTS, 71)
TOKEN_TEXTS = [
    *TEXTS,
    ("", None),
    ("", "b"),
    (" ", None),
    (" two  spaces\tand a tab\nand a line ", None),
    ("naïve café — “quotes” … 😀 日本語", "Ünïcödé fin"),
    ("ﬁfty ﬂags ＦＵＬＬ ａ．ｂ ① ⑳ no\u00a0break", None),
    ("her uncle repaired the red bicycle at 6:30. " * 4, "short"),
    ("short", "her uncle repaired the red bicycle at 6:30. " * 4),
    ("a wooden boat, the third key, seven maps. " * 3, "the music is worth every minute, I'd say; it's not clumsy. " * 3),
]
TOKEN_LENGTHS = [40, 17, 8]
HEAD = ["classifier", "pooler"]
ADAPTERS = {
    "conv_plain": ("deb_conv", dict(r=4, lora_alpha=10, target_modules=["query_proj", "value_proj"], modules_to_save=HEAD)),
    "conv_key": ("deb_conv", dict(r=3, lora_alpha=7, target_modules=["query_proj", "key_proj", "value_proj"], modules_to_save=HEAD)),
    "conv_no_pooler": ("deb_conv", dict(r=4, lora_alpha=6, target_modules=["query_proj", "value_proj"])),
    "plain_all_linear": ("deb_plain", dict(r=2, lora_alpha=5, target_modules="all-linear", modules_to_save=HEAD)),
    "plain_regex": (
        "deb_plain",
        dict(r=3, lora_alpha=4, target_modules=r".*\.layer\.1\..*(pos_key_proj|pos_query_proj|output\.dense)", modules_to_save=HEAD),
    ),
    "c2p_rslora": ("deb_c2p", dict(r=8, lora_alpha=3, use_rslora=True, target_modules=["query_proj", "value_proj"], modules_to_save=HEAD)),
    "p2c_stsb_start": ("deb_p2c", dict(r=3, lora_alpha=6, target_modules=["query_proj", "value_proj"], modules_to_save=HEAD)),
    # PEFT saves the classifier only, and takes the pooler for one more linear layer.
    "plain_all_linear_bare": ("deb_plain", dict(r=2, lora_alpha=5, target_modules="all-linear")),
}  # fmt: skip
GRADIENTS = {
    "lora_conv": ("deb_conv", "conv_plain"),
    "lora_conv_key": ("deb_conv", "conv_key"),
    "lora_plain": ("deb_plain", "plain_all_linear"),
    "full_conv": ("deb_conv", None),
    "full_plain": ("deb_plain", None),
    "full_c2p": ("deb_c2p", None),
}
TRAJECTORIES = {
    "lora_conv_sst2": (
        "deb_conv", "conv_key", "--task sst2 --method lora --epochs 3 --batch-size 5 --lr 1e-2 --warmup-ratio 0.1 --max-length 48",
    ),
    "full_conv_sst2": ("deb_conv", None, "--task sst2 --method full --epochs 3 --batch-size 5 --lr 3e-3 --warmup-ratio 0.1 --max-length 48"),
    "head_conv_mrpc": ("deb_conv", None, "--task mrpc --method head --epochs 1 --batch-size 7 --lr 5e-3 --warmup-ratio 0 --max-length 64"),
    "full_c2p_mrpc": ("deb_c2p", None, "--task mrpc --method full --epochs 3 --batch-size 7 --lr 1e-3 --warmup-ratio 0.1 --max-length 57"),
    "accumulate_c2p": (
        "deb_c2p", "c2p_rslora",
        "--task mrpc --method lora --epochs 2 --batch-size 5 --accumulate 2 --train-rows 57 --lr 3e-3 --warmup-steps 2 --max-length 57",
    ),
    "lora_stsb": ("deb_p2c", "p2c_stsb_start", "--task stsb --method lora --epochs 2 --batch-size 8 --lr 1e-2 --warmup-steps 2 --max-length 33"),
}  # fmt: skip


def load(root, name):
    """The checkpoint in float32 without dropout, with its head if it has one."""
    kind = {"deb_p2c": DebertaV2Model, "deb_mlm": DebertaV2ForMaskedLM}.get(name, DebertaV2ForSequenceClassification)
    return kind.from_pretrained(root / "models" / name, dtype=torch.float32).eval()


def batch_of(root, name, config, texts=TEXTS, max_length=29):
    """Texts as this checkpoint's inputs, with type ids if it takes them."""
    rows = [tuple(text for text in row if text is not None) for row in texts]
    found = encode_rows(load_tokenizer(root / "models" / name), rows, max_length)
    types = [encoding.type_ids for encoding in found] if takes_type_ids(config) else None
    return model_inputs([encoding.ids for encoding in found], types, config.pad_token_id)


def make_tokens(root):
    """Ids by the sentencepiece package; transformers 5, which has no character map, must agree where a text needs none."""
    cases = []
    for model in ("deb_conv", "deb_mlm"):
        own = load_tokenizer(root / "models" / model)
        pieces = [(own.pieces.id_to_piece(n), own.pieces.get_score(n)) for n in range(len(own.pieces))]
        other = DebertaV2Tokenizer(vocab=pieces, unk_id=own.pieces.unk_id())
        for text, pair in TOKEN_TEXTS:
            row = (text,) if pair is None else (text, pair)
            for length in TOKEN_LENGTHS:
                (found,) = encode_rows(own, [row], length)
                assert len(found.ids) <= length
                if "".join(row).isascii() and all(part and " ".join(part.split()) == part.strip() for part in row):
                    theirs = other(*map(str.strip, row), truncation="longest_first", max_length=length)
                    assert theirs["input_ids"] == found.ids, (model, row, length)
                cases.append(
                    {"model": model, "text": text, "pair": pair, "max_length": length, "ids": found.ids, "type_ids": found.type_ids}
                )
    WRITER.json(root / "tokens.json", {"cases": cases})


@torch.no_grad()
def make_forward(root):
    """forward_<name>.safetensors: hidden states after the embeddings and each layer (0 at padding), logits if there is a head."""
    cases = []
    for name, (checkpoint, texts, max_length) in FORWARD.items():
        model = load(root, checkpoint)
        inputs = batch_of(root, checkpoint, model.config, texts, max_length)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert ids.shape[1] % 2 == 1 and mask.sum(1).min() < ids.shape[1], name
        tensors = {"ids": ids.to(torch.int32), "lengths": mask.sum(1).to(torch.int32)}
        if "token_type_ids" in inputs:
            tensors["type_ids"] = inputs["token_type_ids"].to(torch.int32)
        encoder = getattr(model, "deberta", model)
        states = encoder(**inputs, output_hidden_states=True).hidden_states
        tensors |= {f"hidden.{n}": state * mask.unsqueeze(-1) for n, state in enumerate(states)}
        if checkpoint in LABELS:
            tensors["logits"] = model(**inputs).logits
        WRITER.tensors(root / f"forward_{name}.safetensors", tensors)
        layers, labels = model.config.num_hidden_layers, LABELS.get(checkpoint)
        cases.append({"name": name, "model": checkpoint, "texts": texts, "max_length": max_length, "layers": layers, "labels": labels})
    WRITER.json(root / "forward.json", {"cases": cases})


def make_gradients(root):
    """Gradients of a mean cross-entropy loss on the forward batch, for adapters with non-zero B and for every parameter."""
    cases = []
    for case, (name, adapter) in GRADIENTS.items():
        model = load(root, name)
        inputs = batch_of(root, name, model.config)
        if adapter:
            model = PeftModel.from_pretrained(model, root / "adapters" / adapter, is_trainable=True).eval()
        labels = torch.arange(len(TEXTS)) % LABELS[name]
        loss, gradients = gradients_of(model, inputs, labels)
        WRITER.tensors(root / f"gradients_{case}.safetensors", {**gradients, "batch.labels": labels.to(torch.int32)})
        facts = {"name": case, "model": name, "adapter": adapter, "labels": labels.tolist()}
        cases.append({**facts, "loss": loss.item(), "grad_norm": global_norm(gradients)})
    WRITER.json(root / "gradients.json", {"cases": cases})


@contextmanager
def positions_without_update():
    """The LoRA authors' way: where positions share the projections of keys and queries, the update acts on words only."""
    original = DisentangledSelfAttention.disentangled_attention_bias

    def patched(self, *args, **kwargs):
        layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            return original(self, *args, **kwargs)
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    DisentangledSelfAttention.disentangled_attention_bias = patched
    try:
        yield
    finally:
        DisentangledSelfAttention.disentangled_attention_bias = original


@torch.no_grad()
def authors_logits(root, name, model):
    """Logits of an adapter under the authors' way."""
    base = load(root, model)
    inputs = batch_of(root, model, base.config)
    wrapped = PeftModel.from_pretrained(base, root / "adapters" / name).eval()
    everywhere = wrapped(**inputs).logits
    with positions_without_update():
        found = wrapped(**inputs).logits
    assert (found - everywhere).abs().max() > 1e-3, f"{name}: both ways give the same"
    return found.tolist()


def make_adapter_references(root):
    """Logits of each adapter as PEFT computes them after reading the folder back, unmerged and merged."""
    cases = []
    for name, (model, settings) in ADAPTERS.items():
        if model in LABELS:
            base = load(root, model)
            facts = adapter_facts(base, root / "adapters" / name, batch_of(root, model, base.config))
            if base.config.share_att_key:
                facts["authors_logits"] = authors_logits(root, name, model)
            cases.append({"name": name, "model": model, "pooler": "modules_to_save" in settings, **facts})
    WRITER.json(root / "adapters.json", {"cases": cases})


def without_gradient(root, name, tensors):
    """Which trained tensors have an exact gradient of 0, so that Adam makes steps of mere rounding noise: seen in double precision."""
    if name not in LABELS:
        return []
    model = load(root, name).double()
    model(**batch_of(root, name, model.config)).logits.square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    total = global_norm(gradients)
    return sorted(n for n, gradient in gradients.items() if n in tensors and gradient.norm() < 1e-12 * total)


def make_trajectories(root):
    """Runs the peer's loop on the toy sets: steps, evaluations, trained tensors of the best epoch, norms of the best and the last."""
    out = root / "trajectories"
    out.mkdir()
    for name, (model, adapter, flags) in TRAJECTORIES.items():
        tensors, facts = run_trajectory(root, PARITY / "glue", model, adapter, flags)
        WRITER.tensors(out / f"{name}.safetensors", tensors)
        WRITER.json(out / f"{name}.json", {"name": name, **facts, "rounding_only": without_gradient(root, model, tensors)})


def make_buckets(root):
    """The bucket of every distance from 0 on, as transformers computes it; distances to the left are the negatives."""
    cases = []
    for buckets, positions in ((256, 512), (64, 512), (8, 64), (32, 130), (17, 301), (4, 10)):
        distances = torch.arange(positions + 40)
        found = make_log_bucket_position(distances, buckets, positions).long()
        assert torch.equal(make_log_bucket_position(-distances, buckets, positions).long(), -found)
        cases.append({"position_buckets": buckets, "max_relative_positions": positions, "buckets": found.tolist()})
    WRITER.json(root / "buckets.json", {"cases": cases})


def main():
    """Makes everything in a scratch folder first and puts it in place at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PARITY / "deberta")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_models(root / "models")
        write_adapters(root / "models", root / "adapters", ADAPTERS, {"p2c_stsb_start"})
        for make in (make_buckets, make_tokens, make_forward, make_gradients, make_adapter_references, make_trajectories):
            make(root)
            print(make.__name__, flush=True)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(root, output)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {total:,} bytes")


if __name__ == "__main__":
    main()
