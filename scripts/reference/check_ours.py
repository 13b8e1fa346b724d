"""Checks what the `lowburn` binary writes and logs against PyTorch, transformers and PEFT.

    python scripts/reference/check_ours.py --lowburn target/debug/lowburn --model DIR --data-dir DIR --task mrpc

Works for RoBERTa and DeBERTa-v2 (there the head is the classifier and the pooler). Both sides start from the same tensors: a copy of
the checkpoint with its dropouts set to 0 and a head (drawn here if it has none), and for LoRA an adapter made by PEFT. Then, in a
scratch folder:

1. `lowburn train` and the peer's loop run in file order; their logs must agree step by step (loss, rate, norm; 1e-3 relative);
2. the adapter that `lowburn train` wrote is loaded by PEFT: same logits on the dev set as `lowburn predict` (1e-4);
3. `lowburn merge` of it is loaded by transformers: the same logits;
4. full: the checkpoint that `lowburn train` wrote is loaded by transformers: the same logits; head: likewise with its tensors;
5. the scores in `run.json` are those of the reference's logits.

Ends with status 1 if any check fails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "peer"), str(Path(__file__).resolve().parent)]

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

import train_peft
from adapters import plain_name, redraw
from common import head_modules, is_head, takes_type_ids, targets
from glue_data import TASKS, evaluation_splits, load_rows, load_tokenizer, scores

LOGITS = 1e-4
RELATIVE = 1e-3
DROPOUTS = {
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    "deberta-v2": ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout"),
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "spm.model")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lowburn", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--methods", nargs="+", default=["lora", "full", "head"])
    parser.add_argument("--rank", type=int, default=6)
    parser.add_argument("--alpha", type=float, default=15)
    parser.add_argument("--target", help="the query and value layers unless given")
    parser.add_argument("--train-rows", type=int, default=117)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it (else a temporary one)")
    return parser.parse_args()


class Checks:
    """Prints one line per check and remembers failures."""

    def __init__(self):
        self.failed = 0

    def within(self, name, value, limit):
        """`value` at most `limit`; NaN fails."""
        good = value <= limit
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {name}: {value:.2e} (limit {limit:.0e})", flush=True)


def start_model(args, folder):
    """A float32 copy of the checkpoint with dropouts 0 and a head of the task's width, and the tokenizer's files."""
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(args.model, num_labels=TASKS[args.task].num_labels)
    for key in DROPOUTS[config.model_type]:
        setattr(config, key, 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, config=config, dtype=torch.float32)
    model.save_pretrained(folder)
    for path in args.model.iterdir():
        if path.name in TOKENIZER_FILES:
            shutil.copyfile(path, folder / path.name)
    return folder


def start_adapter(args, model_folder, folder):
    """An adapter with A, B and head drawn at random, as PEFT saves it."""
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32)
    names, head = targets(args.target, model.config), head_modules(model.config)
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=args.rank, lora_alpha=args.alpha, target_modules=names, modules_to_save=head)
    wrapped = get_peft_model(model, config)
    redraw(wrapped, 2, spread=0.05)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


def flags_of(args, method, model, adapter):
    """The flags that both programs understand; rank, alpha and targets are the folder's."""
    values = {
        "--model": model, "--task": args.task, "--data-dir": args.data_dir, "--method": method, "--epochs": args.epochs,
        "--batch-size": args.batch_size, "--accumulate": args.accumulate, "--lr": args.lr, "--weight-decay": 0.1,
        "--warmup-ratio": 0.1, "--max-length": args.max_length, "--seed": 3, "--shuffle": "false", "--train-rows": args.train_rows,
        "--threads": args.threads,
    }  # fmt: skip
    if method == "lora":
        values["--init-adapter"] = adapter
    return [str(word) for pair in values.items() for word in pair]


def lowburn(args, *words):
    """Runs the binary; a failure ends the check with its message."""
    done = subprocess.run([str(args.lowburn), *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"lowburn {' '.join(map(str, words))}\nended with {done.returncode}:\n{done.stderr[-4000:]}")


def predicted(args, folder, model, adapter=None):
    """Logits [rows, labels] that `lowburn predict` writes for the first dev split."""
    split = evaluation_splits(args.task)[0]
    output = folder / "predictions.jsonl"
    output.unlink(missing_ok=True)
    words = ["predict", "--model", model, "--task", args.task, "--data-dir", args.data_dir, "--split", split]
    words += ["--max-length", args.max_length, "--threads", args.threads, "--output", output]
    lowburn(args, *words, *(["--adapter", adapter] if adapter else []))
    return torch.tensor([json.loads(line)["logits"] for line in output.read_text().splitlines()])


def dev_rows(args, model):
    """The first dev split as the reference tokenises it."""
    split = evaluation_splits(args.task)[0]
    typed = takes_type_ids(AutoConfig.from_pretrained(model))
    return load_rows(args.data_dir, args.task, split, load_tokenizer(model), args.max_length, typed=typed)


def reference_logits(model, rows):
    """The same by transformers or PEFT."""
    logits, _ = train_peft.predict(model, rows, model.config.pad_token_id, 16, model.config.num_labels == 1)
    return logits


def load_classifier(folder):
    """A checkpoint by transformers, which must find every tensor that it needs and no other."""
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if report.get(key)}
    if wrong:
        sys.exit(f"{folder}: transformers reports {wrong}")
    return model


