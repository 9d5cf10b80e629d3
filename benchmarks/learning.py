"""Trains a list of variants for the same time with several seeds, and draws their learning curves.

python benchmarks/learning.py benchmarks/learning/first_look.yaml --jobs 2 --csv docs/results/learning_first_look.csv \
    --plot docs/results/learning_first_look.png

The YAML file describes the comparison:

    base: configs/quickstart.yaml       configuration of all runs
    seconds: 300                        of training in each run, without validation and pictures
    images: 100000                      or number of images, or
    updates: 5000                       number of updates; the first limit that is reached
    threads: 1                          of each run; --jobs runs at a time
    seeds: [0, 1]
    runs:                               name: differing flags of train.py
      reference: {}
      wider: {model.pixel_scale: 0.3}

At the end of a run, each of its validations adds a row to the CSV file: run, seed, updates, images, seconds, foreground
ARI, ARI of all pixels, ELBO, MSE, entropy of the masks. Finished runs in that file are not trained again, so an
interrupted comparison continues. A failed run is reported, and the others continue. Stopping the comparison stops its
runs.
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
import signal
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from curves import line_style, read, save, subplots
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SCORES = ("ari_fg", "ari", "elbo", "mse", "mask_entropy")
FIELDS = ("run", "seed", "updates", "images", "seconds", *SCORES, "end")
LIMITS = ("seconds", "images", "updates")


class Budget(pl.Callback):
    """Stops a run at its limit or when the comparison has ended, and records every validation."""

    def __init__(self, file: str, seconds: float, images: float, updates: float) -> None:
        self.file = Path(file)
        self.limits = {"seconds": seconds, "images": images, "updates": updates}
        self.spent = dict.fromkeys(LIMITS, 0.0)
        self.parent = os.getppid()
        self.since = None
        self.rows = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.since = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.spent["seconds"] += time.perf_counter() - self.since
        self.spent["images"] += len(batch["image"]) * trainer.world_size
        self.spent["updates"] = trainer.global_step
        if any(self.spent[name] >= self.limits[name] for name in LIMITS):
            trainer.should_stop = True
        if os.getppid() != self.parent:
            sys.exit("the comparison was stopped")

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        seen = {name: round(float(trainer.callback_metrics[f"val/{name}"]), 4) for name in SCORES}
        spent = {"updates": trainer.global_step, "images": int(self.spent["images"])}
        self.rows.append(spent | {"seconds": round(self.spent["seconds"], 1)} | seen)
        self.file.write_text(json.dumps(self.rows))


def train(base: Path, changes: dict, seed: int, limits: dict, threads: int) -> list[dict]:
    """Trains one variant in this process, in a temporary folder, and returns its rows."""
    from iodine_pl.cli import prepare_process, run_command

    prepare_process()
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = Path(folder) / "rows.json"
        budget = {"class_path": "learning.Budget", "init_args": {"file": str(rows), **limits}}
        flags = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False, "trainer.max_steps": -1}
        flags |= {"panels.every_n_validations": 10**6, "seed_everything": seed} | changes
        arguments = [f"--{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in flags.items()]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                run_command(["fit", "--config", str(base), *arguments, f"--trainer.callbacks+={json.dumps(budget)}"])
            except SystemExit as error:
                raise RuntimeError(f"train.py does not take {arguments}: {error}\n{said.getvalue()}") from error
        os.chdir(ROOT)
        return json.loads(rows.read_text())


def report_of(connection, *arguments) -> None:
    """Sends the rows or the error of a run to the parent process."""
    try:
        connection.send((train(*arguments), None))
    except Exception as error:
        connection.send(([], f"{type(error).__name__}: {error}"))


def compare(plan: dict, file: Path, jobs: int) -> None:
    """Trains the runs of the plan that are not in the file yet."""
    done = {(row["run"], int(row["seed"])) for row in read(file) if row["end"] == "yes"}
    todo = [(run, seed) for seed in plan["seeds"] for run in plan["runs"] if (run, seed) not in done]
    limits = {name: plan.get(name, 1e12) for name in LIMITS}
    context = multiprocessing.get_context("spawn")
    running = {}
    bar = tqdm(total=len(todo), unit="run")
    while todo or running:
        while todo and len(running) < jobs:
            run, seed = todo.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            work = (ROOT / plan["base"], plan["runs"][run] or {}, seed, limits, plan.get("threads", 1))
            process = context.Process(target=report_of, args=(theirs, *work), daemon=True)  # ends with this one
            process.start()
            theirs.close()
            running[ours] = (run, seed, process)
        for connection in wait(list(running)):
            run, seed, process = running.pop(connection)
            try:
                rows, error = connection.recv()
            except EOFError:
                rows, error = [], "its process died"
            process.join()
            bar.update()
            if error is None and rows:
                write(file, [{"run": run, "seed": seed, "end": "", **row} for row in rows])
                last = f"{rows[-1]['ari_fg']:.3f} (MSE {rows[-1]['mse']:.4f}) at {rows[-1]['images']} images"
                tqdm.write(f"{run}, seed {seed}: foreground ARI {last}")
            else:
                tqdm.write(f"{run}, seed {seed}, failed: {error or 'no validation came within its budget'}")
    bar.close()


def write(file: Path, rows: list[dict]) -> None:
    rows[-1]["end"] = "yes"
    new = not file.exists()
    with file.open("a", newline="") as out:
        writer = csv.DictWriter(out, FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def table(rows: list[dict]) -> str:
    """Prints the result of every variant: mean, minimum and maximum over the seeds at the end, and its speed."""
    heads = f"{'ari_fg':>7s} {'least':>7s} {'most':>7s} {'mse':>7s} {'elbo':>9s} {'images/s':>9s}"
    lines = [f"{'run':32s} {'seeds':>5s} {heads}"]
    for run in dict.fromkeys(row["run"] for row in rows):
        ends = [row for row in rows if row["run"] == run and row["end"] == "yes"]
        ari = [float(row["ari_fg"]) for row in ends]
        mse = statistics.mean(float(row["mse"]) for row in ends)
        elbo = statistics.mean(float(row["elbo"]) for row in ends)
        speed = statistics.mean(float(row["images"]) / float(row["seconds"]) for row in ends)
        numbers = f"{statistics.mean(ari):7.3f} {min(ari):7.3f} {max(ari):7.3f} {mse:7.4f} {elbo:9.1f} {speed:9.0f}"
        lines.append(f"{run:32s} {len(ends):5d} {numbers}")
    return "\n".join(lines)


def draw(rows: list[dict], file: Path) -> None:
    """Draws foreground ARI and MSE over the seconds and the images of each run."""
    figure, axes = subplots(2, 2, figsize=(12, 7), sharex="col", sharey="row")
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for number, run in enumerate(runs):
        seeds = list(dict.fromkeys(row["seed"] for row in rows if row["run"] == run))
        for seed in seeds:
            mine = [row for row in rows if (row["run"], row["seed"]) == (run, seed)]
            for line, what in zip(axes, ("ari_fg", "mse"), strict=True):
                for axis, by in zip(line, ("seconds", "images"), strict=True):
                    x, y = ([float(row[name]) for row in mine] for name in (by, what))
                    axis.plot(x, y, label=run if seed == seeds[0] else None, **line_style(number))
    for axis, what in zip(axes[:, 0], ("foreground ARI", "MSE"), strict=True):
        axis.set_ylabel(what)
    for axis, by in zip(axes[1], ("seconds of training", "images"), strict=True):
        axis.set_xlabel(by)
        axis.xaxis.set_major_formatter("{x:,.0f}")
    save(figure, axes, file, loc="outside right upper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    for kind in (signal.SIGINT, signal.SIGTERM):  # a shell's background job is born with SIGINT ignored
        signal.signal(kind, lambda number, _: sys.exit(128 + number))  # multiprocessing ends daemons at exit
    sys.path.insert(0, str(Path(__file__).parent))
    compare(yaml.safe_load(given.plan.read_text()), given.csv, given.jobs)
    rows = read(given.csv)
    print(table(rows))
    if given.plot:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
