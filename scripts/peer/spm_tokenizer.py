"""DeBERTa-v2's tokenizer from `spm.model`, with ids by the sentencepiece package itself.

It answers the calls that glue_data.py makes of a `tokenizers.Tokenizer`. transformers 5 is no substitute: it replaces the model's own
character map by NFC. Special tokens written in a text are text here, not special.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import sentencepiece


@dataclass
class Encoding:
    """Token ids of one row with [CLS] and [SEP], and the type of each (1 for the second text and its [SEP])."""

    ids: list
    type_ids: list


def longest_first(first, second, room):
    """How many tokens of two texts stay if there is room for `room`: the shorter one is cut only where both are too long."""
    short, long = min(first, second), max(first, second)
    long = min(long, max(short, room - short))
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (short, long) if first <= second else (long, short)


class SpmTokenizer:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` with the pieces of `spm.model`."""

    def __init__(self, folder):
        folder = Path(folder)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text()) if path.exists() else {}
        if settings.get("split_by_punct"):
            raise SystemExit(f"{path}: split_by_punct true is not supported here")
        self.lower = bool(settings.get("do_lower_case", False))
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
        self.cls, self.sep = (self.pieces.piece_to_id(piece) for piece in ("[CLS]", "[SEP]"))
        self.max_length = None

    def enable_truncation(self, max_length, strategy="longest_first"):
        """Rows are cut to `max_length` tokens from now on."""
        assert strategy == "longest_first", strategy
        self.max_length = max_length

    def encode(self, text, pair=None):
        """One row of one or two texts."""
        texts = [text] if pair is None else [text, pair]
        rows = [self.pieces.encode(part.lower() if self.lower else part) for part in texts]
        if self.max_length is not None:
            room = max(self.max_length - 1 - len(rows), 0)
            kept = [min(len(rows[0]), room)] if pair is None else longest_first(len(rows[0]), len(rows[1]), room)
            rows = [row[:count] for row, count in zip(rows, kept)]
        ids, types = [self.cls], [0]
        for number, row in enumerate(rows):
            ids += [*row, self.sep]
            types += [number] * (len(row) + 1)
        return Encoding(ids, types)

    def encode_batch(self, rows):
        """Each row is a text or a tuple of two."""
        return [self.encode(row) if isinstance(row, str) else self.encode(*row) for row in rows]