def compare_logs(checks, method, ours, peer):
    """Loss, rate and norm of every step; the counters must be equal."""
    read = lambda folder: [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    mine, theirs = read(ours), read(peer)
    checks.within(f"{method}: difference in the number of steps (peer: {len(theirs)})", abs(len(mine) - len(theirs)), 0)
    pairs = list(zip(mine, theirs))
    for key in ("loss", "lr", "grad_norm"):
        off = max(abs(a[key] - b[key]) / max(abs(b[key]), 1e-12) for a, b in pairs)
        checks.within(f"{method}: {key} of {len(pairs)} steps, relative", off, RELATIVE)
    for key in ("step", "examples", "tokens", "epoch"):
        checks.within(f"{method}: {key} of {len(pairs)} steps", max(abs(a[key] - b[key]) for a, b in pairs), 1e-9)


def compare_scores(checks, args, method, ours, logits, labels):
    """The best epoch's scores in run.json against those of the reference's logits."""
    found = json.loads((ours / "run.json").read_text())["best"]["scores"]
    expected = scores(args.task, logits, labels)
    off = max(abs(found[name] - value) for name, value in expected.items())
    checks.within(f"{method}: scores in run.json against {expected}", off, 1e-4)


def saved_model(method, start, ours):
    """What `lowburn train` wrote, as the reference reads it."""
    if method == "full":
        return load_classifier(ours / "model")
    model = load_classifier(start)
    if method == "lora":
        return PeftModel.from_pretrained(model, ours / "adapter").eval()
    tensors = {}
    for path in sorted((ours / "head").glob("*.safetensors")):
        tensors |= {plain_name(name): tensor.float() for name, tensor in load_file(path).items()}
    result = model.load_state_dict(tensors, strict=False)
    expected = {name for name, _ in model.named_parameters() if is_head(name, model.config)}
    if result.unexpected_keys or expected - tensors.keys():
        sys.exit(f"{ours / 'head'}: holds {sorted(tensors)}, expected {sorted(expected)}")
    return model


def check_method(checks, args, method, start, adapter, scratch):
    """Trains on both sides and compares logs, logits and scores."""
    ours, peer = scratch / f"ours-{method}", scratch / f"peer-{method}"
    flags = flags_of(args, method, start, adapter)
    lowburn(args, "train", *flags, "--output", ours)
    peer.mkdir()
    train_peft.Run(train_peft.parse_arguments([*flags, "--output", str(peer)])).train()
    compare_logs(checks, method, ours, peer)

    rows = dev_rows(args, start)
    expected = reference_logits(saved_model(method, start, ours), rows)
    difference = lambda logits: (logits - expected).abs().max().item() if logits.shape == expected.shape else float("nan")
    folder = {"lora": "adapter", "head": "head"}.get(method)
    found = predicted(args, scratch, start, ours / folder) if folder else predicted(args, scratch, ours / "model")
    checks.within(f"{method}: logits of predict against the reference", difference(found), LOGITS)
    compare_scores(checks, args, method, ours, expected, rows.labels)
    if method == "lora":
        merged = scratch / "merged"
        lowburn(args, "merge", "--model", start, "--adapter", ours / "adapter", "--output", merged)
        checks.within("merged: logits by transformers", difference(reference_logits(load_classifier(merged), rows)), LOGITS)
        checks.within("merged: logits of predict", difference(predicted(args, scratch, merged)), LOGITS)


def main():
    """Runs every method and ends with status 1 on a failure."""
    args = parse_arguments()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if args.keep:
        args.keep.mkdir(parents=True)
    scratch = args.keep or Path(tempfile.mkdtemp())
    checks = Checks()
    try:
        start = start_model(args, scratch / "start")
        adapter = start_adapter(args, start, scratch / "start-adapter")
        for method in args.methods:
            check_method(checks, args, method, start, adapter, scratch)
    finally:
        if not args.keep:
            shutil.rmtree(scratch)
    print(f"{checks.failed} checks failed" if checks.failed else "all checks passed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
