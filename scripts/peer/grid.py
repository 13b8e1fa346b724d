"""The peer's side of a grid: every recipe of xtask/grids/NAME.toml, or of another grid file, by PyTorch + PEFT.

It reads the file that `cargo xtask reproduce` reads, so that the two sides cannot differ in a recipe. Runs go to
results/NAME/peer/<task>-<method>-seed<seed>, where `cargo xtask report NAME` finds them. A finished run is skipped, so the
script can be stopped and started again.

    python scripts/peer/grid.py minilm --models DIR --data DIR --filter lora-r8
    cargo xtask report minilm

Arguments that this script does not know go to train_peft.py: --threads 4, --shared-machine.
"""

import argparse
import tomllib
from pathlib import Path

import train_peft

ROOT = Path(__file__).resolve().parents[2]
# What a grid calls otherwise than the command line of `lowburn train`, and so of train_peft.py.
RENAMED = {"targets": "target"}
# What a grid says that is not for a training.
OTHER = ("group_by_length", "model", "shared", "published", "start")


def short(model):
    """The last part of a model's name, without a revision."""
    return model.split("@")[0].rsplit("/", 1)[-1]


def cells(grid):
    """The recipes in full: a cell over what it shares over what is common."""
    top = {"model": grid["model"]} if "model" in grid else {}
    for cell in grid["cell"]:
        shared = grid["shared"][cell["shared"]] if "shared" in cell else {}
        whole = dict(top)
        for layer in (grid.get("common", {}), shared, cell):
            for one, other in (("warmup_ratio", "warmup_steps"), ("warmup_steps", "warmup_ratio")):
                if one in layer:
                    whole.pop(other, None)
            whole |= layer
        yield whole


def run_name(cell, seed, several):
    """The folder of a run, as xtask/src/grid.rs names it."""
    method = f"lora-r{cell['rank']}" if cell["method"] == "lora" else cell["method"]
    model = f"{short(cell['model'])}-" if several else ""
    return f"{model}{cell['task']}-{method}-seed{seed}"


def arguments(cell):
    """A recipe as arguments of train_peft.py."""
    if cell["group_by_length"]:
        raise SystemExit("the peer does not group rows by length: set group_by_length = false in the grid")
    if cell.get("start") == "mnli":
        raise SystemExit("the peer does not start from another run")
    given = {RENAMED.get(key, key): value for key, value in cell.items() if key not in OTHER}
    return [text for key, value in given.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def main():
    """Runs every recipe and seed in turn, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("grid", help="the name of a grid in xtask/grids, or a .toml file")
    parser.add_argument("--models", type=Path, required=True, help="the folder that holds the grid's checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="the folder with one folder a task")
    parser.add_argument("--output", type=Path, help="the folder for the runs [default: results/GRID/peer]")
    parser.add_argument("--filter", action="append", default=[], help="only runs whose name holds this text; may be given again")
    args, rest = parser.parse_known_args()
    path = Path(args.grid) if args.grid.endswith(".toml") else ROOT / "xtask" / "grids" / f"{args.grid}.toml"
    grid = tomllib.loads(path.read_text())
    output = args.output or ROOT / "results" / path.stem / "peer"
    recipes = list(cells(grid))
    several = len({cell["model"] for cell in recipes}) > 1
    for seed in grid["seeds"]:
        for cell in recipes:
            inputs = ["--model", str(args.models / short(cell["model"])), "--data-dir", str(args.data)]
            name = run_name(cell, seed, several)
            if args.filter and not any(text in name for text in args.filter):
                continue
            print(f"== {name}", flush=True)
            train_peft.main([*inputs, *arguments(cell), "--seed", str(seed), "--output", str(output / name), *rest])


if __name__ == "__main__":
    main()
