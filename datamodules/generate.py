"""Generates datasets that look like DeepMind's.

python -m iodine_pl.datamodules.generate clevr --count 75120
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.shards import generate, generate_part
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator

__all__ = ["GENERATORS", "main"]

GENERATORS: Mapping[str, type[Generator]] = {
    "tetrominoes": TetrominoesGenerator,
    "multi_dsprites": MultiDSpritesGenerator,
    "clevr": ClevrGenerator,
}
"""What the command offers. The arguments of a class are its flags, and its docstring describes them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = ArgumentParser(
        prog="python -m iodine_pl.datamodules.generate",
        description="Generates a dataset in files of some thousand scenes each; started again it goes on.",
    )
    datasets = parser.add_subcommands(dest="dataset")
    for name, kind in GENERATORS.items():
        dataset = ArgumentParser()
        dataset.add_argument("--count", type=int, required=True, help="number of scenes")
        dataset.add_argument("--out", type=Path, default=Path("data"), help="folder for the folder of the files")
        dataset.add_argument("--processes", type=int, help="processes at once; as many as cores where that pays")
        dataset.add_argument("--part", help="I/N: only each N-th file from the I-th, to share the work among machines")
        dataset.add_class_arguments(kind)
        datasets.add_subcommand(name, dataset)
    chosen = parser.parse_args(arguments).as_dict()
    given = chosen[chosen["dataset"]]
    count, out, processes, part = (given.pop(key) for key in ("count", "out", "processes", "part"))
    generator = GENERATORS[chosen["dataset"]](**given)
    try:
        if part is None:
            files = generate(generator, out, count, processes)
            print(f"{count} scenes in {files[0].parent} ({len(files)} files)")
        else:
            number, parts = (int(word) for word in part.split("/"))
            generate_part(generator, out, count, number, parts)
    except SceneFileError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
