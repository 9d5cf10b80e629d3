"""Commands that make data files: ``prepare`` and ``generate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from iodine_pl.cli.parser import FunctionParser
from iodine_pl.datamodules import ClevrDataModule, MultiDSpritesDataModule, TetrominoesDataModule
from iodine_pl.datamodules import prepare as preparing
from iodine_pl.datamodules.deepmind.releases import CLEVR, MULTI_DSPRITES, TETROMINOES
from iodine_pl.datamodules.generate import GENERATORS
from iodine_pl.datamodules.synthetic import shards
from iodine_pl.datamodules.synthetic.multi_dsprites import Variant
from iodine_pl.errors import require

__all__ = ["generate", "prepare"]

_KINDS = {"tetrominoes": TetrominoesDataModule, "multi_dsprites": MultiDSpritesDataModule, "clevr": ClevrDataModule}


def prepare(
    dataset: Literal["tetrominoes", "multi_dsprites", "clevr"],
    source: str | None = None,
    limit: int | None = None,
    out: Path | None = None,
    keep: bool = False,
    variant: Variant | None = None,
    size: int | None = None,
) -> None:
    """Downloads the required part of one of DeepMind's datasets and converts it to HDF5.

    Args:
        dataset: tetrominoes, multi_dsprites or clevr.
        source: a local file or another address, instead of DeepMind's server.
        limit: number of records to convert, from the first; by default those of the published splits.
        out: the HDF5 file; data/NAME.h5 by default.
        keep: keep the downloaded file.
        variant: of Multi-dSprites; colored_on_grayscale by default.
        size: side of CLEVR's images in pixels; 128 by default.
    """
    if variant is not None and dataset != "multi_dsprites":
        raise ValueError(f"{dataset} has no variants: leave out --variant")
    if size is not None and dataset != "clevr":
        raise ValueError(f"{dataset} is never resized: leave out --size")
    require("at least 1", limit=limit, size=size)
    side = (128 if size is None else size) if dataset == "clevr" else None
    sprites = MULTI_DSPRITES["colored_on_grayscale" if variant is None else variant]
    release = {"tetrominoes": TETROMINOES, "multi_dsprites": sprites, "clevr": CLEVR}[dataset]
    target = out or Path("data") / f"{release.dataset}{'' if side is None else f'_{side}px'}.h5"
    records = _KINDS[dataset]().total if limit is None else limit
    count = preparing.prepare(release, target, source, records, side, keep, limit or 0)
    print(f"{count} records in {target}. Train on them by --data.path {target}")


def generate(arguments: Sequence[str], command: str) -> None:
    """Generates a dataset in files of some thousand scenes each; an interrupted command continues when run again.

    Args:
        arguments: of the command line; the options are the arguments of the generator.
        command: name of the command, for messages.
    """
    parser = FunctionParser(prog=command, description="Generates scenes in files of some thousand each.")
    datasets = parser.add_subcommands(dest="dataset")
    for name, kind in GENERATORS.items():
        dataset = FunctionParser()
        dataset.add_argument("--count", type=int, required=True, help="number of scenes")
        dataset.add_argument("--out", type=Path, default=Path("data"), help="folder for the folder of the files")
        dataset.add_argument("--processes", type=int, help="processes at once; as many as cores where that pays")
        dataset.add_argument("--part", help="I/N: only each N-th file from the I-th, to share the work among machines")
        dataset.add_class_arguments(kind)
        datasets.add_subcommand(name, dataset)
    chosen = parser.parse_args(arguments).as_dict()
    given = chosen[chosen["dataset"]]
    count, out, processes, part = (given.pop(key) for key in ("count", "out", "processes", "part"))
    require("at least 1", count=count, processes=processes)
    require("not negative", seed=given["seed"])
    generator = GENERATORS[chosen["dataset"]](**given)
    if part is None:
        files = shards.generate(generator, out, count, processes)
        print(f"{count} scenes in {files[0].parent} ({len(files)} files)")
    else:
        words = re.fullmatch(r"(\d+)/(\d+)", part)
        number, parts = (int(words[1]), int(words[2])) if words else (0, 0)
        if not number < parts:
            raise ValueError(f"part must be I/N with I from 0 to N-1, got {part}")
        shards.generate_part(generator, out, count, number, parts)
