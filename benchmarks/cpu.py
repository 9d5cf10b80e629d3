"""Measures on a CPU the cost of an update with each optimizer, and compares two processes with two threads.

python benchmarks/cpu.py [--rounds 25] [--seconds 30] [--json FILE]

The network and the images are those of configs/quickstart.yaml. The first table is for one thread. The optimizers are
measured in turn, so that a slow minute of the machine affects all, and medians are shown. pytorch-optimizer's Muon,
which iterates in bfloat16, is measured if it is installed. The second table is for the command itself: images per
second from its log, the median of the second half of a run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iodine_pl import IODINE
from iodine_pl.cli import prepare_process
from iodine_pl.optim import Muon, TFAdam

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "quickstart.yaml"
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def of_pytorch_optimizer(parameters):
    from pytorch_optimizer import Muon as Theirs

    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if (p.ndim >= 2) == matrices], "use_muon": matrices}
        for matrices in (True, False)
    ]
    return Theirs(groups, lr=1e-9, use_adjusted_lr=True)


OPTIMIZERS = {
    "Adam": lambda parameters: TFAdam(parameters, lr=1e-9),
    "Muon": lambda parameters: Muon(parameters, lr=1e-9),
    "Muon of pytorch-optimizer": of_pytorch_optimizer,
}


def optimizers(batch, rounds):
    """Returns the median milliseconds of a step and of a whole update with each optimizer, on one thread."""
    torch.set_num_threads(1)
    prepare_process()
    arguments = yaml.safe_load(CONFIG.read_text())["model"]["init_args"]
    images = torch.rand(batch, 3, 35, 35)
    made = {}
    for name, make in OPTIMIZERS.items():
        torch.manual_seed(0)
        model = IODINE(**arguments)
        try:
            made[name] = model, make(model.parameters())
        except ImportError:
            print(f"{name} is not installed, and left out")
    times = {name: {"step": [], "update": []} for name in made}
    for turn in range(rounds):
        for name, (model, optimizer) in made.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            model.loss(images)[0].backward()
            half = time.perf_counter()
            optimizer.step()
            end = time.perf_counter()
            if turn > 0:
                times[name]["step"].append(1e3 * (end - half))
                times[name]["update"].append(1e3 * (end - start))
    return {name: {what: statistics.median(each) for what, each in both.items()} for name, both in times.items()}


def images_per_second(processes, threads, precision, seconds):
    """Trains the quickstart for some seconds with the command, and returns its speed."""
    with tempfile.TemporaryDirectory() as folder:
        limits = {"trainer.max_time": {"seconds": seconds}, "trainer.val_check_interval": 10**6}
        limits |= {"trainer.devices": processes, "data.batch_size": 8 // processes, "trainer.precision": precision}
        limits |= {"trainer.num_sanity_val_steps": 0, "trainer.max_steps": -1, "trainer.enable_progress_bar": False}
        flags = [f"--{name}={json.dumps(v) if not isinstance(v, str) else v}" for name, v in limits.items()]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(CONFIG), *flags]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        log = EventAccumulator(str(next(Path(folder).rglob("events*"))))
        log.Reload()
        values = [scalar.value for scalar in log.Scalars("train/images_per_second")]
        return statistics.median(values[len(values) // 2 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="updates with each optimizer")
    parser.add_argument("--seconds", type=int, default=30, help="of each run of the command; 0: no second table")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), "optimizers": {}}
    print("| optimizer | batch | step, ms | update, ms | by Adam's |\n|---|---:|---:|---:|---:|")
    for batch in (16, 8):
        found["optimizers"][batch] = rows = optimizers(batch, given.rounds)
        for name, row in rows.items():
            ratio = row["update"] / rows["Adam"]["update"]
            print(f"| {name} | {batch} | {row['step']:.1f} | {row['update']:.1f} | {ratio:.3f} |")
    found["images per second"] = {}
    if given.seconds:
        print("\n| quickstart | images/s | images/s in bfloat16 |\n|---|---:|---:|")
    for name, way in WAYS.items() if given.seconds else ():
        speeds = [images_per_second(*way, precision, given.seconds) for precision in ("32-true", "bf16-mixed")]
        found["images per second"][name] = speeds
        print(f"| {name} | {speeds[0]:.0f} | {speeds[1]:.0f} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
