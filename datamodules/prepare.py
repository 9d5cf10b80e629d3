"""Downloads and converts DeepMind's datasets.

iodine prepare tetrominoes
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.files.download import Download

__all__ = ["prepare"]

_COMPRESSED = 1 / 8  # of flat sprites, at most; CLEVR is stored as it is
_ROOM = 2.0  # records need not be of one size all over the file


def prepare(
    release: Release,
    target: Path,
    source: str | Path | None = None,
    limit: int | None = None,
    size: int | None = None,
    keep: bool = False,
    least: int = 0,
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
        least: number of records that there must be.

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
        return convert(address, target, release, limit, size, least)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = target.with_name(f"{Path(address).name}.part")
    with Download(address, kept) as download:
        part = min(1.0, _ROOM * records / release.examples)
        rest = max(0, math.ceil((download.total or 0) * part) - download.here)
        _check_space(target, rest + _converted_bytes(release, records, size))
        count = convert(download, target, release, limit, size, least)
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


if __name__ == "__main__":
    from iodine_pl.cli import main

    sys.exit(main("prepare"))
