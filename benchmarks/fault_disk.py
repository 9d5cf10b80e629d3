"""Trials of faults.py with a disk that is full after a random number of bytes."""

import contextlib
import os
import subprocess
from functools import partial

import h5py
from command import start
from fault_runs import GENERATE, OFTEN, SECONDS, TRAIN, Work, last_line, leaves, of_files, of_newest_run

from iodine_pl.checkpoints.reading import read_file

SIZE = 64 << 20  # bytes of the disk


@contextlib.contextmanager
def mounted(folder):
    """Mounts a separate disk on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk(folder):
    if os.geteuid() != 0:
        print("disk: only root may mount one; left out")
        return {}
    run = ["--ckpt_path=last", "--data.num_test=4"]
    works = {
        "training": (TRAIN, of_newest_run, None),
        "saving": ([*TRAIN, *OFTEN, "--trainer.logger=false"], of_newest_run, None),
        "generating": (GENERATE, of_files, None),
        "exporting": (["export", "last", "--out=weights.ckpt"], of_weights, TRAIN),
        "predicting": (["predict", *run], of_predictions, TRAIN),
    }
    return {kind: partial(fill, folder / kind, *work) for kind, work in works.items()}


def of_weights(folder):
    return leaves(read_file(folder / "weights.ckpt"))


def of_predictions(folder):
    (path,) = folder.glob("runs/*/*/predictions.h5")
    with h5py.File(path) as file:
        return {name: each[()].tobytes() for name, each in file.items()}


def fill(place, arguments, contents, before):
    """Returns the trial of a command, after another one that runs while there is space."""
    work = Again(place, arguments, contents, before)

    def trial(rng, folder):
        with mounted(folder):
            if before is not None:
                work.finish(folder, *before)
            left = rng.randrange(max(4096, work.bytes))
            filler = folder / "filler"
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free(folder) - left)
            process = start(*work.arguments, folder=folder)
            output, _ = process.communicate(timeout=SECONDS)
            filler.unlink()
            if process.returncode == 0:
                return "ended before"
            lines = [line for line in output.splitlines() if line.startswith("error: ")]
            assert "Traceback" not in output, f"{left} bytes left, a traceback: {last_line(output)}"
            assert len(lines) == 1, f"{left} bytes left, exit {process.returncode}: {last_line(output)}"
            whole(folder)
            work.go_on(folder)
        return "held"

    return trial


class Again(Work):
    """A command that may need another one before it, and is repeated after an interruption."""

    def __init__(self, folder, arguments, contents, before):
        self.before = before
        super().__init__(folder, arguments, contents)

    def finish(self, folder, *arguments):
        if self.before is not None and not any(folder.iterdir()) and arguments is not self.before:
            super().finish(folder, *self.before)
        earlier = used(folder)
        super().finish(folder, *arguments)
        self.bytes = used(folder) - earlier

    def go_on(self, folder):
        if self.before is None:
            super().go_on(folder)
        else:
            self.finish(folder, *self.arguments)
            self.compare(self.contents(folder))


def used(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def whole(folder):
    """Reads every file with a final name."""
    for path in folder.rglob("*.ckpt"):
        read_file(path)
    for path in folder.rglob("*.h5"):
        h5py.File(path).close()
