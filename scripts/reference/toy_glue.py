"""Sentences and three toy data sets in GLUE's Parquet schema, for the parity references.

All text is put together here from word lists with a seeded generator: nothing comes from GLUE. The sets are only big enough to drive
thirty optimiser steps in a fixed order; nothing is meant to be learned well from them.
"""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PEOPLE = ["the ferry captain", "our neighbour", "Zoë", "a young baker", "the mayor of Linz", "her uncle", "the night guard", "José"]
DEEDS = [("repaired", "fixed"), ("sold", "gave away"), ("painted", "coloured"), ("lost", "misplaced"), ("borrowed", "took"), ("weighed", "measured")]
THINGS = ["the old lantern", "two crates of plums", "a wooden boat", "the third key", "seven maps", "a clock worth €40", "the red bicycle"]
TIMES = ["yesterday", "before dawn", "in March", "at 6:30", "last week", "after the storm, when nobody was looking"]
PRAISE = ["warm", "brilliant", "funny", "graceful", "a quiet joy", "worth every minute"]
BLAME = ["dull", "clumsy", "far too long", "a waste of talent", "cold", "hard to sit through"]
WORKS = ["this film", "the second act", "her latest play", "the whole story", "the music", "every scene in the harbour"]


def fact(rng):
    """Parts of a statement: who, what was done (with a second wording), to what, when."""
    return rng.choice(PEOPLE), rng.choice(DEEDS), rng.choice(THINGS), rng.choice(TIMES)


def mrpc_like(rng):
    """Two statements: the same fact in other words (1), or with one part changed (0)."""
    who, deed, thing, when = fact(rng)
    first = f"{who} {deed[0]} {thing} {when}."
    if rng.random() < 0.5:
        return first, f"{when}, {who} {deed[1]} {thing}.", 1
    other = rng.choice([name for name in PEOPLE if name != who])
    return first, f"{when}, {other} {deed[1]} {rng.choice(THINGS)}.", 0


def sst2_like(rng):
    """An opinion, negative 0 or positive 1; like the original it ends in a space."""
    label = rng.randrange(2)
    words = PRAISE if label else BLAME
    text = f"{rng.choice(WORKS)} is {rng.choice(words)}"
    return (text + (f" and {rng.choice(words)} " if rng.random() < 0.6 else " "), label)


def stsb_like(rng):
    """Two statements and a score from 0 to 5: one and a quarter for each of the four parts that agree."""
    one, two = fact(rng), fact(rng)
    kept = [rng.random() < 0.5 for _ in one]
    two = tuple(a if keep else b for a, b, keep in zip(one, two, kept))
    score = sum(1.25 for a, b in zip(one, two) if a == b)
    return f"{one[0]} {one[1][0]} {one[2]} {one[3]}.", f"{two[0]} {two[1][0]} {two[2]} {two[3]}.", score


SETS = {
    "mrpc": (mrpc_like, ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), {"train": 64, "validation": 20}),
    "sst2": (sst2_like, ("sentence",), ("negative", "positive"), {"train": 48, "validation": 20}),
    "stsb": (stsb_like, ("sentence1", "sentence2"), None, {"train": 40, "validation": 20}),
}


def features(columns, labels):
    """The `huggingface` entry of the Parquet metadata, as the data set library writes it."""
    known = {name: {"dtype": "string", "_type": "Value"} for name in columns}
    known["label"] = {"names": list(labels), "_type": "ClassLabel"} if labels else {"dtype": "float32", "_type": "Value"}
    known["idx"] = {"dtype": "int32", "_type": "Value"}
    return {b"huggingface": json.dumps({"info": {"features": known}}).encode()}


def write_sets(folder):
    """Writes every set below `folder` as <task>/<split>-00000-of-00001.parquet."""
    for task, (make, columns, labels, sizes) in SETS.items():
        label_type = pa.int64() if labels else pa.float32()
        fields = [pa.field(name, pa.string()) for name in columns] + [pa.field("label", label_type), pa.field("idx", pa.int32())]
        schema = pa.schema(fields, metadata=features(columns, labels))
        for split, count in sizes.items():
            rng = random.Random(f"{task}/{split}")
            rows = [make(rng) for _ in range(count)]
            values = [*zip(*rows), range(count)]
            path = Path(folder) / task / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays = [pa.array(column, field.type) for column, field in zip(values, schema)]
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="snappy")


def corpus(count):
    """Sentences to train the toy tokenizers on."""
    rng = random.Random("corpus")
    makers = [make for make, *_ in SETS.values()]
    return [text for n in range(count) for text in makers[n % len(makers)](rng) if isinstance(text, str)]
