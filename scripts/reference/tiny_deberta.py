"""Random DeBERTa-v2 checkpoints, small enough to keep in the repository, each with other traits that real ones have.

| folder | class | traits |
|---|---|---|
| deb_conv | sequence classification, 2 labels | as the xlarge: config.json in the hub's own form, shared position keys, log buckets, convolution with GELU; `spm.model` with a character map |
| deb_plain | sequence classification, 3 labels | own position projections, absolute positions, 2 token types, `embed_proj`, dropouts and tanh in the head, float16; WordPiece |
| deb_c2p | sequence classification, 2 labels | c2p only, no buckets but 12 positions each way, relative embeddings as they are, 2 token types, grouped convolution with the default tanh |
| deb_p2c | bare encoder | p2c only, names without `deberta.`, bfloat16, buckets over a `max_relative_positions` of its own |
| deb_mlm | masked language model | `pytorch_model.bin` in float16 and no safetensors, with the hub's tensors to ignore; `spm.model` without a map |
| deb_absolute | sequence classification, 2 labels | no relative attention at all: absolute positions, plain scores |

Weights are drawn wide enough that every layer changes its input visibly; dropouts are 0 except in deb_plain's head.
"""

import contextlib
import io
import json
import tempfile
from pathlib import Path

import sentencepiece
import torch
from transformers import DebertaV2Config, DebertaV2ForMaskedLM, DebertaV2ForSequenceClassification, DebertaV2Model

from tiny_models import names, randomise, word_piece, write_tokenizer
from toy_glue import corpus

PIECES = 140
# [MASK] follows the pieces, and real checkpoints have more rows than that.
SPM_VOCABULARY = 150
SPM_SETTINGS = '{\n  "do_lower_case": false,\n  "vocab_type": "spm"\n}'
WORDPIECE_SPECIAL = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
# Character map of deb_conv: two ligatures, full-width ASCII, circled digits, other white space. nmt_nfkc would weigh 240 kB.
CHARACTER_MAP = {
    "ﬁ": "fi",
    "ﬂ": "fl",
    **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)},
    **{chr(0x2460 + n): str(n + 1) for n in range(20)},
    **dict.fromkeys("\t\n\r\u00a0\u3000", " "),
}


def sentence_pieces(mapped):
    """The bytes of a Unigram model with DeBERTa's special ids, trained on the toy sentences."""
    rules = "\n".join("\t".join(" ".join(f"{ord(c):X}" for c in text) for text in pair) for pair in sorted(CHARACTER_MAP.items()))
    special = dict(pad_id=0, pad_piece="[PAD]", bos_id=1, bos_piece="[CLS]", eos_id=2, eos_piece="[SEP]", unk_id=3, unk_piece="[UNK]")
    written = io.BytesIO()
    # The model records the path of the rules, so it has to be the same wherever this runs.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        Path("character_map.tsv").write_text(rules + "\n")
        rule = {"normalization_rule_tsv": "character_map.tsv"} if mapped else {"normalization_rule_name": "identity"}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus(600)), model_writer=written, vocab_size=PIECES, num_threads=1, minloglevel=2, **special, **rule
        )
    return written.getvalue()


def config(vocabulary, **changes):
    """The common shape: hidden 24, 2 layers of 3 heads, intermediate 40, 64 positions, log buckets of 8, no dropout."""
    common = dict(
        vocab_size=vocabulary, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=64, type_vocab_size=0, layer_norm_eps=1e-7, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, relative_attention=True, max_relative_positions=-1, position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
    )  # fmt: skip
    return DebertaV2Config(**{**common, **changes})


