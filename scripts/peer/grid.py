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


def run_name(cell, seed):
    """The folder of a run, as xtask/src/grid.rs names it."""
    method = f"lora-r{cell['rank']}" if cell["method"] == "lora" else cell["method"]
    return f"{cell['task']}-{method}-seed{seed}"


def arguments(cell):
    """A recipe as arguments of train_peft.py."""
    if cell["group_by_length"]:
        raise SystemExit("the peer does not group rows by length: set group_by_length = false in the grid")
    given = {RENAMED.get(key, key): value for key, value in cell.items() if key != "group_by_length"}
    return [text for key, value in given.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def main():
    """Runs every recipe and seed in turn, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("grid", help="the name of a grid in xtask/grids, or a .toml file")
    parser.add_argument("--models", type=Path, required=True, help="the folder that holds the grid's checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="the folder with one folder a task")
    parser.add_argument("--output", type=Path, help="the folder for the runs [default: results/GRID/peer]")
    parser.add_argument("--filter", action="append", default=[], help="only runs whose name holds this text; may be given again")
    args, rest = parser.parse_known_args()
    path = Path(args.grid) if args.grid.endswith(".toml") else ROOT / "xtask" / "grids" / f"{args.grid}.toml"
    grid = tomllib.loads(path.read_text())
    output = args.output or ROOT / "results" / path.stem / "peer"
    inputs = ["--model", str(args.models / grid["model"]), "--data-dir", str(args.data)]
    for seed in grid["seeds"]:
        for cell in grid["cell"]:
            cell = {**grid.get("common", {}), **cell}
            name = run_name(cell, seed)
            if args.filter and not any(text in name for text in args.filter):
                continue
            print(f"== {name}", flush=True)
            train_peft.main([*inputs, *arguments(cell), "--seed", str(seed), "--output", str(output / name), *rest])


if __name__ == "__main__":
    main()
