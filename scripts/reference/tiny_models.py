"""Four random RoBERTa checkpoints, small enough to keep in the repository, each with another trait that real ones have.

| folder | class | trait |
|---|---|---|
| tiny | sequence classification, 2 labels | float32, byte-level BPE in tokenizer.json, pad id 1 |
| pad0 | sequence classification, 3 labels | float16 in shards with an index, vocab.json + merges.txt with add_prefix_space, pad id 0, two token types, LayerNorm epsilon 1e-7 |
| base | bare encoder | names without `roberta.`, float16, WordPiece tokenizer with type id 1 in pairs, pad id 0, LayerNorm epsilon 1e-12, a pooler to ignore |
| mlm | masked language model | bfloat16 with float32 LayerNorm named gamma and beta, `lm_head.*`, a pooler and `position_ids` to ignore |

Weights are drawn wide enough that every layer changes its input visibly; dropouts are 0 except where said.
"""

import json
import math
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaForSequenceClassification, RobertaModel

from toy_glue import corpus

SPECIAL = {"tiny": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "pad0": ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]}
WORDPIECE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = 320


def byte_level(special, prefix_space):
    """A byte-level BPE as RoBERTa has it, trained on the toy sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(600), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=prefix_space)
    return tokenizer


def word_piece():
    """An uncased WordPiece tokenizer, as checkpoints converted from BERT keep it."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in corpus(600) for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))[:40]
    endings = sorted({"##" + word[-3:] for word in words if len(word) > 4})
    # WordPieceTrainer orders its alphabet differently in each process, so the vocabulary is put together here.
    pieces = [*WORDPIECE, *letters, *("##" + letter for letter in letters), *frequent, *endings]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def write_tokenizer(tokenizer, folder, special, max_length, split_files=False, prefix_space=False, kind="RobertaTokenizer"):
    """tokenizer.json, or vocab.json and merges.txt; and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if split_files:
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": kind, "model_max_length": max_length, **special}
    if kind == "RobertaTokenizer":
        settings["add_prefix_space"] = prefix_space
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def randomise(model, seed):
    """Redraws every parameter by name order: matrices N(0, 1/in), embeddings N(0, 0.7), biases N(0, 0.1), LayerNorm weights around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("layer_norm.weight") or name.endswith("LayerNorm.weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * noise)
            elif "embeddings" in name:
                parameter.copy_(0.7 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
    return model.eval()


def config(vocabulary, **changes):
    """The common shape: hidden 32, 3 layers of 4 heads, intermediate 64, no dropout."""
    common = dict(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return RobertaConfig(**{**common, **changes})


def names(labels):
    """id2label and label2id of a configuration."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}


def make_tiny(folder, tokenizer):
    """Float32 classifier with two labels."""
    settings = config(tokenizer.get_vocab_size())
    randomise(RobertaForSequenceClassification(settings), 11).save_pretrained(folder)
    write_tokenizer(tokenizer, folder, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, 64)


def make_pad0(folder, tokenizer):
    """Float16 shards, three labels, pad id 0 and a vocabulary in two files."""
    settings = config(
        tokenizer.get_vocab_size(), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=50, type_vocab_size=2, layer_norm_eps=1e-7, classifier_dropout=0.2, bos_token_id=1,
        pad_token_id=0, **names(["entailment", "neutral", "contradiction"]),
    )  # fmt: skip
    model = randomise(RobertaForSequenceClassification(settings), 12).half()
    model.save_pretrained(folder, max_shard_size="20KB")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    write_tokenizer(tokenizer, folder, special, 49, split_files=True, prefix_space=True)


def make_base(folder, tokenizer):
    """Float16 encoder whose names have no prefix, with a pooler."""
    settings = config(
        tokenizer.get_vocab_size(), num_hidden_layers=2, max_position_embeddings=41, layer_norm_eps=1e-12, bos_token_id=2,
        pad_token_id=0, eos_token_id=3,
    )  # fmt: skip
    randomise(RobertaModel(settings), 13).half().save_pretrained(folder)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    write_tokenizer(tokenizer, folder, special, 40, kind="PreTrainedTokenizerFast")


def make_mlm(folder, tokenizer):
    """Masked language model in the manner of old files: gamma and beta, mixed precision, a buffer and a pooler beside the encoder."""
    settings = config(tokenizer.get_vocab_size(), num_hidden_layers=2)
    model = randomise(RobertaForMaskedLM(settings), 14)
    model.save_pretrained(folder)
    old = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        norm = "LayerNorm" in name or "layer_norm" in name
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = tensor if norm else tensor.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(15)
    old["roberta.embeddings.position_ids"] = torch.arange(settings.max_position_embeddings).unsqueeze(0)
    old["roberta.pooler.dense.weight"] = torch.randn(32, 32, generator=generator).to(torch.bfloat16)
    old["roberta.pooler.dense.bias"] = torch.randn(32, generator=generator).to(torch.bfloat16)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(tokenizer, folder, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, 64)


def write_models(folder):
    """Writes the four checkpoint folders below `folder`."""
    folder = Path(folder)
    tiny = byte_level(SPECIAL["tiny"], prefix_space=False)
    make_tiny(folder / "tiny", tiny)
    make_pad0(folder / "pad0", byte_level(SPECIAL["pad0"], prefix_space=True))
    make_base(folder / "base", word_piece())
    make_mlm(folder / "mlm", tiny)
