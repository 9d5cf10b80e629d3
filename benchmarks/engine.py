"""Measures an update and an evaluation of each way to differentiate the refinement, beside plain autograd.

python benchmarks/engine.py --network tetrominoes --batch 8 [--device cuda] [--json FILE] [--plot FILE]

plain      every gradient by autograd, every convolution on all of its channels (tests/plain.py)
full       the published gradient
recompute  the same, each step done again in the backward pass
stopped    input_gradients="stopped", another gradient

Each has a process of its own; they are asked in turn, so that a slow minute of the machine falls on all. An update is
forward, backward and optimiser on random images. Seconds are medians, of two runs in each turn. Peak memory is what
torch has allocated at most during an update, above what stays between updates (weights and the optimiser's moments).
Operations are those of convolutions and matrix products, as torch counts them; the ceilings are the best rate measured
of the decoder's convolution (forward or backward) and of a product of large square matrices.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from plain import PlainIODINE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from iodine_pl import IODINE
from iodine_pl.cli.memory import keep_freed_memory

MODES = {
    "plain": (PlainIODINE, {}),
    "full": (IODINE, {}),
    "recompute": (IODINE, {"recompute": True}),
    "stopped": (IODINE, {"input_gradients": "stopped"}),
}
SIZES = {"tetrominoes": 35, "multi_dsprites": 64, "clevr6": 128}
PHASES = ("train", "evaluate")


class Operations(TorchDispatchMode):
    """Counts floating-point operations. Torch's FlopCounterMode cannot: it refuses an autograd.grad to a leaf."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class Measured:
    """Runs one mode of one network; lives in a process of its own."""

    def __init__(self, network, batch, size, device, compiled, mode):
        kind, arguments = MODES[mode]
        if compiled and mode != "plain":
            arguments = arguments | {"compile_networks": True}
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.model = getattr(kind, network)(**arguments).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.images = torch.rand(batch, 3, size, size, device=self.device)

    def run(self, phase, steps, slots):
        self.model.num_iterations, self.model.num_slots = steps, slots
        if phase == "evaluate":
            with torch.no_grad():
                self.model(self.images)
        else:
            self.optimizer.zero_grad()
            self.model.loss(self.images)[0].backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, *how):
        """Returns the times of two runs, after another: the first after a pause is slower."""
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self.run(*how)
            times.append(time.perf_counter() - start)
        return times[1:]

    def peak_bytes(self, *how):
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.run(*how)
            return torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            self.run(*how)
        events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
        return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))

    def operations(self, *how):
        with Operations() as counter:
            self.run(*how)
        return counter.total

    def release(self):
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def serve(connection, keep_memory, *arguments):
    if keep_memory:
        keep_freed_memory()
    measured = Measured(*arguments)
    with contextlib.suppress(EOFError):
        while True:
            method, *how = connection.recv()
            try:
                connection.send(getattr(measured, method)(*how))
            except torch.cuda.OutOfMemoryError:
                measured.optimizer.zero_grad()
                connection.send(None)
            measured.release()


class Worker:
    """Hands a method's name and arguments to a :class:`Measured` in another process, and returns what it returns."""

    def __init__(self, keep_memory, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, keep_memory, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *question):
        self.connection.send(question)
        return self.connection.recv()


def rates_of_the_machine(network, batch, size, device):
    """Returns the best operations per second of the decoder's convolution, and of a matrix product."""
    model = getattr(IODINE, network)()
    convolution = model.decoder.hidden[2].to(device)
    n = batch * model.num_slots
    x = torch.rand(n, convolution.in_channels, size, size, device=device).to(memory_format=torch.channels_last)
    x.requires_grad_()
    y = convolution(x)
    gradient = torch.rand_like(y)
    operations = 2 * y.numel() * convolution.weight[0].numel()
    side = 2048 if device == "cpu" else 8192
    a = torch.rand(side, side, device=device)

    def best(function, count):
        times = []
        for _ in range(10):
            start = time.perf_counter()
            function()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return count / min(times[2:])

    backward = [x, convolution.weight]
    convolutions = (
        best(lambda: convolution(x), operations),
        best(lambda: torch.autograd.grad(y, backward, gradient, retain_graph=True), 2 * operations),
    )
    return {"convolution": max(convolutions), "matmul": best(lambda: a @ a, 2 * side**3)}


