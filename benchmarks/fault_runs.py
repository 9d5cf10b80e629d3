"""Trials of faults.py with commands that are killed, stopped, or started twice."""

import os
import shutil
import signal
import time
from contextlib import suppress
from functools import partial

import h5py
import torch
from command import BAR, ROOT, TINY, start

STEPS = 27  # epochs of 10 updates on one process, 5 on two
TRAIN = [*TINY, BAR, "--trainer.devices=1", f"--trainer.max_steps={STEPS}"]
OFTEN = ["--last_checkpoint.every_n_train_steps=1"]
SECONDS = 300  # limit of a command; undisturbed on an idle machine it takes at most 20
CONVERTED = "converted.h5"
GENERATE = ["generate", "tetrominoes", "--count=15000", "--processes=1"]


class Work:
    """A command, with its undisturbed result and duration.

    Args:
        folder: where it runs undisturbed.
        arguments: of the command.
        contents: takes a folder, and returns name -> bytes of the command's results in it.
    """

    def __init__(self, folder, arguments, contents):
        self.arguments, self.contents = arguments, contents
        folder.mkdir()
        begin = time.monotonic()
        self.finish(folder, *arguments)
        self.seconds = time.monotonic() - begin
        self.expected = contents(folder)

    def finish(self, folder, *arguments):
        """Runs a command to its end, without an error."""
        process = start(*arguments, folder=folder)
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, f"exit {process.returncode}: {last_line(output)}"
        assert "Traceback" not in output, output

    def go_on(self, folder):
        """Repeats the command, or continues from a saved state, and compares the result."""
        saved = any(folder.glob("runs/*/*/checkpoints/last.ckpt"))
        if not (folder / CONVERTED).exists():  # it is complete or does not exist
            self.finish(folder, *(["--ckpt_path", "last"] if saved else self.arguments))
        self.compare(self.contents(folder))

    def compare(self, found):
        others = [n for n in self.expected.keys() | found.keys() if self.expected.get(n) != found.get(n)]
        assert not others, f"other bits: {sorted(others)[:3]}"


def last_line(output):
    return ([line for line in output.splitlines() if line.strip()] or ["nothing was printed"])[-1]


