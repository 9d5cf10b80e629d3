"""Generates datasets that look like DeepMind's, in shards, by several processes, resumable.

python -m iodine_pl.datamodules.generate clevr --count 75120
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from tqdm import tqdm

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.writer import MultiObjectWriter
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator

__all__ = ["default_processes", "generate", "main", "shards_of"]


def shards_of(generator: Generator, folder: Path, count: int) -> list[Path]:
    """Returns the files of the first ``count`` scenes, whether they are there or not.

    A file that goes further than needed serves as well.
    """
    files = []
    for start in range(0, count, generator.shard):
        stop = min(start + generator.shard, count)
        there = sorted((folder / generator.name).glob(f"{start:07d}-*.h5"))
        longer = [file for file in there if int(file.stem.split("-")[1]) >= stop - 1]
        files.append(longer[0] if longer else folder / generator.name / f"{start:07d}-{stop - 1:07d}.h5")
    return files


def default_processes(generator: Generator) -> int:
    """Returns the number of cores this process may use, or 1 where more would not pay."""
    if not generator.parallel:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def generate(generator: Generator, folder: Path, count: int, processes: int | None = None) -> list[Path]:
    """Writes those files of the first ``count`` scenes that are not there yet, and returns all of them.

    Each file appears when it is complete, so a generation that was interrupted goes on with the file it was at.

    Raises:
        SceneFileError: if the folder cannot be written to.
        RuntimeError: if another process that was started failed; with what it printed.
    """
    files = shards_of(generator, folder, count)
    missing = [file for file in files if not file.exists()]
    if not missing:
        return files
    workers = min(default_processes(generator) if processes is None else processes, len(missing))
    total = sum(_range_of(file)[1] - _range_of(file)[0] for file in missing)
    with tqdm(total=total, desc=f"generating {generator.name}", unit=" scenes", smoothing=0.05) as progress:
        if workers == 1:
            for file in missing:
                _write(generator, file, progress)
        else:
            _in_processes(generator, folder, count, workers, progress)
    return files


def _range_of(file: Path) -> tuple[int, int]:
    first, last = file.stem.split("-")
    return int(first), int(last) + 1


def _write(generator: Generator, file: Path, progress: tqdm[Any]) -> None:
    start, stop = _range_of(file)
    source = f"generated: {generator.name}, scenes {start} to {stop - 1}"
    with MultiObjectWriter(file, generator.names, dataset=generator.name, source=source) as writer:
        for image, label, factors in generator.scenes(start, stop):
            writer.append(image, label, factors)
            progress.update(len(image))
    for shorter in file.parent.glob(f"{start:07d}-*.h5"):
        if _range_of(shorter)[1] < stop:
            shorter.unlink()


def _in_processes(generator: Generator, folder: Path, count: int, workers: int, progress: tqdm[Any]) -> None:
    """Starts this module once for each part: unlike a process pool it asks nothing of the script that calls it."""
    command = [sys.executable, "-m", "iodine_pl.datamodules.generate", *generator.settings, "--count", str(count)]
    children = [
        subprocess.Popen(
            [*command, "--out", str(folder.absolute()), "--part", f"{i}/{workers}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(workers)
    ]
    errors = [""] * workers

    def follow(number: int) -> None:
        child = children[number]
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            progress.update(int(line))
        errors[number] = child.stderr.read()

    threads = [Thread(target=follow, args=(i,)) for i in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for child, error in zip(children, errors, strict=True):
            if child.wait():
                raise RuntimeError(f"a process that generated scenes failed:\n{error}")
    finally:
        for child in children:
            child.kill()
            child.communicate()


class _Lines:
    """Takes the place of a progress bar in a process that another one follows."""

    def update(self, count: int) -> None:
        print(count, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.datamodules.generate",
        description="Generates a dataset in files of some thousand scenes each; started again it goes on.",
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--count", type=int, required=True, help="number of scenes")
    common.add_argument("--out", type=Path, default=Path("data"), help="folder for the folder of the files (data)")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--processes", type=int, help="processes at once; as many as cores where that pays")
    common.add_argument("--part", help="I/N: only each N-th file from the I-th, to share the work among machines")
    pieces = commands.add_parser("tetrominoes", parents=[common])
    pieces.add_argument("--size", type=int, default=35, help="side of the images (35)")
    pieces.add_argument("--objects", type=int, default=3, help="pieces in a scene (3)")
    pieces.add_argument("--ambiguous", action="store_true", help="pieces of one color that touch")
    sprites = commands.add_parser("multi_dsprites", parents=[common])
    sprites.add_argument(
        "--variant",
        choices=["binarized", "colored_on_grayscale", "colored_on_colored"],
        default="colored_on_grayscale",
    )
    clevr = commands.add_parser("clevr", parents=[common])
    clevr.add_argument("--size", type=int, default=128, help="side of the images (128)")
    clevr.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    given = vars(parser.parse_args(arguments))
    dataset, count, out, processes, part = (given.pop(k) for k in ("dataset", "count", "out", "processes", "part"))
    kinds: dict[str, Callable[..., Generator]] = {
        "tetrominoes": TetrominoesGenerator,
        "multi_dsprites": MultiDSpritesGenerator,
        "clevr": ClevrGenerator,
    }
    generator = kinds[dataset](**given)
    try:
        if part is None:
            files = generate(generator, out, count, processes)
            print(f"{count} scenes in {files[0].parent} ({len(files)} files)")
        else:
            number, parts = (int(word) for word in part.split("/"))
            for file in shards_of(generator, out, count)[number::parts]:
                if not file.exists():
                    _write(generator, file, _Lines())  # type: ignore[arg-type]
    except SceneFileError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
