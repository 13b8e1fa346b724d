"""One training step of PyTorch + PEFT at a time, for `cargo xtask bench` to interleave with its own.

The caller starts this script, waits for the line with `"ready": true`, and then writes one word per line to its standard input:

    step     does one step (forward, backward, clip, AdamW, zero_grad) and answers {"seconds": 4.51, "loss": 0.69}
    memory   answers {"peak_bytes": 4100000000}, the largest resident size so far
    quit     ends (so does the end of the input)

Answers are one JSON object per line on standard output; everything else goes to standard error.

    python scripts/peer/bench_peft.py --model DIR --method lora --rank 8 --batch 16 --length 128 --dropout 0.1 --threads 2
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--method", choices=["lora", "full", "head"], default="lora")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lora-dropout", type=float, default=0.0)
    parser.add_argument("--target", help="the query and value layers unless given")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--dropout", type=float, help="hidden and attention dropout; the checkpoint's own values unless given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="do this many steps, print their times and end, without reading any input")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


ARGUMENTS = parse_arguments() if __name__ == "__main__" else None
if ARGUMENTS:
    # The thread pools take their size when torch is loaded.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(ARGUMENTS.threads)

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from common import CLIP, build_optimizer, cpu_name, head_modules, is_head, peak_memory, targets, versions


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


class Stepper:
    """Model, optimiser and random token ids without padding; `step` does one step on fresh ids."""

    def __init__(self, args):
        torch.set_num_threads(args.threads)
        torch.manual_seed(args.seed)
        self.args, self.model = args, build(args)
        self.optimizer = build_optimizer(self.model, lr=1e-5, weight_decay=0.1)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        config = self.model.config
        special = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
        self.first = max(number for number in special if number is not None and number < config.vocab_size // 2) + 1
        self.vocabulary = config.vocab_size

    def step(self):
        """Seconds from the forward pass to the cleared gradients, and the loss."""
        args = self.args
        ids = torch.randint(self.first, self.vocabulary, (args.batch, args.length))
        mask = torch.ones_like(ids)
        labels = torch.randint(args.labels, (args.batch,))
        began = time.perf_counter()
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "loss": loss.item()}


def answer(content):
    """One line for the caller, sent at once."""
    print(json.dumps(content), flush=True)


def main(args):
    """Loads, warms up with one step, says so, and serves requests."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    stepper = Stepper(args)
    stepper.step()
    trained = sum(parameter.numel() for parameter in stepper.trained)
    about = {"framework": "pytorch+peft", "versions": versions(), "threads": args.threads, "cpu": cpu_name(), "trainable": trained}
    answer({"ready": True, **about})
    for _ in range(args.steps):
        answer(stepper.step())
    if args.steps:
        answer({"peak_bytes": peak_memory()})
        return
    for line in sys.stdin:
        request = line.strip()
        if request == "step":
            answer(stepper.step())
        elif request == "memory":
            answer({"peak_bytes": peak_memory()})
        elif request == "quit":
            return
        elif request:
            answer({"error": f"unknown request {request!r}: step, memory or quit"})


if __name__ == "__main__":
    main(ARGUMENTS)
