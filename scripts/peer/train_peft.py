"""The PyTorch + PEFT peer of `lowburn train`.

A plain training loop with the semantics that `lowburn` promises, so that the two can be compared run by run:

- AdamW (betas .9 / .999, epsilon 1e-8), decoupled decay on every trainable tensor except biases and LayerNorm;
- linear warm-up from 0 and linear decay to 0, warm-up steps = ceil(total x ratio) unless given;
- one global L2 clip at 1.0; the logged norm is the one before clipping;
- accumulation is the mean over the whole effective batch; the last partial batch of an epoch is kept;
- padding to the longest row of the batch, rows shuffled each epoch by the seed (or in file order with --shuffle false);
- evaluation over the whole dev set after each epoch, or every --eval-every steps and at the end; the best epoch is the first with the highest value of the task's metric.

It writes `run.json` and `log.jsonl` with the field names that `lowburn` uses, and with --save the trained tensors of the best epoch.

    python scripts/peer/train_peft.py --model DIR --data-dir DIR --task mrpc --method lora --rank 8 --alpha 16 \
        --epochs 5 --batch-size 16 --lr 1e-3 --seed 0 --output DIR
"""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup
from transformers.utils import logging as transformers_logging

from common import CLIP, build_optimizer, cpu_name, loss_of, parameter_counts, peak_memory, versions
from common import head_modules, is_head, takes_type_ids, targets
from glue_data import TASKS, collate, evaluation_splits, load_rows, load_tokenizer, parquet_path, scores


def parse_arguments(argv=None):
    """The command line; names and meaning are those of `lowburn train`."""
    truth = lambda text: {"true": True, "false": False}[text.lower()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--method", choices=["lora", "full", "head", "bitfit"], default="lora")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--target", help="suffixes with commas, a regular expression, or all-linear; the query and value layers unless given")
    parser.add_argument("--lora-dropout", type=float, default=0.0)
    parser.add_argument("--rslora", action="store_true")
    parser.add_argument("--init-adapter", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    parser.add_argument("--warmup-steps", type=int)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffle", type=truth, default=True)
    parser.add_argument("--train-rows", type=int)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--eval-every", type=evaluation_interval, help="epoch, or a number of steps [default: epoch]")
    parser.add_argument("--eval-batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shared-machine", action="store_true", help="other work runs beside it: record that the times are not comparable")
    parser.add_argument("--save", action="store_true", help="also write the trained tensors of the best epoch")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(argv)


def evaluation_interval(text):
    """Steps between two evaluations; None for the ends of epochs."""
    if text == "epoch":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither `epoch` nor a number of steps from 1")
    return int(text)


def build_model(args):
    """The classifier in float32 with the parameters of the method trainable."""
    task = TASKS[args.task]
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=task.num_labels, dtype=torch.float32)
    model.config.problem_type = "regression" if task.regression else "single_label_classification"
    if args.init_adapter:
        return PeftModel.from_pretrained(model, args.init_adapter, is_trainable=True)
    if args.method == "lora":
        settings = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=args.rank,
            lora_alpha=args.alpha,
            lora_dropout=args.lora_dropout,
            use_rslora=args.rslora,
            target_modules=targets(args.target, model.config),
            modules_to_save=head_modules(model.config),
        )
        return get_peft_model(model, settings)
    if args.method in ("head", "bitfit"):
        for name, parameter in model.named_parameters():
            bias = args.method == "bitfit" and name.endswith(".bias")
            parameter.requires_grad_(bias or is_head(name, model.config))
    return model


def epoch_groups(count, args, epoch):
    """The row numbers of one epoch as optimiser steps, each a list of micro-batches."""
    order = list(range(count))
    if args.shuffle:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator).tolist()
    batches = [order[start : start + args.batch_size] for start in range(0, count, args.batch_size)]
    return [batches[start : start + args.accumulate] for start in range(0, len(batches), args.accumulate)]


