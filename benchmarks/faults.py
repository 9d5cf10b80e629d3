"""Damages runs and files, and counts how often the promises of docs/reliability.md held.

python benchmarks/faults.py kills signals pairs mutations disk --seed 0 --minutes 20 --json docs/results/faults.json

kills      kills all processes of a command at a random moment, repeats it, and compares with an undisturbed one
signals    SIGTERM or SIGINT at a random moment of training: it must save, say so, and continue to the same bits
pairs      two trainings, or two commands that continue the same run, at the same time
mutations  files with flipped, zeroed, missing or inserted bytes: refused in one line, or the same content
disk       a disk that is full after a random number of bytes (needs root, to mount one)

The parts share the minutes, and the kinds of a part are tried in turn. ``kills/training`` is a single kind. A fault
that came after the command had ended is not a trial. ``unnoticed`` counts damage to content without a checksum that was
read as other content. ``--again SEED`` repeats one trial. Rows of other parts and other seeds stay in the JSON file,
which sums them by kind.
"""

import argparse
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fault_disk
import fault_files
import fault_runs

PARTS = {
    "kills": (fault_runs.kills, 200),
    "signals": (fault_runs.signals, 50),
    "pairs": (fault_runs.pairs, 100),
    "mutations": (fault_files.mutations, 3000),
    "disk": (fault_disk.disk, 20),
}
"""Name -> a function that returns for each kind a function that prepares its trials; and the number of trials."""


def attempt(trial, folder, seed):
    """Returns the outcome of a trial: held, unnoticed or ended before; otherwise a description of the failure."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            return trial(random.Random(seed), Path(place))
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            return " ".join(str(failure).split())[-300:]


def prepared(part, kind, folder):
    """Returns the trials of a part, or of one of its kinds."""
    return {name: prepare() for name, prepare in PARTS[part][0](Path(folder)).items() if kind in ("", name)}


def run_part(asked, given, seconds):
    """Returns the rows of a part: for each kind, the numbers of trials and their failures."""
    part, _, kind = asked.partition("/")
    rows, total = {}, PARTS[part][1]
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        trials = prepared(part, kind, folder)
        total = min(total, given.trials * len(trials))
        for kind in trials:
            rows[kind] = {
                "part": part,
                "kind": kind,
                "seed": given.seed,
                "trials": 0,
                "held": 0,
                "unnoticed": 0,
                "failures": [],
            }
        seeds = ((kind, f"{given.seed}/{part}/{kind}/{i}") for i in itertools.count() for kind in trials)
        at_once = 1 if part == "mutations" else len(os.sched_getaffinity(0))
        done = 0
        with tqdm(total=total, desc=part, disable=None) as bar, ThreadPoolExecutor(at_once) as pool:
            at_a_time = map if at_once == 1 else pool.map  # a process with other threads must not be forked
            while done < total and (time.monotonic() < deadline or not done):
                some = list(itertools.islice(seeds, min(at_once, total - done)))
                came = at_a_time(lambda each: attempt(trials[each[0]], folder, each[1]), some)
                for (kind, seed), what in zip(some, came, strict=True):
                    counted = note(rows[kind], seed, what)
                    done += counted
                    bar.update(counted)
    return list(rows.values())


def note(row, seed, what):
    """Adds the outcome of a trial to a row, and returns whether it counts as a trial."""
    if what == "ended before":
        return 0
    row["trials"] += 1
    if what in ("held", "unnoticed"):
        row[what] += 1
    else:
        row["failures"].append({"seed": seed, "what": what})
        tqdm.write(f"{seed}: {what}")
    return 1


def table(rows):
    print("\n| part | kind | trials | held | unnoticed | failed |\n|---|---|---:|---:|---:|---:|")
    for row in rows:
        counts = (row["trials"], row["held"], row["unnoticed"], len(row["failures"]))
        print(f"| {row['part']} | {row['kind']} | {' | '.join(map(str, counts))} |")


def keep(rows, given):
    """Writes the rows to the JSON file, and keeps its other rows, also those of other seeds."""
    before = json.loads(given.json.read_text())["rows"] if given.json.exists() else []
    new = {(row["part"], row["kind"], row["seed"]) for row in rows}
    rows = [row for row in before if (row["part"], row["kind"], row["seed"]) not in new] + rows
    rows = [row for row in rows if row["trials"]]
    sums = {}
    for row in rows:
        of_kind = sums.setdefault((row["part"], row["kind"]), {"trials": 0, "held": 0, "unnoticed": 0, "failed": 0})
        for name in ("trials", "held", "unnoticed"):
            of_kind[name] += row[name]
        of_kind["failed"] += len(row["failures"])
    sums = [{"part": part, "kind": kind, **counts} for (part, kind), counts in sums.items()]
    made = f"torch {torch.__version__}, python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores"
    given.json.write_text(json.dumps({"machine": made, "sums": sums, "rows": rows}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), help=f"{', '.join(PARTS)} or PART/KIND; all by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0, help="of all parts together")
    parser.add_argument("--trials", type=int, default=10**6, help="of each kind at most")
    parser.add_argument("--again", metavar="SEED", help="only the trial that has this seed, such as 0/kills/saving/7")
    parser.add_argument("--json", type=lambda name: Path(name).resolve(), help="also write the rows to this file")
    given = parser.parse_args()
    tqdm.monitor_interval = 0  # no thread for it: see at_a_time
    os.environ["OMP_NUM_THREADS"] = "1"  # for the commands; another order of summation gives other bits
    torch.set_num_threads(1)
    if given.again:
        _, part, kind, _ = given.again.split("/")
        with tempfile.TemporaryDirectory() as folder:
            print(attempt(prepared(part, kind, folder)[kind], folder, given.again))
        return
    if unknown := [part for part in given.parts if part.split("/")[0] not in PARTS]:
        parser.error(f"there is no part {unknown[0]}, only {', '.join(PARTS)}")
    rows, start = [], time.monotonic()
    for number, part in enumerate(given.parts):
        left = 60 * given.minutes - (time.monotonic() - start)
        rows += run_part(part, given, left / (len(given.parts) - number))
        if given.json:
            keep(rows, given)
    table(rows)
    sys.exit(any(row["failures"] for row in rows))


if __name__ == "__main__":
    main()
