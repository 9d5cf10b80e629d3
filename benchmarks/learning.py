"""Trains a list of variants for the same time, over several seeds, and draws how soon each learns.

python benchmarks/learning.py benchmarks/learning/first_look.yaml --jobs 2 --csv docs/results/learning_first_look.csv \
    --plot docs/results/learning_first_look.png

The YAML file says what is compared:

    base: configs/quickstart.yaml       configuration of all runs
    seconds: 300                        of training in each run, validation and pictures not counted
    images: 100000                      or so many images, whichever comes first
    threads: 1                          of each run; --jobs of them run at a time
    seeds: [0, 1]
    runs:                               name: what is different, as flags of train.py
      reference: {}
      wider: {model.pixel_scale: 0.3}

Every validation adds a row to the CSV file: run, seed, updates, images, seconds, foreground ARI, ELBO, MSE. Runs that
have come to their end in that file are not trained again, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("run", "seed", "updates", "images", "seconds", "ari_fg", "elbo", "mse", "end")


class Budget(pl.Callback):
    """Stops a run after so much training and notes every validation."""

    def __init__(self, file: str, seconds: float, images: float) -> None:
        self.file, self.seconds, self.images = Path(file), seconds, images
        self.trained = self.seen = 0.0
        self.since = None
        self.rows = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.since = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained += time.perf_counter() - self.since
        self.seen += len(batch["image"]) * trainer.world_size
        if self.trained >= self.seconds or self.seen >= self.images:
            trainer.should_stop = True

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        seen = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("ari_fg", "elbo", "mse")}
        self.rows.append(
            {"updates": trainer.global_step, "images": int(self.seen), "seconds": round(self.trained, 1)}
            | {name: round(value, 4) for name, value in seen.items()}
        )
        self.file.write_text(json.dumps(self.rows))


def train(base: Path, changes: dict, seed: int, seconds: float, images: float, threads: int) -> list[dict]:
    """Trains one variant in this process, in a folder that is thrown away, and returns its rows."""
    from iodine_pl.cli import main

    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = Path(folder) / "rows.json"
        budget = {"class_path": "learning.Budget"}
        budget["init_args"] = {"file": str(rows), "seconds": seconds, "images": images}
        flags = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False, "trainer.max_steps": -1}
        flags |= {"panels.every_n_validations": 10**6, "seed_everything": seed} | changes
        arguments = [f"--{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in flags.items()]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                main(["fit", "--config", str(base), *arguments, f"--trainer.callbacks+={json.dumps(budget)}"])
            except SystemExit as error:
                raise RuntimeError(f"train.py does not take {arguments}: {error}\n{said.getvalue()}") from error
        os.chdir(ROOT)
        return json.loads(rows.read_text())


def compare(plan: dict, file: Path, jobs: int) -> None:
    """Trains what the plan asks for and is not in the file yet."""
    done = {(row["run"], int(row["seed"])) for row in read(file) if row["end"] == "yes"}
    todo = [(run, seed) for seed in plan["seeds"] for run in plan["runs"] if (run, seed) not in done]
    context = multiprocessing.get_context("spawn")
    limits = plan.get("seconds", 1e12), plan.get("images", 1e12), plan.get("threads", 1)
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        running = {
            pool.submit(train, ROOT / plan["base"], plan["runs"][run] or {}, seed, *limits): (run, seed)
            for run, seed in todo
        }
        for future in tqdm(as_completed(running), total=len(running), unit="run"):
            run, seed = running[future]
            rows = [{"run": run, "seed": seed, "end": "", **row} for row in future.result()]
            rows[-1]["end"] = "yes"
            new = not file.exists()
            with file.open("a", newline="") as out:
                writer = csv.DictWriter(out, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerows(rows)
            tqdm.write(f"{run}, seed {seed}: foreground ARI {rows[-1]['ari_fg']:.3f} at {rows[-1]['images']} images")


def read(file: Path) -> list[dict]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def table(rows: list[dict]) -> str:
    """Says of every variant how far it came: mean, least and most over the seeds at the end, and its speed."""
    lines = [f"{'run':32s} {'seeds':>5s} {'ari_fg':>7s} {'least':>7s} {'most':>7s} {'elbo':>9s} {'images/s':>9s}"]
    for run in dict.fromkeys(row["run"] for row in rows):
        ends = [row for row in rows if row["run"] == run and row["end"] == "yes"]
        ari = [float(row["ari_fg"]) for row in ends]
        elbo = statistics.mean(float(row["elbo"]) for row in ends)
        speed = statistics.mean(float(row["images"]) / float(row["seconds"]) for row in ends)
        numbers = f"{statistics.mean(ari):7.3f} {min(ari):7.3f} {max(ari):7.3f} {elbo:9.1f} {speed:9.0f}"
        lines.append(f"{run:32s} {len(ends):5d} {numbers}")
    return "\n".join(lines)


def draw(rows: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(13, 8), layout="constrained")
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for color, run in zip(
        plt.get_cmap("turbo")([i / max(1, len(runs) - 1) for i in range(len(runs))]), runs, strict=True
    ):
        for seed in dict.fromkeys(row["seed"] for row in rows if row["run"] == run):
            mine = [row for row in rows if (row["run"], row["seed"]) == (run, seed)]
            first = seed == min(row["seed"] for row in rows if row["run"] == run)
            for line, what in zip(axes, ("ari_fg", "elbo"), strict=True):
                for axis, by in zip(line, ("seconds", "images"), strict=True):
                    x, y = ([float(row[name]) for row in mine] for name in (by, what))
                    axis.plot(x, y, color=color, lw=1, label=run if first else None)
                    axis.set(xlabel=f"{by} of training" if by == "seconds" else by, ylabel=what)
    axes[0, 0].legend(fontsize=7)
    for axis in axes[1]:  # the first values are far below all others
        values = sorted(float(row["elbo"]) for row in rows)
        axis.set_ylim(values[len(values) // 10], values[-1] + 0.05 * (values[-1] - values[len(values) // 10]))
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    compare(yaml.safe_load(given.plan.read_text()), given.csv, given.jobs)
    rows = read(given.csv)
    print(table(rows))
    if given.plot:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