def write_spm(folder, mapped):
    """`spm.model` and the two settings that the hub's folders hold beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spm.model").write_bytes(sentence_pieces(mapped))
    (folder / "tokenizer_config.json").write_text(SPM_SETTINGS)


def write_word_piece(folder):
    """`tokenizer.json` of the WordPiece tokenizer, which gives the second text type id 1."""
    write_tokenizer(word_piece(), folder, WORDPIECE_SPECIAL, 64, kind="PreTrainedTokenizerFast")


def hub_config(settings):
    """The fields, names and forms of config.json as microsoft/deberta-v2-xlarge has them."""
    keys = (
        "attention_probs_dropout_prob hidden_act hidden_dropout_prob hidden_size initializer_range intermediate_size "
        "max_position_embeddings relative_attention position_buckets norm_rel_ebd share_att_key layer_norm_eps "
        "max_relative_positions position_biased_input num_attention_heads num_hidden_layers type_vocab_size vocab_size"
    )
    found = {"model_type": "deberta-v2", **{key: getattr(settings, key) for key in keys.split()}}
    for key in ("conv_kernel_size", "conv_act"):
        if hasattr(settings, key):
            found[key] = getattr(settings, key)
    found["pos_att_type"] = "|".join(settings.pos_att_type)
    found["attention_head_size"] = settings.hidden_size // settings.num_attention_heads
    return json.dumps(found, indent=2) + "\n"


def make_conv(folder):
    """A small deberta-v2-xlarge with a trained head."""
    settings = config(SPM_VOCABULARY, conv_kernel_size=3, conv_act="gelu")
    randomise(DebertaV2ForSequenceClassification(settings), 31).save_pretrained(folder)
    (folder / "config.json").write_text(hub_config(settings))
    write_spm(folder, mapped=True)


def make_plain(folder):
    """Everything that the xlarge leaves out."""
    settings = config(
        word_piece().get_vocab_size(), share_att_key=False, position_biased_input=True, type_vocab_size=2, embedding_size=20,
        position_buckets=6, pooler_dropout=0.1, cls_dropout=0.2, pooler_hidden_act="tanh",
        **names(["entailment", "neutral", "contradiction"]),
    )  # fmt: skip
    randomise(DebertaV2ForSequenceClassification(settings), 32).half().save_pretrained(folder)
    write_word_piece(folder)


def make_c2p(folder):
    """c2p alone, clipped at 12 positions each way, with a grouped convolution."""
    settings = config(
        word_piece().get_vocab_size(), share_att_key=False, pos_att_type=["c2p"], position_buckets=-1, max_relative_positions=12,
        norm_rel_ebd="none", conv_kernel_size=3, conv_groups=2, type_vocab_size=2,
    )  # fmt: skip
    randomise(DebertaV2ForSequenceClassification(settings), 33).save_pretrained(folder)
    write_word_piece(folder)


def make_p2c(folder):
    """p2c alone, a bare encoder."""
    settings = config(word_piece().get_vocab_size(), pos_att_type=["p2c"], position_buckets=6, max_relative_positions=20, num_hidden_layers=3)
    randomise(DebertaV2Model(settings), 34).bfloat16().save_pretrained(folder)
    write_word_piece(folder)


def make_mlm(folder):
    """A pickle as the hub's, with both kinds of language-modelling head and a table of positions that nothing reads."""
    folder.mkdir(parents=True)
    settings = config(SPM_VOCABULARY, conv_kernel_size=3, conv_act="gelu")
    state = randomise(DebertaV2ForMaskedLM(settings), 35).half().state_dict()
    generator = torch.Generator().manual_seed(36)
    width, vocabulary = settings.hidden_size, settings.vocab_size
    extra = {"deberta.embeddings.position_embeddings.weight": (settings.max_position_embeddings, width)}
    for head in ("lm_predictions.lm_head", "mask_predictions"):
        extra |= {f"{head}.dense.weight": (width, width)}
        extra |= {f"{head}.{name}": (width,) for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
    extra |= {"lm_predictions.lm_head.bias": (vocabulary,), "mask_predictions.classifier.weight": (1, width)}
    extra |= {"mask_predictions.classifier.bias": (1,)}
    for name, shape in extra.items():
        state[name] = torch.randn(shape, generator=generator).half()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(hub_config(settings))
    write_spm(folder, mapped=False)


def make_absolute(folder):
    """Without relative attention there is neither a table of relative embeddings nor a scale for it."""
    settings = config(
        word_piece().get_vocab_size(), relative_attention=False, pos_att_type=[], norm_rel_ebd="none", position_biased_input=True
    )
    randomise(DebertaV2ForSequenceClassification(settings), 37).save_pretrained(folder)
    write_word_piece(folder)


MAKERS = {
    "deb_conv": make_conv, "deb_plain": make_plain, "deb_c2p": make_c2p, "deb_p2c": make_p2c, "deb_mlm": make_mlm,
    "deb_absolute": make_absolute,
}  # fmt: skip


def write_models(folder):
    """Writes every checkpoint folder below `folder`."""
    for name, make in MAKERS.items():
        make(Path(folder) / name)
