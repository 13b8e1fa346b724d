"""The peer's side of the grid `minilm`: LoRA r 8 on MRPC and RTE, three seeds each, with the grid's hyperparameters.

A finished run is skipped, so the script can be stopped and started again.

    python scripts/peer/grid_minilm.py --models DIR --data DIR --output DIR [--tasks mrpc rte] [--seeds 0 1 2]
"""

import argparse
from pathlib import Path

import train_peft

MODEL = "minilm-l6-roberta"
# 256 tokens cut two of RTE's 2,490 training pairs (the longest has 289) and none of MRPC's (the longest has 103).
HYPERPARAMETERS = (
    "--method lora --rank 8 --alpha 16 --target query,value --lora-dropout 0 --epochs 5 --batch-size 16 "
    "--lr 1e-3 --weight-decay 0.1 --warmup-ratio 0.06 --max-length 256"
).split()


def main():
    """Runs every task and seed in turn; arguments that this script does not know go to train_peft.py."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "rte"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    args, rest = parser.parse_known_args()
    for seed in args.seeds:
        for task in args.tasks:
            output = args.output / f"{task}-lora-r8-seed{seed}"
            inputs = ["--model", str(args.models / MODEL), "--data-dir", str(args.data), "--task", task, "--seed", seed]
            print(f"== {output.name}", flush=True)
            train_peft.main([*inputs, *HYPERPARAMETERS, "--output", str(output), *rest])


if __name__ == "__main__":
    main()
