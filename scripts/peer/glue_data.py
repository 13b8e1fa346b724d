"""GLUE as the peer scripts see it: tasks, Parquet rows, token ids, padded batches and metrics.

This file holds what the PyTorch + PEFT side needs to see the same examples as `lowburn` does. It reads
`DIR/<task>/<split>-00000-of-00001.parquet` by column name, tokenises with the checkpoint's own tokenizer files (truncating the
longer text of a pair first) and pads each batch on the right to the longest row of that batch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors


@dataclass(frozen=True)
class Task:
    """One GLUE task: its text columns, class names (none: a regression) and metrics, the one that picks the best epoch first."""

    columns: tuple
    labels: tuple
    metrics: tuple = ("accuracy",)

    @property
    def num_labels(self):
        """Width of the output layer; 1 for a regression."""
        return max(len(self.labels), 1)

    @property
    def regression(self):
        """True for STS-B, whose label is a score from 0 to 5."""
        return not self.labels


ENTAILMENT = ("entailment", "not_entailment")
MNLI = ("entailment", "neutral", "contradiction")
TASKS = {
    "cola": Task(("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": Task(("sentence",), ("negative", "positive")),
    "mrpc": Task(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qqp": Task(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "stsb": Task(("sentence1", "sentence2"), (), ("pearson", "spearman")),
    "mnli": Task(("premise", "hypothesis"), MNLI),
    "qnli": Task(("question", "sentence"), ENTAILMENT),
    "rte": Task(("sentence1", "sentence2"), ENTAILMENT),
    "wnli": Task(("sentence1", "sentence2"), ("not_entailment", "entailment")),
}


def evaluation_splits(task):
    """The dev splits of a task by name: two for MNLI, one for the others."""
    return ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]


@dataclass
class Rows:
    """A split in file order: row numbers, texts (one or two per row), labels, token ids, and type ids for a model that takes them."""

    idx: list
    texts: list
    labels: list
    ids: list
    types: list | None = None


def parquet_path(data_dir, task, split):
    """Where the hub's layout keeps a split."""
    return Path(data_dir) / task / f"{split}-00000-of-00001.parquet"


def load_rows(data_dir, task, split, tokenizer, max_length, limit=None, typed=False):
    """Reads a split and tokenises it, at most `limit` rows; `typed` keeps the tokenizer's type ids."""
    table = pq.read_table(parquet_path(data_dir, task, split)).to_pydict()
    columns = TASKS[task].columns
    texts = list(zip(*(table[name] for name in columns)))[:limit]
    encodings = encode_rows(tokenizer, texts, max_length)
    return Rows(
        idx=table["idx"][:limit],
        texts=texts,
        labels=table["label"][:limit],
        ids=[encoding.ids for encoding in encodings],
        types=[encoding.type_ids for encoding in encodings] if typed else None,
    )


def load_tokenizer(folder):
    """tokenizer.json if there is one, else DeBERTa's spm.model, else RoBERTa's byte-level BPE from vocab.json and merges.txt."""
    folder = Path(folder)
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        return tokenizer
    if (folder / "spm.model").exists():
        # Only these folders need the sentencepiece package.
        from spm_tokenizer import SpmTokenizer

        return SpmTokenizer(folder)
    settings = {}
    if (folder / "tokenizer_config.json").exists():
        settings = json.loads((folder / "tokenizer_config.json").read_text())
    prefix_space = bool(settings.get("add_prefix_space", False))
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=prefix_space)
    return tokenizer


def encode_rows(tokenizer, texts, max_length):
    """Encodings (`ids`, `type_ids`) of each row of one or two texts, cut to `max_length` tokens, the longer text first."""
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer.encode_batch([tuple(row) if len(row) == 2 else row[0] for row in texts])


def encode(tokenizer, texts, max_length):
    """Only the token ids of `encode_rows`."""
    return [encoding.ids for encoding in encode_rows(tokenizer, texts, max_length)]


def padded(rows, value):
    """Rows of unequal length as one tensor [rows, longest], filled up with `value` on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def model_inputs(ids, types, pad_id):
    """What a model is called with: input_ids, attention_mask, and token_type_ids unless `types` is None; each [rows, longest]."""
    inputs = {"input_ids": padded(ids, pad_id), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
    if types is not None:
        inputs["token_type_ids"] = padded(types, 0)
    return inputs


def collate(rows, numbers, pad_id, regression):
    """The rows with these numbers: the model's inputs and labels [rows]."""
    types = None if rows.types is None else [rows.types[n] for n in numbers]
    inputs = model_inputs([rows.ids[n] for n in numbers], types, pad_id)
    labels = torch.tensor([rows.labels[n] for n in numbers], dtype=torch.float32 if regression else torch.long)
    return inputs, labels


def scores(task, logits, labels):
    """The task's metrics of logits [rows, labels] as a dictionary, in the task's order."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    found = logits[:, 0] if TASKS[task].regression else logits.argmax(axis=1)
    metrics = {
        "accuracy": accuracy_score,
        "f1": lambda truth, guess: f1_score(truth, guess, zero_division=0),
        "matthews": matthews_corrcoef,
        "pearson": lambda truth, guess: pearsonr(guess, truth)[0],
        "spearman": lambda truth, guess: spearmanr(guess, truth)[0],
    }
    return {name: float(metrics[name](labels, found)) for name in TASKS[task].metrics}
