"""Training steps and evaluations of PyTorch + PEFT, one at a time, for `cargo xtask bench` to interleave with its own.

The caller starts this script, waits for the line with `"ready": true`, and then writes one word per line to its standard input:

    step      does one step (forward, backward, clip, AdamW, zero_grad) and answers {"seconds": 4.51, "loss": 0.69}
    epoch     does one whole pass over the training rows and answers
              {"seconds": 900.1, "steps": 230, "rows": 3668, "tokens": 195290, "positions": 278664}
    tokenise  tokenises and pads all training rows once more and answers {"seconds": 0.4, "rows": 3668, "tokens": 195290}
    evaluate  does the validation split once and answers
              {"seconds": 9.8, "rows": 408, "tokens": 21723, "positions": 31616, "accuracy": 0.68}
    memory    answers {"peak_bytes": 4100000000}, the largest resident size so far
    quit      ends (so does the end of the input)

Answers are one JSON object per line on standard output; everything else goes to standard error.

Without --data a step is on fresh random ids of full length, made before its clock starts, and only `step` and `memory` are there.
With --data DIR --task TASK the rows are those of DIR/TASK/<split>-00000-of-00001.parquet, tokenised once at the start by the
checkpoint's own tokenizer and cut to --length:

- `step` takes the next --batch rows of a random order that is drawn anew for every epoch; the last, smaller batch is kept. Padding
  them to their longest row is within the seconds, and the answer has "rows", "tokens" (real ones) and "positions" (with padding) too.
- `epoch` begins with an order of its own, and so does the step after it.
- `tokenise` is one call for all rows, on --threads threads, and then batches in the order of the file. The tokenizer is the one of
  the start, so that it has seen every word before.

With --merged as well, the adapter is merged into the weights (PEFT's merge_and_unload) and nothing is trained: `evaluate` takes the
place of `step` and `epoch`. Its batches are in the order of the file, each padded to its longest row, and the seconds go from the first
padded batch to the accuracy.

    python scripts/peer/bench_peft.py --model DIR --method lora --rank 8 --batch 16 --length 128 --dropout 0.1 --threads 2
    python scripts/peer/bench_peft.py --model DIR --data DIR --task mrpc --method lora --batch 16 --length 128 --threads 2
    python scripts/peer/bench_peft.py --model DIR --data DIR --task mrpc --method lora --merged --batch 32 --length 128 --threads 2
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with a folder of Parquet files for --task; random ids unless given")
    parser.add_argument("--task", help="a task of GLUE, as mrpc; with --data")
    parser.add_argument("--method", choices=["lora", "full", "head"], default="lora")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lora-dropout", type=float, default=0.0)
    parser.add_argument("--merged", action="store_true", help="evaluate with the adapter merged; with --data and --method lora")
    parser.add_argument("--target", help="the query and value layers unless given")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--labels", type=int, default=2, help="classes; the task's own with --data")
    parser.add_argument("--dropout", type=float, help="hidden and attention dropout; the checkpoint's own values unless given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="do this many steps, print their times and end, without reading any input")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if (args.data is None) != (args.task is None):
        parser.error("--data and --task go together")
    if args.merged and (args.data is None or args.method != "lora" or args.steps):
        parser.error("--merged needs --data and --method lora, and does no --steps")
    return args


ARGUMENTS = parse_arguments() if __name__ == "__main__" else None
if ARGUMENTS:
    # The thread pools take their size when torch is loaded.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(ARGUMENTS.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from common import CLIP, build_optimizer, cpu_name, head_modules, is_head, loss_of, peak_memory, takes_type_ids, targets, versions

if ARGUMENTS and ARGUMENTS.data:
    # Not for random ids: the readers and metrics that it loads would count in the peak memory.
    import glue_data


def build(args):
    """The model in training mode, float32, with what the method trains."""
    settings = AutoConfig.from_pretrained(args.model, num_labels=args.labels)
    if args.dropout is not None:
        settings.hidden_dropout_prob = settings.attention_probs_dropout_prob = args.dropout
        # The head's own, RoBERTa's and DeBERTa-v2's: as the hidden one.
        settings.classifier_dropout = settings.cls_dropout = None
    model = AutoModelForSequenceClassification.from_pretrained(args.model, config=settings, dtype=torch.float32)
    if args.method == "lora":
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=args.rank,
            lora_alpha=args.alpha,
            lora_dropout=args.lora_dropout,
            target_modules=targets(args.target, model.config),
            modules_to_save=head_modules(model.config),
        )
        model = get_peft_model(model, config)
    elif args.method == "head":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_head(name, model.config))
    return model.train()


def merged(args):
    """The same model with its adapter merged into the weights, in evaluation mode."""
    model = build(args)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                # They begin at zero, with which merging would change nothing.
                parameter.normal_(std=0.02)
    return model.merge_and_unload().eval()


class Split:
    """The rows of a split as token ids, and batches of them."""

    def __init__(self, args, name, config):
        self.args, self.pad_id = args, config.pad_token_id
        self.regression = glue_data.TASKS[args.task].regression
        self.tokenizer = glue_data.load_tokenizer(args.model)
        self.rows = glue_data.load_rows(args.data, args.task, name, self.tokenizer, args.length, typed=takes_type_ids(config))

    def batches(self, generator=None):
        """Row numbers of each batch of one pass, in the order of the file or in a random one."""
        count, size = len(self.rows.ids), self.args.batch
        order = range(count) if generator is None else torch.randperm(count, generator=generator).tolist()
        return [order[start : start + size] for start in range(0, count, size)]

    def collate(self, numbers):
        """The rows with these numbers, padded to the longest: inputs, labels, and how much there is of what."""
        inputs, labels = glue_data.collate(self.rows, numbers, self.pad_id, self.regression)
        tokens = sum(len(self.rows.ids[number]) for number in numbers)
        return inputs, labels, {"rows": len(numbers), "tokens": tokens, "positions": inputs["input_ids"].numel()}

    def tokenise(self):
        """Seconds from the texts of all rows to padded batches."""
        rows = self.rows
        began = time.perf_counter()
        encodings = glue_data.encode_rows(self.tokenizer, rows.texts, self.args.length)
        ids = [encoding.ids for encoding in encodings]
        types = None if rows.types is None else [encoding.type_ids for encoding in encodings]
        self.rows = glue_data.Rows(rows.idx, rows.texts, rows.labels, ids, types)
        batches = [self.collate(numbers) for numbers in self.batches()]
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "rows": len(ids), "tokens": sum(counts["tokens"] for _, _, counts in batches)}


class Stepper:
    """Model and optimiser, with the task's training rows or else random token ids without padding."""

    def __init__(self, args):
        self.args, self.model = args, build(args)
        self.optimizer = build_optimizer(self.model, lr=1e-5, weight_decay=0.1)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        config = self.model.config
        special = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
        self.first = max(number for number in special if number is not None and number < config.vocab_size // 2) + 1
        self.vocabulary = config.vocab_size
        self.data = Split(args, "train", config) if args.data else None
        self.generator = torch.Generator().manual_seed(args.seed)
        self.pending = iter(())
        self.requests = {"step": self.step}
        if self.data:
            self.requests |= {"epoch": self.epoch, "tokenise": self.data.tokenise}

    def random_batch(self):
        """Inputs and labels that mean nothing."""
        args = self.args
        ids = torch.randint(self.first, self.vocabulary, (args.batch, args.length))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.randint(args.labels, (args.batch,))

    def update(self, inputs, labels):
        """From the forward pass to the cleared gradients; the loss."""
        loss = loss_of(self.model(**inputs).logits, labels, self.data is not None and self.data.regression)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def next_numbers(self):
        """The next batch of this epoch, or the first of a new one."""
        numbers = next(self.pending, None)
        if numbers is None:
            self.pending = iter(self.data.batches(self.generator))
            numbers = next(self.pending)
        return numbers

    def step(self):
        """Seconds of one step, from padding where there are rows and from the forward pass where not, and the loss."""
        if self.data is None:
            inputs, labels = self.random_batch()
            counts, began = {}, time.perf_counter()
        else:
            began = time.perf_counter()
            inputs, labels, counts = self.data.collate(self.next_numbers())
        loss = self.update(inputs, labels)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "loss": loss.item(), **counts}

    warm_up = step

    def epoch(self):
        """Seconds of a whole pass over the training rows in a new order."""
        self.pending = iter(())
        total = Counter()
        began = time.perf_counter()
        for numbers in self.data.batches(self.generator):
            inputs, labels, counts = self.data.collate(numbers)
            self.update(inputs, labels)
            total.update(steps=1, **counts)
        return {"seconds": time.perf_counter() - began, **total}


