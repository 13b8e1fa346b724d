"""Makes the PyTorch weight files that crates/models/tests reads, with torch itself.

    python scripts/reference/make_checkpoint_fixtures.py

Versions: torch 2.15, safetensors 0.8 (scripts/requirements.txt). Nothing is random, but
the older form names storages by their addresses: pad0.bin is never the same bytes. About 200 kB.

The weights are those of data/parity/models, so that each file must load to the bits of its
safetensors twin:

crates/models/tests/data/
    base.bin      zip form, float16, as save_pretrained wrote model.state_dict()
    pad0.bin      the form before torch 1.6; float16, with float32 scales and float64 biases, every
                  matrix a transposed view and all of a layer's vectors in one storage
    mlm/          two shards and their index, bfloat16, with the tied lm_head.decoder.weight
    odd/*.bin     what torch can save and no model folder holds
"""

import collections
import json
import pathlib

import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/models/tests/data"


def weights(model):
    tensors = {}
    for path in sorted((ROOT / "data/parity/models" / model).glob("*.safetensors")):
        tensors.update(load_file(path))
    return dict(sorted(tensors.items()))


def views(tensors):
    """The same numbers, stored in every way but the plain one."""
    widened = {n: t.float() if n.endswith("norm.weight") or "LayerNorm.weight" in n else t for n, t in tensors.items()}
    widened = {n: t.double() if n.endswith("bias") else t for n, t in widened.items()}
    out, vectors = {}, {}
    for name, tensor in widened.items():
        if tensor.ndim == 2:
            out[name] = tensor.t().contiguous().t()
        else:
            vectors.setdefault(tensor.dtype, []).append(name)
    for names in vectors.values():
        # A number in front and one behind each, which belong to nobody.
        parts = [torch.cat([torch.tensor([7.0]), widened[n], torch.tensor([7.0])]).to(widened[n].dtype) for n in names]
        together, start = torch.cat(parts), 0
        for name, part in zip(names, parts):
            out[name] = together[start + 1 : start + len(part) - 1]
            start += len(part)
    for name, tensor in tensors.items():
        assert torch.equal(out[name].to(tensor.dtype), tensor), name
    return out


def shards(folder, tensors):
    folder.mkdir(exist_ok=True)
    tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"]
    tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"]
    # Tied tensors lie in one shard, as transformers has it.
    first = [n for n in tensors if n.startswith("lm_head.") or ".embeddings." in n]
    weight_map, size = {}, 0
    for number, names in enumerate([first, [n for n in tensors if n not in first]], 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({n: tensors[n] for n in names}, folder / file)
        weight_map.update(dict.fromkeys(names, file))
        size += sum(tensors[n].nbytes for n in names)
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def odd(folder):
    folder.mkdir(exist_ok=True)
    matrix = torch.ones(2, 2)
    for name, value in {
        "training": {"state_dict": {"a": matrix}, "epoch": 3},
        "number": {"a": matrix, "step": 3},
        "list": [matrix],
        "tensor": matrix,
        "sparse": {"a": matrix.to_sparse()},
        "complex": {"a": matrix.to(torch.complex64)},
        "float8": {"a": matrix.to(torch.float8_e4m3fn)},
        "quantized": {"a": torch.quantize_per_tensor(matrix, 0.1, 0, torch.qint8)},
    }.items():
        torch.save(value, folder / f"{name}.bin")


def main():
    OUT.mkdir(exist_ok=True)
    # A dictionary with an attribute, as Module.state_dict() gives it.
    base = collections.OrderedDict(weights("base"))
    base._metadata = collections.OrderedDict({"": {"version": 1}})
    torch.save(base, OUT / "base.bin")
    torch.save(views(weights("pad0")), OUT / "pad0.bin", _use_new_zipfile_serialization=False)
    shards(OUT / "mlm", weights("mlm"))
    odd(OUT / "odd")


if __name__ == "__main__":
    main()
