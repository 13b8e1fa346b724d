"""The peer's side of the grid `minilm-deberta`: SST-2 for one epoch, LoRA r 8 and full fine-tuning, with the grid's hyperparameters.

A finished run is skipped, so the script can be stopped and started again.

    python scripts/peer/grid_minilm_deberta.py --models DIR --data DIR --output DIR [--methods lora full] [--seeds 0]
"""

import argparse
from pathlib import Path

import train_peft

MODEL = "minilm-l6-deberta-v2"
COMMON = "--task sst2 --epochs 1 --batch-size 32 --weight-decay 0.1 --warmup-ratio 0.06 --max-length 128".split()
# Method -> (part of the run's name, its own hyperparameters).
METHODS = {
    "lora": ("lora-r8", "--method lora --rank 8 --alpha 16 --target query_proj,value_proj --lora-dropout 0 --lr 1e-3".split()),
    "full": ("full", "--method full --lr 5e-5".split()),
}


def main():
    """Runs every method and seed in turn; arguments that this script does not know go to train_peft.py."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["lora", "full"])
    parser.add_argument("--seeds", nargs="+", default=["0"])
    args, rest = parser.parse_known_args()
    for seed in args.seeds:
        for method in args.methods:
            name, settings = METHODS[method]
            output = args.output / f"sst2-{name}-seed{seed}"
            inputs = ["--model", str(args.models / MODEL), "--data-dir", str(args.data), "--seed", seed]
            print(f"== {output.name}", flush=True)
            train_peft.main([*inputs, *COMMON, *settings, "--output", str(output), *rest])


if __name__ == "__main__":
    main()
