"""Downloads and converts DeepMind's datasets.

python -m iodine_pl.datamodules.prepare tetrominoes
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from iodine_pl.datamodules.clevr import ClevrDataModule
from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import CLEVR, MULTI_DSPRITES, TETROMINOES, Release
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.multi_dsprites import MultiDSpritesDataModule
from iodine_pl.datamodules.tetrominoes import TetrominoesDataModule
from iodine_pl.files.download import Download, DownloadError
from iodine_pl.files.tensorflow.tfrecord import TFRecordError

__all__ = ["main", "prepare"]

_COMPRESSED = 1 / 8  # of flat sprites, at most; CLEVR is stored as it is
_ROOM = 2.0  # records need not be of one size all over the file


def prepare(
    release: Release,
    target: Path,
    source: str | Path | None = None,
    limit: int | None = None,
    size: int | None = None,
    keep: bool = False,
) -> int:
    """Converts a release to an HDF5 file and returns the number of records.

    From a server only as much is fetched as the records need. If that is interrupted, what has come stays beside the
    target, and the same call goes on with it.

    Args:
        release: what the file holds.
        target: the HDF5 file.
        source: a file or an address; None: DeepMind's server.
        limit: number of records, from the first; None for all.
        size: of CLEVR, cropped and resized to so many pixels.
        keep: keep what was downloaded.

    Raises:
        DownloadError: if the server does not send what it should.
        TFRecordError: if that is damaged or something else.
        SceneFileError: if there is no space, or the target is there already or cannot be written.
        FileNotFoundError: if there is no such source.
    """
    if target.exists():
        raise SceneFileError(f"{target} is there already: delete it, or name another file by --out")
    address = release.url if source is None else str(source)
    records = release.examples if limit is None else limit
    if "://" not in address:
        _check_space(target, _converted_bytes(release, records, size))
        return convert(address, target, release, limit, size)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = target.with_name(f"{Path(address).name}.part")
    with Download(address, kept) as download:
        part = min(1.0, _ROOM * records / release.examples)
        rest = max(0, math.ceil((download.total or 0) * part) - download.here)
        _check_space(target, rest + _converted_bytes(release, records, size))
        count = convert(download, target, release, limit, size)
    if not keep:
        kept.unlink()
    return count


def _converted_bytes(release: Release, records: int, size: int | None) -> int:
    rows, columns, channels = release.features["image"].shape
    if size is not None:
        return records * size * size * (channels + 1)
    return math.ceil(records * rows * columns * (channels + 1) * _COMPRESSED)


def _check_space(target: Path, needed: int) -> None:
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SceneFileError(
            f"{folder} has {free / 1e9:.1f} GB left, but some {needed / 1e9:.1f} GB are needed. Free some, name "
            "another folder by --out, or take fewer records by --limit"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.datamodules.prepare",
        description="Downloads a dataset of DeepMind's as far as it is needed and converts it to HDF5.",
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--source", help="a file that you have, or another address (DeepMind's server)")
    common.add_argument("--limit", type=int, help="records, from the first (those of the published splits)")
    common.add_argument("--out", type=Path, help="the HDF5 file (data/NAME.h5)")
    common.add_argument("--keep", action="store_true", help="keep what was downloaded")
    commands.add_parser("tetrominoes", parents=[common])
    sprites = commands.add_parser("multi_dsprites", parents=[common])
    sprites.add_argument("--variant", choices=list(MULTI_DSPRITES), default="colored_on_grayscale")
    clevr = commands.add_parser("clevr", parents=[common])
    clevr.add_argument("--size", type=int, default=128, help="side of the images (128)")
    given = parser.parse_args(arguments)
    size = getattr(given, "size", None)
    releases = {"tetrominoes": TETROMINOES, "clevr": CLEVR}
    release = releases.get(given.dataset) or MULTI_DSPRITES[given.variant]
    kinds = {"tetrominoes": TetrominoesDataModule, "multi_dsprites": MultiDSpritesDataModule, "clevr": ClevrDataModule}
    limit = kinds[given.dataset]().total if given.limit is None else given.limit
    target = given.out or Path("data") / f"{release.dataset}{'' if size is None else f'_{size}px'}.h5"
    try:
        count = prepare(release, target, given.source, limit, size, given.keep)
    except (DownloadError, TFRecordError, SceneFileError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} records in {target}. Train on them by --data.path {target}")


if __name__ == "__main__":
    main()
