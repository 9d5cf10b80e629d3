"""Measures an update and an evaluation in each mode of differentiation, compared with plain autograd.

python benchmarks/engine.py --network tetrominoes --batch 8 [--device cuda] [--json FILE] [--plot FILE]

plain      every gradient by autograd, every convolution on all of its channels (tests/plain.py)
full       the published gradient
recompute  the same gradient, with each step repeated in the backward pass
stopped    input_gradients="stopped", another gradient

Each mode has a process of its own. The modes are measured in turn, so that a slow minute of the machine affects all. An
update is forward, backward and optimizer on random images. Seconds are medians, with two runs in each turn. Peak memory
is the largest allocation of torch during an update, minus that between updates (weights and the optimizer's moments).
Operations are those of convolutions and matrix products, as torch counts them. The ceilings are the best measured rates
of the decoder's convolution (forward or backward) and of a product of large square matrices.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
from pathlib import Path

import torch
from curves import line_style, save, subplots
from measured import MODES, PHASES, SIZES, Measured, Way, rates_of_the_machine
from tqdm import tqdm

from iodine_pl import IODINE
from iodine_pl.cli.memory import keep_freed_memory


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
    """Calls methods of a :class:`Measured` in another process."""

    def __init__(self, keep_memory, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, keep_memory, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *question):
        self.connection.send(question)
        return self.connection.recv()


def measure(given):
    """Returns the rows of all modes and phases for every given T and K."""
    network, batch = given.network, given.batch
    model = getattr(IODINE, network)()
    usual = (model.num_iterations, model.num_slots)
    settings = [(steps, usual[1]) for steps in given.steps] + [(usual[0], slots) for slots in given.slots]
    settings = [usual, *(s for s in dict.fromkeys(settings) if s != usual)]
    arguments = (not given.system_allocator, network, batch, given.size, given.device, Way(compiled=given.compile))
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
    """Prints the measurements for one T and K, also relative to plain autograd."""
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
    figure, axes = subplots(2, 2, figsize=(9, 6), sharex="col")
    for column, (axis, fixed) in enumerate((("T", "K"), ("K", "T"))):
        at = usual[1] if fixed == "K" else usual[0]
        for number, mode in enumerate(MODES):
            line = sorted(
                (r for r in rows if r["mode"] == mode and r["phase"] == "train" and r[fixed] == at),
                key=lambda r: r[axis],
            )
            line = [r for r in line if r["step_seconds"] is not None]
            x = [r[axis] for r in line]
            axes[0, column].plot(x, [r["step_seconds"] for r in line], label=mode, **line_style(number))
            axes[1, column].plot(x, [r["peak_bytes"] / 1e6 for r in line], label=mode, **line_style(number))
        axes[1, column].set_xlabel(f"{axis} ({fixed} = {at})")
    axes[0, 0].set_ylabel("seconds an update")
    axes[1, 0].set_ylabel("peak memory of an update, MB")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    save(figure, axes, path, loc="outside lower center", ncols=len(MODES))


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
    parser.add_argument(
        "--system-allocator", action="store_true", help="return freed memory to the system, python's default"
    )
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
