"""Compares two loralib checkpoints tensor by tensor, bit by bit and in order, as torch reads them.

    python scripts/reference/check_loralib_with_torch.py ORIGINAL.bin WRITTEN.bin

Both must load with weights_only=True, that is without running anything. Exit status 1 if any
tensor differs. Versions: torch 2.15 (scripts/requirements.txt).
"""

import sys

import torch


def main():
    original, written = (torch.load(path, weights_only=True, map_location="cpu") for path in sys.argv[1:3])
    problems = []
    if list(original) != list(written):
        problems.append("the names differ, or their order")
    for name in original.keys() & written.keys():
        left, right = original[name], written[name]
        same = left.dtype == right.dtype and left.shape == right.shape
        if not same or left.numpy().tobytes() != right.numpy().tobytes():
            problems.append(f"{name} differs")
    for problem in problems:
        print(f"FAILED: {problem}")
    print(f"{len(original)} tensors compared")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