def measure(given):
    """Returns the rows of all modes and phases at every T and K that is asked for."""
    network, batch = given.network, given.batch
    model = getattr(IODINE, network)()
    usual = (model.num_iterations, model.num_slots)
    settings = [(steps, usual[1]) for steps in given.steps] + [(usual[0], slots) for slots in given.slots]
    settings = [usual, *(s for s in dict.fromkeys(settings) if s != usual)]
    arguments = (not given.system_allocator, network, batch, given.size, given.device, given.compile)
    workers = {mode: Worker(*arguments, mode) for mode in MODES}
    rows = []
    with tqdm(total=len(settings) * len(MODES) * 2 * (given.rounds + 2), file=sys.stderr, disable=None) as bar:
        for setting in settings:
            keys = [(mode, phase) for phase in PHASES for mode in MODES]
            times = {key: [] for key in keys}
            for _ in range(given.rounds):
                for mode, phase in keys:
                    times[mode, phase] += workers[mode].ask("seconds", phase, *setting) or [None]
                    bar.update()
            for mode, phase in keys:
                fits = None not in times[mode, phase]
                seconds = statistics.median(times[mode, phase]) if fits else None
                rows.append(
                    {
                        "network": network,
                        "batch": batch,
                        "device": given.device,
                        "mode": mode,
                        "phase": phase,
                        "T": setting[0],
                        "K": setting[1],
                        "step_seconds": seconds,
                        "images_per_second": batch / seconds if fits else None,
                        "peak_bytes": workers[mode].ask("peak_bytes", phase, *setting) if fits else None,
                        "operations": workers[mode].ask("operations", phase, *setting) if fits else None,
                    }
                )
                bar.update(2)
    return rows, usual


def table(rows, ceilings, setting):
    """Prints, for one T and K, what was measured, also by that of plain autograd."""
    rows = {(r["phase"], r["mode"]): r for r in rows if (r["T"], r["K"]) == setting}
    print(f"\nT = {setting[0]}, K = {setting[1]}\n")
    print("| phase | mode | seconds | by plain's update | images/s | MB | by plain's update | GFLOP | of the ceiling |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    plain = rows["train", "plain"]
    for (phase, mode), row in rows.items():
        if row["step_seconds"] is None:
            print(f"| {phase} | {mode} | out of memory | | | | | | |")
            continue
        share = row["operations"] / row["step_seconds"] / ceilings["convolution"]
        relative = [f"{row[key] / plain[key]:.2f}" if plain[key] else "" for key in ("step_seconds", "peak_bytes")]
        print(
            f"| {phase} | {mode} | {row['step_seconds']:.3f} | {relative[0]} | {row['images_per_second']:.1f} | "
            f"{row['peak_bytes'] / 1e6:.0f} | {relative[1]} | {row['operations'] / 1e9:.0f} | {share:.0%} |"
        )


def plot(rows, usual, title, path):
    """Draws seconds and memory of an update over T and over K."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    for column, (axis, fixed) in enumerate((("T", "K"), ("K", "T"))):
        at = usual[1] if fixed == "K" else usual[0]
        for mode in MODES:
            line = sorted(
                (r for r in rows if r["mode"] == mode and r["phase"] == "train" and r[fixed] == at),
                key=lambda r: r[axis],
            )
            line = [r for r in line if r["step_seconds"] is not None]
            x = [r[axis] for r in line]
            axes[0, column].plot(x, [r["step_seconds"] for r in line], "o-", label=mode)
            axes[1, column].plot(x, [r["peak_bytes"] / 1e6 for r in line], "o-", label=mode)
        axes[1, column].set_xlabel(f"{axis} ({fixed} = {at})")
    axes[0, 0].set_ylabel("seconds an update")
    axes[1, 0].set_ylabel("peak memory of an update, MB")
    axes[0, 0].legend()
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SIZES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, help="side of the images, if not the network's own")
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 5, 10, 20], help="values of T")
    parser.add_argument("--slots", type=int, nargs="*", default=[2, 4, 7], help="values of K")
    parser.add_argument("--rounds", type=int, default=5, help="turns; in each, two runs are timed")
    parser.add_argument("--compile", action="store_true", help="all but plain with compile_networks=True")
    parser.add_argument("--system-allocator", action="store_true", help="let freed memory go, as python does by itself")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--plot", type=Path, help="also draw time and memory over T and K to this file")
    given = parser.parse_args()
    given.size = given.size or SIZES[given.network]
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    ceilings = rates_of_the_machine(given.network, given.batch, given.size, given.device)
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"{torch.get_num_threads()} CPU cores"
    title = f"{given.network}, {given.size} x {given.size}, batch {given.batch}, {name}"
    print(f"{title}; torch {torch.__version__}, python {platform.python_version()}, {os.cpu_count()} cores")
    print("ceilings: " + ", ".join(f"{key} {value / 1e9:,.0f} GFLOP/s" for key, value in ceilings.items()), flush=True)
    rows, usual = measure(given)
    for setting in dict.fromkeys((r["T"], r["K"]) for r in rows):
        table(rows, ceilings, setting)
    if given.json:
        given.json.write_text(json.dumps({"title": title, "ceilings": ceilings, "rows": rows}, indent=1) + "\n")
    if given.plot:
        plot(rows, usual, title, given.plot)


if __name__ == "__main__":
    main()