def leaves(value, name=""):
    """Returns name -> bytes of each tensor, number and string in nested collections."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {n: leaf for key, each in pairs for n, leaf in leaves(each, f"{name}/{key}").items()}
    return {name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()}


def of_run(run):
    """Returns what must be equal in two runs: weights, optimizer and schedules, and the best score."""
    last = torch.load(run / "checkpoints" / "last.ckpt")
    found = {key: last[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")}
    best = run / "checkpoints" / "best.ckpt"
    if best.exists():
        content = torch.load(best)
        score = content["callbacks"]["BestCheckpoint"]["best_model_score"]
        found["best"] = {"weights": content["state_dict"], "score": score}
    return leaves(found)


def of_newest_run(folder):
    saved = folder.glob("runs/*/*/checkpoints/last.ckpt")
    return of_run(max(saved, key=lambda path: path.stat().st_mtime_ns).parents[1])


def of_files(folder):
    """Returns the values in all HDF5 files, and ignores other files."""
    found = {}
    for path in folder.rglob("*.h5"):
        with h5py.File(path) as file:
            file.visititems(lambda name, each, path=path: found.update(_values(f"{path.name}/{name}", each)))
    left = [path.name for path in folder.rglob("*.partial")]
    assert not left, f"left behind: {left}"
    return found


def _values(name, each):
    return {name: each[()].tobytes()} if isinstance(each, h5py.Dataset) else {}


def kills(folder):
    source = folder / "many.tfrecords"
    source.write_bytes((ROOT / "tests/data/tetrominoes_mini.tfrecords").read_bytes() * 150)
    prepare = ["prepare", "tetrominoes", "--source", str(source), "--out", CONVERTED]
    works = {
        "training": (TRAIN, of_newest_run),
        "saving": ([*TRAIN, *OFTEN], of_newest_run),
        "starting": ([*TRAIN, "--trainer.max_steps=1"], of_newest_run),
        "workers": ([*TRAIN, *OFTEN, "--data.num_workers=2"], of_newest_run),
        "two processes": ([*TRAIN, *OFTEN, "--trainer.devices=2"], of_newest_run),
        "generating": (GENERATE, of_files),
        "converting": (prepare, of_files),
    }
    return {kind: partial(kill, folder / kind, *work) for kind, work in works.items()}


def kill(place, arguments, contents):
    work = Work(place, arguments, contents)

    def trial(rng, folder):
        process = start(*work.arguments, folder=folder)
        time.sleep(rng.uniform(0.05, work.seconds))
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            return "ended before"
        work.go_on(folder)
        return "held"

    return trial


def signals(folder):
    works = {"training": TRAIN, "two processes": [*TRAIN, "--trainer.devices=2"]}
    kinds = ((signum, name) for name in works for signum in (signal.SIGTERM, signal.SIGINT))
    return {f"{s.name}, {n}": partial(stop, folder / f"{s.name}, {n}", works[n], s) for s, n in kinds}


def stop(place, arguments, signum):
    """Sends a signal to the process, or to its group like a terminal, once the run has its folder."""
    work = Work(place, arguments, of_newest_run)

    def trial(rng, folder):
        process = start(*work.arguments, folder=folder)
        while not any(folder.glob("runs/*/*/config.yaml")):
            assert process.poll() is None, f"exit {process.returncode}: {last_line(process.communicate()[0])}"
            time.sleep(0.02)
        time.sleep(rng.uniform(0, work.seconds / 2))
        if process.poll() is not None:
            return "ended before"
        with suppress(ProcessLookupError):
            rng.choice([os.kill, os.killpg])(process.pid, signum)
        output, _ = process.communicate(timeout=SECONDS)
        if process.returncode == 0:
            return "ended before"
        assert "Traceback" not in output, f"a traceback: {last_line(output)}"
        assert process.returncode == 128 + signum, f"exit {process.returncode}: {last_line(output)}"
        assert f"stopped by {signum.name}" in output, f"does not say so: {last_line(output)}"
        work.go_on(folder)
        return "held"

    return trial


def pairs(folder):
    return {
        "two trainings": partial(two_trainings, folder / "whole"),
        "two that go on": partial(two_that_go_on, folder / "whole to go on to", folder / "half"),
    }


def both(rng, folder, *arguments):
    """Starts a command twice, up to half a second apart, and returns exit codes and what was printed."""
    first = start(*arguments, folder=folder)
    time.sleep(rng.uniform(0, 0.5))
    second = start(*arguments, folder=folder)
    output = [process.communicate(timeout=SECONDS)[0] for process in (first, second)]
    return [first.returncode, second.returncode], output


def two_trainings(place):
    whole = Work(place, TRAIN, of_newest_run)

    def trial(rng, folder):
        codes, output = both(rng, folder, *TRAIN)
        assert codes == [0, 0], f"exits {codes}: {[last_line(each) for each in output]}"
        runs = sorted(folder.glob("runs/*/*"))
        assert len(runs) == 2, f"{len(runs)} folders"
        for run in runs:
            whole.compare(of_run(run))
        return "held"

    return trial


def two_that_go_on(place, half):
    whole = Work(place, TRAIN, of_newest_run)
    half.mkdir()
    whole.finish(half, *TRAIN, "--trainer.max_steps=7")

    def trial(rng, folder):
        shutil.copytree(half, folder, dirs_exist_ok=True)
        codes, output = both(rng, folder, "--ckpt_path=last", f"--trainer.max_steps={STEPS}")
        whole.compare(of_newest_run(folder))
        if codes == [0, 0]:
            return "ended before"  # the second began after the first
        assert sorted(codes) == [0, 2], f"exits {codes}: {[last_line(each) for each in output]}"
        refused = output[codes.index(2)]
        assert "Traceback" not in refused, f"a traceback: {last_line(refused)}"
        assert last_line(refused).startswith("error: "), last_line(refused)
        return "held"

    return trial
