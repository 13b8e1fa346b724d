"""Makes small SentencePiece models and the ids that transformers 4.57 and SentencePiece give with them.

    python -m venv .venv-spm && . .venv-spm/bin/activate
    pip install -r scripts/requirements-spm.txt
    python scripts/reference/make_spm_fixtures.py                    # rewrites crates/glue/tests/data/spm/
    python scripts/reference/make_spm_fixtures.py --glue DIR         # a model of 128,000 pieces and digests, for the real rows

Without `--glue` it writes, into crates/glue/tests/data/spm/,
  <model>/spm.model   one with the character map nmt_nfkc, one without a map (identity), one with byte fallback, control and
                      user-defined pieces; trained on text of this project (spm_text.py)
  ids.json            the files beside the model, texts, the ids of DebertaV2TokenizerFast and those of SentencePiece, and where
                      these two differ, the reason: a difference without one ends the script with an error

With `--glue DIR` (a folder as `lowburn --data-dir` takes it) it trains a model on the texts of DIR, writes it to `--output` and, beside it,
ids.tsv: a line for each file and text column with the number of texts and the SHA-256 of their SentencePiece ids (each id as a
32-bit little-endian integer, each text ended by 0xffffffff). The test `real_data` of lowburn-glue compares with it.
"""

import argparse
import hashlib
import io
import json
import math
import os
import random
import re
import sys
import tempfile
import unicodedata
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np
import pyarrow.parquet as pq
import sentencepiece
from transformers import DebertaV2Tokenizer, DebertaV2TokenizerFast
from transformers.models.deberta_v2.tokenization_deberta_v2 import SPMTokenizer
from transformers.utils import logging as transformers_logging

from spm_text import MORE, TORTURE, corpus

# The 52 bytes beside the published spm.model.
PUBLISHED = '{\n  "do_lower_case": false,\n  "vocab_type": "spm"\n}\n'
PIECES = {"pad_id": 0, "pad_piece": "[PAD]", "bos_id": 1, "bos_piece": "[CLS]", "eos_id": 2, "eos_piece": "[SEP]", "unk_id": 3, "unk_piece": "[UNK]"}
MODELS = {
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "identity": {"normalization_rule_name": "identity"},
    "byte_fallback": {
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "user_defined_symbols": ["<user>"],
        "control_symbols": ["[CTRL]"],
    },
}
VOCABULARY = 700


