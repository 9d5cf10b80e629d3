"""Measures the communication among the processes of a training, and compares a model of their speed with measurements.

python benchmarks/scaling.py [--json docs/results/scaling.json]

1. Bytes that an update sums over the processes, for each official network: those that DistributedDataParallel hands to
   its communication hook, and those of Muon. Beside them the operations of an update of one image.
2. The constants of the model, by gloo on this machine: processor seconds of an update of one process with batch b,
   c0 + c1 b, and seconds of a sum of s bytes over 2 processes, a + s / w. Each is the least of all turns.
3. The model's T(n) = max(1, n / cores) (c0 + c1 B / n) + 2 (n - 1) / n (n a / 2 + s / w) beside what 1, 2 and 4
   processes take that share a batch of B. Where n is above the number of cores they wait for each other's cores. The
   processor seconds of a process are held against c0 + c1 B / n: other work on the machine does not count in them.
4. What the model says of GPUs, with constants that are assumed: see ``Device``.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from gpu_expected import LAUNCH, RATE
from gpu_recipes import NETWORKS, Settings
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

PROCESSES = (1, 2, 4)
NUMBERS = (1, 1 << 12, 1 << 16, 1 << 19, 1 << 21)  # float32 in a sum


class Device(NamedTuple):
    """Holds the assumptions about GPUs and their network."""

    rate: float = RATE
    """Operations per second."""
    launch: float = LAUNCH
    """Seconds from one start of an operation to the next."""
    latency: float = 20e-6
    """Seconds of a sum of nothing over two."""
    width: float = 20e9
    """Bytes per second between two: a network of 200 Gbit/s; within a machine it is more."""


def in_processes(count, function, *arguments):
    """Runs a function in processes of one gloo group with one thread each, and returns the first one's result."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe(duplex=False)
        every = [
            context.Process(target=_one, args=(rank, count, folder, theirs, function, arguments), daemon=True)
            for rank in range(count)
        ]
        for process in every:
            process.start()
        theirs.close()
        result = ours.recv()
        for process in every:
            process.join()
        return result