def train_step(model, rows, group, optimizer, schedule, pad_id, regression):
    """One optimiser step over the micro-batches of `group`; returns loss, rate, norm before clipping and real tokens."""
    total, loss_sum, tokens = sum(len(batch) for batch in group), 0.0, 0
    for batch in group:
        inputs, labels = collate(rows, batch, pad_id, regression)
        loss = loss_of(model(**inputs).logits, labels, regression) * (len(batch) / total)
        loss.backward()
        loss_sum += loss.item()
        tokens += int(inputs["attention_mask"].sum())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, CLIP).item()
    lr = optimizer.param_groups[0]["lr"]
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(loss_sum):
        sys.exit(f"the loss is {loss_sum}: try a lower --lr than {lr}")
    return {"loss": loss_sum, "lr": lr, "grad_norm": norm}, total, tokens


@torch.no_grad()
def predict(model, rows, pad_id, batch_size, regression):
    """Logits [rows, labels] in file order without dropout, and the mean loss (NaN where rows carry no label)."""
    model.eval()
    outputs = []
    for start in range(0, len(rows.ids), batch_size):
        numbers = range(start, min(start + batch_size, len(rows.ids)))
        inputs, _ = collate(rows, list(numbers), pad_id, regression)
        outputs.append(model(**inputs).logits)
    model.train()
    logits = torch.cat(outputs)
    if min(rows.labels) < 0:
        return logits, math.nan
    labels = torch.tensor(rows.labels, dtype=torch.float32 if regression else torch.long)
    return logits, loss_of(logits, labels, regression).item()


def evaluate(model, splits, args, step, epoch, pad_id):
    """One record per dev split."""
    found = []
    for split, rows in splits.items():
        logits, loss = predict(model, rows, pad_id, args.eval_batch_size, TASKS[args.task].regression)
        found.append({"step": step, "epoch": epoch, "split": split, "loss": loss, "scores": scores(args.task, logits, rows.labels)})
    return found


def best_of(evaluations, metric, split):
    """The evaluation with the highest metric on the first dev split, the earliest of equals."""
    chosen = max((e for e in evaluations if e["split"] == split), key=lambda e: e["scores"][metric])
    return {"step": chosen["step"], "epoch": chosen["epoch"], "metric": metric, "value": chosen["scores"][metric], "scores": chosen["scores"]}