class Evaluator:
    """The merged model and the task's validation rows; it trains nothing."""

    trained = ()

    def __init__(self, args):
        self.args, self.model = args, merged(args)
        self.data = Split(args, glue_data.evaluation_splits(args.task)[0], self.model.config)
        self.training = None
        self.requests = {"evaluate": self.evaluate, "tokenise": self.tokenise}

    @torch.inference_mode()
    def logits(self, numbers):
        """Logits [rows, labels] of these rows as numpy, and how much there was of what."""
        inputs, _, counts = self.data.collate(numbers)
        return self.model(**inputs).logits.cpu().numpy(), counts

    def warm_up(self):
        """The first batch, untimed."""
        self.logits(self.data.batches()[0])

    def evaluate(self):
        """Seconds of a whole pass over the validation rows up to the accuracy."""
        outputs, total = [], Counter()
        began = time.perf_counter()
        for numbers in self.data.batches():
            logits, counts = self.logits(numbers)
            outputs.append(logits)
            total.update(counts)
        found = np.concatenate(outputs).argmax(axis=1)
        accuracy = float((found == np.array(self.data.rows.labels)).mean())
        return {"seconds": time.perf_counter() - began, **total, "accuracy": accuracy}

    def tokenise(self):
        """`Split.tokenise` of the training rows, which nothing else here needs."""
        if self.training is None:
            self.training = Split(self.args, "train", self.model.config)
        return self.training.tokenise()


