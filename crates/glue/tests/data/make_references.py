"""Makes the references of lowburn-glue's tests: metrics and token ids.

Run in this folder:  python make_references.py
Made with scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6, tokenizers 0.23.3, transformers 5.23.0.

Writes
  metrics.json         predictions and labels with the values of scikit-learn and SciPy (null: NaN)
  wordpiece/           a small uncased WordPiece tokenizer.json with truncation and padding of its own
  bpe/, bpe_prefix/    a small byte-level BPE as vocab.json + merges.txt, without and with add_prefix_space
  tokens.json          texts and pairs with the ids of transformers, longest_first truncation
"""

import json
import pathlib
import warnings

import numpy as np
from scipy import stats
from sklearn import metrics
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, RobertaTokenizer

HERE = pathlib.Path(__file__).parent
CORPUS = [
    "the small cat sat on the warm mat while the old dog slept",
    "a dog and a cat are not the same animal , but both sleep a lot",
    "she said that the market will open again on monday morning",
    "the market opened on monday , the company said in a statement",
    "he did not like the film at all ; it was slow and far too long",
    "what a lovely , quick and funny little film this is !",
]


def value(number):
    number = float(number)
    return None if np.isnan(number) else number


def class_case(name, predicted, expected):
    return {
        "name": name,
        "predicted": [int(p) for p in predicted],
        "expected": [int(e) for e in expected],
        "accuracy": value(metrics.accuracy_score(expected, predicted)),
        # F1 is of class 1 in GLUE; for more classes it is not used.
        "f1": value(metrics.f1_score(np.array(expected) == 1, np.array(predicted) == 1)),
        "matthews": value(metrics.matthews_corrcoef(expected, predicted)),
    }


def score_case(name, predicted, expected):
    predicted, expected = np.array(predicted, dtype=np.float64), np.array(expected, dtype=np.float64)
    return {
        "name": name,
        "predicted": predicted.tolist(),
        "expected": expected.tolist(),
        "pearson": value(stats.pearsonr(predicted, expected).statistic),
        "spearman": value(stats.spearmanr(predicted, expected).statistic),
    }


def make_metrics():
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 2, 60)
    three = rng.integers(0, 3, 80)
    classes = [
        class_case("random", rng.integers(0, 2, 60), truth),
        class_case("good", np.where(rng.random(60) < 0.8, truth, 1 - truth), truth),
        class_case("perfect", truth, truth),
        class_case("inverted", 1 - truth, truth),
        class_case("constant 0", np.zeros(60, int), truth),
        class_case("constant 1", np.ones(60, int), truth),
        class_case("constant labels", truth, np.ones(60, int)),
        class_case("no positives", np.zeros(5, int), np.zeros(5, int)),
        class_case("one row", [1], [1]),
        class_case("three classes", np.where(rng.random(80) < 0.6, three, rng.integers(0, 3, 80)), three),
        class_case("three classes, one never predicted", np.minimum(three, 1), three),
        class_case("three classes, constant", np.full(80, 2), three),
    ]
    gold = np.round(rng.random(50) * 5 * 4) / 4
    scores = [
        score_case("noisy", (gold + rng.normal(0, 1, 50)).astype(np.float32), gold),
        score_case("ties on both sides", np.round(gold), gold),
        score_case("perfect", gold, gold),
        score_case("opposite", -gold, gold),
        score_case("constant prediction", np.full(50, 2.7), gold),
        score_case("constant labels", gold, np.full(50, 2.0)),
        score_case("huge", gold * 1e200, gold),
        score_case("tiny", gold * 1e-200, gold),
        score_case("far from zero", 1e6 + gold, gold),
        score_case("two rows", [1.0, 2.0], [5.0, 3.0]),
        score_case("a NaN", [1.0, float("nan"), 2.0, 0.5], [1.0, 2.0, 3.0, 4.0]),
    ]
    for case in scores:
        case["predicted"] = [value(p) for p in case["predicted"]]
    (HERE / "metrics.json").write_text(json.dumps({"classes": classes, "scores": scores}, indent=0) + "\n")


def make_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = HERE / "wordpiece"
    folder.mkdir(exist_ok=True)
    # What many published files carry, and what must not act.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")


def make_bpe(name, add_prefix_space):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<mask>": len(model["vocab"])}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    if add_prefix_space:
        config["add_prefix_space"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return RobertaTokenizer.from_pretrained(folder)


def make_tokens():
    texts = [
        (CORPUS[0], None),
        (CORPUS[0], CORPUS[1]),
        ("A cat.", CORPUS[3]),
        (CORPUS[4], "Funny!"),
        ("", None),
        ("", "the dog"),
        ("the dog", ""),
        ("  Two  spaces, a\ttab and an ending space ", "caf\u00e9 \u65e5\u672c \U0001f600 na\u00efve"),
        ("don't 'quote' \"this\"", "1,234.5 % -- ok ..."),
        ("a<mask> and </s> or [SEP] in the text", "plain <pad>"),
    ]
    tokenizers = {"wordpiece": make_wordpiece()}
    tokenizers["bpe"] = make_bpe("bpe", False)
    tokenizers["bpe_prefix"] = make_bpe("bpe_prefix", True)
    cases = []
    for name, tokenizer in tokenizers.items():
        for text, pair in texts:
            for length in (5, 6, 9, 16, 17, 512):
                # As a batch of one: called with two plain strings, transformers takes an empty second
                # text for none, in a batch (as data sets are tokenised) for an empty one.
                pairs = None if pair is None else [pair]
                out = tokenizer(
                    [text], pairs, truncation="longest_first", max_length=length, return_token_type_ids=True
                )
                ids, types = out["input_ids"][0], out["token_type_ids"][0]
                cases.append(
                    {"tokenizer": name, "text": text, "pair": pair, "max_length": length, "ids": ids, "type_ids": types}
                )
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "tokens.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    make_metrics()
    make_tokens()
