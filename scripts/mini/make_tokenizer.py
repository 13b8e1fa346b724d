"""Trains the byte-level BPE of data/mini/model on generated text and writes its files.

    python scripts/mini/make_tokenizer.py [--output data/mini]

Ids are laid out as in RoBERTa: <s> 0, <pad> 1, </s> 2, <unk> 3, then the bytes and merges, <mask> last.
"""

import argparse
import hashlib
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import grammar as g
from corpus import pretraining_item

SEED = 7
VOCABULARY = 700
POSITIONS = 64
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def learn(output: Path) -> tuple:
    """Vocabulary and merges. Training numbers <mask> with the other specials; it is moved to the end."""
    d = g.Dice(SEED)
    items = [pretraining_item(d) for _ in range(20_000)]
    text = [s for first, word, second in items for s in (first, word + second)]
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(learned["vocab"].items(), key=lambda item: item[1]))
    vocabulary["<mask>"] = len(vocabulary)
    return vocabulary, [tuple(m) for m in learned["merges"]]


def build(vocabulary: dict, merges: list) -> Tokenizer:
    tokenizer = byte_level(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=True, special=True) for t in SPECIAL])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[2] / "data/mini")
    folder = parser.parse_args().output / "model"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = learn(folder)
    tokenizer = build(vocabulary, merges)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    special = {f"{k}_token": v for k, v in names.items()}
    special["mask_token"] = {
        "content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False,
    }
    config = {
        "add_prefix_space": False,
        **{f"{k}_token": v for k, v in names.items()},
        "errors": "replace",
        "model_max_length": POSITIONS,
        "tokenizer_class": "RobertaTokenizer",
        "trim_offsets": True,
    }
    for name, content in (("special_tokens_map.json", special), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        print(hashlib.sha256((folder / name).read_bytes()).hexdigest(), f" model/{name}")


if __name__ == "__main__":
    main()
