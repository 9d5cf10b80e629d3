"""Trials of faults.py with damaged files, each read by a process of its own with limited memory and time."""

import contextlib
import io
import os
import pickle
import resource
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from command import ROOT

sys.path.insert(0, str(ROOT / "tests" / "datamodules"))

import scene_files
from fault_runs import TRAIN, last_line, leaves

from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.cli import run_command
from iodine_pl.cli.errors import sentence_of
from iodine_pl.datamodules import SceneDataset
from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import TETROMINOES
from iodine_pl.official.reading import read_official

MEMORY = 1 << 30  # bytes that the process may take in addition
SECONDS = 60
HEAD = 2048  # bytes at both ends of a file, which get half of the damage, since the payload is larger


def checkpoint(path):
    return leaves(AtomicCheckpointIO().load_checkpoint(path))


def weights(path):
    return leaves(dict(load_model(path).state_dict()))


def scenes(path):
    dataset = SceneDataset(path)
    return leaves(dataset[list(range(len(dataset)))])


def records(path):
    out = path.with_name("out.h5")
    convert(path, out, TETROMINOES)
    return scenes(out)


def official(path):
    found = read_official(path.parent)
    return leaves({"arguments": found.arguments, "parameters": found.parameters, "moments": found.moments})


TOOLS = (weights, records, official)  # of decompose, prepare and convert


def configuration(path):
    """Returns the settings of a command that continues."""
    printed = io.StringIO()
    os.chdir(path.parent)
    with contextlib.redirect_stdout(printed):
        try:
            run_command(["fit", "--ckpt_path=checkpoints/last.ckpt", "--print_config"])
        except SystemExit as end:
            if end.code:
                raise
    return leaves(yaml.safe_load(printed.getvalue()))


def mutations(folder):
    os.chdir(folder)
    run_command(["fit", *TRAIN, "--trainer.max_steps=10"])
    (run,) = (folder / "runs" / "tetrominoes").iterdir()
    export_weights(run / "checkpoints" / "last.ckpt", folder / "weights.ckpt")
    scene_files.tetrominoes(folder / "blocks.h5", 130)
    scene_files.stored_singly(folder / "singly.h5")
    scene_files.npz(folder / "stored.npz")
    scene_files.npz(folder / "packed.npz", save=np.savez_compressed)
    data = ROOT / "tests" / "data"
    kinds = {  # file, what reads it, whether all of its content has checksums
        "checkpoint": (run / "checkpoints" / "last.ckpt", checkpoint, True),
        "exported weights": (folder / "weights.ckpt", weights, True),
        "HDF5 in blocks": (folder / "blocks.h5", scenes, False),
        "HDF5 singly": (folder / "singly.h5", scenes, False),
        "TFRecord": (data / "tetrominoes_mini.tfrecords", records, True),
        ".npz": (folder / "stored.npz", scenes, False),
        ".npz, compressed": (folder / "packed.npz", scenes, True),
        "TensorFlow index": (data / "checkpoint" / "model.ckpt-5.index", official, True),
        "TensorFlow data": (data / "checkpoint" / "model.ckpt-5.data-00000-of-00001", official, True),
        "config.yaml": (run / "config.yaml", configuration, False),
    }
    return {kind: partial(damage, *each) for kind, each in kinds.items()}


def damage(source, read, checked):
    """Returns the trial that reads a damaged copy of a file, with intact copies of the other files in its folder."""
    kind, expected = read_apart(read, source)
    assert kind == "content", expected

    def trial(rng, folder):
        for other in source.parent.iterdir() if source.parent.name in ("checkpoint", "version_0") else [source]:
            copy = shutil.copytree if other.is_dir() else shutil.copy
            copy(other, folder / other.name)
        path = folder / source.name
        how, content = mutated(rng, source.read_bytes())
        path.write_bytes(content)
        kind, found = read_apart(read, path)
        assert kind != "failed", f"{how}: {found}"
        if kind == "refused" or found == expected:
            return "held"
        names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        assert not checked, f"{how}: other content, unnoticed: {names[:3]}"
        return "unnoticed"

    return trial


def mutated(rng, content):
    """Returns a description of the damage, and the damaged content."""
    content = bytearray(content)

    def at():
        if rng.random() < 0.5:
            return rng.randrange(len(content))
        near = rng.randrange(min(HEAD, len(content)))
        return rng.choice([near, len(content) - 1 - near])

    start, count = at(), 2 ** rng.randrange(10)
    how = rng.choice(["bits flipped", "cut off", "zeroed", "inserted"])
    if how == "bits flipped":
        count = rng.randint(1, 8)
        for _ in range(count):
            content[at()] ^= 1 << rng.randrange(8)
    elif how == "cut off":
        del content[start:]
    elif how == "zeroed":
        content[start : start + count] = bytes(len(content[start : start + count]))
    else:
        content[start:start] = rng.randbytes(count)
    return f"{how} at {start} ({count})", bytes(content)


def read_apart(read, path):
    """Reads a file in a forked process, and returns ``content``, ``refused`` or ``failed`` with content or error."""
    out, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(out)
        with os.fdopen(theirs, "wb") as answer:
            pickle.dump(_read(read, path), answer)
            answer.flush()
            os._exit(0)
    os.close(theirs)
    with os.fdopen(out, "rb") as answer:
        content = answer.read()
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        return "failed", f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    return pickle.loads(content)


def _read(read, path):
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    try:
        return "content", read(path)
    except BaseException as error:  # any error is reported
        return judged(error, by_tool=read in TOOLS)


def judged(error, by_tool):
    """Tells whether a command reports an error in one line or with a traceback.

    Commands that call a function report every ValueError of a ``raise`` statement in one line. Lightning's commands
    report only errors with a class of their own in this way.
    """
    if isinstance(error, SystemExit):
        sentence = error.code if isinstance(error.code, str) else f"exit {error.code}"
    else:
        sentence = sentence_of(error, about_values=by_tool)
    if not sentence or "\n" in sentence:
        return "failed", f"{type(error).__name__}: {last_line(str(error))}"
    return "refused", sentence