def resolved_config(args, model, total_steps, warmup):
    """The configuration in the names of `lowburn`'s run record; folders by their own name only."""
    lora = None
    if hasattr(model, "peft_config"):
        found = model.peft_config["default"]
        names = found.target_modules
        lora = {
            "rank": found.r,
            "alpha": found.lora_alpha,
            "dropout": found.lora_dropout,
            "use_rslora": found.use_rslora,
            "targets": names if isinstance(names, str) else sorted(names),
        }
    keys = ("task", "method", "epochs", "batch_size", "accumulate", "lr", "weight_decay", "max_length", "seed", "shuffle")
    return {
        "model": args.model.resolve().name,
        **{key: getattr(args, key) for key in keys},
        "lora": lora,
        "warmup_ratio": None if args.warmup_steps is not None else args.warmup_ratio,
        "warmup_steps": warmup,
        "total_steps": total_steps,
        "train_rows": args.train_rows,
        "max_steps": args.max_steps,
        "eval_every": {"steps": args.eval_every} if args.eval_every else "epoch",
        "clip": CLIP,
        "adam": {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "threads": args.threads,
    }


def sha256(path):
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def input_digests(args):
    """sha256 of every file that the run was made from."""
    model = {path.name: sha256(path) for path in sorted(args.model.iterdir()) if path.is_file()}
    splits = ["train", *evaluation_splits(args.task)]
    data = {split: sha256(parquet_path(args.data_dir, args.task, split)) for split in splits}
    return {"model": model, "data": data}


class Run:
    """One training: model, data, optimiser and schedule, ready at step 0."""

    def __init__(self, args):
        torch.set_num_threads(args.threads)
        torch.manual_seed(args.seed)
        tokenizer = load_tokenizer(args.model)
        self.args, self.task = args, TASKS[args.task]
        self.model = build_model(args)
        self.pad_id, typed = self.model.config.pad_token_id, takes_type_ids(self.model.config)
        read = lambda split, limit=None: load_rows(args.data_dir, args.task, split, tokenizer, args.max_length, limit, typed)
        self.rows = read("train", args.train_rows)
        self.splits = {split: read(split) for split in evaluation_splits(args.task)}
        self.per_epoch = len(epoch_groups(len(self.rows.ids), args, 0))
        self.total = min(self.per_epoch * args.epochs, args.max_steps or sys.maxsize)
        self.warmup = math.ceil(self.total * args.warmup_ratio) if args.warmup_steps is None else args.warmup_steps
        self.optimizer = build_optimizer(self.model, args.lr, args.weight_decay)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, self.warmup, self.total)
        self.step = self.examples = self.tokens = 0
        self.evaluations, self.best, self.best_tensors, self.eval_seconds = [], None, {}, 0.0

    def train_epoch(self, epoch, log):
        """The steps of one epoch, a line of the log for each, and the evaluations that fall due."""
        for group in epoch_groups(len(self.rows.ids), self.args, epoch)[: self.total - self.step]:
            values, count, seen = train_step(
                self.model, self.rows, group, self.optimizer, self.schedule, self.pad_id, self.task.regression
            )
            self.step, self.examples, self.tokens = self.step + 1, self.examples + count, self.tokens + seen
            line = {"step": self.step, "epoch": self.step / self.per_epoch, **values}
            log.write(json.dumps({**line, "examples": self.examples, "tokens": self.tokens}) + "\n")
            log.flush()
            if self.step % (self.args.eval_every or self.per_epoch) == 0 or self.step == self.total:
                self.evaluate()
            if self.step % 50 == 0:
                print(f"step {self.step}/{self.total} loss {values['loss']:.4f}", flush=True)

    def evaluate(self):
        """The dev set; trained tensors are kept aside when the task's metric is higher than ever before."""
        epoch, began = self.step / self.per_epoch, time.monotonic()
        self.evaluations += evaluate(self.model, self.splits, self.args, self.step, epoch, self.pad_id)
        before, self.best = self.best, best_of(self.evaluations, self.task.metrics[0], next(iter(self.splits)))
        if self.best != before:
            named = self.model.named_parameters()
            self.best_tensors = {name: p.detach().clone() for name, p in named if p.requires_grad}
        self.eval_seconds += time.monotonic() - began
        print(f"epoch {epoch:.3g}: {self.evaluations[-1]['scores']}", flush=True)

    def restore_best(self):
        """Puts the trained tensors of the best epoch back into the model."""
        self.model.load_state_dict(self.best_tensors, strict=False)

    def train(self):
        """Every epoch with its evaluations; returns the run record and leaves the last epoch's tensors in the model."""
        epoch_seconds, began = [], time.monotonic()
        self.model.train()
        with open(self.args.output / "log.jsonl", "w") as log:
            for epoch in range(math.ceil(self.total / self.per_epoch)):
                started = time.monotonic() - self.eval_seconds
                self.train_epoch(epoch, log)
                epoch_seconds.append(time.monotonic() - self.eval_seconds - started)
        return self.record(epoch_seconds, time.monotonic() - began)

    def record(self, epoch_seconds, total_seconds):
        """The run record, in the field names of `lowburn`."""
        train_seconds = sum(epoch_seconds)
        return {
            "framework": "pytorch+peft",
            "versions": versions(),
            "config": resolved_config(self.args, self.model, self.total, self.warmup),
            "digests": input_digests(self.args),
            "device": "cpu",
            "threads": self.args.threads,
            "cpu": cpu_name(),
            "parameters": parameter_counts(self.model),
            "evaluations": self.evaluations,
            "best": self.best,
            "steps": self.step,
            "timing_valid": not self.args.shared_machine,
            "timing": {
                "train_seconds": train_seconds,
                "eval_seconds": self.eval_seconds,
                "total_seconds": total_seconds,
                "epoch_seconds": epoch_seconds,
                "examples_per_second": self.examples / train_seconds,
                "tokens_per_second": self.tokens / train_seconds,
            },
            "peak_memory_bytes": peak_memory(),
            "status": "finished",
        }


def main(argv=None):
    """Runs unless the output folder already holds a finished run."""
    args = parse_arguments(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    finished = args.output / "run.json"
    if finished.exists():
        print(f"{finished} is there already: nothing to do")
        return
    args.output.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    record = run.train()
    if args.save:
        run.restore_best()
        kind = "adapter" if hasattr(run.model, "peft_config") else "model"
        run.model.save_pretrained(args.output / kind)
    part = args.output / "run.json.part"
    part.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(part, finished)
    print(json.dumps(record["best"]))


if __name__ == "__main__":
    main()
