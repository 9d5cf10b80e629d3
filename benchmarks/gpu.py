"""Measures everything that needs a GPU, in slices of some minutes, and writes a report.

python benchmarks/gpu.py --out gpu --minutes 9 [tests engine data training] [-- FLAGS OF THE TRAINING]

Each call continues where the last one ended. The parts run in this order, except compiled code, which runs after the
data:

tests      the tests that need a GPU (tests/test_on_a_gpu.py)
engine     an update of each official network: seconds, memory, operations, share of the card's rate, largest batch, in
           float32, TF32, bfloat16, compiled and as CUDA graphs, and how near its numbers are to float64 on the CPU
data       images per second into the card, share of the time waited for them, CLEVR scenes rendered on the card
training   configs/fast_tetrominoes.yaml, fast_multi_dsprites.yaml and fast_clevr6.yaml, one after another, to their end

A single part, or a job such as engine/clevr6 or training/tetrominoes, can be named. The folder --out has everything
that the next call needs, in at most 8 files of at most 16 MB: gpu.json, report.md, curves.png and a checkpoint for each
network. Copy it to the next machine. The folder --work has data and logs, which are made again if they are missing.
"""

import argparse
import os
import platform
import signal
import sys
from functools import partial
from pathlib import Path

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else the check for a GPU would make it unusable in forked processes

import torch
from gpu_data import choices, loading, rendering
from gpu_engine import WAYS, engine, ways
from gpu_recipes import NETWORKS, Settings
from gpu_report import write_report
from gpu_slices import Job, Record, work_off
from gpu_tests import tests
from gpu_training import train


def jobs_of(settings: Settings) -> list[Job]:
    """Returns all jobs, in their order."""
    made = [Job("tests", lambda record: tests(settings)), Job("card", lambda record: card(settings))]
    made += _engine_jobs(settings, compiled=False)
    made.append(Job("data/rendering", lambda record: rendering(settings)))
    made.append(Job("data/choices", lambda record: choices(settings, record.results)))
    made += [Job(f"data/{network}", partial(_with_results, loading, network, settings)) for network in NETWORKS]
    made += _engine_jobs(settings, compiled=True)
    for network in NETWORKS:
        made.append(Job(f"training/{network}", partial(_with_results, train, network, settings), resumes=True))
    return made


def _engine_jobs(settings, compiled):
    return [
        Job(f"engine/{network}/{way}", partial(_engine, network, way, settings))
        for network in NETWORKS
        for way in ways(settings.device, settings.tiny)
        if bool(WAYS[way].compiled) == compiled
    ]


def _engine(network, way, settings, record):
    return engine(network, way, settings.device, settings.tiny)


def _with_results(function, network, settings, record):
    return function(network, settings, record.results)


def card(settings: Settings) -> dict:
    """Returns a description of the machine."""
    on_gpu = settings.device == "cuda"
    return {
        "name": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)",
        "memory": torch.cuda.get_device_properties(0).total_memory if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def asked_for(jobs: list[Job], names: list[str]) -> list[Job]:
    """Returns the jobs of the named parts and those that they depend on; without names all jobs.

    Raises:
        SystemExit: if a name is unknown.
    """
    unknown = [name for name in names if not any(_belongs(job, name) for job in jobs)]
    if unknown:
        sys.exit(f"error: there is no part {unknown[0]}: name tests, engine, data or training, or {jobs[2].name}")
    on_data = any(name.startswith(("data", "training")) for name in names)
    needs = {"card"} | ({"data/rendering", "data/choices"} if on_data else set())
    return [job for job in jobs if not names or job.name in needs or any(_belongs(job, name) for name in names)]


def _belongs(job: Job, name: str) -> bool:
    return job.name == name or job.name.startswith(f"{name}/")


def main() -> None:
    own = sys.argv[1:]
    cut = own.index("--") if "--" in own else len(own)
    own, flags = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="those to work on; all")
    parser.add_argument("--out", type=Path, required=True, help="folder of what the next slice needs")
    parser.add_argument("--work", type=Path, default=Path("gpu_work"), help="folder of data and logs")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this slice")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything as small as it goes: does it run?")
    given = parser.parse_args(own)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    settings = Settings(given.out.absolute(), given.work.absolute(), given.device, given.tiny, tuple(flags))
    jobs = asked_for(jobs_of(settings), given.parts)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    record = Record(settings.out / "gpu.json")
    try:
        work_off(jobs, record, 60 * given.minutes)
    finally:
        write_report(record, settings)
    left = [job.name for job in jobs if job.name not in record.results]
    print(f"report: {settings.out / 'report.md'}; {len(left)} job(s) left{', next ' + left[0] if left else ''}")


if __name__ == "__main__":
    main()
