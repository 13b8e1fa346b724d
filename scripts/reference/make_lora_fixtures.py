"""Makes the adapter files that crates/lora/tests compares against, with PEFT itself.

    python scripts/reference/make_lora_fixtures.py

Versions: torch 2.15, transformers 5.23, peft 0.21 (scripts/requirements.txt). Seeded; about 200 kB.

crates/lora/tests/fixtures/
    NAME/adapter_config.json, adapter_model.safetensors   saved by PEFT
    NAME/expected.json    rank, alpha and scale of every layer as PEFT's layers have them, the
                          weight change of one layer as PEFT computes it, the base's linear layers
    targets.json          PEFT's own matching functions asked about many odd configurations
    loralib.bin           the layout of the LoRA authors' files, saved with torch.save
    loralib.json          its tensors as numbers, in order
"""

import collections
import json
import pathlib
import shutil
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from peft.utils.other import get_pattern_key

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/lora/tests/fixtures"

# Hidden size, ranks and alphas all differ, so that no transposition and no mix-up goes unseen.
BASE = dict(
    vocab_size=20,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=14,
    type_vocab_size=1,
    num_labels=3,
)

CASES = {
    "list": dict(r=4, lora_alpha=6, target_modules=["query", "value"], lora_dropout=0.1),
    "regex": dict(r=2, lora_alpha=5, target_modules=r".*layer\.(0|2)\.attention\.self\.(query|key)"),
    "lookahead": dict(r=2, lora_alpha=3, target_modules=r"(?!.*\.1\.).*intermediate\.dense"),
    "all_linear": dict(r=2, lora_alpha=7, target_modules="all-linear"),
    "patterns": dict(
        r=4,
        lora_alpha=6,
        target_modules=["query", "value", "output.dense"],
        rank_pattern={"layer.1.attention.self.query": 3, r".*\.0\..*query": 2, "query": 5, "attention.output.dense": 1},
        alpha_pattern={r"layer\.2\.attention\.self\.value": 11, "value": 9, "^roberta.encoder.layer.0.attention.self.query": 1.5},
    ),
    "rslora": dict(
        r=3, lora_alpha=7, use_rslora=True, target_modules=["query", "value"], rank_pattern={"value": 5}
    ),
    "layers": dict(r=2, lora_alpha=3, target_modules=["query", "value"], layers_to_transform=[0, 2]),
    "layers_pattern": dict(
        r=2, lora_alpha=3, target_modules=["key"], layers_to_transform=1, layers_pattern=["block", "layer"]
    ),
    "gaussian": dict(r=3, lora_alpha=4, target_modules=["value"], init_lora_weights="gaussian"),
    "exclude": dict(r=2, lora_alpha=3, target_modules=["dense"], exclude_modules=["output.dense"]),
    "bf16": dict(r=2, lora_alpha=8, target_modules=["query", "value"]),
}


def base_model(bf16):
    torch.manual_seed(1)
    config = transformers.RobertaConfig(**BASE)
    model = transformers.RobertaForSequenceClassification(config)
    model.name_or_path = ""
    return model.to(torch.bfloat16) if bf16 else model


def make_case(name, arguments):
    model = base_model(name == "bf16")
    linears = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **arguments))
    torch.manual_seed(2)
    modules, delta = {}, None
    for key, layer in adapted.base_model.model.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        with torch.no_grad():  # B is 0 at the start; give it values
            layer.lora_B["default"].weight.normal_(std=0.5)
        modules[key] = dict(
            rank=layer.r["default"], alpha=layer.lora_alpha["default"], scale=layer.scaling["default"]
        )
        delta = dict(module=key, shape=list(layer.weight.shape), values=numbers(layer.get_delta_weight("default")))
    adapted.peft_config["default"].base_model_name_or_path = "tiny-roberta"
    folder = OUT / name
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    sort_sets(folder / "adapter_config.json")
    head = adapted.base_model.model.classifier.modules_to_save["default"].dense.weight
    expected = dict(
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__),
        linears=linears,
        modules=modules,
        delta=delta,
        head=numbers(head),
    )
    write(folder / "expected.json", expected)


def sort_sets(path):
    """PEFT keeps names in a set, whose order differs from run to run; the rest is left as it is."""
    config = json.loads(path.read_text())
    for field in ["target_modules", "exclude_modules"]:
        if isinstance(config[field], list):
            config[field].sort()
    path.write_text(json.dumps(config, indent=2))


def numbers(tensor):
    return tensor.detach().float().flatten().tolist()


def write(path, value):
    text = json.dumps(value)
    path.write_text(text.replace("], ", "],\n").replace("}, ", "},\n") + "\n")


