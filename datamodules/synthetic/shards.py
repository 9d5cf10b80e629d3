"""Writes generated scenes to files of some thousand each, with several processes; it can be resumed."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any, Protocol

from tqdm import tqdm

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.writer import MultiObjectWriter, stored_size
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.files.progress import progress_bar

__all__ = ["default_processes", "generate", "generate_part", "shards_of"]

_REFUSED = "refused: "  # prefix of a process's message to its parent


def shards_of(generator: Generator, folder: Path, count: int) -> list[Path]:
    """Returns the files of the first ``count`` scenes, whether they exist or not.

    A file with more scenes than needed is used too. One with fewer stays where it is, since another training may be
    about to open it.
    """
    files = []
    for start in range(0, count, generator.shard):
        stop = min(start + generator.shard, count)
        there = sorted((folder / generator.name).glob(f"{start:07d}-*.h5"))
        longer = [file for file in there if int(file.stem.split("-")[1]) >= stop - 1]
        files.append(longer[0] if longer else folder / generator.name / f"{start:07d}-{stop - 1:07d}.h5")
    return files


def default_processes(generator: Generator) -> int:
    """Returns the number of cores that this process may use, or 1 if more would not be faster.

    It is also 1 for a generator defined in the running script, which another process cannot import.
    """
    if not generator.parallel or type(generator).__module__ == "__main__":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def generate(
    generator: Generator, folder: Path, count: int, processes: int | None = None, first: int = 0
) -> list[Path]:
    """Writes the missing files of the first ``count`` scenes, and returns all files.

    Files that end before the scene ``first`` are left out, since a scene depends only on the seed and its position.

    Each file appears when it is complete, so an interrupted generation continues with its last file.

    Raises:
        SceneFileError: if the folder cannot be written to, or the disk has no space for the files.
        RuntimeError: if a started process failed; the message has its output.
    """
    files = shards_of(generator, folder, count)[first // generator.shard :]
    missing = [file for file in files if not file.exists()]
    if not missing:
        return files
    _ask_for_space(generator, missing)
    workers = min(default_processes(generator) if processes is None else processes, len(missing))
    if workers == 1:
        _write_all(generator, missing)
    else:
        with _progress(generator, missing) as progress:
            _in_processes(generator, [missing[i::workers] for i in range(workers)], progress)
    return files


def generate_part(generator: Generator, folder: Path, count: int, number: int, parts: int) -> None:
    """Writes part ``number`` of ``parts`` of the files of :func:`generate`, to divide the work among machines.

    Raises:
        SceneFileError: if the folder cannot be written to, or the disk has no space for the files.
    """
    missing = [file for file in shards_of(generator, folder, count)[number::parts] if not file.exists()]
    if missing:
        _ask_for_space(generator, missing)
    _write_all(generator, missing)


def _ask_for_space(generator: Generator, files: Sequence[Path]) -> None:
    """Checks in advance, from the size of the first scene, that the disk has space for all.

    Raises:
        SceneFileError: if it has not.
    """
    start, _ = _range_of(files[0])
    with redirect_stdout(sys.stderr):
        image, label, _ = next(iter(generator.scenes(start, start + 1)))
    scenes = sum(stop - start for start, stop in map(_range_of, files))
    needed = scenes * (stored_size(image) + stored_size(label))
    folder = files[0].parent
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    if free < needed:
        raise SceneFileError(
            f"{scenes} scenes take about {needed / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB "
            "left: free some, ask for fewer, or name another folder"
        )


def _write_all(generator: Generator, files: Sequence[Path]) -> None:
    with _progress(generator, files) as progress:
        for file in files:
            _write(generator, file, progress)


def _progress(generator: Generator, files: Sequence[Path]) -> tqdm[Any]:
    total = sum(stop - start for start, stop in map(_range_of, files))
    return progress_bar(total=total, desc=f"generating {generator.name}", unit=" scenes", smoothing=0.05)


def _range_of(file: Path) -> tuple[int, int]:
    first, last = file.stem.split("-")
    return int(first), int(last) + 1


class _Progress(Protocol):
    def update(self, count: int) -> Any: ...


def _write(generator: Generator, file: Path, progress: _Progress) -> None:
    start, stop = _range_of(file)
    source = f"generated: {generator.name}, scenes {start} to {stop - 1}"
    with MultiObjectWriter(file, generator.names, dataset=generator.name, source=source) as writer:
        for image, label, factors in generator.scenes(start, stop):
            writer.append(image, label, factors)
            progress.update(len(image))


def _in_processes(generator: Generator, shares: Sequence[Sequence[Path]], progress: tqdm[Any]) -> None:
    """Starts a process for each share of the files.

    Unlike a process pool, it does not run the calling script again, so the script needs no ``if __name__`` guard.
    """

    failed: list[int] = []  # numbers of processes, the first that failed first

    def follow(number: int) -> None:
        # Both streams are read to their end in any case, since a process blocks if nobody reads its output.
        for line in children[number].stdout or ():
            if line.strip().isdigit():
                progress.update(int(line))
        if children[number].wait():
            failed.append(number)
            for child in children:
                child.kill()

    def listen(number: int) -> None:
        for line in children[number].stderr or ():
            said[number].append(line)

    with ExitStack() as stack:
        children = [stack.enter_context(_started(generator, share)) for share in shares]
        said: list[deque[str]] = [deque(maxlen=200) for _ in shares]  # lines
        threads = [Thread(target=target, args=(i,)) for i in range(len(shares)) for target in (follow, listen)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            for child in children:
                child.kill()
            for thread in threads:
                thread.join()
    if failed:
        words = "".join(said[failed[0]])
        refused = re.search(rf"^{_REFUSED}(.*)$", words, re.MULTILINE)
        raise (
            SceneFileError(refused[1]) if refused else RuntimeError(f"a process that generated scenes failed:\n{words}")
        )


@contextmanager
def _started(generator: Generator, files: Sequence[Path]) -> Iterator[subprocess.Popen[str]]:
    """Starts a process that writes the files, and ends it when the block ends.

    Each line that it prints is the number of scenes made since the previous line.
    """
    command = [sys.executable, "-c", f"from {__name__} import _work; _work()"]
    # The generator is pickled separately, since the other process needs the import path before it unpickles it.
    order = (sys.path, pickle.dumps(generator), [file.absolute() for file in files])
    with TemporaryFile() as stdin:
        pickle.dump(order, stdin)
        stdin.seek(0)
        child = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _work() -> None:
    """Writes the files for :func:`_started`."""
    sys.path[:], pickled, files = pickle.load(sys.stdin.buffer)
    generator = pickle.loads(pickled)
    lines = _Lines(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):  # a generator's own output must not be read as a number of scenes
            for file in files:
                _write(generator, file, lines)
    except SceneFileError as error:
        sys.exit(f"{_REFUSED}{error}")


class _Lines:
    """Replaces the progress bar in a started process."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def update(self, count: int) -> None:
        print(count, file=self._out, flush=True)
