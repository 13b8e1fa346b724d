"""Writes data/mini/glue/{sst2,mrpc,rte}/{train,validation,test}-00000-of-00001.parquet.

    python scripts/mini/make_data.py [--output data/mini]

The same seed gives the same bytes (with the pinned pyarrow). Prints the digest of every file.
"""

import argparse
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import grammar as g
from corpus import ROWS

SEED = 2106
SIZES = {"train": 2000, "validation": 400, "test": 400}
COLUMNS = {"sst2": ("sentence",), "mrpc": ("sentence1", "sentence2"), "rte": ("sentence1", "sentence2")}
NAMES = {
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "rte": ("entailment", "not_entailment"),
}


def rows(task: str) -> dict:
    """All splits of a task; no text (or pair) comes up twice, within a split or across splits."""
    d = g.Dice(SEED * 10 + tuple(ROWS).index(task))
    seen, splits = set(), {}
    for split, size in SIZES.items():
        splits[split] = []
        while len(splits[split]) < size:
            texts, label = ROWS[task](d)
            if texts not in seen:
                seen.add(texts)
                splits[split].append((texts, label))
    return splits


def evaluation_texts() -> set:
    """The texts of every validation and test row, to be kept out of the pretraining text."""
    return {
        texts for task in ROWS for split, items in rows(task).items() if split != "train" for texts, _ in items
    }


def table(task: str, items: list, hide_labels: bool) -> pa.Table:
    columns = COLUMNS[task]
    fields = [pa.field(c, pa.string()) for c in columns]
    fields += [pa.field("label", pa.int64()), pa.field("idx", pa.int32())]
    features = {c: {"dtype": "string", "_type": "Value"} for c in columns}
    features["label"] = {"names": list(NAMES[task]), "_type": "ClassLabel"}
    features["idx"] = {"dtype": "int32", "_type": "Value"}
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    arrays = [[texts[i] for texts, _ in items] for i in range(len(columns))]
    arrays.append([-1 if hide_labels else label for _, label in items])
    arrays.append(list(range(len(items))))
    return pa.table([pa.array(a, f.type) for a, f in zip(arrays, fields)], schema=schema)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[2] / "data/mini")
    root = parser.parse_args().output / "glue"
    for task in ROWS:
        (root / task).mkdir(parents=True, exist_ok=True)
        for split, items in rows(task).items():
            path = root / task / f"{split}-00000-of-00001.parquet"
            pq.write_table(table(task, items, split == "test"), path, compression="snappy")
            ones = sum(label for _, label in items)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"{digest}  {task}/{path.name}  {len(items)} rows, {ones} of label 1 before hiding")


if __name__ == "__main__":
    main()