def _one(rank, count, folder, connection, function, arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    result = function(*arguments)
    if rank == 0:
        connection.send(result)
    distributed.barrier()
    distributed.destroy_process_group()


def shared_model(network, counted=None, **changed):
    """Returns a recipe's model, and its DistributedDataParallel wrapper, which counts the bytes that it sums."""
    model = Settings(Path(), Path()).model(network, **changed)
    shared = DistributedDataParallel(model)

    def hook(group, bucket):
        if counted is not None:
            counted.append(bucket.buffer().nbytes)
        return allreduce_hook(group, bucket)

    shared.register_comm_hook(distributed.group.WORLD, hook)
    return model, shared


def update(model, shared, optimizer, images, noise):
    optimizer.zero_grad()
    model.objective(shared(images, noise=noise).trace).backward()
    optimizer.step()


def bytes_of_update(network):
    """Returns the bytes that the second update sums: of gradients, and of Muon's updates."""
    of_gradients, of_all = [], []
    model, shared = shared_model(network, of_gradients)
    optimizer = model.configure_optimizers()["optimizer"]
    optimizer.shared = True  # as under a Trainer with DDP
    images, noise = torch.rand(1, 3, 9, 9), torch.randn(model.noise_shape(1))
    update(model, shared, optimizer, images, noise)
    of_gradients.clear()
    all_reduce = distributed.all_reduce

    def counted(tensor, *arguments, **named):
        of_all.append(tensor.nbytes)
        return all_reduce(tensor, *arguments, **named)

    with patch.object(distributed, "all_reduce", counted):
        update(model, shared, optimizer, images, noise)
    gradients = sum(of_gradients)
    return {"gradients": gradients, "buckets": len(of_gradients), "muon": sum(of_all) - gradients}


def seconds_of_sums(rounds):
    """Returns bytes and the least seconds of a sum of them."""
    found = []
    for numbers in NUMBERS:
        values, times = torch.ones(numbers), []
        for _ in range(4 * rounds):
            distributed.barrier()
            start = time.perf_counter()
            distributed.all_reduce(values)
            times.append(time.perf_counter() - start)
        found.append((values.nbytes, min(times)))
    return found


def seconds_of_update(batch, size, updates=3):
    """Returns the least seconds of an update, the least processor seconds in this process, and the bytes of its sum."""
    counted = []
    model, shared = shared_model("tetrominoes", counted, optimizer="tf_adam", adam_learning_rate=None, weight_decay=0.0)
    optimizer = model.configure_optimizers()["optimizer"]
    images, noise = torch.rand(batch, 3, size, size), torch.randn(model.noise_shape(batch))
    times = []
    for _ in range(updates + 1):
        counted.clear()
        distributed.barrier()
        start, worked = time.perf_counter(), time.process_time()
        update(model, shared, optimizer, images, noise)
        times.append((time.perf_counter() - start, time.process_time() - worked))
    return *(min(each) for each in zip(*times[1:], strict=True)), sum(counted)


def timed(batch, size, rounds):
    """Returns the least seconds and processor seconds of an update, by the number of processes and the batch of each.

    They are measured in turn, so that a slow minute of the machine falls on all.
    """
    settings = [(1, batch // 4), (1, batch // 2), *((count, batch // count) for count in PROCESSES)]
    least = dict.fromkeys(settings, (float("inf"), float("inf")))
    for _ in range(rounds):
        for count, share in settings:
            seconds, worked, _ = in_processes(count, seconds_of_update, share, size)
            least[count, share] = min(least[count, share][0], seconds), min(least[count, share][1], worked)
    return least


def line(points):
    """Returns the intercept, not negative, and the slope of the line through points by least squares."""
    mean_x, mean_y = (statistics.mean(each) for each in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return max(mean_y - slope * mean_x, 0.0), slope


def predicted(processes, batch, constants, cores):
    """Returns the model's seconds of an update."""
    c0, c1, a, w, s = (constants[name] for name in ("c0", "c1", "a", "w", "bytes"))
    summing = 2 * (processes - 1) / processes * (processes * a / 2 + s / w)
    return max(1.0, processes / cores) * (c0 + c1 * batch / processes) + summing


def of_gpus(network, found, processes, batch, device=Device()):  # noqa: B008, it is frozen
    """Returns the seconds of an update of a batch that GPUs share, by the model."""
    working = max(found["operations of an image"] * batch / processes / device.rate, found["launches"] * device.launch)
    sent = found["gradients"] + found["muon"]
    return working + 2 * (processes - 1) / processes * (processes * device.latency / 2 + sent / device.width)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    parser.add_argument("--rounds", type=int, default=5, help="turns; in each, three updates are timed of each setting")
    parser.add_argument("--batch", type=int, default=8, help="images of an update, shared by the processes")
    parser.add_argument("--size", type=int, default=24, help="side of these images")
    parser.add_argument("--cores", type=float, help="of this machine that other work leaves; all")
    given = parser.parse_args()
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = given.cores or there
    torch.set_num_threads(1)
    found = {
        "machine": f"{platform.machine()}, {there} cores, of which {cores:g} free, torch {torch.__version__}",
        "networks": {},
    }
    print(
        f"{found['machine']}\n\n| network | MB of gradients | MB of Muon | buckets | GFLOP of an image | FLOP a byte |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    expected = json.loads((Path(__file__).parents[1] / "docs" / "results" / "expected.json").read_text())
    for network in NETWORKS:
        row = in_processes(2, bytes_of_update, network)
        images = Settings(Path(), Path()).images_of_update(network)
        row |= {"operations of an image": expected[network]["operations"] / images}
        row |= {"launches": expected[network]["launches"]}
        found["networks"][network] = row
        each = row["operations of an image"] / (row["gradients"] + row["muon"])
        numbers = f"{row['gradients'] / 1e6:.2f} | {row['muon'] / 1e6:.2f} | {row['buckets']}"
        print(f"| {network} | {numbers} | {row['operations of an image'] / 1e9:.1f} | {each:,.0f} |", flush=True)

    least = timed(given.batch, given.size, given.rounds)
    alone = [(share, worked) for (count, share), (_, worked) in least.items() if count == 1]
    c0, c1 = line(alone)
    sums = {count: in_processes(count, seconds_of_sums, given.rounds) for count in PROCESSES if count > 1}
    (_, a), *_, (most, longest) = sums[2]  # the sum of one number, and the largest
    w = most / (longest - a)
    *_, sent = in_processes(1, seconds_of_update, 1, 9, 1)
    constants = {"c0": c0, "c1": c1, "a": a, "w": w, "bytes": sent}
    found |= {"constants": constants, "alone": alone, "sums": sums, "updates": []}
    print(
        f"\n{given.size}x{given.size} pixels: c0 {c0 * 1e3:.1f} ms, c1 {c1 * 1e3:.1f} ms an image, a {a * 1e6:.0f} us, "
        f"w {w / 1e6:.0f} MB/s\n\n| processes that share {given.batch} images | processor seconds of each | "
        "the model's | by it | seconds | the model's | by it |\n|---:|---:|---:|---:|---:|---:|---:|"
    )
    for count in PROCESSES:
        seconds, worked = least[count, given.batch // count]
        said = predicted(count, given.batch, constants, cores)
        work = c0 + c1 * given.batch / count
        row = {"processes": count, "seconds": seconds, "predicted": said, "worked": worked, "work": work}
        found["updates"].append(row)
        of_work = f"{worked:.3f} | {work:.3f} | {worked / work:.2f}"
        print(f"| {count} | {of_work} | {seconds:.3f} | {said:.3f} | {seconds / said:.2f} |", flush=True)

    print("\n| GPUs, by the model | " + " | ".join(f"{network}, 32 images" for network in NETWORKS) + " |")
    print(f"|---:|{'---:|' * len(NETWORKS)}")
    found["gpus"] = {}
    for count in (1, 2, 4, 8, 16, 32):
        row = {network: of_gpus(network, found["networks"][network], count, 32) for network in NETWORKS}
        found["gpus"][count] = row
        gains = [f"{1e3 * row[network]:.1f} ms, x {found['gpus'][1][network] / row[network]:.1f}" for network in row]
        print(f"| {count} | {' | '.join(gains)} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