def settle_labels(args):
    """The number of labels is the task's where there is one."""
    if args.data is None:
        return
    if args.task not in glue_data.TASKS:
        sys.exit(f"--task {args.task}: give one of {', '.join(glue_data.TASKS)}")
    task = glue_data.TASKS[args.task]
    if args.merged and task.regression:
        sys.exit(f"--task {args.task}: a regression has no accuracy, so --merged cannot evaluate it")
    args.labels = task.num_labels


def answer(content):
    """One line for the caller, sent at once."""
    print(json.dumps(content), flush=True)


def main(args):
    """Loads, warms up with one step or batch, says so, and serves requests."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settle_labels(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    worker = Evaluator(args) if args.merged else Stepper(args)
    worker.warm_up()
    trained = sum(parameter.numel() for parameter in worker.trained)
    about = {"framework": "pytorch+peft", "versions": versions(), "threads": args.threads, "cpu": cpu_name(), "trainable": trained}
    answer({"ready": True, **about})
    for _ in range(args.steps):
        answer(worker.step())
    if args.steps:
        answer({"peak_bytes": peak_memory()})
        return
    requests = {**worker.requests, "memory": lambda: {"peak_bytes": peak_memory()}}
    for line in sys.stdin:
        request = line.strip()
        if request == "quit":
            return
        if request in requests:
            answer(requests[request]())
        elif request:
            answer({"error": f"unknown request {request!r}: {', '.join(requests)} or quit"})


if __name__ == "__main__":
    main(ARGUMENTS)