def train(lines, **options):
    """The bytes of a unigram model."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="unigram",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **PIECES,
        **options,
    )
    return written.getvalue()


def saved_by_the_slow_tokenizer(folder, **options):
    """The JSON files that transformers writes from its slow tokenizer, as text."""
    with tempfile.TemporaryDirectory() as target:
        DebertaV2Tokenizer.from_pretrained(folder, **options).save_pretrained(target)
        files = {path.name: path.read_text() for path in sorted(Path(target).glob("*.json"))}
    return files


def variants(output):
    """Name of a tokenizer: the model that it uses and the files beside it."""
    one = {"tokenizer_config.json": PUBLISHED}
    saved = saved_by_the_slow_tokenizer(output / "byte_fallback", additional_special_tokens=["[EXTRA]"])
    # What transformers wrote before 4.34: no added_tokens_decoder, everything in the other two files.
    older = json.loads(saved["tokenizer_config.json"])
    del older["added_tokens_decoder"]
    older = saved | {"tokenizer_config.json": json.dumps(older)}
    return {
        "nmt_nfkc": ("nmt_nfkc", one),
        "identity": ("identity", one),
        "byte_fallback": ("byte_fallback", one),
        "bare": ("identity", {}),
        "lower_case": ("nmt_nfkc", {"tokenizer_config.json": '{"do_lower_case": true, "vocab_type": "spm"}'}),
        "split_by_punct": ("nmt_nfkc", {"tokenizer_config.json": '{"split_by_punct": true}'}),
        "saved": ("byte_fallback", saved),
        "saved_before_4_34": ("byte_fallback", older),
    }


class Reasons:
    """Why the ids of transformers and of SentencePiece may differ on a text, in the order in which it is asked."""

    def __init__(self, fast, pieces, options):
        self.fast, self.pieces, self.options = fast, pieces, options
        added = fast.added_tokens_decoder.values()
        self.specials = [token.content for token in added if token.special]
        self.user_defined = [token.content for token in added if not token.special]
        kinds = range(pieces.get_piece_size())
        self.bytes = {at for at in kinds if pieces.is_byte(at)}

    def score(self, ids):
        """Of a cut, exactly added up."""
        return math.fsum(self.pieces.get_score(at) for at in ids)

    def of(self, text, asked, ids, spm_ids):
        """The reason for `text`, of which SentencePiece was asked for `asked`; None when none is known."""
        normalize = self.fast.backend_tokenizer.normalizer.normalize_str
        if any(token in text or normalize(token) in normalize(text) for token in self.specials):
            return "special token"
        if any(token in text for token in self.user_defined):
            return "user-defined piece"
        if self.options.get("do_lower_case") and asked != "".join(char.lower() for char in text):
            return "final sigma"
        if re.search("<0x[0-9A-F]{2}>", text) and self.bytes:
            return "byte piece spelled out"
        if self.bytes.intersection(spm_ids):
            return "byte fallback"
        if "\u2581" in text:
            return "space mark"
        # SentencePiece's normaliser, without its dummy prefix and with spaces for its marks.
        theirs = self.pieces.normalize(asked).replace("\u2581", " ").removeprefix(" ")
        ours = normalize(text)
        if ours != theirs:
            if ours.strip(" ") == theirs:
                return "space left by the map"
            if text.strip() != text.strip(" ") and ours == normalize(theirs):
                return "whitespace at the ends"
            if any(unicodedata.category(char)[0] in "MC" or ord(char) > 0x10FF for char in text):
                return "grapheme"
        elif all(at < self.pieces.get_piece_size() for at in ids) and math.isclose(self.score(ids), self.score(spm_ids), rel_tol=1e-6):
            return "equal scores"
        if self.options.get("split_by_punct"):
            return "punctuation"
        return None


def lines_at_random(rng, count):
    """Snippets of the texts above in random order, so that they meet at all kinds of seams."""
    snippets = [char for _, text, _ in TORTURE for char in re.findall(r"\[\w+\]|\s+|\w{1,4}|.", text) if not char.isascii() or len(char) > 1]
    return ["".join(rng.choice(snippets) + rng.choice(["", "", " "]) for _ in range(rng.randrange(3, 14))) for _ in range(count)]


def words_of(text):
    """The words of a text and its punctuation, as the slow tokenizer splits them."""
    return SPMTokenizer._run_split_on_punc(None, text)


def cases_of(name, fast, pieces, options):
    reasons = Reasons(fast, pieces, options)
    rng = random.Random(name)
    random_texts = [("at random", text, None) for text in lines_at_random(rng, 25)]
    prose = [("corpus", text, None) for text in rng.sample(corpus(random.Random(1)), 8)]
    for what, text, pair in TORTURE + MORE + prose + random_texts:
        lengths = [512] if pair is None else [512, 9, 6]
        for length in lengths:
            # As a batch of one: called with two plain strings, transformers takes an empty second text for none.
            out = fast([text], None if pair is None else [pair], truncation="longest_first", max_length=length)
            case = {"tokenizer": name, "what": what, "text": text, "pair": pair, "max_length": length}
            case |= {"ids": out["input_ids"][0], "type_ids": out["token_type_ids"][0]}
            if pair is None:
                # What transformers' slow tokenizer asks SentencePiece for.
                asked = text.lower() if options.get("do_lower_case") else text
                words = words_of(asked) if options.get("split_by_punct") else [asked]
                spm_ids = [at for word in words for at in pieces.encode(word)]
                case["sentencepiece"] = spm_ids
                if spm_ids != case["ids"][1:-1]:
                    case["differs"] = reasons.of(text, asked, case["ids"][1:-1], spm_ids)
                    if case["differs"] is None:
                        print(f"{name}: no reason for {text!r}", fast.convert_ids_to_tokens(case["ids"]), [pieces.id_to_piece(i) for i in spm_ids], sep="\n  ")
                        raise SystemExit(1)
            yield case


def write_fixtures(output):
    lines = corpus(random.Random(0))
    for name, options in MODELS.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        model = train(lines, vocab_size=VOCABULARY, character_coverage=0.9995, **options)
        (output / name / "spm.model").write_bytes(model)
    tokenizers, cases = variants(output), []
    for name, (model, files) in tokenizers.items():
        with tempfile.TemporaryDirectory() as folder:
            for file, text in (files | {"spm.model": None}).items():
                target = Path(folder) / file
                target.write_bytes((output / model / file).read_bytes() if text is None else text.encode())
            fast = DebertaV2TokenizerFast.from_pretrained(folder)
            pieces = sentencepiece.SentencePieceProcessor(model_file=str(Path(folder) / "spm.model"))
            options = json.loads(files.get("tokenizer_config.json", "{}"))
            cases += cases_of(name, fast, pieces, options)
            tokenizers[name] = {"model": model, "files": files, "pad_id": fast.pad_token_id, "max_id": max(fast.get_vocab().values())}
    header = {"made_by": "scripts/reference/make_spm_fixtures.py"}
    header["versions"] = {package: version(package) for package in ("transformers", "tokenizers", "sentencepiece")}
    body = ",\n".join(json.dumps(case) for case in cases)
    top = json.dumps(header | {"tokenizers": tokenizers}, indent=1).removesuffix("\n}")
    (output / "ids.json").write_text(f'{top},\n "cases": [\n{body}\n]}}\n')
    for name in tokenizers:
        mine = [case for case in cases if case["tokenizer"] == name]
        counts = {}
        for case in mine:
            if "differs" in case:
                counts[case["differs"]] = counts.get(case["differs"], 0) + 1
        print(f"{name}: {len(mine)} cases, transformers and SentencePiece differ in {sum(counts.values())}: {counts}")


def texts_of(glue):
    """(file, column, texts) of every Parquet file of the folder, in the order of their names."""
    for path in sorted(glue.glob("*/*.parquet")):
        table = pq.read_table(path)
        for field in table.schema:
            if str(field.type) in ("string", "large_string"):
                yield path.relative_to(glue).as_posix(), field.name, table[field.name].to_pylist()


def write_real(glue, output, vocabulary, tasks):
    columns = [entry for entry in texts_of(glue) if entry[0].split("/")[0] in tasks]
    lines = sorted({text for _, _, texts in columns for text in texts})
    output.mkdir(parents=True, exist_ok=True)
    (output / "spm.model").write_bytes(train(lines, vocab_size=vocabulary, normalization_rule_name="nmt_nfkc"))
    (output / "tokenizer_config.json").write_text(PUBLISHED)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(output / "spm.model"))
    rows = []
    for file, column, texts in columns:
        digest = hashlib.sha256()
        for text in texts:
            digest.update(np.array([*pieces.encode(text), 0xFFFFFFFF], dtype="<u4").tobytes())
        rows.append(f"{file}\t{column}\t{len(texts)}\t{digest.hexdigest()}")
    (output / "ids.tsv").write_text("\n".join(rows) + "\n")
    print(f"{len(lines)} texts, {pieces.get_piece_size()} pieces, {len(rows)} digests in {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write")
    parser.add_argument("--glue", type=Path, help="a folder with GLUE's Parquet files")
    parser.add_argument("--tasks", default="sst2,mrpc,rte", help="with --glue: which tasks (sst2,mrpc,rte)")
    parser.add_argument("--vocabulary", type=int, default=128000, help="with --glue: how many pieces at most (128000)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    if arguments.glue is None:
        write_fixtures(arguments.output or HERE.parents[1] / "crates/glue/tests/data/spm")
    elif arguments.output is None:
        parser.error("--glue needs --output")
    else:
        write_real(arguments.glue, arguments.output, arguments.vocabulary, arguments.tasks.split(","))
