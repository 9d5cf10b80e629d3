"""Estimates the duration of the full-size recipes from small runs, to be compared with the first GPU.

python benchmarks/gpu_expected.py --json docs/results/expected.json

The operations of an update are counted for one image and multiplied by the batch size; launches are counted as by
launches.py. An update takes the longer of operations / RATE and launches x LAUNCH, with assumed constants. The ARI is
expected between the number of updates that a small run needed (docs/results/learning_*.csv) and the end of the
schedule.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from gpu_recipes import NETWORKS, ROOT, Settings
from launches import count
from measured import SIZES, Operations

RATE = 10e12  # operations per second: a third of what matrix products of float32 reach on the cards of 2022, and less
LAUNCH = 10e-6  # seconds from one start of an operation to the next
ESTIMATES = ROOT / "docs" / "results" / "expected.json"
CURVES = {
    "tetrominoes": ("learning_muon_long.csv", "batch 8, cosine to zero", 0.95),
    "multi_dsprites": ("learning_sprites.csv", "correlated channels, 0.8", 0.6),
}
OF_CLEVR = (8000, 0.79)  # updates of a small network under the mixture; docs/notes/learning_trials.md


def updates_of_small_run(network: str) -> tuple[int, float]:
    """Returns the number of updates after which a small run first reached an ARI, and this ARI."""
    if network not in CURVES:
        return OF_CLEVR
    file, run, wanted = CURVES[network]
    with (ROOT / "docs" / "results" / file).open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["run"] == run]
    return next(int(row["updates"]) for row in rows if float(row["ari_fg"]) >= wanted), wanted


def estimate(network: str) -> dict:
    """Returns operations, launches and expected seconds of a recipe's update, and the updates to an ARI."""
    settings = Settings(Path(), Path())
    model = settings.model(network)
    of_part, _ = count(model, torch.rand(2, 3, 11, 11))
    with Operations() as counter:
        model.loss(torch.rand(1, 3, SIZES[network], SIZES[network]))[0].backward()
    batch = settings.images_of_update(network)
    operations, launches = batch * counter.total, of_part.total()
    fewest, ari = updates_of_small_run(network)
    return {
        "operations": operations,
        "launches": launches,
        "seconds": max(operations / RATE, launches * LAUNCH),
        "ari": ari,
        "updates": [fewest, settings.updates(network)],
    }


def expected(trainings: dict, results: dict) -> list[str]:
    """Returns a table of expected and measured values."""
    lines = ["Expected before any GPU was there (docs/gpu.md), and what came:", ""]
    lines.append("| | seconds an update | came | updates to the ARI | came | hours to it | came |")
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for network, made in json.loads(ESTIMATES.read_text()).items():
        rows = trainings.get(network, {"rows": []})["rows"]
        reached = next((row for row in rows if row.get("ari_fg", 0.0) >= made["ari"]), None)
        speed = results.get(f"data/{network}", {}).get("updates_per_second")
        first, last = made["updates"]
        hours = [updates * made["seconds"] / 3600 for updates in (first, last)]
        came = (
            ("not yet", "not yet")
            if reached is None
            else (f"{reached['updates']:,}", f"{reached['seconds'] / 3600:.3f}")
        )
        lines.append(
            f"| {network}, ARI {made['ari']} | {made['seconds']:.3f} | {f'{1 / speed:.3f}' if speed else ''} | "
            f"{first:,} to {last:,} | {came[0]} | {hours[0]:.2f} to {hours[1]:.1f} | {came[1]} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ESTIMATES)
    given = parser.parse_args()
    found = {network: estimate(network) for network in NETWORKS}
    print("| | GFLOP an update | launches | seconds | ARI | updates | hours |\n|---|---:|---:|---:|---:|---:|---:|")
    for network, made in found.items():
        first, last = made["updates"]
        hours = [updates * made["seconds"] / 3600 for updates in (first, last)]
        cost = f"{made['operations'] / 1e9:,.0f} | {made['launches']:,} | {made['seconds']:.3f}"
        print(f"| {network} | {cost} | {made['ari']} | {first:,} to {last:,} | {hours[0]:.2f} to {hours[1]:.1f} |")
    given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