def make_targets():
    """PEFT's answers for configurations that only its matching functions see."""
    names = [
        "query",
        "roberta.encoder.layer.0.attention.self.query",
        "roberta.encoder.layer.1.attention.self.query",
        "roberta.encoder.layer.10.attention.self.value",
        "roberta.encoder.layer.0.attention.self.myquery",
        "roberta.encoder.layer.0.attention.self.query_proj",
        "roberta.encoder.layer.0.output.dense",
        "roberta.pooler.dense",
        "classifier.dense",
        "classifier",
        "myclassifier.dense",
        "encoder.0.query",
        "decoder.layers.3.experts.1.query",
        "decoder.layers.3.block.layers.7.query",
        "layer.2.query",
        "x.layer.2.query",
        "score.out",
        "a.score",
    ]
    configurations = [
        dict(target_modules=["query"]),
        dict(target_modules=["query", "value", "dense"]),
        dict(target_modules=["self.query", "pooler.dense"]),
        dict(target_modules=["ery"]),
        dict(target_modules=["classifier", "query"]),
        dict(target_modules=["dense", "score"], modules_to_save=["classifier"]),
        dict(target_modules=["dense"], modules_to_save=["pool.*"]),
        dict(target_modules=["dense", "query"], modules_to_save=["classifier|encoder"]),
        dict(target_modules=r".*query"),
        dict(target_modules=r"query"),
        dict(target_modules=r".*\.(query|value)|classifier\.dense", modules_to_save=["score"]),
        dict(target_modules=r"(?i).*QUERY"),
        dict(target_modules=r"(?!roberta).*query"),
        dict(target_modules=r".*layer\.\d\..*"),
        dict(target_modules=r"a|ab.*|.*dense"),
        dict(target_modules=["query"], exclude_modules=["layer.1.attention.self.query"]),
        dict(target_modules=["query"], exclude_modules=r"roberta.*"),
        dict(target_modules=["query"], exclude_modules=r"roberta"),
        dict(target_modules=["query", "value"], layers_to_transform=0),
        dict(target_modules=["query", "value"], layers_to_transform=[1, 10]),
        dict(target_modules=["query"], layers_to_transform=[3]),
        dict(target_modules=["query"], layers_to_transform=[1]),
        dict(target_modules=["query"], layers_to_transform=[]),
        dict(target_modules=["query"], layers_to_transform=[2], layers_pattern="layer"),
        dict(target_modules=["query"], layers_to_transform=[3, 0, 1], layers_pattern=["experts", "layer"]),
        dict(target_modules=["query"], layers_to_transform=[3], layers_pattern=["layers?"]),
        dict(target_modules=["query"], layers_to_transform=[7], layers_pattern="layers"),
        dict(target_modules=["layer.2.query", "query"], layers_to_transform=[0]),
        dict(target_modules=["query", "dense"], rank_pattern={"query": 3}, alpha_pattern={"dense": 5}),
        dict(target_modules=["query", "dense"], rank_pattern={"ery": 3, ".*ery": 2}),
        dict(target_modules=["query"], rank_pattern={"layer.0.*": 7, "query": 6}),
        dict(target_modules=["query"], rank_pattern={"query": 6, "layer.0.*": 7}),
        dict(target_modules=["query"], rank_pattern={"^roberta.*": 2, "self.query|query": 3}),
        dict(target_modules=["query"], alpha_pattern={"0.attention.self.query": 2.5, r"layer\.\d+\.query": 4}),
        dict(target_modules=["query"], rank_pattern={"attention": 9, "quer": 9}),
    ]
    cases = []
    for arguments in configurations:
        config = LoraConfig(r=8, lora_alpha=16, **arguments)
        answers = {}
        for name in names:
            found = check_target_module_exists(config, name)
            if isinstance(found, _ExcludedModule) or not found:
                continue
            rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), name), config.r)
            alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), name), config.lora_alpha)
            answers[name] = [rank, alpha]
        cases.append(dict(config=arguments, answers=answers))
    write(OUT / "targets.json", dict(r=8, lora_alpha=16, names=names, cases=cases))


def make_loralib():
    torch.manual_seed(3)
    tensors = collections.OrderedDict()
    for layer in range(12):
        for name in ["query", "value"]:
            prefix = f"roberta.encoder.layer.{layer}.attention.self.{name}"
            tensors[f"{prefix}.lora_A"] = torch.randn(2, 5)
            tensors[f"{prefix}.lora_B"] = torch.randn(5, 2)
    tensors["classifier.dense.weight"] = torch.randn(5, 5)
    tensors["classifier.dense.bias"] = torch.randn(5)
    tensors["classifier.out_proj.weight"] = torch.randn(3, 5)
    tensors["classifier.out_proj.bias"] = torch.randn(3)
    torch.save(tensors, OUT / "loralib.bin")
    expected = [[name, list(t.shape), numbers(t)] for name, t in tensors.items()]
    write(OUT / "loralib.json", expected)


def main():
    warnings.simplefilter("ignore", FutureWarning)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for name, arguments in CASES.items():
        make_case(name, arguments)
        # PEFT must read its own folder back: a fixture that it cannot read proves nothing.
        PeftModel.from_pretrained(base_model(name == "bf16"), OUT / name)
    make_targets()
    make_loralib()
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{OUT}: {size} bytes")


if __name__ == "__main__":
    main()
