"""Fine-tunes data/mini with PyTorch + PEFT and prints the table that the mini grid should show.

    python scripts/mini/verify.py [--data data/mini] [--tasks sst2,mrpc,rte] [--methods lora,full,head] [--seeds 0,1,2]

A plain loop with the semantics of `lowburn train`: AdamW (eps 1e-8), warm-up ratio .06, linear decay,
weight decay .1 except biases and LayerNorm, one global norm clip at 1, evaluation of the whole
validation split after every epoch, best epoch reported (ties: the earlier).
"""

import argparse
import itertools
import json
import math
import statistics
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import RobertaForSequenceClassification
from transformers.utils import logging

RATES = {"lora": 3e-3, "full": 5e-4, "head": 4e-3}
EPOCHS = {"sst2": 4, "mrpc": 8, "rte": 4}
BATCH = 16


def load(root: Path, task: str, split: str, tokenizer: Tokenizer):
    columns = pq.read_table(root / "glue" / task / f"{split}-00000-of-00001.parquet").to_pydict()
    names = [n for n in columns if n not in ("label", "idx")]
    texts = list(zip(*(columns[n] for n in names)))
    encodings = tokenizer.encode_batch([t if len(t) == 2 else t[0] for t in texts])
    return [(e.ids, label) for e, label in zip(encodings, columns["label"])]


def collate(rows):
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [1] * (length - len(ids)) for ids, _ in rows])
    return ids, (ids != 1).long(), torch.tensor([label for _, label in rows])


def prepare(root: Path, method: str):
    model = RobertaForSequenceClassification.from_pretrained(root / "model", num_labels=2, dtype=torch.float32)
    if method == "lora":
        lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"])
        return get_peft_model(model, lora)
    if method == "head":
        model.roberta.requires_grad_(False)
    return model


@torch.no_grad()
def accuracy(model, rows) -> float:
    model.eval()
    right = 0
    for i in range(0, len(rows), 64):
        ids, attention, labels = collate(rows[i : i + 64])
        right += (model(input_ids=ids, attention_mask=attention).logits.argmax(-1) == labels).sum().item()
    model.train()
    return right / len(rows)


def run(root: Path, data, method: str, epochs: int, lr: float, seed: int, batch: int) -> dict:
    torch.manual_seed(seed)
    model = prepare(root, method).train()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
    decay = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=lr, eps=1e-8
    )
    train, validation = data
    steps = epochs * math.ceil(len(train) / batch)
    warmup = math.ceil(0.06 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: t / warmup if t < warmup else (steps - t) / (steps - warmup)
    )
    began, scores = time.time(), []
    for _ in range(epochs):
        order = torch.randperm(len(train)).tolist()
        for i in range(0, len(order), batch):
            ids, attention, labels = collate([train[j] for j in order[i : i + batch]])
            model(input_ids=ids, attention_mask=attention, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        scores.append(round(100 * accuracy(model, validation), 2))
    return {
        "best": max(scores),
        "scores": scores,
        "trainable": sum(p.numel() for _, p in named),
        "seconds": round(time.time() - began, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "data/mini")
    for name, default in (("tasks", "sst2,mrpc,rte"), ("methods", "lora,full,head"), ("seeds", "0,1,2")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--lr", type=float, help="in place of the recommended rate")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    tokenizer = Tokenizer.from_file(str(args.data / "model/tokenizer.json"))
    table = {}
    for task in args.tasks.split(","):
        data = [load(args.data, task, split, tokenizer) for split in ("train", "validation")]
        for method, seed in itertools.product(args.methods.split(","), map(int, args.seeds.split(","))):
            epochs, lr = EPOCHS[task], RATES[method]
            epochs, lr = args.epochs or epochs, args.lr or lr
            result = run(args.data, data, method, epochs, lr, seed, args.batch)
            table.setdefault((task, method), []).append(result)
            print(json.dumps({"task": task, "method": method, "seed": seed, "epochs": epochs, "lr": lr, **result}), flush=True)
    print("\n| task | method | trainable | per seed | mean | median | seconds a run |\n|---|---|---|---|---|---|---|")
    for (task, method), results in table.items():
        best = [r["best"] for r in results]
        seconds = statistics.mean(r["seconds"] for r in results)
        print(
            f"| {task} | {method} | {results[0]['trainable']} | {', '.join(map(str, best))} "
            f"| {statistics.mean(best):.2f} | {statistics.median(best)} | {seconds:.1f} |"
        )


if __name__ == "__main__":
    main()
