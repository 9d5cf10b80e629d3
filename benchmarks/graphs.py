"""Measures what CUDA graphs save: a loss with its gradients, recorded and operation by operation, and Muon's step.

python benchmarks/graphs.py --json docs/results/graphs.json

It needs a GPU. Each recipe has the batch of its configuration. Float32 is multiplied as in training by the command: by
TF32 in convolutions, fully in matrix products.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import yaml

from iodine_pl import IODINE

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"laptop_tetrominoes": 35, "fast_tetrominoes": 35, "fast_multi_dsprites": 64, "fast_clevr6": 128}
"""Name of the configuration -> side of its images."""
REPEATS = 20


def milliseconds(function):
    """Returns the median time of a call, until the GPU has done what it started."""
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(name, bfloat16):
    """Returns the row of a recipe."""
    recipe = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    batch, size = recipe["data"]["init_args"]["batch_size"], RECIPES[name]
    model = IODINE(**recipe["model"]["init_args"] | {"cuda_graphs": True}).cuda()
    images = torch.rand(batch, 3, size, size, device="cuda")
    optimizer = model.configure_optimizers()["optimizer"]

    def differentiate():
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
            loss, _ = model.loss(images)
        loss.backward()

    differentiate()
    row = {"recipe": name, "images": batch, "precision": "bf16" if bfloat16 else "TF32"}
    row["recorded"] = milliseconds(differentiate)
    row["optimizer"] = milliseconds(optimizer.step)
    model.cuda_graphs = False
    row["operation by operation"] = milliseconds(differentiate)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU")
    rows = [measure(name, bfloat16) for name in RECIPES for bfloat16 in (False, True)]
    print(
        "| recipe | images | precision | recorded | operation by operation | optimizer |\n|---|---:|---|---:|---:|---:|"
    )
    for row in rows:
        times = " | ".join(f"{row[kind]:.1f} ms" for kind in ("recorded", "operation by operation", "optimizer"))
        print(f"| {row['recipe']} | {row['images']} | {row['precision']} | {times} |")
    if given.json:
        made = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
        given.json.write_text(json.dumps(made | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
